//! Exact decimals with 12 fraction digits: money. No floats.

use std::fmt;

/// Fraction digits.
pub const DIGITS: u32 = 12;

const ONE: i128 = 10_i128.pow(DIGITS);

/// The largest number before the point that is read: far above any price or cost, far below overflow.
const MAX_WHOLE: i128 = 1_000_000_000;

/// A number with 12 fraction digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Decimal(i128);

impl Decimal {
    /// One.
    pub const ONE: Self = Self(ONE);

    /// Zero.
    pub const ZERO: Self = Self(0);

    /// From units of 10^-12.
    pub const fn from_units(units: i128) -> Self {
        Self(units)
    }

    /// Units of 10^-12.
    pub const fn units(self) -> i128 {
        self.0
    }

    /// Reads digits, and a point with at most 12 digits where there is one: no sign, no exponent, below 10^9.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = match text.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (text, ""),
        };
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 10 || fraction.len() > DIGITS as usize {
            return None;
        }
        if !digits(whole) || !digits(fraction) {
            return None;
        }
        let whole: i128 = whole.parse().ok()?;
        let scaled: i128 = format!("{fraction:0<12}").parse().ok()?;
        (whole < MAX_WHOLE).then_some(Self(whole * ONE + scaled))
    }

    /// The sum, where it does not overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// `self * factor`, rounded once, half to even.
    pub fn times(self, factor: Self) -> Option<Self> {
        self.0.checked_mul(factor.0).map(|product| Self(divide_half_even(product, ONE)))
    }

    /// `self * count / 1_000_000`, rounded once, half to even: the cost of `count` tokens at a price per million.
    pub fn per_million(self, count: u64) -> Option<Self> {
        let product = self.0.checked_mul(i128::from(count))?;
        Some(Self(divide_half_even(product, 1_000_000)))
    }
}

/// Divides and rounds half to even. `divisor` is positive.
fn divide_half_even(number: i128, divisor: i128) -> i128 {
    let quotient = number.div_euclid(divisor);
    let twice = number.rem_euclid(divisor) * 2;
    match twice.cmp(&divisor) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + 1,
        std::cmp::Ordering::Equal => quotient + quotient.rem_euclid(2),
    }
}

impl fmt::Display for Decimal {
    /// The shortest form: no trailing zeros, no point without a fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        let one = ONE.unsigned_abs();
        let fraction = format!("{:012}", units % one);
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{sign}{}", units / one)?;
        if fraction.is_empty() { Ok(()) } else { write!(f, ".{fraction}") }
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_forms() {
        let table = [
            ("0", Some("0")),
            ("2.50", Some("2.5")),
            ("0.000000000001", Some("0.000000000001")),
            ("999999999.999999999999", Some("999999999.999999999999")),
            ("1000000000", None),
            ("0.0000000000001", None),
            ("", None),
            (".5", None),
            ("5.", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("1,5", None),
            ("1.5.2", None),
            (" 1", None),
            ("１", None),
        ];
        for (text, shown) in table {
            assert_eq!(Decimal::parse(text).map(|d| d.to_string()).as_deref(), shown, "{text:?}");
        }
    }

    #[test]
    fn rounding_is_half_to_even() {
        let table = [
            (0, 2, 0),
            (1, 2, 0),
            (2, 2, 1),
            (3, 2, 2),
            (5, 2, 2),
            (7, 2, 4),
            (-1, 2, 0),
            (-3, 2, -2),
            (-5, 2, -2),
        ];
        for (number, divisor, rounded) in table {
            assert_eq!(divide_half_even(number, divisor), rounded, "{number}/{divisor}");
        }
        assert_eq!(divide_half_even(1_499_999, 1_000_000), 1);
        assert_eq!(divide_half_even(1_500_001, 1_000_000), 2);
    }

    proptest! {
        #[test]
        fn rounding_errs_by_half_a_unit_at_most_and_ties_go_to_even(units in 0_i128..1_000_000_000_000_000_000_000, count in 0_u64..1 << 53) {
            let cost = Decimal::from_units(units).per_million(count);
            let exact = units * i128::from(count);
            let error = cost.unwrap().units() * 1_000_000 - exact;
            prop_assert!(error.abs() <= 500_000);
            if error.abs() == 500_000 {
                prop_assert_eq!(cost.unwrap().units() % 2, 0);
            }
        }

        #[test]
        fn text_is_read_back(units in 0_i128..1_000_000_000_000_000_000_000) {
            let decimal = Decimal::from_units(units);
            prop_assert_eq!(Decimal::parse(&decimal.to_string()), Some(decimal));
        }
    }
}
