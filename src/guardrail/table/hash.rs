//! A quick hash for the table's look-ups. Its keys are the operator's own; what a request brings is only looked up, so
//! nobody can fill a bucket from outside.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map of the table.
pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Words>>;

/// A set of the table.
pub(super) type Set<K> = HashSet<K, BuildHasherDefault<Words>>;

/// Multiplies eight bytes at a time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Words(u64);

impl Words {
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Words {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.word(u64::from_le_bytes(word.try_into().unwrap_or_default()));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            self.word(rest.iter().fold(rest.len() as u64, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26) // the product's high bits are its best, and a map looks at the low ones
    }
}
