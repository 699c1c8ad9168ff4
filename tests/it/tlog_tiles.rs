//! `kiki::tlog` against an independent implementation, the crate `tlog_tiles`: the same paths, the same tiles, and
//! proofs that either side makes from the other's tiles and checks.

use std::str::FromStr as _;

use kiki::tlog::tile::{self, Kind, Tile, WIDTH};
use kiki::tlog::{Hash, Tree, leaf_hash, verify_consistency, verify_inclusion};
use tlog_tiles::tlog::{self, HashReader};
use tlog_tiles::{Tile as Theirs, TileHashReader, TileReader};

/// Sizes on and around the edges of tiles of both stored levels, and some within.
const SIZES: [u64; 14] = [1, 2, 3, 7, 64, 255, 256, 257, 511, 512, 1_000, 65_535, 65_536, 66_049];

/// Their path of a tile of height 8 says the height, and calls entries data.
fn ours(theirs: &Theirs) -> Tile {
    let path = theirs.path().replacen("tile/8/", "tile/", 1).replacen("/data/", "/entries/", 1);
    Tile::from_str(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Our tree, read by their code tile by tile.
struct Served<'a>(&'a Tree);

impl TileReader for Served<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Theirs]) -> Result<Vec<Vec<u8>>, tlog::Error> {
        Ok(tiles.iter().map(|tile| self.0.tile(&ours(tile)).unwrap()).collect())
    }

    fn save_tiles(&self, _: &[Theirs], _: &[Vec<u8>]) {}
}

fn tree(size: u64) -> Tree {
    (0..size).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

fn plain(proof: &[tlog::Hash]) -> Vec<Hash> {
    proof.iter().map(|hash| hash.0).collect()
}

#[test]
fn paths_and_new_tiles_are_those_of_an_independent_implementation() {
    let mut compared = 0;
    for (old, new) in SIZES.iter().flat_map(|old| SIZES.iter().map(move |new| (*old - 1, *new))).filter(|(old, new)| old < new) {
        let theirs: Vec<Tile> = Theirs::new_tiles(8, old, new).iter().map(ours).collect();
        let mine: Vec<Tile> = tile::added(old, new).filter(|tile| tile.kind() != Kind::Entries).collect();
        assert_eq!(mine, theirs, "{old} to {new}");
        compared += mine.len();
    }
    for n in [0, 1, 999, 1_000, 1_234_067, (1 << 56) - 1] {
        for width in [1, 17, 255, 256] {
            let theirs = Theirs::new(8, 0, n, width, true);
            assert_eq!(ours(&theirs), Tile::new(Kind::Entries, n, width as u16).unwrap());
            compared += 1;
        }
    }
    println!("{compared} tiles and paths as tlog_tiles has them");
    assert!(compared > 1_000);
}

#[test]
fn their_proofs_from_our_tiles_are_our_proofs() {
    let whole = tree(66_049);
    let (mut inclusion, mut consistency) = (0, 0);
    for size in SIZES {
        let root = whole.root_at(size).unwrap();
        let served = Served(&whole);
        let reader = TileHashReader::new(size, tlog::Hash(root), &served);
        assert_eq!(tlog::tree_hash(size, &reader).unwrap().0, root);
        let near = [0, 1, size / 3, size / 2, (size - 1) / WIDTH * WIDTH, size - 1];
        for index in near.into_iter().filter(|index| *index < size) {
            let leaf = whole.leaf(index).unwrap();
            let proof = tlog::prove_record(size, index, &reader).unwrap();
            assert_eq!(plain(&proof), whole.inclusion_proof(index, size).unwrap(), "{index} in {size}");
            verify_inclusion(&leaf, index, size, &plain(&proof), &root).unwrap();
            tlog::check_record(&proof, size, tlog::Hash(root), index, tlog::Hash(leaf)).unwrap();
            inclusion += 1;
        }
        for old in SIZES.into_iter().filter(|old| *old <= size) {
            let before = whole.root_at(old).unwrap();
            let proof = tlog::prove_tree(size, old, &reader).unwrap();
            assert_eq!(plain(&proof), whole.consistency_proof(old, size).unwrap(), "{old} to {size}");
            verify_consistency(old, size, &plain(&proof), &before, &root).unwrap();
            tlog::check_tree(&proof, size, tlog::Hash(root), old, tlog::Hash(before)).unwrap();
            consistency += 1;
        }
    }
    println!("{inclusion} inclusion and {consistency} consistency proofs as tlog_tiles makes and checks them");
    assert!(inclusion > 50 && consistency > 50);
}

#[test]
fn a_flipped_bit_in_a_tile_is_found_by_their_reader() {
    struct Flipped<'a>(&'a Tree);
    impl TileReader for Flipped<'_> {
        fn height(&self) -> u8 {
            8
        }
        fn read_tiles(&self, tiles: &[Theirs]) -> Result<Vec<Vec<u8>>, tlog::Error> {
            let mut tiles = Served(self.0).read_tiles(tiles)?;
            tiles[0][0] ^= 1;
            Ok(tiles)
        }
        fn save_tiles(&self, _: &[Theirs], _: &[Vec<u8>]) {}
    }
    let whole = tree(1_000);
    let flipped = Flipped(&whole);
    let reader = TileHashReader::new(1_000, tlog::Hash(whole.root()), &flipped);
    assert!(reader.read_hashes(&[0]).is_err());
}
