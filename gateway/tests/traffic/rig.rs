//! A gateway in a folder of its own, and callers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::keys::{FileError, KeyRequest, issue, update};
use gateway::serve::Gateway;
use gateway::{config, output, secrets};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use schemas::Identifier;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::record::{Body, Outcome, Record, Refusal};
use schemas::verify::{BatchInput, verify_batch};
use tokio::net::TcpStream;

use crate::disk::{Gate, GatedDisk};
use crate::provider::Provider;

pub(crate) const CREDENTIAL: &str = "sk-provider-secret-0123456789abcdef";
const SEED: [u8; 32] = [7; 32];
/// Of `promise.key`, which counts where `evidence` names it.
pub(crate) const PROMISE_SEED: [u8; 32] = [33; 32];

/// What a test changes of the usual configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    pub(crate) limits: String,
    pub(crate) route: String,
    pub(crate) provider: String,
    pub(crate) evidence: String,
    pub(crate) policy: Option<String>,
    pub(crate) tls: Option<String>,
    /// Items of `providers` and `routes` behind the usual one, whole lines.
    pub(crate) more_providers: String,
    pub(crate) more_routes: String,
    pub(crate) rest: String,
    pub(crate) dialect: Option<&'static str>,
    pub(crate) base_url: Option<String>,
}

/// The gateway and what belongs to it.
pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    pub(crate) gate: Gate,
    pub(crate) dir: tempfile::TempDir,
}

/// Everything that the store holds about a run.
pub(crate) struct Evidence {
    pub(crate) records: Vec<Record>,
    pub(crate) store: PathBuf,
    pub(crate) _dir: tempfile::TempDir,
}

enum Change {
    File(FileError),
    Key(String),
}
impl From<FileError> for Change {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// Issues a gateway key into `path`.
pub(crate) fn issue_key(path: &Path, consumer: &str) -> String {
    issue_key_of(path, consumer, "quality")
}

/// The same, of another team.
pub(crate) fn issue_key_of(path: &Path, consumer: &str, team: &str) -> String {
    issue_asked(
        path,
        KeyRequest {
            consumer: Some(Identifier::new(consumer).unwrap()),
            team: Some(Identifier::new(team).unwrap()),
            ..KeyRequest::default()
        },
    )
}

/// Issues the gateway key that is asked for into `path`.
pub(crate) fn issue_asked(path: &Path, request: KeyRequest) -> String {
    let issued = update::<_, Change>(path, |keys| {
        issue(keys, request, 1_790_000_000_000_000).map_err(|error| Change::Key(error.to_string()))
    });
    match issued {
        Ok(issued) => issued.key.to_string(),
        Err(Change::File(error)) => panic!("{error}"),
        Err(Change::Key(error)) => panic!("{error}"),
    }
}

impl Rig {
    /// Starts a gateway in front of `provider`.
    pub(crate) async fn start(provider: &Provider, setup: Setup) -> Self {
        Self::start_with(provider, setup, &[]).await
    }

    /// As [`Rig::start`], with more secret files in its folder.
    pub(crate) async fn start_with(provider: &Provider, setup: Setup, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = prepare(dir.path(), provider, &setup);
        for (name, text) in files {
            output::write_new(&dir.path().join(name), text.as_bytes(), 0o600).unwrap();
        }
        let loaded = config::load(&dir.path().join("gateway.yaml")).unwrap_or_else(|problems| {
            panic!("{}", problems.iter().map(|problem| format!("{problem}\n")).collect::<String>())
        });
        let gate = Gate::new();
        let disk = Arc::new(GatedDisk { gate: gate.clone() });
        let gateway = Gateway::start_over(loaded, disk).await.unwrap();
        let address = gateway.addresses()[0];
        Self { gateway, address, key, gate, dir }
    }

    /// Stops the gateway and reads what the store holds, every batch verified.
    pub(crate) async fn stop(self) -> Evidence {
        let Self { gateway, dir, .. } = self;
        gateway.stop(std::future::pending()).await;
        let store = dir.path().join("store");
        Evidence { records: records(&store), store, _dir: dir }
    }

    /// A request with this gateway's key, as the OpenAI SDK sends it.
    pub(crate) fn post(&self, path: &str) -> http::request::Builder {
        Request::post(path)
            .header("host", "gateway")
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
    }

    /// Sends a request on a connection of its own.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        send(self.address, request).await
    }

    /// What `/metrics` says.
    pub(crate) async fn metrics(&self) -> String {
        let request = Request::get("/metrics").header("host", "admin").body(Full::default()).unwrap();
        let (_, _, body) = read(send(self.gateway.admin_address(), request).await).await;
        String::from_utf8_lossy(&body).into_owned()
    }

    /// Sends a chat completion.
    pub(crate) async fn chat(&self, body: &'static str) -> Response<Incoming> {
        self.send(self.post("/openai/v1/chat/completions").body(Full::from(body)).unwrap()).await
    }
}

/// Writes configuration and keys into the folder `path`; gives the gateway key of the consumer `tester`.
pub(crate) fn prepare(path: &Path, provider: &Provider, setup: &Setup) -> String {
    let public = Ed25519Signer::from_seed(SEED).public_key();
    let seal = secrets::seal_key_text(&SEED, &public, "test/gw1");
    output::write_new(&path.join("seal.key"), seal.as_bytes(), 0o600).unwrap();
    let promising = Ed25519Signer::from_seed(PROMISE_SEED).public_key();
    let promise = secrets::seal_key_text(&PROMISE_SEED, &promising, "test/gw1");
    output::write_new(&path.join("promise.key"), promise.as_bytes(), 0o600).unwrap();
    output::write_new(&path.join("provider.key"), CREDENTIAL.as_bytes(), 0o600).unwrap();
    let key = issue_key(&path.join("keys.yaml"), "tester");
    if let Some(policy) = &setup.policy {
        std::fs::write(path.join("policy.yaml"), policy).unwrap();
    }
    std::fs::write(path.join("gateway.yaml"), config_text(provider, setup)).unwrap();
    key
}

fn config_text(provider: &Provider, setup: &Setup) -> String {
    let tls = setup.tls.as_deref().map_or_else(String::new, |tls| format!(", tls: {tls}"));
    let section = |name: &str, text: &str| {
        if text.is_empty() { String::new() } else { format!("{name}: {text}\n") }
    };
    let policy = if setup.policy.is_some() { "policy: policy.yaml\n" } else { "" };
    let base_url = setup.base_url.clone().unwrap_or_else(|| format!("http://{}", provider.address));
    let dialect = setup.dialect.unwrap_or("openai");
    format!(
        "deployment: test\ngateway: gw1\n\
         listen:\n  - {{ address: \"127.0.0.1:0\"{tls} }}\n\
         admin: \"127.0.0.1:0\"\n\
         evidence: {{ journal: journal, spool: spool, key_table: key-table, seal_key: seal.key, out: {{ directory: store }}, batch_age: 1s, segment: 8MiB{} }}\n\
         {}providers:\n  - {{ name: openai, dialect: {dialect}, base_url: \"{base_url}\", credential: {{ file: provider.key }}{} }}\n{}\
         routes:\n  - {{ name: openai, path: /openai, provider: openai{} }}\n{}\
         keys: keys.yaml\n{policy}{}",
        setup.evidence,
        section("limits", &setup.limits),
        setup.provider,
        setup.more_providers,
        setup.route,
        setup.more_routes,
        setup.rest,
    )
}

/// Sends a request on a connection of its own.
pub(crate) async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let response = sender.send_request(request).await.unwrap();
    // The connection lives as long as its sender.
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(sender);
    });
    response
}

/// Reads a body to its end.
pub(crate) async fn read(response: Response<Incoming>) -> (u16, HeaderMap, Bytes) {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, body)
}

/// The next bytes of a body.
pub(crate) async fn next(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    body.frame().await.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()))
}

/// Reads until `wanted` bytes came.
pub(crate) async fn read_bytes(body: &mut Incoming, wanted: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < wanted {
        got.extend_from_slice(&next(body).await.unwrap().unwrap());
    }
    got
}

/// Whether nothing comes for a while.
pub(crate) async fn is_silent(body: &mut Incoming) -> bool {
    tokio::time::timeout(Duration::from_millis(150), body.frame()).await.is_err()
}

/// The records of a store, every batch verified.
pub(crate) fn records(store: &Path) -> Vec<Record> {
    let public = Ed25519Signer::from_seed(SEED).public_key();
    let mut seals = Vec::new();
    find(store, ".seal", &mut seals);
    seals.sort();
    let mut records = Vec::new();
    for path in seals {
        let seal = std::fs::read(&path).unwrap();
        let parsed = schemas::seal::verify(&seal, &public).unwrap();
        let name = &parsed.files.iter().find(|file| file.name.ends_with(".records.parquet")).unwrap().name;
        let file = Bytes::from(std::fs::read(path.with_file_name(name)).unwrap());
        let origin = parsed.origin.clone();
        let verified =
            verify_batch(BatchInput { origin: &origin, key: &public, seal: &seal, records: file }).unwrap();
        for row in verified.rows() {
            records.push(row.decoded().record.clone().unwrap());
        }
    }
    records
}

/// Every file below `folder` whose name ends so.
pub(crate) fn find(folder: &Path, end: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, end, found);
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
}

impl Evidence {
    /// The outcomes, in order.
    pub(crate) fn outcomes(&self) -> Vec<&Outcome> {
        self.records
            .iter()
            .filter_map(|record| if let Body::Outcome(it) = &record.body { Some(it) } else { None })
            .collect()
    }
    /// The refusals, in order.
    pub(crate) fn refusals(&self) -> Vec<&Refusal> {
        self.records
            .iter()
            .filter_map(|record| if let Body::Refusal(it) = &record.body { Some(it) } else { None })
            .collect()
    }
    /// How many records of a kind there are.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.records.iter().filter(|record| record.body.kind() == kind).count()
    }
}
