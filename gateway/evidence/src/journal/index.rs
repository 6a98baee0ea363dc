//! Where every frame that is still needed stands, and what keeps each segment from deletion.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use schemas::{Identifier, Sha256Hex};

use super::SpillFrame;
use super::frame::{self, Meta, part_number};
use super::segments::ContentSummary;
use crate::disk::DiskFile;

/// Open files of segments that are only read.
const OPEN_FILES: usize = 32;

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) segment: u32,
    /// Bytes of the whole frame.
    pub(super) len: u32,
    pub(super) offset: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Source {
    Frame(At),
    Spill(Arc<SpillFrame>, At),
}

impl Source {
    pub(super) fn at(&self) -> At {
        match self {
            Self::Frame(at) | Self::Spill(_, at) => *at,
        }
    }
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) part: u8,
    pub(super) summary: ContentSummary,
    pub(super) sources: Vec<Source>,
}

/// What keeps a segment from deletion.
#[derive(Debug, Default)]
pub(super) struct Use {
    pub(super) len: u64,
    /// One past the last position that must be archived first.
    pub(super) until: u64,
    /// Content frames that no sealed record commits to yet.
    pub(super) live: u64,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) segments: BTreeMap<u32, Use>,
    pub(super) records: VecDeque<(u64, At)>,
    pub(super) references: Vec<(u64, Sha256Hex, At)>,
    pub(super) content: HashMap<[u8; 16], Vec<Part>>,
    /// Spill files of sealed content, and the position that must be archived first.
    pub(super) spills: Vec<(String, u64, u64)>,
    pub(super) files: BTreeMap<u32, Arc<dyn DiskFile>>,
    pub(super) unsealed_bytes: u64,
}

impl Index {
    pub(super) fn keep(&mut self, segment: u32, file: Arc<dyn DiskFile>) {
        if self.files.len() >= OPEN_FILES {
            self.files.pop_first();
        }
        self.files.insert(segment, file);
    }

    pub(super) fn add(&mut self, at: At, position: u64, meta: &Meta) {
        // A plan is not sealed: it waits for the records behind it.
        self.unsealed_bytes += if *meta == Meta::Plan { 0 } else { u64::from(at.len) };
        let used = self.segments.entry(at.segment).or_default();
        match meta {
            Meta::Record => {
                used.until = used.until.max(position + 1);
                self.records.push_back((position, at));
            }
            Meta::Reference { sha256 } => {
                used.until = used.until.max(position + 1);
                self.references.push((position, *sha256, at));
            }
            Meta::Plan => used.until = used.until.max(position + 1),
            Meta::Content { exchange, part, delivered, bytes, key_id, .. } => {
                used.live += 1;
                let part = self.part(*exchange, *part, key_id.as_ref());
                part.summary.frames += 1;
                part.summary.bytes += u64::from(*bytes);
                part.summary.delivered = part.summary.delivered.max(*delivered);
                part.sources.push(Source::Frame(at));
            }
            Meta::Spill(spill) => {
                used.live += 1;
                let exchange = frame::exchange_bytes(&spill.exchange);
                let part = self.part(exchange, part_number(spill.part), spill.key_id.as_ref());
                part.summary.frames += u64::from(spill.frames);
                part.summary.bytes = part.summary.bytes.saturating_add(spill.bytes);
                part.summary.delivered = part.summary.delivered.max(spill.delivered);
                part.sources.push(Source::Spill(Arc::new(spill.clone()), at));
            }
        }
    }

    fn part(&mut self, exchange: [u8; 16], part: u8, key_id: Option<&Identifier>) -> &mut Part {
        let parts = self.content.entry(exchange).or_default();
        let at = parts.iter().position(|found| found.part == part).unwrap_or_else(|| {
            let summary = ContentSummary { key_id: key_id.cloned(), ..ContentSummary::default() };
            parts.push(Part { part, summary, sources: Vec::new() });
            parts.len() - 1
        });
        &mut parts[at]
    }

    /// The part needs its segments no longer than until `to` is archived.
    pub(super) fn release(&mut self, part: &Part, to: u64) {
        for source in &part.sources {
            let at = source.at();
            self.unsealed_bytes = self.unsealed_bytes.saturating_sub(u64::from(at.len));
            if let Some(used) = self.segments.get_mut(&at.segment) {
                used.live = used.live.saturating_sub(1);
                used.until = used.until.max(to);
            }
            if let Source::Spill(spill, _) = source {
                self.spills.push((spill.file.clone(), spill.bytes, to));
            }
        }
    }
}
