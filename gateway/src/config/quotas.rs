//! `quotas`: how much who may use, in which time.

use std::path::Path;
use std::time::Duration;

use policies::decimal::Decimal;
use policies::document::{Node, Problem, Shape};
use policies::pattern::Patterns;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use schemas::Identifier;
use serde::{Serialize, Serializer};

use super::read::{DAY, Reader, SECOND, credential, whole};
use super::tls::{self, ClientTls};
use super::units::{duration_schema, duration_text, parse_duration, show_duration};
use super::{BaseUrl, Credential, Ratio};
use crate::authenticate::is_credential;
use crate::quotas::Expression;

/// The largest limit: Redis counts in doubles, which are exact up to here.
pub const MAX_LIMIT: u64 = 1 << 53;

/// Units of money: 10^-9 of the currency's main unit.
pub const NANO: u64 = 1_000_000_000;

/// The most rules.
const MAX_RULES: usize = 256;

const OUTPUT: u64 = 4096;
const LEASE: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_millis(500);
const PREFIX: &str = "affidavit";

/// How much who may use, in which time: a share is reserved before a request goes on, and settled once its usage is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Quotas {
    /// Where the counters are: `local` (in this process; a restart begins them anew) or `{redis: {...}}` (shared by all
    /// gateways of one `prefix`).
    pub store: QuotaStore,
    /// Output tokens that are reserved for a request that does not bound its output.
    pub default_output: u64,
    /// Whether answers show what is left, in the headers `x-ratelimit-limit`, `x-ratelimit-remaining`, `x-ratelimit-reset`,
    /// `ratelimit-policy`, `ratelimit` and `x-affidavit-quota-warning`.
    pub headers: bool,
    /// The rules. All of them that fit a request count it, and each can refuse it.
    pub rules: Vec<QuotaRule>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { store: QuotaStore::Local, default_output: OUTPUT, headers: true, rules: Vec::new() }
    }
}

impl Quotas {
    /// True where nothing is typed.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The shared store, where there is one.
    pub fn redis(&self) -> Option<&QuotaRedis> {
        match &self.store {
            QuotaStore::Local => None,
            QuotaStore::Redis(redis) => Some(redis),
        }
    }
}

/// Where the counters are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuotaStore {
    /// In this process.
    #[default]
    Local,
    /// On a Redis (6.2 or newer, or a Valkey), shared.
    Redis(Box<QuotaRedis>),
}

/// A Redis that holds counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct QuotaRedis {
    /// `redis://host:6379`, or `rediss://host:6379` with TLS; more than one: the first that answers and is no replica. One of
    /// `urls`, `cluster` and `sentinel`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub urls: Vec<RedisUrl>,
    /// A Redis Cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<RedisCluster>,
    /// Sentinels, which say who is the master.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<RedisSentinel>,
    /// TLS; absent: the system's roots and no certificate of the gateway.
    #[schemars(default)]
    pub tls: ClientTls,
    /// The user of its ACL; absent: `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Where the password is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Credential>,
    /// The number of the database; a cluster has only 0.
    #[schemars(default)]
    pub database: u32,
    /// The longest time that a request waits for it; then `when_down` counts. `500ms` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_timeout", schema_with = "duration_schema")]
    pub timeout: Duration,
    /// Begins the name of every key, in braces: all of them are in one slot of a cluster.
    #[schemars(default = "default_prefix")]
    pub prefix: String,
    /// What a gateway has reserved and does not renew for so long is given back: it is dead. `30s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_lease", schema_with = "duration_schema")]
    pub lease: Duration,
    /// What becomes of requests that a rule fits while it does not answer.
    #[schemars(default)]
    pub when_down: WhenDown,
}

impl QuotaRedis {
    /// The addresses that are typed, of servers, nodes or sentinels.
    pub fn addresses(&self) -> &[RedisUrl] {
        match (&self.cluster, &self.sentinel) {
            (Some(cluster), _) => &cluster.nodes,
            (_, Some(sentinel)) => &sentinel.nodes,
            _ => &self.urls,
        }
    }
}

/// A Redis Cluster: all counters are in one slot of it, with the one master that owns the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RedisCluster {
    /// Some of its nodes, `redis://host:6379` or `rediss://host:6379`, all in one form: they name the others.
    pub nodes: Vec<RedisUrl>,
}

/// Sentinels of a master and its replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RedisSentinel {
    /// The sentinels, `redis://host:26379` or `rediss://host:26379`, all in one form: with `rediss` the master is spoken to
    /// with TLS as well.
    pub nodes: Vec<RedisUrl>,
    /// The name that the sentinels know the master by.
    pub master: String,
    /// The user of the sentinels' ACL; absent: `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Where the sentinels' password is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Credential>,
}

/// What becomes of requests while the shared store does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenDown {
    /// They are refused with 503.
    #[default]
    Closed,
    /// They pass, uncounted.
    Open,
    /// Each gateway counts alone, from nothing, with the whole of each limit.
    Local,
}

/// The address of a Redis.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct RedisUrl {
    /// True for `rediss`.
    pub tls: bool,
    /// Host and port.
    pub authority: http::uri::Authority,
}

impl RedisUrl {
    /// `redis://` or `rediss://`, host and port; no user, no path.
    pub fn parse(text: &str) -> Option<Self> {
        let (tls, rest) = match text.split_once("://")? {
            ("redis", rest) => (false, rest),
            ("rediss", rest) => (true, rest),
            _ => return None,
        };
        // The forms of a host are those of every other address here.
        let url = BaseUrl::parse(&format!("http://{rest}")).filter(|url| url.path.is_empty())?;
        Some(Self { tls, authority: url.authority })
    }

    /// The host, without the brackets of IPv6.
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port; `usual` where none is typed.
    pub fn port(&self, usual: u16) -> u16 {
        self.authority.port_u16().unwrap_or(usual)
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("redis{}://{}", if self.tls { "s" } else { "" }, self.authority))
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct QuotaRule {
    /// Its name in records, metrics and headers. A rule that keeps its name and what it counts keeps its counters.
    #[schemars(with = "String")]
    pub name: Identifier,
    /// Which requests it fits; absent: all.
    #[serde(rename = "match", skip_serializing_if = "QuotaMatch::is_empty")]
    #[schemars(default)]
    pub matches: QuotaMatch,
    /// One counter for each combination of these facts; `[]`: one for all. What is not known counts as a value of its own.
    #[schemars(default)]
    pub by: Vec<CountedBy>,
    /// What is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<Count>,
    /// In place of `count`: a sum of tokens as `input + 3 * output`. Names: `input`, `output`, `uncached_input`, `cache_read`,
    /// `cache_write_5m`, `cache_write_1h`, `reasoning`, `input_audio`, `output_audio`, `input_image`, `output_image`,
    /// `tool_use_input`, and beside tokens `search_units`, `web_searches`, `pages`, `audio_seconds`; `+ - * /`,
    /// parentheses, `min(a, b)`, `max(a, b)`, `abs(a)`, `ceil(a)`, `floor(a)`. Below zero counts as zero; a part of one as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// The currency of `money`, as the price book has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// How much in one `per` or `calendar`: a whole number; of money a decimal in the currency's main unit.
    #[schemars(with = "LimitText")]
    pub limit: String,
    /// The length of a window.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_duration")]
    #[schemars(default, schema_with = "duration_schema")]
    pub per: Option<Duration>,
    /// How windows of `per` follow each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowKind>,
    /// In place of `per`: a day, a week (from Monday) or a month of the calendar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calendar: Option<Calendar>,
    /// The time zone of `calendar`, as `Europe/Vienna`; absent: UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Shares of the limit at which a warning is told: log, metric, and a header of the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, with = "Vec<f64>")]
    pub warn_at: Vec<Ratio>,
    /// What becomes of a request that does not fit into the limit.
    #[schemars(default)]
    pub then: Then,
    /// What a caller that is refused is told beside the reason: who raises the limit, as `ask llm-platform@acme.example`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A whole number, or a decimal as text or number.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum LimitText {
    Number(f64),
    Text(String),
}

/// Which requests a rule fits: one of each list's patterns, and none of those after `!`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct QuotaMatch {
    /// Names of routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// Names of providers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<String>,
    /// Names of targets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Models, by the name that was asked for or the one that is sent in its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Operations, as records name them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<String>,
    /// Consumers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<String>,
    /// Teams.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub teams: Vec<String>,
    /// Organisations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub organisations: Vec<String>,
    /// Groups: one of the caller's must fit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Ids of gateway keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

impl QuotaMatch {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A fact that counters are kept by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CountedBy {
    /// The consumer.
    Consumer,
    /// The team.
    Team,
    /// The organisation.
    Organisation,
    /// Each of the caller's groups.
    Group,
    /// The gateway key.
    Key,
    /// The end user.
    Subject,
    /// The route.
    Route,
    /// The provider.
    Provider,
    /// The target.
    Target,
    /// The model that is sent.
    Model,
    /// A header of the request, in lower case; callers choose its value.
    Header(String),
}

impl CountedBy {
    const NAMED: [(&'static str, Self); 10] = [
        ("consumer", Self::Consumer),
        ("team", Self::Team),
        ("organisation", Self::Organisation),
        ("group", Self::Group),
        ("key", Self::Key),
        ("subject", Self::Subject),
        ("route", Self::Route),
        ("provider", Self::Provider),
        ("target", Self::Target),
        ("model", Self::Model),
    ];

    fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("header:") {
            let fits = super::read::is_header(name) && name.len() <= 64 && !is_credential(name);
            return fits.then(|| Self::Header(name.to_owned()));
        }
        Self::NAMED.iter().find(|(name, _)| *name == text).map(|(_, by)| by.clone())
    }
}

impl std::fmt::Display for CountedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            named => {
                let name = Self::NAMED.iter().find(|(_, by)| by == named).map_or("", |(name, _)| name);
                f.write_str(name)
            }
        }
    }
}

impl Serialize for CountedBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for CountedBy {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CountedBy".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A fact that counters are kept by.",
            "type": "string",
            "pattern": "^(consumer|team|organisation|group|key|subject|route|provider|target|model|header:[a-z0-9-]+)$",
        })
    }
}

/// What a rule counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// Requests.
    Requests,
    /// Requests under way.
    Concurrency,
    /// Tokens of input and output.
    Tokens,
    /// Tokens of input.
    InputTokens,
    /// Tokens of output.
    OutputTokens,
    /// Money, by the price book.
    Money,
}

impl Count {
    const ALL: [(&'static str, Self); 6] = [
        ("requests", Self::Requests),
        ("concurrency", Self::Concurrency),
        ("tokens", Self::Tokens),
        ("input_tokens", Self::InputTokens),
        ("output_tokens", Self::OutputTokens),
        ("money", Self::Money),
    ];

    /// As typed.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, count)| *count == self).map_or("", |(name, _)| name)
    }
}

/// How windows follow each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// One begins where the last ends, at multiples of its length since 1970-01-01 UTC: all of a limit may be used at the
    /// end of one and again at the begin of the next.
    #[default]
    Fixed,
    /// What the last fixed window used counts by the share of it that is less than one length ago, as if it had been used
    /// evenly: what is used in any stretch of one length can be over the limit by as much as the use was uneven, and never
    /// by more than with `fixed`.
    Sliding,
}

/// A stretch of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Calendar {
    /// From midnight.
    Day,
    /// From Monday's midnight.
    Week,
    /// From the first's midnight.
    Month,
}

/// What becomes of a request that does not fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It is refused with 429, and recorded.
    #[default]
    Refuse,
    /// It passes, and is counted as one that would have been refused.
    Observe,
}

impl QuotaRule {
    /// The limit in units: of money 10^-9 of the currency's main unit.
    pub fn units(&self) -> Option<u64> {
        if self.count == Some(Count::Money) {
            let units = Decimal::parse(&self.limit)?.units();
            return u64::try_from(units / 1000)
                .ok()
                .filter(|_| units % 1000 == 0)
                .filter(|n| *n <= MAX_LIMIT);
        }
        self.limit.parse().ok().filter(|limit| *limit <= MAX_LIMIT)
    }

    /// True where it can only be held against a request whose target is known.
    pub fn is_of_target(&self) -> bool {
        !self.matches.targets.is_empty() || self.by.contains(&CountedBy::Target)
    }
}

fn optional_duration<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.serialize_str(&show_duration(*duration)),
        None => serializer.serialize_none(),
    }
}

fn default_timeout() -> String {
    show_duration(TIMEOUT)
}

fn default_lease() -> String {
    show_duration(LEASE)
}

fn default_prefix() -> &'static str {
    PREFIX
}

/// Reads the section.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Quotas> {
    let mut f = Reader::new(node, path, base, problems);
    let store = f.part_of("store", read_store);
    let default_output = f.number("default_output", 1..=10_000_000, OUTPUT);
    let headers = f.fields.truth("headers").unwrap_or(true);
    let rules = f.fields.node("rules").is_some().then(|| f.list("rules", "at least one rule", read_rule));
    if let Some(Some(rules)) = &rules {
        let (place, key) = (f.fields.place_of("rules"), f.fields.path("rules"));
        if rules.len() > MAX_RULES {
            let wanted = format!("at most {MAX_RULES} rules");
            f.fields.report(Problem::at(place, &key, wanted).value(rules.len().to_string()));
        }
        for (index, rule) in rules.iter().enumerate() {
            if let Some(first) = rules[..index].iter().position(|other| other.name == rule.name) {
                let wanted = format!("another one than `{key}[{first}].name` has");
                let problem = Problem::at(place, format!("{key}[{index}].name"), wanted);
                f.fields.report(problem.value(rule.name.as_str()));
            }
        }
    }
    f.fields.finish();
    Some(Quotas {
        store: whole(store)?.unwrap_or_default(),
        default_output,
        headers,
        rules: whole(rules)?.unwrap_or_default(),
    })
}

fn read_store(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<QuotaStore> {
    const FORM: &str = "`local` or `{redis: {...}}`";
    if let Shape::Map(_) = &node.shape {
        let mut f = Reader::new(node, path, base, problems);
        f.fields.required_node("redis", FORM);
        let redis = f.part_of("redis", read_redis);
        f.fields.finish();
        return redis.flatten().map(|redis| QuotaStore::Redis(Box::new(redis)));
    }
    if node.text() == Some("local") {
        return Some(QuotaStore::Local);
    }
    problems.push(Problem::at(node.place, path, FORM).value(node.text().unwrap_or_default()));
    None
}

/// A name in a Redis.
fn redis_name(text: &str) -> Option<String> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:@".contains(&b));
    fits.then(|| text.to_owned())
}

const REDIS_NAME: &str = "a name `[A-Za-z0-9_.:@-]{1,64}`";

fn redis_urls(f: &mut Reader<'_, '_>, key: &'static str) -> Option<Vec<RedisUrl>> {
    f.list(key, "at least one address", |node, path, _, problems| {
        let url = node.text().and_then(RedisUrl::parse);
        if url.is_none() {
            let wanted = "`redis://host:port`, or `rediss://host:port` with TLS, without user and path";
            // Not shown: a password may stand in it.
            problems.push(Problem::at(node.place, path, wanted));
        }
        url
    })
}

/// Nodes that name others, whose addresses say nothing of TLS.
fn redis_nodes(f: &mut Reader<'_, '_>) -> Option<Vec<RedisUrl>> {
    let nodes = redis_urls(f, "nodes")?;
    if nodes.iter().any(|node| Some(node.tls) != nodes.first().map(|first| first.tls)) {
        let (place, path) = (f.fields.place_of("nodes"), f.fields.path("nodes"));
        f.fields.report(Problem::at(place, path, "all `redis://` or all `rediss://`"));
    }
    Some(nodes)
}

fn read_cluster(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<RedisCluster> {
    let mut f = Reader::new(node, path, base, problems);
    let nodes = redis_nodes(&mut f);
    f.fields.finish();
    Some(RedisCluster { nodes: nodes? })
}

fn read_sentinel(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<RedisSentinel> {
    let mut f = Reader::new(node, path, base, problems);
    let nodes = redis_nodes(&mut f);
    let master = f.fields.required("master", REDIS_NAME, redis_name);
    let username = f.fields.optional("username", REDIS_NAME, redis_name);
    let password = f.part_of("password", credential);
    f.fields.finish();
    Some(RedisSentinel { nodes: nodes?, master: master?, username, password: whole(password)? })
}

fn read_redis(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<QuotaRedis> {
    let mut f = Reader::new(node, path, base, problems);
    let urls = f.fields.node("urls").is_some().then(|| redis_urls(&mut f, "urls"));
    let cluster = f.part_of("cluster", read_cluster);
    let sentinel = f.part_of("sentinel", read_sentinel);
    let ways = [urls.is_some(), cluster.is_some(), sentinel.is_some()];
    let is_one = ways.into_iter().filter(|is_typed| *is_typed).count() == 1;
    if !is_one {
        let path = f.fields.path("urls");
        f.fields.report(Problem::at(node.place, path, "one of `urls`, `cluster` and `sentinel`"));
    }
    let tls = f.part_of("tls", tls::read);
    let username = f.fields.optional("username", REDIS_NAME, redis_name);
    let password = f.part_of("password", credential);
    let database = f.number("database", 0..=if cluster.is_some() { 0 } else { 65_535 }, 0);
    let timeout = f.duration("timeout", Duration::from_millis(10)..=10 * SECOND, TIMEOUT);
    let prefix = f.fields.optional("prefix", REDIS_NAME, redis_name);
    let lease = f.duration("lease", 3 * SECOND..=3600 * SECOND, LEASE);
    let ways = [("closed", WhenDown::Closed), ("open", WhenDown::Open), ("local", WhenDown::Local)];
    let when_down = f.fields.choice("when_down", &ways).unwrap_or_default();
    f.fields.finish();
    is_one.then_some(())?;
    Some(QuotaRedis {
        urls: whole(urls)?.unwrap_or_default(),
        cluster: whole(cluster)?,
        sentinel: whole(sentinel)?,
        tls: whole(tls)?.unwrap_or_default(),
        username,
        password: whole(password)?,
        database: u32::try_from(database).ok()?,
        timeout,
        prefix: prefix.unwrap_or_else(|| PREFIX.to_owned()),
        lease,
        when_down,
    })
}

fn read_rule(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<QuotaRule> {
    let before = problems.len();
    let mut f = Reader::new(node, path, base, problems);
    let form = "an identifier `[A-Za-z0-9_.:/@+-]{1,128}`";
    let name = f.fields.required("name", form, |text| Identifier::new(text).ok());
    let matches = f.part_of("match", read_match);
    let by = read_by(&mut f);
    let count = f.fields.choice("count", &Count::ALL);
    let expression = f.fields.optional(
        "expression",
        "a sum of tokens as `input + 3 * output` (names, numbers, `+ - * / ( )`, `min`, `max`, `abs`, `ceil`, `floor`)",
        |text| Expression::parse(text).map(|_| text.to_owned()),
    );
    let form = "the code of a currency as `USD`";
    let currency = f.fields.optional("currency", form, |text| {
        (text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())).then(|| text.to_owned())
    });
    let limit = f.fields.required("limit", "a number from 0", |text| Some(text.to_owned()));
    let form = "a duration as `10s`, `1m`, `1h` or `1d`, from 1s to 31d";
    let per = f
        .fields
        .optional("per", form, |text| parse_duration(text).filter(|per| (SECOND..=31 * DAY).contains(per)));
    let kinds = [("fixed", WindowKind::Fixed), ("sliding", WindowKind::Sliding)];
    let window = f.fields.choice("window", &kinds);
    let stretches = [("day", Calendar::Day), ("week", Calendar::Week), ("month", Calendar::Month)];
    let calendar = f.fields.choice("calendar", &stretches);
    let form = "a time zone as `UTC` or `Europe/Vienna`";
    let time_zone = f
        .fields
        .optional("time_zone", form, |text| jiff::tz::TimeZone::get(text).ok().map(|_| text.to_owned()));
    let warn_at = read_warn_at(&mut f);
    let message = f.fields.optional("message", "a text of 1 to 256 characters in one line", |text| {
        let fits = (1..=256).contains(&text.chars().count()) && !text.contains(char::is_control);
        fits.then(|| text.to_owned())
    });
    let then = f.fields.choice("then", &[("refuse", Then::Refuse), ("observe", Then::Observe)]);
    let rule = QuotaRule {
        name: name?,
        matches: matches.unwrap_or_default(),
        by,
        count,
        expression,
        currency,
        limit: limit?,
        per,
        window,
        calendar,
        time_zone,
        warn_at,
        then: then.unwrap_or_default(),
        message,
    };
    fits_together(&rule, &mut f);
    f.fields.finish();
    (problems.len() == before).then_some(rule)
}

/// What must hold between the keys of a rule.
fn fits_together(rule: &QuotaRule, f: &mut Reader<'_, '_>) {
    let mut wrong = |key: &'static str, wanted: &str| {
        let (place, path) = (f.fields.place_of(key), f.fields.path(key));
        f.fields.report(Problem::at(place, path, wanted));
    };
    if rule.count.is_some() == rule.expression.is_some() {
        wrong("count", "one of `count` and `expression`");
        return;
    }
    let money = rule.count == Some(Count::Money);
    if money != rule.currency.is_some() {
        wrong("currency", "a currency with `count: money`, and only with it");
    }
    if rule.units().is_none() {
        let wanted = if money {
            "a decimal from 0 to 9000000 with at most nine digits behind the point, as `500.00`"
        } else {
            "a whole number from 0 to 9007199254740992"
        };
        wrong("limit", wanted);
    }
    if rule.count == Some(Count::Concurrency) {
        if rule.per.is_some() || rule.calendar.is_some() {
            wrong("per", "no `per` and no `calendar` with `count: concurrency`: it counts what is under way");
        }
    } else if rule.per.is_some() == rule.calendar.is_some() {
        wrong("per", "one of `per` and `calendar`");
    }
    if rule.window.is_some() && rule.per.is_none() {
        wrong("window", "`per` as well");
    }
    if rule.time_zone.is_some() && rule.calendar.is_none() {
        wrong("time_zone", "`calendar` as well");
    }
}

fn read_by(f: &mut Reader<'_, '_>) -> Vec<CountedBy> {
    // An empty list is one counter for all, as where nothing is typed.
    let Some(list) = f.fields.texts("by") else { return Vec::new() };
    let path = f.fields.path("by");
    if list.len() > 8 {
        f.fields.report(Problem::at(f.fields.place_of("by"), &path, "at most 8 facts"));
    }
    let mut all = Vec::new();
    for (text, place) in list {
        match CountedBy::parse(&text) {
            Some(by) if !all.contains(&by) => all.push(by),
            _ => {
                let names: Vec<_> = CountedBy::NAMED.iter().map(|(name, _)| *name).collect();
                let wanted = format!("{} or `header:NAME`, each once", names.join(", "));
                let problem = Problem::at(place, &path, wanted).value(&text);
                f.fields.report(problem.suggest(&text, names));
            }
        }
    }
    all
}

fn read_warn_at(f: &mut Reader<'_, '_>) -> Vec<Ratio> {
    let Some(list) = f.fields.texts("warn_at") else { return Vec::new() };
    let path = f.fields.path("warn_at");
    let mut all = Vec::new();
    for (text, place) in &list {
        match Ratio::parse(text).filter(|ratio| ratio.millionths() > 0) {
            Some(ratio) => all.push(ratio),
            None => {
                let wanted = "shares of the limit above 0 and up to 1, as `[0.8, 0.95]`";
                f.fields.report(Problem::at(*place, &path, wanted).value(text));
            }
        }
    }
    if list.len() > 8 {
        f.fields.report(Problem::at(f.fields.place_of("warn_at"), &path, "at most 8 shares"));
    }
    all.sort_by_key(|ratio| ratio.millionths());
    all
}

fn read_match(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> QuotaMatch {
    let mut f = Reader::new(node, path, base, problems);
    let mut patterns = |key: &'static str| {
        let Some(list) = f.fields.texts(key) else { return Vec::new() };
        let path = f.fields.path(key);
        for (text, place) in &list {
            if !Patterns::default().add(text) {
                let wanted = "a pattern of 1 to 256 bytes without white space: `gpt-4o*`, `!test-*`";
                f.fields.report(Problem::at(*place, &path, wanted).value(text));
            }
        }
        list.into_iter().map(|(text, _)| text).collect()
    };
    let matches = QuotaMatch {
        routes: patterns("routes"),
        providers: patterns("providers"),
        targets: patterns("targets"),
        models: patterns("models"),
        operations: patterns("operations"),
        consumers: patterns("consumers"),
        teams: patterns("teams"),
        organisations: patterns("organisations"),
        groups: patterns("groups"),
        keys: patterns("keys"),
    };
    f.fields.finish();
    matches
}
