//! Reading ahead: verification goes through a log in the order of its names, so the next objects are asked for before
//! they are needed. Bounded in number and bytes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, mpsc};

use tokio::sync::Semaphore;

use super::client::Fault;
use super::fetch::Body;
use super::listing::{Listing, Version};

/// Objects that are read at one time.
const AT_ONCE: usize = 16;
/// Objects that stand ready or are under way before they are asked for.
const MOST: usize = 24;
/// Their bytes.
const MOST_BYTES: u64 = 64 << 20;
/// Larger objects are read when they are asked for.
const LARGEST: u64 = 8 << 20;

struct Waiting {
    length: u64,
    body: mpsc::Receiver<Result<Body, Fault>>,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<String, Waiting>,
    bytes: u64,
    /// The last name that was asked for ahead, by log: names before it are not asked for again.
    reached: BTreeMap<String, String>,
}

/// What was asked for ahead.
pub(super) struct Ahead {
    state: Mutex<State>,
    /// Bounds the reads under way.
    pub(super) turns: Semaphore,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { state: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead").finish_non_exhaustive()
    }
}

impl Ahead {
    /// What was asked for under this name. Whatever stands before it in its log was passed over, and is let go.
    pub(super) fn take(&self, name: &str) -> Option<mpsc::Receiver<Result<Body, Fault>>> {
        let mut state = self.state.lock().ok()?;
        let taken = state.waiting.remove(name);
        if let Some(taken) = &taken {
            state.bytes -= taken.length;
        }
        if state.waiting.len() >= MOST {
            let passed: Vec<String> =
                state.waiting.range(..name.to_owned()).map(|(name, _)| name.clone()).collect();
            for name in passed {
                if let Some(gone) = state.waiting.remove(&name) {
                    state.bytes -= gone.length;
                }
            }
        }
        taken.map(|taken| taken.body)
    }

    /// The names after `name` in its log that should be asked for now.
    pub(super) fn next(&self, listing: &Listing, name: &str) -> Vec<(String, Version)> {
        let Ok(mut state) = self.state.lock() else { return Vec::new() };
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let from = state.reached.get(folder).map_or(name, String::as_str).max(name).to_owned();
        let (mut bytes, mut count) = (state.bytes, state.waiting.len());
        let mut out = Vec::new();
        for (next, named) in listing.objects.range((Bound::Excluded(from), Bound::Unbounded)) {
            if count >= MOST || next.rsplit_once('/').map_or("", |(folder, _)| folder) != folder {
                break;
            }
            let Some(version) = named.chosen() else { continue };
            if version.length > LARGEST {
                continue;
            }
            if bytes + version.length > MOST_BYTES {
                break;
            }
            (bytes, count) = (bytes + version.length, count + 1);
            out.push((next.clone(), version.clone()));
        }
        if let Some((last, _)) = out.last() {
            state.reached.insert(folder.to_owned(), last.clone());
        }
        out
    }

    /// Keeps what was asked for.
    pub(super) fn put(&self, name: String, length: u64, body: mpsc::Receiver<Result<Body, Fault>>) {
        if let Ok(mut state) = self.state.lock() {
            state.bytes += length;
            if let Some(before) = state.waiting.insert(name, Waiting { length, body }) {
                state.bytes -= before.length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::listing::Named;
    use super::*;

    fn listing(count: usize, length: u64) -> Listing {
        let mut listing = Listing::default();
        for n in 0..count {
            let version = Version { id: n.to_string(), length, ..Version::default() };
            let named = Named { versions: vec![version], ..Named::default() };
            listing.objects.insert(format!("a/b/c/{n:04}"), named);
        }
        listing
    }

    #[test]
    fn what_is_asked_for_ahead_is_bounded_and_never_asked_for_twice() {
        let ahead = Ahead::default();
        let listing = listing(100, 10);
        let first = ahead.next(&listing, "a/b/c/0000");
        assert_eq!(first.len(), MOST);
        for (name, version) in &first {
            ahead.put(name.clone(), version.length, mpsc::sync_channel(1).1);
        }
        assert!(ahead.next(&listing, "a/b/c/0000").is_empty(), "as many as there may be");
        assert!(ahead.take("a/b/c/0001").is_some());
        assert!(ahead.take("a/b/c/0001").is_none());
        let more: Vec<String> =
            ahead.next(&listing, "a/b/c/0001").into_iter().map(|(name, _)| name).collect();
        assert_eq!(more, [format!("a/b/c/{:04}", MOST + 1)]);
        // Objects that nobody came for make room.
        ahead.put(more[0].clone(), 10, mpsc::sync_channel(1).1);
        ahead.take("a/b/c/0020");
        assert!(!ahead.next(&listing, "a/b/c/0020").is_empty());
    }

    #[test]
    fn large_objects_are_not_read_ahead() {
        assert!(Ahead::default().next(&listing(3, LARGEST + 1), "a/b/c/0000").is_empty());
    }
}
