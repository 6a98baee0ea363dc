//! Tokens to money: the split into classes, and the sum.

use std::collections::BTreeMap;

use schemas::record::{Cost, Unpriced, Usage, UsageRole, UsageSource};

use super::{PriceBook, Prices, Row, tier};
use crate::decimal::Decimal;

/// What the tokens of one class cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// The class.
    pub class: &'static str,
    /// Its tokens; never 0.
    pub tokens: u64,
    /// The price per million of them.
    pub price: Decimal,
    /// What they cost.
    pub cost: Decimal,
}

/// A cost, class by class, and what it was computed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill<'a> {
    /// The row.
    pub row: &'a Row,
    /// Its prices, with the surcharges that count here.
    pub prices: Prices,
    /// The classes that have tokens.
    pub items: Vec<Item>,
    /// The sum of the classes.
    pub total: Decimal,
}

impl PriceBook {
    /// The cost of an exchange.
    ///
    /// Of `models` the first that the book knows counts: the one that served first, then the one that was asked for (a
    /// deployment's name prices nothing). One that is known, but not in the tier or with a surcharge that served,
    /// leaves no cost: another model's price is not its price. `served_tier` is the tier as the provider spelled it. Counts that are a lower bound
    /// or an estimate (`usage.source`) are charged as they stand: the record says what they are.
    ///
    /// # Errors
    /// Why there is no cost.
    pub fn price(
        &self,
        usage: &Usage,
        provider: &str,
        models: &[&str],
        at_us: i64,
        served_tier: Option<&str>,
    ) -> Result<Cost, Unpriced> {
        let bill = self.bill(usage, provider, models, at_us, served_tier)?;
        let classes: BTreeMap<String, String> =
            bill.items.iter().map(|item| (item.class.to_owned(), item.cost.to_string())).collect();
        Ok(Cost {
            currency: bill.row.currency.clone(),
            total: bill.total.to_string(),
            classes,
            price_book: self.hash,
            price_row: bill.row.id.clone(),
        })
    }

    /// As [`PriceBook::price`], with tokens and price of each class.
    ///
    /// # Errors
    /// As there.
    pub fn bill(
        &self,
        usage: &Usage,
        provider: &str,
        models: &[&str],
        at_us: i64,
        served_tier: Option<&str>,
    ) -> Result<Bill<'_>, Unpriced> {
        if usage.role != UsageRole::Incurred || usage.source == UsageSource::NotApplicable {
            return Err(Unpriced::NotIncurred);
        }
        if usage.source == UsageSource::Unknown {
            return Err(Unpriced::NoUsage);
        }
        // What nobody told counts as nothing here, and as unknown where the row has a price for it.
        let input = all_input(usage)?.unwrap_or(0);
        let model = models.iter().find(|model| self.knows(provider, model)).ok_or(Unpriced::NoPrice)?;
        let (row, prices) =
            self.prices(provider, model, at_us, served_tier, input).ok_or(Unpriced::NoPrice)?;
        let (total, items) = charge(usage, &prices)?;
        Ok(Bill { row, prices, items, total })
    }
}

impl PriceBook {
    /// The row for a served tier, and its prices with the surcharges that the tier names.
    fn prices(
        &self,
        provider: &str,
        model: &str,
        at_us: i64,
        served_tier: Option<&str>,
        input: u64,
    ) -> Option<(&Row, Prices)> {
        if let Some(row) = self.row(provider, model, at_us, tier(served_tier), input) {
            return Some((row, row.prices));
        }
        let (name, words) = served_tier?.split_once('/')?;
        let row = self.row(provider, model, at_us, tier(Some(name)), input)?;
        let mut factor = Decimal::ONE;
        for word in words.split('/') {
            factor = factor.times(*row.surcharges.get(word)?)?;
        }
        Some((row, row.prices.times(factor)?))
    }
}

/// A count that is not negative; absent stays absent.
fn count(tokens: Option<i64>) -> Result<Option<u64>, Unpriced> {
    tokens.map(|n| u64::try_from(n).map_err(|_| Unpriced::NoUsage)).transpose()
}

/// What was read from and written to caches; a provider that has no such class tells none.
fn cached(usage: &Usage) -> Result<[u64; 3], Unpriced> {
    Ok([
        count(usage.cache_read_tokens)?.unwrap_or(0),
        count(usage.cache_write_5m_tokens)?.unwrap_or(0),
        count(usage.cache_write_1h_tokens)?.unwrap_or(0),
    ])
}

/// All input, where it is told; nothing told at all is no usage.
fn all_input(usage: &Usage) -> Result<Option<u64>, Unpriced> {
    match (count(usage.input_tokens)?, count(usage.uncached_input_tokens)?) {
        (Some(input), _) => Ok(Some(input)),
        (None, Some(uncached)) => {
            let sum = cached(usage)?.iter().try_fold(uncached, |sum, n| sum.checked_add(*n));
            sum.map(Some).ok_or(Unpriced::NoUsage)
        }
        (None, None) if units(usage)?.iter().any(|n| *n > 0) => Ok(None),
        (None, None) => Err(Unpriced::NoUsage),
    }
}

/// A count that is unknown: nothing where the row has no price for any class of it, else nobody knows the cost.
fn none_if_free(count: Option<u64>, prices: &[Option<Decimal>]) -> Result<u64, Unpriced> {
    match count {
        Some(count) => Ok(count),
        None if prices.iter().all(Option::is_none) => Ok(0),
        None => Err(Unpriced::NoUsage),
    }
}

/// What is counted besides tokens.
fn units(usage: &Usage) -> Result<[u64; 4], Unpriced> {
    let [searches, web, pages, seconds] =
        [usage.search_units, usage.web_searches, usage.pages, usage.audio_seconds].map(count);
    Ok([searches?.unwrap_or(0), web?.unwrap_or(0), pages?.unwrap_or(0), seconds?.unwrap_or(0)])
}

/// A class, its tokens, and its price per million.
type Class = (&'static str, u64, Option<Decimal>);

/// Each class with its tokens and its price; every token stands in one class.
fn split(usage: &Usage, prices: &Prices) -> Result<[Class; 13], Unpriced> {
    let p = prices;
    let of_input = [p.input, p.cache_read, p.cache_write_5m, p.cache_write_1h, p.input_audio, p.input_image];
    let input = none_if_free(all_input(usage)?, &of_input)?;
    let [read, write_5m, write_1h] = cached(usage)?;
    let beside = read.checked_add(write_5m).and_then(|n| n.checked_add(write_1h));
    let uncached = beside.and_then(|n| input.checked_sub(n)).ok_or(Unpriced::NoUsage)?;
    if count(usage.uncached_input_tokens)?.is_some_and(|told| told != uncached) {
        return Err(Unpriced::NoUsage);
    }
    let audio = count(usage.input_audio_tokens)?.unwrap_or(0);
    let image = count(usage.input_image_tokens)?.unwrap_or(0);
    // Audio and images are told as parts of all input. Where not all of them can stand outside of the caches,
    // nobody knows which of them were cached.
    let text = audio.checked_add(image).and_then(|n| uncached.checked_sub(n)).ok_or(Unpriced::NoPrice)?;
    // A model without output (embeddings) reports none, nor does what is charged by pages or seconds.
    let of_output = [p.output, p.output_audio, p.output_image];
    let output = none_if_free(count(usage.output_tokens)?, &of_output)?;
    let spoken = count(usage.output_audio_tokens)?.unwrap_or(0);
    let drawn = match prices.output_image {
        Some(_) => count(usage.output_image_tokens)?.unwrap_or(0),
        None => 0,
    };
    let written = spoken.checked_add(drawn).and_then(|n| output.checked_sub(n)).ok_or(Unpriced::NoUsage)?;
    let [searches, web, pages, seconds] = units(usage)?;
    Ok([
        ("input", text, prices.input),
        ("cache_read", read, prices.cache_read),
        ("cache_write_5m", write_5m, prices.cache_write_5m),
        ("cache_write_1h", write_1h, prices.cache_write_1h),
        ("input_audio", audio, prices.input_audio),
        ("input_image", image, prices.input_image),
        ("output", written, prices.output),
        ("output_audio", spoken, prices.output_audio),
        ("output_image", drawn, prices.output_image),
        ("search_unit", searches, prices.search_unit),
        ("web_search", web, prices.web_search),
        ("page", pages, prices.page),
        ("audio_second", seconds, prices.audio_second),
    ])
}

type Charged = (Decimal, Vec<Item>);

fn charge(usage: &Usage, prices: &Prices) -> Result<Charged, Unpriced> {
    let mut total = Decimal::ZERO;
    let mut items = Vec::new();
    for (class, tokens, price) in split(usage, prices)? {
        match (tokens, price) {
            (0, _) => {}
            (_, None) => return Err(Unpriced::NoPrice),
            (_, Some(price)) => {
                let cost = price.per_million(tokens).ok_or(Unpriced::NoPrice)?;
                total = total.checked_add(cost).ok_or(Unpriced::NoPrice)?;
                items.push(Item { class, tokens, price, cost });
            }
        }
    }
    Ok((total, items))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOOK: &str = "\
id,provider,model,tier,input_above,valid_from,valid_until,currency,input,cache_read,cache_write_5m,cache_write_1h,output,input_audio,output_audio,input_image,source,read_on,note
a,p,m,standard,,2026-01-01,,USD,3,0.3,3.75,6,15,,,=,https://x.test,2026-01-01,
a-long,p,m,standard,200000,2026-01-01,,USD,6,0.6,7.5,12,22.5,,,=,https://x.test,2026-01-01,
a-batch,p,m,batch,,2026-01-01,,USD,1.5,0.15,1.875,3,7.5,,,=,https://x.test,2026-01-01,
voice,p,voice,standard,,2026-01-01,,USD,2.5,,,,10,40,80,,https://x.test,2026-01-01,
embed,p,embed*,standard,,2026-01-01,,USD,0.02,,,,,,,,https://x.test,2026-01-01,
tiny,p,tiny,standard,,2026-01-01,,USD,0.0000005,0.0000015,,,0.0000025,,,,https://x.test,2026-01-01,
";
    const DAY: i64 = 20_500 * 86_400_000_000; // 2026-02-16

    fn book() -> PriceBook {
        PriceBook::parse(BOOK.as_bytes()).unwrap()
    }

    fn usage() -> Usage {
        Usage::of(UsageSource::Provider, UsageRole::Incurred)
    }

    fn tokens(input: i64, read: i64, write: (i64, i64), output: i64) -> Usage {
        Usage {
            input_tokens: Some(input),
            cache_read_tokens: Some(read),
            cache_write_5m_tokens: Some(write.0),
            cache_write_1h_tokens: Some(write.1),
            output_tokens: Some(output),
            ..usage()
        }
    }

    #[test]
    fn searches_pages_and_seconds_are_charged_beside_tokens_and_without_them() {
        const UNITS: &str = "\
id,provider,model,tier,input_above,valid_from,valid_until,currency,input,cache_read,cache_write_5m,cache_write_1h,output,input_audio,output_audio,input_image,source,read_on,note,search_unit,web_search,page,audio_second,output_image
chat,p,chat,standard,,2026-01-01,,USD,3,,,,15,,,=,https://x.test,2026-01-01,,,10000,,,40
rerank,p,rerank,standard,,2026-01-01,,USD,,,,,,,,,https://x.test,2026-01-01,,2000,,,,
ocr,p,ocr,standard,,2026-01-01,,USD,,,,,,,,,https://x.test,2026-01-01,,,,1000,,
hear,p,hear,standard,,2026-01-01,,USD,,,,,,,,,https://x.test,2026-01-01,,,,,100,
listen,p,listen,standard,,2026-01-01,,USD,3,,,,15,,,,https://x.test,2026-01-01,,,,,0,
";
        let book = PriceBook::parse(UNITS.as_bytes()).unwrap();
        let total = |usage: &Usage, model| {
            book.price(usage, "p", &[model], DAY, None)
                .map(|cost| cost.total)
                .map_err(|why| format!("{why:?}"))
        };
        let of = |text: &str| Ok(text.to_owned());
        let searched = Usage { web_searches: Some(2), ..tokens(1000, 0, (0, 0), 100) };
        assert_eq!(total(&searched, "chat"), of("0.0245"));
        let drawn = Usage { output_image_tokens: Some(60), ..tokens(0, 0, (0, 0), 100) };
        assert_eq!(total(&drawn, "chat"), of("0.003"));
        assert_eq!(total(&Usage { search_units: Some(3), ..usage() }, "rerank"), of("0.006"));
        assert_eq!(total(&Usage { pages: Some(5), ..usage() }, "ocr"), of("0.005"));
        assert_eq!(total(&Usage { audio_seconds: Some(90), ..usage() }, "hear"), of("0.009"));
        // A price that is not in the book is unknown, never zero; nothing told is no usage.
        assert_eq!(total(&Usage { pages: Some(5), ..usage() }, "rerank"), Err("NoPrice".into()));
        assert_eq!(total(&Usage { audio_seconds: Some(90), ..usage() }, "chat"), Err("NoUsage".into()));
        assert_eq!(total(&usage(), "ocr"), Err("NoUsage".into()));
        // Seconds beside tokens cost nothing only where the row says so.
        let heard = Usage { audio_seconds: Some(90), ..tokens(1000, 0, (0, 0), 100) };
        assert_eq!(total(&heard, "listen"), of("0.0045"));
        assert_eq!(total(&heard, "chat"), Err("NoPrice".into()));
    }

    #[test]
    fn tokens_that_nobody_told_are_no_cost_of_nothing() {
        const BOOK: &str = "\
id,provider,model,tier,input_above,valid_from,valid_until,currency,input,cache_read,cache_write_5m,cache_write_1h,output,input_audio,output_audio,input_image,source,read_on,note,search_unit,web_search,page,audio_second,output_image
both,p,both,standard,,2026-01-01,,USD,3,,,,15,,,,https://x.test,2026-01-01,,,10000,,,
reads,p,reads,standard,,2026-01-01,,USD,3,,,,,,,,https://x.test,2026-01-01,,,10000,,,
writes,p,writes,standard,,2026-01-01,,USD,,,,,15,,,,https://x.test,2026-01-01,,,10000,,,
speaks,p,speaks,standard,,2026-01-01,,USD,,,,,,,80,,https://x.test,2026-01-01,,,10000,,,
";
        let book = PriceBook::parse(BOOK.as_bytes()).unwrap();
        let searched = Usage { web_searches: Some(2), ..usage() };
        for model in ["both", "reads", "writes", "speaks"] {
            assert_eq!(book.price(&searched, "p", &[model], DAY, None), Err(Unpriced::NoUsage), "{model}");
        }
        let wrote = Usage { output_tokens: Some(100), ..searched.clone() };
        assert_eq!(book.price(&wrote, "p", &["both"], DAY, None), Err(Unpriced::NoUsage));
        assert_eq!(book.price(&wrote, "p", &["writes"], DAY, None).unwrap().total, "0.0215");
        let read = Usage { input_tokens: Some(1000), ..searched };
        assert_eq!(book.price(&read, "p", &["both"], DAY, None), Err(Unpriced::NoUsage));
        assert_eq!(book.price(&read, "p", &["reads"], DAY, None).unwrap().total, "0.023");
    }

    #[test]
    fn no_token_is_charged_twice() {
        let cost = book().price(&tokens(1000, 600, (100, 50), 200), "p", &["m"], DAY, None).unwrap();
        let classes: Vec<(&str, &str)> = cost.classes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            classes,
            [
                ("cache_read", "0.00018"),
                ("cache_write_1h", "0.0003"),
                ("cache_write_5m", "0.000375"),
                ("input", "0.00075"),
                ("output", "0.003")
            ]
        );
        assert_eq!((cost.total.as_str(), cost.price_row.as_str()), ("0.004605", "a"));
    }

    #[test]
    fn reasoning_is_part_of_the_output() {
        let with = Usage { reasoning_tokens: Some(150), ..tokens(10, 0, (0, 0), 200) };
        let without = tokens(10, 0, (0, 0), 200);
        let total = |usage| book().price(&usage, "p", &["m"], DAY, None).unwrap().total;
        assert_eq!(total(with), total(without));
    }

    #[test]
    fn truth_table_of_rows() {
        type Case = (&'static str, Option<&'static str>, i64, Result<&'static str, Unpriced>);
        // model, tier, input -> row
        let table: [Case; 12] = [
            ("m", None, 200_000, Ok("a")),
            ("m", None, 200_001, Ok("a-long")),
            ("m", Some("default"), 1, Ok("a")),
            ("m", Some("auto"), 1, Ok("a")),
            ("m", Some("standard"), 1, Ok("a")),
            ("m", Some("batch"), 1, Ok("a-batch")),
            ("m", Some("batch"), 900_000, Ok("a-batch")),
            ("m", Some("priority"), 1, Err(Unpriced::NoPrice)),
            ("m2", None, 1, Err(Unpriced::NoPrice)),
            ("M", None, 1, Err(Unpriced::NoPrice)),
            ("embed-3", None, 1, Ok("embed")),
            ("", None, 1, Err(Unpriced::NoPrice)),
        ];
        for (model, tier, input, want) in table {
            let found = book().price(&tokens(input, 0, (0, 0), 0), "p", &[model], DAY, tier);
            assert_eq!(
                found.as_ref().map(|cost| cost.price_row.as_str()).map_err(|e| *e),
                want,
                "{model} {tier:?} {input}"
            );
        }
        assert_eq!(book().price(&tokens(1, 0, (0, 0), 0), "q", &["m"], DAY, None), Err(Unpriced::NoPrice));
        let before = DAY - 60 * 86_400_000_000;
        assert_eq!(book().price(&tokens(1, 0, (0, 0), 0), "p", &["m"], before, None), Err(Unpriced::NoPrice));
        let asked = book().price(&tokens(1, 0, (0, 0), 0), "p", &["deployment-7", "m"], DAY, None).unwrap();
        assert_eq!(asked.price_row.as_str(), "a");
    }

    #[test]
    fn truth_table_of_unknown_counts() {
        let table: [(Usage, Result<&str, Unpriced>); 15] = [
            (usage(), Err(Unpriced::NoUsage)),
            (Usage { input_tokens: Some(1), ..usage() }, Err(Unpriced::NoUsage)),
            (Usage { output_tokens: Some(1), ..usage() }, Err(Unpriced::NoUsage)),
            (Usage { input_tokens: Some(0), output_tokens: Some(0), ..usage() }, Ok("0")),
            (
                Usage {
                    uncached_input_tokens: Some(1),
                    cache_read_tokens: Some(10),
                    output_tokens: Some(0),
                    ..usage()
                },
                Ok("0.000006"),
            ),
            (Usage { uncached_input_tokens: Some(5), ..tokens(10, 4, (0, 0), 0) }, Err(Unpriced::NoUsage)),
            (Usage { uncached_input_tokens: Some(6), ..tokens(10, 4, (0, 0), 0) }, Ok("0.0000192")),
            (tokens(-1, 0, (0, 0), 0), Err(Unpriced::NoUsage)),
            (tokens(5, 6, (0, 0), 0), Err(Unpriced::NoUsage)),
            (tokens(5, i64::MAX, (i64::MAX, i64::MAX), 0), Err(Unpriced::NoUsage)),
            (Usage { source: UsageSource::Unknown, ..tokens(1, 0, (0, 0), 1) }, Err(Unpriced::NoUsage)),
            (
                Usage { source: UsageSource::NotApplicable, ..tokens(1, 0, (0, 0), 1) },
                Err(Unpriced::NotIncurred),
            ),
            (Usage { role: UsageRole::Retrieved, ..tokens(1, 0, (0, 0), 1) }, Err(Unpriced::NotIncurred)),
            (Usage { role: UsageRole::None, ..tokens(1, 0, (0, 0), 1) }, Err(Unpriced::NotIncurred)),
            (Usage { source: UsageSource::Partial, ..tokens(1, 0, (0, 0), 1) }, Ok("0.000018")),
        ];
        for (row, (usage, want)) in table.into_iter().enumerate() {
            let found = book().price(&usage, "p", &["m"], DAY, None);
            assert_eq!(found.as_ref().map(|cost| cost.total.as_str()).map_err(|e| *e), want, "row {row}");
        }
    }

    #[test]
    fn audio_and_images_are_charged_apart_or_not_at_all() {
        let spoken = |input_audio, output_audio| Usage {
            input_audio_tokens: Some(input_audio),
            output_audio_tokens: Some(output_audio),
            ..tokens(100, 0, (0, 0), 50)
        };
        let cost = book().price(&spoken(60, 40), "p", &["voice"], DAY, None).unwrap();
        // 40 text in, 60 audio in, 10 text out, 40 audio out.
        assert_eq!(cost.total, "0.0058");
        assert_eq!(cost.classes.values().collect::<Vec<_>>(), ["0.0001", "0.0024", "0.0001", "0.0032"]);
        let on_text_model = book().price(&spoken(60, 0), "p", &["m"], DAY, None);
        assert_eq!(on_text_model, Err(Unpriced::NoPrice));
        assert!(book().price(&spoken(0, 0), "p", &["m"], DAY, None).is_ok());
        let more_than_all = book().price(&spoken(101, 0), "p", &["voice"], DAY, None);
        assert_eq!(more_than_all, Err(Unpriced::NoPrice));
        let seen = Usage { input_image_tokens: Some(30), ..tokens(100, 0, (0, 0), 0) };
        let cost = book().price(&seen, "p", &["m"], DAY, None).unwrap();
        assert_eq!(cost.classes["input_image"], "0.00009");
        assert_eq!(cost.total, "0.0003");
    }

    #[test]
    fn surcharges_multiply_every_price_or_leave_no_cost() {
        const BOOK: &str = "\
id,provider,model,tier,input_above,valid_from,valid_until,currency,input,cache_read,cache_write_5m,cache_write_1h,output,input_audio,output_audio,input_image,source,read_on,note,surcharges
a,p,m,standard,,2026-01-01,,USD,5,0.5,6.25,10,25,,,=,https://x.test,2026-01-01,,us=1.1 fast=6
a-long,p,m,standard,200000,2026-01-01,,USD,10,1,12.5,20,50,,,=,https://x.test,2026-01-01,,us=1.1
a-batch,p,m,batch,,2026-01-01,,USD,2.5,0.25,3.125,5,12.5,,,=,https://x.test,2026-01-01,,us=1.1
a-quick,p,q,standard/fast,,2026-01-01,,USD,7,,,,9,,,=,https://x.test,2026-01-01,,
q,p,q,standard,,2026-01-01,,USD,1,,,,2,,,=,https://x.test,2026-01-01,,fast=100
";
        let book = PriceBook::parse(BOOK.as_bytes()).unwrap();
        type Case = (&'static str, &'static str, i64, Result<(&'static str, &'static str), Unpriced>);
        // model, tier, input -> row, cost of the input and 100 tokens of output
        let table: [Case; 12] = [
            ("m", "standard", 1000, Ok(("a", "0.0075"))),
            ("m", "standard/us", 1000, Ok(("a", "0.00825"))),
            ("m", "standard/fast", 1000, Ok(("a", "0.045"))),
            ("m", "standard/fast/us", 1000, Ok(("a", "0.0495"))),
            ("m", "standard/eu", 1000, Err(Unpriced::NoPrice)),
            ("m", "standard/us/eu", 1000, Err(Unpriced::NoPrice)),
            ("m", "standard/", 1000, Err(Unpriced::NoPrice)),
            ("m", "priority/us", 1000, Err(Unpriced::NoPrice)),
            ("m", "batch/us", 1000, Ok(("a-batch", "0.004125"))),
            ("m", "standard/us", 300_000, Ok(("a-long", "3.3055"))),
            ("m", "standard/fast", 300_000, Err(Unpriced::NoPrice)),
            ("q", "standard/fast", 1000, Ok(("a-quick", "0.0079"))),
        ];
        for (model, tier, input, want) in table {
            let found = book.price(&tokens(input, 0, (0, 0), 100), "p", &[model], DAY, Some(tier));
            let told = found.as_ref().map(|cost| (cost.price_row.as_str(), cost.total.as_str()));
            assert_eq!(told.map_err(|e| *e), want, "{model} {tier} {input}");
        }
        // All classes, the caches too.
        let usage = tokens(1000, 600, (100, 50), 200);
        let plain = book.price(&usage, "p", &["m"], DAY, Some("standard")).unwrap();
        let us = book.price(&usage, "p", &["m"], DAY, Some("default/us")).unwrap();
        let units = |text: &str| Decimal::parse(text).unwrap().units();
        assert_eq!(plain.classes.len(), 5);
        for (class, cost) in &plain.classes {
            assert_eq!(units(cost) * 11, units(&us.classes[class]) * 10, "{class}");
        }
    }

    #[test]
    fn a_model_that_has_no_price_for_what_served_does_not_get_another_models() {
        const BOOK: &str = "\
id,provider,model,tier,input_above,valid_from,valid_until,currency,input,cache_read,cache_write_5m,cache_write_1h,output,input_audio,output_audio,input_image,source,read_on,note,surcharges
plain,p,served,standard,,2026-01-01,,USD,5,,,,25,,,=,https://x.test,2026-01-01,,
old,p,former,standard,,2026-01-01,2026-02-01,USD,5,,,,25,,,=,https://x.test,2026-01-01,,
cheap,p,asked,standard,,2026-01-01,,USD,1,,,,2,,,=,https://x.test,2026-01-01,,fast=2
flex,p,asked,flex,,2026-01-01,,USD,1,,,,1,,,=,https://x.test,2026-01-01,,
";
        let book = PriceBook::parse(BOOK.as_bytes()).unwrap();
        type Case = ([&'static str; 2], Option<&'static str>, Result<&'static str, Unpriced>);
        let table: [Case; 6] = [
            (["served", "asked"], None, Ok("plain")),
            (["served", "asked"], Some("standard/fast"), Err(Unpriced::NoPrice)),
            (["served", "asked"], Some("flex"), Err(Unpriced::NoPrice)),
            (["former", "asked"], None, Err(Unpriced::NoPrice)),
            (["deployment-7", "asked"], Some("standard/fast"), Ok("cheap")),
            (["deployment-7", "asked"], Some("standard/slow"), Err(Unpriced::NoPrice)),
        ];
        for (models, tier, want) in table {
            let found = book.price(&tokens(1, 0, (0, 0), 1), "p", &models, DAY, tier);
            let told = found.as_ref().map(|cost| cost.price_row.as_str()).map_err(|e| *e);
            assert_eq!(told, want, "{models:?} {tier:?}");
        }
    }

    #[test]
    fn a_model_without_output_needs_no_output_count() {
        let usage = Usage { input_tokens: Some(8), ..usage() };
        assert_eq!(book().price(&usage, "p", &["embed-small"], DAY, None).unwrap().total, "0.00000016");
    }

    #[test]
    fn each_class_is_rounded_once_half_to_even() {
        // 0.5 and 2.5 units of 10^-12 go to 0 and 2; 1.5 goes to 2.
        let cost = book().price(&tokens(2, 1, (0, 0), 1), "p", &["tiny"], DAY, None).unwrap();
        let classes: Vec<&str> = cost.classes.values().map(String::as_str).collect();
        assert_eq!(classes, ["0.000000000002", "0", "0.000000000002"]);
        assert_eq!(cost.total, "0.000000000004");
    }

    proptest! {
        #[test]
        fn classes_sum_to_the_total_and_cover_every_token(
            text in 0_i64..1 << 40, read in 0_i64..1 << 40, w5 in 0_i64..1 << 40, w1 in 0_i64..1 << 40,
            output in 0_i64..1 << 40, tier in proptest::option::of("(batch|default)"),
        ) {
            let input = text + read + w5 + w1;
            let usage = tokens(input, read, (w5, w1), output);
            let cost = book().price(&usage, "p", &["m"], DAY, tier.as_deref()).unwrap();
            let parse = |text: &str| Decimal::parse(text).unwrap().units();
            let sum: i128 = cost.classes.values().map(|class| parse(class)).sum();
            prop_assert_eq!(sum, parse(&cost.total));
            let prices = book().rows().iter().find(|row| row.id == cost.price_row).unwrap().prices;
            let charged: i64 = split(&usage, &prices).unwrap().iter().map(|(_, n, _)| *n as i64).sum();
            prop_assert_eq!(charged, input + output);
        }

        #[test]
        fn more_tokens_never_cost_less(a in 0_i64..150_000, more in 0_i64..150_000, output in 0_i64..100_000) {
            let total = |input, output| {
                let cost = book().price(&tokens(input, 0, (0, 0), output), "p", &["m"], DAY, None).unwrap();
                Decimal::parse(&cost.total).unwrap()
            };
            prop_assert!(total(a, output) <= total(a + more, output));
            prop_assert!(total(a, output) <= total(a, output + more));
        }

        #[test]
        fn odd_usage_never_panics(input in any::<Option<i64>>(), uncached in any::<Option<i64>>(), read in any::<Option<i64>>(),
            w5 in any::<Option<i64>>(), output in any::<Option<i64>>(), audio in any::<Option<i64>>(), model in "(m|voice|embed-1|tiny)") {
            let odd = Usage { input_tokens: input, uncached_input_tokens: uncached, cache_read_tokens: read,
                cache_write_5m_tokens: w5, output_tokens: output, input_audio_tokens: audio, ..usage() };
            let _ = book().price(&odd, "p", &[&model], DAY, None);
        }
    }
}
