//! The audit of a log folder, offline: on files alone, trusting no key that comes with them.
//!
//! Checks that every frame is whole, that every leaf stands in its place, that the first leaves are those that the
//! checkpoint signed, that every change of the signing key was signed by both, and that the fold accepts every one of them: gapless `client_seq`, monotone time, no grant
//! above a limit, no slot closed twice, no stale epoch. Each finding names its leaf.

use std::path::Path;
use std::time::Duration;

use kiki::framed::Scanner;
use kiki::leaf::{self, client_moved::Side, leaf::Body};
use kiki::rotation;
use kiki::tlog::checkpoint::Checkpoint;
use kiki::tlog::note::VerifyingKey;
use kiki::tlog::{Hash, Tree, leaf_hash};

use crate::domain::state::State;
use crate::store::disk::{Disk, Files};
use crate::store::rotate::read_rotations;
use crate::store::{Paths, segments, snapshot};

/// What a good log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The log's id.
    pub log_id: String,
    /// All leaves.
    pub leaves: u64,
    /// Of how many there are the hashes alone: the first ones.
    pub pruned: u64,
    /// How many of them are signed.
    pub signed: u64,
    /// Root of the signed ones, hex.
    pub root: String,
    /// Leaves by kind of body.
    pub kinds: std::collections::BTreeMap<&'static str, u64>,
    /// Clients that came from other logs, each with the key of that log, which its coming rests on.
    pub arrived: Vec<(String, String)>,
    /// Charged nanos, corrections included, by (client, campaign, currency).
    pub settled: std::collections::BTreeMap<(String, String, String), i128>,
}

/// Something that is off, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct Finding {
    /// A leaf or a file.
    pub place: String,
    /// What is off.
    pub problem: String,
}

fn finding(place: impl ToString, problem: impl ToString) -> Finding {
    Finding { place: place.to_string(), problem: problem.to_string() }
}

/// Verifies the log below a data folder against a public key: the one that signs, or one that it was rotated from.
///
/// # Errors
/// The first thing that is off; what stands behind it cannot be judged.
pub fn verify(data: &Path, key: &VerifyingKey) -> Result<Report, Finding> {
    verify_on(&Files, data, key)
}

/// As [`verify`], on any disk.
///
/// # Errors
/// As [`verify`].
pub fn verify_on(disk: &dyn Disk, data: &Path, key: &VerifyingKey) -> Result<Report, Finding> {
    let paths = Paths::new(data);
    let note = disk.read(&paths.checkpoint()).map_err(|e| finding("checkpoint", e))?;
    let rotations = read_rotations(disk, &paths).map_err(|e| finding("log.rotations", e))?;
    let newest = rotation::newest(&rotations, key).map_err(|e| finding("log.rotations", e))?;
    let checkpoint = Checkpoint::open(&note, newest.name(), &newest).map_err(|e| finding("checkpoint", e))?;
    let mut audit = Audit { log_id: key.name().to_owned(), ..Default::default() };
    audit.begin_pruned(disk, &paths)?;
    let files = segments::list(disk, &paths.log()).map_err(|e| finding("log", e))?;
    for (i, (first, path)) in files.iter().enumerate() {
        if *first != audit.tree.size() {
            return Err(finding(format!("leaf {}", audit.tree.size()), format!("is missing: {} starts at leaf {first}", path.display())));
        }
        let bytes = disk.read(path).map_err(|e| finding(path.display(), e))?;
        for frame in Scanner::new(&bytes) {
            let place = format!("leaf {}", audit.tree.size());
            match frame {
                Ok((_, payload)) => audit.take_in(payload).map_err(|problem| finding(place, problem))?,
                // What was never signed may have been torn by a crash; the next start cuts it.
                Err(_) if audit.tree.size() >= checkpoint.size && i + 1 == files.len() => break,
                Err(bad) => return Err(finding(place, format!("{} in {}", bad, path.display()))),
            }
        }
    }
    audit.check_keys(&rotations, &note, &newest, &checkpoint)?;
    audit.finish(&checkpoint)
}

#[derive(Default)]
struct Audit {
    /// Of a pruned log.
    opening: Option<Opening>,
    log_id: String,
    tree: Tree,
    state: State,
    /// What the outcome that was last taken in calls for.
    due: Option<(String, leaf::Conversion)>,
    report: Report,
}

/// The fold that a pruned log begins with.
struct Opening {
    /// What a record must say of it.
    rollup: leaf::Rollup,
    /// The root of the leaves that it folds, as it says.
    root: Hash,
    /// A record said it.
    said: bool,
}

impl Audit {
    /// Of what was pruned there are the hashes, and the fold as it was then. That is believed only where a Rollup leaf says so,
    /// which stands among those that are left.
    fn begin_pruned(&mut self, disk: &dyn Disk, paths: &Paths) -> Result<(), Finding> {
        let hashes = segments::pruned_hashes(disk, &paths.log()).map_err(|e| finding("log", e))?;
        if hashes.is_empty() {
            return Ok(());
        }
        self.tree = hashes.into_iter().collect();
        let (pruned, place) = (self.tree.size(), paths.opening());
        let opening = snapshot::read_unchecked(disk, &place).filter(|(state, _)| state.size >= pruned);
        let problem = || finding(place.display(), format!("is not the fold of the {pruned} leaves that were pruned"));
        let (state, root) = opening.ok_or_else(problem)?;
        let (digest, state_version) = snapshot::digest(&state).map_err(|e| finding(place.display(), e))?;
        let rollup = leaf::Rollup { last: state.size, state_sha256: digest.to_vec().into(), state_version, ..Default::default() };
        self.opening = Some(Opening { rollup, root, said: false });
        (self.state, self.report.pruned) = (state, pruned);
        self.check_opening().map_err(|problem| finding(place.display(), problem))
    }

    /// The opening fold is that of the leaves ahead of it, as soon as there are as many.
    fn check_opening(&self) -> Result<(), String> {
        match &self.opening {
            Some(opening) if opening.rollup.last == self.tree.size() && opening.root != self.tree.root() => {
                Err(format!("the opening fold is not that of the {} leaves ahead of it", opening.rollup.last))
            }
            _ => Ok(()),
        }
    }

    /// A Rollup of what was pruned stands for it in the sums.
    fn take_rollup(&mut self, client: &str, rollup: &leaf::Rollup) -> Result<(), String> {
        let Some(Opening { rollup: opening, said, .. }) = &mut self.opening else { return Ok(()) };
        if rollup.last > opening.last {
            return Ok(());
        }
        if rollup.last == opening.last {
            if (&rollup.state_sha256, rollup.state_version) != (&opening.state_sha256, opening.state_version) {
                return Err(format!("says that the fold of the {} leaves that were pruned is another", rollup.last));
            }
            *said = true;
        }
        for row in &rollup.rows {
            let key = (client.to_owned(), row.campaign.clone(), row.currency.clone());
            if !row.campaign.is_empty() {
                *self.report.settled.entry(key).or_default() += row.settled_nanos.as_ref().map_or(0, i128::from);
            }
        }
        Ok(())
    }

    fn take_in(&mut self, payload: &[u8]) -> Result<(), String> {
        let (head, body) = leaf::decode(payload).map_err(|e| e.to_string())?;
        if head.log_id != self.log_id {
            return Err(format!("is of log {:?}, not {:?}", head.log_id, self.log_id));
        }
        if head.index < self.state.size && head.index == self.tree.size() {
            // A crash came while segments were pruned: the opening fold has this one already.
            self.tree.push(leaf_hash(payload));
            return self.check_opening();
        }
        self.check_conversion(&head, &body)?;
        self.due = self.conversion_due(&head, &body);
        self.state.apply(&head, &body).map_err(|e| e.to_string())?;
        self.tree.push(leaf_hash(payload));
        *self.report.kinds.entry(kind(&body)).or_default() += 1;
        if let Body::ClientMoved(leaf::ClientMoved { side: Some(Side::Arrived(arrived)) }) = &body
            && arrived.part == 0
        {
            self.report.arrived.push((head.client.clone(), arrived.log_key.clone()));
        }
        if let Body::Settlements(batch) = &body {
            let key = (head.client.clone(), batch.campaign.clone(), batch.currency.clone());
            *self.report.settled.entry(key).or_default() += batch.settlements.iter().map(|s| i128::from(s.price_nanos)).sum::<i128>();
        }
        if let Body::Rollup(rollup) = &body {
            self.take_rollup(&head.client, rollup)?;
        }
        if let Body::SpendAdjustment(adjustment) = &body {
            let key = (head.client.clone(), adjustment.campaign.clone(), adjustment.currency.clone());
            *self.report.settled.entry(key).or_default() += i128::from(adjustment.amount_nanos);
        }
        Ok(())
    }

    /// The conversion that attribution gives stands right behind its outcome, and no other stands anywhere.
    fn check_conversion(&mut self, head: &leaf::Leaf, body: &Body) -> Result<(), String> {
        match (self.due.take(), body) {
            (Some((client, due)), Body::Conversion(found)) if due == *found && client == head.client => Ok(()),
            (Some((client, due)), _) => {
                Err(format!("is not the conversion to {} that the outcome before it made for {client}", due.campaign))
            }
            (None, Body::Conversion(_)) => Err("is a conversion that attribution does not give".into()),
            (None, _) => Ok(()),
        }
    }

    fn conversion_due(&self, head: &leaf::Leaf, body: &Body) -> Option<(String, leaf::Conversion)> {
        let Body::Outcome(outcome) = body else { return None };
        let terms = self.state.terms(&head.client, &outcome.currency)?;
        let attribution = &self.state.clients.get(&head.client)?.attribution;
        let conversion = attribution.conversion(outcome, Duration::from_secs(terms.lookback_seconds.into()))?;
        Some((head.client.clone(), conversion))
    }

    /// Each change of keys that is signed for was signed for by both, over this very log.
    fn check_keys(&self, rotations: &str, note: &[u8], newest: &VerifyingKey, checkpoint: &Checkpoint) -> Result<(), Finding> {
        let kept = rotation::read(rotations).map_err(|e| finding("log.rotations", e))?;
        let changes = self.state.keys.changes().iter().filter(|change| change.index < checkpoint.size);
        let last = checkpoint.size;
        let mut due = changes.clone();
        for rotation in &kept {
            let root = self.tree.root_at(rotation.checkpoint.size).map_err(|e| finding("log.rotations", e))?;
            if due.next().is_none_or(|change| change.index != rotation.index)
                || root != rotation.checkpoint.root
                || rotation.checkpoint.size > last
            {
                return Err(finding("log.rotations", format!("leaf {} of it is not this log's next change of key", rotation.index)));
            }
        }
        // Cut off before the proof was kept, the change rests on the checkpoint itself.
        if let Some(change) = due.next() {
            let place = format!("leaf {}", change.index);
            let new = change.new.parse().map_err(|e| finding(&place, e))?;
            if change.old != newest.to_string() || rotation::signed_by_both(note, newest, &new).is_err() {
                return Err(finding(
                    place,
                    format!("changes the key to {}, and no checkpoint by both keys covers it", rotation::short(&new)),
                ));
            }
        }
        match due.next() {
            Some(change) => Err(finding(format!("leaf {}", change.index), "changes the key, and its proof is not in log.rotations")),
            None => Ok(()),
        }
    }

    fn finish(mut self, checkpoint: &Checkpoint) -> Result<Report, Finding> {
        let leaves = self.tree.size();
        if checkpoint.size > leaves {
            return Err(finding(format!("leaf {leaves}"), format!("is missing: {} leaves were signed", checkpoint.size)));
        }
        if self.tree.root_at(checkpoint.size).map_err(|e| finding("checkpoint", e))? != checkpoint.root {
            return Err(finding(format!("leaves 0 to {}", checkpoint.size), "are not those that were signed: another root"));
        }
        if let Some(Opening { rollup: opening, said: false, .. }) = &self.opening {
            return Err(finding("opening", format!("no record says that it is the fold of the {} leaves that were pruned", opening.last)));
        }
        self.report.log_id = self.log_id;
        self.report.leaves = leaves;
        self.report.signed = checkpoint.size;
        self.report.root = checkpoint.root.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(self.report)
    }
}

fn kind(body: &Body) -> &'static str {
    match body {
        Body::Decisions(_) => "decision batches",
        Body::LeaseGranted(_) => "leases granted",
        Body::LeaseRenewed(_) => "leases renewed",
        Body::SpendMark(_) => "spend marks",
        Body::LeaseReturned(_) => "leases returned",
        Body::Settlements(_) => "settlement batches",
        Body::Voids(_) => "void batches",
        Body::Conversion(_) => "conversions",
        Body::Outcome(_) => "outcomes",
        Body::Terms(_) => "terms",
        Body::Campaign(_) => "campaigns",
        Body::Policy(_) => "policies",
        Body::PolicyStage(_) => "policy stages",
        Body::PeriodClosed(_) => "periods closed",
        Body::Invoice(_) => "invoices",
        Body::Evidence(_) => "evidence",
        Body::SpendAdjustment(_) => "spend adjustments",
        Body::Limits(_) => "limits",
        Body::BudgetAlert(_) => "budget alerts",
        Body::KeyRotated(_) => "changes of key",
        Body::ClientMoved(_) => "clients moved",
        Body::Erased(_) => "erasures",
        Body::InvoiceEvent(_) => "events of invoices",
        Body::Access(_) => "accesses",
        Body::Rollup(_) => "rollups",
    }
}
