//! An LLM provider on loopback.
//!
//! What it answers is chosen by the request header `x-replay`:
//!
//! - `<line id>[;split=whole|bytes|recorded|random:<seed>]`: the recorded exchange of that name, its body sent in
//!   the pieces that `split` asks for;
//! - `script:<name>[:<number>]`: a provider that fails on purpose, see [`Script`];
//! - absent: [`api`], small but complete forms of the OpenAI and Anthropic APIs, of Gemini, Vertex AI, Cohere and Ollama;
//!   streams of as many words as a model's name asks for (`words-110`). A prompt with the word `slowly` gets its answer
//!   one piece every [`SLOW`].
//!
//! It remembers every request that it saw, and when; `GET /seen/MARK` tells a caller in another process how often and when a
//! request with that mark came, straight and through a gateway.

pub mod api;
mod embed;
mod further;
mod long;
mod script;

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

pub use script::Script;

use crate::Dice;
use crate::corpus::Line;

/// Whatever body an answer has; an error cuts the connection.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// Between two pieces of an answer that a prompt asks for slowly.
pub const SLOW: Duration = Duration::from_millis(400);

/// One request that the provider saw whole.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When its body was whole.
    pub at: Instant,
    /// Method and path with query.
    pub line: String,
    /// All headers.
    pub headers: http::HeaderMap,
    /// The body as it crossed.
    pub body: Bytes,
}

impl Seen {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
}

/// A running provider. Stops when dropped.
#[derive(Debug)]
pub struct Provider {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    remember_bodies: Arc<std::sync::atomic::AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct State {
    lines: Arc<HashMap<String, Line>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    came: Arc<Mutex<Came>>,
    remember_bodies: Arc<std::sync::atomic::AtomicBool>,
}

/// When requests with each mark came, in milliseconds: those with a caller's own key, and those with the gateway's.
#[derive(Default)]
struct Came {
    /// How many of those seen are in it.
    read: usize,
    times: HashMap<String, [Vec<u128>; 2]>,
}

impl Provider {
    /// Starts on a free loopback port, able to replay `lines`.
    ///
    /// # Panics
    /// Where no port can be had.
    pub async fn start(lines: impl IntoIterator<Item = Line>) -> Self {
        Self::start_on("127.0.0.1:0".parse().expect("a literal"), lines).await
    }

    /// Starts on `address`.
    ///
    /// # Panics
    /// Where the address cannot be had.
    pub async fn start_on(address: SocketAddr, lines: impl IntoIterator<Item = Line>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let remember_bodies = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let state = State {
            lines: Arc::new(lines.into_iter().map(|l| (l.id.clone(), l)).collect()),
            seen: seen.clone(),
            came: Arc::default(),
            remember_bodies: remember_bodies.clone(),
        };
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let _ = stream.set_nodelay(true);
                let state = state.clone();
                connections.spawn(async move {
                    let service = hyper::service::service_fn(move |request| answer(state.clone(), request));
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // A cut on purpose ends here as an error: that is the point.
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, seen, remember_bodies, task }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests that it saw so far.
    ///
    /// # Panics
    /// Where a thread died with the list locked.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no thread died").clone()
    }

    /// Switches the memory of requests off, for benchmarks.
    pub fn forget(&self) {
        self.remember_bodies.store(false, std::sync::atomic::Ordering::Relaxed);
    }
}

async fn answer(state: State, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(plain(400, "the request's body was cut")) };
    let body = body.to_bytes();
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    if let Some(mark) = path.strip_prefix("/seen/") {
        return Ok(tries(&state, mark));
    }
    if state.remember_bodies.load(std::sync::atomic::Ordering::Relaxed) {
        let seen = Seen {
            at: Instant::now(),
            line: format!("{} {path}", head.method),
            headers: head.headers.clone(),
            body: body.clone(),
        };
        if let Ok(mut list) = state.seen.lock() {
            list.push(seen);
        }
    }
    let chosen = head.headers.get("x-replay").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if let Some(script) = chosen.strip_prefix("script:") {
        return Ok(match Script::parse(script) {
            Some(script) => script.answer(&body).await,
            None => plain(400, "unknown script"),
        });
    }
    if chosen.is_empty() {
        let is_slow = body.windows(6).any(|six| six == b"slowly");
        let answer = api::answer(&head, &body).await;
        return Ok(if is_slow { answer.map(slowly) } else { answer });
    }
    let (id, split) = chosen.split_once(";split=").unwrap_or((chosen, "whole"));
    Ok(match state.lines.get(id) {
        Some(line) => replay(line, split),
        None => plain(404, "no such line"),
    })
}

/// The words `mark-...` in a text.
pub fn marks(text: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| !c.is_ascii_alphanumeric() && c != '-';
    text.match_indices("mark-").map(move |(at, _)| text[at..].split(ends).next().unwrap_or_default())
}

/// When requests with `mark` came.
fn tries(state: &State, mark: &str) -> Response<Body> {
    let (Ok(seen), Ok(mut came)) = (state.seen.lock(), state.came.lock()) else {
        return plain(500, "a thread died");
    };
    let Came { read, times } = &mut *came;
    for one in &seen[*read..] {
        let is_gateways =
            one.headers.values().any(|v| v.as_bytes().ends_with(b"sk-provider-secret-0123456789"));
        let body = String::from_utf8_lossy(&one.body);
        for word in marks(&body).collect::<BTreeSet<_>>() {
            let both = times.entry(word.to_owned()).or_default();
            both[usize::from(is_gateways)].push((one.at - seen[0].at).as_millis());
        }
    }
    *read = seen.len();
    let [own, gateways] = times.get(mark).cloned().unwrap_or_default();
    Response::new(full(serde_json::json!({ "provider": own, "gateway": gateways }).to_string()))
}

/// The same body, each piece after a pause.
fn slowly(body: Body) -> Body {
    let pieces = futures_util::stream::unfold(body, |mut body| async move {
        let piece = body.frame().await?;
        pause(SLOW).await;
        Some((piece, body))
    });
    BodyExt::boxed(StreamBody::new(pieces))
}

/// Headers of a recording that describe its own transport, not the answer.
const TRANSPORT: [&str; 6] =
    ["transfer-encoding", "connection", "content-encoding", "content-length", "keep-alive", "alt-svc"];

fn replay(line: &Line, split: &str) -> Response<Body> {
    let mut response = Response::builder().status(line.status);
    for (name, value) in &line.response_headers {
        if !TRANSPORT.contains(&name.as_str()) {
            response = response.header(name, value);
        }
    }
    let body = Bytes::from(line.response());
    let sizes: Vec<usize> = match split {
        "bytes" => vec![1; body.len()],
        "recorded" => line.response_chunk_sizes.clone().unwrap_or_else(|| vec![body.len()]),
        _ => match split.strip_prefix("random:").and_then(|s| s.parse().ok()) {
            Some(seed) => random_sizes(body.len(), seed),
            None => vec![body.len()],
        },
    };
    let body = if line.streaming || sizes.len() > 1 { pieces(body, sizes) } else { full(body) };
    response.body(body).unwrap_or_else(|_| plain(500, "the recorded head is no HTTP"))
}

fn random_sizes(length: usize, seed: u64) -> Vec<usize> {
    let mut dice = Dice::new(seed);
    let mut left = length;
    let mut sizes = Vec::new();
    while left > 0 {
        let size = (dice.below(97) as usize + 1).min(left);
        sizes.push(size);
        left -= size;
    }
    sizes
}

/// A body in pieces of `sizes`, each handed to the connection on its own.
pub fn pieces(body: Bytes, sizes: Vec<usize>) -> Body {
    let mut from = 0;
    let list: Vec<Bytes> = sizes
        .into_iter()
        .map(|size| {
            let to = (from + size).min(body.len());
            let piece = body.slice(from..to);
            from = to;
            piece
        })
        .filter(|piece| !piece.is_empty())
        .collect();
    let stream = futures_util::stream::iter(list).then(|piece| async move {
        tokio::task::yield_now().await;
        Ok(Frame::data(piece))
    });
    BodyExt::boxed(StreamBody::new(stream))
}

/// A body that is there at once.
pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed()
}

/// A plain-text answer.
pub fn plain(status: u16, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    response
}

/// Waits a while; here so that scripts read well.
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
