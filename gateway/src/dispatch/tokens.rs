//! Access tokens that the gateway fetches itself, in the place of a provider's key.
//!
//! A token is kept until a minute before its end and fetched anew ahead of that, beside the traffic; of many that wait one
//! asks. A failure leaves the old one in force as long as it is valid. Neither a token nor what it is fetched with stands in
//! a log, a record or an answer. Fetching is no exchange: no prompt is in it, and it is counted, not recorded.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::chain;
use super::proxy::Connector;
use crate::config::{Grant, TokenFiles};
use crate::telemetry::{ByFetch, Rows};

/// The longest that a token endpoint is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// The largest answer that is read.
const MAX_ANSWER: usize = 256 << 10;
/// How long before its end a token is given out no more.
const MARGIN: Duration = Duration::from_secs(60);
/// How long before its end the next one is fetched.
const AHEAD: Duration = Duration::from_secs(300);
/// What is thought of a token whose answer does not say how long it lives.
const USUAL_LIFE: Duration = Duration::from_secs(300);
/// How long an assertion may be used.
const ASSERTION_S: i64 = 3600;
/// After a failure, or a provider's refusal of a fresh token, the next try beside the traffic waits this long.
const PAUSE: Duration = Duration::from_secs(10);

/// Fetches tokens at an endpoint.
pub(crate) type Fetcher = Client<HttpsConnector<Connector>, Full<Bytes>>;

/// There is no token. What it says goes into content only.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no access token for the provider: {0}")]
pub(crate) struct NoToken(Arc<str>);

/// The tokens of one provider.
pub(crate) struct Tokens {
    files: TokenFiles,
    signer: Option<RsaKeyPair>,
    fetcher: Fetcher,
    provider: String,
    fetched: Rows<ByFetch, Counter>,
    held: Mutex<Held>,
    /// One asks, the others wait for what it gets.
    gate: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    failed: Option<(Instant, NoToken)>,
    is_fetching: bool,
    /// When a provider's refusal last made a token be dropped.
    dropped: Option<Instant>,
}

#[derive(Clone)]
struct Token {
    value: HeaderValue,
    /// When it was asked for: its life is counted from here.
    made: Instant,
    /// When it came: who has waited since before gets it.
    came: Instant,
    life: Duration,
}

impl Token {
    fn left(&self) -> Duration {
        self.life.saturating_sub(self.made.elapsed())
    }

    fn is_good(&self) -> bool {
        self.left() > MARGIN.min(self.life / 2)
    }

    fn is_aging(&self) -> bool {
        self.left() < AHEAD.min(self.life / 4 * 3)
    }
}

/// What counts of a token endpoint's answer.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<serde_json::Value>,
}

/// What counts of its refusal.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Refusal {
    error: Option<String>,
    error_description: Option<String>,
    /// IBM's.
    #[serde(rename = "errorMessage")]
    error_message: Option<String>,
}

impl Tokens {
    /// Fetches nothing yet.
    ///
    /// # Errors
    /// A key that cannot sign.
    pub(crate) fn new(
        files: &TokenFiles,
        fetcher: Fetcher,
        provider: &str,
        fetched: &Rows<ByFetch, Counter>,
    ) -> Result<Self, ring::error::KeyRejected> {
        let signer = match &files.grant {
            Grant::ServiceAccount { key, .. } => Some(RsaKeyPair::from_pkcs8(key)?),
            _ => None,
        };
        for result in ["fetched", "failed"] {
            fetched.get_or_create(&ByFetch { provider: provider.to_owned(), result }).inc_by(0);
        }
        Ok(Self {
            files: files.clone(),
            signer,
            fetcher,
            provider: provider.to_owned(),
            fetched: fetched.clone(),
            held: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
        })
    }

    /// The value of `Authorization` for a request that goes now.
    ///
    /// # Errors
    /// No token could be had, and none is valid.
    pub(crate) async fn authorization(self: &Arc<Self>) -> Result<HeaderValue, NoToken> {
        let now = Instant::now();
        let token = self.held().token.clone();
        let Some(token) = token.filter(|token| !token.left().is_zero()) else { return self.fetch(now).await };
        if token.is_good() {
            if token.is_aging() {
                self.fetch_ahead();
            }
            return Ok(token.value);
        }
        Ok(self.fetch(now).await.unwrap_or(token.value))
    }

    /// The provider answered 401 to `used`: the next request gets another token, where this one was not just renewed for the
    /// same reason. True where it does.
    pub(crate) fn refused(&self, used: &HeaderValue) -> bool {
        let mut held = self.held();
        if held.token.as_ref().is_none_or(|token| token.value != used) {
            return true;
        }
        let is_dropped = held.dropped.is_none_or(|at| at.elapsed() > PAUSE);
        if is_dropped {
            held.token = None;
            held.dropped = Some(Instant::now());
        }
        is_dropped
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the next token while this one still serves.
    fn fetch_ahead(self: &Arc<Self>) {
        let mut held = self.held();
        if held.is_fetching || held.failed.as_ref().is_some_and(|(at, _)| at.elapsed() < PAUSE) {
            return;
        }
        held.is_fetching = true;
        drop(held);
        let tokens = Arc::clone(self);
        tokio::spawn(async move {
            // Why it fails is logged and counted; the old token serves.
            let _ = tokens.fetch(Instant::now()).await;
            tokens.held().is_fetching = false;
        });
    }

    /// What was fetched, or failed, since `since`; asks where nobody has.
    async fn fetch(&self, since: Instant) -> Result<HeaderValue, NoToken> {
        let _one = self.gate.lock().await;
        {
            let held = self.held();
            if let Some(token) = held.token.as_ref().filter(|token| token.came >= since) {
                return Ok(token.value.clone());
            }
            if let Some((_, error)) = held.failed.as_ref().filter(|(at, _)| *at >= since) {
                return Err(error.clone());
            }
        }
        let asked = tokio::time::timeout(ANSWER_WITHIN, self.ask()).await;
        let asked = asked.unwrap_or_else(|_| {
            Err(format!("the token endpoint gave no answer within {} s", ANSWER_WITHIN.as_secs()))
        });
        let result = if asked.is_ok() { "fetched" } else { "failed" };
        self.fetched.get_or_create(&ByFetch { provider: self.provider.clone(), result }).inc();
        let mut held = self.held();
        match asked {
            Ok(token) => {
                let value = token.value.clone();
                held.token = Some(token);
                held.failed = None;
                Ok(value)
            }
            Err(text) => {
                tracing::warn!(provider = self.provider, reason = text, "no access token could be fetched");
                let error = NoToken(text.into());
                held.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn ask(&self) -> Result<Token, String> {
        let made = Instant::now();
        let request = self.request()?;
        let response = self.fetcher.request(request).await.map_err(|error| chain(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
        let body = Zeroizing::new(body.to_bytes().to_vec());
        if head.status != StatusCode::OK {
            return Err(refusal(head.status, &body));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| "the token endpoint answered without an `access_token`".to_owned())?;
        let token = Zeroizing::new(answer.access_token);
        let text = Zeroizing::new(format!("Bearer {}", token.as_str()));
        let mut value = HeaderValue::try_from(text.as_str())
            .map_err(|_| "the token cannot stand in a header".to_owned())?;
        value.set_sensitive(true);
        let seconds = answer.expires_in.as_ref().and_then(seconds);
        Ok(Token { value, made, came: Instant::now(), life: seconds.map_or(USUAL_LIFE, Duration::from_secs) })
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, String> {
        let TokenFiles { grant, url, scope, .. } = &self.files;
        let scope = scope.as_deref().unwrap_or_default();
        let mut pairs = match grant {
            Grant::Metadata => {
                let scopes = scope.split(' ').collect::<Vec<_>>().join(",");
                let query = form(&[("scopes", scopes.as_str())]);
                return Request::get(format!("{url}?{}", query.as_str()))
                    .header("metadata-flavor", "Google")
                    .body(Full::default())
                    .map_err(|error| error.to_string());
            }
            Grant::ServiceAccount { .. } => {
                let assertion = self.assertion(scope, Timestamp::now())?;
                let body = form(&[
                    ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                    ("assertion", assertion.as_str()),
                ]);
                return post(&url.to_string(), &body);
            }
            Grant::Secret { client, secret } => vec![
                ("grant_type", "client_credentials"),
                ("client_id", client.as_str()),
                ("client_secret", secret.expose()),
            ],
            Grant::Assertion { client, assertion } => vec![
                ("grant_type", "client_credentials"),
                ("client_id", client.as_str()),
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                ("client_assertion", assertion.expose()),
            ],
            Grant::ApiKey(key) => {
                vec![("grant_type", "urn:ibm:params:oauth:grant-type:apikey"), ("apikey", key.expose())]
            }
        };
        if !scope.is_empty() {
            pairs.push(("scope", scope));
        }
        post(&url.to_string(), &form(&pairs))
    }

    /// A JWT that the service account signs (RFC 7523 3), with the claims that Google's own libraries send.
    fn assertion(&self, scope: &str, now: Timestamp) -> Result<String, String> {
        let (Grant::ServiceAccount { email, key_id, audience, .. }, Some(signer)) =
            (&self.files.grant, &self.signer)
        else {
            return Err("there is no service account".into());
        };
        let mut header = json!({ "typ": "JWT", "alg": "RS256" });
        if let Some(key_id) = key_id {
            header["kid"] = json!(key_id);
        }
        let now = now.as_second();
        let claims = json!({
            "iat": now, "exp": now + ASSERTION_S, "iss": email, "aud": audience, "scope": scope,
        });
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; signer.public().modulus_len()];
        signer
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| "the service account's key cannot sign".to_owned())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn post(url: &str, body: &str) -> Result<Request<Full<Bytes>>, String> {
    Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .body(Full::from(Bytes::copy_from_slice(body.as_bytes())))
        .map_err(|error| error.to_string())
}

/// What a token endpoint said where it gave none (RFC 6749 5.2).
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let read: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let mut text = format!("the token endpoint answered {status}");
    for said in [read.error, read.error_description, read.error_message].into_iter().flatten() {
        text.push_str(": ");
        text.extend(said.chars().filter(|char| !char.is_control()).take(300));
    }
    text
}

/// Seconds as a number or, as some write them, in a text.
fn seconds(value: &serde_json::Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// `application/x-www-form-urlencoded`.
fn form(pairs: &[(&str, &str)]) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(1024));
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push('%');
                out.push_str(&hex::encode_upper([byte]));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_coded_byte_by_byte() {
        let coded = form(&[("scope", "https://a/.default b"), ("secret", "a+b&c=ü")]);
        assert_eq!(coded.as_str(), "scope=https%3A%2F%2Fa%2F.default%20b&secret=a%2Bb%26c%3D%C3%BC");
    }

    #[test]
    fn a_refusal_is_told_without_what_else_the_body_holds() {
        let body = br#"{"error":"invalid_grant","error_description":"Invalid\nJWT","access_token":"s3cret"}"#;
        let text = refusal(StatusCode::BAD_REQUEST, body);
        assert_eq!(text, "the token endpoint answered 400 Bad Request: invalid_grant: InvalidJWT");
        assert_eq!(
            refusal(StatusCode::BAD_GATEWAY, b"<html>"),
            "the token endpoint answered 502 Bad Gateway"
        );
    }

    #[test]
    fn a_token_is_given_out_until_a_minute_before_its_end_and_renewed_ahead_of_that() {
        let token = |life, age| Token {
            value: HeaderValue::from_static("x"),
            made: Instant::now().checked_sub(Duration::from_secs(age)).unwrap_or_else(Instant::now),
            came: Instant::now(),
            life: Duration::from_secs(life),
        };
        for (life, age, good, aging) in [
            (3600, 0, true, false),
            (3600, 3290, true, false),
            (3600, 3310, true, true),
            (3600, 3545, false, true),
            (40, 5, true, false),
            (40, 15, true, true),
            (40, 25, false, true),
        ] {
            let token = token(life, age);
            assert_eq!((token.is_good(), token.is_aging()), (good, aging), "{life} {age}");
        }
    }

    #[test]
    fn seconds_are_read_as_a_number_and_as_a_text() {
        assert_eq!(seconds(&json!(3599)), Some(3599));
        assert_eq!(seconds(&json!("3599")), Some(3599));
        assert_eq!(seconds(&json!(-1)), None);
    }
}
