//! What is in the bucket, held against what callers and provider remember.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::archive::{BUCKET, PREFIX, check_and_copy, versions};
use tests::audited::{auditor, path};
use tests::oracle::Evidence;
use tests::provider::{Provider, api};
use tests::services::S3Server;

use super::fleet::{Fleet, held};
use super::load::Remembered;

/// Dollars a token, in 10^-12: what the starter price book says of the one model.
const INPUT: i128 = 150_000;
const OUTPUT: i128 = 600_000;

/// What the provider counted for one request.
#[derive(Debug, PartialEq, Eq)]
struct Booked {
    input: i64,
    output: i64,
}

/// Judges; gives how much there was.
pub(crate) async fn judge(fleet: &Fleet, memory: &[Remembered]) -> String {
    // Everything has ended but the registrar, and nobody else holds the parts.
    let server = held(&fleet.server).address;
    let endpoint = format!("http://{server}");
    let auditor = Auditor::new(fleet, endpoint.clone());
    let logs = logs(&endpoint).await;
    registered(fleet, &auditor, logs.len());

    let (objects, evidence) = copied(fleet).await;
    let books = books(&fleet.provider);
    let (whole, intents) = remembered(&evidence, memory, &books);
    let counted = figures(&auditor, memory, &books);
    let first = verified(&auditor);
    format!(
        "{first}\n{} calls, {whole} of them with the end of their answer, {} at the provider, {intents} intents, {counted} \
         outcomes with the provider's figures, {} logs, {objects} objects",
        memory.len(),
        books.len(),
        logs.len(),
    )
}

/// The logs of gateways in the bucket.
async fn logs(endpoint: &str) -> BTreeSet<String> {
    let (found, _) = versions(&S3Server::client_at(endpoint), &format!("{PREFIX}/test/gw")).await;
    found.keys().filter_map(|key| Some(key.rsplit_once('/')?.0.to_owned())).collect()
}

/// The auditor, who is told of root and registry alone.
struct Auditor {
    store: String,
    trust: std::path::PathBuf,
    state: std::path::PathBuf,
    endpoint: String,
    tables: Vec<String>,
}

impl Auditor {
    fn new(fleet: &Fleet, endpoint: String) -> Self {
        let table = |dir: &std::path::Path| dir.join("keytable").display().to_string();
        Self {
            store: format!("s3://{BUCKET}/{PREFIX}"),
            trust: fleet.deployment.trust_file(),
            state: fleet.dir.path().join("state"),
            endpoint,
            tables: fleet.gateways.iter().map(|gateway| table(&held(gateway).dir)).collect(),
        }
    }

    fn run(&self, command: &str, more: &[&str]) -> (i32, Value) {
        let mut arguments = vec![command, &self.store, "--trust", path(&self.trust)];
        arguments.extend(["--state", path(&self.state), "--path-style", "--endpoint-url", &self.endpoint]);
        auditor(&[&arguments[..], more].concat())
    }

    fn verify(&self, more: &[&str]) -> (i32, Value) {
        let tables: Vec<&str> = self.tables.iter().flat_map(|table| ["--key-table", table]).collect();
        self.run("verify", &[&tables[..], more].concat())
    }

    /// The rows of an answer.
    fn rows(&self, command: &str, more: &[&str]) -> Vec<Value> {
        let (exit, said) = self.run(command, &[more, &["--format", "jsonl"]].concat());
        assert_eq!(exit, 0, "{said}");
        // One line is JSON as it stands; several are text.
        let lines = |text: &str| -> Vec<Value> {
            text.lines()
                .filter(|line| line.starts_with('{'))
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect()
        };
        said.as_str().map_or_else(|| vec![said.clone()], lines)
    }
}

/// Waits until the registry knows every log, then ends the registrar.
fn registered(fleet: &Fleet, auditor: &Auditor, logs: usize) {
    let begun = Instant::now();
    loop {
        let (_, report) = auditor.verify(&["--since-last", "--format", "json"]);
        if report["registry"]["logs"].as_u64() == Some(logs as u64) && report["verdict"] == "VERIFIED" {
            break;
        }
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(60), "{logs} logs: {report:#}\n{}", fleet.logs());
        std::thread::sleep(Duration::from_millis(500));
    }
    let mut registrar = held(&fleet.registrar);
    assert_eq!(registrar.stop(), Some(0), "{}", registrar.log());
}

/// Every object is in the bucket once and under lock; each gateway's evidence holds together.
#[expect(clippy::await_holding_lock, reason = "everything has ended: nobody waits for it")]
async fn copied(fleet: &Fleet) -> (usize, Vec<Evidence>) {
    let server = held(&fleet.server);
    let mut objects =
        check_and_copy(&server, "test/registry/", &fleet.dir.path().join("registry-copy")).await;
    let mut evidence = Vec::new();
    for gateway in &fleet.gateways {
        let gateway = held(gateway);
        let name =
            gateway.dir.file_name().and_then(|name| name.to_str()).expect("a gateway's name").to_owned();
        objects += check_and_copy(&server, &format!("test/{name}/"), &gateway.store()).await;
        evidence.push(Evidence::read(&gateway));
    }
    (objects, evidence)
}

fn tag_of(text: &str) -> Option<String> {
    let begins = text.find("tag-")?;
    let length = text.get(begins..)?.find("-end")? + 4;
    text.get(begins..begins + length).map(str::to_owned)
}

/// What the provider would bill, by tag.
fn books(provider: &Provider) -> HashMap<String, Booked> {
    let mut books = HashMap::new();
    for seen in provider.seen() {
        let request: Value = serde_json::from_slice(&seen.body).expect("the callers send JSON");
        let tag = request["user"].as_str().expect("every caller names itself").to_owned();
        let booked = Booked { input: api::words(&request), output: 6 };
        assert!(books.insert(tag.clone(), booked).is_none(), "{tag} came to the provider twice");
    }
    books
}

/// Each request is recorded once, each that the provider saw among them, and each answer that a caller got whole is
/// recorded as it was. Gives how many these are, and how many intents there are.
fn remembered(
    evidence: &[Evidence],
    memory: &[Remembered],
    books: &HashMap<String, Booked>,
) -> (usize, usize) {
    let mut intents = BTreeMap::new();
    for evidence in evidence {
        for id in evidence.exchanges("intent") {
            let body = evidence.content(&id, "client_request").expect("an intent without its content");
            let tag = tag_of(&String::from_utf8_lossy(body)).expect("nobody sends anything else");
            assert!(evidence.outcome(&id).is_some(), "{tag}: an intent without an outcome");
            assert!(intents.insert(tag.clone(), id).is_none(), "{tag} is recorded twice");
        }
    }
    for tag in books.keys() {
        assert!(intents.contains_key(tag), "{tag} reached the provider without an intent");
    }
    let mut whole = vec![0; evidence.len()];
    for Remembered { gateway, tag, got } in memory.iter().filter(|call| call.got.whole && call.got.status > 0)
    {
        let Some(id) = got.exchange().filter(|_| got.status == 200) else { continue };
        whole[*gateway] += 1;
        let evidence = &evidence[*gateway];
        let outcome = evidence.outcome(id);
        assert_eq!(intents.get(tag).map(String::as_str), Some(id), "{tag} is recorded as another exchange");
        assert_eq!(outcome.map(|o| o["end"].as_str()), Some(Some("complete")), "{tag} {id}");
        let recorded = evidence.content(id, "client_response").or(evidence.content(id, "provider_response"));
        assert!(recorded.is_some_and(|recorded| *recorded == got.body), "{tag}: another answer is recorded");
    }
    assert!(whole.iter().all(|count| *count > 20), "the load did not reach every gateway: {whole:?}");
    (whole.iter().sum(), intents.len())
}

/// A decimal with at most 12 fraction digits, in 10^-12.
fn decimal(text: &str) -> i128 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<12}").parse().expect("a decimal")
}

/// What the auditor answers are the provider's own figures; gives of how many outcomes.
fn figures(auditor: &Auditor, memory: &[Remembered], books: &HashMap<String, Booked>) -> usize {
    let sql = "SELECT response_id, \"end\", input_tokens, output_tokens, currency, CAST(cost AS VARCHAR) AS cost \
               FROM exchanges WHERE usage_source = 'provider'";
    let mut found = BTreeSet::new();
    let (mut input, mut output) = (0, 0);
    for row in auditor.rows("query", &[sql]) {
        let tag = row["response_id"].as_str().and_then(|id| id.strip_prefix("chatcmpl-")).unwrap_or_default();
        let booked =
            books.get(tag).unwrap_or_else(|| std::panic::panic_any(format!("not in the books: {row}")));
        let tokens = [row["input_tokens"].as_i64(), row["output_tokens"].as_i64()];
        assert_eq!(tokens, [Some(booked.input), Some(booked.output)], "{row}");
        let cost = i128::from(booked.input) * INPUT + i128::from(booked.output) * OUTPUT;
        assert_eq!(row["cost"].as_str().map(decimal), Some(cost), "{row}");
        assert!(found.insert(tag.to_owned()), "{tag} is billed twice");
        (input, output) = (input + booked.input, output + booked.output);
    }
    for call in memory.iter().filter(|call| call.got.whole && call.got.status == 200) {
        assert!(found.contains(&call.tag), "{} was answered whole, and has no figures", call.tag);
    }
    let sums = auditor.rows("cost", &["--by", "consumer"]);
    let of = |key: &str| {
        sums.iter().filter(|row| row["currency"] == "USD").filter_map(|row| row[key].as_i64()).sum::<i64>()
    };
    assert_eq!(
        (of("exchanges"), of("input_tokens"), of("output_tokens")),
        (found.len() as i64, input, output),
        "{sums:?}"
    );
    let cost = |row: &Value| row["cost"].as_str().map_or_else(|| row["cost"].to_string(), str::to_owned);
    let cost: i128 = sums.iter().filter(|row| row["currency"] == "USD").map(|row| decimal(&cost(row))).sum();
    assert_eq!(cost, i128::from(input) * INPUT + i128::from(output) * OUTPUT, "{sums:?}");
    found.len()
}

/// Read anew and with everything required, and once more with what is remembered; gives the first line.
fn verified(auditor: &Auditor) -> String {
    let required: Vec<&str> = ["signed", "content", "append_only", "retention=1d"]
        .iter()
        .flat_map(|claim| ["--require", *claim])
        .collect();
    let mut first = String::new();
    for more in [&["--anew"][..], &["--since-last"]] {
        let (exit, said) = auditor.verify(&[&required, more].concat());
        let said = said.as_str().unwrap_or_default();
        assert!(exit == 0 && said.starts_with("VERIFIED signed"), "{said}");
        first = said.lines().next().unwrap_or_default().to_owned();
    }
    first
}
