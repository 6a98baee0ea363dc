//! Pushes of leaves to Grafana Loki: `POST /loki/api/v1/push`, JSON in gzip; only 204 acknowledges.
//!
//! Loki is a view and no evidence: what it will never take (too old, too far behind, too large) is counted, told and passed by, so
//! that it keeps nothing else. All other refusals are tried again.
//!
//! A push holds one stream: Loki 3 answers one that holds several by what became of the last, and says 204 where it dropped
//! entries of another.

mod entry;
mod judge;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use evidence::Stop;
use evidence::tap::{Sink, SinkError, SinkFigures, TapItem};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Builder;
use rustls::ClientConfig;
use serde_json::json;

use self::entry::{Entry, Stream};
use self::judge::{Judged, Refused, judge};
use super::post::{Poster, authorization};
use crate::config::{Secret, TapLoki};

/// Where Loki takes entries.
const PUSH: &str = "/loki/api/v1/push";
/// The largest number of entries in one push.
const MOST: usize = 4096;
/// So many entries by themselves are refused for a reason that is not known, and none is taken: then it is not the entries.
const MOST_DOUBTFUL: usize = 4;
/// The reason where no known one is.
const OTHER: &str = "other";
/// Why Loki never takes an entry, as labels.
pub(crate) const REASONS: [&str; 4] = ["too_old", "too_far_behind", "too_large", OTHER];

#[derive(Clone)]
pub(super) struct Settings {
    /// The sink's name.
    pub(super) name: String,
    pub(super) typed: TapLoki,
    pub(super) password: Option<Secret>,
    pub(super) token: Option<Secret>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) figures: Arc<SinkFigures>,
}

/// A Loki.
pub(super) struct Loki {
    settings: Settings,
    poster: Poster,
    waiting: Waiting,
    /// How many entries go into one push: fewer where they did not get through.
    most: usize,
}

/// Entries that wait for others to go with.
#[derive(Debug, Default)]
struct Waiting {
    streams: BTreeMap<Stream, Vec<Entry>>,
    bytes: usize,
    since: Option<Instant>,
}

/// An entry that Loki never takes.
#[derive(Debug)]
struct Lost {
    position: u64,
    reason: &'static str,
    detail: String,
}

impl std::fmt::Debug for Loki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loki").field("url", &self.settings.typed.url).finish_non_exhaustive()
    }
}

impl Loki {
    pub(super) fn new(settings: Settings) -> Self {
        let poster = Poster::new(&settings.tls, settings.typed.timeout);
        Self { settings, poster, waiting: Waiting::default(), most: MOST }
    }

    /// Pushes all that waits.
    fn flush(&mut self, stop: &Stop) -> Result<(), SinkError> {
        let waiting = std::mem::take(&mut self.waiting);
        let (mut lost, most, mut is_full) = (Vec::new(), self.most, false);
        for (stream, entries) in waiting.streams {
            is_full |= entries.len() >= most;
            let of_stream = self.push(&stream, &entries, stop)?;
            lost.push((stream, of_stream));
        }
        // Not before all of it is through: what grew in between would fail again, and all would come again.
        if is_full && self.most == most {
            self.most = (most * 2).min(MOST);
        }
        // Counted when nothing of it comes again.
        lost.iter().for_each(|(stream, lost)| self.pass_by(stream, lost));
        Ok(())
    }

    /// Pushes the entries of one stream, in their order. Gives those that Loki never takes.
    fn push(&mut self, stream: &Stream, entries: &[Entry], stop: &Stop) -> Result<Vec<Lost>, SinkError> {
        let mut todo: Vec<Vec<&Entry>> = vec![entries.iter().collect()];
        let (mut lost, mut doubtful, mut is_any_taken) = (Vec::new(), Vec::new(), false);
        while let Some(mut part) = todo.pop() {
            if part.len() > self.most {
                todo.push(part.split_off(self.most));
            }
            let answer = self.poster.post(self.request()?, body(stream, &part)?, stop)?;
            match judge(&answer) {
                Judged::Taken => is_any_taken = true,
                Judged::Later(error) => {
                    self.most = (part.len() / 2).max(1);
                    return Err(error);
                }
                Judged::TooMany(error) => match part.as_slice() {
                    [entry] => lost.push(Lost::of(entry, "too_large", error.detail)),
                    _ => {
                        self.most = part.len() / 2;
                        todo.push(part);
                    }
                },
                Judged::Refused(refused) => match sort_out(part, &refused) {
                    Sorted::Apart { gone, rest } => {
                        let reason = refused.reason.unwrap_or(OTHER);
                        lost.extend(gone.iter().map(|entry| Lost::of(entry, reason, refused.detail.clone())));
                        todo.extend(rest);
                    }
                    Sorted::Doubtful(entry) => {
                        doubtful.push(Lost::of(entry, OTHER, refused.detail.clone()));
                        if !is_any_taken && doubtful.len() >= MOST_DOUBTFUL {
                            return Err(SinkError::new("refused", refused.detail));
                        }
                    }
                },
            }
        }
        match doubtful.pop() {
            // Nothing shows that it is this entry, and not all that we push.
            Some(last) if !is_any_taken => Err(SinkError::new("refused", last.detail)),
            last => {
                lost.extend(doubtful.into_iter().chain(last));
                Ok(lost)
            }
        }
    }

    fn request(&self) -> Result<Builder, SinkError> {
        let typed = &self.settings.typed;
        let mut request = Request::post(format!("{}{PUSH}", typed.url))
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_ENCODING, "gzip");
        if let Some(tenant) = &typed.tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        if let (Some(user), Some(password)) = (&typed.user, &self.settings.password) {
            let pair = STANDARD.encode(format!("{user}:{}", password.expose()));
            request = request.header(AUTHORIZATION, authorization("Basic", &pair)?);
        } else if let Some(token) = &self.settings.token {
            request = request.header(AUTHORIZATION, authorization("Bearer", token.expose())?);
        }
        Ok(request)
    }

    /// Counts and tells what Loki never takes.
    fn pass_by(&self, stream: &Stream, lost: &[Lost]) {
        for reason in REASONS {
            let of_reason = || lost.iter().filter(|lost| lost.reason == reason);
            let (Some(first), Some(last)) = (of_reason().next(), of_reason().next_back()) else { continue };
            let count = of_reason().count() as u64;
            self.settings.figures.passed_by(reason, count);
            tracing::error!(
                sink = self.settings.name,
                origin = %stream.origin,
                kind = stream.kind,
                reason,
                count,
                first = first.position,
                last = last.position,
                detail = last.detail,
                "Loki never takes these leaves, and they are passed by; the evidence has them"
            );
        }
    }
}

impl Lost {
    fn of(entry: &Entry, reason: &'static str, detail: String) -> Self {
        Self { position: entry.position, reason, detail }
    }
}

/// What a refusal says of each entry of a push.
enum Sorted<'a> {
    /// These are never taken; the rest is pushed again, the last part first in the list.
    Apart { gone: Vec<&'a Entry>, rest: Vec<Vec<&'a Entry>> },
    /// It is this entry, or everything.
    Doubtful(&'a Entry),
}

fn sort_out<'a>(mut part: Vec<&'a Entry>, refused: &Refused) -> Sorted<'a> {
    if let Some(oldest_us) = refused.oldest_us {
        let (gone, rest): (Vec<_>, Vec<_>) = part.iter().partition(|entry| entry.at_us < oldest_us);
        if !gone.is_empty() {
            let rest = if rest.is_empty() { Vec::new() } else { vec![rest] };
            return Sorted::Apart { gone, rest };
        }
    }
    match (part.as_slice(), refused.reason) {
        ([entry], None) => Sorted::Doubtful(entry),
        ([_], Some(_)) => Sorted::Apart { gone: part, rest: Vec::new() },
        _ => {
            let later = part.split_off(part.len() / 2);
            Sorted::Apart { gone: Vec::new(), rest: vec![later, part] }
        }
    }
}

impl Sink for Loki {
    fn send(&mut self, items: &[TapItem], stop: &Stop) -> Result<(), SinkError> {
        for item in items {
            let entry = Entry::of(item);
            self.waiting.bytes += entry.size();
            self.waiting.since.get_or_insert_with(Instant::now);
            self.waiting.streams.entry(Stream::of(item)).or_default().push(entry);
        }
        if self.waiting.bytes as u64 >= self.settings.typed.batch { self.flush(stop) } else { Ok(()) }
    }

    fn confirm(&mut self, now: bool, stop: &Stop) -> Result<bool, SinkError> {
        let Some(since) = self.waiting.since else { return Ok(true) };
        if !now && since.elapsed() < self.settings.typed.wait {
            return Ok(false);
        }
        self.flush(stop).map(|()| true)
    }

    fn reset(&mut self) {
        self.waiting = Waiting::default();
    }
}

/// The body of a push.
fn body(stream: &Stream, entries: &[&Entry]) -> Result<Bytes, SinkError> {
    let values: Vec<_> = entries.iter().map(|entry| entry.value()).collect();
    let push = json!({ "streams": [{ "stream": stream.labels(), "values": values }] });
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = gzip.write_all(push.to_string().as_bytes()).and_then(|()| gzip.finish());
    packed.map(Bytes::from).map_err(|error| SinkError::new("local", error.to_string()))
}
