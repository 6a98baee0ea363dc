//! A provider: its address, its credential, and the pool of connections to it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dialects::change::ChatBound;
use dialects::{Dialect, Maker};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use schemas::Identifier;

use super::paths::Paths;
use super::proxy::{Connector, Proxy};
use super::sign::{Signing, Unsignable};
use super::tokens::{NoToken, Tokens};
use super::upload::Upload;
use crate::config::{
    self, AwsKey, Drain, Grant, KNOWN, KeyHeader, Known, Limits, Pair, ProxyRules, TokenFiles, Upstream,
};
use crate::telemetry::{ByFetch, Rows};

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
    /// The proxy's password cannot stand in a header.
    #[error("`upstream_proxy`: the credential cannot stand in a header")]
    Proxy(#[from] http::header::InvalidHeaderValue),
    /// The service account's key is none.
    #[error("`google.service_account`: the key cannot sign: {0}")]
    Account(String),
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// On the way, or at the provider.
    #[error(transparent)]
    Client(#[from] legacy::Error),
    /// It was not sent: there is no token for it.
    #[error(transparent)]
    Token(#[from] NoToken),
}

impl Unanswered {
    /// Whether the provider has seen nothing of it.
    pub(crate) fn is_connect(&self) -> bool {
        match self {
            Self::Client(error) => error.is_connect(),
            Self::Token(_) => true,
        }
    }
}

/// Marks the answer to a token that the provider no longer takes: the next request gets another one.
#[derive(Clone, Copy)]
pub(crate) struct StaleToken;

/// A provider, ready for the hot path.
pub(crate) struct Provider {
    pub(crate) name: Identifier,
    pub(crate) dialect: Dialect,
    /// Whose paths it has, where they are not all the dialect's.
    pub(crate) maker: Option<Maker>,
    /// The dialect as records name it.
    pub(crate) dialect_name: Option<Identifier>,
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    paths: Paths,
    api_version: Option<Identifier>,
    pub(crate) credential: Option<(HeaderName, HeaderValue)>,
    /// The header of its keys.
    pub(crate) key_header: HeaderName,
    /// Signs each request, where it is AWS that asks for it.
    pub(crate) signing: Option<Signing>,
    pub(crate) ask_usage: bool,
    /// The word by which a chat of OpenAI's dialect is bounded there.
    pub(crate) chat_bound: ChatBound,
    /// How far an answer is read on whose caller has left, where the route does not say it.
    pub(crate) drain: Option<Drain>,
    pub(crate) price_name: String,
    client: Client<HttpsConnector<Connector>, Upload>,
    /// Gives the value of `Authorization`, where the gateway fetches it.
    tokens: Option<Arc<Tokens>>,
    made_of: MadeOf,
}

/// What a pool was made of: where it is the same after a reload, the pool goes on.
#[derive(PartialEq, Eq)]
struct MadeOf {
    base_url: config::BaseUrl,
    roots: Option<Vec<CertificateDer<'static>>>,
    proxy: Option<ProxyRules>,
    shown: Option<Pair>,
    tokens: Option<TokenFiles>,
    connect: Duration,
    keep_alive: Duration,
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
    #[expect(clippy::too_many_arguments, reason = "what a provider is made of, each used once")]
    pub(crate) fn new(
        typed: &config::Provider,
        credential: Option<&str>,
        aws: Option<&AwsKey>,
        roots: Option<&[CertificateDer<'static>]>,
        upstream: Option<&Upstream>,
        limits: &Limits,
        fetched: &Rows<ByFetch, Counter>,
        old: Option<&Self>,
    ) -> Result<Self, PoolError> {
        let key_header = typed.key_header.unwrap_or(KeyHeader::of(typed.dialect));
        let made_of = MadeOf {
            base_url: typed.base_url.clone(),
            roots: roots.map(<[_]>::to_vec),
            proxy: upstream.and_then(|upstream| upstream.proxy.clone()),
            shown: upstream.and_then(|upstream| upstream.client.as_ref()).map(copied),
            tokens: upstream.and_then(|upstream| upstream.tokens.clone()),
            connect: typed.connect.unwrap_or(limits.connect),
            keep_alive: typed.keep_alive.unwrap_or(IDLE),
            idle_connections: typed.idle_connections.unwrap_or(limits.provider_idle_connections),
        };
        let (client, tokens) = match old {
            Some(old) if old.made_of == made_of => (old.client.clone(), old.tokens.clone()),
            _ => (client(&made_of)?, tokens(&made_of, typed.name.as_str(), fetched)?),
        };
        Ok(Self {
            name: typed.name.clone(),
            dialect: typed.dialect,
            maker: Maker::of(
                typed.kind.into_iter().chain([typed.price_name()]),
                typed.base_url.authority.host(),
            ),
            dialect_name: Identifier::new(typed.dialect.name()).ok(),
            scheme: if typed.base_url.tls { Scheme::HTTPS } else { Scheme::HTTP },
            authority: typed.base_url.authority.clone(),
            paths: Paths::new(&typed.base_url.path, typed.dialect, known(typed.kind)),
            api_version: typed.api_version.clone(),
            credential: credential.map(|secret| place(key_header, secret)).transpose()?,
            key_header: header_name(key_header),
            signing: match (&typed.aws, aws) {
                (Some(typed), Some(key)) => Some(Signing::new(typed, key)?),
                _ => None,
            },
            ask_usage: typed.ask_usage,
            chat_bound: typed.chat_bound(),
            drain: typed.drain_after_abort.bounds(),
            price_name: typed.price_name().to_owned(),
            client,
            tokens,
            made_of,
        })
    }

    /// Where `rest` of a caller's path leads: behind the base path, byte for byte, with the query.
    pub(crate) fn target(&self, rest: &str, query: Option<&str>) -> Option<PathAndQuery> {
        let base = self.paths.base();
        let mut target = String::with_capacity(base.len() + rest.len() + 64);
        target.push_str(base);
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

    /// Where what a caller asks for in the provider's own dialect is: OpenAI's paths may be others there, and a base URL that
    /// ends with a version keeps it.
    pub(crate) fn asked_target(&self, path: &str, query: Option<&str>) -> Option<PathAndQuery> {
        self.target(&self.paths.asked(path), query)
    }

    /// Where a path that a translation wrote leads: likewise, whatever version it begins with.
    pub(crate) fn translated_target(&self, path: &str, query: Option<&str>) -> Option<PathAndQuery> {
        self.target(&self.paths.written(path), query)
    }

    /// Sends a request on a pooled connection, under a token where the gateway fetches them; not where the caller's own
    /// credential goes with it.
    pub(crate) async fn request(
        &self,
        mut request: Request<Upload>,
        is_forwarded: bool,
    ) -> Result<Response<Incoming>, Unanswered> {
        let Some(tokens) = self.tokens.as_ref().filter(|_| !is_forwarded) else {
            return Ok(self.client.request(request).await?);
        };
        let authorization = tokens.authorization().await?;
        request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        let mut response = self.client.request(request).await?;
        if response.status() == StatusCode::UNAUTHORIZED && tokens.refused(&authorization) {
            response.extensions_mut().insert(StaleToken);
        }
        Ok(response)
    }
}

/// What is known of a kind.
fn known(kind: Option<&str>) -> Option<&'static Known> {
    KNOWN.iter().find(|known| Some(known.name) == kind)
}

fn copied((chain, key): &Pair) -> Pair {
    (chain.clone(), key.clone_key())
}

/// The header of a key. Marked sensitive: never shown, never put into an HPACK table.
fn place(header: KeyHeader, secret: &str) -> Result<(HeaderName, HeaderValue), PoolError> {
    let text = match header {
        KeyHeader::Authorization => format!("Bearer {secret}"),
        KeyHeader::ApiKey | KeyHeader::XApiKey | KeyHeader::XGoogApiKey => secret.to_owned(),
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| PoolError::Credential)?;
    value.set_sensitive(true);
    Ok((header_name(header), value))
}

fn header_name(header: KeyHeader) -> HeaderName {
    match header {
        KeyHeader::Authorization => AUTHORIZATION,
        KeyHeader::ApiKey => HeaderName::from_static("api-key"),
        KeyHeader::XApiKey => HeaderName::from_static("x-api-key"),
        KeyHeader::XGoogApiKey => HeaderName::from_static("x-goog-api-key"),
    }
}

fn client(made_of: &MadeOf) -> Result<Client<HttpsConnector<Connector>, Upload>, PoolError> {
    let tls = tls(made_of.roots.as_deref(), made_of.base_url.tls, made_of.shown.as_ref())?;
    let kept = if made_of.keep_alive.is_zero() { 0 } else { made_of.idle_connections };
    Ok(Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(made_of.keep_alive)
        .pool_max_idle_per_host(usize::try_from(kept).unwrap_or(usize::MAX))
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(Some(Duration::from_secs(30)))
        .http2_max_send_buf_size(256 << 10)
        .build(connector(made_of, tls, made_of.proxy.as_ref())?))
}

/// Fetches tokens on connections of its own: other roots, and no certificate of the gateway's.
fn tokens(
    made_of: &MadeOf,
    provider: &str,
    fetched: &Rows<ByFetch, Counter>,
) -> Result<Option<Arc<Tokens>>, PoolError> {
    let Some(files) = &made_of.tokens else { return Ok(None) };
    let tls = tls(files.roots.as_deref(), files.url.tls, None)?;
    // The metadata server is on this machine's own link.
    let proxy = made_of.proxy.as_ref().filter(|_| files.grant != Grant::Metadata);
    let fetcher = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(1)
        .build(connector(made_of, tls, proxy)?);
    let tokens = Tokens::new(files, fetcher, provider, fetched)
        .map_err(|error| PoolError::Account(error.to_string()))?;
    Ok(Some(Arc::new(tokens)))
}

/// The client's side of TLS, under the given roots or the system's.
fn tls(
    roots: Option<&[CertificateDer<'static>]>,
    is_used: bool,
    shown: Option<&Pair>,
) -> Result<ClientConfig, PoolError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match roots {
        Some(given) => {
            let mut store = RootCertStore::empty();
            for root in given {
                store.add(root.clone())?;
            }
            Arc::new(store)
        }
        None if is_used => system_roots()?,
        None => Arc::new(RootCertStore::empty()),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match shown.map(copied) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    })
}

fn connector(
    made_of: &MadeOf,
    tls_to_provider: ClientConfig,
    proxy: Option<&ProxyRules>,
) -> Result<HttpsConnector<Connector>, PoolError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(made_of.connect));
    http.set_keepalive(Some(Duration::from_secs(60)));
    let proxy = match proxy {
        Some(rules) => {
            let over_tls = [&rules.https, &rules.http].iter().any(|url| url.starts_with("https:"));
            Some(Arc::new(Proxy::new(rules, tls(rules.roots.as_deref(), over_tls, None)?)?))
        }
        None => None,
    };
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(tls_to_provider)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(Connector::new(http, proxy, made_of.connect)))
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
