//! Apache Kafka, one process that is broker and controller (KRaft), from the jars that `tests/run kafka` fetches.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::cached::cached;
use crate::process::{Process, free_port};

/// As in `tests/kafka/pom.xml`.
const VERSION: &str = "4.1.0";

/// A running broker. Ends when dropped, with its data.
#[derive(Debug)]
pub struct Kafka {
    /// Where clients find it.
    pub address: SocketAddr,
    listens: SocketAddr,
    process: Option<Process>,
    folder: tempfile::TempDir,
}

impl Kafka {
    /// Starts one on a free port with an empty folder. Topics are not made by writing to them.
    pub fn start() -> Self {
        let address = free_port();
        Self::over(address, address)
    }

    /// Starts one that tells its clients to come to `proxy`; the proxy's way on is [`Kafka::listens`].
    pub fn start_behind(proxy: impl FnOnce(SocketAddr) -> SocketAddr) -> Self {
        let listens = free_port();
        Self::over(proxy(listens), listens)
    }

    /// Starts one with the settings of a `server.properties`, whose listener for clients is `address`.
    pub fn with(address: SocketAddr, settings: &str) -> Self {
        Self::made(address, address, |_| settings.to_owned())
    }

    /// Starts one with a listener of its own for each of `clients`: who comes by `proxy` of it is told to stay there.
    /// Gives also where each client finds the broker.
    pub fn start_for(clients: usize, proxy: impl FnMut(SocketAddr) -> SocketAddr) -> (Self, Vec<SocketAddr>) {
        let address = free_port();
        let listens: Vec<SocketAddr> = (0..clients).map(|_| free_port()).collect();
        let advertised: Vec<SocketAddr> = listens.iter().copied().map(proxy).collect();
        let change = ways(&listens, &advertised);
        let text = |data: &Path| change(properties(address, address, free_port(), data));
        (Self::made(address, address, text), advertised)
    }

    fn over(address: SocketAddr, listens: SocketAddr) -> Self {
        Self::made(address, listens, |data| properties(address, listens, free_port(), data))
    }

    fn made(address: SocketAddr, listens: SocketAddr, text: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::Builder::new().prefix("kafka").tempdir().expect("a folder for a broker");
        let settings = folder.path().join("server.properties");
        std::fs::write(&settings, text(&folder.path().join("data"))).expect("the broker's settings");
        let mut kafka = Self { address, listens, process: None, folder };
        let mut format = kafka.java("kafka.tools.StorageTool");
        format.args(["format", "--cluster-id", "YWZmaWRhdml0LXRlc3RzMQ", "--config"]).arg(settings);
        let done = format.output().unwrap_or_else(|e| std::panic::panic_any(format!("{format:?}: {e}")));
        assert!(done.status.success(), "{format:?}: {}", String::from_utf8_lossy(&done.stderr));
        kafka.resume();
        kafka
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(cached("kafka", VERSION).join("*"))
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg(class);
        command
    }

    /// Where the broker itself takes connections.
    pub fn listens(&self) -> SocketAddr {
        self.listens
    }

    /// Its folder: settings, data, and its log `server.log`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Kills the process; what it had acknowledged stays for [`Kafka::resume`].
    pub fn pause(&mut self) {
        self.process = None;
    }

    /// Starts the process on the same ports and data.
    pub fn resume(&mut self) {
        let mut command = self.java("kafka.Kafka");
        command.arg(self.folder.path().join("server.properties"));
        let log = self.folder.path().join("server.log");
        self.process = Some(Process::listening(&mut command, &log, self.listens));
    }
}

fn properties(address: SocketAddr, listens: SocketAddr, controller: SocketAddr, data: &Path) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@{controller}\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=INTERNAL\n\
         listeners=PLAINTEXT://{listens},INTERNAL://{internal},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{address},INTERNAL://{internal}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={data}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=4\n\
         group.initial.rebalance.delay.ms=0\n\
         group.min.session.timeout.ms=1000\n",
        internal = free_port(),
        data = data.display(),
    )
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
