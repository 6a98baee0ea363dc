//! From the YAML tree to [`Config`]: forms, units, ranges, unknown keys. Knows no file but the one at hand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use policies::document::{Fields, Node, Problem, Shape, texts};
use schemas::Identifier;

use super::target::{MAX_ANSWER, MAX_TARGETS, MIN_ANSWER};
use super::units::{DURATION_FORM, SIZE_FORM, parse_duration, parse_size, show_duration, show_size};
use super::{
    Attributes, BaseUrl, Config, Credential, Credentials, DEFAULT_ADMIN, Dialect, Drain, DrainAfterAbort,
    Encryption, Estimate, Evidence, Fact, FailMode, Headers, KNOWN, KeyHeader, KeyScope, Limits, Listen, Log,
    LogFormat, MaxOutputAs, Out, Provider, Route, Target, Tls, Untranslatable,
};
use crate::authenticate::is_credential;

const IDENTIFIER_FORM: &str = "an identifier `[A-Za-z0-9_.:/@+-]{1,128}`";
pub(super) const PART_FORM: &str = "a name `[a-z0-9][a-z0-9.-]{0,62}`";
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// Reads the tree; relative paths are meant from `base`. `None` where a required key is missing or unreadable.
pub(super) fn config(root: &Node, base: &Path, problems: &mut Vec<Problem>) -> Option<Config> {
    let mut f = Reader { fields: Fields::new(root, "", problems), base };
    let deployment = f.part("deployment");
    let gateway = f.part("gateway");
    let listen = f.list("listen", "at least one address", listen);
    let admin = f.fields.optional("admin", "an address as `127.0.0.1:9090`", |text| text.parse().ok());
    let admin_socket = f.path("admin_socket");
    let evidence_node = f.fields.required_node("evidence", "where journal, spool, keys and store are");
    let evidence = evidence_node.and_then(|node| evidence(node, base, f.fields.problems()));
    let limits = f.part_of("limits", limits);
    let quotas = f.part_of("quotas", super::quotas::read);
    let providers = f.list("providers", "at least one provider", provider);
    let upstream_proxy = f.part_of("upstream_proxy", super::upstream::proxy);
    let routes = f.list("routes", "at least one route", route);
    let keys = f.required_path("keys");
    let identity = f.part_of("identity", super::identity::read);
    let vault = f.part_of("vault", super::vault::read);
    let policy = f.path("policy");
    let prices = f.path("prices");
    let headers = f.part_of("headers", headers);
    let telemetry = f.part_of("telemetry", super::telemetry::read);
    let log = f.part_of("log", log);
    f.fields.finish();
    Some(Config {
        deployment: deployment?,
        gateway: gateway?,
        listen: listen?,
        admin: admin.unwrap_or(DEFAULT_ADMIN),
        admin_socket,
        evidence: evidence?,
        limits: limits.unwrap_or_default(),
        quotas: whole(quotas)?.unwrap_or_default(),
        providers: providers?,
        upstream_proxy: whole(upstream_proxy)?,
        routes: routes?,
        keys: keys?,
        identity: whole(identity)?.unwrap_or_default(),
        vault: whole(vault)?,
        policy,
        prices,
        headers: headers.unwrap_or_default(),
        telemetry: whole(telemetry)?.unwrap_or_default(),
        log: log.unwrap_or_default(),
    })
}

/// The forms of values that several parts share.
pub(super) struct Reader<'a, 'p> {
    pub(super) fields: Fields<'a, 'p>,
    base: &'p Path,
}

impl<'a, 'p> Reader<'a, 'p> {
    pub(super) fn new(node: &'a Node, path: &str, base: &'p Path, problems: &'p mut Vec<Problem>) -> Self {
        Self { fields: Fields::new(node, path, problems), base }
    }

    fn part(&mut self, key: &'static str) -> Option<String> {
        self.fields.required(key, PART_FORM, |text| is_part(text).then(|| text.to_owned()))
    }

    pub(super) fn name(&mut self, key: &'static str) -> Option<Identifier> {
        self.fields.required(key, IDENTIFIER_FORM, |text| Identifier::new(text).ok())
    }

    pub(super) fn identifier(&mut self, key: &'static str) -> Option<Identifier> {
        self.fields.optional(key, IDENTIFIER_FORM, |text| Identifier::new(text).ok())
    }

    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.fields.optional(key, "a path", |text| Some(self.base.join(text)))
    }

    pub(super) fn required_path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.fields.required(key, "a path", |text| Some(self.base.join(text)))
    }

    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let (low, high) = (show_duration(*range.start()), show_duration(*range.end()));
        let wanted = format!("{DURATION_FORM}, from {low} to {high}");
        let read = |text: &str| parse_duration(text).filter(|duration| range.contains(duration));
        self.fields.optional(key, &wanted, read).unwrap_or(default)
    }

    pub(super) fn optional_duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let (low, high) = (show_duration(*range.start()), show_duration(*range.end()));
        let wanted = format!("{DURATION_FORM}, from {low} to {high}");
        let read = |text: &str| parse_duration(text).filter(|duration| range.contains(duration));
        self.fields.optional(key, &wanted, read)
    }

    pub(super) fn optional_size(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (show_size(*range.start()), show_size(*range.end()));
        let wanted = format!("{SIZE_FORM}, from {low} to {high}");
        let read = |text: &str| parse_size(text).filter(|size| range.contains(size));
        self.fields.optional(key, &wanted, read)
    }

    pub(super) fn size(&mut self, key: &'static str, range: RangeInclusive<u64>, default: u64) -> u64 {
        let wanted =
            format!("{SIZE_FORM}, from {} to {}", show_size(*range.start()), show_size(*range.end()));
        let read = |text: &str| parse_size(text).filter(|size| range.contains(size));
        self.fields.optional(key, &wanted, read).unwrap_or(default)
    }

    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u64>, default: u64) -> u64 {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let read = |text: &str| text.parse().ok().filter(|number| range.contains(number));
        self.fields.optional(key, &wanted, read).unwrap_or(default)
    }

    /// A list that must not be empty; `None` where an item could not be read.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        read: impl Fn(&Node, &str, &Path, &mut Vec<Problem>) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.fields.required_node(key, wanted)?;
        let place = self.fields.place_of(key);
        let path = self.fields.path(key);
        let base = self.base;
        let items = self.fields.items(key)?;
        if items.is_empty() {
            self.fields.report(Problem::at(place, path, wanted).value("[]"));
            return None;
        }
        let problems = self.fields.problems();
        let read = |(index, item): (usize, &Node)| read(item, &format!("{path}[{index}]"), base, problems);
        // Every item is read, also behind one that fails, so that all problems are told.
        let all: Vec<Option<T>> = items.iter().enumerate().map(read).collect();
        all.into_iter().collect()
    }

    pub(super) fn part_of<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node, &str, &Path, &mut Vec<Problem>) -> T,
    ) -> Option<T> {
        let node = self.fields.node(key)?;
        let path = self.fields.path(key);
        Some(read(node, &path, self.base, self.fields.problems()))
    }
}

/// Nothing typed is fine; something typed must have been read.
pub(super) fn whole<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}

/// One part of a log's name.
pub(super) fn is_part(text: &str) -> bool {
    schemas::names::is_part(text)
}

fn listen(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Listen> {
    let mut f = Reader::new(node, path, base, problems);
    let form = "an address and port as `127.0.0.1:8080` or `[::]:8080`";
    let address = f.fields.required("address", form, |text| text.parse::<SocketAddr>().ok());
    let tls = f.part_of("tls", tls);
    f.fields.finish();
    Some(Listen { address: address?, tls: whole(tls)? })
}

fn tls(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Tls> {
    let mut f = Reader::new(node, path, base, problems);
    let certificate = f.required_path("certificate");
    let key = f.required_path("key");
    let client_ca = f.path("client_ca");
    f.fields.finish();
    Some(Tls { certificate: certificate?, key: key?, client_ca })
}

fn evidence(node: &Node, base: &Path, problems: &mut Vec<Problem>) -> Option<Evidence> {
    let mut f = Reader::new(node, "evidence", base, problems);
    let journal = f.required_path("journal");
    let spool = f.required_path("spool");
    let key_table = f.required_path("key_table");
    let seal_key = f.required_path("seal_key");
    let pseudonym_key = f.path("pseudonym_key");
    let promise_key = f.path("promise_key");
    let out_node = f
        .fields
        .required_node("out", "the evidence store as `{directory: PATH}`, `{s3: {...}}` or `{kafka: {...}}`");
    let out = out_node.and_then(|node| out(node, "evidence.out", base, f.fields.problems()));
    let form = "the public key of the registry's seals: 32 bytes in base64";
    let registry =
        f.fields.optional("registry", form, |text| schemas::trust::public_key(text).map(|_| text.to_owned()));
    let commit = f.part_of("commit", super::commit::read);
    let age = if matches!(out, Some(Out::S3(_) | Out::Kafka(_))) { 60 * SECOND } else { 10 * SECOND };
    let batch_age = f.duration("batch_age", Duration::from_millis(100)..=60 * 60 * SECOND, age);
    let batch_size = f.size("batch_size", 1 << 20..=1 << 30, 64 << 20);
    let heartbeat = f.duration("heartbeat", SECOND..=DAY, 300 * SECOND);
    let encryption = f.fields.choice("encryption", &[("on", Encryption::On), ("off", Encryption::Off)]);
    let segment = f.size("segment", 1 << 20..=4 << 30, 64 << 20);
    let spool_bound = f.size("spool_bound", 16 << 20..=1 << 50, 10 << 30);
    let spool_keep = f.duration("spool_keep", Duration::ZERO..=31 * DAY, DAY);
    let tap = f.fields.node("tap").is_some().then(|| f.list("tap", "at least one sink", super::tap::read));
    let keep = f.size("tap_keep", 0..=1 << 50, u64::MAX);
    f.fields.finish();
    Some(Evidence {
        journal: journal?,
        spool: spool?,
        key_table: key_table?,
        seal_key: seal_key?,
        pseudonym_key,
        promise_key,
        out: out?,
        registry,
        commit: whole(commit)?.unwrap_or_default(),
        batch_age,
        batch_size,
        heartbeat,
        encryption: encryption.unwrap_or_default(),
        segment,
        spool_bound,
        spool_keep,
        tap: whole(tap)?.unwrap_or_default(),
        tap_keep: (keep != u64::MAX).then_some(keep),
    })
}

/// The way out, at `path` of a configuration.
pub(crate) fn out(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Out> {
    let mut f = Reader::new(node, path, base, problems);
    let s3 = f.part_of("s3", super::s3::read);
    let kafka = f.part_of("kafka", super::kafka::read);
    let taken = [("s3", s3.is_some()), ("kafka", kafka.is_some())];
    let first = taken.iter().find(|(_, is_typed)| *is_typed).map(|(key, _)| *key);
    for other in ["directory", "kafka"] {
        if first.is_some_and(|first| first != other) && f.fields.node(other).is_some() {
            let place = f.fields.place_of(other);
            let wanted = "one way out: `directory`, `s3` or `kafka`";
            f.fields.report(Problem::at(place, format!("{path}.{other}"), wanted));
        }
    }
    let out = match (s3, kafka) {
        (None, None) => f.required_path("directory").map(Out::Directory),
        (Some(s3), _) => s3.map(|s3| Out::S3(Box::new(s3))),
        (None, Some(kafka)) => kafka.map(|kafka| Out::Kafka(Box::new(kafka))),
    };
    f.fields.finish();
    out
}

fn limits(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Limits {
    let default = Limits::default();
    let mut f = Reader::new(node, path, base, problems);
    let wait = || SECOND..=DAY;
    let limits = Limits {
        head: f.size("head", 8 << 10..=1 << 20, default.head),
        body: f.size("body", 1 << 10..=4 << 30, default.body),
        body_memory: f.size("body_memory", 1 << 20..=1 << 40, default.body_memory),
        concurrent: f.number("concurrent", 1..=1_000_000, default.concurrent),
        connections: f.number("connections", 1..=1_000_000, default.connections),
        header_read: f.duration("header_read", wait(), default.header_read),
        body_read: f.duration("body_read", wait(), default.body_read),
        admission: f.duration("admission", Duration::ZERO..=DAY, default.admission),
        connect: f.duration("connect", wait(), default.connect),
        first_byte: f.duration("first_byte", wait(), default.first_byte),
        idle: f.duration("idle", wait(), default.idle),
        answer: f.optional_size("answer", MIN_ANSWER..=MAX_ANSWER),
        answer_time: f.optional_duration("answer_time", wait()),
        keep_alive: f.duration("keep_alive", wait(), default.keep_alive),
        drain: f.duration("drain", Duration::ZERO..=DAY, default.drain),
        archive: f.duration("archive", Duration::ZERO..=DAY, default.archive),
        provider_idle_connections: f.number(
            "provider_idle_connections",
            0..=100_000,
            default.provider_idle_connections,
        ),
        http2_streams: u32::try_from(f.number("http2_streams", 1..=100_000, default.http2_streams.into()))
            .unwrap_or(default.http2_streams),
    };
    f.fields.finish();
    limits
}

fn provider(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Provider> {
    let mut f = Reader::new(node, path, base, problems);
    let name = f.name("name");
    let kinds: Vec<_> = KNOWN.iter().map(|known| (known.name, known)).collect();
    let has_kind = f.fields.node("kind").is_some();
    let known = f.fields.choice("kind", &kinds);
    let dialects = Dialect::ALL.map(|dialect| (dialect.name(), dialect));
    if !has_kind {
        let names: Vec<_> = Dialect::ALL.iter().map(|dialect| format!("`{}`", dialect.name())).collect();
        f.fields.required_node("dialect", &format!("one of {}, or a `kind`", names.join(", ")));
    }
    let dialect = f.fields.choice("dialect", &dialects).or(known.map(|known| known.dialect));
    let form = "`http://` or `https://`, host, port and path, without user, `?` and `#`, as `https://api.openai.com`";
    let given = known.and_then(|known| known.base_url);
    let base_url = if has_kind && (given.is_some() || known.is_none()) {
        f.fields.optional("base_url", form, BaseUrl::parse).or(given.and_then(BaseUrl::parse))
    } else {
        f.fields.required("base_url", form, BaseUrl::parse)
    };
    let credential = f.part_of("credential", credential);
    let several = f.fields.node("keys").is_some();
    let keys = several.then(|| f.list("keys", "at least one key", super::balance::key));
    if several && (credential.is_some() || f.fields.node("aws").is_some()) {
        let place = f.fields.place_of("keys");
        let wanted = "one of `keys`, `credential` and `aws`";
        f.fields.report(Problem::at(place, format!("{path}.keys"), wanted));
    }
    let cool_down = f.part_of("cool_down", super::balance::cool_down).unwrap_or_default();
    let health = f.part_of("health", super::balance::health);
    let key_header =
        f.fields.choice("key_header", &KeyHeader::ALL).or(known.and_then(|known| known.key_header));
    let aws = f.part_of("aws", super::aws::read);
    if let (Some(_), Some(dialect)) = (&aws, dialect) {
        let place = f.fields.place_of("aws");
        if dialect != Dialect::Bedrock {
            let wanted = "no such block: only requests of the dialect `bedrock` are signed";
            f.fields.report(Problem::at(place, format!("{path}.aws"), wanted));
        } else if credential.is_some() {
            let wanted = "one of `aws` (an access key) and `credential` (an API key)";
            f.fields.report(Problem::at(place, format!("{path}.aws"), wanted));
        }
    }
    let google = f.part_of("google", super::upstream::google);
    let oauth = f.part_of("oauth", super::upstream::oauth);
    for (key, is_typed) in [("google", google.is_some()), ("oauth", oauth.is_some())] {
        let others = credential.is_some() || aws.is_some() || (google.is_some() && oauth.is_some());
        let elsewhere = key == "google" && dialect.is_some_and(|dialect| !is_google(dialect));
        if is_typed && (others || elsewhere) {
            let wanted = if elsewhere {
                "no such block: only the dialects `vertex` and `gemini` take Google's tokens"
            } else {
                "one of `credential`, `aws`, `google` and `oauth`"
            };
            let place = f.fields.place_of(key);
            f.fields.report(Problem::at(place, format!("{path}.{key}"), wanted));
        }
    }
    let ca = f.path("ca");
    let client_certificate = f.part_of("client_certificate", super::upstream::client_certificate);
    let upstream_proxy = f.part_of("upstream_proxy", super::upstream::proxy);
    let ask_usage = f.fields.truth("ask_usage").unwrap_or(true);
    let drain_after_abort = f.part_of("drain_after_abort", drain_after_abort).unwrap_or_default();
    let connect = f.optional_duration("connect", SECOND..=DAY);
    let keep_alive = f.optional_duration("keep_alive", Duration::ZERO..=DAY);
    let idle_connections = f.fields.optional("idle_connections", "a whole number from 0 to 100000", |text| {
        text.parse().ok().filter(|number| *number <= 100_000)
    });
    let api_version = f.identifier("api_version");
    let price_as = f.identifier("price_as");
    let max_output_as = f.fields.choice("max_output_as", &MaxOutputAs::ALL);
    f.fields.finish();
    Some(Provider {
        name: name?,
        kind: known.map(|known| known.name),
        dialect: dialect?,
        base_url: base_url?,
        credential: whole(credential)?,
        keys: whole(keys)?.unwrap_or_default(),
        cool_down,
        health: whole(health)?,
        key_header,
        aws: whole(aws)?,
        google: whole(google)?,
        oauth: whole(oauth)?,
        ca,
        client_certificate: whole(client_certificate)?,
        upstream_proxy: whole(upstream_proxy)?,
        ask_usage,
        drain_after_abort,
        connect,
        keep_alive,
        idle_connections,
        api_version,
        price_as,
        max_output_as,
    })
}

fn is_google(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Vertex | Dialect::Gemini)
}

fn drain_after_abort(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> DrainAfterAbort {
    match (&node.shape, node.text()) {
        (_, Some("off")) => return DrainAfterAbort::Off,
        (Shape::Map(_), _) => {}
        (_, text) => {
            let problem = Problem::at(node.place, path, "`off`, or bounds as `{time: 30s, bytes: 1MiB}`");
            problems.push(match text {
                Some(text) => problem.value(text),
                None => problem,
            });
        }
    }
    let default = Drain::default();
    let mut f = Reader::new(node, path, base, problems);
    let drain = Drain {
        time: f.duration("time", Duration::from_millis(100)..=60 * 60 * SECOND, default.time),
        bytes: f.size("bytes", 1 << 10..=1 << 30, default.bytes),
    };
    if matches!(node.shape, Shape::Map(_)) {
        f.fields.finish();
    }
    DrainAfterAbort::Within(drain)
}

/// No value found here is ever shown: it may be the key itself, typed into the wrong place.
pub(super) fn credential(
    node: &Node,
    path: &str,
    base: &Path,
    problems: &mut Vec<Problem>,
) -> Option<Credential> {
    const FORM: &str = "`{env: NAME}`, `{file: PATH}` or `{vault: {path: PATH, key: KEY}}`: where the key is, never the key itself";
    let Shape::Map(entries) = &node.shape else {
        problems.push(Problem::at(node.place, path, FORM));
        return None;
    };
    let [entry] = entries.as_slice() else {
        problems.push(Problem::at(node.place, path, FORM));
        return None;
    };
    match (entry.key.as_str(), entry.value.text()) {
        ("env", Some(name)) if is_variable(name) => Some(Credential::Env(name.to_owned())),
        ("env", _) => {
            let wanted = "the name of an environment variable `[A-Za-z_][A-Za-z0-9_]*`";
            problems.push(Problem::at(entry.value.place, format!("{path}.env"), wanted));
            None
        }
        ("file", Some(file)) => Some(Credential::File(base.join(file))),
        ("vault", None) if matches!(entry.value.shape, Shape::Map(_)) => {
            super::vault::secret(&entry.value, &format!("{path}.vault"), base, problems)
                .map(Credential::Vault)
        }
        _ => {
            problems.push(Problem::at(entry.place, path, FORM).suggest(&entry.key, ["env", "file", "vault"]));
            None
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && (1..=256).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn route(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Route> {
    let mut f = Reader::new(node, path, base, problems);
    let name = f.name("name");
    let form =
        "a path as `/openai`, or `/` for everything: no `?`, `#`, `%`, `//`, `.` parts or `/` at its end";
    let prefix = f.fields.required("path", form, |text| is_prefix(text).then(|| text.to_owned()));
    let matching = f.part_of("match", super::matching::read);
    let (provider, targets) = asked(&mut f);
    let dialects = Dialect::ALL.map(|dialect| (dialect.name(), dialect));
    let dialect = f.fields.choice("dialect", &dialects);
    let models = f.part_of("models", super::target::aliases).unwrap_or_default();
    let several = targets.as_ref().map_or(0, Vec::len);
    let retry = f.part_of("retry", |node, path, base, problems| {
        super::retry::read(node, path, base, problems, several)
    });
    let server_timing = f.fields.truth("server_timing").unwrap_or(false);
    let choices = [("refuse", Untranslatable::Refuse), ("drop", Untranslatable::Drop)];
    let untranslatable = f.fields.choice("untranslatable", &choices).unwrap_or_default();
    let balance = f.part_of("balance", super::balance::read);
    let retention = f.fields.optional("retention", PART_FORM, |text| is_part(text).then(|| text.to_owned()));
    let scopes = [
        ("exchange", KeyScope::Exchange),
        ("consumer_day", KeyScope::ConsumerDay),
        ("subject_day", KeyScope::SubjectDay),
    ];
    let keys = f.fields.choice("keys", &scopes);
    let keep_content = f.fields.truth("keep_content").unwrap_or(true);
    let ask_usage = f.fields.truth("ask_usage");
    let drain_after_abort = f.part_of("drain_after_abort", drain_after_abort);
    let estimates = [("on", Estimate::On), ("off", Estimate::Off)];
    let estimate = f.fields.choice("estimate", &estimates).unwrap_or_default();
    let fail_mode = f.fields.choice("fail_mode", &[("closed", FailMode::Closed), ("open", FailMode::Open)]);
    let receipts = f.fields.truth("receipts").unwrap_or(false);
    let attributes = f.part_of("attributes", attributes).unwrap_or_default();
    let asserted_headers = f.part_of("asserted_headers", asserted_headers).unwrap_or_default();
    let require = required_facts(&mut f);
    let ways = [("replace", Credentials::Replace), ("forward", Credentials::Forward)];
    let credentials = f.fields.choice("credentials", &ways).unwrap_or_default();
    f.fields.finish();
    Some(Route {
        name: name?,
        path: prefix?,
        matching,
        provider,
        targets: targets?,
        balance,
        dialect,
        models,
        retry,
        server_timing,
        untranslatable,
        retention: retention.unwrap_or_else(|| "standard".into()),
        keys: keys.unwrap_or_default(),
        keep_content,
        ask_usage,
        drain_after_abort,
        estimate,
        fail_mode: fail_mode.unwrap_or_default(),
        receipts,
        attributes,
        asserted_headers,
        require,
        credentials,
    })
}

/// Whom a route asks: `provider` or `targets`. `None` of the targets: they cannot be read.
fn asked(f: &mut Reader<'_, '_>) -> (Option<Identifier>, Option<Vec<Target>>) {
    if f.fields.node("targets").is_none() {
        let provider = f.name("provider");
        let is_read = provider.is_some();
        return (provider, is_read.then(Vec::new));
    }
    if f.fields.node("provider").is_some() {
        let (place, path) = (f.fields.place_of("provider"), f.fields.path("provider"));
        f.fields.report(Problem::at(place, path, "one of `provider` and `targets`"));
    }
    let targets = f.list("targets", "at least one target", super::target::read);
    if let Some(count) = targets.as_ref().map(Vec::len).filter(|count| *count > MAX_TARGETS) {
        let (place, path) = (f.fields.place_of("targets"), f.fields.path("targets"));
        let wanted = format!("at most {MAX_TARGETS} targets");
        f.fields.report(Problem::at(place, path, wanted).value(count.to_string()));
    }
    (None, targets)
}

fn is_prefix(text: &str) -> bool {
    let clean = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b))
    };
    text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(clean))
}

fn attributes(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Attributes {
    let mut f = Reader::new(node, path, base, problems);
    let attributes = attributes_of(&mut f);
    f.fields.finish();
    attributes
}

/// The facts about callers among the keys of a part.
pub(super) fn attributes_of(f: &mut Reader<'_, '_>) -> Attributes {
    Attributes {
        team: f.identifier("team"),
        organisation: f.identifier("organisation"),
        cost_centre: f.identifier("cost_centre"),
        system: f.identifier("system"),
        purpose: f.identifier("purpose"),
        data_class: f.identifier("data_class"),
    }
}

/// The facts that a route requires.
fn required_facts(f: &mut Reader<'_, '_>) -> Vec<Fact> {
    let path = f.fields.path("require");
    let names: Vec<String> = Fact::ALL.iter().map(|(name, _)| format!("`{name}`")).collect();
    let wanted = format!("one or more of {}", names.join(", "));
    let mut facts = Vec::new();
    for (text, place) in f.fields.texts("require").unwrap_or_default() {
        match Fact::ALL.iter().find(|(name, _)| *name == text) {
            Some((_, fact)) => facts.push(*fact),
            None => {
                let known = Fact::ALL.iter().map(|(name, _)| *name);
                f.fields.report(Problem::at(place, &path, &wanted).value(&text).suggest(&text, known));
            }
        }
    }
    facts
}

fn asserted_headers(
    node: &Node,
    path: &str,
    base: &Path,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    let mut f = Reader::new(node, path, base, problems);
    let mut headers = BTreeMap::new();
    for fact in ["subject", "team", "organisation", "cost_centre", "system", "purpose", "data_class"] {
        let form = "a header's name in lower case that carries no credential";
        let name = f
            .fields
            .optional(fact, form, |text| (is_header(text) && !is_credential(text)).then(|| text.to_owned()));
        if let Some(name) = name {
            headers.insert(fact.to_owned(), name);
        }
    }
    f.fields.finish();
    headers
}

pub(super) fn is_header(text: &str) -> bool {
    http::HeaderName::from_lowercase(text.as_bytes()).is_ok()
}

fn headers(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Headers {
    let default = Headers::default();
    let mut f = Reader::new(node, path, base, problems);
    let mut names = |key: &'static str, default: Vec<String>| {
        let Some(node) = f.fields.node(key) else { return default };
        let path = f.fields.path(key);
        let list = texts(node, &path, f.fields.problems());
        for (text, place) in &list {
            // To keep a credential from the provider may be said; to record one may not.
            let records = key.starts_with("record_");
            if !is_header(text.strip_suffix('*').unwrap_or(text)) || (records && is_credential(text)) {
                let wanted = if records {
                    "a header's name in lower case that carries no credential; a `*` at its end stands for any rest"
                } else {
                    "a header's name in lower case; a `*` at its end stands for any rest"
                };
                f.fields.report(Problem::at(*place, &path, wanted).value(text));
            }
        }
        list.into_iter().map(|(text, _)| text).collect()
    };
    let headers = Headers {
        deny: names("deny", default.deny),
        record_request: names("record_request", default.record_request),
        record_response: names("record_response", default.record_response),
    };
    f.fields.finish();
    headers
}

fn log(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Log {
    let mut f = Reader::new(node, path, base, problems);
    let format = f.fields.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let filter = f.fields.optional("filter", "a filter as `info` or `gateway=debug,info`", |text| {
        tracing_subscriber::EnvFilter::try_new(text).ok().map(|_| text.to_owned())
    });
    f.fields.finish();
    Log { format: format.unwrap_or_default(), filter: filter.unwrap_or_else(|| "info".into()) }
}

impl BaseUrl {
    /// Takes an address apart; `None` where it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: http::Uri = text.parse().ok().filter(|_| !text.contains(['#', '?', '@', ' ']))?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?.clone();
        // The scheme's own port is left out: what is signed, and what each version of HTTP sends, is then the same.
        let own = if tls { 443 } else { 80 };
        let authority = match authority.port_u16() {
            Some(port) if port == own => authority.host().parse().ok()?,
            _ => authority,
        };
        let path = uri.path().trim_end_matches('/').to_owned();
        let whole = authority.host().is_empty() || authority.as_str().ends_with(':') || path.contains("//");
        (!whole).then_some(Self { tls, authority, path })
    }

    /// True where the host is this machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "https" } else { "http" }, self.authority, self.path)
    }
}

impl std::fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl serde::Serialize for BaseUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
