//! Gateway keys: what callers authenticate with, and the file that says who they are.
//!
//! A key is `afk_<id>_<secret>`: the id names the entry, the secret is 32 random bytes in base62. The file holds
//! SHA-256 of the whole key and never the key: with 256 random bits a slow hash would add nothing.

mod allow;
mod file;
mod issue;

use std::collections::BTreeMap;
use std::sync::Arc;

use policies::document::Problem;
use schemas::{Identifier, Sha256Hex};
use serde::Serialize;

pub use allow::{Allow, Listed};
pub use file::{FileError, update};
pub use issue::{Issued, KeyRequest, issue, revoke};

/// What every key begins with.
pub const PREFIX: &str = "afk_";

/// One key's entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyEntry {
    /// The id: in records, logs and the key itself.
    pub id: Identifier,
    /// SHA-256 of the key.
    pub sha256: Sha256Hex,
    /// Who calls with it.
    pub consumer: Identifier,
    /// The consumer's team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<Identifier>,
    /// The team's organisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organisation: Option<Identifier>,
    /// Who pays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_centre: Option<Identifier>,
    /// The AI system, as in the operator's register.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<Identifier>,
    /// The purpose that data is processed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Identifier>,
    /// The class of the data that is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_class: Option<Identifier>,
    /// The groups that the consumer is in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Identifier>,
    /// What it may be used for; absent: anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Arc<Allow>>,
    /// When it was issued, microseconds UTC.
    pub created: i64,
    /// The user who issued it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Identifier>,
    /// From when on it is refused, microseconds UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// From when on it is revoked, microseconds UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked: Option<i64>,
    /// The user who revoked it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<Identifier>,
}

impl KeyEntry {
    /// Whether it is revoked at `now_us`.
    pub fn is_revoked(&self, now_us: i64) -> bool {
        self.revoked.is_some_and(|at| at <= now_us)
    }

    /// Whether it differs from `before` in nothing but an earlier revocation.
    fn only_ends_sooner(&self, before: &Self) -> bool {
        let other = Self { revoked: before.revoked, revoked_by: before.revoked_by.clone(), ..self.clone() };
        self.revoked.is_some_and(|at| before.revoked.is_none_or(|before| at < before)) && other == *before
    }
}

/// Why a presented key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// Not of the form `afk_<id>_<secret>`.
    #[error("not a gateway key")]
    Malformed,
    /// No such key.
    #[error("unknown gateway key")]
    Unknown,
    /// Taken back.
    #[error("revoked gateway key")]
    Revoked,
    /// Past its time.
    #[error("expired gateway key")]
    Expired,
}

/// All gateway keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    entries: BTreeMap<Identifier, KeyEntry>,
}

impl Keys {
    /// Reads a keys file.
    ///
    /// # Errors
    /// Every problem of the file.
    pub fn parse(yaml: &[u8]) -> Result<Self, Vec<Problem>> {
        file::parse(yaml)
    }

    /// The entries, by id.
    pub fn entries(&self) -> impl Iterator<Item = &KeyEntry> {
        self.entries.values()
    }

    /// The entry of an id.
    pub fn entry(&self, id: &str) -> Option<&KeyEntry> {
        self.entries.get(&Identifier::new(id).ok()?)
    }

    /// Finds the entry of a presented key that is valid at `now_us` (microseconds UTC).
    ///
    /// The digests are compared in constant time; an unknown id takes as long as a wrong secret. Only who shows
    /// the right secret learns that a key was revoked or expired.
    ///
    /// # Errors
    /// Why the key is refused.
    pub fn authenticate(&self, presented: &str, now_us: i64) -> Result<&KeyEntry, KeyRefusal> {
        let id = id_of(presented).ok_or(KeyRefusal::Malformed)?;
        let entry = self.entry(id);
        let expected = entry.map_or(Sha256Hex([0; 32]), |entry| entry.sha256);
        let same = same(&Sha256Hex::of(presented.as_bytes()), &expected);
        let entry = entry.filter(|_| same).ok_or(KeyRefusal::Unknown)?;
        if entry.is_revoked(now_us) {
            return Err(KeyRefusal::Revoked);
        }
        if entry.expires.is_some_and(|at| at <= now_us) {
            return Err(KeyRefusal::Expired);
        }
        Ok(entry)
    }
}

/// What became of a key between two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyChange {
    /// It is taken back, from now on, or its entry is gone.
    Revoked,
    /// It is new, or another secret has its id.
    Issued,
    /// It is the same key, and its entry says something else of it.
    Changed,
}

impl KeyChange {
    /// The action of its `admin` record.
    pub fn action(self) -> &'static str {
        match self {
            Self::Revoked => "key_revoked",
            Self::Issued => "key_issued",
            Self::Changed => "key_changed",
        }
    }
}

/// A key that another file says something else of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangedKey {
    /// What became of it.
    pub change: KeyChange,
    /// Its id.
    pub id: Identifier,
    /// Who did it, as the file says; `None`: the file was changed by hand.
    pub by: Option<Identifier>,
}

impl Keys {
    /// What `next` changes, by key id: what was taken back first. A revocation counts from its date on: as one where that
    /// came after `since_us` and until `now_us`, microseconds UTC.
    pub fn changes(&self, next: &Self, since_us: i64, now_us: i64) -> Vec<ChangedKey> {
        let mut changes = Vec::new();
        for (id, entry) in &next.entries {
            let before = self.entries.get(id);
            let (change, by) = match before.filter(|before| before.sha256 == entry.sha256) {
                // `created_by` is of another secret where the time is that one's too.
                None if before.is_some_and(|before| before.created == entry.created) => {
                    (KeyChange::Issued, None)
                }
                None => (KeyChange::Issued, entry.created_by.clone()),
                Some(before) if !before.is_revoked(since_us) && entry.is_revoked(now_us) => {
                    (KeyChange::Revoked, entry.revoked_by.clone())
                }
                Some(before) if before == entry => continue,
                // Told when the date comes.
                Some(before) if !entry.is_revoked(now_us) && entry.only_ends_sooner(before) => continue,
                Some(_) => (KeyChange::Changed, None),
            };
            changes.push(ChangedKey { change, id: id.clone(), by });
        }
        let gone = self.entries.keys().filter(|id| !next.entries.contains_key(*id));
        changes.extend(gone.map(|id| ChangedKey { change: KeyChange::Revoked, id: id.clone(), by: None }));
        changes.sort();
        changes
    }

    /// When the first revocation after `since_us` takes effect, microseconds UTC.
    pub fn next_revocation(&self, since_us: i64) -> Option<i64> {
        self.entries().filter_map(|entry| entry.revoked).filter(|at| *at > since_us).min()
    }
}

/// Compares all bytes, whichever differs first.
fn same(a: &Sha256Hex, b: &Sha256Hex) -> bool {
    let difference = a.0.iter().zip(&b.0).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// The id inside a key; `None` where it is none.
fn id_of(key: &str) -> Option<&str> {
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    let fits = (20..=128).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_alphanumeric());
    (fits && is_id(id)).then_some(id)
}

/// An id: `[A-Za-z0-9.-]{1,64}`, so that it ends at the next `_`.
fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(consumer: &str) -> KeyRequest {
        KeyRequest { consumer: Some(Identifier::new(consumer).unwrap()), ..KeyRequest::default() }
    }

    #[test]
    fn truth_table_of_authentication() {
        let mut keys = Keys::default();
        let plain = issue(&mut keys, request("a"), 100).unwrap();
        let short = issue(&mut keys, KeyRequest { expires: Some(200), ..request("b") }, 100).unwrap();
        let taken = issue(&mut keys, request("c"), 100).unwrap();
        revoke(&mut keys, taken.id.as_str(), 150, None).unwrap();
        let forged = format!("afk_{}_{}", plain.id, "x".repeat(43));
        let other_id = plain.key.replacen(plain.id.as_str(), short.id.as_str(), 1);
        let table: [(&str, i64, Result<&str, KeyRefusal>); 12] = [
            (&plain.key, 100, Ok("a")),
            (&plain.key, i64::MAX, Ok("a")),
            (&short.key, 199, Ok("b")),
            (&short.key, 200, Err(KeyRefusal::Expired)),
            (&taken.key, 149, Ok("c")),
            (&taken.key, 150, Err(KeyRefusal::Revoked)),
            (&forged, 100, Err(KeyRefusal::Unknown)),
            (&other_id, 100, Err(KeyRefusal::Unknown)),
            ("afk_nobody_aaaaaaaaaaaaaaaaaaaaaaaaa", 100, Err(KeyRefusal::Unknown)),
            ("sk-ant-api03-something", 100, Err(KeyRefusal::Malformed)),
            ("afk__aaaaaaaaaaaaaaaaaaaaaaaaa", 100, Err(KeyRefusal::Malformed)),
            ("", 100, Err(KeyRefusal::Malformed)),
        ];
        for (key, now, want) in table {
            assert_eq!(keys.authenticate(key, now).map(|entry| entry.consumer.as_str()), want, "{key} {now}");
        }
    }

    #[test]
    fn a_revoked_key_with_a_wrong_secret_is_unknown() {
        let mut keys = Keys::default();
        let taken = issue(&mut keys, request("c"), 1).unwrap();
        revoke(&mut keys, taken.id.as_str(), 2, None).unwrap();
        let forged = format!("afk_{}_{}", taken.id, "y".repeat(43));
        assert_eq!(keys.authenticate(&forged, 3), Err(KeyRefusal::Unknown));
    }

    fn name(text: &str) -> Identifier {
        Identifier::new(text).unwrap()
    }

    fn changed(change: KeyChange, id: &Identifier, by: Option<&str>) -> ChangedKey {
        ChangedKey { change, id: id.clone(), by: by.map(name) }
    }

    #[test]
    fn changes_name_each_key_once_with_who_did_it_and_revocations_first() {
        let by = |user: &str, consumer: &str| KeyRequest { by: Some(name(user)), ..request(consumer) };
        let mut before = Keys::default();
        let ids: Vec<Identifier> =
            (0..6).map(|n| issue(&mut before, by("ann", &format!("c{n}")), 1).unwrap().id).collect();
        assert_eq!(before.changes(&before, 0, 9), []);
        let mut next = before.clone();
        revoke(&mut next, ids[0].as_str(), 2, Some(name("bob"))).unwrap();
        next.entries.remove(&ids[1]);
        next.entries.get_mut(&ids[2]).unwrap().team = Some(name("other"));
        next.entries.get_mut(&ids[3]).unwrap().sha256 = Sha256Hex::of(b"another secret");
        next.entries.get_mut(&ids[4]).unwrap().revoked = Some(2);
        next.entries.remove(&ids[5]);
        issue(&mut next, KeyRequest { id: Some(ids[5].to_string()), ..by("bob", "again") }, 2).unwrap();
        let new = issue(&mut next, by("bob", "new"), 2).unwrap().id;
        let mut wanted = vec![
            changed(KeyChange::Revoked, &ids[0], Some("bob")),
            changed(KeyChange::Revoked, &ids[1], None),
            changed(KeyChange::Changed, &ids[2], None),
            changed(KeyChange::Issued, &ids[3], None),
            changed(KeyChange::Revoked, &ids[4], None),
            changed(KeyChange::Issued, &ids[5], Some("bob")),
            changed(KeyChange::Issued, &new, Some("bob")),
        ];
        wanted.sort();
        assert_eq!(before.changes(&next, 1, 2), wanted);
        assert_eq!(wanted[2].change, KeyChange::Revoked);
    }

    #[test]
    fn a_revocation_that_is_dated_ahead_is_one_when_its_date_comes() {
        let mut plain = Keys::default();
        let id = issue(&mut plain, request("a"), 1).unwrap().id;
        let mut ahead = plain.clone();
        ahead.entries.get_mut(&id).unwrap().revoked = Some(200);
        let revoked = [changed(KeyChange::Revoked, &id, None)];
        let by_hand = [changed(KeyChange::Changed, &id, None)];
        assert_eq!(plain.changes(&ahead, 100, 150), []);
        assert_eq!(plain.changes(&ahead, 100, 200), revoked);
        let mut other = ahead.clone();
        other.entries.get_mut(&id).unwrap().team = Some(name("other"));
        assert_eq!(plain.changes(&other, 100, 150), by_hand);
        assert_eq!((ahead.next_revocation(150), ahead.next_revocation(200)), (Some(200), None));
        assert_eq!(ahead.changes(&ahead, 150, 199), []);
        assert_eq!(ahead.changes(&ahead, 150, 200), revoked);
        assert_eq!(ahead.changes(&ahead, 200, 300), [], "it is told once");
        // Taken back at once before its date came; and the date itself taken back.
        let mut now = ahead.clone();
        revoke(&mut now, id.as_str(), 160, Some(name("bob"))).unwrap();
        assert_eq!(ahead.changes(&now, 150, 160), [changed(KeyChange::Revoked, &id, Some("bob"))]);
        assert_eq!(ahead.changes(&plain, 150, 160), by_hand);
        // Who comes second neither moves the time nor takes the name.
        let entry = revoke(&mut now, id.as_str(), 170, Some(name("eve"))).unwrap();
        assert_eq!((entry.revoked, entry.revoked_by), (Some(160), Some(name("bob"))));
    }

    #[test]
    fn keys_have_their_form_and_no_two_are_equal() {
        let mut keys = Keys::default();
        let one = issue(&mut keys, request("a"), 1).unwrap();
        let two = issue(&mut keys, request("a"), 1).unwrap();
        assert_ne!(one.key.as_str(), two.key.as_str());
        assert_eq!(id_of(&one.key), Some(one.id.as_str()));
        assert_eq!(one.key.len(), "afk_".len() + 10 + 1 + 43);
        assert!(!format!("{one:?}{keys:?}").contains(&*one.key));
    }
}
