//! A piece of network between two parts, which a test can cut.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// How a piece of network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Bytes pass.
    Whole,
    /// Connections break, and new ones are refused.
    Broken,
    /// Connections stay, and nothing passes: what was sent arrives once it is whole again.
    Silent,
}

/// A running piece of network, on a thread of its own. Stops when dropped.
#[derive(Debug)]
pub struct Wire {
    /// Where it begins.
    pub address: SocketAddr,
    state: watch::Sender<Network>,
    _stop: oneshot::Sender<()>,
}

impl Wire {
    /// Lays one from a free port to `upstream`; it is whole.
    ///
    /// # Panics
    /// Where no port or thread is to be had.
    pub fn to(upstream: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let address = listener.local_addr().expect("its address");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let (state, seen) = watch::channel(Network::Whole);
        let (stop, stopped) = oneshot::channel::<()>();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime for the wire").block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = serve(listener, upstream, seen) => {}
                    _ = stopped => {}
                }
            });
        };
        std::thread::Builder::new().name("wire".into()).spawn(work).expect("a thread for the wire");
        Self { address, state, _stop: stop }
    }

    /// From now on it is so.
    pub fn set(&self, network: Network) {
        self.state.send_replace(network);
    }
}

async fn serve(listener: TcpListener, upstream: SocketAddr, state: watch::Receiver<Network>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let mut state = state.clone();
        tokio::spawn(async move {
            let mut broken = state.clone();
            tokio::select! {
                () = carry(stream, upstream, &mut state) => {}
                _ = broken.wait_for(|now| *now == Network::Broken) => {}
            }
        });
    }
}

/// Carries one connection to its end.
async fn carry(stream: TcpStream, upstream: SocketAddr, state: &mut watch::Receiver<Network>) {
    if state.wait_for(|now| *now == Network::Whole).await.is_err() {
        return;
    }
    let Ok(other) = TcpStream::connect(upstream).await else { return };
    let _ = (stream.set_nodelay(true), other.set_nodelay(true));
    let ((from, to), (back, forth)) = (stream.into_split(), other.into_split());
    tokio::join!(pass(from, forth, state.clone()), pass(back, to, state.clone()));
}

async fn pass(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut state: watch::Receiver<Network>,
) {
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        let passes = state.wait_for(|now| *now == Network::Whole).await.is_ok();
        let bytes = buffer.get(..length).unwrap_or_default();
        if length == 0 || !passes || to.write_all(bytes).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
