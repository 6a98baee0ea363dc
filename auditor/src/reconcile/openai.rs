//! OpenAI's usage and costs, as the Admin API gives them: `GET /v1/organization/usage/completions`, `/embeddings`
//! (<https://platform.openai.com/docs/api-reference/usage>) and `/v1/organization/costs`; pages, one after the other.

use policies::document::Problem;

use super::input::{At, Input, Refused};
use super::{Bucket, Counts, Told};

/// Goes through the results of every bucket of every page, which must be all pages.
fn results(
    input: &Input,
    told: &mut Told,
    mut see: impl FnMut(&At<'_>, (i64, i64), &mut Told) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let mut more: Option<u64> = None;
    input.documents(|page| {
        if page.need("object")?.text()? != "page" {
            return Err(page.need("object")?.refuse("`page`: what the API answers"));
        }
        for bucket in page.need("data")?.list()? {
            let (from, to) = (bucket.need("start_time")?.seconds()?, bucket.need("end_time")?.seconds()?);
            super::compare::at_most_a_day(from, to).map_err(|wanted| {
                bucket.need("end_time").map_or_else(|missing| missing, |end| end.refuse(wanted))
            })?;
            told.buckets.push(Bucket { from, to, key: None, model: None, counts: Counts::default() });
            let list = match bucket.get("results") {
                Some(results) => results,
                None => bucket.need("result")?,
            };
            for result in list.list()? {
                see(&result, (from, to), told)?;
            }
        }
        more = page.need("has_more")?.flag()?.then_some(page.line);
        Ok(())
    })?;
    unfinished(more)
}

/// The last page says that there are more.
pub(super) fn unfinished(more: Option<u64>) -> Result<(), Refused> {
    let Some(line) = more else { return Ok(()) };
    let place = policies::document::Place { line, column: 1 };
    let wanted =
        "`false` on the last page: fetch what `next_page` names too, and put all pages into the file";
    Err(Problem::at(place, "has_more", wanted).value("true").into())
}

fn optional(result: &At<'_>, key: &str) -> Result<Option<u64>, Refused> {
    result.get(key).map(|count| count.count()).transpose()
}

fn name(result: &At<'_>, key: &str) -> Result<Option<String>, Refused> {
    result.get(key).map(|name| name.text().map(str::to_owned)).transpose()
}

/// Reads usage.
///
/// # Errors
/// What is not as the API answers it.
pub fn usage(input: &Input, told: &mut Told) -> Result<(), Refused> {
    results(input, told, |result, (from, to), told| {
        let kind = result.need("object")?.text()?;
        match kind {
            "organization.usage.completions.result" => told.kinds.insert("completions"),
            "organization.usage.embeddings.result" => told.kinds.insert("embeddings"),
            _ if kind.starts_with("organization.usage.") => {
                told.leave_out(format!("results of the kind {kind}"));
                return Ok(());
            }
            _ => return Err(result.need("object")?.refuse("`organization.usage.completions.result`")),
        };
        let counts = Counts {
            requests: Some(result.need("num_model_requests")?.count()?),
            input_tokens: Some(result.need("input_tokens")?.count()?),
            cache_read_tokens: optional(result, "input_cached_tokens")?,
            output_tokens: optional(result, "output_tokens")?,
            ..Counts::default()
        };
        let (key, model) = (name(result, "api_key_id")?, name(result, "model")?);
        let is_batch = result.get("batch").map(|batch| batch.flag()).transpose()?.unwrap_or(false);
        told.bucket(Bucket { from, to, key, model, counts }, is_batch);
        Ok(())
    })
}

/// Reads costs. They are not told by model: a line item's name is a text for people.
///
/// # Errors
/// What is not as the API answers it.
pub fn costs(input: &Input, told: &mut Told) -> Result<(), Refused> {
    results(input, told, |result, (from, to), told| {
        if result.need("object")?.text()? != "organization.costs.result" {
            return Err(result.need("object")?.refuse("`organization.costs.result`"));
        }
        let amount = result.need("amount")?;
        let counts = Counts::cost(amount.need("currency")?.text()?, amount.need("value")?.number()?);
        let key = name(result, "api_key_id")?;
        told.buckets.push(Bucket { from, to, key, model: None, counts });
        Ok(())
    })
}
