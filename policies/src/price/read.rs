//! From a CSV file to a [`PriceBook`], with every problem told.
//!
//! One header line names the columns; lines that begin with `#` are comments. `model` holds patterns separated by
//! spaces, `note` is for people. A price cell is a decimal per million tokens, nothing for unknown, or `=` for "as `input`" (in output
//! columns "as `output`"). A book may leave out the columns `output_image`, `search_unit`, `web_search`, `page`, `audio_second` (prices
//! per million of them) and `surcharges`, which holds `word=factor` separated by spaces.

use std::collections::BTreeMap;

use schemas::{Identifier, Sha256Hex};

use super::lookup::places;
use super::{PriceBook, Prices, Row};
use crate::decimal::Decimal;
use crate::document::{Place, Problem};
use crate::pattern::Pattern;

const COLUMNS: [&str; 19] = [
    "id",
    "provider",
    "model",
    "tier",
    "input_above",
    "valid_from",
    "valid_until",
    "currency",
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "input_audio",
    "output_audio",
    "input_image",
    "source",
    "read_on",
    "note",
];

const SURCHARGES: &str = "surcharges";

/// Columns that need not be there.
const OPTIONAL: [&str; 6] = [SURCHARGES, "output_image", "search_unit", "web_search", "page", "audio_second"];

const PRICE_FORM: &str = "a price per million tokens as `2.50` (at most 12 fraction digits), `=`, or nothing";

pub(super) fn parse(bytes: &[u8]) -> Result<PriceBook, Vec<Problem>> {
    let mut reader =
        csv::ReaderBuilder::new().comment(Some(b'#')).trim(csv::Trim::All).flexible(true).from_reader(bytes);
    let columns = header(&mut reader)?;
    let mut problems = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let line = record.position().map_or(0, |position| line_of(position, bytes));
                let cells = Cells { record: &record, columns: &columns, line };
                if record.len() != columns.count {
                    let wanted =
                        format!("{} cells, as the header has; found {}", columns.count, record.len());
                    problems.push(cells.problem("", wanted));
                } else if let Some(row) = row(&cells, &mut problems) {
                    against(&rows, &row, &cells, &mut problems);
                    rows.push(row);
                }
            }
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                problems.push(Problem::at(Place { line, column: 1 }, "", "a CSV line of UTF-8 text"));
            }
        }
    }
    if rows.is_empty() && problems.is_empty() {
        problems.push(Problem::general("", "at least one price"));
    }
    if problems.is_empty() {
        Ok(PriceBook { hash: Sha256Hex::of(bytes), places: places(&rows), rows })
    } else {
        Err(problems)
    }
}

/// The line on which a record begins: its position is that of the comments and empty lines before it.
fn line_of(position: &csv::Position, bytes: &[u8]) -> u64 {
    let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let rest = bytes.get(start..).unwrap_or_default();
    let skipped =
        rest.split(|b| *b == b'\n').take_while(|line| line.starts_with(b"#") || line.trim_ascii().is_empty());
    position.line() + skipped.count() as u64
}

/// Where each column is.
struct Columns {
    /// Those of [`COLUMNS`], in that order.
    known: Vec<usize>,
    /// Those of [`OPTIONAL`].
    optional: [Option<usize>; OPTIONAL.len()],
    count: usize,
}

/// The index of each known column.
fn header(reader: &mut csv::Reader<&[u8]>) -> Result<Columns, Vec<Problem>> {
    let unreadable = |_| vec![Problem::general("", "a first line of UTF-8 text that names the columns")];
    let names = reader.headers().map_err(unreadable)?.clone();
    let line = names.position().map_or(1, csv::Position::line);
    let place = Place { line, column: 1 };
    let mut problems = Vec::new();
    for name in &names {
        if !COLUMNS.contains(&name) && !OPTIONAL.contains(&name) {
            let wanted = format!("a known column: {}, {}", COLUMNS.join(", "), OPTIONAL.join(", "));
            problems.push(Problem::at(place, name, wanted).suggest(name, COLUMNS));
        }
        if names.iter().filter(|other| *other == name).count() > 1 {
            problems.push(Problem::at(place, name, "each column once"));
        }
    }
    let mut columns = Vec::with_capacity(COLUMNS.len());
    for wanted in COLUMNS {
        match names.iter().position(|name| name == wanted) {
            Some(index) => columns.push(index),
            None => problems.push(Problem::at(place, wanted, "this column in the header")),
        }
    }
    let optional = OPTIONAL.map(|wanted| names.iter().position(|name| name == wanted));
    let columns = Columns { known: columns, optional, count: names.len() };
    if problems.is_empty() { Ok(columns) } else { Err(problems) }
}

struct Cells<'a> {
    record: &'a csv::StringRecord,
    columns: &'a Columns,
    line: u64,
}

impl Cells<'_> {
    fn index(&self, column: &str) -> Option<usize> {
        if let Some(at) = OPTIONAL.iter().position(|name| *name == column) {
            return self.columns.optional.get(at).copied().flatten();
        }
        let at = COLUMNS.iter().position(|name| *name == column)?;
        self.columns.known.get(at).copied()
    }

    fn problem(&self, column: &str, wanted: impl Into<String>) -> Problem {
        let column_number = self.index(column).map_or(1, |i| i as u64 + 1);
        Problem::at(Place { line: self.line, column: column_number }, column, wanted)
    }

    fn cell(&self, column: &str) -> &str {
        self.index(column).and_then(|i| self.record.get(i)).unwrap_or_default()
    }

    fn read<T>(
        &self,
        column: &str,
        wanted: &str,
        problems: &mut Vec<Problem>,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.cell(column);
        let value = parse(text);
        if value.is_none() {
            problems.push(self.problem(column, wanted).value(text));
        }
        value
    }

    /// `None`: unreadable. `Some(None)`: no price.
    fn price(&self, column: &str, same_as: &str, problems: &mut Vec<Problem>) -> Option<Option<Decimal>> {
        let text = match self.cell(column) {
            "=" => self.cell(same_as),
            text => text,
        };
        if text.is_empty() {
            return Some(None);
        }
        let price = Decimal::parse(text);
        if price.is_none() {
            problems.push(self.problem(column, PRICE_FORM).value(text));
        }
        price.map(Some)
    }
}

fn row(cells: &Cells<'_>, problems: &mut Vec<Problem>) -> Option<Row> {
    let before = problems.len();
    let id =
        cells.read("id", "an identifier `[A-Za-z0-9_.:/@+-]{1,128}`", problems, |t| Identifier::new(t).ok());
    let name = |text: &str| Identifier::new(text).ok().map(|name| name.as_str().to_owned());
    let provider = cells.read("provider", "a provider's name", problems, name);
    let models = cells.read("model", "patterns separated by spaces", problems, |text| {
        let patterns: Option<Vec<Pattern>> = text.split_whitespace().map(Pattern::parse).collect();
        patterns.filter(|list| !list.is_empty())
    });
    let tier = cells.read("tier", "`standard`, `batch`, `flex`, `priority` or another tier", problems, name);
    let input_above = cells.read("input_above", "a number of tokens, or nothing", problems, |text| {
        if text.is_empty() { Some(0) } else { text.parse().ok().filter(|n| *n > 0) }
    });
    let from_day = cells.read("valid_from", "a day as `2026-11-20`", problems, day);
    let until_day = cells.read("valid_until", "a day as `2026-11-20`, or nothing", problems, |text| {
        if text.is_empty() { Some(None) } else { day(text).map(Some) }
    });
    let currency = cells.read("currency", "a currency code as `USD`", problems, |text| {
        let code = text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase());
        if code { Identifier::new(text).ok() } else { None }
    });
    let source = cells.read("source", "the `https://` address where the price was read", problems, |text| {
        text.starts_with("https://").then(|| text.to_owned())
    });
    let read_on = cells.read("read_on", "the day on which it was read, as `2026-11-20`", problems, |text| {
        day(text).map(|_| text.to_owned())
    });
    let surcharges = cells.read(
        SURCHARGES,
        "factors as `us=1.1`, each word `[a-z0-9_.-]+` once, separated by spaces; or nothing",
        problems,
        surcharges,
    );
    let mut price = |column, same_as| cells.price(column, same_as, problems);
    let prices = Prices {
        input: price("input", "")?,
        cache_read: price("cache_read", "input")?,
        cache_write_5m: price("cache_write_5m", "input")?,
        cache_write_1h: price("cache_write_1h", "input")?,
        output: price("output", "")?,
        input_audio: price("input_audio", "input")?,
        output_audio: price("output_audio", "output")?,
        input_image: price("input_image", "input")?,
        output_image: price("output_image", "output")?,
        search_unit: price("search_unit", "")?,
        web_search: price("web_search", "")?,
        page: price("page", "")?,
        audio_second: price("audio_second", "")?,
    };
    if prices == Prices::default() {
        problems.push(cells.problem("input", "at least one price in a row"));
    }
    if let (Some(from), Some(Some(until))) = (from_day, until_day)
        && until <= from
    {
        let wanted = "a day after `valid_from`: the first on which the price no longer holds";
        problems.push(cells.problem("valid_until", wanted).value(cells.cell("valid_until")));
    }
    if problems.len() > before {
        return None;
    }
    Some(Row {
        id: id?,
        line: cells.line,
        provider: provider?,
        models: models?,
        tier: tier?,
        input_above: input_above?,
        from_day: from_day?,
        until_day: until_day?,
        currency: currency?,
        prices,
        surcharges: surcharges?,
        source: source?,
        read_on: read_on?,
    })
}

/// Reads `us=1.1 fast=2`.
fn surcharges(text: &str) -> Option<BTreeMap<String, Decimal>> {
    let mut all = BTreeMap::new();
    for item in text.split_whitespace() {
        let (word, factor) = item.split_once('=')?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
        let factor = Decimal::parse(factor).filter(|factor| *factor > Decimal::ZERO)?;
        if word.is_empty() || !word.bytes().all(plain) || all.insert(word.to_owned(), factor).is_some() {
            return None;
        }
    }
    Some(all)
}

/// Days since 1970-01-01.
fn day(text: &str) -> Option<i64> {
    let date: jiff::civil::Date = text.parse().ok().filter(|_| text.len() == 10)?;
    let epoch = jiff::civil::date(1970, 1, 1);
    Some(i64::from(epoch.until(date).ok()?.get_days()))
}

/// Two rows must not speak about the same model, tier, input bound and day by the same pattern.
fn against(rows: &[Row], row: &Row, cells: &Cells<'_>, problems: &mut Vec<Problem>) {
    for other in rows {
        if other.id == row.id {
            let wanted = format!("an id that no other row has; it stands at line {} already", other.line);
            problems.push(cells.problem("id", wanted).value(row.id.as_str()));
        }
        let overlap = row.until_day.is_none_or(|until| other.from_day < until)
            && other.until_day.is_none_or(|until| row.from_day < until);
        let same = other.provider == row.provider
            && other.tier == row.tier
            && other.input_above == row.input_above
            && overlap;
        for pattern in row.models.iter().filter(|pattern| same && other.models.contains(pattern)) {
            let wanted = format!("no second price for the same days; line {} has one already", other.line);
            problems.push(cells.problem("model", wanted).value(pattern.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "id,provider,model,tier,input_above,valid_from,valid_until,currency,input,cache_read,\
                          cache_write_5m,cache_write_1h,output,input_audio,output_audio,input_image,source,read_on,note\n";
    const REST: &str = "https://x.test,2026-01-01,\n";

    fn told(rows: &str) -> Vec<String> {
        let text = format!("{HEADER}{rows}");
        PriceBook::parse(text.as_bytes()).unwrap_err().iter().map(ToString::to_string).collect()
    }

    /// A row of standard prices, with the days from which on and until when they count.
    fn row(id: &str, models: &str, from: &str, until: &str) -> String {
        format!("{id},p,{models},standard,,{from},{until},USD,1,,,,2,,,,{REST}")
    }

    fn starter() -> PriceBook {
        PriceBook::parse(STARTER.as_bytes()).unwrap()
    }

    #[test]
    fn all_problems_are_told_with_line_cell_value_and_form() {
        let rows = format!(
            "# comment\n\
             a b,p,m,standard,,2026-01-01,,USD,1,,,,2,,,,{REST}\
             b,p,,standard,0,2026-13-01,,usd,1,,,,2,,,,{REST}\
             c,p,m,standard,,2026-02-01,2026-01-01,USD,-1,1e3,,,2,,,,http://x.test,soon,\n\
             d,p,m,standard,,2026-01-01,,USD,,,,,,,,,{REST}\
             e,p,m\n"
        );
        let told = told(&rows);
        let want = [
            "3:1: `id`: found `a b`, wanted an identifier `[A-Za-z0-9_.:/@+-]{1,128}`",
            "4:3: `model`: found ``, wanted patterns separated by spaces",
            "4:5: `input_above`: found `0`, wanted a number of tokens, or nothing",
            "4:6: `valid_from`: found `2026-13-01`, wanted a day as `2026-11-20`",
            "4:8: `currency`: found `usd`, wanted a currency code as `USD`",
            "5:17: `source`: found `http://x.test`, wanted the `https://` address where the price was read",
            "5:18: `read_on`: found `soon`, wanted the day on which it was read, as `2026-11-20`",
            "5:9: `input`: found `-1`, wanted a price per million tokens as `2.50` (at most 12 fraction digits), `=`, \
             or nothing",
            "6:9: `input`: wanted at least one price in a row",
            "7:1: wanted 19 cells, as the header has; found 3",
        ];
        for want in want {
            assert!(told.iter().any(|line| line == want), "{want}\nis not in\n{}", told.join("\n"));
        }
    }

    #[test]
    fn two_prices_for_one_day_are_a_problem_and_two_for_two_days_are_not() {
        let row = |id: &str, from: &str, until: &str| row(id, "m n*", from, until);
        let good = format!("{HEADER}{}{}", row("a", "2026-01-01", "2026-02-01"), row("b", "2026-02-01", ""));
        let book = PriceBook::parse(good.as_bytes()).unwrap();
        let at =
            |day: i64| book.row("p", "m", day * 86_400_000_000, "standard", 1).map(|row| row.id.as_str());
        assert_eq!([at(20_453), at(20_454), at(20_484), at(20_485)], [None, Some("a"), Some("a"), Some("b")]);
        let bad = told(&format!("{}{}", row("a", "2026-01-01", "2026-02-02"), row("a", "2026-02-01", "")));
        assert_eq!(bad.len(), 3, "{bad:?}");
        assert!(
            bad[0].contains("an id that no other row has") && bad[1].contains("no second price"),
            "{bad:?}"
        );
    }

    #[test]
    fn an_exact_model_wins_over_a_pattern_and_a_longer_pattern_over_a_shorter() {
        let row = |id: &str, model: &str| row(id, model, "2026-01-01", "");
        let text =
            format!("{HEADER}{}{}{}", row("wide", "gpt-*"), row("exact", "gpt-4o"), row("mid", "gpt-4*"));
        let book = PriceBook::parse(text.as_bytes()).unwrap();
        for (model, id) in [("gpt-4o", "exact"), ("gpt-4.1", "mid"), ("gpt-5", "wide")] {
            let found = book.row("p", model, 20_600 * 86_400_000_000, "standard", 1).unwrap();
            assert_eq!(found.id.as_str(), id, "{model}");
        }
    }

    #[test]
    fn surcharges_are_factors_by_word() {
        let header = HEADER.trim_end();
        let book = |cell: &str| {
            let row = row("a", "m", "2026-01-01", "");
            PriceBook::parse(format!("{header},surcharges\n{},{cell}\n", row.trim_end()).as_bytes())
        };
        let read = book("us=1.1 fast=6").unwrap();
        let factors: Vec<_> =
            read.rows()[0].surcharges.iter().map(|(word, by)| format!("{word} {by}")).collect();
        assert_eq!(factors, ["fast 6", "us 1.1"]);
        assert!(book("").unwrap().rows()[0].surcharges.is_empty());
        for bad in ["us", "us=", "us=-1", "us=0", "us=10%", "US=1.1", "us=1 us=2", "=2", "a/b=2"] {
            let told = book(bad).unwrap_err()[0].to_string();
            assert!(
                told.starts_with(&format!("2:20: `surcharges`: found `{bad}`, wanted factors")),
                "{told}"
            );
        }
    }

    #[test]
    fn a_wrong_header_is_told_with_a_suggestion() {
        let told: Vec<String> =
            PriceBook::parse(b"id,provider,modle\n").unwrap_err().iter().map(ToString::to_string).collect();
        assert!(
            told[0].starts_with("1:1: `modle`: wanted a known column:")
                && told[0].ends_with("(did you mean `model`?)")
        );
        assert_eq!(told.len(), 18, "{told:?}");
    }

    #[test]
    fn bytes_that_are_no_csv_never_panic() {
        for bytes in [&b""[..], b"\xff\xfe", b"\"", b"id\n\xff\n", b"#only a comment\n"] {
            assert!(PriceBook::parse(bytes).is_err());
        }
    }

    const STARTER: &str = include_str!("../../prices/2026-11.csv");

    #[test]
    fn the_starter_book_is_read_and_its_currency_is_one() {
        let book = starter();
        assert!(book.rows().iter().all(|row| row.currency.as_str() == "USD"));
        assert_eq!(book.hash(), Sha256Hex::of(STARTER.as_bytes()));
    }

    #[test]
    fn the_starter_books_batch_and_flex_prices_are_half_of_the_standard_ones() {
        let book = starter();
        let tiers = ["batch", "flex"];
        let mut checked = 0;
        for row in book.rows().iter().filter(|row| tiers.contains(&row.tier.as_str())) {
            let standard = book.rows().iter().find(|other| {
                other.tier == "standard"
                    && other.models == row.models
                    && other.provider == row.provider
                    && other.input_above == row.input_above
                    && other.from_day == row.from_day
            });
            let standard = standard.unwrap_or_else(|| unreachable!("{} has no standard row", row.id)).prices;
            let twice = |price: Option<Decimal>| price.map(|price| price.units() * 2);
            let whole = |price: Option<Decimal>| price.map(Decimal::units);
            assert_eq!(twice(row.prices.input), whole(standard.input), "{}", row.id);
            assert_eq!(twice(row.prices.output), whole(standard.output), "{}", row.id);
            if row.prices.cache_read.is_some() {
                assert_eq!(twice(row.prices.cache_read), whole(standard.cache_read), "{}", row.id);
            }
            checked += 1;
        }
        assert!(checked > 50, "{checked}");
    }

    #[test]
    fn no_cache_read_of_the_starter_book_costs_more_than_input_and_no_write_less() {
        for row in starter().rows() {
            let prices = row.prices;
            if prices.input.is_none() {
                // What is charged by pages or searches has no price of tokens at all.
                let Prices { search_unit, web_search, page, .. } = prices;
                assert_eq!(
                    prices,
                    Prices { search_unit, web_search, page, ..Prices::default() },
                    "{}",
                    row.id
                );
                continue;
            }
            assert!(prices.cache_read.is_none_or(|read| Some(read) <= prices.input), "{}", row.id);
            assert!(prices.cache_write_5m.is_none_or(|write| Some(write) > prices.input), "{}", row.id);
            assert!(
                prices.cache_write_1h.is_none_or(|write| Some(write) > prices.cache_write_5m),
                "{}",
                row.id
            );
            assert!(prices.output.is_none_or(|output| Some(output) >= prices.input), "{}", row.id);
        }
    }

    /// Some name that fits a pattern.
    fn sample(pattern: &Pattern) -> String {
        pattern.as_str().replace('?', "1").replace('*', "eu-west-1:000000000001")
    }

    #[test]
    fn no_two_rows_of_the_starter_book_speak_as_closely_about_one_exchange() {
        let book = starter();
        let close = |row: &Row, model: &str| {
            let fit = row.models.iter().filter(|pattern| pattern.matches(model));
            fit.map(|pattern| (pattern.is_exact(), pattern.literals())).max()
        };
        let mut checked = 0;
        for row in book.rows() {
            for model in row.models.iter().map(sample) {
                let rivals = book.rows().iter().filter(|other| {
                    other.id != row.id
                        && other.provider == row.provider
                        && other.tier == row.tier
                        && other.input_above == row.input_above
                        && other.until_day.is_none_or(|until| row.from_day < until)
                        && row.until_day.is_none_or(|until| other.from_day < until)
                });
                for other in rivals {
                    assert!(close(other, &model) < close(row, &model), "{} {} {model}", row.id, other.id);
                }
                checked += 1;
            }
        }
        assert!(checked > 700, "{checked}");
    }

    #[test]
    fn a_dearer_long_prompt_of_the_starter_book_has_a_row_for_each_name_of_the_short_one() {
        let book = starter();
        for long in book.rows().iter().filter(|row| row.input_above > 0) {
            let short = book.rows().iter().find(|row| {
                row.input_above == 0
                    && (&row.provider, &row.tier, &row.models) == (&long.provider, &long.tier, &long.models)
                    && row.from_day <= long.from_day
                    && row.until_day == long.until_day
            });
            let short = short.unwrap_or_else(|| unreachable!("{} has no short row", long.id));
            assert!(long.prices.input.is_none_or(|input| Some(input) > short.prices.input), "{}", long.id);
            assert!(
                long.prices.output.is_none_or(|output| Some(output) > short.prices.output),
                "{}",
                long.id
            );
        }
    }

    #[test]
    fn the_starter_book_prices_the_models_that_answers_name() {
        let book = starter();
        let day = |text: &str| super::day(text).unwrap() * 86_400_000_000;
        // provider, model, day, input tokens -> row
        let table = [
            ("openai", "gpt-4o-2024-08-06", "2026-11-20", 1, Some("openai/gpt-4o")),
            ("openai", "gpt-4o-2024-05-13", "2026-11-20", 1, Some("openai/gpt-4o-2024-05-13")),
            ("openai", "gpt-4o-mini-2024-07-18", "2026-11-20", 1, Some("openai/gpt-4o-mini")),
            ("openai", "gpt-5-nano-2025-08-07", "2026-11-20", 1, Some("openai/gpt-5-nano")),
            ("openai", "gpt-5.6-sol", "2026-07-20", 1, Some("openai/gpt-5.6-sol/2026-07")),
            ("openai", "gpt-5.6-sol", "2026-08-15", 1, None),
            ("openai", "gpt-5.6-sol", "2026-11-20", 1, Some("openai/gpt-5.6-sol/2026-09")),
            ("openai", "gpt-6-sol", "2026-11-20", 272_000, Some("openai/gpt-6-sol")),
            ("openai", "gpt-6-sol", "2026-11-20", 272_001, Some("openai/gpt-6-sol/above-272k")),
            ("openai", "text-embedding-3-small", "2026-11-20", 1, Some("openai/text-embedding-3-small")),
            ("openai", "gpt-4o-realtime-preview", "2026-11-20", 1, None),
            ("openai", "claude-sonnet-4-6", "2026-11-20", 1, None),
            ("anthropic", "claude-sonnet-4-6", "2026-11-20", 1, Some("anthropic/sonnet-4.6")),
            ("anthropic", "claude-sonnet-4-5-20250929", "2026-11-20", 1, Some("anthropic/sonnet-4.5")),
            ("anthropic", "claude-opus-4-20250514", "2026-11-20", 1, Some("anthropic/opus-4")),
            ("anthropic", "claude-opus-4-1-20250805", "2026-11-20", 1, Some("anthropic/opus-4.1")),
            ("anthropic", "claude-haiku-4-5-20251001", "2026-11-20", 1, Some("anthropic/haiku-4.5")),
            ("anthropic", "claude-sonnet-5-5", "2026-10-06", 1, Some("anthropic/sonnet-5.5/2026-09")),
            ("anthropic", "claude-sonnet-5-5", "2026-10-07", 1, Some("anthropic/sonnet-5.5/2026-10")),
            ("anthropic", "claude-haiku-5-5", "2026-11-20", 100_001, Some("anthropic/haiku-5.5/above-100k")),
            ("azure_openai", "gpt-4o", "2026-11-20", 1, None),
            ("azure_openai.global", "gpt-4o", "2026-11-20", 1, Some("azure_openai.global/gpt-4o")),
            ("mistral", "mistral-small-latest", "2026-03-15", 1, Some("mistral/mistral-small-latest/2025")),
            ("mistral", "mistral-small-latest", "2026-03-16", 1, Some("mistral/mistral-small-4")),
            ("mistral", "mistral-large-latest", "2026-11-20", 1, Some("mistral/mistral-large-3")),
            ("mistral", "mistral-large-4", "2026-11-20", 1, Some("mistral/mistral-large-4")),
            ("mistral", "mistral-large-5", "2026-11-20", 1, None),
            ("cohere", "command-a-03-2025", "2026-11-20", 1, Some("cohere/command-a")),
            // Nobody's price is somebody else's: these are by contract.
            ("cohere", "command-a-reasoning-08-2025", "2026-11-20", 1, None),
            ("cohere", "command-a-plus-05-2026", "2026-11-20", 1, None),
            ("cohere", "command-r", "2026-11-20", 1, None),
            ("deepseek", "deepseek-v4-flash", "2026-08-15", 1, Some("deepseek/v4-flash/2026-05")),
            ("deepseek", "deepseek-v4-flash", "2026-08-16", 1, None),
            ("deepseek.peak", "deepseek-v4-flash", "2026-11-20", 1, Some("deepseek.peak/flash")),
            ("deepseek.off_peak", "deepseek-v4-pro", "2026-11-20", 1, Some("deepseek.off_peak/v4-pro")),
            ("groq", "llama-3.3-70b-versatile", "2026-11-20", 1, Some("groq/llama-3.3-70b")),
            ("groq", "groq/compound", "2026-11-20", 1, None),
            ("xai", "grok-3", "2025-10-20", 1, None),
            ("xai", "grok-3", "2025-10-21", 1, Some("xai/grok-3")),
            ("xai", "grok-3-fast", "2025-10-21", 1, None),
            ("xai", "grok-code-fast-1", "2026-05-14", 1, Some("xai/grok-code-fast-1")),
            ("xai", "grok-code-fast-1", "2026-11-20", 1, Some("xai/grok-build-0.1")),
            ("xai", "grok-4.3", "2026-11-20", 199_999, Some("xai/grok-4.3")),
            ("xai", "grok-4.3", "2026-11-20", 200_000, Some("xai/grok-4.3/from-200k")),
            ("xai", "grok-4.30", "2026-11-20", 1, None),
            ("together", "openai/gpt-oss-120b", "2026-11-20", 1, Some("together/gpt-oss-120b")),
            ("perplexity", "perplexity/sonar", "2026-11-20", 1, Some("perplexity/sonar")),
            ("perplexity", "sonar", "2026-09-01", 1, None),
            ("perplexity.tokens", "sonar", "2026-09-01", 1, Some("perplexity.tokens/sonar")),
            ("perplexity.tokens", "sonar", "2026-09-27", 1, None),
            ("cerebras", "gpt-oss-120b", "2026-11-20", 1, Some("cerebras/gpt-oss-120b")),
            ("cerebras", "openai/gpt-oss-120b", "2026-11-20", 1, None),
        ];
        for (provider, model, on, input, row) in table {
            let found = book.row(provider, model, day(on), "standard", input).map(|row| row.id.as_str());
            assert_eq!(found, row, "{provider} {model} {on} {input}");
        }
    }

    #[test]
    fn the_starter_book_prices_bedrocks_ids_where_they_say_where_they_are_served() {
        let book = starter();
        let at = super::day("2026-11-20").unwrap() * 86_400_000_000;
        let row = |provider: &str, model: &str| {
            book.row(provider, model, at, "standard", 1).map(|row| row.id.as_str())
        };
        // id -> row of `bedrock`, row of `bedrock.us-east-1`
        let haiku = "anthropic.claude-haiku-4-5-20251001-v1:0";
        let nova = "amazon.nova-lite-v1:0";
        let profile = |id: &str| format!("arn:aws:bedrock:us-west-2:000000000001:inference-profile/{id}");
        let model = |id: &str| format!("arn:aws:bedrock:us-east-1::foundation-model/{id}");
        let geo = [Some("bedrock/claude-haiku-4.5/geo"), Some("bedrock.us-east-1/claude-haiku-4.5/geo")];
        let global =
            [Some("bedrock/claude-haiku-4.5/global"), Some("bedrock.us-east-1/claude-haiku-4.5/global")];
        let table: [(String, [Option<&str>; 2]); 15] = [
            (format!("us.{haiku}"), geo),
            (profile(&format!("us.{haiku}")), geo),
            (format!("eu.{haiku}"), [geo[0], None]),
            (format!("global.{haiku}"), global),
            (profile(&format!("global.{haiku}")), global),
            // Dearer, and in another partition.
            (format!("us-gov.{haiku}"), [None; 2]),
            (
                format!("arn:aws-us-gov:bedrock:us-gov-west-1:000000000001:inference-profile/us.{haiku}"),
                [None; 2],
            ),
            // What InvokeModel answers names no place: the id that was sent must decide.
            ("claude-haiku-4-5-20251001".into(), [None; 2]),
            (haiku.into(), [None; 2]),
            (
                "arn:aws:bedrock:us-east-1:000000000001:application-inference-profile/1arbu5hu2sjr".into(),
                [None; 2],
            ),
            (
                format!("arn:aws:bedrock:us-east-1:000000000001:application-inference-profile/us.{haiku}"),
                [None; 2],
            ),
            (nova.into(), [None, Some("bedrock.us-east-1/nova-lite/in-region")]),
            (model(nova), [None, Some("bedrock.us-east-1/nova-lite/in-region")]),
            (model(nova).replace("us-east-1", "ap-southeast-2"), [None; 2]),
            (format!("us.{nova}"), [Some("bedrock/nova-lite/us"), Some("bedrock.us-east-1/nova-lite/us")]),
        ];
        for (id, [anywhere, here]) in table {
            assert_eq!(row("bedrock", &id), anywhere, "{id}");
            assert_eq!(row("bedrock.us-east-1", &id), here, "{id} in us-east-1");
        }
    }

    #[test]
    fn groqs_usual_tier_costs_what_the_standard_one_does() {
        let book = starter();
        let of = |tier: &str| -> Vec<(&[Pattern], Prices)> {
            let rows = book.rows().iter().filter(|row| row.provider == "groq" && row.tier == tier);
            rows.map(|row| (row.models.as_slice(), row.prices)).collect()
        };
        assert_eq!(of("standard"), of("on_demand"));
        assert!(of("standard").len() >= 15, "{}", of("standard").len());
    }

    #[test]
    fn the_starter_books_surcharges_are_those_of_the_models_that_have_them() {
        let book = starter();
        let factor = |id: &str, word: &str| {
            let row = book.rows().iter().find(|row| row.id.as_str() == id).unwrap();
            row.surcharges.get(word).map(ToString::to_string)
        };
        for id in ["anthropic/opus-4.6", "anthropic/sonnet-4.6", "anthropic/haiku-5.5/above-100k/batch"] {
            assert_eq!(factor(id, "us").as_deref(), Some("1.1"), "{id}");
        }
        // The provider refuses the parameter for older models.
        for id in ["anthropic/opus-4.5", "anthropic/haiku-4.5", "openai/gpt-4.1"] {
            assert_eq!(factor(id, "us"), None, "{id}");
        }
        assert_eq!(factor("anthropic/opus-5", "fast").as_deref(), Some("2"));
        assert_eq!(factor("anthropic/opus-5/batch", "fast"), None);
    }
}
