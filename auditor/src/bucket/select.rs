//! Of which versions the lock state is read.

use std::collections::{BTreeMap, BTreeSet};

use super::is_probe;
use super::kept::{Kept, Seen};
use super::lock::Wanted;
use crate::mandate::WantedHolds;
use crate::source::s3::Listing;

/// Each so many versions both ways of asking are compared.
const CROSS: usize = 64;

/// Of which versions the lock state is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockState {
    /// Of all.
    All,
    /// Of so many, drawn by lot, and of the newest of each log.
    Sample(usize),
}

impl std::str::FromStr for LockState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: wanted `all` or `sample:N`");
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            Some(("sample", n)) => n.parse().ok().filter(|n| *n > 0).map(Self::Sample).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

/// What is asked about, and what is not.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) wanted: Vec<Wanted>,
    /// Versions, those of probes not counted.
    pub(super) total: usize,
    /// Those that an earlier visit read and found sound, and that are not asked about again.
    pub(super) earlier: Vec<Seen>,
    /// How many the sample left out.
    pub(super) left_out: usize,
    /// How many of those an earlier visit read.
    pub(super) left_out_known: usize,
    /// How many of those should be under a legal hold, or were.
    pub(super) left_out_holds: usize,
}

/// Selects. `settled` says of a version that was read before whether it need not be asked about again; a hold is asked
/// about where `holds` has the mandate ask for it, or one was seen before.
pub(super) fn select(
    listing: &Listing,
    kept: &Kept,
    lock_state: LockState,
    holds: &WantedHolds,
    settled: impl Fn(&str, &Seen) -> bool,
) -> Selection {
    let mut out = Selection::default();
    let mut newest: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, named) in &listing.objects {
        if is_probe(name) {
            continue;
        }
        for version in &named.versions {
            out.total += 1;
            let seen = kept.seen(name, &version.id);
            if let Some(seen) = seen.filter(|seen| settled(name, seen)) {
                out.earlier.push(seen.clone());
                continue;
            }
            let hold = holds.ask_for(name) || seen.is_some_and(|seen| seen.hold);
            let cross = out.wanted.len().is_multiple_of(CROSS);
            if let Some((folder, _)) = name.rsplit_once('/') {
                newest.insert(folder, out.wanted.len());
            }
            out.wanted.push(Wanted { name: name.clone(), version: version.clone(), cross, hold });
        }
    }
    for last in newest.values() {
        if let Some(wanted) = out.wanted.get_mut(*last) {
            wanted.cross = true;
        }
    }
    let LockState::Sample(count) = lock_state else { return out };
    let drawn: BTreeSet<usize> = newest.values().copied().chain(draw(out.wanted.len(), count)).collect();
    for (n, wanted) in std::mem::take(&mut out.wanted).into_iter().enumerate() {
        if drawn.contains(&n) {
            out.wanted.push(wanted);
        } else {
            out.left_out += 1;
            out.left_out_holds += usize::from(wanted.hold);
            out.left_out_known += usize::from(kept.seen(&wanted.name, &wanted.version.id).is_some());
        }
    }
    out
}

/// `count` different numbers below `all`, by the system's random numbers; all of them where there are no more.
fn draw(all: usize, count: usize) -> BTreeSet<usize> {
    use ring::rand::{SecureRandom as _, SystemRandom};
    if count >= all {
        return (0..all).collect();
    }
    let random = SystemRandom::new();
    let mut out = BTreeSet::new();
    let mut bytes = [0; 8];
    while out.len() < count {
        if random.fill(&mut bytes).is_err() {
            // Without random numbers the first ones are as good as none: the report says how many were left out.
            return (0..count).collect();
        }
        out.insert(usize::try_from(u64::from_le_bytes(bytes) % all as u64).unwrap_or(0));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::s3::{Named, Version};

    fn listing(count: usize) -> Listing {
        let mut out = Listing::default();
        for n in 0..count {
            let version = Version { id: "v".into(), ..Version::default() };
            let named = Named { versions: vec![version], ..Named::default() };
            out.objects.insert(format!("a/b/c/{n:04}"), named.clone());
            out.objects.insert(format!(".affidavit-probe/{n:04}"), named);
        }
        out
    }

    fn kept(names: impl Iterator<Item = usize>, clean: bool) -> Kept {
        let seen =
            |clean| Seen { mode: "COMPLIANCE".into(), until: 9, hold: false, at: 1, sealed_at: None, clean };
        let versions = |clean| BTreeMap::from([("v".to_owned(), seen(clean))]);
        Kept {
            versions: names.map(|n| (format!("a/b/c/{n:04}"), versions(clean))).collect(),
            ..Kept::default()
        }
    }

    #[test]
    fn a_sample_has_as_many_as_were_asked_for() {
        assert_eq!(draw(10, 3).len(), 3);
        assert_eq!(draw(3, 10).len(), 3);
        assert!(draw(10, 9).iter().all(|n| *n < 10));
        assert_eq!("sample:5".parse(), Ok(LockState::Sample(5)));
        assert_eq!("all".parse(), Ok(LockState::All));
        assert!("sample:0".parse::<LockState>().is_err() && "some".parse::<LockState>().is_err());
    }

    /// Asked about, read earlier, left out; and of those how many were read earlier.
    fn counts(kept: &Kept, lock_state: LockState, only_new: bool) -> (usize, usize, usize, usize) {
        let holds = WantedHolds::None;
        let selected = select(&listing(100), kept, lock_state, &holds, |_, seen| only_new && seen.clean);
        assert_eq!(selected.total, 100);
        assert_eq!(selected.wanted.len() + selected.earlier.len() + selected.left_out, selected.total);
        (selected.wanted.len(), selected.earlier.len(), selected.left_out, selected.left_out_known)
    }

    #[test]
    fn every_version_is_asked_about_read_earlier_or_left_out_and_in_one_of_them() {
        let (none, some) = (Kept::default(), kept(0..60, true));
        assert_eq!(counts(&none, LockState::All, false), (100, 0, 0, 0));
        assert_eq!(counts(&some, LockState::All, true), (40, 60, 0, 0));
        let (asked, earlier, left_out, known) = counts(&some, LockState::Sample(10), true);
        assert!((10..=11).contains(&asked) && earlier == 60 && left_out == 40 - asked && known == 0);
        let (asked, earlier, left_out, known) = counts(&some, LockState::Sample(10), false);
        assert!((10..=11).contains(&asked) && earlier == 0 && left_out == 100 - asked);
        assert!((49..=60).contains(&known), "{known} of those left out were read earlier");
        // What was not sound is asked about at every visit.
        assert_eq!(counts(&kept(0..60, false), LockState::All, true), (100, 0, 0, 0));
        // The newest of a log is always asked about.
        let holds = WantedHolds::Below(vec!["a/b".into()]);
        let selected = select(&listing(100), &none, LockState::Sample(1), &holds, |_, _| false);
        assert!(selected.wanted.iter().all(|wanted| wanted.hold));
        assert_eq!(selected.left_out_holds, selected.left_out);
        assert!(selected.wanted.iter().any(|wanted| wanted.name == "a/b/c/0099" && wanted.cross));
    }
}
