//! Exchange ids: UUIDv7, made here and nowhere else (CA-4).

use schemas::ExchangeId;

use crate::random;

/// Makes an id: 48 bits of milliseconds, 12 bits of the millisecond's fraction, 62 random bits.
pub(crate) fn new(now_us: i64) -> ExchangeId {
    loop {
        // The text is always an id: once round.
        if let Ok(id) = ExchangeId::new(text(now_us, random::bytes())) {
            return id;
        }
    }
}

fn text(now_us: i64, random: [u8; 8]) -> String {
    let us = u64::try_from(now_us).unwrap_or(0);
    let milliseconds = (us / 1000) & 0xffff_ffff_ffff;
    let fraction = (us % 1000) * 4096 / 1000;
    let low = (u64::from_be_bytes(random) & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    let high = (milliseconds << 16) | 0x7000 | fraction;
    let mut digits = [0; 32];
    // Twice as long as the bytes: it always fits.
    let _ = hex::encode_to_slice(((u128::from(high) << 64) | u128::from(low)).to_be_bytes(), &mut digits);
    let mut text = String::with_capacity(36);
    for (at, digit) in digits.iter().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(char::from(*digit));
    }
    text
}

/// The time in an id, microseconds UTC at millisecond precision; `None` where it is no UUIDv7.
pub(crate) fn time_us(id: &ExchangeId) -> Option<i64> {
    let text = id.as_str();
    if text.as_bytes().get(14) != Some(&b'7') {
        return None;
    }
    let high = i64::from_str_radix(text.get(..8)?, 16).ok()?;
    let low = i64::from_str_radix(text.get(9..13)?, 16).ok()?;
    Some(((high << 16) | low) * 1000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_id_is_version_7_carries_its_time() {
        let now = 1_790_000_000_123_456;
        let id = new(now);
        assert_eq!(id.as_str().as_bytes()[14], b'7');
        assert!(b"89ab".contains(&id.as_str().as_bytes()[19]));
        assert_eq!(time_us(&id), Some(1_790_000_000_123_000));
        assert_ne!(new(now), id);
    }

    #[test]
    fn later_ids_sort_later() {
        assert!(new(1_790_000_000_000_000) < new(1_790_000_000_001_000));
        assert!(text(1_790_000_000_000_000, [0xff; 8]) < text(1_790_000_000_000_500, [0; 8]));
    }
}
