//! The fleet: its parts as processes, and every piece of network between them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tests::Dice;
use tests::archive::{self, BUCKET};
use tests::archiver::Archiver;
use tests::deployment::Deployment;
use tests::gateway::{Gateway, Setup};
use tests::process::Process;
use tests::provider::Provider;
use tests::registrar::Registrar;
use tests::services::{Fault, FaultProxy, Kafka, Minio, Network, S3Server, Wire};
use tests::shipping::{RECEIPTS, TOPIC, Way};

use super::topics;

/// The gateways' names, and whether each commits to the brokers too (`commit: kafka`): then its disk can be thrown away.
const GATEWAYS: [(&str, bool); 3] = [("gw1", false), ("gw2", false), ("gw3", true)];
/// Shorter than the shortest time that the broker is away: it is over then.
const LEASE: Duration = Duration::from_secs(3);
const ARCHIVERS: [&str; 2] = ["ar1", "ar2"];
/// How long the fleet may take until nothing is on its way any more.
const PATIENCE: Duration = Duration::from_secs(180);

/// One process of the fleet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Gateway(usize),
    Archiver(usize),
    Registrar,
}

impl Part {
    /// What it is.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway(_) => "gateway",
            Self::Archiver(_) => "archiver",
            Self::Registrar => "registrar",
        }
    }
}

/// The pieces of network between the parts.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) gateway_provider: Vec<Wire>,
    pub(crate) gateway_broker: Vec<Wire>,
    pub(crate) archiver_broker: Vec<Wire>,
    pub(crate) archiver_store: Vec<Wire>,
    /// By which the gateway that commits reads what the archivers have of its logs.
    pub(crate) gateway_store: Wire,
    pub(crate) registrar_store: Vec<Wire>,
}

impl Links {
    fn all(&self) -> impl Iterator<Item = &Wire> {
        let Self {
            gateway_provider,
            gateway_broker,
            archiver_broker,
            archiver_store,
            gateway_store,
            registrar_store,
        } = self;
        [gateway_provider, gateway_broker, archiver_broker, archiver_store, registrar_store]
            .into_iter()
            .flatten()
            .chain([gateway_store])
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) provider: Provider,
    pub(crate) kafka: Mutex<Kafka>,
    pub(crate) server: Mutex<S3Server>,
    pub(crate) links: Links,
    /// Before the store: for the archivers, and for the registrar.
    pub(crate) stores: [FaultProxy; 2],
    pub(crate) deployment: Deployment,
    pub(crate) gateways: Vec<Mutex<Gateway>>,
    pub(crate) archivers: Vec<Mutex<Archiver>>,
    pub(crate) registrar: Mutex<Registrar>,
    pub(crate) dir: tempfile::TempDir,
}

/// A part, for whoever has something to do with it.
pub(crate) fn held<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wires(count: usize, upstream: std::net::SocketAddr) -> Vec<Wire> {
    (0..count).map(|_| Wire::to(upstream)).collect()
}

fn endpoint(wire: &Wire) -> String {
    format!("http://{}", wire.address)
}

/// More of the configuration of a gateway that commits to the brokers: what is not on its disk any more it finds in
/// their topic, and in the archivers' store where their receipts are gone too.
fn committed(secret: &std::path::Path, store: &str) -> String {
    format!(
        "      archive:\n        s3: {{ bucket: {BUCKET}, prefix: {}, region: us-east-1, endpoint: '{store}', path_style: true, \
         timeout: 3s }}\n  commit:\n    kafka:\n      lease: {}s\n      timeout: 3s\n      secret: {{ file: {} }}\n      \
         create: {{ partitions: 3, replication: 1 }}\n",
        archive::PREFIX,
        LEASE.as_secs(),
        secret.display(),
    )
}

impl Fleet {
    /// Starts everything: the registry knows the gateways' keys before the first batch comes.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Minio::start();
        server.create_locked_bucket(BUCKET).await;
        let provider = Provider::start([]).await;
        let mut brokers = Vec::new();
        let (kafka, ways) = Kafka::start_for(GATEWAYS.len() + ARCHIVERS.len(), |listens| {
            brokers.push(Wire::to(listens));
            brokers[brokers.len() - 1].address
        });
        topics::make(&kafka, &topics::ALL);
        let stores = [FaultProxy::start(server.address), FaultProxy::start(server.address)];
        let links = Links {
            gateway_provider: wires(GATEWAYS.len(), provider.address),
            archiver_broker: brokers.split_off(GATEWAYS.len()),
            gateway_broker: brokers,
            archiver_store: wires(ARCHIVERS.len(), stores[0].address),
            gateway_store: Wire::to(stores[0].address),
            registrar_store: wires(1, stores[1].address),
        };
        let deployment = Deployment::new(&dir.path().join("deployment"));
        let out = archive::out(&endpoint(&links.registrar_store[0]));
        let registrar = deployment.registrar("registrar", &out, &archive::environment());
        let (for_gateways, for_archivers) = ways.split_at(GATEWAYS.len());
        let archiver = |(n, name): (usize, &&str)| {
            let (out, trust) = (archive::out(&endpoint(&links.archiver_store[n])), deployment.trust_file());
            let more = "patience: 10m\n";
            let mut archiver =
                Archiver::prepare(dir.path(), name, &Way::at(for_archivers[n]), &out, &trust, more);
            archiver.environment = archive::environment();
            archiver
        };
        let archivers: Vec<Archiver> = ARCHIVERS.iter().enumerate().map(archiver).collect();
        let lines: Vec<&str> = archivers.iter().map(|archiver| archiver.line.as_str()).collect();
        let secret = tests::commit_secret(dir.path());
        let gateway = |(n, (name, commits)): (usize, &(&str, bool))| {
            let more =
                if *commits { committed(&secret, &endpoint(&links.gateway_store)) } else { String::new() };
            let out = format!(
                "\n    kafka:\n      brokers: [\"{}\"]\n      topic: {TOPIC}\n      receipts: {RECEIPTS}\n      \
                 timeout: 3s\n      reship_after: 4s\n      archivers: [{}]\n{more}",
                for_gateways[n],
                lines.join(", "),
            );
            let setup = Setup {
                name: (*name).into(),
                provider: endpoint(&links.gateway_provider[n]),
                out,
                evidence: "  segment: 4MiB\n".into(),
                environment: if *commits { archive::environment() } else { Vec::new() },
                ..Setup::default()
            };
            let gateway = Gateway::prepare(&dir.path().join(name), &setup);
            deployment.enroll(name, &gateway.seal_key());
            gateway
        };
        let gateways: Vec<Gateway> = GATEWAYS.iter().enumerate().map(gateway).collect();
        let fleet = Self {
            provider,
            kafka: Mutex::new(kafka),
            server: Mutex::new(server),
            links,
            stores,
            deployment,
            gateways: gateways.into_iter().map(Mutex::new).collect(),
            archivers: archivers.into_iter().map(Mutex::new).collect(),
            registrar: Mutex::new(registrar),
            dir,
        };
        fleet.enrolled();
        fleet.supervise();
        fleet
    }

    /// Starts the registrar, and waits until it has every gateway's key: one entry opens the registry, and each key is one.
    fn enrolled(&self) {
        let mut registrar = held(&self.registrar);
        registrar.spawn();
        let size = |text: String| {
            let value = |line: &str| line.split_once("registry_size ")?.1.trim().parse::<usize>().ok();
            text.lines().filter(|line| !line.starts_with('#')).find_map(value).unwrap_or(0)
        };
        registrar.until("the gateways' keys", || size(registrar.metrics()) > self.gateways.len());
    }

    /// Every process.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let gateways = (0..self.gateways.len()).map(Part::Gateway);
        let archivers = (0..self.archivers.len()).map(Part::Archiver);
        gateways.chain(archivers).chain([Part::Registrar]).collect()
    }

    /// `kill -9`, and a start.
    pub(crate) fn kill(&self, part: Part) {
        match part {
            Part::Gateway(n) => {
                let mut gateway = held(&self.gateways[n]);
                gateway.kill();
                gateway.spawn();
            }
            Part::Archiver(n) => held(&self.archivers[n]).spawn(),
            Part::Registrar => held(&self.registrar).spawn(),
        }
    }

    /// A machine is lost with its disk; another one takes its name, with an empty disk, and the keys of content that it
    /// shared. Gives the gateway's name.
    pub(crate) fn lose_disk(&self, dice: &mut Dice) -> &'static str {
        let committed: Vec<usize> = (0..GATEWAYS.len()).filter(|n| GATEWAYS[*n].1).collect();
        let lost = committed[dice.below(committed.len() as u64) as usize];
        let mut gateway = held(&self.gateways[lost]);
        gateway.kill();
        for folder in ["journal", "spool"] {
            // A process that was killed just before may not have made them yet.
            match std::fs::remove_dir_all(gateway.dir.join(folder)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{folder}: {error}"),
                _ => {}
            }
        }
        gateway.spawn();
        GATEWAYS[lost].0
    }

    /// Starts what does not run, as a supervisor does; gives what ended by itself, with what it said last.
    pub(crate) fn supervise(&self) -> Vec<String> {
        let mut ended = Vec::new();
        let mut told = |name: &str, log: String| {
            if let Some(last) = log.lines().last() {
                ended.push(format!("{name}: {last}"));
            }
        };
        for gateway in &self.gateways {
            let mut gateway = held(gateway);
            if !gateway.process().is_some_and(Process::is_alive) {
                told("gateway", gateway.log());
                gateway.spawn();
            }
        }
        for archiver in &self.archivers {
            let mut archiver = held(archiver);
            if !archiver.is_alive() {
                told("archiver", archiver.log());
                archiver.spawn();
            }
        }
        let mut registrar = held(&self.registrar);
        if !registrar.is_alive() {
            told("registrar", registrar.log());
            registrar.spawn();
        }
        ended
    }

    /// All is well again; waits until nothing is on its way any more, then ends every part.
    pub(crate) fn settle(&self) {
        self.links.all().for_each(|wire| wire.set(Network::Whole));
        self.stores.iter().for_each(|store| store.set(Fault::Pass));
        self.until("all gateways to be ready", || {
            self.supervise();
            self.gateways.iter().all(|gateway| held(gateway).ready())
        });
        self.until("all records to be archived", || {
            self.gateways.iter().all(|gateway| is_idle(&held(gateway)))
        });
        for gateway in &self.gateways {
            let mut gateway = held(gateway);
            let text = gateway.admin_get("/metrics").unwrap_or_default();
            assert!(
                text.contains("gateway_receipts_forged_total 0\n"),
                "forged receipts:\n{}",
                gateway.log()
            );
            assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
            assert!(!gateway.log().contains("that is no receipt"), "{}", gateway.log());
            for folder in ["journal", "spool"] {
                assert_eq!(
                    epochs(&gateway, folder),
                    Vec::<String>::new(),
                    "left in `{folder}`: {}",
                    gateway.log()
                );
            }
        }
        for archiver in &self.archivers {
            let mut archiver = held(archiver);
            assert_eq!(archiver.quarantine(), Vec::<String>::new(), "{}", archiver.log());
            assert_eq!(archiver.stop(), Some(0), "{}", archiver.log());
        }
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "waited for {what}: {}\n{}", self.state(), self.logs());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// How far each part is.
    fn state(&self) -> String {
        let gateways = self.gateways.iter().map(|gateway| {
            let gateway = held(gateway);
            format!("{:?} {:?}", tests::marks::read(gateway.admin), epochs(&gateway, "journal"))
        });
        let archivers = self.archivers.iter().map(|archiver| {
            let archiver = held(archiver);
            let of = |name: &str| format!("{name} {}", archiver.metric(&format!("gateway_archive_{name}")));
            ["batches_total", "open_messages", "work_bytes", "reading", "store_failures_total"]
                .map(of)
                .join(", ")
        });
        gateways.chain(archivers).collect::<Vec<_>>().join("; ")
    }

    /// The end of what each part logged.
    pub(crate) fn logs(&self) -> String {
        let gateways = self.gateways.iter().map(|gateway| held(gateway).log());
        let archivers = self.archivers.iter().map(|archiver| held(archiver).log());
        let logs = gateways.chain(archivers).chain([held(&self.registrar).log()]);
        let last = |log: String| -> String {
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(60)..].join("\n") + "\n--\n"
        };
        logs.map(last).collect()
    }
}

/// The folders of epochs below one of its folders.
fn epochs(gateway: &Gateway, folder: &str) -> Vec<String> {
    let list = std::fs::read_dir(gateway.dir.join(folder)).into_iter().flatten().flatten();
    let names = list.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with("20")).collect()
}

/// Whether all of it is archived: of the log that it writes, and of all before it.
fn is_idle(gateway: &Gateway) -> bool {
    let Some([journaled, _, _, archived]) = tests::marks::read(gateway.admin) else { return false };
    journaled > 0 && archived >= journaled && epochs(gateway, "journal").len() <= 1
}
