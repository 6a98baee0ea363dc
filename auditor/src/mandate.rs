//! What the auditor requires: a mandate file, or `--require` on the command line.
//!
//! The operator has no say in it. Keys of the file:
//!
//! ```yaml
//! period: { from: 2026-11-01, to: 2026-12-01 }
//! claims: [signed, append_only]
//! retention: 180d
//! systems: [support-bot, coding]
//! witnessed: { organisations: 2, within: 1h }   # how many, and how long before the end of the asked interval at most
//! timestamped: { within: 26h }
//! store:                              # for evidence in a bucket; every key may be left out
//!   bucket: evidence
//!   owner: "111122223333"             # the account: every request carries it
//!   endpoint: https://s3.example.com
//!   kms_key: arn:aws:kms:...          # the only key under which objects may be encrypted
//!   late: 24h                         # how long after its seal's time an object may be written
//!   probed_within: 30d                # how old the last `auditor probe` of the bucket may be
//!   holds: [acme/gw1]                 # what must be under a legal hold: `all`, or logs and folders of them
//! ```

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::time;

/// A claim that evidence can support.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// Every batch is signed by the key that the trust file names.
    Signed,
    /// Nothing that was seen at an earlier visit changed or went.
    AppendOnly,
    /// Organisations other than the operator have countersigned.
    Witnessed,
    /// A timestamp authority bounds when it was written.
    Timestamped,
    /// Every version is under a COMPLIANCE lock, as the store says, and a probe of the bucket found that the store keeps
    /// to such locks; the claim's text says when.
    RetentionEnforced,
    /// Agrees with what providers bill.
    Reconciled,
    /// The content is what the records commit to.
    Content,
}

/// All claims, in the order in which they are printed.
pub const CLAIMS: [Claim; 7] = [
    Claim::Signed,
    Claim::AppendOnly,
    Claim::Content,
    Claim::Witnessed,
    Claim::Timestamped,
    Claim::RetentionEnforced,
    Claim::Reconciled,
];

impl Claim {
    /// The claim as it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::AppendOnly => "append_only",
            Self::Witnessed => "witnessed",
            Self::Timestamped => "timestamped",
            Self::RetentionEnforced => "retention_enforced",
            Self::Reconciled => "reconciled",
            Self::Content => "content",
        }
    }
    fn parse(text: &str) -> Result<Self, String> {
        let found = CLAIMS.into_iter().find(|claim| claim.as_str() == text);
        found.ok_or_else(|| {
            format!("`{text}` is not a claim: wanted one of {}", CLAIMS.map(Self::as_str).join(", "))
        })
    }
}

/// What is required.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mandate {
    /// Start of the asked interval, microseconds UTC.
    pub from: Option<i64>,
    /// End of the asked interval.
    pub to: Option<i64>,
    /// Claims that must be reached.
    pub claims: BTreeSet<Claim>,
    /// How long evidence must be kept, microseconds.
    pub retention: Option<i64>,
    /// Systems that must have records in the asked interval.
    pub systems: BTreeSet<String>,
    /// How many organisations must have cosigned the registry.
    pub organisations: Option<u32>,
    /// How old the newest cosigned state may be at the end of the asked interval, microseconds.
    pub witnessed_within: Option<i64>,
    /// How old the newest timestamped state may be there.
    pub timestamped_within: Option<i64>,
    /// Which store it must be.
    pub store: WantedStore,
}

/// The store that a mandate names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedStore {
    /// The bucket's name.
    pub bucket: Option<String>,
    /// The account that owns it.
    pub owner: Option<String>,
    /// The endpoint.
    pub endpoint: Option<String>,
    /// The key under which objects are encrypted.
    pub kms_key: Option<String>,
    /// How long after its seal's time an object may be written, microseconds.
    pub late: Option<i64>,
    /// How old the last probe of the bucket may be, microseconds.
    pub probed_within: Option<i64>,
    /// Which versions must be under a legal hold.
    pub holds: WantedHolds,
}

/// Which versions must be under a legal hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WantedHolds {
    /// None need be.
    #[default]
    None,
    /// Every one.
    All,
    /// Those of these logs, and below these folders.
    Below(Vec<String>),
}

/// Whether an object's name is `folder`, or below it.
pub(crate) fn is_below(name: &str, folder: &str) -> bool {
    name.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl WantedHolds {
    /// Whether the versions of a name must be under hold.
    pub fn ask_for(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Below(folders) => folders.iter().any(|folder| is_below(name, folder)),
        }
    }
    fn parse(typed: TypedHolds) -> Result<Self, String> {
        const WANTED: &str = "wanted `all`, `none`, or a list of logs or folders, as `acme/gw1`";
        match typed {
            TypedHolds::Word(word) if word == "all" => Ok(Self::All),
            TypedHolds::Word(word) if word == "none" => Ok(Self::None),
            TypedHolds::Word(word) => Err(format!("`{word}`: {WANTED}")),
            TypedHolds::Folders(folders) => {
                let is_folder = |folder: &String| folder.split('/').all(|part| !part.is_empty());
                match folders.iter().find(|folder| !is_folder(folder)) {
                    Some(wrong) => Err(format!("`{wrong}`: {WANTED}")),
                    None if folders.is_empty() => Err(format!("`[]`: {WANTED}")),
                    None => Ok(Self::Below(folders)),
                }
            }
        }
    }
}

/// `store.holds`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TypedHolds {
    Word(String),
    Folders(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TypedStore {
    bucket: Option<String>,
    owner: Option<String>,
    endpoint: Option<String>,
    kms_key: Option<String>,
    late: Option<String>,
    probed_within: Option<String>,
    holds: Option<TypedHolds>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    #[serde(default)]
    period: Option<Period>,
    #[serde(default)]
    claims: Vec<String>,
    #[serde(default)]
    retention: Option<String>,
    #[serde(default)]
    systems: Vec<String>,
    #[serde(default)]
    witnessed: Option<TypedAnchor>,
    #[serde(default)]
    timestamped: Option<TypedAnchor>,
    #[serde(default)]
    store: TypedStore,
}

/// `witnessed` and `timestamped`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedAnchor {
    #[serde(default)]
    organisations: Option<u32>,
    #[serde(default)]
    within: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Period {
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    to: Option<String>,
}

impl Mandate {
    /// Parses a mandate file.
    ///
    /// # Errors
    /// All problems at once: key, value and wanted form.
    pub fn parse(yaml: &str) -> Result<Self, String> {
        let typed: Typed = serde_saphyr::from_str(yaml).map_err(|error| format!("mandate: {error}"))?;
        let mut problems = Vec::new();
        let mut mandate = Self::default();
        let mut take = |key: &str, result: Result<i64, String>| match result {
            Ok(value) => Some(value),
            Err(problem) => {
                problems.push(format!("{key}: {problem}"));
                None
            }
        };
        if let Some(period) = typed.period {
            mandate.from = period.from.and_then(|text| take("period.from", time::parse(&text)));
            mandate.to = period.to.and_then(|text| take("period.to", time::parse(&text)));
        }
        let TypedStore { bucket, owner, endpoint, kms_key, late, probed_within, holds } = typed.store;
        let late = late.and_then(|text| take("store.late", time::parse_duration(&text)));
        let probed_within =
            probed_within.and_then(|text| take("store.probed_within", time::parse_duration(&text)));
        mandate.store =
            WantedStore { bucket, owner, endpoint, kms_key, late, probed_within, ..WantedStore::default() };
        for (key, claim, anchor) in [
            ("witnessed", Claim::Witnessed, typed.witnessed),
            ("timestamped", Claim::Timestamped, typed.timestamped),
        ] {
            let Some(anchor) = anchor else { continue };
            mandate.claims.insert(claim);
            let within =
                anchor.within.and_then(|text| take(&format!("{key}.within"), time::parse_duration(&text)));
            if claim == Claim::Witnessed {
                (mandate.witnessed_within, mandate.organisations) = (within, anchor.organisations);
            } else {
                mandate.timestamped_within = within;
                if let Some(count) = anchor.organisations {
                    let _ = take(
                        "timestamped.organisations",
                        Err(format!("`{count}`: wanted only `within`; one authority is enough")),
                    );
                }
            }
        }
        if mandate.organisations == Some(0) {
            let _ = take("witnessed.organisations", Err("`0`: wanted at least 1".into()));
        }
        mandate.retention = typed.retention.and_then(|text| take("retention", time::parse_duration(&text)));
        match holds.map(WantedHolds::parse).transpose() {
            Ok(holds) => mandate.store.holds = holds.unwrap_or_default(),
            Err(problem) => problems.push(format!("store.holds: {problem}")),
        }
        for text in typed.claims {
            match Claim::parse(&text) {
                Ok(claim) => _ = mandate.claims.insert(claim),
                Err(problem) => problems.push(format!("claims: {problem}")),
            }
        }
        mandate.systems = typed.systems.into_iter().collect();
        if problems.is_empty() { Ok(mandate) } else { Err(problems.join("\n")) }
    }

    /// Adds one requirement as typed: `claim=append_only`, `retention=180d`, `system=support-bot`, `from=...`, `to=...`,
    /// `witnessed=2` (organisations), `witnessed_within=1h`, `timestamped_within=1d`, or a claim alone.
    ///
    /// # Errors
    /// Key or value, with the wanted form.
    pub fn require(&mut self, text: &str) -> Result<(), String> {
        let (key, value) = text.split_once('=').unwrap_or(("claim", text));
        match key {
            "claim" => _ = self.claims.insert(Claim::parse(value)?),
            "retention" => self.retention = Some(time::parse_duration(value)?),
            "system" => _ = self.systems.insert(value.into()),
            "from" => self.from = Some(time::parse(value)?),
            "to" => self.to = Some(time::parse(value)?),
            "witnessed" => {
                let count = value.parse().ok().filter(|count| *count > 0);
                let wrong = || format!("`{value}` is not a number of organisations: wanted at least 1");
                self.organisations = Some(count.ok_or_else(wrong)?);
                self.claims.insert(Claim::Witnessed);
            }
            "witnessed_within" => {
                self.witnessed_within = Some(time::parse_duration(value)?);
                self.claims.insert(Claim::Witnessed);
            }
            "timestamped_within" => {
                self.timestamped_within = Some(time::parse_duration(value)?);
                self.claims.insert(Claim::Timestamped);
            }
            _ => {
                return Err(format!(
                    "`{key}` cannot be required: wanted `claim`, `retention`, `system`, `from`, `to`, `witnessed`, \
                     `witnessed_within` or `timestamped_within`"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mandate_is_read_or_all_its_problems_are_named() {
        let yaml = "period: { from: 1970-01-02 }\nclaims: [signed]\nretention: 180d\nsystems: [a]\n";
        let mandate = Mandate::parse(yaml).unwrap();
        assert_eq!((mandate.from, mandate.retention), (Some(time::DAY), Some(180 * time::DAY)));
        let problems = Mandate::parse("claims: [eternal]\nretention: long\n").unwrap_err();
        assert!(problems.contains("eternal") && problems.contains("retention"), "{problems}");
        assert!(Mandate::parse("claim: [signed]\n").is_err());
        let mandate =
            Mandate::parse("witnessed: { organisations: 2, within: 1h }\ntimestamped: { within: 1d }\n")
                .unwrap();
        assert_eq!((mandate.organisations, mandate.witnessed_within), (Some(2), Some(time::DAY / 24)));
        assert!(mandate.claims.contains(&Claim::Timestamped));
        for wrong in ["witnessed: { organisations: 0 }\n", "timestamped: { organisations: 2 }\n"] {
            assert!(Mandate::parse(wrong).unwrap_err().contains("organisations"), "{wrong}");
        }
        let mandate =
            Mandate::parse("store: { bucket: evidence, owner: \"111122223333\", late: 1d }\n").unwrap();
        assert_eq!(
            (mandate.store.bucket.as_deref(), mandate.store.late),
            (Some("evidence"), Some(time::DAY))
        );
    }

    #[test]
    fn holds_are_asked_for_everywhere_or_below_what_is_named() {
        let holds = |yaml: &str| Mandate::parse(&format!("store: {{ holds: {yaml} }}\n"));
        let asks = |yaml: &str, name: &str| holds(yaml).unwrap().store.holds.ask_for(name);
        assert!(asks("all", "acme/gw1/e1/0000000000.seal") && !asks("none", "acme/gw1/e1/0000000000.seal"));
        for (name, wanted) in [
            ("acme/gw1/e1/0000000000.seal", true),
            ("acme/gw2/e1/0000000000.seal", true),
            ("acme/gw2/e10/0000000000.seal", false),
            ("acme/gw10/e1/0000000000.seal", false),
            ("note.txt", false),
        ] {
            assert_eq!(asks("[acme/gw1, acme/gw2/e1]", name), wanted, "{name}");
        }
        for wrong in ["some", "[]", "[\"\"]", "[/acme]", "[acme/]"] {
            let problem = holds(wrong).unwrap_err();
            assert!(
                problem.contains("store.holds") && problem.contains("wanted `all`"),
                "{wrong}: {problem}"
            );
        }
        assert_eq!(Mandate::parse("store: { bucket: b }\n").unwrap().store.holds, WantedHolds::None);
    }

    #[test]
    fn requirements_on_the_command_line_say_what_they_want() {
        let mut mandate = Mandate::default();
        mandate.require("append_only").unwrap();
        mandate.require("retention=1y").unwrap();
        assert!(mandate.claims.contains(&Claim::AppendOnly));
        mandate.require("witnessed=2").unwrap();
        mandate.require("timestamped_within=1d").unwrap();
        assert!(mandate.claims.contains(&Claim::Witnessed) && mandate.claims.contains(&Claim::Timestamped));
        assert_eq!((mandate.organisations, mandate.timestamped_within), (Some(2), Some(time::DAY)));
        assert!(mandate.require("witnessed=0").unwrap_err().contains("at least 1"));
        assert!(mandate.require("colour=red").unwrap_err().contains("wanted"));
    }
}
