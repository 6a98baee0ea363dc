//! Redis: Debian's, unpacked into the cache folder, where quotas are shared.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::cached::cached;
use crate::process::{Process, free_port};

/// As in `tests/run`.
const VERSION: &str = "7.0.15";

/// A running Redis. Ends when dropped, with its data.
#[derive(Debug)]
pub struct Redis {
    /// Where it listens.
    pub address: SocketAddr,
    more: Vec<String>,
    process: Option<Process>,
    folder: tempfile::TempDir,
}

impl Redis {
    /// Starts one on a free port, in memory only.
    pub fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// The same with more options, that are made for its folder; with `--tls-port` it takes TLS only.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start_with(options: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let folder = tempfile::Builder::new().prefix("redis").tempdir().expect("a folder for a server");
        let more = options(folder.path());
        let mut redis = Self { address: free_port(), more, process: None, folder };
        redis.resume();
        redis
    }

    /// Its folder: its log `server.log`, and whatever its options name.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it again, empty.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn resume(&mut self) {
        let port = self.address.port().to_string();
        let mut command = Self::command("redis-server");
        command.args(["--repl-diskless-sync-delay", "0", "--save", "", "--appendonly", "no", "--bind"]);
        command.arg(self.address.ip().to_string()).arg("--dir").arg(self.folder.path());
        if self.has_tls() {
            command.args(["--port", "0", "--tls-port", &port]);
        } else {
            command.args(["--port", &port]);
        }
        command.args(&self.more);
        let log = self.folder.path().join("server.log");
        self.process = Some(Process::listening(&mut command, &log, self.address));
    }

    /// Ends it at once; what it held is gone.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// What `redis-cli` says.
    ///
    /// # Panics
    /// Where it cannot be run.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Self::command("redis-cli");
        if self.has_tls() {
            command.args(["--tls", "--insecure"]);
        }
        let output = command
            .args(["-h", &self.address.ip().to_string(), "-p", &self.address.port().to_string()])
            .args(arguments)
            .output()
            .expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn has_tls(&self) -> bool {
        self.more.iter().any(|option| option.starts_with("--tls"))
    }

    /// A program of Redis, with its libraries.
    pub(super) fn command(name: &str) -> Command {
        let root = cached("redis", VERSION);
        let mut command = Command::new(root.join("usr/bin").join(name));
        command.env("LD_LIBRARY_PATH", root.join("lib"));
        command
    }
}
