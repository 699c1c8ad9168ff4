//! Protobuf, read where it stands: what comes with every bid would otherwise be copied, text by text, into a message of prost's.
//!
//! A reader of a message says nothing (`None`) of what is wrong with it and of what is rare, such as a group among unknown fields;
//! prost reads those, and its word counts.

/// A field's kind: a number of up to 64 bits. The kinds are those of the protobuf encoding; 3 and 4 are of groups.
pub const VARINT: u8 = 0;
/// A field's kind: eight bytes.
pub const EIGHT: u8 = 1;
/// A field's kind: a length, and as many bytes.
pub const BYTES: u8 = 2;
/// A field's kind: four bytes.
pub const FOUR: u8 = 5;

/// What is left of a message.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'m>(pub &'m [u8]);

impl<'m> Reader<'m> {
    /// The next field's number and kind; none inside at the end.
    pub fn key(&mut self) -> Option<Option<(u32, u8)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let key = u32::try_from(self.varint()?).ok()?;
        let (number, kind) = (key >> 3, (key & 7) as u8);
        (number > 0).then_some(Some((number, kind)))
    }

    /// The rest of a number.
    pub fn varint(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        let mut value = u64::from(first & 0x7f);
        if *first < 0x80 {
            return Some(value);
        }
        for shift in (7..70).step_by(7) {
            let (next, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(next & 0x7f) << shift;
            if *next < 0x80 {
                // The tenth byte has one bit left.
                return (shift < 63 || *next < 2).then_some(value);
            }
        }
        None
    }

    /// The rest of a field of bytes, or of a message.
    pub fn bytes(&mut self) -> Option<&'m [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.take(len)
    }

    /// The rest of a field of text.
    pub fn text(&mut self) -> Option<&'m str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// Passes the rest of a field over.
    pub fn skip(&mut self, kind: u8) -> Option<()> {
        match kind {
            VARINT => self.varint().map(drop),
            EIGHT => self.take(8).map(drop),
            BYTES => self.bytes().map(drop),
            FOUR => self.take(4).map(drop),
            _ => None,
        }
    }

    fn take(&mut self, len: usize) -> Option<&'m [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}
