//! A Redis with a replica, and three Sentinels who watch it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Redis;
use crate::process::{Process, free_port};

/// A master, its replica and their sentinels. Ends when dropped.
#[derive(Debug)]
pub struct Sentinels {
    /// Where they listen.
    pub addresses: Vec<SocketAddr>,
    /// The master at the beginning, and its replica.
    pub servers: [Redis; 2],
    _processes: Vec<Process>,
    _folder: tempfile::TempDir,
}

impl Sentinels {
    /// The name of the master.
    pub const MASTER: &'static str = "counters";

    /// The user of the sentinels that may ask who the master is and nothing else, and its password.
    pub const USER: (&'static str, &'static str) = ("asker", "secret-of-sentinels");

    /// Starts them; the servers have `options` more.
    ///
    /// # Panics
    /// Where they do not start, or do not find each other.
    pub fn start(options: impl Fn(&Path) -> Vec<String>) -> Self {
        let master = Redis::start_with(&options);
        let (ip, port) = (master.address.ip().to_string(), master.address.port().to_string());
        let replica = Redis::start_with(|folder| {
            ["--replicaof".to_owned(), format!("{ip} {port}")].into_iter().chain(options(folder)).collect()
        });
        let folder = tempfile::tempdir().expect("a folder");
        let mut sentinels = Self {
            addresses: (0..3).map(|_| free_port()).collect(),
            servers: [master, replica],
            _processes: Vec::new(),
            _folder: folder,
        };
        let start = |address: &SocketAddr| {
            let own = sentinels._folder.path().join(address.port().to_string());
            std::fs::create_dir(&own).expect("a folder");
            let (name, (user, password)) = (Self::MASTER, Self::USER);
            let text = format!(
                "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor {name} {ip} {port} 2\n\
                 sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 5000\n\
                 sentinel sentinel-pass peers\nuser default on >peers ~* &* +@all\n\
                 user {user} on >{password} -@all +sentinel|get-master-addr-by-name\n",
                address.port(),
                own.display()
            );
            let file = own.join("sentinel.conf");
            std::fs::write(&file, text).expect("its configuration");
            let mut command = Redis::command("redis-server");
            Process::listening(command.arg(&file).arg("--sentinel"), &own.join("log"), *address)
        };
        let processes = sentinels.addresses.iter().map(start).collect();
        sentinels._processes = processes;
        let begun = Instant::now();
        while !sentinels.know_each_other() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the sentinels do not find each other");
            std::thread::sleep(Duration::from_millis(100));
        }
        sentinels
    }

    fn know_each_other(&self) -> bool {
        let replica = self.servers[1].cli(&["INFO", "replication"]);
        let is_synchronous = replica.contains("master_link_status:up");
        is_synchronous
            && self.addresses.iter().all(|address| {
                let said = Redis::command("redis-cli")
                    .args(["-a", "peers", "--no-auth-warning", "-p", &address.port().to_string()])
                    .args(["SENTINEL", "MASTER", Self::MASTER])
                    .output()
                    .expect("redis-cli runs");
                let said = String::from_utf8_lossy(&said.stdout).into_owned();
                let of = |name: &str| said.lines().skip_while(|line| *line != name).nth(1).map(str::to_owned);
                (of("num-slaves").as_deref(), of("num-other-sentinels").as_deref()) == (Some("1"), Some("2"))
            })
    }
}
