//! The configuration of record: canonical JSON of everything that rules, secrets as fingerprints (CH-4).

use schemas::canonical;
use serde_json::{Map, Value, json};

use super::load::{CREDENTIAL_LABEL, Loaded};
use super::secret::Fingerprints;

/// The first key's value; a new form gets a new one.
const FORM: &str = "affidavit/config/v1";

/// Canonical JSON: `form`, `config` (as typed, defaults filled in, paths resolved), `files` (SHA-256 of each file
/// that rules and is no secret), `keys` (entries of the keys file, secrets as fingerprints), `secrets` (fingerprints).
pub(super) fn canonical(loaded: &Loaded, fingerprints: &Fingerprints) -> Result<Vec<u8>, String> {
    let mut files = Map::new();
    for (name, file) in loaded.ruling_files() {
        files.insert(name.into(), json!({ "sha256": file.sha256, "length": file.bytes.len() }));
    }
    let mut secrets = Map::new();
    for (provider, secret) in &loaded.credentials {
        let label = format!("{CREDENTIAL_LABEL}/{provider}");
        secrets.insert(label.clone(), fingerprints.of(&label, secret.expose().as_bytes()).into());
    }
    for typed in &loaded.config.providers {
        let secrets_of = loaded.provider_keys.get(typed.name.as_str());
        for (key, secret) in typed.keys.iter().zip(secrets_of.into_iter().flatten()) {
            let label = format!("{CREDENTIAL_LABEL}/{}/{}", typed.name, key.name);
            secrets.insert(label.clone(), fingerprints.of(&label, secret.expose().as_bytes()).into());
        }
    }
    for (provider, key) in &loaded.aws_keys {
        for (part, secret) in key.parts() {
            let label = format!("aws/{provider}/{part}");
            secrets.insert(label.clone(), fingerprints.of(&label, secret.expose().as_bytes()).into());
        }
    }
    for (provider, upstream) in &loaded.upstreams {
        let list = upstream.fingerprints(&format!("upstream/{provider}"), fingerprints);
        secrets.extend(list.into_iter().map(|(label, fingerprint)| (label, fingerprint.into())));
    }
    for (part, secret) in [("out", &loaded.kafka_password), ("commit", &loaded.commit_password)] {
        if let Some(secret) = secret {
            let label = format!("evidence.{part}.kafka.sasl.secret");
            secrets.insert(label.clone(), fingerprints.of(&label, secret.expose().as_bytes()).into());
        }
    }
    for (index, (sink, files)) in loaded.config.evidence.tap.iter().zip(&loaded.tap).enumerate() {
        let (way, _) = sink.way();
        let key = match way {
            "kafka" => "sasl.secret",
            "loki" => "password",
            _ => "secret",
        };
        for (key, secret) in [(key, &files.secret), ("token", &files.token)] {
            if let Some(secret) = secret {
                let label = format!("evidence.tap[{index}].{way}.{key}");
                secrets.insert(label.clone(), fingerprints.of(&label, secret.expose().as_bytes()).into());
            }
        }
        if let Some((_, key)) = &files.client {
            let label = format!("evidence.tap[{index}].{way}.tls.key");
            secrets.insert(label.clone(), fingerprints.of(&label, key.secret_der()).into());
        }
    }
    if let Some(otlp) = &loaded.otlp {
        for (name, secret) in &otlp.headers {
            let label = format!("telemetry.otlp.headers.{name}");
            secrets.insert(label.clone(), fingerprints.of(&label, secret.expose().as_bytes()).into());
        }
        if let Some((_, key)) = &otlp.tls.client {
            let label = "telemetry.otlp.tls.key".to_owned();
            secrets.insert(label.clone(), fingerprints.of(&label, key.secret_der()).into());
        }
    }
    if let Some(files) = &loaded.quota_store {
        if let Some(secret) = &files.secret {
            let label = "quotas.store.redis.password".to_owned();
            secrets.insert(label.clone(), fingerprints.of(&label, secret.expose().as_bytes()).into());
        }
        if let Some((_, key)) = &files.client {
            let label = "quotas.store.redis.tls.key".to_owned();
            secrets.insert(label.clone(), fingerprints.of(&label, key.secret_der()).into());
        }
    }
    if let Some(secret) = &loaded.quota_sentinel {
        let label = "quotas.store.redis.sentinel.password".to_owned();
        secrets.insert(label.clone(), fingerprints.of(&label, secret.expose().as_bytes()).into());
    }
    if let Some(secret) = &loaded.commit_secret {
        let label = "evidence.commit.kafka.secret".to_owned();
        secrets.insert(label.clone(), fingerprints.of(&label, secret.as_ref()).into());
    }
    for (index, tls) in loaded.tls.iter().enumerate() {
        if let Some(tls) = tls {
            let label = format!("listen[{index}].tls.key");
            secrets.insert(label.clone(), fingerprints.of(&label, tls.key.secret_der()).into());
        }
    }
    let keys: Vec<Value> = loaded
        .keys
        .entries()
        .map(|entry| {
            let mut value = serde_json::to_value(entry).map_err(|error| error.to_string())?;
            if let Some(map) = value.as_object_mut() {
                map.remove("sha256");
                let label = format!("key/{}", entry.id);
                map.insert("secret".into(), fingerprints.of(&label, &entry.sha256.0).into());
            }
            Ok(value)
        })
        .collect::<Result<_, String>>()?;
    let config = serde_json::to_value(&loaded.config).map_err(|error| error.to_string())?;
    let whole = json!({ "form": FORM, "config": config, "files": files, "keys": keys, "secrets": secrets });
    canonical::to_vec(&whole).map_err(|error| error.to_string())
}
