//! The witness over HTTP/1. TLS, where it is wanted, is a proxy's before it: a cosignature proves itself.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use schemas::tlog::MAX_SUBMISSION_BYTES;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Answer, Witness};
use crate::render::hostile;

/// Connections at a time; more wait.
const CONNECTIONS: usize = 256;
/// How long a head, and then a body, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may live.
const LIFE: Duration = Duration::from_secs(600);

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", hostile::line(text));
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(witness: Arc<Witness>, listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tell(&format!("listening on {}", listener.local_addr()?));
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            accepted = async {
                let permit = Arc::clone(&free).acquire_owned().await;
                (listener.accept().await, permit)
            } => accepted,
        };
        let ((stream, _), Ok(permit)) = (match accepted {
            (Ok(accepted), permit) => (accepted, permit),
            (Err(error), _) => {
                // Out of descriptors, most likely: others must end first.
                tell(&format!("cannot accept a connection: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        }) else {
            return Ok(());
        };
        let witness = Arc::clone(&witness);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&witness), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), service);
            // What a peer does wrong on its connection is its own.
            let _ = timeout(LIFE, connection).await;
            drop(permit);
        });
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn plain(status: StatusCode, body: impl Into<String>) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body.into())
}

async fn answer(
    witness: Arc<Witness>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match (request.method(), path.as_str()) {
        (&Method::POST, "/add-checkpoint") => {
            let body = Limited::new(request.into_body(), MAX_SUBMISSION_BYTES);
            match timeout(PATIENCE, body.collect()).await {
                Ok(Ok(body)) => add_checkpoint(witness, body.to_bytes()).await,
                Ok(Err(_)) => {
                    plain(StatusCode::BAD_REQUEST, format!("wanted at most {MAX_SUBMISSION_BYTES} bytes\n"))
                }
                Err(_) => plain(StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
            }
        }
        (_, "/add-checkpoint") => plain(StatusCode::METHOD_NOT_ALLOWED, "wanted POST\n"),
        (&Method::GET, path) => {
            let latest = path.strip_prefix("/checkpoint/").and_then(|origin| witness.latest(origin, now_s()));
            match latest {
                Some(note) => plain(StatusCode::OK, note),
                None => plain(StatusCode::NOT_FOUND, "nothing was cosigned under this name\n"),
            }
        }
        _ => plain(StatusCode::NOT_FOUND, "wanted POST /add-checkpoint\n"),
    })
}

async fn add_checkpoint(witness: Arc<Witness>, body: Bytes) -> Response<Full<Bytes>> {
    // It waits for the disk.
    let answered = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body, now_s())).await;
    match answered {
        Ok(Answer::Cosigned(line)) => plain(StatusCode::OK, line),
        Ok(Answer::OtherSize(size)) => {
            response(StatusCode::CONFLICT, "text/x.tlog.size", format!("{size}\n"))
        }
        Ok(Answer::Refused(status, why)) => {
            tell(&format!("refused with {status}: {why}"));
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            plain(status, format!("{why}\n"))
        }
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be judged\n"),
    }
}
