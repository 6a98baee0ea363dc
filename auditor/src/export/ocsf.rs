//! A record as an event of the OCSF class API Activity (6003), schema 1.6.0: <https://schema.ocsf.io/1.6.0/classes/api_activity>.
//!
//! The same shape as the gateway's live tap writes (`schemas/json/tap.ocsf.schema.json`): what the class has a name for
//! stands under it; the leaf itself, its position, log and hash stand in `unmapped`.

use serde_json::{Map, Value, json};

/// One proven record.
#[derive(Debug)]
pub struct Record<'a> {
    /// The log.
    pub origin: &'a str,
    /// Its position there.
    pub position: u64,
    /// Its kind.
    pub kind: &'a str,
    /// Its time, microseconds UTC.
    pub at: i64,
    /// SHA-256 of the leaf, hexadecimal.
    pub leaf_hash: &'a str,
    /// The leaf.
    pub leaf: Value,
}

impl Record<'_> {
    fn text(&self, pointer: &str) -> Option<&str> {
        self.leaf.pointer(pointer).and_then(Value::as_str)
    }

    /// Of where the record tells: of the attempt that served, of the attempt itself, else of the first dispatch.
    fn went(&self, what: &str) -> Option<&str> {
        match self.kind {
            "attempt" | "side_call" => self.text(&format!("/{what}")),
            _ if self.leaf.get("served").is_some() => self.text(&format!("/served/{what}")),
            _ => self.text(&format!("/asked/{what}")),
        }
    }

    fn number(&self, pointer: &str) -> Option<i64> {
        self.leaf.pointer(pointer).and_then(Value::as_i64)
    }

    /// Deployment and gateway of the log's name.
    fn gateway(&self) -> (&str, &str) {
        let mut parts = self.origin.split('/');
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }

    /// OCSF's `severity_id` and its caption.
    fn severity(&self) -> (u8, &'static str) {
        let status = |pointer: &str| self.number(pointer).is_some_and(|status| status >= 400);
        let failed = match self.kind {
            "refusal" => true,
            "outcome" => {
                !matches!(self.text("/end"), Some("complete" | "client_abort"))
                    || status("/status")
                    || status("/provider_status")
            }
            "close" => self.text("/reason") != Some("shutdown"),
            _ => false,
        };
        match self.kind {
            "gap" if self.text("/reason") == Some("torn_tail") => (3, "Medium"),
            "gap" => (5, "Critical"),
            _ if self.text("/verdict/decision").is_some_and(|decision| decision != "allow") => (4, "High"),
            _ if failed => (3, "Medium"),
            _ => (1, "Informational"),
        }
    }

    fn activity(&self) -> (u32, &str) {
        match self.text("/asked/method") {
            Some("POST") => (1, "Create"),
            Some("GET" | "HEAD" | "OPTIONS") => (2, "Read"),
            Some("PUT" | "PATCH") => (3, "Update"),
            Some("DELETE") => (4, "Delete"),
            _ => (99, self.kind),
        }
    }

    fn actor(&self) -> Value {
        let Some(name) = self.text("/caller/consumer/value").or_else(|| self.text("/actor")) else {
            let name = if self.kind == "refusal" { "unauthenticated" } else { self.gateway().1 };
            return json!({ "app_name": name });
        };
        let mut user = Map::new();
        put(&mut user, "name", Some(json!(name)));
        put(&mut user, "uid", self.text("/caller/key").map(|key| json!(key)));
        let organisation = self.text("/caller/organisation/value");
        put(&mut user, "org", organisation.map(|name| json!({ "name": name })));
        let team = self.text("/caller/team/value");
        put(&mut user, "groups", team.map(|name| json!([{ "name": name }])));
        json!({ "user": user })
    }

    fn metadata(&self) -> Value {
        let (deployment, gateway) = self.gateway();
        let mut metadata = Map::new();
        for (key, value) in [
            ("version", json!("1.6.0")),
            (
                "product",
                json!({
                    "name": "Affidavit", "vendor_name": "Affidavit", "version": env!("CARGO_PKG_VERSION"),
                    "uid": format!("{deployment}/{gateway}"),
                }),
            ),
            ("uid", json!(format!("{}/{}", self.origin, self.position))),
            ("event_code", json!(self.kind)),
            ("log_name", json!(self.origin)),
            ("log_provider", json!("affidavit")),
            ("sequence", json!(self.position)),
        ] {
            metadata.insert(key.into(), value);
        }
        put(&mut metadata, "correlation_uid", self.text("/exchange").map(|id| json!(id)));
        metadata.into()
    }

    fn api(&self) -> Value {
        let mut api = Map::new();
        put(&mut api, "operation", Some(json!(self.text("/asked/operation").unwrap_or(self.kind))));
        put(&mut api, "service", self.went("provider").map(|name| json!({ "name": name })));
        put(&mut api, "request", self.text("/exchange").map(|id| json!({ "uid": id })));
        let mut response = Map::new();
        put(&mut response, "code", self.number("/status").map(|code| json!(code)));
        put(&mut response, "error", self.reason().map(|reason| json!(reason)));
        if !response.is_empty() {
            put(&mut api, "response", Some(response.into()));
        }
        api.into()
    }

    fn reason(&self) -> Option<&str> {
        self.text("/reason").or_else(|| self.text("/answered/error_type"))
    }

    fn message(&self) -> String {
        match (self.kind, self.text("/reason"), self.text("/end")) {
            ("outcome", _, Some(end)) => format!("outcome: {end}"),
            (kind, Some(reason), _) => format!("{kind}: {reason}"),
            (kind, ..) => kind.to_owned(),
        }
    }

    /// The event.
    pub fn event(&self) -> Value {
        let ((activity, activity_name), (severity_id, severity)) = (self.activity(), self.severity());
        let mut event = Map::new();
        for (key, value) in [
            ("metadata", self.metadata()),
            ("time", json!(self.at.div_euclid(1000))),
            ("category_uid", json!(6)),
            ("category_name", json!("Application Activity")),
            ("class_uid", json!(6003)),
            ("class_name", json!("API Activity")),
            ("activity_id", json!(activity)),
            ("activity_name", json!(activity_name)),
            ("type_uid", json!(600_300 + activity)),
            ("severity_id", json!(severity_id)),
            ("severity", json!(severity)),
            ("message", json!(self.message())),
            ("actor", self.actor()),
            ("api", self.api()),
        ] {
            event.insert(key.into(), value);
        }
        // No record holds an address; the class wants a source by some name.
        let source = match (self.text("/caller/consumer/value"), self.kind) {
            (Some(consumer), _) => consumer,
            (None, "refusal") => "unauthenticated",
            (None, _) => self.gateway().1,
        };
        put(&mut event, "src_endpoint", Some(json!({ "name": source })));
        let provider = self.went("provider");
        let service = self.went("target").or(provider);
        put(&mut event, "dst_endpoint", provider.map(|name| json!({ "name": name, "svc_name": service })));
        if let Some(method) = self.text("/asked/method") {
            let mut request = Map::new();
            put(&mut request, "http_method", Some(json!(method)));
            put(&mut request, "uid", self.text("/exchange").map(|id| json!(id)));
            put(&mut event, "http_request", Some(request.into()));
        }
        let status = self.number("/status");
        put(&mut event, "http_response", status.map(|code| json!({ "code": code })));
        if matches!(self.kind, "outcome" | "refusal") {
            let (id, caption) = if severity_id > 1 { (2, "Failure") } else { (1, "Success") };
            put(&mut event, "status_id", Some(json!(id)));
            put(&mut event, "status", Some(json!(caption)));
            let detail = self.reason().or_else(|| self.text("/end"));
            put(&mut event, "status_detail", detail.map(|detail| json!(detail)));
            put(&mut event, "status_code", status.map(|code| json!(code.to_string())));
        }
        let total_us = self.number("/timing/total_us").or_else(|| self.number("/total_us"));
        put(&mut event, "duration", total_us.map(|us| json!(us / 1000)));
        let unmapped = json!({ "affidavit": {
            "origin": self.origin, "position": self.position, "kind": self.kind, "leaf_hash": self.leaf_hash,
            "leaf": self.leaf,
        }});
        put(&mut event, "unmapped", Some(unmapped));
        event.into()
    }
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.into(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_and_the_outcome_behind_it_say_where_they_went() {
        let went = |kind: &str, leaf: Value| {
            let (origin, leaf_hash) = ("acme/gw1/e-1", "00");
            let event = Record { origin, position: 7, kind, at: 0, leaf_hash, leaf }.event();
            (
                event["dst_endpoint"].clone(),
                event["api"]["service"]["name"].clone(),
                event["duration"].clone(),
            )
        };
        let (asked, of) = (
            json!({ "provider": "openai", "target": "eu" }),
            |name: &str, service: &str| json!({ "name": name, "svc_name": service }),
        );
        let attempt = json!({ "provider": "other", "target": "other-us", "number": 1, "phase": "end", "total_us": 5000 });
        assert_eq!(went("attempt", attempt), (of("other", "other-us"), json!("other"), json!(5)));
        let served = json!({ "provider": "other", "target": "other-us", "number": 1 });
        let outcome = json!({ "asked": asked, "served": served });
        assert_eq!(went("outcome", outcome), (of("other", "other-us"), json!("other"), Value::Null));
        let first = json!({ "asked": asked });
        assert_eq!(went("outcome", first), (of("openai", "eu"), json!("openai"), Value::Null));
        let plain = json!({ "asked": { "provider": "openai" } });
        assert_eq!(went("intent", plain), (of("openai", "openai"), json!("openai"), Value::Null));
    }

    #[test]
    fn a_refused_call_says_who_what_and_why() {
        let leaf = json!({ "v": 1, "at": 1_795_169_700_123_456_i64, "kind": "refusal",
            "exchange": "01a1fc23-fcba-7aed-b09b-6a27f061fc4c", "reason": "policy_denied", "status": 403,
            "caller": { "consumer": { "value": "payroll-bot", "source": "key" }, "key": "k-1" },
            "asked": { "provider": "openai", "operation": "chat", "method": "POST" },
            "verdict": { "decision": "deny" } });
        let at = leaf["at"].as_i64().unwrap_or_default();
        let record =
            Record { origin: "acme/gw1/e-1", position: 7, kind: "refusal", at, leaf_hash: "00", leaf };
        let event = record.event();
        assert_eq!(event["metadata"]["uid"], "acme/gw1/e-1/7");
        assert_eq!(event["time"], json!(1_795_169_700_123_i64));
        assert_eq!(event["actor"]["user"], json!({ "name": "payroll-bot", "uid": "k-1" }));
        assert_eq!(event["api"]["response"], json!({ "code": 403, "error": "policy_denied" }));
        assert_eq!((&event["severity_id"], &event["status_id"]), (&json!(4), &json!(2)));
        assert_eq!(event["type_uid"], json!(600_301));
    }

    #[test]
    fn a_record_that_says_nothing_is_an_event_with_all_that_the_class_requires() {
        for kind in ["heartbeat", "gap", "outcome", "refusal", "something new"] {
            let record =
                Record { origin: "acme", position: 0, kind, at: -1, leaf_hash: "", leaf: Value::Null };
            let event = record.event();
            for key in [
                "activity_id",
                "actor",
                "api",
                "category_uid",
                "class_uid",
                "metadata",
                "severity_id",
                "src_endpoint",
                "time",
                "type_uid",
            ] {
                assert!(event.get(key).is_some(), "{kind}: {key}");
            }
        }
    }
}
