//! The registry of a deployment beside a gateway: root key, a registrar process, key entries.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A registrar and the keys that it needs, in a folder of their own. The process ends when dropped.
#[derive(Debug)]
pub struct Registry {
    /// The folder.
    pub dir: PathBuf,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

fn gateway(args: &[&str]) -> String {
    let output = Command::new(crate::binary("gateway"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the gateway's binary");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Registry {
    /// Makes keys and configuration in `dir`, for the deployment `test`; `out` is the value of the registrar's `out`. Does
    /// not start.
    ///
    /// # Panics
    /// Where a command of the gateway fails.
    pub fn prepare(dir: &Path, out: &str, environment: &[(String, String)]) -> Self {
        std::fs::create_dir_all(dir.join("entries")).expect("a folder of key entries");
        let path = |name: &str| text(&dir.join(name));
        let root = gateway(&["root", "keygen", "--deployment", "test", "--out", &path("root.key")]);
        let keygen = |name: &str| {
            gateway(&["keygen", "--deployment", "test", "--gateway", "registry", "--out", &path(name)])
        };
        let key = keygen("registry.key");
        keygen("checkpoint.key");
        let config = format!(
            "deployment: test\nout: {out}\nseal_key: registry.key\ncheckpoint_key: checkpoint.key\nroot: \"{root}\"\n\
             entries: entries\nscratch: scratch\ninterval: 200ms\n"
        );
        std::fs::write(dir.join("registrar.yaml"), config).expect("the registrar's configuration");
        let trust = format!(
            "v: 1\ndeployment: test\nroot: \"{root}\"\nregistry:\n  origin: test/registry/log\n  key: \"{key}\"\n"
        );
        std::fs::write(dir.join("trust.yaml"), trust).expect("the trust file");
        std::fs::write(dir.join("root.pub"), root).expect("the root's public key");
        Self { dir: dir.to_owned(), environment: environment.to_vec(), child: None }
    }

    /// Starts the registrar.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn serve(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("registrar.log"));
        let child = Command::new(crate::binary("gateway"))
            .args(["registrar", "-c", &text(&self.dir.join("registrar.yaml"))])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(log.expect("the registrar's log"))
            .spawn()
            .expect("the registrar starts");
        self.child = Some(child);
    }

    /// What the registrar logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("registrar.log")).unwrap_or_default()
    }

    /// Signs an entry with the root key and puts it into the registrar's folder: `arguments` without `--deployment`,
    /// `--root` and `--out`. Gives the entry's file.
    ///
    /// # Panics
    /// Where the command fails.
    pub fn sign(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let made = self.dir.join(format!("{name}.entry"));
        let (root, out) = (text(&self.dir.join("root.key")), text(&made));
        gateway(&[arguments, &["--deployment", "test", "--root", &root, "--out", &out]].concat());
        let entries = self.dir.join("entries");
        std::fs::copy(&made, entries.join(".new")).expect("a copy");
        std::fs::rename(entries.join(".new"), entries.join(name)).expect("the entry in its place");
        made
    }

    /// Makes a key for a gateway; gives its file. The public key is in the file too: `--key` takes it.
    ///
    /// # Panics
    /// Where the command fails.
    pub fn key(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        gateway(&["keygen", "--deployment", "test", "--gateway", "gw1", "--out", &text(&path)]);
        path
    }

    /// Waits until the auditor says what `wanted` wants: its exit code and what it prints.
    ///
    /// # Panics
    /// Where it does not within half a minute.
    pub fn until(&self, auditor: &dyn Fn() -> (i32, String), wanted: &dyn Fn(i32, &str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let (code, said) = auditor();
            if wanted(code, &said) {
                return said;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "exit {code}:\n{said}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
