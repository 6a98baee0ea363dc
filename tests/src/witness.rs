//! A witness with its folder: the real auditor's `witness serve` on loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use schemas::trust::TrustedWitness;

use crate::process::{Process, free_port, http, ran};

/// A witness that runs, or was killed.
#[derive(Debug)]
pub struct Witness {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its verifier key.
    pub key: String,
    dir: PathBuf,
    process: Option<Process>,
}

impl Witness {
    /// Makes key and state, and serves for these logs.
    ///
    /// # Panics
    /// Where the auditor's binary fails.
    pub fn start(dir: &Path, name: &str, logs: &[String]) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for the witness");
        let mut keygen = Command::new(crate::binary("auditor"));
        keygen.args(["witness", "keygen", "--name", name, "--out"]).arg(dir.join("witness.key"));
        let key = ran(keygen.arg("--state").arg(dir.join("state"))).trim().to_owned();
        let address = free_port();
        let logs: String = logs.iter().map(|log| format!("  - \"{log}\"\n")).collect();
        let config =
            format!("name: {name}\nkey: witness.key\nstate: state\nlisten: {address}\nlogs:\n{logs}");
        std::fs::write(dir.join("witness.yaml"), config).expect("the configuration is written");
        let mut witness = Self { address, key, dir: dir.to_owned(), process: None };
        witness.serve();
        witness
    }

    /// Serves, and waits until it listens.
    pub fn serve(&mut self) {
        let mut command = Command::new(crate::binary("auditor"));
        command.args(["witness", "serve", "-c"]).arg(self.dir.join("witness.yaml"));
        self.process = Some(Process::listening(&mut command, &self.dir.join("log"), self.address));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// What it saw last: the size, 0 where nothing.
    pub fn size(&self, origin: &str) -> u64 {
        let answer = http(self.address, &format!("GET /checkpoint/{origin}"), b"");
        let text = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        text.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or(0)
    }

    /// As the trust file names it.
    pub fn trusted(&self, organisation: &str) -> TrustedWitness {
        let url = Some(format!("http://{}", self.address));
        TrustedWitness { key: self.key.clone(), organisation: organisation.into(), url }
    }

    /// As a registrar's configuration names these.
    pub fn asked(witnesses: &[&Self]) -> String {
        let line = |witness: &&Self| {
            format!("  - {{ key: \"{}\", url: \"http://{}/\" }}\n", witness.key, witness.address)
        };
        format!("witnesses:\n{}", witnesses.iter().map(line).collect::<String>())
    }
}
