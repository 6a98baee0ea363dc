//! One batch, verified from its own seal and key.

use bytes::Bytes;
use parquet::data_type::ByteArray;

use super::{BatchFault, FaultCode, Faults, SealTail};
use crate::columns::Cells;
use crate::digest::Sha256Hex;
use crate::files::{self, Limits};
use crate::leaf::Decoded;
use crate::merkle::{CompactRange, Hash};
use crate::names::{FileKind, ObjectName, Origin};
use crate::record::Body;
use crate::seal::{self, Seal, SignedSeal};

/// What a batch is verified from.
#[derive(Debug, Clone)]
pub struct BatchInput<'a> {
    /// The log that the batch is expected to belong to.
    pub origin: &'a Origin,
    /// The log's Ed25519 public key, from the trust file.
    pub key: &'a [u8; 32],
    /// The seal object's bytes.
    pub seal: &'a [u8],
    /// The records file's bytes.
    pub records: Bytes,
}

/// A leaf whose hash is in the signed tree and whose typed columns were compared with it.
#[derive(Debug)]
pub struct VerifiedLeaf {
    position: u64,
    leaf: ByteArray,
    hash: Hash,
    decoded: Decoded,
}

impl VerifiedLeaf {
    /// Its position in the log.
    pub fn position(&self) -> u64 {
        self.position
    }
    /// The leaf, verbatim.
    pub fn leaf(&self) -> &[u8] {
        self.leaf.data()
    }
    /// SHA-256(0x00 || leaf).
    pub fn hash(&self) -> &Hash {
        &self.hash
    }
    /// What it says.
    pub fn decoded(&self) -> &Decoded {
        &self.decoded
    }
    /// What it says in the typed columns.
    pub fn cells(&self) -> Cells<'_> {
        self.decoded.cells(self.leaf.data())
    }
}

/// A batch whose seal, records file, leaves, columns and root were checked. Only [`verify_batch`] makes one.
///
/// Its place in the log is another matter: [`super::chain`].
#[derive(Debug)]
pub struct VerifiedBatch {
    seal: SignedSeal,
    rows: Vec<VerifiedLeaf>,
    after: CompactRange,
    closed: bool,
    unknown_columns: Vec<String>,
}

impl VerifiedBatch {
    /// The seal.
    pub fn seal(&self) -> &SignedSeal {
        &self.seal
    }
    /// The leaves, by position, one for each of `[from, to)`.
    pub fn rows(&self) -> &[VerifiedLeaf] {
        &self.rows
    }
    /// The tree's compact range at the seal's `to`.
    pub fn after(&self) -> &CompactRange {
        &self.after
    }
    /// True where the last record is `close`.
    pub fn closed(&self) -> bool {
        self.closed
    }
    /// Columns of the records file that this version does not know: not judged.
    pub fn unknown_columns(&self) -> &[String] {
        &self.unknown_columns
    }
    /// What the next batch is held against.
    pub fn tail(&self) -> SealTail {
        SealTail::of(&self.seal, Some(self.closed))
    }
}

/// Verifies one batch with the default limits.
///
/// # Errors
/// All faults found, each with its code and place. Never empty.
pub fn verify_batch(input: BatchInput<'_>) -> Result<VerifiedBatch, Vec<BatchFault>> {
    verify_batch_with(input, &Limits::default())
}

/// Verifies one batch.
///
/// Checked: signature by `key` over a seal of `origin`; length and SHA-256 of the records file; exact schema; every
/// statement of its footer; every leaf hash; canonical form; every typed column against its leaf; positions `[from,
/// to)` one by one; that the compact range and the leaves give the signed root; `boot` first and nothing behind
/// `close`.
///
/// # Errors
/// All faults found, each with its code and place. Never empty.
pub fn verify_batch_with(input: BatchInput<'_>, limits: &Limits) -> Result<VerifiedBatch, Vec<BatchFault>> {
    let mut faults = Faults::default();
    let sealed = match seal::verify(input.seal, input.key) {
        Ok(sealed) => Some(sealed),
        Err(error) => {
            faults.add(FaultCode::SealInvalid, None, "seal", "a seal signed by the log's key", error);
            None
        }
    };
    // Where the signature does not hold, what the seal says still helps to name places; nothing is proven by it.
    let said: Option<Seal> = match &sealed {
        Some(sealed) => Some((**sealed).clone()),
        None => seal::parse_unverified(input.seal).ok(),
    };
    if let Some(said) = &said {
        if said.origin != *input.origin {
            faults.add(FaultCode::OriginMismatch, None, "seal", input.origin, &said.origin);
        }
        check_file(said, &input.records, &mut faults);
    }
    let extra = match &said {
        Some(said) if said.schema != files::schema_fingerprint() => files::Extra::Listed,
        _ => files::Extra::Refused,
    };
    let inspected = files::inspect(&input.records, extra, limits, &mut faults);
    let (Some(said), Some((rows, unknown_columns))) = (said, inspected) else {
        return Err(faults.into_vec());
    };
    check_positions(&said, &rows, &mut faults);
    let after = check_root(&said, &rows, &mut faults);
    let closed = check_ends(&said.origin, &rows, &mut faults);
    match (sealed, after) {
        (Some(seal), Some(after)) if faults.is_empty() => {
            let rows = rows.into_iter().filter_map(|row| {
                let decoded = row.decoded?;
                Some(VerifiedLeaf { position: row.position, leaf: row.leaf, hash: row.hash, decoded })
            });
            Ok(VerifiedBatch { seal, rows: rows.collect(), after, closed, unknown_columns })
        }
        _ => Err(faults.into_vec()),
    }
}

fn check_file(said: &Seal, records: &Bytes, faults: &mut Faults) {
    let length = records.len() as u64;
    let found = Sha256Hex::of(records);
    let mut listed = 0;
    for file in &said.files {
        match ObjectName::parse_file(&said.origin, &file.name) {
            Ok(ObjectName::Data { batch, sha256, kind, .. }) => {
                if batch != said.batch || sha256 != file.sha256 {
                    faults.add(FaultCode::SealInvalid, None, "seal files", "names of this batch", &file.name);
                }
                if kind == FileKind::Records {
                    listed += 1;
                    if file.length != length {
                        faults.add(
                            FaultCode::FileMismatch,
                            None,
                            &file.name,
                            format!("{} bytes", file.length),
                            length,
                        );
                    }
                    if file.sha256 != found {
                        faults.add(FaultCode::FileMismatch, None, &file.name, file.sha256, found);
                    }
                }
            }
            _ => faults.add(FaultCode::SealInvalid, None, "seal files", "names of data files", &file.name),
        }
    }
    if listed != 1 {
        faults.add(FaultCode::SealInvalid, None, "seal files", "one records file", listed);
    }
}

fn check_positions(said: &Seal, rows: &[files::Inspected], faults: &mut Faults) {
    if rows.iter().enumerate().all(|(i, row)| said.from.checked_add(i as u64) == Some(row.position))
        && rows.len() as u64 == said.to.saturating_sub(said.from)
    {
        return;
    }
    let mut positions = Vec::with_capacity(rows.len());
    let mut before: Option<u64> = None;
    for row in rows {
        if !(said.from..said.to).contains(&row.position) {
            let expected = format!("positions {}..{}", said.from, said.to);
            faults.add(FaultCode::ForeignRecord, Some(row.position), "position", expected, row.position);
        }
        if let Some(before) = before
            && before > row.position
        {
            faults.add(
                FaultCode::Order,
                Some(row.position),
                "position",
                format!("more than {before}"),
                row.position,
            );
        }
        before = Some(row.position);
        positions.push(row.position);
    }
    positions.sort_unstable();
    for pair in positions.windows(2).filter(|pair| pair[0] == pair[1]) {
        faults.add(FaultCode::DuplicateRange, Some(pair[0]), "position", "one row", "two");
    }
    let mut next = said.from;
    let within = positions.iter().copied().filter(|position| (said.from..said.to).contains(position));
    for position in within.chain([said.to]) {
        if position > next {
            let found = format!("no rows for {next}..{position}");
            faults.add(
                FaultCode::SeqGap,
                Some(next),
                "position",
                format!("a row for each of {next}..{position}"),
                found,
            );
        }
        next = next.max(position.saturating_add(1));
    }
}

/// The compact range at the seal's `to`, where the leaves give the signed root.
fn check_root(said: &Seal, rows: &[files::Inspected], faults: &mut Faults) -> Option<CompactRange> {
    let mut range = match CompactRange::from_parts(said.from, said.compact.clone()) {
        Ok(range) => range,
        Err(error) => {
            faults.add(
                FaultCode::SealInvalid,
                None,
                "seal compact range",
                "the subtree roots at `from`",
                error,
            );
            return None;
        }
    };
    for row in rows {
        range.append(row.hash);
    }
    let root = range.root();
    if root != said.root || range.size() != said.to {
        let expected = format!("{} of size {}", said.root, said.to);
        faults.add(
            FaultCode::RootMismatch,
            None,
            "seal root",
            expected,
            format!("{root} of size {}", range.size()),
        );
        return None;
    }
    Some(range)
}

/// `boot` stands at position 0 and nowhere else, `close` last. True where the log is closed. A registry begins with
/// `registry` instead, and has neither of the two.
fn check_ends(origin: &Origin, rows: &[files::Inspected], faults: &mut Faults) -> bool {
    if origin.is_registry() {
        for row in rows {
            let Some(decoded) = &row.decoded else { continue };
            let fits = (decoded.kind() == "registry") == (row.position == 0);
            if !fits || matches!(decoded.kind(), "boot" | "close") {
                let expected = if row.position == 0 { "`registry`" } else { "an entry of a registry" };
                faults.add(FaultCode::BootMisplaced, Some(row.position), "kind", expected, decoded.kind());
            }
        }
        return false;
    }
    let mut closed = None;
    for row in rows {
        if let Some(at) = closed {
            let expected = format!("no record behind `close` at {at}");
            faults.add(FaultCode::AfterClose, Some(row.position), "kind", expected, "a record");
            return true;
        }
        let body =
            row.decoded.as_ref().and_then(|decoded| decoded.record.as_ref()).map(|record| &record.body);
        let is_boot = matches!(body, Some(Body::Boot(_)));
        if is_boot != (row.position == 0) && (is_boot || row.decoded.is_some()) {
            let expected = if row.position == 0 { "`boot`" } else { "no second `boot`" };
            let found = row.decoded.as_ref().map_or("", |decoded| decoded.kind());
            faults.add(FaultCode::BootMisplaced, Some(row.position), "kind", expected, found);
        }
        if matches!(body, Some(Body::Close(_))) {
            closed = Some(row.position);
        }
    }
    closed.is_some()
}
