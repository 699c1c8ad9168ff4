#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::tlog::leaf_hash;

fn tile(kind: Kind, n: u64, width: u16) -> Tile {
    Tile::new(kind, n, width).unwrap()
}

#[test]
fn paths_are_those_of_the_specification() {
    for (path, want) in [
        ("tile/0/x001/x234/067", tile(Kind::Hashes(0), 1_234_067, 256)),
        ("tile/0/000", tile(Kind::Hashes(0), 0, 256)),
        ("tile/2/000.p/1", tile(Kind::Hashes(2), 0, 1)),
        ("tile/entries/x273/112.p/255", tile(Kind::Entries, 273_112, 255)),
        ("tile/entries/x072/x057/x594/x037/x927/935", tile(Kind::Entries, u64::MAX >> 8, 256)),
    ] {
        assert_eq!(want.to_string(), path);
        assert_eq!(path.parse(), Ok(want));
    }
}

#[test]
fn a_path_has_one_form() {
    for bad in [
        "",
        "tile/",
        "tile/0",
        "tile/0/",
        "tile/00/000",
        "tile/+0/000",
        "tile/8/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000/",
        "tile/0/../000",
        "tile/data/000",
        "tile/entries/x072/x057/x594/x037/x927/936",
        "tile/7/001",
        "/tile/0/000",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(bad.parse::<Tile>(), Err(Error::Path), "{bad}");
    }
}

#[test]
fn a_tree_of_70000_has_the_tiles_that_the_specification_counts() {
    let tiles: Vec<Tile> = added(0, 70_000).filter(|tile| tile.kind() != Kind::Entries).collect();
    let full = |level| tiles.iter().filter(|tile| tile.kind() == Kind::Hashes(level) && tile.is_full()).count();
    assert_eq!([full(0), full(1), full(2)], [273, 1, 0]);
    let partial: Vec<String> = tiles.iter().filter(|tile| !tile.is_full()).map(ToString::to_string).collect();
    assert_eq!(partial, ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
    let small: Vec<String> = added(0, 256).map(|tile| tile.to_string()).collect();
    assert_eq!(small, ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
}

#[test]
fn a_tile_of_hashes_hashes_into_the_tile_above() {
    let tree: Tree = (0..700u64).map(|i| leaf_hash(&i.to_be_bytes())).collect();
    let above = tree.tile(&tile(Kind::Hashes(1), 0, 2)).unwrap();
    for (n, root) in hashes(&above).unwrap().iter().enumerate() {
        let below = tree.tile(&tile(Kind::Hashes(0), n as u64, 256)).unwrap();
        assert_eq!(hashes(&below).unwrap().iter().copied().collect::<Tree>().root(), *root);
    }
    assert_eq!(tree.tile(&tile(Kind::Hashes(0), 2, 189)), None, "700 leaves are 2 * 256 + 188");
    assert_eq!(tree.tile(&tile(Kind::Hashes(2), 0, 1)), None);
    assert_eq!(tree.tile(&tile(Kind::Entries, 0, 1)), None);
}

#[test]
fn a_bundle_refuses_what_its_form_cannot_say() {
    assert_eq!(bundle([&[0u8; 65_536][..]]), Err(Error::TooLong(65_536)));
    assert_eq!(bundle([&[][..]; 257]), Err(Error::TooMany));
    assert_eq!(entries(&[0; 2 * 257]), Err(Error::TooMany));
    assert_eq!(entries(&[0, 1, 7, 0]), Err(Error::Torn(1)));
    assert_eq!(entries(&[0, 1, 7, 0, 2, 1]), Err(Error::Torn(1)));
    assert_eq!(bundle([&b"ab"[..], b""]).unwrap(), [0, 2, b'a', b'b', 0, 0]);
}

proptest! {
    #[test]
    fn every_tile_comes_back_from_its_path(level in 0u8..8, n in any::<u64>(), width in 1u16..=256, entries in any::<bool>()) {
        let n = n >> (8 * (u32::from(level) + 1)).min(63);
        let kind = if entries { Kind::Entries } else { Kind::Hashes(level) };
        let tile = Tile::new(kind, n, width);
        prop_assume!(tile.is_some());
        prop_assert_eq!(tile.unwrap().to_string().parse(), Ok(tile.unwrap()));
    }

    #[test]
    fn arbitrary_paths_do_not_panic(path in "tile/([0-9]{1,3}|entries)/(x[0-9]{3}/){0,8}[0-9]{3}(\\.p/[0-9]{1,3})?") {
        if let Ok(tile) = path.parse::<Tile>() {
            prop_assert_eq!(tile.to_string(), path);
        }
    }

    #[test]
    fn what_is_added_step_by_step_covers_the_tree(steps in prop::collection::vec(0u64..2_000, 1..8)) {
        let mut have = std::collections::BTreeSet::new();
        let mut size = 0;
        for step in steps {
            have.extend(added(size, size + step));
            size += step;
            prop_assert!(added(0, size).all(|tile| have.contains(&tile)), "at {}", size);
            prop_assert!(have.iter().all(|tile| tile.is_in(size)));
        }
    }

    #[test]
    fn leaves_come_back_from_their_bundle(leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..=256)) {
        let bytes = bundle(leaves.iter().map(Vec::as_slice)).unwrap();
        prop_assert_eq!(entries(&bytes).unwrap(), leaves);
    }
}
