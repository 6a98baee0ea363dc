//! What all stations share, and the snapshot of the configuration that one exchange sees.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use evidence::{Ledger, Reference};
use schemas::Identifier;
use schemas::names::NameError;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::tls::{self, TlsError};
use crate::balance::Upstream;
use crate::balance::probe::Keyed;
use crate::config::{Limits, Loaded, LoadedFile, Secret};
use crate::dispatch::headers::Filter;
use crate::dispatch::pool::{PoolError, Provider};
use crate::estimate::Estimates;
use crate::identity::Identities;
use crate::otlp::{Otlp, OtlpError};
use crate::quotas::{Passwords, Quotas};
use crate::route::Routes;
use crate::telemetry::{Names, Telemetry};

/// The running gateway.
pub(crate) struct App {
    pub(crate) ledger: Ledger,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) telemetry: Arc<Telemetry>,
    /// Exchanges that end without anyone waiting for them: their last records.
    pub(crate) tasks: TaskTracker,
    /// Callers' connections.
    pub(crate) connections: TaskTracker,
    /// What the admin socket was asked: erasures that run.
    pub(crate) asked: TaskTracker,
    /// Usage that no provider told.
    pub(crate) estimates: Estimates,
    runtime: tokio::runtime::Handle,
    draining: AtomicBool,
    cutting: AtomicBool,
    /// Cancelled: what is only read for its usage ends.
    pub(crate) over: CancellationToken,
}

impl App {
    /// Joins the ledger and the first snapshot. Must be called inside the runtime.
    pub(crate) fn new(ledger: Ledger, snapshot: Snapshot, telemetry: Arc<Telemetry>) -> Self {
        snapshot.is_counted_in(&telemetry);
        snapshot.collects(&ledger, None);
        Self {
            ledger,
            snapshot: ArcSwap::from_pointee(snapshot),
            telemetry,
            tasks: TaskTracker::new(),
            connections: TaskTracker::new(),
            asked: TaskTracker::new(),
            estimates: Estimates::default(),
            runtime: tokio::runtime::Handle::current(),
            draining: AtomicBool::new(false),
            cutting: AtomicBool::new(false),
            over: CancellationToken::new(),
        }
    }

    /// Runs `work` to its end, whatever becomes of the caller. Also works from a `Drop`.
    pub(crate) fn outlive<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn_on(work, &self.runtime);
    }

    /// No new exchange is taken from now on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.snapshot.load().probes.cancel();
    }

    /// Whether no new exchange is taken.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// What is dropped from now on was cut by the gateway.
    pub(crate) fn cut(&self) {
        self.cutting.store(true, Ordering::Release);
    }

    /// Whether the gateway itself cuts what still runs.
    pub(crate) fn is_cutting(&self) -> bool {
        self.cutting.load(Ordering::Acquire)
    }
}

/// One whole checked configuration, made ready for the hot path. Never changed: a reload swaps it.
pub(crate) struct Snapshot {
    /// What was loaded: configuration, keys, policy, prices.
    pub(crate) loaded: Loaded,
    pub(crate) limits: Limits,
    pub(crate) routes: Routes,
    pub(crate) filter: Filter,
    pub(crate) tls: Vec<Option<Arc<rustls::ServerConfig>>>,
    pub(crate) pseudonyms: Pseudonyms,
    /// Who calls without a gateway key.
    pub(crate) identities: Identities,
    /// Places for exchanges under way.
    pub(crate) places: Arc<Semaphore>,
    /// Memory for bodies, in units of [`MEMORY_UNIT`].
    pub(crate) memory: Arc<Semaphore>,
    pub(crate) documents: Documents,
    /// Where spans and metrics go.
    pub(crate) otlp: Option<Arc<Otlp>>,
    /// How much who may use.
    pub(crate) quotas: Quotas,
    /// Each provider under each of its keys, by its name, with what its targets share.
    pub(crate) providers: BTreeMap<Identifier, Keyed>,
    /// Cancelled: its providers are probed no more.
    pub(crate) probes: CancellationToken,
    /// Held for the metrics of what ends under it.
    _names: Arc<Names>,
}

/// Bytes of one permit of [`Snapshot::memory`].
pub(crate) const MEMORY_UNIT: u64 = 1024;

/// The documents that records name by hash.
#[derive(Debug, Clone)]
pub(crate) struct Documents {
    pub(crate) config: Reference,
    pub(crate) policy: Option<Reference>,
    pub(crate) prices: Option<Reference>,
}

/// Why a checked configuration cannot be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// A listener's TLS.
    #[error("listen[{index}].tls: {source}")]
    Tls {
        /// Which listener.
        index: usize,
        /// What of it.
        source: TlsError,
    },
    /// A provider's pool.
    #[error("provider `{name}`: {source}")]
    Pool {
        /// Which provider.
        name: Identifier,
        /// What of it.
        source: PoolError,
    },
    /// The way to an issuer of tokens.
    #[error("issuer `{name}`: {source}")]
    Issuer {
        /// Which issuer.
        name: Identifier,
        /// What of it.
        source: PoolError,
    },
    /// The way to a collector.
    #[error("`telemetry.otlp`: {0}")]
    Otlp(#[from] OtlpError),
    /// TLS to the store of quotas.
    #[error("`quotas.store.redis.tls`: {0}")]
    Quotas(PoolError),
    /// A media type of ours is no identifier.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A route names a provider that is not there; `config` refuses this before.
    #[error("route `{route}` names the provider `{provider}`, which is not configured")]
    NoProvider {
        /// Which route.
        route: Identifier,
        /// The provider.
        provider: Identifier,
    },
}

impl Snapshot {
    /// Makes `loaded` ready. Pools, places and memory of `before` go on where nothing of theirs changed.
    ///
    /// # Errors
    /// What of it cannot be used; nothing is changed then.
    pub(crate) fn new(
        loaded: Loaded,
        before: Option<&Self>,
        telemetry: &Telemetry,
    ) -> Result<Self, SnapshotError> {
        let documents = Documents::of(&loaded)?;
        let config = &loaded.config;
        let names = Arc::new(Names::of(&loaded));
        telemetry.shows(&names);
        let mut tls = Vec::with_capacity(loaded.tls.len());
        for (index, files) in loaded.tls.iter().enumerate() {
            let server = files.as_ref().map(tls::server).transpose();
            tls.push(server.map_err(|source| SnapshotError::Tls { index, source })?);
        }
        let mut keyed = BTreeMap::new();
        for typed in &config.providers {
            let name = typed.name.clone();
            let roots = loaded.provider_cas.get(name.as_str()).map(Vec::as_slice);
            let secrets = loaded.secrets_of(name.as_str());
            let aws = loaded.aws_keys.get(name.as_str());
            let old = before.and_then(|before| before.routes.provider(&name));
            let failed = |source| SnapshotError::Pool { name: name.clone(), source };
            let upstream = loaded.upstreams.get(name.as_str());
            let fetched = &telemetry.tokens_fetched;
            let make = |credential, old: Option<&Provider>| {
                Provider::new(typed, credential, aws, roots, upstream, &config.limits, fetched, old)
                    .map(Arc::new)
            };
            let first = make(secrets.first().copied(), old).map_err(failed)?;
            let mut all = vec![Arc::clone(&first)];
            for secret in secrets.iter().skip(1) {
                all.push(make(Some(*secret), Some(&first)).map_err(failed)?);
            }
            let known = before.and_then(|before| before.providers.get(&name));
            let known = known.map(|known| &*known.upstream);
            let upstream = Arc::new(Upstream::new(&typed.into(), &secrets, &telemetry.balance, known));
            keyed.insert(name, Keyed { providers: all, upstream });
        }
        let known = before.map(|before| &before.routes);
        let routes = Routes::new(&config.routes, &keyed, &telemetry.balance, known)
            .map_err(|(route, provider)| SnapshotError::NoProvider { route, provider })?;
        let limits = config.limits.clone();
        let (places, memory) = match before {
            Some(old)
                if old.limits.concurrent == limits.concurrent
                    && old.limits.body_memory == limits.body_memory =>
            {
                (Arc::clone(&old.places), Arc::clone(&old.memory))
            }
            _ => (permits(limits.concurrent), permits(limits.body_memory / MEMORY_UNIT)),
        };
        let filter = Filter::new(&config.headers);
        let pseudonyms = Pseudonyms::new(&loaded.pseudonym_key);
        let identities = Identities::new(&loaded, before.map(|before| &before.identities), telemetry)
            .map_err(|(name, source)| SnapshotError::Issuer { name, source })?;
        let collector = before.and_then(|before| before.otlp.as_ref());
        let otlp = Otlp::new(&loaded, collector, &telemetry.otlp)?;
        let quotas = quotas(&loaded, before, telemetry)?;
        Ok(Self {
            loaded,
            limits,
            routes,
            filter,
            tls,
            pseudonyms,
            identities,
            places,
            memory,
            documents,
            otlp,
            quotas,
            providers: keyed,
            probes: CancellationToken::new(),
            _names: names,
        })
    }

    /// Begins its way to a collector, in the place of that of `before`, to the issuers of tokens, and what quotas do
    /// beside exchanges.
    pub(crate) fn collects(&self, ledger: &Ledger, before: Option<&Self>) {
        self.identities.begin();
        self.quotas.begin();
        let before = before.and_then(|before| before.otlp.as_deref());
        if let Some(otlp) = &self.otlp {
            otlp.begins(ledger.origin().epoch(), before);
        }
    }

    /// The providers that some route leads to and that are probed.
    pub(crate) fn probed(&self) -> Vec<Keyed> {
        let is_used = |name: &Identifier| self.routes.provider(name).is_some();
        let probed = self
            .providers
            .iter()
            .filter(|(name, keyed)| keyed.upstream.probed.active().is_some() && is_used(name));
        probed.map(|(_, keyed)| keyed.clone()).collect()
    }

    /// Its probes end, and what `next` does not have is shown no more.
    pub(crate) fn gives_way(&self, next: &Self) {
        self.probes.cancel();
        self.quotas.gives_way(&next.quotas);
        for route in self.routes.iter() {
            let after = next.routes.iter().find(|after| after.name == route.name);
            route.balancer.gives_way(after.map(|after| &*after.balancer));
        }
    }

    /// Begins the counts of its providers and of its policy.
    pub(crate) fn is_counted_in(&self, telemetry: &Telemetry) {
        let providers = self.loaded.config.providers.iter().map(|provider| provider.name.as_str());
        telemetry.expect(providers, self.loaded.policy.as_ref());
        for route in self.routes.iter() {
            let targets = route.targets.iter().map(|target| target.name.as_str());
            telemetry.expect_targets(route.name.as_str(), targets);
        }
    }

    /// The pseudonyms, where they are those of a configured key, which other gateways can have too.
    pub(crate) fn shared_pseudonyms(&self) -> Option<&Pseudonyms> {
        self.loaded.config.evidence.pseudonym_key.is_some().then_some(&self.pseudonyms)
    }
}

/// The rules of `loaded`; counters of `before` go on, and its connection where nothing of it changed.
fn quotas(
    loaded: &Loaded,
    before: Option<&Snapshot>,
    telemetry: &Telemetry,
) -> Result<Quotas, SnapshotError> {
    let files = loaded.quota_store.as_ref();
    let tls = files.map(crate::tap::tls::client).transpose().map_err(SnapshotError::Quotas)?;
    let passwords = |loaded: &Loaded| {
        let text = |secret: &Secret| secret.expose().to_owned();
        let files = loaded.quota_store.as_ref();
        Passwords {
            server: files.and_then(|files| files.secret.as_ref()).map(text),
            sentinel: loaded.quota_sentinel.as_ref().map(text),
        }
    };
    let before = before.map(|before| {
        let old = &before.loaded;
        let same = old.config.quotas.store == loaded.config.quotas.store
            && passwords(old) == passwords(loaded)
            && old.quota_store.as_ref().map(|files| (&files.roots, &files.client))
                == loaded.quota_store.as_ref().map(|files| (&files.roots, &files.client));
        (&before.quotas, same)
    });
    Ok(Quotas::new(&loaded.config.quotas, passwords(loaded), tls, before, &telemetry.quotas))
}

fn permits(count: u64) -> Arc<Semaphore> {
    let count = usize::try_from(count).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
    Arc::new(Semaphore::new(count))
}

impl Documents {
    /// The documents of `loaded`, as the log gets them.
    pub(crate) fn of(loaded: &Loaded) -> Result<Self, NameError> {
        let reference = |media_type: &str, bytes: &[u8]| {
            Identifier::new(media_type)
                .map(|media_type| Reference { media_type, bytes: bytes::Bytes::copy_from_slice(bytes) })
        };
        let yaml = |file: &LoadedFile| reference("application/yaml", &file.bytes);
        let csv = |file: &LoadedFile| reference("text/csv", &file.bytes);
        Ok(Self {
            config: reference("application/json", &loaded.canonical)?,
            policy: loaded.policy_file().map(yaml).transpose()?,
            prices: loaded.prices_file().map(csv).transpose()?,
        })
    }
}

/// Makes keyed pseudonyms: the same text has the same pseudonym, and nobody without the key can try texts.
pub struct Pseudonyms {
    key: ring::hmac::Key,
}

impl Pseudonyms {
    /// Under `key`.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key) }
    }

    /// `p:` and 32 hex digits: the first 16 bytes of HMAC-SHA-256(key, raw).
    pub fn of(&self, raw: &str) -> String {
        let tag = ring::hmac::sign(&self.key, raw.as_bytes());
        format!("p:{}", hex::encode(tag.as_ref().get(..16).unwrap_or_default()))
    }

    /// Whether `text` is written as a pseudonym is.
    pub fn is_one(text: &str) -> bool {
        text.strip_prefix("p:").is_some_and(|tag| {
            tag.len() == 32 && tag.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    }

    /// `raw` where a leaf may hold it, else its pseudonym (CA-8). A text that looks like a pseudonym is none of ours: it gets
    /// its own.
    pub(crate) fn identifier(&self, raw: &str) -> Identifier {
        if raw.starts_with("p:")
            && let Some(pseudonym) = self.always(raw)
        {
            return pseudonym;
        }
        dialects::identifier(raw, &|text| self.of(text))
    }

    /// The pseudonym of `raw`, always: for end users.
    pub fn always(&self, raw: &str) -> Option<Identifier> {
        Identifier::new(self.of(raw)).ok()
    }
}
