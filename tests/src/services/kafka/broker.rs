//! One broker's process and settings.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::access::Guard;
use super::java;
use crate::process::{Process, free_port, ran};

/// The ports of a broker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doors {
    /// Where clients are told to come.
    pub(super) address: SocketAddr,
    /// Where it listens for them.
    pub(super) listens: SocketAddr,
    pub(super) internal: SocketAddr,
    pub(super) controller: SocketAddr,
}

impl Doors {
    pub(super) fn new(listens: SocketAddr) -> Self {
        Self { address: listens, listens, internal: free_port(), controller: free_port() }
    }
}

/// A broker that runs, or does not.
#[derive(Debug)]
pub(super) struct Broker {
    pub(super) folder: PathBuf,
    pub(super) doors: Doors,
    pub(super) process: Option<Process>,
    options: Vec<String>,
}

impl Broker {
    /// Writes the settings of the `n`th of those at `all`.
    pub(super) fn prepare(
        folder: &Path,
        n: usize,
        all: &[Doors],
        guard: Option<&Guard>,
        change: &dyn Fn(String) -> String,
    ) -> Self {
        let folder = folder.join(n.to_string());
        std::fs::create_dir_all(&folder).expect("a folder for a broker");
        let mut text = settings(n, all, &folder.join("data"), guard);
        let options = guard.map(Guard::options).unwrap_or_default();
        text.push_str(&guard.map(Guard::settings).unwrap_or_default());
        std::fs::write(folder.join("server.properties"), change(text)).expect("the broker's settings");
        Self { folder, doors: all[n], process: None, options }
    }

    /// Makes its data folder, with the users that are known by a password.
    pub(super) fn format(&self, guard: Option<&Guard>) {
        let mut command = java("kafka.tools.StorageTool", &self.options);
        command.args(["format", "--cluster-id", "YWZmaWRhdml0LXRlc3RzMQ", "--config"]);
        command.arg(self.folder.join("server.properties"));
        command.args(guard.map(Guard::users).unwrap_or_default());
        ran(&mut command);
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }

    pub(super) fn spawn(&mut self) {
        if self.process.is_none() {
            let mut command = java("kafka.Kafka", &self.options);
            command.arg(self.folder.join("server.properties"));
            self.process = Some(Process::start(&mut command, &self.folder.join("server.log")));
        }
    }

    pub(super) fn wait(&mut self) {
        let listens = self.doors.listens;
        if let Some(process) = &mut self.process {
            process.until("the broker listens", || std::net::TcpStream::connect(listens).is_ok());
        }
    }
}

fn settings(n: usize, all: &[Doors], data: &Path, guard: Option<&Guard>) -> String {
    let Doors { address, listens, internal, controller } = all[n];
    let voters = all.iter().enumerate().map(|(n, doors)| format!("{}@{}", n + 1, doors.controller));
    let (mut listeners, mut protocols) = (String::new(), String::new());
    for (name, protocol, at) in guard.map(Guard::listeners).unwrap_or_default() {
        let _ = write!(listeners, ",{name}://{at}");
        let _ = write!(protocols, ",{name}:{protocol}");
    }
    format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={voters}\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=INTERNAL\n\
         listeners=PLAINTEXT://{listens},INTERNAL://{internal},CONTROLLER://{controller}{listeners}\n\
         advertised.listeners=PLAINTEXT://{address},INTERNAL://{internal}{listeners}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}\n\
         log.dirs={data}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor={copies}\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor={copies}\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=4\n\
         broker.session.timeout.ms=3000\n\
         broker.heartbeat.interval.ms=500\n\
         group.initial.rebalance.delay.ms=0\n\
         group.min.session.timeout.ms=1000\n",
        id = n + 1,
        voters = voters.collect::<Vec<_>>().join(","),
        data = data.display(),
        copies = all.len(),
    )
}
