//! How the key of a log is followed: from the one that somebody knows to the one that signs now.
//!
//! A change of keys is a `KeyRotated` leaf, and a checkpoint over that leaf which both keys signed. Each is kept as a
//! C2SP tlog-proof ([`PortableProof`]): the leaf, the proof, the checkpoint. One text has them all, the oldest first.
//!
//! Invariants: nobody gets from one key to the next without a signature of the first over the leaf that names the
//! second; a chain has no gap and no key twice; every byte of the text is checked by something. Not here: which key to
//! begin with. The reader brings that.

use crate::leaf::{self, KeyRotated, leaf::Body};
use crate::tlog::note::{self, Note, VerifyingKey};
use crate::tlog::portable::{self, PortableProof};
use crate::tlog::{Checkpoint, Hash, checkpoint, leaf_hash};

/// Changes of one log's key: one a month for 20 years. At 2 KiB each the text is half a megabyte.
pub const MAX_ROTATIONS: usize = 240;
/// The first line of each proof.
const BEGINS: &str = "c2sp.org/tlog-proof@v1\n";

/// Why a chain is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not of the form.
    #[error("change of key {number}: {problem}")]
    Malformed {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A key did not sign.
    #[error("change of key {number} from {old} to {new}: {problem}")]
    Unsigned {
        /// Which, from 1.
        number: usize,
        /// Name and id of the key before.
        old: String,
        /// Name and id of the key after.
        new: String,
        /// What is wrong.
        problem: String,
    },
    /// The chain does not pass the key.
    #[error("no change of key leads from {0}")]
    Unknown(String),
    /// Too long a chain.
    #[error("{0} changes of key, above the limit of {MAX_ROTATIONS}")]
    TooMany(usize),
}

/// A change of keys that both signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The index of its leaf.
    pub index: u64,
    /// The hash of its leaf.
    pub leaf: Hash,
    /// The checkpoint that both signed.
    pub checkpoint: Checkpoint,
    /// The key before.
    pub old: VerifyingKey,
    /// The key after.
    pub new: VerifyingKey,
}

/// A key by name and id, as signature lines have it.
#[must_use]
pub fn short(key: &VerifyingKey) -> String {
    format!("{}+{:08x}", key.name(), key.id())
}

/// Reads a chain and checks each change in it and that they follow from each other. Whether its beginning is to be
/// believed is for [`newest`] to say.
///
/// # Errors
/// The first change that does not hold.
pub fn read(text: &str) -> Result<Vec<Rotation>, Error> {
    let mut rest = text;
    let mut chain: Vec<Rotation> = Vec::new();
    while !rest.is_empty() {
        let end = rest.find(&format!("\n{BEGINS}")).map_or(rest.len(), |at| at + 1);
        let (one, others) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let number = chain.len() + 1;
        if number > MAX_ROTATIONS {
            return Err(Error::TooMany(number));
        }
        let next = check(number, one)?;
        let broken = |problem: String| Err(Error::Malformed { number, problem });
        if let Some(last) = chain.last() {
            if last.new != next.old {
                return broken(format!("is from {}, and {} signed before it", short(&next.old), short(&last.new)));
            }
            if next.index <= last.index || next.checkpoint.size <= last.checkpoint.size {
                return broken(format!("is at leaf {}, behind that at leaf {}", next.index, last.index));
            }
        }
        if next.old == next.new || chain.iter().any(|earlier| earlier.old == next.new) {
            return broken(format!("leads back to {}", short(&next.new)));
        }
        chain.push(next);
        rest = others;
    }
    Ok(chain)
}

/// The key that signs after all of these changes, for a reader who knows one of the keys.
///
/// # Errors
/// A chain that does not hold, or does not pass the key.
pub fn newest(text: &str, known: &VerifyingKey) -> Result<VerifyingKey, Error> {
    let chain = read(text)?;
    let passed = chain.iter().any(|change| change.old == *known || change.new == *known);
    match chain.last() {
        None => Ok(known.clone()),
        Some(last) if passed => Ok(last.new.clone()),
        Some(_) => Err(Error::Unknown(short(known))),
    }
}

/// Every key of the log with the size of the log up to which it is believed, the oldest first; for a reader who knows one of
/// them. A replaced key's is the size with its KeyRotated leaf, whatever both signed: who has the old key can add its
/// signature to a later checkpoint of the new one, and what honestly is longer the new key signed too.
///
/// # Errors
/// As [`newest`].
pub fn signers(text: &str, known: &VerifyingKey) -> Result<Vec<(VerifyingKey, u64)>, Error> {
    let last = newest(text, known)?;
    let replaced = read(text)?.into_iter().map(|change| (change.old, change.index + 1));
    Ok(replaced.chain([(last, u64::MAX)]).collect())
}

/// One change as text, to be put behind those before it.
#[must_use]
pub fn proof(index: u64, leaf: &[u8], hashes: Vec<Hash>, checkpoint: &str) -> String {
    PortableProof { extra: leaf.to_vec(), index, hashes, checkpoint: checkpoint.to_owned() }.to_string()
}

/// The keys that a leaf names, of the log that it stands in.
///
/// # Errors
/// What is wrong with them.
pub fn keys(log_id: &str, body: &KeyRotated) -> Result<(VerifyingKey, VerifyingKey), String> {
    let key = |name: &str, text: &str| {
        let key: VerifyingKey = text.parse().map_err(|e: note::Error| format!("{name}: {e}"))?;
        if key.name() == log_id { Ok(key) } else { Err(format!("{name} is named {:?}, and the log {log_id:?}", key.name())) }
    };
    Ok((key("old_key", &body.old_key)?, key("new_key", &body.new_key)?))
}

fn check(number: usize, text: &str) -> Result<Rotation, Error> {
    let malformed = |problem: String| Error::Malformed { number, problem };
    let proof: PortableProof = text.parse().map_err(|e: portable::Error| malformed(e.to_string()))?;
    if proof.to_string() != text {
        return Err(malformed("is not in its one form".into()));
    }
    let (head, body) = leaf::decode(&proof.extra).map_err(|e| malformed(e.to_string()))?;
    let Body::KeyRotated(body) = body else { return Err(malformed("its leaf changes no key".into())) };
    if head.index != proof.index {
        return Err(malformed(format!("its leaf says that it is leaf {}, not {}", head.index, proof.index)));
    }
    let (old, new) = keys(&head.log_id, &body).map_err(malformed)?;
    let unsigned = |problem: String| Error::Unsigned { number, old: short(&old), new: short(&new), problem };
    let checkpoint = proof.verify(&head.log_id, &old).map_err(|e| unsigned(e.to_string()))?;
    let note = Note::parse(proof.checkpoint.as_bytes()).map_err(|e| unsigned(e.to_string()))?;
    note.verify(&[&new]).map_err(|e| unsigned(format!("the new key: {e}")))?;
    if note.signatures.len() != 2 || note.to_string() != proof.checkpoint {
        return Err(malformed("its checkpoint has other signatures than those of the two keys".into()));
    }
    Ok(Rotation { index: proof.index, leaf: leaf_hash(&proof.extra), checkpoint, old, new })
}

/// A note that both keys signed, which is what a change of keys rests on until its proof is kept.
///
/// # Errors
/// Which of them did not.
pub fn signed_by_both(note: &[u8], old: &VerifyingKey, new: &VerifyingKey) -> Result<Checkpoint, checkpoint::Error> {
    let checkpoint = Checkpoint::open(note, old.name(), old)?;
    Checkpoint::open(note, new.name(), new)?;
    Ok(checkpoint)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prost::Message as _;

    use super::*;
    use crate::tlog::Tree;
    use crate::tlog::note::SigningKey;

    const LOG: &str = "kiki.local/log-1";

    fn key(seed: u8) -> SigningKey {
        SigningKey::new(LOG, &[seed; 32]).unwrap()
    }

    fn public(seed: u8) -> VerifyingKey {
        key(seed).verifying_key().clone()
    }

    /// Changes keys along the seeds; a checkpoint is signed by whom `signers` says.
    fn chain(seeds: &[u8], signers: impl Fn(&SigningKey, &SigningKey) -> Vec<SigningKey>) -> String {
        let mut tree = Tree::new();
        let mut text = String::new();
        for pair in seeds.windows(2) {
            let (old, new) = (key(pair[0]), key(pair[1]));
            let index = tree.size();
            let names = (old.verifying_key().to_string(), new.verifying_key().to_string());
            let body = KeyRotated { old_key: names.0, new_key: names.1, ..Default::default() };
            let leaf = leaf::Leaf { log_id: LOG.into(), index, body: Some(Body::KeyRotated(body)), ..Default::default() }.encode_to_vec();
            tree.push(leaf_hash(&leaf));
            tree.push(leaf_hash(b"another record"));
            let checkpoint = Checkpoint { origin: LOG.into(), size: tree.size(), root: tree.root() };
            let signers = signers(&old, &new);
            let mut note = Note::sign(&checkpoint.to_string(), &signers[0]).unwrap();
            signers[1..].iter().for_each(|key| note.add(key));
            text += &proof(index, &leaf, tree.inclusion_proof(index, tree.size()).unwrap(), &note.to_string());
        }
        text
    }

    fn both(old: &SigningKey, new: &SigningKey) -> Vec<SigningKey> {
        vec![old.clone(), new.clone()]
    }

    #[test]
    fn leads_from_any_key_of_the_chain_to_the_newest() {
        let text = chain(&[1, 2, 3, 4], both);
        for seed in 1..=4 {
            assert_eq!(newest(&text, &public(seed)).unwrap(), public(4));
        }
        assert_eq!(newest(&text, &public(9)), Err(Error::Unknown(short(&public(9)))));
        assert_eq!(newest("", &public(9)).unwrap(), public(9), "no change was ever made");
        assert_eq!(read(&text).unwrap().iter().map(|change| change.index).collect::<Vec<_>>(), [0, 2, 4]);
    }

    #[test]
    fn names_every_signer_with_its_end() {
        let text = chain(&[1, 2, 3], both);
        let all = [(public(1), 1), (public(2), 3), (public(3), u64::MAX)];
        for seed in 1..=3 {
            assert_eq!(signers(&text, &public(seed)).unwrap(), all);
        }
        assert_eq!(signers("", &public(9)).unwrap(), [(public(9), u64::MAX)]);
        assert!(signers(&text, &public(9)).is_err());
    }

    #[test]
    fn refuses_a_change_that_one_of_the_keys_did_not_sign() {
        let alone = [
            chain(&[1, 2], |_, new| vec![new.clone()]),
            chain(&[1, 2], |old, _| vec![old.clone()]),
            chain(&[1, 2], |_, new| vec![key(7), new.clone()]),
            chain(&[1, 2], |_, new| vec![new.clone(), new.clone()]),
        ];
        for text in alone {
            assert!(matches!(newest(&text, &public(1)), Err(Error::Unsigned { number: 1, .. })), "{text}");
        }
        let third = chain(&[1, 2], |old, new| vec![old.clone(), new.clone(), key(7)]);
        assert!(matches!(newest(&third, &public(1)), Err(Error::Malformed { .. })));
    }

    #[test]
    fn refuses_a_chain_with_a_gap_a_loop_or_another_order() {
        let whole = chain(&[1, 2, 3], both);
        let second = whole.rfind(BEGINS).unwrap();
        assert!(newest(&whole[second..], &public(1)).is_err(), "the first change is missing");
        assert!(newest(&format!("{}{}", &whole[second..], &whole[..second]), &public(1)).is_err());
        assert!(newest(&format!("{}{}", &whole[..second], &whole[..second]), &public(1)).is_err());
        assert!(newest(&chain(&[1, 2, 1], both), &public(1)).is_err());
        assert!(newest(&chain(&[1, 1], both), &public(1)).is_err());
        let long: Vec<u8> = (0..=MAX_ROTATIONS as u8).collect();
        assert!(newest(&chain(&long, both), &public(0)).is_ok());
        assert_eq!(read(&chain(&[&long[..], &[250]].concat(), both)), Err(Error::TooMany(MAX_ROTATIONS + 1)));
    }

    #[test]
    fn every_byte_counts() {
        let text = chain(&[1, 2, 3], both).into_bytes();
        for at in 0..text.len() {
            let mut bent = text.clone();
            bent[at] ^= 1;
            let Ok(bent) = String::from_utf8(bent) else { continue };
            assert!(newest(&bent, &public(1)).is_err(), "byte {at}");
        }
    }
}
