//! Apache Kafka (KRaft) from the jars that `tests/run kafka` fetches: one process that is broker and controller, or three
//! that are a cluster, with the ways in and the rights that operators give.

mod access;
mod broker;
mod operator;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

pub use access::{Authority, Certificate, Guard, Tokens};
pub use operator::{Allow, Operator, Took, Writer, messages};

use self::broker::{Broker, Doors};
use super::cached::cached;
use crate::process::free_port;

/// As in `tests/kafka/pom.xml`.
const VERSION: &str = "4.1.0";

/// A running broker, or a cluster of them. Ends when dropped, with its data.
#[derive(Debug)]
pub struct Kafka {
    /// Where clients find it: plain, and what it is asked here it does.
    pub address: SocketAddr,
    brokers: Vec<Broker>,
    guard: Option<Guard>,
    _folder: tempfile::TempDir,
}

impl Kafka {
    /// Starts one on a free port with an empty folder. Topics are not made by writing to them.
    pub fn start() -> Self {
        Self::open(&[Doors::new(free_port())], None)
    }

    /// Starts one that tells its clients to come to `proxy`; the proxy's way on is [`Kafka::listens`].
    pub fn start_behind(proxy: impl FnOnce(SocketAddr) -> SocketAddr) -> Self {
        let listens = free_port();
        Self::open(&[Doors { address: proxy(listens), ..Doors::new(listens) }], None)
    }

    /// Starts one with the settings of a `server.properties`, whose listener for clients is `address`.
    pub fn with(address: SocketAddr, settings: &str) -> Self {
        Self::changed(&[Doors::new(address)], None, &|_| settings.to_owned())
    }

    /// Starts one with a listener of its own for each of `clients`: who comes by `proxy` of it is told to stay there.
    /// Gives also where each client finds the broker.
    pub fn start_for(clients: usize, proxy: impl FnMut(SocketAddr) -> SocketAddr) -> (Self, Vec<SocketAddr>) {
        let listens: Vec<SocketAddr> = (0..clients).map(|_| free_port()).collect();
        let advertised: Vec<SocketAddr> = listens.iter().copied().map(proxy).collect();
        let kafka = Self::changed(&[Doors::new(free_port())], None, &ways(&listens, &advertised));
        (kafka, advertised)
    }

    /// Starts one with more ways in, [`Guard`]: there a client may do what [`Operator::allow`] says, and nothing else.
    pub fn guarded() -> Self {
        Self::open(&[Doors::new(free_port())], Some(Guard::new()))
    }

    /// Starts three that are one cluster.
    pub fn cluster() -> Self {
        Self::open(&[(); 3].map(|()| Doors::new(free_port())), None)
    }

    fn open(doors: &[Doors], guard: Option<Guard>) -> Self {
        Self::changed(doors, guard, &|settings| settings)
    }

    /// `change` changes the settings of each broker.
    fn changed(doors: &[Doors], guard: Option<Guard>, change: &dyn Fn(String) -> String) -> Self {
        let folder = tempfile::Builder::new().prefix("kafka").tempdir().expect("a folder for brokers");
        let brokers =
            (0..doors.len()).map(|n| Broker::prepare(folder.path(), n, doors, guard.as_ref(), change));
        let mut kafka =
            Self { address: doors[0].address, brokers: brokers.collect(), guard, _folder: folder };
        std::thread::scope(|scope| {
            kafka.brokers.iter().for_each(|broker| drop(scope.spawn(|| broker.format(kafka.guard.as_ref()))));
        });
        kafka.resume();
        kafka
    }

    /// Its ways in beside the plain one.
    ///
    /// # Panics
    /// Where it was not started by [`Kafka::guarded`].
    pub fn guard(&self) -> &Guard {
        self.guard.as_ref().expect("a guarded broker")
    }

    /// Where all of its brokers are found.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.brokers.iter().map(|broker| broker.doors.address).collect()
    }

    /// Where the first broker itself takes connections.
    pub fn listens(&self) -> SocketAddr {
        self.brokers[0].doors.listens
    }

    /// The folder of the first: settings, data, and its log `server.log`.
    pub fn folder(&self) -> &Path {
        &self.brokers[0].folder
    }

    /// What they logged so far.
    pub fn log(&self) -> String {
        self.brokers.iter().map(Broker::log).collect::<Vec<_>>().join("\n--\n")
    }

    /// Kills the processes; what they had acknowledged stays for [`Kafka::resume`].
    pub fn pause(&mut self) {
        self.brokers.iter_mut().for_each(|broker| broker.process = None);
    }

    /// Kills one of a cluster, from 0.
    pub fn pause_one(&mut self, broker: usize) {
        self.brokers[broker].process = None;
    }

    /// Starts those that do not run on the same ports and data.
    pub fn resume(&mut self) {
        // A broker of a cluster listens once most of them are there.
        self.brokers.iter_mut().for_each(Broker::spawn);
        self.brokers.iter_mut().for_each(Broker::wait);
    }
}

fn java(class: &str, options: &[String]) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp"])
        .arg(cached("kafka", VERSION).join("*"))
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        .args(options)
        .arg(class);
    command
}

/// Adds listeners that each advertise an address of their own.
fn ways(listens: &[SocketAddr], advertised: &[SocketAddr]) -> impl Fn(String) -> String + use<> {
    let each = |addresses: &[SocketAddr]| -> String {
        addresses.iter().enumerate().map(|(n, address)| format!(",WAY{n}://{address}")).collect()
    };
    let protocols: String = (0..listens.len()).map(|n| format!(",WAY{n}:PLAINTEXT")).collect();
    let more = [
        ("listeners=", each(listens)),
        ("advertised.listeners=", each(advertised)),
        ("listener.security.protocol.map=", protocols),
    ];
    move |text| {
        let add = |line: &str| {
            let found = more.iter().find(|(key, _)| line.starts_with(key));
            format!("{line}{}\n", found.map_or("", |(_, more)| more))
        };
        text.lines().map(add).collect()
    }
}
