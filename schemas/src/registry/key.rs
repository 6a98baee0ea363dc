//! Statements about keys, signed by the deployment's root key.
//!
//! ```text
//! affidavit/key/v1
//! deployment <deployment>
//! action <add|rotate|revoke>
//! gateway <name>
//! key <base64>
//! replaces <base64|none>
//! heartbeat <seconds|none>
//! closers <k>
//! <base64>                       k lines, ascending, none twice
//! until <origin> <size>|none
//! ```
//! A signed note under the key name `<deployment>/root`. An entry of the registry holds the same facts and the bare
//! signature: whoever reads it makes the text anew. Format: `FORMAT.md` 15.3.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lines::number;
use crate::names::{Origin, REGISTRY, is_part};
use crate::note::{self, NoteError, Signer, VerifyingKey};
use crate::trust::public_key;

/// A key statement's first line.
pub const KEY_FIRST_LINE: &str = "affidavit/key/v1";

/// The most closers of one key.
const MAX_CLOSERS: usize = 32;

/// The name under which a deployment's root key signs.
pub fn root_key_name(deployment: &str) -> String {
    format!("{deployment}/root")
}

/// Why a key statement was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a note, or not signed by the root key.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text does not have the form of FORMAT.md 15.3.
    #[error("line {line}: wanted `{wanted}`")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Its form.
        wanted: &'static str,
    },
    /// Values that do not belong together.
    #[error("{0}")]
    Contradiction(&'static str),
}

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyAction {
    /// A gateway has a further key.
    Add,
    /// A gateway's key takes the place of another: logs that are opened from here on are under it.
    Rotate,
    /// A key counts no longer.
    Revoke,
}

impl KeyAction {
    /// The word in the text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Rotate => "rotate",
            Self::Revoke => "revoke",
        }
    }
    fn parse(text: &str) -> Option<Self> {
        [Self::Add, Self::Rotate, Self::Revoke].into_iter().find(|action| action.as_str() == text)
    }
}

impl fmt::Display for KeyAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Up to where a revoked key counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Until {
    /// The log that was open then.
    pub origin: Origin,
    /// Its tree size then; seals of a larger tree, and of later logs of the gateway, do not count.
    pub size: u64,
}

/// What the root key says of a gateway's key. Keys are standard base64 of 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatement {
    /// The deployment.
    pub deployment: String,
    /// What happens to the key.
    pub action: KeyAction,
    /// The gateway.
    pub gateway: String,
    /// The key.
    pub key: String,
    /// The key whose place it takes; with [`KeyAction::Rotate`], and only then.
    pub replaces: Option<String>,
    /// The longest silence in seconds that its logs may show.
    pub heartbeat_bound_s: Option<u64>,
    /// Keys that may seal and close a log after its own key.
    pub closers: Vec<String>,
    /// Up to where it counts; with [`KeyAction::Revoke`] only. Absent there: up to the last heads registered before.
    pub until: Option<Until>,
}

impl KeyStatement {
    /// The signed text. Closers come out ascending.
    pub fn to_text(&self) -> String {
        let mut closers: Vec<&str> = self.closers.iter().map(String::as_str).collect();
        closers.sort_unstable();
        let mut text = String::with_capacity(512);
        let none = || "none".to_owned();
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{KEY_FIRST_LINE}\ndeployment {}\naction {}", self.deployment, self.action);
        let _ = writeln!(text, "gateway {}\nkey {}", self.gateway, self.key);
        let _ = writeln!(text, "replaces {}", self.replaces.clone().unwrap_or_else(none));
        let bound = self.heartbeat_bound_s.map_or_else(none, |bound| bound.to_string());
        let _ = writeln!(text, "heartbeat {bound}\nclosers {}", closers.len());
        for closer in closers {
            let _ = writeln!(text, "{closer}");
        }
        let until = self.until.as_ref().map_or_else(none, |until| format!("{} {}", until.origin, until.size));
        let _ = writeln!(text, "until {until}");
        text
    }

    /// Signs the statement with the root key; gives the whole note.
    ///
    /// # Errors
    /// A statement that contradicts itself is not signed.
    pub fn sign(&self, root: &dyn Signer) -> Result<Vec<u8>, KeyError> {
        let text = self.to_text();
        parse(&text)?;
        Ok(note::sign(&text, &[(&root_key_name(&self.deployment), root)])?)
    }

    /// Verifies a note as a key statement of `deployment`, signed by its root key; gives the entry for the registry.
    ///
    /// # Errors
    /// Not a note, another first line, lines out of form, another deployment, no good signature by `root`.
    pub fn verify(
        bytes: &[u8],
        deployment: &str,
        root: &[u8; 32],
    ) -> Result<(KeyAction, KeyEntry), KeyError> {
        let unverified = note::parse_unverified(bytes)?;
        let statement = parse(unverified.text)?;
        if statement.deployment != deployment {
            return Err(KeyError::Contradiction("a statement of another deployment"));
        }
        let key = VerifyingKey::new(root_key_name(deployment), *root)?;
        note::verify(bytes, std::slice::from_ref(&key))?;
        let signature =
            unverified.signatures.iter().find(|line| line.name == key.name() && line.id == key.id());
        let signature = signature.ok_or(KeyError::Contradiction("no signature by the root key"))?;
        let entry = KeyEntry {
            gateway: statement.gateway,
            key: statement.key,
            replaces: statement.replaces,
            heartbeat_bound_s: statement.heartbeat_bound_s,
            closers: statement.closers,
            until_origin: statement.until.as_ref().map(|until| until.origin.clone()),
            until_size: statement.until.as_ref().map(|until| until.size),
            root_signature: STANDARD.encode(&signature.bytes),
        };
        Ok((statement.action, entry))
    }

    fn check(&self) -> Result<(), KeyError> {
        let wrong = |what| Err(KeyError::Contradiction(what));
        if self.gateway == REGISTRY {
            return wrong("`registry` is no gateway");
        }
        if (self.action == KeyAction::Rotate) != self.replaces.is_some() {
            return wrong("`replaces` belongs to `rotate`");
        }
        if self.replaces.as_ref() == Some(&self.key) || self.closers.contains(&self.key) {
            return wrong("a key cannot replace or close after itself");
        }
        if self.action != KeyAction::Revoke && self.until.is_some() {
            return wrong("`until` belongs to `revoke`");
        }
        if self.action == KeyAction::Revoke && (self.heartbeat_bound_s.is_some() || !self.closers.is_empty())
        {
            return wrong("`revoke` has no heartbeat and no closers");
        }
        if self.heartbeat_bound_s == Some(0) {
            return wrong("a heartbeat bound is at least 1 second");
        }
        if let Some(until) = &self.until
            && (until.origin.deployment() != self.deployment || until.origin.gateway() != self.gateway)
        {
            return wrong("`until` names a log of another gateway");
        }
        Ok(())
    }
}

/// `key_added`, `key_rotated`, `key_revoked`: what the root key says of a gateway's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyEntry {
    /// The gateway.
    pub gateway: String,
    /// The key: standard base64 of 32 bytes.
    pub key: String,
    /// The key whose place it takes; in `key_rotated`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replaces: Option<String>,
    /// The longest silence in seconds that its logs may show; absent: what `boot` says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub heartbeat_bound_s: Option<u64>,
    /// Keys that may seal and close a log after its own, ascending.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub closers: Vec<String>,
    /// In `key_revoked`: the log that was open; absent: the key counts up to the last heads registered before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until_origin: Option<Origin>,
    /// Its tree size then, where `until_origin` is there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until_size: Option<u64>,
    /// The root key's signature over the text of 15.3: standard base64 of 64 bytes.
    pub root_signature: String,
}

impl KeyEntry {
    /// The statement that the signature is over.
    pub fn statement(&self, deployment: &str, action: KeyAction) -> KeyStatement {
        let until = self.until_origin.clone().zip(self.until_size);
        KeyStatement {
            deployment: deployment.into(),
            action,
            gateway: self.gateway.clone(),
            key: self.key.clone(),
            replaces: self.replaces.clone(),
            heartbeat_bound_s: self.heartbeat_bound_s,
            closers: self.closers.clone(),
            until: until.map(|(origin, size)| Until { origin, size }),
        }
    }

    /// Whether the root key signed this entry.
    ///
    /// # Errors
    /// Facts out of form, or a signature that does not hold.
    pub fn verify(&self, deployment: &str, action: KeyAction, root: &[u8; 32]) -> Result<(), KeyError> {
        if self.until_origin.is_some() != self.until_size.is_some() {
            return Err(KeyError::Contradiction("`until_origin` and `until_size` belong together"));
        }
        let statement = self.statement(deployment, action);
        let text = statement.to_text();
        if parse(&text)? != statement {
            return Err(KeyError::Contradiction("closers ascend"));
        }
        let name = root_key_name(deployment);
        let key = VerifyingKey::new(name.clone(), *root)?;
        let signature = STANDARD.decode(&self.root_signature).unwrap_or_default();
        if key.holds(text.as_bytes(), &signature) {
            Ok(())
        } else {
            Err(NoteError::BadSignature { name }.into())
        }
    }
}

fn parse(text: &str) -> Result<KeyStatement, KeyError> {
    let mut lines = text.split('\n');
    let mut line = 0;
    let mut next = |key: &str, wanted: &'static str| {
        line += 1;
        let value = lines.next().and_then(|found| found.strip_prefix(key));
        value.map(str::to_owned).ok_or(KeyError::Line { line, wanted }).map(|value| (line, value))
    };
    fn read<T>(
        (line, value): (usize, String),
        wanted: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, KeyError> {
        parse(&value).ok_or(KeyError::Line { line, wanted })
    }
    let part = |text: &str| is_part(text).then(|| text.to_owned());
    let key = |text: &str| public_key(text).map(|_| text.to_owned());
    fn optional<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
        if text == "none" { Some(None) } else { parse(text).map(Some) }
    }
    const KEY: &str = "key <base64 of 32 bytes>";
    read(next("", KEY_FIRST_LINE)?, KEY_FIRST_LINE, |text| (text == KEY_FIRST_LINE).then_some(()))?;
    const DEPLOYMENT: &str = "deployment <name>";
    let deployment = read(next("deployment ", DEPLOYMENT)?, DEPLOYMENT, part)?;
    const ACTION: &str = "action <add|rotate|revoke>";
    let action = read(next("action ", ACTION)?, ACTION, KeyAction::parse)?;
    const GATEWAY: &str = "gateway <name>";
    let gateway = read(next("gateway ", GATEWAY)?, GATEWAY, part)?;
    let public = read(next("key ", KEY)?, KEY, key)?;
    const REPLACES: &str = "replaces <base64 of 32 bytes|none>";
    let replaces = read(next("replaces ", REPLACES)?, REPLACES, |text| optional(text, key))?;
    const HEARTBEAT: &str = "heartbeat <seconds|none>";
    let heartbeat_bound_s = read(next("heartbeat ", HEARTBEAT)?, HEARTBEAT, |text| optional(text, number))?;
    const CLOSERS: &str = "closers <number up to 32>";
    let count = read(next("closers ", CLOSERS)?, CLOSERS, |text| {
        number(text).and_then(|count| usize::try_from(count).ok()).filter(|count| *count <= MAX_CLOSERS)
    })?;
    let mut closers: Vec<String> = Vec::new();
    for _ in 0..count {
        const CLOSER: &str = "<base64 of 32 bytes>, ascending";
        let closer = read(next("", CLOSER)?, CLOSER, |text| {
            key(text).filter(|closer| closers.last().is_none_or(|last| last < closer))
        })?;
        closers.push(closer);
    }
    const UNTIL: &str = "until <origin> <size>|none";
    let until = read(next("until ", UNTIL)?, UNTIL, |text| {
        optional(text, |text| {
            let (origin, size) = text.split_once(' ')?;
            Some(Until { origin: Origin::new(origin).ok()?, size: number(size)? })
        })
    })?;
    read(next("", "the end")?, "the end", |text| text.is_empty().then_some(()))?;
    if next("", "").is_ok() {
        return Err(KeyError::Contradiction("more lines than a key statement has"));
    }
    let statement = KeyStatement {
        deployment,
        action,
        gateway,
        key: public,
        replaces,
        heartbeat_bound_s,
        closers,
        until,
    };
    statement.check()?;
    Ok(statement)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::Ed25519Signer;
    use crate::trust::key_text;

    fn statement() -> KeyStatement {
        KeyStatement {
            deployment: "acme".into(),
            action: KeyAction::Add,
            gateway: "gw1".into(),
            key: key_text(&[1; 32]),
            replaces: None,
            heartbeat_bound_s: Some(300),
            closers: vec![key_text(&[3; 32]), key_text(&[2; 32])],
            until: None,
        }
    }

    fn rotation() -> KeyStatement {
        KeyStatement { action: KeyAction::Rotate, replaces: Some(key_text(&[9; 32])), ..statement() }
    }

    fn revocation() -> KeyStatement {
        let until = Until { origin: Origin::new("acme/gw1/e1").unwrap(), size: 5 };
        KeyStatement {
            action: KeyAction::Revoke,
            heartbeat_bound_s: None,
            closers: vec![],
            until: Some(until),
            ..statement()
        }
    }

    #[test]
    fn a_signed_statement_becomes_an_entry_that_verifies() {
        let root = Ed25519Signer::from_seed([7; 32]);
        for statement in [statement(), rotation(), revocation()] {
            let note = statement.sign(&root).unwrap();
            let (action, entry) = KeyStatement::verify(&note, "acme", &root.public_key()).unwrap();
            assert_eq!(action, statement.action);
            entry.verify("acme", action, &root.public_key()).unwrap();
            assert!(entry.verify("acme", action, &[7; 32]).is_err());
            assert!(entry.verify("other", action, &root.public_key()).is_err());
            assert!(KeyStatement::verify(&note, "other", &root.public_key()).is_err());
            for other in [KeyAction::Add, KeyAction::Rotate, KeyAction::Revoke] {
                assert_eq!(entry.verify("acme", other, &root.public_key()).is_ok(), other == action);
            }
            for bit in 0..note.len() * 8 {
                let mut changed = note.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(KeyStatement::verify(&changed, "acme", &root.public_key()).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn any_changed_fact_of_an_entry_breaks_the_signature() {
        let root = Ed25519Signer::from_seed([7; 32]);
        let note = statement().sign(&root).unwrap();
        let (action, entry) = KeyStatement::verify(&note, "acme", &root.public_key()).unwrap();
        let holds = |entry: KeyEntry| entry.verify("acme", action, &root.public_key()).is_ok();
        assert!(holds(entry.clone()));
        assert!(!holds(KeyEntry { gateway: "gw2".into(), ..entry.clone() }));
        assert!(!holds(KeyEntry { key: key_text(&[4; 32]), ..entry.clone() }));
        assert!(!holds(KeyEntry { heartbeat_bound_s: Some(301), ..entry.clone() }));
        assert!(!holds(KeyEntry { closers: vec![], ..entry.clone() }));
        let mut swapped = entry.clone();
        swapped.closers.reverse();
        assert!(!holds(swapped), "one entry has one form");
        assert!(!holds(KeyEntry { until_size: Some(1), ..entry.clone() }));
    }

    #[test]
    fn a_seal_is_no_key_statement_and_contradictions_are_not_signed() {
        let root = Ed25519Signer::from_seed([7; 32]);
        let text = statement().to_text().replace(KEY_FIRST_LINE, crate::seal::FIRST_LINE);
        let note = note::sign(&text, &[("acme/root", &root)]).unwrap();
        let error = KeyStatement::verify(&note, "acme", &root.public_key()).unwrap_err();
        assert!(matches!(error, KeyError::Line { line: 1, .. }), "{error}");
        let note = note::sign(&statement().to_text(), &[("acme/gw1/e1/seal", &root)]).unwrap();
        let error = KeyStatement::verify(&note, "acme", &root.public_key()).unwrap_err();
        assert!(matches!(error, KeyError::Note(NoteError::NotSigned { .. })), "{error}");
        for wrong in [
            KeyStatement { replaces: Some(key_text(&[9; 32])), ..statement() },
            KeyStatement { replaces: None, ..rotation() },
            KeyStatement { replaces: Some(statement().key), ..rotation() },
            KeyStatement { closers: vec![statement().key], ..statement() },
            KeyStatement { until: revocation().until, ..statement() },
            KeyStatement { gateway: "registry".into(), ..statement() },
            KeyStatement { gateway: "gw2".into(), ..revocation() },
            KeyStatement { heartbeat_bound_s: Some(0), ..statement() },
            KeyStatement { heartbeat_bound_s: Some(5), ..revocation() },
            KeyStatement { key: "AAAA".into(), ..statement() },
        ] {
            assert!(wrong.sign(&root).is_err(), "{}", wrong.to_text());
        }
    }
}
