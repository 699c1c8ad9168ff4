//! Exact decimal text to integers and back. A JSON number is read once as the shortest text that means
//! it; from there on there is no binary fraction.

/// Powers of ten beyond this are outside `i64` in either direction (10^19 > 2^63), with room for long mantissas.
const MAX_EXPONENT: i64 = 400;

/// Sign, digits and the power of ten of the last digit.
fn parts(text: &str) -> Option<(bool, Vec<u8>, i64)> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    (exponent.abs() <= MAX_EXPONENT).then_some((negative, digits, exponent))
}

/// `text` times 10^`scale`: its whole part, its sign, and whether anything was left over.
fn scaled(text: &str, scale: i64) -> Option<(i64, bool, bool)> {
    let (negative, digits, exponent) = parts(text)?;
    let shift = exponent + scale;
    let dropped = usize::try_from(-shift).unwrap_or(0).min(digits.len());
    let (kept, rest) = digits.split_at(digits.len() - dropped);
    let mut magnitude: i64 = 0;
    for digit in kept {
        magnitude = magnitude.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
    }
    for _ in 0..shift.max(0) {
        if magnitude != 0 {
            magnitude = magnitude.checked_mul(10)?;
        }
    }
    Some((magnitude, negative, rest.iter().any(|digit| *digit != b'0')))
}

/// Millionths, rounded away from zero.
pub(super) fn micros_rounded_up(text: &str) -> Option<i64> {
    let (magnitude, negative, rest) = scaled(text, 6)?;
    let magnitude = magnitude.checked_add(i64::from(rest))?;
    Some(if negative { -magnitude } else { magnitude })
}

/// Millionths, or nothing where the text has more than six decimals that count.
pub fn micros_exact(text: &str) -> Option<i64> {
    let (magnitude, negative, rest) = scaled(text, 6)?;
    let micros = if negative { -magnitude } else { magnitude };
    (!rest).then_some(micros)
}

/// A whole number, however it is written.
pub(super) fn whole(text: &str) -> Option<i64> {
    let (magnitude, negative, rest) = scaled(text, 0)?;
    let whole = if negative { -magnitude } else { magnitude };
    (!rest).then_some(whole)
}

/// Millionths as decimal text without trailing zeros: 1_500_000 is `1.5`.
pub fn from_micros(micros: i64) -> String {
    let magnitude = micros.unsigned_abs();
    let sign = if micros < 0 { "-" } else { "" };
    let (whole, fraction) = (magnitude / 1_000_000, magnitude % 1_000_000);
    let text = format!("{sign}{whole}.{fraction:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_prices_without_a_binary_fraction() {
        for (text, micros) in [
            ("0.1", 100_000),
            ("20", 20_000_000),
            ("2.0", 2_000_000),
            ("1e-6", 1),
            ("1.5E2", 150_000_000),
            ("0.0000001", 1),
            ("0.29", 290_000),
            ("0", 0),
            ("1e-300", 1),
            ("0e99", 0),
            ("-0.5", -500_000),
        ] {
            assert_eq!(micros_rounded_up(text), Some(micros), "{text}");
        }
        for text in ["", "-", "1e", "1.2.3", "abc", "1e99", "9223372036855", "1e999999999999999999"] {
            assert_eq!(micros_rounded_up(text), None, "{text}");
        }
    }

    #[test]
    fn exact_reading_refuses_what_it_would_have_to_round() {
        assert_eq!(micros_exact("1.234567"), Some(1_234_567));
        assert_eq!(micros_exact("1.2345670"), Some(1_234_567));
        assert_eq!(micros_exact("1.2345678"), None);
        assert_eq!(whole("600.0"), Some(600));
        assert_eq!(whole("600.5"), None);
    }

    proptest! {
        #[test]
        fn printed_prices_read_back_the_same(micros in -i64::MAX..i64::MAX) {
            prop_assert_eq!(micros_exact(&from_micros(micros)), Some(micros));
        }
    }
}
