//! A seeded mutator of bytes that knows a little of JSON: most of what it makes is still a document.

/// Values that readers have stumbled over.
const VALUES: [&str; 40] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "2",
    "3",
    "-1",
    "1.5",
    "600.0",
    "1e3",
    "1e999",
    "-0",
    "-0.0",
    "0.1",
    "1e-7",
    "5e-324",
    "1.7976931348623157e308",
    "3.0000001",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "12345678901234567890123",
    r#""""#,
    r#""1""#,
    r#""600""#,
    r#""x""#,
    r#""\u00e9\n""#,
    r#""\ud800""#,
    r#""\ud83d\ude00""#,
    "[]",
    "{}",
    "[1]",
    r#"["a"]"#,
    "[null]",
    "[[]]",
    "[{}]",
    r#"{"id":"1"}"#,
    r#"{"w":1,"h":1}"#,
    r#"{"assets":[{"id":1,"title":{}}]}"#,
];

/// SplitMix64 (Steele, Lea and Flood 2014) and what is made with it.
pub(super) struct Mutator(u64);

impl Mutator {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of 0..`below`; 0 of none.
    pub(super) fn below(&mut self, below: usize) -> usize {
        usize::try_from(self.next() % (below.max(1) as u64)).unwrap()
    }

    pub(super) fn one_of<'t, T>(&mut self, list: &'t [T]) -> &'t T {
        &list[self.below(list.len())]
    }

    /// Bytes changed, cut, repeated, or taken over from another input.
    pub(super) fn bytes(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.one_of(seeds).clone();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            let end = (at + self.below(24)).min(bytes.len());
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 => drop(bytes.drain(at..end)),
                3 => bytes.splice(at..at, bytes[at..end].to_vec()).for_each(drop),
                _ => {
                    let other = self.one_of(seeds);
                    let from = self.below(other.len());
                    let to = (from + self.below(40)).min(other.len());
                    drop(bytes.splice(at..at, other[from..to].iter().copied()));
                }
            }
        }
        bytes
    }

    /// A document with a value replaced, a member repeated elsewhere, or a few bytes wrong.
    pub(super) fn json(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        if self.below(8) == 0 {
            return self.bytes(seeds);
        }
        let mut bytes = self.one_of(seeds).clone();
        for _ in 0..=self.below(3) {
            let starts = places(&bytes, b':');
            let commas = places(&bytes, b',');
            if self.below(3) > 0 && !starts.is_empty() {
                let start = *self.one_of(&starts) + 1;
                let end = value_end(&bytes, start);
                drop(bytes.splice(start..end, self.one_of(&VALUES).bytes()));
            } else if commas.len() > 1 {
                let from = self.below(commas.len() - 1);
                let member = bytes[commas[from]..commas[from + 1]].to_vec();
                let to = *self.one_of(&commas);
                drop(bytes.splice(to..to, member));
            }
        }
        bytes
    }
}

fn places(bytes: &[u8], of: u8) -> Vec<usize> {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == of).map(|(at, _)| at).collect()
}

/// Where the value that starts here ends, as far as brackets tell.
fn value_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return at,
            _ => {}
        }
    }
    bytes.len()
}
