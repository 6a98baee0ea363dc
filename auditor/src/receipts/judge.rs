//! Judges receipts. No I/O, no clock.

use std::collections::BTreeMap;

use schemas::Origin;
use schemas::promise::Promise;
use schemas::trust::Trust;
use serde::Serialize;

use super::proven::{Log, Proven};
use super::read::Kept;
use crate::finding::{Code, Finding, Findings, Place};
use crate::time;

/// How much longer than its batch age a record may be on its way to the store.
const SLACK: i64 = 300 * time::SECOND;

/// What is said of one receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// The file's line.
    pub line: usize,
    /// `honoured`, `duplicate`, or the code of the finding.
    pub result: String,
    /// The log, where the receipt can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// The kind of the record that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
}

/// What is said of all of them.
#[derive(Debug, Default)]
pub struct Result {
    /// One for each receipt, in the order of the file.
    pub receipts: Vec<Judged>,
    /// What is wrong with them.
    pub findings: Findings,
}

impl Result {
    /// How many were found where they were promised.
    pub fn honoured(&self) -> usize {
        self.receipts.iter().filter(|judged| judged.result == "honoured").count()
    }

    /// How many were there before in the file.
    pub fn duplicates(&self) -> usize {
        self.receipts.iter().filter(|judged| judged.result == "duplicate").count()
    }
}

/// Judges every receipt.
pub fn judge(kept: &[Kept], proven: &Proven, trust: &Trust, now: i64) -> Result {
    let mut result = Result::default();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for one in kept {
        let mut judged = Judged {
            line: one.line,
            result: "honoured".into(),
            origin: None,
            position: None,
            kind: None,
            exchange: None,
        };
        let finding = match &one.promise {
            Err(wrong) => {
                let place = Place::object(format!("line {}", one.line));
                Some(Finding::new(Code::ReceiptUnjudged, place, "a receipt", wrong.clone()))
            }
            Ok(promise) => {
                judged.origin = Some(promise.origin.clone());
                judged.position = Some(promise.position);
                if let Some(record) = proven.records.get(&(promise.origin.clone(), promise.position)) {
                    judged.kind = Some(record.kind.clone());
                    judged.exchange.clone_from(&record.exchange);
                }
                if seen.insert(promise.to_string(), one.line).is_some() {
                    judged.result = "duplicate".into();
                    None
                } else {
                    wrong(one, promise, proven, trust, now)
                }
            }
        };
        if let Some(finding) = finding {
            judged.result = finding.code.to_string();
            result.findings.push(finding);
        }
        result.receipts.push(judged);
    }
    result
}

/// What is wrong with a receipt that can be read.
fn wrong(kept: &Kept, promise: &Promise, proven: &Proven, trust: &Trust, now: i64) -> Option<Finding> {
    let place = Place::record(&promise.origin, promise.position).of_item(format!("line {}", kept.line));
    if trust.gateway(&promise.origin).is_none() {
        let expected = "a log of a gateway of the trust file";
        return Some(Finding::new(
            Code::ReceiptUnjudged,
            place,
            expected,
            "a receipt of another deployment or gateway",
        ));
    }
    let Some(log) = proven.logs.get(&promise.origin) else {
        return Some(without_log(promise, proven, place));
    };
    let Some(key) = &log.key else {
        let expected = "the promise key that the log's `boot` names";
        return Some(Finding::new(
            Code::ReceiptForged,
            place,
            expected,
            "the log's gateway made no promises",
        ));
    };
    if let Err(error) = promise.verify(key) {
        let expected = "a signature by the promise key that the log's `boot` names";
        return Some(Finding::new(Code::ReceiptForged, place, expected, error.to_string()));
    }
    match proven.records.get(&(promise.origin.clone(), promise.position)) {
        None => Some(absent(promise, log, place, now)),
        Some(record) if record.leaf != promise.leaf => {
            let expected = format!("the promised leaf hash {}", promise.leaf);
            let found = format!("{}, a record of kind {}", record.leaf, record.kind);
            Some(Finding::new(Code::ReceiptNotHonoured, place, expected, found))
        }
        Some(record) => {
            let other = kept
                .exchange
                .as_ref()
                .filter(|exchange| record.exchange.as_deref() != Some(exchange.as_str()));
            let expected = format!("a record of exchange {}, for which the receipt was kept", other?);
            let found = format!("one of {}", record.exchange.as_deref().unwrap_or("none"));
            Some(Finding::new(Code::ReceiptForged, place, expected, found))
        }
    }
}

/// The promise holds, and no proven record is at its position.
fn absent(promise: &Promise, log: &Log, place: Place, now: i64) -> Finding {
    let expected = format!("a record with leaf hash {}", promise.leaf);
    if promise.position < log.size {
        let found = "its batch is not proven: `auditor verify` says why";
        return Finding::new(Code::ReceiptNotHonoured, place, expected, found)
            .with(crate::finding::Severity::Critical, crate::finding::Effect::Incomplete);
    }
    if log.closed {
        let found = format!("the log was closed at size {}, before it", log.size);
        return Finding::new(Code::ReceiptNotHonoured, place, expected, found);
    }
    let due = promise.time.saturating_add(log.batch_age).saturating_add(SLACK);
    if now <= due {
        let found = format!(
            "not yet: size {} is proven, and the batch may be on its way until {}",
            log.size,
            time::text(due)
        );
        return Finding::new(Code::ReceiptPending, place, expected, found);
    }
    let found =
        format!("size {} is proven, and the batch should have been there by {}", log.size, time::text(due));
    Finding::new(Code::ReceiptNotHonoured, place, expected, found)
        .with(crate::finding::Severity::Critical, crate::finding::Effect::Incomplete)
}

/// Nothing of the log is proven. Where another log of its gateway names the key, the log was there.
fn without_log(promise: &Promise, proven: &Proven, place: Place) -> Finding {
    let of_gateway = |origin: &Origin| {
        (origin.deployment(), origin.gateway()) == (promise.origin.deployment(), promise.origin.gateway())
    };
    let by = proven
        .logs
        .iter()
        .filter(|(origin, _)| of_gateway(origin))
        .find(|(_, log)| log.key.as_ref().is_some_and(|key| promise.verify(key).is_ok()));
    let expected = "the log that holds the promised record";
    match by {
        Some((other, _)) => {
            let found = format!(
                "nothing of it is proven; the receipt holds under the promise key that {other} names"
            );
            Finding::new(Code::ReceiptNotHonoured, place, expected, found)
                .with(crate::finding::Severity::Critical, crate::finding::Effect::Incomplete)
        }
        None => {
            let found = "nothing of it is proven, and no proven log of its gateway names a key under which the receipt holds";
            Finding::new(Code::ReceiptUnjudged, place, expected, found)
        }
    }
}
