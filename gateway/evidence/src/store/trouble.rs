//! Why a store service did not do what it was asked: a closed set, for back-off, log and metrics.

use std::io;

/// What is in the way. All may pass; some only when someone acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// It asks for fewer requests (503 SlowDown, 429).
    Throttled,
    /// It fails on its side (5xx).
    Unavailable,
    /// No answer in time: whether it was done is not known.
    Timeout,
    /// No connection, or it was cut: whether it was done is not known.
    Connection,
    /// Two writes of one name at once (409).
    Conflict,
    /// No credentials, or expired or unknown ones.
    Credentials,
    /// The clocks of store and gateway are too far apart.
    Clock,
    /// A permission is missing (403).
    Denied,
    /// The bucket is not there.
    NoBucket,
    /// The topic is not there.
    NoTopic,
    /// Sent, and no archiver has answered for too long.
    Unanswered,
    /// The store has no space.
    Full,
    /// The bytes changed on the way to it.
    Damaged,
    /// Any other refusal.
    Refused,
    /// This machine could not read the spool or the store's folder.
    Local,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Throttled,
        Self::Unavailable,
        Self::Timeout,
        Self::Connection,
        Self::Conflict,
        Self::Credentials,
        Self::Clock,
        Self::Denied,
        Self::NoBucket,
        Self::NoTopic,
        Self::Unanswered,
        Self::Full,
        Self::Damaged,
        Self::Refused,
        Self::Local,
    ];

    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Conflict => "conflict",
            Self::Credentials => "credentials",
            Self::Clock => "clock",
            Self::Denied => "denied",
            Self::NoBucket => "no_bucket",
            Self::NoTopic => "no_topic",
            Self::Unanswered => "unanswered",
            Self::Full => "full",
            Self::Damaged => "damaged",
            Self::Refused => "refused",
            Self::Local => "local",
        }
    }

    /// Whether it passes only when someone acts: said as an error, and tried again slowly.
    pub fn needs_someone(self) -> bool {
        matches!(
            self,
            Self::Credentials
                | Self::Clock
                | Self::Denied
                | Self::NoBucket
                | Self::NoTopic
                | Self::Full
                | Self::Refused
        )
    }

    /// The error of a read that met it: objects are read as files.
    pub(crate) fn of_read(self, detail: String) -> io::Error {
        io::Error::other(Met { trouble: self, detail })
    }

    /// What a read met, where it was a service that failed.
    pub(crate) fn met(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Met>().map(|met| met.trouble)
    }

    /// What an S3 service means by a status and an error code.
    pub(crate) fn of_answer(status: u16, code: Option<&str>) -> Self {
        match (status, code) {
            (_, Some("SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded"))
            | (_, Some("TooManyRequests" | "BandwidthLimitExceeded"))
            | (429, _) => Self::Throttled,
            (_, Some("RequestTimeTooSkewed" | "RequestExpired")) => Self::Clock,
            (
                _,
                Some(
                    "ExpiredToken"
                    | "ExpiredTokenException"
                    | "InvalidToken"
                    | "InvalidTokenId"
                    | "InvalidClientTokenId"
                    | "UnrecognizedClientException"
                    | "InvalidSecurity"
                    | "TokenRefreshRequired"
                    | "InvalidAccessKeyId"
                    | "SignatureDoesNotMatch",
                ),
            )
            | (401, _) => Self::Credentials,
            (_, Some("NoSuchBucket")) => Self::NoBucket,
            (_, Some("RequestTimeout")) => Self::Timeout,
            (_, Some("BadDigest" | "XAmzContentChecksumMismatch" | "XAmzContentSHA256Mismatch")) => {
                Self::Damaged
            }
            (507, _) | (_, Some("XMinioStorageFull" | "QuotaExceeded")) => Self::Full,
            (403, _) | (_, Some("AccessDenied")) => Self::Denied,
            (409, _) => Self::Conflict,
            (500.., _) => Self::Unavailable,
            _ => Self::Refused,
        }
    }
}

/// A trouble in the place of bytes.
#[derive(Debug, thiserror::Error)]
#[error("{detail} ({trouble})")]
struct Met {
    trouble: Trouble,
    detail: String,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_meaning() {
        for (status, code, trouble) in [
            (503, Some("SlowDown"), Trouble::Throttled),
            (503, None, Trouble::Unavailable),
            (500, Some("InternalError"), Trouble::Unavailable),
            (400, Some("ExpiredToken"), Trouble::Credentials),
            (400, Some("InvalidToken"), Trouble::Credentials),
            (403, Some("InvalidTokenId"), Trouble::Credentials),
            (403, Some("RequestTimeTooSkewed"), Trouble::Clock),
            (403, Some("SignatureDoesNotMatch"), Trouble::Credentials),
            (403, Some("AccessDenied"), Trouble::Denied),
            (403, None, Trouble::Denied),
            (404, Some("NoSuchBucket"), Trouble::NoBucket),
            (409, Some("ConditionalRequestConflict"), Trouble::Conflict),
            (400, Some("RequestTimeout"), Trouble::Timeout),
            (400, Some("BadDigest"), Trouble::Damaged),
            (400, Some("InvalidArgument"), Trouble::Refused),
            (501, Some("NotImplemented"), Trouble::Unavailable),
        ] {
            assert_eq!(Trouble::of_answer(status, code), trouble, "{status} {code:?}");
        }
    }

    #[test]
    fn every_trouble_is_listed_once() {
        for (index, one) in Trouble::ALL.iter().enumerate() {
            assert_eq!(*one as usize, index, "{one}: counters are indexed by it");
        }
    }
}
