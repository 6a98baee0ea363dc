//! The GenAI metrics: histograms since the exporter was made, by words of closed sets.
//!
//! A model is a label only where the price book names it as it is; where a pattern of the book fits, the row is. So what a caller or a
//! provider writes makes no series. There is an end to their number all the same: what is beyond it is counted in one.

use std::collections::BTreeMap;

use schemas::Identifier;
use schemas::record::{UsageRole, UsageSource};

use super::exchange::{Told, now_ns};
use super::names;
use super::wire::{Message, Value, attribute};

const SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const FIRST: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: i64 = 2;
/// The most series; each instrument has one more for what is beyond, as OpenTelemetry's SDKs do.
const MOST: usize = 2000;

/// One instrument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Instrument {
    Duration,
    FirstChunk,
    Tokens,
}

impl Instrument {
    const ALL: [Self; 3] = [Self::Duration, Self::FirstChunk, Self::Tokens];

    /// Name, description, unit and bounds.
    fn about(self) -> (&'static str, &'static str, &'static str, &'static [f64]) {
        match self {
            Self::Duration => {
                ("gen_ai.client.operation.duration", "GenAI operation duration.", "s", &SECONDS)
            }
            Self::FirstChunk => (
                "gen_ai.client.operation.time_to_first_chunk",
                "From the request to the provider until its first event with model output.",
                "s",
                &FIRST,
            ),
            Self::Tokens => {
                ("gen_ai.client.token.usage", "Number of input and output tokens used.", "{token}", &TOKENS)
            }
        }
    }
}

/// One series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    instrument: Instrument,
    /// None: all that came when there were [`MOST`] series.
    labels: Option<Labels>,
}

/// How metrics name the models of an exchange; none where the price book has no row.
#[derive(Debug, Clone, Default)]
pub(super) struct Models {
    pub(super) requested: Option<Identifier>,
    pub(super) served: Option<Identifier>,
}

/// The labels of one series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    operation: String,
    provider: &'static str,
    route: Identifier,
    address: String,
    port: u16,
    requested: Option<Identifier>,
    served: Option<Identifier>,
    error: Option<&'static str>,
    token: Option<&'static str>,
    /// Of tokens: they are an estimate.
    estimated: bool,
}

impl Labels {
    fn write(&self, point: &mut Message) {
        let mut text = |key: &str, value: &str| attribute(point, 9, key, &Value::Text(value));
        text(names::OPERATION, &self.operation);
        text(names::PROVIDER, self.provider);
        text(names::ROUTE, self.route.as_str());
        text(names::ADDRESS, &self.address);
        for (key, value) in [(names::REQUEST_MODEL, &self.requested), (names::RESPONSE_MODEL, &self.served)] {
            if let Some(value) = value {
                text(key, value.as_str());
            }
        }
        for (key, value) in [(names::ERROR, self.error), (names::TOKEN_TYPE, self.token)] {
            if let Some(value) = value {
                text(key, value);
            }
        }
        attribute(point, 9, names::PORT, &Value::Int(self.port.into()));
        if self.estimated {
            attribute(point, 9, names::ESTIMATED, &Value::Bool(true));
        }
    }
}

/// What was seen of one series.
#[derive(Debug, Clone)]
struct Histogram {
    counts: Vec<u64>,
    sum: f64,
    least: f64,
    most: f64,
}

impl Histogram {
    fn new(bounds: &[f64]) -> Self {
        Self { counts: vec![0; bounds.len() + 1], sum: 0.0, least: f64::INFINITY, most: f64::NEG_INFINITY }
    }

    fn observe(&mut self, bounds: &[f64], value: f64) {
        // A bound belongs to the bucket below it.
        let bucket = bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += value;
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }

    fn write(&self, series: &Series, bounds: &[f64], since: u64, now: u64) -> Message {
        let mut point = Message::default();
        match &series.labels {
            Some(labels) => labels.write(&mut point),
            None => attribute(&mut point, 9, names::OVERFLOW, &Value::Bool(true)),
        }
        point.fixed64(2, since).fixed64(3, now).fixed64(4, self.counts.iter().sum()).double(5, self.sum);
        point.packed(6, self.counts.iter().copied());
        point.packed(7, bounds.iter().map(|bound| bound.to_bits()));
        point.double(11, self.least).double(12, self.most);
        point
    }
}

/// All series since the exporter was made.
#[derive(Debug, Clone)]
pub(super) struct Meters {
    since: u64,
    series: BTreeMap<Series, Histogram>,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self { since: now_ns(), series: BTreeMap::new() }
    }

    /// Counts an exchange that asked a model for something.
    pub(super) fn count(&mut self, told: &Told, models: Models) {
        let (Some(route), Some(provider)) = (&told.route, &told.provider) else { return };
        let Some(dispatched) = &told.dispatched else { return };
        let operation = told.asked.operation.as_ref().map_or("other", Identifier::as_str);
        let labels = Labels {
            operation: names::operation(operation).to_owned(),
            provider: names::provider(provider.dialect),
            route: route.name.clone(),
            address: provider.authority.host().to_owned(),
            port: provider.port(),
            requested: models.requested,
            served: models.served,
            error: dispatched.error(),
            token: None,
            estimated: false,
        };
        if let Some(seconds) = told.times.first_token_seconds().filter(|_| told.asked.stream == Some(true)) {
            self.observe(Instrument::FirstChunk, Labels { error: None, ..labels.clone() }, seconds);
        }
        let usage = &dispatched.usage;
        for (token, count) in [("input", usage.input_tokens), ("output", usage.output_tokens)] {
            let Some(count) = count.and_then(|count| u32::try_from(count).ok()) else { continue };
            if usage.role == UsageRole::Incurred {
                let estimated = usage.source == UsageSource::Estimated;
                let labels = Labels { error: None, token: Some(token), estimated, ..labels.clone() };
                self.observe(Instrument::Tokens, labels, count.into());
            }
        }
        if let Some(seconds) = told.times.provider_seconds() {
            self.observe(Instrument::Duration, labels, seconds);
        }
    }

    fn observe(&mut self, instrument: Instrument, labels: Labels, value: f64) {
        let (.., bounds) = instrument.about();
        let mut series = Series { instrument, labels: Some(labels) };
        if self.series.len() >= MOST && !self.series.contains_key(&series) {
            series.labels = None;
        }
        self.series.entry(series).or_insert_with(|| Histogram::new(bounds)).observe(bounds, value);
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Writes the metrics into a list at field 2 (`ScopeMetrics.metrics`).
    pub(super) fn write(&self, to: &mut Message) {
        let now = now_ns();
        for instrument in Instrument::ALL {
            let (name, about, unit, bounds) = instrument.about();
            let mut histogram = Message::default();
            let of = |series: &&Series| series.instrument == instrument;
            let mut is_empty = true;
            for (series, seen) in self.series.iter().filter(|(series, _)| of(series)) {
                histogram.message(1, &seen.write(series, bounds, self.since, now));
                is_empty = false;
            }
            if is_empty {
                continue;
            }
            histogram.int(2, CUMULATIVE);
            let mut metric = Message::default();
            metric.bytes(1, name.as_bytes()).bytes(2, about.as_bytes()).bytes(3, unit.as_bytes());
            metric.message(9, &histogram);
            to.message(2, &metric);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it_and_everything_has_a_bucket() {
        let mut histogram = Histogram::new(&[1.0, 4.0]);
        for value in [0.0, 1.0, 1.5, 4.0, 4.1, 1e9] {
            histogram.observe(&[1.0, 4.0], value);
        }
        assert_eq!(histogram.counts, [2, 2, 2]);
        assert_eq!((histogram.least, histogram.most), (0.0, 1e9));
    }

    fn labels(model: &str) -> Labels {
        let name = |text: &str| Identifier::new(text).unwrap();
        Labels {
            operation: "chat".into(),
            provider: "openai",
            route: name("openai"),
            address: "api.example".into(),
            port: 443,
            requested: Some(name(model)),
            served: None,
            error: None,
            token: None,
            estimated: false,
        }
    }

    #[test]
    fn estimated_tokens_are_series_of_their_own_and_say_so() {
        let mut meters = Meters::new();
        let tokens = |estimated| Labels { token: Some("input"), estimated, ..labels("gpt-4o") };
        let is_marked = |meters: &Meters| {
            let mut written = Message::default();
            meters.write(&mut written);
            let bytes = written.into_bytes();
            bytes.windows(names::ESTIMATED.len()).any(|some| some == names::ESTIMATED.as_bytes())
        };
        meters.observe(Instrument::Tokens, tokens(false), 10.0);
        assert!(!is_marked(&meters));
        meters.observe(Instrument::Tokens, tokens(true), 7.0);
        assert!(is_marked(&meters));
        let sums: Vec<f64> = meters.series.values().map(|seen| seen.sum).collect();
        assert_eq!(sums, [10.0, 7.0]);
    }

    #[test]
    fn series_have_an_end_and_what_is_beyond_is_counted_in_one() {
        let mut meters = Meters::new();
        for round in 0..2 {
            for n in 0..MOST + 10 {
                meters.observe(Instrument::Duration, labels(&format!("m{n}")), 1.0);
            }
            assert_eq!(meters.series.len(), MOST + 1, "round {round}");
        }
        let beyond = &meters.series[&Series { instrument: Instrument::Duration, labels: None }];
        assert_eq!(beyond.counts.iter().sum::<u64>(), 20);
        let all: u64 = meters.series.values().flat_map(|seen| &seen.counts).sum();
        assert_eq!(all, 2 * (MOST as u64 + 10));
        let mut written = Message::default();
        meters.write(&mut written);
        let bytes = written.into_bytes();
        assert!(bytes.windows(names::OVERFLOW.len()).any(|some| some == names::OVERFLOW.as_bytes()));
    }
}
