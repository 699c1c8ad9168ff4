//! Money: integers with units, checked, never a float.
//!
//! - [`Micros`] are millionths of the currency: limits, leases, values, reports.
//! - [`Nanos`] are billionths: the price of one impression. A CPM in micros *is* the price of an impression in nanos,
//!   so that an auction rounds nothing.
//! - Sums are `i128` nanos and cannot overflow: 2^63 impressions of 2^63 nanos fit.
//!
//! Not here: rounding to the minor unit and formatting for documents, which is Billing's alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Nanos in a micro.
pub const NANOS_PER_MICRO: i128 = 1_000;
/// Parts per million in one: 3.0x is 3,000,000 ppm.
pub const PPM: i128 = 1_000_000;

/// Why an amount was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The result does not fit 64 bits.
    #[error("amount out of range")]
    OutOfRange,
    /// Not three upper-case letters of ISO 4217.
    #[error("currency {0:?} is not an ISO 4217 code")]
    Currency(String),
    /// Not a decimal number with as many places as the unit has.
    #[error("{0:?} is not an amount with at most {1} decimals")]
    Decimal(String, u32),
}

/// Millionths of a currency unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Micros(i64);

impl Micros {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From a count of micros.
    #[must_use]
    pub const fn new(micros: i64) -> Self {
        Self(micros)
    }

    /// The count of micros.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The sum, or none where it does not fit.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The same amount in nanos, for sums.
    #[must_use]
    pub const fn nanos(self) -> i128 {
        self.0 as i128 * NANOS_PER_MICRO
    }
}

/// Billionths of a currency unit: the price of one impression, which is its CPM in micros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Nanos(i64);

impl Nanos {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From a count of nanos.
    #[must_use]
    pub const fn new(nanos: i64) -> Self {
        Self(nanos)
    }

    /// The count of nanos.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// For sums.
    #[must_use]
    pub const fn wide(self) -> i128 {
        self.0 as i128
    }
}

impl From<Nanos> for i128 {
    fn from(value: Nanos) -> Self {
        value.wide()
    }
}

/// Writes `value` units of 10^-`places` as an exact decimal.
#[must_use]
pub fn decimal(value: i128, places: u32) -> String {
    let scale = 10_u128.pow(places);
    let (whole, part) = (value.unsigned_abs() / scale, value.unsigned_abs() % scale);
    let sign = if value < 0 { "-" } else { "" };
    match places {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{part:0width$}", width = places as usize),
    }
}

/// Reads an exact decimal into units of 10^-`places`.
///
/// # Errors
/// [`MoneyError::Decimal`] for anything but digits with at most `places` decimals, [`MoneyError::OutOfRange`] beyond 64 bits.
pub fn parse_decimal(text: &str, places: u32) -> Result<i64, MoneyError> {
    let bad = || MoneyError::Decimal(text.chars().take(40).collect(), places);
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(part) || part.len() > places as usize || (digits.contains('.') && part.is_empty()) {
        return Err(bad());
    }
    let value = i128::from_str(&format!("{whole}{part:0<width$}", width = places as usize)).map_err(|_| MoneyError::OutOfRange)?;
    i64::try_from(if negative { -value } else { value }).map_err(|_| MoneyError::OutOfRange)
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal(i128::from(self.0), 6))
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal(i128::from(self.0), 9))
    }
}

/// An ISO 4217 currency that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency(&'static str);

impl Currency {
    /// US dollar, OpenRTB's default.
    pub const USD: Self = Self("USD");

    /// Reads the three-letter code.
    ///
    /// # Errors
    /// [`MoneyError::Currency`] where ISO 4217 has no such code.
    pub fn parse(code: &str) -> Result<Self, MoneyError> {
        if code == Self::USD.0 {
            return Ok(Self::USD); // nearly every bid's, and the table is long
        }
        let known = iso_currency::Currency::from_code(code).ok_or_else(|| MoneyError::Currency(code.chars().take(12).collect()))?;
        Ok(Self(known.code()))
    }

    /// The three letters.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.0
    }

    /// Decimals of the minor unit: 2 for USD, 0 for JPY, 3 for KWD.
    #[must_use]
    pub fn minor_unit(&self) -> u32 {
        iso_currency::Currency::from_code(self.code()).and_then(|c| c.exponent()).map_or(2, u32::from)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_round_trip_exactly() {
        for (text, places, value) in [("0.01", 6, 10_000), ("-1.5", 6, -1_500_000), ("12", 0, 12), ("9223372036854.775807", 6, i64::MAX)] {
            assert_eq!(parse_decimal(text, places), Ok(value));
            assert_eq!(parse_decimal(&decimal(i128::from(value), places), places), Ok(value));
        }
    }

    #[test]
    fn refuses_what_is_no_exact_amount() {
        for text in ["", ".", "1.", "1e3", "1.2345678", "--1", "+1", " 1", "9223372036854.775808", "１"] {
            assert!(parse_decimal(text, 6).is_err(), "{text:?}");
        }
    }

    #[test]
    fn currencies_know_their_minor_unit() {
        let units = ["JPY", "USD", "KWD", "CLF"].map(|c| Currency::parse(c).map(|c| c.minor_unit()));
        assert_eq!(units, [Ok(0), Ok(2), Ok(3), Ok(4)]);
        assert!(Currency::parse("usd").is_err() && Currency::parse("ZZZ").is_err());
    }
}
