//! A child process of a test: its log in a file, awaited until it is ready, ended when dropped.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long a process may take until it is ready, and until it ends when it is told to.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command; what it writes is added to `log`.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        let second = file.try_clone().expect("a second handle");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(second).spawn();
        let child = child.unwrap_or_else(|error| std::panic::panic_any(format!("{command:?}: {error}")));
        Self { child, log: log.to_owned() }
    }

    /// Starts a command, and waits until it listens.
    ///
    /// # Panics
    /// Where it cannot be started, ends, or does not listen within a minute.
    pub fn listening(command: &mut Command, log: &Path, address: SocketAddr) -> Self {
        let mut process = Self::start(command, log);
        process.until(&format!("it listens on {address}"), || TcpStream::connect(address).is_ok());
        process
    }

    /// Waits until something holds of it.
    ///
    /// # Panics
    /// Where it ends before, or it does not hold within a minute; its log is shown.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            let ended = self.ended();
            assert!(
                ended.is_none() && begun.elapsed() < PATIENCE,
                "waited until {what}; ended: {ended:?}; it logged:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Whether it runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it, and what ran before it with the same log, wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a process that lives");
    }

    /// SIGTERM, and waits for the end; its exit code.
    ///
    /// # Panics
    /// Where it has not ended after a minute.
    pub fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "it did not end within a minute:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// `kill -9`.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end; what it printed.
///
/// # Panics
/// Where it does not end with success.
pub fn ran(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| std::panic::panic_any(format!("{command:?}: {error}")));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}:\n{out}{err}", output.status);
    out.into_owned()
}

/// A port of loopback that nobody listens on, and that the system does not give to outgoing connections: one of these
/// could hold it while its server is down.
///
/// # Panics
/// Where there is none.
pub fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    // Test processes that run at once begin at different places.
    let own = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let n = (u32::from(own) * 131 + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT);
        let port = FIRST + u16::try_from(n).unwrap_or(0);
        if let Ok(address) = TcpListener::bind(("127.0.0.1", port)).and_then(|socket| socket.local_addr()) {
            return address;
        }
    }
    std::panic::panic_any("no free loopback port")
}

/// A raw HTTP request; the whole answer, empty where there is none.
pub fn http(address: SocketAddr, head: &str, body: &[u8]) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
    let head =
        format!("{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
