//! The zstd dictionary of small chunks: the providers' wire formats, in our own words. Never what a caller sent: it
//! stands unencrypted in the reference file and cannot be erased. What is in it: `gateway/evidence/dictionary/README.md`.

use std::sync::LazyLock;

use schemas::content::{DICTIONARY_MEDIA_TYPE, Dictionary, Encoding};
use schemas::files::ReferenceRow;

/// Most useful last: zstd names what is near with fewer bits.
const TEXT: &str = concat!(
    include_str!("../../dictionary/tool-schemas.txt"),
    include_str!("../../dictionary/errors.txt"),
    include_str!("../../dictionary/compatible.txt"),
    include_str!("../../dictionary/anthropic.txt"),
    include_str!("../../dictionary/openai-responses.txt"),
    include_str!("../../dictionary/openai-chat.txt"),
    include_str!("../../dictionary/heads.txt"),
);

/// Made ready once in a process: digesting it costs as much as compressing a hundred parts. None where the text is no
/// dictionary (a test says that it is one): then everything is written without.
static DICTIONARY: LazyLock<Vec<Dictionary>> =
    LazyLock::new(|| Dictionary::new(TEXT.as_bytes()).into_iter().collect());

/// Longer chunks hold their own repetitions; the dictionary would cost time and save next to nothing.
const MAX_BYTES: usize = 128 << 10;

/// A row is never farther from its dictionary than this, microseconds: so a reference file that is kept 30 days longer
/// than content is there as long as any row that needs it.
const DAYS_30_US: i64 = 30 * 86_400 * 1_000_000;

/// What rows are written with.
pub(super) fn known() -> &'static [Dictionary] {
    DICTIONARY.as_slice()
}

/// How a chunk of this many bytes is written, where it is not edits.
pub(super) fn encoding(bytes: usize) -> Encoding {
    match DICTIONARY.first().filter(|_| bytes <= MAX_BYTES) {
        Some(dictionary) => Encoding::ZstdDict { dictionary: dictionary.sha256() },
        None => Encoding::Zstd,
    }
}

/// When the dictionary was last written into the log.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The time of the seal of the newest batch that holds it. A sealer that begins in the middle of a log writes it anew.
    at: Option<i64>,
    /// A row of the batch that is being built needs it.
    needed: bool,
}

impl Written {
    /// A batch is built from its beginning.
    pub(super) fn begin(&mut self) {
        self.needed = false;
    }

    /// A row was written so.
    pub(super) fn row(&mut self, encoding: &Encoding) {
        self.needed |= matches!(encoding, Encoding::ZstdDict { .. });
    }

    /// The row of the reference file, where the batch that is sealed at `now` is to hold it.
    pub(super) fn due(&self, now: i64) -> Option<ReferenceRow> {
        let near = self.at.is_some_and(|at| now.saturating_sub(at) < DAYS_30_US);
        DICTIONARY.first().filter(|_| self.needed && !near).map(|dictionary| ReferenceRow {
            sha256: dictionary.sha256(),
            media_type: DICTIONARY_MEDIA_TYPE.into(),
            bytes: TEXT.into(),
        })
    }

    /// The batch is complete in the spool. `held`: with the dictionary.
    pub(super) fn sealed(&mut self, held: bool, at: i64) {
        if held {
            self.at = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_written_with_the_first_row_that_needs_it_and_every_30_days() {
        let mut written = Written::default();
        written.begin();
        written.row(&Encoding::Zstd);
        assert!(written.due(0).is_none());
        written.row(&encoding(100));
        assert!(written.due(0).is_some());
        // The batch failed: the next try writes it.
        written.begin();
        written.row(&encoding(100));
        assert!(written.due(5).is_some());
        written.sealed(true, 5);
        written.begin();
        written.row(&encoding(100));
        assert!(written.due(4 + DAYS_30_US).is_none());
        written.sealed(false, 4 + DAYS_30_US);
        assert!(written.due(5 + DAYS_30_US).is_some());
    }

    #[test]
    fn long_chunks_do_without() {
        assert_eq!(known().len(), 1);
        assert!(matches!(encoding(MAX_BYTES), Encoding::ZstdDict { .. }));
        assert_eq!(encoding(MAX_BYTES + 1), Encoding::Zstd);
    }
}
