//! Making and taking back keys.

use std::fmt;
use std::sync::Arc;

use schemas::{Identifier, Sha256Hex};
use zeroize::Zeroizing;

use super::{Allow, KeyEntry, Keys, PREFIX, is_id};
use crate::secrets;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Characters of a made id.
const ID_LENGTH: usize = 10;

/// Characters of a secret: 43 of base62 hold more than 256 bits.
const SECRET_LENGTH: usize = 43;

/// What a new key's entry is to hold.
#[derive(Debug, Clone, Default)]
pub struct KeyRequest {
    /// The id; absent: a random one.
    pub id: Option<String>,
    /// Who calls with it.
    pub consumer: Option<Identifier>,
    /// The consumer's team.
    pub team: Option<Identifier>,
    /// The team's organisation.
    pub organisation: Option<Identifier>,
    /// Who pays.
    pub cost_centre: Option<Identifier>,
    /// The AI system.
    pub system: Option<Identifier>,
    /// The purpose.
    pub purpose: Option<Identifier>,
    /// The class of the data.
    pub data_class: Option<Identifier>,
    /// The groups.
    pub groups: Vec<Identifier>,
    /// What it may be used for.
    pub allow: Allow,
    /// From when on it is refused, microseconds UTC.
    pub expires: Option<i64>,
    /// The user who issues it.
    pub by: Option<Identifier>,
}

/// A key that was just made: the only time that it can be seen.
pub struct Issued {
    /// Its id.
    pub id: Identifier,
    /// The key.
    pub key: Zeroizing<String>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issued({})", self.id)
    }
}

/// Why a key was not made or taken back.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not an id.
    #[error("`{0}` is not a key id: wanted `[A-Za-z0-9.-]{{1,64}}`")]
    Id(String),
    /// The id is in use.
    #[error("key `{0}` exists already")]
    Exists(String),
    /// No such key.
    #[error("no key `{0}`")]
    Absent(String),
    /// More groups than a record holds.
    #[error("{0} groups, at most {most} are allowed", most = schemas::record::MAX_LIST)]
    Groups(usize),
    /// No consumer was named.
    #[error("a key needs a consumer")]
    NoConsumer,
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] secrets::NoRandom),
}

/// Makes a key and adds its entry.
///
/// # Errors
/// An id that is no id or in use, no consumer, no random bytes.
pub fn issue(keys: &mut Keys, request: KeyRequest, now_us: i64) -> Result<Issued, KeyError> {
    let text = match request.id {
        Some(id) => id,
        None => base62(ID_LENGTH)?.as_str().to_owned(),
    };
    if !is_id(&text) {
        return Err(KeyError::Id(text));
    }
    let id = Identifier::new(text.clone()).map_err(|_| KeyError::Id(text))?;
    if request.groups.len() > schemas::record::MAX_LIST {
        return Err(KeyError::Groups(request.groups.len()));
    }
    if keys.entries.contains_key(&id) {
        return Err(KeyError::Exists(id.to_string()));
    }
    let key = Zeroizing::new(format!("{PREFIX}{id}_{}", base62(SECRET_LENGTH)?.as_str()));
    let entry = KeyEntry {
        id: id.clone(),
        sha256: Sha256Hex::of(key.as_bytes()),
        consumer: request.consumer.ok_or(KeyError::NoConsumer)?,
        team: request.team,
        organisation: request.organisation,
        cost_centre: request.cost_centre,
        system: request.system,
        purpose: request.purpose,
        data_class: request.data_class,
        groups: request.groups,
        allow: Some(request.allow).filter(|allow| !allow.is_empty()).map(Arc::new),
        created: now_us,
        created_by: request.by,
        expires: request.expires,
        revoked: None,
        revoked_by: None,
    };
    keys.entries.insert(id.clone(), entry);
    Ok(Issued { id, key })
}

/// Takes a key back from `now_us` on, by this user; one that was taken back before keeps its time and user.
///
/// # Errors
/// No such key.
pub fn revoke(keys: &mut Keys, id: &str, now_us: i64, by: Option<Identifier>) -> Result<KeyEntry, KeyError> {
    let absent = || KeyError::Absent(id.to_owned());
    let name = Identifier::new(id).map_err(|_| absent())?;
    let entry = keys.entries.get_mut(&name).ok_or_else(absent)?;
    if !entry.is_revoked(now_us) {
        (entry.revoked, entry.revoked_by) = (Some(now_us), by);
    }
    Ok(entry.clone())
}

/// Random characters, each with equal chance: bytes of 248 and more are thrown away.
fn base62(length: usize) -> Result<Zeroizing<String>, secrets::NoRandom> {
    let mut text = Zeroizing::new(String::with_capacity(length));
    while text.len() < length {
        let bytes = secrets::random::<64>()?;
        for byte in bytes.iter().filter(|byte| **byte < 248).take(length - text.len()) {
            text.push(char::from(BASE62[usize::from(byte % 62)]));
        }
    }
    Ok(text)
}
