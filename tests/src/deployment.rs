//! A deployment with its registry: the real gateway, registrar and witnesses as processes on loopback.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use schemas::note::{Ed25519Signer, Signer as _, VerifyingKey};
use schemas::registry::{KeyAction, KeyStatement};
use schemas::seal;
use schemas::trust::{Trust, TrustedRegistry, TrustedWitness, key_text};
use schemas::{ObjectName, Origin};

use crate::gateway::{Gateway, Setup};

/// A process with its log, ended when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a command; what it writes goes to `log`.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let second = file.try_clone().expect("a second handle");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(second).spawn();
        Self { child: child.expect("the process starts"), log }
    }

    /// What it logged so far.
    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something holds.
///
/// # Panics
/// Where it does not within a minute; `what` says what was waited for.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A port of loopback that nobody listens on.
///
/// # Panics
/// Where there is none.
pub fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// A raw HTTP request; the whole answer.
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

/// A witness with its folder.
#[derive(Debug)]
pub struct Witness {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its verifier key.
    pub key: String,
    dir: PathBuf,
    running: Option<Running>,
}

impl Witness {
    /// Makes key and state, and serves for these logs.
    ///
    /// # Panics
    /// Where the auditor's binary fails.
    pub fn start(dir: &Path, name: &str, logs: &[String]) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for the witness");
        let made = Command::new(crate::binary("auditor"))
            .args(["witness", "keygen", "--name", name, "--out"])
            .arg(dir.join("witness.key"))
            .arg("--state")
            .arg(dir.join("state"))
            .output()
            .expect("the auditor starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let key = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        let address = free();
        let logs: String = logs.iter().map(|log| format!("  - \"{log}\"\n")).collect();
        let config =
            format!("name: {name}\nkey: witness.key\nstate: state\nlisten: {address}\nlogs:\n{logs}");
        std::fs::write(dir.join("witness.yaml"), config).expect("the configuration is written");
        let mut witness = Self { address, key, dir: dir.to_owned(), running: None };
        witness.serve();
        witness
    }

    /// Serves, and waits until it listens.
    pub fn serve(&mut self) {
        let mut command = Command::new(crate::binary("auditor"));
        command.args(["witness", "serve", "-c"]).arg(self.dir.join("witness.yaml"));
        self.running = Some(Running::start(&mut command, self.dir.join("log")));
        until("the witness", || TcpStream::connect(self.address).is_ok());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.running = None;
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
}

/// A gateway and its registry in one folder; the registrar runs where it was started.
#[derive(Debug)]
pub struct Deployment {
    /// The folder.
    pub dir: PathBuf,
    /// The gateway.
    pub gateway: Gateway,
    /// Where the registrar's metrics are.
    pub metrics: SocketAddr,
    registry_key: String,
    checkpoint_key: [u8; 32],
    registrar: Option<Running>,
}

fn root() -> Ed25519Signer {
    Ed25519Signer::from_seed([1; 32])
}

impl Deployment {
    /// Starts a gateway, enrolls its key, and makes the registry's keys; the registrar does not run yet.
    ///
    /// # Panics
    /// Where a command fails.
    pub fn start(dir: &Path) -> Self {
        let setup = Setup { provider: "http://127.0.0.1:9".into(), ..Setup::default() };
        let gateway = Gateway::start(&dir.join("gateway"), &setup);
        std::fs::create_dir_all(dir.join("entries")).expect("a folder for key entries");
        let keygen = |name: &str| {
            let made = Command::new(crate::binary("gateway"))
                .args(["keygen", "--deployment", "test", "--gateway", "registry", "--out"])
                .arg(dir.join(name))
                .output()
                .expect("the gateway's binary");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            String::from_utf8_lossy(&made.stdout).trim().to_owned()
        };
        let registry_key = keygen("registry.key");
        let checkpoint_key = schemas::trust::public_key(&keygen("checkpoint.key")).expect("a key");
        let deployment = Self {
            dir: dir.to_owned(),
            gateway,
            metrics: free(),
            registry_key,
            checkpoint_key,
            registrar: None,
        };
        let trust = std::fs::read_to_string(deployment.gateway.dir.join("trust.yaml")).expect("a trust file");
        let key = trust.split("key: \"").nth(1).and_then(|rest| rest.split('"').next()).expect("its key");
        deployment.enroll("gw1", key);
        deployment
    }

    /// The registry's origin.
    pub fn origin(&self) -> Origin {
        Origin::registry("test").expect("an origin")
    }

    /// The verifier key of its checkpoints.
    pub fn log_key(&self) -> String {
        let origin = self.origin();
        VerifyingKey::new(origin.as_str(), self.checkpoint_key).expect("a key's name").to_string()
    }

    /// Adds a key of a gateway: one more entry of the registry.
    ///
    /// # Panics
    /// Where the entry cannot be written.
    pub fn enroll(&self, gateway: &str, key: &str) {
        let statement = KeyStatement {
            deployment: "test".into(),
            action: KeyAction::Add,
            gateway: gateway.into(),
            key: key.into(),
            replaces: None,
            heartbeat_bound_s: None,
            closers: vec![],
            until: None,
        };
        let hidden = self.dir.join("entries/.new");
        std::fs::write(&hidden, statement.sign(&root()).expect("a note")).expect("an entry");
        std::fs::rename(hidden, self.dir.join(format!("entries/{gateway}"))).expect("its name");
    }

    /// Starts the registrar on a store, with more text at the end of its configuration.
    pub fn registrar_on(&mut self, store: &Path, more: &str) {
        self.registrar = None;
        let yaml = format!(
            "deployment: test\nout: {{ directory: {} }}\nseal_key: registry.key\ncheckpoint_key: checkpoint.key\n\
             root: \"{}\"\nentries: entries\nscratch: scratch\ninterval: 200ms\nmetrics: {}\n{more}",
            store.display(),
            key_text(&root().public_key()),
            self.metrics
        );
        std::fs::write(self.dir.join("registrar.yaml"), yaml).expect("the configuration is written");
        let mut command = Command::new(crate::binary("gateway"));
        command.args(["registrar", "-c"]).arg(self.dir.join("registrar.yaml"));
        self.registrar = Some(Running::start(&mut command, self.dir.join("registrar.log")));
    }

    /// Starts the registrar on the gateway's store.
    pub fn registrar(&mut self, more: &str) {
        self.registrar_on(&self.gateway.store(), more);
    }

    /// `kill -9` of the registrar.
    pub fn stop_registrar(&mut self) {
        self.registrar = None;
    }

    /// What the registrar logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("registrar.log")).unwrap_or_default()
    }

    /// What its metrics say.
    pub fn metrics(&self) -> String {
        http(self.metrics, "GET /metrics", b"")
    }

    /// The trust file's meaning.
    pub fn trust(&self) -> Trust {
        Trust {
            v: 1,
            deployment: "test".into(),
            root: Some(key_text(&root().public_key())),
            registry: Some(TrustedRegistry { origin: self.origin(), key: self.registry_key.clone() }),
            ..Trust::default()
        }
    }

    /// Size and time of the registry's newest seal in a store; 0 where there is none.
    pub fn newest(&self, store: &Path) -> (u64, i64) {
        let mut newest = (0, 0);
        for batch in 0.. {
            let name = ObjectName::Seal { origin: self.origin(), batch }.to_string();
            let Ok(note) = std::fs::read(store.join(name)) else { break };
            let Ok(seal) = seal::parse_unverified(&note) else { break };
            newest = (seal.to, seal.time);
        }
        newest
    }

    /// The registry's objects of one kind, by the end of their names, in order.
    pub fn objects(&self, store: &Path, end: &str) -> Vec<PathBuf> {
        let folder = store.join(self.origin().as_str());
        let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
            .map(|list| list.filter_map(Result::ok).map(|entry| entry.path()).collect())
            .unwrap_or_default();
        found.retain(|path| path.to_string_lossy().ends_with(end));
        found.sort();
        found
    }

    /// Waits until something holds; where it does not, the registrar's log is shown.
    ///
    /// # Panics
    /// Where it does not within a minute.
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "waited a minute for {what}; size {}; the registrar:\n{}",
                self.newest(&self.gateway.store()).0,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the registry knows the gateway's log.
    pub fn settle(&self) {
        self.until("the gateway's log in the registry", || self.newest(&self.gateway.store()).0 >= 4);
    }

    /// `auditor verify` with a fresh state: exit code and report.
    ///
    /// # Panics
    /// Where the binary cannot be started.
    pub fn verify(&self, store: &Path, trust: &Trust, more: &[&str]) -> (i32, String) {
        let state = tempfile::tempdir_in(&self.dir).expect("a state folder");
        let path = self.dir.join("trust-file.yaml");
        std::fs::write(&path, serde_json::to_string(trust).expect("JSON")).expect("a trust file");
        let output = Command::new(crate::binary("auditor"))
            .arg("verify")
            .arg(store)
            .arg("--trust")
            .arg(&path)
            .arg("--state")
            .arg(state.path())
            .args(more)
            .output()
            .expect("the auditor starts");
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }
}

/// Copies a folder with everything under it.
///
/// # Panics
/// Where it cannot be read or written.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &name);
        } else if std::fs::copy(&path, &name).is_err() {
            // An unfinished write that was finished meanwhile.
            assert!(!path.exists(), "{} cannot be copied", path.display());
        }
    }
}
