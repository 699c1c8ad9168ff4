//! A client goes from one log to another. It leaves the one by a leaf that names the digest of its state, and arrives in the
//! other by leaves that carry that state and the proof of the leaving: so that what it may spend, what it spent and which
//! keys were used is the same in both, and it is in one of them only.
//!
//! Invariants: a client leaves without a live lease and without an open slot, so no money can be spent on both sides; who
//! left is refused everything; who arrives goes on at the next `client_seq`; a leaving is taken in once. Not here: which
//! other log's key is believed. The leaf names the key, and the shell takes only those that it was told.

use kiki::clock::UnixMicros;
use kiki::leaf::{self, ClientArrived, ClientLeft, ClientMoved, OPERATOR, client_moved::Side, leaf::Body};
use kiki::tlog::note::VerifyingKey;
use kiki::tlog::portable::PortableProof;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::ledger::{Ledger, Recorded};
use super::refusal::Refusal;
use super::state::{ClientState, State};

/// The form of a client's state in a leaf. Raised when [`ClientState`] changes: a log in which a client arrived in one form is
/// folded by those that read it.
pub const FORM: u32 = 3;
/// The largest state that moves: 256,000 customers at 250 bytes, in 1,100 leaves.
pub const MAX_STATE: usize = 64 << 20;
/// Bytes of the state in one leaf; the first has the proof beside it, which takes at most 4 KiB.
const PART: usize = 56 << 10;
/// What stands in the place of an index whose leaf is in another log.
pub const ELSEWHERE: u64 = u64::MAX;

/// Where a client went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// To which log.
    pub to_log_id: String,
    /// Where the leaf stands that says so.
    pub index: u64,
}

/// Where a client came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Came {
    /// From which log.
    pub log_id: String,
    /// Where its leaving stands there.
    pub left_at: u64,
    /// Under which key that was proven.
    pub log_key: String,
    /// Where its arrival ends here: index and `client_seq`.
    pub at: (u64, u64),
}

/// A client of which not every part has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arriving {
    seq: u64,
    parts: (u32, u32),
    came: Came,
    left_seq: u64,
    sha256: Vec<u8>,
    bytes: usize,
    last_lease_id: u64,
    state: Vec<u8>,
}

/// What an arriving leaf makes of what there is.
pub(super) enum Arrival {
    Part(Arriving),
    Whole { client: Box<ClientState>, last_lease_id: u64 },
}

/// What is handed to the other log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Where the leaving stands.
    pub index: u64,
    /// The client's state.
    pub state: Vec<u8>,
}

/// The leaving of a client, proven.
struct Leaving {
    head: leaf::Leaf,
    left: ClientLeft,
}

fn encode(client: &ClientState) -> Result<Vec<u8>, Refusal> {
    postcard::to_stdvec(client).map_err(|e| Refusal::field("client", e))
}

/// Checks the proof of a leaving under the key that came with it.
fn leaving(proof: &str, log_key: &str) -> Result<Leaving, Refusal> {
    let key: VerifyingKey = log_key.parse().map_err(|e| Refusal::field("log_key", e))?;
    let proof: PortableProof = proof.parse().map_err(|e| Refusal::field("proof", e))?;
    proof.verify(key.name(), &key).map_err(|e| Refusal::field("proof", e))?;
    let (head, body) = leaf::decode(&proof.extra).map_err(|e| Refusal::field("proof", e))?;
    let Body::ClientMoved(ClientMoved { side: Some(Side::Left(left)) }) = body else {
        return Err(Refusal::field("proof", "its leaf lets no client go"));
    };
    if head.log_id != key.name() || head.index != proof.index {
        return Err(Refusal::field("proof", format!("its leaf says that it is leaf {} of {:?}", head.index, head.log_id)));
    }
    Ok(Leaving { head, left })
}

impl ClientState {
    /// As it is carried: where it is on its way to is not part of it.
    fn carried(&self, seq: u64) -> Result<Vec<u8>, Refusal> {
        encode(&Self { seq, left: None, ..self.clone() })
    }

    /// Live leases and open slots: what may still be spent.
    fn unfinished(&self, now: UnixMicros) -> (usize, usize) {
        let leases = || self.campaigns.values().flat_map(|campaign| campaign.leases.values());
        (leases().filter(|lease| lease.lives(now)).count(), leases().map(|lease| lease.open_slots().count()).sum())
    }

    /// In a new log: where records stood in the old one says nothing here.
    fn arrive(&mut self, seq: u64, came: Came) {
        self.seq = seq;
        self.came = Some(came);
        let stored = self.invoices.values_mut().chain(self.adjustments.values_mut());
        stored.chain(self.closed.values_mut().map(|closed| &mut closed.at)).for_each(|stored| stored.index = ELSEWHERE);
        self.attribution.forget_places(ELSEWHERE);
        self.erased.values_mut().for_each(|erased| erased.index = ELSEWHERE);
        // Terms name their evidence by its place, so it is recorded anew where it is needed.
        self.evidence.clear();
    }
}

impl State {
    /// The number that a client's next leaf has.
    pub(super) fn next_seq(&self, client: &str, body: &Body) -> u64 {
        if let Body::ClientMoved(ClientMoved { side: Some(Side::Arrived(arrived)) }) = body {
            let begun = self.arriving.get(client).map(|arriving| arriving.seq);
            let seq = if arrived.part > 0 {
                begun
            } else {
                leaving(&arrived.proof, &arrived.log_key).ok().map(|leaving| leaving.head.client_seq)
            };
            return seq.map_or(0, |seq| seq.saturating_add(1));
        }
        self.clients.get(client).map_or(0, |client| client.seq) + 1
    }

    /// Whoever left is not here any more, and who arrives is not here yet.
    pub(super) fn check_here(&self, client: &str) -> Result<(), Refusal> {
        if self.arriving.contains_key(client) {
            return Err(Refusal::OutOfOrder(format!("{client} arrives, and the next part of it is missing")));
        }
        match self.clients.get(client).and_then(|of| of.left.as_ref()) {
            Some(left) => Err(Refusal::Moved { client: client.to_owned(), to_log_id: left.to_log_id.clone() }),
            None => Ok(()),
        }
    }

    /// What an arriving leaf leads to; of another, only that its client is here.
    pub(super) fn check_move(&self, now: UnixMicros, head: &leaf::Leaf, body: &Body) -> Result<Option<Arrival>, Refusal> {
        match body {
            Body::ClientMoved(ClientMoved { side: Some(Side::Arrived(arrived)) }) => self.arrival(now, head, arrived).map(Some),
            Body::ClientMoved(ClientMoved { side: Some(Side::Left(left)) }) => {
                self.check_here(&head.client)?;
                self.check_left(now, head, left).map(|()| None)
            }
            Body::ClientMoved(ClientMoved { side: None }) => {
                Err(Refusal::field("client_moved", "says neither that it left nor that it arrived"))
            }
            _ => self.check_here(&head.client).map(|()| None),
        }
    }

    fn check_left(&self, now: UnixMicros, head: &leaf::Leaf, left: &ClientLeft) -> Result<(), Refusal> {
        let of = self.clients.get(&head.client).ok_or_else(|| Refusal::NotFound { what: "client", id: head.client.clone() })?;
        if left.to_log_id.is_empty() || left.to_log_id == head.log_id || head.client == OPERATOR {
            return Err(Refusal::field("to_log_id", format!("{} does not go from {} to {:?}", head.client, head.log_id, left.to_log_id)));
        }
        let (leases, slots) = of.unfinished(now);
        if leases > 0 || slots > 0 {
            return Err(Refusal::Unfinished { client: head.client.clone(), leases, slots });
        }
        // A form that this version does not write is for those that do to recompute.
        if left.state_form == FORM {
            let state = of.carried(head.client_seq)?;
            if (&Sha256::digest(&state)[..], state.len() as u64) != (&left.state_sha256[..], left.state_bytes) {
                return Err(Refusal::field("state_sha256", format!("is not the digest of {}'s state", head.client)));
            }
        }
        if left.last_lease_id == self.last_lease_id { Ok(()) } else { Err(Refusal::field("last_lease_id", left.last_lease_id)) }
    }

    fn arrival(&self, now: UnixMicros, head: &leaf::Leaf, leaf: &ClientArrived) -> Result<Arrival, Refusal> {
        if self.clients.get(&head.client).is_some_and(|known| known.left.is_none()) {
            return Err(Refusal::OutOfOrder(format!("{} is in this log since before", head.client)));
        }
        let mut arriving = match self.arriving.get(&head.client) {
            None if leaf.part == 0 => self.begin(now, head, leaf)?,
            Some(begun) if (leaf.part, leaf.parts) == begun.parts => begun.clone(),
            _ => return Err(Refusal::OutOfOrder(format!("part {} of {} does not follow", leaf.part, leaf.parts))),
        };
        arriving.state.extend_from_slice(&leaf.state);
        (arriving.seq, arriving.parts.0) = (head.client_seq, arriving.parts.0 + 1);
        if arriving.state.len() > arriving.bytes {
            return Err(Refusal::field("state", format!("has more than {} bytes", arriving.bytes)));
        }
        if arriving.parts.0 < arriving.parts.1 {
            return Ok(Arrival::Part(arriving));
        }
        if Sha256::digest(&arriving.state)[..] != arriving.sha256[..] {
            return Err(Refusal::field("state", "is not the state that the client left with"));
        }
        let mut client: ClientState = postcard::from_bytes(&arriving.state).map_err(|e| Refusal::field("state", e))?;
        if client.seq != arriving.left_seq {
            return Err(Refusal::field("state", format!("ends at client_seq {}, not at {}", client.seq, arriving.left_seq)));
        }
        client.arrive(head.client_seq, Came { at: (head.index, head.client_seq), ..arriving.came });
        Ok(Arrival::Whole { client: Box::new(client), last_lease_id: arriving.last_lease_id })
    }

    fn begin(&self, now: UnixMicros, head: &leaf::Leaf, leaf: &ClientArrived) -> Result<Arriving, Refusal> {
        let Leaving { head: old, left } = leaving(&leaf.proof, &leaf.log_key)?;
        let from = leaf.from.clone().unwrap_or_default();
        if (&old.client, &left.to_log_id, &old.log_id, old.index) != (&head.client, &head.log_id, &from.log_id, from.index) {
            let problem = format!("lets {} go from {} to {}", old.client, old.log_id, left.to_log_id);
            return Err(Refusal::field("proof", problem));
        }
        if let Some(known) = self.clients.get(&head.client).filter(|known| known.seq >= old.client_seq) {
            let problem = format!("{} left {} at client_seq {}, and was here until {}", head.client, old.log_id, old.client_seq, known.seq);
            return Err(Refusal::OutOfOrder(problem));
        }
        if left.state_form != FORM {
            return Err(Refusal::field("state_form", format!("is {}, and this version reads {FORM}", left.state_form)));
        }
        let at = UnixMicros::from_pb(old.recorded_at.as_ref()).unwrap_or_default();
        if now < at {
            return Err(Refusal::OutOfOrder(format!("{} left at {} us since 1970, and it is {} here", head.client, at.0, now.0)));
        }
        let came = Came { log_id: old.log_id, left_at: old.index, log_key: leaf.log_key.clone(), at: (0, 0) };
        let (left_seq, sha256, last_lease_id) = (old.client_seq, left.state_sha256.to_vec(), left.last_lease_id);
        let bytes = usize::try_from(left.state_bytes).ok().filter(|bytes| *bytes <= MAX_STATE);
        let bytes = bytes.ok_or(Refusal::TooMany { field: "state bytes".into(), count: left.state_bytes as usize, limit: MAX_STATE })?;
        Ok(Arriving { seq: 0, parts: (0, leaf.parts), came, left_seq, sha256, bytes, last_lease_id, state: Vec::new() })
    }

    /// Nothing here refuses: the checks were above.
    pub(super) fn take_in_move(&mut self, head: &leaf::Leaf, arrival: Option<Arrival>, moved: &ClientMoved) {
        match (arrival, &moved.side) {
            (Some(Arrival::Part(arriving)), _) => {
                self.arriving.insert(head.client.clone(), arriving);
            }
            (Some(Arrival::Whole { client, last_lease_id }), _) => {
                self.arriving.remove(&head.client);
                self.last_lease_id = self.last_lease_id.max(last_lease_id);
                self.clients.insert(head.client.clone(), *client);
            }
            (None, Some(Side::Left(left))) => {
                let of = self.clients.entry(head.client.clone()).or_default();
                of.seq = head.client_seq;
                of.left = Some(Left { to_log_id: left.to_log_id.clone(), index: head.index });
            }
            (None, _) => {}
        }
    }
}

impl Ledger {
    /// Lets a client go; asked again, the answer is the same.
    ///
    /// # Errors
    /// Something of it may still be spent, it went elsewhere, or its state is too large.
    pub fn export_client(&mut self, client: &str, to_log_id: &str) -> Result<Exported, Refusal> {
        let of = self.state.clients.get(client).ok_or_else(|| Refusal::NotFound { what: "client", id: client.to_owned() })?;
        if let Some(left) = of.left.as_ref().filter(|left| left.to_log_id == to_log_id) {
            return Ok(Exported { index: left.index, state: of.carried(of.seq)? });
        }
        self.state.check_here(client)?;
        let state = of.carried(of.seq + 1)?;
        if state.len() > MAX_STATE {
            return Err(Refusal::TooMany { field: "state bytes".into(), count: state.len(), limit: MAX_STATE });
        }
        let left = ClientLeft {
            to_log_id: to_log_id.to_owned(),
            state_sha256: Sha256::digest(&state).to_vec().into(),
            state_bytes: state.len() as u64,
            state_form: FORM,
            last_lease_id: self.state.last_lease_id,
        };
        let recorded = self.append(client, ("", 0), Body::ClientMoved(ClientMoved { side: Some(Side::Left(left)) }))?;
        Ok(Exported { index: recorded.index, state })
    }

    /// Takes a client in, whole or not at all. One that was taken in before is answered once more.
    ///
    /// # Errors
    /// A proof that does not hold, another state, or a client that is here.
    pub fn import_client(&mut self, proof: &str, log_key: &str, state: &[u8]) -> Result<Recorded, Refusal> {
        let Leaving { head, .. } = leaving(proof, log_key)?;
        let came = self.state.clients.get(&head.client).and_then(|of| of.came.as_ref());
        if let Some(came) = came.filter(|came| (&came.log_id, came.left_at) == (&head.log_id, head.index)) {
            return Ok(Recorded { index: came.at.0, client_seq: came.at.1, duplicate: true, ..Default::default() });
        }
        // All that can be wrong is found before the first leaf: a request has all of its effect or none.
        let whole = leaf::Leaf { log_id: self.log_id().to_owned(), client_seq: head.client_seq, ..head.clone() };
        let from = Some(leaf::Position { log_id: head.log_id.clone(), index: head.index });
        let all =
            ClientArrived { from, part: 0, parts: 1, state: state.to_vec().into(), proof: proof.to_owned(), log_key: log_key.to_owned() };
        self.state.arrival(self.now(), &whole, &all)?;
        self.append_parts(&head, proof, log_key, state)
    }

    fn append_parts(&mut self, head: &leaf::Leaf, proof: &str, log_key: &str, state: &[u8]) -> Result<Recorded, Refusal> {
        let from = leaf::Position { log_id: head.log_id.clone(), index: head.index };
        let parts = state.chunks(PART);
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let mut last = Err(Refusal::field("state", "is missing"));
        for (part, bytes) in (0..).zip(parts) {
            let mut arrived =
                ClientArrived { from: Some(from.clone()), part, parts: count, state: bytes.to_vec().into(), ..Default::default() };
            if part == 0 {
                (arrived.proof, arrived.log_key) = (proof.to_owned(), log_key.to_owned());
            }
            last = Ok(self.append(&head.client, ("", 0), Body::ClientMoved(ClientMoved { side: Some(Side::Arrived(arrived)) }))?);
        }
        last
    }
}
