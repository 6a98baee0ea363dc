//! One call of the S3 API, and what its failure means.

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use crate::store::{StoreError, Trouble};

/// A failed call: status (0 where there was no answer), code, meaning, text.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) status: u16,
    pub(super) code: Option<String>,
    pub(super) trouble: Trouble,
    pub(super) detail: String,
}

impl Failed {
    pub(super) fn timeout() -> Self {
        Self { status: 0, code: None, trouble: Trouble::Timeout, detail: "no answer in time".into() }
    }

    pub(super) fn of<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        let code = error.code().map(str::to_owned);
        let text = DisplayErrorContext(error).to_string();
        let about_credentials = || {
            let text = text.to_lowercase();
            text.contains("credential") || text.contains("identity")
        };
        // Whoever answers there is not the one that is meant, and time does not change that.
        let about_certificates = || text.to_lowercase().contains("certificate");
        let trouble = match error {
            SdkError::DispatchFailure(_) if about_certificates() => Trouble::Refused,
            SdkError::TimeoutError(_) => Trouble::Timeout,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Trouble::Timeout,
            SdkError::DispatchFailure(failure) if failure.is_io() => Trouble::Connection,
            SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) if about_credentials() => {
                Trouble::Credentials
            }
            SdkError::DispatchFailure(_) => Trouble::Connection,
            SdkError::ConstructionFailure(_) => Trouble::Refused,
            SdkError::ResponseError(_) if status < 300 => Trouble::Connection,
            _ => Trouble::of_answer(status, code.as_deref()),
        };
        // The SDK's whole chain is long; what the service said is what helps.
        let detail = match (&code, error.message()) {
            (Some(code), Some(message)) => format!("{status} {code}: {message}"),
            (Some(code), None) => format!("{status} {code}"),
            _ if status > 0 => format!("status {status}"),
            _ => text,
        };
        Self { status, code, trouble, detail }
    }

    pub(super) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// Whether the service says that there is no lock: on the bucket, or on the object that was asked about.
    pub(super) fn says_no_lock(&self) -> bool {
        const WORDS: [&str; 2] = ["ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"];
        self.code.as_deref().is_some_and(|code| WORDS.contains(&code))
    }

    /// The error for the caller; `needs` are the permissions that the call takes.
    pub(super) fn store(self, action: &'static str, name: impl ToString, needs: &str) -> StoreError {
        let detail = match self.trouble {
            Trouble::Denied => format!("{}; the gateway needs {needs}", self.detail),
            _ => self.detail,
        };
        StoreError::Service { action, name: name.to_string(), trouble: self.trouble, detail }
    }
}
