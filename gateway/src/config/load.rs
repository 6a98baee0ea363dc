//! From a path to a [`Loaded`] configuration: the file, everything that it refers to, and all problems at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use policies::document::{self, Fields, Node, Problem};
use policies::policy::Policy;
use policies::price::PriceBook;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use schemas::Sha256Hex;
use zeroize::Zeroizing;

use super::check::{check, place};
use super::files::{Loader, read_file};
use super::secret::{Fingerprints, Secret, derive};
use super::{Config, Credential, Upstream, UpstreamProxy, canonical, read};
use crate::keys::Keys;
use crate::vault;

pub(super) const CREDENTIAL_LABEL: &str = "credential";

/// A configuration that was read and checked, with everything that it refers to.
pub struct Loaded {
    /// What was typed, defaults filled in, paths resolved.
    pub config: Config,
    /// The file.
    pub path: PathBuf,
    /// Each provider's key, by the provider's name.
    pub credentials: BTreeMap<String, Secret>,
    /// Each provider's `keys` in their order, by the provider's name, where it has some.
    pub provider_keys: BTreeMap<String, Vec<Secret>>,
    /// Each provider's access key, by the provider's name, where it has one.
    pub aws_keys: BTreeMap<String, AwsKey>,
    /// The password for the brokers of `evidence.out.kafka`, where one is configured.
    pub kafka_password: Option<Secret>,
    /// The password of `evidence.commit.kafka.sasl`, where it has one of its own.
    pub commit_password: Option<Secret>,
    /// What each sink of `evidence.tap` needs of secrets and TLS, in their order.
    pub tap: Vec<TapFiles>,
    /// What `telemetry.otlp` needs of secrets and TLS, where it is configured.
    pub otlp: Option<OtlpFiles>,
    /// The secret under which messages of the commit topic are written, with `commit: kafka`.
    pub commit_secret: Option<Zeroizing<[u8; 32]>>,
    /// The password of `quotas.store.redis`, and its TLS material, where it is configured.
    pub quota_store: Option<TapFiles>,
    /// The password of `quotas.store.redis.sentinel`, where it has one.
    pub quota_sentinel: Option<Secret>,
    /// The seed of the key that signs seals.
    pub seal_seed: Zeroizing<[u8; 32]>,
    /// Seed of the Ed25519 key that signs promises to callers.
    pub promise_seed: Option<Zeroizing<[u8; 32]>>,
    /// The key of pseudonyms (CA-8).
    pub pseudonym_key: Zeroizing<[u8; 32]>,
    /// The gateway keys.
    pub keys: Keys,
    /// The policy.
    pub policy: Option<Policy>,
    /// The price book.
    pub prices: Option<PriceBook>,
    /// TLS material, one entry for each of `config.listen`.
    pub tls: Vec<Option<TlsFiles>>,
    /// The roots to trust for a provider that names its own, by the provider's name.
    pub provider_cas: BTreeMap<String, Vec<CertificateDer<'static>>>,
    /// What each issuer of `identity.jwt` refers to, in their order.
    pub issuers: Vec<IssuerFiles>,
    /// What the Vault gave.
    pub(crate) vault: vault::Held,
    /// What each provider's way needs of proxies, certificates and tokens, by the provider's name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// The configuration of record: canonical JSON, secrets as fingerprints (CH-4).
    pub canonical: Vec<u8>,
    /// SHA-256 of `canonical`: in every record.
    pub hash: Sha256Hex,
    /// What is allowed, but should be known.
    pub warnings: Vec<Problem>,
    files: BTreeMap<String, LoadedFile>,
}

/// A file that rules and is no secret, as it was read.
#[derive(Clone)]
pub struct LoadedFile {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub sha256: Sha256Hex,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// An access key of AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsKey {
    /// Its id.
    pub access_key_id: Secret,
    /// Its secret.
    pub secret_access_key: Secret,
    /// The token of a temporary one.
    pub session_token: Option<Secret>,
}

impl AwsKey {
    /// Its parts, by their names in the configuration.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&'static str, &Secret)> {
        [("access_key_id", &self.access_key_id), ("secret_access_key", &self.secret_access_key)]
            .into_iter()
            .chain(self.session_token.as_ref().map(|token| ("session_token", token)))
    }
}

/// TLS material of one listening address.
pub struct TlsFiles {
    /// The gateway's chain, its own certificate first.
    pub certificate: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// Roots of callers' certificates, where callers must show one.
    pub client_ca: Option<Vec<CertificateDer<'static>>>,
}

/// Secrets and TLS material of one sink of the tap.
#[derive(Default)]
pub struct TapFiles {
    /// The password for the brokers or Loki, or the secret of signatures.
    pub secret: Option<Secret>,
    /// The token of `Authorization`.
    pub token: Option<Secret>,
    /// Whether roots are needed.
    pub uses_tls: bool,
    /// The roots to trust; `None`: the system's.
    pub roots: Option<Vec<CertificateDer<'static>>>,
    /// The gateway's certificate and its key.
    pub client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// What an issuer of tokens refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IssuerFiles {
    /// Its keys, where they are a file.
    pub jwks: Option<Vec<u8>>,
    /// The roots to trust for its addresses; `None`: the system's.
    pub roots: Option<Vec<CertificateDer<'static>>>,
}

/// Secrets and TLS material of the way to a collector.
pub struct OtlpFiles {
    /// The values of its headers, by name.
    pub headers: BTreeMap<String, Secret>,
    /// Its TLS.
    pub tls: TapFiles,
}

impl Loaded {
    /// A provider's keys in their order: its `keys`, or its one `credential`, or none.
    pub(crate) fn secrets_of(&self, provider: &str) -> Vec<&str> {
        let several = self.provider_keys.get(provider).map(Vec::as_slice).unwrap_or_default();
        several.iter().chain(self.credentials.get(provider)).map(Secret::expose).collect()
    }

    /// The policy's file.
    pub fn policy_file(&self) -> Option<&LoadedFile> {
        self.files.get("policy")
    }

    /// The price book's file.
    pub fn prices_file(&self) -> Option<&LoadedFile> {
        self.files.get("prices")
    }

    /// Files that rule and are no secret, by the key that names them.
    pub(super) fn ruling_files(&self) -> impl Iterator<Item = (&str, &LoadedFile)> {
        self.files.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// Every file whose change may change the configuration: what a watcher watches.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let mut inputs =
            vec![self.path.clone(), self.config.keys.clone(), self.config.evidence.seal_key.clone()];
        inputs.extend(self.config.evidence.pseudonym_key.clone());
        inputs.extend(self.config.evidence.promise_key.clone());
        inputs.extend(self.files.values().map(|file| file.path.clone()));
        inputs.extend(self.config.listen.iter().filter_map(|listen| Some(listen.tls.as_ref()?.key.clone())));
        let of_aws = |provider: &super::Provider| {
            provider.aws.iter().flat_map(|aws| aws.places().map(|(_, at)| at.clone())).collect::<Vec<_>>()
        };
        let of_tokens = |provider: &super::Provider| {
            let account = provider.google.as_ref().and_then(|google| google.service_account.clone());
            let oauth = provider.oauth.iter().flat_map(|oauth| oauth.secrets().map(|(_, at)| at.clone()));
            account.into_iter().chain(oauth).collect::<Vec<_>>()
        };
        let of_proxy = |proxy: &Option<UpstreamProxy>| match proxy {
            Some(UpstreamProxy::At(at)) => at.credential.clone(),
            _ => None,
        };
        let pairs = self.config.providers.iter().filter_map(|provider| provider.client_certificate.as_ref());
        inputs.extend(pairs.map(|pair| pair.key.clone()));
        let secrets = self.config.providers.iter().flat_map(|provider| {
            let several = provider.keys.iter().map(|key| key.credential.clone());
            let own = provider.credential.clone().into_iter().chain(several).chain(of_aws(provider));
            own.chain(of_tokens(provider)).chain(of_proxy(&provider.upstream_proxy))
        });
        let secrets = secrets.chain(of_proxy(&self.config.upstream_proxy));
        inputs.extend(secrets.filter_map(|at| match at {
            Credential::File(path) => Some(path),
            Credential::Env(_) | Credential::Vault(_) => None,
        }));
        if let Some(redis) = self.config.quotas.redis() {
            inputs.extend(redis.tls.key.clone());
            let of_sentinel = redis.sentinel.as_ref().and_then(|sentinel| sentinel.password.as_ref());
            inputs.extend(redis.password.iter().chain(of_sentinel).filter_map(|place| match place {
                Credential::File(path) => Some(path.clone()),
                Credential::Env(_) | Credential::Vault(_) => None,
            }));
        }
        if let Some(otlp) = &self.config.telemetry.otlp {
            inputs.extend(otlp.tls.key.clone());
            inputs.extend(otlp.headers.values().filter_map(|place| match place {
                Credential::File(path) => Some(path.clone()),
                Credential::Env(_) | Credential::Vault(_) => None,
            }));
        }
        inputs
    }
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("path", &self.path).field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// Reads and checks the configuration at `path`.
///
/// # Errors
/// Every problem of the file and of those that it refers to.
pub fn load(path: &Path) -> Result<Loaded, Vec<Problem>> {
    load_with(path, &|name| std::env::var(name).ok())
}

/// Like [`load`], while `before` is in force: secrets that its Vault does not give now stay as they are.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_after(path: &Path, before: &Loaded) -> Result<Loaded, Vec<Problem>> {
    load_told(path, &|name| std::env::var(name).ok(), Some(before))
}

/// Like [`load`], with the environment given.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Vec<Problem>> {
    load_told(path, environment, None)
}

pub(super) fn load_told(
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
    before: Option<&Loaded>,
) -> Result<Loaded, Vec<Problem>> {
    let file = path.display().to_string();
    let mut problems = match text_of(path).and_then(|text| load_text(&text, path, environment, before)) {
        Ok(mut loaded) => {
            name_file(&mut loaded.warnings, &file);
            return Ok(loaded);
        }
        Err(problems) => problems,
    };
    name_file(&mut problems, &file);
    problems.sort_by_key(|p| (p.file.as_deref() != Some(&file), p.file.clone(), p.line, p.column));
    Err(problems)
}

/// Where a configuration's keys file is, whatever else is wrong with the configuration.
///
/// # Errors
/// A file that cannot be read, or that names no keys file.
pub fn keys_path(path: &Path) -> Result<PathBuf, Vec<Problem>> {
    let file = path.display().to_string();
    let found = text_of(path).and_then(|text| {
        let root = document::parse(&text)?;
        let mut problems = Vec::new();
        let mut fields = Fields::new(&root, "", &mut problems);
        let base = path.parent().unwrap_or(Path::new(""));
        let keys = fields.required("keys", "a path", |text| Some(base.join(text)));
        keys.ok_or(problems)
    });
    found.map_err(|problems| problems.into_iter().map(|problem| problem.in_file(&file)).collect())
}

fn name_file(problems: &mut [Problem], file: &str) {
    for problem in problems.iter_mut().filter(|problem| problem.file.is_none()) {
        problem.file = Some(file.to_owned());
    }
}

fn text_of(path: &Path) -> Result<String, Vec<Problem>> {
    let told = |wanted: String| vec![Problem::general("", wanted)];
    let bytes = read_file(path).map_err(|error| told(format!("a file that can be read: {error}")))?;
    String::from_utf8(bytes).map_err(|_| told("UTF-8 text".into()))
}

fn load_text(
    text: &str,
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
    before: Option<&Loaded>,
) -> Result<Loaded, Vec<Problem>> {
    let root = document::parse(text)?;
    let mut problems = Vec::new();
    let base = path.parent().unwrap_or(Path::new(""));
    let Some(config) = read::config(&root, base, &mut problems) else {
        problems.extend(problems_of_files(&root, base, environment));
        return Err(problems);
    };
    let (crossed, warnings) = check(&config, &root);
    problems.extend(crossed);
    let vault_before = before.and_then(|before| Some((before.config.vault.as_ref()?, &before.vault)));
    let mut loader = Loader { problems, warnings, vault_before, ..Loader::new(&root, environment) };
    let parts = loader.parts(&config);
    let Loader { problems, mut warnings, files, vault, .. } = loader;
    let Some(parts) = parts.filter(|_| problems.is_empty()) else { return Err(problems) };
    warn_of_missing_prices(&config, &root, parts.prices.as_ref(), &mut warnings);
    let mut loaded = Loaded {
        config,
        path: path.to_owned(),
        credentials: parts.credentials,
        provider_keys: parts.provider_keys,
        aws_keys: parts.aws_keys,
        kafka_password: parts.kafka_password,
        commit_password: parts.commit_password,
        tap: parts.tap,
        otlp: parts.otlp,
        commit_secret: parts.commit_secret,
        quota_store: parts.quota_store,
        quota_sentinel: parts.quota_sentinel,
        pseudonym_key: parts
            .pseudonym_key
            .unwrap_or_else(|| derive(&parts.seal_seed, b"affidavit/pseudonym/v1")),
        keys: parts.keys,
        policy: parts.policy,
        prices: parts.prices,
        tls: parts.tls,
        provider_cas: parts.provider_cas,
        issuers: parts.issuers,
        vault: vault.map(vault::Client::into_held).unwrap_or_default(),
        upstreams: parts.upstreams,
        canonical: Vec::new(),
        hash: Sha256Hex::of(b""),
        warnings,
        files,
        seal_seed: parts.seal_seed,
        promise_seed: parts.promise_seed,
    };
    let fingerprints = Fingerprints::new(&loaded.seal_seed);
    loaded.canonical = canonical::canonical(&loaded, &fingerprints).map_err(|error| {
        vec![Problem::general("", format!("a configuration that can be written down: {error}"))]
    })?;
    loaded.hash = Sha256Hex::of(&loaded.canonical);
    Ok(loaded)
}

/// What is wrong with the files of a configuration that is itself wrong: all problems are told at once.
fn problems_of_files(root: &Node, base: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Vec<Problem> {
    let mut ignored = Vec::new();
    let mut fields = Fields::new(root, "", &mut ignored);
    let mut path = |key| fields.optional(key, "a path", |text| Some(base.join(text)));
    let (keys, policy, prices) = (path("keys"), path("policy"), path("prices"));
    let mut loader = Loader::new(root, environment);
    if let Some(path) = keys {
        loader.parsed("keys", &path, Keys::parse);
    }
    if let Some(path) = policy {
        loader.parsed("policy", &path, Policy::parse);
    }
    if let Some(path) = prices {
        loader.parsed("prices", &path, PriceBook::parse);
    }
    loader.problems
}

fn warn_of_missing_prices(
    config: &Config,
    root: &Node,
    prices: Option<&PriceBook>,
    warnings: &mut Vec<Problem>,
) {
    let Some(book) = prices else { return };
    for (index, provider) in config.providers.iter().enumerate() {
        if book.rows().iter().all(|row| row.provider != provider.price_name()) {
            let key = format!("providers[{index}].price_as");
            let wanted = "a provider of the price book; without one its exchanges have no cost";
            let known = book.rows().iter().map(|row| row.provider.as_str());
            let problem = Problem::at(place(root, &format!("providers[{index}]")), key, wanted);
            warnings.push(problem.value(provider.price_name()).suggest(provider.price_name(), known));
        }
    }
}
