//! What must hold between keys: names that refer to each other, folders that must not lie in each other.

use std::path::{Component, Path, PathBuf};

use policies::document::{Node, Place, Problem, Shape};

use super::{Cluster, Commit, Config, Encryption, FailMode, LockMode, Out, Sse, WithoutLock};

/// The longest `deployment` and `gateway` together.
const MAX_NAMES: usize = 83;

/// Checks `config`, read from `root`. Gives problems, then warnings.
pub(super) fn check(config: &Config, root: &Node) -> (Vec<Problem>, Vec<Problem>) {
    let mut check = Check { root, problems: Vec::new(), warnings: Vec::new() };
    check.listen(config);
    check.names(config);
    check.routes(config);
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
        let sinks = config.evidence.tap.iter().map(|sink| sink.name.as_str());
        self.once(sinks, |n| format!("evidence.tap[{n}].name"));
        self.once(config.routes.iter().map(|r| r.name.as_str()), |n| format!("routes[{n}].name"));
        self.once(config.routes.iter().map(|r| r.path.as_str()), |n| format!("routes[{n}].path"));
    }

    fn routes(&mut self, config: &Config) {
        let known = || config.providers.iter().map(|provider| provider.name.as_str());
        for (index, route) in config.routes.iter().enumerate() {
            if known().all(|name| name != route.provider.as_str()) {
                let names: Vec<&str> = known().collect();
                let wanted = format!("a configured provider: {}", names.join(", "));
                let problem = self.problem(format!("routes[{index}].provider"), wanted);
                self.problems
                    .push(problem.value(route.provider.as_str()).suggest(route.provider.as_str(), known()));
            }
            if route.receipts && config.evidence.promise_key.is_none() {
                let wanted = "`evidence.promise_key` as well: the file of the key that signs promises, made by `gateway keygen --promise-key`";
                let problem = self.problem(format!("routes[{index}].receipts"), wanted);
                self.problems.push(problem.value("true"));
            }
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
            if (provider.credential.is_some() || is_signed)
                && !provider.base_url.tls
                && !provider.base_url.is_loopback()
            {
                let what = if is_signed { "prompts" } else { "the provider's key" };
                let wanted = format!("`https://`: {what} would cross the network in the clear");
                let problem = self.problem(format!("providers[{index}].base_url"), wanted);
                self.warnings.push(problem.value(provider.base_url.to_string()));
            }
            if config.routes.iter().all(|route| route.provider != provider.name) {
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
