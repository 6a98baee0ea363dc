//! What a request says of the target that should get it: what is hashed of it, its conversation, its price at each.

use std::time::Instant;

use dialects::{ConversationKey, conversation_key};
use schemas::record::{Asked, Attributed, Caller, Usage, UsageRole, UsageSource};

use super::original::Original;
use crate::app::Snapshot;
use crate::balance::semantic::Meaning;
use crate::balance::{Pick, Said};
use crate::quotas;
use crate::record;
use crate::route::Route;

/// Output tokens that are reckoned with where a request bounds none.
const USUAL_OUTPUT: i64 = 1000;

/// The price at a target, by its place.
type Price = Box<dyn Fn(usize) -> Option<f64> + Send + Sync>;

/// What decides over a request's target, beside the state of targets.
pub(crate) struct Spread {
    hash: Option<Vec<u8>>,
    conversation: Option<ConversationKey>,
    price: Option<Price>,
    /// What its prompt means, once that was asked.
    meaning: Option<Meaning>,
}

impl Spread {
    /// Of a request, as far as its route asks for it.
    pub(crate) fn new(
        route: &Route,
        original: &Original,
        (caller, asked): (&Caller, &Asked),
        snapshot: &Snapshot,
    ) -> Self {
        let balancer = &route.balancer;
        let body = original.readable.as_deref().filter(|_| balancer.wants_conversation());
        let conversation = body.and_then(|body| conversation_key(original.operation.dialect(), body));
        let text = |fact: &'_ Option<Attributed>| fact.as_ref().map(|fact| fact.value.as_str().to_owned());
        let (consumer, subject, team) = (text(&caller.consumer), text(&caller.subject), text(&caller.team));
        let said = Said {
            headers: &original.headers,
            consumer: consumer.as_deref(),
            subject: subject.as_deref(),
            team: team.as_deref(),
            model: original.model.as_deref(),
            conversation,
        };
        let price: Option<Price> = balancer.wants_price().then(|| {
            let prices = prices(route, original, asked, snapshot);
            Box::new(move |place: usize| prices.get(place).copied().flatten()) as Price
        });
        Self { hash: balancer.hash_value(&said), conversation, price, meaning: None }
    }

    /// The target that its conversation is at, where that may have it.
    pub(crate) fn placed(&self, route: &Route) -> Option<usize> {
        route.balancer.place_of(self.conversation?, Instant::now())
    }

    /// Its prompt means this.
    pub(crate) fn means(&mut self, meaning: Meaning) {
        self.meaning = Some(meaning);
    }

    /// A choice among the targets that are not `excluded`, now.
    pub(crate) fn pick<'a>(&'a self, excluded: &'a [usize]) -> Pick<'a> {
        Pick {
            hash: self.hash.as_deref(),
            conversation: self.conversation,
            excluded,
            price: self.price.as_deref().map(|price| price as &dyn Fn(usize) -> Option<f64>),
            meant: self.meaning.as_ref().map(Meaning::meant),
            now: Instant::now(),
        }
    }
}

/// What the request would cost at each target, by an estimate of its tokens.
fn prices(route: &Route, original: &Original, asked: &Asked, snapshot: &Snapshot) -> Vec<Option<f64>> {
    let input = quotas::input_tokens_of(original.body.len());
    let usage = Usage {
        input_tokens: i64::try_from(input).ok(),
        output_tokens: Some(asked.max_output_tokens.unwrap_or(USUAL_OUTPUT)),
        ..Usage::of(UsageSource::Estimated, UsageRole::Incurred)
    };
    let named = original.model.as_deref();
    let price = |target: &super::target::Target| {
        let sent = target.model(&route.aliases, named);
        let model = sent.as_deref().or(named)?;
        let book = snapshot.loaded.prices.as_ref()?;
        let cost = book.price(&usage, &target.provider.price_name, &[model], record::now_us(), None).ok()?;
        cost.total.parse().ok()
    };
    route.targets.iter().map(|target| price(target)).collect()
}
