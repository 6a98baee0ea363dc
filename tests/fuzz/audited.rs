//! Parsers of what is handed to an auditor, or taken from a registry: proofs, receipts, trust and mandate files, entries,
//! providers' exports, the folder of one person.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use auditor::mandate::Mandate;
use auditor::proof::{self, Bundle};
use auditor::receipts::judge::judge;
use auditor::receipts::proven::Proven;
use auditor::receipts::read::read;
use auditor::reconcile::input::Input;
use auditor::reconcile::{Told, anthropic, azure, bedrock, cur, keys, openai, vertex};
use auditor::subject::check::check as check_subject;
use auditor::subject::folder::Folder;
use auditor::subject::manifest::{Exchange, FORMAT, MANIFEST, Manifest, Part, Record, TABLE};
use bytes::Bytes;
use schemas::note::Signer as _;
use schemas::promise::Promise;
use schemas::registry::{self, KeyStatement};
use schemas::trust::Trust;
use schemas::verify::{BatchInput, VerifiedBatch, verify_batch};
use schemas::{ExchangeId, Identifier, files, note, seal};

use super::{files_below, golden, root, signer, small};

/// The golden store: its trust file, and its batches with their seals.
struct Golden {
    trust: Trust,
    batches: Vec<(VerifiedBatch, Vec<u8>)>,
}

impl Golden {
    fn read() -> Self {
        let below = root().join("schemas/testdata/v1");
        let trust = std::fs::read_to_string(below.join("trust.yaml")).expect("the golden trust file");
        let trust = auditor::trust::parse(&trust).expect("a trust file");
        let key = trust.gateways[0].public_key().expect("a key");
        let mut found = Vec::new();
        files_below(&below.join("store"), &mut found);
        let (mut batches, below) = (Vec::new(), below.join("store"));
        for path in found.iter().filter(|path| path.extension().is_some_and(|end| end == "seal")) {
            let sealed = std::fs::read(path).expect("a seal");
            let said = seal::parse_unverified(&sealed).expect("a seal's text");
            let file =
                said.files.iter().find(|file| file.name.ends_with(".records.parquet")).expect("records");
            let name = schemas::ObjectName::parse_file(&said.origin, &file.name).expect("a file's name");
            let records =
                Bytes::from(std::fs::read(below.join(name.to_string())).expect("a file of records"));
            let input = BatchInput { origin: &said.origin, key: &key, seal: &sealed, records };
            batches.push((verify_batch(input).expect("a golden batch"), sealed));
        }
        assert!(!batches.is_empty());
        Self { trust, batches }
    }

    fn leaves(&self) -> impl Iterator<Item = &[u8]> {
        self.batches.iter().flat_map(|(batch, _)| batch.rows().iter().map(|row| row.leaf()))
    }

    /// A proof of each exchange.
    fn bundles(&self) -> Vec<Bundle> {
        let exchange = |leaf: &[u8]| {
            let value: serde_json::Value = serde_json::from_slice(leaf).ok()?;
            value["exchange"].as_str().and_then(|id| ExchangeId::new(id).ok())
        };
        let exchanges: std::collections::BTreeSet<ExchangeId> = self.leaves().filter_map(exchange).collect();
        let bundle = |exchange| {
            let mut bundle = Bundle::new(exchange);
            for (batch, sealed) in &self.batches {
                bundle.add(batch, sealed).expect("records of a golden batch");
            }
            bundle
        };
        exchanges.into_iter().map(bundle).collect()
    }
}

static GOLDEN: LazyLock<Golden> = LazyLock::new(Golden::read);

pub(super) fn bundle_seeds() -> Vec<Vec<u8>> {
    let bundles = GOLDEN.bundles();
    let holds =
        |bundle: &Bundle| proof::check(bundle, &GOLDEN.trust).iter().all(|check| check.wrong.is_none());
    assert!(bundles.iter().all(holds), "the seeds hold");
    bundles.iter().filter_map(|bundle| serde_json::to_vec(bundle).ok()).collect()
}

/// A bundle that holds has nothing but records that were signed.
pub(super) fn bundle(bytes: &[u8]) {
    let Ok(bundle) = serde_json::from_slice::<Bundle>(bytes) else { return };
    let checks = proof::check(&bundle, &GOLDEN.trust);
    proof::not_judged(&bundle);
    assert!(!checks.is_empty(), "nothing was checked");
    if checks.iter().all(|check| check.wrong.is_none()) {
        for record in &bundle.records {
            let mut leaves = GOLDEN.leaves();
            assert!(leaves.any(|leaf| leaf == record.leaf.as_bytes()), "a record that nobody signed");
        }
    }
}

/// The golden promises, and the key that they are signed with.
static PROMISES: LazyLock<(Vec<String>, [u8; 32])> = LazyLock::new(|| {
    let bytes = golden("promise.json").concat();
    let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    let lines = value["promises"].as_array().expect("promises").iter();
    let lines = lines.map(|promise| promise["line"].as_str().expect("a line").to_owned()).collect();
    let key = value["key"].as_str().and_then(schemas::trust::public_key).expect("a key");
    (lines, key)
});

pub(super) fn receipts_seeds() -> Vec<Vec<u8>> {
    let lines = &PROMISES.0;
    let exchange = "01890a5d-ac96-774b-bcce-b302099a8057";
    let head = format!(
        "HTTP/1.1 200 OK\r\nX-Affidavit-Exchange: {exchange}\r\nx-affidavit-receipt: {}\r\nx-affidavit-receipt-outcome: {}\r\n\r\n",
        lines[0], lines[1]
    );
    let json = format!(
        "{{\"exchange\":\"{exchange}\",\"receipt\":\"{}\"}}\n{{\"receipt\":[\"{}\"]}}\n{{\"receipt\":{{\"x\":\"{}\"}}}}\n",
        lines[0], lines[1], lines[2]
    );
    vec![lines.join("\n").into_bytes(), head.into_bytes(), json.into_bytes()]
}

/// No line is passed over, nothing is honoured that nothing proves, and no promise holds that was not made.
pub(super) fn receipts(bytes: &[u8]) {
    let Ok(kept) = read(&String::from_utf8_lossy(bytes)) else { return };
    let (lines, key) = &*PROMISES;
    for promise in kept.iter().filter_map(|kept| kept.promise.as_ref().ok()) {
        let text = promise.to_string();
        assert_eq!(text.parse::<Promise>().as_ref(), Ok(promise), "two promises of one text");
        if promise.verify(key).is_ok() {
            assert!(lines.contains(&text), "a promise that nobody made");
        }
    }
    let result = judge(&kept, &Proven::default(), &GOLDEN.trust, 1_790_000_000_000_000);
    assert_eq!(result.receipts.len(), kept.len(), "a receipt is passed over");
    assert_eq!(result.honoured(), 0, "honoured by nothing");
}

const WITNESSED: &str = "v: 1\ndeployment: acme\noperator: Acme\nroot: XBgCRyayFLp9b0lmVxK7sLDVx1/bdMvLfBuFKIgY1ys=\nregistry:\n  \
    origin: acme/registry/log\n  key: XBgCRyayFLp9b0lmVxK7sLDVx1/bdMvLfBuFKIgY1ys=\nwitnesses: []\ntimestamp_authorities:\n  \
    - { name: tsa, certificates: [AAAA], policy: 1.2.3 }\n";

pub(super) fn trust_seeds() -> Vec<Vec<u8>> {
    let golden = [golden("trust.yaml"), golden("trust-registry.yaml")].concat();
    golden.into_iter().chain([WITNESSED.into()]).collect()
}

/// What is read means the same when it is written and read again.
pub(super) fn trust(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match auditor::trust::parse(text) {
        Ok(trust) => {
            let written = serde_json::to_vec(&trust).expect("what was read can be written");
            let again: Trust = serde_json::from_slice(&written).expect("what was written can be read");
            assert_eq!(again, trust, "two trust files of one text");
            assert!(trust.check().is_empty() && trust.fingerprint().is_ok());
            for (batch, _) in &GOLDEN.batches {
                trust.gateway(&batch.seal().origin);
            }
        }
        Err(problem) => assert!(!problem.is_empty(), "refused without a reason"),
    }
}

const MANDATES: [&str; 3] = [
    "period: { from: 2026-07-01, to: 2026-10-01T00:00:00Z }\nclaims: [signed, append_only, content]\nretention: 180d\nsystems: [bot]\n",
    "witnessed: { organisations: 2, within: 1h }\ntimestamped: { within: 1d }\nstore: { bucket: b, owner: '1', late: 5m, probed_within: 7d, holds: [acme/gw1] }\n",
    "witnessed=2\nwitnessed_within=1h\nretention=99999999999999999d\nfrom=2026-07-01\nclaim=signed\nsystem=s\n",
];

pub(super) fn mandate_seeds() -> Vec<Vec<u8>> {
    MANDATES.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(super) fn mandate(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(problem) = Mandate::parse(text) {
        assert!(!problem.is_empty(), "refused without a reason");
    }
    let mut required = Mandate::default();
    for line in text.lines().take(100) {
        let before = required.clone();
        if required.require(line).is_err() {
            assert_eq!(required, before, "a requirement that was refused is asked for");
        }
    }
}

pub(super) fn entry_seeds() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for file in golden("records.parquet") {
        let Ok(read) = files::read_records(&Bytes::from(file), &small()) else { continue };
        found.extend(read.rows.into_iter().map(|row| row.leaf.to_vec()));
    }
    found.retain(|leaf| matches!(registry::decode(leaf), Ok(Some(_))));
    found
}

/// What is read is written and read alike, and nothing that it says ends a state.
pub(super) fn entry(bytes: &[u8]) {
    let Ok(Some(entry)) = registry::decode(bytes) else { return };
    if let Ok(written) = registry::encode(&entry) {
        assert_eq!(
            registry::decode(&written).ok().flatten().as_ref(),
            Some(&entry),
            "two entries of one leaf"
        );
    }
    let mut state = registry::State::new("acme", signer().public_key(), signer().public_key());
    for seed in entry_seeds_once() {
        state.apply(0, seed);
    }
    for position in 0..3 {
        state.apply(position, &entry);
    }
    state.gateways();
}

fn entry_seeds_once() -> &'static [registry::Entry] {
    static ENTRIES: LazyLock<Vec<registry::Entry>> = LazyLock::new(|| {
        entry_seeds().iter().filter_map(|leaf| registry::decode(leaf).ok().flatten()).collect()
    });
    &ENTRIES
}

pub(super) fn statement_seeds() -> Vec<Vec<u8>> {
    let value: serde_json::Value =
        serde_json::from_slice(&golden("registry.json").concat()).expect("the golden registry");
    let texts = value["key_statements"].as_array().expect("statements").iter();
    texts.filter_map(|text| text.as_str().map(|text| text.as_bytes().to_vec())).collect()
}

/// The text as given, under a good signature of the root key.
pub(super) fn statement(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let signer = signer();
    let name = registry::root_key_name("acme");
    let Ok(signed) = note::sign(text, &[(&name, &signer)]) else { return };
    if let Ok((action, entry)) = KeyStatement::verify(&signed, "acme", &signer.public_key()) {
        assert_eq!(entry.statement("acme", action).to_text(), text, "two texts of one statement");
        assert!(entry.verify("acme", action, &signer.public_key()).is_ok(), "an entry that does not hold");
    }
}

const EXPORTS: [&str; 9] = [
    r#"{"object":"page","data":[{"object":"bucket","start_time":1730419200,"end_time":1730505600,"results":[{"object":"organization.usage.completions.result","input_tokens":1000,"output_tokens":500,"input_cached_tokens":800,"num_model_requests":5,"api_key_id":"key_a","model":"gpt-4o-mini"}]}],"has_more":false,"next_page":null}"#,
    r#"{"object":"page","data":[{"object":"bucket","start_time":1730419200,"end_time":1730505600,"results":[{"object":"organization.costs.result","amount":{"value":1.5e-7,"currency":"usd"},"line_item":null}]}],"has_more":false}"#,
    r#"{"data":[{"starting_at":"2025-08-01T00:00:00Z","ending_at":"2025-08-02T00:00:00Z","results":[{"uncached_input_tokens":1500,"cache_creation":{"ephemeral_1h_input_tokens":1000,"ephemeral_5m_input_tokens":500},"cache_read_input_tokens":200,"output_tokens":500,"api_key_id":"apikey_01","model":"claude"}]}],"has_more":false,"next_page":null}"#,
    r#"{"data":[{"starting_at":"2025-08-01T00:00:00Z","ending_at":"2025-08-02T00:00:00Z","results":[{"currency":"USD","amount":"123.78912","description":"d","cost_type":"tokens","model":"claude","token_type":"uncached_input_tokens"}]}],"has_more":false}"#,
    r#"{"schemaType":"ModelInvocationLog","schemaVersion":"1.0","timestamp":"2025-04-09T23:00:17Z","accountId":"1","requestId":"r","operation":"Converse","modelId":"m","input":{"inputTokenCount":35,"cacheReadInputTokenCount":10},"output":{"outputTokenCount":446}}"#,
    r#"{"records":[{"time":"2024-05-24T09:00:00.1234567Z","category":"RequestResponse","operationName":"ChatCompletions_Create","resultSignature":"200","correlationId":"c","properties":"{\"modelName\":\"gpt-4o\"}"}]}"#,
    r#"{"logging_time":"2026-11-20 10:15:00.123456 UTC","request_id":"8421","model":"m","full_response":{"responseId":"r-1","modelVersion":"m","usageMetadata":{"promptTokenCount":12,"candidatesTokenCount":5,"thoughtsTokenCount":3,"totalTokenCount":20}}}"#,
    "line_item_usage_start_date,line_item_usage_end_date,line_item_product_code,line_item_usage_type,line_item_usage_amount,pricing_unit,line_item_unblended_cost,line_item_currency_code,line_item_line_item_type\n2026-11-20 00:00:00.000,2026-11-20 01:00:00.000,AmazonBedrock,USE1-Claude4Sonnet-input-tokens,1.5,1K tokens,0.0045,USD,Usage\n",
    "key,provider,target\napikey_01,anthropic,\n",
];

pub(super) fn export_seeds() -> Vec<Vec<u8>> {
    let seed = |(kind, text): (usize, &&str)| [&[kind as u8], text.as_bytes()].concat();
    let seeds: Vec<_> = EXPORTS.iter().enumerate().map(seed).collect();
    let is_read =
        |seed: &Vec<u8>| told(seed).is_some_and(|told| !told.buckets.is_empty() || !told.calls.is_empty());
    let read = seeds.iter().filter(|seed| is_read(seed)).count();
    assert_eq!(read, EXPORTS.len() - 1, "the seeds are read, but for the list of keys");
    seeds
}

/// The first byte chooses the form.
fn told(bytes: &[u8]) -> Option<Told> {
    let (&kind, text) = bytes.split_first()?;
    let input = Input::of("fuzzed".into(), text.to_vec()).ok()?;
    let mut told = Told::default();
    let read = match kind % 9 {
        0 => openai::usage(&input, &mut told),
        1 => openai::costs(&input, &mut told),
        2 => anthropic::usage(&input, &mut told),
        3 => anthropic::cost(&input, &mut told),
        4 => bedrock::log(&input, &mut told),
        5 => azure::log(&input, &mut told),
        6 => vertex::log(&input, &mut told),
        7 => cur::report(&input, &mut told),
        _ => keys::Keys::read(&input).map(drop),
    };
    read.is_ok().then_some(told)
}

pub(super) fn export(bytes: &[u8]) {
    let Some(told) = told(bytes) else { return };
    let mut sum = auditor::reconcile::Counts::default();
    told.buckets.iter().for_each(|bucket| sum.add(&bucket.counts));
    told.calls.iter().for_each(|call| sum.add(&call.counts));
}

/// What stands between the manifest and the table of an input.
const BETWEEN: &[u8] = b"\n=====\n";

/// The folder of a person: everything but manifest and table stays as it is.
struct Person {
    folder: PathBuf,
    manifest: Vec<u8>,
    table: Vec<u8>,
    _dir: tempfile::TempDir,
}

impl Person {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("person");
        let mut writer = Folder::new(&folder).expect("an empty folder");
        let (mut exchanges, mut subject) = (Vec::new(), None);
        for bundle in GOLDEN.bundles() {
            let value = |leaf: &str| serde_json::from_str::<serde_json::Value>(leaf).expect("JSON");
            let told = |leaf: &str| {
                value(leaf).pointer("/caller/subject/value").and_then(|v| v.as_str().map(str::to_owned))
            };
            let Some(found) = bundle.records.iter().find_map(|record| told(&record.leaf)) else { continue };
            if *subject.get_or_insert_with(|| found.clone()) != found {
                continue;
            }
            let (story, proof) = writer.papers("its story", &bundle).expect("papers");
            let records = bundle.records.iter().map(|record| Record {
                origin: record.origin.clone(),
                position: record.position,
                record: value(&record.leaf),
            });
            let mut exchange = Exchange {
                exchange: bundle.exchange.clone(),
                records: records.collect(),
                recipients: Vec::new(),
                parts: Vec::new(),
                story,
                proof,
            };
            exchange.parts = exchange.records.iter().flat_map(parts).collect();
            exchange.recipients = exchange.told_recipients();
            exchanges.push(exchange);
        }
        let of_all = exchanges.iter().flat_map(|exchange| exchange.recipients.iter().cloned());
        let manifest = Manifest {
            format: FORMAT.into(),
            deployment: GOLDEN.trust.deployment.clone(),
            subject: Identifier::new(subject.expect("a golden exchange of somebody")).expect("an identifier"),
            from: None,
            to: Some(1),
            exchanges: exchanges.len() as u64,
            recipients: auditor::recipients::once(of_all),
            verdict: "VERIFIED".into(),
            trust_fingerprint: "x".into(),
            made_at: 1,
            auditor: "1".into(),
            reason: "fuzz".into(),
            files: std::collections::BTreeMap::new(),
        };
        writer.finish(manifest, &exchanges, None).expect("a whole folder");
        let read = |name: &str| std::fs::read(folder.join(name)).expect("a file of the folder");
        Self { manifest: read(MANIFEST), table: read(TABLE), folder: folder.clone(), _dir: dir }
    }
}

/// What a record says of its content, none of which is handed over here.
fn parts(record: &Record) -> Vec<Part> {
    let listed = record.record["parts"].as_array().cloned().unwrap_or_default();
    let part = |told: &serde_json::Value| Part {
        position: record.position,
        part: serde_json::from_value(told["part"].clone()).expect("a part's name"),
        length: told["length"].as_u64().unwrap_or_default(),
        state: if told["kept"] == false { "not_kept" } else { "no_key" }.into(),
        media_type: serde_json::from_value(told["media_type"].clone()).ok(),
        content_encoding: serde_json::from_value(told["content_encoding"].clone()).ok(),
        file: None,
    };
    listed.iter().map(part).collect()
}

static PERSON: LazyLock<Person> = LazyLock::new(Person::new);

pub(super) fn subject_seeds() -> Vec<Vec<u8>> {
    let person = &*PERSON;
    let (_, checks) = check_subject(&person.folder, &GOLDEN.trust, None).expect("a folder");
    let wrong: Vec<_> = checks.iter().filter(|check| check.wrong.is_some()).collect();
    assert!(wrong.is_empty() && checks.len() > 5, "the seed holds: {wrong:?}");
    vec![[&person.manifest, BETWEEN, &person.table].concat()]
}

/// A table other than the one that the manifest names never holds.
pub(super) fn subject(bytes: &[u8]) {
    let at = bytes.windows(BETWEEN.len()).position(|part| part == BETWEEN).unwrap_or(bytes.len());
    let (manifest, table) = (&bytes[..at], bytes.get(at + BETWEEN.len()..).unwrap_or_default());
    let person = &*PERSON;
    put(&person.folder, MANIFEST, manifest);
    put(&person.folder, TABLE, table);
    let Ok((told, checks)) = check_subject(&person.folder, &GOLDEN.trust, None) else { return };
    assert!(!checks.is_empty(), "nothing was checked");
    if checks.iter().all(|check| check.wrong.is_none()) {
        let named = &told.files[TABLE];
        assert!(named.sha256 == schemas::Sha256Hex::of(table), "another table holds");
    }
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join(name), bytes).expect("a file of the folder");
}
