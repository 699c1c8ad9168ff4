//! Pruning: the leaves of the first segments leave the log's folder, and their hashes stay.
//!
//! Invariants: what is pruned is signed, older than was asked for, and of clients from whose leaves nothing more is
//! computed ([`ClientState::check_ended`](crate::domain::state::ClientState::check_ended)). Before the first leaf goes,
//! Rollup leaves are signed that sum what goes and name the digest of the fold at that point, the fold itself is on
//! disk twice, and the leaves are in the folder that they go to, read back and compared. Wherever a crash comes, the log
//! starts again, and the next pruning goes on.
//!
//! Nothing is deleted: a segment that is put back is a part of the log again. It is not done while the log is served:
//! both take its lock.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiki::clock::{Clock, UnixMicros};
use kiki::framed::Scanner;
use kiki::leaf::{self, leaf::Body};
use kiki::tlog::note::SigningKey;
use kiki::tlog::tile::{Kind, Tile};
use kiki::tlog::{Tree, leaf_hash};

use super::disk::{Disk, Files, replace};
use super::{Log, Paths, files, keys, segments, snapshot};
use crate::domain::rollup::Sums;
use crate::domain::state::State;
use crate::error::Error;

/// What was pruned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The log's leaves are kept from here on.
    pub retained: u64,
    /// Segments that were pruned now.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Why the next one was not.
    pub stopped: String,
}

/// Segments that go, and all that is to be known of them before.
struct Plan {
    segments: Vec<(u64, PathBuf)>,
    /// The tree and the fold of all leaves below the first that stays.
    tree: Tree,
    state: State,
    sums: Sums,
    /// Where the sums begin.
    first: u64,
    bytes: u64,
    stopped: String,
}

/// Prunes the log of a data folder: what was recorded before an instant goes to the folder `to`.
///
/// # Errors
/// A log that is served, or damaged, or that cannot be signed; or the file system's.
pub async fn prune(paths: &Paths, log_id: &str, before: UnixMicros, to: &Path) -> Result<Report, Error> {
    let lock = files::lock(paths)?;
    let key = keys::signing_key(paths, log_id, true)?;
    let report = prune_on(Arc::new(Files), paths, key, Clock::System, before, to).await;
    drop(lock);
    report
}

/// As [`prune`], on any disk; the caller sees to it that nobody writes the log.
///
/// # Errors
/// As [`prune`].
pub async fn prune_on(
    disk: Arc<dyn Disk>,
    paths: &Paths,
    key: SigningKey,
    clock: Clock,
    before: UnixMicros,
    to: &Path,
) -> Result<Report, Error> {
    let (log, hand) = Log::open_by_hand(disk.clone(), paths, key, clock)?;
    let writing = tokio::spawn(hand.run());
    let planned = plan_and_sign(&log, &*disk, paths, before).await;
    log.close().await;
    drop((log, writing.await));
    let plan = planned?;
    let retained = plan.tree.size();
    if plan.segments.is_empty() {
        return Ok(Report { retained, stopped: plan.stopped, ..Default::default() });
    }
    let root = plan.tree.root();
    snapshot::write(&*disk, &paths.opening(), &plan.state, root)?;
    snapshot::write(&*disk, &to.join(format!("{retained:020}.opening")), &plan.state, root)?;
    if snapshot::read(&*disk, &paths.opening(), &plan.tree).is_none() {
        return Err(Error::Damaged(format!("{} does not read back", paths.opening().display())));
    }
    for (first, path) in &plan.segments {
        take_away(&*disk, paths, to, *first, path)?;
    }
    remove_bundles(paths, retained)?;
    Ok(Report { retained, segments: plan.segments.len(), bytes: plan.bytes, stopped: plan.stopped })
}

/// Finds what may go, and has the log say what it was.
async fn plan_and_sign(log: &Log, disk: &dyn Disk, paths: &Paths, before: UnixMicros) -> Result<Plan, Error> {
    let last = log.run(|ledger| Ok(ledger.state.clone())).await?;
    let signed = log.checkpoint(last.size).await?.size;
    let mut plan = plan(log, disk, paths, (&last, signed, before))?;
    let end = plan.tree.size();
    let rolled_up = last.clients.values().any(|client| client.rolled_up >= end);
    if !plan.segments.is_empty() && !rolled_up {
        let (state_sha256, state_version) = snapshot::digest(&plan.state)?;
        let state_sha256 = state_sha256.to_vec().into();
        let like = leaf::Rollup { first: plan.first, last: end, state_sha256, state_version, ..Default::default() };
        let rollups = std::mem::take(&mut plan.sums).rollups(&like);
        log.run(move |ledger| ledger.roll_up(rollups)).await?;
        let size = *log.committed().borrow();
        log.checkpoint(size).await?;
    }
    Ok(plan)
}

fn plan(log: &Log, disk: &dyn Disk, paths: &Paths, (last, signed, before): (&State, u64, UnixMicros)) -> Result<Plan, Error> {
    let tree: Tree = segments::pruned_hashes(disk, &paths.log())?.into_iter().collect();
    let opening = snapshot::read(disk, &paths.opening(), &log.inner.tree.read()).filter(|_| tree.size() > 0).unwrap_or_default();
    if opening.size < tree.size() {
        return Err(Error::Damaged(format!("{} is not the fold of {} leaves", paths.opening().display(), tree.size())));
    }
    let (first, sums) = (opening.size, Sums::default());
    let mut plan = Plan { segments: Vec::new(), tree, state: opening, sums, first, bytes: 0, stopped: String::new() };
    let mut found = segments::list(disk, &paths.log())?;
    found.pop(); // the last is written
    plan.stopped = "what is left is one segment".into();
    for (start, path) in found {
        let bytes = disk.read(&path)?;
        let leaves = decode(&bytes, &path)?;
        // What an earlier pruning did not come to the end of was rolled up, and goes.
        let rolled_up = plan.tree.size() + leaves.len() as u64 <= first;
        if let Some(why) = if rolled_up { None } else { stays(&leaves, last, signed, before) } {
            plan.stopped = format!("{}: {why}", path.display());
            break;
        }
        for (payload, head, body) in &leaves {
            if !rolled_up {
                plan.state.apply(head, body).map_err(|e| Error::Damaged(format!("leaf {}: {e}", head.index)))?;
                plan.sums.take_in(head, body);
            }
            plan.tree.push(leaf_hash(payload));
        }
        plan.bytes += bytes.len() as u64;
        plan.segments.push((start, path));
    }
    Ok(plan)
}

type Decoded<'a> = Vec<(&'a [u8], leaf::Leaf, Body)>;

fn decode<'a>(bytes: &'a [u8], path: &Path) -> Result<Decoded<'a>, Error> {
    let damaged = |what: String| Error::Damaged(format!("{}: {what}", path.display()));
    let decode = |frame: Result<(usize, &'a [u8]), kiki::framed::Bad>| {
        let (_, payload) = frame.map_err(|bad| damaged(bad.to_string()))?;
        let (head, body) = leaf::decode(payload).map_err(|e| damaged(e.to_string()))?;
        Ok((payload, head, body))
    };
    Scanner::new(bytes).map(decode).collect()
}

/// Why a segment may not go.
fn stays(leaves: &Decoded<'_>, last: &State, signed: u64, before: UnixMicros) -> Option<String> {
    let mut clients = std::collections::BTreeSet::new();
    for (_, head, _) in leaves {
        let at = UnixMicros::from_pb(head.recorded_at.as_ref()).unwrap_or_default();
        if at >= before {
            return Some(format!("leaf {} is not old enough", head.index));
        }
        if head.index >= signed {
            return Some(format!("leaf {} is not signed", head.index));
        }
        clients.insert(&head.client);
    }
    let open = |client: &String| last.clients.get(client).and_then(|of| of.check_ended(last.recorded_at).err());
    clients.into_iter().find_map(|client| open(client).map(|why| format!("client {client}: {why}")))
}

/// The leaves are in the other folder and their hashes in this before they go.
fn take_away(disk: &dyn Disk, paths: &Paths, to: &Path, first: u64, path: &Path) -> Result<(), Error> {
    let bytes = disk.read(path)?;
    let copy = to.join(path.file_name().unwrap_or_default());
    replace(disk, &copy, &bytes)?;
    if disk.read(&copy)? != bytes {
        return Err(Error::Damaged(format!("{} does not read back as it was written", copy.display())));
    }
    let hashes: Vec<u8> = decode(&bytes, path)?.iter().flat_map(|(payload, ..)| leaf_hash(payload)).collect();
    replace(disk, &paths.log().join(format!("{first:020}{}", segments::HASHES)), &hashes)?;
    disk.remove(path)?;
    Ok(disk.sync_dir(&paths.log())?)
}

/// The published copies of what was pruned.
fn remove_bundles(paths: &Paths, retained: u64) -> Result<(), Error> {
    for n in 0..retained / 256 {
        let Some(bundle) = Tile::new(Kind::Entries, n, 256) else { continue };
        match std::fs::remove_file(paths.tiles().join(bundle.to_string())) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    Ok(())
}
