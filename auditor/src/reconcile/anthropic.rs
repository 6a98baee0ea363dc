//! Anthropic's usage and cost reports, as the Admin API gives them: `GET /v1/organizations/usage_report/messages`
//! (<https://platform.claude.com/docs/en/api/admin-api/usage-cost/get-messages-usage-report>) and
//! `/v1/organizations/cost_report`; pages, one after the other.

use super::input::{At, Input, Refused};
use super::{Bucket, Counts, Told};
use crate::decimal::Decimal;

fn results(
    input: &Input,
    told: &mut Told,
    mut see: impl FnMut(&At<'_>, (i64, i64), &mut Told) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let mut more: Option<u64> = None;
    input.documents(|page| {
        for bucket in page.need("data")?.list()? {
            let (from, to) = (bucket.need("starting_at")?.time()?, bucket.need("ending_at")?.time()?);
            super::compare::at_most_a_day(from, to).map_err(|wanted| {
                bucket.need("ending_at").map_or_else(|missing| missing, |end| end.refuse(wanted))
            })?;
            told.buckets.push(Bucket { from, to, key: None, model: None, counts: Counts::default() });
            for result in bucket.need("results")?.list()? {
                see(&result, (from, to), told)?;
            }
        }
        more = page.need("has_more")?.flag()?.then_some(page.line);
        Ok(())
    })?;
    super::openai::unfinished(more)
}

fn name(result: &At<'_>, key: &str) -> Result<Option<String>, Refused> {
    result.get(key).map(|name| name.text().map(str::to_owned)).transpose()
}

/// Whether a result, of a report by `service_tier`, is of batches.
fn is_batch(result: &At<'_>) -> Result<bool, Refused> {
    Ok(name(result, "service_tier")?.is_some_and(|tier| tier.starts_with("batch")))
}

/// Reads usage. Input is told without what was read from and written to caches.
///
/// # Errors
/// What is not as the API answers it.
pub fn usage(input: &Input, told: &mut Told) -> Result<(), Refused> {
    results(input, told, |result, (from, to), told| {
        let uncached = result.need("uncached_input_tokens")?.count()?;
        let read = result.need("cache_read_input_tokens")?.count()?;
        let written = match result.get("cache_creation") {
            Some(written) => {
                let of = |key: &str| written.get(key).map_or(Ok(0), |count| count.count());
                of("ephemeral_5m_input_tokens")?.saturating_add(of("ephemeral_1h_input_tokens")?)
            }
            None => 0,
        };
        let counts = Counts {
            input_tokens: Some(uncached.saturating_add(read).saturating_add(written)),
            cache_read_tokens: Some(read),
            output_tokens: Some(result.need("output_tokens")?.count()?),
            requests: result.get("requests").map(|count| count.count()).transpose()?,
            ..Counts::default()
        };
        let (key, model) = (name(result, "api_key_id")?, name(result, "model")?);
        told.bucket(Bucket { from, to, key, model, counts }, is_batch(result)?);
        Ok(())
    })
}

/// Reads costs: told in the currency's smallest units (cents), as decimal text. Costs of no tokens are left out.
///
/// # Errors
/// What is not as the API answers it.
pub fn cost(input: &Input, told: &mut Told) -> Result<(), Refused> {
    results(input, told, |result, (from, to), told| {
        let kind = name(result, "cost_type")?;
        if let Some(kind) = kind.filter(|kind| kind != "tokens") {
            told.leave_out(format!("costs of the type {kind}"));
            return Ok(());
        }
        let cents = result.need("amount")?.number()?;
        let currency = result.need("currency")?;
        if currency.text()? != "USD" {
            return Err(currency.refuse("`USD`: of no other currency it is known what its smallest unit is"));
        }
        let counts = Counts::cost("USD", Decimal(cents.0 / 100));
        let model = name(result, "model")?;
        told.bucket(Bucket { from, to, key: None, model, counts }, is_batch(result)?);
        Ok(())
    })
}
