//! The program itself, as an operator runs it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use schemas::record::Record;

use crate::provider::Provider;
use crate::rig::{Setup, prepare, records};

/// A gateway in a process of its own, its configuration in a folder.
pub(crate) struct Process {
    child: Option<Child>,
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    pub(crate) dir: tempfile::TempDir,
}

/// Runs the program to its end.
pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gateway"))
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What a run said, both ways.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

impl Process {
    /// Starts the program in front of `provider`.
    pub(crate) async fn start(provider: &Provider, setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = prepare(dir.path(), provider, &setup);
        let mut process = Self { child: None, address: SocketAddr::from(([127, 0, 0, 1], 0)), key, dir };
        process.serve().await;
        process
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn serve(&mut self) {
        let log = File::create(self.path("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_gateway"))
            .current_dir(self.dir.path())
            .args(["serve", "-c", "gateway.yaml"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let start = Instant::now();
        loop {
            let log = self.log();
            // As text or as JSON: the port stands behind the address.
            let port = log.lines().filter(|line| line.contains("listening")).find_map(|line| {
                let rest = line.split_once("127.0.0.1:")?.1;
                rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            });
            if let Some(port) = port.filter(|_| log.contains("serving")) {
                self.address.set_port(port);
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "it does not serve:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything that it wrote, on both ways.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("log")).unwrap()).into_owned()
    }

    /// Waits until it wrote `text`.
    pub(crate) async fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < Duration::from_secs(20), "`{text}` does not come:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops it as `systemctl stop` does; its exit must be a success.
    pub(crate) async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let mut child = self.child.take().unwrap();
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Runs another command of the program in its folder.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        run(self.dir.path(), arguments)
    }

    /// The records of its store, every batch verified.
    pub(crate) fn records(&self) -> Vec<Record> {
        records(&self.path("store"))
    }

    /// A chat completion with its key, as text of HTTP/1.1's request.
    pub(crate) fn chat(&self, body: &'static str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
        http::Request::post("/openai/v1/chat/completions")
            .header("host", "gateway")
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .body(http_body_util::Full::from(body))
            .unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}
