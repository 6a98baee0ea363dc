//! A gateway and its archivers with Kafka between them: what was acknowledged is to be in the store, and to verify.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::archiver::Archiver;
use crate::client::{Call, send};
use crate::gateway::{Gateway, Setup};
use crate::provider::Provider;
use crate::services::Kafka;

/// The topic of batches, where nothing else is said.
pub const TOPIC: &str = "batches";
/// The topic of receipts.
pub const RECEIPTS: &str = "receipts";

const WAIT: Duration = Duration::from_secs(120);

/// What a world stands on: brokers with both topics, a folder, and a provider.
#[derive(Debug)]
pub struct Bench {
    /// The brokers.
    pub kafka: Kafka,
    /// Where everything else is.
    pub dir: tempfile::TempDir,
    /// Whom the gateways ask.
    pub provider: Provider,
}

impl Bench {
    /// One broker.
    pub async fn start() -> Self {
        Self::over(Kafka::start(), &[]).await
    }

    /// Brokers that were started otherwise; `settings` are the topics'.
    ///
    /// # Panics
    /// Where no folder is to be had.
    pub async fn over(kafka: Kafka, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        kafka.operator().make(&[TOPIC, RECEIPTS], settings);
        Self { kafka, dir, provider: Provider::start([]).await }
    }
}

/// How a deployment comes to its brokers.
#[derive(Debug, Clone)]
pub struct Way {
    /// The deployment.
    pub deployment: String,
    /// Where the brokers are.
    pub brokers: Vec<SocketAddr>,
    /// The topic of batches.
    pub topic: String,
    /// The topic of receipts.
    pub receipts: String,
    /// More of the gateway's `kafka`, as `tls: {}`.
    pub gateway: String,
    /// More of an archiver's.
    pub archiver: String,
    /// More archivers whose receipts count, as `{ name: x, key: y }`.
    pub known: Vec<String>,
}

impl Way {
    /// The plain one.
    pub fn plain(kafka: &Kafka) -> Self {
        Self { brokers: kafka.addresses(), ..Self::at(kafka.address) }
    }

    /// By a listener of one broker, with nothing but its address.
    pub fn at(listener: SocketAddr) -> Self {
        Self {
            deployment: "test".into(),
            brokers: vec![listener],
            topic: TOPIC.into(),
            receipts: RECEIPTS.into(),
            gateway: String::new(),
            archiver: String::new(),
            known: Vec::new(),
        }
    }

    fn of(&self, more: &str) -> String {
        let brokers: Vec<String> = self.brokers.iter().map(|broker| format!("\"{broker}\"")).collect();
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        let (brokers, topic, receipts) = (brokers.join(", "), &self.topic, &self.receipts);
        format!("brokers: [{brokers}], topic: {topic}, receipts: {receipts}, timeout: 5s{more}")
    }

    /// What stands in an archiver's `kafka`.
    pub fn archivers(&self) -> String {
        self.of(&self.archiver)
    }

    /// A gateway's `evidence.out`, with the lines of its archivers.
    pub fn out(&self, archivers: &[&str]) -> String {
        let kafka = self.of(&self.gateway);
        format!("{{ kafka: {{ {kafka}, reship_after: 5s, archivers: [{}] }} }}", archivers.join(", "))
    }
}

/// A gateway, its archivers, and the store that only these write to.
#[derive(Debug)]
pub struct World {
    /// The gateway.
    pub gateway: Gateway,
    /// Its archivers.
    pub archivers: Vec<Archiver>,
    /// How many calls were answered.
    pub sent: usize,
}

impl World {
    /// Nothing runs yet; batches are to go into a folder.
    pub fn prepare(dir: &Path, way: &Way, provider: &Provider, archivers: usize) -> Self {
        let out = format!("{{ directory: {} }}", dir.join("gateway/store").display());
        Self::over(dir, way, provider, archivers, &dir.join("gateway/trust.yaml"), &out)
    }

    /// Nothing runs yet; `trust` and `out` are the archivers'.
    pub fn over(
        dir: &Path,
        way: &Way,
        provider: &Provider,
        archivers: usize,
        trust: &Path,
        out: &str,
    ) -> Self {
        Self::with(dir, way, provider, (archivers, "patience: 20s\nwork_bound: 64MiB\n"), (trust, out))
    }

    /// Nothing runs yet; `settings` is text at the end of each archiver's configuration.
    pub fn with(
        dir: &Path,
        way: &Way,
        provider: &Provider,
        (archivers, settings): (usize, &str),
        (trust, out): (&Path, &str),
    ) -> Self {
        let archivers: Vec<Archiver> = (1..=archivers)
            .map(|n| Archiver::prepare(dir, &format!("ar{n}"), way, out, trust, settings))
            .collect();
        let lines = archivers.iter().map(|archiver| &archiver.line).chain(&way.known);
        let lines: Vec<&str> = lines.map(String::as_str).collect();
        let (provider, deployment) = (provider.url(), way.deployment.clone());
        let setup = Setup { provider, deployment, out: way.out(&lines), ..Setup::default() };
        let gateway = Gateway::prepare(&dir.join("gateway"), &setup);
        Self { gateway, archivers, sent: 0 }
    }

    /// Everything runs.
    pub fn start(dir: &Path, way: &Way, provider: &Provider, archivers: usize) -> Self {
        let mut world = Self::prepare(dir, way, provider, archivers);
        world.gateway.serve();
        world.archivers.iter_mut().for_each(Archiver::spawn);
        world
    }

    /// Makes calls; the second does not fit into one message.
    ///
    /// # Panics
    /// Where one is not answered.
    pub async fn calls(&mut self, count: usize) {
        for n in 0..count {
            let filler: String = match n {
                1 => (0..250_000_u32).map(|i| format!("{:08x}", i.wrapping_mul(2_654_435_761))).collect(),
                _ => "x".repeat(200),
            };
            let body = serde_json::json!({ "model": "gpt-4o-mini",
                "messages": [{ "role": "user", "content": format!("{} {filler}", self.sent) }] });
            let call = Call::post("/openai/v1/chat/completions", &self.gateway.key, body.to_string());
            let got = send(self.gateway.address, &call).await;
            assert_eq!(got.status, 200, "{}", got.text());
            self.sent += 1;
        }
    }

    /// Waits until something holds.
    ///
    /// # Panics
    /// Where it does not for two minutes.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            let logs: Vec<String> = self.archivers.iter().map(Archiver::log).collect();
            assert!(
                begun.elapsed() < WAIT,
                "waited for {what}; the gateway:\n{}\nthe archivers:\n{}",
                self.gateway.log(),
                logs.join("\n--\n")
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A line of the gateway's metrics, by what stands before the number; -1 where it is not there.
    pub fn metric(&self, line: &str) -> f64 {
        let text = self.gateway.admin_get("/metrics").unwrap_or_default();
        text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok()).unwrap_or(-1.0)
    }

    /// One of the gateway's watermarks.
    pub fn mark(&self, mark: &str) -> f64 {
        self.metric(&format!("gateway_records{{mark=\"{mark}\"}}"))
    }

    /// What `/readyz` says.
    pub fn readiness(&self) -> String {
        self.gateway.admin_get("/readyz").unwrap_or_default()
    }

    /// Waits until everything is archived.
    pub fn all_archived(&self) {
        self.until("everything to be archived", |world| {
            let journaled = world.mark("journaled");
            journaled > 0.0 && world.mark("archived") >= journaled
        });
    }

    /// Waits until everything is in the topic.
    pub fn all_sent(&self) {
        self.until("everything to be sent", |world| {
            let journaled = world.mark("journaled");
            journaled > 0.0 && world.mark("shipped") >= journaled
        });
    }

    /// Stops everything: the end of the log is archived too.
    ///
    /// # Panics
    /// Where something ends with an error.
    pub fn stop(&mut self) {
        self.all_archived();
        assert_eq!(self.gateway.stop(), Some(0), "{}", self.gateway.log());
        for archiver in &mut self.archivers {
            assert!(matches!(archiver.stop(), Some(0) | None), "{}", archiver.log());
        }
    }

    /// Stops everything, and what was acknowledged verifies.
    pub fn verified(mut self) {
        self.stop();
        self.judged();
    }

    /// What was acknowledged verifies.
    ///
    /// # Panics
    /// Where it does not, or is not all.
    pub fn judged(&self) {
        let (code, out, err) = self.gateway.verify(&[]);
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.contains("VERIFIED"), "{out}");
        // One line a log, as `records: 1 boot, 4 outcome`.
        let of_log = |part: &str| part.trim().strip_suffix(" outcome")?.trim().parse::<usize>().ok();
        let lines = out.lines().filter_map(|line| line.trim().strip_prefix("records:"));
        let found: usize = lines.flat_map(|line| line.split(',').filter_map(of_log)).sum();
        assert_eq!(found, self.sent, "{out}{err}");
    }

    /// How much the archivers set aside for a fault.
    pub fn set_aside(&self, fault: &str) -> f64 {
        let line = format!("gateway_archive_set_aside_total{{fault=\"{fault}\"}}");
        self.archivers.iter().map(|archiver| archiver.metric(&line).max(0.0)).sum()
    }

    /// How many batches they archived in these lives.
    pub fn batches(&self) -> f64 {
        self.archivers.iter().map(|archiver| archiver.metric("gateway_archive_batches_total").max(0.0)).sum()
    }

    /// Nothing was set aside.
    ///
    /// # Panics
    /// Where something was.
    pub fn nothing_aside(&self) {
        for archiver in &self.archivers {
            assert_eq!(archiver.quarantine(), Vec::<String>::new(), "{}", archiver.log());
        }
    }
}
