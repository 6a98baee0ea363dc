//! However a stream is cut, the facts and the bytes are the same.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::support::{Line, Passed, Seeded, pass};
use super::{lines, long};

/// The places where an event of a recorded stream ends.
fn boundaries(line: &Line) -> Vec<usize> {
    let body = &line.response;
    if is_frames(line) {
        let mut at = 0;
        return std::iter::from_fn(|| {
            at += frame_length(body.get(at..)?)?;
            Some(at)
        })
        .collect();
    }
    (1..body.len())
        .filter(|at| {
            matches!(body[..*at], [.., b'\n', b'\n'] | [.., b'\r', b'\n', b'\r', b'\n'] | [.., b'\r', b'\r'])
        })
        .collect()
}

fn is_frames(line: &Line) -> bool {
    line.headers.get("content-type").is_some_and(|kind| kind == "application/vnd.amazon.eventstream")
}

fn frame_length(frame: &[u8]) -> Option<usize> {
    frame.first_chunk().map(|four| usize::try_from(u32::from_be_bytes(*four)).unwrap())
}

fn same(line: &Line, whole: &Passed, cuts: &[usize], stripping: bool, what: &str) {
    let cut = pass(line, &line.response, cuts, stripping);
    assert_eq!(cut.facts, whole.facts, "{}: facts, {what}", line.id);
    assert_eq!((cut.output, cut.terminal), (whole.output, whole.terminal), "{}: {what}", line.id);
    assert!(same_bytes(&cut, whole), "{}: bytes, {what}", line.id);
    // The end of a terminal event is never forwarded before the commit.
    assert_eq!(cut.held.is_empty(), whole.held.is_empty(), "{}: held, {what}", line.id);
    if !whole.held.is_empty() {
        let first = if is_frames(line) { frame_length(&whole.held) } else { None };
        let terminal_end = whole.forwarded.len() + first.unwrap_or_else(|| end_of_first_event(&whole.held));
        assert!(
            cut.forwarded.len() < terminal_end,
            "{}: the terminal event was let go whole, {what}",
            line.id
        );
    }
}

/// The caller gets the same, whatever of it waited for the commit.
fn same_bytes(one: &Passed, other: &Passed) -> bool {
    let (less, more) = if one.held.len() < other.held.len() { (one, other) } else { (other, one) };
    // What the one let go beyond the other is the head of what the other held.
    let further = less.forwarded.strip_prefix(more.forwarded.as_slice());
    further.is_some_and(|further| more.held.strip_prefix(further) == Some(less.held.as_slice()))
}

/// One past the last byte that a reader needs to see the first event whole: the line end before its blank line, or the
/// brace that closes a JSON object, here the only one.
fn end_of_first_event(held: &[u8]) -> usize {
    let text = held;
    if text.starts_with(b"{") {
        return text.iter().rposition(|b| *b == b'}').map_or(text.len(), |at| at + 1);
    }
    for at in 0..text.len() {
        let rest = &text[at..];
        if rest.starts_with(b"\n\n") || rest.starts_with(b"\r\r") || rest.starts_with(b"\r\n\r\n") {
            return at + 1;
        }
    }
    text.len()
}

/// Where a stream is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Once, here.
    At(usize),
    /// So far behind the end of every event, or before it.
    Beside(isize),
    /// Behind every byte.
    Everywhere,
    /// Into pieces of chance, short ones or long ones.
    Random(u64),
}

impl Cut {
    fn places(self, length: usize, boundaries: &[usize]) -> Vec<usize> {
        let seed = match self {
            Self::At(at) => return vec![at],
            Self::Beside(by) => {
                let places = boundaries.iter().filter_map(|end| end.checked_add_signed(by));
                let inside: BTreeSet<usize> = places.filter(|at| (1..length).contains(at)).collect();
                return inside.into_iter().collect();
            }
            Self::Everywhere => return (1..length).collect(),
            Self::Random(seed) => seed,
        };
        let mut random = Seeded(0x5eed_0000 + seed);
        let mut at = 0;
        let mut places = Vec::new();
        loop {
            at += 1 + random.below(if seed % 2 == 0 { 40 } else { 2000 });
            if at >= length {
                return places;
            }
            places.push(at);
        }
    }

    /// All cuts of a stream in this round: the long one has every place of a short stream, and of another one those round the end of
    /// every event, and round the first and the last by themselves.
    fn of(line: &Line, boundaries: &[usize]) -> Vec<Self> {
        let length = line.response.len();
        let every = long() && length <= 8 << 10;
        let near = if long() { 8 } else { 2 };
        let ends = [boundaries.first().filter(|_| long()), boundaries.last()];
        let round = |end: usize| end.saturating_sub(near + 1).max(1)..(end + near).min(length);
        let single: BTreeSet<usize> = if every {
            (1..length).collect()
        } else {
            ends.into_iter().flatten().copied().flat_map(round).collect()
        };
        let beside = (-near.cast_signed()..near.cast_signed()).map(Self::Beside);
        let everywhere = (long() || length <= 4 << 10).then_some(Self::Everywhere);
        let random = (0..if long() { 32 } else { 2 }).map(Self::Random);
        single.into_iter().map(Self::At).chain(beside).chain(everywhere).chain(random).collect()
    }
}

/// A stream, with what becomes of it in one piece, and its cuts.
struct Stream<'a> {
    line: &'a Line,
    stripping: bool,
    whole: Passed,
    boundaries: Vec<usize>,
    cuts: Vec<Cut>,
}

impl<'a> Stream<'a> {
    /// Each as it is, and where usage can be asked for, with the trace of the asking taken out.
    fn of(line: &'a Line) -> impl Iterator<Item = Self> {
        let of = move |stripping| {
            let whole = pass(line, &line.response, &[], stripping);
            let boundaries = boundaries(line);
            let cuts = Cut::of(line, &boundaries);
            Self { line, stripping, whole, boundaries, cuts }
        };
        [false, true]
            .into_iter()
            .filter(move |stripping| !stripping || line.operation.can_ask_usage())
            .map(of)
    }

    fn pass(&self, cuts: Range<usize>) {
        for cut in &self.cuts[cuts] {
            let places = cut.places(self.line.response.len(), &self.boundaries);
            same(
                self.line,
                &self.whole,
                &places,
                self.stripping,
                &format!("stripping {}, {cut:?}", self.stripping),
            );
        }
    }
}

/// How far the passes of all streams have come.
struct Progress {
    passes: u64,
    bytes: u64,
    all_bytes: u64,
    begun: Instant,
    said: Instant,
}

impl Progress {
    fn done(&mut self, passes: usize, bytes: usize) {
        self.passes += passes as u64;
        self.bytes += bytes as u64;
        if self.said.elapsed() > Duration::from_secs(10) {
            self.said = Instant::now();
            let took = self.begun.elapsed().as_secs_f64();
            let left = took / self.bytes as f64 * (self.all_bytes - self.bytes) as f64;
            let (megabytes, all) = (self.bytes / 1_000_000, self.all_bytes / 1_000_000);
            println!("{} passes, {megabytes} of {all} MB in {took:.0} s, {left:.0} s more", self.passes);
        }
    }
}

/// Some cuts of a stream that one thread passes together: a few megabytes.
fn portions<'a>(streams: &'a [Stream<'a>]) -> Vec<(&'a Stream<'a>, Range<usize>)> {
    let mut portions = Vec::new();
    for stream in streams {
        let step = (4 << 20) / stream.line.response.len().max(1) + 1;
        let starts = (0..stream.cuts.len()).step_by(step);
        portions.extend(starts.map(|from| (stream, from..(from + step).min(stream.cuts.len()))));
    }
    // In an order of chance: what is done tells how long the rest takes.
    let mut random = Seeded(0x5eed);
    for at in (1..portions.len()).rev() {
        portions.swap(at, random.below(at + 1));
    }
    portions
}

#[test]
fn no_cut_changes_facts_or_bytes() {
    let lines = lines();
    let streaming = || lines.iter().filter(|line| line.streaming);
    let streams: Vec<Stream<'_>> = streaming().flat_map(Stream::of).collect();
    for stream in streams.iter().filter(|stream| !stream.stripping) {
        let all = [stream.whole.forwarded.as_slice(), &stream.whole.held].concat();
        assert!(all == stream.line.response, "{}: the caller gets other bytes", stream.line.id);
    }
    let bytes = |stream: &Stream<'_>| (stream.line.response.len() * stream.cuts.len()) as u64;
    let begun = Instant::now();
    let progress = Mutex::new(Progress {
        passes: 0,
        bytes: 0,
        all_bytes: streams.iter().map(bytes).sum(),
        begun,
        said: begun,
    });
    let portions = portions(&streams);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((stream, cuts)) = portions.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let count = cuts.len();
                    stream.pass(cuts.clone());
                    progress.lock().unwrap().done(count, count * stream.line.response.len());
                }
            });
        }
    });
    let Progress { passes, bytes, .. } = progress.into_inner().unwrap();
    let streams = streaming().count();
    println!(
        "{streams} streams passed {passes} times in pieces, {} MB in {:.0} s ({} round)",
        bytes / 1_000_000,
        begun.elapsed().as_secs_f64(),
        if long() { "long" } else { "short" }
    );
    assert!(streams >= 5 && passes >= 50);
}
