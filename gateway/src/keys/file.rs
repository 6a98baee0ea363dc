//! `keys.yaml`: read with every problem told, written whole or not at all.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use policies::document::{self, Fields, Node, Problem};
use schemas::{Identifier, Sha256Hex};

use super::{Allow, KeyEntry, Keys, is_id};
use crate::config::groups_of;
use crate::output::write_whole;
use crate::user;

const HEAD: &str = "\
# Gateway keys: who may call. Written by `gateway keys issue|revoke`; `sha256` is of the whole key, the key itself is
# nowhere. `created_by` and `revoked_by` are the users who gave the commands. The running gateway reads changes by itself.
";
const IDENTIFIER_FORM: &str = "an identifier `[A-Za-z0-9_.:/@+-]{1,128}`";
const USER_FORM: &str = "a user's name without `:`, or `uid:` and a number";
const TIME_FORM: &str = "a time as `2026-11-20T10:15:00Z`";

/// Why the keys file could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file has problems.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<Problem>),
    /// The file could not be read or written.
    #[error("`{path}`: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

pub(super) fn parse(yaml: &[u8]) -> Result<Keys, Vec<Problem>> {
    let text = std::str::from_utf8(yaml).map_err(|_| vec![Problem::general("", "UTF-8 text")])?;
    let root = document::parse(text)?;
    let mut problems = Vec::new();
    let mut fields = Fields::new(&root, "", &mut problems);
    let items = fields.items("keys").unwrap_or_default();
    fields.finish();
    let mut keys = Keys::default();
    for (index, item) in items.iter().enumerate() {
        let path = format!("keys[{index}]");
        if let Some(entry) = entry(item, &path, &mut problems) {
            if keys.entries.contains_key(&entry.id) {
                let wanted = "an id that no other key has";
                problems.push(Problem::at(item.place, format!("{path}.id"), wanted).value(entry.id.as_str()));
            }
            keys.entries.insert(entry.id.clone(), entry);
        }
    }
    if problems.is_empty() { Ok(keys) } else { Err(problems) }
}

fn entry(node: &Node, path: &str, problems: &mut Vec<Problem>) -> Option<KeyEntry> {
    let mut fields = Fields::new(node, path, problems);
    let name = |text: &str| Identifier::new(text).ok();
    let time = |text: &str| text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond);
    let id =
        fields.required("id", "a key id `[A-Za-z0-9.-]{1,64}`", |text| name(text).filter(|_| is_id(text)));
    let digest_place = fields.place_of("sha256");
    let digest = fields.required_node("sha256", "64 hex digits");
    let sha256 = digest.and_then(Node::text).and_then(Sha256Hex::parse);
    if digest.is_some() && sha256.is_none() {
        // Not shown: someone may have typed the key itself.
        let key = fields.path("sha256");
        fields.report(Problem::at(digest_place, key, "64 lower-case hex digits: SHA-256 of the whole key"));
    }
    let consumer = fields.required("consumer", IDENTIFIER_FORM, name);
    let mut optional = |key| fields.optional(key, IDENTIFIER_FORM, name);
    let team = optional("team");
    let organisation = optional("organisation");
    let cost_centre = optional("cost_centre");
    let system = optional("system");
    let purpose = optional("purpose");
    let data_class = optional("data_class");
    let typed = fields.texts("groups").unwrap_or_default();
    let path = fields.path("groups");
    let groups = groups_of(typed, &path, fields.problems());
    let path = fields.path("allow");
    let allow = fields.node("allow").map(|node| Allow::read(node, &path, fields.problems()));
    let created = fields.required("created", TIME_FORM, time);
    let before = fields.problems().len();
    let expires = fields.optional("expires", TIME_FORM, time);
    let revoked = fields.optional("revoked", TIME_FORM, time);
    // An end that could not be read must not become no end.
    let unreadable = fields.problems().len() > before;
    let user = |text: &str| name(text).filter(user::is_one);
    let created_by = fields.optional("created_by", USER_FORM, user);
    let place = fields.place_of("revoked_by");
    let revoked_by = fields.optional("revoked_by", USER_FORM, user);
    if revoked_by.is_some() && revoked.is_none() && !unreadable {
        // Left there, it would name who is not meant once the key is revoked again.
        let key = fields.path("revoked_by");
        fields.report(Problem::at(place, key, "none without `revoked`"));
    }
    fields.finish();
    if unreadable {
        return None;
    }
    Some(KeyEntry {
        id: id?,
        sha256: sha256?,
        consumer: consumer?,
        team,
        organisation,
        cost_centre,
        system,
        purpose,
        data_class,
        groups: groups?,
        // What could not be read must not become no bound.
        allow: match allow {
            Some(allow) => Some(Arc::new(allow?)).filter(|allow| !allow.is_empty()),
            None => None,
        },
        created: created?,
        created_by,
        expires,
        revoked,
        revoked_by,
    })
}

fn time_text(us: i64) -> String {
    Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |time| time.to_string())
}

/// The file's text. All values are identifiers, digests and times: in double quotes they need no escapes.
fn text(keys: &Keys) -> String {
    let mut out = HEAD.to_owned();
    out.push_str(if keys.entries.is_empty() { "keys: []\n" } else { "keys:\n" });
    for entry in keys.entries() {
        let mut dash = "  - ";
        let mut line = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                // Writing to a String does not fail.
                let _ = writeln!(out, "{dash}{key}: \"{value}\"");
                dash = "    ";
            }
        };
        line("id", Some(entry.id.as_str()));
        line("sha256", Some(&entry.sha256.to_string()));
        line("consumer", Some(entry.consumer.as_str()));
        for (key, value) in [
            ("team", &entry.team),
            ("organisation", &entry.organisation),
            ("cost_centre", &entry.cost_centre),
            ("system", &entry.system),
            ("purpose", &entry.purpose),
            ("data_class", &entry.data_class),
        ] {
            line(key, value.as_ref().map(Identifier::as_str));
        }
        let quoted = |texts: &[String]| {
            let texts: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
            format!("[{}]", texts.join(", "))
        };
        let groups: Vec<String> = entry.groups.iter().map(Identifier::to_string).collect();
        let mut raw = |key: &str, value: &str| {
            let _ = writeln!(out, "    {key}: {value}");
        };
        if !groups.is_empty() {
            raw("groups", &quoted(&groups));
        }
        if let Some(allow) = &entry.allow {
            let lists = allow.lists().into_iter().filter(|(_, listed)| !listed.is_empty());
            let lists: Vec<String> =
                lists.map(|(key, listed)| format!("{key}: {}", quoted(listed.texts()))).collect();
            raw("allow", &format!("{{ {} }}", lists.join(", ")));
        }
        let mut line = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                let _ = writeln!(out, "    {key}: \"{value}\"");
            }
        };
        line("created", Some(&time_text(entry.created)));
        line("created_by", entry.created_by.as_ref().map(Identifier::as_str));
        line("expires", entry.expires.map(time_text).as_deref());
        line("revoked", entry.revoked.map(time_text).as_deref());
        line("revoked_by", entry.revoked_by.as_ref().map(Identifier::as_str));
    }
    out
}

/// Changes the keys file under a lock: reads it (an absent one is empty), lets `change` work on it, and writes it
/// whole: a crash leaves the old file or the new one.
///
/// # Errors
/// What `change` says, a file with problems, or one that cannot be read or written: nothing is changed then.
pub fn update<T, E: From<FileError>>(
    path: &Path,
    change: impl FnOnce(&mut Keys) -> Result<T, E>,
) -> Result<T, E> {
    let failed = |error| FileError::Io { path: path.to_owned(), error };
    let lock_path = path.with_extension("lock");
    let lock = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
    let lock = lock.map_err(|error| FileError::Io { path: lock_path, error })?;
    lock.lock().map_err(failed)?;
    let mut keys = match std::fs::read(path) {
        Ok(bytes) => Keys::parse(&bytes).map_err(|problems| {
            let file = path.display().to_string();
            FileError::Problems(problems.into_iter().map(|problem| problem.in_file(&file)).collect())
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Keys::default(),
        Err(error) => return Err(failed(error).into()),
    };
    let value = change(&mut keys)?;
    write_whole(path, text(&keys).as_bytes(), 0o600).map_err(failed)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::super::{KeyRequest, issue, revoke};
    use super::*;

    fn full(consumer: &str) -> KeyRequest {
        let name = |text: &str| Some(Identifier::new(text).unwrap());
        let mut allow = Allow::default();
        assert!(allow.models.add("gpt-4o*") && allow.models.add("!*audio*") && allow.routes.add("r#1"));
        KeyRequest {
            id: None,
            consumer: name(consumer),
            team: name("team:1"),
            organisation: name("org"),
            cost_centre: name("0123"),
            system: name("s@x"),
            purpose: name("p+q"),
            data_class: name("null"),
            groups: vec![Identifier::new("eng").unwrap(), Identifier::new("on:call").unwrap()],
            allow,
            expires: Some(1_800_000_000_000_001),
            by: name("uid:1000"),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.yaml");
        let written = update(&path, |keys| {
            let id = issue(keys, full("a"), 1_700_000_000_000_000).unwrap().id;
            issue(keys, KeyRequest { consumer: full("b").consumer, ..KeyRequest::default() }, 5).unwrap();
            revoke(keys, id.as_str(), 1_750_000_000_123_456, Identifier::new("ann").ok()).unwrap();
            Ok::<_, FileError>(keys.clone())
        })
        .unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(Keys::parse(&bytes).unwrap(), written, "{}", String::from_utf8_lossy(&bytes));
        update(&path, |keys| {
            assert_eq!(*keys, written);
            Ok::<_, FileError>(())
        })
        .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn a_failed_change_leaves_the_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.yaml");
        std::fs::write(&path, "keyz: []\n").unwrap();
        let error = update(&path, |_| Ok::<_, FileError>(())).unwrap_err().to_string();
        assert!(error.contains("keys.yaml:1:1: `keyz`") && error.contains("did you mean `keys`"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "keyz: []\n");
    }

    #[test]
    fn problems_are_told_and_no_digest_is_shown() {
        let yaml = "\
keys:
  - id: under_score
    sha256: afk_a_secret
    consumer: has space
    created: yesterday
    created_by: owner:root
    expires: soon
    tema: x
  - id: k2
    sha256: 0000000000000000000000000000000000000000000000000000000000000000
    consumer: a
    created: 2026-11-20T10:15:00Z
    revoked_by: ann
";
        let problems = parse(yaml.as_bytes()).unwrap_err();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 8, "{told:?}");
        assert!(told.iter().all(|line| !line.contains("afk_a_secret")), "{told:?}");
        assert!(
            told.iter().any(|line| line.contains("keys[0].tema") && line.contains("did you mean `team`"))
        );
        for (key, wanted) in
            [("keys[0].created_by", "a user's name"), ("keys[1].revoked_by", "none without `revoked`")]
        {
            assert!(told.iter().any(|line| line.contains(key) && line.contains(wanted)), "{key}: {told:?}");
        }
    }
}
