//! `telemetry`: what is told of exchanges to those who watch them. A view, and never evidence.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use policies::document::{Node, Problem, Shape};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use super::read::{Reader, SECOND, credential, is_header};
use super::tls::{self, ClientTls};
use super::units::{duration_schema, duration_text};
use super::{BaseUrl, Credential};

/// How many exchanges wait for the collector, where nothing is typed.
const QUEUE: u64 = 4096;

/// What is told of exchanges to those who watch them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Telemetry {
    /// What becomes of a caller's trace context (W3C `traceparent`, `tracestate`) on its way to a provider.
    pub trace_context: TraceContext,
    /// Spans and metrics, over OTLP/HTTP; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<Otlp>,
}

impl Telemetry {
    /// True where nothing is typed.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of a caller's trace context on its way to a provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TraceContext {
    /// It goes on as it came, like every header that nobody here knows.
    #[default]
    Forward,
    /// The caller's trace goes on with the gateway's span as the parent; one that is not valid is taken out. Wants `otlp`
    /// with `traces`.
    Replace,
    /// `traceparent`, `tracestate` and `baggage` are taken out: a provider learns nothing of the traces here.
    Off,
}

/// A receiver of OTLP over HTTP, protobuf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Otlp {
    /// `http://` or `https://`, host, port and path; `/v1/traces` and `/v1/metrics` are put behind it.
    #[schemars(with = "String")]
    pub endpoint: BaseUrl,
    /// TLS; absent: the system's roots and no certificate of the gateway.
    #[schemars(default)]
    pub tls: ClientTls,
    /// Headers of each POST, by their names in lower case, with the place of each value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub headers: BTreeMap<String, Credential>,
    /// Whether spans go there.
    #[schemars(default = "super::defaults::yes")]
    pub traces: bool,
    /// Whether metrics go there.
    #[schemars(default = "super::defaults::yes")]
    pub metrics: bool,
    /// The share of traces that the gateway itself begins and that is sent, 0 to 1; for others the caller's own flag rules.
    #[schemars(default = "default_ratio", schema_with = "ratio_schema")]
    pub sample_ratio: Ratio,
    /// The longest time that spans wait here, and how often metrics are sent. `5s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_interval", schema_with = "duration_schema")]
    pub interval: Duration,
    /// The longest time that one POST may take. `10s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_timeout", schema_with = "duration_schema")]
    pub timeout: Duration,
    /// How many exchanges wait for the receiver; the spans of more are dropped, and counted. `4096` where not typed.
    #[schemars(default = "default_queue")]
    pub queue: u64,
    /// Attributes of the resource, beside `service.name`, `service.namespace`, `service.instance.id` and
    /// `service.version`, or in their place.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub resource: BTreeMap<String, String>,
}

/// A share from 0 to 1, in millionths: a record of configuration holds no floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio(u32);

impl Ratio {
    const WHOLE: u32 = 1_000_000;

    /// Everything.
    pub const ALL: Self = Self(Self::WHOLE);

    /// `0`, `1`, or `0.` with at most six digits.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = (1..=6).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        let part: u32 = if digits { format!("{part:0<6}").parse().ok()? } else { return None };
        match whole {
            "0" => Some(Self(part)),
            "1" if part == 0 => Some(Self::ALL),
            _ => None,
        }
    }

    /// The share in millionths.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// Whether a trace is in the share, by the last seven bytes of its id, which are random: every gateway says the same.
    pub(crate) fn takes(self, trace: &[u8; 16]) -> bool {
        let random = trace.iter().skip(9).fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
        u128::from(random) * u128::from(Self::WHOLE) < (u128::from(self.0) << 56)
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:06}", self.0 / Self::WHOLE, self.0 % Self::WHOLE);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Serialize for Ratio {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn ratio_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["number", "string"], "pattern": "^(0|1|0[.][0-9]{1,6}|1[.]0{1,6})$", "minimum": 0, "maximum": 1 })
}

fn default_ratio() -> &'static str {
    "1"
}

fn default_interval() -> &'static str {
    "5s"
}

fn default_timeout() -> &'static str {
    "10s"
}

fn default_queue() -> u64 {
    QUEUE
}

/// Reads the section.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Telemetry> {
    let mut f = Reader::new(node, path, base, problems);
    let ways =
        [("forward", TraceContext::Forward), ("replace", TraceContext::Replace), ("off", TraceContext::Off)];
    let trace_context = f.fields.choice("trace_context", &ways).unwrap_or_default();
    let otlp = f.part_of("otlp", read_otlp);
    // Without a span of the gateway's own the provider's would have a parent that nobody ever sees.
    if trace_context == TraceContext::Replace
        && otlp.as_ref().is_none_or(|otlp| otlp.as_ref().is_some_and(|otlp| !otlp.traces))
    {
        let (place, key) = (f.fields.place_of("trace_context"), f.fields.path("trace_context"));
        let wanted = "`forward` or `off`, or `telemetry.otlp` with `traces: true`";
        f.fields.report(Problem::at(place, key, wanted).value("replace"));
    }
    f.fields.finish();
    Some(Telemetry { trace_context, otlp: super::read::whole(otlp)? })
}

fn read_otlp(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Otlp> {
    let mut f = Reader::new(node, path, base, problems);
    let form =
        "`http://` or `https://`, host, port and path, without user, `?` and `#`, as `http://127.0.0.1:4318`";
    let endpoint = f.fields.required("endpoint", form, BaseUrl::parse);
    let tls = f.part_of("tls", tls::read);
    let headers = f.part_of("headers", read_headers);
    let traces = f.fields.truth("traces").unwrap_or(true);
    let metrics = f.fields.truth("metrics").unwrap_or(true);
    let form = "a share from `0` to `1` with at most six digits behind the point, as `0.05`";
    let sample_ratio = f.fields.optional("sample_ratio", form, Ratio::parse);
    let interval = f.duration("interval", Duration::from_millis(100)..=3600 * SECOND, 5 * SECOND);
    let timeout = f.duration("timeout", Duration::from_millis(100)..=300 * SECOND, 10 * SECOND);
    let queue = f.number("queue", 1..=1_000_000, QUEUE);
    let resource = f.part_of("resource", read_resource);
    f.fields.finish();
    Some(Otlp {
        endpoint: endpoint?,
        tls: super::read::whole(tls)?.unwrap_or_default(),
        headers: super::read::whole(headers)?.unwrap_or_default(),
        traces,
        metrics,
        sample_ratio: sample_ratio.unwrap_or(Ratio::ALL),
        interval,
        timeout,
        queue,
        resource: super::read::whole(resource)?.unwrap_or_default(),
    })
}

fn read_headers(
    node: &Node,
    path: &str,
    base: &Path,
    problems: &mut Vec<Problem>,
) -> Option<BTreeMap<String, Credential>> {
    let Shape::Map(entries) = &node.shape else {
        problems.push(Problem::at(node.place, path, "headers as `{authorization: {file: PATH}}`"));
        return None;
    };
    let mut headers = BTreeMap::new();
    for entry in entries {
        let path = format!("{path}.{}", entry.key);
        let ours =
            ["content-type", "content-length", "host", "user-agent", "transfer-encoding", "connection"];
        if !is_header(&entry.key) || ours.contains(&entry.key.as_str()) {
            let wanted = format!("a header's name in lower case, none of {}", ours.join(", "));
            problems.push(Problem::at(entry.place, &path, wanted));
        }
        headers.insert(entry.key.clone(), credential(&entry.value, &path, base, problems)?);
    }
    Some(headers)
}

fn read_resource(
    node: &Node,
    path: &str,
    _: &Path,
    problems: &mut Vec<Problem>,
) -> Option<BTreeMap<String, String>> {
    let Shape::Map(entries) = &node.shape else {
        problems.push(Problem::at(
            node.place,
            path,
            "attributes as `{deployment.environment.name: production}`",
        ));
        return None;
    };
    let mut resource = BTreeMap::new();
    for entry in entries {
        let path = format!("{path}.{}", entry.key);
        let name = (1..=128).contains(&entry.key.len())
            && entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
        if !name {
            problems.push(Problem::at(entry.place, &path, "an attribute's name `[A-Za-z0-9._/-]{1,128}`"));
        }
        match entry.value.text().filter(|text| (1..=256).contains(&text.len())) {
            Some(text) => {
                resource.insert(entry.key.clone(), text.to_owned());
            }
            None => problems.push(Problem::at(entry.value.place, &path, "a text of 1 to 256 bytes")),
        }
    }
    Some(resource)
}

#[cfg(test)]
mod tests {
    use super::Ratio;

    #[test]
    fn a_share_is_read_shown_and_taken() {
        for (text, shown) in
            [("0", "0"), ("1", "1"), ("1.0", "1"), ("0.05", "0.05"), ("0.000001", "0.000001")]
        {
            assert_eq!(Ratio::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", "2", "1.1", "-0", ".5", "0.", "0.1234567", "1e-3", "0,5", "00"] {
            assert!(Ratio::parse(text).is_none(), "{text}");
        }
        let trace = |byte: u8| [byte; 16];
        assert!(Ratio::ALL.takes(&trace(0xff)) && !Ratio(0).takes(&trace(0)));
        let half = Ratio::parse("0.5").unwrap();
        assert!(half.takes(&trace(0x7f)) && !half.takes(&trace(0x80)));
    }
}
