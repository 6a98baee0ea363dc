//! The whole verification that is under way: it reads every object once, also where it is interrupted in between.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::state::State;
use crate::time;

const FILE: &str = "run.json";
const LABEL: &str = "affidavit/auditor/run/v1";

/// What was read longer ago than this is read again.
const LONGEST: i64 = 7 * time::DAY;

/// A whole verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// What its checkpoints are marked with.
    pub(super) id: String,
    /// When it began, microseconds UTC.
    began: i64,
}

impl Run {
    /// The run that was interrupted, else a new one.
    pub(super) fn under_way(state: &State, root: &Path, now: i64) -> anyhow::Result<Self> {
        let body = state.read_authentic(&root.join(FILE), LABEL).ok().flatten();
        let known = body.and_then(|body| serde_json::from_slice::<Self>(&body).ok());
        match known.filter(|run| (run.began..=run.began.saturating_add(LONGEST)).contains(&now)) {
            Some(run) => Ok(run),
            None => Self::begin(state, root, now),
        }
    }

    /// A new one.
    pub(super) fn begin(state: &State, root: &Path, now: i64) -> anyhow::Result<Self> {
        let mut id = [0; 16];
        SystemRandom::new().fill(&mut id).map_err(|_| io::Error::other("the system gave no random bytes"))?;
        let run = Self { id: hex::encode(id), began: now };
        std::fs::create_dir_all(root).with_context(|| format!("cache `{}`", root.display()))?;
        state.write_authentic(&root.join(FILE), LABEL, &serde_json::to_vec(&run)?)?;
        Ok(run)
    }

    /// It came to its end.
    pub(super) fn end(root: &Path) -> anyhow::Result<()> {
        super::remove(&root.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_until_it_ends_or_is_too_old_or_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state")).unwrap();
        let root = dir.path().join("cache");
        let now = 1_000 * time::DAY;
        let first = Run::under_way(&state, &root, now).unwrap();
        assert_eq!(Run::under_way(&state, &root, now + LONGEST).unwrap(), first);
        let second = Run::under_way(&state, &root, now + LONGEST + 1).unwrap();
        assert_ne!(second, first, "too old");
        assert_ne!(Run::under_way(&state, &root, now).unwrap(), second, "from the future");
        let text = std::fs::read_to_string(root.join(FILE)).unwrap();
        let changed = text.replace("\"began\":8", "\"began\":9");
        assert_ne!(text, changed);
        std::fs::write(root.join(FILE), changed).unwrap();
        let third = Run::under_way(&state, &root, now).unwrap();
        Run::end(&root).unwrap();
        assert_ne!(Run::under_way(&state, &root, now).unwrap(), third);
    }
}
