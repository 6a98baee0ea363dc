//! POSTs of leaves: 2xx acknowledges, everything else is tried again.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use evidence::Stop;
use evidence::tap::{Render, Sink, SinkError, TapItem};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Builder;
use http::{HeaderMap, Request, StatusCode};
use ring::hmac;
use rustls::ClientConfig;
use sha2::{Digest as _, Sha256};

use super::post::{Poster, authorization, retry_after};
use crate::config::{Secret, TapBody, TapFormat, TapWebhook};

/// The largest number of leaves in one POST.
const MOST: usize = 256;

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) typed: TapWebhook,
    pub(super) format: TapFormat,
    pub(super) secret: Option<Secret>,
    pub(super) token: Option<Secret>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) render: Render,
}

/// An address that takes POSTs.
pub(super) struct Webhook {
    settings: Settings,
    poster: Poster,
    /// How many leaves go into one POST: fewer after 413.
    most: usize,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("url", &self.settings.typed.url).finish_non_exhaustive()
    }
}

impl Webhook {
    pub(super) fn new(settings: Settings) -> Self {
        let poster = Poster::new(&settings.tls, settings.typed.timeout);
        Self { settings, poster, most: MOST }
    }

    /// Posts some items of one log.
    fn post(&self, items: &[TapItem], stop: &Stop) -> Result<(), Refused> {
        let body = body(&self.settings, items);
        let answer = self.poster.post(request(&self.settings, &body)?, body, stop)?;
        judge(answer.status, &answer.headers)
    }
}

impl Sink for Webhook {
    fn send(&mut self, items: &[TapItem], stop: &Stop) -> Result<(), SinkError> {
        let mut rest = items;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.most.clamp(1, rest.len()));
            match self.post(now, stop) {
                Ok(()) => rest = later,
                Err(Refused::TooLarge) if now.len() > 1 => self.most = now.len() / 2,
                Err(Refused::TooLarge) => {
                    return Err(SinkError::new("refused", "413 to a single leaf"));
                }
                Err(Refused::Other(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Why a POST was not acknowledged.
#[derive(Debug)]
enum Refused {
    /// Fewer leaves may fit.
    TooLarge,
    Other(SinkError),
}

impl From<SinkError> for Refused {
    fn from(error: SinkError) -> Self {
        Self::Other(error)
    }
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Result<(), Refused> {
    if status.is_success() {
        return Ok(());
    }
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return Err(Refused::TooLarge);
    }
    let reason = match status {
        StatusCode::TOO_MANY_REQUESTS => "throttled",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "credentials",
        _ if status.is_server_error() => "unavailable",
        _ => "refused",
    };
    let detail = format!("status {}", status.as_u16());
    Err(SinkError { retry_after: retry_after(headers), ..SinkError::new(reason, detail) }.into())
}

fn request(settings: &Settings, body: &[u8]) -> Result<Builder, SinkError> {
    let typed = &settings.typed;
    let path = if typed.url.path.is_empty() { "/" } else { "" };
    let kind = match typed.body {
        TapBody::Ndjson => "application/x-ndjson",
        TapBody::Array => "application/json",
    };
    let mut request = Request::post(format!("{}{path}", typed.url))
        .header(CONTENT_TYPE, kind)
        .header("idempotency-key", idempotency_key(body));
    if let Some(secret) = &settings.secret {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        request = request.header("x-affidavit-signature", signature(secret, now, body));
    }
    if let Some(token) = &settings.token {
        request = request.header(AUTHORIZATION, authorization(&typed.scheme, token.expose())?);
    }
    Ok(request)
}

/// Equal for equal bodies, and for no others: SHA-256 of the body, in hex.
fn idempotency_key(body: &[u8]) -> String {
    format!("\"{}\"", hex::encode(Sha256::digest(body)))
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA-256 over `SECONDS.BODY`. The time is signed so that a receiver can refuse an old one.
fn signature(secret: &Secret, now: u64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()));
    context.update(format!("{now}.").as_bytes());
    context.update(body);
    format!("t={now},v1={}", hex::encode(context.sign().as_ref()))
}

fn body(settings: &Settings, items: &[TapItem]) -> Bytes {
    let (open, between, close): (&[u8], &[u8], &[u8]) = match settings.typed.body {
        TapBody::Ndjson => (b"", b"\n", b"\n"),
        TapBody::Array => (b"[", b",", b"]"),
    };
    let mut body = open.to_vec();
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            body.extend_from_slice(between);
        }
        body.extend_from_slice(&object(settings, item));
    }
    body.extend_from_slice(close);
    body.into()
}

/// An event, or a leaf, byte for byte, beside its place.
fn object(settings: &Settings, item: &TapItem) -> Vec<u8> {
    let rendered = (settings.render)(item);
    let TapItem::Leaf(leaf) = item else { return rendered };
    if settings.format == TapFormat::Ocsf {
        return rendered;
    }
    let kind = serde_json::Value::from(leaf.kind.as_str());
    let mut object = format!(
        "{{\"origin\":\"{}\",\"position\":{},\"kind\":{kind},\"leaf_hash\":\"{}\",\"leaf\":",
        leaf.origin, leaf.position, leaf.hash
    )
    .into_bytes();
    object.extend_from_slice(&rendered);
    object.push(b'}');
    object
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;
    use http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn only_2xx_acknowledges_and_retry_after_is_heard() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            headers
        };
        assert!(judge(StatusCode::ACCEPTED, &HeaderMap::new()).is_ok());
        let reason = |status: StatusCode, headers: &HeaderMap| match judge(status, headers) {
            Err(Refused::Other(error)) => (error.reason, error.retry_after.map(|wait| wait.as_secs())),
            other => panic!("{status}: {other:?}"),
        };
        assert_eq!(reason(StatusCode::TOO_MANY_REQUESTS, &with("7")), ("throttled", Some(7)));
        assert_eq!(reason(StatusCode::SERVICE_UNAVAILABLE, &with("99999")), ("unavailable", Some(600)));
        let past = with("Fri, 20 Nov 2015 10:15:00 GMT");
        assert_eq!(reason(StatusCode::BAD_GATEWAY, &past), ("unavailable", Some(0)));
        assert_eq!(reason(StatusCode::FOUND, &with("soon")), ("refused", None));
        assert_eq!(reason(StatusCode::FORBIDDEN, &HeaderMap::new()), ("credentials", None));
        assert!(matches!(judge(StatusCode::PAYLOAD_TOO_LARGE, &HeaderMap::new()), Err(Refused::TooLarge)));
    }

    #[test]
    fn the_signature_is_over_time_and_body() {
        let secret = Secret::new("whsec").unwrap();
        let one = signature(&secret, 1_795_169_700, b"{}\n");
        // printf '1795169700.{}\n' | openssl dgst -sha256 -hmac whsec
        assert!(one.starts_with("t=1795169700,v1="));
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"whsec");
        let tag = hex::decode(one.rsplit('=').next().unwrap()).unwrap();
        assert!(hmac::verify(&key, b"1795169700.{}\n", &tag).is_ok());
        assert_ne!(one, signature(&secret, 1_795_169_701, b"{}\n"));
    }

    #[test]
    fn the_idempotency_key_is_of_the_body() {
        // printf '{}\n' | sha256sum
        let key = "\"ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356\"";
        assert_eq!(idempotency_key(b"{}\n"), key);
        assert_ne!(idempotency_key(b"{}"), key);
    }

    /// Leaves of 40 KB each.
    fn leaves(count: u64) -> Vec<TapItem> {
        let bytes = Bytes::from(format!("{{\"filler\":\"{}\"}}", "x".repeat(40_000)));
        let leaf = |position| evidence::tap::TapLeaf {
            origin: schemas::Origin::new("acme/gw1/e-1").unwrap(),
            position,
            kind: "refusal".into(),
            at_us: 0,
            hash: schemas::leaf::hash(&bytes),
            bytes: bytes.clone(),
        };
        (0..count).map(|position| TapItem::Leaf(leaf(position))).collect()
    }

    /// A receiver of one request on each connection: reads its body by and by, then `answer` with its length. Gives the
    /// sink that posts there.
    fn receiver(
        timeout: Duration,
        pause: Duration,
        answer: impl Fn(usize) -> Option<&'static str> + Send + 'static,
    ) -> Webhook {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 16 << 10).unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let (mut seen, mut chunk) = (Vec::new(), vec![0; 32 << 10]);
                let wanted = |seen: &[u8]| {
                    let head = seen.windows(4).position(|four| four == b"\r\n\r\n")?;
                    let text = String::from_utf8_lossy(seen.get(..head)?).to_lowercase();
                    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "))?;
                    Some((head + 4 + length.parse::<usize>().ok()?, length.parse::<usize>().ok()?))
                };
                while wanted(&seen).is_none_or(|(all, _)| seen.len() < all) {
                    match socket.read(&mut chunk) {
                        Ok(0) | Err(_) => break,
                        Ok(n) => seen.extend_from_slice(&chunk[..n]),
                    }
                    std::thread::sleep(pause);
                }
                if let Some(text) = wanted(&seen).and_then(|(_, length)| answer(length)) {
                    socket.write_all(text.as_bytes()).unwrap();
                }
                kept.push(socket);
            }
        });
        let typed = TapWebhook {
            url: crate::config::BaseUrl::parse(&url).unwrap(),
            tls: crate::config::ClientTls::default(),
            body: TapBody::Array,
            secret: None,
            token: None,
            scheme: "Bearer".into(),
            timeout,
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let render = crate::tap::render(TapFormat::Leaf);
        let (format, tls) = (TapFormat::Leaf, Arc::new(tls));
        Webhook::new(Settings { typed, format, secret: None, token: None, tls, render })
    }

    const TAKEN: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";

    #[test]
    fn the_head_of_an_answer_acknowledges_though_its_body_does_not_end() {
        let endless = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbut";
        let mut sink = receiver(Duration::from_secs(5), Duration::ZERO, move |_| Some(endless));
        let begun = std::time::Instant::now();
        sink.send(&leaves(2), &Stop::default()).unwrap();
        sink.send(&leaves(1), &Stop::default()).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_receiver_that_reads_slowly_is_waited_for_as_long_as_it_goes_on() {
        let timeout = Duration::from_millis(900);
        let mut sink = receiver(timeout, Duration::from_millis(10), |_| Some(TAKEN));
        let begun = std::time::Instant::now();
        sink.send(&leaves(150), &Stop::default()).unwrap();
        assert!(begun.elapsed() > timeout, "too fast to say anything: {:?}", begun.elapsed());
    }

    #[test]
    fn a_receiver_that_takes_everything_and_does_not_answer_is_given_up_in_time() {
        let mut sink = receiver(Duration::from_millis(300), Duration::ZERO, |_| None);
        assert_eq!(sink.send(&leaves(4), &Stop::default()).unwrap_err().reason, "timeout");
    }
}
