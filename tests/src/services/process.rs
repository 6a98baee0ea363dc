//! A service's process: its log in a file, its port awaited, ended when dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a service may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `log`, and waits until `address` takes connections.
    ///
    /// # Panics
    /// Where it does not start, or does not answer within a minute.
    pub(super) fn start(command: &mut Command, log: &Path, address: SocketAddr) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        let second = file.try_clone().expect("a second handle");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(second)
            .spawn()
            .unwrap_or_else(|e| std::panic::panic_any(format!("{command:?}: {e}")));
        let mut process = Self { child, log: log.to_owned() };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = !matches!(process.child.try_wait(), Ok(None));
            assert!(
                !ended && start.elapsed() < READY_WITHIN,
                "{command:?} does not listen on {address}:\n{}",
                process.text()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        process
    }

    /// What it logged so far.
    pub(super) fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of loopback that nobody listens on.
///
/// # Panics
/// Where there is none.
pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free loopback port")
}

/// What `tests/run` put into the cache folder, a binary or a folder: `<cache>/affidavit/<name>-<version>/<name>`.
///
/// # Panics
/// Where it is not there.
pub fn cached(name: &str, version: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = cache
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .expect("XDG_CACHE_HOME or HOME");
    let path = cache.join("affidavit").join(format!("{name}-{version}")).join(name);
    assert!(
        path.exists(),
        "`{}` is not there: `tests/run s3` and `tests/run kafka` make what they need",
        path.display()
    );
    path
}
