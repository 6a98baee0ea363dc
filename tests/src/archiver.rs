//! An archiver's process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Process, free_port, http, ran};
use crate::shipping::Way;

/// An archiver that runs, or does not, with its files in a folder.
#[derive(Debug)]
pub struct Archiver {
    /// Its line in a gateway's `archivers`.
    pub line: String,
    /// Variables of its process.
    pub environment: Vec<(String, String)>,
    dir: PathBuf,
    metrics: SocketAddr,
    process: Option<Process>,
}

impl Archiver {
    /// Makes its key and configuration; does not start. `out` as in its configuration, `more` is text at its end.
    ///
    /// # Panics
    /// Where a command of the gateway fails.
    pub fn prepare(dir: &Path, name: &str, way: &Way, out: &str, trust: &Path, more: &str) -> Self {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).expect("a folder for the archiver");
        let line = ran(Command::new(crate::binary("gateway"))
            .args(["keygen", "--deployment", &way.deployment, "--archiver", name, "--out"])
            .arg(dir.join("archiver.key")));
        let metrics = free_port();
        let config = format!(
            "deployment: {deployment}\nname: {name}\nkey: archiver.key\ntrust: {trust}\nout: {out}\nkafka: {{ {kafka} }}\n\
             work: work\nquarantine: quarantine\nmetrics: {metrics}\n{more}",
            deployment = way.deployment,
            trust = trust.display(),
            kafka = way.archivers(),
        );
        std::fs::write(dir.join("archive.yaml"), config).expect("the archiver's configuration");
        let line = line.trim().trim_start_matches("- ").to_owned();
        Self { line, environment: Vec::new(), dir, metrics, process: None }
    }

    /// Starts it; one that runs is killed before.
    pub fn spawn(&mut self) {
        self.kill();
        let mut command = Command::new(crate::binary("gateway"));
        command.args(["archive", "--log", "info", "-c"]).arg(self.dir.join("archive.yaml"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start(&mut command, &self.dir.join("archiver.log")));
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

    /// Sends it a signal, as `-STOP`.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn signal(&self, name: &str) {
        let pid = self.process.as_ref().expect("an archiver that runs").id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill").success());
    }

    /// What it logged so far, in all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("archiver.log")).unwrap_or_default()
    }

    /// A line of its metrics, by what stands before the number; -1 where it is not there.
    pub fn metric(&self, line: &str) -> f64 {
        let text = http(self.metrics, "GET /metrics", b"");
        text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or(-1.0)
    }

    /// What was set aside, by name of the finding's file.
    pub fn quarantine(&self) -> Vec<String> {
        let list = std::fs::read_dir(self.dir.join("quarantine"));
        let names = list.into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// An archiver without brokers, and where its metrics are: what it shows does not depend on them.
///
/// # Panics
/// Where it cannot be made, or does not show its metrics.
pub fn without_brokers(dir: &Path) -> (Process, SocketAddr) {
    std::fs::create_dir_all(dir).expect("a folder for the archiver");
    let binary = crate::binary("gateway");
    let keygen = |more: &[&str], out: &Path| {
        ran(Command::new(&binary).args(["keygen", "--deployment", "test"]).args(more).arg("--out").arg(out))
    };
    keygen(&["--archiver", "ar1"], &dir.join("archiver.key"));
    let trust = keygen(&["--gateway", "gw1"], &dir.join("seal.key"));
    std::fs::write(dir.join("trust.yaml"), trust).expect("a trust file");
    let metrics = free_port();
    let config = format!(
        "deployment: test\nname: ar1\nkey: archiver.key\ntrust: trust.yaml\nout: {{ directory: store }}\n\
         kafka: {{ brokers: [\"127.0.0.1:9\"], timeout: 1s }}\nwork: work\nquarantine: quarantine\nmetrics: {metrics}\n"
    );
    std::fs::write(dir.join("archive.yaml"), config).expect("the configuration");
    let mut command = Command::new(binary);
    command.args(["archive", "--log-format", "json", "-c"]).arg(dir.join("archive.yaml")).current_dir(dir);
    (Process::listening(&mut command, &dir.join("archiver.log"), metrics), metrics)
}
