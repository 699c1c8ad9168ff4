//! Personal data on its way into the log and back, and its erasure.

use bytes::Bytes;
use kiki::ids::CustomerKey;
use kiki::leaf::{self, leaf::Body};
use kiki::pb::syncshield::v1 as pb;
use kiki::sealed::{self, Place};
use kiki::status::{self, Reason};
use tonic::Status;

use crate::domain::ledger::{Item, Ledger};
use crate::domain::moving::ELSEWHERE;
use crate::domain::refusal::Refusal;
use crate::error::Error;
use crate::store::Log;
use crate::subjects::{Subject, Subjects};

/// Leaves that are searched for an earlier erasure: some seconds of reading.
const MAX_SEARCHED: u64 = 1_000_000;
/// Bytes of leaves that are read at a time.
const MAX_BYTES: usize = 1 << 20;

/// Takes the personal data out of a request's items, by their places.
pub(super) fn take(items: &mut [pb::RecordItem]) -> Result<Vec<(usize, Bytes)>, Status> {
    let mut taken = Vec::new();
    for (i, item) in items.iter_mut().enumerate() {
        let Some(pb::record_item::Body::Purchase(purchase)) = &mut item.body else { continue };
        let personal = std::mem::take(&mut purchase.personal);
        if personal.len() > sealed::MAX_PERSONAL {
            let problem = format!("{} bytes; at most {} are taken", personal.len(), sealed::MAX_PERSONAL);
            return Err(status::field(&format!("items[{i}].purchase.personal"), problem));
        }
        if !personal.is_empty() {
            taken.push((i, personal));
        }
    }
    Ok(taken)
}

/// Seals it into its items, under keys that are durable.
pub(super) async fn seal(
    log: &Log,
    subjects: &Subjects,
    items: &mut [(String, Item)],
    personal: Vec<(usize, Bytes)>,
) -> Result<(), Status> {
    if personal.is_empty() {
        return Ok(());
    }
    let subject = |i: &usize| match &items[*i] {
        (client, Item::Purchase(outcome)) => subject(client, &outcome.customer, &format!("items[{i}].purchase.customer")),
        _ => Err(Reason::Internal.status(format!("items[{i}] is no purchase"))),
    };
    let wanted = personal.iter().map(|(i, _)| subject(i)).collect::<Result<_, _>>()?;
    let keys = subjects.obtain(wanted).await?;
    for ((i, personal), key) in personal.iter().zip(keys) {
        let (client, Item::Purchase(outcome)) = &mut items[*i] else { continue };
        let place = Place { log_id: log.id(), client, field: sealed::PURCHASE, record: &outcome.event_id };
        outcome.sealed = Some(sealed::seal(&key, place, personal).map_err(Error::from)?);
    }
    Ok(())
}

fn subject(client: &str, customer: &[u8], field: &str) -> Result<Subject, Status> {
    super::convert::check_client(client)?;
    let found = CustomerKey::from_bytes(customer);
    let customer = found.ok_or_else(|| status::field(field, format!("{} bytes; a pseudonym has 16", customer.len())))?;
    Ok(Subject { client: client.to_owned(), customer })
}

/// What was sealed with a purchase, or that it was erased.
pub(super) async fn unseal(log: &Log, subjects: &Subjects, request: pb::UnsealRequest) -> Result<pb::UnsealResponse, Status> {
    let pb::UnsealRequest { client, event_id } = request;
    let not_found = |what| Error::Refused(Refusal::NotFound { what, id: format!("{client}/{event_id}") });
    let (of, event) = (client.clone(), event_id.clone());
    let find = move |ledger: &mut Ledger| Ok(ledger.state.clients.get(&of).and_then(|client| client.attribution.index_of(&event)));
    let index = log.run(find).await?.ok_or_else(|| not_found("purchase"))?;
    let leaves = log.read(index, 1).await?;
    let found = leaves.first().ok_or_else(|| not_found("purchase"))?;
    let (head, body) = leaf::decode(&found.1).map_err(|e| Error::Damaged(e.to_string()))?;
    let Body::Outcome(outcome) = body else { return Err(not_found("purchase").into()) };
    let sealed = outcome.sealed.ok_or_else(|| not_found("personal data of purchase"))?;
    let key = subjects.find(subject(&client, &outcome.customer, "customer")?).await?;
    let position = |index| Some(leaf::Position { log_id: log.id().to_owned(), index });
    let answer = pb::UnsealResponse { position: position(index), ..Default::default() };
    if let Some(key) = key.filter(|key| sealed.key_id == sealed::key_id(key)[..]) {
        let place = Place { log_id: &head.log_id, client: &client, field: sealed::PURCHASE, record: &event_id };
        let personal = sealed::open(&key, place, &sealed).map_err(Error::from)?.into();
        return Ok(pb::UnsealResponse { personal, ..answer });
    }
    let find = move |ledger: &mut Ledger| {
        Ok(ledger.state.clients.get(&client).and_then(|of| of.erased.get(sealed.key_id.as_ref())).map(|at| at.index))
    };
    let erasure = log.run(find).await?.filter(|index| *index != ELSEWHERE);
    Ok(pb::UnsealResponse { erased: true, erasure: erasure.and_then(position), ..answer })
}

/// Erases a customer. It goes on where the caller does not wait for it.
pub(super) async fn erase(log: &Log, subjects: &Subjects, request: pb::EraseSubjectRequest) -> Result<pb::EraseSubjectResponse, Status> {
    let subject = subject(&request.client, &request.customer, "customer")?;
    let (of, to, subjects) = (subject.clone(), log.clone(), subjects.clone());
    let erasing = tokio::spawn(async move { subjects.erase(&to, of, request.reason).await });
    let position = |index| (index != ELSEWHERE).then(|| leaf::Position { log_id: log.id().to_owned(), index });
    if let Some((id, recorded)) = erasing.await.map_err(|_| Error::Stopped)?? {
        return Ok(pb::EraseSubjectResponse { position: position(recorded.index), key_id: id.to_vec().into(), duplicate: false });
    }
    let before = erased_before(log, &subject).await?;
    Ok(before.map_or_else(Default::default, |(key_id, index)| pb::EraseSubjectResponse {
        position: position(index),
        key_id,
        duplicate: true,
    }))
}

/// The last key of a subject that was destroyed, and the record of that: the log names the key with what it sealed.
async fn erased_before(log: &Log, subject: &Subject) -> Result<Option<(Bytes, u64)>, Status> {
    let client = subject.client.clone();
    let erased = move |ledger: &mut Ledger| Ok(ledger.state.clients.get(&client).map(|of| of.erased.clone()).unwrap_or_default());
    let erased = log.run(erased).await?;
    // Those in another log, from where the client moved, are not looked for.
    let Some(end) = erased.values().map(|at| at.index).filter(|index| *index != ELSEWHERE).max() else { return Ok(None) };
    let (mut next, mut found) = (end.saturating_sub(MAX_SEARCHED), None);
    while next < end {
        let leaves = match log.read(next, MAX_BYTES).await {
            Err(Error::Pruned { retained, .. }) if retained > next => {
                next = retained;
                continue;
            }
            other => other?,
        };
        let Some((last, _)) = leaves.last() else { break };
        next = last + 1;
        for (_, bytes) in &leaves {
            let Ok((head, Body::Outcome(outcome))) = leaf::decode(bytes) else { continue };
            let ours = head.client == subject.client && outcome.customer[..] == subject.customer.0;
            let sealed = outcome.sealed.filter(|_| ours).map(|sealed| sealed.key_id);
            let here = sealed.and_then(|id| erased.get(id.as_ref()).map(|at| (id, at.index))).filter(|(_, index)| *index != ELSEWHERE);
            found = here.or(found);
        }
    }
    Ok(found)
}
