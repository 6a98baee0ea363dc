//! Who may seal a log that a dead process left: its own key, or, where that is not here, a closing key of it.
//!
//! A seal by any other key spoils the log for good in a store that keeps what it has. Once a closing key has sealed a
//! batch, the log's own key has no word in that log any more (FORMAT 15.3).

use std::sync::Arc;

use schemas::files::{self, Limits};
use schemas::names::FileKind;
use schemas::note::{Ed25519Signer, Signer as _};
use schemas::record::Body;
use schemas::seal;
use schemas::trust::{key_text, public_key};
use schemas::{ObjectName, Origin};

use crate::error::OpenError;
use crate::ledger::LedgerConfig;
use crate::spool::Spool;
use crate::store;

/// The largest seal and records file that are read.
const MAX_SEAL_BYTES: u64 = 1 << 20;
const MAX_RECORDS_BYTES: u64 = 1 << 30;

/// With what a log is gone on with.
pub(super) struct Hands {
    /// Signs what is sealed from here on.
    pub(super) signer: Arc<Ed25519Signer>,
    /// Public keys that may have signed what is sealed already.
    pub(super) keys: Vec<[u8; 32]>,
}

/// Chooses who signs. `named` is the key that `boot` names, where `boot` is still in the journal. `Err` says why nobody
/// may.
pub(super) fn hands(
    settings: &LedgerConfig,
    own: &Arc<Ed25519Signer>,
    origin: &Origin,
    named: Option<&str>,
    spool: &Spool,
) -> Result<Result<Hands, String>, OpenError> {
    let public = own.public_key();
    let key = match named {
        Some(text) => public_key(text),
        // Without closing keys there is no choice; the seals tell.
        None if settings.closing.is_empty() => Some(public),
        None => first_key(settings, origin, spool)?,
    };
    let Some(key) = key else {
        return Ok(Err(
            "which key signs the log cannot be told: neither journal nor store has its `boot`".into()
        ));
    };
    if key == public {
        return Ok(Ok(Hands { signer: own.clone(), keys: vec![public] }));
    }
    let Some(closing) = settings.closing.iter().find(|closing| closing.of == key) else {
        let text = key_text(&key);
        return Ok(Err(format!(
            "the log's seals are signed by `{text}`, and neither that key nor a closing key of it is configured"
        )));
    };
    let signer = Arc::new(Ed25519Signer::from_seed(closing.seed));
    let closer = signer.public_key();
    tracing::warn!(%origin, key = %key_text(&key), closer = %key_text(&closer), "a closing key seals this log from here on");
    Ok(Ok(Hands { signer, keys: vec![key, closer] }))
}

/// The key that the stored or spooled `boot` names.
fn first_key(settings: &LedgerConfig, origin: &Origin, spool: &Spool) -> Result<Option<[u8; 32]>, OpenError> {
    let store = &*settings.store;
    let spool_error = OpenError::io("read", &settings.spool_dir);
    let spooled = spool.batches().map_err(spool_error)?.contains(&0);
    let read = |name: &ObjectName, limit: u64| match store::read_object(store, name, limit) {
        Err(error) if error.is_transient() => Err(OpenError::StoreAway(error)),
        Err(error) => Err(OpenError::Store(error.to_string())),
        Ok(found) => Ok(found),
    };
    let note = if spooled {
        Some(spool.seal(0).map_err(OpenError::io("read", &settings.spool_dir))?.into())
    } else {
        read(&ObjectName::Seal { origin: origin.clone(), batch: 0 }, MAX_SEAL_BYTES)?
    };
    let Some(said) = note.and_then(|note: bytes::Bytes| seal::parse_unverified(&note).ok()) else {
        return Ok(None);
    };
    let Some(file) = said.file(&FileKind::Records) else { return Ok(None) };
    let Ok(name) = ObjectName::parse_file(origin, &file.name) else { return Ok(None) };
    let records = if spooled {
        let bytes = spool.read(&file.name, MAX_RECORDS_BYTES);
        Some(bytes.map_err(OpenError::io("read", &settings.spool_dir))?.into())
    } else {
        read(&name, MAX_RECORDS_BYTES)?
    };
    let rows = records.and_then(|bytes| files::read_records(&bytes, &Limits::default()).ok());
    let first = rows.and_then(|records| schemas::leaf::decode(&records.rows.first()?.leaf).ok());
    Ok(match first.and_then(|leaf| leaf.record).map(|record| record.body) {
        Some(Body::Boot(boot)) => public_key(&boot.seal_key),
        _ => None,
    })
}
