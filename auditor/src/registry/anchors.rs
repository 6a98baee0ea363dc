//! What others said of the registry: witnesses' cosignatures and timestamp tokens, beside its checkpoints or brought
//! by the auditor.
//!
//! A cosignature of a tree head binds the whole tree below it, so what counts is the largest head of each organisation;
//! a token of a checkpoint likewise. Every statement by a known key is held against the proven registry, also those
//! that are not the newest: one that does not fit shows a fork, or a registry that was cut back.
//! Format: `schemas/FORMAT.md` 15.6.

use std::collections::BTreeMap;

use schemas::merkle::Hash;
use schemas::names::AnchorKind;
use schemas::timestamp::{self, Authority, Stamp, TimestampFault};
use schemas::tlog::{TreeHead, WitnessKey};
use schemas::trust::{Trust, public_key};
use schemas::{ObjectName, Sha256Hex, note};

use super::{Reading, Registry};
use crate::finding::{Code, Finding, Findings, Place};
use crate::report::{StampReport, WitnessReport};
use crate::source::SourceError;
use crate::time::{self, SECOND};
use crate::verify::batch::read_error;
use crate::verify::listing::LogListing;
use crate::verify::seal_name;

/// How many unknown keys are named.
const UNKNOWN_KEPT: usize = 100;

/// The largest object with a cosignature.
const COSIGNATURE_LIMIT: u64 = 64 << 10;

/// How far clocks of different organisations may differ, microseconds.
const CLOCKS: i64 = 300 * SECOND;

/// A checkpoint that a witness cosigned, or what it says itself of a log: brought by the auditor, not from the store.
#[derive(Debug, Clone)]
pub struct WitnessNote {
    /// Where it is from, for findings.
    pub from: String,
    /// The signed note.
    pub note: Vec<u8>,
    /// When the witness was asked for it, microseconds UTC; absent: it was not asked just now.
    pub asked: Option<i64>,
}

/// From whose hand a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hand {
    /// The store: the log must have signed it too.
    Store,
    /// The auditor, who asked the witness at this time, or did not.
    Auditor { asked: Option<i64> },
}

/// A statement by a trusted witness.
#[derive(Debug, Clone)]
struct Statement {
    head: TreeHead,
    witness: String,
    organisation: String,
    /// When it was cosigned, microseconds UTC.
    at: i64,
    from: Hand,
    place: Place,
}

impl Statement {
    fn text(&self) -> String {
        let Self { head, witness, organisation, at, .. } = self;
        let at = time::text(*at);
        format!("witness {witness} ({organisation}) cosigned size {}, root {} at {at}", head.size, head.root)
    }

    /// What an answer should have been that is an old one: `newest` is what is known of the same witness.
    fn wanted(&self, newest: Option<&(u64, i64)>) -> Option<String> {
        let Hand::Auditor { asked } = self.from else { return None };
        match newest {
            Some((size, at)) if *size > self.head.size => {
                Some(format!("what it cosigned last: size {size} at {}", time::text(*at)))
            }
            _ => {
                let asked = asked.filter(|asked| self.at.saturating_add(CLOCKS) < *asked)?;
                Some(format!("an answer made when the witness was asked, {}", time::text(asked)))
            }
        }
    }
}

/// What was said of a registry, as it is read.
#[derive(Debug, Clone, Default)]
pub(super) struct Anchors {
    witnesses: Vec<(WitnessKey, String)>,
    authorities: Vec<(String, Authority)>,
    /// Root and seal's time of each batch, by the tree size that it ends with.
    sizes: BTreeMap<u64, (Hash, i64)>,
    statements: Vec<Statement>,
    pub(super) witnessed: BTreeMap<String, WitnessReport>,
    pub(super) stamped: Option<StampReport>,
    tokens: u64,
    /// Tokens whose signing certificate has ended, and the last such end.
    ended: Option<(u64, i64)>,
    unknown: BTreeMap<String, u64>,
}

impl Anchors {
    pub(super) fn new(trust: &Trust) -> Self {
        let witness = |witness: &schemas::trust::TrustedWitness| {
            Some((witness.witness_key()?, witness.organisation.clone()))
        };
        Self {
            witnesses: trust.witnesses.iter().filter_map(witness).collect(),
            authorities: trust
                .timestamp_authorities
                .iter()
                .map(|authority| (authority.name.clone(), authority.authority()))
                .collect(),
            ..Self::default()
        }
    }

    /// Counts what no key of the trust file is for, under a bounded number of names.
    fn unknown(&mut self, what: String) {
        let full = self.unknown.len() >= UNKNOWN_KEPT && !self.unknown.contains_key(&what);
        let what = if full { "cosignatures by others".into() } else { what };
        *self.unknown.entry(what).or_default() += 1;
    }

    /// A batch was proven.
    pub(super) fn batch(&mut self, size: u64, root: Hash, sealed_at: i64) {
        self.sizes.insert(size, (root, sealed_at));
    }

    /// Takes a note apart: the log's own signature, and those of trusted witnesses.
    fn statement(
        &mut self,
        note: &[u8],
        log: (&str, &[u8; 32]),
        from: Hand,
        place: &Place,
        findings: &mut Findings,
    ) {
        let mut bad = |expected: &str, found: String| {
            findings.add(Code::CosignatureInvalid, place.clone(), expected, found);
        };
        let parsed = match note::parse_unverified(note) {
            Ok(parsed) => parsed,
            Err(error) => return bad("a signed note", error.to_string()),
        };
        let head = match TreeHead::parse(parsed.text) {
            Ok(head) => head,
            Err(error) => return bad("a checkpoint with a cosignature", error.to_string()),
        };
        if head.origin != log.0 {
            return bad(&format!("a checkpoint of {}", log.0), format!("one of {}", head.origin));
        }
        let Ok(key) = note::VerifyingKey::new(log.0, *log.1) else { return };
        let by_log = |signature: &&note::Signature| signature.name == key.name() && signature.id == key.id();
        let signed = parsed.signatures.iter().filter(by_log).collect::<Vec<_>>();
        if signed.iter().any(|line| !key.holds(parsed.text.as_bytes(), &line.bytes))
            || (from == Hand::Store && signed.is_empty())
        {
            let found = "none that holds".to_owned();
            return bad("the checkpoint key's signature, as the `registry` entry names it", found);
        }
        for line in parsed.signatures.iter().filter(|line| !by_log(line)) {
            let named = self.witnesses.iter().find(|(witness, _)| witness.is_named_by(line));
            let Some((witness, organisation)) = named else {
                let name: String = line.name.chars().take(100).collect();
                self.unknown(format!("cosignatures by {name}+{:08x}", line.id));
                continue;
            };
            match witness.verify(parsed.text, line) {
                Ok(time_s) => self.statements.push(Statement {
                    head: head.clone(),
                    witness: witness.name().to_owned(),
                    organisation: organisation.clone(),
                    at: i64::try_from(time_s).unwrap_or(i64::MAX).saturating_mul(SECOND),
                    from,
                    place: place.clone(),
                }),
                Err(error) => {
                    bad("a cosignature by the witness that the trust file names", error.to_string());
                }
            }
        }
    }

    /// Holds a token against the checkpoint that it stands beside.
    fn token(
        &mut self,
        token: &[u8],
        checkpoint: &Sha256Hex,
        sealed: (u64, i64),
        now: i64,
        place: Place,
        findings: &mut Findings,
    ) {
        if self.authorities.is_empty() {
            self.unknown("timestamp tokens: the trust file names no authority".into());
            return;
        }
        let authorities: Vec<Authority> =
            self.authorities.iter().map(|(_, authority)| authority.clone()).collect();
        let (n, stamp) = match timestamp::verify(token, checkpoint, &authorities) {
            Ok(found) => found,
            Err(fault) => {
                let (code, expected) = match fault {
                    TimestampFault::Untrusted(_) => (
                        Code::TimestampUntrusted,
                        "a token by an authority that the trust file names".to_owned(),
                    ),
                    TimestampFault::Imprint(_) => {
                        (Code::TimestampInvalid, format!("a token over the checkpoint, SHA-256 {checkpoint}"))
                    }
                    _ => (Code::TimestampInvalid, "a timestamp token that holds".to_owned()),
                };
                findings.add(code, place, expected, fault.to_string());
                return;
            }
        };
        let (size, sealed_at) = sealed;
        if stamp.is_before(sealed_at, CLOCKS) {
            let expected = format!("a seal made before its token: token of {}", time::text(stamp.time));
            let found = format!("a seal that says {}", time::text(sealed_at));
            findings.add(Code::TimeContradiction, place, expected, found);
            return;
        }
        if stamp.is_after(now, CLOCKS) {
            let expected = format!("a token made before now, {}", time::text(now));
            findings.add(
                Code::TimeContradiction,
                place,
                expected,
                format!("one of {}", time::text(stamp.time)),
            );
            return;
        }
        self.tokens += 1;
        if stamp.expires < now {
            let (count, last) = self.ended.unwrap_or((0, i64::MIN));
            self.ended = Some((count + 1, last.max(stamp.expires)));
        }
        let Stamp { time, policy, expires, .. } = stamp;
        if self.stamped.as_ref().is_none_or(|newest| newest.size <= size) {
            let authority = self.authorities.get(n).map_or_else(String::new, |(name, _)| name.clone());
            self.stamped = Some(StampReport { authority, size, sealed_at, time, policy, expires });
        }
    }

    /// Holds every statement against the proven registry.
    fn judge(&mut self, log: &str, size: u64, operator: &str, now: i64, findings: &mut Findings) {
        let mut own = BTreeMap::new();
        let mut sound = Vec::new();
        for statement in std::mem::take(&mut self.statements) {
            let said = statement.text();
            let Statement { head, witness, organisation, at, place, .. } = statement.clone();
            let Some((root, sealed_at)) = self.sizes.get(&head.size) else {
                let (code, found) = if head.size > size {
                    (Code::RegistryRollback, format!("size {size} proven in the store"))
                } else {
                    (Code::Equivocation, format!("no seal of the registry ends with size {}", head.size))
                };
                findings.push(Finding::new(code, place.in_log(log), said, found));
                continue;
            };
            if *root != head.root {
                let found = format!("root {root} at size {} in the store", head.size);
                findings.push(Finding::new(Code::Equivocation, place.in_log(log), said, found));
                continue;
            }
            if at.saturating_add(CLOCKS) < *sealed_at {
                let expected = format!("a seal made before it was cosigned: {said}");
                let found = format!("a seal that says {}", time::text(*sealed_at));
                findings.add(Code::TimeContradiction, place, expected, found);
                continue;
            }
            if at > now.saturating_add(CLOCKS) {
                let expected = format!("a cosignature made before now, {}", time::text(now));
                findings.add(Code::TimeContradiction, place, expected, format!("one of {}", time::text(at)));
                continue;
            }
            sound.push(statement);
            let report = WitnessReport {
                organisation: organisation.clone(),
                witness,
                size: head.size,
                sealed_at: *sealed_at,
                cosigned_at: at,
            };
            let of = if organisation == operator { &mut own } else { &mut self.witnessed };
            let newest = of.get(&organisation);
            if newest.is_none_or(|known: &WitnessReport| (known.size, known.cosigned_at) < (head.size, at)) {
                of.insert(organisation, report);
            }
        }
        old_answers(&sound, findings);
        for (organisation, report) in own {
            let found = format!("{} of the operator, `{organisation}`", report.witness);
            let expected = "witnesses that the operator does not run";
            findings
                .push(Finding::new(Code::WitnessNotIndependent, Place::log(log), expected, found).as_note());
        }
        if let Some((count, last)) = self.ended {
            let found = format!("{count} of {} tokens: the last ended {}", self.tokens, time::text(last));
            let expected = "tokens whose signing certificate has not ended";
            findings.add(Code::TimestampNeedsRenewal, Place::log(log), expected, found);
        }
        for (what, count) in &self.unknown {
            let found = format!("{count} {what}");
            let expected = "signatures by keys that the trust file names; others are not judged";
            findings.add(Code::UnknownSignature, Place::log(log), expected, found);
        }
    }
}

/// Lists the answers that are old ones: somebody between witness and auditor may have kept them and shown them again.
/// What they say is as true as it was; that the witness saw no more since is not.
fn old_answers(statements: &[Statement], findings: &mut Findings) {
    let mut newest: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
    for statement in statements {
        let of = newest.entry(&statement.witness).or_default();
        *of = (*of).max((statement.head.size, statement.at));
    }
    for statement in statements {
        let Some(expected) = statement.wanted(newest.get(statement.witness.as_str())) else { continue };
        let found = format!("an old answer: {}", statement.text());
        let place = statement.place.clone();
        findings.push(Finding::new(Code::StaleAnchor, place, expected, found).as_note());
    }
}

impl Registry {
    /// Reads what stands beside the checkpoint of a proven batch.
    pub(super) fn beside(
        &mut self,
        reading: &Reading<'_>,
        batch: &schemas::verify::VerifiedBatch,
        anchors: &[(AnchorKind, Sha256Hex)],
        checkpoint: Option<Sha256Hex>,
        findings: &mut Findings,
    ) {
        let sealed = batch.seal();
        self.anchors.batch(sealed.to, sealed.root, sealed.time);
        for (kind, sha256) in anchors {
            let (origin, kind, sha256) = (self.origin.clone(), *kind, *sha256);
            let name = ObjectName::Anchor { origin, batch: sealed.batch, sha256, kind }.to_string();
            let place = Place::batch(&self.origin, sealed.batch).in_object(&name);
            let limit = match kind {
                AnchorKind::Cosignature => COSIGNATURE_LIMIT,
                AnchorKind::Timestamp => timestamp::MAX_TOKEN_BYTES as u64,
            };
            let bytes = match reading.source.read(&name, limit) {
                Ok(bytes) => bytes,
                Err(error) => {
                    findings.push(read_error(error, place));
                    continue;
                }
            };
            let found = Sha256Hex::of(&bytes);
            if found != sha256 {
                findings.add(Code::FileMismatch, place, format!("SHA-256 {sha256}"), found.to_string());
                continue;
            }
            match kind {
                AnchorKind::Cosignature => {
                    let Some(key) = self.checkpoint_key() else { continue };
                    let origin = self.origin.to_string();
                    self.anchors.statement(&bytes, (&origin, &key), Hand::Store, &place, findings);
                }
                AnchorKind::Timestamp => {
                    // Without a checkpoint there is nothing that it could be over.
                    let Some(checkpoint) = &checkpoint else { continue };
                    let of = (sealed.to, sealed.time);
                    self.anchors.token(&bytes, checkpoint, of, reading.now, place, findings);
                }
            }
        }
    }

    /// A checkpoint, or a word on one, whose seal is not there: it was put after the seal.
    pub(super) fn beyond(
        &self,
        reading: &Reading<'_>,
        newest: Option<u64>,
        listing: &LogListing,
        findings: &mut Findings,
    ) {
        for (number, objects) in listing.batches.iter().filter(|(number, _)| Some(**number) > newest) {
            let words = objects.anchors.len();
            if words == 0 && !objects.checkpoint {
                continue;
            }
            let name = seal_name(&self.origin, *number);
            let place = Place::batch(&self.origin, *number).in_object(&name);
            match reading.source.read(&name, super::NOTE_LIMIT) {
                // It came while the store was listed.
                Ok(_) => {
                    findings.add(Code::BatchInFlight, place, "a batch that is being written", "its seal")
                }
                Err(SourceError::Absent(_)) => {
                    let checkpoint = if objects.checkpoint { "a checkpoint and " } else { "" };
                    let expected = format!("the seal under {checkpoint}{words} words of others on it");
                    findings.push(Finding::new(Code::RegistryRollback, place, expected, "none"));
                }
                Err(error) => findings.push(read_error(error, place)),
            }
        }
    }

    pub(super) fn checkpoint_key(&self) -> Option<[u8; 32]> {
        self.state.opening().and_then(|opening| public_key(&opening.checkpoint_key))
    }

    /// Holds all that was said, in the store and elsewhere, against what was proven.
    pub(super) fn judge_anchors(&mut self, reading: &Reading<'_>, findings: &mut Findings) {
        let origin = self.origin.to_string();
        let key = self.checkpoint_key();
        for brought in reading.witness_notes {
            let place = Place::object(&brought.from);
            // Without a registry any key does: the log's own signature is not what is asked for.
            self.anchors.statement(
                &brought.note,
                (&origin, &key.unwrap_or([0; 32])),
                Hand::Auditor { asked: brought.asked },
                &place,
                findings,
            );
        }
        let size = self.tail.as_ref().map_or(0, |tail| tail.to);
        self.anchors.judge(&origin, size, reading.trust.operator(), reading.now, findings);
    }

    /// Up to when at least `wanted` organisations have cosigned the registry, and how many did so: of those that are at
    /// most an hour behind the newest where `wanted` is absent.
    pub(crate) fn witnessed(&self, wanted: Option<u32>) -> Option<(usize, i64)> {
        let mut times: Vec<i64> = self.anchors.witnessed.values().map(|report| report.sealed_at).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        let newest = *times.first()?;
        let count = match wanted {
            Some(wanted) => (wanted.max(1) as usize).min(times.len()),
            None => times.iter().filter(|time| newest - **time <= 3600 * SECOND).count(),
        };
        Some((count, *times.get(count.checked_sub(1)?)?))
    }

    /// The newest token.
    pub(crate) fn stamped(&self) -> Option<&StampReport> {
        self.anchors.stamped.as_ref()
    }
}

impl Place {
    /// In a log, so that the log's earlier visit is kept.
    fn in_log(mut self, log: &str) -> Self {
        self.origin = Some(log.to_owned());
        self
    }
}
