//! An amount as an invoice prints it: an exact decimal with a fixed number of places.
//!
//! Reading and printing are all it does: arithmetic happens on integers in [`super::fee`].

use std::fmt;

use iso_currency::Currency;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Decimal places of an amount in nanos of a currency.
pub const NANO_PLACES: u32 = 9;

/// Why an amount could not be read or printed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not a decimal number.
    #[error("amount {text:?} is not a plain decimal number")]
    NotDecimal {
        /// What was given.
        text: String,
    },
    /// More digits than an amount may have.
    #[error("amount of {units} units with {places} decimal places does not fit into 96 bits")]
    TooLarge {
        /// The integer count of smallest units.
        units: i128,
        /// Decimal places.
        places: u32,
    },
    /// Not an ISO 4217 code, or one without a minor unit (such as gold).
    #[error("currency {code:?} is not an ISO 4217 currency with a minor unit")]
    Currency {
        /// What was given.
        code: String,
    },
}

/// An integer count of units of `10^-places` of a currency. Its JSON is a string, such as `"2209.00"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Amount(Decimal);

impl Amount {
    /// `units` of `10^-places`.
    pub fn new(units: i128, places: u32) -> Result<Self, AmountError> {
        Decimal::try_from_i128_with_scale(units, places)
            .map(|d| Self(if units == 0 { d.abs() } else { d }))
            .map_err(|_| AmountError::TooLarge { units, places })
    }

    /// The integer count of units.
    pub fn units(self) -> i128 {
        self.0.mantissa()
    }

    /// Decimal places.
    pub fn places(self) -> u32 {
        self.0.scale()
    }

    /// Reads a plain decimal such as `"36368.00"`; its places are those that are written.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
        let read = if plain { Decimal::from_str_exact(text).ok() } else { None };
        read.map(Self).ok_or_else(|| AmountError::NotDecimal { text: text.to_owned() })
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Decimal places of a currency's minor unit by ISO 4217: 2 for USD, 0 for JPY, 3 for KWD.
pub fn minor_places(code: &str) -> Result<u32, AmountError> {
    Currency::from_code(code)
        .and_then(|currency| currency.exponent())
        .map(u32::from)
        .ok_or_else(|| AmountError::Currency { code: code.to_owned() })
}

/// `units` of `10^-places` with no needless zeros, but at least `least` places: a baseline of
/// 3,000,000 parts per million is `"3.0"` with 6 places, a share of 100,000 is `"10"` percent with 4.
pub fn trimmed(units: i64, places: usize, least: usize) -> String {
    let sign = if units < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", units.unsigned_abs(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let kept = fraction.trim_end_matches('0').len().max(least.min(places));
    if kept == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{}", &fraction[..kept]) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn prints_all_places_and_reads_them_back() {
        for (units, places, text) in
            [(220_900, 2, "2209.00"), (-5, 2, "-0.05"), (0, 2, "0.00"), (7, 0, "7"), (36_368_000_000_001, 9, "36368.000000001")]
        {
            let amount = Amount::new(units, places).unwrap();
            assert_eq!(amount.to_string(), text);
            let read = Amount::parse(text).unwrap();
            assert_eq!((read.units(), read.places()), (units, places));
        }
    }

    #[test]
    fn refuses_what_is_not_a_plain_decimal() {
        for text in ["", "1e3", "1_000", "+1", "--1", "1.2.3", "NaN", "0x1", " 1"] {
            assert!(Amount::parse(text).is_err(), "{text:?} was read");
        }
        assert!(Amount::new(i128::MAX, 2).is_err());
    }

    #[test]
    fn takes_minor_units_from_iso_4217() {
        assert_eq!(minor_places("USD"), Ok(2));
        assert_eq!(minor_places("JPY"), Ok(0));
        assert_eq!(minor_places("KWD"), Ok(3));
        assert!(minor_places("XAU").is_err(), "gold has no minor unit");
        assert!(minor_places("usd?").is_err());
    }

    #[test]
    fn prints_parts_per_million_plainly() {
        assert_eq!(trimmed(3_000_000, 6, 1), "3.0");
        assert_eq!(trimmed(3_141_593, 6, 1), "3.141593");
        assert_eq!(trimmed(-500_000, 6, 1), "-0.5");
        assert_eq!(trimmed(0, 6, 1), "0.0");
        assert_eq!(trimmed(100_000, 4, 0), "10");
        assert_eq!(trimmed(125_000, 4, 0), "12.5");
        assert_eq!(trimmed(1, 4, 0), "0.0001");
    }
}
