//! Notices: what an exchange's word does to a slot.
//!
//! An exchange settles on its billing notice, or on its win notice where it sends no other; the other of the two is
//! taken and moves nothing. A charge above what was bid is refused: the exchange owes an explanation first.

use kiki::leaf;
use kiki::money::Nanos;

use super::receipt::Receipt;

/// What the exchange says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The bid won, at this price.
    Win(Nanos),
    /// The impression is charged, at this price.
    Bill(Nanos),
    /// The bid lost, for OpenRTB's numbered reason.
    Loss(u32),
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The slot is charged.
    Settle(Nanos),
    /// The slot costs nothing.
    Void(u32),
    /// Nothing moves.
    Noted,
    /// The notice is not taken.
    Refused(Refused),
}

/// Why a notice is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The charge is above the bid.
    #[error("a price of {price} nanos is above the {max} that was bid")]
    AboveBid {
        /// What is charged.
        price: i64,
        /// What was bid.
        max: i64,
    },
    /// The charge is below nothing.
    #[error("a price of {price} nanos is negative")]
    Negative {
        /// What is charged.
        price: i64,
    },
}

/// What the notice does.
#[must_use]
pub fn effect(receipt: &Receipt, word: Word, settles_on_win: bool) -> Effect {
    let (price, settles) = match word {
        Word::Loss(reason) => return Effect::Void(reason),
        Word::Win(price) => (price, settles_on_win),
        Word::Bill(price) => (price, !settles_on_win),
    };
    if !settles {
        return Effect::Noted;
    }
    if price < Nanos::ZERO {
        return Effect::Refused(Refused::Negative { price: price.get() });
    }
    if price > receipt.max_price {
        return Effect::Refused(Refused::AboveBid { price: price.get(), max: receipt.max_price.get() });
    }
    Effect::Settle(price)
}

/// The record that the slot is closed with; the log adds what it alone knows.
#[must_use]
pub fn settlement(receipt: &Receipt, price: Nanos, noticed_at: kiki::clock::UnixMicros) -> leaf::Settlement {
    leaf::Settlement {
        sequence: receipt.sequence,
        max_nanos: receipt.max_price.get(),
        price_nanos: price.get(),
        bid_at: Some(receipt.bid_at.into()),
        noticed_at: Some(noticed_at.into()),
        exchange: receipt.exchange.clone(),
        platform: receipt.platform.clone(),
        customer: receipt.customer.map(|key| key.0.to_vec()).unwrap_or_default().into(),
        predicted_ltv_micros: receipt.predicted_ltv.get(),
        model: receipt.model.clone(),
        horizon_days: receipt.horizon_days.into(),
        excess: false,
    }
}
