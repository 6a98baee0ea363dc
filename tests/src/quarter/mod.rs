//! A synthetic quarter: the third of 2026, as three gateways would have recorded it, from recorded traffic.
//!
//! ```text
//! traffic   what exchanges look like: the corpus' models, tokens, sizes, ends
//! planted   what is wrong, which controls must find it, and the exchanges that it was done to
//! gateway   a gateway's three logs, a month each: exchanges, refusals, heartbeats, keys, configurations, closes
//! log       one log: leaves, tree, batches sealed into a folder
//! registers the operator's registers, in which everything that was not planted is as it should be
//! ```
//! The same seed makes the same exchanges. What is in memory at one time is one day of each gateway. Content is not kept: what is
//! asked of a quarter is asked of its records.

mod gateway;
mod log;
mod planted;
mod registers;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use schemas::note::{Ed25519Signer, Signer as _};
use schemas::trust::{Trust, TrustedGateway, key_text};

pub use planted::{Answer, Answers, Violation};

/// 2026-07-01T00:00:00Z, microseconds.
pub const BEGIN: i64 = 1_782_864_000 * SECOND;
/// Days of the quarter.
pub const DAYS: i64 = 92;
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The gateways.
const GATEWAYS: u64 = 3;

/// What is made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many exchanges.
    pub exchanges: u64,
    /// How often each violation is planted; 0: nothing is.
    pub each: u64,
    /// What the chances are drawn from.
    pub seed: u64,
}

/// A quarter in a folder.
#[derive(Debug)]
pub struct Quarter {
    /// The store.
    pub store: PathBuf,
    /// The trust file.
    pub trust: PathBuf,
    /// The operator's registers: name and file.
    pub registers: Vec<(String, PathBuf)>,
    /// What must be found, by control.
    pub answers: Answers,
    /// Records in all logs.
    pub records: u64,
    /// Bytes in the store.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

impl Quarter {
    /// Makes one in `folder`.
    ///
    /// # Panics
    /// Where the folder cannot be written.
    pub fn make(folder: &Path, plan: Plan) -> Self {
        let began = Instant::now();
        let store = folder.join("store");
        let traffic = traffic::Traffic::read();
        let planted = planted::Planted::new(plan);
        let gateways: Vec<gateway::Told> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..GATEWAYS)
                .map(|number| {
                    let (store, traffic, planted) = (&store, &traffic, &planted);
                    scope.spawn(move || gateway::run(number, store, plan, traffic, planted))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a gateway")).collect()
        });
        let mut done: BTreeMap<Violation, BTreeSet<String>> = BTreeMap::new();
        for (violation, exchange) in gateways.iter().flat_map(|told| &told.done) {
            done.entry(*violation).or_default().insert(exchange.clone());
        }
        let trust = folder.join("trust.yaml");
        std::fs::write(&trust, serde_json::to_string_pretty(&trust_of()).expect("JSON"))
            .expect("a trust file");
        let registers = registers::write(folder, plan, &traffic, &done);
        let answers = planted::answers(plan, &done);
        let records = gateways.iter().map(|told| told.records).sum();
        let bytes = gateways.iter().map(|told| told.bytes).sum();
        Self { store, trust, registers, answers, records, bytes, took: began.elapsed() }
    }
}

fn name_of(gateway: u64) -> String {
    format!("gw{}", gateway + 1)
}

fn signer(gateway: u64) -> Ed25519Signer {
    Ed25519Signer::from_seed([u8::try_from(gateway).unwrap_or(0) + 1; 32])
}

/// All gateways are closed: nothing is expected behind their last logs.
fn trust_of() -> Trust {
    let gateway = |number| TrustedGateway {
        name: name_of(number),
        key: key_text(&signer(number).public_key()),
        closed: Some(true),
        heartbeat_bound_s: Some(3600),
        ..TrustedGateway::default()
    };
    Trust {
        v: 1,
        deployment: "acme".into(),
        gateways: (0..GATEWAYS).map(gateway).collect(),
        ..Trust::default()
    }
}
