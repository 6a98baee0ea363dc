//! What was read of a bucket, in numbers.

use serde::Serialize;

use crate::time;

/// What was read of a bucket. Every version but those of probes is in exactly one of `read`, `read_earlier`, `left_out`
/// and `unread`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Versions, those of probes not counted.
    pub versions: u64,
    /// Versions that probes left behind.
    pub canaries: u64,
    /// Delete markers.
    pub markers: u64,
    /// Versions whose lock state was read now.
    pub read: u64,
    /// Versions whose lock state was read at an earlier visit, and not now.
    pub read_earlier: u64,
    /// Versions that a sample left out.
    pub left_out: u64,
    /// Versions that were asked about without an answer that says anything.
    pub unread: u64,
    /// Versions in COMPLIANCE mode, of those read now or earlier.
    pub locked: u64,
    /// Versions under a legal hold, of those read now or earlier.
    pub holds: u64,
    /// The earliest retain-until of those in COMPLIANCE mode, microseconds UTC.
    pub until: Option<i64>,
    /// Requests until then.
    pub requests: u64,
    /// What the bucket's settings say.
    pub settings: Vec<String>,
}

impl Facts {
    /// Counts a version in COMPLIANCE mode.
    pub(super) fn lock(&mut self, until: i64) {
        self.locked += 1;
        self.until = Some(self.until.map_or(until, |earliest| earliest.min(until)));
    }

    /// `, at least until ...`, where anything is locked.
    pub(super) fn at_least(&self) -> String {
        self.until.map_or(String::new(), |until| format!(" at least until {}", time::text(until)))
    }

    /// As it is printed.
    pub fn lines(&self) -> Vec<String> {
        let mut read = format!("lock state read of {} now", self.read);
        for (count, what) in [
            (self.read_earlier, "at an earlier visit"),
            (self.left_out, "left out by the sample"),
            (self.unread, "without an answer"),
        ] {
            if count > 0 {
                read.push_str(&format!(", {count} {what}"));
            }
        }
        let canaries = match self.canaries {
            0 => String::new(),
            count => format!(" ({count} more of probes)"),
        };
        let mut out = vec![
            format!(
                "bucket: {} versions{canaries}, {} delete markers; {read}; {} locked in COMPLIANCE mode{}; {} legal holds",
                self.versions,
                self.markers,
                self.locked,
                self.at_least(),
                self.holds
            ),
            format!("bucket: {} requests for it", self.requests),
        ];
        if !self.settings.is_empty() {
            out.push(format!("bucket: {}", self.settings.join("; ")));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_read_is_told_beside_what_was() {
        let mut facts =
            Facts { versions: 10, read: 3, read_earlier: 4, left_out: 2, unread: 1, ..Facts::default() };
        facts.lock(2_000_000);
        facts.lock(1_000_000);
        let line = facts.lines().remove(0);
        let wanted = "lock state read of 3 now, 4 at an earlier visit, 2 left out by the sample, 1 without an answer; \
                      2 locked in COMPLIANCE mode at least until 1970-01-01T00:00:01Z";
        assert!(line.contains(wanted), "{line}");
    }
}
