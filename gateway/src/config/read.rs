//! From the YAML tree to [`Config`]: forms, units, ranges, unknown keys. Knows no file but the one at hand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use policies::document::{Fields, Node, Problem, Shape, texts};
use schemas::Identifier;

use super::units::{DURATION_FORM, SIZE_FORM, parse_duration, parse_size, show_duration, show_size};
use super::{
    Attributes, BaseUrl, Config, Credential, DEFAULT_ADMIN, Dialect, Drain, DrainAfterAbort, Encryption,
    Evidence, FailMode, Headers, KNOWN, KeyHeader, KeyScope, Limits, Listen, Log, LogFormat, Out, Provider,
    Route, Tls,
};

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
    let providers = f.list("providers", "at least one provider", provider);
    let routes = f.list("routes", "at least one route", route);
    let keys = f.required_path("keys");
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
        providers: providers?,
        routes: routes?,
        keys: keys?,
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

    fn name(&mut self, key: &'static str) -> Option<Identifier> {
        self.fields.required(key, IDENTIFIER_FORM, |text| Identifier::new(text).ok())
    }

    fn identifier(&mut self, key: &'static str) -> Option<Identifier> {
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
    let ca = f.path("ca");
    let ask_usage = f.fields.truth("ask_usage").unwrap_or(true);
    let drain_after_abort = f.part_of("drain_after_abort", drain_after_abort).unwrap_or_default();
    let api_version = f.identifier("api_version");
    let price_as = f.identifier("price_as");
    f.fields.finish();
    Some(Provider {
        name: name?,
        kind: known.map(|known| known.name),
        dialect: dialect?,
        base_url: base_url?,
        credential: whole(credential)?,
        key_header,
        aws: whole(aws)?,
        ca,
        ask_usage,
        drain_after_abort,
        api_version,
        price_as,
    })
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
    const FORM: &str = "`{env: NAME}` or `{file: PATH}`: where the key is, never the key itself";
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
        _ => {
            problems.push(Problem::at(entry.place, path, FORM).suggest(&entry.key, ["env", "file"]));
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
    let provider = f.name("provider");
    let retention = f.fields.optional("retention", PART_FORM, |text| is_part(text).then(|| text.to_owned()));
    let scopes = [
        ("exchange", KeyScope::Exchange),
        ("consumer_day", KeyScope::ConsumerDay),
        ("subject_day", KeyScope::SubjectDay),
    ];
    let keys = f.fields.choice("keys", &scopes);
    let keep_content = f.fields.truth("keep_content").unwrap_or(true);
    let ask_usage = f.fields.truth("ask_usage");
    let fail_mode = f.fields.choice("fail_mode", &[("closed", FailMode::Closed), ("open", FailMode::Open)]);
    let receipts = f.fields.truth("receipts").unwrap_or(false);
    let attributes = f.part_of("attributes", attributes).unwrap_or_default();
    let asserted_headers = f.part_of("asserted_headers", asserted_headers).unwrap_or_default();
    f.fields.finish();
    Some(Route {
        name: name?,
        path: prefix?,
        provider: provider?,
        retention: retention.unwrap_or_else(|| "standard".into()),
        keys: keys.unwrap_or_default(),
        keep_content,
        ask_usage,
        fail_mode: fail_mode.unwrap_or_default(),
        receipts,
        attributes,
        asserted_headers,
    })
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
    let attributes = Attributes {
        team: f.identifier("team"),
        organisation: f.identifier("organisation"),
        cost_centre: f.identifier("cost_centre"),
        system: f.identifier("system"),
        purpose: f.identifier("purpose"),
        data_class: f.identifier("data_class"),
    };
    f.fields.finish();
    attributes
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
        let name = f.fields.optional(fact, form, |text| {
            let secret = matches!(
                text,
                "authorization"
                    | "x-api-key"
                    | "api-key"
                    | "x-goog-api-key"
                    | "cookie"
                    | "proxy-authorization"
            );
            (is_header(text) && !secret).then(|| text.to_owned())
        });
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
            if !is_header(text.strip_suffix('*').unwrap_or(text)) {
                let wanted = "a header's name in lower case; a `*` at its end stands for any rest";
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
