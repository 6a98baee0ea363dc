//! Made-up records that use every kind and every key.

use std::collections::BTreeMap;

use schemas::content::{Salt, commitment};
use schemas::holds::Scope;
use schemas::record::{
    Admin, Answered, Asked, Attempt, Attributed, Body, Boot, Caller, Choice, Close, CloseReason, Config,
    ConfigReason, Cost, Decision, Dropped, Encryption, End, Erasure, Forwarded, Gap, GapReason, Heartbeat,
    Hold, Intent, Outcome, Part, PartName, Predecessor, ProviderEnd, Record, Refusal, Reported, Served,
    Source, Timing, Translation, Unpriced, Usage, UsageRole, UsageSource, Verdict,
};
use schemas::{ExchangeId, Identifier, Origin, Sha256Hex};

/// 2026-11-20T10:15:00Z.
pub const START: i64 = 1_795_169_700_000_000;

pub fn id(text: &str) -> Identifier {
    Identifier::new(text).unwrap()
}

pub fn origin() -> Origin {
    Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap()
}

pub fn exchange(n: u32) -> ExchangeId {
    ExchangeId::new(format!("019a9ee4-3aa0-7000-8000-{n:012x}")).unwrap()
}

pub fn record(at: i64, config: Sha256Hex, body: Body) -> Record {
    Record { v: 1, at: START + at, config, body }
}

pub fn boot(key: &[u8; 32]) -> Boot {
    Boot {
        gateway_version: id("0.1.0"),
        binary_sha256: Some(Sha256Hex::of(b"binary")),
        seal_key: super::base64(key),
        promise_key: Some(super::base64(&[7; 32])),
        heartbeat_bound_ms: 300_000,
        batch_age_ms: 10_000,
        predecessor: Some(Predecessor {
            origin: Origin::new("acme/gw1/20261119t080000z-00c0ffee").unwrap(),
            size: Some(12),
            root: Some(Sha256Hex::of(b"root")),
        }),
        encryption: Encryption::Aes256Gcm,
    }
}

pub fn config(next: Sha256Hex, policy: Option<Sha256Hex>, price_book: Option<Sha256Hex>) -> Config {
    Config { next, reason: ConfigReason::Start, policy, price_book }
}

fn from(value: &str, source: Source) -> Option<Attributed> {
    Some(Attributed { value: id(value), source })
}

pub fn caller() -> Caller {
    Caller {
        consumer: from("billing-bot", Source::Key),
        team: from("finance", Source::Key),
        organisation: from("acme", Source::Certificate),
        cost_centre: from("cc-4711", Source::Route),
        system: from("invoice-reader", Source::Claim),
        purpose: from("invoice-extraction", Source::Asserted),
        data_class: from("confidential", Source::Key),
        subject: from("p:0123456789abcdef0123456789abcdef", Source::Asserted),
        key: Some(id("k-7f3a")),
        groups: vec![id("finance"), id("p:00112233445566778899aabbccddeeff")],
        group_count: Some(2),
        forwarded: Some(Forwarded {
            kind: id("authorization"),
            fingerprint: id("p:ffeeddccbbaa99887766554433221100"),
        }),
    }
}

pub fn asked() -> Asked {
    Asked {
        route: Some(id("openai")),
        provider: Some(id("openai")),
        target: Some(id("openai-eu")),
        dialect: Some(id("openai")),
        operation: Some(id("chat.completions")),
        method: Some(id("POST")),
        requested_model: Some(id("gpt-5")),
        sent_model: Some(id("gpt-5-2026-08-07")),
        stream: Some(true),
        max_output_tokens: Some(512),
        choices: Some(1),
        tools_offered: Some(2),
        service_tier: Some(id("default")),
        temperature: Some(id("0.7")),
        background: Some(false),
        refers_to: Some(id("resp_1")),
    }
}

fn verdict(decision: Decision) -> Verdict {
    Verdict {
        decision,
        policy: Sha256Hex::of(b"policy"),
        rules: vec![id("models"), id("eu-only")],
        rule_count: Some(2),
        facts: BTreeMap::from([("region".to_owned(), id("eu"))]),
    }
}

/// A part and the salt under which it is committed to.
pub fn part(part: PartName, content: &[u8], salt: &Salt) -> Part {
    let (media_type, content_encoding) = match part {
        PartName::ClientRequestHead | PartName::ProviderResponseHead | PartName::Error => (None, None),
        PartName::ProviderResponse => (Some(id("text/event-stream")), Some(id("gzip"))),
        PartName::AttemptResponse(_) => (Some(id("application/json")), Some(id("br"))),
        _ => (Some(id("application/json")), None),
    };
    let commitment = commitment(salt, content);
    Part { part, media_type, content_encoding, length: content.len() as u64, commitment, kept: None }
}

pub fn intent(n: u32, parts: Vec<Part>, key: Option<Identifier>) -> Intent {
    Intent {
        exchange: exchange(n),
        caller: caller(),
        asked: asked(),
        verdict: Some(verdict(Decision::Allow)),
        parts,
        content_key: key,
        retention: id("standard"),
        translation: None,
        fail_mode: Some(id("open")),
        suppression: vec![id("x-affidavit-record")],
        choice: None,
    }
}

/// What a prompt meant, and what embedded it.
pub fn choice() -> Choice {
    Choice {
        by: id("semantic"),
        why: id("matched"),
        target: Some(id("openai-eu")),
        score: Some(812_345),
        embedded: Some(exchange(7)),
    }
}

/// Usage that the provider did not tell.
pub fn estimated() -> Usage {
    Usage {
        input_tokens: Some(1187),
        output_tokens: Some(290),
        tokenizer: Some(id("o200k_base")),
        ..Usage::of(UsageSource::Estimated, UsageRole::Incurred)
    }
}

fn usage() -> Usage {
    Usage {
        input_tokens: Some(1200),
        uncached_input_tokens: Some(150),
        cache_read_tokens: Some(1000),
        cache_write_5m_tokens: Some(50),
        cache_write_1h_tokens: Some(0),
        output_tokens: Some(300),
        reasoning_tokens: Some(120),
        input_audio_tokens: Some(0),
        output_audio_tokens: Some(0),
        input_image_tokens: Some(0),
        output_image_tokens: Some(0),
        tool_use_input_tokens: Some(0),
        search_units: Some(0),
        web_searches: Some(0),
        pages: Some(0),
        audio_seconds: Some(0),
        reported: Reported {
            input: Some(1200),
            output: Some(300),
            total: Some(1500),
            cached_input: Some(1000),
            cache_creation: Some(50),
            reasoning: Some(120),
        },
        ..Usage::of(UsageSource::Provider, UsageRole::Incurred)
    }
}

pub fn outcome(n: u32, intent_position: u64, parts: Vec<Part>, key: Option<Identifier>) -> Outcome {
    Outcome {
        exchange: exchange(n),
        intent_position,
        caller: caller(),
        asked: asked(),
        served: None,
        translation: None,
        answer_dropped: None,
        end: End::Complete,
        provider_end: Some(ProviderEnd::Seen),
        provider_status: Some(200),
        status: Some(200),
        reason: None,
        delivered: Some(4096),
        released: Some(14),
        delivered_at_least: None,
        answered: Answered {
            served_model: Some(id("gpt-5-2026-08-07")),
            response_id: Some(id("chatcmpl-1")),
            request_id: Some(id("req_1")),
            finish_reasons: vec![id("stop")],
            finish_detail: Some(id("stop_sequence")),
            tool_calls: Some(1),
            server_tool_calls: Some(0),
            tool_names: vec![id("lookup_invoice")],
            error_type: None,
            error_code: None,
            service_tier: Some(id("default")),
            retry_after_s: None,
        },
        usage: usage(),
        cost: Some(Cost {
            currency: id("USD"),
            total: "0.0033750000005".into(),
            classes: BTreeMap::new(),
            price_book: Sha256Hex::of(b"prices"),
            price_row: id("openai/gpt-5/2026-08-07"),
        }),
        unpriced: None,
        timing: Timing {
            admitted_us: Some(310),
            commit_us: Some(420),
            provider_head_us: Some(180_000),
            first_byte_us: Some(181_000),
            first_token_us: Some(182_500),
            total_us: Some(2_400_000),
        },
        rate_limits: BTreeMap::from([("requests_limit".into(), 500), ("tokens_remaining".into(), 29_000)]),
        parts,
        content_key: key,
        retention: id("standard"),
    }
    .priced()
}

trait Priced {
    fn priced(self) -> Self;
}

impl Priced for Outcome {
    fn priced(mut self) -> Self {
        if let Some(cost) = &mut self.cost {
            cost.total = "0.003375000001".into();
            cost.classes = BTreeMap::from([
                ("input".into(), "0.0001875".into()),
                ("cache_read".into(), "0.000125000001".into()),
                ("cache_write_5m".into(), "0.0000625".into()),
                ("output".into(), "0.003".into()),
            ]);
        }
        self
    }
}

pub fn interrupted(n: u32, intent_position: u64) -> Outcome {
    Outcome {
        end: End::Interrupted,
        provider_end: None,
        provider_status: None,
        status: None,
        delivered: None,
        released: None,
        delivered_at_least: Some(2048),
        answered: Answered::default(),
        usage: Usage::of(UsageSource::Unknown, UsageRole::Incurred),
        cost: None,
        unpriced: Some(Unpriced::NoUsage),
        timing: Timing::default(),
        rate_limits: BTreeMap::new(),
        ..outcome(n, intent_position, vec![], None)
    }
}

pub fn refusal(n: u32) -> Refusal {
    Refusal {
        exchange: Some(exchange(n)),
        reason: id("policy_denied"),
        status: 403,
        count: None,
        first: None,
        last: None,
        caller: Some(caller()),
        asked: Some(asked()),
        verdict: Some(verdict(Decision::Deny)),
        parts: vec![],
        content_key: None,
        retention: Some(id("standard")),
        suppression: vec![],
        limit: None,
        translation: None,
    }
}

pub fn folded() -> Refusal {
    Refusal {
        exchange: None,
        reason: id("missing_key"),
        status: 401,
        count: Some(118),
        first: Some(START + 5_000_000),
        last: Some(START + 5_990_000),
        caller: None,
        asked: None,
        verdict: None,
        retention: None,
        ..refusal(0)
    }
}

pub fn attempt(
    (n, intent_position): (u32, u64),
    number: u64,
    phase: &str,
    parts: Vec<Part>,
    key: Option<Identifier>,
) -> Attempt {
    let ended = phase == "end";
    // Number 0 goes where the intent says.
    let (target, model) = match number {
        0 => ("openai-eu", "gpt-5-2026-08-07"),
        _ => ("openai-us", "gpt-5-mini"),
    };
    let sent = parts.iter().find(|_| !ended).map(|part| part.commitment);
    Attempt {
        exchange: exchange(n),
        intent_position,
        number,
        phase: id(phase),
        target: id(target),
        provider: Some(id("openai")),
        dialect: Some(id("openai")),
        model: Some(id(model)),
        reason: id("fallback"),
        verdict: (!ended).then(|| verdict(Decision::Allow)),
        translation: (!ended).then(translation),
        commitment: sent,
        end: ended.then_some(End::Complete),
        status: ended.then_some(529),
        total_us: ended.then_some(900_000),
        answered: Answered {
            response_id: ended.then(|| id("chatcmpl-0")),
            error_type: ended.then(|| id("overloaded_error")),
            ..Answered::default()
        },
        usage: ended.then(usage),
        cost: None,
        unpriced: ended.then_some(Unpriced::NoPrice),
        retention: (!parts.is_empty()).then(|| id("standard")),
        content_key: key.filter(|_| !parts.is_empty()),
        parts,
    }
}

/// What an exchange calls on its side: it has no money.
pub fn side_call((n, intent_position): (u32, u64)) -> Attempt {
    let commitment = Some(Sha256Hex::of(b"commitment"));
    let call = attempt((n, intent_position), 1, "end", vec![], None);
    Attempt { reason: id("side_call"), commitment, usage: None, cost: None, unpriced: None, ..call }
}

/// A request in another dialect than its caller's.
pub fn translation() -> Translation {
    Translation {
        from: id("anthropic"),
        to: id("openai"),
        dropped: Dropped {
            count: 3,
            meaning: 1,
            unknown: 1,
            what: vec![id("cache_control"), id("unknown_key")],
        },
    }
}

pub fn answer_dropped() -> Dropped {
    Dropped { count: 1, meaning: 0, unknown: 0, what: vec![id("logprobs")] }
}

pub fn served() -> Served {
    Served {
        number: 1,
        target: id("openai-us"),
        provider: Some(id("openai")),
        dialect: Some(id("openai")),
        model: Some(id("gpt-5-mini")),
    }
}

pub fn close() -> Close {
    Close {
        reason: CloseReason::Shutdown,
        successor: Some(Origin::new("acme/gw1/20261121t101500z-00000001").unwrap()),
        alive_until: START + 60_000_000,
        counters: counters(),
    }
}

fn counters() -> BTreeMap<String, u64> {
    BTreeMap::from([
        ("exchanges".into(), 3),
        ("outcomes".into(), 3),
        ("refusals".into(), 119),
        ("failed_tls_handshake".into(), 1),
    ])
}

/// The kinds that no exchange has.
pub fn lone() -> Vec<(&'static str, Body)> {
    let admin = Admin { action: id("key_revoked"), actor: Some(id("uid:1000")), object: Some(id("k-7f3a")) };
    let gap = |reason, count, bytes| Body::Gap(Gap { reason, count, bytes });
    let erasure = Erasure {
        exchange: exchange(2),
        origin: origin(),
        position: 5,
        content_key: id("acme/gw1/20261120t101500z-3f9a1c20/000000/0001"),
        reason: id("gdpr-17"),
        actor: Some(id("uid:1000")),
    };
    let hold = Hold {
        hold: id("case-17"),
        phase: id("begin"),
        reason: Some(id("litigation")),
        actor: Some(id("uid:1000")),
        scope: Scope {
            exchange: Some(exchange(1)),
            subject: Some(id("p:00112233445566778899aabbccddeeff")),
            consumer: Some(id("payroll-bot")),
            from: Some(START),
            to: Some(START + 1_000_000),
        },
    };
    vec![
        ("admin", Body::Admin(admin)),
        ("heartbeat", Body::Heartbeat(Heartbeat { counters: counters() })),
        ("gap_torn_tail", gap(GapReason::TornTail, None, Some(4096))),
        ("gap_loss", gap(GapReason::Loss, Some(1), Some(512))),
        ("gap_unrecorded", gap(GapReason::Unrecorded, Some(3), None)),
        ("gap_late", gap(GapReason::Late, Some(2), None)),
        ("hold", Body::Hold(hold)),
        ("erasure", Body::Erasure(erasure)),
    ]
}
