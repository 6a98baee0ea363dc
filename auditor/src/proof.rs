//! Offline proofs: one exchange's records, their inclusion in signed trees, and, where wanted, their content.
//!
//! A bundle proves that these leaves are in a tree that the log's key signed, and, where content is opened, that this is
//! what they commit to. It does not prove that the log is whole: that is what `verify` is for. Keys come from the trust
//! file, never from the bundle (AU-1).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::columns::{COLUMNS, Cell, Cells};
use schemas::content::{SALT_BYTES, Salt, commitment};
use schemas::merkle::{inclusion_in_batch, verify_inclusion};
use schemas::record::PartName;
use schemas::seal::SignedSeal;
use schemas::trust::{Trust, key_text};
use schemas::verify::{SealTail, VerifiedBatch, chain_seal};
use schemas::{ExchangeId, Origin, Sha256Hex, leaf, seal};
use serde::{Deserialize, Serialize};

use crate::content::{PartContent, PartState};
use crate::verify::content::parts_of;

/// The bundle's first key.
pub const FORMAT: &str = "affidavit/proof/v1";

/// A proof of one exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// [`FORMAT`].
    pub format: String,
    /// The exchange.
    pub exchange: ExchangeId,
    /// Its records, in order.
    pub records: Vec<ProvenRecord>,
    /// The seals that the records are proven against.
    pub seals: Vec<SealNote>,
    /// Opened content.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub content: Vec<Opening>,
}

/// A record with its inclusion proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenRecord {
    /// The log.
    pub origin: Origin,
    /// The record's position.
    pub position: u64,
    /// The leaf, verbatim.
    pub leaf: String,
    /// The batch whose seal signs the tree.
    pub batch: u64,
    /// RFC 6962 inclusion proof in the tree of the seal's size.
    pub proof: Vec<Sha256Hex>,
}

/// A seal's note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealNote {
    /// The log.
    pub origin: Origin,
    /// The batch.
    pub batch: u64,
    /// The signed note, verbatim.
    pub note: String,
}

/// Salt and bytes of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The log.
    pub origin: Origin,
    /// The record that commits to it.
    pub position: u64,
    /// The part.
    pub part: PartName,
    /// The salt, base64.
    pub salt: String,
    /// The content, base64.
    pub bytes: String,
}

impl Bundle {
    /// An empty bundle.
    pub fn new(exchange: ExchangeId) -> Self {
        Self { format: FORMAT.into(), exchange, records: Vec::new(), seals: Vec::new(), content: Vec::new() }
    }

    /// Adds the exchange's records of a verified batch, of which `note` is the seal.
    ///
    /// # Errors
    /// A seal whose compact range is none, or text that is no UTF-8.
    pub fn add(&mut self, batch: &VerifiedBatch, note: &[u8]) -> anyhow::Result<()> {
        self.add_where(batch, note, |_| true)
    }

    /// As [`Bundle::add`], of the records only that `wanted` takes, by their leaf.
    ///
    /// # Errors
    /// As [`Bundle::add`].
    pub fn add_where(
        &mut self,
        batch: &VerifiedBatch,
        note: &[u8],
        wanted: impl Fn(&[u8]) -> bool,
    ) -> anyhow::Result<()> {
        let seal = batch.seal();
        let before = seal.before()?;
        let hashes: Vec<Sha256Hex> = batch.rows().iter().map(|row| *row.hash()).collect();
        let mut any = false;
        for (index, row) in batch.rows().iter().enumerate() {
            if exchange_of(&row.cells()) != Some(self.exchange.as_str()) || !wanted(row.leaf()) {
                continue;
            }
            any = true;
            self.records.push(ProvenRecord {
                origin: seal.origin.clone(),
                position: row.position(),
                leaf: String::from_utf8(row.leaf().to_vec())?,
                batch: seal.batch,
                proof: inclusion_in_batch(&before, &hashes, index as u64),
            });
        }
        if any {
            let note = String::from_utf8(note.to_vec())?;
            self.seals.push(SealNote { origin: seal.origin.clone(), batch: seal.batch, note });
        }
        Ok(())
    }

    /// Adds opened content.
    pub fn open(&mut self, origin: &Origin, part: &PartContent) {
        if let (PartState::Proven, Some((salt, bytes))) = (part.state, &part.opened) {
            self.content.push(Opening {
                origin: origin.clone(),
                position: part.position,
                part: part.part.part,
                salt: STANDARD.encode(salt.as_bytes()),
                bytes: STANDARD.encode(bytes),
            });
        }
    }
}

/// A check of a bundle, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub what: String,
    /// Why it does not hold; absent: it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
}

/// Checks a bundle against a trust file. Every check is listed; none is left out because another failed.
pub fn check(bundle: &Bundle, trust: &Trust) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut done =
        |what: String, result: Result<(), String>| checks.push(Check { what, wrong: result.err() });
    if bundle.format != FORMAT {
        done("format".into(), Err(format!("`{}`, wanted `{FORMAT}`", bundle.format)));
    }
    if bundle.records.is_empty() {
        done("records".into(), Err("none: an empty bundle proves nothing".into()));
    }
    let mut seals = Seals::new();
    for note in &bundle.seals {
        let what = format!("seal of batch {} of {}", note.batch, note.origin);
        match Sealed::of(note, trust) {
            Ok(sealed) => {
                let by = sealed.closer.as_ref().map(|closer| format!(", by the closer {closer}"));
                let logs = seals.entry(note.origin.clone()).or_default();
                let twice = logs.insert(note.batch, sealed).is_some();
                let result = if twice { Err("the bundle holds another one".to_owned()) } else { Ok(()) };
                done(format!("{what}{}", by.unwrap_or_default()), result);
            }
            Err(wrong) => done(what, Err(wrong)),
        }
    }
    for (origin, seals) in &seals {
        for ((before, earlier), (number, later)) in seals.iter().zip(seals.iter().skip(1)) {
            if let Err(wrong) = later.follows(earlier) {
                done(format!("batch {number} of {origin} after batch {before}"), Err(wrong));
            }
        }
    }
    let mut positions = BTreeSet::new();
    for record in &bundle.records {
        let result = check_record(bundle, record, &seals).and_then(|()| {
            let new = positions.insert((&record.origin, record.position));
            if new { Ok(()) } else { Err("the bundle holds this position twice".into()) }
        });
        done(format!("record {} of {}", record.position, record.origin), result);
    }
    for opening in &bundle.content {
        let what =
            format!("content {} of record {} of {}", opening.part.as_str(), opening.position, opening.origin);
        done(what, check_opening(bundle, opening));
    }
    checks
}

/// The seals of a bundle that hold, by log and batch.
type Seals = BTreeMap<Origin, BTreeMap<u64, Sealed>>;

/// A seal that holds.
struct Sealed {
    seal: SignedSeal,
    /// The closer that made it; `None`: the log's own key did.
    closer: Option<String>,
}

impl Sealed {
    fn of(note: &SealNote, trust: &Trust) -> Result<Self, String> {
        if trust.registry.is_some() {
            return Err(
                "the trust file names a registry, which no bundle holds: give one that names gateways, \
                        as `auditor trust resolve` writes"
                    .into(),
            );
        }
        let entry = trust.gateway(&note.origin).ok_or("the trust file does not cover this log")?;
        let key = entry.public_key().map_err(|error| error.to_string())?;
        let signed = |key: &[u8; 32]| seal::verify(note.note.as_bytes(), key);
        let (seal, closer) = match signed(&key) {
            Ok(seal) => (seal, None),
            Err(error) => {
                let by = |closer: [u8; 32]| Some((signed(&closer).ok()?, Some(key_text(&closer))));
                entry.closing_keys().find_map(by).ok_or(error.to_string())?
            }
        };
        if seal.origin != note.origin || seal.batch != note.batch {
            return Err(format!("it is of batch {} of {}", seal.batch, seal.origin));
        }
        let counts = match closer {
            None => entry.counts_for(&note.origin, seal.to),
            Some(_) => entry.closers_count_for(&note.origin, seal.to),
        };
        if !counts {
            return Err(format!("its key does not count for this log up to size {}", seal.to));
        }
        Ok(Self { seal, closer })
    }

    /// Whether this can be a later seal of a log with that earlier one.
    fn follows(&self, earlier: &Self) -> Result<(), String> {
        if earlier.closer.is_some() && self.closer.is_none() {
            return Err("by the log's own key, behind a closer's seal".into());
        }
        if self.seal.batch == earlier.seal.batch + 1 {
            let faults = chain_seal(Some(&SealTail::of(&earlier.seal, None)), &self.seal);
            return faults.first().map_or(Ok(()), |fault| Err(fault.to_string()));
        }
        if self.seal.from < earlier.seal.to || self.seal.time < earlier.seal.time {
            return Err("it begins before the other ends".into());
        }
        Ok(())
    }
}

fn check_record(bundle: &Bundle, record: &ProvenRecord, seals: &Seals) -> Result<(), String> {
    let sealed = seals.get(&record.origin).and_then(|log| log.get(&record.batch));
    let signed = &sealed.ok_or("the bundle holds no seal for it that holds")?.seal;
    let hash = leaf::hash(record.leaf.as_bytes());
    verify_inclusion(&hash, record.position, signed.to, &record.proof, &signed.root)
        .map_err(|error| error.to_string())?;
    let decoded = leaf::decode(record.leaf.as_bytes()).map_err(|error| error.to_string())?;
    if exchange_of(&decoded.cells(record.leaf.as_bytes())) != Some(bundle.exchange.as_str()) {
        return Err("the record is of another exchange".into());
    }
    Ok(())
}

/// What of the bundle's records this version does not know, with how often it is there: the answer rests on them too.
pub fn not_judged(bundle: &Bundle) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for decoded in bundle.records.iter().filter_map(|record| leaf::decode(record.leaf.as_bytes()).ok()) {
        let kind = decoded.record.is_none().then(|| format!("kind {}", decoded.kind()));
        let keys = decoded.unknown_keys.iter().map(|key| format!("key {}.{key}", decoded.kind()));
        for name in kind.into_iter().chain(keys) {
            *found.entry(name).or_default() += 1;
        }
    }
    found
}

/// The exchange that a leaf belongs to, also one of an unknown kind.
fn exchange_of<'a>(cells: &Cells<'a>) -> Option<&'a str> {
    let column = COLUMNS.iter().position(|column| column.name == "exchange")?;
    match cells.get(column) {
        Some(Cell::Text(text)) => Some(text),
        _ => None,
    }
}

fn check_opening(bundle: &Bundle, opening: &Opening) -> Result<(), String> {
    let record = bundle
        .records
        .iter()
        .find(|record| record.origin == opening.origin && record.position == opening.position)
        .ok_or("the bundle holds no such record")?;
    let decoded = leaf::decode(record.leaf.as_bytes()).map_err(|error| error.to_string())?;
    let body = decoded.record.map(|record| record.body).ok_or("a record of an unknown kind")?;
    let (_, parts, _, _) = parts_of(&body).ok_or("the record commits to no content")?;
    let part =
        parts.iter().find(|part| part.part == opening.part).ok_or("the record commits to no such part")?;
    let salt = STANDARD.decode(&opening.salt).ok().and_then(|salt| <[u8; SALT_BYTES]>::try_from(salt).ok());
    let salt = Salt::from_bytes(salt.ok_or("the salt is not 32 bytes in base64")?);
    let bytes = STANDARD.decode(&opening.bytes).map_err(|_| "the content is no base64")?;
    if bytes.len() as u64 != part.length || commitment(&salt, &bytes) != part.commitment {
        return Err("the content is not what the record commits to".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use schemas::note::Signer as _;
    use schemas::verify::{BatchInput, verify_batch};

    use super::*;
    use crate::fixture::{exchange_id, signer, small, trust};

    fn bundle() -> Bundle {
        let writer = small();
        let mut bundle = Bundle::new(exchange_id(2));
        let find = |part: &str| {
            writer
                .store
                .objects
                .iter()
                .find(|(name, _)| name.contains("0000000001") && name.contains(part))
                .unwrap()
                .1
                .clone()
        };
        let (seal, records) = (find("1.seal"), find("records"));
        let key = signer().public_key();
        let batch =
            verify_batch(BatchInput { origin: &writer.origin, key: &key, seal: &seal, records }).unwrap();
        bundle.add(&batch, &seal).unwrap();
        bundle
    }

    fn holds(bundle: &Bundle) -> bool {
        check(bundle, &trust()).iter().all(|check| check.wrong.is_none())
    }

    #[test]
    fn a_bundle_holds_against_the_trust_file_only() {
        let bundle = bundle();
        assert_eq!(bundle.records.len(), 2);
        assert!(holds(&bundle), "{:?}", check(&bundle, &trust()));
        let mut other = trust();
        other.gateways[0].key = schemas::trust::key_text(&[1; 32]);
        assert!(check(&bundle, &other).iter().all(|check| check.wrong.is_some()));
        assert!(!holds(&Bundle::new(exchange_id(2))));
    }

    #[test]
    fn what_is_not_known_of_a_bundle_is_named() {
        let mut bundle = bundle();
        assert!(not_judged(&bundle).is_empty());
        let leaf = &mut bundle.records[0].leaf;
        *leaf = leaf.replacen("\"v\":1", "\"v\":1,\"w\":1", 1);
        let leaf = &mut bundle.records[1].leaf;
        *leaf = leaf.replacen("\"kind\":\"outcome\"", "\"kind\":\"verdict\"", 1);
        let wanted = [("key intent.w".to_owned(), 1), ("kind verdict".to_owned(), 1)];
        assert_eq!(not_judged(&bundle), wanted.into());
    }

    #[test]
    fn seals_of_one_bundle_must_be_of_one_log() {
        use schemas::seal::parse_unverified;
        let (own, closer) = (signer(), schemas::note::Ed25519Signer::from_seed([60; 32]));
        let writer = small();
        let mut trust = trust();
        trust.gateways[0].closers = vec![key_text(&closer.public_key())];
        let note = |batch: u64| {
            let name = format!("{}/{batch:010}.seal", writer.origin);
            parse_unverified(&writer.store.objects[&name]).unwrap()
        };
        let wrong = |made: [(&schemas::note::Ed25519Signer, u64); 2], chained: bool| {
            let mut bundle = bundle();
            bundle.seals.clear();
            let mut previous = None;
            for (by, batch) in made {
                let mut seal = note(batch);
                if chained {
                    seal.previous = previous.or(seal.previous);
                }
                let signed = seal.sign(by).unwrap();
                previous = Some(Sha256Hex::of(&signed));
                let (origin, note) = (writer.origin.clone(), String::from_utf8(signed).unwrap());
                bundle.seals.push(SealNote { origin, batch, note });
            }
            let checks = check(&bundle, &trust);
            checks.into_iter().filter_map(|check| check.wrong).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(wrong([(&own, 0), (&own, 1)], true), "");
        assert_eq!(wrong([(&own, 1), (&closer, 2)], true), "");
        assert!(wrong([(&closer, 1), (&closer, 2)], false).contains("previous"));
        assert!(wrong([(&closer, 1), (&own, 2)], true).contains("behind a closer"));
    }

    #[test]
    fn a_changed_leaf_position_proof_or_exchange_does_not_hold() {
        let whole = bundle();
        let mut changed = whole.clone();
        changed.records[0].leaf = changed.records[0].leaf.replace("tester", "nobody");
        assert!(!holds(&changed));
        let mut changed = whole.clone();
        changed.records[0].position += 1;
        assert!(!holds(&changed));
        let mut changed = whole.clone();
        changed.records[1].proof[0].0[0] ^= 1;
        assert!(!holds(&changed));
        let mut changed = whole.clone();
        changed.exchange = exchange_id(1);
        assert!(!holds(&changed));
        let mut changed = whole.clone();
        changed.seals.push(whole.seals[0].clone());
        assert!(!holds(&changed), "a seal twice");
        let mut changed = whole.clone();
        changed.records.push(whole.records[0].clone());
        assert!(!holds(&changed), "a position twice");
        let mut changed = whole.clone();
        changed.seals.push(SealNote { batch: 9, ..whole.seals[0].clone() });
        assert!(!holds(&changed), "a seal under another number");
        let mut changed = whole;
        changed.content.push(Opening {
            origin: changed.records[0].origin.clone(),
            position: changed.records[0].position,
            part: PartName::ClientRequest,
            salt: STANDARD.encode([0; 32]),
            bytes: STANDARD.encode("made up"),
        });
        assert!(!holds(&changed));
    }
}
