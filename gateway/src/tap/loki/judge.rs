//! What Loki's answer to a push of one stream means. Its words are those of Loki 3 (`pkg/validation`, `pkg/chunkenc`).

use evidence::tap::SinkError;
use http::StatusCode;
use jiff::Timestamp;

use crate::tap::post::{Answer, retry_after};

/// What Loki does with entries.
#[derive(Debug)]
pub(super) enum Judged {
    /// It has them.
    Taken,
    /// Fewer at once may fit.
    TooMany(SinkError),
    /// It does not take some of them, and never will.
    Refused(Refused),
    /// It may take them later.
    Later(SinkError),
}

/// What it says of entries that it does not take; what else was pushed with them it has, or would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// A word of [`super::REASONS`]; `None` where the words are unknown.
    pub(super) reason: Option<&'static str>,
    /// What is older than this, in microseconds UTC, is refused.
    pub(super) oldest_us: Option<i64>,
    pub(super) detail: String,
}

/// How much of an answer is told.
const TOLD: usize = 300;

/// Only 204 acknowledges: what answers 200 is something else that listens there.
pub(super) fn judge(answer: &Answer) -> Judged {
    let said = String::from_utf8_lossy(&answer.body);
    let told: String = said.chars().filter(|c| !c.is_control()).take(TOLD).collect();
    let detail = format!("status {}: {told}", answer.status.as_u16());
    let later = |reason| {
        let error = SinkError::new(reason, detail.clone());
        SinkError { retry_after: retry_after(&answer.headers), ..error }
    };
    match answer.status {
        StatusCode::NO_CONTENT => Judged::Taken,
        StatusCode::PAYLOAD_TOO_LARGE => Judged::TooMany(later("refused")),
        // More at once than a bound allows is answered so too.
        StatusCode::TOO_MANY_REQUESTS => Judged::Later(later("throttled")),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Judged::Later(later("credentials")),
        status if status.is_server_error() => Judged::Later(later("unavailable")),
        // Time will come: a clock is wrong, here or there.
        StatusCode::BAD_REQUEST if said.contains("too new") => Judged::Later(later("clock")),
        StatusCode::BAD_REQUEST => Judged::Refused(refused(&said, detail)),
        _ => Judged::Later(later("refused")),
    }
}

fn refused(said: &str, detail: String) -> Refused {
    let reason = match () {
        () if said.contains("too far behind") || said.contains("out of order") => Some("too_far_behind"),
        () if said.contains("too old") => Some("too_old"),
        () if said.contains("max entry size") || said.contains("metadata too large") => Some("too_large"),
        () => None,
    };
    Refused { reason, oldest_us: reason.and_then(|_| oldest_us(said)), detail }
}

/// The earliest time that an answer names as the oldest acceptable: what is before that is refused in any case.
fn oldest_us(said: &str) -> Option<i64> {
    let times = said.split("oldest acceptable timestamp is: ").skip(1).filter_map(|rest| {
        let end =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-:+.".contains(c)).unwrap_or(rest.len());
        let time: Timestamp = rest.get(..end)?.parse().ok()?;
        Some(time.as_microsecond())
    });
    times.min()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn judged(status: u16, body: &'static str) -> Judged {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("7"));
        let status = StatusCode::from_u16(status).unwrap();
        judge(&Answer { status, headers, body: Bytes::from_static(body.as_bytes()) })
    }

    #[test]
    fn only_204_acknowledges_and_what_passes_is_tried_again() {
        assert!(matches!(judged(204, ""), Judged::Taken));
        for (status, body, reason) in [
            (200, "<html>log in", "refused"),
            (302, "", "refused"),
            (404, "", "refused"),
            (401, "no org id", "credentials"),
            (429, "ingestion rate limit exceeded", "throttled"),
            (500, "", "unavailable"),
            (503, "", "unavailable"),
            (400, "entry for stream '{}' has timestamp too new: 2026-11-21T10:00:00Z", "clock"),
        ] {
            let Judged::Later(error) = judged(status, body) else { panic!("{status} {body}") };
            assert_eq!((error.reason, error.retry_after.map(|wait| wait.as_secs())), (reason, Some(7)));
        }
        assert!(matches!(judged(413, ""), Judged::TooMany(_)));
    }

    #[test]
    fn what_loki_never_takes_is_known_by_its_words() {
        let refused = |body: &'static str| match judged(400, body) {
            Judged::Refused(refused) => (refused.reason, refused.oldest_us),
            other => panic!("{body}: {other:?}"),
        };
        // As Loki 3.7.8 says it.
        let old = "entry for stream '{kind=\"boot\"}' has timestamp too old: 2026-11-01T10:00:00Z, oldest acceptable timestamp is: 2026-11-14T23:00:00Z\n";
        assert_eq!(refused(old), (Some("too_old"), Some(1_794_697_200_000_000)));
        let behind = "entry with timestamp 2026-11-21 10:00:00.000001 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2026-11-21T10:00:00Z, oldest acceptable timestamp is: 2026-11-21T22:30:00+01:00',\nuser 'fake', total ignored: 1 out of 3 for stream: {kind=\"boot\"}";
        assert_eq!(refused(behind), (Some("too_far_behind"), Some(1_795_296_600_000_000)));
        let long = "max entry size '256' bytes exceeded for stream '{}' while adding an entry with length '300' bytes";
        assert_eq!(refused(long), (Some("too_large"), None));
        assert_eq!(
            refused("stream '{}' includes structured metadata, but this feature is disallowed."),
            (None, None)
        );
        assert_eq!(refused("too old, oldest acceptable timestamp is: never"), (Some("too_old"), None));
    }
}
