//! The starter price book on recorded traffic: how much of it has a price, and whether answers that tell what they cost
//! agree.

use std::collections::BTreeMap;

use dialects::{AnswerFacts, Dialect, operation, request_facts, response_facts};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use policies::price::PriceBook;
use schemas::record::{Cost, Unpriced};
use tests::corpus::{Line, Set, all_lines, set};

const BOOK: &[u8] = include_bytes!("../../../policies/prices/2026-11.csv");

const TODAY: &str = "2026-11-20";

/// Who served, the name in the book, the day, and of the answers that tell usage those with a price and all.
///
/// DeepSeek's price of the whole day ended in August, Perplexity's Sonar in September.
const SHARES: [(&str, &str, &str, [usize; 2]); 12] = [
    ("bedrock", "bedrock", TODAY, [88, 194]),
    ("bedrock", "bedrock.us-east-1", TODAY, [175, 194]),
    ("mistral", "mistral", TODAY, [85, 87]),
    ("cohere", "cohere", TODAY, [31, 43]),
    ("deepseek", "deepseek", "2026-08-15", [63, 63]),
    ("deepseek", "deepseek.peak", TODAY, [62, 63]),
    ("groq", "groq", TODAY, [73, 76]),
    ("xai", "xai", TODAY, [76, 76]),
    ("together", "together", TODAY, [2, 3]),
    ("perplexity", "perplexity", TODAY, [0, 4]),
    ("perplexity", "perplexity.tokens", "2026-09-26", [4, 4]),
    ("cerebras", "cerebras", TODAY, [6, 18]),
];

fn book() -> PriceBook {
    PriceBook::parse(BOOK).expect("the starter book")
}

fn noon(day: &str) -> i64 {
    format!("{day}T12:00:00Z").parse::<jiff::Timestamp>().expect("a day").as_microsecond()
}

fn headers(map: &BTreeMap<String, String>) -> HeaderMap {
    let kept = map.iter().filter(|(name, _)| *name != "content-encoding");
    let read = kept.filter_map(|(name, value)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
    });
    read.collect()
}

/// Who served, as `kind` has it.
fn kind(line: &Line) -> &str {
    if line.provider.starts_with("aws-bedrock") { "bedrock" } else { &line.provider }
}

/// What an exchange tells of its cost: its answer, and the model that was asked for.
struct Told {
    facts: AnswerFacts,
    asked: Option<String>,
}

fn told(line: &Line) -> Told {
    let dialect = match line.gateway_dialect().expect("only lines with a dialect") {
        "bedrock" => Dialect::Bedrock,
        "cohere" => Dialect::Cohere,
        _ => Dialect::OpenAi,
    };
    let method: Method = line.method.parse().expect("a method");
    let operation = operation(dialect, &method, &line.path);
    let (sent, came) = (headers(&line.request_headers), headers(&line.response_headers));
    let query = Some(line.query.as_str()).filter(|query| !query.is_empty());
    let request = request_facts(&operation, &sent, &line.path, query, &line.request());
    let facts = response_facts(&operation, line.status, &came, &line.response());
    Told { facts, asked: request.requested_model }
}

impl Told {
    fn models(&self) -> Vec<&str> {
        [self.facts.served_model.as_deref(), self.asked.as_deref()].into_iter().flatten().collect()
    }

    fn cost(&self, book: &PriceBook, name: &str, at_us: i64) -> Result<Cost, Unpriced> {
        book.price(&self.facts.usage, name, &self.models(), at_us, self.facts.service_tier.as_deref())
    }
}

#[test]
fn the_share_of_recorded_answers_that_the_starter_book_prices_is_known() {
    let (book, lines) = (book(), all_lines());
    let mut wrong = Vec::new();
    for (served_by, name, day, wanted) in SHARES {
        let (mut priced, mut all) = (0, 0);
        let mut without: BTreeMap<String, usize> = BTreeMap::new();
        for line in lines.iter().filter(|line| kind(line) == served_by) {
            let told = told(line);
            match told.cost(&book, name, noon(day)) {
                Ok(_) => priced += 1,
                Err(Unpriced::NoPrice) => {
                    let tier = told.facts.service_tier.as_deref().unwrap_or("standard");
                    *without.entry(format!("{} ({tier})", told.models().join(", "))).or_default() += 1;
                }
                // It cost nothing, or told of nothing.
                Err(_) => continue,
            }
            all += 1;
        }
        println!("{name} on {day}: {priced} of {all} answers that tell usage have a price");
        for (models, count) in &without {
            println!("    {count:3} without: {models}");
        }
        if [priced, all] != wanted {
            wrong.push(format!("{name} on {day}: {priced} of {all}, wanted {wanted:?}"));
        }
    }
    // The project's own small set has hardly any of them.
    if matches!(set(), Set::Corpus(_)) {
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// In billionths of a thousandth of a dollar.
fn units(decimal: &str) -> u128 {
    let (whole, part) = decimal.split_once('.').unwrap_or((decimal, ""));
    format!("{whole}{part:0<12}").parse().expect("a cost")
}

/// The last number behind a key in an answer's text.
fn last_number(text: &str, key: &str) -> Option<f64> {
    let (_, rest) = text.rsplit_once(format!("\"{key}\":").as_str())?;
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

#[test]
fn recorded_answers_that_tell_what_they_cost_say_what_the_starter_book_makes_of_them() {
    let book = book();
    let (mut exact, mut tokens) = (0, 0);
    for line in all_lines() {
        let bytes = line.response();
        let text = String::from_utf8_lossy(&bytes);
        match line.provider.as_str() {
            // In ten billionths of a dollar; with its tools' fees, where it ran any.
            "xai" => {
                let Some(ticks) = last_number(&text, "cost_in_usd_ticks") else { continue };
                let tools = last_number(&text, "num_server_side_tools_used").unwrap_or(0.0);
                let Ok(cost) = told(&line).cost(&book, "xai", noon(TODAY)) else { continue };
                if tools == 0.0 {
                    assert_eq!(units(&cost.total), ticks as u128 * 100, "{}: {}", line.id, cost.price_row);
                    exact += 1;
                }
            }
            // Rounded to a hundred thousandth for each part, and the request's fee apart.
            "perplexity" => {
                let parts = ["input_tokens_cost", "output_tokens_cost"].map(|key| last_number(&text, key));
                let [Some(input), Some(output)] = parts else { continue };
                let Ok(cost) = told(&line).cost(&book, "perplexity.tokens", noon("2026-09-26")) else {
                    continue;
                };
                let total: f64 = cost.total.parse().expect("a number");
                assert!((total - input - output).abs() <= 0.00001, "{}: {total} {input} {output}", line.id);
                tokens += 1;
            }
            _ => {}
        }
    }
    println!(
        "{exact} answers of xAI tell exactly the book's cost, {tokens} of Perplexity that of their tokens"
    );
    if matches!(set(), Set::Corpus(_)) {
        assert!(exact >= 20 && tokens >= 4, "{exact} {tokens}");
    }
}
