//! HTTP/1.1 on a socket: bounded connections, of each peer too, each with a bounded life.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::peers::Peers;
use super::server::Server;
use crate::render::hostile;

/// Connections at a time; more wait.
const CONNECTIONS: usize = 64;
/// How long a head may take, and a connection may be silent before the next one.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a connection may live: whoever takes in nothing does not hold it for longer.
const LIFE: Duration = Duration::from_secs(300);

/// Says something to whoever started the program.
pub(super) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", hostile::line(text));
}

/// Serves until SIGTERM or SIGINT.
pub(super) async fn listen(server: Arc<Server>, listener: TcpListener) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let peers = Peers::default();
    loop {
        let accepted = tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            accepted = async {
                let permit = Arc::clone(&free).acquire_owned().await;
                (listener.accept().await, permit)
            } => accepted,
        };
        let (stream, peer, permit) = match accepted {
            (Ok((stream, peer)), Ok(permit)) => (stream, peer, permit),
            (Err(error), _) => {
                // Out of descriptors, most likely: others must end first.
                tell(&format!("cannot accept a connection: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            (Ok(_), Err(_)) => return Ok(()),
        };
        let Some(place) = peers.take(peer.ip()) else { continue };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let server = Arc::clone(&server);
                async move { Ok::<_, Infallible>(server.answer(request.into_parts().0).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), service);
            // What a peer does wrong on its connection is its own.
            let _ = timeout(LIFE, connection).await;
            drop((permit, place));
        });
    }
}
