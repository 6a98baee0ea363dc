//! Is it the store that is meant, and does it still hold what was seen in it?

use super::Judge;
use super::{lock, settings};
use crate::finding::{Code, Effect, Finding, Place};
use crate::time;

impl Judge<'_> {
    /// Is it the store that the mandate names, and the one of the last visit?
    pub(super) fn identity(&mut self) -> anyhow::Result<()> {
        let bucket = self.source.bucket().clone();
        let wanted = &self.asked.mandate.store;
        let place = |what: &str| Place::object("the store").of_item(what);
        let is = [
            ("bucket", wanted.bucket.clone(), Some(bucket.address.bucket.clone())),
            ("endpoint", wanted.endpoint.clone(), bucket.endpoint.clone()),
            ("owner", wanted.owner.clone(), bucket.owner.clone()),
        ];
        for (what, wanted, found) in is {
            if let Some(wanted) = wanted
                && found.as_ref() != Some(&wanted)
            {
                self.add(Code::WrongSource, place(what), wanted, found.unwrap_or_else(|| "not said".into()));
            }
        }
        let owners: Vec<String> = self.source.listing().owners.iter().cloned().collect();
        let known = self.out.kept.owners.clone();
        if !known.is_empty() && !owners.is_empty() && known != owners {
            self.add(Code::WrongSource, place("owner of the versions"), known.join(", "), owners.join(", "));
        } else if !owners.is_empty() {
            self.out.kept.owners = owners;
        }
        self.out.kept.store = bucket.describe();
        if wanted.owner.is_some() {
            // Every request names the owner: that says something where the store compares it.
            match self.source.run(async move { settings::of_another_owner(&bucket).await })? {
                Ok(()) => {
                    let expected = "a refusal of a request that names another owner";
                    let found = "an answer: this store does not compare owners";
                    self.add(Code::CouldNotRead, place("owner"), expected, found);
                }
                Err(fault) if fault.is_refused() => {}
                Err(fault) => {
                    let expected = "an answer to a request that names another owner";
                    self.add(Code::CouldNotRead, place("owner"), expected, fault.to_string());
                }
            }
        }
        Ok(())
    }

    /// Versions that were seen before and are not listed any more.
    pub(super) fn gone(&mut self) -> anyhow::Result<()> {
        let listing = self.source.listing();
        let mut gone = Vec::new();
        for (name, versions) in &self.out.kept.versions {
            let named = listing.objects.get(name);
            for (id, seen) in versions {
                if !named.is_some_and(|named| named.versions.iter().any(|version| version.id == *id)) {
                    gone.push((name.clone(), id.clone(), seen.clone()));
                }
            }
        }
        for (name, id, seen) in gone {
            let (bucket, asked, version) = (self.source.bucket().clone(), name.clone(), id.clone());
            let shown =
                self.source.run(async move { lock::shown(&bucket, &asked, &version, false).await })?;
            let place = Place::object(&name).of_item(format!("version {id}"));
            match shown {
                Ok(_) => self.add(Code::ListingIncomplete, place, "listed", "not listed, and still served"),
                Err(fault) if !fault.is_absent() => {
                    self.add(
                        Code::CouldNotRead,
                        place,
                        "an answer about a version that is not listed any more",
                        fault.to_string(),
                    );
                }
                Err(_) if seen.until > self.asked.now => {
                    let found = Finding::new(Code::StoreNotWorm, place, seen.text(), "the version is gone");
                    // GOVERNANCE promises nothing against those who may bypass it.
                    let effect = if seen.mode == "COMPLIANCE" { Effect::Diverged } else { Effect::Policy };
                    let severity = found.severity;
                    self.out.findings.push(found.with(severity, effect));
                }
                Err(_) => {
                    if seen.hold {
                        let expected = format!("a legal hold, as seen at {}", time::text(seen.at));
                        self.add(Code::HoldLifted, place, expected, "the version is gone");
                    }
                    if let Some(versions) = self.out.kept.versions.get_mut(&name) {
                        versions.remove(&id);
                    }
                }
            }
        }
        self.out.kept.versions.retain(|_, versions| !versions.is_empty());
        Ok(())
    }
}

impl super::kept::Seen {
    /// As findings name it: `COMPLIANCE until ..., as seen at ...`.
    pub(super) fn text(&self) -> String {
        let mode = if self.mode.is_empty() { "no lock" } else { &self.mode };
        format!("{mode} until {}, as seen at {}", time::text(self.until), time::text(self.at))
    }
}
