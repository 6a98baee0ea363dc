//! Errors, as all dialects have them.

/// An error that a provider answered, or put in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The status; that of an error in a stream is what its kind stands for.
    pub status: u16,
    /// What kind of error it is.
    pub kind: FailureKind,
    /// The provider's own symbolic name or code, as it stands.
    pub code: Option<String>,
    /// The text.
    pub message: String,
}

/// Kinds of errors that all dialects have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The request is wrong.
    InvalidRequest,
    /// The key is.
    Authentication,
    /// The account does not pay.
    Billing,
    /// The key may not.
    Permission,
    /// No such model or thing.
    NotFound,
    /// The request is too large.
    TooLarge,
    /// Too many of them.
    RateLimit,
    /// The provider has too many.
    Overloaded,
    /// It took too long.
    Timeout,
    /// Anything else at the provider's.
    Api,
}

impl FailureKind {
    /// The kind that a status stands for.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Authentication,
            402 => Self::Billing,
            403 => Self::Permission,
            404 => Self::NotFound,
            413 => Self::TooLarge,
            429 => Self::RateLimit,
            408 | 504 => Self::Timeout,
            400..=499 => Self::InvalidRequest,
            503 | 529 => Self::Overloaded,
            _ => Self::Api,
        }
    }
    /// The status that stands for the kind, for an error that has none of its own.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Authentication => 401,
            Self::Billing => 402,
            Self::Permission => 403,
            Self::NotFound => 404,
            Self::TooLarge => 413,
            Self::RateLimit => 429,
            Self::Overloaded => 503,
            Self::Timeout => 504,
            Self::Api => 500,
        }
    }
}
