//! One impression on offer, whichever way it came in: an OpenRTB impression with what of its request a bid needs.

use kiki::guardrail;
use kiki::money::Nanos;
use sha2::{Digest as _, Sha256};

use super::openrtb::{BidRequest, Dsa, Imp, Media, Native, Size};

/// What may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A banner of one of these sizes.
    Banner(Vec<Size>),
    /// A video.
    Video(Media),
    /// Sound.
    Audio(Media),
    /// A native ad.
    Native(Native),
}

/// One impression on offer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opportunity {
    /// First half of SHA-256(exchange 0x00 request id 0x00 impression id): one opportunity has one answer.
    pub key: [u8; 16],
    /// The exchange that offers it.
    pub exchange: String,
    /// The platform that the exchange belongs to.
    pub platform: String,
    /// The customer's own id.
    pub customer: Option<String>,
    /// ISO 3166-1 alpha-3, or empty.
    pub country: String,
    /// Site domain, app bundle and app domain, as far as they are known.
    pub places: Vec<String>,
    /// Content categories of the place.
    pub categories: Vec<String>,
    /// What may be shown; any of them.
    pub shapes: Vec<Shape>,
    /// Lowest price.
    pub floor: Nanos,
    /// Its currency.
    pub floor_currency: String,
    /// Currencies that may be bid in.
    pub currencies: Vec<String>,
    /// Categories of advertisers that may not bid.
    pub blocked_categories: Vec<String>,
    /// The only categories of advertisers that may bid; empty is all.
    pub allowed_categories: Vec<String>,
    /// Domains of advertisers that may not bid, in lower case.
    pub blocked_advertisers: Vec<String>,
    /// Apps that may not be advertised, by their stores' ids.
    pub blocked_apps: Vec<String>,
    /// Clients that may bid; empty is all.
    pub seats: Vec<String>,
    /// Clients that may not bid.
    pub blocked_seats: Vec<String>,
    /// Markup must be HTTPS throughout.
    pub secure: bool,
    /// Only holders of a deal may bid.
    pub deals_only: bool,
    /// Who wins pays what they bid.
    pub first_price: bool,
    /// The exchange's own name of the placement, or empty.
    pub placement: String,
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

impl Opportunity {
    /// An impression of an OpenRTB request. What a bid is decided by outlives the request, so it is copied here.
    #[must_use]
    pub fn of(request: &BidRequest<'_>, imp: Imp<'_>, exchange: &str, platform: &str) -> Self {
        let shapes = [
            imp.banner.map(|banner| Shape::Banner(banner.sizes)),
            imp.video.map(Shape::Video),
            imp.audio.map(Shape::Audio),
            imp.native.map(Shape::Native),
        ];
        let places = [request.channel.bundle, request.channel.domain.as_deref()];
        let floor_currency = imp.floor_currency.into_owned();
        Self {
            key: key(exchange, request.id, imp.id),
            exchange: exchange.to_owned(),
            platform: platform.to_owned(),
            customer: request.customer.map(str::to_owned),
            country: request.device.country.clone().unwrap_or_default(),
            places: owned(places.iter().flatten()),
            categories: owned(&request.channel.cat),
            shapes: shapes.into_iter().flatten().collect(),
            floor: Nanos::new(imp.floor_nanos),
            // Without a list, what the floor is in is what the exchange reckons in.
            currencies: if request.cur.is_empty() { vec![floor_currency.clone()] } else { owned(&request.cur) },
            floor_currency,
            blocked_categories: owned(&request.bcat),
            allowed_categories: owned(&request.acat),
            blocked_advertisers: owned(&request.badv),
            blocked_apps: owned(&request.bapp),
            seats: owned(&request.wseat),
            blocked_seats: owned(&request.bseat),
            secure: imp.secure,
            deals_only: imp.private_auction,
            first_price: request.at == 1,
            placement: imp.placement.to_owned(),
            test: request.test,
            signals: guardrail::signals(&request.regs.regulations()),
            dsa: request.regs.dsa,
        }
    }
}

fn owned(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    texts.into_iter().map(|text| text.as_ref().to_owned()).collect()
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
