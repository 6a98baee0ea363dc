//! A provider in this process: it remembers what it saw, and answers as it is told.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A request as the provider saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) version: http::Version,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A body that a test sends piece by piece.
pub(crate) struct Pieces(mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>);

/// The other end of [`Pieces`]. Dropped: the body ends.
#[derive(Clone)]
pub(crate) struct Sender(mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>);

impl Sender {
    pub(crate) async fn send(&self, piece: impl Into<Bytes>) {
        // A gateway that went away is what some tests are about.
        let _ = self.0.send(Ok(Frame::data(piece.into()))).await;
    }
    /// Ends the body with trailers.
    pub(crate) async fn trailers(&self, trailers: HeaderMap) {
        let _ = self.0.send(Ok(Frame::trailers(trailers))).await;
    }
    /// Cuts the body.
    pub(crate) async fn cut(&self) {
        let _ = self.0.send(Err(std::io::Error::other("cut"))).await;
    }
    /// Waits until the gateway has let go of the body.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

/// A body, and who sends it.
pub(crate) fn pieces() -> (Sender, Pieces) {
    let (sender, receiver) = mpsc::channel(64);
    (Sender(sender), Pieces(receiver))
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(cx)
    }
}

type Answer = Pin<Box<dyn Future<Output = Response<Pieces>> + Send>>;
type Handler = Arc<dyn Fn(Seen) -> Answer + Send + Sync>;

/// The provider.
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Provider {
    /// Answers every request by `answer`.
    pub(crate) async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Pieces>> + Send + 'static,
    {
        Self::start_over(None, answer).await
    }

    /// As [`Provider::start`], over TLS.
    pub(crate) async fn start_over<F, A>(tls: Option<Arc<rustls::ServerConfig>>, answer: F) -> Self
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Pieces>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |seen| Box::pin(answer(seen)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let all = Arc::clone(&seen);
        let connections: Arc<AtomicUsize> = Arc::default();
        let accepted = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::Relaxed);
                let tls = tls.clone();
                let (handler, all) = (Arc::clone(&handler), Arc::clone(&all));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (handler, all) = (Arc::clone(&handler), Arc::clone(&all));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let seen = Seen {
                            version: head.version,
                            method: head.method,
                            uri: head.uri,
                            headers: head.headers,
                            body,
                        };
                        all.lock().unwrap().push(seen.clone());
                        Ok::<_, hyper::Error>(handler(seen).await)
                    }
                });
                tokio::spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let Some(tls) = tls else {
                        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                        return;
                    };
                    // A gateway that does not trust this provider ends the handshake.
                    if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                    }
                });
            }
        });
        Self { address, seen, connections }
    }

    /// How many connections it accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// What it saw so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for the `n`th request.
    pub(crate) async fn wait(&self, n: usize) -> Seen {
        for _ in 0..1000 {
            if let Some(seen) = self.seen().get(n - 1) {
                return seen.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the provider saw no request {n}");
    }
}

/// A whole answer of known length.
pub(crate) fn whole(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Pieces> {
    let body = body.into();
    let (sender, pieces) = pieces();
    let length = body.len();
    sender.0.try_send(Ok(Frame::data(body))).unwrap();
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .header("content-length", length)
        .header("x-request-id", "req_test_1")
        .body(pieces)
        .unwrap()
}

/// A stream of events that the test sends.
pub(crate) fn events() -> (Sender, Response<Pieces>) {
    let (sender, pieces) = pieces();
    let response =
        Response::builder().header("content-type", "text/event-stream; charset=utf-8").body(pieces).unwrap();
    (sender, response)
}

pub(crate) const COMPLETION: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4.1-mini-2025-04-14","choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}"#;

/// One event of a chat stream.
pub(crate) fn delta(text: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-2\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4.1-mini\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
    )
}

pub(crate) const DONE: &str = "data: [DONE]\n\n";
