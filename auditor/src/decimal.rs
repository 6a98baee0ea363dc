//! Money: exact decimals with twelve fraction digits.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A decimal number as a count of 10^-12.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(pub i128);

/// Fraction digits.
pub const SCALE: u32 = 12;

impl Decimal {
    /// Parses `-?digits[.digits]` with at most twelve fraction digits.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(a, b)| (a, Some(b)));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_digits(whole)
            || fraction.is_some_and(|f| !is_digits(f) || f.len() > SCALE as usize)
            || whole.len() > 26
        {
            return None;
        }
        let fraction = fraction.unwrap_or("");
        let units: i128 = whole.parse().ok()?;
        let parts: i128 = format!("{fraction:0<12}").parse().ok()?;
        let value = units.checked_mul(10_i128.pow(SCALE))?.checked_add(parts)?;
        Some(Self(if negative { -value } else { value }))
    }
    /// The sum; saturates at the largest number that the type holds.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = 10_u128.pow(SCALE);
        let magnitude = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        let fraction = format!("{:012}", magnitude % one);
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{sign}{}", magnitude / one)?;
        if fraction.is_empty() { Ok(()) } else { write!(f, ".{fraction}") }
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format!("`{text}` is not a decimal number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_parse_and_print_exactly() {
        for (text, value) in [
            ("0", 0),
            ("0.000000000001", 1),
            ("12.5", 12_500_000_000_000),
            ("-3", -3_000_000_000_000),
            ("100", 100_000_000_000_000),
        ] {
            assert_eq!(Decimal::parse(text), Some(Decimal(value)));
            assert_eq!(Decimal(value).to_string(), text);
        }
        for bad in ["", ".", "1.", ".5", "1e3", "+1", "1.0000000000001", "--1", "1 ", "٣"] {
            assert_eq!(Decimal::parse(bad), None, "{bad}");
        }
    }
}
