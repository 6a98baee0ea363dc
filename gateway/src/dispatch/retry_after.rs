//! When an answer asks to be left alone, and for how long.

use std::time::Duration;

use http::header::{HeaderMap, RETRY_AFTER};

/// The longest that is believed: no provider sends anyone away for longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// `Retry-After` in seconds or as a date (RFC 9110 10.2.3), which counts from now, or in milliseconds.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let ms = text("retry-after-ms").and_then(|text| text.parse().ok()).map(Duration::from_millis);
    let told = ms.or_else(|| {
        let text = text(RETRY_AFTER.as_str())?;
        if let Ok(seconds) = text.parse::<f64>() {
            return Duration::try_from_secs_f64(seconds).ok();
        }
        let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Duration::try_from(at.duration_since(jiff::Timestamp::now())).ok()
    });
    told.map(|told| told.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn it_is_seconds_milliseconds_or_a_date_and_an_hour_at_most() {
        let told = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
            retry_after(&headers)
        };
        assert_eq!(told("retry-after", "2"), Some(Duration::from_secs(2)));
        assert_eq!(told("retry-after", "1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(told("retry-after-ms", "20"), Some(Duration::from_millis(20)));
        assert_eq!(
            told("retry-after", "1800"),
            Some(Duration::from_secs(1800)),
            "a key is left alone so long"
        );
        assert_eq!(told("retry-after", "99999999"), Some(LONGEST));
        assert_eq!(told("retry-after", "Fri, 31 Dec 2100 23:59:59 GMT"), Some(LONGEST));
        for none in ["-1", "soon", "NaN", "Fri, 31 Dec 1999 23:59:59 GMT"] {
            assert_eq!(told("retry-after", none), None, "{none}");
        }
    }
}
