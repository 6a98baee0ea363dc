//! A registrar's process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Process, http};

/// How long is waited for what a registrar should do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A registrar that runs, or does not.
#[derive(Debug)]
pub struct Registrar {
    /// Where its metrics are.
    pub metrics: SocketAddr,
    pub(crate) config: PathBuf,
    /// What every configuration of it begins with.
    pub(crate) text: String,
    pub(crate) log: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) process: Option<Process>,
}

impl Registrar {
    /// Starts it.
    pub fn spawn(&mut self) {
        self.spawn_with("");
    }

    /// Starts it with more text at the end of its configuration; one that runs is killed before.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn spawn_with(&mut self, more: &str) {
        self.kill();
        std::fs::write(&self.config, format!("{}{more}", self.text)).expect("the registrar's configuration");
        let mut command = Command::new(crate::binary("gateway"));
        command.args(["registrar", "-c"]).arg(&self.config);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start(&mut command, &self.log));
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What its metrics say.
    pub fn metrics(&self) -> String {
        http(self.metrics, "GET /metrics", b"")
    }

    /// Whether the process lives.
    pub fn is_alive(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_alive)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM, and waits for the end; its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.process.take()?.stop()
    }

    /// Waits until something holds.
    ///
    /// # Panics
    /// Where it does not within a minute: `what` says what was waited for, and the log is shown.
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            let waited = begun.elapsed();
            assert!(waited < PATIENCE, "waited a minute for {what}; the registrar:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the auditor says what `wanted` wants: its exit code and what it prints.
    ///
    /// # Panics
    /// Where it does not within a minute.
    pub fn until_said(
        &self,
        auditor: &dyn Fn() -> (i32, String),
        wanted: &dyn Fn(i32, &str) -> bool,
    ) -> String {
        let begun = Instant::now();
        loop {
            let (code, said) = auditor();
            if wanted(code, &said) {
                return said;
            }
            assert!(begun.elapsed() < PATIENCE, "exit {code}:\n{said}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// A folder as the value of `out`.
pub fn directory(store: &Path) -> String {
    format!("{{ directory: {} }}", store.display())
}
