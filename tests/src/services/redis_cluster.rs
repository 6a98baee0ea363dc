//! A Redis Cluster of plain processes.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Redis;
use crate::process::free_port;

/// Masters first, then as many replicas as there are masters, or none. Ends when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    /// Its nodes.
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Three masters, each with so many replicas, all with `options` more.
    ///
    /// # Panics
    /// Where it does not come into being.
    pub fn start(replicas: usize, options: impl Fn(&Path) -> Vec<String>) -> Self {
        let node = |_| {
            Redis::start_with(|folder| {
                let bus = free_port().port().to_string();
                let own =
                    ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "1500"];
                own.iter().map(|option| (*option).to_owned()).chain(options(folder)).collect()
            })
        };
        let nodes: Vec<Redis> = (0..3 * (1 + replicas)).map(node).collect();
        let addresses: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
        let replicas = replicas.to_string();
        let mut arguments = vec!["--cluster", "create"];
        arguments.extend(addresses.iter().map(String::as_str));
        arguments.extend(["--cluster-replicas", &replicas, "--cluster-yes"]);
        let said = nodes[0].cli(&arguments);
        let cluster = Self { nodes };
        let begun = Instant::now();
        while !cluster.is_whole() {
            assert!(begun.elapsed() < Duration::from_secs(30), "no cluster: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
        cluster
    }

    /// Every node sees all slots served, and every replica has a link to its master.
    fn is_whole(&self) -> bool {
        self.nodes.iter().all(|node| {
            node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                && !node.cli(&["INFO", "replication"]).contains("master_link_status:down")
        }) && self.nodes[0].cli(&["CLUSTER", "NODES"]).matches(" connected").count() == self.nodes.len()
    }

    /// Which node has `key`, as the one at `asked` says.
    ///
    /// # Panics
    /// Where it names none.
    pub fn owner(&self, asked: usize, key: &str) -> usize {
        let said = self.nodes[asked].cli(&["EXISTS", key]);
        let Some((_, to)) = said.trim().rsplit_once(' ').filter(|_| said.starts_with("MOVED")) else {
            return asked;
        };
        let place = self.nodes.iter().position(|node| node.address.to_string() == to);
        place.unwrap_or_else(|| std::panic::panic_any(said))
    }

    /// Brings the slot of `key` from one master to another, key by key; `between` runs while it is on its way.
    ///
    /// # Panics
    /// Where a node says no.
    pub fn bring(&self, key: &str, from: usize, to: usize, between: impl FnOnce()) {
        let slot = self.nodes[from].cli(&["CLUSTER", "KEYSLOT", key]).trim().to_owned();
        let id = |node: usize| self.nodes[node].cli(&["CLUSTER", "MYID"]).trim().to_owned();
        let set = |node: usize, how: &str, id: &str| {
            let said = self.nodes[node].cli(&["CLUSTER", "SETSLOT", &slot, how, id]);
            assert_eq!(said.trim(), "OK", "{how}");
        };
        let (source, target) = (id(from), id(to));
        set(to, "IMPORTING", &source);
        set(from, "MIGRATING", &target);
        between();
        loop {
            let keys = self.nodes[from].cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
            if keys.is_empty() {
                break;
            }
            let port = self.nodes[to].address.port().to_string();
            let arguments =
                [&["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"], keys.as_slice()].concat();
            let said = self.nodes[from].cli(&arguments);
            assert!(["OK", "NOKEY"].contains(&said.trim()), "{said}");
        }
        set(to, "NODE", &target);
        set(from, "NODE", &target);
    }
}
