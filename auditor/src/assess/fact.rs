//! The facts that a pack may ask: a name, its columns, and what it rests on. [`super::tables`] makes them tables.

use std::sync::LazyLock;

use schemas::columns::ColumnKind::{Bool, Int64, TimestampUs, Utf8};
use schemas::columns::{COLUMNS, ColumnKind};
use serde::Serialize;

use super::rows::Column;

/// The table of a pack's settings: one row, a column for each.
pub const SETTINGS: &str = "settings";

/// What a fact rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rests {
    /// Proven rows: what is not proven is not in it.
    Records,
    /// The report of the verification itself.
    Report,
    /// What the bucket showed of its versions.
    Bucket,
}

/// A fact.
#[derive(Debug, Clone)]
pub struct Fact {
    /// The table's name.
    pub name: &'static str,
    /// What a row of it is.
    pub about: &'static str,
    /// What it rests on.
    pub rests: Rests,
    /// Its columns, with the expression that makes each where it is a view over `records`.
    pub fields: Vec<Field>,
    /// The view's `FROM`, with its condition; `None` where the rows come from report or bucket.
    pub view: Option<View>,
}

/// How a fact is seen in proven rows.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Where from.
    pub from: &'static str,
    /// Which of its rows.
    pub filter: &'static str,
    /// The expression that is held against the asked interval.
    pub time: &'static str,
    /// Whether what was before the interval still counts in it: what is erased stays erased.
    pub lasts: bool,
}

/// A column of a fact.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnKind,
    /// The expression that makes it.
    pub expression: String,
}

impl Fact {
    /// Whether few of all records are of its kind, and its columns stand in their leaves: it is asked once and kept.
    pub fn is_rare(&self) -> bool {
        let common = ["intent", "outcome", "refusal", "content"];
        self.view.is_some_and(|view| view.from == "records") && !common.contains(&self.name)
    }
    /// Its columns.
    pub fn columns(&self) -> Vec<Column> {
        self.fields.iter().map(|field| Column { name: field.name.into(), kind: field.kind }).collect()
    }
}

/// Whether a table holds evidence: the calendar (`period`, `day`), settings and registers hold none.
pub fn is_evidence(name: &str) -> bool {
    fact(name).is_some() && !["period", "day"].contains(&name)
}

/// The fact of a name.
pub fn fact(name: &str) -> Option<&'static Fact> {
    FACTS.iter().find(|fact| fact.name == name)
}

/// Who and what: in every record of an exchange.
const ASKED: &[&str] = &[
    "exchange",
    "config",
    "consumer",
    "consumer_source",
    "team",
    "organisation",
    "cost_centre",
    "system",
    "purpose",
    "data_class",
    "subject",
    "key",
    "route",
    "provider",
    "target",
    "dialect",
    "operation",
    "method",
    "requested_model",
    "sent_model",
    "stream",
    "decision",
    "retention",
    "content_key",
];

/// How it ended.
const ANSWERED: &[&str] = &[
    "served_model",
    "end",
    "provider_end",
    "status",
    "provider_status",
    "reason",
    "delivered",
    "response_id",
    "finish_reason",
    "tool_calls",
    "error_type",
    "usage_source",
    "usage_role",
    "input_tokens",
    "cache_read_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost",
    "currency",
    "price_book",
    "unpriced",
    "total_us",
];

/// A column as the view's source has it.
fn column(name: &'static str, kind: ColumnKind) -> Field {
    Field { name, kind, expression: format!("\"{name}\"") }
}

/// Columns of every record.
fn typed(names: &[&'static str]) -> Vec<Field> {
    let kind =
        |name: &str| COLUMNS.iter().find(|column| column.name == name).map_or(Utf8, |known| known.kind);
    names.iter().map(|name| column(name, kind(name))).collect()
}

/// Columns of what is no record.
fn plain(columns: &[(&'static str, ColumnKind)]) -> Vec<Field> {
    columns.iter().map(|(name, kind)| column(name, *kind)).collect()
}

/// Columns that only the leaf has.
fn of_leaf(columns: &[(&'static str, ColumnKind, &str)]) -> Vec<Field> {
    let field = |(name, kind, path): &(&'static str, ColumnKind, &str)| {
        let text = format!("leaf_text(leaf, '{path}')");
        let expression = match kind {
            Int64 => format!("CAST({text} AS BIGINT)"),
            // The leaf holds microseconds.
            TimestampUs => {
                format!("arrow_cast(CAST({text} AS BIGINT), 'Timestamp(Microsecond, Some(\"UTC\"))')")
            }
            _ => text,
        };
        Field { name, kind: *kind, expression }
    };
    columns.iter().map(field).collect()
}

const PLACE: &[(&str, ColumnKind)] = &[("origin", Utf8), ("position", Int64), ("at", TimestampUs)];

fn of_kind(name: &'static str, about: &'static str, filter: &'static str, more: &[Vec<Field>]) -> Fact {
    let mut fields = plain(PLACE);
    fields.extend(more.iter().flatten().cloned());
    let lasts = ["config", "admin", "boot", "hold", "erasure", "content"].contains(&name);
    let view = View { from: "records", filter, time: "at", lasts };
    Fact { name, about, rests: Rests::Records, fields, view: Some(view) }
}

fn told(name: &'static str, about: &'static str, columns: &[(&'static str, ColumnKind)]) -> Fact {
    Fact { name, about, rests: Rests::Report, fields: plain(columns), view: None }
}

/// Whoever did something, in one form: what audit rules ask of every entry.
const EVENTS: &str = r#"(
    SELECT origin, position, at, kind, consumer AS actor, coalesce(operation, 'other') AS action, "end" AS result,
           coalesce("key", origin) AS source, coalesce(served_provider, provider) AS resource, exchange
           FROM records WHERE kind = 'outcome'
    UNION ALL SELECT origin, position, at, kind, consumer AS actor, coalesce(operation, 'call') AS action, reason AS result,
           coalesce("key", origin) AS source, coalesce(provider, route, 'gateway') AS resource, exchange
           FROM records WHERE kind = 'refusal'
    UNION ALL SELECT origin, position, at, kind, leaf_text(leaf, 'actor') AS actor, leaf_text(leaf, 'action') AS action,
           CASE WHEN leaf_text(leaf, 'action') = 'config_refused' THEN 'refused' ELSE 'done' END AS result, origin AS source,
           leaf_text(leaf, 'object') AS resource, CAST(NULL AS VARCHAR) AS exchange
           FROM records WHERE kind = 'admin'
    UNION ALL SELECT origin, position, at, kind, leaf_text(leaf, 'actor') AS actor, 'erasure' AS action, 'done' AS result,
           origin AS source, exchange AS resource, exchange FROM records WHERE kind = 'erasure'
    UNION ALL SELECT origin, position, at, kind, leaf_text(leaf, 'actor') AS actor,
           concat('hold_', leaf_text(leaf, 'phase')) AS action, 'done' AS result, origin AS source,
           leaf_text(leaf, 'hold') AS resource, exchange FROM records WHERE kind = 'hold'
    UNION ALL SELECT origin, position, at, kind, 'gateway' AS actor, kind AS action, 'done' AS result, origin AS source,
           'log' AS resource, CAST(NULL AS VARCHAR) AS exchange FROM records WHERE kind IN ('boot', 'close', 'config')
    )"#;

/// The table of what went to further targets, made once: [`FURTHER`].
pub(super) const FURTHER_TABLE: &str = "further";

/// What went to targets behind the first one (and calls of the gateway's own for an exchange), with who and why of the exchange.
/// An exchange whose other records are missing has nobody beside it, and is there all the same.
pub(super) const FURTHER: &str = r#"SELECT a.origin, a.position, a.at, a.exchange, a.attempt_number, a.reason, a.attempt_target,
           a.attempt_provider, a.attempt_dialect, a.attempt_model, e.consumer, e.team, e.organisation, e."system", e.purpose,
           e.data_class, e.subject, e."key", e.route, e.operation, e.first_provider
      FROM (SELECT * FROM records WHERE kind IN ('attempt', 'side_call') AND phase = 'open') a
      LEFT JOIN exchanges e ON a.origin = e.origin AND a.exchange = e.exchange"#;

/// Everything that went to a provider, whether it answered or not.
const SENT: &str = r#"(
    SELECT origin, position, coalesce(started_at, ended_at) AS at, exchange, CAST(0 AS BIGINT) AS "number", 'first' AS why,
           first_target AS target, first_provider AS provider, first_dialect AS dialect,
           coalesce(sent_model, requested_model) AS model, consumer, team, organisation, "system", purpose, data_class,
           subject, "key", route, operation, first_provider FROM exchanges WHERE state <> 'refused'
    UNION ALL SELECT origin, position, at, exchange, attempt_number AS "number", reason AS why, attempt_target AS target,
           attempt_provider AS provider, attempt_dialect AS dialect, attempt_model AS model, consumer, team, organisation,
           "system", purpose, data_class, subject, "key", route, operation, first_provider FROM further
    )"#;

/// Every fact.
pub static FACTS: LazyLock<Vec<Fact>> = LazyLock::new(|| {
    let policy = of_leaf(&[("policy", Utf8, "verdict.policy"), ("rules", Utf8, "verdict.rules")]);
    let states = [("state", Utf8), ("started_at", TimestampUs), ("ended_at", TimestampUs)];
    let exchange =
        [plain(&[("origin", Utf8), ("position", Int64)]), plain(&states), typed(ASKED), typed(ANSWERED)];
    let batch = [
        ("origin", Utf8),
        ("batch", Int64),
        ("from_position", Int64),
        ("to_position", Int64),
        ("seal", Utf8),
        ("sealed_at", TimestampUs),
        ("bytes", Int64),
    ];
    let texts = ["kind", "actor", "action", "result", "source", "resource", "exchange"];
    let event = [plain(PLACE), plain(&texts.map(|name| (name, Utf8)))];
    let texts = [
        "why",
        "target",
        "provider",
        "dialect",
        "model",
        "consumer",
        "team",
        "organisation",
        "system",
        "purpose",
        "data_class",
        "subject",
        "key",
        "route",
        "operation",
        "first_provider",
    ];
    let sent = [
        plain(PLACE),
        plain(&[("exchange", Utf8), ("number", Int64)]),
        plain(&texts.map(|name| (name, Utf8))),
    ];
    let seen = |from, time| View { from, filter: "true", time, lasts: false };
    let records =
        |name, about, fields, view| Fact { name, about, rests: Rests::Records, fields, view: Some(view) };
    vec![
        records(
            "exchange",
            "an exchange by when it began: state `ended`, `refused`, or `open` where it has no outcome",
            exchange.concat(),
            seen("exchanges", "coalesce(started_at, ended_at)"),
        ),
        records(
            "sent",
            "what went to a provider, whether it answered or not: `number` 0 is what an exchange tried first, each further one a \
             target behind it (`why`: `first`, `retry`, `fallback`, ...); consumer, purpose and data class are the exchange's, and \
             `first_provider` is where it went first, also before the interval",
            sent.concat(),
            seen(SENT, "at"),
        ),
        of_kind(
            "intent",
            "what was about to go to a provider",
            "kind = 'intent'",
            &[
                typed(ASKED),
                policy.clone(),
                of_leaf(&[
                    ("fail_mode", Utf8, "fail_mode"),
                    ("suppression", Utf8, "suppression"),
                    ("groups", Utf8, "caller.groups"),
                    ("own_credential_kind", Utf8, "caller.forwarded.kind"),
                    ("own_credential", Utf8, "caller.forwarded.fingerprint"),
                ]),
            ],
        ),
        of_kind(
            "outcome",
            "how an exchange that went to a provider ended",
            "kind = 'outcome'",
            &[typed(ASKED), typed(ANSWERED), typed(&["intent_position"])],
        ),
        of_kind(
            "attempt",
            "bytes went to a further target (`open`), or a target's answer did not count (`end`); number 0 is the intent's own",
            "kind = 'attempt'",
            &[
                typed(&["exchange", "intent_position", "reason", "end", "status", "served_model"]),
                of_leaf(&[
                    ("number", Int64, "number"),
                    ("phase", Utf8, "phase"),
                    ("target", Utf8, "target"),
                    ("provider", Utf8, "provider"),
                    ("dialect", Utf8, "dialect"),
                    ("model", Utf8, "model"),
                ]),
                typed(&["usage_source", "usage_role", "input_tokens", "output_tokens", "cost", "currency"]),
            ],
        ),
        of_kind(
            "refusal",
            "what the gateway refused before anything went to a provider; `count` where several were folded into one",
            "kind = 'refusal'",
            &[typed(ASKED), typed(&["reason", "status", "count"]), policy],
        ),
        of_kind(
            "content",
            "content that was kept under a key, by what it belongs to: a call (`intent`) or a `refusal`, also from before the \
             interval",
            "kind IN ('intent', 'refusal') AND content_key IS NOT NULL",
            &[plain(&[("kind", Utf8)]), typed(ASKED)],
        ),
        of_kind(
            "config",
            "a configuration that took effect",
            "kind = 'config'",
            &[
                typed(&["reason"]),
                of_leaf(&[
                    ("next", Utf8, "next"),
                    ("policy", Utf8, "policy"),
                    ("price_book", Utf8, "price_book"),
                ]),
            ],
        ),
        of_kind(
            "admin",
            "what somebody did to the gateway: `key_issued`, `key_changed`, `key_revoked`, `config_refused`, ...",
            "kind = 'admin'",
            &[of_leaf(&[("action", Utf8, "action"), ("actor", Utf8, "actor"), ("object", Utf8, "object")])],
        ),
        of_kind(
            "boot",
            "a log begins",
            "kind = 'boot'",
            &[of_leaf(&[
                ("gateway_version", Utf8, "gateway_version"),
                ("binary_sha256", Utf8, "binary_sha256"),
                ("encryption", Utf8, "encryption"),
                ("heartbeat_bound_ms", Int64, "heartbeat_bound_ms"),
                ("batch_age_ms", Int64, "batch_age_ms"),
                ("predecessor", Utf8, "predecessor.origin"),
            ])],
        ),
        of_kind(
            "close",
            "a log ends: `shutdown`, `crash`, `failed`, `salvaged`",
            "kind = 'close'",
            &[typed(&["reason"]), of_leaf(&[("alive_until", TimestampUs, "alive_until")])],
        ),
        of_kind(
            "heartbeat",
            "signed silence, with the counters since `boot`",
            "kind = 'heartbeat'",
            &[of_leaf(&[
                ("exchanges", Int64, "counters.exchanges"),
                ("outcomes", Int64, "counters.outcomes"),
                ("refusals", Int64, "counters.refusals"),
            ])],
        ),
        of_kind(
            "gap",
            "what a log itself says is not in it: `torn_tail`, `loss`, `unrecorded`, `late`",
            "kind = 'gap'",
            &[typed(&["reason", "count"]), of_leaf(&[("bytes", Int64, "bytes")])],
        ),
        of_kind(
            "hold",
            "a legal hold begins or ends",
            "kind = 'hold'",
            &[
                of_leaf(&[("hold", Utf8, "hold"), ("phase", Utf8, "phase"), ("actor", Utf8, "actor")]),
                typed(&["exchange", "reason"]),
                of_leaf(&[
                    ("subject", Utf8, "subject"),
                    ("consumer", Utf8, "consumer"),
                    ("from_at", TimestampUs, "from"),
                    ("to_at", TimestampUs, "to"),
                ]),
            ],
        ),
        of_kind(
            "erasure",
            "the content key of an exchange is destroyed",
            "kind = 'erasure'",
            &[
                typed(&["exchange", "reason"]),
                of_leaf(&[
                    ("actor", Utf8, "actor"),
                    ("log", Utf8, "origin"),
                    ("of_position", Int64, "position"),
                ]),
            ],
        ),
        records(
            "event",
            "who did what to what, when and with which result: every record that somebody caused. `source` is the gateway key, \
             else the log; what administrators do, holds and erasures are `done`, or a configuration was `refused`: no \
             record says more",
            event.concat(),
            seen(EVENTS, "at"),
        ),
        records("batch", "a proven batch", plain(&batch), seen("batches", "sealed_at")),
        told(
            "verdict",
            "the verification: one row",
            &[("verdict", Utf8), ("deployment", Utf8), ("store", Utf8), ("checked_at", TimestampUs)],
        ),
        told(
            "claim",
            "a claim of the verification, and whether it is reached",
            &[("claim", Utf8), ("reached", Bool), ("text", Utf8)],
        ),
        told(
            "finding",
            "a code that the verification found, with how often",
            &[("code", Utf8), ("severity", Utf8), ("effect", Utf8), ("count", Int64)],
        ),
        told(
            "gateway",
            "a gateway, and what was asked and proven of it",
            &[
                ("gateway", Utf8),
                ("asked_from", TimestampUs),
                ("asked_to", TimestampUs),
                ("proven_from", TimestampUs),
                ("proven_to", TimestampUs),
                ("closed", Bool),
            ],
        ),
        told(
            "log",
            "a log, and where it ends",
            &[
                ("origin", Utf8),
                ("gateway", Utf8),
                ("size", Int64),
                ("root", Utf8),
                ("sealed_at", TimestampUs),
                ("closed", Utf8),
                ("open_exchanges", Int64),
            ],
        ),
        told(
            "silence",
            "a time of a gateway without records: `declared` by a close and the next boot, a `hole` between proven runs of a \
             log, `unexplained` where the verification found no word for it",
            &[("gateway", Utf8), ("kind", Utf8), ("from_at", TimestampUs), ("to_at", TimestampUs)],
        ),
        told(
            "period",
            "the assessed interval: one row; it ends with the assessment at the latest",
            &[("from_at", TimestampUs), ("to_at", TimestampUs), ("assessed_at", TimestampUs)],
        ),
        told("day", "a day (UTC) of the assessed interval, by its first moment", &[("day", TimestampUs)]),
        told(
            "reg",
            "the registry, where the trust file names one: one row",
            &[
                ("origin", Utf8),
                ("size", Int64),
                ("sealed_at", TimestampUs),
                ("keys", Int64),
                ("logs", Int64),
            ],
        ),
        told(
            "seal_key",
            "a key that counts for a gateway's logs",
            &[
                ("gateway", Utf8),
                ("key", Utf8),
                ("first_origin", Utf8),
                ("last_origin", Utf8),
                ("revoked", Bool),
            ],
        ),
        told(
            "witness",
            "the newest state of the registry that an organisation cosigned",
            &[
                ("organisation", Utf8),
                ("witness", Utf8),
                ("sealed_at", TimestampUs),
                ("cosigned_at", TimestampUs),
            ],
        ),
        told(
            "stamp",
            "the newest timestamp over the registry",
            &[("authority", Utf8), ("sealed_at", TimestampUs), ("time", TimestampUs)],
        ),
        Fact {
            name: "obj",
            about: "a version in the bucket, with its lock as the store showed it; `read` is false where a sample left it out",
            rests: Rests::Bucket,
            fields: plain(&[
                ("name", Utf8),
                ("version", Utf8),
                ("kind", Utf8),
                ("length", Int64),
                ("stored_at", TimestampUs),
                ("sealed_at", TimestampUs),
                ("storage_class", Utf8),
                ("latest", Bool),
                ("read", Bool),
                ("mode", Utf8),
                ("retain_until", TimestampUs),
                ("hold", Bool),
            ]),
            view: None,
        },
    ]
});
