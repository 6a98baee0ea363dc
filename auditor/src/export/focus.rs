//! FOCUS 1.4, Cost and Usage (<https://focus.finops.org/focus-specification/>): one row for each exchange and class of
//! tokens that has a cost, after the specification's examples for models that are billed by token.
//!
//! The costs are those of the records: public list prices, or whatever the price book holds; `BilledCost`,
//! `ContractedCost` and `EffectiveCost` say the same, for no invoice is known here. An exchange without a price has no
//! row, since a row must have a cost; how many there are is told beside the export. Columns of our own begin with `x_`.
//! Models are no columns before 1.5; they stand in `SkuPriceDetails`.

use policies::price::Bill;
use serde_json::{Map, Value};

use crate::cost::booked::Booked;
use crate::cost::period::Period;
use crate::cost::sheet::{Cell, Kind, Sheet};
use crate::decimal::Decimal;

const COLUMNS: [(&str, Kind); 41] = [
    ("BilledCost", Kind::Money),
    ("BillingAccountId", Kind::Text),
    ("BillingAccountName", Kind::Text),
    ("BillingCurrency", Kind::Text),
    ("BillingPeriodEnd", Kind::Time),
    ("BillingPeriodStart", Kind::Time),
    ("ChargeCategory", Kind::Text),
    ("ChargeClass", Kind::Text),
    ("ChargeDescription", Kind::Text),
    ("ChargeFrequency", Kind::Text),
    ("ChargePeriodEnd", Kind::Time),
    ("ChargePeriodStart", Kind::Time),
    ("ConsumedQuantity", Kind::Money),
    ("ConsumedUnit", Kind::Text),
    ("ContractedCost", Kind::Money),
    ("ContractedUnitPrice", Kind::Money),
    ("EffectiveCost", Kind::Money),
    ("HostProviderName", Kind::Text),
    ("InvoiceIssuerName", Kind::Text),
    ("ListCost", Kind::Money),
    ("ListUnitPrice", Kind::Money),
    ("PricingCategory", Kind::Text),
    ("PricingQuantity", Kind::Money),
    ("PricingUnit", Kind::Text),
    ("ServiceCategory", Kind::Text),
    ("ServiceName", Kind::Text),
    ("ServiceProviderName", Kind::Text),
    ("ServiceSubcategory", Kind::Text),
    ("SkuId", Kind::Text),
    ("SkuMeter", Kind::Text),
    ("SkuPriceDetails", Kind::Text),
    ("SkuPriceId", Kind::Text),
    ("SubAccountId", Kind::Text),
    ("SubAccountName", Kind::Text),
    ("Tags", Kind::Text),
    ("x_Exchange", Kind::Text),
    ("x_Log", Kind::Text),
    ("x_Position", Kind::Count),
    ("x_LeafHash", Kind::Text),
    ("x_At", Kind::Time),
    ("x_UsageSource", Kind::Text),
];

const HOUR: i64 = 3600 * crate::time::SECOND;

/// An empty sheet with the columns.
pub fn sheet() -> Sheet {
    Sheet::new([], COLUMNS)
}

/// Who sells, and what, by the price book's name of the provider.
fn service(provider: &str) -> (&str, &str) {
    let name = provider.split(['.', '/']).next().unwrap_or(provider);
    match name {
        "openai" => ("OpenAI", "OpenAI API"),
        "anthropic" => ("Anthropic", "Claude API"),
        "azure_openai" | "azure" => ("Microsoft", "Azure OpenAI"),
        "bedrock" | "aws" => ("AWS", "Amazon Bedrock"),
        "vertex" | "google" => ("Google Cloud", "Vertex AI"),
        _ => (provider, provider),
    }
}

fn meter(class: &str) -> String {
    match class {
        "input" => "Input Tokens".into(),
        "cache_read" => "Cache Read Tokens".into(),
        "cache_write_5m" => "Cache Write Tokens (5 minutes)".into(),
        "cache_write_1h" => "Cache Write Tokens (1 hour)".into(),
        "input_audio" => "Audio Input Tokens".into(),
        "input_image" => "Image Input Tokens".into(),
        "output" => "Output Tokens".into(),
        "output_audio" => "Audio Output Tokens".into(),
        "output_image" => "Image Output Tokens".into(),
        "search_unit" => "Search Units".into(),
        "web_search" => "Web Searches".into(),
        "page" => "Pages".into(),
        "audio_second" => "Audio Seconds".into(),
        other => other.into(),
    }
}

/// What a class is counted in.
fn unit(class: &str) -> &'static str {
    match class {
        "search_unit" | "web_search" => "Requests",
        "page" => "Pages",
        "audio_second" => "Seconds",
        _ => "Tokens",
    }
}

fn object<'a>(pairs: impl IntoIterator<Item = (&'a str, Option<Value>)>) -> Cell {
    let map: Map<String, Value> =
        pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    if map.is_empty() { Cell::Empty } else { Cell::Text(Value::Object(map).to_string()) }
}

/// Adds the rows of an exchange. `bill` is its cost computed again: what counts is recorded, it only tells tokens and
/// unit prices. Gives the cost that was written, and its currency.
pub fn add(
    sheet: &mut Sheet,
    account: &str,
    booked: &Booked,
    bill: Option<&Bill<'_>>,
) -> Option<(String, Decimal)> {
    let cost = booked.outcome.cost.as_ref()?;
    let month = Period::month_of(booked.at)?;
    let hour = booked.at.div_euclid(HOUR) * HOUR;
    let outcome = &booked.outcome;
    let model = booked.model().unwrap_or("unknown");
    let configured = outcome.provider().map_or("unknown", |provider| provider.as_str());
    let provider = bill.map_or(configured, |bill| bill.row.provider.as_str());
    let (vendor, service) = service(provider);
    let caller = &outcome.caller;
    let consumer = caller.consumer.as_ref().map(|consumer| consumer.value.to_string());
    let text = |text: &str| Cell::Text(text.to_owned());
    let mut sum = Decimal::default();
    // A row of the book may be of several models and classes; a price belongs to one SKU, which its id names.
    let sku = |class: &str| format!("{provider}/{model}/{class}");
    for (class, amount) in &cost.classes {
        let Some(amount) = Decimal::parse(amount) else { continue };
        sum = sum.plus(amount);
        let item = bill.and_then(|bill| bill.items.iter().find(|item| item.class == class.as_str()));
        let unit_price = item.map(|item| Decimal(item.price.units()));
        let tokens = item.map(|item| Decimal(i128::from(item.tokens) * 1_000_000_000_000));
        let millions = item.map(|item| Decimal(i128::from(item.tokens) * 1_000_000));
        let details = object([
            ("x_ModelId", Some(model.into())),
            ("x_TokenClass", Some(class.as_str().into())),
            ("x_ServiceTier", outcome.answered.service_tier.as_ref().map(|tier| tier.as_str().into())),
            ("x_PriceBook", Some(cost.price_book.to_string().into())),
            ("x_PriceRow", Some(cost.price_row.as_str().into())),
        ]);
        let tag = |value: &Option<schemas::record::Attributed>| {
            value.as_ref().map(|value| Value::from(value.value.as_str()))
        };
        let tags = object([
            ("consumer", tag(&caller.consumer)),
            ("team", tag(&caller.team)),
            ("organisation", tag(&caller.organisation)),
            ("cost_centre", tag(&caller.cost_centre)),
            ("system", tag(&caller.system)),
            ("purpose", tag(&caller.purpose)),
        ]);
        sheet.push(vec![
            amount.into(),
            text(account),
            text(account),
            text(cost.currency.as_str()),
            Cell::Time(month.end()),
            Cell::Time(month.start()),
            text("Usage"),
            Cell::Empty,
            Cell::Text(format!("{} of {model}", meter(class))),
            text("Usage-Based"),
            Cell::Time(hour + HOUR),
            Cell::Time(hour),
            tokens.into(),
            if tokens.is_some() { text(unit(class)) } else { Cell::Empty },
            amount.into(),
            unit_price.into(),
            amount.into(),
            text(vendor),
            text(vendor),
            amount.into(),
            unit_price.into(),
            text("Standard"),
            millions.into(),
            if millions.is_some() { Cell::Text(format!("1000000 {}", unit(class))) } else { Cell::Empty },
            text("AI and Machine Learning"),
            text(service),
            text(vendor),
            text("Generative AI"),
            Cell::Text(sku(class)),
            Cell::Text(meter(class)),
            details,
            // No identifier has a `#` in it.
            Cell::Text(format!("{}#{}", sku(class), cost.price_row)),
            consumer.clone().into(),
            consumer.clone().into(),
            tags,
            Cell::Text(outcome.exchange.to_string()),
            Cell::Text(booked.origin.clone()),
            u64::try_from(booked.position).unwrap_or(0).into(),
            Cell::Text(booked.leaf_hash.clone()),
            Cell::Time(booked.at),
            Cell::Text(source(booked)),
        ]);
    }
    Some((cost.currency.to_string(), sum))
}

/// As the record spells it.
fn source(booked: &Booked) -> String {
    let value = serde_json::to_value(booked.outcome.usage.source).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_not_counted_in_tokens() {
        let units = ["input", "output_image", "search_unit", "web_search", "page", "audio_second"].map(unit);
        assert_eq!(units, ["Tokens", "Tokens", "Requests", "Requests", "Pages", "Seconds"]);
        assert_eq!(meter("page"), "Pages");
        assert_eq!(meter("audio_second"), "Audio Seconds");
    }
}
