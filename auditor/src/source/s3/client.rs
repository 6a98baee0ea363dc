//! The connection to a bucket: address, credentials, and what the store answers when it refuses.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls;

/// Tries of one request, the first counted.
const TRIES: u32 = 6;

/// `s3://BUCKET[/PREFIX]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The bucket.
    pub bucket: String,
    /// The prefix, without slashes at its ends; empty: the whole bucket.
    pub prefix: String,
}

impl Address {
    /// Reads an address; `None` where the text does not begin with `s3://`.
    ///
    /// # Errors
    /// No bucket's name.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let Some(rest) = text.strip_prefix("s3://") else { return Ok(None) };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if bucket.len() < 3 || !bucket.chars().all(plain) {
            return Err(format!("store `{text}`: wanted `s3://BUCKET` or `s3://BUCKET/PREFIX`"));
        }
        Ok(Some(Self { bucket: bucket.into(), prefix: prefix.trim_matches('/').into() }))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// How the bucket is reached. Credentials come from the usual places: environment, profile, web identity, instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Another endpoint than the provider's own.
    pub endpoint_url: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The bucket's name in the path and not in the host's name.
    pub path_style: bool,
    /// A profile of the shared configuration.
    pub profile: Option<String>,
    /// The account that must own the bucket: every request is refused by the store where another one does.
    pub expected_owner: Option<String>,
}

/// What a store answered in place of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The store's code, as `AccessDenied`; empty for HEAD.
    pub code: String,
    /// The store's words, or the connection's.
    pub message: String,
}

impl Fault {
    /// One that no store said.
    pub(super) fn own(message: impl Into<String>) -> Self {
        Self { status: None, code: String::new(), message: message.into() }
    }
    /// What an SDK error says.
    pub fn of<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        SdkError<E, R>: HasStatus,
        R: fmt::Debug + 'static,
    {
        let (code, message) = match error.as_service_error() {
            Some(service) => {
                (service.code().unwrap_or_default().to_owned(), service.message().map(str::to_owned))
            }
            None => (String::new(), None),
        };
        let message = message.unwrap_or_else(|| chain(error));
        Self { status: error.status(), code, message }
    }
    /// The caller may not.
    pub fn is_denied(&self) -> bool {
        self.status == Some(403) || self.status == Some(401)
    }
    /// There is no such thing.
    pub fn is_absent(&self) -> bool {
        self.status == Some(404)
    }
    /// The bucket has no such setting: a 404 that says so, and not that there is no bucket, or nothing at all.
    pub fn is_unset(&self) -> bool {
        self.is_absent() && !["", "NotFound", "NoSuchBucket", "NoSuchKey"].contains(&self.code.as_str())
    }
    /// The store has no such function.
    pub fn is_unknown(&self) -> bool {
        self.status == Some(501)
            || ["NotImplemented", "MethodNotAllowed", "UnsupportedOperation"].contains(&self.code.as_str())
    }
    /// The store understood the request and would not do it.
    pub fn is_refused(&self) -> bool {
        self.status.is_some_and(|status| (400..500).contains(&status))
    }
    /// Worth another try.
    pub(super) fn is_passing(&self) -> bool {
        self.status.is_none_or(|status| status >= 500 || status == 429 || status == 408)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(status) = self.status {
            write!(f, "{status} ")?;
        }
        if !self.code.is_empty() {
            write!(f, "{} ", self.code)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// An error that may carry an HTTP status.
pub trait HasStatus {
    /// The status.
    fn status(&self) -> Option<u16>;
}

impl<E> HasStatus for SdkError<E, aws_sdk_s3::config::http::HttpResponse> {
    fn status(&self) -> Option<u16> {
        self.raw_response().map(|response| response.status().as_u16())
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !out.contains(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        next = source.source();
    }
    out
}

/// A bucket, and the names under one prefix.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// The client.
    pub client: Client,
    /// Where it is.
    pub address: Address,
    /// The account that must own it.
    pub owner: Option<String>,
    /// The endpoint, where it is not the provider's own.
    pub endpoint: Option<String>,
    requests: Arc<AtomicU64>,
}

impl Bucket {
    /// The key of a name.
    pub fn key(&self, name: &str) -> String {
        match self.address.prefix.as_str() {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        }
    }
    /// The name of a key: `None` where the key is not under the prefix.
    pub fn name<'a>(&self, key: &'a str) -> Option<&'a str> {
        match self.address.prefix.as_str() {
            "" => Some(key),
            prefix => key.strip_prefix(prefix)?.strip_prefix('/'),
        }
    }
    /// As it is named in reports.
    pub fn describe(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("{} at {endpoint}", self.address),
            None => self.address.to_string(),
        }
    }
    /// Counts a request.
    pub fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
    /// How many requests were made.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Makes the client.
///
/// # Errors
/// No region, or no credentials.
pub(super) async fn connect(address: Address, settings: Settings) -> anyhow::Result<Bucket> {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http);
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &settings.endpoint_url {
        loader = loader.endpoint_url(endpoint);
    }
    let shared = loader.load().await;
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(10))
                .read_timeout(Duration::from_secs(60))
                .build(),
        )
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().build())
        // What the store says of a checksum is judged here, against the bytes.
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .force_path_style(settings.path_style);
    if shared.region().is_none() {
        let endpoint = shared.endpoint_url().or(settings.endpoint_url.as_deref());
        endpoint.context("no region: give `--region NAME`, or set AWS_REGION")?;
        config = config.region(Region::new("us-east-1"));
    }
    let endpoint = settings.endpoint_url.clone().or_else(|| shared.endpoint_url().map(str::to_owned));
    let client = Client::from_conf(config.build());
    Ok(Bucket { client, address, owner: settings.expected_owner, endpoint, requests: Arc::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_or_says_what_it_wants() {
        let read = |text| {
            Address::parse(text).map(|address| address.map(|address| (address.bucket, address.prefix)))
        };
        assert_eq!(read("/var/evidence"), Ok(None));
        assert_eq!(read("s3://evidence"), Ok(Some(("evidence".into(), String::new()))));
        assert_eq!(read("s3://evidence/a/b/"), Ok(Some(("evidence".into(), "a/b".into()))));
        assert!(read("s3:///a").is_err_and(|error| error.contains("wanted")));
    }
}
