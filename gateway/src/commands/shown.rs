//! Shows the metrics of a program that serves nothing else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Binds the address and shows the text under `/metrics`, in a task of its own.
pub(super) async fn metrics(
    listen: SocketAddr,
    text: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let text = text.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let found = request.uri().path() == "/metrics";
                    let body = if found { text() } else { String::new() };
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    if !found {
                        *response.status_mut() = StatusCode::NOT_FOUND;
                    }
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .serve_connection(TokioIo::new(stream), service);
                let _ = tokio::time::timeout(PATIENCE, connection).await;
            });
        }
    });
    Ok(())
}
