//! Judges receipts. No I/O, no clock.

use std::collections::BTreeSet;

use schemas::promise::Promise;
use schemas::trust::Trust;
use schemas::{ExchangeId, Origin, Sha256Hex};
use serde::Serialize;

use super::proven::{Boot, Log, Proven};
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
    // Kept for another exchange it is another claim, and judged by itself.
    let mut seen: BTreeSet<(Sha256Hex, Option<&ExchangeId>)> = BTreeSet::new();
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
                Some(Finding::new(Code::ReceiptUnjudged, place, "a receipt", wrong.to_string()))
            }
            Ok(promise) => {
                judged.origin = Some(promise.origin.clone());
                judged.position = Some(promise.position);
                if let Some(record) = proven.records.get(&(promise.origin.clone(), promise.position)) {
                    judged.kind = Some(record.kind.clone());
                    judged.exchange.clone_from(&record.exchange);
                }
                if seen.insert((Sha256Hex::of(promise.to_string().as_bytes()), one.exchange.as_ref())) {
                    wrong(one, promise, proven, trust, now)
                } else {
                    judged.result = "duplicate".into();
                    None
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
    let batch_age = match counts(promise, log, proven, &place) {
        Ok(batch_age) => batch_age,
        Err(finding) => return Some(*finding),
    };
    match proven.records.get(&(promise.origin.clone(), promise.position)) {
        None if is_expired(promise, log, proven) => Some(expired(promise, place)),
        None => Some(absent(promise, log, batch_age, place, now)),
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

/// Whether the gateway made the promise: by the key of the log's own `boot`, or, where that is not proven, by one that another
/// log of the gateway names. Gives the batch age of the `boot` that counted.
fn counts(
    promise: &Promise,
    log: &Log,
    proven: &Proven,
    place: &Place,
) -> std::result::Result<i64, Box<Finding>> {
    let expected = "a signature by the promise key that the log's `boot` names";
    let Some(boot) = &log.boot else {
        return by_another(promise, proven).map(|(_, boot)| boot.batch_age).ok_or_else(|| {
            let found = "its boot is not proven, and no other proven log of its gateway names a key under which the receipt holds";
            Box::new(Finding::new(Code::ReceiptUnjudged, place.clone(), expected, found))
        });
    };
    let forged = |found: String| Box::new(Finding::new(Code::ReceiptForged, place.clone(), expected, found));
    let key = boot.key.as_ref().ok_or_else(|| forged("the log's gateway made no promises".into()))?;
    promise.verify(key).map_err(|error| forged(error.to_string()))?;
    Ok(boot.batch_age)
}

/// The other proven log of the gateway whose `boot` names a key under which the promise holds.
fn by_another<'a>(promise: &Promise, proven: &'a Proven) -> Option<(&'a Origin, &'a Boot)> {
    let of_gateway = |origin: &Origin| {
        (origin.deployment(), origin.gateway()) == (promise.origin.deployment(), promise.origin.gateway())
    };
    let named = proven.logs.iter().filter(|(origin, _)| of_gateway(origin));
    let mut named = named.filter_map(|(origin, log)| Some((origin, log.boot.as_ref()?)));
    named.find(|(_, boot)| boot.key.as_ref().is_some_and(|key| promise.verify(key).is_ok()))
}

/// Whether what was promised lay in a batch that is gone lawfully.
fn is_expired(promise: &Promise, log: &Log, proven: &Proven) -> bool {
    proven.gone_before.is_some_and(|before| promise.time < before)
        && log.expired_until.is_some_and(|until| promise.time <= until)
}

fn expired(promise: &Promise, place: Place) -> Finding {
    let expected = format!("a record with leaf hash {}", promise.leaf);
    let found = "expired: the mandate's retention has passed since, and batches of that time are gone";
    Finding::new(Code::ReceiptUnjudged, place, expected, found)
}

/// The promise holds, and no proven record is at its position.
fn absent(promise: &Promise, log: &Log, batch_age: i64, place: Place, now: i64) -> Finding {
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
    let due = promise.time.saturating_add(batch_age).saturating_add(SLACK);
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
    let expected = "the log that holds the promised record";
    let Some((other, _)) = by_another(promise, proven) else {
        let found = "nothing of it is proven, and no proven log of its gateway names a key under which the receipt holds";
        return Finding::new(Code::ReceiptUnjudged, place, expected, found);
    };
    let is_old = proven.gone_before.is_some_and(|before| promise.time < before);
    if is_old && proven.expired.contains(&promise.origin) {
        return expired(promise, place);
    }
    let found =
        format!("nothing of it is proven; the receipt holds under the promise key that {other} names");
    Finding::new(Code::ReceiptNotHonoured, place, expected, found)
        .with(crate::finding::Severity::Critical, crate::finding::Effect::Incomplete)
}
