//! What the auditor keeps of a bucket's prefix between visits: the lock state that it last saw of every version.
//!
//! One file for each bucket and prefix, `stores/<id>-<start of its SHA-256>.json` in the state folder, authenticated by
//! the local key; `visits.json` names its SHA-256, so that an older file cannot take its place.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use schemas::Sha256Hex;
use serde::{Deserialize, Serialize};

use crate::mandate::Mandate;
use crate::source::s3::Bucket;
use crate::state::{State, Visits};

const LABEL: &str = "affidavit/auditor/store/v1";

/// The lock state of a version when it was last read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `COMPLIANCE`, `GOVERNANCE`, or empty.
    pub mode: String,
    /// Retain-until, microseconds UTC; 0 where there is none.
    pub until: i64,
    /// Whether a legal hold was on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// When it was read.
    pub at: i64,
    /// The seal's time, where the version belongs to a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_at: Option<i64>,
    /// Whether nothing at all was found, and nothing left open: else it is asked about at every visit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clean: bool,
}

/// All that is kept of one bucket and prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Bucket, prefix and endpoint.
    pub store: String,
    /// The owners that the store named.
    #[serde(default)]
    pub owners: Vec<String>,
    /// By name and version id.
    #[serde(default)]
    pub versions: BTreeMap<String, BTreeMap<String, Seen>>,
    /// What the mandate asked of a version when they were read, in short.
    #[serde(default)]
    pub judged_by: String,
}

impl Kept {
    /// Holds what is known to a mandate: what was sound by another one is asked about again.
    pub fn judge_by(&mut self, mandate: &Mandate) {
        let asked = format!("{:?} {:?}", mandate.retention, mandate.store);
        let asked = hex::encode(&Sha256Hex::of(asked.as_bytes()).0[..8]);
        if self.judged_by != asked {
            self.versions.values_mut().flat_map(BTreeMap::values_mut).for_each(|seen| seen.clean = false);
            self.judged_by = asked;
        }
    }

    /// What is known of a version.
    pub fn seen(&self, name: &str, version: &str) -> Option<&Seen> {
        self.versions.get(name)?.get(version)
    }

    /// Takes what another visit knew, where it knew more: nothing that is known is lowered.
    pub fn learn(&mut self, other: Self) {
        for (name, versions) in other.versions {
            let known = self.versions.entry(name).or_default();
            for (id, seen) in versions {
                match known.get_mut(&id) {
                    // The later word on a hold is the one that the next visit is held to.
                    Some(here) if rank(here) >= rank(&seen) => here.hold |= seen.hold && seen.at > here.at,
                    // What another auditor found sound, this one has not looked at.
                    _ => _ = known.insert(id, Seen { clean: false, ..seen }),
                }
            }
        }
        if self.owners.is_empty() {
            self.owners = other.owners;
        }
    }
}

/// What is more to hold a store to: COMPLIANCE before others, then the later date.
fn rank(seen: &Seen) -> (bool, i64, i64) {
    (seen.mode == "COMPLIANCE", seen.until, seen.at)
}

/// How a bucket and prefix are told apart in the state.
pub fn id(bucket: &Bucket) -> String {
    let text = format!("{}\n{}", bucket.endpoint.as_deref().unwrap_or("aws"), bucket.address);
    hex::encode(&Sha256Hex::of(text.as_bytes()).0[..8])
}

fn path(state: &State, id: &str, hash: &Sha256Hex) -> PathBuf {
    state.folder().join("stores").join(format!("{id}-{}.json", hex::encode(&hash.0[..8])))
}

/// Reads what is kept. `Ok(None)`: this store was not visited before.
///
/// # Errors
/// What is kept is gone or does not authenticate: in words.
pub fn load(state: &State, visits: &Visits, id: &str) -> Result<Option<Kept>, String> {
    let Some(hash) = visits.stores.get(id) else { return Ok(None) };
    let path = path(state, id, hash);
    let body = match state.read_authentic(&path, LABEL) {
        Ok(Some(body)) if Sha256Hex::of(&body) == *hash => body,
        Ok(_) => return Err(format!("`{}` does not authenticate", path.display())),
        Err(error) => return Err(format!("`{}`: {error}", path.display())),
    };
    serde_json::from_slice(&body).map(Some).map_err(|error| format!("`{}`: {error}", path.display()))
}

/// Writes what is kept; `visits` names it then, and must be written after it.
///
/// # Errors
/// The file cannot be written; what was there stays.
pub fn save(state: &State, visits: &mut Visits, id: &str, kept: &Kept) -> anyhow::Result<()> {
    let body = serde_json::to_vec(kept)?;
    let hash = Sha256Hex::of(&body);
    let path = path(state, id, &hash);
    let folder = state.folder().join("stores");
    fs::create_dir_all(&folder).with_context(|| format!("`{}`", folder.display()))?;
    state.write_authentic(&path, LABEL, &body).with_context(|| format!("`{}`", path.display()))?;
    visits.stores.insert(id.to_owned(), hash);
    Ok(())
}

/// Removes older files, after `visits` was written.
///
/// # Errors
/// The folder cannot be read.
pub fn clean(state: &State, visits: &Visits) -> io::Result<()> {
    let named: Vec<PathBuf> = visits.stores.iter().map(|(id, hash)| path(state, id, hash)).collect();
    for entry in fs::read_dir(state.folder().join("stores"))? {
        let path = entry?.path();
        if !named.contains(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(mode: &str, until: i64) -> Seen {
        Seen { mode: mode.into(), until, hold: false, at: 1, sealed_at: None, clean: false }
    }
    fn kept(mode: &str, until: i64) -> Kept {
        let versions = BTreeMap::from([("v".to_owned(), seen(mode, until))]);
        Kept { versions: BTreeMap::from([("a".to_owned(), versions)]), ..Kept::default() }
    }

    #[test]
    fn what_is_learned_never_lowers_what_is_known() {
        for (here, there, wanted) in [
            (("COMPLIANCE", 9), ("COMPLIANCE", 5), ("COMPLIANCE", 9)),
            (("COMPLIANCE", 5), ("COMPLIANCE", 9), ("COMPLIANCE", 9)),
            (("COMPLIANCE", 5), ("GOVERNANCE", 9), ("COMPLIANCE", 5)),
            (("GOVERNANCE", 9), ("COMPLIANCE", 5), ("COMPLIANCE", 5)),
        ] {
            let mut known = kept(here.0, here.1);
            known.learn(kept(there.0, there.1));
            assert_eq!(known, kept(wanted.0, wanted.1), "{here:?} {there:?}");
        }
    }

    #[test]
    fn what_was_sound_by_another_mandate_is_not_settled() {
        let mut known = kept("COMPLIANCE", 9);
        let clean = |kept: &mut Kept, set: Option<bool>| {
            let seen = kept.versions.get_mut("a").unwrap().get_mut("v").unwrap();
            seen.clean = set.unwrap_or(seen.clean);
            seen.clean
        };
        let mut mandate = Mandate::default();
        known.judge_by(&mandate);
        assert!(clean(&mut known, Some(true)));
        known.judge_by(&mandate);
        assert!(clean(&mut known, None));
        mandate.retention = Some(1);
        known.judge_by(&mandate);
        assert!(!clean(&mut known, None));
    }

    #[test]
    fn an_older_file_cannot_take_the_place_of_a_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let mut visits = Visits::default();
        assert_eq!(load(&state, &visits, "s").unwrap(), None);
        save(&state, &mut visits, "s", &kept("COMPLIANCE", 5)).unwrap();
        let old = path(&state, "s", &visits.stores["s"]);
        let bytes = fs::read(&old).unwrap();
        save(&state, &mut visits, "s", &kept("COMPLIANCE", 9)).unwrap();
        clean(&state, &visits).unwrap();
        assert!(!old.exists());
        assert_eq!(load(&state, &visits, "s").unwrap(), Some(kept("COMPLIANCE", 9)));
        fs::write(path(&state, "s", &visits.stores["s"]), bytes).unwrap();
        assert!(load(&state, &visits, "s").unwrap_err().contains("authenticate"));
        fs::remove_file(path(&state, "s", &visits.stores["s"])).unwrap();
        assert!(load(&state, &visits, "s").is_err());
    }
}
