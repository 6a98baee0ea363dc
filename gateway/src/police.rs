//! Asks the policy, with what is known before the request goes anywhere.

use policies::policy::{Facts, Policy};
use schemas::record::{Asked, Attributed, Caller, Verdict};

/// The policy's verdict on a request.
pub(crate) fn judge(policy: &Policy, caller: &Caller, asked: &Asked) -> Verdict {
    fn text(fact: &Option<Attributed>) -> Option<&str> {
        fact.as_ref().map(|fact| fact.value.as_str())
    }
    policy.evaluate(&Facts {
        consumer: text(&caller.consumer),
        team: text(&caller.team),
        organisation: text(&caller.organisation),
        cost_centre: text(&caller.cost_centre),
        system: text(&caller.system),
        purpose: text(&caller.purpose),
        data_class: text(&caller.data_class),
        key: caller.key.as_ref().map(schemas::Identifier::as_str),
        groups: &caller.groups,
        route: asked.route.as_ref().map(schemas::Identifier::as_str),
        provider: asked.provider.as_ref().map(schemas::Identifier::as_str),
        model: asked.requested_model.as_ref().map(schemas::Identifier::as_str),
        sent_model: asked.sent_model.as_ref().map(schemas::Identifier::as_str),
        operation: asked.operation.as_ref().map(schemas::Identifier::as_str),
        max_output_tokens: asked.max_output_tokens,
        choices: asked.choices,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dialects::operation::Tokens;

    #[test]
    fn of_every_operation_that_uses_tokens_it_is_said_what_it_writes() {
        let listed: BTreeSet<_> = policies::policy::with_tokens().filter(|name| *name != "other").collect();
        let uses = dialects::operations().filter(|operation| operation.tokens() == Tokens::Incurs);
        assert_eq!(listed, uses.map(|operation| operation.name()).collect());
    }
}
