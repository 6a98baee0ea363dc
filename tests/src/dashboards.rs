//! The queries of the dashboards of `deploy/grafana`, for tests that run them against what really answers.

use std::collections::BTreeSet;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::process::ran;

/// A query as the source of the dashboards has it.
#[derive(Debug, Deserialize)]
pub struct Query {
    /// The dashboard's name.
    pub dashboard: String,
    /// The panel's title.
    pub panel: String,
    /// The query.
    pub expr: String,
    /// Its legend; empty where it has none.
    pub legend: String,
    /// Why it may show nothing but 0.
    pub calm: String,
    /// Who answers it: `prometheus` or `loki`.
    pub source: String,
}

impl Query {
    /// With what Grafana would put into it.
    ///
    /// # Panics
    /// Where it has a variable that no dashboard has.
    pub fn asked(&self) -> String {
        let mut expr = self.expr.clone();
        let typed = [("$instance", ".*"), ("$__rate_interval", "5m"), ("$__range", "10m"), ("$__auto", "5m")];
        let chosen =
            ["deployment", "gateway", "consumer", "model", "exchange"].map(|name| format!("${name}"));
        for (word, value) in typed.into_iter().chain(chosen.iter().map(|name| (name.as_str(), ".*"))) {
            expr = expr.replace(word, value);
        }
        assert!(!expr.contains('$'), "`{expr}` has a variable that no dashboard has");
        expr
    }

    /// The labels that its legend names.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        self.legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(label, _)| label)
    }

    /// What is wrong with the answer of a Prometheus.
    pub fn fault(&self, answer: Result<Vec<Value>, String>) -> Option<String> {
        let series = match answer {
            Ok(series) if series.is_empty() => return Some("shows nothing".into()),
            Ok(series) => series,
            Err(error) => return Some(error),
        };
        let missing = |label: &&str| !series.iter().any(|one| one["metric"][label].is_string());
        let sample = |one: &Value| one["value"][1].as_str()?.parse::<f64>().ok();
        let tells = |value: f64| value.is_finite() && value != 0.0;
        if self.calm.is_empty() {
            if let Some(label) = self.named().find(missing) {
                return Some(format!("has no label `{label}`"));
            }
            if !series.iter().filter_map(sample).any(tells) {
                return Some(format!("shows no number but 0: {series:?}"));
            }
        }
        None
    }
}

/// The queries of the dashboards as they are checked in.
fn checked_in() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for file in std::fs::read_dir(crate::root().join("deploy/grafana")).expect("the dashboards").flatten() {
        if file.path().extension().is_none_or(|end| end != "json") {
            continue;
        }
        let text = std::fs::read_to_string(file.path()).expect("a dashboard");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().expect("text").to_owned();
                found.insert((text(&panel["title"]), text(&target["expr"])));
            }
        }
    }
    found
}

/// The queries that `source` answers.
///
/// # Panics
/// Where the dashboards are older than what makes them.
pub fn queries(source: &str) -> Vec<Query> {
    let python = std::env::var_os("AFFIDAVIT_PYTHON").unwrap_or_else(|| "python3".into());
    let said = ran(Command::new(python)
        .arg("-B")
        .arg(crate::root().join("deploy/grafana/dashboards.py"))
        .arg("--queries"));
    let queries: Vec<Query> = serde_json::from_str(&said).expect("queries");
    let made: BTreeSet<_> = queries.iter().map(|query| (query.panel.clone(), query.expr.clone())).collect();
    assert_eq!(
        made,
        checked_in(),
        "the dashboards are older than their source: run deploy/grafana/dashboards.py"
    );
    queries.into_iter().filter(|query| query.source == source).collect()
}
