//! Durations and sizes as people type them, and back.

use std::time::Duration;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serializer;

pub(super) const DURATION_FORM: &str = "a duration as `500ms`, `10s`, `5m`, `2h` or `1d`";
pub(super) const SIZE_FORM: &str = "a size as `512B`, `64KiB`, `64MiB`, `10GiB` (or `kB`, `MB`, `GB`)";

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads a whole number with `ms`, `s`, `m`, `h` or `d` behind it; at most 10 years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let ms = with_unit(text, &DURATION_UNITS)?;
    (ms <= 3650 * 86_400_000).then(|| Duration::from_millis(ms))
}

/// Reads a whole number with `B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB` or `TB` behind it.
pub fn parse_size(text: &str) -> Option<u64> {
    with_unit(text, &SIZE_UNITS).filter(|bytes| *bytes <= 1 << 53)
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start_matches(' '))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The shortest text that means `value`: the largest unit that divides it.
fn in_units(value: u64, units: &[(&str, u64)]) -> String {
    let fits = units
        .iter()
        .filter(|(_, factor)| value.is_multiple_of(*factor) && (value > 0 || *factor == units[0].1));
    let (name, factor) = fits.max_by_key(|(_, factor)| *factor).copied().unwrap_or(units[0]);
    format!("{}{name}", value / factor)
}

/// A duration as it could be typed.
pub(super) fn show_duration(duration: Duration) -> String {
    in_units(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
}

/// A size as it could be typed.
pub(super) fn show_size(bytes: u64) -> String {
    in_units(bytes, &SIZE_UNITS[..5])
}

pub(super) fn duration_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&show_duration(*duration))
}

pub(super) fn optional_duration_text<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => duration_text(duration, serializer),
        None => serializer.serialize_none(),
    }
}

pub(super) fn size_text<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&show_size(*bytes))
}

pub(super) fn optional_size_text<S: Serializer>(
    bytes: &Option<u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) => size_text(bytes, serializer),
        None => serializer.serialize_none(),
    }
}

pub(super) fn duration_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$" })
}

pub(super) fn size_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)$" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let table = [
            ("500ms", Some(500)),
            ("10s", Some(10_000)),
            ("5m", Some(300_000)),
            ("2 h", Some(7_200_000)),
            ("1d", Some(86_400_000)),
            ("0s", Some(0)),
            ("10", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("10sec", None),
            ("10S", None),
            ("99999999999999999999d", None),
            ("999999d", None),
            ("", None),
        ];
        for (text, ms) in table {
            assert_eq!(parse_duration(text), ms.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        let table = [
            ("64KiB", Some(65_536)),
            ("64MiB", Some(67_108_864)),
            ("10GiB", Some(10_737_418_240)),
            ("1kB", Some(1000)),
            ("0B", Some(0)),
            ("64", None),
            ("64kb", None),
            ("64K", None),
            ("18446744073709551615TiB", None),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for ms in [0, 1, 999, 1000, 90_000, 3_600_000, 86_400_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&show_duration(duration)).unwrap(), duration);
        }
        for bytes in [0, 1, 1023, 1024, 1000, 1 << 20, 3 << 30] {
            assert_eq!(parse_size(&show_size(bytes)).unwrap(), bytes);
        }
        assert_eq!(
            (show_duration(Duration::from_secs(600)), show_size(64 << 20)),
            ("10m".into(), "64MiB".into())
        );
    }
}
