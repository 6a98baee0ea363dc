//! What a reperformance found.

use std::collections::BTreeMap;

use schemas::Sha256Hex;
use schemas::record::{Decision, Verdict};
use serde::Serialize;

use super::exchange::Exchange;
use crate::decimal::Decimal;
use crate::report::Verdict as Proven;

/// The exchanges that are listed one by one; what is beyond is only counted.
pub const LISTED: usize = 100_000;

/// How an exchange differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The policy denied it, and it was sent.
    SentThoughDenied,
    /// It was refused as the policy's denial, and the verdict denies nothing.
    RefusedThoughAllowed,
    /// The policy decides otherwise than was recorded.
    DecisionDiffers,
    /// Other rules apply than were recorded, or other facts decide.
    RuleDiffers,
    /// The verdict is another policy's than the one in force.
    PolicyDiffers,
    /// A policy was in force, and there is no verdict.
    NoVerdict,
    /// It was sent; the other policy would have refused it.
    WouldBeDenied,
    /// The policy refused it; the other one would have let it pass.
    WouldBeAllowed,
    /// It passes under both; only the other policy, which observes, speaks against it.
    WouldBeFlagged,
    /// It passes under both; only the recorded policy, which observed, spoke against it.
    NoLongerFlagged,
}

impl Change {
    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SentThoughDenied => "sent_though_denied",
            Self::RefusedThoughAllowed => "refused_though_allowed",
            Self::DecisionDiffers => "decision_differs",
            Self::RuleDiffers => "rule_differs",
            Self::PolicyDiffers => "policy_differs",
            Self::NoVerdict => "no_verdict",
            Self::WouldBeDenied => "would_be_denied",
            Self::WouldBeAllowed => "would_be_allowed",
            Self::WouldBeFlagged => "would_be_flagged",
            Self::NoLongerFlagged => "no_longer_flagged",
        }
    }
}

/// One exchange, or one attempt of it, that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How.
    pub change: Change,
    /// The exchange.
    pub exchange: Option<String>,
    /// The log.
    pub origin: String,
    /// The position of its intent or refusal, or of the attempt that differs.
    pub position: u64,
    /// The number of the attempt that differs; 0: the first dispatch.
    pub attempt: u64,
    /// When, microseconds UTC.
    pub at: i64,
    /// The caller's team.
    pub team: Option<String>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// What decides in the new evaluation: a rule's id, or `default`.
    pub rule: Option<String>,
    /// What was recorded.
    pub recorded: String,
    /// What comes out now.
    pub again: String,
    /// Currency of its cost.
    pub currency: Option<String>,
    /// Its cost; absent where it is unknown, or was never incurred.
    pub cost: Option<Decimal>,
}

impl Difference {
    /// Of an exchange.
    pub(super) fn of(
        exchange: &Exchange,
        change: Change,
        rule: Option<String>,
        recorded: String,
        again: String,
    ) -> Self {
        Self {
            change,
            exchange: exchange.id.clone(),
            origin: exchange.origin.clone(),
            position: exchange.further.map_or(exchange.position, |further| further.position),
            attempt: exchange.further.map_or(0, |further| further.number),
            at: exchange.further.map_or(exchange.at, |further| further.at),
            team: exchange.team().map(str::to_owned),
            model: exchange.model().map(str::to_owned),
            rule,
            recorded,
            again,
            currency: exchange.cost.as_ref().map(|(currency, _)| currency.clone()),
            cost: exchange.cost.as_ref().map(|(_, cost)| *cost),
        }
    }
}

/// The exchanges that differ in the same way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// How many.
    pub exchanges: u64,
    /// How many of them have no known cost.
    pub without_cost: u64,
    /// The known cost, by currency.
    pub cost: BTreeMap<String, Decimal>,
}

/// Change, team, model and rule.
pub type Group = (Change, Option<String>, Option<String>, Option<String>);

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Reperformed {
    /// The policy that was given from outside; absent: those of the evidence.
    pub policy: Option<Sha256Hex>,
    /// Verdicts that were evaluated, and by which policy: one of each exchange and of each of its further attempts.
    pub evaluated: BTreeMap<Sha256Hex, u64>,
    /// Verdicts that do not differ.
    pub same: u64,
    /// Verdicts that differ.
    pub different: u64,
    /// Exchanges that were sent while no policy was in force.
    pub without_policy: u64,
    /// Exchanges that were refused before any policy was asked, or for another reason.
    pub refused_otherwise: u64,
    /// Exchanges that could not be judged, by why.
    pub not_judged: BTreeMap<String, u64>,
    /// By change, team, model and rule.
    pub groups: BTreeMap<Group, Sums>,
    /// The exchanges that differ, the first [`LISTED`].
    pub differences: Vec<Difference>,
}

impl Reperformed {
    /// Counts what came of an exchange.
    pub fn add(&mut self, found: Found, count: u64) {
        match found {
            Found::Same(policy) => {
                self.same += 1;
                *self.evaluated.entry(policy).or_default() += 1;
            }
            Found::WithoutPolicy => self.without_policy += 1,
            Found::RefusedOtherwise => self.refused_otherwise += count,
            Found::NotJudged(why) => *self.not_judged.entry(why).or_default() += 1,
            Found::Different(policy, difference) => {
                self.different += 1;
                if let Some(policy) = policy {
                    *self.evaluated.entry(policy).or_default() += 1;
                }
                self.put(*difference);
            }
        }
    }

    fn put(&mut self, difference: Difference) {
        let group =
            (difference.change, difference.team.clone(), difference.model.clone(), difference.rule.clone());
        let sums = self.groups.entry(group).or_default();
        sums.exchanges += 1;
        match (&difference.currency, difference.cost) {
            (Some(currency), Some(cost)) => {
                let sum = sums.cost.entry(currency.clone()).or_default();
                *sum = sum.plus(cost);
            }
            _ => sums.without_cost += 1,
        }
        if self.differences.len() < LISTED {
            self.differences.push(difference);
        }
    }

    /// The exit code over evidence of this verdict: a pass only where something was evaluated, and all of it could be.
    pub fn exit_code(&self, proven: Proven) -> u8 {
        let judged = !self.evaluated.is_empty() && self.not_judged.is_empty();
        match proven.exit_code() {
            1 => 1,
            _ if self.different > 0 => 1,
            0 if judged => 0,
            _ => 2,
        }
    }
}

/// What came of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The policy says the same again.
    Same(Sha256Hex),
    /// Something differs; by the policy that was evaluated, where one was.
    Different(Option<Sha256Hex>, Box<Difference>),
    /// No policy was in force.
    WithoutPolicy,
    /// Refused before the policy was asked, or not by it.
    RefusedOtherwise,
    /// Why it cannot be judged.
    NotJudged(String),
}

/// A decision, as records spell it.
pub(super) fn decision(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "allow",
        Decision::Deny => "deny",
        Decision::WouldDeny => "would_deny",
    }
}

/// What decided: a rule's id, or `default`.
pub(super) fn decider(verdict: &Verdict) -> Option<String> {
    verdict.facts.get("decided_by").map(ToString::to_string)
}
