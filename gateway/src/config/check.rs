//! What must hold between keys: names that refer to each other, folders that must not lie in each other.

use std::path::{Component, Path, PathBuf};

use policies::document::{Node, Place, Problem, Shape};

use schemas::Identifier;

use super::{
    Cluster, Commit, Config, Credentials, Dialect, Encryption, FailMode, Listen, LockMode, Out, Route, Sse,
    UpstreamProxy, WithoutLock, translates,
};

/// The longest `deployment` and `gateway` together.
const MAX_NAMES: usize = 83;

/// Checks `config`, read from `root`. Gives problems, then warnings.
pub(super) fn check(config: &Config, root: &Node) -> (Vec<Problem>, Vec<Problem>) {
    let mut check = Check { root, problems: Vec::new(), warnings: Vec::new() };
    check.listen(config);
    check.names(config);
    check.routes(config);
    check.identity(config);
    check.folders(config);
    check.sizes(config);
    check.commit(config);
    check.warn(config);
    (check.problems, check.warnings)
}

struct Check<'a> {
    root: &'a Node,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Check<'_> {
    fn problem(&self, key: String, wanted: impl Into<String>) -> Problem {
        Problem::at(place(self.root, &key), key, wanted)
    }

    /// Each text of the list once; `key` makes the path of item n.
    fn once<'t>(&mut self, texts: impl Iterator<Item = &'t str>, key: impl Fn(usize) -> String) {
        let mut seen: Vec<&str> = Vec::new();
        for (index, text) in texts.enumerate() {
            if let Some(first) = seen.iter().position(|other| *other == text) {
                let wanted = format!("another one than `{}` has", key(first));
                self.problems.push(self.problem(key(index), wanted).value(text));
            }
            seen.push(text);
        }
    }

    fn listen(&mut self, config: &Config) {
        let addresses: Vec<String> = config.listen.iter().map(|listen| listen.address.to_string()).collect();
        let taken = addresses.iter().enumerate().filter(|(_, address)| !address.ends_with(":0"));
        for (index, address) in taken {
            if addresses[..index].contains(address) {
                let problem = self.problem(format!("listen[{index}].address"), "an address of its own");
                self.problems.push(problem.value(address));
            }
            if config.admin.port() != 0 && *address == config.admin.to_string() {
                let problem =
                    self.problem(format!("listen[{index}].address"), "another address than `admin` has");
                self.problems.push(problem.value(address));
            }
        }
    }

    fn names(&mut self, config: &Config) {
        self.once(config.providers.iter().map(|p| p.name.as_str()), |n| format!("providers[{n}].name"));
        for (index, provider) in config.providers.iter().enumerate() {
            let names = provider.keys.iter().map(|key| key.name.as_str());
            self.once(names, |n| format!("providers[{index}].keys[{n}].name"));
        }
        let sinks = config.evidence.tap.iter().map(|sink| sink.name.as_str());
        self.once(sinks, |n| format!("evidence.tap[{n}].name"));
        self.once(config.routes.iter().map(|r| r.name.as_str()), |n| format!("routes[{n}].name"));
        for (index, route) in config.routes.iter().enumerate() {
            let taken = config.routes[..index]
                .iter()
                .position(|other| other.path == route.path && other.matching.is_none());
            if let Some(first) = taken {
                let wanted = format!(
                    "another one than `routes[{first}].path` has, or a `match` there: it takes every request"
                );
                self.problems.push(self.problem(format!("routes[{index}].path"), wanted).value(&route.path));
            }
            let names = route.targets.iter().map(|target| target.name.as_str());
            self.once(names, |n| format!("routes[{index}].targets[{n}].name"));
        }
    }

    fn routes(&mut self, config: &Config) {
        let known = || config.providers.iter().map(|provider| provider.name.as_str());
        for (index, route) in config.routes.iter().enumerate() {
            for (at, name) in route.providers().enumerate() {
                if known().any(|known| known == name.as_str()) {
                    continue;
                }
                let key = match route.provider {
                    Some(_) => format!("routes[{index}].provider"),
                    None => format!("routes[{index}].targets[{at}].provider"),
                };
                let names: Vec<&str> = known().collect();
                let problem = self.problem(key, format!("a configured provider: {}", names.join(", ")));
                self.problems.push(problem.value(name.as_str()).suggest(name.as_str(), known()));
            }
            self.dialects(config, index, route);
            if !route.targets.is_empty() && route.targets.iter().all(|target| target.weight == 0) {
                let wanted = "a `weight` over 0 for at least one target";
                self.problems.push(self.problem(format!("routes[{index}].targets"), wanted));
            }
            self.forwards(config, index, route);
            self.semantic(config, index, route);
            if route.receipts && config.evidence.promise_key.is_none() {
                let wanted = "`evidence.promise_key` as well: the file of the key that signs promises, made by `gateway keygen --promise-key`";
                let problem = self.problem(format!("routes[{index}].receipts"), wanted);
                self.problems.push(problem.value("true"));
            }
        }
    }

    /// Whoever is chosen by meaning says what it means, and somebody takes what means nothing.
    fn semantic(&mut self, config: &Config, index: usize, route: &Route) {
        let semantic = route.balance.as_ref().and_then(|balance| balance.semantic.as_ref());
        let fallback = semantic.map(|semantic| &semantic.fallback);
        for (at, target) in route.targets.iter().enumerate() {
            let key = |name: &str| format!("routes[{index}].targets[{at}].{name}");
            let typed =
                [("examples", !target.examples.is_empty()), ("threshold", target.threshold.is_some())];
            for (name, _) in typed.iter().filter(|(_, is_typed)| *is_typed && semantic.is_none()) {
                let problem = self.problem(key(name), "no such key without `balance: { by: semantic }`");
                self.problems.push(problem);
            }
            if semantic.is_some() && target.examples.is_empty() && fallback != Some(&target.name) {
                let wanted = "1 to 64 examples of what it is for: only `fallback` can do without";
                self.problems.push(self.problem(key("examples"), wanted));
            }
        }
        let Some(semantic) = semantic else { return };
        let key = |name: &str| format!("routes[{index}].balance.semantic.{name}");
        if !route.targets.iter().any(|target| target.name == semantic.fallback && target.weight > 0) {
            let names: Vec<&str> = route.targets.iter().map(|target| target.name.as_str()).collect();
            let wanted = format!("one of the route's targets with a `weight` over 0: {}", names.join(", "));
            let problem = self.problem(key("fallback"), wanted).value(semantic.fallback.as_str());
            self.problems.push(problem.suggest(semantic.fallback.as_str(), names.iter().copied()));
        }
        let provider = config.providers.iter().find(|provider| provider.name == semantic.provider);
        let embeds = |dialect: Dialect| matches!(dialect, Dialect::OpenAi | Dialect::AzureOpenAi);
        if !provider.is_some_and(|provider| embeds(provider.dialect)) {
            let all = config.providers.iter().filter(|provider| embeds(provider.dialect));
            let names: Vec<&str> = all.map(|provider| provider.name.as_str()).collect();
            let wanted =
                format!("a configured provider of dialect `openai` or `azure_openai`: {}", names.join(", "));
            let problem = self.problem(key("provider"), wanted).value(semantic.provider.as_str());
            self.problems.push(problem.suggest(semantic.provider.as_str(), names.iter().copied()));
        }
    }

    /// A caller's own credential belongs to one provider, and is sent as it is: nothing can be signed with it.
    fn forwards(&mut self, config: &Config, index: usize, route: &Route) {
        if route.credentials != Credentials::Forward {
            return;
        }
        let names: Vec<&Identifier> = route.providers().collect();
        let key = format!("routes[{index}].credentials");
        if names.iter().any(|name| Some(name) != names.first()) {
            let wanted =
                "`replace`: callers' own credentials are for one provider, and the route may ask several";
            let problem = self.problem(key, wanted);
            self.problems.push(problem.value("forward"));
            return;
        }
        let is_signed = |name: &&Identifier| {
            config.providers.iter().any(|provider| provider.name == **name && provider.aws.is_some())
        };
        if names.iter().any(is_signed) {
            let wanted = "`replace`: what goes to this provider is signed with its `aws`, and a caller's signature would not hold";
            let problem = self.problem(key, wanted);
            self.problems.push(problem.value("forward"));
        }
        // Until a route is found nobody knows which header is for whom.
        let differs = |other: &&Route| other.path == route.path && other.credentials != route.credentials;
        if let Some(other) = config.routes.iter().find(differs) {
            let wanted = format!("the same as route `{}`, which has the same path", other.name);
            let problem = self.problem(format!("routes[{index}].credentials"), wanted);
            self.problems.push(problem.value("forward"));
        }
    }

    /// A certificate is only known where callers can show one.
    fn identity(&mut self, config: &Config) {
        let asks = |listen: &Listen| listen.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if config.identity.certificates.is_some() && !config.listen.iter().any(asks) {
            let wanted = "`client_ca` at the `tls` of a listener as well: nobody shows a certificate else";
            self.problems.push(self.problem("identity.certificates".into(), wanted));
        }
        let listeners = config.identity.certificates.iter().flat_map(|certificates| &certificates.listeners);
        let listeners: Vec<_> = listeners.map(|listener| listener.address).collect();
        for (index, address) in listeners.iter().enumerate() {
            let is_there = config.listen.iter().any(|listen| listen.address == *address && asks(listen));
            if !is_there || listeners[..index].contains(address) {
                let key = format!("identity.certificates.listeners[{index}].address");
                let wanted = "the `address` of one of `listen`, with `tls.client_ca`, once";
                self.problems.push(self.problem(key, wanted).value(address.to_string()));
            }
        }
    }

    /// The callers of a route and all its targets must understand each other.
    fn dialects(&mut self, config: &Config, index: usize, route: &Route) {
        let spoken = |name: &Identifier| {
            config.providers.iter().find(|provider| provider.name == *name).map(|provider| provider.dialect)
        };
        let Some(from) = route.dialect.or_else(|| route.providers().next().and_then(spoken)) else { return };
        for (at, name) in route.providers().enumerate() {
            let Some(to) = spoken(name).filter(|to| !translates(from, *to)) else { continue };
            let key = match route.provider {
                Some(_) => format!("routes[{index}].provider"),
                None => format!("routes[{index}].targets[{at}].provider"),
            };
            let wanted = format!(
                "a provider that speaks `{}` as the route's callers do: no translation from `{}` to `{}`",
                from.name(),
                from.name(),
                to.name()
            );
            self.problems.push(self.problem(key, wanted).value(name.as_str()));
        }
    }

    fn folders(&mut self, config: &Config) {
        let evidence = &config.evidence;
        let out = evidence.out.directory();
        let mut folders = vec![
            ("evidence.journal", &evidence.journal),
            ("evidence.spool", &evidence.spool),
            ("evidence.key_table", &evidence.key_table),
        ];
        folders.extend(out.map(|out| ("evidence.out.directory", out)));
        for (index, (key, folder)) in folders.iter().enumerate() {
            for (other_key, other) in &folders[..index] {
                if overlap(folder, other) {
                    let wanted = format!("a folder apart from `{other_key}`: neither may lie in the other");
                    let problem = self.problem((*key).to_owned(), wanted);
                    self.problems.push(problem.value(folder.display().to_string()));
                }
            }
        }
        for (key, file) in [
            ("evidence.seal_key", Some(&evidence.seal_key)),
            ("evidence.promise_key", evidence.promise_key.as_ref()),
        ] {
            if let (Some(out), Some(file)) = (out, file)
                && plain(file).starts_with(plain(out))
            {
                let problem = self.problem(key.into(), "a file outside of the evidence store");
                self.problems.push(problem.value(file.display().to_string()));
            }
        }
    }

    fn sizes(&mut self, config: &Config) {
        if config.evidence.spool_bound / 2 < config.evidence.batch_size {
            let problem = self.problem("evidence.spool_bound".into(), "at least twice `evidence.batch_size`");
            self.problems.push(problem.value(super::units::show_size(config.evidence.spool_bound)));
        }
        // An origin has at most 110 bytes: 25 are the epoch, 2 are slashes.
        if config.deployment.len() + config.gateway.len() > MAX_NAMES {
            let wanted = format!("`deployment` and `gateway` of at most {MAX_NAMES} characters together");
            let problem = self.problem("gateway".into(), wanted);
            self.problems.push(problem.value(&config.gateway));
        }
        if config.gateway == schemas::names::REGISTRY {
            let wanted = "another name: `registry` is the deployment's registry";
            self.problems.push(self.problem("gateway".into(), wanted).value(&config.gateway));
        }
    }

    fn commit(&mut self, config: &Config) {
        let Commit::Kafka(kafka) = &config.evidence.commit else { return };
        let key = "evidence.commit.kafka";
        let out = match &config.evidence.out {
            Out::Kafka(out) => Some(out),
            _ => None,
        };
        if kafka.cluster.is_none() && out.is_none() {
            let wanted = "brokers as `[kafka1.example:9093]`: the way out is not `kafka`, whose brokers could be taken";
            self.problems.push(self.problem(format!("{key}.brokers"), wanted));
        }
        if out.is_some_and(|out| [&out.topic, &out.receipts].contains(&&kafka.topic)) {
            let wanted = "another topic than those of `evidence.out.kafka`";
            self.problems.push(self.problem(format!("{key}.topic"), wanted).value(&kafka.topic));
        }
        if kafka.create.is_some_and(|create| create.partitions == 1) {
            let wanted = "two or more: the first is the index, and a start reads all of it";
            self.warnings.push(self.problem(format!("{key}.create.partitions"), wanted).value("1"));
        }
        if kafka.cluster.as_ref().is_some_and(Cluster::is_in_the_clear) {
            let wanted = "TLS, `{}` for the system's roots: records would cross the network in the clear";
            self.warnings.push(Problem::at(place(self.root, key), format!("{key}.tls"), wanted));
        }
    }

    fn warn(&mut self, config: &Config) {
        if config.evidence.encryption == Encryption::Off {
            let wanted = "`on`: with `off`, locked plaintext cannot be erased before its retention ends";
            let problem = self.problem("evidence.encryption".into(), wanted);
            self.warnings.push(problem.value("off"));
        }
        self.warn_of_s3(config);
        self.warn_of_kafka(config);
        self.warn_of_tap(config);
        self.warn_of_otlp(config);
        self.warn_of_upstreams(config);
        for (index, route) in config.routes.iter().enumerate() {
            if route.fail_mode == FailMode::Open {
                let wanted =
                    "`closed`: with `open`, traffic passes unrecorded while evidence cannot be written";
                let problem = self.problem(format!("routes[{index}].fail_mode"), wanted);
                self.warnings.push(problem.value("open"));
            }
        }
        for (index, provider) in config.providers.iter().enumerate() {
            let is_signed = provider.aws.is_some();
            let has_tokens = provider.google.is_some() || provider.oauth.is_some();
            if (provider.credential.is_some() || !provider.keys.is_empty() || is_signed || has_tokens)
                && !provider.base_url.tls
                && !provider.base_url.is_loopback()
            {
                let what = if is_signed { "prompts" } else { "the provider's key" };
                let wanted = format!("`https://`: {what} would cross the network in the clear");
                let problem = self.problem(format!("providers[{index}].base_url"), wanted);
                self.warnings.push(problem.value(provider.base_url.to_string()));
            }
            let is_named = |route: &Route| {
                let semantic = route.balance.as_ref().and_then(|balance| balance.semantic.as_ref());
                let mut all = route.providers().chain(semantic.map(|semantic| &semantic.provider));
                all.any(|name| *name == provider.name)
            };
            if !config.routes.iter().any(is_named) {
                let problem =
                    self.problem(format!("providers[{index}].name"), "a provider that a route leads to");
                self.warnings.push(problem.value(provider.name.as_str()));
            }
        }
        for (index, listen) in config.listen.iter().enumerate() {
            if listen.tls.is_none() && !listen.address.ip().is_loopback() {
                let wanted = "`tls`: gateway keys and prompts would cross the network in the clear";
                let problem = self.problem(format!("listen[{index}].address"), wanted);
                self.warnings.push(problem.value(listen.address.to_string()));
            }
        }
    }
}

impl Check<'_> {
    fn warn_of_upstreams(&mut self, config: &Config) {
        let own = config.providers.iter().enumerate().map(|(index, provider)| {
            (format!("providers[{index}].upstream_proxy"), provider.upstream_proxy.as_ref())
        });
        let all = own.chain([("upstream_proxy".to_owned(), config.upstream_proxy.as_ref())]);
        for (key, proxy) in all {
            if let Some(UpstreamProxy::At(at)) = proxy
                && at.credential.is_some()
                && !at.url.tls
                && !at.url.is_loopback()
            {
                let wanted = "`https://`: the proxy's password would cross the network in the clear";
                let problem = self.problem(format!("{key}.url"), wanted);
                self.warnings.push(problem.value(at.url.to_string()));
            }
        }
        for (index, provider) in config.providers.iter().enumerate() {
            let url = provider.oauth.as_ref().map(|oauth| &oauth.token_url);
            if let Some(url) = url.filter(|url| !url.tls && !url.is_loopback()) {
                let wanted = "`https://`: secret and token would cross the network in the clear";
                let problem = self.problem(format!("providers[{index}].oauth.token_url"), wanted);
                self.warnings.push(problem.value(url.to_string()));
            }
        }
    }

    fn warn_of_s3(&mut self, config: &Config) {
        let Out::S3(s3) = &config.evidence.out else { return };
        let mut warn = |key: &str, value: String, wanted: &str| {
            let key = format!("evidence.out.s3.{key}");
            let problem = Problem::at(place(self.root, &key), key, wanted);
            self.warnings.push(problem.value(value));
        };
        if s3.without_lock == WithoutLock::Accept {
            let wanted = "`refuse`: with `accept`, whoever may write to the bucket can delete evidence";
            warn("without_lock", "accept".into(), wanted);
        }
        if s3.mode == LockMode::Governance {
            let wanted =
                "`compliance`: with `governance`, who has `s3:BypassGovernanceRetention` can delete evidence";
            warn("mode", "governance".into(), wanted);
        }
        if s3.sse == Sse::Kms {
            let wanted = "`s3`: with `kms`, who destroys the key makes locked evidence unreadable";
            warn("sse", "kms".into(), wanted);
        }
        if let Some(endpoint) = &s3.at.endpoint
            && !endpoint.tls
            && !endpoint.is_loopback()
        {
            let wanted = "`https://`: evidence would cross the network in the clear";
            warn("endpoint", endpoint.to_string(), wanted);
        }
        let classes = config.routes.iter().map(|route| route.retention.as_str());
        for class in s3.retention.classes.keys() {
            if classes.clone().all(|used| used != class) {
                warn("retention.classes", class.clone(), "retention classes that routes name");
            }
        }
    }
}

impl Check<'_> {
    fn warn_of_kafka(&mut self, config: &Config) {
        let Out::Kafka(kafka) = &config.evidence.out else { return };
        if kafka.cluster.is_in_the_clear() {
            let key = "evidence.out.kafka.tls";
            let wanted = "TLS, `{}` for the system's roots: evidence would cross the network in the clear";
            self.warnings.push(Problem::at(place(self.root, "evidence.out.kafka"), key, wanted));
        }
    }
}

impl Check<'_> {
    fn warn_of_tap(&mut self, config: &Config) {
        for (index, sink) in config.evidence.tap.iter().enumerate() {
            if sink.kafka.as_ref().is_some_and(|kafka| kafka.cluster.is_in_the_clear()) {
                let wanted = "TLS, `{}` for the system's roots: leaves would cross the network in the clear";
                self.warnings.push(self.problem(format!("evidence.tap[{index}].kafka.tls"), wanted));
            }
            if let Some(url) = sink.url().filter(|url| !url.tls && !url.is_loopback()) {
                let (way, _) = sink.way();
                let wanted = "`https://`: leaves and the token would cross the network in the clear";
                let problem = self.problem(format!("evidence.tap[{index}].{way}.url"), wanted);
                self.warnings.push(problem.value(url.to_string()));
            }
        }
    }

    fn warn_of_otlp(&mut self, config: &Config) {
        let endpoint = config.telemetry.otlp.as_ref().map(|otlp| &otlp.endpoint);
        if let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.tls && !endpoint.is_loopback()) {
            let wanted =
                "`https://`: who called which model, and the headers, would cross the network in the clear";
            let problem = self.problem("telemetry.otlp.endpoint".into(), wanted);
            self.warnings.push(problem.value(endpoint.to_string()));
        }
    }
}

/// Where the value of a path such as `routes[0].provider` stands; the nearest part that is there.
pub(super) fn place(root: &Node, path: &str) -> Place {
    let mut node = root;
    for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
        let next = match &node.shape {
            Shape::Map(entries) => entries.iter().find(|entry| entry.key == part).map(|entry| &entry.value),
            Shape::List(items) => part.trim_end_matches(']').parse::<usize>().ok().and_then(|n| items.get(n)),
            Shape::Scalar { .. } => None,
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node.place
}

/// The path without `.` and `..`, as typed: nothing is looked up.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !out.pop() {
                    out.push("..");
                }
            }
            other => out.push(other),
        }
    }
    out
}

fn overlap(a: &Path, b: &Path) -> bool {
    let (a, b) = (plain(a), plain(b));
    a.starts_with(&b) || b.starts_with(&a)
}
