//! A deployment with a registry: its root key, the keys of its registrars, their processes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::gateway::Gateway;

/// The deployment of every gateway of these tests.
const DEPLOYMENT: &str = "test";

/// Keys and key entries of a deployment, in a folder.
#[derive(Debug, Clone)]
pub struct Deployment {
    dir: PathBuf,
    root: String,
}

fn ran(args: &[&str]) -> String {
    let output = Command::new(crate::binary("gateway"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the gateway's binary");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The key of a trust file that `keygen` printed.
fn key_of(trust: &str) -> String {
    let line = trust.lines().find_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("key:"));
    line.expect("a key line").trim().trim_matches(['"', '\'']).to_owned()
}

impl Deployment {
    /// Makes the keys, and a trust file that names nothing but root and registry.
    pub fn new(dir: &Path) -> Self {
        let text = |name: &str| dir.join(name).display().to_string();
        std::fs::create_dir_all(dir.join("entries")).expect("a folder for key entries");
        let root = ran(&["root", "keygen", "--deployment", DEPLOYMENT, "--out", &text("root.key")]);
        let keygen = |out: &str| {
            ran(&["keygen", "--deployment", DEPLOYMENT, "--gateway", "registry", "--out", &text(out)])
        };
        let registry = keygen("registry.key").trim().to_owned();
        keygen("checkpoint.key");
        let root = root.trim().to_owned();
        let trust = format!(
            "v: 1\ndeployment: {DEPLOYMENT}\nroot: \"{root}\"\n\
             registry: {{ origin: {DEPLOYMENT}/registry/log, key: \"{registry}\" }}\n"
        );
        std::fs::write(dir.join("trust.yaml"), trust).expect("a trust file");
        Self { dir: dir.to_owned(), root }
    }

    /// The trust file.
    pub fn trust(&self) -> PathBuf {
        self.dir.join("trust.yaml")
    }

    /// Signs an entry for a gateway's key and puts it where the registrars look.
    pub fn enroll(&self, name: &str, gateway: &Gateway) {
        let own = std::fs::read_to_string(gateway.dir.join("trust.yaml")).expect("the gateway's trust file");
        let text = |name: String| self.dir.join(name).display().to_string();
        let out = text(format!("entries/{name}"));
        let (root, key) = (text("root.key".into()), key_of(&own));
        ran(&[
            "enroll",
            "--deployment",
            DEPLOYMENT,
            "--root",
            &root,
            "--gateway",
            name,
            "--key",
            &key,
            "--out",
            &out,
        ]);
    }

    /// A registrar that does not run yet. `out` as in its configuration.
    pub fn registrar(&self, name: &str, out: &str, environment: &[(String, String)]) -> Registrar {
        let config = format!(
            "deployment: {DEPLOYMENT}\nout: {out}\nseal_key: registry.key\ncheckpoint_key: checkpoint.key\n\
             root: \"{}\"\nentries: entries\nscratch: scratch-{name}\ninterval: 300ms\n",
            self.root
        );
        let path = self.dir.join(format!("{name}.yaml"));
        std::fs::write(&path, config).expect("the registrar's configuration");
        let log = self.dir.join(format!("{name}.log"));
        Registrar { config: path, log, environment: environment.to_vec(), child: None }
    }
}

/// A registrar's process; killed when dropped.
#[derive(Debug)]
pub struct Registrar {
    config: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Registrar {
    /// Starts it.
    pub fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file");
        let child = Command::new(crate::binary("gateway"))
            .args(["registrar", "-c"])
            .arg(&self.config)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the registrar starts");
        self.child = Some(child);
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether the process lives.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for the end; its exit code.
    ///
    /// # Panics
    /// Where it has not ended after 60 s.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let start = Instant::now();
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                return status.code();
            }
            if start.elapsed() > Duration::from_secs(60) {
                let _ = child.kill();
                let _ = child.wait();
                std::panic::panic_any(format!("the registrar did not end within 60 s:\n{}", self.log()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.kill();
    }
}
