//! Records in a file: each in a frame that says how long it is and whether it is whole.
//!
//! ```text
//! len u32le | crc32c u32le, over the 4 bytes of len and then the payload | payload
//! ```
//!
//! The checksum covers the length, so that a damaged length is not taken for a torn end where it can be
//! told; and it is never 0 for an empty payload, so a stretch of zeroes (a file grown but not written) is
//! not a row of empty frames. It is against accidents; against people there are signatures.
//!
//! Whether a bad frame is the torn end of the last write, or damage in the middle, [`Scanner`] cannot tell:
//! [`valid_frame_behind`] can. It knows nothing of files.

/// The largest payload in bytes: the largest leaf that a C2SP tile bundle can hold, whose lengths are u16.
pub const MAX_PAYLOAD: usize = 65_535;

/// The bytes before a payload.
pub const HEADER: usize = 8;

/// A payload over [`MAX_PAYLOAD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("payload of {len} bytes is over the limit of {MAX_PAYLOAD}")]
pub struct PayloadTooLong {
    /// Its length in bytes.
    pub len: usize,
}

/// A place where there should be a frame and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad frame at byte {offset}: {why}")]
pub struct Bad {
    /// Where the frame starts.
    pub offset: usize,
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The bytes end before the frame does.
    #[error("it is cut short")]
    Torn,
    /// Its length is over [`MAX_PAYLOAD`].
    #[error("its length is over the limit of {MAX_PAYLOAD}")]
    TooLong,
    /// Its checksum does not fit its length and payload.
    #[error("its checksum is wrong")]
    Crc,
}

/// Appends one frame to `out`.
pub fn encode(out: &mut Vec<u8>, payload: &[u8]) -> Result<(), PayloadTooLong> {
    let len = payload.len();
    if len > MAX_PAYLOAD {
        return Err(PayloadTooLong { len });
    }
    let len = (len as u32).to_le_bytes();
    out.extend_from_slice(&len);
    out.extend_from_slice(&crc(len, payload).to_le_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

/// Frames one behind the other, as they will stand in a file, and where each begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    bytes: Vec<u8>,
    starts: Vec<u32>,
}

impl Frames {
    /// Appends one frame; `write` appends its payload, so that a message is encoded where it will stand.
    ///
    /// # Errors
    /// A payload over [`MAX_PAYLOAD`]: nothing was appended.
    ///
    /// # Panics
    /// Beyond 4 GiB: a caller bounds the frames and so the bytes long before.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), PayloadTooLong> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        write(&mut self.bytes);
        let len = self.bytes.len() - start - HEADER;
        if len > MAX_PAYLOAD {
            self.bytes.truncate(start);
            return Err(PayloadTooLong { len });
        }
        let (header, payload) = self.bytes[start..].split_at_mut(HEADER);
        let len = (len as u32).to_le_bytes();
        header[..4].copy_from_slice(&len);
        header[4..].copy_from_slice(&crc(len, payload).to_le_bytes());
        self.starts.push(u32::try_from(start).expect("at most 4 GiB of frames"));
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// All of them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where each begins.
    #[must_use]
    pub fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// The payload of each.
    pub fn payloads(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.starts.iter().enumerate().map(|(i, start)| {
            let end = self.starts.get(i + 1).map_or(self.bytes.len(), |next| *next as usize);
            &self.bytes[*start as usize + HEADER..end]
        })
    }
}

/// The frames of a slice in order, as (offset of the frame, payload). Ends after the first bad one.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    offset: usize,
    failed: bool,
}

impl<'a> Scanner<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0, failed: false }
    }

    /// Where the last good frame ended.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl<'a> Iterator for Scanner<'a> {
    type Item = Result<(usize, &'a [u8]), Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        if self.failed || offset == self.bytes.len() {
            return None;
        }
        let frame = split(&self.bytes[offset..]).and_then(Frame::checked);
        Some(match frame {
            Ok(payload) => {
                self.offset += HEADER + payload.len();
                Ok((offset, payload))
            }
            Err(why) => {
                self.failed = true;
                Err(Bad { offset, why })
            }
        })
    }
}

/// Where the first whole frame behind a bad place is, if there is one.
///
/// The bad frame's length cannot be trusted, so every byte behind `offset` is tried as a frame's first. A
/// payload that `accepts` refuses does not count; it is asked before the checksum is computed, so it should
/// be cheap and look at little: it is what keeps the search quick, and what keeps bytes that only look like
/// a frame from being one (there is one chance in 2^32 a candidate, and payloads may contain frames).
pub fn valid_frame_behind(bytes: &[u8], offset: usize, accepts: impl Fn(&[u8]) -> bool) -> Option<usize> {
    (offset.saturating_add(1)..bytes.len())
        .find(|start| split(&bytes[*start..]).is_ok_and(|frame| accepts(frame.payload) && frame.checked().is_ok()))
}

/// A frame whose checksum has not been looked at.
struct Frame<'a> {
    len: [u8; 4],
    crc: u32,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    fn checked(self) -> Result<&'a [u8], Why> {
        if crc(self.len, self.payload) == self.crc { Ok(self.payload) } else { Err(Why::Crc) }
    }
}

fn split(bytes: &[u8]) -> Result<Frame<'_>, Why> {
    let (len, bytes) = bytes.split_first_chunk::<4>().ok_or(Why::Torn)?;
    let (crc, bytes) = bytes.split_first_chunk::<4>().ok_or(Why::Torn)?;
    let payload_len = u32::from_le_bytes(*len) as usize;
    if payload_len > MAX_PAYLOAD {
        return Err(Why::TooLong);
    }
    let payload = bytes.get(..payload_len).ok_or(Why::Torn)?;
    Ok(Frame { len: *len, crc: u32::from_le_bytes(*crc), payload })
}

fn crc(len: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len), payload)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn frames(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for payload in payloads {
            starts.push(bytes.len());
            encode(&mut bytes, payload).unwrap();
        }
        (bytes, starts)
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        vec(vec(any::<u8>(), 0..40), 1..8)
    }

    #[test]
    fn has_these_bytes() {
        let mut bytes = Vec::new();
        encode(&mut bytes, b"kiki").unwrap();
        // The CRC-32C of 04 00 00 00 "kiki".
        let crc = crc32c::crc32c(b"\x04\0\0\0kiki").to_le_bytes();
        assert_eq!(bytes, [b"\x04\0\0\0".as_slice(), &crc, b"kiki"].concat());
        // RFC 3720 B.4: 32 bytes of zeroes.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn takes_the_largest_payload_and_no_larger() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &[1; MAX_PAYLOAD]).unwrap();
        assert_eq!(Scanner::new(&bytes).next().unwrap().unwrap().1.len(), MAX_PAYLOAD);
        let whole = bytes.len();
        let error = encode(&mut bytes, &[1; MAX_PAYLOAD + 1]).unwrap_err();
        assert_eq!(error.to_string(), "payload of 65536 bytes is over the limit of 65535");
        assert_eq!(bytes.len(), whole);
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let (good, starts) = frames(&[b"one".to_vec(), b"two".to_vec()]);
        let why = |bytes: &[u8]| {
            let mut scanner = Scanner::new(bytes);
            let last = scanner.by_ref().last().unwrap().unwrap_err();
            assert!(scanner.next().is_none());
            assert_eq!(last.offset, scanner.offset());
            assert_eq!(last.offset, starts[1]);
            last.why
        };
        assert_eq!(why(&good[..good.len() - 1]), Why::Torn);
        assert_eq!(why(&good[..starts[1] + 5]), Why::Torn);
        let mut bad = good.clone();
        bad[starts[1] + 2] = 1;
        assert_eq!(why(&bad), Why::TooLong);
        let mut bad = good.clone();
        bad[starts[1] + HEADER] ^= 1;
        assert_eq!(why(&bad), Why::Crc);
    }

    #[test]
    fn zeroes_are_no_frames() {
        let zeroes = [0; 64];
        assert_eq!(Scanner::new(&zeroes).next(), Some(Err(Bad { offset: 0, why: Why::Crc })));
        assert_eq!(valid_frame_behind(&zeroes, 0, |_| true), None);
    }

    #[test]
    fn a_frame_that_the_caller_does_not_accept_is_none() {
        let (bytes, starts) = frames(&[b"bad".to_vec(), b"x".to_vec(), b"leaf".to_vec()]);
        assert_eq!(valid_frame_behind(&bytes, 0, |_| true), Some(starts[1]));
        assert_eq!(valid_frame_behind(&bytes, 0, |p| p == b"leaf"), Some(starts[2]));
        assert_eq!(valid_frame_behind(&bytes, starts[2], |_| true), None);
        assert_eq!(valid_frame_behind(&bytes, usize::MAX, |_| true), None);
    }

    proptest! {
        #[test]
        fn gives_back_what_was_written(payloads in payloads()) {
            let (bytes, starts) = frames(&payloads);
            let got: Vec<_> = Scanner::new(&bytes).map(Result::unwrap).collect();
            let want: Vec<_> = starts.into_iter().zip(payloads.iter().map(Vec::as_slice)).collect();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn a_cut_gives_the_whole_frames_before_it(payloads in payloads(), cut: prop::sample::Index) {
            let (bytes, mut ends) = frames(&payloads);
            ends.push(bytes.len());
            let cut = cut.index(bytes.len() + 1);
            let whole = ends.iter().filter(|end| **end > 0 && **end <= cut).count();
            let got: Vec<_> = Scanner::new(&bytes[..cut]).collect();
            prop_assert_eq!(got.iter().filter(|frame| frame.is_ok()).count(), whole);
            let torn = Err(Bad { offset: ends[whole], why: Why::Torn });
            prop_assert_eq!(got.get(whole), (ends[whole] != cut).then_some(&torn));
            prop_assert_eq!(valid_frame_behind(&bytes[..cut], ends[whole], |p| payloads.iter().any(|q| q == p)), None);
        }

        #[test]
        fn every_flipped_bit_is_seen_in_its_frame_and_the_next_one_found(
            payloads in payloads(), bit: prop::sample::Index,
        ) {
            let (mut bytes, starts) = frames(&payloads);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let hit = starts.iter().rposition(|start| *start <= bit / 8).unwrap();
            let bad = Scanner::new(&bytes).find_map(Result::err).unwrap();
            prop_assert_eq!(bad.offset, starts[hit]);
            let behind = valid_frame_behind(&bytes, bad.offset, |p| payloads.iter().any(|q| q == p));
            prop_assert_eq!(behind, starts.get(hit + 1).copied());
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..200), offset in 0usize..300) {
            let _ = Scanner::new(&bytes).count();
            let _ = valid_frame_behind(&bytes, offset, |_| true);
        }
    }
}
