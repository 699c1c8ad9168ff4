//! Opportunities as they stand in their message, unchecked: read without copying what a bid looks at once.

use kiki::pb::syncflow::v1 as pb;
use kiki::wire::{BYTES, Reader, VARINT};

use crate::domain::opportunity::Texts;

/// An `Opportunity`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Offer<'m> {
    pub(super) request_id: &'m str,
    pub(super) imp_id: &'m str,
    pub(super) exchange: &'m str,
    pub(super) customer: &'m str,
    pub(super) country: &'m str,
    pub(super) domain: &'m str,
    pub(super) categories: Texts<'m>,
    pub(super) format: i32,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) duration_seconds_max: u32,
    pub(super) floor_nanos: i64,
    pub(super) currency: &'m str,
    pub(super) blocked_categories: Vec<&'m str>,
    pub(super) blocked_advertisers: Vec<&'m str>,
    pub(super) blocked_apps: Vec<&'m str>,
    pub(super) tmax_ms: u32,
    pub(super) auction_type: u32,
    pub(super) placement: &'m str,
}

impl<'m> From<&'m pb::Opportunity> for Offer<'m> {
    fn from(message: &'m pb::Opportunity) -> Self {
        Self {
            request_id: &message.request_id,
            imp_id: &message.imp_id,
            exchange: &message.exchange,
            customer: &message.customer,
            country: &message.country,
            domain: &message.domain,
            categories: message.categories.iter().map(String::as_str).collect(),
            format: message.format,
            width: message.width,
            height: message.height,
            duration_seconds_max: message.duration_seconds_max,
            floor_nanos: message.floor_nanos,
            currency: &message.currency,
            blocked_categories: message.blocked_categories.iter().map(String::as_str).collect(),
            blocked_advertisers: message.blocked_advertisers.iter().map(String::as_str).collect(),
            blocked_apps: message.blocked_apps.iter().map(String::as_str).collect(),
            tmax_ms: message.tmax_ms,
            auction_type: message.auction_type,
            placement: &message.placement,
        }
    }
}

/// Reads a `BidStreamRequest`: the first `most` opportunities, and how many there are. None of what is wrong or rare.
pub(super) fn offers(message: &[u8], most: usize) -> Option<(Vec<Offer<'_>>, usize)> {
    let (mut all, mut count, mut fields) = (Vec::new(), 0, Reader(message));
    while let Some(key) = fields.key()? {
        match key {
            (1, BYTES) => {
                let bytes = fields.bytes()?;
                let offer = offer(bytes)?;
                if all.is_empty() {
                    all.reserve((fields.0.len() / bytes.len().max(1) + 1).min(most)); // they are of about one length
                }
                if count < most {
                    all.push(offer);
                }
                count += 1;
            }
            (1, _) => return None,
            (_, kind) => fields.skip(kind)?,
        }
    }
    Some((all, count))
}

fn offer(message: &[u8]) -> Option<Offer<'_>> {
    let (mut offer, mut fields) = (Offer::default(), Reader(message));
    while let Some(key) = fields.key()? {
        match key {
            (1, BYTES) => offer.request_id = fields.text()?,
            (2, BYTES) => offer.imp_id = fields.text()?,
            (3, BYTES) => offer.exchange = fields.text()?,
            (4, BYTES) => offer.customer = fields.text()?,
            (5, BYTES) => offer.country = fields.text()?,
            (6, BYTES) => offer.domain = fields.text()?,
            (7, BYTES) => offer.categories.push(fields.text()?),
            // As prost: what is more than 32 bits is cut off.
            (8, VARINT) => offer.format = fields.varint()? as i32,
            (9, VARINT) => offer.width = fields.varint()? as u32,
            (10, VARINT) => offer.height = fields.varint()? as u32,
            (11, VARINT) => offer.duration_seconds_max = fields.varint()? as u32,
            (12, VARINT) => offer.floor_nanos = fields.varint()?.cast_signed(),
            (13, BYTES) => offer.currency = fields.text()?,
            (14, BYTES) => offer.blocked_categories.push(fields.text()?),
            (15, BYTES) => offer.blocked_advertisers.push(fields.text()?),
            (16, VARINT) => offer.tmax_ms = fields.varint()? as u32,
            (17, VARINT) => offer.auction_type = fields.varint()? as u32,
            (18, BYTES) => offer.placement = fields.text()?,
            (19, BYTES) => offer.blocked_apps.push(fields.text()?),
            (1..=19, _) => return None,
            (_, kind) => fields.skip(kind)?,
        }
    }
    Some(offer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn opportunity() -> impl Strategy<Value = pb::Opportunity> {
        let list = || prop::collection::vec("\\PC{0,4}", 0..4);
        let texts = prop::array::uniform7("|\\PC{0,6}");
        let numbers = (any::<i32>(), prop::array::uniform4(any::<u32>()), any::<i64>(), any::<u32>());
        let lists = (list(), list(), list(), list());
        (texts, numbers, lists).prop_map(|(texts, numbers, (categories, blocked_categories, blocked_advertisers, blocked_apps))| {
            let [request_id, imp_id, exchange, customer, country, domain, placement] = texts;
            let (format, [width, height, duration_seconds_max, tmax_ms], floor_nanos, auction_type) = numbers;
            pb::Opportunity {
                request_id,
                imp_id,
                exchange,
                customer,
                currency: country.clone(),
                country,
                domain,
                categories,
                format,
                width,
                height,
                duration_seconds_max,
                floor_nanos,
                blocked_categories,
                blocked_advertisers,
                blocked_apps,
                tmax_ms,
                auction_type,
                placement,
            }
        })
    }

    /// What is read is what prost reads; whether anything was.
    fn agree(bytes: &[u8]) -> bool {
        let all = pb::BidStreamRequest::decode(bytes).map(|message| message.opportunities);
        let Some((first, count)) = offers(bytes, 3) else { return false };
        let all = all.as_ref().expect("prost reads it");
        assert_eq!(count, all.len());
        assert!(first.into_iter().eq(all.iter().take(3).map(Offer::from)));
        true
    }

    proptest! {
        #[test]
        fn reads_what_prost_reads(opportunities in prop::collection::vec(opportunity(), 0..6), at: prop::sample::Index, byte: u8) {
            let mut bytes = pb::BidStreamRequest { opportunities }.encode_to_vec();
            prop_assert!(agree(&bytes));
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                agree(&bytes);
            }
        }

        #[test]
        fn reads_no_bytes_that_prost_reads_otherwise(bytes: Vec<u8>) {
            agree(&bytes);
        }
    }
}
