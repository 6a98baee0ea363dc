//! A provider: its address, its credential, and the pool of connections to it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dialects::Dialect;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use schemas::Identifier;

use super::sign::{Signing, Unsignable};
use super::upload::Upload;
use crate::config::{self, AwsKey, Drain, DrainAfterAbort, KeyHeader, Limits};

/// How long an idle connection to a provider is kept: below what the common load balancers keep theirs.
const IDLE: Duration = Duration::from_secs(50);

/// Why a provider's connections cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolError {
    /// TLS.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The system has no usable root certificates.
    #[error("no root certificates found on this system ({0}); install them, or set `ca`")]
    NoRoots(String),
    /// The credential cannot stand in a header.
    #[error("`credential` holds bytes that cannot stand in a header: wanted visible ASCII")]
    Credential,
    /// The access key cannot stand in a header.
    #[error("`aws`: {0}")]
    Aws(#[from] Unsignable),
}

/// A provider, ready for the hot path.
pub(crate) struct Provider {
    pub(crate) name: Identifier,
    pub(crate) dialect: Dialect,
    /// The dialect as records name it.
    pub(crate) dialect_name: Option<Identifier>,
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    base_path: String,
    api_version: Option<Identifier>,
    pub(crate) credential: Option<(HeaderName, HeaderValue)>,
    /// Signs each request, where it is AWS that asks for it.
    pub(crate) signing: Option<Signing>,
    pub(crate) ask_usage: bool,
    /// How far an answer is read on whose caller has left.
    pub(crate) drain: Option<Drain>,
    pub(crate) price_name: String,
    client: Client<HttpsConnector<HttpConnector>, Upload>,
    made_of: MadeOf,
}

/// What a pool was made of: where it is the same after a reload, the pool goes on.
#[derive(Clone, PartialEq, Eq)]
struct MadeOf {
    base_url: config::BaseUrl,
    roots: Option<Vec<CertificateDer<'static>>>,
    connect: Duration,
    idle_connections: u64,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider")
            .field("name", &self.name)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl Provider {
    /// The port that it is asked at.
    pub(crate) fn port(&self) -> u16 {
        let usual = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(usual)
    }

    /// Makes a provider ready; takes the pool of `old` where it fits.
    ///
    /// # Errors
    /// What of it cannot be used.
    pub(crate) fn new(
        typed: &config::Provider,
        credential: Option<&str>,
        aws: Option<&AwsKey>,
        roots: Option<&[CertificateDer<'static>]>,
        limits: &Limits,
        old: Option<&Self>,
    ) -> Result<Self, PoolError> {
        let dialect = match typed.dialect {
            config::Dialect::OpenAi => Dialect::OpenAi,
            config::Dialect::AzureOpenAi => Dialect::AzureOpenAi,
            config::Dialect::Anthropic => Dialect::Anthropic,
            config::Dialect::Gemini => Dialect::Gemini,
            config::Dialect::Vertex => Dialect::Vertex,
            config::Dialect::Cohere => Dialect::Cohere,
            config::Dialect::Ollama => Dialect::Ollama,
            config::Dialect::Watsonx => Dialect::Watsonx,
            config::Dialect::Bedrock => Dialect::Bedrock,
        };
        let key_header = typed.key_header.unwrap_or(typed.dialect.key_header());
        let made_of = MadeOf {
            base_url: typed.base_url.clone(),
            roots: roots.map(<[_]>::to_vec),
            connect: limits.connect,
            idle_connections: limits.provider_idle_connections,
        };
        let client = match old {
            Some(old) if old.made_of == made_of => old.client.clone(),
            _ => client(&made_of)?,
        };
        Ok(Self {
            name: typed.name.clone(),
            dialect,
            dialect_name: Identifier::new(dialect.name()).ok(),
            scheme: if typed.base_url.tls { Scheme::HTTPS } else { Scheme::HTTP },
            authority: typed.base_url.authority.clone(),
            base_path: typed.base_url.path.clone(),
            api_version: typed.api_version.clone(),
            credential: credential.map(|secret| place(key_header, secret)).transpose()?,
            signing: match (&typed.aws, aws) {
                (Some(typed), Some(key)) => Some(Signing::new(typed, key)?),
                _ => None,
            },
            ask_usage: typed.ask_usage,
            drain: match typed.drain_after_abort {
                DrainAfterAbort::Off => None,
                DrainAfterAbort::Within(drain) => Some(drain),
            },
            price_name: typed.price_name().to_owned(),
            client,
            made_of,
        })
    }

    /// Whether callers may send their key in the query, as Google's SDKs do: no `key` there is anything else.
    pub(crate) fn takes_query_key(&self) -> bool {
        matches!(self.dialect, Dialect::Gemini | Dialect::Vertex)
    }

    /// Where `rest` of a caller's path leads: behind the base path, byte for byte, with the query.
    pub(crate) fn target(&self, rest: &str, query: Option<&str>) -> Option<PathAndQuery> {
        let mut target = String::with_capacity(self.base_path.len() + rest.len() + 64);
        target.push_str(&self.base_path);
        target.push_str(rest);
        if target.is_empty() {
            target.push('/');
        }
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        if let Some(version) = &self.api_version
            && !query.unwrap_or_default().split('&').any(|pair| pair.starts_with("api-version="))
        {
            target.push(if query.is_some() { '&' } else { '?' });
            target.push_str("api-version=");
            target.push_str(version.as_str());
        }
        PathAndQuery::from_maybe_shared(bytes::Bytes::from(target)).ok()
    }

    /// Sends a request on a pooled connection.
    pub(crate) async fn request(&self, request: Request<Upload>) -> Result<Response<Incoming>, Error> {
        self.client.request(request).await
    }
}

/// The header of a key. Marked sensitive: never shown, never put into an HPACK table.
fn place(header: KeyHeader, secret: &str) -> Result<(HeaderName, HeaderValue), PoolError> {
    let (name, text) = match header {
        KeyHeader::Authorization => (AUTHORIZATION, format!("Bearer {secret}")),
        KeyHeader::ApiKey => (HeaderName::from_static("api-key"), secret.to_owned()),
        KeyHeader::XApiKey => (HeaderName::from_static("x-api-key"), secret.to_owned()),
        KeyHeader::XGoogApiKey => (HeaderName::from_static("x-goog-api-key"), secret.to_owned()),
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| PoolError::Credential)?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn client(made_of: &MadeOf) -> Result<Client<HttpsConnector<HttpConnector>, Upload>, PoolError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match &made_of.roots {
        Some(given) => {
            let mut store = RootCertStore::empty();
            for root in given {
                store.add(root.clone())?;
            }
            Arc::new(store)
        }
        None if made_of.base_url.tls => system_roots()?,
        None => Arc::new(RootCertStore::empty()),
    };
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(made_of.connect));
    http.set_keepalive(Some(Duration::from_secs(60)));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(usize::try_from(made_of.idle_connections).unwrap_or(usize::MAX))
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(Some(Duration::from_secs(30)))
        .http2_max_send_buf_size(256 << 10)
        .build(connector))
}

/// The system's roots, read once.
pub(crate) fn system_roots() -> Result<Arc<RootCertStore>, PoolError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(found.certs);
    if added == 0 {
        let text = found.errors.first().map_or_else(|| "none installed".to_owned(), ToString::to_string);
        return Err(PoolError::NoRoots(text));
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(store))))
}
