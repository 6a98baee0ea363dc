//! SDKs and frameworks of many makers from PyPI and npm, unmodified, through one running gateway: each cell of a matrix is run
//! once straight against the provider and once through the gateway, and the gateway's records are held against it.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use tests::bedrock::{Bedrock, KEYS};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::{Provider, marks};

/// The gateway's own key of all providers but Bedrock.
const OWN: &str = "sk-provider-secret";

/// Callers' dialects, and the providers that each reaches through translation.
const TRANSLATED: [(&str, &[&str]); 2] = [
    ("openai", &["anthropic", "gemini", "vertex", "bedrock"]),
    ("anthropic", &["openai", "gemini", "vertex", "bedrock"]),
];

/// The columns of the matrix.
const COLUMNS: [&str; 11] = [
    "whole",
    "streamed",
    "tools",
    "structured output",
    "embeddings",
    "exceptions",
    "tries, retry-after",
    "left mid-stream",
    "50 at once",
    "wrong gateway key",
    "others",
];

/// What each process runs: its modules of `tests/sdks`, in the order of the matrix.
const PYTHON: &str = "openai_sdk,anthropic_sdk,bedrock_sdk";
const SDKS_PYTHON: &str = "google_sdk,makers_sdk,frameworks";

/// A gateway with a route for each wire format, for providers that speak OpenAI's, and for each translated pair.
fn gateway(dir: &Path, provider: &Provider, bedrock: &Bedrock) -> Gateway {
    let key = dir.join("provider.key");
    let more = |name: &str| {
        format!(
            "  - {{ name: {name}, dialect: openai, base_url: '{}', credential: {{ file: {} }} }}\n",
            provider.url(),
            key.display()
        )
    };
    let route = |name: &str| format!("  - {{ name: {name}, path: /{name}, provider: {name} }}\n");
    let pair = |from: &str, to: &str| {
        format!("  - {{ name: {from}-to-{to}, path: /{from}-to-{to}, dialect: {from}, provider: {to} }}\n")
    };
    let pairs = TRANSLATED.iter().flat_map(|(from, all)| all.iter().map(move |to| pair(from, to)));
    let setup = Setup {
        provider: provider.url(),
        further: vec!["gemini", "vertex", "cohere", "ollama"],
        providers: ["mistral", "groq"].map(more).concat() + &tests::bedrock::provider(dir, &bedrock.url),
        routes: ["mistral", "groq", "bedrock"].map(route).concat() + &pairs.collect::<String>(),
        ..Setup::default()
    };
    let mut gateway = Gateway::prepare(dir, &setup);
    tests::bedrock::write_key(dir, KEYS[0]);
    gateway.serve();
    gateway
}

/// The programs that the matrix is made of, by the word before their output.
fn programs() -> [(&'static str, Command); 3] {
    let named = |variable: &str, what: &str| {
        std::env::var(variable).unwrap_or_else(|_| panic!("{variable} names {what}"))
    };
    let pytest = |mut python: Command, subjects: &str| {
        python.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).arg(tests::root().join("tests/sdks"));
        python.env("AFFIDAVIT_SUBJECTS", subjects);
        python
    };
    let sdks = named("AFFIDAVIT_SDKS_PYTHON", "a Python with tests/sdks/requirements.txt");
    let modules = named("AFFIDAVIT_SDKS_NODE", "a copy of tests/sdks/node with its `node_modules`");
    let mut node = Command::new("node");
    node.args(["--test", "run.test.mjs"]).current_dir(modules);
    [
        ("SDKs", pytest(tests::bedrock::python(), PYTHON)),
        ("more SDKs", pytest(Command::new(sdks), SDKS_PYTHON)),
        ("Node", node),
    ]
}

/// Runs all programs beside each other; says how long each took, and gives what failed.
fn run_all(provider: &Provider, bedrock: &Bedrock, gateway: &Gateway, cells: &Path) -> Vec<String> {
    let run = |name: &str, mut command: Command| {
        let begun = Instant::now();
        let output = command
            .env("AFFIDAVIT_PROVIDER", provider.url())
            .env("AFFIDAVIT_BEDROCK", &bedrock.url)
            .env("AFFIDAVIT_GATEWAY", format!("http://{}", gateway.address))
            .env("AFFIDAVIT_KEY", &gateway.key)
            .env("AFFIDAVIT_CELLS", cells)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .output()
            .expect("the SDKs' tests start");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        tell(&format!("{name}: {} s", begun.elapsed().as_secs()));
        (!output.status.success()).then(|| format!("{name}:\n{}", said.concat()))
    };
    std::thread::scope(|scope| {
        let running = programs().map(|(name, command)| scope.spawn(move || run(name, command)));
        running.into_iter().filter_map(|thread| thread.join().expect("the program was waited for")).collect()
    })
}

/// To whoever runs the suite, also where the test passes.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The matrix as it was run: a row for each SDK and provider, a column for each way to ask.
fn matrix(cells: &[Value]) -> String {
    let text = |cell: &Value, name: &str| cell[name].as_str().unwrap_or_default().to_owned();
    let mut rows: BTreeMap<(String, String), BTreeMap<String, String>> = BTreeMap::new();
    for cell in cells {
        let row = rows.entry((text(cell, "sdk"), text(cell, "provider"))).or_default();
        row.insert(text(cell, "column"), text(cell, "got"));
    }
    let mut out =
        format!("| SDK | provider | {} |\n|{}\n", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len() + 2));
    for ((sdk, provider), row) in &rows {
        let _ = write!(out, "| {sdk} | {provider} |");
        for column in COLUMNS {
            let _ = write!(out, " {} |", row.get(column).map_or("not run", String::as_str));
        }
        out.push('\n');
    }
    out
}

/// The exchanges of each mark; fails where two marks meet in one exchange.
fn exchanges(evidence: &Evidence) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for exchange in evidence.exchanges("outcome") {
        let parts = ["client_request", "provider_request", "provider_response", "client_response"];
        let all: BTreeSet<String> = parts
            .iter()
            .filter_map(|part| evidence.content(&exchange, part))
            .flat_map(|content| {
                let text = String::from_utf8_lossy(content);
                marks(&text).map(str::to_owned).collect::<Vec<_>>()
            })
            .collect();
        assert!(all.len() <= 1, "exchange {exchange} mixes {all:?}");
        for mark in all {
            found.entry(mark).or_default().push(exchange.clone());
        }
    }
    found
}

/// Holds what one cell asked against the records: how many exchanges, how each ended, and the tokens that the SDK told. Gives
/// how many it held, and adds what is wrong.
fn judge(
    cell: &Value,
    evidence: &Evidence,
    found: &BTreeMap<String, Vec<String>>,
    wrong: &mut Vec<String>,
) -> usize {
    let mut judged = 0;
    for asked in cell["asked"].as_array().into_iter().flatten() {
        let mark = asked["mark"].as_str().expect("a mark");
        let ids = found.get(mark).map_or(&[][..], Vec::as_slice);
        let tries = if asked["end"] == "refused" { Some(0) } else { asked["tries"].as_u64() };
        if Some(ids.len() as u64) != tries || (ids.is_empty() && asked["end"] != "refused") {
            wrong.push(format!("{mark} has {} exchanges: {cell}", ids.len()));
        }
        for id in ids {
            let outcome = evidence.outcome(id).expect("it was listed");
            judged += 1;
            if let Err(what) = held(outcome, asked, ids.len() == 1) {
                wrong.push(format!("{what}: {asked} of {cell}\n{outcome:#}"));
            }
        }
    }
    judged
}

/// Whether an outcome says what the SDK saw.
fn held(outcome: &Value, asked: &Value, is_alone: bool) -> Result<(), String> {
    let wanted = |name: &str, got: &Value, wanted: &Value| {
        if got == wanted { Ok(()) } else { Err(format!("{name} is {got}, the SDK saw {wanted}")) }
    };
    // An SDK that cannot be made to close its stream may read on.
    let is_either = asked["end"] == "client_abort or complete";
    if !(is_either && (outcome["end"] == "client_abort" || outcome["end"] == "complete")) {
        wanted("end", &outcome["end"], &asked["end"])?;
    }
    let told: Vec<_> = asked["usage"].as_array().into_iter().flatten().collect();
    let ([input, output], 200, "complete") =
        (&told[..], outcome["status"].as_u64().unwrap_or(0), outcome["end"].as_str().unwrap_or_default())
    else {
        return Ok(());
    };
    let usage = &outcome["usage"];
    wanted("the source", &usage["source"], &"provider".into())?;
    wanted("output", &usage["output_tokens"], output)?;
    // Of two requests with one mark the SDK told of the last; of a stream it may know the output alone.
    if is_alone && !input.is_null() { wanted("input", &usage["input_tokens"], input) } else { Ok(()) }
}

fn judge_all(cells: &[Value], provider: &Provider, bedrock_saw: &str, gateway: &Gateway) {
    let evidence = Evidence::read(gateway);
    let headers = ["authorization", "x-api-key", "x-goog-api-key", "api-key"];
    let seen = provider.seen();
    let has_own = |seen: &&tests::provider::Seen| {
        headers.iter().any(|name| seen.header(name).is_some_and(|value| value.contains(OWN)))
    };
    let through = seen.iter().filter(has_own).count() + bedrock_saw.matches(KEYS[0][0]).count();
    let outcomes = evidence.of_kind("outcome").count();
    // A request that the gateway could not say in the provider's dialect has an outcome and went nowhere.
    let unsaid = evidence.of_kind("outcome").filter(|outcome| outcome["reason"] == "untranslatable").count();
    assert_eq!(
        outcomes - unsaid,
        through,
        "outcomes and requests that the providers saw through the gateway"
    );
    let found = exchanges(&evidence);
    let mut wrong = Vec::new();
    let judged: usize = cells.iter().map(|cell| judge(cell, &evidence, &found, &mut wrong)).sum();
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(judged > 4_500, "{judged} exchanges were held against the records");
    let secrets = [&KEYS[0][1..], &[OWN, &gateway.key]].concat();
    let leaves = evidence.leaves.iter().map(|leaf| leaf.leaf.as_slice());
    for kept in evidence.contents().map(Vec::as_slice).chain(leaves).chain([gateway.log().as_bytes()]) {
        for secret in &secrets {
            assert!(!kept.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} was kept");
        }
    }
    let (code, out, err) = gateway.verify(&[]);
    assert!(code == 0 && out.starts_with("VERIFIED"), "{out}{err}");
    tell(&format!("{outcomes} exchanges in the log, {judged} held against what the SDKs said; VERIFIED"));
}

/// The page that shows the matrix says what was run; `UPDATE=1` writes it.
fn holds_page(matrix: &str) {
    let path = tests::root().join("tests/sdks/MATRIX.md");
    let page = std::fs::read_to_string(&path).expect("the page of the matrix");
    let (head, _) = page.split_once("| SDK |").expect("the page has the matrix");
    let wanted = format!("{head}{matrix}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, wanted).expect("the page is written");
    } else {
        assert_eq!(page, wanted, "{} is not what was run; UPDATE=1 writes it", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python with tests/requirements.txt and with tests/sdks/requirements.txt, Node with tests/sdks/node/package-lock.json; the test command installs and runs them"]
async fn each_sdk_gets_through_the_gateway_what_it_gets_from_its_provider() {
    let dir = tempfile::tempdir().expect("a folder");
    let (cells, saw) = (dir.path().join("cells"), dir.path().join("seen"));
    let (provider, bedrock) = (Provider::start([]).await, Bedrock::start(&saw));
    let mut gateway = gateway(dir.path(), &provider, &bedrock);
    let failed = tokio::task::block_in_place(|| run_all(&provider, &bedrock, &gateway, &cells));
    let text = std::fs::read_to_string(&cells).unwrap_or_default();
    let cells: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let matrix = matrix(&cells);
    tell(&matrix);
    assert!(failed.is_empty(), "{}\n{}", failed.concat(), gateway.log());
    assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
    let bedrock_saw = std::fs::read_to_string(&saw).expect("what Bedrock saw");
    judge_all(&cells, &provider, &bedrock_saw, &gateway);
    holds_page(&matrix);
}
