//! Questions, read where they stand in their message.
//!
//! None is said of a message that is wrong, and of one that is rare: with a history, or a group among the fields that are unknown. prost reads those.

use kiki::pb::syncvalue::v1 as pb;
use kiki::wire::{BYTES, Reader, VARINT};
use prost_types::Timestamp;

/// A question as it stands in its message, unchecked.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::rpc) struct Asking<'m> {
    pub(in crate::rpc) client: &'m str,
    pub(in crate::rpc) subject: Option<Subject<'m>>,
    pub(in crate::rpc) currency: &'m str,
    pub(in crate::rpc) horizon_days: u32,
    pub(in crate::rpc) at: Option<Timestamp>,
    pub(in crate::rpc) campaign: &'m str,
    /// It is the question before about another subject: what was found out about the rest of it holds.
    pub(in crate::rpc) as_before: bool,
}

/// Whose value is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::rpc) enum Subject<'m> {
    Customer(&'m str),
    Key(&'m [u8]),
    History(&'m pb::History),
}

impl<'m> From<&'m pb::PredictRequest> for Asking<'m> {
    fn from(request: &'m pb::PredictRequest) -> Self {
        use pb::predict_request::Subject::{Customer, CustomerKey, History};
        let pb::PredictRequest { client, subject, currency, horizon_days, at, campaign } = request;
        let subject = subject.as_ref().map(|subject| match subject {
            Customer(customer) => Subject::Customer(customer),
            CustomerKey(key) => Subject::Key(key),
            History(history) => Subject::History(history),
        });
        Self { client, subject, currency, horizon_days: *horizon_days, at: *at, campaign, as_before: false }
    }
}

/// Reads a PredictRequest.
pub(in crate::rpc) fn question(message: &[u8]) -> Option<Asking<'_>> {
    Some(framed(message)?.0)
}

/// What stands before and behind a question's one subject.
#[derive(Debug, Clone, Copy)]
struct Frame<'m> {
    head: &'m [u8],
    tail: &'m [u8],
}

/// Reads a PredictRequest; without a frame where it has no subject, or several.
fn framed(message: &[u8]) -> Option<(Asking<'_>, Option<Frame<'_>>)> {
    let (mut asking, mut fields, mut frame, mut subjects) = (Asking::default(), Reader(message), None, 0);
    loop {
        let before = fields.0.len();
        let Some(key) = fields.key()? else { break };
        match key {
            (1, BYTES) => asking.client = fields.text()?,
            (2 | 3, BYTES) => {
                asking.subject = Some(subject(&mut fields, key.0)?);
                frame = Some(Frame { head: &message[..message.len() - before], tail: fields.0 });
                subjects += 1;
            }
            (5, BYTES) => asking.currency = fields.text()?,
            (6, VARINT) => asking.horizon_days = fields.varint()? as u32, // as prost: what is more than 32 bits is cut off
            (7, BYTES) => time(fields.bytes()?, asking.at.get_or_insert_default())?,
            (8, BYTES) => asking.campaign = fields.text()?,
            (1..=8, _) => return None,
            (_, kind) => fields.skip(kind)?,
        }
    }
    Some((asking, frame.filter(|_| subjects == 1)))
}

/// The subject of a question that is another's but for it.
fn of_frame<'m>(message: &'m [u8], frame: &Frame<'_>) -> Option<Subject<'m>> {
    let mut fields = Reader(message.strip_prefix(frame.head)?);
    let (number @ (2 | 3), BYTES) = fields.key()?? else { return None };
    let subject = subject(&mut fields, number)?;
    (fields.0 == frame.tail).then_some(subject)
}

/// Reads a PredictBatchRequest or PredictStreamRequest: the first `most` questions, and how many there are.
pub(in crate::rpc) fn questions(message: &[u8], most: usize) -> Option<(Vec<Asking<'_>>, usize)> {
    let (mut all, mut count, mut fields) = (Vec::new(), 0, Reader(message));
    let mut before: Option<(Asking<'_>, Frame<'_>)> = None;
    while let Some(key) = fields.key()? {
        match key {
            (1, BYTES) => {
                let bytes = fields.bytes()?;
                // As a rule questions differ in the subject alone, and are of one length.
                let like = before.as_ref().and_then(|(asking, frame)| Some((*asking, of_frame(bytes, frame)?)));
                let asking = if let Some((asking, subject)) = like {
                    Asking { subject: Some(subject), as_before: true, ..asking }
                } else {
                    let (asking, frame) = framed(bytes)?;
                    before = frame.map(|frame| (asking, frame));
                    all.reserve((fields.0.len() / bytes.len().max(1) + 1).min(most));
                    asking
                };
                if count < most {
                    all.push(asking);
                }
                count += 1;
            }
            (1, _) => return None,
            (_, kind) => fields.skip(kind)?,
        }
    }
    Some((all, count))
}

/// Fields that come again replace those before, one by one.
fn time(message: &[u8], time: &mut Timestamp) -> Option<()> {
    let mut fields = Reader(message);
    while let Some(key) = fields.key()? {
        match key {
            (1, VARINT) => time.seconds = fields.varint()?.cast_signed(),
            (2, VARINT) => time.nanos = fields.varint()? as i32,
            (1..=2, _) => return None,
            (_, kind) => fields.skip(kind)?,
        }
    }
    Some(())
}

/// The rest of field 2 or 3.
fn subject<'m>(fields: &mut Reader<'m>, number: u32) -> Option<Subject<'m>> {
    Some(if number == 2 { Subject::Customer(fields.text()?) } else { Subject::Key(fields.bytes()?) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    /// What is read is what prost reads; whether anything was.
    fn agree(bytes: &[u8]) -> bool {
        let single = question(bytes);
        if let Some(asking) = &single {
            let request = pb::PredictRequest::decode(bytes).unwrap();
            assert_eq!(*asking, Asking::from(&request));
        }
        let list = questions(bytes, 3);
        if let Some((first, count)) = &list {
            let all = pb::PredictStreamRequest::decode(bytes).unwrap();
            assert_eq!(*count, all.requests.len());
            let mut before = Asking::default();
            for (asking, request) in first.iter().zip(&all.requests) {
                let expected = Asking { as_before: asking.as_before, ..Asking::from(request) };
                assert_eq!(*asking, expected);
                assert!(!asking.as_before || Asking { subject: asking.subject, as_before: true, ..before } == expected);
                before = *asking;
            }
            assert_eq!(first.len(), all.requests.len().min(3));
        }
        single.is_some() || list.is_some()
    }

    fn request() -> impl Strategy<Value = pb::PredictRequest> {
        use pb::predict_request::Subject::{Customer, CustomerKey, History};
        let event =
            (any::<String>(), any::<i64>()).prop_map(|(event_id, value_micros)| pb::Event { event_id, value_micros, ..Default::default() });
        let subject = prop_oneof![
            any::<String>().prop_map(Customer),
            any::<[u8; 16]>().prop_map(|key| CustomerKey(key.to_vec().into())),
            any::<Vec<u8>>().prop_map(|key| CustomerKey(key.into())),
            prop::collection::vec(event, 0..3).prop_map(|events| History(pb::History { events })),
        ];
        let at = prop::option::of((any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos }));
        let texts = ("[a-z]{0,9}|\\PC{0,9}", "[A-Z]{0,3}", "|c-[0-9]{1,9}");
        (texts, prop::option::of(subject), any::<u32>(), at).prop_map(|((client, currency, campaign), subject, horizon_days, at)| {
            pb::PredictRequest { client, subject, currency, horizon_days, at, campaign }
        })
    }

    /// Fields of any number and kind, as a newer caller might send them: those that are known too, in any order, again, and of wrong kinds.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        let payload = |kind: u32| match kind {
            VARINT_ => any::<u64>().prop_map(varint).boxed(),
            1 => any::<[u8; 8]>().prop_map(Vec::from).boxed(),
            2 => prop_oneof![any::<Vec<u8>>(), "\\PC{0,5}".prop_map(String::into_bytes), Just(vec![8, 7]), Just(vec![16, 9, 24, 1])]
                .prop_map(|bytes| [varint(bytes.len() as u64), bytes].concat())
                .boxed(),
            5 => any::<[u8; 4]>().prop_map(Vec::from).boxed(),
            _ => Just(Vec::new()).boxed(),
        };
        let key = prop_oneof![
            8 => (1..=12_u32, prop_oneof![6 => Just(2), 3 => Just(0_u32), 1 => 0..8_u32]),
            1 => (0..(1_u32 << 29), 0..8_u32),
        ];
        key.prop_flat_map(move |(number, kind)| {
            payload(kind).prop_map(move |payload| [varint(u64::from(number << 3 | kind)), payload].concat())
        })
    }

    const VARINT_: u32 = VARINT as u32;

    fn varint(x: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(x, &mut bytes);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn reads_what_is_sent_as_prost_does(requests in prop::collection::vec(request(), 0..5)) {
            let plain = |request: &pb::PredictRequest| !matches!(request.subject, Some(pb::predict_request::Subject::History(_)));
            for request in &requests {
                let bytes = request.encode_to_vec();
                agree(&bytes);
                prop_assert_eq!(question(&bytes).is_some(), plain(request));
            }
            let all = requests.iter().all(plain);
            let bytes = pb::PredictStreamRequest { requests }.encode_to_vec();
            agree(&bytes);
            prop_assert_eq!(questions(&bytes, 3).is_some(), all);
        }

        #[test]
        fn reads_questions_that_differ_in_their_subject(request in request(), others in prop::collection::vec(request(), 1..4)) {
            let alike = others.into_iter().map(|other| pb::PredictRequest { subject: other.subject, ..request.clone() });
            let requests: Vec<_> = alike.collect();
            let named = |request: &pb::PredictRequest| question(&request.encode_to_vec()).is_some_and(|asking| asking.subject.is_some());
            let all_named = requests.iter().all(named);
            let bytes = pb::PredictStreamRequest { requests }.encode_to_vec();
            agree(&bytes);
            if all_named {
                let (read, _) = questions(&bytes, 9).unwrap();
                prop_assert!(read[1..].iter().all(|asking| asking.as_before));
            }
        }

        #[test]
        fn reads_nothing_that_prost_reads_otherwise(fields in prop::collection::vec(field(), 0..6), of_one in any::<bool>(), cut in 0..40_usize) {
            let mut bytes = fields.concat();
            if of_one {
                let same = [vec![10], varint(bytes.len() as u64), bytes].concat();
                bytes = [&*same, &same].concat();
            }
            agree(&bytes);
            bytes.truncate(bytes.len().saturating_sub(cut));
            agree(&bytes);
        }

        #[test]
        fn reads_no_bytes_that_prost_reads_otherwise(bytes: Vec<u8>, requests in prop::collection::vec(request(), 1..3), at: prop::sample::Index, byte: u8) {
            agree(&bytes);
            let mut bytes = pb::PredictBatchRequest { requests }.encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            agree(&bytes);
        }
    }

    #[test]
    fn what_is_unknown_is_passed_over_and_groups_are_left_to_prost() {
        assert!(agree(&[0x48, 1, 0x52, 1, 0xff, 0x5d, 1, 2, 3, 4, 0x61, 1, 2, 3, 4, 5, 6, 7, 8]));
        assert!(!agree(&[0x4b, 0x4c]) && pb::PredictRequest::decode(&[0x4b, 0x4c][..]).is_ok());
    }
}
