//! `evidence.tap`: where leaves go besides the store, for those who must react at once.

use std::path::Path;
use std::time::Duration;

use policies::document::{Node, Problem, texts};
use schemars::JsonSchema;
use serde::Serialize;

use super::cluster::{Cluster, cluster, is_broker};
use super::kafka::{self, default_timeout};
use super::read::{PART_FORM, Reader, SECOND, credential, is_part, whole};
use super::tls::{self, ClientTls};
use super::units::{duration_schema, duration_text, size_schema, size_text};
use super::{BaseUrl, Credential};

/// What holds where nothing is typed.
const TOPIC: &str = "affidavit-tap";
const SD_ID: &str = "affidavit@32473";
const APP_NAME: &str = "affidavit";
const SCHEME: &str = "Bearer";
/// Log audit.
const FACILITY: u8 = 13;

/// A sink of leaves. Leaves hold no content (CA-8). It gets what is journaled, never instead of the journal, in the log's
/// order and at least once; traffic never waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TapSink {
    /// Its name in metrics, `[a-z0-9][a-z0-9.-]{0,62}`: its positions are kept under it.
    pub name: String,
    /// A topic, one message a leaf. One of `kafka`, `syslog`, `webhook` and `loki`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<TapKafka>,
    /// Syslog (RFC 5424) over TLS (RFC 5425).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syslog: Option<TapSyslog>,
    /// POSTs of leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<TapWebhook>,
    /// Pushes to Grafana Loki.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loki: Option<TapLoki>,
    /// What a leaf is written as; not with `loki`, whose lines have a form of their own.
    #[schemars(default)]
    pub format: TapFormat,
    /// The kinds of records that it wants; absent: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub kinds: Vec<TapKind>,
    /// Of these, all, or those that somebody must react to.
    #[schemars(default)]
    pub only: TapOnly,
}

/// What a leaf is written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TapFormat {
    /// The leaf, verbatim.
    #[default]
    Leaf,
    /// An event of the OCSF class API Activity (6003) that holds the leaf.
    Ocsf,
}

/// Which leaves of the wanted kinds go to a sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TapOnly {
    /// All.
    #[default]
    All,
    /// Refusals, verdicts other than `allow`, exchanges that failed (but not those whose caller left), gaps, and ends that
    /// were no orderly shutdown.
    Alerts,
}

macro_rules! kinds {
    ($($kind:ident $text:literal $doc:literal,)*) => {
        /// A kind of record.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum TapKind {
            $(#[doc = $doc] $kind,)*
        }

        impl TapKind {
            /// All, by their text.
            const ALL: &[(&'static str, Self)] = &[$(($text, Self::$kind),)*];

            /// As in a record.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $text,)*
                }
            }
        }
    };
}

kinds! {
    Boot "boot" "An epoch begins.",
    Config "config" "A configuration takes effect.",
    Intent "intent" "An exchange is about to go to a provider.",
    Outcome "outcome" "An exchange has ended.",
    Refusal "refusal" "An exchange was refused.",
    Attempt "attempt" "Bytes go to a further target.",
    SideCall "side_call" "The gateway calls something itself.",
    Admin "admin" "Someone administered the gateway.",
    Heartbeat "heartbeat" "Signed silence.",
    Gap "gap" "Something is not in the log.",
    Hold "hold" "A legal hold.",
    Erasure "erasure" "Content keys are destroyed.",
    Close "close" "The epoch ends.",
}

/// A topic of leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TapKafka {
    /// The brokers.
    #[serde(flatten)]
    pub cluster: Cluster,
    /// The topic; it must be there.
    #[schemars(default = "default_topic")]
    pub topic: String,
    /// The longest wait for an answer of the brokers. `30s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_timeout", schema_with = "duration_schema")]
    pub timeout: Duration,
}

impl TapKafka {
    /// As the sink takes it; `secret` is the password.
    pub(crate) fn connection(&self, secret: Option<&str>) -> evidence::topic::Connection {
        self.cluster.connection(self.timeout, secret)
    }
}

/// A syslog receiver. Syslog acknowledges nothing: what is sent counts when the receiver has ended its connection behind
/// all of it, so that the gateway ends one every `confirm`; after a connection that broke everything since the last such
/// end is sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TapSyslog {
    /// `host:port`, mostly port 6514.
    pub address: String,
    /// The name in the receiver's certificate; absent: the host of `address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// TLS; absent: the system's roots and no certificate of the gateway.
    #[schemars(default)]
    pub tls: ClientTls,
    /// The id of the structured data, `name@enterprise-number`; 32473 is the number for documentation.
    #[schemars(default = "default_sd_id")]
    pub sd_id: String,
    /// The facility, 0 to 23; 13 is `log audit`.
    #[schemars(default = "default_facility")]
    pub facility: u8,
    /// `APP-NAME`.
    #[schemars(default = "default_app_name")]
    pub app_name: String,
    /// How long what is sent waits to be confirmed by the end of a connection. `10s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_confirm", schema_with = "duration_schema")]
    pub confirm: Duration,
    /// The longest wait in which nothing goes on: to connect, to write, and for the receiver's end. `10s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_sink_timeout", schema_with = "duration_schema")]
    pub timeout: Duration,
}

/// Where leaves are posted to. 2xx acknowledges; everything else is tried again, no sooner than `Retry-After`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TapWebhook {
    /// `http://` or `https://`, host, port and path.
    #[schemars(with = "String")]
    pub url: BaseUrl,
    /// TLS; absent: the system's roots and no certificate of the gateway.
    #[schemars(default)]
    pub tls: ClientTls,
    /// How the leaves of one POST are put together.
    #[schemars(default)]
    pub body: TapBody,
    /// The secret of the signature: `x-affidavit-signature: t=SECONDS,v1=HEX`, HMAC-SHA-256 over `SECONDS.BODY`; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Credential>,
    /// The token of `Authorization`; absent: none is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Credential>,
    /// The word before the token.
    #[schemars(default = "default_scheme")]
    pub scheme: String,
    /// The longest wait in which the receiver neither takes nor answers anything. `10s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_sink_timeout", schema_with = "duration_schema")]
    pub timeout: Duration,
}

/// How the leaves of one POST are put together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TapBody {
    /// One JSON object a line (`application/x-ndjson`).
    #[default]
    Ndjson,
    /// A JSON array.
    Array,
}

/// Grafana Loki 3: entries by stream, with structured metadata. Only 204 acknowledges; what Loki will never take, too old or too
/// large for it, is counted and passed by, everything else is tried again, no sooner than `Retry-After`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TapLoki {
    /// `http://` or `https://`, host, port and, where it has one, the path before `/loki/api/v1/push`.
    #[schemars(with = "String")]
    pub url: BaseUrl,
    /// TLS; absent: the system's roots and no certificate of the gateway.
    #[schemars(default)]
    pub tls: ClientTls,
    /// The tenant (`X-Scope-OrgID`); absent: none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The user of `Authorization: Basic`; absent: none. With `password`, and not with `token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Credential>,
    /// The token of `Authorization: Bearer`; absent: none is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Credential>,
    /// How much of entries waits for others at most, before compression. `1MiB` where not typed.
    #[serde(serialize_with = "size_text")]
    #[schemars(default = "default_batch", schema_with = "size_schema")]
    pub batch: u64,
    /// How long an entry waits for others at most. `1s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_wait", schema_with = "duration_schema")]
    pub wait: Duration,
    /// The longest wait in which Loki neither takes nor answers anything. `10s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_sink_timeout", schema_with = "duration_schema")]
    pub timeout: Duration,
}

impl TapSink {
    /// `kafka`, `syslog`, `webhook` or `loki`, and the TLS of all but the first.
    pub(super) fn way(&self) -> (&'static str, Option<&ClientTls>) {
        match (&self.syslog, &self.webhook, &self.loki) {
            (Some(syslog), ..) => ("syslog", Some(&syslog.tls)),
            (None, Some(webhook), _) => ("webhook", Some(&webhook.tls)),
            (None, None, Some(loki)) => ("loki", Some(&loki.tls)),
            (None, None, None) => ("kafka", None),
        }
    }

    /// Where it posts to.
    pub(super) fn url(&self) -> Option<&BaseUrl> {
        let loki = self.loki.as_ref().map(|loki| &loki.url);
        self.webhook.as_ref().map(|webhook| &webhook.url).or(loki)
    }
}

fn default_batch() -> &'static str {
    "1MiB"
}

fn default_wait() -> &'static str {
    "1s"
}

fn default_topic() -> &'static str {
    TOPIC
}

fn default_sink_timeout() -> &'static str {
    "10s"
}

fn default_confirm() -> &'static str {
    "10s"
}

fn default_sd_id() -> &'static str {
    SD_ID
}

fn default_app_name() -> &'static str {
    APP_NAME
}

fn default_scheme() -> &'static str {
    SCHEME
}

fn default_facility() -> u8 {
    FACILITY
}

/// Reads one sink; `None` where a required key is missing or unreadable.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<TapSink> {
    const WAY: &str = "one of `kafka`, `syslog`, `webhook` and `loki`";
    let mut f = Reader::new(node, path, base, problems);
    let name = f.fields.required("name", PART_FORM, |text| is_part(text).then(|| text.to_owned()));
    let kafka = f.part_of("kafka", read_kafka);
    let syslog = f.part_of("syslog", read_syslog);
    let webhook = f.part_of("webhook", read_webhook);
    let loki = f.part_of("loki", read_loki);
    let typed = [kafka.is_some(), syslog.is_some(), webhook.is_some(), loki.is_some()];
    if typed.iter().filter(|typed| **typed).count() != 1 {
        let (place, key) = (node.place, f.fields.path("kafka"));
        f.fields.report(Problem::at(place, key, WAY));
    }
    let format = f.fields.choice("format", &[("leaf", TapFormat::Leaf), ("ocsf", TapFormat::Ocsf)]);
    if loki.is_some() && format == Some(TapFormat::Ocsf) {
        let (place, key) = (node.place, f.fields.path("format"));
        f.fields.report(Problem::at(place, key, "`leaf` with `loki`: its lines have a form of their own"));
    }
    let kinds = kinds(&mut f);
    let only = f.fields.choice("only", &[("all", TapOnly::All), ("alerts", TapOnly::Alerts)]);
    f.fields.finish();
    Some(TapSink {
        name: name?,
        kafka: whole(kafka)?,
        syslog: whole(syslog)?,
        webhook: whole(webhook)?,
        loki: whole(loki)?,
        format: format.unwrap_or_default(),
        kinds: kinds?,
        only: only.unwrap_or_default(),
    })
}

fn kinds(f: &mut Reader<'_, '_>) -> Option<Vec<TapKind>> {
    let Some(node) = f.fields.node("kinds") else { return Some(Vec::new()) };
    let path = f.fields.path("kinds");
    let list = texts(node, &path, f.fields.problems());
    let known = || TapKind::ALL.iter().map(|(text, _)| *text);
    let wanted = format!("kinds of records: {}", known().collect::<Vec<_>>().join(", "));
    if list.is_empty() {
        f.fields.report(Problem::at(node.place, &path, &wanted));
        return None;
    }
    let mut kinds = Vec::new();
    for (text, place) in &list {
        match TapKind::ALL.iter().find(|(known, _)| known == text) {
            Some((_, kind)) => kinds.push(*kind),
            None => f.fields.report(Problem::at(*place, &path, &wanted).value(text).suggest(text, known())),
        }
    }
    (kinds.len() == list.len()).then_some(kinds)
}

fn read_kafka(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<TapKafka> {
    let mut f = Reader::new(node, path, base, problems);
    let cluster = cluster(&mut f);
    let topic = kafka::name(&mut f, "topic", "topic");
    let timeout = kafka::timeout(&mut f);
    f.fields.finish();
    Some(TapKafka { cluster: cluster?, topic: topic.unwrap_or_else(|| TOPIC.into()), timeout })
}

fn read_syslog(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<TapSyslog> {
    let mut f = Reader::new(node, path, base, problems);
    let form = "host and port as `siem.example:6514`";
    let address = f.fields.required("address", form, |text| is_broker(text).then(|| text.to_owned()));
    let form = "a host's name or IP address";
    let server_name = f.fields.optional("server_name", form, |text| {
        rustls_pki_types::ServerName::try_from(text).is_ok().then(|| text.to_owned())
    });
    let tls = f.part_of("tls", tls::read);
    let form = "`name@number` of at most 32 characters, as `affidavit@32473`";
    let sd_id = f.fields.optional("sd_id", form, |text| is_sd_id(text).then(|| text.to_owned()));
    let facility = f.number("facility", 0..=23, FACILITY.into());
    let form = "1 to 48 visible ASCII characters";
    let app_name = f.fields.optional("app_name", form, |text| {
        ((1..=48).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()))
            .then(|| text.to_owned())
    });
    let confirm = f.duration("confirm", SECOND..=600 * SECOND, 10 * SECOND);
    let timeout = f.duration("timeout", SECOND..=300 * SECOND, 10 * SECOND);
    f.fields.finish();
    Some(TapSyslog {
        address: address?,
        server_name,
        tls: whole(tls)?.unwrap_or_default(),
        sd_id: sd_id.unwrap_or_else(|| SD_ID.into()),
        facility: u8::try_from(facility).unwrap_or(FACILITY),
        app_name: app_name.unwrap_or_else(|| APP_NAME.into()),
        confirm,
        timeout,
    })
}

fn is_sd_id(text: &str) -> bool {
    let Some((name, number)) = text.split_once('@') else { return false };
    text.len() <= 32
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'=' | b']' | b'"' | b'@'))
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn read_webhook(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<TapWebhook> {
    let mut f = Reader::new(node, path, base, problems);
    let form = "`http://` or `https://`, host, port and path, without user, `?` and `#`, as `https://siem.example/in`";
    let url = f.fields.required("url", form, BaseUrl::parse);
    let tls = f.part_of("tls", tls::read);
    let body = f.fields.choice("body", &[("ndjson", TapBody::Ndjson), ("array", TapBody::Array)]);
    let secret = f.part_of("secret", credential);
    let token = f.part_of("token", credential);
    let scheme = f.fields.optional("scheme", "a word `[A-Za-z0-9-]{1,32}` as `Bearer` or `Splunk`", |text| {
        ((1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
            .then(|| text.to_owned())
    });
    let timeout = f.duration("timeout", SECOND..=300 * SECOND, 10 * SECOND);
    f.fields.finish();
    Some(TapWebhook {
        url: url?,
        tls: whole(tls)?.unwrap_or_default(),
        body: body.unwrap_or_default(),
        secret: whole(secret)?,
        token: whole(token)?,
        scheme: scheme.unwrap_or_else(|| SCHEME.into()),
        timeout,
    })
}

fn read_loki(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<TapLoki> {
    let mut f = Reader::new(node, path, base, problems);
    let form = "`http://` or `https://`, host, port and the path before `/loki/api/v1/push`, as `https://loki.example`";
    let url = f.fields.required("url", form, |text| {
        BaseUrl::parse(text).filter(|url| !url.path.ends_with("/loki/api/v1/push"))
    });
    let tls = f.part_of("tls", tls::read);
    let form = "a tenant of 1 to 150 characters of `A-Za-z0-9!-_.*'()`, not `.` and not `..`";
    let tenant = f.fields.optional("tenant", form, |text| is_tenant(text).then(|| text.to_owned()));
    let form = "1 to 255 visible ASCII characters without `:`";
    let user = f.fields.optional("user", form, |text| {
        let fits = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
        fits.then(|| text.to_owned())
    });
    let password = f.part_of("password", credential);
    let token = f.part_of("token", credential);
    if user.is_some() != password.is_some() {
        let (place, key) = (node.place, f.fields.path("password"));
        f.fields.report(Problem::at(place, key, "`user` and `password`, or neither"));
    }
    if password.is_some() && token.is_some() {
        let (place, key) = (node.place, f.fields.path("token"));
        f.fields.report(Problem::at(place, key, "`token`, or `user` and `password`: not both"));
    }
    let batch = f.size("batch", 1 << 10..=4 << 20, 1 << 20);
    let wait = f.duration("wait", SECOND / 20..=60 * SECOND, SECOND);
    let timeout = f.duration("timeout", SECOND..=300 * SECOND, 10 * SECOND);
    f.fields.finish();
    Some(TapLoki {
        url: url?,
        tls: whole(tls)?.unwrap_or_default(),
        tenant,
        user,
        password: whole(password)?,
        token: whole(token)?,
        batch,
        wait,
        timeout,
    })
}

/// As Loki takes it: <https://grafana.com/docs/loki/latest/operations/multi-tenancy/>.
fn is_tenant(text: &str) -> bool {
    (1..=150).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b))
}
