//! The OpenTelemetry Collector, built of its own parts (`tests/collector`): what comes in over OTLP/HTTP goes into a file, one
//! JSON line for each POST.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::cached::cached;
use crate::process::{Process, free_port};

/// As in `tests/run` and `tests/collector/go.mod`.
const VERSION: &str = "v0.161.0";

/// A collector with its folder.
#[derive(Debug)]
pub struct Otelcol {
    /// Where it takes OTLP over HTTP.
    pub address: SocketAddr,
    dir: PathBuf,
    process: Option<Process>,
}

impl Otelcol {
    /// A place for one in `dir`; not started.
    ///
    /// # Panics
    /// Where its files cannot be written.
    pub fn prepare(dir: &Path) -> Self {
        Self::with(dir, "")
    }

    /// As [`Otelcol::prepare`], with TLS and certificates of callers wanted; `pems` is what `Certificates` wrote.
    pub fn secured(dir: &Path, pems: &Path) -> Self {
        let file = |name: &str| pems.join(name).display().to_string();
        let (certificate, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
        Self::with(
            dir,
            &format!(", tls: {{ cert_file: {certificate}, key_file: {key}, client_ca_file: {ca} }}"),
        )
    }

    fn with(dir: &Path, more: &str) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for the collector");
        let address = free_port();
        let config = format!(
            "receivers:\n  otlp: {{ protocols: {{ http: {{ endpoint: {address}{more} }} }} }}\n\
             exporters:\n  file: {{ path: {d}/taken.jsonl, append: true, flush_interval: 100ms }}\n\
             service:\n  pipelines:\n    \
             traces: {{ receivers: [otlp], exporters: [file] }}\n    metrics: {{ receivers: [otlp], exporters: [file] }}\n",
            d = dir.display()
        );
        std::fs::write(dir.join("collector.yaml"), config).expect("the collector's configuration");
        Self { address, dir: dir.to_owned(), process: None }
    }

    /// Starts it.
    pub fn serve(&mut self) {
        let mut command = Command::new(cached("otelcol", VERSION));
        command.arg("--config").arg(self.dir.join("collector.yaml")).env("GOMAXPROCS", "2");
        self.process = Some(Process::listening(&mut command, &self.dir.join("collector.log"), self.address));
    }

    /// Ends it in order: what it took is in its file.
    ///
    /// # Panics
    /// Where it does not end well.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            assert_eq!(process.stop(), Some(0), "the collector did not end well");
        }
    }

    /// All that it wrote.
    pub fn text(&self) -> String {
        std::fs::read_to_string(self.dir.join("taken.jsonl")).unwrap_or_default()
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for line in self.lines() {
            for (resource, scope) in scopes(&line, "resourceSpans", "scopeSpans") {
                for span in list(&scope["spans"]) {
                    spans.push(Span {
                        resource: attributes(&resource),
                        attributes: attributes(span),
                        value: span.clone(),
                    });
                }
            }
        }
        spans
    }

    /// The points of the metric `name` that came last, with their attributes.
    pub fn points(&self, name: &str) -> Vec<(Map<String, Value>, Value)> {
        let mut last = Vec::new();
        for line in self.lines() {
            for (_, scope) in scopes(&line, "resourceMetrics", "scopeMetrics") {
                let metrics = list(&scope["metrics"]).iter().filter(|metric| metric["name"] == name);
                for metric in metrics {
                    let points = list(&metric["histogram"]["dataPoints"]).iter();
                    last = points.map(|point| (attributes(point), point.clone())).collect();
                }
            }
        }
        last
    }

    /// Waits until something holds of it.
    ///
    /// # Panics
    /// Where that takes longer than 40 s.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < Duration::from_secs(40), "{what}; {} spans came", self.spans().len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn lines(&self) -> Vec<Value> {
        // Its last line may still be on its way.
        self.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// A span as it came.
#[derive(Debug, Clone)]
pub struct Span {
    /// Attributes of its resource.
    pub resource: Map<String, Value>,
    /// Its attributes, by name: text, numbers, lists.
    pub attributes: Map<String, Value>,
    /// All of it.
    pub value: Value,
}

impl Span {
    /// A field's text; empty where it is not there.
    pub fn text(&self, field: &str) -> &str {
        self.value[field].as_str().unwrap_or_default()
    }

    /// From its start to its end, in nanoseconds.
    pub fn nanoseconds(&self) -> i64 {
        let at = |field: &str| self.text(field).parse::<i64>().unwrap_or(0);
        at("endTimeUnixNano") - at("startTimeUnixNano")
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn scopes(line: &Value, outer: &str, inner: &str) -> Vec<(Value, Value)> {
    let of = |one: &Value| {
        let resource = one["resource"].clone();
        list(&one[inner]).iter().map(|scope| (resource.clone(), scope.clone())).collect::<Vec<_>>()
    };
    list(&line[outer]).iter().flat_map(of).collect()
}

fn attributes(of: &Value) -> Map<String, Value> {
    let pairs = list(&of["attributes"]).iter();
    pairs.filter_map(|pair| Some((pair["key"].as_str()?.to_owned(), plain(&pair["value"])))).collect()
}

/// A value without its type: numbers that JSON has as text are numbers again.
fn plain(value: &Value) -> Value {
    if let Some(number) = value["intValue"].as_str().and_then(|text| text.parse::<i64>().ok()) {
        return number.into();
    }
    if let Some(items) = value["arrayValue"]["values"].as_array() {
        return items.iter().map(plain).collect();
    }
    value.as_object().and_then(|map| map.values().next()).cloned().unwrap_or(Value::Null)
}
