//! The way to a provider's socket: straight, or through the tunnel of a proxy.
//!
//! A proxy is asked for a tunnel (`CONNECT`, RFC 9110 9.3.6) to providers with and without TLS: it sees host and port of
//! the provider, and its own password, and nothing of a request.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::uri::{Authority, Scheme};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::upgrade::Upgraded;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::config::ProxyRules;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no tunnel. What it says goes into the content of the exchange's record, and never to a caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// The proxy itself could not be reached.
    #[error("the proxy {proxy} could not be reached")]
    Unreachable {
        /// Which.
        proxy: Authority,
        /// Why.
        source: BoxError,
    },
    /// It wants a password, or another one.
    #[error("the proxy {proxy} answered 407: `upstream_proxy.credential` is missing or wrong")]
    Credential {
        /// Which.
        proxy: Authority,
    },
    /// It does not lead there.
    #[error("the proxy {proxy} refuses the way to {to}: it answered {status}")]
    Refused {
        /// Which.
        proxy: Authority,
        /// The provider.
        to: Authority,
        /// Its answer.
        status: StatusCode,
    },
    /// It broke off, or speaks no HTTP.
    #[error("the proxy {proxy} gave no tunnel")]
    Broken {
        /// Which.
        proxy: Authority,
        /// What happened.
        source: hyper::Error,
    },
    /// It takes too long.
    #[error("the proxy {proxy} gave no tunnel within {} s", limit.as_secs_f64())]
    Timeout {
        /// Which.
        proxy: Authority,
        /// `limits.connect`.
        limit: Duration,
    },
    /// An address without a host.
    #[error("the address names no host")]
    NoHost,
}

/// The proxy's rules, ready for use.
pub(crate) struct Proxy {
    /// `None`: it is always passed by.
    matcher: Option<Matcher>,
    authorization: Option<HeaderValue>,
    tls: TlsConnector,
}

impl Proxy {
    /// Of the configuration; `tls` trusts the proxy's own certificate.
    ///
    /// # Errors
    /// A password that cannot stand in a header.
    pub(crate) fn new(
        rules: &ProxyRules,
        tls: ClientConfig,
    ) -> Result<Self, http::header::InvalidHeaderValue> {
        let authorization = rules.authorization.as_ref().map(|secret| {
            let mut value = HeaderValue::try_from(secret.expose())?;
            value.set_sensitive(true);
            Ok(value)
        });
        // The matcher takes `*` for all names, and not for addresses.
        let is_passed_by = rules.no.split(',').any(|item| item.trim() == "*");
        let matcher = (!is_passed_by).then(|| {
            Matcher::builder()
                .https(rules.https.as_str().to_owned())
                .http(rules.http.as_str().to_owned())
                .no(rules.no.clone())
                .build()
        });
        Ok(Self {
            matcher,
            authorization: authorization.transpose()?,
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }
}

/// Opens connections to providers.
#[derive(Clone)]
pub(crate) struct Connector {
    http: HttpConnector,
    proxy: Option<Arc<Proxy>>,
    limit: Duration,
}

impl Connector {
    /// Over `proxy`, where there is one; `limit` bounds the whole way to a tunnel.
    pub(crate) fn new(http: HttpConnector, proxy: Option<Arc<Proxy>>, limit: Duration) -> Self {
        Self { http, proxy, limit }
    }
}

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let through = self
            .proxy
            .as_ref()
            .and_then(|proxy| Some((Arc::clone(proxy), proxy.matcher.as_ref()?.intercept(&to)?)));
        let Some((proxy, intercept)) = through else {
            let connecting = self.http.call(to);
            return Box::pin(async move { Ok(Wire::Straight(connecting.await?)) });
        };
        let connecting = self.http.call(intercept.uri().clone());
        let limit = self.limit;
        Box::pin(async move {
            let name = intercept.uri().authority().cloned().ok_or(ProxyError::NoHost)?;
            let tunnel = tunnel(&proxy, &intercept, &name, &to, connecting);
            match tokio::time::timeout(limit, tunnel).await {
                Ok(tunnel) => Ok(Wire::Tunnel(tunnel?)),
                Err(_) => Err(ProxyError::Timeout { proxy: name, limit }.into()),
            }
        })
    }
}

/// Connects to the proxy and asks it for a tunnel.
async fn tunnel(
    proxy: &Proxy,
    intercept: &Intercept,
    name: &Authority,
    to: &Uri,
    connecting: impl Future<Output = Result<TokioIo<TcpStream>, impl Into<BoxError>>>,
) -> Result<Upgraded, ProxyError> {
    let unreachable = |source: BoxError| ProxyError::Unreachable { proxy: name.clone(), source };
    let stream = connecting.await.map_err(|error| unreachable(error.into()))?;
    let to = target(to)?;
    let authorization = proxy.authorization.as_ref().or(intercept.basic_auth());
    if intercept.uri().scheme() != Some(&Scheme::HTTPS) {
        return ask(stream, name, to, authorization).await;
    }
    let host = name.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let server = ServerName::try_from(host).map_err(|error| unreachable(error.into()))?;
    let stream = proxy.tls.connect(server, stream.into_inner()).await;
    ask(TokioIo::new(stream.map_err(|error| unreachable(error.into()))?), name, to, authorization).await
}

/// Host and port of an address, as `CONNECT` names them.
fn target(to: &Uri) -> Result<Authority, ProxyError> {
    let host = to.host().ok_or(ProxyError::NoHost)?;
    let port = to.port_u16().unwrap_or(if to.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 });
    format!("{host}:{port}").parse().map_err(|_| ProxyError::NoHost)
}

async fn ask<S>(
    stream: S,
    proxy: &Authority,
    to: Authority,
    authorization: Option<&HeaderValue>,
) -> Result<Upgraded, ProxyError>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let broken = |source| ProxyError::Broken { proxy: proxy.clone(), source };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(broken)?;
    // Ends with the tunnel, or with the refusal.
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    let host = HeaderValue::try_from(to.as_str()).map_err(|_| ProxyError::NoHost)?;
    request.headers_mut().insert(HOST, host);
    if let Some(value) = authorization {
        request.headers_mut().insert(PROXY_AUTHORIZATION, value.clone());
    }
    *request.uri_mut() = Uri::from(to.clone());
    let response = sender.send_request(request).await.map_err(broken)?;
    match response.status() {
        status if status.is_success() => hyper::upgrade::on(response).await.map_err(broken),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(ProxyError::Credential { proxy: proxy.clone() }),
        status => Err(ProxyError::Refused { proxy: proxy.clone(), to, status }),
    }
}

/// A connection on which a provider is at the other end.
pub(crate) enum Wire {
    /// Its own socket.
    Straight(TokioIo<TcpStream>),
    /// Through a proxy.
    Tunnel(Upgraded),
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        match self {
            Self::Straight(stream) => stream.connected(),
            // Not told to be a proxy: behind the tunnel is the provider itself.
            Self::Tunnel(_) => Connected::new(),
        }
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Straight(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tunnel(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Straight(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tunnel(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Straight(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Straight(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Straight(stream) => stream.is_write_vectored(),
            Self::Tunnel(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Straight(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tunnel(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
}
