//! A recorded verdict, against what the policy in force says of the same facts.

use std::collections::BTreeMap;

use policies::policy::Policy;
use schemas::Sha256Hex;
use schemas::record::{Decision, Verdict};

use super::exchange::{Exchange, InForce};
use super::result::{Change, Difference, Found, decider, decision};

/// The reason of a refusal by the policy.
pub(super) const DENIED: &str = "policy_denied";

/// The policies of the evidence, read when they are first asked for.
#[derive(Debug)]
pub struct Policies<'a> {
    texts: &'a BTreeMap<Sha256Hex, String>,
    parsed: BTreeMap<Sha256Hex, Option<Policy>>,
}

impl<'a> Policies<'a> {
    /// Of these texts.
    pub fn new(texts: &'a BTreeMap<Sha256Hex, String>) -> Self {
        Self { texts, parsed: BTreeMap::new() }
    }

    fn policy(&mut self, hash: Sha256Hex) -> Result<&Policy, String> {
        let text = self.texts.get(&hash).ok_or_else(|| format!("policy {hash} is not in the evidence"))?;
        let policy = self.parsed.entry(hash).or_insert_with(|| Policy::parse(text.as_bytes()).ok());
        policy.as_ref().ok_or_else(|| format!("policy {hash} has a form that this version does not read"))
    }
}

/// Evaluates again what the record holds, and compares.
pub fn compare(exchange: &Exchange, in_force: &InForce, policies: &mut Policies<'_>) -> Found {
    judge(exchange, in_force, policies).unwrap_or_else(Found::NotJudged)
}

fn judge(exchange: &Exchange, in_force: &InForce, policies: &mut Policies<'_>) -> Result<Found, String> {
    let ruling = in_force.ruling(exchange);
    let differs = |policy, change, rule, recorded: String, again: String| {
        let difference = Difference::of(exchange, change, rule, recorded, again);
        Ok(Found::Different(policy, Box::new(difference)))
    };
    let Some(recorded) = &exchange.verdict else {
        let none = "no verdict".to_owned();
        return match (&exchange.refused, ruling) {
            (Some(reason), _) if reason == DENIED => {
                differs(None, Change::RefusedThoughAllowed, None, DENIED.into(), none)
            }
            (Some(_), _) => Ok(Found::RefusedOtherwise),
            (None, Some(ruling)) if ruling.contains(&None) => Ok(Found::WithoutPolicy),
            (None, Some(ruling)) => {
                differs(None, Change::NoVerdict, None, none, format!("{} was in force", named(&ruling)))
            }
            (None, None) => Err(not_announced(exchange)),
        };
    };
    let ruling = ruling.ok_or_else(|| not_announced(exchange))?;
    if !ruling.contains(&Some(recorded.policy)) {
        let found = format!("policy {}", recorded.policy);
        return differs(None, Change::PolicyDiffers, None, found, format!("{} was in force", named(&ruling)));
    }
    let facts = exchange.facts()?;
    let again = policies.policy(recorded.policy)?.evaluate(&facts);
    let policy = Some(recorded.policy);
    let rule = decider(&again);
    if again.decision != recorded.decision {
        return differs(policy, Change::DecisionDiffers, rule, told(recorded), told(&again));
    }
    if again != *recorded {
        return differs(policy, Change::RuleDiffers, rule, told(recorded), told(&again));
    }
    let refused = exchange.refused.as_deref();
    match (recorded.decision == Decision::Deny, refused) {
        (true, None) => differs(policy, Change::SentThoughDenied, rule, "sent".into(), told(&again)),
        (true, Some(reason)) if reason != DENIED => {
            differs(policy, Change::DecisionDiffers, rule, format!("refused as {reason}"), told(&again))
        }
        (false, Some(DENIED)) => {
            differs(policy, Change::RefusedThoughAllowed, rule, DENIED.into(), told(&again))
        }
        _ => Ok(Found::Same(recorded.policy)),
    }
}

/// The policy of the configuration in force.
fn named(ruling: &[Option<Sha256Hex>]) -> String {
    ruling.first().copied().flatten().map_or("no policy".to_owned(), |policy| format!("policy {policy}"))
}

fn not_announced(exchange: &Exchange) -> String {
    format!("no proven record says which policy configuration {} holds", exchange.config)
}

/// A verdict in a line: decision, rules, and what they rested on.
pub(super) fn told(verdict: &Verdict) -> String {
    let rules: Vec<&str> = verdict.rules.iter().map(|rule| rule.as_str()).collect();
    let facts: Vec<String> = verdict.facts.iter().map(|(name, fact)| format!("{name}={fact}")).collect();
    let more = verdict.rule_count.map(|count| format!(" of {count}")).unwrap_or_default();
    format!("{} rules=[{}]{more} {}", decision(verdict.decision), rules.join(","), facts.join(" "))
}
