//! Pages over small stores, and over one large enough to wait for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser as _;
use schemas::record::{
    Attempt, AttemptNumber, Body, Cost, End, Refusal, Unpriced, Usage, UsageRole, UsageSource,
};
use tokio::runtime::Runtime;

use super::asked::Asked;
use super::content::Access;
use super::controls::Answer;
use super::filter::{Filter, Times, where_all};
use super::frame::Standing;
use super::page_key::{Listing, Sort};
use super::server::Settings;
use super::table::{self, Entry};
use super::visit::{self, Visit};
use super::{controls, cost, csv, exchange, exchanges, frame, overview, rows};
use crate::cli::{Asking, Cli, Command};
use crate::commands::assess::Questions;
use crate::decimal::Decimal;
use crate::fixture::{START, Writer, exchange_id, id, no_key, trust};
use crate::paper::html::{Cell, Html};
use crate::source::MemorySource;
use crate::time::{self, DAY, SECOND};

const TEAMS: [&str; 3] = ["quality", "sales", "research"];

/// A store with `n` exchanges: every tenth was refused, every third cost nothing that is known, many began at one moment.
fn written(n: u64) -> Writer {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    for i in 1..=n {
        if i % 4 == 0 {
            writer.now += DAY * 40 / i64::try_from(n).unwrap();
        }
        let exchange = exchange_id(i);
        let mut caller = Writer::caller();
        caller.team.as_mut().unwrap().value = id(TEAMS[i as usize % 3]);
        if i % 10 == 0 {
            let refusal = Writer::refusal(None);
            let (exchange, caller) = (Some(exchange), Some(caller));
            let reason = id("policy_denied");
            writer.push(Body::Refusal(Refusal {
                exchange,
                caller,
                reason,
                status: 403,
                asked: Some(Writer::asked()),
                ..refusal
            }));
        } else {
            let key = no_key(&writer);
            let (position, _) = writer.intent_with(exchange.clone(), key, vec![]);
            let usage = Usage {
                input_tokens: Some(1000),
                output_tokens: Some(i64::try_from(i % 7).unwrap()),
                ..Usage::of(UsageSource::Provider, UsageRole::Incurred)
            };
            let mut outcome = writer.outcome_of(exchange, position, None, vec![], usage);
            outcome.caller = caller;
            if i % 13 == 0 {
                outcome.end = End::ClientAbort;
            }
            if i % 3 != 0 {
                outcome.cost = Some(priced("USD", &format!("0.{:03}", i % 50 + 1)));
                outcome.unpriced = None;
            }
            writer.push(Body::Outcome(outcome));
        }
        if i % 5_000 == 0 {
            writer.seal();
        }
    }
    writer.close();
    writer
}

struct Place {
    dir: tempfile::TempDir,
    settings: Arc<Settings>,
    runtime: Runtime,
}

impl Place {
    fn new(writer: &Writer, packs: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &writer.store.objects {
            let path = dir.path().join("store").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        std::fs::write(dir.path().join("trust.yaml"), serde_json::to_string(&trust()).unwrap()).unwrap();
        let text = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let to = time::text(writer.now);
        let words = [
            "auditor".into(),
            "serve".into(),
            text("store"),
            "--trust".into(),
            text("trust.yaml"),
            "--state".into(),
            text("state"),
            "--to".into(),
            to,
        ];
        let Command::Serve(typed) = Cli::try_parse_from(words).unwrap().command else {
            panic!("another command")
        };
        let packs: Vec<String> = packs.iter().map(ToString::to_string).collect();
        let asking = Asking { register: vec![], set: vec![], control: vec![], exceptions: None, memory: 256 };
        let settings = Settings {
            evidence: typed.evidence,
            origin: None,
            login: false,
            questions: Questions::read(&packs, &asking).unwrap(),
            access: Access::default(),
            memory: 256,
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { dir, settings: Arc::new(settings), runtime }
    }
    fn visit(&self) -> Visit {
        visit::make(&self.settings, 1, false, self.runtime.handle()).unwrap()
    }
    fn list(&self, visit: &Visit, query: &str) -> String {
        let (filter, listing) = asked(query);
        self.runtime.block_on(exchanges::write(visit, &Standing::default(), &filter, &listing)).unwrap()
    }
    fn csv(&self, visit: &Visit, query: &str) -> Vec<Vec<String>> {
        let (filter, _) = asked(query);
        let (chunks, mut waiting) = tokio::sync::mpsc::channel(1);
        let all = self.runtime.block_on(async {
            let send = async {
                csv::send(visit, &filter, &chunks).await.unwrap();
                drop(chunks);
            };
            let take = async {
                let mut all = Vec::new();
                while let Some(chunk) = waiting.recv().await {
                    all.extend_from_slice(&chunk.unwrap());
                }
                all
            };
            tokio::join!(send, take).1
        });
        let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(all.as_slice());
        reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
    }
}

fn asked(query: &str) -> (Filter, Listing) {
    match Asked::read("/exchanges", query).unwrap() {
        Asked::Exchanges(filter, listing) => (filter, listing),
        other => panic!("{other:?}"),
    }
}

fn exchanges_of(page: &str) -> Vec<String> {
    let links = page.split("href=\"/exchange/").skip(1);
    links.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

/// Follows a list to its end; gives its exchanges in their order.
fn walk(place: &Place, visit: &Visit, query: &str) -> Vec<String> {
    let (mut all, mut query) = (Vec::new(), query.to_owned());
    loop {
        let page = place.list(visit, &query);
        all.extend(exchanges_of(&page));
        assert!(all.len() < 10_000, "no end");
        let next = page
            .split("<a href=\"/exchanges?")
            .find(|link| link.contains("rel=\"next\"") && link.find("rel=\"next\"") < link.find("</a>"));
        let Some(next) = next else { return all };
        query = next.split('"').next().unwrap().replace("&amp;", "&");
    }
}

#[test]
fn every_exchange_stands_on_one_page_in_every_order() {
    let place = Place::new(&written(230), &["soc2"]);
    let visit = place.visit();
    let known: BTreeSet<String> = (1..=230).map(|n| exchange_id(n).to_string()).collect();
    for (_, name, _) in Sort::ALL {
        let all = walk(&place, &visit, &format!("sort={name}"));
        assert_eq!(all.len(), 230, "{name}");
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), known, "{name}");
    }
    let newest = walk(&place, &visit, "");
    let mut oldest = walk(&place, &visit, "sort=oldest");
    assert_eq!(newest.len(), oldest.len());
    oldest.reverse();
    assert_ne!(newest[0], oldest[229]);
    // A list within a filter is whole too.
    let some = walk(&place, &visit, "team=sales&refused=no&sort=dearest");
    assert_eq!(some.len(), (1..=230).filter(|n| n % 3 == 1 && n % 10 != 0).count());
}

#[test]
fn a_filter_lets_through_what_it_says_and_the_csv_holds_the_same() {
    let place = Place::new(&written(120), &["soc2"]);
    let visit = place.visit();
    let refused = (1..=120).filter(|n| n % 10 == 0).count();
    let aborted = (1..=120).filter(|n| n % 13 == 0 && n % 10 != 0).count();
    let dear = (1..=120).filter(|n| n % 10 != 0 && n % 3 != 0 && n % 50 + 1 >= 45).count();
    let month = time::text(START + 20 * DAY);
    let late = (1..=120).filter(|n| n / 4 * (DAY * 40 / 120) + SECOND >= 20 * DAY).count();
    for (query, wanted) in [
        ("", 120),
        ("refused=yes", refused),
        ("end=refused", refused),
        ("end=client_abort", aborted),
        ("status=403", refused),
        ("status=404", 0),
        ("cost_from=0.045", dear),
        ("cost_from=0.045&cost_to=0.045", 0),
        ("consumer=tester&provider=openai&usage=provider", 120 - refused),
        ("model=gpt-4o", 120),
        ("model=%27+OR+1%3D1+--", 0),
        ("team=quality%27%27", 0),
    ] {
        let page = place.list(&visit, query);
        let said = if wanted == 1 { "1 exchange".to_owned() } else { format!("{wanted} exchanges") };
        assert!(page.contains(&format!("<strong>{said}</strong>")), "{query}: wanted {said}");
        let rows = place.csv(&visit, query);
        assert_eq!(rows.len(), wanted + 1, "{query}");
        assert!(rows[0].contains(&"exchange".to_owned()) && rows[0].contains(&"cost".to_owned()));
    }
    let since = place.csv(&visit, &format!("from={}", month.replace(':', "%3A"))).len() - 1;
    assert!(since.abs_diff(late) <= 4, "{since} since {month}, wanted about {late}");
}

#[test]
fn costs_are_the_sums_of_the_rows_and_the_story_is_the_records_own() {
    let place = Place::new(&written(120), &["soc2"]);
    let visit = place.visit();
    let sum = (1..=120_i128).filter(|n| n % 10 != 0 && n % 3 != 0).map(|n| n % 50 + 1).sum::<i128>();
    let page = place.runtime.block_on(cost::write(&visit, &Standing::default(), &Times::default())).unwrap();
    assert!(page.contains(&Decimal(sum * 1_000_000_000).to_string()), "{sum} in {page}");
    assert!(
        page.contains("<svg class=\"bars\"")
            && page.contains("By consumer")
            && page.contains("data-label=\"Team\" class=\"text\">sales")
    );
    let exchange_page = |n| {
        let (standing, id, access) = (Standing::default(), exchange_id(n), Access::default());
        place.runtime.block_on(exchange::write(&visit, &standing, &id, &access)).unwrap()
    };
    let story = exchange_page(1).unwrap();
    for wanted in [
        "intent, 2026-",
        "outcome, 2026-",
        "caller.team",
        "sales (key)",
        "Content is not shown",
        "What this page rests on",
    ] {
        assert!(story.contains(wanted), "{wanted} in {story}");
    }
    assert!(exchange_page(121).is_none());
    let health = overview::write(&visit, &Standing::default());
    for wanted in [
        visit.report.first_line(),
        "/verify?after=1&amp;all=yes".into(),
        "Claims, reached and not".into(),
        "log".into(),
    ] {
        assert!(health.contains(&wanted), "{wanted}");
    }
}

fn priced(currency: &str, total: &str) -> Cost {
    Cost {
        currency: id(currency),
        total: total.into(),
        classes: [("output".to_owned(), total.to_owned())].into(),
        price_book: schemas::Sha256Hex([1; 32]),
        price_row: id("row"),
    }
}

/// An exchange for each pair: what its answer cost, and what a target did that was tried before.
fn tried(all: &[(Option<Cost>, Option<Cost>)]) -> Writer {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let usage = || Usage { output_tokens: Some(7), ..Usage::of(UsageSource::Provider, UsageRole::Incurred) };
    for (n, (answer, before)) in (1..).zip(all) {
        let exchange = exchange_id(n);
        let key = no_key(&writer);
        let (intent_position, _) = writer.intent_with(exchange.clone(), key, vec![]);
        let mut outcome = writer.outcome_of(exchange.clone(), intent_position, None, vec![], usage());
        if let Some(cost) = before {
            let attempt = |number, phase, target| Attempt {
                intent_position,
                phase: id(phase),
                provider: Some(id("openai")),
                ..Attempt::new(
                    exchange.clone(),
                    AttemptNumber::new(number).unwrap(),
                    id(target),
                    id("fallback"),
                )
            };
            let first = attempt(0, "end", "openai-eu");
            let (end, usage, cost) = (Some(End::ProviderAbort), Some(usage()), Some(cost.clone()));
            writer.push(Body::Attempt(Attempt { end, usage, cost, ..first }));
            let second = attempt(1, "open", "openai-us");
            outcome.served = Some(second.served());
            writer.push(Body::Attempt(second));
        }
        outcome.unpriced = answer.is_none().then_some(Unpriced::NoPrice);
        outcome.cost = answer.clone();
        writer.push(Body::Outcome(outcome));
    }
    writer.close();
    writer
}

#[test]
fn what_was_tried_before_the_answer_is_in_the_cost_of_lists_filters_and_stories() {
    let usd = |total| Some(priced("USD", total));
    let all = [
        (usd("1"), usd("2")),
        (usd("2.5"), None),
        (Some(priced("EUR", "0.7")), usd("4")),
        (None, usd("0.5")),
        (None, None),
    ];
    let place = Place::new(&tried(&all), &["soc2"]);
    let visit = place.visit();
    let page = place.list(&visit, "sort=dearest");
    let order: Vec<String> = [1, 2, 3, 4, 5].map(|n| exchange_id(n).to_string()).into();
    assert_eq!(exchanges_of(&page), order);
    let cells = page.split("data-label=\"Cost\" class=\"number\">").skip(1);
    let told: Vec<&str> = cells.map(|cell| cell.split('<').next().unwrap()).collect();
    assert_eq!(told, ["3 USD", "2.5 USD", "0.7 EUR + 4 USD", "0.5 USD", "—"]);
    // A filter and the key of a page go by the same sum.
    for (query, wanted) in [
        ("cost_from=2.75", &order[..1]),
        ("cost_from=0.4&cost_to=0.6", &order[3..4]),
        (&format!("sort=dearest&after=3~{}~99", tried(&[]).origin), &order[1..]),
    ] {
        assert_eq!(exchanges_of(&place.list(&visit, query)), wanted, "{query}");
    }
    assert_eq!(place.csv(&visit, "cost_from=2.75").len(), 2);
    let story = |n| {
        let (standing, id, access) = (Standing::default(), exchange_id(n), Access::default());
        place.runtime.block_on(exchange::write(&visit, &standing, &id, &access)).unwrap().unwrap()
    };
    let fact = |n, name: &str| -> Option<String> {
        let story = story(n);
        let (_, rest) = story.split_once(&format!("<dt>{name}</dt>"))?;
        Some(rest.split_once("<dd>")?.1.split('<').next()?.to_owned())
    };
    assert_eq!(fact(1, "Cost").as_deref(), Some("3 USD"));
    assert_eq!(fact(1, "Of it tried before").as_deref(), Some("2 USD"));
    assert_eq!((fact(2, "Cost").as_deref(), fact(2, "Of it tried before")), (Some("2.5 USD"), None));
    assert_eq!(fact(3, "Cost").as_deref(), Some("0.7 EUR + 4 USD"));
    // As the page of costs adds them up.
    let page = place.runtime.block_on(cost::write(&visit, &Standing::default(), &Times::default())).unwrap();
    assert!(page.contains(">10 ") || page.contains(">10<"), "{page}");
}

#[test]
fn answers_of_unknown_usage_stand_apart_from_those_without_a_price() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    for (n, source) in [(1, UsageSource::Provider), (2, UsageSource::Unknown), (3, UsageSource::Unknown)] {
        let key = no_key(&writer);
        let (position, _) = writer.intent_with(exchange_id(n), key, vec![]);
        let usage = Usage::of(source, UsageRole::Incurred);
        writer.push(Body::Outcome(writer.outcome_of(exchange_id(n), position, None, vec![], usage)));
    }
    writer.close();
    let place = Place::new(&writer, &["soc2"]);
    let page = place.runtime.block_on(cost::write(&place.visit(), &Standing::default(), &Times::default()));
    let page = page.unwrap();
    assert!(page.contains("1 answer with usage have no price, 2 have unknown usage."), "{page}");
}

fn pack(place: &Place, visit: &Arc<Visit>, name: &str, patience: Duration) -> Answer<String> {
    let standing = Standing::default();
    place.runtime.block_on(controls::pack(visit, &standing, &place.settings, name, patience)).unwrap()
}

#[test]
fn a_pack_that_takes_long_holds_no_page_up_and_its_answers_are_kept() {
    let place = Place::new(&written(30), &["soc2", "gdpr"]);
    let visit = Arc::new(place.visit());
    let list = || controls::list(&visit, &Standing::default(), &place.settings);
    // Whoever opened it does not wait.
    assert_eq!(pack(&place, &visit, "soc2", Duration::ZERO), Answer::Asking);
    assert_eq!(list().matches("not asked yet").count(), 2);
    let begun = Instant::now();
    while list().matches("not asked yet").count() == 2 {
        assert!(begun.elapsed() < Duration::from_secs(300), "the answers are not kept");
        std::thread::sleep(Duration::from_millis(20));
    }
    // While another is asked, what was answered is shown, and nothing waits.
    let turn = place.runtime.block_on(visit.asking.lock());
    let begun = Instant::now();
    assert!(matches!(pack(&place, &visit, "soc2", Duration::ZERO), Answer::Is(_)));
    assert_eq!(pack(&place, &visit, "gdpr", Duration::from_secs(300)), Answer::Asking);
    assert_eq!(list().matches("not asked yet").count(), 1);
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(turn);
}

#[test]
fn a_pack_is_asked_when_it_is_opened_and_its_exceptions_lead_to_exchanges() {
    let place = Place::new(&written(30), &["soc2", "gdpr"]);
    let visit = Arc::new(place.visit());
    let list = || controls::list(&visit, &Standing::default(), &place.settings);
    assert_eq!(list().matches("not asked yet").count(), 2);
    let patience = Duration::from_secs(300);
    let pack = |name: &str| match pack(&place, &visit, name, patience) {
        Answer::Is(page) => Some(page),
        Answer::NoPack => None,
        Answer::Asking => panic!("`{name}` is being asked"),
    };
    let page = pack("soc2").unwrap();
    assert!(page.contains("cc6.1-callers") && page.contains("What this evidence cannot show"));
    assert!(page.contains("href=\"/exchange/"), "no exception of an exchange: {page}");
    assert_eq!(list().matches("not asked yet").count(), 1);
    let begun = Instant::now();
    assert_eq!(pack("soc2").unwrap(), page);
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert!(pack("none").is_none());
}

#[test]
fn an_interval_that_is_not_over_is_shown_as_far_as_it_is_settled() {
    let began = time::now() - 60 * SECOND;
    let mut writer = Writer::boot("20260921t133320z-00000001", began, None, MemorySource::default());
    writer.exchange(1, b"q", b"a");
    writer.close();
    let mut place = Place::new(&writer, &["soc2"]);
    let asked = began + 30 * DAY;
    Arc::get_mut(&mut place.settings).unwrap().evidence.to = Some(time::text(asked));
    let data = place.visit().data;
    assert_eq!(data.verdict, "VERIFIED", "{:?}", data.findings);
    assert_eq!((data.asked_to, data.period.to), (Some(asked), data.checked_at));
}

#[test]
fn a_visit_holds_no_other_auditor_up_and_leaves_nothing() {
    let place = Place::new(&written(30), &["soc2"]);
    let first = place.visit();
    // The cache is free: another pass over the same state does not wait.
    let second = visit::make(&place.settings, 2, true, place.runtime.handle()).unwrap();
    for visit in [&first, &second] {
        let sql = format!("SELECT count(*) FROM exchanges{}", where_all(&[]));
        let counted = place.runtime.block_on(rows::ask(&visit.context, &sql, 1)).unwrap();
        assert_eq!(counted[0].count(0), 30);
    }
    drop((first, second));
    let left = std::fs::read_dir(place.dir.path().join("state")).unwrap();
    let left: Vec<_> = left
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with("serve-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

const HOSTILE: &str = "</td></pre><script>alert(1)</script>\"'&<img src=x onerror=y>\u{202e}\u{1b}[31m\u{0}";

#[test]
fn what_others_wrote_stays_text() {
    let mut html = Html::served(HOSTILE, frame::STYLE);
    let cells = vec![vec![Entry::from(HOSTILE.to_owned()), Entry::to(HOSTILE, "/exchange/1")]];
    table::write(&mut html, HOSTILE, &[(HOSTILE, Cell::Text), (HOSTILE, Cell::Code)], &cells);
    let written = html.finish();
    let refused = frame::refusal(HOSTILE, HOSTILE);
    let place = Place::new(&written_small(), &["soc2"]);
    let visit = place.visit();
    let standing = Standing { since: Some(START), failed: Some((START, HOSTILE.into())) };
    let health = overview::write(&visit, &standing);
    assert!(
        health.contains("could not be verified again") && health.contains("is being verified again since")
    );
    for page in [written, refused, health] {
        let body = page.split("</style>").nth(1).unwrap();
        assert!(
            !body.contains("<script") && !body.contains("<img") && !body.contains("</pre></td>"),
            "{body}"
        );
        assert!(!page.contains('\u{202e}') && !page.contains('\u{1b}') && !page.contains('\u{0}'));
        assert!(body.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;&lt;img"));
        assert!(body.contains("\\u{202e}\\u{1b}[31m"));
    }
}

fn written_small() -> Writer {
    written(4)
}

#[test]
fn pages_are_made_well_within_a_second() {
    let n = if std::env::var_os("AFFIDAVIT_LONG").is_some() { 100_000 } else { 4_000 };
    let writer = written(n);
    let place = Place::new(&writer, &["soc2"]);
    let begun = Instant::now();
    let visit = place.visit();
    println!("{n} exchanges: verified and made ready in {} ms", begun.elapsed().as_millis());
    let standing = Standing::default();
    let last = exchange_id(n - 1);
    for turn in ["first", "second"] {
        let mut slowest = Duration::ZERO;
        let mut timed = |what: &str, make: &mut dyn FnMut() -> String| {
            let begun = Instant::now();
            let page = make();
            let took = begun.elapsed();
            println!("  {turn} {what}: {} ms, {} bytes", took.as_millis(), page.len());
            slowest = slowest.max(took);
        };
        timed("overview", &mut || overview::write(&visit, &standing));
        for query in [
            "",
            "sort=dearest",
            "team=sales&refused=no&sort=slowest",
            "from=2026-10-01&to=2026-10-02",
            "cost_from=0.05",
        ] {
            timed(&format!("exchanges?{query}"), &mut || place.list(&visit, query));
        }
        timed("exchange", &mut || {
            place
                .runtime
                .block_on(exchange::write(&visit, &standing, &last, &Access::default()))
                .unwrap()
                .unwrap()
        });
        timed("cost", &mut || {
            place.runtime.block_on(cost::write(&visit, &standing, &Times::default())).unwrap()
        });
        println!("  {turn} slowest: {} ms", slowest.as_millis());
        // Of the development profile, on a machine that others load too; alone and released it is a fraction.
        assert!(slowest < Duration::from_secs(10));
    }
    let begun = Instant::now();
    let rows = place.csv(&visit, "").len();
    println!("  {rows} lines of CSV in {} ms", begun.elapsed().as_millis());
}
