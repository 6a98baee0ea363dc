//! One version: its lock, its times, its checksum, its key, its class.

use schemas::ObjectName;

use super::kept::Seen;
use super::lock::{Retention, Shown, Wanted};
use super::versions::parse;
use super::{Judge, holds};
use crate::finding::{Code, Effect, Finding, Findings, Place, Severity};
use crate::mandate::Mandate;
use crate::source::s3::{Fault, Version};
use crate::time;

/// How long after its seal's time an object may be written, where the mandate does not say.
const LATE: i64 = time::DAY;
/// How far a store's clock may be from the auditor's, and before a seal's time.
pub(crate) const SKEW: i64 = 5 * 60 * time::SECOND;

/// Whether a date is before another by a second or more: a store may say the same date to the microsecond in one answer and
/// to the second in another.
fn is_before(date: i64, other: i64) -> bool {
    date / time::SECOND < other / time::SECOND
}

/// What is judged of one version; no requests are made here.
struct One<'a> {
    place: Place,
    version: &'a Version,
    mandate: &'a Mandate,
    now: i64,
    /// The time of its batch's seal, where that is known.
    sealed_at: Option<i64>,
    findings: Findings,
}

impl Judge<'_> {
    /// Judges what the store shows of a version, and keeps it.
    pub(super) fn version(&mut self, wanted: &Wanted, shown: Result<Shown, Fault>) {
        let (name, version) = (&wanted.name, &wanted.version);
        let place = Place::object(name).of_item(format!("version {}", version.id));
        let shown = match shown {
            Ok(shown) => shown,
            Err(fault) => {
                let code = if fault.is_denied() { Code::PermissionMissing } else { Code::CouldNotRead };
                self.out.facts.unread += 1;
                self.add(code, place, "an answer to HEAD (s3:GetObjectVersion)", fault.to_string());
                return;
            }
        };
        let sealed_at = self.sealed.of(name);
        let mut one = One {
            place,
            version,
            mandate: self.asked.mandate,
            now: self.asked.now,
            sealed_at: sealed_at.ok().flatten(),
            findings: Findings::default(),
        };
        one.times();
        one.checksum(name, &shown);
        one.class();
        one.encryption(&shown);
        let before = self.out.kept.seen(name, &version.id);
        let asked = self.asked.mandate.store.holds.ask_for(name);
        let held = holds::judge(&one.place, asked, before, &shown.hold);
        one.findings.append(held.findings);
        let untold = held.denied.is_some();
        if let Some(why) = held.denied {
            self.holds_denied(one.place.clone(), why);
        }
        let Some((mode, until)) = shown.lock().map(|(mode, until)| (mode.to_owned(), until)) else {
            let One { place, findings, .. } = one;
            self.out.findings.append(findings);
            self.unread(place, shown.retention);
            return;
        };
        self.out.facts.read += 1;
        one.contradiction(&shown);
        let sound = one.locked(&mode, until);
        if mode == "COMPLIANCE" {
            self.out.facts.lock(until);
        }
        self.short += u64::from(!sound);
        self.out.facts.holds += u64::from(held.hold);
        let now = self.asked.now;
        let mut seen = Seen { mode, until, hold: held.hold, at: now, sealed_at: one.sealed_at, clean: false };
        if let Some(before) = self.out.kept.seen(name, &version.id)
            && one.reduced(before, &seen)
        {
            self.short += 1;
            // What was known stays: the store is held to it.
            seen = Seen { clean: false, hold: held.hold, ..before.clone() };
        }
        // Whatever was found is found again at the next visit, and what could not be told is asked again.
        seen.clean = one.findings.is_empty() && sealed_at.is_ok() && !untold;
        self.out.findings.append(one.findings);
        self.out.kept.versions.entry(name.clone()).or_default().insert(version.id.clone(), seen);
    }

    /// A version of which neither way of asking says whether it is locked.
    fn unread(&mut self, place: Place, retention: Option<Retention>) {
        self.out.facts.unread += 1;
        match retention {
            Some(Retention::Denied(why)) if self.denied.is_none() => {
                self.denied = Some(why.clone());
                let expected = "s3:GetObjectRetention: without it a HEAD without lock says nothing";
                self.add(Code::PermissionMissing, place, expected, why);
            }
            Some(Retention::Unknown(why)) => {
                self.add(Code::CouldNotRead, place, "an answer to GetObjectRetention", why);
            }
            _ => {}
        }
    }
}

impl One<'_> {
    fn add(&mut self, code: Code, expected: impl Into<String>, found: impl Into<String>) {
        self.findings.add(code, self.place.clone(), expected, found);
    }

    fn times(&mut self) {
        let at = self.version.last_modified;
        let written = format!("written at {}", time::text(at));
        if at > self.now.saturating_add(SKEW) {
            self.add(Code::StoreClockSkew, format!("at most {}", time::text(self.now)), &written);
        }
        let Some(sealed_at) = self.sealed_at else { return };
        let late = self.mandate.store.late.unwrap_or(LATE);
        let seal = time::text(sealed_at);
        if at > sealed_at.saturating_add(late) {
            let expected = format!("written within {} of its seal's time {seal}", time::length(late));
            self.add(Code::LateWrite, expected, written);
        } else if at < sealed_at.saturating_sub(SKEW) {
            self.add(Code::TimeContradiction, format!("written after its seal's time {seal}"), written);
        }
    }

    fn checksum(&mut self, name: &str, shown: &Shown) {
        let Some((_, ObjectName::Data { sha256, .. })) = parse(name) else { return };
        match shown.sha256 {
            Some(stored) if stored != sha256 => {
                self.add(Code::ChecksumMismatch, sha256.to_string(), stored.to_string());
            }
            Some(_) => {}
            None => self.add(Code::ChecksumAbsent, "a SHA-256 that the store checked", "none"),
        }
    }

    fn class(&mut self) {
        if ["GLACIER", "DEEP_ARCHIVE"].contains(&self.version.storage_class.as_str()) {
            self.add(Code::StorageClassCold, "a class that is read at once", &self.version.storage_class);
        }
    }

    fn encryption(&mut self, shown: &Shown) {
        let named = &self.mandate.store.kms_key;
        if shown.key == *named {
            return;
        }
        let key = shown.key.as_deref().unwrap_or("none of a key service");
        let expected = named.clone().unwrap_or_else(|| "the store's own key".into());
        let finding = Finding::new(Code::EncryptionKey, self.place.clone(), expected, key);
        self.findings.push(match named {
            Some(_) => finding.with(Severity::High, Effect::Policy),
            None => finding,
        });
    }

    fn contradiction(&mut self, shown: &Shown) {
        let Some(retention) = &shown.retention else { return };
        let said = match retention {
            Retention::Locked(mode, until) => format!("{mode} until {}", time::text(*until)),
            _ => "no retention".into(),
        };
        let head = if shown.mode.is_empty() {
            "no lock".into()
        } else {
            format!("{} until {}", shown.mode, time::text(shown.until))
        };
        let equal = match retention {
            // Some stores give the date in whole seconds in one of the two answers.
            Retention::Locked(mode, until) => {
                *mode == shown.mode && (until - shown.until).abs() < time::SECOND
            }
            _ => shown.mode.is_empty(),
        };
        if equal {
            return;
        }
        let (expected, found) = (format!("GetObjectRetention: {said}"), format!("HEAD: {head}"));
        let finding = Finding::new(Code::LockContradiction, self.place.clone(), expected, found);
        // HEAD that keeps silent is harmless where GetObjectRetention speaks.
        let silent = shown.mode.is_empty();
        self.findings.push(if silent { finding.with(Severity::Medium, Effect::Note) } else { finding });
    }

    /// Whether the version is locked as it should be.
    fn locked(&mut self, mode: &str, until: i64) -> bool {
        if mode != "COMPLIANCE" {
            self.add(Code::NotWorm, "COMPLIANCE", if mode.is_empty() { "no lock" } else { mode });
            return false;
        }
        let from = self.sealed_at.unwrap_or(self.version.last_modified);
        let wanted = self.mandate.retention.map(|kept| from.saturating_add(kept));
        let needed = wanted.unwrap_or(self.now);
        // Where its time is over by the mandate, it may be deletable.
        if !is_before(until, needed) {
            return true;
        }
        let expected = match wanted {
            Some(at) => format!("until {} or later", time::text(at)),
            None => format!("later than {}", time::text(needed)),
        };
        let found = format!("until {}", time::text(until));
        let finding = Finding::new(Code::RetentionShort, self.place.clone(), expected, found);
        self.findings.push(if wanted.is_some() { finding } else { finding.as_note() });
        false
    }

    /// Whether a COMPLIANCE lock is less than it was.
    fn reduced(&mut self, before: &Seen, now: &Seen) -> bool {
        let less =
            before.mode == "COMPLIANCE" && (now.mode != before.mode || is_before(now.until, before.until));
        if less {
            let found = match now.mode.as_str() {
                "" => "no lock".into(),
                mode => format!("{mode} until {}", time::text(now.until)),
            };
            self.add(Code::RetentionReduced, before.text(), found);
        }
        less
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::Sha256Hex;

    const NOW: i64 = 100 * time::DAY;

    /// The codes that a version gives; `adapt` changes what the store says and what is wanted.
    fn codes(
        adapt: impl FnOnce(&mut Version, &mut Shown, &mut Mandate, &mut Option<i64>),
    ) -> Vec<&'static str> {
        let sha256 = Sha256Hex([5; 32]);
        let name = format!("a/b/20260921t133320z-00000001/0000000000-{sha256}.records.parquet");
        let mut version = Version { last_modified: NOW, ..Version::default() };
        let mut shown =
            Shown { mode: "COMPLIANCE".into(), until: NOW + 10, sha256: Some(sha256), ..Shown::default() };
        let (mut mandate, mut sealed_at) = (Mandate::default(), Some(NOW));
        adapt(&mut version, &mut shown, &mut mandate, &mut sealed_at);
        let (place, findings) = (Place::default(), Findings::default());
        let mut one = One { place, version: &version, mandate: &mandate, now: NOW, sealed_at, findings };
        one.times();
        one.checksum(&name, &shown);
        one.class();
        one.encryption(&shown);
        one.contradiction(&shown);
        let sound = one.locked(&shown.mode, shown.until);
        let codes: Vec<_> = one.findings.iter().map(|finding| finding.code.as_str()).collect();
        assert!(sound || !codes.is_empty());
        codes
    }

    #[test]
    fn every_way_in_which_a_version_is_not_as_it_should_be_has_its_code() {
        assert!(codes(|_, _, _, _| {}).is_empty());
        assert_eq!(codes(|v, _, _, _| v.last_modified += LATE + 1), ["STORE_CLOCK_SKEW", "LATE_WRITE"]);
        assert_eq!(codes(|_, _, _, sealed| *sealed = Some(NOW - LATE - 1)), ["LATE_WRITE"]);
        assert!(codes(|_, _, _, sealed| *sealed = Some(NOW - LATE)).is_empty());
        assert_eq!(codes(|v, _, _, _| v.last_modified -= SKEW + 1), ["TIME_CONTRADICTION"]);
        assert!(codes(|v, _, _, sealed| (v.last_modified, *sealed) = (NOW - SKEW - 1, None)).is_empty());
        assert_eq!(codes(|_, s, _, _| s.sha256 = None), ["CHECKSUM_ABSENT"]);
        assert_eq!(codes(|_, s, _, _| s.sha256 = Some(Sha256Hex([6; 32]))), ["CHECKSUM_MISMATCH"]);
        assert_eq!(codes(|v, _, _, _| v.storage_class = "GLACIER".into()), ["STORAGE_CLASS_COLD"]);
        assert_eq!(codes(|_, s, _, _| s.key = Some("k".into())), ["ENCRYPTION_KEY"]);
        assert!(
            codes(|_, s, m, _| (s.key, m.store.kms_key) = (Some("k".into()), Some("k".into()))).is_empty()
        );
        assert_eq!(codes(|_, _, m, _| m.store.kms_key = Some("k".into())), ["ENCRYPTION_KEY"]);
        assert_eq!(codes(|_, s, _, _| s.mode = "GOVERNANCE".into()), ["NOT_WORM"]);
        assert_eq!(codes(|_, s, _, _| s.until = NOW - 1), ["RETENTION_SHORT"]);
        assert_eq!(codes(|_, _, m, _| m.retention = Some(time::SECOND)), ["RETENTION_SHORT"]);
        assert!(codes(|_, _, m, _| m.retention = Some(11)).is_empty());
        let other = Some(Retention::Locked("COMPLIANCE".into(), NOW + 10 * time::SECOND));
        assert_eq!(codes(|_, s, _, _| s.retention = other), ["LOCK_CONTRADICTION"]);
    }

    #[test]
    fn the_same_date_to_the_second_is_no_reduction() {
        let (mandate, version) = (Mandate::default(), Version::default());
        let seen = |mode: &str, until| Seen {
            mode: mode.into(),
            until,
            hold: false,
            at: 1,
            sealed_at: None,
            clean: true,
        };
        for (before, now, less) in [
            (seen("COMPLIANCE", 9_999_999), seen("COMPLIANCE", 9_000_000), false),
            (seen("COMPLIANCE", 9_000_000), seen("COMPLIANCE", 8_999_999), true),
            (seen("COMPLIANCE", 9_000_000), seen("COMPLIANCE", 99_000_000), false),
            (seen("COMPLIANCE", 9_000_000), seen("GOVERNANCE", 99_000_000), true),
            (seen("COMPLIANCE", 9_000_000), seen("", 0), true),
            (seen("GOVERNANCE", 9_000_000), seen("", 0), false),
        ] {
            let (place, findings) = (Place::default(), Findings::default());
            let mut one =
                One { place, version: &version, mandate: &mandate, now: NOW, sealed_at: None, findings };
            assert_eq!(one.reduced(&before, &now), less, "{before:?} {now:?}");
            assert_eq!(one.findings.has(Code::RetentionReduced), less);
        }
    }
}
