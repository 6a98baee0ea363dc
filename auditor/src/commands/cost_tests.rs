//! Costs, exports and reconciliation over small stores with two price books.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Parser as _;
use policies::price::PriceBook;
use proptest::prelude::*;
use schemas::Sha256Hex;
use schemas::record::{
    Attempt, AttemptNumber, Body, Config, ConfigReason, End, Outcome, Served, Unpriced, Usage, UsageRole,
    UsageSource,
};

use crate::cli::{Cli, Command};
use crate::cost::booked;
use crate::decimal::Decimal;
use crate::finding::{Code, Effect};
use crate::fixture::{START, Writer, exchange_id, id, trust};
use crate::source::MemorySource;
use crate::time::{self, DAY, SECOND};

const BOOK: &str = "\
id,provider,model,tier,input_above,valid_from,valid_until,currency,input,cache_read,cache_write_5m,cache_write_1h,output,input_audio,output_audio,input_image,source,read_on,note
big,openai,gpt-4o,standard,,2026-01-01,,USD,3,0.3,3.75,6,15,,,=,https://x.test,2026-01-01,
small,openai,small-* small,standard,,2026-01-01,,USD,0.5,0.05,,,1,,,=,https://x.test,2026-01-01,
euro,openai,euro,standard,,2026-01-01,,EUR,1,0.1,,,2,,,=,https://x.test,2026-01-01,
";

/// One exchange that a test asks for.
#[derive(Debug, Clone)]
struct Made {
    at: i64,
    model: &'static str,
    input: i64,
    read: i64,
    output: i64,
    source: UsageSource,
    role: UsageRole,
    response: Option<String>,
    team: &'static str,
    /// Input that a target read whose answer did not count.
    failed: Option<i64>,
    operation: Option<&'static str>,
}

fn made(at: i64, model: &'static str, input: i64, read: i64, output: i64) -> Made {
    let (source, role) = (UsageSource::Provider, UsageRole::Incurred);
    let (response, team, failed, operation) = (None, "quality", None, None);
    Made { at, model, input, read, output, source, role, response, team, failed, operation }
}

/// A store with its trust file and state.
struct Bench {
    dir: tempfile::TempDir,
    to: i64,
}

fn usage(made: &Made) -> Usage {
    if made.source == UsageSource::Unknown {
        return Usage::of(made.source, made.role);
    }
    Usage {
        input_tokens: Some(made.input),
        cache_read_tokens: Some(made.read),
        output_tokens: Some(made.output),
        ..Usage::of(made.source, made.role)
    }
}

fn outcome(writer: &Writer, n: u64, position: u64, made: &Made, book: &PriceBook) -> Outcome {
    let mut outcome = writer.outcome_of(exchange_id(n), position, None, vec![], usage(made));
    outcome.answered.served_model = Some(id(made.model));
    outcome.answered.response_id = made.response.as_deref().map(id);
    outcome.answered.request_id = Some(id(&format!("req-{n}")));
    // A read of an answer is priced too: what it tells was incurred by another exchange.
    let incurred = Usage { role: UsageRole::Incurred, ..outcome.usage.clone() };
    match book.price(&incurred, "openai", &[made.model], made.at, None) {
        Err(_) if made.role != UsageRole::Incurred => outcome.unpriced = Some(Unpriced::NotIncurred),
        Ok(cost) => (outcome.cost, outcome.unpriced) = (Some(cost), None),
        Err(why) => outcome.unpriced = Some(why),
    }
    outcome
}

/// A first target that read `input` tokens, and a second one.
fn fallback(writer: &mut Writer, n: u64, intent_position: u64, input: i64, book: &PriceBook) -> Served {
    let usage = Usage {
        input_tokens: Some(input),
        output_tokens: Some(0),
        ..Usage::of(UsageSource::Partial, UsageRole::Incurred)
    };
    let attempt = |number: u64, phase: &str, target: &str, provider: &str| Attempt {
        intent_position,
        phase: id(phase),
        provider: Some(id(provider)),
        dialect: Some(id("openai")),
        ..Attempt::new(exchange_id(n), AttemptNumber::new(number).unwrap(), id(target), id("fallback"))
    };
    let mut first = attempt(0, "end", "openai-eu", "openai");
    first.cost = book.price(&usage, "openai", &["gpt-4o"], writer.now, None).ok();
    (first.usage, first.model) = (Some(usage), Some(id("gpt-4o")));
    first.end = Some(schemas::record::End::ProviderAbort);
    let second = attempt(1, "open", "other-us", "other");
    let served = second.served();
    writer.push(Body::Attempt(first));
    writer.push(Body::Attempt(second));
    served
}

/// A log with these exchanges, in the order of time; `later` is a second book that counts from a time on.
fn bench(all: &[Made], later: Option<(i64, &str)>) -> Bench {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let announce = |writer: &mut Writer, text: &str| {
        let hash = writer.reference(text.as_bytes(), "text/csv");
        let next = writer.config;
        let reason = ConfigReason::Reload;
        writer.push(Body::Config(Config { next, reason, policy: None, price_book: Some(hash) }));
        PriceBook::parse(text.as_bytes()).unwrap()
    };
    let mut book = announce(&mut writer, BOOK);
    writer.seal();
    let mut later = later;
    for (n, made) in (1..).zip(all) {
        // Heartbeats keep the silence short.
        while writer.now + 240 * SECOND < made.at {
            writer.now += 240 * SECOND;
            writer.heartbeat();
        }
        writer.now = writer.now.max(made.at);
        if let Some((_, text)) = later.take_if(|(at, _)| *at <= made.at) {
            book = announce(&mut writer, text);
        }
        writer.team = Some(id(made.team));
        writer.operation = made.operation.map(id);
        let (position, _) = writer.intent_with(exchange_id(n), crate::fixture::no_key(&writer), vec![]);
        let mut outcome = outcome(&writer, n, position, made, &book);
        if let Some(input) = made.failed {
            outcome.served = Some(fallback(&mut writer, n, position, input, &book));
        }
        writer.push(Body::Outcome(outcome));
    }
    writer.now += SECOND;
    let bench = Bench { dir: tempfile::tempdir().unwrap(), to: writer.now };
    writer.close();
    for (name, bytes) in &writer.store.objects {
        let path = bench.path("store").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::write(bench.path("trust.yaml"), serde_json::to_string(&trust()).unwrap()).unwrap();
    bench
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn typed(&self, command: &str, more: &[&str]) -> anyhow::Result<Cli> {
        let text = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let mut words = vec!["auditor".to_owned(), command.into(), text("store"), "--trust".into()];
        words.extend([
            text("trust.yaml"),
            "--state".into(),
            text("state"),
            "--to".into(),
            time::text(self.to),
        ]);
        words.extend(more.iter().map(ToString::to_string));
        Ok(Cli::try_parse_from(words)?)
    }

    fn run(&self, command: &str, more: &[&str]) -> anyhow::Result<u8> {
        super::run(&self.typed(command, more)?)
    }

    /// Findings of a reconciliation: code, effect, and on what; and the claim.
    fn reconciled(&self, more: &[&str]) -> (Vec<(Code, Effect, String)>, String) {
        let Command::Reconcile(typed) = self.typed("reconcile", more).unwrap().command else {
            panic!("another command")
        };
        let (reconciliation, report) = super::reconcile::reconciled(&typed).unwrap();
        let found = report
            .findings
            .iter()
            .filter_map(|finding| Some((finding.code, finding.effect, finding.place.item.clone()?)));
        (found.collect(), reconciliation.claim)
    }

    /// The rows of an answer, each by its columns.
    fn rows(&self, command: &str, format: &str, more: &[&str]) -> Vec<BTreeMap<String, String>> {
        let out = self.path("answer.csv");
        let mut words = vec!["--format", format, "--out", out.to_str().unwrap()];
        words.extend(more);
        assert_eq!(self.run(command, &words).unwrap(), 0);
        let mut reader = csv::Reader::from_path(&out).unwrap();
        reader.deserialize().map(Result::unwrap).collect()
    }

    /// What exchanges cost, and what was tried for them.
    fn of_exchanges(&self) -> BTreeMap<String, Decimal> {
        let sql = "SELECT currency, sum(cost) AS cost FROM (SELECT currency, cost FROM exchanges \
                   UNION ALL SELECT attempts_currency, attempts_cost FROM exchanges) GROUP BY currency";
        sums(&self.rows("query", "csv", &[sql]), "currency", "cost")
    }

    /// The dollars that a sample is drawn from, once its papers hold.
    fn units(&self) -> BTreeMap<String, Decimal> {
        let folder = tempfile::tempdir().unwrap();
        let papers = folder.path().join("papers");
        let words = ["--n", "1", "--seed-from", "text:x", "--by-value", "cost", "--currency", "USD", "--out"];
        let words = [&words[..], &[papers.to_str().unwrap()]].concat();
        assert_eq!(self.run("sample", &words).unwrap(), 0);
        assert_eq!(self.run("sample", &["--check", papers.to_str().unwrap()]).unwrap(), 0);
        let method = std::fs::read_to_string(papers.join("method.json")).unwrap();
        let method: serde_json::Value = serde_json::from_str(&method).unwrap();
        let total = Decimal::parse(method["units"]["total"].as_str().unwrap()).unwrap();
        BTreeMap::from([("USD".to_owned(), total)])
    }

    fn cost(&self, more: &[&str]) -> Vec<BTreeMap<String, String>> {
        self.rows("cost", "csv", more)
    }
}

fn plain(text: &str) -> String {
    Decimal::parse(text).map_or_else(|| text.to_owned(), |amount| amount.to_string())
}

fn cells(rows: &[BTreeMap<String, String>], names: &[&str]) -> Vec<Vec<String>> {
    rows.iter().map(|row| names.iter().map(|name| plain(&row[*name])).collect()).collect()
}

#[test]
fn currencies_stand_apart_and_what_is_not_known_stands_beside() {
    let mut guessed = made(START + 3 * SECOND, "gpt-4o", 1_000_000, 0, 0);
    guessed.source = UsageSource::Partial;
    let mut estimated = made(START + 5 * SECOND, "gpt-4o", 1_000_000, 0, 0);
    estimated.source = UsageSource::Estimated;
    let bench = bench(
        &[
            made(START + SECOND, "gpt-4o", 1_000_000, 0, 0),
            made(START + 2 * SECOND, "euro", 1_000_000, 0, 1_000_000),
            guessed,
            estimated,
            made(START + 4 * SECOND, "nobody-knows", 5, 0, 5),
        ],
        None,
    );
    let rows = bench.cost(&["--by", "team"]);
    let names =
        ["currency", "exchanges", "cost", "unpriced", "not_final", "not_final_cost", "estimated_cost"];
    assert_eq!(
        cells(&rows, &names),
        [
            ["USD", "3", "9", "0", "2", "6", "3"],
            ["EUR", "1", "3", "0", "0", "", ""],
            ["", "1", "", "1", "0", "", ""]
        ]
    );
}

#[test]
fn what_a_target_read_whose_answer_did_not_count_is_booked_where_it_was_read() {
    let tried = Made { failed: Some(2_000_000), ..made(START + SECOND, "gpt-4o", 1_000_000, 0, 0) };
    let bench = bench(&[tried, made(START + 2 * SECOND, "gpt-4o", 1_000_000, 0, 0)], None);
    let rows = bench.cost(&["--by", "provider,target,team"]);
    let names = ["provider", "target", "team", "exchanges", "cost", "input_tokens", "not_final_cost"];
    assert_eq!(
        cells(&rows, &names),
        [
            ["openai", "openai-eu", "quality", "0", "6", "2000000", "6"],
            ["openai", "", "quality", "1", "3", "1000000", ""],
            ["other", "other-us", "quality", "1", "3", "1000000", ""],
        ]
    );
    // An exchange counts once, however many targets answered it: also among the savings and at other prices.
    for more in [["--savings", "--by", "team"], ["--what-if=openai/small", "--by", "team"]] {
        let rows = bench.cost(&more);
        assert_eq!(cells(&rows, &["exchanges", "cost"]), [["2", "12"]], "{more:?}");
    }
    // The sum over all of them is what the providers charge.
    let focus = bench.rows("export", "focus", &[]);
    assert_eq!(sums(&focus, "BillingCurrency", "BilledCost")["USD"].to_string(), "12");
}

#[test]
fn an_attempt_that_bytes_went_to_and_nothing_came_of_has_an_unknown_cost_also_without_its_intent() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    for (n, why, phase) in
        [(1, "timeout", "end"), (2, "connect", "end"), (3, "quota", "end"), (4, "retry", "open")]
    {
        let (intent_position, _) =
            writer.intent_with(exchange_id(n), crate::fixture::no_key(&writer), vec![]);
        let number = AttemptNumber::new(u64::from(phase == "open")).unwrap();
        let attempt = Attempt::new(exchange_id(n), number, id("openai-eu"), id(why));
        let provider = Some(id("openai"));
        let (end, role) = match why {
            "timeout" => (Some(End::Timeout), UsageRole::Incurred),
            "connect" => (Some(End::Unreachable), UsageRole::None),
            _ => (Some(End::Complete), UsageRole::None),
        };
        let is_end = phase == "end";
        writer.push(Body::Attempt(Attempt {
            intent_position,
            phase: id(phase),
            provider,
            end: end.filter(|_| is_end),
            usage: is_end.then(|| Usage::of(UsageSource::Unknown, role)),
            ..attempt
        }));
    }
    let lost = Attempt::new(exchange_id(9), AttemptNumber::FIRST, id("openai-eu"), id("aborted"));
    writer.push(Body::Attempt(Attempt {
        intent_position: 9_999,
        phase: id("end"),
        end: Some(End::ProviderAbort),
        usage: Some(Usage::of(UsageSource::Unknown, UsageRole::Incurred)),
        ..lost
    }));
    writer.seal();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (spend, found) = runtime.block_on(async {
        let evidence = crate::fixture::proven(&writer).await;
        let context = &evidence.session;
        let mut found = Vec::new();
        let by = crate::cost::group::Group::parse_all(&["consumer".to_owned()]).unwrap();
        booked::each(context, &booked::question(&by, None, None), |booked| {
            if !booked.incurred() {
                return Ok(());
            }
            found.push((booked.outcome.reason.as_ref().map(ToString::to_string), booked.by[0].is_some()));
            assert!(booked.is_attempt && booked.cost().is_none());
            Ok(())
        })
        .await
        .unwrap();
        (super::cost::total(context, None, None).await.unwrap(), found)
    });
    assert_eq!(found, [(Some("timeout".to_owned()), true), (Some("aborted".to_owned()), false)]);
    assert_eq!((spend.unpriced, spend.no_usage, spend.by_currency.len()), (2, 2, 0));
}

#[test]
fn an_answer_that_is_read_while_it_is_made_hides_no_cost() {
    let response = Some("resp-1".to_owned());
    let reading = Made {
        role: UsageRole::Retrieved,
        response: response.clone(),
        ..made(START + SECOND, "gpt-4o", 1_000_000, 0, 0)
    };
    let asking = Made { response, ..made(START + 2 * SECOND, "gpt-4o", 1_000_000, 0, 0) };
    let bench = bench(&[reading.clone(), asking, Made { at: START + 3 * SECOND, ..reading }], None);
    let rows = bench.cost(&["--by", "model"]);
    assert_eq!(cells(&rows, &["model", "currency", "exchanges", "cost"]), [["gpt-4o", "USD", "1", "3"]]);
    assert_eq!(
        sums(&bench.rows("export", "focus", &[]), "BillingCurrency", "BilledCost")["USD"].to_string(),
        "3"
    );
}

/// Answers made in the background: asked for, read while they are made, read whole.
fn background() -> Vec<Made> {
    let asking = |at, response: &str| Made {
        source: UsageSource::Unknown,
        response: Some(response.into()),
        team: "research",
        ..made(at, "gpt-4o", 0, 0, 0)
    };
    let reading = |at, response: &str, input, output| Made {
        role: UsageRole::Retrieved,
        response: Some(response.into()),
        ..made(at, "gpt-4o", input, 0, output)
    };
    let at = |second: i64| START + second * SECOND;
    let guessed = Made { source: UsageSource::Estimated, ..asking(at(4), "resp-2") };
    vec![
        asking(at(1), "resp-1"),
        reading(at(2), "resp-1", 1_000_000, 10_000),
        reading(at(3), "resp-1", 1_000_000, 100_000),
        guessed,
        asking(at(5), "never-read"),
        // Asked for past the gateway, or before the evidence begins.
        reading(at(6), "of-others", 1_000_000, 100_000),
        reading(at(1000), "resp-1", 1_000_000, 100_000),
        reading(at(1001), "resp-2", 2_000_000, 0),
    ]
}

#[test]
fn what_was_made_in_the_background_is_booked_once_where_it_was_asked_for_by_what_reads_of_it_tell() {
    let bench = bench(&background(), None);
    let rows = bench.cost(&["--by", "team"]);
    let names = ["team", "currency", "exchanges", "cost", "unpriced", "input_tokens", "not_final"];
    let booked = ["research", "USD", "2", "10.5", "0", "3000000", "0"];
    assert_eq!(
        cells(&rows, &names),
        [booked, ["quality", "", "1", "", "0", "", "0"], ["research", "", "1", "", "1", "", "1"]]
    );
    // The same in each form, and computed again from the price book.
    let focus = bench.rows("export", "focus", &[]);
    assert_eq!(sums(&focus, "BillingCurrency", "BilledCost")["USD"].to_string(), "10.5");
    let savings = bench.cost(&["--savings", "--by", "team"]);
    assert_eq!(cells(&savings, &["team", "exchanges"]), [["research", "2"]]);
    assert_eq!(bench.run("verify", &[]).unwrap(), 0);
    // Who adds up exchanges comes to the same, and so does a sample over units of money.
    assert_eq!(bench.of_exchanges()["USD"].to_string(), "10.5");
    assert_eq!(bench.units()["USD"].to_string(), "10.5");
    let sql = "SELECT cost, unpriced FROM exchanges WHERE team = 'research' ORDER BY started_at";
    let rows = bench.rows("query", "csv", &[sql]);
    assert_eq!(cells(&rows, &["cost", "unpriced"]), [["4.5", ""], ["6", ""], ["", "no_usage"]]);
}

#[test]
fn what_a_read_tells_is_booked_under_the_model_whose_prices_it_has() {
    let response = Some("resp-1".to_owned());
    let (source, role) = (UsageSource::Unknown, UsageRole::Retrieved);
    let asking = Made { source, response: response.clone(), ..made(START + SECOND, "small", 0, 0, 0) };
    let read = Made { role, response, ..made(START + 2 * SECOND, "gpt-4o", 1_000_000, 0, 0) };
    let bench = bench(&[asking, read], None);
    assert_eq!(cells(&bench.cost(&["--by", "model"]), &["model", "cost"])[0], ["gpt-4o", "3"]);
    let focus = bench.rows("export", "focus", &[]);
    let names = ["x_Exchange", "ListUnitPrice", "PricingQuantity", "BilledCost"];
    let wanted = exchange_id(1).to_string();
    assert!(
        cells(&focus, &names).contains(&[&wanted, "3", "1", "3"].map(str::to_owned).to_vec()),
        "{focus:?}"
    );
}

#[test]
fn exchanges_add_up_to_the_cost_with_what_was_tried_and_two_answers_of_one_name() {
    let response = Some("resp-1".to_owned());
    let tried = Made { failed: Some(2_000_000), ..made(START + SECOND, "gpt-4o", 1_000_000, 0, 0) };
    let once = Made { response, ..made(START + 2 * SECOND, "gpt-4o", 1_000_000, 0, 0) };
    // A server that draws the names of its answers from few; and two of which nothing is known, with one read that tells.
    let again = Made { at: START + 3 * SECOND, ..once.clone() };
    let untold = |second| Made {
        source: UsageSource::Unknown,
        response: Some("resp-2".into()),
        ..made(START + second * SECOND, "gpt-4o", 0, 0, 0)
    };
    let read = Made { role: UsageRole::Retrieved, ..made(START + 7 * SECOND, "gpt-4o", 2_000_000, 0, 0) };
    let read = Made { response: Some("resp-2".into()), ..read };
    let euro = made(START + 4 * SECOND, "euro", 1_000_000, 0, 0);
    let bench = bench(&[tried, once, again, euro, untold(5), untold(6), read], None);
    let cost = sums(&bench.cost(&["--by", "team"]), "currency", "cost");
    assert_eq!((cost["USD"].to_string(), cost["EUR"].to_string()), ("21".into(), "1".into()));
    assert_eq!(bench.of_exchanges(), cost);
    assert_eq!(bench.units(), BTreeMap::from([("USD".into(), cost["USD"])]));
    let sql = "SELECT cost, attempts_cost, attempts_currency FROM exchanges ORDER BY started_at";
    let rows = bench.rows("query", "csv", &[sql]);
    assert_eq!(
        cells(&rows, &["cost", "attempts_cost", "attempts_currency"]),
        [
            ["3", "6", "USD"],
            ["3", "", ""],
            ["3", "", ""],
            ["1", "", ""],
            ["6", "", ""],
            ["", "", ""],
            ["", "", ""]
        ]
    );
}

#[test]
fn a_question_that_does_not_ask_for_cost_books_nothing() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    writer.exchange(1, b"q", b"a");
    writer.seal();
    let plan = |sql: &str| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let evidence = crate::fixture::proven(&writer).await;
            let plan = evidence.session.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
            datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string()
        })
    };
    for (sql, books) in [
        ("SELECT model, count(*), sum(output_tokens) FROM exchanges GROUP BY model", false),
        ("SELECT sum(cost) FROM exchanges", true),
    ] {
        let plan = plan(sql);
        assert_eq!(plan.contains("WindowAgg"), books, "{plan}");
    }
}

#[test]
fn intervals_of_what_was_made_in_the_background_add_up() {
    let whole = bench(&background(), None);
    let spent = |bench: &Bench, from: i64| {
        let from = time::text(from);
        let rows = bench.cost(&["--by", "team", "--from", &from]);
        sums(&rows, "currency", "cost").get("USD").copied().unwrap_or_default().to_string()
    };
    assert_eq!(spent(&whole, START), "10.5");
    // Reads alone book nothing, however much they tell.
    assert_eq!(spent(&whole, START + 5 * SECOND), "0");
    assert_eq!(spent(&whole, START + 4 * SECOND), "6");
    // The reads stand behind the end that is asked for.
    let begun = Bench { to: START + 4 * SECOND, ..whole };
    assert_eq!(spent(&begun, START), "4.5");
}

#[test]
fn a_month_is_forecast_from_the_days_before() {
    // A dollar and a half a day, from Tuesday to Thursday; the log ends on that day.
    let tuesday = START - START.rem_euclid(DAY) + DAY;
    let days: Vec<Made> =
        (0..3).map(|day| made(tuesday + day * DAY + 3600 * SECOND, "gpt-4o", 500_000, 0, 0)).collect();
    let bench = bench(&days, None);
    let rows = bench.cost(&["--forecast=2026-09"]);
    let names =
        ["period", "currency", "exchanges", "actual", "forecast", "days_seen", "days_left", "unpriced"];
    // The evidence begins on Monday, 21 September at 14:13 and so does what is known: that day cost nothing.
    assert_eq!(cells(&rows, &names), [["2026-09", "USD", "3", "4.5", "10.5", "3", "6", "0"]]);
    let error = bench.run("cost", &["--forecast=2026-9"]).unwrap_err().to_string();
    assert!(error.contains("2026-9") && error.contains("wanted"), "{error}");
}

#[test]
fn spend_is_held_against_every_line_of_a_budget_that_names_it() {
    let mut research = made(START + 2 * SECOND, "gpt-4o", 2_000_000, 0, 0);
    research.team = "research";
    let bench = bench(
        &[
            made(START + SECOND, "gpt-4o", 1_000_000, 0, 0),
            research,
            made(START + 3 * SECOND, "nobody-knows", 5, 0, 5),
            made(START + 4 * SECOND, "euro", 1_000_000, 0, 0),
        ],
        None,
    );
    let budget = bench.path("budget.csv");
    let text =
        "team,period,amount,currency\nquality,2026-09,10,USD\nresearch,2026-09-21,5,USD\n*,2026,100,USD\n";
    std::fs::write(&budget, text).unwrap();
    let rows = bench.cost(&["--budget", budget.to_str().unwrap()]);
    let names = ["team", "period", "currency", "state", "budget", "actual", "left", "used", "unpriced"];
    assert_eq!(
        cells(&rows, &names),
        [
            ["quality", "2026-09", "USD", "will be over", "10", "3", "7", "30.0 %", "1"],
            ["research", "2026-09-21", "USD", "over", "5", "6", "-1", "120.0 %", "0"],
            ["*", "2026", "USD", "will be over", "100", "9", "91", "9.0 %", "1"],
            ["*", "", "EUR", "not budgeted", "", "1", "", "", ""],
        ]
    );
    std::fs::write(&budget, "team,period,amount,currency\nquality,2026-13,10,USD\n").unwrap();
    let error = bench.run("cost", &["--budget", budget.to_str().unwrap()]).unwrap_err().to_string();
    assert!(error.contains("budget.csv:2:1: `period`: found `2026-13`, wanted"), "{error}");
}

#[test]
fn caches_saved_the_difference_of_the_two_prices() {
    let bench = bench(&[made(START + SECOND, "gpt-4o", 3_000_000, 2_000_000, 100_000)], None);
    let names =
        ["cost", "cache_read_tokens", "saved_by_reads", "paid_for_writes", "net_saving", "without_cache"];
    // 1 M at 3, 2 M at 0.3, output 1.5; without a cache 3 M at 3.
    assert_eq!(
        cells(&bench.cost(&["--savings", "--by", ""]), &names),
        [["5.1", "2000000", "5.4", "0", "5.4", "10.5"]]
    );
}

#[test]
fn a_change_of_price_is_told_with_both_books() {
    let dearer = BOOK.replace("USD,3,0.3,", "USD,4.5,0.3,");
    let change = START + 10 * SECOND;
    let bench = bench(
        &[
            made(START + SECOND, "gpt-4o", 1000, 0, 10),
            made(START + 2 * SECOND, "gpt-4o", 1000, 0, 10),
            made(change, "gpt-4o", 1000, 0, 10),
            made(change + SECOND, "small", 1000, 0, 10),
        ],
        Some((change, &dearer)),
    );
    let rows = bench.cost(&["--price-changes"]);
    let names = ["provider", "model", "class", "currency", "before", "after", "change", "row_after"];
    assert_eq!(cells(&rows, &names), [["openai", "gpt-4o", "input", "USD", "3", "4.5", "'+50.0 %", "big"]]);
    assert_eq!(rows[0]["book_before"], Sha256Hex::of(BOOK.as_bytes()).to_string());
    assert_eq!(rows[0]["book_after"], Sha256Hex::of(dearer.as_bytes()).to_string());
}

#[test]
fn another_models_prices_are_applied_to_the_recorded_counts() {
    let bench = bench(
        &[
            made(START + SECOND, "gpt-4o", 1_000_000, 0, 1_000_000),
            made(START + 2 * SECOND, "nobody-knows", 1000, 0, 0),
        ],
        None,
    );
    let what_if = |other: &str| bench.cost(&["--what-if", other, "--by", "model"]);
    let names =
        ["model", "currency", "other_currency", "exchanges", "cost", "other_cost", "difference", "unpriced"];
    assert_eq!(
        cells(&what_if("openai/small"), &names),
        [
            ["gpt-4o", "USD", "USD", "1", "18", "1.5", "-16.5", "0"],
            ["nobody-knows", "", "USD", "0", "", "", "", "1"],
        ]
    );
    // What cannot be compared is not subtracted.
    assert_eq!(cells(&what_if("openai/euro"), &names)[0], ["gpt-4o", "USD", "EUR", "1", "18", "3", "", "0"]);
    for (other, wanted) in [("openai/none", "no row of a price book"), ("gpt-4o", "PROVIDER/MODEL")] {
        let error = format!("{:#}", bench.run("cost", &["--what-if", other]).unwrap_err());
        assert!(error.contains(wanted), "{error}");
    }
    let book = bench.path("book.csv");
    std::fs::write(
        &book,
        BOOK.replace("small,standard,,2026-01-01,,USD,0.5", "small,standard,,2026-01-01,,USD,0.25"),
    )
    .unwrap();
    let rows = bench.cost(&["--what-if", "openai/small", "--by", "model", "--book", book.to_str().unwrap()]);
    assert_eq!(cells(&rows, &["other_cost"])[0], ["1.25"]);
}

#[test]
fn two_questions_at_once_are_refused() {
    let bench = bench(&[], None);
    for words in
        [&["--savings", "--price-changes"][..], &["--forecast", "--what-if", "a/b"], &["--book", "x"]]
    {
        assert!(bench.run("cost", words).is_err(), "{words:?}");
    }
}

#[test]
fn every_record_is_exported_as_an_event_and_every_exchange_as_a_row() {
    let bench =
        bench(&[made(START + SECOND, "gpt-4o", 10, 0, 5), made(START + 2 * SECOND, "euro", 1, 0, 1)], None);
    let out = bench.path("events.jsonl");
    let words = ["--format", "ocsf", "--out", out.to_str().unwrap()];
    assert_eq!(bench.run("export", &words).unwrap(), 0);
    let text = std::fs::read_to_string(&out).unwrap();
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |kind: &str| events.iter().filter(|event| event["metadata"]["event_code"] == kind).count();
    // `close` stands at the end of the asked interval, which is not in it.
    assert_eq!((count("outcome"), count("intent"), count("boot"), count("close")), (2, 2, 1, 0));
    assert_eq!(bench.rows("export", "csv", &[]).len(), 2);
    let parquet = bench.path("exchanges.parquet");
    for format in ["parquet", "focus"] {
        let words = ["--format", format, "--out", parquet.to_str().unwrap()];
        assert_eq!(bench.run("export", &words).unwrap(), 0);
        assert!(std::fs::read(&parquet).unwrap().starts_with(b"PAR1"), "{format}");
    }
    assert!(bench.run("export", &["--format", "parquet"]).is_err());
}

#[test]
fn each_price_of_the_focus_export_belongs_to_one_sku() {
    // One row of the book is of both models.
    let bench = bench(
        &[made(START + SECOND, "small", 10, 2, 5), made(START + 2 * SECOND, "small-2", 10, 2, 5)],
        None,
    );
    let rows = bench.rows("export", "focus", &[]);
    let mut skus: BTreeMap<&str, &str> = BTreeMap::new();
    for row in &rows {
        let sku = skus.entry(&row["SkuPriceId"]).or_insert(&row["SkuId"]);
        assert_eq!(*sku, row["SkuId"], "{}", row["SkuPriceId"]);
    }
    assert_eq!((rows.len(), skus.len()), (6, 6));
    assert_eq!(skus["openai/small-2/cache_read#small"], "openai/small-2/cache_read");
}

fn sums(rows: &[BTreeMap<String, String>], currency: &str, cost: &str) -> BTreeMap<String, Decimal> {
    let mut sums = BTreeMap::new();
    for row in rows.iter().filter(|row| !row[currency].is_empty()) {
        let sum: &mut Decimal = sums.entry(row[currency].clone()).or_default();
        *sum = sum.plus(Decimal::parse(&row[cost]).unwrap());
    }
    sums.retain(|_, sum| sum.0 != 0);
    sums
}

/// Whose word the counts are, and whether they were incurred.
const KINDS: [(UsageSource, UsageRole); 6] = [
    (UsageSource::Provider, UsageRole::Incurred),
    (UsageSource::Partial, UsageRole::Incurred),
    (UsageSource::Estimated, UsageRole::Incurred),
    (UsageSource::Unknown, UsageRole::Incurred),
    (UsageSource::Provider, UsageRole::Retrieved),
    (UsageSource::Unknown, UsageRole::Retrieved),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("AFFIDAVIT_LONG").is_some() { 200 } else { 12 }))]

    #[test]
    fn what_is_exported_to_focus_sums_up_to_the_cost(
        all in proptest::collection::vec(
            (
                0_usize..4, 0_i64..5_000_000, 0_i64..5_000_000, 0_i64..3_000_000, 0_u8..6, 0_usize..KINDS.len(),
                proptest::option::weighted(0.2, 1_i64..3_000_000),
            ),
            0..25,
        ),
    ) {
        let all: Vec<Made> = (1..)
            .zip(&all)
            .map(|(n, (model, uncached, read, output, response, kind, failed))| Made {
                // Some answers have the name of another one; a read has the name of what it reads.
                response: (*response > 2 || KINDS[*kind].1 == UsageRole::Retrieved).then(|| format!("resp-{response}")),
                source: KINDS[*kind].0,
                role: KINDS[*kind].1,
                failed: *failed,
                ..made(
                    START + n * SECOND,
                    ["gpt-4o", "small", "euro", "nobody-knows"][*model],
                    uncached + read,
                    *read,
                    *output,
                )
            })
            .collect();
        let bench = bench(&all, None);
        let exported = bench.rows("export", "focus", &[]);
        let cost = bench.cost(&["--by", "model,team"]);
        let cost = sums(&cost, "currency", "cost");
        prop_assert_eq!(&sums(&exported, "BillingCurrency", "BilledCost"), &cost);
        prop_assert_eq!(&bench.of_exchanges(), &cost);
        for row in &exported {
            let number = |name: &str| Decimal::parse(&row[name]).unwrap().0;
            // Cost is price by quantity, exactly.
            prop_assert_eq!(number("ListUnitPrice") * number("PricingQuantity") / 1_000_000_000_000, number("ListCost"));
            prop_assert_eq!(number("ConsumedQuantity"), number("PricingQuantity") * 1_000_000);
            for name in ["EffectiveCost", "ContractedCost", "ListCost"] {
                prop_assert_eq!(&row[name], &row["BilledCost"]);
            }
        }
    }
}

/// A page of OpenAI's usage: model, input, cached input, output by day.
fn usage_page(rows: &[(i64, &str, &str, i64, i64, i64)], more: bool) -> String {
    let data: Vec<serde_json::Value> = rows
        .iter()
        .map(|(day, key, model, input, cached, output)| {
            let start = day * 86_400;
            serde_json::json!({ "object": "bucket", "start_time": start, "end_time": start + 86_400, "results": [{
                "object": "organization.usage.completions.result", "input_tokens": input, "output_tokens": output,
                "input_cached_tokens": cached, "input_audio_tokens": 0, "output_audio_tokens": 0,
                "num_model_requests": 1, "project_id": null, "user_id": null, "api_key_id": key, "model": model,
                "batch": null, "service_tier": null
            }] })
        })
        .collect();
    serde_json::json!({ "object": "page", "data": data, "has_more": more, "next_page": null }).to_string()
}

#[test]
fn use_past_the_gateway_is_found_and_agreement_is_claimed() {
    let bench = bench(
        &[made(START + SECOND, "gpt-4o", 1000, 100, 50), made(START + 2 * SECOND, "small", 400, 0, 40)],
        None,
    );
    let day = START.div_euclid(DAY);
    let file = bench.path("usage.json");
    let reconcile = |rows: &[(i64, &str, &str, i64, i64, i64)], more: &[&str]| {
        std::fs::write(&file, usage_page(rows, false)).unwrap();
        let export = format!("openai-usage={}", file.display());
        let mut words = vec!["--export", &export, "--partial", "--require", "claim=reconciled"];
        words.extend(more);
        bench.run("reconcile", &words)
    };
    let same = [(day, "key_1", "gpt-4o", 1000, 100, 50), (day, "key_1", "small", 400, 0, 40)];
    assert_eq!(reconcile(&same, &[]).unwrap(), 0);
    // Two tokens of a thousand are beyond no tolerance, and within one percent.
    let near = [(day, "key_1", "gpt-4o", 1002, 100, 50), same[1]];
    assert_eq!(reconcile(&near, &["--tolerance", "0"]).unwrap(), 1);
    assert_eq!(reconcile(&near, &["--tolerance", "1"]).unwrap(), 0);
    let more = [(day, "key_1", "gpt-4o", 9000, 100, 50), same[1]];
    assert_eq!(reconcile(&more, &[]).unwrap(), 1);
    // What the provider does not know of; a model that was never recorded; an export without one of the models.
    assert_eq!(reconcile(&[(day, "key_1", "gpt-4o", 900, 100, 50), same[1]], &[]).unwrap(), 1);
    assert_eq!(reconcile(&[same[0], same[1], (day, "key_1", "o1", 5, 0, 5)], &[]).unwrap(), 1);
    assert_eq!(reconcile(&same[..1], &[]).unwrap(), 1);
    // Another day's export says nothing of these exchanges.
    assert_eq!(reconcile(&[(day - 30, "key_1", "gpt-4o", 1000, 100, 50)], &[]).unwrap(), 1);
    // A key that the gateway does not use.
    let keys = bench.path("keys.csv");
    std::fs::write(&keys, "key,provider\nkey_1,openai\n").unwrap();
    let keys = ["--keys", keys.to_str().unwrap()];
    assert_eq!(reconcile(&same, &keys).unwrap(), 0);
    assert_eq!(reconcile(&[same[0], same[1], (day, "key_2", "small", 5, 0, 5)], &keys).unwrap(), 1);
    std::fs::write(&file, usage_page(&same, true)).unwrap();
    let export = format!("openai-usage={}", file.display());
    let error = format!("{:#}", bench.run("reconcile", &["--export", &export]).unwrap_err());
    assert!(error.contains("usage.json:1:1: `has_more`: found `true`, wanted `false`"), "{error}");
}

#[test]
fn a_stretch_that_reaches_beyond_the_evidence_is_only_judged_where_asked() {
    let bench = bench(&[made(START + SECOND, "gpt-4o", 1000, 0, 50)], None);
    let file = bench.path("usage.json");
    std::fs::write(&file, usage_page(&[(START.div_euclid(DAY), "k", "gpt-4o", 9000, 0, 50)], false)).unwrap();
    let export = format!("openai-usage={}", file.display());
    assert_eq!(bench.run("reconcile", &["--export", &export]).unwrap(), 0);
    assert_eq!(bench.run("reconcile", &["--export", &export, "--require", "claim=reconciled"]).unwrap(), 1);
    assert_eq!(bench.run("reconcile", &["--export", &export, "--partial"]).unwrap(), 1);
}

#[test]
fn a_stretch_that_reaches_beyond_and_differs_lets_nothing_be_claimed() {
    let day = START.div_euclid(DAY);
    let bench = bench(
        &[made(START + SECOND, "gpt-4o", 1000, 0, 50), made((day + 1) * DAY + SECOND, "gpt-4o", 700, 0, 30)],
        None,
    );
    let file = bench.path("usage.json");
    let reconcile = |first: i64, more: &[&str]| {
        let rows = [(day, "k", "gpt-4o", first, 0, 50), (day + 1, "k", "gpt-4o", 700, 0, 30)];
        std::fs::write(&file, usage_page(&rows, false)).unwrap();
        let export = format!("openai-usage={}", file.display());
        bench.run("reconcile", &[&["--export", &export], more].concat()).unwrap()
    };
    let claimed = ["--require", "claim=reconciled"];
    assert_eq!(reconcile(1000, &claimed), 0);
    // More may be from before the interval. The second day agrees; the claim is about both.
    assert_eq!((reconcile(9000, &[]), reconcile(9000, &claimed)), (0, 1));
    // Less is no part of anything.
    assert_eq!(reconcile(100, &[]), 1);
}

#[test]
fn batches_that_were_not_asked_for_through_the_gateway_are_named() {
    let (day, last) = (START.div_euclid(DAY) + 2, START + 3 * DAY);
    let batch = |operation, hours: i64| Made {
        operation: Some(operation),
        source: UsageSource::NotApplicable,
        role: UsageRole::None,
        ..made(day * DAY + hours * 3600 * SECOND, "gpt-4o", 0, 0, 0)
    };
    let answer = made(last, "gpt-4o", 1000, 0, 50);
    for (asked, named) in [
        (vec![], true),
        (vec![batch("batches.create", -20)], false),
        (vec![batch("batches.retrieve", -20)], true),
        (vec![batch("batches.create", 25)], true),
    ] {
        let bench = bench(&[asked, vec![answer.clone()]].concat(), None);
        let file = bench.path("usage.json");
        let keys = bench.path("keys.csv");
        std::fs::write(&keys, "key,provider\nk,openai\n").unwrap();
        let of_batch = usage_page(&[(day, "k", "gpt-4o", 7000, 0, 70)], false)
            .replace("\"batch\":null", "\"batch\":true");
        let others = usage_page(&[(last.div_euclid(DAY), "k", "gpt-4o", 1000, 0, 50)], false);
        std::fs::write(&file, of_batch + &others).unwrap();
        let export = format!("openai-usage={}", file.display());
        // The batch of the day before lies before what is asked about, and is found.
        let from = time::text(day * DAY);
        let words = ["--export", &export, "--from", &from, "--keys", keys.to_str().unwrap()];
        assert_eq!(bench.run("reconcile", &words).unwrap(), u8::from(named));
        let past = (
            Code::UnrecordedUsage,
            Effect::Incomplete,
            "key k, model gpt-4o, 2026-09-23, batches".to_owned(),
        );
        let (found, claim) = bench.reconciled(&words);
        assert_eq!(found, if named { vec![past.clone()] } else { vec![] });
        let wanted = if named { "beyond what was recorded" } else { "which are not compared (all else" };
        assert!(claim.contains(wanted), "{claim}");
        // Batches are never compared.
        let claimed = [&words[..], &["--require", "claim=reconciled"]].concat();
        assert_eq!(bench.run("reconcile", &claimed).unwrap(), 1);
        let unreached = (Code::ClaimNotReached, Effect::Policy, "claim reconciled".to_owned());
        let (found, _) = bench.reconciled(&claimed);
        assert!(found.contains(&unreached) && found.contains(&past) == named, "{found:?}");
    }
}

#[test]
fn hours_within_the_evidence_are_judged_apart_from_those_that_reach_beyond_it() {
    let (day, hour) = (START.div_euclid(DAY) + 1, 3600 * SECOND);
    let at = |hours: i64| day * DAY + hours * hour + 5 * SECOND;
    let bench = bench(&[made(at(1), "gpt-4o", 1000, 0, 50), made(at(10), "gpt-4o", 700, 0, 30)], None);
    let file = bench.path("usage.json");
    // Ten hours of the second day are whole; the evidence ends within the eleventh.
    let reconcile = |first: i64, last: i64, more: &[&str]| {
        let of = |hours: i64, results: serde_json::Value| {
            let start = (day * DAY + hours * hour) / SECOND;
            serde_json::json!({ "object": "bucket", "start_time": start, "end_time": start + 3600, "results": results })
        };
        let used = |input: i64, output: i64| {
            serde_json::json!([{ "object": "organization.usage.completions.result", "input_tokens": input,
                "output_tokens": output, "num_model_requests": 1, "model": "gpt-4o" }])
        };
        let data: Vec<serde_json::Value> = (-24..=10)
            .map(|hours| match hours {
                1 => of(hours, used(first, 50)),
                10 => of(hours, used(last, 30)),
                _ => of(hours, serde_json::json!([])),
            })
            .collect();
        let page =
            serde_json::json!({ "object": "page", "data": data, "has_more": false, "next_page": null });
        std::fs::write(&file, page.to_string()).unwrap();
        let export = format!("openai-usage={}", file.display());
        bench.reconciled(&[&["--export", &export], more].concat())
    };
    let whole = |code, effect| (code, effect, "model gpt-4o, 2026-09-22, 00:00 to 10:00".to_owned());
    let reaching =
        |effect| (Code::UnrecordedUsage, effect, "model gpt-4o, 2026-09-22, 10:00 to 11:00".to_owned());
    assert_eq!(reconcile(1000, 700, &[]), (vec![], "reconciled within 0.5 % with openai-usage".to_owned()));
    // More within the whole hours is no part of anything; more in the last one may be from after the evidence.
    let unrecorded = whole(Code::UnrecordedUsage, Effect::Incomplete);
    assert_eq!(reconcile(9000, 700, &[]).0, std::slice::from_ref(&unrecorded));
    assert_eq!(reconcile(9000, 7000, &[]).0, [unrecorded, reaching(Effect::Note)]);
    let (found, claim) = reconcile(1000, 7000, &[]);
    assert_eq!(found, [reaching(Effect::Note)]);
    assert_eq!(
        claim,
        "NOT reconciled throughout: 1 sums of openai-usage differ and reach beyond the asked interval \
         (all else that was compared agrees within 0.5 %)"
    );
    assert_eq!(reconcile(1000, 7000, &["--partial"]).0, [reaching(Effect::Incomplete)]);
    // What one hour has too much makes no other whole.
    assert_eq!(
        reconcile(500, 7000, &[]).0,
        [whole(Code::ReconcileDiff, Effect::Policy), reaching(Effect::Note)]
    );
}

/// A line of a provider's log of calls.
fn logged(n: u64, at: i64, input: u64, output: u64) -> String {
    serde_json::json!({ "schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "timestamp": time::text(at),
        "accountId": "111122223333", "identity": { "arn": "arn:aws:iam::111122223333:user/someone" },
        "region": "us-east-1", "requestId": format!("req-{n}"), "operation": "Converse", "modelId": "m",
        "input": { "inputContentType": "application/json", "inputTokenCount": input },
        "output": { "outputContentType": "application/json", "outputTokenCount": output } })
    .to_string()
        + "\n"
}

#[test]
fn calls_at_the_edges_of_what_is_asked_and_proven_accuse_nobody() {
    const MINUTE: i64 = 60 * SECOND;
    let at = |minutes: i64| START + minutes * MINUTE;
    let read = Made { role: UsageRole::Retrieved, ..made(at(70), "gpt-4o", 7, 0, 5) };
    let mut bench =
        bench(&[made(at(60), "gpt-4o", 1000, 0, 50), read, made(at(120), "small", 400, 0, 40)], None);
    let end = bench.to;
    let file = bench.path("calls.jsonl");
    let reconcile = |bench: &Bench, lines: &[String], more: &[&str]| {
        std::fs::write(&file, lines.concat()).unwrap();
        let export = format!("bedrock-log@openai={}", file.display());
        bench.reconciled(&[&["--export", &export], more].concat())
    };
    let stranger = |minutes| logged(9, at(minutes), 3, 3);
    let past = |effect| vec![(Code::UnrecordedUsage, effect, "call req-9".to_owned())];
    let agree = "reconciled within 0.5 % with bedrock-log@openai";
    let lines = [logged(1, at(60), 1000, 50), logged(2, at(70), 7, 5), logged(3, at(90), 400, 40)];
    // The third began in what is asked, and ended behind it; the second is not booked.
    bench.to = at(100);
    assert_eq!(reconcile(&bench, &lines, &[]), (vec![], agree.to_owned()));
    let with = |minutes| [&lines[..], &[stranger(minutes)]].concat();
    let (found, claim) = reconcile(&bench, &with(99), &[]);
    let of_line = |effect| vec![(Code::UnrecordedUsage, effect, "line 4, call req-9".to_owned())];
    assert_eq!(found, of_line(Effect::Incomplete), "the evidence is proven for a while behind it");
    assert!(claim.contains("beyond what was recorded"), "{claim}");
    // Where the evidence begins and ends, nothing is known.
    bench.to = end;
    for minutes in [1, 119] {
        let (found, claim) = reconcile(&bench, &with(minutes), &[]);
        assert_eq!(found, past(Effect::Note));
        assert!(claim.contains("1 calls of bedrock-log@openai are in no record that is proven"), "{claim}");
        assert_eq!(reconcile(&bench, &with(minutes), &["--partial"]).0, of_line(Effect::Incomplete));
    }
    assert_eq!(reconcile(&bench, &with(110), &[]).0, of_line(Effect::Incomplete));
    // An exchange is missing in a log that tells of the time around it, and not where the log ends beside it.
    let missing = |found: &[(Code, Effect, String)]| found.iter().any(|found| found.0 == Code::ReconcileDiff);
    bench.to = at(119);
    let log = |last| [logged(2, at(20), 7, 5), logged(3, at(last), 400, 40)];
    let (found, claim) = reconcile(&bench, &log(61), &[]);
    assert!(found.is_empty() && claim.starts_with("NOT reconciled"), "{found:?} {claim}");
    assert!(missing(&reconcile(&bench, &log(61), &["--partial"]).0));
    assert!(missing(&reconcile(&bench, &log(70), &[]).0));
}

#[test]
fn calls_are_found_again_by_the_providers_ids() {
    let bench = bench(
        &[made(START + SECOND, "gpt-4o", 1000, 100, 50), made(START + 2 * SECOND, "small", 400, 0, 40)],
        None,
    );
    let file = bench.path("calls.jsonl");
    let call = |n: u64, input: u64, output: u64| {
        logged(n, START + i64::try_from(n).unwrap() * SECOND, input, output)
    };
    let reconcile = |text: String| {
        std::fs::write(&file, text).unwrap();
        let export = format!("bedrock-log@openai={}", file.display());
        bench.run("reconcile", &["--export", &export, "--require", "claim=reconciled"]).unwrap()
    };
    assert_eq!(reconcile(call(1, 1000, 50) + &call(2, 400, 40)), 0);
    assert_eq!(reconcile(call(1, 1000, 50) + &call(2, 500, 40)), 1);
    // A call of nobody's record.
    let mut stranger = serde_json::from_str::<serde_json::Value>(&call(2, 1, 1)).unwrap();
    stranger["requestId"] = "req-9".into();
    assert_eq!(reconcile(call(1, 1000, 50) + &call(2, 400, 40) + &stranger.to_string()), 1);
    // An exchange within the log's time that is not in it.
    let mut last = serde_json::from_str::<serde_json::Value>(&call(2, 400, 40)).unwrap();
    last["timestamp"] = time::text(START).into();
    assert_eq!(reconcile(call(2, 400, 40) + &last.to_string()), 1);
}
