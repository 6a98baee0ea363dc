//! What an archiver counts, as the text of `/metrics`.

use std::sync::atomic::AtomicU64;

use evidence::archive::ArchiveCounts;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why something was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFault {
    fault: &'static str,
}

/// The text for the counts of one moment.
pub(super) fn text(counts: &ArchiveCounts, now_us: i64) -> String {
    let mut registry = Registry::with_prefix("gateway_archive");
    let counters = [
        (
            "batches",
            "Batches in the store whose receipt is acknowledged; a repeat counts again",
            counts.batches,
        ),
        ("records", "Records in them", counts.records),
        ("bytes", "Bytes of their objects", counts.bytes),
        ("unknown", "Archived batches of which this version does not know everything", counts.unknown),
        (
            "predecessor_missing",
            "Archived batches whose predecessor was not in the store then",
            counts.predecessors_missing,
        ),
        ("store_failures", "Tries that the store did not take", counts.store_failures),
        ("receipt_failures", "Receipts that could not be sent at once", counts.receipt_failures),
        ("foreign_messages", "Messages of other deployments, passed over", counts.foreign),
    ];
    for (name, help, value) in counters {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
    let gauges = [
        ("work_bytes", "Bytes of objects that are not settled", counts.held_bytes),
        ("work_bound_bytes", "The most that the work folder holds", counts.work_bound),
        ("quarantine_bytes", "Bytes in the quarantine folder", counts.quarantine_bytes),
        ("quarantine_bound_bytes", "The most that the quarantine folder holds", counts.quarantine_bound),
        ("open_messages", "Messages that are not settled", counts.open_messages),
        ("reading", "Whether partitions of the topic are read", u64::from(counts.is_reading)),
    ];
    for (name, help, value) in gauges {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
    let seconds = [
        (
            "oldest_open_seconds",
            "Since when the oldest message that is not settled is here; 0 where all are settled",
            counts.oldest_open_ms as f64 / 1e3,
        ),
        (
            "read_lag_seconds",
            "How long the message that was read last had been in the topic; 0 where all of it is read",
            counts.behind_ms as f64 / 1e3,
        ),
        (
            "last_receipt_timestamp_seconds",
            "When a receipt was acknowledged last; 0: not since the start",
            counts.archived_us as f64 / 1e6,
        ),
        (
            "clock_timestamp_seconds",
            "What the clock of the process says, to be held against Prometheus' own",
            now_us as f64 / 1e6,
        ),
    ];
    for (name, help, value) in seconds {
        let gauge: Gauge<f64, AtomicU64> = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
    let set_aside: Family<ByFault, Counter> = Family::default();
    for (fault, count) in &counts.set_aside {
        set_aside.get_or_create(&ByFault { fault: fault.as_str() }).inc_by(*count);
    }
    registry.register("set_aside", "Messages, objects and batches that were set aside", set_aside);
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

#[cfg(test)]
mod tests {
    use evidence::archive::Fault;

    use super::*;

    #[test]
    fn every_count_has_a_line() {
        let counts = ArchiveCounts {
            batches: 3,
            held_bytes: 7,
            behind_ms: 2500,
            is_reading: true,
            set_aside: Fault::ALL.into_iter().map(|fault| (fault, 2)).collect(),
            ..ArchiveCounts::default()
        };
        let text = text(&counts, 1_500_000);
        for line in [
            "gateway_archive_batches_total 3",
            "gateway_archive_work_bytes 7",
            "gateway_archive_reading 1",
            "gateway_archive_read_lag_seconds 2.5",
            "gateway_archive_clock_timestamp_seconds 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
        for fault in Fault::ALL {
            let line = format!("gateway_archive_set_aside_total{{fault=\"{}\"}} 2", fault.as_str());
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
    }
}
