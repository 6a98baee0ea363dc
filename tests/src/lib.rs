//! Whole-system promises: what the tests, the quick start and the benchmarks of Affidavit share.
//!
//! `provider` is an LLM provider on loopback that speaks the real wire formats, replays recorded exchanges and
//! remembers every byte it saw, `bedrock` another that checks AWS's signatures; `gateway` runs the real binary; `client` is an HTTP caller that remembers every
//! byte it got; `deployment` is the keys, files and trust of a deployment with a registry, `registrar`, `witness` and `archiver`
//! its processes; `process` is any child process; `services` are the real stores that they meet; `oracle` holds what both
//! remember against the evidence, `archive` a bucket against what is promised of it; `marks` reads how far evidence has
//! come; `audited` puts evidence into buckets and runs the auditor over it; `runbook` follows the runbook; `compose` starts what
//! a compose file says as plain processes; `quarter` makes three months of records with known violations; `shipping` is a gateway and its archivers with Kafka between them; `tapped` is the
//! sinks of the live tap; `answering` is a server that always says the same; `png` reads and writes pictures of pages.

#![allow(clippy::panic, reason = "tests fail by panicking")]

pub mod answering;
pub mod archive;
pub mod archiver;
pub mod audited;
pub mod bedrock;
pub mod client;
pub mod compose;
pub mod corpus;
pub mod dashboards;
pub mod deployment;
pub mod examples;
pub mod gateway;
pub mod marks;
pub mod metrics;
pub mod oracle;
pub mod png;
pub mod process;
pub mod prometheus;
pub mod provider;
pub mod quarter;
pub mod registrar;
pub mod runbook;
pub mod services;
pub mod shipping;
pub mod tapped;
pub mod witness;

use std::path::{Path, PathBuf};

/// The checkout's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// A binary of this workspace, built by the same command that runs the tests.
///
/// # Panics
/// Where it was not built.
pub fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("the test's own path");
    let profile = exe
        .ancestors()
        .find(|dir| dir.file_name().is_some_and(|n| n == "debug" || n == "release"))
        .expect("tests run from the target folder");
    let path = profile.join(name);
    assert!(path.exists(), "`{}` is not built: run `cargo build --workspace` first", path.display());
    path
}

/// The commit secret of a deployment whose files are in `dir`.
///
/// # Panics
/// Where it cannot be written.
pub fn commit_secret(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join("commit.secret");
    if !path.exists() {
        std::fs::write(&path, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n").expect("a secret");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    }
    path
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
        } else if path.is_file() && std::fs::copy(&path, &name).is_err() {
            // An unfinished write that was finished meanwhile.
            assert!(!path.exists(), "{} cannot be copied", path.display());
        }
    }
}

/// True where the long round of a suite was asked for (`AFFIDAVIT_LONG=1`).
pub fn long_round() -> bool {
    std::env::var("AFFIDAVIT_LONG").is_ok_and(|v| v == "1")
}

/// A small deterministic generator (xorshift64*), so that a failing round can be repeated from its seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "no iterator: it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    /// A number below `bound` (which is not 0).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
