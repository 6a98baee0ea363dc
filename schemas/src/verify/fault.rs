//! What is wrong with a batch: stable codes, and a collector that never stops at the first.

use std::collections::BTreeMap;
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The kinds of fault. Codes are stable; the auditor prints them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultCode { $($(#[$doc])* $variant,)* }
        impl FaultCode {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The code as printed.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

codes! {
    /// The seal is not a note of this format, or its signature by the expected key does not hold.
    SealInvalid = "SEAL_INVALID",
    /// The seal is of another log.
    OriginMismatch = "ORIGIN_MISMATCH",
    /// A file's length or SHA-256 is not what the seal says.
    FileMismatch = "FILE_MISMATCH",
    /// The file's bytes are no Parquet file of this format.
    Unreadable = "UNREADABLE",
    /// A bound was hit: could not judge.
    ResourceLimit = "RESOURCE_LIMIT",
    /// The file's schema or layout is not the format's.
    SchemaDrift = "SCHEMA_DRIFT",
    /// The footer says of the values what is not so.
    StatsLie = "STATS_LIE",
    /// The stored leaf hash is not the leaf's.
    LeafMismatch = "LEAF_MISMATCH",
    /// The leaf is not in canonical form: parsers could disagree on it.
    NonCanonicalLeaf = "NON_CANONICAL_LEAF",
    /// The leaf is of a known kind but does not have its form.
    LeafInvalid = "LEAF_INVALID",
    /// A typed column differs from its leaf.
    ColumnNotLeaf = "COLUMN_NOT_LEAF",
    /// A position of the batch has no row.
    SeqGap = "SEQ_GAP",
    /// Rows do not stand in the order of their positions.
    Order = "ORDER",
    /// A position has two rows.
    DuplicateRange = "DUPLICATE_RANGE",
    /// A row's position is outside of the batch.
    ForeignRecord = "FOREIGN_RECORD",
    /// The leaves do not give the root that the seal signs.
    RootMismatch = "ROOT_MISMATCH",
    /// The log does not begin with its one `boot` record.
    BootMisplaced = "BOOT_MISPLACED",
    /// A record stands behind `close`.
    AfterClose = "AFTER_CLOSE",
    /// The batch does not continue the one before it.
    ChainBroken = "CHAIN_BROKEN",
    /// The seal's time is before that of the seal before it.
    TimeContradiction = "TIME_CONTRADICTION",
    /// Content is not what its record commits to.
    ContentMismatch = "CONTENT_MISMATCH",
    /// Content that a record commits to, and says to be kept, is not there.
    ContentMissing = "CONTENT_MISSING",
    /// Content that no record commits to.
    ContentForeign = "CONTENT_FOREIGN",
    /// Reference bytes do not hash to their name.
    ReferenceMismatch = "REFERENCE_MISMATCH",
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One fault, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchFault {
    /// What kind.
    pub code: FaultCode,
    /// The record that it is about.
    pub position: Option<u64>,
    /// The column, file, part or seal line that it is about.
    pub place: String,
    /// What should stand there.
    pub expected: String,
    /// What stands there. Control characters are escaped, long values cut.
    pub found: String,
}

impl fmt::Display for BatchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.place)?;
        if let Some(position) = self.position {
            write!(f, " at position {position}")?;
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)
    }
}

/// How many faults of one code are kept in full; the rest is counted.
pub const KEPT_PER_CODE: u64 = 100;

/// Collects faults in bounded memory.
#[derive(Debug, Default)]
pub struct Faults {
    list: Vec<BatchFault>,
    counts: BTreeMap<FaultCode, u64>,
}

impl Faults {
    /// Adds one.
    pub fn push(&mut self, fault: BatchFault) {
        let count = self.counts.entry(fault.code).or_default();
        *count += 1;
        if *count <= KEPT_PER_CODE {
            self.list.push(fault);
        }
    }
    /// Adds one from its parts.
    pub fn add(
        &mut self,
        code: FaultCode,
        position: Option<u64>,
        place: impl Into<String>,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) {
        self.push(BatchFault {
            code,
            position,
            place: show(&place.into()),
            expected: show(&expected.to_string()),
            found: show(&found.to_string()),
        });
    }
    /// Adds those of another, behind its own.
    pub fn append(&mut self, other: Self) {
        let mut counted = other.counts;
        for fault in other.list {
            if let Some(more) = counted.get_mut(&fault.code) {
                *more = more.saturating_sub(1);
            }
            self.push(fault);
        }
        // Those that were not kept.
        for (code, more) in counted.into_iter().filter(|(_, more)| *more > 0) {
            *self.counts.entry(code).or_default() += more;
        }
    }
    /// True where nothing was added.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
    /// True where a fault of `code` was added.
    pub fn has(&self, code: FaultCode) -> bool {
        self.counts.contains_key(&code)
    }
    /// The faults; a code with more than [`KEPT_PER_CODE`] ends with one that counts the rest.
    pub fn into_vec(mut self) -> Vec<BatchFault> {
        for (code, count) in self.counts {
            if count > KEPT_PER_CODE {
                self.list.push(BatchFault {
                    code,
                    position: None,
                    place: "further faults of this code".into(),
                    expected: "0".into(),
                    found: (count - KEPT_PER_CODE).to_string(),
                });
            }
        }
        self.list
    }
}

/// Text from outside, made safe to print and cut to 160 characters.
pub(crate) fn show(text: &str) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == 160 {
            out.push('…');
            break;
        }
        if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_beyond_the_cap_are_counted_not_kept() {
        let mut faults = Faults::default();
        for i in 0..250 {
            faults.add(FaultCode::LeafMismatch, Some(i), "leaf", "a", "b");
        }
        let list = faults.into_vec();
        assert_eq!(list.len(), 101);
        assert_eq!(list[100].found, "150");
    }

    #[test]
    fn terminal_escapes_do_not_survive() {
        assert_eq!(show("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
    }
}
