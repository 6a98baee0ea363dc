//! Asks the policy, with what is known before the request goes anywhere.

use policies::policy::{Facts, Policy, writes_output};
use schemas::record::{Asked, Attributed, Caller, Verdict};

use dialects::Operation;

/// The policy's verdict on a request.
pub(crate) fn judge(policy: &Policy, caller: &Caller, asked: &Asked, operation: &Operation) -> Verdict {
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
        route: asked.route.as_ref().map(schemas::Identifier::as_str),
        provider: asked.provider.as_ref().map(schemas::Identifier::as_str),
        model: asked.requested_model.as_ref().map(schemas::Identifier::as_str),
        operation: asked.operation.as_ref().map(schemas::Identifier::as_str),
        generates: writes_output(operation.name()),
        max_output_tokens: asked.max_output_tokens,
        choices: asked.choices,
    })
}
