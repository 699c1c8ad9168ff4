//! Tiles: the tree and its leaves as a finite set of files that never change, as [C2SP tlog-tiles] has them.
//!
//! A hash tile is up to 256 neighbouring hashes of every eighth level of the tree: `tile/<level>/<n>`. An entry
//! bundle is up to 256 neighbouring leaves, each behind its length as a big-endian u16: `tile/entries/<n>`. The last
//! one of a level is partial, with its width in its path, `.p/<width>`, so that its content is fixed too. Whoever has
//! the tiles of a checkpoint's size can make every proof under it without asking anybody.
//!
//! Nothing here reads a file. A [`Tile`] is a name; [`super::Tree::tile`] gives the bytes of one that holds hashes.
//!
//! [C2SP tlog-tiles]: https://c2sp.org/tlog-tiles

use std::{fmt, str::FromStr};

use super::{Hash, Tree};

/// Hashes in a full tile, leaves in a full bundle.
pub const WIDTH: u64 = 256;
/// Levels of the tree that a tile spans.
pub const HEIGHT: u32 = 8;
/// The longest leaf that its length in a bundle can tell.
pub const MAX_ENTRY: usize = u16::MAX as usize;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Hashes, each over `256^level` leaves.
    Hashes(u8),
    /// The leaves themselves.
    Entries,
}

/// The name of a tile. Its text form (`Display`, `FromStr`) is its path below the log's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    kind: Kind,
    n: u64,
    width: u16,
}

/// Why a path or a bundle is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The path is not that of a tile, or not in its one form.
    #[error("not the path of a tile")]
    Path,
    /// A bundle ends within an entry, or within its length.
    #[error("bundle is cut off in entry {0}")]
    Torn(usize),
    /// A bundle never has more than 256 entries.
    #[error("bundle has more than 256 entries")]
    TooMany,
    /// An entry is longer than its length can tell.
    #[error("entry of {0} bytes is over the limit of 65535")]
    TooLong(usize),
}

impl Tile {
    /// The `n`-th tile of a kind, where its width is 1 to 256 and no leaf of it lies beyond 2^64.
    #[must_use]
    pub fn new(kind: Kind, n: u64, width: u16) -> Option<Self> {
        let level = if let Kind::Hashes(level) = kind { u32::from(level) } else { 0 };
        // Every leaf index below the tile fits in 64 bits: n < 2^(64 - 8 * (level + 1)).
        let fits = (level + 1).checked_mul(HEIGHT).is_some_and(|bits| bits <= 64 && n.checked_shr(64 - bits).unwrap_or(0) == 0);
        (fits && (1..=WIDTH).contains(&width.into())).then_some(Self { kind, n, width })
    }

    /// What it holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its number within its level, from 0.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    /// How many hashes or leaves it has, 1 to 256.
    #[must_use]
    pub fn width(&self) -> u64 {
        self.width.into()
    }

    /// Whether it has all of its 256.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.width() == WIDTH
    }

    /// The first hash of its level, or the first leaf, that it holds.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.n * WIDTH
    }

    /// Whether a tree of this size has all that it holds.
    #[must_use]
    pub fn is_in(&self, size: u64) -> bool {
        self.start() + self.width() <= self.kind.count(size)
    }

    /// The full tile that takes its place once the tree has grown.
    #[must_use]
    pub fn full(&self) -> Self {
        Self { width: WIDTH as u16, ..*self }
    }
}

impl Kind {
    /// How many hashes or leaves of this kind a tree of `size` has.
    fn count(self, size: u64) -> u64 {
        match self {
            Self::Hashes(level) => size.checked_shr(u32::from(level) * HEIGHT).unwrap_or(0),
            Self::Entries => size,
        }
    }

    /// Every kind of which a tree of `size` has tiles: entries, then hashes from the leaves up.
    fn of_size(size: u64) -> impl Iterator<Item = Self> {
        let hashes = (0..8).map(Self::Hashes).take_while(move |kind| kind.count(size) > 0);
        (size > 0).then_some(Self::Entries).into_iter().chain(hashes)
    }
}

/// The tiles that a tree of `new` leaves has and one of `old` leaves has not: full ones, and of each level the last,
/// where it is partial. Level by level, entries first.
pub fn added(old: u64, new: u64) -> impl Iterator<Item = Tile> {
    Kind::of_size(new).flat_map(move |kind| {
        let (before, after) = (kind.count(old), kind.count(new));
        let partial = Some((after % WIDTH) as u16).filter(|width| *width > 0 && after != before);
        let full = (before / WIDTH..after / WIDTH).map(move |n| Tile { kind, n, width: WIDTH as u16 });
        full.chain(partial.map(|width| Tile { kind, n: after / WIDTH, width }))
    })
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Hashes(level) => write!(f, "tile/{level}/")?,
            Kind::Entries => write!(f, "tile/entries/")?,
        }
        // Groups of three digits; 2^56 tiles take six.
        let groups = (self.n.max(1).ilog10() / 3).min(6);
        for group in (1..=groups).rev() {
            write!(f, "x{:03}/", self.n / 1_000u64.pow(group) % 1_000)?;
        }
        write!(f, "{:03}", self.n % 1_000)?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

impl FromStr for Tile {
    type Err = Error;

    fn from_str(path: &str) -> Result<Self, Error> {
        let rest = path.strip_prefix("tile/").ok_or(Error::Path)?;
        let (kind, rest) = rest.split_once('/').ok_or(Error::Path)?;
        let kind = if kind == "entries" { Kind::Entries } else { Kind::Hashes(kind.parse().map_err(|_| Error::Path)?) };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().map_err(|_| Error::Path)?),
            None => (rest, WIDTH as u16),
        };
        let mut n = 0u64;
        for group in number.split('/') {
            let group: u64 = group.strip_prefix('x').unwrap_or(group).parse().map_err(|_| Error::Path)?;
            n = n.checked_mul(1_000).and_then(|n| n.checked_add(group)).ok_or(Error::Path)?;
        }
        let tile = Self::new(kind, n, width).ok_or(Error::Path)?;
        // One form: no signs, no other zeroes, an x where it belongs, no full width spelled out.
        if tile.to_string() == path { Ok(tile) } else { Err(Error::Path) }
    }
}

impl Tree {
    /// The bytes of a tile of hashes; none for entries, and where the tree has not grown to it.
    #[must_use]
    pub fn tile(&self, tile: &Tile) -> Option<Vec<u8>> {
        let Kind::Hashes(level) = tile.kind else { return None };
        let hashes = tile.is_in(self.size()).then(|| self.hashes(level.into()))?;
        let start = usize::try_from(tile.start()).ok()?;
        Some(hashes.get(start..start + usize::from(tile.width))?.concat())
    }
}

/// The hashes of a tile's bytes; none where they are not whole.
#[must_use]
pub fn hashes(bytes: &[u8]) -> Option<&[Hash]> {
    let (hashes, rest) = bytes.as_chunks();
    rest.is_empty().then_some(hashes)
}

/// The bytes of a bundle of these leaves.
///
/// # Errors
/// More than 256 leaves, or one that is longer than 65,535 bytes.
pub fn bundle<'a>(leaves: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>) -> Result<Vec<u8>, Error> {
    let leaves = leaves.into_iter();
    // One of decisions has some megabytes, which would be copied each time that they grow.
    let mut bytes = Vec::with_capacity(leaves.clone().take(WIDTH as usize).map(|leaf| leaf.len() + 2).sum());
    for (i, leaf) in leaves.enumerate() {
        if i as u64 == WIDTH {
            return Err(Error::TooMany);
        }
        let len = u16::try_from(leaf.len()).map_err(|_| Error::TooLong(leaf.len()))?;
        bytes.extend(len.to_be_bytes());
        bytes.extend(leaf);
    }
    Ok(bytes)
}

/// The leaves of a bundle's bytes.
///
/// # Errors
/// A bundle that is cut off, or has more than 256 leaves.
pub fn entries(mut bundle: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let mut leaves = Vec::new();
    while !bundle.is_empty() {
        if leaves.len() as u64 == WIDTH {
            return Err(Error::TooMany);
        }
        let (len, rest) = bundle.split_first_chunk().ok_or(Error::Torn(leaves.len()))?;
        let (leaf, rest) = rest.split_at_checked(u16::from_be_bytes(*len).into()).ok_or(Error::Torn(leaves.len()))?;
        leaves.push(leaf);
        bundle = rest;
    }
    Ok(leaves)
}

#[cfg(test)]
mod tests;
