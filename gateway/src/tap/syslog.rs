//! Syslog: RFC 5424 messages over TLS, framed by their octets (RFC 5425).
//!
//! The protocol acknowledges nothing. What does say that a receiver has read everything is the end of a connection: the
//! gateway says that it is done (`close_notify`, and the end of its half), and a receiver that then ends the connection
//! in order has read up to there; one that has not makes its system reset the connection. So the gateway ends its
//! connection every while, counts what went over it as acknowledged where that end was orderly, and sends all of it again
//! where it was not.

use std::sync::Arc;
use std::time::Instant;

use evidence::Stop;
use evidence::tap::{Render, Sink, SinkError, TapItem};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{alerts, wait};
use crate::config::TapSyslog;

/// At most so many messages are sent again.
const WINDOW: usize = 10_000;
/// What a receiver says is read and dropped, but not without end.
const MAX_LAST_WORDS: usize = 64 << 10;

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) typed: TapSyslog,
    /// `HOSTNAME`: the gateway's name.
    pub(super) host: String,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) render: Render,
}

/// A receiver.
pub(super) struct Syslog {
    settings: Settings,
    runtime: Option<Runtime>,
    connection: Option<TlsStream<TcpStream>>,
    /// When the oldest message of this connection was sent, and how many were.
    unconfirmed: Option<(Instant, usize)>,
}

impl std::fmt::Debug for Syslog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syslog").field("address", &self.settings.typed.address).finish_non_exhaustive()
    }
}

impl Syslog {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, runtime: wait::runtime(), connection: None, unconfirmed: None }
    }
}

impl Sink for Syslog {
    fn send(&mut self, items: &[TapItem], stop: &Stop) -> Result<(), SinkError> {
        let mut bytes = Vec::new();
        for item in items {
            let message = message(&self.settings, item);
            bytes.extend_from_slice(format!("{} ", message.len()).as_bytes());
            bytes.extend_from_slice(&message);
        }
        let Self { settings, runtime, connection, unconfirmed } = self;
        let work = async {
            let stream = match &mut *connection {
                Some(stream) => stream,
                empty => empty.insert(connect(settings).await?),
            };
            still_open(stream).await?;
            stream.write_all(&bytes).await.map_err(|error| broken(&error))?;
            stream.flush().await.map_err(|error| broken(&error))
        };
        wait::run(runtime.as_ref(), settings.typed.timeout, stop, work)?;
        unconfirmed.get_or_insert((Instant::now(), 0)).1 += items.len();
        Ok(())
    }

    fn confirm(&mut self, now: bool, stop: &Stop) -> Result<bool, SinkError> {
        let Self { settings, runtime, connection, unconfirmed } = self;
        let Some((since, count)) = *unconfirmed else { return Ok(true) };
        let Some(stream) = connection else { return Err(SinkError::new("closed", "no connection")) };
        let is_due = now || count >= WINDOW || since.elapsed() >= settings.typed.confirm;
        let work = async {
            match is_due {
                true => end(stream).await.map(|()| true),
                false => still_open(stream).await.map(|()| false),
            }
        };
        let is_confirmed = wait::run(runtime.as_ref(), settings.typed.timeout, stop, work)?;
        if is_confirmed {
            self.reset();
        }
        Ok(is_confirmed)
    }

    fn reset(&mut self) {
        self.connection = None;
        self.unconfirmed = None;
    }
}

async fn connect(settings: &Settings) -> Result<TlsStream<TcpStream>, SinkError> {
    let typed = &settings.typed;
    let host = typed.address.rsplit_once(':').map_or(typed.address.as_str(), |(host, _)| host);
    let name = typed.server_name.as_deref().unwrap_or(host.trim_matches(['[', ']']));
    let name = ServerName::try_from(name.to_owned()).map_err(|error| {
        SinkError::new("tls", format!("`{name}` cannot be a certificate's name: {error}"))
    })?;
    let stream = TcpStream::connect(&typed.address)
        .await
        .map_err(|error| SinkError::new("connect", error.to_string()))?;
    // Messages are written many at once; the last ones are not to wait.
    let _ = stream.set_nodelay(true);
    let connector = TlsConnector::from(Arc::clone(&settings.tls));
    connector.connect(name, stream).await.map_err(|error| SinkError::new("tls", error.to_string()))
}

/// Nothing is written where the receiver has ended the connection.
async fn still_open(stream: &mut TlsStream<TcpStream>) -> Result<(), SinkError> {
    let mut buffer = [0; 512];
    tokio::select! {
        biased;
        read = stream.read(&mut buffer) => match read {
            Ok(0) => Err(SinkError::new("closed", "the receiver ended the connection")),
            // No receiver says anything.
            Ok(_) => Ok(()),
            Err(error) => Err(broken(&error)),
        },
        () = std::future::ready(()) => Ok(()),
    }
}

/// Ends the connection, and waits until the receiver has.
async fn end(stream: &mut TlsStream<TcpStream>) -> Result<(), SinkError> {
    stream.shutdown().await.map_err(|error| broken(&error))?;
    let mut buffer = [0; 4096];
    let mut heard = 0;
    while heard <= MAX_LAST_WORDS {
        match stream.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            // Some end the connection without saying so in TLS: rsyslog does. The end of its half is one all the same.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(read) => heard += read,
            Err(error) => return Err(broken(&error)),
        }
    }
    Err(SinkError::new("refused", "the receiver sends, and does not end"))
}

fn broken(error: &std::io::Error) -> SinkError {
    SinkError::new("closed", error.to_string())
}

/// `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID [SD] MSG`.
fn message(settings: &Settings, item: &TapItem) -> Vec<u8> {
    let typed = &settings.typed;
    let priority = u32::from(typed.facility) * 8 + u32::from(alerts::of_item(item).syslog());
    let at_us = match item {
        TapItem::Leaf(leaf) => leaf.at_us,
        TapItem::Missed(missed) => missed.at_us,
    };
    let micros = at_us.rem_euclid(1_000_000);
    let time = jiff::Timestamp::from_microsecond(at_us).map_or_else(
        |_| "-".to_owned(),
        |time| format!("{}.{micros:06}Z", time.strftime("%Y-%m-%dT%H:%M:%S")),
    );
    let mut data = format!("[{} origin=\"{}\" position=\"{}\"", typed.sd_id, item.origin(), item.position());
    data.push_str(&format!(" kind=\"{}\"", quoted(item.kind())));
    match item {
        TapItem::Leaf(leaf) => data.push_str(&format!(" leaf_hash=\"{}\"]", leaf.hash)),
        TapItem::Missed(missed) => {
            data.push_str(&missed.to.map_or_else(|| "]".to_owned(), |to| format!(" to=\"{to}\"]")));
        }
    }
    let (host, name, id) = (&settings.host, &typed.app_name, message_id(item.kind()));
    let mut message = format!("<{priority}>1 {time} {host} {name} - {id} {data} ").into_bytes();
    message.extend_from_slice(&(settings.render)(item));
    message
}

/// `MSGID`: at most 32 visible characters.
fn message_id(kind: &str) -> &str {
    let fits = (1..=32).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_graphic());
    if fits { kind } else { "-" }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use evidence::tap::{Missed, TapLeaf};
    use schemas::Origin;

    use super::*;

    fn settings() -> Settings {
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let typed = TapSyslog {
            address: "siem.example:6514".into(),
            server_name: None,
            tls: crate::config::ClientTls::default(),
            sd_id: "affidavit@32473".into(),
            facility: 13,
            app_name: "affidavit".into(),
            confirm: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
        };
        let render = crate::tap::render(crate::config::TapFormat::Leaf);
        Settings { typed, host: "gw1".into(), tls: Arc::new(tls), render }
    }

    #[test]
    fn a_leaf_is_one_message_with_its_place_in_structured_data() {
        let bytes = Bytes::from_static(br#"{"kind":"refusal","reason":"unauthenticated"}"#);
        let leaf = TapLeaf {
            origin: Origin::new("acme/gw1/e-1").unwrap(),
            position: 12,
            kind: "refusal".into(),
            at_us: 1_795_169_700_000_007,
            hash: schemas::leaf::hash(&bytes),
            bytes,
        };
        let hash = leaf.hash.to_string();
        let text = String::from_utf8(message(&settings(), &TapItem::Leaf(leaf))).unwrap();
        assert_eq!(
            text,
            format!(
                "<108>1 2026-11-20T10:15:00.000007Z gw1 affidavit - refusal [affidavit@32473 origin=\"acme/gw1/e-1\" \
                 position=\"12\" kind=\"refusal\" leaf_hash=\"{hash}\"] {{\"kind\":\"refusal\",\"reason\":\"unauthenticated\"}}"
            )
        );
    }

    #[test]
    fn what_would_end_a_value_is_escaped_and_a_kind_that_is_no_id_is_left_out() {
        assert_eq!(quoted(r#"a"b\c]d"#), r#"a\"b\\c\]d"#);
        assert_eq!(message_id("a b"), "-");
        assert_eq!(message_id(&"x".repeat(33)), "-");
        let missed = Missed { origin: Origin::new("acme/gw1/e-1").unwrap(), from: 3, to: Some(9), at_us: 0 };
        let text = String::from_utf8(message(&settings(), &TapItem::Missed(missed))).unwrap();
        assert!(text.starts_with("<107>1 1970-01-01T00:00:00.000000Z gw1 affidavit - tap_gap ["), "{text}");
        assert!(text.contains("position=\"3\" kind=\"tap_gap\" to=\"9\"] {"), "{text}");
    }
}
