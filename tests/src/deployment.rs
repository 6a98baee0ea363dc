//! A deployment with a registry: its keys, its files, and what an auditor is told to trust of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use schemas::note::VerifyingKey;
use schemas::trust::{Trust, TrustedRegistry, public_key};
use schemas::{ObjectName, Origin, seal};

use crate::gateway::{Gateway, Setup};
use crate::process::{free_port, ran};
use crate::registrar::{Registrar, directory};

/// The deployment of every gateway of these tests.
const DEPLOYMENT: &str = "test";

/// Keys and key entries of a deployment, in a folder.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The folder. `root.key` and `root.pub` are in it.
    pub dir: PathBuf,
    root: String,
    registry_key: String,
    checkpoint_key: [u8; 32],
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Runs a command of the gateway; what it printed.
fn gateway(args: &[&str]) -> String {
    ran(Command::new(crate::binary("gateway")).args(args)).trim().to_owned()
}

fn keygen(gateway_name: &str, out: &Path) -> String {
    gateway(&["keygen", "--deployment", DEPLOYMENT, "--gateway", gateway_name, "--out", &text(out)])
}

impl Deployment {
    /// Makes the keys, and a trust file that names nothing but root and registry.
    ///
    /// # Panics
    /// Where a command of the gateway fails.
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir.join("entries")).expect("a folder for key entries");
        let root = ["root", "keygen", "--deployment", DEPLOYMENT, "--out", &text(&dir.join("root.key"))];
        let root = gateway(&root);
        std::fs::write(dir.join("root.pub"), &root).expect("the root's public key");
        let registry_key = keygen("registry", &dir.join("registry.key"));
        let checkpoint_key = public_key(&keygen("registry", &dir.join("checkpoint.key"))).expect("a key");
        let deployment = Self { dir: dir.to_owned(), root, registry_key, checkpoint_key };
        let Self { root, registry_key: key, .. } = &deployment;
        let trust = format!(
            "v: 1\ndeployment: {DEPLOYMENT}\nroot: \"{root}\"\nregistry:\n  origin: {}\n  key: \"{key}\"\n",
            deployment.origin()
        );
        std::fs::write(deployment.trust_file(), trust).expect("a trust file");
        deployment
    }

    /// A running gateway, a deployment that has enrolled its key, and a registrar of its store that does not run yet.
    pub fn with_gateway(dir: &Path) -> (Self, Gateway, Registrar) {
        let setup = Setup { provider: "http://127.0.0.1:9".into(), ..Setup::default() };
        let gateway = Gateway::start(&dir.join("gateway"), &setup);
        let deployment = Self::new(dir);
        deployment.enroll("gw1", &gateway.seal_key());
        let registrar = deployment.registrar("registrar", &directory(&gateway.store()), &[]);
        (deployment, gateway, registrar)
    }

    /// The registry's origin.
    ///
    /// # Panics
    /// Never: the deployment's name is one.
    pub fn origin(&self) -> Origin {
        Origin::registry(DEPLOYMENT).expect("an origin")
    }

    /// The verifier key of the registry's checkpoints.
    ///
    /// # Panics
    /// Never: the origin is a key's name.
    pub fn log_key(&self) -> String {
        let origin = self.origin();
        VerifyingKey::new(origin.as_str(), self.checkpoint_key).expect("a key's name").to_string()
    }

    /// The trust file.
    pub fn trust_file(&self) -> PathBuf {
        self.dir.join("trust.yaml")
    }

    /// Its meaning.
    pub fn trust(&self) -> Trust {
        Trust {
            v: 1,
            deployment: DEPLOYMENT.into(),
            root: Some(self.root.clone()),
            registry: Some(TrustedRegistry { origin: self.origin(), key: self.registry_key.clone() }),
            ..Trust::default()
        }
    }

    /// Makes a key for a gateway; gives its file.
    pub fn key(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        keygen("gw1", &path);
        path
    }

    /// Signs an entry with the root key and puts it into the registrars' folder: `arguments` without `--deployment`,
    /// `--root` and `--out`. Gives the entry's file.
    ///
    /// # Panics
    /// Where the command fails.
    pub fn sign(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let made = self.dir.join(format!("{name}.entry"));
        let (root, out) = (text(&self.dir.join("root.key")), text(&made));
        gateway(&[arguments, &["--deployment", DEPLOYMENT, "--root", &root, "--out", &out]].concat());
        let entries = self.dir.join("entries");
        std::fs::copy(&made, entries.join(".new")).expect("a copy");
        std::fs::rename(entries.join(".new"), entries.join(name)).expect("the entry in its place");
        made
    }

    /// Enrolls a key of a gateway, or the one in a file: one more entry of the registry.
    pub fn enroll(&self, gateway: &str, key: &str) {
        self.sign(gateway, &["enroll", "--gateway", gateway, "--key", key]);
    }

    /// A registrar that does not run yet. `out` as in its configuration.
    pub fn registrar(&self, name: &str, out: &str, environment: &[(String, String)]) -> Registrar {
        let metrics = free_port();
        let config = format!(
            "deployment: {DEPLOYMENT}\nout: {out}\nseal_key: registry.key\ncheckpoint_key: checkpoint.key\n\
             root: \"{}\"\nentries: entries\nscratch: scratch-{name}\ninterval: 200ms\nmetrics: {metrics}\n",
            self.root
        );
        Registrar {
            metrics,
            config: self.dir.join(format!("{name}.yaml")),
            text: config,
            log: self.dir.join(format!("{name}.log")),
            environment: environment.to_vec(),
            process: None,
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

    /// The registry's objects of one kind in a store, by the end of their names, in order.
    pub fn objects(&self, store: &Path, end: &str) -> Vec<PathBuf> {
        let folder = store.join(self.origin().as_str());
        let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
            .map(|list| list.filter_map(Result::ok).map(|entry| entry.path()).collect())
            .unwrap_or_default();
        found.retain(|path| text(path).ends_with(end));
        found.sort();
        found
    }

    /// Waits until the registry in a store knows its one gateway's log.
    pub fn settle(&self, registrar: &Registrar, store: &Path) {
        registrar.until("the gateway's log in the registry", || self.newest(store).0 >= 4);
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
