//! Small documents over HTTPS: nothing of them is believed because of where it came from but what TLS proves.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, HeaderMap, HeaderValue, LOCATION};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;

use crate::config::TapFiles;
use crate::dispatch;
use crate::dispatch::pool::PoolError;
use crate::tap;

/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest document.
const MAX_DOCUMENT_BYTES: usize = 256 << 10;

/// Asks for documents.
pub(crate) struct Fetch {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A document, and how long its server says that it may be kept.
pub(crate) struct Document {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) max_age: Option<Duration>,
}

impl Fetch {
    /// `roots`: those to trust; `None`: the system's, where there is TLS at all.
    ///
    /// # Errors
    /// Roots that cannot be used.
    pub(crate) fn new(
        roots: Option<Vec<CertificateDer<'static>>>,
        uses_tls: bool,
    ) -> Result<Self, PoolError> {
        let tls = tap::tls::client(&TapFiles { uses_tls, roots, ..TapFiles::default() })?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(PATIENCE));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(&tls))
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        // It asks seldom: no connection is kept.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client })
    }

    /// The document at `url`, of status 200. No redirect is followed.
    ///
    /// # Errors
    /// Why it did not come.
    pub(crate) async fn get(&self, url: &str) -> Result<Document, String> {
        let mut request = Request::get(url).body(Full::default()).map_err(|error| error.to_string())?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let document = self.ask(request).await?;
        if document.status == StatusCode::OK {
            return Ok(document);
        }
        Err(format!("status {}, wanted 200", document.status.as_u16()))
    }

    /// What comes back to a request.
    ///
    /// # Errors
    /// Why nothing did.
    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Document, String> {
        let whole = async {
            let response = self.client.request(request).await.map_err(|error| dispatch::chain(&error))?;
            let (head, body) = response.into_parts();
            if head.headers.contains_key(LOCATION) && head.status.is_redirection() {
                return Err("a redirect, which is not followed".to_owned());
            }
            let body = Limited::new(body, MAX_DOCUMENT_BYTES).collect().await;
            let body = body.map_err(|error| format!("its body: {error}"))?.to_bytes();
            Ok(Document { status: head.status, body, max_age: max_age(&head.headers) })
        };
        match tokio::time::timeout(PATIENCE, whole).await {
            Ok(document) => document,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }
}

/// `max-age` of `Cache-Control` (RFC 9111 5.2.2.1).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(str::trim);
    let seconds = directives
        .find_map(|directive| directive.to_ascii_lowercase().strip_prefix("max-age=")?.parse().ok());
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_age_is_read_out_of_cache_control() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(text));
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(of("public, Max-Age=600, must-revalidate"), Some(600));
        for none in ["no-store", "max-age=soon", "max-age=-1", "s-maxage=5", ""] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
