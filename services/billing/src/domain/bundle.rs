//! Checking an invoice offline, from its proof bundle and the log's public key alone.
//!
//! Nothing in the bundle is believed but what the key signed. From the checkpoint's root down:
//! the proof shows that the leaves are in the log, the gapless `client_seq` that none of the
//! client's was left out, the attribution rule that the conversions are those that the leaves
//! give, and then the whole invoice is drawn up again and compared with the document, figure by
//! figure. The document's digest stands in the log, in the last of the leaves.
//!
//! Of a client with more leaves than a file holds, the bundle has the leaves of terms, closings, invoices and their events, its
//! books in [`sheets`], and the leaves of a [`sample`] of these sheets. The sheets add up to every figure of the document and to
//! the totals that the log's closings say; whether they are what the leaves say is seen on the sheets that were drawn. What a
//! sample does not show: attribution and decisions, which need all leaves of a customer; single records that cancel each other
//! out, left out together; and that no closing, invoice or event is left out, which the client knows from its invoices.
//!
//! What it cannot show: that the log's owner never wrote another history for somebody else. That
//! is what witnesses of the checkpoints are for.

mod compare;
mod courses;
mod history;
pub mod limits;
pub mod sample;
pub mod sheets;
mod slots;

use std::collections::BTreeMap;
use std::fmt;

use kiki::leaf::{self, leaf::Body};
use kiki::tlog::note::VerifyingKey;
use kiki::tlog::{self, Checkpoint, Hash};
use sha2::{Digest as _, Sha256};

use super::invoice::Invoice;
use super::record::{self, Record};
use history::History;
use sheets::Sheets;

/// The bundle, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The invoice's JSON, byte for byte.
    pub invoice_json: Vec<u8>,
    /// A signed checkpoint that covers all the leaves.
    pub checkpoint: String,
    /// Every change of the log's key, as [`kiki::rotation`] reads them; empty where there was none.
    pub rotations: String,
    /// Every leaf of the client up to the invoice's own, and the evidence that its terms name; indices rise.
    pub leaves: Vec<BundleLeaf>,
    /// The multiproof of them all.
    pub proof: Vec<Hash>,
    /// Where the records among the leaves are a sample.
    pub sample: Option<Sample>,
}

/// What a sample is drawn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The client's books in the document's currency.
    pub sheets: Sheets,
    /// SHA-256 of their one encoding.
    pub sha256: Hash,
    /// What the sample is drawn with besides the document: a client's own.
    pub challenge: Vec<u8>,
}

/// A leaf of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleLeaf {
    /// Its index in the log.
    pub index: u64,
    /// Its bytes.
    pub leaf: Vec<u8>,
    /// Its hash, so that a changed leaf is named rather than only noticed.
    pub hash: Hash,
}

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The invoice, which is as the log gives it.
    pub invoice: Invoice,
    /// Leaves that were checked.
    pub leaves: u64,
    /// Size of the checkpoint that they were checked against.
    pub checkpoint_size: u64,
    /// Impressions that were settled without a decision among the leaves: reservations, and bids whose
    /// decision a crash lost before it was acknowledged. What they say is not checked against a decision.
    pub settlements_without_decision: u64,
    /// Where only a sample of the records was checked.
    pub sampled: Option<Sampled>,
}

/// How much was seen of books of which a bundle has a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampled {
    /// Sheets that were opened, and how many there are.
    pub sheets: (u64, u64),
    /// Records on them, and how many there are.
    pub records: (u64, u64),
    /// How often was drawn by records, by spend and by customers' money each.
    pub draws: u64,
    /// What was drawn with.
    pub challenge: Vec<u8>,
}

/// Where something is off.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The bundle as a file.
    File,
    /// Its checkpoint.
    Checkpoint,
    /// Its proof.
    Proof,
    /// The leaf of this index.
    Leaf(u64),
    /// The books' sheets together.
    Sheets,
    /// The sheet of this number, from 0.
    Sheet(usize),
    /// The invoice's line of this campaign.
    Line(String),
    /// A field of the invoice.
    Field(String),
}

/// Something that is off.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What.
    pub problem: String,
}

/// Most findings that are listed: a person reads the first few, and a hostile file should not fill a disk.
pub const FINDINGS_MAX: usize = 1_000;

/// Findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, place: Place, problem: impl fmt::Display) {
        if self.0.len() < FINDINGS_MAX {
            self.0.push(Finding { place, problem: problem.to_string() });
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = &self.problem;
        match &self.place {
            Place::File => write!(f, "bundle: {problem}"),
            Place::Checkpoint => write!(f, "checkpoint: {problem}"),
            Place::Proof => write!(f, "proof: {problem}"),
            Place::Leaf(index) => write!(f, "leaf {index}: {problem}"),
            Place::Sheets => write!(f, "sheets: {problem}"),
            Place::Sheet(number) => write!(f, "sheet {number}: {problem}"),
            Place::Line(campaign) => write!(f, "line {campaign}: {problem}"),
            Place::Field(field) => write!(f, "invoice {field}: {problem}"),
        }
    }
}

/// Checks a bundle under the log's key. The key comes from elsewhere, never with the bundle; its
/// name is the log that it speaks for. Where it was replaced since, the changes in the bundle lead from it to the one
/// that signed.
pub fn verify(bundle: &Bundle, key: &VerifyingKey) -> Result<Report, Vec<Finding>> {
    let mut findings = Findings::default();
    let outcome = check(bundle, key, &mut findings);
    match outcome {
        Some(report) if findings.0.is_empty() => Ok(report),
        _ => Err(findings.0),
    }
}

fn check(bundle: &Bundle, key: &VerifyingKey, findings: &mut Findings) -> Option<Report> {
    let checkpoint = open(bundle, key).map_err(|problem| findings.add(Place::Checkpoint, problem)).ok();
    check_tree(bundle, checkpoint.as_ref(), findings);
    let document = Invoice::from_json(&bundle.invoice_json);
    let document = document.map_err(|e| findings.add(Place::Field("json".into()), e)).ok()?;
    let checkpoint = checkpoint?;
    let (mut own, others) = decode(bundle, &checkpoint.origin, &document.client, findings);
    let records = bundle.sample.as_ref().map(|_| {
        history::follow(&own, findings);
        take_records(&mut own, findings)
    });
    let history = History::replay(&own, bundle.sample.as_ref(), findings);
    let sampled = match (&bundle.sample, records) {
        (Some(sample), Some(records)) => Some(open_sample(bundle, sample, &records, &history, findings)?),
        _ => None,
    };
    let recomputed = recompute(&history, &document, &checkpoint, findings)?;
    check_evidence(&recomputed, &history, &own, &others, findings);
    compare::documents(&document, &recomputed, findings);
    if findings.0.is_empty() && recomputed.to_json() != bundle.invoice_json {
        findings.add(Place::Field("json".into()), "is not written in its one form");
    }
    check_issued(&history, bundle, &recomputed, findings);
    Some(Report {
        invoice: recomputed,
        leaves: bundle.leaves.len() as u64,
        checkpoint_size: checkpoint.size,
        settlements_without_decision: history.undecided,
        sampled,
    })
}

/// Takes the records out from among a client's leaves.
fn take_records(own: &mut Vec<Decoded>, findings: &mut Findings) -> Vec<Record> {
    let mut records = Vec::new();
    own.retain(|(header, body)| match record::of(header, body) {
        Ok(None) => true,
        Ok(Some(record)) => {
            records.push(record);
            false
        }
        Err(e) => {
            findings.add(Place::Leaf(header.index), e);
            false
        }
    });
    records
}

/// The sheets add up, and those that were drawn say what their leaves say.
fn open_sample(bundle: &Bundle, sample: &Sample, records: &[Record], history: &History, findings: &mut Findings) -> Option<Sampled> {
    let sheets = &sample.sheets;
    let closed = history.closed().map_err(|problem| findings.add(Place::Sheets, problem)).ok()?;
    sheets.check((&closed.totals.0, &closed.totals.1), findings);
    let drawn = sample::drawn(sheets, &bundle.invoice_json, &sample.challenge);
    let mut opened: BTreeMap<usize, Vec<Record>> = drawn.iter().map(|at| (*at, Vec::new())).collect();
    for record in records {
        let of = (record.currency == closed.currency).then(|| sheets.of(record)).flatten();
        match of.and_then(|at| opened.get_mut(&at)) {
            Some(sheet) => sheet.push(record.clone()),
            None => findings.add(Place::Leaf(record.leaf), "is of no sheet that was drawn"),
        }
    }
    sheets.open(&opened, &closed.periods, findings);
    let all = sheets.records();
    Some(Sampled {
        sheets: (opened.len() as u64, sheets.sheets.len() as u64),
        records: (records.len() as u64, all),
        draws: sample::draws(all),
        challenge: sample.challenge.clone(),
    })
}

/// The checkpoint, under the key that the changes lead to.
fn open(bundle: &Bundle, key: &VerifyingKey) -> Result<Checkpoint, String> {
    let key = kiki::rotation::newest(&bundle.rotations, key).map_err(|e| e.to_string())?;
    Checkpoint::open(bundle.checkpoint.as_bytes(), key.name(), &key).map_err(|e| e.to_string())
}

/// The leaves are what their hashes say, and their hashes lead to the signed root.
fn check_tree(bundle: &Bundle, checkpoint: Option<&Checkpoint>, findings: &mut Findings) {
    let mut hashes = Vec::with_capacity(bundle.leaves.len());
    for leaf in &bundle.leaves {
        let hash = tlog::leaf_hash(&leaf.leaf);
        if hash != leaf.hash {
            let (is, said) = (hex::encode(hash), hex::encode(leaf.hash));
            findings.add(Place::Leaf(leaf.index), format!("its bytes hash to {is} but its hash is given as {said}"));
        }
        hashes.push((leaf.index, hash));
    }
    let Some(checkpoint) = checkpoint else { return };
    match tlog::multiproof_root(checkpoint.size, &hashes, &bundle.proof) {
        Err(e) => findings.add(Place::Proof, e),
        Ok(root) if root != checkpoint.root => {
            let (is, signed) = (hex::encode(root), hex::encode(checkpoint.root));
            findings.add(Place::Proof, format!("leaves and proof give root {is} but {signed} was signed"));
        }
        Ok(_) => {}
    }
}

/// A leaf, decoded.
type Decoded = (leaf::Leaf, Body);

/// The client's own leaves, and the others.
fn decode(bundle: &Bundle, log_id: &str, client: &str, findings: &mut Findings) -> (Vec<Decoded>, Vec<Decoded>) {
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for leaf in &bundle.leaves {
        let place = Place::Leaf(leaf.index);
        match leaf::decode(&leaf.leaf) {
            Err(e) => findings.add(place, e),
            Ok((header, _)) if header.index != leaf.index => {
                findings.add(place, format!("says that it is leaf {}", header.index));
            }
            Ok((header, _)) if header.log_id != log_id => {
                findings.add(place, format!("is of log {:?}, not of {log_id:?}", header.log_id));
            }
            Ok(decoded) if decoded.0.client == client => own.push(decoded),
            Ok(decoded) => others.push(decoded),
        }
    }
    (own, others)
}

/// Draws the invoice up again. Of the document it takes its number, to find the leaf that issued
/// it, and the checkpoint that it was drawn up at, which its digest in the log vouches for.
fn recompute(history: &History, document: &Invoice, checkpoint: &Checkpoint, findings: &mut Findings) -> Option<Invoice> {
    let stated = &document.completeness;
    let Some(issued) = history.issued.as_ref().filter(|issued| issued.invoice.number == document.invoice_id) else {
        findings.add(Place::Field("invoice_id".into()), "the client's last leaf does not issue this number");
        return None;
    };
    if !(issued.rests_on < stated.checkpoint_size && stated.checkpoint_size <= issued.leaf) {
        let problem = format!("{} does not lie between leaf {} and the invoice", stated.checkpoint_size, issued.rests_on);
        findings.add(Place::Field("completeness.checkpoint_size".into()), problem);
    }
    if stated.checkpoint_size == checkpoint.size && stated.checkpoint_root != hex::encode(checkpoint.root) {
        findings.add(Place::Field("completeness.checkpoint_root".into()), "is not the signed root of that size");
    }
    match history.invoice(&checkpoint.origin, stated) {
        Ok(mut invoice) => {
            // Notes that were issued before they had this date are as they are: the log vouches for their digest.
            if let (Some(stated), Some(corrects)) = (&document.corrects, &mut invoice.corrects)
                && stated.issue_date.is_none()
            {
                corrects.issue_date = None;
            }
            Some(invoice)
        }
        Err(problem) => {
            findings.add(Place::Leaf(issued.leaf), problem);
            None
        }
    }
}

/// The evidence of each baseline is among the leaves and bears it, and nothing else of others is.
fn check_evidence(invoice: &Invoice, history: &History, own: &[Decoded], others: &[Decoded], findings: &mut Findings) {
    let mut wanted = Vec::new();
    for printed in invoice.parts.iter().map(|part| &part.terms) {
        let Some(index) = printed.evidence_leaf else { continue };
        wanted.push(index);
        let problem = match own.iter().chain(others).find(|(header, _)| header.index == index) {
            None => Some("is the baseline's evidence and is missing".to_owned()),
            Some((_, Body::Evidence(evidence))) => {
                let terms = history.terms(&invoice.currency, printed.version);
                terms.and_then(|terms| terms.check_baseline(evidence).err()).map(|problem| format!("does not bear the baseline: {problem}"))
            }
            Some(_) => Some("is named as the baseline's evidence but is none".to_owned()),
        };
        if let Some(problem) = problem {
            findings.add(Place::Leaf(index), problem);
        }
    }
    for (header, _) in others.iter().filter(|(header, _)| !wanted.contains(&header.index)) {
        findings.add(Place::Leaf(header.index), format!("is of {:?}, whom this invoice does not concern", header.client));
    }
}

/// The log vouches for the document's bytes, and says its total itself.
fn check_issued(history: &History, bundle: &Bundle, recomputed: &Invoice, findings: &mut Findings) {
    let Some(issued) = &history.issued else { return };
    let tax = recomputed.tax.as_ref().map_or(0, |tax| tax.amount.units());
    let given = (recomputed.kind.to_leaf(), recomputed.total_invoice_amount.units(), tax);
    let says = (issued.invoice.kind(), i128::from(issued.invoice.total_minor), i128::from(issued.invoice.tax_minor));
    if says != given {
        let text =
            |(kind, total, tax): (leaf::DocumentKind, i128, i128)| format!("{} of {total} and {tax} minor units", kind.as_str_name());
        findings.add(Place::Leaf(issued.leaf), format!("issues {} but the log gives {}", text(says), text(given)));
    }
    let digest = Sha256::digest(&bundle.invoice_json);
    if digest[..] != issued.invoice.document_sha256[..] {
        let (is, logged) = (hex::encode(digest), hex::encode(&issued.invoice.document_sha256));
        let problem = format!("has SHA-256 {is} but leaf {} of the log says {logged}", issued.leaf);
        findings.add(Place::Field("json".into()), problem);
    }
}
