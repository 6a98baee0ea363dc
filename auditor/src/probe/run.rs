//! Trying them one after the other.

use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockMode, ObjectLockRetentionMode};
use schemas::Sha256Hex;

use super::canary::{BYTES, Canary, Put, Requests, Saw, answer};
use super::rows::{self, Ask};
use super::transcript::{Outcome, Row, Transcript};
use crate::bucket::SKEW;
use crate::bucket::lock::{self, Retention};
use crate::source::s3::Bucket;
use crate::time;

struct Probe<'a> {
    store: Requests<'a>,
    folder: String,
    until: i64,
    skip: &'a [String],
    rows: Vec<Row>,
    /// Whether the caller may delete here what no COMPLIANCE lock holds.
    may_delete: bool,
    /// Whether the caller may change retention here.
    may_change: bool,
}

/// Probes. `lock`: how long the canaries are locked, microseconds.
///
/// # Errors
/// The first canary cannot be written: nothing can be said about the store then.
pub async fn run(bucket: &Bucket, lock: i64, skip: &[String]) -> anyhow::Result<Transcript> {
    let at = time::now();
    let mut random = [0; 8];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random)
        .map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?;
    let folder = format!("{}/{}", crate::verify::listing::PROBES, hex::encode(random));
    let until = (at + lock) / time::SECOND * time::SECOND;
    let store = Requests(bucket);
    let mut probe =
        Probe { store, folder, until, skip, rows: Vec::new(), may_delete: false, may_change: false };
    probe.all().await?;
    Ok(Transcript {
        v: 1,
        store: bucket.describe(),
        server: store.server().await,
        at,
        auditor: concat!("auditor ", env!("CARGO_PKG_VERSION")),
        canaries: bucket.key(&probe.folder),
        locked_until: until,
        rows: probe.rows,
    })
}

/// A refusal to a caller who may not do such a thing here at all tells of a role or policy, not of the lock.
fn by_the_lock(may: bool, accepted: bool, (outcome, seen): Saw) -> Saw {
    if may || accepted || outcome != Outcome::AsRequired {
        return (outcome, seen);
    }
    let why =
        "and the caller may not do this here to any version: that tells of a role or policy, not of the lock";
    (Outcome::NotJudged, format!("{seen}, {why}"))
}

impl Probe<'_> {
    /// Tries a row, unless it is left out.
    async fn row(&mut self, ask: Ask, tried: impl AsyncFnOnce(&mut Self) -> Saw) {
        let skipped = self.skip.iter().any(|skip| skip == ask.name);
        let saw =
            if skipped { (Outcome::NotTried, "left out by `--skip`".into()) } else { tried(self).await };
        self.rows.push(ask.saw(saw));
    }

    async fn all(&mut self) -> anyhow::Result<()> {
        let canary = self.put_locked().await?;
        self.reads(&canary).await;
        self.writes(&canary).await;
        self.may().await;
        self.deletes(&canary).await;
        let canary = self.changes(canary).await;
        self.markers(&canary).await;
        self.defaults().await;
        self.suspend(&canary).await;
        Ok(())
    }

    fn name(&self, last: &str) -> String {
        format!("{}/{last}", self.folder)
    }

    /// A PUT of a new name under lock.
    fn locked(&self, mode: ObjectLockMode) -> Put {
        Put { lock: Some((mode, self.until)), new: true, ..Put::default() }
    }

    async fn put_locked(&mut self) -> anyhow::Result<Canary> {
        let name = self.name("canary");
        let version = match self.store.put(&name, self.locked(ObjectLockMode::Compliance)).await {
            Ok(version) => version,
            Err(fault) => {
                anyhow::bail!("the canary `{}` cannot be written: {fault}", self.store.0.key(&name))
            }
        };
        let outcome = if version == "null" { Outcome::NotEnforced } else { Outcome::AsRequired };
        self.rows.push(rows::PUT_LOCKED.saw((outcome, format!("version {version}"))));
        Ok(Canary { name, version, until: self.until })
    }

    async fn reads(&mut self, canary: &Canary) {
        self.row(rows::READ_BACK, async |probe: &mut Self| {
            probe.store.harmless(canary, "read".into(), false, false).await
        })
        .await;
        self.row(rows::HEAD_AGREES, async |probe: &mut Self| probe.head_agrees(canary).await).await;
        self.row(rows::CLOCK, async |probe: &mut Self| match probe.store.written_at(canary).await {
            Err(fault) => (Outcome::NotJudged, fault.to_string()),
            Ok(at) => {
                let near = (at - time::now()).abs() <= SKEW;
                let outcome = if near { Outcome::AsRequired } else { Outcome::NotEnforced };
                (outcome, format!("Last-Modified {}", time::text(at)))
            }
        })
        .await;
    }

    async fn head_agrees(&self, canary: &Canary) -> Saw {
        let shown = match lock::shown(self.store.0, &canary.name, &canary.version, true).await {
            Ok(shown) => shown,
            Err(fault) => return (Outcome::NotJudged, fault.to_string()),
        };
        let whole = |mode: &str, until: i64| (mode.to_owned(), until / time::SECOND);
        let same = match &shown.retention {
            Some(Retention::Locked(mode, until)) => whole(mode, *until) == whole(&shown.mode, shown.until),
            _ => shown.mode.is_empty(),
        };
        let sum = shown.sha256 == Some(Sha256Hex::of(BYTES));
        let seen = format!(
            "HEAD: {} until {}, SHA-256 {}; GetObjectRetention: {:?}",
            if shown.mode.is_empty() { "no lock" } else { &shown.mode },
            time::text(shown.until),
            shown.sha256.map_or("none".into(), |sum| sum.to_string()),
            shown.retention
        );
        (if same && sum { Outcome::AsRequired } else { Outcome::Differs }, seen)
    }

    async fn writes(&mut self, canary: &Canary) {
        self.row(rows::WRONG_CHECKSUM, async |probe: &mut Self| {
            let put = Put { new: true, sha256: Some(Sha256Hex([7; 32])), ..Put::default() };
            match probe.store.put(&probe.name("wrong"), put).await {
                Ok(_) => (Outcome::NotEnforced, "accepted: checksums are not looked at".into()),
                Err(fault) if fault.is_refused() => (Outcome::AsRequired, format!("refused: {fault}")),
                Err(fault) => (Outcome::NotJudged, fault.to_string()),
            }
        })
        .await;
        self.row(rows::PUT_AGAIN, async |probe: &mut Self| {
            match probe.store.put(&canary.name, probe.locked(ObjectLockMode::Compliance)).await {
                Ok(_) => (Outcome::NotEnforced, "accepted: create-only writes are not create-only".into()),
                Err(fault) if fault.status == Some(412) => (Outcome::AsRequired, format!("refused: {fault}")),
                Err(fault) if fault.is_refused() => (Outcome::Differs, format!("refused: {fault}")),
                Err(fault) => (Outcome::NotJudged, fault.to_string()),
            }
        })
        .await;
        self.row(rows::OVERWRITE, async |probe: &mut Self| {
            let put = probe.store.put(&canary.name, Put::default()).await;
            probe.store.harmless(canary, answer(&put), put.is_ok(), false).await
        })
        .await;
    }

    /// Controls: what no COMPLIANCE lock holds, the caller can delete and shorten here.
    async fn may(&mut self) {
        self.row(rows::MAY_DELETE, async |probe: &mut Self| {
            let name = probe.name("deletable");
            let done = match probe.store.put(&name, probe.locked(ObjectLockMode::Governance)).await {
                Ok(version) => probe.store.delete(&name, Some(&version), true).await,
                Err(fault) => Err(fault),
            };
            probe.may_delete = done.is_ok();
            (if done.is_ok() { Outcome::AsRequired } else { Outcome::NotJudged }, answer(&done))
        })
        .await;
        self.row(rows::MAY_CHANGE, async |probe: &mut Self| {
            let name = probe.name("changeable");
            let done = match probe.store.put(&name, probe.locked(ObjectLockMode::Governance)).await {
                Ok(version) => {
                    let canary = Canary { name, version, until: probe.until };
                    let sooner = probe.sooner(probe.until);
                    probe.store.retain(&canary, ObjectLockRetentionMode::Governance, sooner, true).await
                }
                Err(fault) => Err(fault),
            };
            probe.may_change = done.is_ok();
            (if done.is_ok() { Outcome::AsRequired } else { Outcome::NotJudged }, answer(&done))
        })
        .await;
    }

    /// Halfway to a date.
    fn sooner(&self, until: i64) -> i64 {
        until - (until - time::now()) / 2
    }

    async fn deletes(&mut self, canary: &Canary) {
        for (ask, bypass) in [(rows::DELETE_VERSION, false), (rows::DELETE_VERSION_BYPASS, true)] {
            self.row(ask, async |probe: &mut Self| {
                let deleted = probe.store.delete(&canary.name, Some(&canary.version), bypass).await;
                let accepted = deleted.is_ok();
                let saw = probe.store.harmless(canary, answer(&deleted), accepted, true).await;
                by_the_lock(probe.may_delete, accepted, saw)
            })
            .await;
        }
        for (ask, bypass) in [(rows::DELETE_OBJECTS, false), (rows::DELETE_OBJECTS_BYPASS, true)] {
            self.row(ask, async |probe: &mut Self| match probe.store.delete_objects(canary, bypass).await {
                Err(why) => (Outcome::NotJudged, why),
                Ok((said, accepted)) => {
                    let saw = probe.store.harmless(canary, said, accepted, true).await;
                    by_the_lock(probe.may_delete, accepted, saw)
                }
            })
            .await;
        }
    }

    /// Gives the canary with the date that it has then.
    async fn changes(&mut self, mut canary: Canary) -> Canary {
        let (compliance, governance) =
            (ObjectLockRetentionMode::Compliance, ObjectLockRetentionMode::Governance);
        let sooner = self.sooner(canary.until);
        for (ask, mode, until, bypass) in [
            (rows::SHORTEN, compliance.clone(), sooner, false),
            (rows::SHORTEN_BYPASS, compliance.clone(), sooner, true),
            (rows::DOWNGRADE, governance, canary.until, true),
        ] {
            self.row(ask, async |probe: &mut Self| {
                let done = probe.store.retain(&canary, mode, until, bypass).await;
                let saw = probe.store.harmless(&canary, answer(&done), done.is_ok(), true).await;
                by_the_lock(probe.may_change, done.is_ok(), saw)
            })
            .await;
        }
        self.row(rows::EXTEND, async |probe: &mut Self| {
            let later = canary.until + 60 * time::SECOND;
            let done = probe.store.retain(&canary, compliance, later, false).await;
            let extended = Canary { until: later, ..canary.clone() };
            match (&done, probe.store.harm(&extended).await) {
                (Ok(()), Ok(None)) => {
                    canary = extended;
                    (Outcome::AsRequired, answer(&done))
                }
                (_, Ok(_)) => (Outcome::Differs, answer(&done)),
                (_, Err(fault)) => (Outcome::NotJudged, fault.to_string()),
            }
        })
        .await;
        canary
    }

    async fn markers(&mut self, canary: &Canary) {
        let mut marked = false;
        self.row(rows::MARKER, async |probe: &mut Self| {
            let deleted = probe.store.delete(&canary.name, None, false).await;
            marked = deleted.as_ref().is_ok_and(|marker| *marker);
            probe.store.harmless(canary, answer(&deleted), deleted.is_ok(), false).await
        })
        .await;
        self.row(rows::PUT_OVER_MARKER, async |probe: &mut Self| {
            if !marked {
                return (Outcome::NotTried, "there is no marker".into());
            }
            let put = probe.store.put(&canary.name, Put { new: true, ..Put::default() }).await;
            let saw = probe.store.harmless(canary, answer(&put), put.is_ok(), false).await;
            // Refusing is stricter than AWS: harmless, and worth knowing.
            if put.is_err() && saw.0 == Outcome::AsRequired { (Outcome::Differs, saw.1) } else { saw }
        })
        .await;
    }

    async fn defaults(&mut self) {
        let default = self.store.default_mode().await;
        for (ask, hold_off) in [(rows::DEFAULT_RETENTION, false), (rows::HOLD_OFF, true)] {
            self.row(ask, async |probe: &mut Self| match &default {
                Err(why) => (Outcome::NotTried, why.clone()),
                Ok(mode) => probe.default_of(&probe.name(ask.name), mode, hold_off).await,
            })
            .await;
        }
    }

    async fn default_of(&self, name: &str, mode: &str, hold_off: bool) -> Saw {
        let put = self.store.put(name, Put { new: true, hold_off, ..Put::default() }).await;
        let version = match &put {
            Ok(version) => version,
            Err(fault) => return (Outcome::NotJudged, format!("refused: {fault}")),
        };
        let shown = match lock::shown(self.store.0, name, version, true).await {
            Ok(shown) => shown,
            Err(fault) => return (Outcome::NotJudged, fault.to_string()),
        };
        let head = if shown.mode.is_empty() { "no lock" } else { &shown.mode };
        match &shown.retention {
            Some(Retention::Locked(found, until)) if found == mode => {
                let seen = format!("GetObjectRetention: {found} until {}; HEAD: {head}", time::text(*until));
                (if head == mode { Outcome::AsRequired } else { Outcome::Differs }, seen)
            }
            Some(Retention::Locked(..) | Retention::Unlocked) => {
                (Outcome::NotEnforced, format!("GetObjectRetention: {:?}; HEAD: {head}", shown.retention))
            }
            other => (Outcome::NotJudged, format!("GetObjectRetention: {other:?}; HEAD: {head}")),
        }
    }

    async fn suspend(&mut self, canary: &Canary) {
        self.row(rows::SUSPEND_VERSIONING, async |probe: &mut Self| {
            let done = probe.store.versioning(BucketVersioningStatus::Suspended).await;
            match &done {
                Ok(()) => {
                    let back = probe.store.versioning(BucketVersioningStatus::Enabled).await;
                    (Outcome::NotEnforced, format!("accepted; set back: {}", answer(&back)))
                }
                Err(fault) if fault.is_refused() || fault.is_unknown() => {
                    probe.store.harmless(canary, answer(&done), false, true).await
                }
                Err(fault) => (Outcome::NotJudged, fault.to_string()),
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_for_the_lock_only_where_the_caller_may_do_it_elsewhere() {
        use Outcome::{AsRequired, Differs, NotEnforced, NotJudged};
        for (may, accepted, saw, wanted) in [
            (true, false, AsRequired, AsRequired),
            (false, false, AsRequired, NotJudged),
            (false, true, Differs, Differs),
            (false, true, NotEnforced, NotEnforced),
            (false, false, NotEnforced, NotEnforced),
            (true, false, NotJudged, NotJudged),
        ] {
            let found = by_the_lock(may, accepted, (saw, String::new())).0;
            assert_eq!(found, wanted, "{may} {accepted} {saw:?}");
        }
    }
}
