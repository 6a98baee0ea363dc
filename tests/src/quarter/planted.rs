//! What is wrong in the quarter, and which controls must find it.

use std::collections::{BTreeMap, BTreeSet};

use super::Plan;
use super::registers::SHORT_DAYS;
use crate::Dice;

/// The enum, each of its variants by its bare name, and all but the last of them in order.
macro_rules! violations {
    ($($(#[$about:meta])+ $name:ident,)+ last: $(#[$of_last:meta])+ $last:ident) => {
        /// What is wrong with an exchange.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Violation {
            $($(#[$about])+ $name,)+
            $(#[$of_last])+ $last,
        }
        use Violation::{$($name,)+ $last};

        /// All but those on a revoked key: these come last.
        const ANY_TIME: &[Violation] = &[$($name),+];
    };
}

violations! {
    /// Nobody was authenticated.
    NoConsumer,
    /// The caller is known by its own word only.
    Asserted,
    /// Health data for no purpose.
    NoPurpose,
    /// Nobody said which class of data it is.
    NoClass,
    /// Health data at a provider without an agreement for it.
    HealthElsewhere,
    /// Cardholder data at a provider that is none for it.
    CardElsewhere,
    /// A class of data that no provider may have.
    ForbiddenClass,
    /// A class of data whose listing names no basis.
    NoBasis,
    /// A purpose that is in no register.
    OtherPurpose,
    /// A system that is in no register.
    OtherSystem,
    /// A model that the system may not use.
    OtherModel,
    /// A provider that is in no register.
    OtherProvider,
    /// The record names no provider.
    NoProvider,
    /// A rule would have refused it.
    WouldDeny,
    /// No policy was asked.
    NoDecision,
    /// The gateway died in the middle of it.
    Interrupted,
    /// Its content was never erased, though its class is a short one.
    KeptTooLong,
    /// Its retention class is in no register.
    OtherRetention,
    /// Its content was erased before books may be.
    Erased,
    last:
    /// Its key had been revoked.
    RevokedKey
}

/// Controls whose exceptions are exchanges, and the violations that are theirs.
const EXCHANGES: [(&[&str], &[Violation]); 14] = [
    (
        &[
            "cfr_21_11/11.10-d-access",
            "dora/9-4-d-authenticated",
            "gdpr/32-callers",
            "hipaa/164.312-d-authentication",
            "iso27001/a.8.5-authenticated",
            "nist_ai_rmf/measure-2.8-accountable",
            "nydfs_500/500.07-callers",
            "pci_dss/10.2.1.1-access",
            "soc2/cc6.1-callers",
        ],
        &[NoConsumer, Asserted],
    ),
    (
        &[
            "dora/28-3-register",
            "iso27001/a.5.23-providers",
            "iso42001/a.10.3-suppliers",
            "nist_ai_rmf/govern-6.1-third-parties",
            "nydfs_500/500.11-third-parties",
        ],
        &[OtherProvider, NoProvider],
    ),
    (
        &["eu_ai_act/12-1-attributed", "iso42001/a.9.2-systems", "nist_ai_rmf/govern-1.6-inventory"],
        &[OtherSystem],
    ),
    (
        &["eu_ai_act/12-2-a-models", "iso42001/a.4.4-models", "nist_ai_rmf/manage-3.2-models"],
        &[OtherSystem, OtherModel],
    ),
    (
        &[
            "eu_ai_act/12-2-ended",
            "nist_ai_rmf/measure-2.4-ended",
            "nydfs_500/500.06-a1-reconstruct",
            "soc2/pi1.4-ended",
        ],
        &[Interrupted],
    ),
    (&["nist_ai_rmf/govern-1.4-policy", "soc2/cc6.8-policy"], &[WouldDeny, NoDecision]),
    (&["iso27001/a.5.18-revoked", "nydfs_500/500.07-revoked", "soc2/cc6.3-revoked"], &[RevokedKey]),
    (&["gdpr/30-purposes"], &[NoPurpose, OtherPurpose, OtherProvider, NoProvider]),
    (&["gdpr/44-transfers"], &[NoClass, ForbiddenClass, NoBasis, OtherProvider, NoProvider]),
    (&["gebuev/or-958f-not-erased", "sec_finra/17a-4-not-erased"], &[Erased]),
    (&["hipaa/164.312-b-audit"], &[NoPurpose]),
    (&["hipaa/164.308-class"], &[NoClass]),
    (&["hipaa/164.308-b-associates"], &[HealthElsewhere]),
    (&["pci_dss/12.8-providers"], &[CardElsewhere]),
];

/// Controls of one question whose exceptions are something else: the column that tells them apart, and its values.
const OTHERS: [(&[&str], &str, &[&str]); 14] = [
    (
        &["cfr_21_11/11.10-g-keys", "pci_dss/10.2.1.5-credentials", "soc2/cc6.2-keys"],
        "object",
        &["k-rogue", "k-self", "k-nobody"],
    ),
    (
        &[
            "cfr_21_11/11.10-k-changes",
            "dora/9-4-e-changes",
            "iso27001/a.8.32-changes",
            "iso42001/a.6.2.5-changes",
            "soc2/cc8.1-changes",
        ],
        "reason",
        &["reload"],
    ),
    (
        &[
            "dora/rts-12-rest",
            "gdpr/32-encrypted",
            "hipaa/164.312-a-encryption",
            "iso27001/a.8.24-encrypted",
            "nydfs_500/500.15-encrypted",
            "soc2/c1.1-encrypted",
        ],
        "encryption",
        &["off"],
    ),
    (
        &[
            "cfr_21_11/11.10-e-not-obscured",
            "dora/rts-12-protected",
            "gdpr/5-2-whole",
            "gebuev/gebuev-9-integrity",
            "hipaa/164.312-c-integrity",
            "iso27001/a.8.15-protected",
            "iso42001/7.5-whole",
            "nist_ai_rmf/measure-2.8-history",
            "nydfs_500/500.06-whole",
            "pci_dss/10.3.4-change",
            "sec_finra/17a-4-f2i-a-original",
            "soc2/cc7.1-whole",
        ],
        "code",
        &["BACKDATED", "RECORDS_LOST"],
    ),
    (
        &[
            "dora/rts-12-failure",
            "eu_ai_act/12-1-lifetime",
            "iso27001/a.8.15-produced",
            "nist_ai_rmf/measure-2.4-production",
            "pci_dss/10.2.1.6-stops",
            "sec_finra/17a-4-complete",
            "soc2/cc7.2-unbroken",
        ],
        "what",
        &["unrecorded", "unrecorded"],
    ),
    (
        &[
            "dora/17-incidents",
            "iso27001/a.5.26-incidents",
            "nist_ai_rmf/manage-4.3-incidents",
            "pci_dss/10.7-failures",
            "soc2/cc7.3-incidents",
        ],
        "what",
        &["unrecorded"],
    ),
    (
        &["cfr_21_11/11.10-e-time", "dora/rts-12-clock", "iso27001/a.8.17-clocks", "pci_dss/10.6-clock"],
        "code",
        &["BACKDATED"],
    ),
    (
        &[
            "gebuev/gebuev-10-checked",
            "hipaa/164.308-review",
            "iso42001/a.6.2.6-monitored",
            "nist_ai_rmf/manage-4.1-reviewed",
        ],
        "month",
        &["2026-08-01T00:00:00Z"],
    ),
    (
        &["iso27001/a.8.15-analysed", "nydfs_500/500.14-monitored", "soc2/cc7.2-reviewed"],
        "week",
        &["2026-08-03T00:00:00Z", "2026-08-10T00:00:00Z", "2026-08-17T00:00:00Z", "2026-08-24T00:00:00Z"],
    ),
    (&["cfr_21_11/11.10-a-altered"], "claim", &["signed"]),
    (&["eu_ai_act/12-1-logged", "iso42001/a.6.2.8-logged"], "id", &["sys-ghost"]),
    (&["iso42001/a.6.2.8-decision"], "id", &["sys-ghost"]),
    (&["eu_ai_act/26-6-oldest"], "id", &["sys-credit", "sys-ghost"]),
    (
        &["eu_ai_act/26-5-72-monitored"],
        "id",
        &["sys-credit", "sys-credit", "sys-ghost", "sys-ghost", "sys-ghost", "sys-hiring"],
    ),
];

/// Controls that ask what every record of an event must name.
const EVENTS: [&str; 6] = [
    "cfr_21_11/11.10-e-trail",
    "dora/rts-12-events",
    "gebuev/gebuev-9-logs",
    "nydfs_500/500.06-a2-trail",
    "pci_dss/10.2.2-fields",
    "sec_finra/17a-4-f2i-a-trail",
];

/// What no folder shows, whatever is in it: the claims of a first visit without witnesses.
const CLAIMS: [(&str, &str, &str); 4] = [
    ("cfr_21_11/11.10-c-protected", "claim", "retention_enforced"),
    ("sec_finra/17a-4-f2i-b-worm", "claim", "retention_enforced"),
    ("gebuev/gebuev-9-time", "what", "timestamped"),
    ("iso27001/a.5.28-evidence", "claim", "append_only"),
];

/// The exceptions of a control.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The column that tells them apart.
    pub column: String,
    /// Its values, sorted; empty where a row has none.
    pub values: Vec<String>,
}

/// The exceptions that must be found, by `pack/control`; a control that is not there has none.
pub type Answers = BTreeMap<String, Answer>;

/// Which exchange gets which violation.
#[derive(Debug, Default)]
pub(super) struct Planted(BTreeMap<u64, Violation>);

impl Planted {
    /// Spreads them over the quarter.
    pub(super) fn new(plan: Plan) -> Self {
        let mut list: Vec<Violation> = ANY_TIME.iter().flat_map(|one| (0..plan.each).map(|_| *one)).collect();
        let mut dice = Dice::new(plan.seed);
        for n in (1..list.len()).rev() {
            let other = usize::try_from(dice.below(n as u64 + 1)).unwrap_or(0);
            list.swap(n, other);
        }
        list.extend((0..plan.each).map(|_| RevokedKey));
        let between = plan.exchanges / (list.len() as u64 + 1);
        assert!(list.is_empty() || between >= super::GATEWAYS, "more violations than exchanges");
        let place = |n: u64| {
            let number = (n + 1) * between;
            // The third gateway keeps a month of content in the clear: it has nothing to erase.
            number - u64::from(number % super::GATEWAYS == super::GATEWAYS - 1)
        };
        Self((0..).zip(list).map(|(n, violation)| (place(n), violation)).collect())
    }

    /// What is wrong with an exchange of this number.
    pub(super) fn of(&self, number: u64) -> Option<Violation> {
        self.0.get(&number).copied()
    }
}

/// What must be found.
pub(super) fn answers(plan: Plan, done: &BTreeMap<Violation, BTreeSet<String>>) -> Answers {
    let mut out = Answers::new();
    let mut add = |control: &str, column: &str, mut values: Vec<String>| {
        values.sort();
        if !values.is_empty() {
            out.insert(control.into(), Answer { column: column.into(), values });
        }
    };
    for (control, column, value) in CLAIMS {
        add(control, column, vec![value.into()]);
    }
    if plan.each == 0 {
        return out;
    }
    let ids = |violations: &[Violation]| -> Vec<String> {
        violations.iter().filter_map(|one| done.get(one)).flatten().cloned().collect()
    };
    for (controls, violations) in EXCHANGES {
        for control in controls {
            add(control, "exchange", ids(violations));
        }
    }
    for (controls, column, values) in OTHERS {
        for control in controls {
            add(control, column, values.iter().map(|value| (*value).to_owned()).collect());
        }
    }
    let august = (1..=31).map(|day| format!("2026-08-{day:02}T00:00:00Z")).collect();
    add("pci_dss/10.4.1-daily", "day", august);
    for control in EVENTS {
        let mut values = ids(&[NoConsumer, NoProvider]);
        // A key that nobody issued: the record of it belongs to no exchange.
        values.push(String::new());
        add(control, "exchange", values);
    }
    // Content of a class that nobody knows, and content whose time was over before the quarter was.
    let due = done.get(&KeptTooLong).into_iter().flatten().filter(|exchange| began(exchange) < LAST_DUE);
    add("gdpr/5-1-e-storage", "exchange", ids(&[OtherRetention]).into_iter().chain(due.cloned()).collect());
    // Of the requests that the register holds, one was never done and one was done too late.
    add(
        "gdpr/17-erased",
        "exchange",
        [never_erased(done), erased_late(done)].into_iter().flatten().collect(),
    );
    out
}

/// Content of a call from before that may not be there at the end of the quarter.
const LAST_DUE: i64 = super::BEGIN + (super::DAYS - SHORT_DAYS) * super::DAY;

/// When an exchange began, microseconds: its id says.
fn began(exchange: &str) -> i64 {
    let digits: String = exchange.chars().filter(|digit| *digit != '-').take(12).collect();
    i64::from_str_radix(&digits, 16).expect("a UUIDv7") * 1000
}

/// The exchange that was to be erased and was not.
pub(super) fn never_erased(done: &BTreeMap<Violation, BTreeSet<String>>) -> Option<String> {
    done.get(&KeptTooLong)?.first().cloned()
}

/// The exchange that was erased months after somebody asked for it.
pub(super) fn erased_late(done: &BTreeMap<Violation, BTreeSet<String>>) -> Option<String> {
    done.get(&Erased)?.first().cloned()
}
