//! When the batch of an object was sealed, by a key that is in force.

use std::collections::{BTreeMap, BTreeSet};

use schemas::{Origin, seal};

use super::versions::parse;
use crate::registry::InForce;
use crate::source::S3Source;
use crate::verify::seal_name;

/// The largest seal.
const LIMIT: u64 = schemas::note::MAX_NOTE_BYTES as u64;
/// Seals that are held at one time.
const MANY: usize = 1024;

/// Why nothing says when an object's batch was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unsealed {
    NoKey,
    NoSeal,
    NotSigned,
}

impl Unsealed {
    fn text(self) -> &'static str {
        match self {
            Self::NoKey => "no key of the log is in force",
            Self::NoSeal => "their seal is not there or cannot be read",
            Self::NotSigned => "their seal is not one of the log's key",
        }
    }
}

/// The times of seals, as far as they were asked for.
#[derive(Debug, Default)]
pub(super) struct SealTimes {
    known: BTreeMap<(Origin, u64), Result<i64, Unsealed>>,
    without: BTreeMap<Unsealed, u64>,
}

impl SealTimes {
    /// Reads the seals of all batches that `names` belong to.
    pub(super) fn read<'a>(
        source: &S3Source,
        in_force: &InForce,
        names: impl Iterator<Item = &'a str>,
    ) -> anyhow::Result<Self> {
        let batches: BTreeSet<(Origin, u64)> =
            names.filter_map(parse).map(|(origin, name)| (origin, name.batch())).collect();
        let mut out = Self::default();
        let batches: Vec<_> = batches.into_iter().collect();
        for some in batches.chunks(MANY) {
            let names = some.iter().map(|(origin, batch)| seal_name(origin, *batch)).collect();
            for (batch, note) in some.iter().zip(source.read_all(names, LIMIT)?) {
                let keys = in_force.keys(&batch.0);
                let time = match note {
                    _ if keys.is_empty() => Err(Unsealed::NoKey),
                    None => Err(Unsealed::NoSeal),
                    Some(note) => match keys.iter().find_map(|key| seal::verify(&note, key).ok()) {
                        Some(seal) if seal.origin == batch.0 && seal.batch == batch.1 => Ok(seal.time),
                        _ => Err(Unsealed::NotSigned),
                    },
                };
                out.known.insert(batch.clone(), time);
            }
        }
        Ok(out)
    }

    /// The time of the seal of a name's batch, microseconds UTC. Counts what cannot be told: `Err` where the name
    /// belongs to a batch and no seal of it counts, `Ok(None)` where it belongs to none.
    pub(super) fn of(&mut self, name: &str) -> Result<Option<i64>, ()> {
        let Some((origin, parsed)) = parse(name) else { return Ok(None) };
        match self.known.get(&(origin, parsed.batch())).copied().unwrap_or(Err(Unsealed::NoSeal)) {
            Ok(time) => Ok(Some(time)),
            Err(why) => {
                *self.without.entry(why).or_default() += 1;
                Err(())
            }
        }
    }

    /// What could not be judged, a line for each reason.
    pub(super) fn not_checked(&self) -> Vec<String> {
        let line = |(why, count): (&Unsealed, &u64)| {
            format!("time of writing of {count} versions against their seal's: {}", why.text())
        };
        self.without.iter().map(line).collect()
    }
}
