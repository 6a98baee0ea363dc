//! A real Prometheus. `AFFIDAVIT_PROMETHEUS` is the folder of `prometheus` and `promtool`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::client::{Call, send};
use crate::process::{Process, free_port};

/// `prometheus` or `promtool`.
///
/// # Panics
/// Where the suite of the tests does not say where they are.
pub fn tool(name: &str) -> Command {
    let folder = std::env::var_os("AFFIDAVIT_PROMETHEUS")
        .expect("AFFIDAVIT_PROMETHEUS: `tests/run prometheus` sets it");
    Command::new(PathBuf::from(folder).join(name))
}

/// A server with its configuration and its data in a folder, and where it answers.
///
/// # Panics
/// Where it does not listen within a minute.
pub fn server(dir: &Path, config: &str) -> (Process, SocketAddr) {
    std::fs::write(dir.join("prometheus.yaml"), config).expect("the configuration");
    let address = free_port();
    let mut command = tool("prometheus");
    command.arg(format!("--config.file={}", dir.join("prometheus.yaml").display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()));
    command.arg(format!("--web.listen-address={address}"));
    (Process::listening(&mut command, &dir.join("prometheus.log"), address), address)
}

/// What a query gives now.
///
/// # Errors
/// What the server says of it: it cannot be read, or not be answered.
pub async fn query(address: SocketAddr, expr: &str) -> Result<Vec<Value>, String> {
    let mut path = "/api/v1/query?query=".to_owned();
    for byte in expr.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    let call = Call { method: "GET".into(), path, headers: Vec::new(), body: Vec::new() };
    let got = send(address, &call).await;
    let answer: Value =
        serde_json::from_slice(&got.body).map_err(|error| format!("{error}: {}", got.text()))?;
    match answer["data"]["result"].as_array() {
        Some(result) if answer["status"] == "success" => Ok(result.clone()),
        _ => Err(answer.to_string()),
    }
}
