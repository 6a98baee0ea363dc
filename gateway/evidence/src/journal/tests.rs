mod beside;
mod crash;
mod damage;
mod figures;
mod live;
mod model;
mod promised;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use schemas::record::PartName;
use schemas::{ExchangeId, Identifier, Origin, Sha256Hex};

use super::*;
use crate::disk::{SharedDisk, SimDisk};

const DIR: &str = "/journals/epoch";

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn clock() -> Arc<dyn Fn() -> i64 + Send + Sync> {
    let ticks = AtomicI64::new(1_000);
    Arc::new(move || ticks.fetch_add(1, Ordering::Relaxed))
}

fn origin() -> Origin {
    Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap()
}

/// Segments of 64 KiB, frames of at most 8 KiB, nothing allocated ahead: small enough to cross often.
fn small_config() -> JournalConfig {
    JournalConfig {
        segment_bytes: 64 << 10,
        frame_bytes: 8 << 10,
        group_bytes: 16 << 10,
        ahead_bytes: 0,
        ..JournalConfig::new(origin(), clock())
    }
}

fn shared(disk: &SimDisk) -> SharedDisk {
    Arc::new(disk.clone())
}

fn exchange(n: u32) -> ExchangeId {
    ExchangeId::new(format!("0192f1a0-0000-7000-8000-{n:012x}")).unwrap()
}

fn record(n: u32) -> Frame {
    let leaf = Bytes::from(format!("{{\"kind\":\"heartbeat\",\"n\":{n}}}"));
    Frame::Record { hash: Sha256Hex::of(&leaf), leaf }
}

fn content(of: u32, seq: u32, bytes: usize) -> Frame {
    Frame::Content(content_frame(of, seq, bytes))
}

fn content_frame(of: u32, seq: u32, bytes: usize) -> ContentFrame {
    ContentFrame {
        exchange: exchange(of),
        part: PartName::ProviderResponse,
        seq,
        delivered: u64::from(seq) * 10,
        key_id: Some(Identifier::new("acme/gw1/e/000001/0002").unwrap()),
        data: Bytes::from(vec![(of * 31 + seq) as u8 | 1; bytes]),
    }
}

/// Everything that recovery shows, with the positions.
fn recovered(disk: &SimDisk) -> Option<(Recovery, Vec<(u64, Frame)>)> {
    shared(disk).entry(dir()).unwrap()?;
    let mut frames = Vec::new();
    let recovery = recover::<std::convert::Infallible>(shared(disk), dir(), &mut |found| {
        frames.push((found.position, found.frame.clone()));
        Ok(())
    })
    .unwrap()?;
    Some((recovery, frames))
}

/// Submits with as much space as it takes.
fn put(journal: &Journal, frames: Vec<Frame>) -> Ticket {
    match journal.reserve_blocking(2 * Journal::cost(frames.iter().map(Frame::payload_bytes))) {
        Ok(mut reservation) => journal.submit(&mut reservation, frames),
        Err(_) => journal.submit_free(frames),
    }
}
