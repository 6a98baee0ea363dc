//! One address where callers connect.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::accept::io::Watched;
use crate::accept::pace::{Executor, Pace, Paced, Streams};
use crate::app::App;
use crate::config::Limits;
use crate::exchange;
use crate::identity::Presented;

/// The start of every HTTP/2 connection (RFC 9113 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An address that is bound and not yet served.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: TcpListener,
    index: usize,
}

impl Bound {
    /// Binds `address`, the `index`th of the configuration.
    ///
    /// # Errors
    /// The system's.
    pub(crate) async fn bind(address: SocketAddr, index: usize) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, index })
    }

    /// Over a socket that is bound already, for the `index`th address of the configuration.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn over(listener: std::net::TcpListener, index: usize) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::from_std(listener)?, index })
    }

    /// A further handle of the socket.
    pub(crate) fn handle(&self) -> std::io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// The bound address, with the port that the system chose.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// How connections end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ends {
    /// Cancelled: another gateway takes new connections. Those that there are serve on, and each answer tells its caller
    /// to come back on a new one: closing an unused one could cross a request that is under way.
    pub(crate) leave: CancellationToken,
    /// Cancelled: no new connections, and those that there are finish what they do.
    pub(crate) stop: CancellationToken,
    /// Cancelled: those that there still are go at once.
    pub(crate) cut: CancellationToken,
}

/// Accepts connections until told to stop.
pub(crate) struct Listener {
    bound: Bound,
    app: Arc<App>,
    places: Arc<Semaphore>,
    ends: Ends,
}

impl Listener {
    pub(crate) fn new(bound: Bound, app: Arc<App>, places: Arc<Semaphore>, ends: Ends) -> Self {
        Self { bound, app, places, ends }
    }

    /// Accepts until `leave` or `stop`. Each connection is a task of the app's tracker.
    pub(crate) async fn run(self) {
        loop {
            let place = tokio::select! {
                () = self.ends.stop.cancelled() => return,
                () = self.ends.leave.cancelled() => return,
                place = Arc::clone(&self.places).acquire_owned() => place,
            };
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                () = self.ends.stop.cancelled() => return,
                () = self.ends.leave.cancelled() => return,
                accepted = self.bound.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, or the peer was gone already: the listener itself lives on.
                    self.app.telemetry.failed("accept");
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let connection =
                Connection { app: Arc::clone(&self.app), index: self.bound.index, ends: self.ends.clone() };
            self.app.connections.spawn(async move {
                connection.app.telemetry.connections.inc();
                let app = Arc::clone(&connection.app);
                connection.run(stream).await;
                app.telemetry.connections.dec();
                drop(place);
            });
        }
    }
}

/// The longest head that is read; hyper takes no smaller bound than 8 KiB.
fn most_head(limits: &Limits) -> usize {
    usize::try_from(limits.head).unwrap_or(usize::MAX).max(8192)
}

struct Connection {
    app: Arc<App>,
    index: usize,
    ends: Ends,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        // A connection may outlive many configurations: it holds none of them.
        let (tls, roots, patience) = {
            let snapshot = self.app.snapshot.load();
            let tls = snapshot.tls.get(self.index).cloned().flatten();
            (tls, snapshot.identities.roots(self.index), snapshot.limits.header_read)
        };
        let Some(tls) = tls else {
            match tokio::time::timeout(patience, is_http2(&stream)).await {
                Ok(Ok(http2)) => self.serve(stream, http2, None).await,
                Ok(Err(_)) => {}
                Err(_) => self.app.telemetry.failed("head_timeout"),
            }
            return;
        };
        let handshake = tokio_rustls::TlsAcceptor::from(tls).accept(stream);
        match tokio::time::timeout(patience, handshake).await {
            Ok(Ok(stream)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let certificate =
                    certificate.and_then(|der| Presented::read(der, self.index, roots)).map(Arc::new);
                self.serve(stream, http2, certificate).await;
            }
            Ok(Err(error)) => {
                self.app.telemetry.failed("tls_handshake");
                tracing::debug!(%error, "TLS handshake failed");
            }
            Err(_) => self.app.telemetry.failed("tls_timeout"),
        }
    }

    /// Each protocol's state is allocated apart: a connection holds no room for the other's.
    async fn serve<S>(self, stream: S, http2: bool, certificate: Option<Arc<Presented>>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = self.app.snapshot.load().limits.clone();
        let io = TokioIo::new(Watched::new(stream, limits.idle));
        let served = if http2 {
            Box::pin(self.serve_http2(io, &limits, certificate)).await
        } else {
            Box::pin(self.serve_http1(io, &limits, certificate)).await
        };
        let Err(error) = served else { return };
        let reason = if error.is_parse_too_large() {
            "head_too_large"
        } else if error.is_parse() {
            "malformed_http"
        } else {
            // An idle connection that was kept long enough, a head that did not come, or a caller that went away: its
            // exchanges say so themselves.
            return;
        };
        self.app.telemetry.failed(reason);
        tracing::debug!(%error, reason, "connection failed");
    }

    async fn serve_http1<I>(
        &self,
        io: I,
        limits: &Limits,
        certificate: Option<Arc<Presented>>,
    ) -> hyper::Result<()>
    where
        I: Read + Write + Unpin + Send + 'static,
    {
        let app = Arc::clone(&self.app);
        let begun = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&begun);
        let leave = self.ends.leave.clone();
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(Arc::clone(certificate));
            }
            seen.store(true, Ordering::Relaxed);
            // Freed once the answer has begun: an open stream does not hold it.
            let answer = Box::pin(exchange::exchange(Arc::clone(&app), request));
            let leave = leave.clone();
            async move {
                let mut response = answer.await;
                if leave.is_cancelled() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let mut builder = http1::Builder::new();
        // hyper's bound on a head also runs while a kept connection is idle: the first head has its own, in `drive`.
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.keep_alive.max(limits.header_read))
            .max_header_size(most_head(limits))
            .max_buf_size(most_head(limits).max(256 << 10));
        self.drive(builder.serve_connection(io, service), limits, &begun, None).await
    }

    async fn serve_http2<I>(
        &self,
        io: I,
        limits: &Limits,
        certificate: Option<Arc<Presented>>,
    ) -> hyper::Result<()>
    where
        I: Read + Write + Unpin + Send + 'static,
    {
        let app = Arc::clone(&self.app);
        let begun = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&begun);
        let streams = Arc::new(Streams::default());
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(Arc::clone(certificate));
            }
            seen.store(true, Ordering::Relaxed);
            let answer = Box::pin(exchange::exchange(Arc::clone(&app), request));
            async move {
                let response = answer.await;
                let pace = Pace::current().unwrap_or_default();
                Ok::<_, std::convert::Infallible>(response.map(|body| Paced::new(body, pace)))
            }
        });
        let mut builder = http2::Builder::new(Executor::new(limits.idle, Arc::clone(&streams)));
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(most_head(limits)).unwrap_or(u32::MAX))
            .max_concurrent_streams(limits.http2_streams)
            .max_send_buf_size(64 << 10)
            .keep_alive_interval(limits.keep_alive)
            .keep_alive_timeout(limits.header_read);
        self.drive(builder.serve_connection(io, service), limits, &begun, Some(&streams)).await
    }

    async fn drive<C>(
        &self,
        connection: C,
        limits: &Limits,
        begun: &AtomicBool,
        streams: Option<&Streams>,
    ) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>> + Graceful,
    {
        let mut connection = pin!(connection);
        let mut first_head = pin!(tokio::time::sleep(limits.header_read));
        let mut unused = pin!(unused(streams, limits.keep_alive));
        let mut leaving = false;
        let mut waiting = true;
        // HTTP/2 says how far it goes, and takes what crosses that (GOAWAY); HTTP/1 says it with the next answer.
        let goes_away = streams.is_some();
        let mut going = false;
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return ended,
                () = self.ends.cut.cancelled() => return Ok(()),
                () = self.ends.leave.cancelled(), if goes_away && !going => {
                    going = true;
                    connection.as_mut().finish();
                }
                () = self.ends.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().finish();
                }
                () = unused.as_mut() => {
                    if leaving {
                        // What the caller did not take of streams that ended goes with the connection.
                        return Ok(());
                    }
                    leaving = true;
                    connection.as_mut().finish();
                    unused.set(self::unused(streams, limits.idle));
                }
                () = first_head.as_mut(), if waiting => {
                    waiting = false;
                    if !begun.load(Ordering::Relaxed) {
                        self.app.telemetry.failed("head_timeout");
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Ends when no stream of an HTTP/2 connection ran for `bound`: a PING that is answered keeps a connection alive, it
/// does not use it. Without `streams` (HTTP/1, which has a timer of its own) never.
async fn unused(streams: Option<&Streams>, bound: Duration) {
    let Some(streams) = streams else { return std::future::pending().await };
    let mut before = streams.count();
    loop {
        tokio::time::sleep(bound).await;
        let now = streams.count();
        if now == before && now.0 == 0 {
            return;
        }
        before = now;
    }
}

/// A connection that can be told to finish what it does and take nothing new.
trait Graceful {
    fn finish(self: Pin<&mut Self>);
}

impl<I, S, B> Graceful for http1::Connection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, B, E> Graceful for http2::Connection<I, S, E>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Whether the first bytes of a plain connection are HTTP/2's preface. Takes nothing off the stream.
async fn is_http2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut start).await?;
        let Some(bytes) = start.get(..seen) else { return Ok(false) };
        if seen == PREFACE.len() && bytes == PREFACE {
            return Ok(true);
        }
        if seen == 0 || !PREFACE.starts_with(bytes) {
            return Ok(false);
        }
        // A part of the preface, or of a method that begins like it: look again when there may be more.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn sniffed(pieces: &[&[u8]]) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let (result, ()) = tokio::join!(is_http2(&far), async {
            for piece in pieces {
                near.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            near.shutdown().await.unwrap();
        });
        result.unwrap()
    }

    #[tokio::test]
    async fn the_preface_is_known_in_pieces_and_a_post_is_not_taken_for_it() {
        assert!(sniffed(&[PREFACE]).await);
        assert!(sniffed(&[b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n\r\n"]).await);
        assert!(!sniffed(&[b"P", b"OST / HTTP/1.1\r\n\r\n"]).await);
        assert!(!sniffed(&[b""]).await);
    }
}
