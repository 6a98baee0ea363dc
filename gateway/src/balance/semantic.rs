//! Which target of a route a prompt means: its last user turn is embedded, and the target with the nearest example is meant.
//!
//! An embedding is traffic as any other: an exchange of its own ([`super::own`]) with the operation `routing`, of the caller
//! that asks and under the key, retention and policy of its request. Examples are embedded once for as long as they, their
//! model and their provider stay: by a task of the snapshot in force, which tries again until they are there. Nothing here
//! fails a request: where a prompt's meaning is not known the fallback is meant, and the record says why.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dialects::Dialect;
use evidence::KeyScope;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use schemas::record::{Caller, Choice};
use schemas::{ExchangeId, Identifier};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::own::{self, Request, Told};
use super::probe::Keyed;
use super::{Meant, Meters, Seen};
use crate::app::{App, Snapshot};
use crate::config::{self, Target};
use crate::dispatch::pool::Provider;
use crate::dispatch::retry_after::retry_after;
use crate::relay::outlive::Outliving;
use crate::route::Route;

/// The operation in records.
const OPERATION: &str = "routing";

/// The most words of a prompt that are embedded.
pub(crate) const MAX_PROMPT: usize = 16 << 10;

/// Examples in one request.
const BATCH: usize = 32;

/// The longest time for one of these.
const EXAMPLES_WITHIN: Duration = Duration::from_secs(30);

/// The most that is read of an answer, for each of its vectors: a number written out takes about 24 bytes.
const ANSWER_BYTES: usize = MAX_DIMENSIONS * 32;

/// The longest vector.
const MAX_DIMENSIONS: usize = 16_384;

/// How long is waited before examples are tried again: the first time, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Millionths of a whole.
const WHOLE: f64 = 1e6;

/// What a choice rests on: a closed set, in records and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// A target is near enough.
    Matched,
    /// The conversation is at a target that is in order: nothing was embedded.
    Sticky,
    /// None is near enough.
    BelowThreshold,
    /// The request has no words of a user's, or its body cannot be read.
    NoText,
    /// The policy, or what the key is for, keeps the prompt from the embeddings' provider.
    Denied,
    /// Its probes say that the embeddings' provider is not in order: it was not asked.
    Ejected,
    /// The examples are not embedded yet.
    NotReady,
    /// The embedding could not be recorded, so that it was not sent.
    Unrecorded,
    /// No answer in time.
    Timeout,
    /// No answer, one with an error, or one that holds no vector.
    Failed,
}

impl Why {
    const ALL: [Self; 10] = [
        Self::Matched,
        Self::Sticky,
        Self::BelowThreshold,
        Self::NoText,
        Self::Denied,
        Self::Ejected,
        Self::NotReady,
        Self::Unrecorded,
        Self::Timeout,
        Self::Failed,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Sticky => "sticky",
            Self::BelowThreshold => "below_threshold",
            Self::NoText => "no_text",
            Self::Denied => "denied",
            Self::Ejected => "ejected",
            Self::NotReady => "not_ready",
            Self::Unrecorded => "unrecorded",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
        }
    }
}

/// Chooses by meaning among the targets of one route.
#[derive(Debug)]
pub(crate) struct Semantic {
    route: Identifier,
    keyed: Keyed,
    way: Way,
    model: String,
    dimensions: Option<u64>,
    timeout: Duration,
    /// For each target of the route, in millionths.
    thresholds: Vec<i64>,
    names: Vec<Identifier>,
    /// The place of the target that takes what is near to none.
    pub(crate) fallback: usize,
    retention: Identifier,
    keep_content: bool,
    table: Arc<Table>,
    meters: Meters,
}

/// Where embeddings are asked for.
#[derive(Debug, Clone)]
struct Way {
    /// As the dialect has it.
    path: String,
    /// Behind the provider's base path.
    target: Option<PathAndQuery>,
}

/// The examples' vectors, once they are there.
#[derive(Debug)]
struct Table {
    made_of: MadeOf,
    vectors: watch::Sender<Option<Arc<Vec<Example>>>>,
}

/// What vectors hang on: where it is the same after a reload they go on.
#[derive(Debug, PartialEq, Eq)]
struct MadeOf {
    address: String,
    model: String,
    dimensions: Option<u64>,
    /// The targets' places with their examples.
    examples: Vec<(usize, String)>,
}

/// One example: its target's place, and its vector of length 1.
#[derive(Debug)]
struct Example {
    place: usize,
    vector: Vec<f32>,
}

/// Of whom and under what a prompt is embedded.
pub(crate) struct Prompt {
    /// Who asks.
    pub(crate) caller: Caller,
    /// Under which key the request's content is kept.
    pub(crate) scope: KeyScope,
    /// Whether the caller's key is for the embeddings' provider.
    pub(crate) is_allowed: bool,
    /// The words.
    pub(crate) text: Option<String>,
    /// The target that its conversation is at.
    pub(crate) placed: Option<usize>,
}

/// What a prompt means, as the balancer and the record have it.
pub(crate) struct Meaning {
    /// How near it is to each target; `None`: not near enough.
    scores: Vec<Option<i64>>,
    fallback: usize,
    /// For the record.
    pub(crate) choice: Choice,
}

impl Meaning {
    /// For the balancer.
    pub(crate) fn meant(&self) -> Meant<'_> {
        Meant { scores: &self.scores, fallback: self.fallback }
    }
}

/// Begins to embed the examples of the snapshot in force, where they are not there yet.
pub(crate) fn begin(app: &Arc<App>) {
    let snapshot = app.snapshot.load_full();
    if app.is_draining() {
        return;
    }
    for semantic in snapshot.routes.iter().filter_map(|route| route.semantic.as_ref()) {
        if semantic.table.vectors.borrow().is_none() {
            let (owner, stop) = (Arc::downgrade(app), snapshot.probes.clone());
            app.outlive(fill(owner, Arc::clone(semantic), stop));
        }
    }
}

/// Embeds examples until all are there, or until `stop`, which cuts no request: what was sent has its outcome.
async fn fill(app: Weak<App>, semantic: Arc<Semantic>, stop: CancellationToken) {
    let (mut vectors, mut pause) = (Vec::new(), FIRST_PAUSE);
    let route = semantic.route.as_str();
    while !stop.is_cancelled() {
        let Some(owner) = app.upgrade() else { return };
        let snapshot = owner.snapshot.load_full();
        let step = semantic.next_examples(&owner, &snapshot, &mut vectors).await;
        drop((owner, snapshot));
        match step {
            Ok(true) => {
                tracing::info!(
                    route,
                    count = vectors.len(),
                    "the examples of the route's targets are embedded"
                );
                return semantic.table.fill(vectors);
            }
            Ok(false) => {}
            Err(why) => {
                // Its probes tell when it is back, and log it.
                let is_probed = why == Why::Ejected;
                if !is_probed {
                    tracing::warn!(
                        route,
                        why = why.name(),
                        "examples are not embedded: the fallback is meant until they are"
                    );
                }
                let wait = if is_probed { FIRST_PAUSE } else { pause };
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                if !is_probed {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

impl Table {
    fn fill(&self, vectors: Vec<Vec<f32>>) {
        let places = self.made_of.examples.iter().map(|(place, _)| *place);
        let table = places.zip(vectors).map(|(place, vector)| Example { place, vector }).collect();
        self.vectors.send_replace(Some(Arc::new(table)));
    }

    /// The vectors, where they are there until `deadline`.
    async fn ready(&self, deadline: Instant) -> Option<Arc<Vec<Example>>> {
        let mut vectors = self.vectors.subscribe();
        let there = vectors.wait_for(Option::is_some);
        tokio::time::timeout_at(deadline.into(), there).await.ok()?.ok()?.clone()
    }
}

impl Semantic {
    /// Of a route's configuration, which was checked; `None` where it has none. Vectors of `before` go on where nothing of theirs
    /// changed.
    pub(crate) fn new(
        typed: &config::Route,
        targets: &[Target],
        keyed: impl Fn(&Identifier) -> Option<Keyed>,
        retention: &Identifier,
        meters: &Meters,
        before: Option<&Self>,
    ) -> Option<Self> {
        let semantic = typed.balance.as_ref()?.semantic.as_ref()?;
        let keyed = keyed(&semantic.provider)?;
        let provider = keyed.providers.first()?;
        let way = Way::of(semantic, provider);
        let of_target = |(place, target): (usize, &Target)| -> Vec<(usize, String)> {
            target.examples.iter().map(|text| (place, text.clone())).collect()
        };
        let made_of = MadeOf {
            address: format!(
                "{} {}://{} {:?}",
                provider.name, provider.scheme, provider.authority, way.target
            ),
            model: semantic.model.clone(),
            dimensions: semantic.dimensions,
            examples: targets.iter().enumerate().flat_map(of_target).collect(),
        };
        let table = match before {
            Some(old) if old.table.made_of == made_of => Arc::clone(&old.table),
            _ => Arc::new(Table { made_of, vectors: watch::Sender::new(None) }),
        };
        for why in Why::ALL {
            meters.chosen(typed.name.as_str(), why.name(), 0);
        }
        let threshold = |target: &Target| target.threshold.unwrap_or(semantic.threshold).0;
        Some(Self {
            route: typed.name.clone(),
            way,
            model: semantic.model.clone(),
            dimensions: semantic.dimensions,
            timeout: semantic.timeout,
            thresholds: targets.iter().map(threshold).collect(),
            names: targets.iter().map(|target| target.name.clone()).collect(),
            fallback: targets.iter().position(|target| target.name == semantic.fallback)?,
            retention: retention.clone(),
            keep_content: typed.keep_content,
            table,
            meters: meters.clone(),
            keyed,
        })
    }

    /// The provider that makes the embeddings.
    pub(crate) fn provider(&self) -> &Identifier {
        &self.keyed.upstream.name
    }

    /// The same as its connections.
    pub(crate) fn connected(&self) -> Option<&Provider> {
        self.keyed.providers.first().map(Arc::as_ref)
    }

    /// Whether its provider is in order, as far as its probes say. There is no other one to make the embeddings, and a target
    /// that takes what is not known: where it is not, nobody waits for it.
    fn is_in_order(&self) -> bool {
        self.keyed.upstream.probed.is_healthy()
    }

    /// What `prompt` means. What was sent of it gets its outcome also where its caller leaves.
    pub(crate) async fn mean(
        self: &Arc<Self>,
        app: &Arc<App>,
        snapshot: &Arc<Snapshot>,
        prompt: Prompt,
    ) -> Meaning {
        let (own, owner, snapshot) = (Arc::clone(self), Arc::clone(app), Arc::clone(snapshot));
        let (all, why, embedded) =
            Outliving::new(app, async move { own.nearness(&owner, &snapshot, prompt).await }).await;
        let (meaning, why) = self.meaning(&all, why, embedded);
        self.meters.chosen(self.route.as_str(), why.name(), 1);
        meaning
    }

    /// How near a prompt is to each target, in millionths, as far as that is known; what that rests on, and where it was embedded.
    async fn nearness(
        &self,
        app: &Arc<App>,
        snapshot: &Snapshot,
        prompt: Prompt,
    ) -> (Vec<Option<i64>>, Why, Option<ExchangeId>) {
        let unknown = |why| (Vec::new(), why, None);
        if let Some(place) = prompt.placed {
            let at = |other| (other == place).then_some(i64::MAX);
            return ((0..self.names.len()).map(at).collect(), Why::Sticky, None);
        }
        let Some(text) = prompt.text else { return unknown(Why::NoText) };
        if !prompt.is_allowed {
            return unknown(Why::Denied);
        }
        if !self.is_in_order() {
            return unknown(Why::Ejected);
        }
        let deadline = Instant::now() + self.timeout;
        let Some(examples) = self.table.ready(deadline).await else { return unknown(Why::NotReady) };
        let told = Told { caller: prompt.caller, scope: prompt.scope, ..self.told() };
        let within = deadline.saturating_duration_since(Instant::now());
        match self.embed(app, snapshot, &[text.as_str()], within, told).await {
            Err((why, embedded)) => (Vec::new(), why, embedded),
            Ok((vectors, exchange)) => {
                let all = vectors.first().and_then(|vector| nearness(vector, &examples, self.names.len()));
                // Vectors of another length are of another model.
                let why = if all.is_some() { Why::Matched } else { Why::Failed };
                (all.unwrap_or_default(), why, Some(exchange))
            }
        }
    }

    /// Sorts out what is not near enough; what the choice rests on then.
    fn meaning(&self, all: &[Option<i64>], why: Why, embedded: Option<ExchangeId>) -> (Meaning, Why) {
        let clears =
            |place: usize, score: &i64| self.thresholds.get(place).is_none_or(|least| score >= least);
        let scores: Vec<Option<i64>> =
            all.iter().enumerate().map(|(place, score)| score.filter(|score| clears(place, score))).collect();
        let best = |scores: &[Option<i64>]| {
            let known = scores.iter().enumerate().filter_map(|(place, score)| Some((place, (*score)?)));
            // The first of those that are equally near.
            known.rev().max_by_key(|(_, score)| *score)
        };
        let (nearest, matched) = (best(all), best(&scores));
        let why = if why == Why::Matched && matched.is_none() { Why::BelowThreshold } else { why };
        let place = matched.map_or(self.fallback, |(place, _)| place);
        let score = matched.or(nearest).map(|(_, score)| score).filter(|_| why != Why::Sticky);
        let word = |text| Identifier::new(text).expect("a word of a closed set is an identifier");
        let target = self.names.get(place).cloned();
        let choice = Choice { by: word("semantic"), why: word(why.name()), target, score, embedded };
        (Meaning { scores, fallback: self.fallback, choice }, why)
    }

    /// Embeds the next examples behind `vectors`; true where all are there.
    async fn next_examples(
        &self,
        app: &Arc<App>,
        snapshot: &Snapshot,
        vectors: &mut Vec<Vec<f32>>,
    ) -> Result<bool, Why> {
        let left = self.table.made_of.examples.get(vectors.len()..).unwrap_or_default();
        if left.is_empty() {
            return Ok(true);
        }
        if !self.is_in_order() {
            return Err(Why::Ejected);
        }
        let texts: Vec<&str> = left.iter().take(BATCH).map(|(_, text)| text.as_str()).collect();
        let embedded = self.embed(app, snapshot, &texts, EXAMPLES_WITHIN, self.told()).await;
        let (new, _) = embedded.map_err(|(why, _)| why)?;
        if vectors.first().zip(new.first()).is_some_and(|(one, other)| one.len() != other.len()) {
            vectors.clear();
            return Err(Why::Failed);
        }
        vectors.extend(new);
        Ok(vectors.len() == self.table.made_of.examples.len())
    }

    fn told(&self) -> Told {
        Told {
            operation: OPERATION,
            caller: Caller::default(),
            route: Some(self.route.clone()),
            scope: KeyScope::PerExchange,
            retention: self.retention.clone(),
            keep_content: self.keep_content,
        }
    }

    /// The vectors of `texts`, each of length 1, all equally long; with the exchange in which they came.
    async fn embed(
        &self,
        app: &Arc<App>,
        snapshot: &Snapshot,
        texts: &[&str],
        within: Duration,
        told: Told,
    ) -> Result<(Vec<Vec<f32>>, ExchangeId), (Why, Option<ExchangeId>)> {
        let keys = &self.keyed.upstream.keys;
        let key = keys.take(Instant::now());
        let Some(provider) = self.keyed.providers.get(key) else { return Err((Why::Failed, None)) };
        let request = Request {
            method: Method::POST,
            path: &self.way.path,
            query: None,
            target: self.way.target.clone(),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]),
            body: self.body(texts),
            within,
            most: texts.len().max(1) * ANSWER_BYTES,
        };
        let recorded = own::recorded(app, snapshot, provider, &request, told).await;
        let (exchange, came) = recorded.map_err(|seen| match seen {
            Seen::Denied => (Why::Denied, None),
            _ => (Why::Unrecorded, None),
        })?;
        if let Some((head, _)) = &came.answer {
            let retry_after = retry_after(&head.headers);
            keys.answered(key, head.status.as_u16(), retry_after, Instant::now());
        }
        let why = match came.seen {
            Seen::Status(200) => Why::Failed,
            Seen::Timeout => return Err((Why::Timeout, Some(exchange))),
            _ => return Err((Why::Failed, Some(exchange))),
        };
        let body = came.answer.as_ref().map(|(_, body)| body.as_ref()).unwrap_or_default();
        match vectors(body, texts.len()) {
            Some(vectors) => Ok((vectors, exchange)),
            None => Err((why, Some(exchange))),
        }
    }

    fn body(&self, texts: &[&str]) -> Bytes {
        let input = match texts {
            [only] => json!(only),
            several => json!(several),
        };
        let mut body = json!({ "model": self.model, "input": input });
        if let (Some(dimensions), Some(members)) = (self.dimensions, body.as_object_mut()) {
            members.insert("dimensions".into(), json!(dimensions));
        }
        Bytes::from(body.to_string())
    }
}

impl Way {
    fn of(semantic: &config::Semantic, provider: &Provider) -> Self {
        let path = match provider.dialect {
            Dialect::AzureOpenAi => format!("/openai/deployments/{}/embeddings", semantic.model),
            _ => "/v1/embeddings".to_owned(),
        };
        let target = match &semantic.path {
            Some(typed) => {
                let (path, query) =
                    typed.split_once('?').map_or((typed.as_str(), None), |(a, b)| (a, Some(b)));
                provider.target(path, query)
            }
            None => provider.translated_target(&path, None),
        };
        Self { path, target }
    }
}

/// The words of a request that decide over its target.
pub(crate) fn words(route: &Route, readable: Option<&[u8]>) -> Option<String> {
    route.semantic.as_ref()?;
    dialects::last_turn(readable?, MAX_PROMPT)
}

/// An answer's vectors in the order of their texts, each made one of length 1.
fn vectors(body: &[u8], count: usize) -> Option<Vec<Vec<f32>>> {
    #[derive(Deserialize)]
    struct Answer {
        data: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        index: Option<usize>,
        embedding: Vec<f32>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let mut placed: Vec<Option<Vec<f32>>> = vec![None; count];
    let length = answer.data.first()?.embedding.len();
    for (at, item) in answer.data.into_iter().enumerate() {
        let place = placed.get_mut(item.index.unwrap_or(at)).filter(|place| place.is_none())?;
        *place = Some(unit(item.embedding).filter(|vector| vector.len() == length)?);
    }
    placed.into_iter().collect()
}

/// The vector of the same direction and of length 1; `None` for one that has none.
fn unit(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let square: f64 = vector.iter().map(|part| f64::from(*part) * f64::from(*part)).sum();
    if vector.len() > MAX_DIMENSIONS || !square.is_finite() || square <= 0.0 {
        return None;
    }
    let length = square.sqrt();
    vector.iter_mut().for_each(|part| *part = (f64::from(*part) / length) as f32);
    Some(vector)
}

/// The greatest cosine between `vector` and the examples of each of `count` targets, in millionths; `None` for vectors of
/// another length.
fn nearness(vector: &[f32], examples: &[Example], count: usize) -> Option<Vec<Option<i64>>> {
    let mut all: Vec<Option<i64>> = vec![None; count];
    for example in examples {
        if example.vector.len() != vector.len() {
            return None;
        }
        let cosine: f64 = example.vector.iter().zip(vector).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        // Of a whole between -1 and 1.
        let score = (cosine.clamp(-1.0, 1.0) * WHOLE).round() as i64;
        let best = all.get_mut(example.place)?;
        *best = Some(best.map_or(score, |best| best.max(score)));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::super::choose::Random;
    use super::*;

    fn example(place: usize, vector: &[f32]) -> Example {
        Example { place, vector: unit(vector.to_vec()).unwrap() }
    }

    #[test]
    fn the_nearest_example_counts_whatever_its_length() {
        let examples = [example(0, &[1.0, 0.0]), example(0, &[0.0, 5.0]), example(2, &[-3.0, 0.0])];
        let near = |vector: &[f32]| nearness(&unit(vector.to_vec()).unwrap(), &examples, 3);
        assert_eq!(near(&[0.0, 2.0]), Some(vec![Some(1_000_000), None, Some(0)]));
        assert_eq!(near(&[-1.0, 1.0]), Some(vec![Some(707_107), None, Some(707_107)]));
        assert_eq!(near(&[1.0, 0.0]), Some(vec![Some(1_000_000), None, Some(-1_000_000)]));
        assert_eq!(near(&[1.0, 0.0, 0.0]), None);
    }

    #[test]
    fn vectors_are_taken_in_the_order_of_their_texts_or_not_at_all() {
        let two = |text: &str| vectors(text.as_bytes(), 2);
        let turned = two(r#"{"data":[{"index":1,"embedding":[0,2]},{"index":0,"embedding":[3,0]}]}"#);
        assert_eq!(turned, Some(vec![vec![1.0, 0.0], vec![0.0, 1.0]]));
        assert_eq!(two(r#"{"data":[{"embedding":[3,0]},{"embedding":[0,2]}]}"#), turned);
        for bad in [
            r#"{"data":[]}"#,
            r#"{"data":[{"index":0,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":2,"embedding":[1]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1,2]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[0]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1e300]}]}"#,
            r#"{"data":[{"index":0,"embedding":[]},{"index":1,"embedding":[]}]}"#,
            r#"{"data":[{"index":0,"embedding":"AACA"},{"index":1,"embedding":[1]}]}"#,
            r#"{"error":{"message":"no"}}"#,
            "",
        ] {
            assert_eq!(two(bad), None, "{bad}");
        }
    }

    #[test]
    fn hostile_answers_never_panic() {
        let whole =
            r#"{"data":[{"index":1,"embedding":[0.5,-2]},{"index":0,"embedding":[3,1e-30]}],"usage":{}}"#;
        let mut random = Random::new(7);
        for _ in 0..5000 {
            let mut body = whole.as_bytes().to_vec();
            for _ in 0..=random.below(4) {
                let at = random.below(body.len());
                body[at] = u8::try_from(random.below(256)).unwrap();
            }
            body.truncate(random.below(whole.len() * 2));
            for vector in vectors(&body, random.below(4)).into_iter().flatten() {
                let one = [Example { place: 0, vector: vector.clone() }];
                let near = nearness(&vector, &one, 1).unwrap();
                assert!(near[0].is_some_and(|score| score > 990_000), "{near:?}");
            }
        }
    }
}
