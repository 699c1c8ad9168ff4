//! One impression on offer, whichever way it came in: an OpenRTB impression with what of its request a bid needs.

use kiki::guardrail;
use kiki::money::Nanos;
use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;

use super::openrtb::{BidRequest, Dsa, Imp, Media, Native, Sizes};

/// Texts of which there are few as a rule: places, categories, currencies.
pub type Texts<'a> = SmallVec<[&'a str; 2]>;

/// What may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A banner of one of these sizes.
    Banner(Sizes),
    /// A video.
    Video(Media),
    /// Sound.
    Audio(Media),
    /// A native ad.
    Native(Native),
}

/// One impression on offer. It borrows from the request that offers it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opportunity<'a> {
    /// First half of SHA-256(exchange 0x00 request id 0x00 impression id): one opportunity has one answer.
    pub key: [u8; 16],
    /// The exchange that offers it.
    pub exchange: &'a str,
    /// The platform that the exchange belongs to.
    pub platform: &'a str,
    /// The customer's own id.
    pub customer: Option<&'a str>,
    /// ISO 3166-1 alpha-3, or empty.
    pub country: &'a str,
    /// Site domain, app bundle and app domain, as far as they are known.
    pub places: Texts<'a>,
    /// Content categories of the place.
    pub categories: Texts<'a>,
    /// What may be shown; any of them.
    pub shapes: SmallVec<[Shape; 1]>,
    /// Lowest price.
    pub floor: Nanos,
    /// Its currency.
    pub floor_currency: &'a str,
    /// Currencies that may be bid in.
    pub currencies: Texts<'a>,
    /// Categories of advertisers that may not bid.
    pub blocked_categories: Vec<&'a str>,
    /// The only categories of advertisers that may bid; empty is all.
    pub allowed_categories: Vec<&'a str>,
    /// Domains of advertisers that may not bid.
    pub blocked_advertisers: Vec<&'a str>,
    /// Apps that may not be advertised, by their stores' ids.
    pub blocked_apps: Vec<&'a str>,
    /// Clients that may bid; empty is all.
    pub seats: Vec<&'a str>,
    /// Clients that may not bid.
    pub blocked_seats: Vec<&'a str>,
    /// Markup must be HTTPS throughout.
    pub secure: bool,
    /// Only holders of a deal may bid.
    pub deals_only: bool,
    /// Who wins pays what they bid.
    pub first_price: bool,
    /// The exchange's own name of the placement, or empty.
    pub placement: &'a str,
    /// The exchange is testing and bills nothing.
    pub test: bool,
    /// What the request says of the law and of where it comes from: a bit for each `leaf::Signal`.
    pub signals: u32,
    /// What is to be told of whose ad it is.
    pub dsa: Dsa,
}

/// The opportunity's idempotency key.
#[must_use]
pub fn key(exchange: &str, request_id: &str, imp_id: &str) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(exchange.as_bytes());
    hash.update([0]);
    hash.update(request_id.as_bytes());
    hash.update([0]);
    hash.update(imp_id.as_bytes());
    let digest = hash.finalize();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

impl<'a> Opportunity<'a> {
    /// An impression of an OpenRTB request.
    #[must_use]
    pub fn of(request: &'a BidRequest<'_>, imp: &'a Imp<'_>, exchange: &'a str, platform: &'a str) -> Self {
        let shapes = [
            imp.banner.as_ref().map(|banner| Shape::Banner(banner.sizes.clone())),
            imp.video.clone().map(Shape::Video),
            imp.audio.clone().map(Shape::Audio),
            imp.native.clone().map(Shape::Native),
        ];
        let places = [request.channel.bundle, request.channel.domain.as_deref()];
        Self {
            key: key(exchange, request.id, imp.id),
            exchange,
            platform,
            customer: request.customer,
            country: request.device.country.as_deref().unwrap_or_default(),
            places: places.into_iter().flatten().collect(),
            categories: texts(&request.channel.cat),
            shapes: shapes.into_iter().flatten().collect(),
            floor: Nanos::new(imp.floor_nanos),
            // Without a list, what the floor is in is what the exchange reckons in.
            currencies: if request.cur.is_empty() { texts([&imp.floor_currency]) } else { texts(&request.cur) },
            floor_currency: &imp.floor_currency,
            blocked_categories: texts(&request.bcat),
            allowed_categories: texts(&request.acat),
            blocked_advertisers: texts(&request.badv),
            blocked_apps: texts(&request.bapp),
            seats: texts(&request.wseat),
            blocked_seats: texts(&request.bseat),
            secure: imp.secure,
            deals_only: imp.private_auction,
            first_price: request.at == 1,
            placement: imp.placement,
            test: request.test,
            signals: guardrail::signals(&request.regs.regulations()),
            dsa: request.regs.dsa,
        }
    }
}

fn texts<'a, T: AsRef<str> + 'a, L: FromIterator<&'a str>>(texts: impl IntoIterator<Item = &'a T>) -> L {
    texts.into_iter().map(AsRef::as_ref).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_key_do_not_run_together() {
        assert_eq!(key("x", "r", "1"), key("x", "r", "1"));
        assert_ne!(key("x", "r1", ""), key("x", "r", "1"));
        assert_ne!(key("xr", "", "1"), key("x", "r", "1"));
    }
}
