//! What was used -> what it costs.

use dialects::AnswerFacts;
use policies::price::PriceBook;
use schemas::Identifier;
use schemas::record::{Cost, Unpriced, Usage, UsageRole, UsageSource};

use crate::record;

/// What `facts` cost at the prices of `provider` (its name in the `book`), for the model that served, else the one that was
/// `sent`; or why there is no cost. Neither where there is no price book.
///
/// An operation that `reads_an_answer` tells what another exchange incurred, which may have been told nothing.
pub(crate) fn price(
    book: Option<&PriceBook>,
    provider: &str,
    sent: Option<&Identifier>,
    facts: &AnswerFacts,
    reads_an_answer: bool,
) -> (Option<Cost>, Option<Unpriced>) {
    let usage = &facts.usage;
    let Some(book) = book else { return (None, None) };
    let is_read = reads_an_answer
        && usage.role == UsageRole::Retrieved
        && usage.source == UsageSource::Provider
        && facts.response_id.is_some();
    if usage.source == UsageSource::NotApplicable || usage.role != UsageRole::Incurred && !is_read {
        return (None, Some(Unpriced::NotIncurred));
    }
    let read = is_read.then(|| Usage { role: UsageRole::Incurred, ..usage.clone() });
    let usage = read.as_ref().unwrap_or(usage);
    let sent = sent.map(Identifier::as_str);
    let models: Vec<&str> = [facts.served_model.as_deref(), sent].into_iter().flatten().collect();
    let tier = facts.service_tier.as_deref();
    match book.price(usage, provider, &models, record::now_us(), tier) {
        Ok(cost) => (Some(cost), None),
        Err(_) if is_read => (None, Some(Unpriced::NotIncurred)),
        Err(unpriced) => (None, Some(unpriced)),
    }
}
