//! Rate-limit headers as integers under fixed names.
//!
//! `<what>_limit` and `<what>_remaining` as sent; `<what>_reset_ms` where the provider gives a span (`6m0s`, `20ms`,
//! `12`: seconds); `<what>_reset_at_us` where it gives a time (RFC 3339, or seconds or milliseconds since 1970),
//! in microseconds UTC. Only the names below: a header's name is the provider's text, and no such text may reach a
//! leaf (CA-8).

use std::collections::BTreeMap;

use http::HeaderMap;

use crate::operation::Dialect;

const WHAT: &[(&str, &str)] = &[
    ("requests", "requests"),
    ("tokens", "tokens"),
    ("input-tokens", "input_tokens"),
    ("output-tokens", "output_tokens"),
    ("input-images", "input_images"),
    ("images", "images"),
    ("audio", "audio"),
    ("project-requests", "project_requests"),
    ("project-tokens", "project_tokens"),
    ("unified-5h", "unified_5h"),
    ("unified-7d", "unified_7d"),
    ("priority-input-tokens", "priority_input_tokens"),
    ("priority-output-tokens", "priority_output_tokens"),
];

/// The rate limits that an answer's headers report.
pub fn rate_limits(dialect: Dialect, headers: &HeaderMap) -> BTreeMap<String, i64> {
    let mut limits = BTreeMap::new();
    for (name, value) in headers {
        let name = name.as_str();
        let Some(rest) =
            name.strip_prefix("x-ratelimit-").or_else(|| name.strip_prefix("anthropic-ratelimit-"))
        else {
            continue;
        };
        let Ok(text) = value.to_str() else { continue };
        let (what, kind) = if dialect == Dialect::Anthropic || name.starts_with("anthropic") {
            let Some(pair) = rest.rsplit_once('-') else { continue };
            pair
        } else {
            let Some((kind, what)) = rest.split_once('-') else { continue };
            (what, kind)
        };
        let Some((_, what)) = WHAT.iter().find(|(header, _)| *header == what) else { continue };
        let (key, value) = match kind {
            "limit" | "remaining" => (format!("{what}_{kind}"), count(text)),
            "reset" => match reset(text.trim()) {
                Some(Reset::In(ms)) => (format!("{what}_reset_ms"), Some(ms)),
                Some(Reset::At(us)) => (format!("{what}_reset_at_us"), Some(us)),
                None => continue,
            },
            _ => continue,
        };
        if let Some(value) = value {
            limits.insert(key, value);
        }
    }
    limits
}

const MAX: i64 = 1 << 53;

fn count(text: &str) -> Option<i64> {
    text.trim().parse::<i64>().ok().filter(|n| (-1..=MAX).contains(n))
}

#[derive(Debug, PartialEq, Eq)]
enum Reset {
    In(i64),
    At(i64),
}

fn reset(text: &str) -> Option<Reset> {
    if let Ok(number) = text.parse::<f64>() {
        // A span is at most some days; what is larger is a time in seconds or milliseconds.
        let (scaled, at) = match number {
            n if !(0.0..1e14).contains(&n) => return None,
            n if n >= 1e11 => (n * 1e3, true),
            n if n >= 1e8 => (n * 1e6, true),
            n => (n * 1e3, false),
        };
        let whole = scaled.round() as i64;
        if whole > MAX {
            return None;
        }
        return Some(if at { Reset::At(whole) } else { Reset::In(whole) });
    }
    if text.contains('T') {
        return rfc3339_us(text).map(Reset::At);
    }
    span_ms(text).map(Reset::In)
}

/// `1d2h3m4.5s6ms` in milliseconds.
fn span_ms(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        let tail = rest.get(digits..)?;
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        total += number
            * match tail.get(..unit_len)? {
                "d" => 86_400_000.0,
                "h" => 3_600_000.0,
                "m" => 60_000.0,
                "s" => 1000.0,
                "ms" => 1.0,
                "us" | "µs" => 0.001,
                "ns" => 0.000_001,
                _ => return None,
            };
        rest = tail.get(unit_len..)?;
    }
    (total.is_finite() && total < 1e15).then_some(total.round() as i64)
}

/// RFC 3339 to microseconds since 1970 UTC.
fn rfc3339_us(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let is = |at: usize, wanted: &[u8]| text.as_bytes().get(at).is_some_and(|b| wanted.contains(b));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut micros = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        let six: String = fraction.get(..digits)?.chars().chain("000000".chars()).take(6).collect();
        micros = six.parse().ok()?;
        rest = fraction.get(digits..)?;
    }
    let offset_minutes = match rest.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), a, b, b':', c, d] if [a, b, c, d].iter().all(|x| x.is_ascii_digit()) => {
            let at = |x: &u8| i64::from(x - b'0');
            let minutes = (at(a) * 10 + at(b)) * 60 + at(c) * 10 + at(d);
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    // Days from civil (proleptic Gregorian), by eras of 400 years.
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let seconds = days * 86_400 + hour * 3600 + (minute - offset_minutes) * 60 + second;
    Some(seconds * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn limits(dialect: Dialect, headers: &[(&str, &str)]) -> Vec<(String, i64)> {
        let map: HeaderMap = headers
            .iter()
            .map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap()))
            .collect();
        rate_limits(dialect, &map).into_iter().collect()
    }

    #[test]
    fn spans_and_times_are_told_apart() {
        let cases = [
            ("1s", Some(Reset::In(1000))),
            ("6m0s", Some(Reset::In(360_000))),
            ("20ms", Some(Reset::In(20))),
            ("1m30.951s", Some(Reset::In(90_951))),
            ("1d2h", Some(Reset::In(93_600_000))),
            ("12", Some(Reset::In(12_000))),
            ("1760000000", Some(Reset::At(1_760_000_000_000_000))),
            ("1759845420000", Some(Reset::At(1_759_845_420_000_000))),
            ("1970-01-02T00:00:01Z", Some(Reset::At(86_401_000_000))),
            ("2024-02-29T12:00:00.25+01:00", Some(Reset::At(1_709_204_400_250_000))),
            ("2024-13-01T00:00:00Z", None),
            ("soon", None),
            ("1x", None),
            ("s", None),
            ("", Some(Reset::In(0))),
            ("NaN", None),
            ("-1", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(reset(text), wanted, "{text}");
        }
    }

    #[test]
    fn headers_become_integers_under_fixed_names() {
        assert_eq!(
            limits(
                Dialect::OpenAi,
                &[
                    ("x-ratelimit-limit-requests", "500"),
                    ("x-ratelimit-remaining-tokens", "149975"),
                    ("x-ratelimit-reset-requests", "120ms"),
                    ("x-ratelimit-limit-some-new-thing", "1"),
                    ("x-ratelimit-limit", "20"),
                    ("x-ratelimit-remaining-requests", "many"),
                ],
            ),
            [
                ("requests_limit".into(), 500),
                ("requests_reset_ms".into(), 120),
                ("tokens_remaining".into(), 149_975)
            ]
        );
        assert_eq!(
            limits(
                Dialect::Anthropic,
                &[
                    ("anthropic-ratelimit-input-tokens-limit", "400000"),
                    ("anthropic-ratelimit-input-tokens-reset", "2025-01-01T00:00:00Z"),
                ],
            ),
            [
                ("input_tokens_limit".into(), 400_000),
                ("input_tokens_reset_at_us".into(), 1_735_689_600_000_000)
            ]
        );
    }
}
