//! Grafana Loki: one process, files in a folder, without the limits that would slow a test down.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::cached::cached;
use crate::client::{Call, send};
use crate::process::{Process, free_port, http};

/// As in `tests/run`.
const VERSION: &str = "v3.7.8";
/// So far back, and ahead, a query looks.
const SPAN: Duration = Duration::from_secs(3600);
/// The largest number of lines in an answer: more than a test writes into one log.
const MOST: usize = 100_000;

/// A Loki. Ends when dropped, with its data.
#[derive(Debug)]
pub struct Loki {
    /// Where it listens.
    pub address: SocketAddr,
    process: Option<Process>,
    folder: tempfile::TempDir,
}

impl Loki {
    /// Starts one on a free port with an empty folder; `limits` are lines of `limits_config`, indented by two, `ingester` of
    /// `ingester`.
    ///
    /// # Panics
    /// Where it is not ready within a minute.
    pub fn start(limits: &str, ingester: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("loki").tempdir().expect("a folder for a server");
        let (address, grpc) = (free_port(), free_port());
        let dir = folder.path().display();
        let config = format!(
            "auth_enabled: true\n\
             server: {{ http_listen_address: 127.0.0.1, http_listen_port: {}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {}, log_level: warn }}\n\
             common:\n  path_prefix: {dir}\n  replication_factor: 1\n  instance_addr: 127.0.0.1\n  \
             ring: {{ kvstore: {{ store: inmemory }} }}\n  \
             storage: {{ filesystem: {{ chunks_directory: {dir}/chunks, rules_directory: {dir}/rules }} }}\n\
             schema_config:\n  configs:\n    \
             - {{ from: \"2026-01-01\", store: tsdb, object_store: filesystem, schema: v13, index: {{ prefix: index_, period: 24h }} }}\n\
             limits_config:\n  max_entries_limit_per_query: {MOST}\n{limits}\
             ingester:\n  lifecycler: {{ min_ready_duration: 0s }}\n{ingester}\
             analytics: {{ reporting_enabled: false }}\n",
            address.port(),
            grpc.port()
        );
        std::fs::write(folder.path().join("loki.yaml"), config).expect("its configuration");
        let mut loki = Self { address, process: None, folder };
        loki.resume();
        loki
    }

    /// Starts it again, with the data that it had.
    ///
    /// # Panics
    /// Where it is not ready within a minute.
    pub fn resume(&mut self) {
        self.begin();
        self.wait();
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// Where it is not within a minute.
    pub fn wait(&mut self) {
        let address = self.address;
        if let Some(process) = &mut self.process {
            // It says 200 with another text before.
            process.until("it is ready", || http(address, "GET /ready", b"").ends_with("ready\n"));
        }
    }

    /// Starts it again, and does not wait until it is ready.
    pub fn begin(&mut self) {
        let mut command = Command::new(cached("loki", VERSION));
        command.arg(format!("-config.file={}", self.folder.path().join("loki.yaml").display()));
        command.env("GOMAXPROCS", "2");
        self.process = Some(Process::start(&mut command, &self.folder.path().join("server.log")));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// What a query of a tenant gives over the last and the next hour: streams, or series.
    ///
    /// # Errors
    /// What the server says of it.
    pub async fn query(&self, tenant: &str, expr: &str) -> Result<Vec<Value>, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (start, end) = (now.saturating_sub(SPAN).as_nanos(), (now + SPAN).as_nanos());
        let mut path = format!(
            "/loki/api/v1/query_range?limit={MOST}&direction=forward&step=60&start={start}&end={end}&query="
        );
        for byte in expr.bytes() {
            path.push_str(&format!("%{byte:02X}"));
        }
        let call = Call { method: "GET".into(), path, headers: Vec::new(), body: Vec::new() };
        let got = send(self.address, &call.header("x-scope-orgid", tenant)).await;
        let answer: Value =
            serde_json::from_slice(&got.body).map_err(|error| format!("{error}: {}", got.text()))?;
        match answer["data"]["result"].as_array() {
            Some(result) if answer["status"] == "success" => Ok(result.clone()),
            _ => Err(answer.to_string()),
        }
    }
}
