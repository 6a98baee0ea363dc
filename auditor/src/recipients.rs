//! Who got the data of an exchange (GDPR Article 15 (1) c): every target that bytes of it may have gone to, as its records say.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A target that bytes may have gone to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// The configured provider.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<String>,
    /// The configured target of it: which of its regions or hosts, as the configuration names them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// Its wire format.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dialect: Option<String>,
    /// The model that was sent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
}

impl Recipient {
    /// In a line.
    pub fn told(&self) -> String {
        let mut told = self.provider.clone().unwrap_or_else(|| "a provider that is not named".into());
        for (name, value) in [("target", &self.target), ("model", &self.model)] {
            if let Some(value) = value {
                told.push_str(&format!(", {name} {value}"));
            }
        }
        told
    }
}

/// An attempt ends for this reason where nothing was sent. (`quota` is what a provider says that has the request.)
const NOT_SENT: &str = "connect";

/// The recipients of an exchange with these records, in the order in which they were asked, each once.
pub fn of<'a>(records: impl Iterator<Item = &'a Value>) -> Vec<Recipient> {
    let mut asked: Vec<(String, Recipient)> = Vec::new();
    for leaf in records {
        let text = |pointer: &str| leaf.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let number = |pointer: &str| leaf.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let kind = text("/kind").unwrap_or_default();
        match (kind.as_str(), text("/phase").as_deref()) {
            ("intent", _) => {
                let first = Recipient {
                    provider: text("/asked/provider"),
                    target: text("/asked/target"),
                    dialect: text("/asked/dialect"),
                    model: text("/asked/sent_model").or_else(|| text("/asked/requested_model")),
                };
                asked.push((place("attempt", 0), first));
            }
            (kind @ ("attempt" | "side_call"), Some("open")) => {
                let further = Recipient {
                    provider: text("/provider"),
                    target: text("/target"),
                    dialect: text("/dialect"),
                    model: text("/model"),
                };
                asked.push((place(kind, number("/number")), further));
            }
            (kind @ ("attempt" | "side_call"), Some("end")) => {
                let at = place(kind, number("/number"));
                if text("/reason").as_deref() == Some(NOT_SENT) {
                    asked.retain(|(other, _)| *other != at);
                } else if let Some((_, first)) = asked.iter_mut().find(|(other, _)| *other == at) {
                    // The end of number 0 names its target also where `asked` does not.
                    first.target = first.target.take().or_else(|| text("/target"));
                }
            }
            ("outcome", _) if text("/end").as_deref() == Some("unreachable") => {
                let at = place("attempt", number("/served/number"));
                asked.retain(|(other, _)| *other != at);
            }
            _ => {}
        }
    }
    once(asked.into_iter().map(|(_, recipient)| recipient))
}

/// Each once, in the order in which they come first.
pub fn once(all: impl Iterator<Item = Recipient>) -> Vec<Recipient> {
    let mut seen = BTreeSet::new();
    all.filter(|one| seen.insert(one.clone())).collect()
}

fn place(kind: &str, number: u64) -> String {
    format!("{kind} {number}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(records: &[Value]) -> Vec<String> {
        of(records.iter()).iter().map(Recipient::told).collect()
    }

    fn attempt(number: u64, phase: &str, provider: &str, reason: &str) -> Value {
        json!({ "kind": "attempt", "number": number, "phase": phase, "target": format!("{provider}-eu"), "provider": provider,
            "model": "m", "reason": reason })
    }

    #[test]
    fn everybody_whom_bytes_may_have_gone_to_is_named_once_and_nobody_else() {
        let intent = json!({ "kind": "intent", "asked": { "provider": "a", "requested_model": "fast", "sent_model": "m" } });
        let outcome =
            |end: &str, served: u64| json!({ "kind": "outcome", "end": end, "served": { "number": served } });
        let (a, b, c) = ("a, target a-eu, model m", "b, target b-eu, model m", "c, target c-eu, model m");
        let fails = |why| attempt(0, "end", "a", why);
        let table = [
            (vec![intent.clone()], vec!["a, model m"]),
            (vec![intent.clone(), json!({ "kind": "outcome", "end": "unreachable" })], vec![]),
            (vec![intent.clone(), fails("status"), attempt(1, "open", "b", "fallback")], vec![a, b]),
            (vec![intent.clone(), fails("connect"), attempt(1, "open", "b", "fallback")], vec![b]),
            (
                vec![
                    intent.clone(),
                    fails("timeout"),
                    attempt(1, "open", "a", "retry"),
                    attempt(1, "end", "a", "status"),
                    attempt(2, "open", "b", "fallback"),
                    attempt(2, "end", "b", "quota"),
                    attempt(3, "open", "c", "fallback"),
                    outcome("complete", 3),
                ],
                vec![a, b, c],
            ),
            (
                vec![intent, fails("status"), attempt(1, "open", "b", "fallback"), outcome("unreachable", 1)],
                vec![a],
            ),
            (vec![json!({ "kind": "refusal", "asked": { "provider": "a" } })], vec![]),
        ];
        for (records, wanted) in table {
            assert_eq!(told(&records), wanted, "{records:?}");
        }
    }
}
