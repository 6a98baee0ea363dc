//! However a stream is cut, the facts and the bytes are the same.

use super::support::{Passed, Seeded, pass};
use super::{every_line, long};

/// The places where an event of a recorded stream ends.
fn boundaries(line: &super::Line) -> Vec<usize> {
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

fn is_frames(line: &super::Line) -> bool {
    line.headers.get("content-type").is_some_and(|kind| kind == "application/vnd.amazon.eventstream")
}

fn frame_length(frame: &[u8]) -> Option<usize> {
    frame.first_chunk().map(|four| usize::try_from(u32::from_be_bytes(*four)).unwrap())
}

fn same(line: &super::Line, whole: &Passed, cuts: &[usize], stripping: bool, what: &str) {
    let cut = pass(line, &line.response, cuts, stripping);
    assert_eq!(cut.facts, whole.facts, "{}: facts, {what}", line.id);
    assert_eq!((cut.output, cut.terminal), (whole.output, whole.terminal), "{}: {what}", line.id);
    let (mut a, mut b) = (cut.forwarded.clone(), whole.forwarded.clone());
    a.extend_from_slice(&cut.held);
    b.extend_from_slice(&whole.held);
    assert!(a == b, "{}: bytes, {what}", line.id);
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

#[test]
fn no_cut_changes_facts_or_bytes() {
    let (mut streams, mut passes, mut bytes) = (0_u64, 0_u64, 0_u64);
    every_line(|line| {
        if !line.streaming {
            return;
        }
        streams += 1;
        let body = &line.response;
        for stripping in [false, true] {
            if stripping && !line.operation.can_ask_usage() {
                continue;
            }
            let whole = pass(line, body, &[], stripping);
            if !stripping {
                let mut all = whole.forwarded.clone();
                all.extend_from_slice(&whole.held);
                assert!(all == *body, "{}: the caller gets other bytes", line.id);
            }
            let mut cuts: Vec<Vec<usize>> = Vec::new();
            let boundaries = boundaries(line);
            if long() {
                if body.len() <= 8 << 10 {
                    cuts.extend((1..body.len()).map(|at| vec![at]));
                } else {
                    let mut places: Vec<usize> = boundaries
                        .iter()
                        .flat_map(|at| at.saturating_sub(8).max(1)..(at + 8).min(body.len()))
                        .collect();
                    places.dedup();
                    cuts.extend(places.into_iter().map(|at| vec![at]));
                }
            } else {
                // The short round: round the last boundary before the end, where terminal events are.
                let chosen = boundaries.iter().rev().take(1);
                cuts.extend(
                    chosen
                        .flat_map(|at| at.saturating_sub(3).max(1)..(at + 2).min(body.len()))
                        .map(|at| vec![at]),
                );
            }
            if long() || body.len() <= 4 << 10 {
                cuts.push((1..body.len()).collect());
            }
            for seed in 0..if long() { 32 } else { 2 } {
                let mut random = Seeded(0x5eed_0000 + seed);
                let mut at = 0;
                let mut cut = Vec::new();
                loop {
                    at += 1 + random.below(if seed % 2 == 0 { 40 } else { 2000 });
                    if at >= body.len() {
                        break;
                    }
                    cut.push(at);
                }
                cuts.push(cut);
            }
            for cut in &cuts {
                passes += 1;
                bytes += body.len() as u64;
                let what = format!("stripping {stripping}, {} cuts, first {:?}", cut.len(), cut.first());
                same(line, &whole, cut, stripping, &what);
            }
        }
    });
    println!(
        "{streams} streams passed {passes} times in pieces, {} MB ({} round)",
        bytes / 1_000_000,
        if long() { "long" } else { "short" }
    );
    assert!(streams >= 5 && passes >= 50);
}
