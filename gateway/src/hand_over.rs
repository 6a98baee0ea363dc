//! Hand-over without a pause: the gateway that serves gives its listening sockets to the one that takes its place.
//!
//! ```text
//! new                                       old
//!   {"hand_over":{}}                  ->
//!                                     <-    {"sockets":["listen 127.0.0.1:8080", ..]} and the sockets (SCM_RIGHTS)
//!   opens its epoch, takes traffic
//!   {"serving":{"origin":".."}}       ->    accepts no more, lets its connections end, closes its log
//! ```
//! Over the admin socket. Both hold the same sockets, so a connection that the system has queued is taken by one of them
//! whatever happens in between: none is refused and none is lost. Where the new one dies before it serves, the old one
//! goes on as if nothing had been. One takes over at a time: any other is refused meanwhile.

use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use schemas::Origin;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::sync::{Notify, watch};

use crate::admin::socket::{Request, Response, connect};

/// The most sockets that are handed over.
const MAX_SOCKETS: usize = 64;
/// The longest answer.
const LINE_BYTES: usize = 16 << 10;
/// How long the old gateway may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// What stands beside the sockets, in their order.
#[derive(Debug, Serialize, Deserialize)]
struct Names {
    sockets: Vec<String>,
}

/// What the new gateway says last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Word {
    Serving { origin: Origin },
}

/// A listening socket, by what the configuration calls it: `listen 127.0.0.1:8080`, `admin 127.0.0.1:9090`.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) socket: OwnedFd,
}

/// Who takes the place.
#[derive(Debug)]
struct Taker {
    /// Its process, where it is one of this machine's.
    process: Option<i32>,
    since: Instant,
}

/// The old gateway's side: what it would hand over, and to whom it did.
#[derive(Debug)]
pub(crate) struct Handing {
    /// `None` once the gateway ends: nobody may hold a socket that nobody serves.
    sockets: Mutex<Option<Vec<Named>>>,
    taker: Mutex<Option<Taker>>,
    successor: watch::Sender<Option<Origin>>,
    failed: Notify,
}

/// The right to take the place, held by one at a time. Dropped: it did not come to it.
struct Turn<'a> {
    handing: &'a Handing,
    taken: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.taken {
            self.handing.taker.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.handing.failed.notify_one();
        }
    }
}

impl Handing {
    pub(crate) fn new(sockets: Vec<Named>) -> Self {
        Self {
            sockets: Mutex::new(Some(sockets)),
            taker: Mutex::new(None),
            successor: watch::Sender::new(None),
            failed: Notify::new(),
        }
    }

    /// Lets go of the sockets.
    pub(crate) fn end(&self) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Waits until another gateway serves in this one's place; gives its log.
    pub(crate) async fn handed(&self) -> Origin {
        let mut told = self.successor.subscribe();
        loop {
            if let Some(origin) = told.borrow_and_update().clone() {
                return origin;
            }
            if told.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until one that wanted to take the place is gone without having served.
    pub(crate) async fn failed(&self) {
        self.failed.notified().await;
    }

    /// Gives the sockets to the gateway at the other end, and waits until it serves, or is gone.
    ///
    /// # Errors
    /// It was refused, or is gone: this one goes on.
    pub(crate) async fn give(&self, mut stream: tokio::net::UnixStream) -> io::Result<()> {
        let process = stream.peer_cred()?.pid();
        let (mut turn, held) = match self.turn(process) {
            Ok(turn) => turn,
            Err(why) => {
                let mut line = serde_json::to_vec(&Response::refused(&why))?;
                line.push(b'\n');
                stream.write_all(&line).await?;
                return Err(io::Error::other(format!("refused: {why}")));
            }
        };
        let names = Names { sockets: held.iter().map(|one| one.name.clone()).collect() };
        let mut line = serde_json::to_vec(&names)?;
        line.push(b'\n');
        stream.async_io(Interest::WRITABLE, || send(&stream, &line, &held)).await?;
        drop(held);
        tracing::info!(
            sockets = names.sockets.len(),
            process,
            "another gateway asks to take this one's place"
        );
        let mut line = String::new();
        // It may have journals to recover: as long as it lives it may come to serve, and then there must not be two.
        let mut reader = tokio::io::BufReader::new(stream).take(LINE_BYTES as u64);
        let read = reader.read_line(&mut line).await?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it ended before it served; this one goes on",
            ));
        }
        let Word::Serving { origin } = serde_json::from_str(&line)?;
        tracing::info!(%origin, "another gateway serves in this one's place");
        turn.taken = true;
        self.successor.send_replace(Some(origin));
        Ok(())
    }

    /// The turn of `process`, and the sockets.
    fn turn(&self, process: Option<i32>) -> Result<(Turn<'_>, Vec<Named>), String> {
        let mut taker = self.taker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = &*taker {
            let who =
                other.process.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            let seconds = other.since.elapsed().as_secs();
            return Err(format!("{who} is taking this gateway's place, for {seconds} s now; one at a time"));
        }
        let held = self.copies().map_err(|error| error.to_string())?;
        *taker = Some(Taker { process, since: Instant::now() });
        drop(taker);
        Ok((Turn { handing: self, taken: false }, held))
    }

    fn copies(&self) -> io::Result<Vec<Named>> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let sockets = sockets.as_ref().ok_or_else(|| io::Error::other("this gateway ends"))?;
        let copy = |one: &Named| Ok(Named { name: one.name.clone(), socket: one.socket.try_clone()? });
        sockets.iter().map(copy).collect()
    }
}

fn send(stream: &tokio::net::UnixStream, line: &[u8], held: &[Named]) -> io::Result<()> {
    if held.len() > MAX_SOCKETS || line.len() > LINE_BYTES {
        return Err(io::Error::other(format!("more than {MAX_SOCKETS} sockets cannot be handed over")));
    }
    let sockets: Vec<BorrowedFd<'_>> = held.iter().map(|one| one.socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other("the sockets do not fit into one message"));
    }
    // Names and sockets of one message are short enough to go whole or not at all.
    let sent = sendmsg(stream, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// The new gateway's side: the old one's sockets, and the way to tell it that it may go.
#[derive(Debug)]
pub(crate) struct TakeOver {
    stream: UnixStream,
    sockets: Vec<Named>,
}

impl TakeOver {
    /// Asks the gateway that serves at the admin socket `path`; `None` where none does. Blocks.
    ///
    /// # Errors
    /// It does not answer, or not with sockets.
    pub(crate) fn ask(path: &Path) -> io::Result<Option<Self>> {
        let mut stream = match connect(path) {
            Ok(stream) => stream,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        let mut line = serde_json::to_vec(&Request::HandOver {})?;
        line.push(b'\n');
        Write::write_all(&mut stream, &line)?;
        let (answer, sockets) = receive(&stream).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s: it may be starting itself", ANSWER_WAIT.as_secs()),
            ),
            _ => error,
        })?;
        let names = match serde_json::from_slice::<Names>(&answer) {
            Ok(names) => names,
            Err(_) => {
                let said = match serde_json::from_slice(&answer) {
                    Ok(Response::Refused { message, .. }) => message,
                    _ => String::from_utf8_lossy(&answer).trim().to_owned(),
                };
                return Err(io::Error::other(format!("it refuses: {said}")));
            }
        };
        if names.sockets.len() != sockets.len() {
            let found = format!("{} sockets came, {} are named", sockets.len(), names.sockets.len());
            return Err(io::Error::other(found));
        }
        let pair = |(name, socket)| Named { name, socket };
        Ok(Some(Self { stream, sockets: names.sockets.into_iter().zip(sockets).map(pair).collect() }))
    }

    /// Takes the socket that goes by this name, where there is one.
    pub(crate) fn take(&mut self, name: &str) -> Option<std::net::TcpListener> {
        let at = self.sockets.iter().position(|one| one.name == name)?;
        Some(self.sockets.swap_remove(at).socket.into())
    }

    /// Tells the old gateway that this one serves. Blocks.
    ///
    /// # Errors
    /// It is gone: what it left is recovered as that of any dead process.
    pub(crate) fn serving(mut self, origin: &Origin) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Word::Serving { origin: origin.clone() })?;
        line.push(b'\n');
        Write::write_all(&mut self.stream, &line)
    }
}

/// Reads one line and the sockets that come with its first byte.
fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = vec![0; LINE_BYTES];
    let got = recvmsg(stream, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            sockets.extend(received);
        }
    }
    buffer.truncate(got.bytes);
    if buffer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the gateway closed the admin socket"));
    }
    if buffer.last() != Some(&b'\n') {
        BufRead::read_until(&mut BufReader::new(stream), b'\n', &mut buffer)?;
    }
    Ok((buffer, sockets))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn named(name: &str, listener: &TcpListener) -> Named {
        Named { name: name.into(), socket: listener.try_clone().unwrap().into() }
    }

    #[tokio::test]
    async fn a_connection_that_waits_is_taken_by_the_new_holder_of_the_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handing = Handing::new(vec![named("listen 127.0.0.1:0", &listener)]);
        let waiting = TcpStream::connect(address).unwrap();
        drop(listener);
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        let far = far.into_std().unwrap();
        far.set_nonblocking(false).unwrap();
        let origin = Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap();
        let other = origin.clone();
        let taken = tokio::task::spawn_blocking(move || {
            let (line, sockets) = receive(&far).unwrap();
            let names: Names = serde_json::from_slice(&line).unwrap();
            let pair = |(name, socket)| Named { name, socket };
            let mut new =
                TakeOver { stream: far, sockets: names.sockets.into_iter().zip(sockets).map(pair).collect() };
            assert!(new.take("listen 127.0.0.1:1").is_none());
            let listener = new.take("listen 127.0.0.1:0").unwrap();
            let (_, peer) = listener.accept().unwrap();
            new.serving(&other).unwrap();
            peer
        });
        handing.give(near).await.unwrap();
        assert_eq!(taken.await.unwrap(), waiting.local_addr().unwrap());
        assert_eq!(handing.handed().await, origin);
        handing.end();
        assert!(TcpStream::connect(address).is_err(), "nobody holds the socket any more");
    }

    #[tokio::test]
    async fn a_new_gateway_that_dies_before_it_serves_changes_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let handing = Handing::new(vec![named("listen", &listener)]);
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        drop(far);
        assert!(handing.give(near).await.is_err());
        let told = tokio::time::timeout(Duration::from_millis(50), handing.handed()).await;
        assert!(told.is_err(), "nobody took over");
        handing.failed().await;
        assert!(handing.turn(None).is_ok());
    }

    #[tokio::test]
    async fn while_one_takes_over_another_gets_no_socket_and_is_told_why() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let handing = std::sync::Arc::new(Handing::new(vec![named("listen", &listener)]));
        let ask = async || {
            let (near, far) = tokio::net::UnixStream::pair().unwrap();
            let far = far.into_std().unwrap();
            far.set_nonblocking(false).unwrap();
            let handing = handing.clone();
            let given = tokio::spawn(async move { handing.give(near).await });
            let (line, sockets) = tokio::task::spawn_blocking({
                let far = far.try_clone().unwrap();
                move || receive(&far).unwrap()
            })
            .await
            .unwrap();
            (far, given, String::from_utf8(line).unwrap(), sockets.len())
        };
        let (first, given, _, sockets) = ask().await;
        assert_eq!(sockets, 1);
        for _ in 0..2 {
            let (_, refused, line, sockets) = ask().await;
            assert_eq!(sockets, 0);
            assert!(line.contains(&format!("process {} is taking", std::process::id())), "{line}");
            assert!(refused.await.unwrap().is_err());
        }
        // It dies: the next one may.
        drop(first);
        assert!(given.await.unwrap().is_err());
        let (mut next, given, _, sockets) = ask().await;
        assert_eq!(sockets, 1);
        let origin = Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap();
        let mut line = serde_json::to_vec(&Word::Serving { origin: origin.clone() }).unwrap();
        line.push(b'\n');
        Write::write_all(&mut next, &line).unwrap();
        given.await.unwrap().unwrap();
        assert_eq!(handing.handed().await, origin);
        // From then on the other one is asked.
        let (_, refused, line, sockets) = ask().await;
        assert!(sockets == 0 && line.contains("refused"), "{line}");
        assert!(refused.await.unwrap().is_err());
    }
}
