//! Sinks of the live tap on loopback, that fail as real ones do, and what they took held against the evidence.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};

use crate::oracle::Evidence;

/// A leaf, or a notice, as a sink got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tapped {
    /// Its log.
    pub origin: String,
    /// Its position.
    pub position: u64,
    /// Its kind.
    pub kind: String,
    /// The leaf's hash in hex; empty of a notice.
    pub hash: String,
    /// The value as it came.
    pub value: Vec<u8>,
}

/// What a sink took, in its order.
#[derive(Debug, Default)]
pub struct Book(Mutex<Vec<Tapped>>);

impl Book {
    /// Writes one more down.
    pub fn put(&self, tapped: Tapped) {
        self.0.lock().expect("no receiver died").push(tapped);
    }

    /// All so far.
    pub fn all(&self) -> Vec<Tapped> {
        self.0.lock().expect("no receiver died").clone()
    }

    /// Waits until all leaves of the evidence are there.
    ///
    /// # Panics
    /// Where that takes longer than a minute.
    pub async fn wait_for(&self, what: &str, evidence: &Evidence) {
        let begun = Instant::now();
        loop {
            let all = self.all();
            let found: std::collections::HashSet<_> =
                all.iter().map(|tapped| (tapped.origin.as_str(), tapped.position)).collect();
            let missing: Vec<_> = evidence
                .leaves
                .iter()
                .filter(|leaf| !found.contains(&(leaf.origin.as_str(), leaf.position)))
                .map(|leaf| (leaf.origin.to_string(), leaf.position))
                .collect();
            if missing.is_empty() {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{what}: {} of {} leaves do not come: {:?}",
                missing.len(),
                evidence.leaves.len(),
                &missing[..missing.len().min(5)]
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Holds what came against the evidence: each leaf at least once, in its log's order after dedupe, with its hash and, where
    /// the leaf itself came, byte for byte. Gives how many came, and how many of them again.
    ///
    /// # Panics
    /// Where that is not so.
    pub fn hold_against(&self, what: &str, evidence: &Evidence) -> (usize, usize) {
        let mut first: BTreeMap<String, Vec<Tapped>> = BTreeMap::new();
        let mut seen: HashMap<(String, u64), Tapped> = HashMap::new();
        let all = self.all();
        let mut again = 0;
        for tapped in &all {
            assert_ne!(tapped.kind, "tap_gap", "{what}: {tapped:?}");
            let key = (tapped.origin.clone(), tapped.position);
            match seen.get(&key) {
                Some(before) => {
                    assert_eq!(before.hash, tapped.hash, "{what}: the same position came as another leaf");
                    again += 1;
                }
                None => {
                    seen.insert(key, tapped.clone());
                    first.entry(tapped.origin.clone()).or_default().push(tapped.clone());
                }
            }
        }
        for (origin, tapped) in &first {
            let positions: Vec<u64> = tapped.iter().map(|tapped| tapped.position).collect();
            assert!(
                positions.iter().copied().eq(0..positions.len() as u64),
                "{what}: {origin} did not come in its order: {positions:?}"
            );
        }
        for leaf in &evidence.leaves {
            let key = (leaf.origin.to_string(), leaf.position);
            let tapped = seen.get(&key).unwrap_or_else(|| panic!("{what}: {key:?} never came"));
            assert_eq!(tapped.hash, schemas::leaf::hash(&leaf.leaf).to_string(), "{what}: {key:?}");
            assert!(tapped.value == leaf.leaf, "{what}: {key:?} is another leaf");
        }
        (all.len(), again)
    }
}

/// How a webhook answers one POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// 202.
    Take,
    /// 202, after a while.
    Slow,
    /// 503.
    Fail,
    /// 429 with `Retry-After: 1`.
    Throttle,
    /// Nothing, for longer than anyone waits.
    Hang,
    /// The connection is cut.
    Cut,
    /// 413 to more than this many leaves.
    AtMost(usize),
}

/// One POST.
#[derive(Debug, Clone)]
pub struct Post {
    /// When it came.
    pub at: Instant,
    /// Its headers.
    pub headers: http::HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
    /// How it was answered.
    pub mood: Mood,
}

type Moods = Arc<dyn Fn(u64) -> Mood + Send + Sync>;

/// A webhook.
pub struct WebhookSink {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it took: only what it answered with 2xx.
    pub book: Arc<Book>,
    posts: Arc<Mutex<Vec<Post>>>,
    moods: Arc<Mutex<Moods>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for WebhookSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WebhookSink {
    /// Starts on a free port; `moods` says how the nth POST is answered.
    ///
    /// # Panics
    /// Where no port can be had.
    pub async fn start(moods: impl Fn(u64) -> Mood + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let (book, posts) = (Arc::new(Book::default()), Arc::new(Mutex::new(Vec::new())));
        let moods: Arc<Mutex<Moods>> = Arc::new(Mutex::new(Arc::new(moods)));
        let count = Arc::new(AtomicU64::new(0));
        let (written, seen, chosen) = (Arc::clone(&book), Arc::clone(&posts), Arc::clone(&moods));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (book, posts, moods, count) =
                    (Arc::clone(&written), Arc::clone(&seen), Arc::clone(&chosen), Arc::clone(&count));
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let (book, posts, moods) =
                            (Arc::clone(&book), Arc::clone(&posts), Arc::clone(&moods));
                        let n = count.fetch_add(1, Ordering::Relaxed);
                        let mood = (Arc::clone(&moods.lock().expect("moods")))(n);
                        answer(request, mood, book, posts)
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // A connection that was cut on purpose ends here.
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, book, posts, moods, task }
    }

    /// From now on it answers so.
    ///
    /// # Panics
    /// Never, where no receiver died.
    pub fn set(&self, moods: impl Fn(u64) -> Mood + Send + Sync + 'static) {
        *self.moods.lock().expect("moods") = Arc::new(moods);
    }

    /// All POSTs so far.
    ///
    /// # Panics
    /// Never, where no receiver died.
    pub fn posts(&self) -> Vec<Post> {
        self.posts.lock().expect("posts").clone()
    }
}

async fn answer(
    request: http::Request<hyper::body::Incoming>,
    mood: Mood,
    book: Arc<Book>,
    posts: Arc<Mutex<Vec<Post>>>,
) -> Result<http::Response<Full<bytes::Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes().to_vec();
    posts.lock().expect("posts").push(Post {
        at: Instant::now(),
        headers: head.headers,
        body: body.clone(),
        mood,
    });
    let status = |status: u16| {
        http::Response::builder().status(status).header("retry-after", "1").body(Full::default())
    };
    let leaves = leaves(&body);
    let status = match mood {
        Mood::Take => status(202),
        Mood::Slow => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            status(202)
        }
        Mood::Fail => http::Response::builder().status(503).body(Full::default()),
        Mood::Throttle => status(429),
        Mood::Hang => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            status(202)
        }
        Mood::Cut => return Err(std::io::Error::other("cut")),
        Mood::AtMost(most) => status(if leaves.len() > most { 413 } else { 202 }),
    };
    let response = status.map_err(std::io::Error::other)?;
    if response.status().is_success() {
        leaves.into_iter().for_each(|leaf| book.put(leaf));
    }
    Ok(response)
}

/// The leaves of a body of lines or an array; of an event those that it holds.
fn leaves(body: &[u8]) -> Vec<Tapped> {
    let text = String::from_utf8_lossy(body).into_owned();
    let objects: Vec<String> = match text.starts_with('[') {
        true => {
            let list: Vec<Value> = serde_json::from_str(&text).expect("a JSON array");
            list.iter().map(Value::to_string).collect()
        }
        false => text.lines().map(str::to_owned).collect(),
    };
    objects.iter().map(|object| of_object(object)).collect()
}

fn of_object(text: &str) -> Tapped {
    let value: Value = serde_json::from_str(text).expect("a JSON object");
    if let Some(place) = value.pointer("/unmapped/affidavit") {
        return tapped(place, text.as_bytes().to_vec());
    }
    // The leaf stands verbatim behind the last key.
    let leaf = match (value.get("leaf"), text.split_once("\"leaf\":")) {
        (Some(_), Some((_, leaf))) => leaf.strip_suffix('}').unwrap_or_default().as_bytes().to_vec(),
        _ => text.as_bytes().to_vec(),
    };
    tapped(&value, leaf)
}

fn tapped(place: &Value, value: Vec<u8>) -> Tapped {
    let text = |key: &str| place.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let position = place.get("position").or_else(|| place.get("from")).and_then(Value::as_u64);
    Tapped {
        origin: text("origin"),
        position: position.expect("a position"),
        kind: text("kind"),
        hash: text("leaf_hash"),
        value,
    }
}

/// Certificates of a test: one authority, a server `localhost`, a client.
#[derive(Debug)]
pub struct Certificates {
    /// PEM of the authority.
    pub ca: String,
    /// PEM of the server's certificate and key.
    pub server: (String, String),
    /// PEM of the client's certificate and key.
    pub client: (String, String),
    der: (CertificateDer<'static>, Vec<u8>, CertificateDer<'static>),
}

impl Certificates {
    /// Makes them.
    ///
    /// # Panics
    /// Where no key can be made.
    pub fn new() -> Self {
        let ca_key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "tap test authority");
        let ca = params.self_signed(&ca_key).expect("a certificate");
        let issuer = rcgen::Issuer::new(params, ca_key);
        let sign = |name: &str| {
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            (params.signed_by(&key, &issuer).expect("a certificate"), key)
        };
        let ((server, server_key), (client, client_key)) = (sign("localhost"), sign("gw1"));
        Self {
            ca: ca.pem(),
            server: (server.pem(), server_key.serialize_pem()),
            client: (client.pem(), client_key.serialize_pem()),
            der: (server.der().clone(), server_key.serialize_der(), ca.der().clone()),
        }
    }

    /// Writes them into a folder: `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn write(&self, dir: &std::path::Path) {
        for (name, text) in [
            ("ca.pem", &self.ca),
            ("server.pem", &self.server.0),
            ("server.key", &self.server.1),
            ("client.pem", &self.client.0),
            ("client.key", &self.client.1),
        ] {
            let path = dir.join(name);
            std::fs::write(&path, text).expect("a PEM file");
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .expect("its mode");
        }
    }

    /// A server that asks for a client certificate.
    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.der.2.clone()).expect("a root");
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .expect("a verifier");
        let key = PrivateKeyDer::try_from(self.der.1.clone()).expect("a key");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![self.der.0.clone()], key)
            .expect("a certificate and its key");
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

/// A syslog receiver over TLS.
pub struct SyslogSink {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it read.
    pub book: Arc<Book>,
    /// Connections that it broke.
    pub broken: Arc<AtomicU64>,
    /// A connection is broken after so many messages; 0: none is.
    pub breaks_after: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for SyslogSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SyslogSink {
    /// Starts on a free port.
    ///
    /// # Panics
    /// Where no port can be had.
    pub async fn start(certificates: &Certificates) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let acceptor = certificates.acceptor();
        let book = Arc::new(Book::default());
        let (broken, breaks_after) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (written, counted, bound) = (Arc::clone(&book), Arc::clone(&broken), Arc::clone(&breaks_after));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (acceptor, book) = (acceptor.clone(), Arc::clone(&written));
                let (broken, bound) = (Arc::clone(&counted), Arc::clone(&bound));
                tokio::spawn(async move { receive(&acceptor, stream, &book, &broken, &bound).await });
            }
        });
        Self { address, book, broken, breaks_after, task }
    }
}

async fn receive(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    book: &Book,
    broken: &AtomicU64,
    bound: &AtomicU64,
) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let (mut buffer, mut chunk, mut count) = (Vec::new(), vec![0; 4096], 0_u64);
    loop {
        while let Some((message, rest)) = frame(&buffer) {
            book.put(parse(&message));
            buffer = rest;
            count += 1;
            let bound = bound.load(Ordering::Relaxed);
            if bound > 0 && count >= bound {
                broken.fetch_add(1, Ordering::Relaxed);
                // Gone, with all that was sent and not read.
                let _ = stream.get_ref().0.set_zero_linger();
                return;
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) => {
                // RFC 5425 4.4: the end is answered.
                let _ = stream.shutdown().await;
                return;
            }
            Ok(read) => buffer.extend_from_slice(&chunk[..read]),
            Err(_) => return,
        }
    }
}

/// RFC 5425 4.3: `MSG-LEN SP SYSLOG-MSG`.
fn frame(buffer: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let space = buffer.iter().position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&buffer[..space]).expect("digits").parse().expect("a length");
    let end = space + 1 + length;
    (buffer.len() >= end).then(|| (buffer[space + 1..end].to_vec(), buffer[end..].to_vec()))
}

/// Reads a message strictly, as RFC 5424 6 has it.
///
/// # Panics
/// Where it is none.
pub fn parse(message: &[u8]) -> Tapped {
    let text = std::str::from_utf8(message).expect("UTF-8");
    let bad = || -> ! { panic!("no RFC 5424 message: {text}") };
    let rest = text.strip_prefix('<').unwrap_or_else(|| bad());
    let (priority, rest) = rest.split_once(">1 ").unwrap_or_else(|| bad());
    assert!(priority.parse::<u8>().is_ok_and(|n| n <= 191 && n / 8 == 13), "{text}");
    let mut parts = rest.splitn(6, ' ');
    let mut next = || parts.next().unwrap_or_else(|| bad());
    let (time, host, name, process, id, rest) = (next(), next(), next(), next(), next(), next());
    assert!(time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(), "{text}");
    assert_eq!((host, name, process), ("gw1", "affidavit", "-"), "{text}");
    let data = rest.strip_prefix("[affidavit@32473 ").unwrap_or_else(|| bad());
    let (data, message) = data.split_once("] ").unwrap_or_else(|| bad());
    let fields: HashMap<&str, &str> = data
        .split(' ')
        .map(|field| {
            let (key, value) = field.split_once('=').unwrap_or_else(|| bad());
            (key, value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or_else(|| bad()))
        })
        .collect();
    assert_eq!(fields["kind"], id, "{text}");
    Tapped {
        origin: fields["origin"].to_owned(),
        position: fields["position"].parse().expect("a position"),
        kind: id.to_owned(),
        hash: fields.get("leaf_hash").copied().unwrap_or_default().to_owned(),
        value: message.as_bytes().to_vec(),
    }
}
