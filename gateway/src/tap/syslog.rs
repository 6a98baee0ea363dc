//! Syslog: RFC 5424 messages over TLS, framed by their octets (RFC 5425).
//!
//! The protocol acknowledges nothing. What does say that a receiver has read everything is the end of a connection: the
//! gateway says that it is done (`close_notify`, and the end of its half), and a receiver that then ends the connection
//! in order has read up to there; one that has not makes its system reset the connection. So the gateway ends its
//! connection every while, counts what went over it as acknowledged where that end was orderly, and sends all of it again
//! where it was not.
//!
//! An end that the receiver sent before the last message came to it looks the same at first: so an end counts only once
//! the receiver's system has acknowledged everything up to the gateway's own end, and has not reset the connection.
//!
//! How far that can be believed: where the receiver answers with `close_notify` of its own, its TLS says that it ends.
//! rsyslog and others end the connection without it, and such an end is TCP's only: who is on the wire, or a balancer in
//! between, can make one (RFC 8446 6.1).

use std::sync::Arc;
use std::time::{Duration, Instant};

use evidence::Stop;
use evidence::tap::{Render, Sink, SinkError, TapItem};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::wait::{self, Progress};
use super::{SEND_BUFFER, alerts};
use crate::config::TapSyslog;

/// At most so many messages are sent again.
const WINDOW: usize = 10_000;
/// How often it is looked whether the receiver's system has acknowledged everything.
const LOOK: Duration = Duration::from_millis(5);
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
        let progress = Progress::begun();
        let work = async {
            let stream = match &mut *connection {
                Some(stream) => stream,
                empty => empty.insert(connect(settings, &progress).await?),
            };
            still_open(stream).await?;
            write(stream, &bytes, &progress).await.map_err(|error| broken(&error))
        };
        wait::run(runtime.as_ref(), settings.typed.timeout, stop, &progress, work)?;
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
        let is_confirmed =
            wait::run(runtime.as_ref(), settings.typed.timeout, stop, &Progress::begun(), work)?;
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

async fn connect(settings: &Settings, progress: &Progress) -> Result<TlsStream<TcpStream>, SinkError> {
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
    // A bound for what the system takes off our hands: what was written is then not far from what was taken.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
    progress.made();
    let connector = TlsConnector::from(Arc::clone(&settings.tls));
    let stream = connector.connect(name, stream).await;
    progress.made();
    stream.map_err(|error| SinkError::new("tls", error.to_string()))
}

async fn write(
    stream: &mut TlsStream<TcpStream>,
    mut bytes: &[u8],
    progress: &Progress,
) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let taken = stream.write(bytes).await?;
        if taken == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        progress.made();
        bytes = bytes.get(taken..).unwrap_or_default();
    }
    stream.flush().await
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

/// Ends the connection, and waits until the receiver has, behind everything that it was sent.
async fn end(stream: &mut TlsStream<TcpStream>) -> Result<(), SinkError> {
    // One that ended before is no answer.
    still_open(stream).await?;
    stream.shutdown().await.map_err(|error| broken(&error))?;
    ended(stream).await
}

/// Waits for the receiver's end, behind our own.
async fn ended(stream: &mut TlsStream<TcpStream>) -> Result<(), SinkError> {
    let mut buffer = [0; 4096];
    let mut heard = 0;
    let mut says_so = false;
    loop {
        // Behind `close_notify` comes the end of the connection itself.
        let read = match says_so {
            false => stream.read(&mut buffer).await,
            true => stream.get_mut().0.read(&mut buffer).await,
        };
        match read {
            Ok(0) if says_so => break,
            Ok(0) => says_so = true,
            // Some end the connection without saying so in TLS: rsyslog does. The end of its half is one all the same.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Ok(read) => heard += read,
            Err(error) => return Err(broken(&error)),
        }
        if heard > MAX_LAST_WORDS {
            return Err(SinkError::new("refused", "the receiver sends, and does not end"));
        }
    }
    acknowledged(stream.get_ref().0).await
}

/// Waits until the receiver's system has acknowledged everything up to our end. Both halves have ended here: Linux holds the
/// connection until that acknowledgement, or a reset, is there, and says then that the socket has no peer (`ENOTCONN`); a
/// reset is left behind as the socket's error.
async fn acknowledged(stream: &TcpStream) -> Result<(), SinkError> {
    loop {
        let is_over = stream.peer_addr().is_err_and(|error| error.kind() == std::io::ErrorKind::NotConnected);
        match stream.take_error() {
            Ok(None) if is_over => return Ok(()),
            Ok(None) => tokio::time::sleep(LOOK).await,
            Ok(Some(error)) | Err(error) => return Err(broken(&error)),
        }
    }
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

    /// What a collector does with its connection, once the handshake is over.
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Ends {
        AtOnce,
        WithoutReading,
        InTheMiddle,
        AfterReading { says_so: bool },
        Never,
    }

    /// A collector of one connection; gives where it listens and how to get in.
    fn collector(ends: Ends) -> (std::net::SocketAddr, ClientConfig, std::thread::JoinHandle<usize>) {
        let provider = || Arc::new(rustls::crypto::ring::default_provider());
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        if ends == Ends::WithoutReading {
            rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 8 << 10).unwrap();
        }
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut socket, _) = listener.accept().unwrap();
            let mut tls = rustls::ServerConnection::new(Arc::new(server)).unwrap();
            while tls.is_handshaking() {
                tls.complete_io(&mut socket).unwrap();
            }
            let (mut read, mut bytes) = (0, [0; 1000]);
            if ends == Ends::WithoutReading {
                std::thread::sleep(Duration::from_millis(300));
                socket.shutdown(std::net::Shutdown::Write).unwrap();
                std::thread::sleep(Duration::from_millis(300));
            }
            let reads = !matches!(ends, Ends::AtOnce | Ends::WithoutReading);
            loop {
                if !reads {
                    break;
                }
                match rustls::Stream::new(&mut tls, &mut socket).read(&mut bytes) {
                    Ok(0) | Err(_) => break,
                    Ok(n) => read += n,
                }
                if ends == Ends::InTheMiddle {
                    return read;
                }
            }
            match ends {
                Ends::Never => std::thread::sleep(Duration::from_secs(3)),
                Ends::AfterReading { says_so: true } => {
                    tls.send_close_notify();
                    tls.complete_io(&mut socket).unwrap();
                    socket.flush().unwrap();
                }
                _ => {}
            }
            read
        });
        (address, client, thread)
    }

    fn to(address: std::net::SocketAddr, tls: ClientConfig) -> Syslog {
        let mut settings = settings();
        settings.typed.address = address.to_string();
        settings.typed.server_name = Some("localhost".into());
        settings.typed.timeout = Duration::from_secs(1);
        settings.tls = Arc::new(tls);
        Syslog::new(settings)
    }

    fn leaves(count: u64) -> Vec<TapItem> {
        let bytes = Bytes::from(format!("{{\"filler\":\"{}\"}}", "x".repeat(20_000)));
        let leaf = |position| TapLeaf {
            origin: Origin::new("acme/gw1/e-1").unwrap(),
            position,
            kind: "refusal".into(),
            at_us: 0,
            hash: schemas::leaf::hash(&bytes),
            bytes: bytes.clone(),
        };
        (0..count).map(|position| TapItem::Leaf(leaf(position))).collect()
    }

    #[test]
    fn a_collector_that_has_read_all_and_ends_acknowledges_whether_it_says_so_in_tls_or_not() {
        for says_so in [true, false] {
            let (address, tls, collector) = collector(Ends::AfterReading { says_so });
            let (mut sink, stop) = (to(address, tls), Stop::default());
            sink.send(&leaves(50), &stop).unwrap();
            assert_eq!(sink.confirm(true, &stop), Ok(true), "{says_so}");
            assert!(collector.join().unwrap() > 50 * 20_000);
        }
    }

    #[test]
    fn a_collector_that_ends_in_the_middle_or_never_acknowledges_nothing() {
        for (ends, wanted) in [(Ends::InTheMiddle, "closed"), (Ends::Never, "timeout")] {
            let (address, tls, collector) = collector(ends);
            let (mut sink, stop) = (to(address, tls), Stop::default());
            // The end may be found at the send already.
            let done = sink.send(&leaves(20), &stop).and_then(|()| sink.confirm(true, &stop));
            assert_eq!(done.unwrap_err().reason, wanted, "{ends:?}");
            collector.join().unwrap();
        }
    }

    #[test]
    fn an_end_that_the_collector_sent_before_everything_had_come_to_it_is_no_acknowledgement() {
        // Its end comes while messages still wait for room at its side; what it has not read is lost with it.
        let (address, tls, collector) = collector(Ends::WithoutReading);
        let (mut sink, stop) = (to(address, tls), Stop::default());
        sink.settings.typed.timeout = Duration::from_secs(3);
        sink.send(&leaves(10), &stop).unwrap();
        assert_eq!(sink.confirm(true, &stop).unwrap_err().reason, "closed");
        collector.join().unwrap();
    }

    #[test]
    fn a_collector_that_ends_at_once_acknowledges_nothing_though_the_message_still_went_out() {
        let (address, tls, collector) = collector(Ends::AtOnce);
        let mut sink = to(address, tls);
        let runtime = sink.runtime.take().unwrap();
        let progress = Progress::begun();
        runtime.block_on(async {
            let mut stream = connect(&sink.settings, &progress).await.unwrap();
            collector.join().unwrap();
            write(&mut stream, b"5 hello", &progress).await.unwrap();
            assert!(end(&mut stream).await.is_err());
        });
    }
}
