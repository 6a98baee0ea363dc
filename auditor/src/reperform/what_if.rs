//! What another policy would have changed.

use policies::policy::Policy;
use schemas::record::Decision;

use super::compare::{DENIED, told};
use super::exchange::Exchange;
use super::result::{Change, Difference, Found, decider};

/// Evaluates `policy` over what the record holds, against what became of the exchange.
pub fn what_if(exchange: &Exchange, policy: &Policy) -> Found {
    if exchange.refused.as_deref().is_some_and(|reason| reason != DENIED) {
        return Found::RefusedOtherwise;
    }
    let facts = exchange.holds_groups_for(policy).and_then(|()| exchange.facts());
    let facts = match facts {
        Ok(facts) => facts,
        Err(why) => return Found::NotJudged(why),
    };
    let again = policy.evaluate(&facts);
    let was = match &exchange.refused {
        Some(_) => Decision::Deny,
        // Whatever its verdict was, it was sent.
        None => match exchange.verdict.as_ref().map(|verdict| verdict.decision) {
            Some(Decision::WouldDeny) => Decision::WouldDeny,
            _ => Decision::Allow,
        },
    };
    let change = match (was, again.decision) {
        (Decision::Deny, Decision::Deny) => None,
        (_, Decision::Deny) => Some(Change::WouldBeDenied),
        (Decision::Deny, _) => Some(Change::WouldBeAllowed),
        (Decision::Allow, Decision::WouldDeny) => Some(Change::WouldBeFlagged),
        (Decision::WouldDeny, Decision::Allow) => Some(Change::NoLongerFlagged),
        _ => None,
    };
    let Some(change) = change else { return Found::Same(policy.hash()) };
    let recorded = match &exchange.verdict {
        Some(verdict) => told(verdict),
        None => "no policy".into(),
    };
    let difference = Difference::of(exchange, change, decider(&again), recorded, told(&again));
    Found::Different(Some(policy.hash()), Box::new(difference))
}
