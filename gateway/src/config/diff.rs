//! What a reload would change, and which of it needs a restart.

use serde_json::Value;

use super::load::Loaded;

/// Keys that are read once, when the process starts.
const RESTART: [&str; 14] = [
    "config.deployment",
    "config.gateway",
    "config.listen",
    "config.admin",
    "config.admin_socket",
    "config.evidence",
    "config.log",
    "config.limits.connections",
    "config.limits.provider_idle_connections",
    "config.limits.http2_streams",
    "secrets.evidence.out.kafka",
    "secrets.evidence.commit.kafka",
    "secrets.evidence.tap",
    "files.evidence.tap",
];

/// What differs between the configuration in force and the next one, as paths into the canonical form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Needs a restart: a reload with any of these is refused.
    pub restart: Vec<String>,
    /// Can take effect at once.
    pub live: Vec<String>,
}

impl Loaded {
    /// Compares with the next configuration.
    pub fn changes(&self, next: &Loaded) -> Changes {
        let parse = |loaded: &Loaded| serde_json::from_slice(&loaded.canonical).unwrap_or(Value::Null);
        let mut paths = Vec::new();
        differ("", &parse(self), &parse(next), &mut paths);
        if self.seal_seed != next.seal_seed {
            paths.push("config.evidence.seal_key".into());
        }
        if self.promise_seed != next.promise_seed {
            paths.push("config.evidence.promise_key".into());
        }
        if self.pseudonym_key != next.pseudonym_key {
            paths.push("config.evidence.pseudonym_key".into());
        }
        let needs_restart = |path: &String| {
            RESTART.iter().any(|key| {
                path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            })
        };
        let (restart, live) = paths.into_iter().partition(needs_restart);
        Changes { restart, live }
    }

    /// The keys that differ and need a restart, as typed in `gateway.yaml`.
    pub fn restart_keys(&self, next: &Loaded) -> Vec<String> {
        let plain = |path: String| path.strip_prefix("config.").map_or(path.clone(), str::to_owned);
        self.changes(next).restart.into_iter().map(plain).collect()
    }
}

fn differ(path: &str, one: &Value, other: &Value, paths: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            let added = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(added) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                differ(&path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), paths);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differ(&format!("{path}[{index}]"), a, b, paths);
            }
        }
        _ if one == other => {}
        _ => paths.push(path.to_owned()),
    }
}
