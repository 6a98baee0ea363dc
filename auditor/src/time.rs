//! Times: microseconds UTC in, text out, and what users type.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Microseconds in a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds in a day.
pub const DAY: i64 = 86_400 * SECOND;

/// Writes microseconds UTC as RFC 3339, to the second where they are whole.
pub fn text(at_us: i64) -> String {
    match Timestamp::from_microsecond(at_us) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{at_us} us"),
    }
}

/// Parses `2026-11-20` (midnight UTC) or an RFC 3339 time, in microseconds UTC.
///
/// # Errors
/// Other text, with the wanted form.
pub fn parse(input: &str) -> Result<i64, String> {
    if let Ok(time) = input.parse::<Timestamp>() {
        return Ok(time.as_microsecond());
    }
    let date: Date = input
        .parse()
        .map_err(|_| format!("`{input}` is not a time: wanted `2026-11-20` or `2026-11-20T10:15:00Z`"))?;
    let zoned = date.to_zoned(TimeZone::UTC).map_err(|_| format!("`{input}` is out of range"))?;
    Ok(zoned.timestamp().as_microsecond())
}

/// Parses a duration: a number and `s`, `m`, `h`, `d`, `w`, `y` (365 days), in microseconds.
///
/// # Errors
/// Other text, with the wanted form.
pub fn parse_duration(input: &str) -> Result<i64, String> {
    let bad = || {
        format!(
            "`{input}` is not a duration: wanted a number and one of `s`, `m`, `h`, `d`, `w`, `y`, as `180d`"
        )
    };
    let (number, unit) = input.split_at_checked(input.len().saturating_sub(1)).ok_or_else(bad)?;
    let number: i64 = number.parse().map_err(|_| bad())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "y" => 365 * 86_400,
        _ => return Err(bad()),
    };
    if number < 0 {
        return Err(bad());
    }
    number.checked_mul(seconds * SECOND).ok_or_else(bad)
}

/// The machine's clock, microseconds UTC.
pub fn now() -> i64 {
    Timestamp::now().as_microsecond()
}

/// Writes a length of time for people: `4 m 10 s`.
pub fn length(us: i64) -> String {
    let seconds = us.max(0) / SECOND;
    match seconds {
        0 if us > 0 => format!("{} ms", us / 1000),
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} m {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_parse_or_say_the_wanted_form() {
        assert_eq!(parse("1970-01-02"), Ok(DAY));
        assert_eq!(parse("1970-01-01T00:00:01+00:00"), Ok(SECOND));
        assert!(parse("yesterday").is_err_and(|error| error.contains("wanted")));
        assert_eq!(parse_duration("180d"), Ok(180 * DAY));
        assert!(parse_duration("d").is_err());
        assert!(parse_duration("").is_err());
        assert!(parse_duration("-1d").is_err());
        assert!(parse_duration("99999999999999y").is_err());
        assert_eq!(text(DAY), "1970-01-02T00:00:00Z");
    }
}
