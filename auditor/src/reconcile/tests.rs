//! Small exports in the shapes that the providers publish, and what is wrong with others.

use proptest::prelude::*;
use schemas::record::{Attempt, AttemptNumber, Body, End, Intent, Outcome, Usage, UsageRole, UsageSource};

use super::batches::{AskedFor, Batch};
use super::edges::Edges;
use super::result::{Reconciliation, State};
use super::*;
use crate::cost::booked::Booked;
use crate::finding::{Code, Effect, Finding};
use crate::fixture::{self, START, Writer, exchange_id, id, proven};
use crate::mandate::Mandate;
use crate::report::Interval;
use crate::source::MemorySource;
use crate::time::{self, DAY, SECOND};
use crate::verify::{NoSink, Options, run};

fn read(format: Format, text: &str) -> anyhow::Result<Told> {
    Export::read(format, &Input::of("export".into(), text.as_bytes().to_vec())?)
}

fn refused(format: Format, text: &str) -> String {
    format!("{:#}", read(format, text).unwrap_err())
}

fn counted(told: &Told) -> Vec<(Option<&str>, Option<&str>, Counts)> {
    let filled = told.buckets.iter().filter(|bucket| bucket.counts != Counts::default());
    filled.map(|bucket| (bucket.key.as_deref(), bucket.model.as_deref(), bucket.counts.clone())).collect()
}

fn tokens(requests: Option<u64>, input: u64, read: Option<u64>, output: Option<u64>) -> Counts {
    Counts {
        requests,
        input_tokens: Some(input),
        cache_read_tokens: read,
        output_tokens: output,
        ..Counts::default()
    }
}

const OPENAI_USAGE: &str = r#"{"object":"page","data":[
{"object":"bucket","start_time":1730419200,"end_time":1730505600,"results":[
 {"object":"organization.usage.completions.result","input_tokens":1000,"output_tokens":500,"input_cached_tokens":800,
  "input_audio_tokens":0,"output_audio_tokens":0,"num_model_requests":5,"project_id":null,"user_id":null,
  "api_key_id":"key_a","model":"gpt-4o-mini-2024-07-18","batch":null,"service_tier":"default"}]},
{"object":"bucket","start_time":1730505600,"end_time":1730592000,"results":[]}],"has_more":true,"next_page":"page_AAA"}
{"object":"page","data":[{"object":"bucket","start_time":1730592000,"end_time":1730678400,"results":[
 {"object":"organization.usage.embeddings.result","input_tokens":16,"num_model_requests":2,"model":"text-embedding-3-small"},
 {"object":"organization.usage.vector_stores.result","usage_bytes":1024}]}],"has_more":false,"next_page":null}"#;

#[test]
fn openai_usage_is_read_page_by_page() {
    let told = read(Format::OpenaiUsage, OPENAI_USAGE).unwrap();
    assert_eq!(
        counted(&told),
        [
            (Some("key_a"), Some("gpt-4o-mini-2024-07-18"), tokens(Some(5), 1000, Some(800), Some(500))),
            (None, Some("text-embedding-3-small"), tokens(Some(2), 16, None, None)),
        ]
    );
    let days: BTreeSet<i64> = told.buckets.iter().map(|bucket| bucket.from / DAY).collect();
    assert_eq!(days.len(), 3, "an empty day is told too");
    assert_eq!(told.kinds, BTreeSet::from(["completions", "embeddings"]));
    assert_eq!(told.left_out["results of the kind organization.usage.vector_stores.result"], 1);
}

#[test]
fn openai_costs_are_read_to_the_last_digit() {
    let text = r#"{"object":"page","data":[{"object":"bucket","start_time":1730419200,"end_time":1730505600,"results":[
        {"object":"organization.costs.result","amount":{"value":0.06,"currency":"usd"},"line_item":null,"project_id":null},
        {"object":"organization.costs.result","amount":{"value":1.5e-7,"currency":"usd"},"line_item":"gpt-4o, input"},
        {"object":"organization.costs.result","amount":{"value":"2.000000000001","currency":"usd"}}]}],"has_more":false}"#;
    let told = read(Format::OpenaiCosts, text).unwrap();
    let mut sum = Counts::default();
    told.buckets.iter().for_each(|bucket| sum.add(&bucket.counts));
    assert_eq!(sum.cost["USD"].to_string(), "2.060000150001");
}

const ANTHROPIC_USAGE: &str = r#"{"data":[{"starting_at":"2025-08-01T00:00:00Z","ending_at":"2025-08-02T00:00:00Z","results":[
 {"uncached_input_tokens":1500,"cache_creation":{"ephemeral_1h_input_tokens":1000,"ephemeral_5m_input_tokens":500},
  "cache_read_input_tokens":200,"output_tokens":500,"server_tool_use":{"web_search_requests":10},
  "api_key_id":"apikey_01Rj2N8SVvo6BePZj99NhmiT","workspace_id":"wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ",
  "model":"claude-sonnet-4-20250514","service_tier":"standard","context_window":"0-200k"}]}],"has_more":false,"next_page":null}"#;

#[test]
fn anthropics_input_is_the_sum_of_its_classes() {
    let told = read(Format::AnthropicUsage, ANTHROPIC_USAGE).unwrap();
    assert_eq!(
        counted(&told),
        [(
            Some("apikey_01Rj2N8SVvo6BePZj99NhmiT"),
            Some("claude-sonnet-4-20250514"),
            tokens(None, 3200, Some(200), Some(500))
        )]
    );
    assert_eq!(time::text(told.buckets[0].from), "2025-08-01T00:00:00Z");
}

#[test]
fn anthropics_costs_are_cents() {
    let text = r#"{"data":[{"starting_at":"2025-08-01T00:00:00Z","ending_at":"2025-08-02T00:00:00Z","results":[
        {"currency":"USD","amount":"123.78912","workspace_id":"w","description":"Claude Sonnet 4 Usage - Input Tokens",
         "cost_type":"tokens","context_window":"0-200k","model":"claude-sonnet-4-20250514","service_tier":"standard",
         "token_type":"uncached_input_tokens"},
        {"currency":"USD","amount":"50","description":"Web Search Usage","cost_type":"web_search","model":null}]}],
        "has_more":false,"next_page":null}"#;
    let told = read(Format::AnthropicCost, text).unwrap();
    let cost = counted(&told);
    assert_eq!((cost.len(), cost[0].2.cost["USD"].to_string().as_str()), (1, "1.2378912"));
    assert_eq!(told.left_out["costs of the type web_search"], 1);
    assert!(refused(Format::AnthropicCost, &text.replace("USD", "JPY")).contains("wanted `USD`"));
}

const BEDROCK: &str = r#"{"schemaType":"ModelInvocationLog","schemaVersion":"1.0","timestamp":"2025-04-09T23:00:17Z",
 "accountId":"654654377904","identity":{"arn":"arn:aws:sts::654654377904:assumed-role/app/me"},"region":"us-east-1",
 "requestId":"915a6a04-3f83-4c70-a277-7fbf7ea546b3","operation":"Converse",
 "modelId":"anthropic.claude-3-haiku-20240307-v1:0",
 "input":{"inputContentType":"application/json","inputBodyJson":{"messages":[]},"inputTokenCount":35,
  "cacheReadInputTokenCount":10,"cacheWriteInputTokenCount":5},
 "output":{"outputContentType":"application/json","outputBodyJson":{},"outputTokenCount":446}}
{"schemaType":"ModelInvocationLog","schemaVersion":"1.0","timestamp":"2025-04-09T23:00:18Z","accountId":"1",
 "requestId":"x","operation":"Converse","modelId":"m","errorCode":"ThrottlingException"}"#;

#[test]
fn bedrocks_calls_are_read_also_where_they_are_packed() {
    let told = read(Format::BedrockLog, BEDROCK).unwrap();
    assert_eq!(told.calls.len(), 1);
    let call = &told.calls[0];
    assert_eq!((call.line, call.ids[0].as_str()), (1, "915a6a04-3f83-4c70-a277-7fbf7ea546b3"));
    assert_eq!(call.counts, tokens(None, 50, Some(10), Some(446)));
    assert_eq!(told.left_out["calls that failed"], 1);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, BEDROCK.as_bytes()).unwrap();
    let packed = Input::of("log.gz".into(), packed.finish().unwrap()).unwrap();
    assert_eq!(Export::read(Format::BedrockLog, &packed).unwrap(), told);
    assert!(Input::of("log.gz".into(), vec![0x1f, 0x8b, 8, 0, 0]).is_err());
}

const AZURE: &str = r#"{"records":[{"time":"2024-05-24T09:00:00.1234567Z","resourceId":"/SUBSCRIPTIONS/X",
 "category":"RequestResponse","operationName":"ChatCompletions_Create","resultSignature":"200","durationMs":84,
 "correlationId":"1a3ce1d3-9928-450f-ac68-b2b724985c8a","callerIPAddress":"10.0.0.*","event":"ShoeboxCallResult",
 "location":"eastus","tenant":"eastus","properties":"{\"apiName\":\"Azure OpenAI API version 2024-02-01\",\"requestLength\":120,\"objectId\":\"\",\"streamType\":\"Streaming\",\"modelDeploymentName\":\"chat\",\"modelName\":\"gpt-4o\",\"modelVersion\":\"2024-05-13\"}"},
 {"time":"2024-05-24T09:00:01Z","category":"RequestResponse","operationName":"ChatCompletions_Create","resultSignature":429,"correlationId":"b"},
 {"time":"2024-05-24T09:00:02Z","category":"Audit","operationName":"ListKey","correlationId":"c"}]}"#;

#[test]
fn azures_calls_are_known_by_their_correlation() {
    let told = read(Format::AzureLog, AZURE).unwrap();
    assert_eq!(told.calls.len(), 1);
    assert_eq!(told.calls[0].ids, ["1a3ce1d3-9928-450f-ac68-b2b724985c8a"]);
    assert_eq!(told.calls[0].model.as_deref(), Some("gpt-4o"));
    assert_eq!(told.left_out.values().sum::<u64>(), 2);
}

#[test]
fn vertex_calls_are_known_by_the_answers_id_whole_and_streamed() {
    let rows = r#"{"endpoint":"e","logging_time":"2026-11-20 10:15:00.123456 UTC","request_id":"8421","model":"publishers/google/models/gemini-2.5-flash","full_response":{"responseId":"r-1","modelVersion":"gemini-2.5-flash","usageMetadata":{"promptTokenCount":12,"candidatesTokenCount":5,"thoughtsTokenCount":3,"totalTokenCount":20}}}
{"logging_time":"2026-11-20T10:15:01Z","model":"m","full_response":"[{\"responseId\":\"r-2\"},{\"responseId\":\"r-2\",\"usageMetadata\":{\"promptTokenCount\":7,\"candidatesTokenCount\":1,\"cachedContentTokenCount\":4}}]"}
{"logging_time":"2026-11-20T10:15:02Z","full_response":{"id":"msg_vrtx_1","model":"claude-sonnet-4","usage":{"input_tokens":5,"cache_read_input_tokens":2,"output_tokens":9}}}"#;
    let told = read(Format::VertexLog, rows).unwrap();
    let ids: Vec<_> = told.calls.iter().map(|call| call.ids.clone()).collect();
    assert_eq!(ids, [vec!["r-1".to_owned(), "8421".into()], vec!["r-2".into()], vec!["msg_vrtx_1".into()]]);
    let counts: Vec<Counts> = told.calls.iter().map(|call| call.counts.clone()).collect();
    assert_eq!(
        counts,
        [
            tokens(None, 12, None, Some(8)),
            tokens(None, 7, Some(4), Some(1)),
            tokens(None, 7, Some(2), Some(9)),
        ]
    );
    assert_eq!(told.calls.iter().map(|call| call.line).collect::<Vec<_>>(), [1, 2, 3]);
}

const CUR: &str = "\
bill_payer_account_id,line_item_usage_start_date,line_item_usage_end_date,line_item_product_code,line_item_usage_type,line_item_usage_amount,pricing_unit,line_item_unblended_cost,line_item_currency_code,line_item_line_item_type
1,2026-11-20 00:00:00.000,2026-11-20 01:00:00.000,AmazonBedrock,USE1-Claude4Sonnet-input-tokens,1.5,1K tokens,0.0045,USD,Usage
1,2026-11-20 00:00:00.000,2026-11-20 01:00:00.000,AmazonBedrock,USE1-Claude4Sonnet-cache-read-input-token-count,0.25,1K tokens,0.000075,USD,Usage
1,2026-11-20T00:00:00Z,2026-11-20T01:00:00Z,AmazonBedrock,USE1-Claude4Sonnet-output-tokens,0.02,1M tokens,0.3,USD,Usage
1,2026-11-20T00:00:00Z,2026-11-20T01:00:00Z,AmazonEC2,BoxUsage:t3.nano,1,Hrs,0.0052,USD,Usage
1,2026-11-20T00:00:00Z,2026-11-20T01:00:00Z,AmazonBedrock,USE1-Claude4Sonnet-output-tokens,1,1M tokens,0.3,USD,Tax
";

#[test]
fn a_bill_of_aws_is_read_in_the_units_of_its_prices() {
    let told = read(Format::AwsCur, CUR).unwrap();
    let mut sum = Counts::default();
    told.buckets.iter().for_each(|bucket| sum.add(&bucket.counts));
    assert_eq!(
        (sum.input_tokens, sum.cache_read_tokens, sum.output_tokens),
        (Some(1750), Some(250), Some(20_000))
    );
    assert_eq!(sum.cost["USD"].to_string(), "0.304575");
    assert_eq!(told.left_out.values().sum::<u64>(), 2);
    // The marketplace's unit is a million; other products count tokens too.
    let line = |product: &str, usage: &str, amount: &str, unit: &str| {
        format!(
            "1,2026-11-20T00:00:00Z,2026-11-20T01:00:00Z,{product},{usage},{amount},{unit},0.1,USD,Usage\n"
        )
    };
    let sold = line("8eexample", "USE1-MP:USE1_InputTokenCount-Units", "0.0015", "Units");
    let other = line("AWSSecretsManager", "USE1-TokenRefresh", "3", "API Calls");
    let unnamed = line("", "USE1-Requests-Tier1", "3", "Requests");
    let told = read(Format::AwsCur, &format!("{CUR}{sold}{other}{unnamed}")).unwrap();
    let mut more = Counts::default();
    told.buckets.iter().for_each(|bucket| more.add(&bucket.counts));
    assert_eq!(more.input_tokens, Some(1750 + 1500));
    assert_eq!(told.left_out.values().sum::<u64>(), 4);
}

#[test]
fn a_call_that_stands_twice_in_overlapping_files_is_one_call() {
    let at = read(Format::BedrockLog, BEDROCK).unwrap().calls[0].at;
    let unmatched = |text: &str| {
        let told = read(Format::BedrockLog, text).unwrap();
        let (format, file, sha256) = (Format::BedrockLog, "calls.json".to_owned(), Sha256Hex::of(b""));
        let exports = [Export { format, provider: None, file, sha256, told }];
        let (asked, tolerance) =
            (Interval { from: at - 1, to: at + 1 }, compare::Tolerance::parse("0").unwrap());
        let none = AskedFor { begins: at - 1, batches: Vec::new() };
        let came =
            compare::Comparing::new(&exports, None, asked, tolerance, false).finish(&none, &Edges::default());
        came.exports[0].calls.as_ref().unwrap().only_provider_count
    };
    assert_eq!(unmatched(BEDROCK), 1);
    assert_eq!(unmatched(&format!("{BEDROCK}\n{BEDROCK}")), 1);
    let later = BEDROCK.replace("23:00:17Z", "23:00:16.999999Z");
    let larger = BEDROCK.replace("\"outputTokenCount\":446", "\"outputTokenCount\":447");
    for other in [later, larger] {
        assert_eq!(
            unmatched(&format!("{BEDROCK}\n{other}")),
            2,
            "one id, and another call: nothing is folded"
        );
    }
}

#[test]
fn every_call_in_no_record_is_named() {
    let calls = (1..=1500).map(|n| Call {
        line: n,
        ids: vec![format!("call-{n}")],
        at: START,
        model: None,
        caller: None,
        counts: Counts::default(),
    });
    let told = Told { calls: calls.collect(), ..Told::default() };
    let (format, file, sha256) = (Format::AzureLog, "calls.json".to_owned(), Sha256Hex::of(b""));
    let exports = [Export { format, provider: None, file, sha256, told }];
    let asked = Interval { from: START, to: START + SECOND };
    let tolerance = compare::Tolerance::parse("0").unwrap();
    let came = compare::Comparing::new(&exports, None, asked, tolerance, false)
        .finish(&AskedFor::default(), &Edges::default());
    let json = serde_json::to_value(&came).unwrap();
    let calls = &json["exports"][0]["calls"];
    assert_eq!((calls["only_provider_count"].as_u64(), calls["not_named"].as_u64()), (Some(1500), Some(0)));
    let named: BTreeSet<&str> =
        calls["only_provider"].as_array().unwrap().iter().map(|call| call["id"].as_str().unwrap()).collect();
    assert_eq!(named.len(), 1500);
    let (writer, trust, mandate) = (fixture::small(), fixture::trust(), Mandate::default());
    let (report, _) = run(&writer.store, &Options::new(&trust, &mandate, START + 20 * SECOND), &mut NoSink);
    let text = render::text(&came, &report);
    assert!(text.contains("               and 1480 more; `--format json` names each\n"), "{text}");
}

#[test]
fn calls_behind_the_start_of_an_exchange_that_is_open_are_not_judged() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    for n in 1..=10 {
        writer.now = START + n * 240 * SECOND;
        writer.heartbeat();
        if n == 3 {
            writer.push(Body::Intent(Intent {
                asked: writer.asked_now(),
                ..Writer::intent_of(exchange_id(1))
            }));
        }
    }
    writer.seal();
    let edges = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let evidence = proven(&writer).await;
        Edges::read(&evidence.session, &evidence.report).await.unwrap()
    });
    let begun = START + 3 * 240 * SECOND;
    let why = |at: i64| edges.why(at).map(str::to_owned);
    assert_eq!(why(START + SECOND).unwrap(), format!("the evidence begins at {}", time::text(START)));
    assert_eq!(why(begun - 301 * SECOND), None);
    let open = format!("an exchange of {} is open since {}", writer.origin, time::text(begun));
    assert_eq!(why(begun - 299 * SECOND).unwrap(), open);
    assert_eq!(why(begun + 600 * SECOND).unwrap(), open);
    assert!(why(writer.now).unwrap().contains(" ends at "));
}

#[test]
fn whatever_is_not_of_the_format_is_named_with_its_place_and_the_wanted_form() {
    for (format, text, wanted) in [
        (
            Format::OpenaiUsage,
            OPENAI_USAGE.replace("\"input_tokens\":1000", "\"input_tokens\":-1"),
            "export:1:1: `data[0].results[0].input_tokens`: found `-1`, wanted a whole number",
        ),
        (
            Format::OpenaiUsage,
            OPENAI_USAGE.replace("\"input_tokens\":16,", ""),
            "export:7:1: `data[0].results[0].input_tokens`: wanted this key",
        ),
        (Format::OpenaiUsage, OPENAI_USAGE.replace("1730505600", "1730592000"), "on the same day"),
        (
            Format::OpenaiUsage,
            OPENAI_USAGE.replace("organization.usage.emb", "organisation."),
            "wanted `organization",
        ),
        (Format::OpenaiUsage, "{\"object\":\"list\"}".into(), "`object`: found `list`, wanted `page`"),
        (Format::OpenaiUsage, ANTHROPIC_USAGE.into(), "`object`: wanted this key"),
        (
            Format::AnthropicUsage,
            ANTHROPIC_USAGE.replace("\"2025-08-02T00:00:00Z\"", "7"),
            "`data[0].ending_at`: found `7`",
        ),
        (Format::AnthropicUsage, ANTHROPIC_USAGE.replace("2025-08-02", "2025-08-09"), "on the same day"),
        (
            Format::AnthropicUsage,
            ANTHROPIC_USAGE.replace("\"has_more\":false", "\"has_more\":true"),
            "`has_more`",
        ),
        (
            Format::BedrockLog,
            BEDROCK.replace("\"requestId\":\"915a6a04-3f83-4c70-a277-7fbf7ea546b3\",", ""),
            "`requestId`: wanted this key",
        ),
        (Format::BedrockLog, AZURE.into(), "`schemaType`"),
        (Format::AzureLog, AZURE.replace("\"{\\\"api", "\"{api"), "`records[0].properties`"),
        (
            Format::VertexLog,
            "{\"logging_time\":\"2026-11-20T10:15:00Z\",\"full_response\":{}}".into(),
            "`full_response`",
        ),
        (Format::AwsCur, CUR.replace("pricing_unit", "unit"), "`pricing_unit`: wanted this column"),
        (
            Format::AwsCur,
            CUR.replace("1.5,1K tokens", "1.5,1Q tokens"),
            "export:2:1: `pricing_unit`: found `1Q tokens`",
        ),
        (Format::AwsCur, CUR.replace("1.5,1K", "x,1K"), "`line_item_usage_amount`: found `x`"),
        (Format::AwsCur, CUR.replace("2026-11-20T01", "2026-12-01T00"), "on the same day"),
        (Format::AwsCur, "a,b\n".into(), "wanted this column in the header"),
        (Format::OpenaiCosts, "{".into(), "wanted JSON"),
    ] {
        let told = refused(format, &text);
        assert!(told.contains(wanted), "{format:?}: {told}\nwithout {wanted}");
    }
    for typed in ["openai-usage", "=x", "openai-usage@=x", "nonsense=x", "openai-usage=/does/not/exist"] {
        assert!(Export::open(typed).is_err(), "{typed}");
    }
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let error = Export::open(&format!("azure-log={}", empty.display())).unwrap_err().to_string();
    assert!(error.contains("tells nothing"), "{error}");
}

#[test]
fn decimal_numbers_keep_their_digits_and_round_half_to_even() {
    for (text, value) in [
        ("0", "0"),
        ("-0.5", "-0.5"),
        ("1.5e-7", "0.00000015"),
        ("12E3", "12000"),
        ("0.0000000000005", "0"),
        ("0.0000000000015", "0.000000000002"),
        ("0.00000000000051", "0.000000000001"),
        ("1e-40", "0"),
        ("000000.10", "0.1"),
    ] {
        assert_eq!(input::decimal(text).map(|value| value.to_string()).as_deref(), Some(value), "{text}");
    }
    for bad in ["", "-", ".5", "1e", "1e99", "1e-99999999999", "NaN", "inf", "1,5", "٣", "1e2.5", "--1"] {
        assert_eq!(input::decimal(bad), None, "{bad}");
    }
}

#[test]
fn times_are_read_as_aws_and_bigquery_write_them() {
    let at = time::parse("2026-11-20T10:15:00Z").unwrap();
    for text in [
        "2026-11-20T10:15:00Z",
        "2026-11-20 10:15:00",
        "2026-11-20 10:15:00 UTC",
        "2026-11-20T12:15:00+02:00",
    ] {
        assert_eq!(input::instant(text), Some(at), "{text}");
    }
    assert_eq!(input::instant("2026-11-20 10:15:00.000001"), Some(at + 1));
    assert_eq!(input::instant("2026-11-20"), Some(at - 10 * 3600 * SECOND - 15 * 60 * SECOND));
    assert_eq!(input::instant("soon"), None);
}

#[test]
fn keys_are_told_apart_and_strangers_named() {
    let text = "key,provider,target\nkey_a,openai,\nkey_b,openai,\nkey_c,openai,eu\n";
    let keys = keys::Keys::read(&Input::of("keys".into(), text.into()).unwrap()).unwrap();
    assert_eq!(keys.of_export("key_a"), "key_a + key_b");
    assert_eq!(keys.of_exchange("openai", None), Some("key_a + key_b"));
    assert_eq!(keys.of_exchange("openai", Some("eu")), Some("key_c"));
    assert_eq!(keys.of_exchange("anthropic", None), None);
    assert_eq!(keys.of_export("key_z"), "key_z (not the gateway's)");
    for (bad, wanted) in [
        ("key\nx\n", "`provider`"),
        ("key,provider\n,openai\n", "`key`: found ``"),
        ("key,provider\na,openai\na,anthropic\n", "each key for one"),
    ] {
        let problem = keys::Keys::read(&Input::of("keys".into(), bad.into()).unwrap()).unwrap_err();
        assert!(problem.to_string().contains(wanted), "{problem}");
    }
}

#[test]
fn batches_are_read_apart_from_all_else() {
    let batch = OPENAI_USAGE.replace("\"batch\":null", "\"batch\":true");
    let tier = ANTHROPIC_USAGE.replace("\"service_tier\":\"standard\"", "\"service_tier\":\"batch\"");
    let cur =
        CUR.replace("USE1-Claude4Sonnet-output-tokens,0.02", "USE1-Claude4Sonnet-output-tokens-batch,0.02");
    for (format, text, others, batches) in [
        (Format::OpenaiUsage, batch.as_str(), 1, 1),
        (Format::AnthropicUsage, &tier, 0, 1),
        (Format::AwsCur, &cur, 2, 0),
    ] {
        let told = read(format, text).unwrap();
        assert_eq!((counted(&told).len(), told.batches.len()), (others, batches), "{format:?}");
        assert!(!told.buckets.is_empty(), "{format:?}: its days are told all the same");
        // Who asked AWS for a batch is in no record.
        assert_eq!(told.left_out.get(BATCH).copied().unwrap_or_default(), 1 - batches as u64, "{format:?}");
    }
    let unused = batch.replace("1000", "0").replace(":500,", ":0,").replace(":5,", ":0,");
    assert!(read(Format::OpenaiUsage, &unused).unwrap().batches.is_empty());
    assert!(
        refused(Format::OpenaiUsage, &batch.replace(":true,\"s", ":7,\"s"))
            .contains("`data[0].results[0].batch`")
    );
}

/// What came of an export that tells of 7 tokens under `key_a` on a day, of batches or not told apart, with these batches that were
/// asked for: the claim, and the finding where there is one.
fn with_batches(
    is_batch: bool,
    keys: Option<&keys::Keys>,
    partial: bool,
    asked_for: &AskedFor,
) -> (String, Option<Finding>) {
    let day = START.div_euclid(DAY);
    let counts = Counts { requests: Some(1), input_tokens: Some(7), ..Counts::default() };
    let bucket =
        Bucket { from: day * DAY, to: (day + 1) * DAY, key: Some("key_a".into()), model: None, counts };
    let mut told = Told { kinds: BTreeSet::from(["completions"]), ..Told::default() };
    told.buckets.push(Bucket { counts: Counts::default(), ..bucket.clone() });
    told.bucket(bucket, is_batch);
    let (format, file, sha256) = (Format::OpenaiUsage, "usage.json".to_owned(), Sha256Hex::of(b""));
    let exports = [Export { format, provider: None, file, sha256, told }];
    let asked = Interval { from: day * DAY, to: (day + 1) * DAY };
    let tolerance = compare::Tolerance::parse("0.5").unwrap();
    let mut comparing = compare::Comparing::new(&exports, keys, asked, tolerance, partial);
    let writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let little = Usage { input_tokens: Some(0), ..Usage::of(UsageSource::Provider, UsageRole::Incurred) };
    let at = day * DAY + 9;
    comparing.add(&Booked {
        by: Vec::new(),
        origin: writer.origin.to_string(),
        position: 3,
        at,
        priced_at: at,
        leaf_hash: String::new(),
        is_attempt: false,
        outcome: writer.outcome_of(exchange_id(2), 2, None, vec![], little).into(),
    });
    let came = comparing.finish(asked_for, &Edges::default());
    assert!(!came.reached, "{}", came.claim);
    let mut findings = crate::finding::Findings::default();
    came.exports[0].find(asked, &mut findings);
    assert!(findings.iter().count() < 2);
    let found = findings.iter().next().cloned();
    (came.claim, found)
}

/// A batch that was asked for so many hours after the day began, or before.
fn batch(hours: i64, provider: &str) -> Batch {
    let at = START.div_euclid(DAY) * DAY + hours * 3600 * SECOND;
    Batch { at, provider: provider.into(), target: None, dialect: provider.into() }
}

#[test]
fn batches_are_those_that_a_provider_did_not_refuse() {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    let none = || Usage::of(UsageSource::NotApplicable, UsageRole::None);
    for (n, operation, status) in [
        (1, "batches.create", Some(200)),
        (2, "messages.batches.create", None),
        (3, "batches.create", Some(429)),
        (4, "batches.retrieve", Some(200)),
    ] {
        writer.now = START + n * SECOND;
        writer.operation = Some(id(operation));
        let n = u64::try_from(n).unwrap();
        let position = writer
            .push(Body::Intent(Intent { asked: writer.asked_now(), ..Writer::intent_of(exchange_id(n)) }));
        let outcome = writer.outcome_of(exchange_id(n), position, None, vec![], none());
        writer.push(Body::Outcome(Outcome { provider_status: status, ..outcome }));
    }
    // Of one that a first target did not answer in time nobody knows; one that a second target refused is none.
    writer.operation = Some(id("batches.create"));
    writer.now = START + 5 * SECOND;
    let intent = Intent { asked: writer.asked_now(), ..Writer::intent_of(exchange_id(5)) };
    let intent_position = writer.push(Body::Intent(intent));
    for (number, why, end, status) in
        [(0, "timeout", End::Timeout, None), (1, "status", End::Complete, Some(500))]
    {
        writer.now += SECOND;
        let number = AttemptNumber::new(number).unwrap();
        let attempt = Attempt::new(exchange_id(5), number, id("openai-eu"), id(why));
        let (phase, provider, dialect) = (id("end"), Some(id("openai")), Some(id("openai")));
        let (end, usage) = (Some(end), Some(none()));
        writer.push(Body::Attempt(Attempt {
            intent_position,
            phase,
            provider,
            dialect,
            end,
            status,
            usage,
            ..attempt
        }));
    }
    let asking = |writer: &mut Writer, n: u64| {
        writer.now += SECOND;
        let intent = Intent { asked: writer.asked_now(), ..Writer::intent_of(exchange_id(n)) };
        writer.push(Body::Intent(intent))
    };
    // One that reached nobody, one of which nothing is known, and one that a crash cut: its end was written days later.
    writer.now = START + 10 * SECOND;
    let [unreached, _, cut] = [6, 7, 8].map(|n| (n, asking(&mut writer, n)));
    for ((n, position), end, days) in [(unreached, End::Unreachable, 0), (cut, End::Interrupted, 3)] {
        writer.now += days * DAY;
        let outcome = writer.outcome_of(exchange_id(n), position, None, vec![], none());
        writer.push(Body::Outcome(Outcome { end, provider_status: None, ..outcome }));
    }
    writer.seal();
    let asked_for = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let evidence = proven(&writer).await;
        AskedFor::read(&evidence.session, START + 2 * DAY).await.unwrap()
    });
    let mut found: Vec<_> = asked_for.batches.iter().map(|batch| (batch.at - START) / SECOND).collect();
    found.sort_unstable();
    assert_eq!((asked_for.begins, found), (START, vec![1, 2, 5, 12, 13]));
    assert_eq!(asked_for.batches[0].dialect, "openai");
}

#[test]
fn use_by_batches_that_nobody_asked_the_gateway_for_passed_it_by() {
    let keys = "key,provider\nkey_a,openai\nkey_b,other\n";
    let keys = keys::Keys::read(&Input::of("keys".into(), keys.into()).unwrap()).unwrap();
    let of_other = Batch { dialect: "openai".into(), ..batch(3, "other") };
    let compared = "tell of batches, which are not compared";
    let beyond = "1 sums or calls of openai-usage are beyond what was recorded";
    for (batches, keys, wanted) in [
        (vec![], None, beyond),
        (vec![batch(3, "openai")], None, compared),
        (vec![batch(-29, "openai")], None, compared),
        (vec![batch(-31, "openai"), batch(24, "openai"), batch(3, "anthropic")], None, beyond),
        // Under whose key it was.
        (vec![batch(3, "openai")], Some(&keys), compared),
        (vec![of_other.clone()], Some(&keys), beyond),
        (vec![of_other], None, compared),
    ] {
        let asked_for = AskedFor { begins: 0, batches };
        let (claim, found) = with_batches(true, keys, false, &asked_for);
        assert!(claim.contains(wanted), "{asked_for:?}: {claim}");
        let found = found.map(|finding| (finding.code, finding.effect, finding.found));
        let is_named = found.as_ref().is_some_and(|(code, effect, found)| {
            (*code, *effect) == (Code::UnrecordedUsage, Effect::Incomplete) && found.contains("no batch")
        });
        assert_eq!(
            (is_named, found.is_some()),
            (wanted == beyond, wanted == beyond),
            "{asked_for:?}: {found:?}"
        );
    }
}

#[test]
fn a_note_says_what_was_not_judged_why_and_what_to_do() {
    // One of the day before may have been asked for before the evidence begins.
    let young = AskedFor { begins: batch(-29, "").at, batches: Vec::new() };
    let [(claim, open), (_, judged)] = [false, true].map(|partial| with_batches(true, None, partial, &young));
    let (open, judged) = (open.unwrap(), judged.unwrap());
    assert_eq!((open.effect, judged.effect), (Effect::Note, Effect::Incomplete));
    assert_eq!(open.expected, "openai-usage: 1 requests, 7 input tokens by batches");
    let recorded = "recorded: no batch that was asked for in that time, or in the 30 hours before";
    assert_eq!(judged.found, recorded);
    assert_eq!(
        open.found,
        format!(
            "{recorded}; not judged: the evidence begins at 2026-09-19T19:00:00Z only, and the batches may have been asked for through \
             the gateway where that was not looked at; see at the provider when they were asked for, or take them as use past \
             the gateway with `--partial`"
        )
    );
    assert_eq!(
        claim,
        "NOT reconciled throughout: 1 sums of batches of openai-usage are not judged: these may have been asked for outside of the \
         asked interval, or before the evidence begins (all else that was compared agrees within 0.5 %)"
    );
    assert_eq!(open.place.item.as_deref(), Some("2026-09-21, batches"));
}

fn sum(from: i64, to: i64, key: &str, tokens: u64) -> Bucket {
    let counts = Counts { input_tokens: Some(tokens), ..Counts::default() };
    Bucket { from, to, key: Some(key.into()), model: None, counts }
}

/// What comes of one export with these sums, of batches and of all else, where nothing was recorded.
fn compared(
    batches: Vec<Bucket>,
    others: Vec<Bucket>,
    asked: Interval,
    asked_for: &AskedFor,
) -> Reconciliation {
    let told = Told { buckets: others, batches, kinds: BTreeSet::from(["completions"]), ..Told::default() };
    let (format, file, sha256) = (Format::OpenaiUsage, "usage.json".to_owned(), Sha256Hex::of(b""));
    let exports = [Export { format, provider: None, file, sha256, told }];
    let tolerance = compare::Tolerance::parse("0.5").unwrap();
    compare::Comparing::new(&exports, None, asked, tolerance, false).finish(asked_for, &Edges::default())
}

#[test]
fn hours_of_batches_that_the_evidence_covers_are_judged_apart_from_those_that_it_does_not() {
    let from = START.div_euclid(DAY) * DAY;
    let hour = |n: i64| sum(from + n * 3600 * SECOND, from + (n + 1) * 3600 * SECOND, "key_a", 7);
    let young = AskedFor { begins: batch(-24, "").at, batches: Vec::new() };
    let asked = Interval { from, to: from + DAY };
    let cells = |hours: &[i64]| -> Vec<_> {
        let came = compared(hours.iter().map(|n| hour(*n)).collect(), vec![], asked, &young);
        came.exports[0].cells.iter().map(|cell| (cell.name(), cell.state)).collect()
    };
    assert_eq!(
        cells(&[4, 5, 6, 9]),
        [
            ("2026-09-21, 2 stretches of 06:00 to 10:00, batches".to_owned(), State::Unrecorded),
            ("2026-09-21, 04:00 to 06:00, batches".to_owned(), State::Partial),
        ]
    );
    assert_eq!(cells(&[23]), [("2026-09-21, 23:00 to 24:00, batches".to_owned(), State::Unrecorded)]);
}

#[test]
fn where_every_sum_reaches_beyond_the_claim_and_the_text_say_so() {
    let from = START.div_euclid(DAY) * DAY;
    let asked = Interval { from: from + SECOND, to: from + DAY };
    let came = compared(vec![], vec![sum(from, from + DAY, "key_a", 7)], asked, &AskedFor::default());
    assert_eq!(
        came.claim,
        "NOT reconciled: 1 sums of openai-usage differ and reach beyond the asked interval"
    );
    let (writer, trust, mandate) = (fixture::small(), fixture::trust(), Mandate::default());
    let (report, _) = run(&writer.store, &Options::new(&trust, &mandate, START + 20 * SECOND), &mut NoSink);
    let text = render::text(&came, &report);
    let wanted = "    partial    2026-09-21: provider 7 input tokens; recorded nothing\n               not judged: the export's sum \
                  reaches beyond the asked interval (2026-09-21T00:00:01Z to 2026-09-22T00:00:00Z), and what it differs by may lie \
                  there; fetch sums of shorter stretches, ask for whole ones (`--from`, `--to`), or judge it as it is with \
                  `--partial`\n";
    assert!(text.contains(wanted), "{text}");
}

#[test]
fn keys_that_only_batches_use_are_listed_too() {
    let from = START.div_euclid(DAY) * DAY;
    let (batches, others) = (sum(from, from + DAY, "key_b", 7), sum(from, from + DAY, "key_a", 7));
    let asked = Interval { from, to: from + DAY };
    let came = compared(vec![batches], vec![others], asked, &AskedFor::default());
    assert_eq!(came.exports[0].keys, BTreeSet::from(["key_a".to_owned(), "key_b".into()]));
}

#[test]
fn use_that_is_not_told_apart_from_batches_is_beyond_what_was_recorded_and_the_finding_says_how() {
    let asked_for = AskedFor { begins: 0, batches: vec![batch(3, "openai")] };
    let (claim, found) = with_batches(false, None, true, &asked_for);
    assert!(claim.contains("are beyond what was recorded"), "{claim}");
    assert!(found.unwrap().found.contains("1 batches were asked for"));
}

#[test]
fn days_that_no_export_tells_of_are_not_reconciled() {
    let of = |kinds: &[&'static str], days: &[i64]| {
        let counts = Counts { requests: Some(1), input_tokens: Some(0), ..Counts::default() };
        let day = |day: &i64| Bucket {
            from: day * DAY,
            to: (day + 1) * DAY,
            key: None,
            model: None,
            counts: counts.clone(),
        };
        Export {
            format: Format::OpenaiUsage,
            provider: None,
            file: "usage.json".into(),
            sha256: Sha256Hex::of(b""),
            told: Told {
                buckets: days.iter().map(day).collect(),
                kinds: kinds.iter().copied().collect(),
                ..Told::default()
            },
        }
    };
    let usage = |days: &[i64]| of(&[], days);
    let claim = |exports: &[Export]| {
        let asked = Interval { from: DAY + 7, to: 4 * DAY - 7 };
        let tolerance = compare::Tolerance::parse("0.5").unwrap();
        let came = compare::Comparing::new(exports, None, asked, tolerance, true)
            .finish(&AskedFor::default(), &Edges::default());
        (came.reached, came.claim)
    };
    assert!(claim(&[usage(&[1, 2, 3])]).0);
    assert!(claim(&[usage(&[3, 1]), usage(&[2])]).0, "files of one form tell together");
    let (some, all) = (of(&["completions"], &[1, 2]), of(&["embeddings"], &[1, 2, 3]));
    let (reached, said) = claim(&[some.clone(), all.clone()]);
    assert!(!reached && said.contains("openai-usage (completions) tells nothing of 1970-01-04"), "{said}");
    assert!(claim(&[some, all, usage(&[3])]).0, "a page without results is of every kind");
    for (days, gap) in [
        (&[1, 3][..], "1970-01-03T00:00:00Z to 1970-01-04T00:00:00Z"),
        (&[2, 3], "1970-01-02T00:00:00.000007Z to 1970-01-03T00:00:00Z"),
        (&[1, 2], "1970-01-04T00:00:00Z to 1970-01-04T23:59:59.999993Z"),
    ] {
        let wanted = format!("NOT reconciled throughout: openai-usage tells nothing of {gap}");
        assert_eq!(claim(&[usage(days)]), (false, wanted));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("AFFIDAVIT_LONG").is_some() { 20_000 } else { 400 }))]

    #[test]
    fn changed_and_cut_exports_are_refused_or_read_and_nothing_panics(
        which in 0_usize..6,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let text = [OPENAI_USAGE, ANTHROPIC_USAGE, BEDROCK, AZURE, CUR, "{\"full_response\":{}}"][which];
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        for format in FORMATS {
            if let Ok(input) = Input::of("export".into(), bytes.clone()) {
                let _ = Export::read(format, &input);
            }
        }
        if let Ok(input) = Input::of("keys".into(), bytes) {
            let _ = keys::Keys::read(&input);
        }
    }
}
