//! `auditor state`: carry what was seen to another machine.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::evidence::{default_state, known};
use crate::bucket::kept::{self, Kept};
use crate::cli::StateCommand;
use crate::state::{State, Visits, write_private};

const LABEL: &str = "affidavit/auditor/state/v1";

/// What is carried. Its MAC by the exporting state's key stands in the first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Carried {
    visits: Visits,
    stores: BTreeMap<String, Kept>,
}

/// Runs the command.
///
/// # Errors
/// A state or file that cannot be used, and a file that contradicts what is known.
pub fn run(command: &StateCommand) -> anyhow::Result<u8> {
    let open = |folder: &Option<std::path::PathBuf>| -> anyhow::Result<State> {
        Ok(State::open(&folder.clone().map_or_else(default_state, Ok)?)?)
    };
    match command {
        StateCommand::Export { file, state } => export(&open(state)?, file)?,
        StateCommand::Import { file, key, state } => import(&open(state)?, file, key.as_deref())?,
    }
    Ok(0)
}

fn export(state: &State, file: &Path) -> anyhow::Result<()> {
    let visits = known(state)?;
    let mut stores = BTreeMap::new();
    for id in visits.stores.keys() {
        if let Some(kept) = kept::load(state, &visits, id).map_err(anyhow::Error::msg)? {
            stores.insert(id.clone(), kept);
        }
    }
    let body = serde_json::to_vec(&Carried { visits, stores })?;
    let mut bytes = state.mac(LABEL, &[&body]).into_bytes();
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    write_private(file, &bytes).with_context(|| format!("`{}`", file.display()))
}

fn import(state: &State, file: &Path, key: Option<&Path>) -> anyhow::Result<()> {
    let bytes = std::fs::read(file).with_context(|| format!("`{}`", file.display()))?;
    let (mac, body) = bytes.split_at_checked(65).context("the file is no exported state")?;
    let key = key.map_or_else(|| state.folder().join("key"), Path::to_owned);
    let key = std::fs::read(&key).with_context(|| format!("`{}`", key.display()))?;
    let mut whole = LABEL.as_bytes().to_vec();
    whole.extend_from_slice(&(body.len() as u64).to_be_bytes());
    whole.extend_from_slice(body);
    let tag = mac.strip_suffix(b"\n").and_then(|mac| hex::decode(mac).ok()).unwrap_or_default();
    if hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), &whole, &tag).is_err() {
        bail!(
            "`{}` does not authenticate under this key: give `--key` with the file `key` of the state folder that it \
             comes from",
            file.display()
        );
    }
    let carried: Carried = serde_json::from_slice(body).context("the file is no exported state")?;
    let exclusive = state.exclusive()?;
    let mut visits = known(state)?;
    for (origin, theirs) in carried.visits.logs {
        match visits.logs.get(&origin) {
            Some(ours)
                if ours.key != theirs.key || (ours.size == theirs.size && ours.root != theirs.root) =>
            {
                bail!(
                    "{origin}: here size {} root {} under key {}, there size {} root {} under key {}: one of the two saw \
                     another log; nothing was imported",
                    ours.size,
                    ours.root,
                    ours.key,
                    theirs.size,
                    theirs.root,
                    theirs.key
                );
            }
            Some(ours) if ours.size >= theirs.size => {}
            _ => _ = visits.logs.insert(origin, theirs),
        }
    }
    for (id, theirs) in carried.visits.probes {
        if visits.probes.get(&id).is_none_or(|ours| ours.at < theirs.at) {
            visits.probes.insert(id, theirs);
        }
    }
    for (id, theirs) in carried.stores {
        let mut ours = kept::load(state, &visits, &id).map_err(anyhow::Error::msg)?.unwrap_or_default();
        if ours.store.is_empty() {
            ours.store.clone_from(&theirs.store);
        }
        ours.learn(theirs);
        kept::save(state, &mut visits, &id, &ours)?;
    }
    exclusive.remember(&visits)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use schemas::{Origin, Sha256Hex};

    use super::*;
    use crate::bucket::probed::Probed;
    use crate::state::{Remembered, Visit};

    fn visits(size: u64, root: u8) -> Visits {
        let hash = Sha256Hex([root; 32]);
        let (key, seen_at, sealed_at) = ("k".into(), 5, None);
        let visit = Visit { key, batch: size, size, root: hash, seal: hash, seen_at, sealed_at };
        Visits { logs: BTreeMap::from([(Origin::new("a/b/c").unwrap(), visit)]), ..Visits::default() }
    }

    fn carry(here: Visits, there: Visits) -> anyhow::Result<Visits> {
        let (one, two) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let (from, to) = (State::open(one.path())?, State::open(two.path())?);
        from.remember(&there)?;
        to.remember(&here)?;
        let file = one.path().join("state");
        export(&from, &file)?;
        assert!(import(&to, &file, None).is_err(), "a file under a foreign key is not taken");
        import(&to, &file, Some(&one.path().join("key")))?;
        let Remembered::Known(visits) = to.remembered()? else { bail!("nothing is known") };
        Ok(visits)
    }

    #[test]
    fn of_two_probes_the_later_one_is_known() {
        let probed = |at| Probed { at, canaries: String::new(), passed: vec![], failed: vec![] };
        let with =
            |at| Visits { probes: BTreeMap::from([("s3://b".to_owned(), probed(at))]), ..visits(3, 1) };
        assert_eq!(carry(with(5), with(9)).unwrap(), with(9));
        assert_eq!(carry(with(9), with(5)).unwrap(), with(9));
        assert_eq!(carry(visits(3, 1), with(5)).unwrap(), with(5));
    }

    #[test]
    fn an_import_never_lowers_what_is_known() {
        assert_eq!(carry(visits(3, 1), visits(9, 2)).unwrap(), visits(9, 2));
        assert_eq!(carry(visits(9, 2), visits(3, 1)).unwrap(), visits(9, 2));
        assert!(carry(visits(9, 2), visits(9, 1)).unwrap_err().to_string().contains("another log"));
    }
}
