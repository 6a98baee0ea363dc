//! Rules over counters of this process: whom they fit, what they take, and what is left in the end.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};
use schemas::Identifier;
use schemas::record::{Asked, Attributed, Caller, Cost, Source};

use super::rule::Rule;
use super::*;
use crate::config::{Calendar, Count, CountedBy, QuotaMatch, QuotaRule, Then, WindowKind};
use crate::telemetry::Telemetry;

const MINUTE: Duration = Duration::from_secs(60);

fn name(text: &str) -> Identifier {
    Identifier::new(text).unwrap()
}

fn rule(count: Option<Count>, limit: &str) -> QuotaRule {
    QuotaRule {
        name: name("r"),
        matches: QuotaMatch::default(),
        by: Vec::new(),
        count,
        expression: None,
        currency: (count == Some(Count::Money)).then(|| "USD".into()),
        limit: limit.into(),
        per: (count != Some(Count::Concurrency)).then_some(60 * MINUTE),
        window: None,
        calendar: None,
        time_zone: None,
        warn_at: Vec::new(),
        then: Then::Refuse,
        message: None,
    }
}

fn quotas(rules: Vec<QuotaRule>) -> Quotas {
    let config = config::Quotas { rules, default_output: 100, ..config::Quotas::default() };
    Quotas::new(&config, Passwords::default(), None, None, &Telemetry::new().quotas)
}

fn caller(consumer: &str) -> Caller {
    let consumer = Attributed { value: name(consumer), source: Source::Key };
    Caller { consumer: Some(consumer), ..Caller::default() }
}

fn asked(max_output: Option<i64>) -> Asked {
    let names = crate::app::Pseudonyms::new(&[7; 32]);
    let operation = chat();
    let asked = crate::record::asked(None, Some(operation), &Method::POST, &names);
    Asked { requested_model: Some(name("gpt-4o")), max_output_tokens: max_output, ..asked }
}

fn chat() -> Operation {
    dialects::operation(dialects::Dialect::OpenAi, &Method::POST, "/v1/chat/completions")
}

fn usage(source: UsageSource, input: i64, output: i64) -> Usage {
    Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::of(source, UsageRole::Incurred) }
}

/// 10 tokens of input, and what `asked` says.
fn load(asked: &Asked, operation: Operation) -> Load {
    Load {
        operation,
        input_tokens: 10,
        max_output_tokens: asked.max_output_tokens,
        choices: asked.choices,
        is_sound: true,
        writes_cache: false,
    }
}

/// A request without prices.
fn request<'a>(caller: &'a Caller, asked: &'a Asked, headers: &'a HeaderMap, load: &'a Load) -> Request<'a> {
    let who = Who::of(caller, asked, headers);
    Request { who, asked, load, prices: None, price_name: "openai" }
}

/// One request of a consumer: 10 tokens of input, and at most so many of output.
async fn reserve(quotas: &Quotas, consumer: &str, output: i64) -> Result<Option<Reservation>, Refused> {
    let (caller, asked, headers) = (caller(consumer), asked(Some(output)), HeaderMap::new());
    let load = load(&asked, chat());
    quotas.reserve(&request(&caller, &asked, &headers, &load), Stage::Exchange).await
}

async fn taken(quotas: &Quotas, consumer: &str, output: i64) -> Reservation {
    reserve(quotas, consumer, output).await.expect("there is room").expect("a rule fits")
}

async fn full(quotas: &Quotas, consumer: &str, output: i64) -> Box<Full> {
    match reserve(quotas, consumer, output).await {
        Err(Refused::Full(full)) => full,
        other => panic!("{other:?}"),
    }
}

/// What a request of 10 tokens of input is taken to use at most, where `default_output` is 100.
fn estimated(operation: &Operation, method: &Method, model: &str, max_output: Option<i64>) -> (u64, u64) {
    let asked = Asked {
        method: Some(name(method.as_str())),
        requested_model: Some(name(model)),
        ..asked(max_output)
    };
    let (caller, headers) = (caller("a"), HeaderMap::new());
    let quotas = quotas(vec![rule(Some(Count::Tokens), "100")]);
    let load = load(&asked, *operation);
    let estimate = quotas.estimate(&request(&caller, &asked, &headers, &load));
    (estimate.input, estimate.output)
}

#[test]
fn what_a_model_may_write_is_reserved_in_every_dialect() {
    use dialects::Dialect::{Anthropic, Bedrock, Cohere, Gemini, Ollama, OpenAi, Vertex, Watsonx};
    let vertex = "/v1/projects/p/locations/l/publishers/google/models";
    let writing = [
        (OpenAi, "/v1/chat/completions".to_owned()),
        (OpenAi, "/v1/threads/t/runs".to_owned()),
        (Anthropic, "/v1/messages".to_owned()),
        (Anthropic, "/v1/experimental/generate_prompt".to_owned()),
        (Gemini, "/v1beta/models/g:generateContent".to_owned()),
        (Gemini, "/v1beta/models/g:streamGenerateContent".to_owned()),
        (Gemini, "/v1beta/interactions".to_owned()),
        (Vertex, format!("{vertex}/g:streamGenerateContent")),
        (Vertex, format!("{vertex}/medlm:predict")),
        (Bedrock, "/model/m/converse".to_owned()),
        (Bedrock, "/model/m/converse-stream".to_owned()),
        (Bedrock, "/model/m/invoke".to_owned()),
        (Bedrock, "/model/m/invoke-with-response-stream".to_owned()),
        (Cohere, "/v2/chat".to_owned()),
        (Cohere, "/v1/generate".to_owned()),
        (Ollama, "/api/chat".to_owned()),
        (Ollama, "/api/generate".to_owned()),
        (Watsonx, "/ml/v1/text/generation_stream".to_owned()),
    ];
    for (dialect, path) in writing {
        let operation = dialects::operation(dialect, &Method::POST, &path);
        let of = |max| estimated(&operation, &Method::POST, "m", max);
        assert_eq!((of(Some(7)), of(None), of(Some(-1))), ((10, 7), (10, 100), (10, 100)), "{path}");
    }
    let image = dialects::operation(OpenAi, &Method::POST, "/v1/images/generations");
    assert_eq!(estimated(&image, &Method::POST, "gpt-image-1", Some(7)), (10, 100), "no request bounds it");
    let embeds = dialects::operation(Bedrock, &Method::POST, "/model/m/invoke");
    assert_eq!(estimated(&embeds, &Method::POST, "amazon.titan-embed-text-v2:0", None), (10, 0));
    let reads = dialects::operation(OpenAi, &Method::POST, "/v1/embeddings");
    assert_eq!(estimated(&reads, &Method::POST, "m", None), (10, 0));
    let files = dialects::operation(OpenAi, &Method::POST, "/v1/files");
    assert_eq!(estimated(&files, &Method::POST, "m", None), (0, 0));
    let maker = Some(dialects::Maker::Mistral);
    let runs = dialects::operation_at(OpenAi, maker, &Method::POST, "/v1/conversations/c");
    assert_eq!(estimated(&runs, &Method::POST, "m", Some(7)), (10, 7));
    let stores = dialects::operation(OpenAi, &Method::POST, "/v1/conversations");
    assert_eq!(estimated(&stores, &Method::POST, "m", Some(7)), (0, 0));
}

#[test]
fn what_nobody_knows_is_reserved_and_stays_so_where_nothing_is_told() {
    let of = |method: Method, max| {
        let operation = dialects::operation(dialects::Dialect::OpenAi, &method, "/completion");
        assert!(operation.is_other());
        estimated(&operation, &method, "m", max)
    };
    assert_eq!((of(Method::POST, None), of(Method::POST, Some(500))), ((10, 100), (10, 500)));
    assert_eq!(of(Method::POST, Some(1)), (10, 100), "it may be no bound there");
    assert_eq!((of(Method::GET, None), of(Method::DELETE, None)), ((0, 0), (0, 0)));
    let tokens = Rule::new(&rule(Some(Count::Tokens), "1000"));
    let untold = Usage::of(UsageSource::Unknown, UsageRole::None);
    assert_eq!(tokens.charges(&untold, None, Went::There, 110), None);
    assert_eq!(tokens.charges(&untold, None, Went::There, 0), Some(0));
    assert_eq!(tokens.charges(&untold, None, Went::Nowhere, 110), Some(0));
    assert_eq!(tokens.charges(&usage(UsageSource::Provider, 10, 5), None, Went::Nowhere, 110), Some(15));
    assert_eq!(tokens.charges(&usage(UsageSource::Partial, 10, 5), None, Went::Nowhere, 110), Some(15));
    assert_eq!(tokens.charges(&usage(UsageSource::Provider, 10, 5), None, Went::There, 110), Some(15));
    let retrieved = Usage { role: UsageRole::Retrieved, ..untold };
    assert_eq!(tokens.charges(&retrieved, None, Went::There, 110), Some(0));
}

#[tokio::test]
async fn a_sum_of_any_class_is_reserved_before_it_is_known() {
    let mut images = rule(None, "100");
    images.expression = Some("output_image + 0.1 * cache_read".into());
    let quotas = quotas(vec![images]);
    let first = taken(&quotas, "a", 60).await;
    let refused = full(&quotas, "a", 60).await.record().unwrap();
    assert_eq!((refused.used.as_str(), refused.wanted.as_str()), ("61", "61"), "all may be of images");
    let told = Usage { output_image_tokens: Some(60), ..usage(UsageSource::Provider, 10, 60) };
    first.settle(&told, None, Went::There).await;
    assert_eq!(full(&quotas, "a", 60).await.record().unwrap().used, "60");
}

#[tokio::test]
async fn what_is_reserved_is_settled_and_what_is_dropped_is_given_back() {
    let quotas = quotas(vec![rule(Some(Count::Tokens), "100")]);
    let first = taken(&quotas, "a", 80).await;
    let refused = full(&quotas, "a", 80).await;
    // Only a reservation is in the way: it may soon be free.
    let mut headers = HeaderMap::new();
    refused.tell(&mut headers);
    assert_eq!(headers["retry-after"], "2");
    assert!(!headers.contains_key("x-should-retry"));
    first.settle(&usage(UsageSource::Provider, 10, 5), None, Went::There).await;
    let second = taken(&quotas, "a", 70).await;
    drop(second);
    taken(&quotas, "a", 75).await.settle(&usage(UsageSource::Provider, 10, 75), None, Went::There).await;
    let refused = full(&quotas, "a", 1).await;
    let record = refused.record().unwrap();
    assert_eq!((record.limit.as_str(), record.used.as_str(), record.wanted.as_str()), ("100", "100", "11"));
    let mut headers = HeaderMap::new();
    refused.tell(&mut headers);
    assert_eq!(headers["x-ratelimit-limit"], "100");
    assert_eq!(headers["x-ratelimit-remaining"], "0");
    assert_eq!(headers["ratelimit-policy"], "\"r\";q=100;w=3600;qu=\"tokens\"");
    let wait: i64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    assert_eq!(headers.contains_key("x-should-retry"), wait > 60);
}

#[tokio::test]
async fn a_use_that_nobody_told_stays_as_it_was_reserved() {
    let quotas = quotas(vec![rule(Some(Count::Tokens), "100")]);
    let unknown = Usage { input_tokens: None, output_tokens: None, ..usage(UsageSource::Unknown, 0, 0) };
    taken(&quotas, "a", 20).await.settle(&unknown, None, Went::There).await;
    assert_eq!(full(&quotas, "a", 80).await.record().unwrap().used, "30");
    // A lower bound counts where it is more, and a refusal of the provider costs nothing.
    taken(&quotas, "a", 10).await.settle(&usage(UsageSource::Partial, 10, 25), None, Went::There).await;
    taken(&quotas, "a", 10).await.settle(&unknown, None, Went::Nowhere).await;
    let retrieved = Usage { role: UsageRole::Retrieved, ..usage(UsageSource::Provider, 900, 900) };
    taken(&quotas, "a", 10).await.settle(&retrieved, None, Went::There).await;
    assert_eq!(full(&quotas, "a", 80).await.record().unwrap().used, "65");
}

#[test]
fn an_estimate_of_a_part_takes_nothing_off_a_reservation() {
    let tokens = Rule::new(&rule(Some(Count::Tokens), "100"));
    let estimated = usage(UsageSource::Estimated, 10, 5);
    assert_eq!(tokens.charges(&estimated, None, Went::There, 30), Some(15));
    assert_eq!(tokens.charges(&estimated, None, Went::Partly, 30), None);
    assert_eq!(tokens.charges(&estimated, None, Went::Partly, 12), Some(15));
    let half = Usage { output_tokens: None, ..estimated };
    assert_eq!(tokens.charges(&half, None, Went::Partly, 30), None);
}

#[tokio::test]
async fn each_combination_of_facts_has_its_counter_and_only_those_that_fit() {
    let mut by = rule(Some(Count::Requests), "1");
    by.by = vec![CountedBy::Consumer];
    by.matches.consumers = vec!["a*".into(), "b".into(), "!a-free".into()];
    let quotas = quotas(vec![by]);
    let one = taken(&quotas, "a", 1).await;
    full(&quotas, "a", 1).await;
    taken(&quotas, "b", 1).await.settle(&usage(UsageSource::Provider, 1, 1), None, Went::Nowhere).await;
    // A request counts wherever it went; one that never went does not.
    full(&quotas, "b", 1).await;
    drop(one);
    drop(taken(&quotas, "a", 1).await);
    for free in ["a-free", "c"] {
        assert!(reserve(&quotas, free, 1).await.unwrap().is_none(), "{free}");
    }
}

#[test]
fn by_group_each_group_that_the_rule_fits_has_its_counter_also_beyond_those_of_the_record() {
    let groups: Vec<Identifier> = (0..200).map(|n| name(&format!("g{n}"))).collect();
    let (mut caller, asked, headers) = (caller("a"), asked(None), HeaderMap::new());
    caller.groups = groups[..32].to_vec();
    let mut typed = rule(Some(Count::Requests), "1");
    typed.by = vec![CountedBy::Group];
    let counters = |typed: &QuotaRule, counted: &[Identifier]| {
        let who = Who { counted, ..Who::of(&caller, &asked, &headers) };
        let mut takes = Rule::new(typed).takes(&who, 1, 0).1;
        takes.dedup_by(|a, b| a.key == b.key);
        takes
    };
    assert_eq!(counters(&typed, &groups).len(), 200);
    // The last of them is full: nobody gets by it with 32 others before it.
    let local = Local::default();
    let mut last = counters(&typed, &groups[199..]);
    assert!(matches!(local.reserve(&mut last), Taken::All(_)));
    assert!(matches!(local.reserve(&mut counters(&typed, &groups)), Taken::None(..)));
    assert!(matches!(local.reserve(&mut counters(&typed, &groups[..199])), Taken::All(_)));
    typed.matches.groups = vec!["g1?".into(), "!g200".into()];
    assert_eq!(counters(&typed, &groups).len(), 10, "a group that the rule does not fit is not counted by");
    assert_eq!(counters(&typed, &[]).len(), 1, "no group is a value of its own");
}

#[tokio::test]
async fn what_is_under_way_is_counted_until_its_end() {
    let quotas = quotas(vec![rule(Some(Count::Concurrency), "2")]);
    let (one, two) = (taken(&quotas, "a", 1).await, taken(&quotas, "a", 1).await);
    // What is under way has no end that could be told: the provider's own does not stand in its place.
    let mut headers = HeaderMap::new();
    headers.insert("x-ratelimit-reset", HeaderValue::from(99));
    show_left([&one], &mut headers);
    assert!(headers["x-ratelimit-limit"] == "2" && !headers.contains_key("x-ratelimit-reset"));
    let mut headers = HeaderMap::new();
    full(&quotas, "a", 1).await.tell(&mut headers);
    assert_eq!(headers["retry-after"], "1");
    one.settle(&usage(UsageSource::Provider, 1, 1), None, Went::There).await;
    let three = taken(&quotas, "a", 1).await;
    drop((two, three));
    assert_eq!(
        quotas
            .hub
            .local
            .look(
                &Rule::new(&rule(Some(Count::Concurrency), "2"))
                    .takes(&Who::of(&caller("a"), &asked(None), &HeaderMap::new()), 1, 0)
                    .1[0]
            )
            .held,
        0
    );
}

#[tokio::test]
async fn a_rule_that_observes_refuses_nobody_and_one_beside_it_does() {
    let mut observing = rule(Some(Count::Requests), "0");
    observing.then = Then::Observe;
    let mut strict = rule(Some(Count::OutputTokens), "50");
    strict.name = name("strict");
    let quotas = quotas(vec![observing, strict]);
    drop(taken(&quotas, "a", 50).await);
    assert_eq!(full(&quotas, "a", 51).await.rule(), "strict");
}

#[tokio::test]
async fn money_is_counted_to_the_billionth_and_in_its_currency() {
    let money = rule(Some(Count::Money), "0.00001");
    let ready = Rule::new(&money);
    let cost = |total: &str, currency: &str| Cost {
        currency: name(currency),
        total: total.into(),
        classes: Default::default(),
        price_book: schemas::Sha256Hex::of(b""),
        price_row: name("row"),
    };
    let charged = |total, currency| {
        ready.charges(&usage(UsageSource::Provider, 1, 1), Some(&cost(total, currency)), Went::There, 7)
    };
    assert_eq!(charged("0.00000405", "USD"), Some(4050));
    assert_eq!(charged("0.000000000001", "USD"), Some(1));
    assert_eq!(charged("5", "EUR"), Some(0));
    assert_eq!(ready.charges(&usage(UsageSource::Provider, 1, 1), None, Went::There, 7), None);
    assert_eq!((ready.limit, ready.show(4050)), (10_000, "0.00000405".into()));
    let quotas = quotas(vec![money]);
    let first = taken(&quotas, "a", 1).await;
    first.settle(&usage(UsageSource::Provider, 1, 1), Some(&cost("0.000010001", "USD")), Went::There).await;
    // Nothing has a price here, so nothing is reserved: it is over, and the next is refused.
    assert_eq!(full(&quotas, "a", 1).await.record().unwrap().used, "0.000010001");
}

#[test]
fn windows_have_counters_of_their_own_and_a_sliding_one_looks_back() {
    let (caller, asked, headers) = (caller("a"), asked(None), HeaderMap::new());
    let who = Who::of(&caller, &asked, &headers);
    let mut typed = rule(Some(Count::Tokens), "100");
    typed.per = Some(MINUTE);
    let local = Local::default();
    let spend = |rule: &Rule, amount: u64, now: i64| {
        let (_, mut takes) = rule.takes(&who, amount, now);
        match local.reserve(&mut takes) {
            Taken::All(_) => {
                local.settle(&[Settle { spent: amount, ..takes[0].settle(1) }]);
                true
            }
            Taken::None(..) => false,
        }
    };
    let fixed = Rule::new(&typed);
    assert!(spend(&fixed, 100, 59_999) && !spend(&fixed, 1, 59_999) && spend(&fixed, 100, 60_000));
    typed.name = name("sliding");
    typed.window = Some(WindowKind::Sliding);
    let sliding = Rule::new(&typed);
    assert!(spend(&sliding, 100, 59_999) && !spend(&sliding, 1, 60_000));
    // A quarter of a minute later a quarter of it is free.
    assert!(!spend(&sliding, 26, 75_000) && spend(&sliding, 25, 75_000) && !spend(&sliding, 1, 75_000));
    typed.name = name("month");
    (typed.per, typed.window, typed.calendar) = (None, None, Some(Calendar::Month));
    let month = Rule::new(&typed);
    let day = 86_400_000;
    assert!(spend(&month, 100, 30 * day) && !spend(&month, 1, 31 * day - 1) && spend(&month, 1, 31 * day));
}

/// However requests come, end, fail and are dropped: what is spent and what is held are never over the limit, as long as no
/// use is more than was reserved for it.
#[test]
fn nothing_is_ever_over_the_limit() {
    let (caller, asked) = (caller("a"), asked(None));
    let mut seed = 88_172_645_463_325_252_u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for round in 0..50 {
        let mut typed = rule(Some(Count::Tokens), "1000");
        typed.per = Some(MINUTE);
        typed.by = vec![CountedBy::Header("x-app".into())];
        let other = QuotaRule { name: name("all"), by: Vec::new(), limit: "1500".into(), ..typed.clone() };
        let rules = [Rule::new(&typed), Rule::new(&other)];
        let local = Local::default();
        let mut open: Vec<(Vec<Take>, u64)> = Vec::new();
        let mut now = round * 1000;
        for _ in 0..400 {
            let headers = HeaderMap::from_iter([("x-app".parse().unwrap(), HeaderValue::from(random(3)))]);
            let who = Who::of(&caller, &asked, &headers);
            let amount = random(400);
            let mut takes: Vec<Take> =
                rules.iter().flat_map(|rule| rule.takes(&who, amount, now).1).collect();
            if let Taken::All(used) = local.reserve(&mut takes) {
                for (take, used) in takes.iter().zip(used) {
                    assert!(used.all() + amount <= take.limit, "{take:?} {used:?}");
                }
                open.push((takes, amount));
            }
            while open.len() > 4 || (!open.is_empty() && random(2) == 0) {
                let (takes, amount) = open.swap_remove(usize::try_from(random(open.len() as u64)).unwrap());
                let spent = random(amount + 1);
                let settles: Vec<Settle> =
                    takes.iter().map(|take| Settle { spent, ..take.settle(1) }).collect();
                for (used, take) in local.settle(&settles).iter().zip(&takes) {
                    assert!(used.all() <= take.limit, "{take:?} {used:?}");
                }
            }
            now += i64::try_from(random(3000)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_thousand_at_once_on_a_budget_for_ten_ten_pass() {
    let quotas = Arc::new(quotas(vec![rule(Some(Count::Tokens), "1000")]));
    let callers = (0..1000).map(|_| {
        let quotas = Arc::clone(&quotas);
        tokio::spawn(async move { reserve(&quotas, "a", 90).await.ok().flatten() })
    });
    let all = futures_util::future::join_all(callers).await;
    let passed: Vec<Reservation> = all.into_iter().filter_map(|one| one.unwrap()).collect();
    assert_eq!(passed.len(), 10);
}

#[tokio::test]
async fn a_reload_keeps_what_was_counted() {
    let old = quotas(vec![rule(Some(Count::Requests), "2")]);
    taken(&old, "a", 1).await.settle(&usage(UsageSource::Provider, 1, 1), None, Went::There).await;
    let config =
        config::Quotas { rules: vec![rule(Some(Count::Requests), "1")], ..config::Quotas::default() };
    for same in [true, false] {
        let new =
            Quotas::new(&config, Passwords::default(), None, Some((&old, same)), &Telemetry::new().quotas);
        assert_eq!(full(&new, "a", 1).await.record().unwrap().used, "1");
    }
}

const BOOK: &str = "\
id,provider,model,tier,input_above,valid_from,valid_until,currency,input,cache_read,cache_write_5m,cache_write_1h,output,input_audio,output_audio,input_image,source,read_on,note
a,openai,gpt-4o,standard,,2026-01-01,,USD,1,0.1,1.25,2,4,,,,https://x.test,2026-01-01,
b,openai,gpt-4o-mini,standard,,2026-01-01,,USD,0.1,,,,0.4,,,,https://x.test,2026-01-01,
";

/// What a request for `asked`, sent as `sent`, costs at most by [`BOOK`] with 10 tokens of input and 100 of output.
fn costs(asked_model: &str, sent: Option<&str>, writes_cache: bool) -> Option<String> {
    let book = PriceBook::parse(BOOK.as_bytes()).unwrap();
    let asked =
        Asked { requested_model: Some(name(asked_model)), sent_model: sent.map(name), ..asked(Some(100)) };
    let (caller, headers) = (caller("a"), HeaderMap::new());
    let load = Load { writes_cache, ..load(&asked, chat()) };
    let request = Request { prices: Some(&book), ..request(&caller, &asked, &headers, &load) };
    quotas(vec![rule(Some(Count::Money), "1")]).estimate(&request).cost.map(|cost| cost.total)
}

#[test]
fn money_is_reserved_at_the_prices_of_what_is_sent() {
    let table = [
        ("gpt-4o", None, false, Some("0.00041")),
        ("smart", Some("gpt-4o"), false, Some("0.00041")),
        ("gpt-4o-mini", Some("gpt-4o"), false, Some("0.00041")),
        ("gpt-4o", Some("gpt-4o-mini"), false, Some("0.000041")),
        // The name of a deployment prices nothing.
        ("gpt-4o", Some("our-deployment"), false, Some("0.00041")),
        ("smart", Some("our-deployment"), false, None),
        ("gpt-4o", None, true, Some("0.00042")),
        ("gpt-4o-mini", None, true, Some("0.000041")),
    ];
    for (asked, sent, writes_cache, cost) in table {
        assert_eq!(costs(asked, sent, writes_cache).as_deref(), cost, "{asked} {sent:?} {writes_cache}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_bounds_nothing() {
    let (caller, headers) = (caller("a"), HeaderMap::new());
    let quotas = quotas(vec![rule(Some(Count::Tokens), "100")]);
    for (bound, wanted) in [(7, 100), (700, 700)] {
        let asked = asked(Some(bound));
        let load = Load { is_sound: false, ..load(&asked, chat()) };
        assert_eq!(quotas.estimate(&request(&caller, &asked, &headers, &load)).output, wanted);
    }
}

#[test]
fn a_rule_by_models_fits_either_name_and_counts_what_is_sent() {
    let (caller, headers) = (caller("a"), HeaderMap::new());
    let named = |requested: &str, sent: Option<&str>| Asked {
        requested_model: Some(name(requested)),
        sent_model: sent.map(name),
        ..asked(None)
    };
    let fits = |models: &[&str], requested: &str, sent: Option<&str>| {
        let mut typed = rule(Some(Count::Requests), "1");
        typed.matches.models = models.iter().map(|model| (*model).to_owned()).collect();
        Rule::new(&typed).fits(&Who::of(&caller, &named(requested, sent), &headers))
    };
    let table: [(&[&str], &str, Option<&str>, bool); 8] = [
        (&["gpt-4o*"], "smart", Some("gpt-4o"), true),
        (&["smart"], "smart", Some("gpt-4o"), true),
        (&["gpt-4o*"], "smart", Some("o3"), false),
        (&["gpt-4o*"], "smart", None, false),
        // A name that a rule leaves out leads past it only where what is sent is left out too.
        (&["!local-*"], "local-x", Some("gpt-4o"), true),
        (&["!local-*"], "local-x", Some("local-y"), false),
        (&["!local-*"], "smart", Some("local-y"), true),
        (&["!local-*"], "local-x", None, false),
    ];
    for (models, requested, sent, wanted) in table {
        assert_eq!(fits(models, requested, sent), wanted, "{models:?} {requested} {sent:?}");
    }
    let mut by = rule(Some(Count::Requests), "1");
    by.by = vec![CountedBy::Model];
    let by = Rule::new(&by);
    let key = |requested: &str, sent: Option<&str>| {
        by.takes(&Who::of(&caller, &named(requested, sent), &headers), 1, 0).1[0].key.clone()
    };
    assert_eq!(key("gpt-4o", None), key("smart", Some("gpt-4o")));
    assert_ne!(key("smart", None), key("smart", Some("gpt-4o")));
}

#[tokio::test]
async fn the_tightest_of_all_that_is_reserved_is_shown() {
    let mut ample = rule(Some(Count::Requests), "1000000");
    ample.name = name("ample");
    ample.matches.targets = vec!["*".into()];
    let mut tight = rule(Some(Count::Requests), "3");
    tight.warn_at = vec![config::Ratio::parse("0.3").unwrap()];
    let quotas = quotas(vec![ample, tight]);
    let (caller, headers) = (caller("a"), HeaderMap::new());
    let asked = Asked { target: Some(name("t")), ..asked(None) };
    let load = load(&asked, chat());
    let mut both = Vec::new();
    for stage in [Stage::Exchange, Stage::Target] {
        both.extend(quotas.reserve(&request(&caller, &asked, &headers, &load), stage).await.unwrap());
    }
    let mut shown = HeaderMap::new();
    shown.insert("x-ratelimit-limit", HeaderValue::from(99));
    show_left(&both, &mut shown);
    assert!(shown["x-ratelimit-limit"] == "3" && shown["x-ratelimit-remaining"] == "2");
    let left = shown["ratelimit"].to_str().unwrap();
    assert!(left.contains("\"r\";r=2;") && left.contains("\"ample\";r=999999;"), "{left}");
    assert_eq!(shown["x-affidavit-quota-warning"], "\"r\";used=0.33");
}

#[tokio::test]
async fn who_waits_for_a_sliding_window_as_told_is_not_refused() {
    let mut typed = rule(Some(Count::Requests), "10");
    (typed.per, typed.window) = (Some(10 * MINUTE), Some(WindowKind::Sliding));
    let quotas = quotas(vec![typed.clone()]);
    for _ in 0..10 {
        let passed = taken(&quotas, "a", 1).await;
        passed.settle(&usage(UsageSource::Provider, 1, 1), None, Went::There).await;
    }
    let now = now_ms();
    let mut headers = HeaderMap::new();
    full(&quotas, "a", 1).await.tell(&mut headers);
    let seconds = |name: &str| headers[name].to_str().unwrap().parse::<i64>().unwrap();
    assert_eq!(seconds("retry-after"), seconds("x-ratelimit-reset"));
    let has_room = |at_ms: i64| {
        let (_, takes) =
            Rule::new(&typed).takes(&Who::of(&caller("a"), &asked(None), &HeaderMap::new()), 1, at_ms);
        quotas.hub.local.look(&takes[0]).has_room(&takes[0])
    };
    assert!(has_room(now + seconds("retry-after") * 1000));
    assert!(!has_room(now + (seconds("retry-after") - 10) * 1000), "it is no longer than it must be");
}

#[tokio::test]
async fn a_reload_does_not_warn_again() {
    let warned = |old: &Quotas, limit: &str| {
        let typed = QuotaRule {
            warn_at: vec![config::Ratio::parse("0.5").unwrap()],
            ..rule(Some(Count::Requests), limit)
        };
        let config = config::Quotas { rules: vec![typed], ..config::Quotas::default() };
        Quotas::new(&config, Passwords::default(), None, Some((old, true)), &Telemetry::new().quotas)
    };
    let first = warned(&quotas(Vec::new()), "2");
    let reached = |quotas: &Quotas| quotas.rules[0].reached("counter", 0.5).len();
    assert_eq!((reached(&first), reached(&first)), (1, 0));
    let again = warned(&first, "2");
    assert_eq!(reached(&again), 0, "it is the same counter in the same window");
    assert_eq!(reached(&warned(&again, "4")), 1, "another limit has a share of its own");
}
