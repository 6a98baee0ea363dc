//! Two registrars as processes of their own: one works, the other takes over when it is killed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use schemas::note::{Ed25519Signer, Signer as _};
use schemas::registry::{KeyAction, KeyStatement, State, decode};
use schemas::trust::key_text;
use schemas::verify::{BatchInput, SealTail, chain, verify_batch};
use schemas::{ObjectName, Origin, names::FileKind, seal};

const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");

fn ran(args: &[&str]) {
    let output = Command::new(GATEWAY).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

struct Place {
    dir: tempfile::TempDir,
    root: Ed25519Signer,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let keys = ["--deployment", "acme", "--gateway", "registry"];
        ran(&[&["keygen"], &keys[..], &["--out", &path("registry.key")]].concat());
        ran(&[&["keygen"], &keys[..], &["--out", &path("checkpoint.key")]].concat());
        let root = Ed25519Signer::from_seed([1; 32]);
        std::fs::create_dir(path("entries")).unwrap();
        let yaml = format!(
            "deployment: acme\nout: {{ directory: store }}\nseal_key: registry.key\ncheckpoint_key: checkpoint.key\n\
             root: \"{}\"\nentries: entries\nscratch: scratch\ninterval: 200ms\n",
            key_text(&root.public_key())
        );
        std::fs::write(path("registrar.yaml"), yaml).unwrap();
        Self { dir, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn registrar(&self) -> Running {
        let config = self.path("registrar.yaml");
        let mut command = Command::new(GATEWAY);
        command.arg("registrar").arg("-c").arg(config).stderr(Stdio::null());
        Running(command.spawn().unwrap())
    }

    fn enroll(&self, n: u8) {
        let statement = KeyStatement {
            deployment: "acme".into(),
            action: KeyAction::Add,
            gateway: format!("gw{n}"),
            key: key_text(&[n; 32]),
            replaces: None,
            heartbeat_bound_s: None,
            closers: vec![],
            until: None,
        };
        let (hidden, entry) = (self.path("entries/.new"), self.path(&format!("entries/{n}")));
        std::fs::write(&hidden, statement.sign(&self.root).unwrap()).unwrap();
        std::fs::rename(hidden, entry).unwrap();
    }

    /// How many keys the registry knows; every batch verified and chained.
    fn keys(&self) -> usize {
        let origin = Origin::registry("acme").unwrap();
        let folder = self.path("store").join(origin.as_str());
        let pem = std::fs::read(self.path("registry.key")).unwrap();
        let key = Ed25519Signer::from_seed(*gateway::secrets::parse_seal_key(&pem).unwrap()).public_key();
        let mut state = State::new("acme", self.root.public_key(), key);
        let mut tail: Option<SealTail> = None;
        for batch in 0.. {
            let name = ObjectName::Seal { origin: origin.clone(), batch }.file_name();
            let Ok(note) = std::fs::read(folder.join(name)) else { break };
            let records = seal::verify(&note, &key).unwrap().file(&FileKind::Records).unwrap().name.clone();
            let records = std::fs::read(folder.join(records)).unwrap().into();
            let input = BatchInput { origin: &origin, key: &key, seal: &note, records };
            let chained = chain(tail.as_ref(), verify_batch(input).unwrap()).unwrap();
            for row in chained.rows() {
                let entry = decode(row.leaf()).unwrap().unwrap();
                assert_eq!(state.apply(row.position(), &entry), []);
            }
            tail = Some(chained.tail());
        }
        state.keys().len()
    }

    fn await_keys(&self, wanted: usize) {
        let began = Instant::now();
        while self.keys() < wanted {
            assert!(began.elapsed() < Duration::from_secs(30), "{} of {wanted} keys", self.keys());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

struct Running(Child);

impl Running {
    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
    fn terminate(mut self) {
        let pid = rustix::process::Pid::from_raw(self.0.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success(), "SIGTERM ends a registrar cleanly");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Killed or ended already, in most tests.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn of_two_registrars_the_other_takes_over_when_one_is_killed() {
    let place = Place::new();
    place.enroll(1);
    let mut running = [place.registrar(), place.registrar()];
    place.await_keys(1);
    for n in 2..6 {
        place.enroll(n);
        place.await_keys(n.into());
    }
    assert!(running.iter_mut().all(Running::is_alive), "the one that was refused goes on");
    let [first, second] = running;
    // SIGKILL: nothing is left behind but what the store holds.
    drop(first);
    place.enroll(6);
    place.await_keys(6);
    let third = place.registrar();
    drop(second);
    place.enroll(7);
    place.await_keys(7);
    third.terminate();
    assert_eq!(place.keys(), 7);
}
