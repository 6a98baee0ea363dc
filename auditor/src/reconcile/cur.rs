//! AWS Cost and Usage Reports, version 2.0 (<https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2.html>)
//! or the older one, as CSV, gzip'd or not: the lines of Amazon Bedrock
//! (<https://docs.aws.amazon.com/bedrock/latest/userguide/cost-mgmt-understanding-cur-data.html>). Usage types name no
//! model ids, so sums are held against each other by day. Reports must be hourly or daily.

use super::input::{Input, Refused, Row};
use super::{BATCH, Bucket, Counts, Told};
use crate::decimal::Decimal;

const FROM: usize = 0;
const TO: usize = 1;
const PRODUCT: usize = 2;
const USAGE_TYPE: usize = 3;
const AMOUNT: usize = 4;
const UNIT: usize = 5;
const COST: usize = 6;
const CURRENCY: usize = 7;
const LINE_TYPE: usize = 8;

const COLUMNS: [&[&str]; 9] = [
    &["line_item_usage_start_date", "lineItem/UsageStartDate"],
    &["line_item_usage_end_date", "lineItem/UsageEndDate"],
    &["line_item_product_code", "lineItem/ProductCode"],
    &["line_item_usage_type", "lineItem/UsageType"],
    &["line_item_usage_amount", "lineItem/UsageAmount"],
    &["pricing_unit", "pricing/unit"],
    &["line_item_unblended_cost", "lineItem/UnblendedCost"],
    &["line_item_currency_code", "lineItem/CurrencyCode"],
    &["line_item_line_item_type", "lineItem/LineItemType"],
];

/// Reads the report.
///
/// # Errors
/// What is no such report.
pub fn report(input: &Input, told: &mut Told) -> Result<(), Refused> {
    input.table(COLUMNS, &["line_item_line_item_type"], |row| {
        let usage_type = row.text(USAGE_TYPE).to_ascii_lowercase();
        // Models of others are sold through the marketplace, under product codes of their own. Other products count tokens too.
        let is_sold = usage_type.contains("mp:");
        let is_bedrock = row.text(PRODUCT).starts_with("AmazonBedrock");
        let is_tokens = usage_type.contains("token");
        if !(is_bedrock || is_tokens && (is_sold || row.text(PRODUCT).is_empty())) {
            told.leave_out("lines of other products");
            return Ok(());
        }
        let line_type = row.text(LINE_TYPE);
        if !matches!(line_type, "" | "Usage" | "DiscountedUsage" | "SavingsPlanCoveredUsage") {
            told.leave_out(format!("lines of the type {line_type}"));
            return Ok(());
        }
        let (from, to) = (row.time(FROM)?, row.time(TO)?);
        super::compare::at_most_a_day(from, to).map_err(|wanted| row.refuse(TO, &wanted))?;
        let currency = row.text(CURRENCY);
        if currency.is_empty() {
            return Err(row.refuse(CURRENCY, "an ISO 4217 code as `USD`"));
        }
        let mut counts = Counts::cost(currency, row.number(COST)?);
        if is_tokens {
            let tokens = Some(tokens(row, is_sold)?);
            if usage_type.contains("output") {
                counts.output_tokens = tokens;
            } else {
                counts.input_tokens = tokens;
                if usage_type.contains("cache-read") || usage_type.contains("cacheread") {
                    counts.cache_read_tokens = tokens;
                }
            }
        }
        // Jobs of batches are made at an API of AWS that no record names.
        if usage_type.contains("batch") {
            told.leave_out(BATCH);
            return Ok(());
        }
        told.buckets.push(Bucket { from, to, key: None, model: None, counts });
        Ok(())
    })
}

/// The amount in tokens: it is told in the unit of the price, which in the marketplace is a million where it is named `Units`.
fn tokens(row: &Row<'_, 9>, is_sold: bool) -> Result<u64, Refused> {
    let unit = row.text(UNIT).to_ascii_lowercase();
    let factor = match unit.as_str() {
        "1k tokens" | "1k token" | "1000 tokens" => 1000,
        "1m tokens" | "1m token" | "1000000 tokens" => 1_000_000,
        "tokens" | "token" => 1,
        "units" | "unit" if is_sold => 1_000_000,
        _ => return Err(row.refuse(UNIT, "`1K tokens`, `1M tokens` or `tokens`")),
    };
    let Decimal(units) = row.number(AMOUNT)?;
    let one = 10_i128.pow(crate::decimal::SCALE);
    let tokens = units.checked_mul(factor).and_then(|units| u64::try_from((units + one / 2) / one).ok());
    tokens.ok_or_else(|| row.refuse(AMOUNT, "an amount that is not negative"))
}
