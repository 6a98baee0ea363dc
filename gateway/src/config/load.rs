//! From a path to a [`Loaded`] configuration: the file, everything that it refers to, and all problems at once.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use policies::document::{self, Fields, Node, Problem};
use policies::policy::Policy;
use policies::price::PriceBook;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use schemas::Sha256Hex;
use zeroize::Zeroizing;

use super::check::{check, place};
use super::secret::{Fingerprints, Secret, SecretBytes, derive};
use super::{Config, Credential, canonical, read};
use crate::keys::Keys;
use crate::secrets;

pub(super) const CREDENTIAL_LABEL: &str = "credential";

/// The largest file that is read: a configuration, policy, price book or keys file.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// A configuration that was read and checked, with everything that it refers to.
pub struct Loaded {
    /// What was typed, defaults filled in, paths resolved.
    pub config: Config,
    /// The file.
    pub path: PathBuf,
    /// Each provider's key, by the provider's name.
    pub credentials: BTreeMap<String, Secret>,
    /// The seed of the key that signs seals.
    pub seal_seed: Zeroizing<[u8; 32]>,
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

/// TLS material of one listening address.
pub struct TlsFiles {
    /// The gateway's chain, its own certificate first.
    pub certificate: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// Roots of callers' certificates, where callers must show one.
    pub client_ca: Option<Vec<CertificateDer<'static>>>,
}

impl Loaded {
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
        inputs.extend(self.files.values().map(|file| file.path.clone()));
        inputs.extend(self.config.listen.iter().filter_map(|listen| Some(listen.tls.as_ref()?.key.clone())));
        inputs.extend(self.config.providers.iter().filter_map(|provider| match &provider.credential {
            Some(Credential::File(path)) => Some(path.clone()),
            _ => None,
        }));
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

/// Like [`load`], with the environment given.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Vec<Problem>> {
    let file = path.display().to_string();
    let mut problems = match text_of(path).and_then(|text| load_text(&text, path, environment)) {
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

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let length = std::fs::metadata(path)?.len();
    if length > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("{length} bytes is more than {MAX_FILE_BYTES}")));
    }
    std::fs::read(path)
}

fn load_text(
    text: &str,
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
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
    let mut loader = Loader { root: &root, environment, problems, warnings, files: BTreeMap::new() };
    let parts = loader.parts(&config);
    let Loader { problems, mut warnings, files, .. } = loader;
    let Some(parts) = parts.filter(|_| problems.is_empty()) else { return Err(problems) };
    warn_of_missing_prices(&config, &root, parts.prices.as_ref(), &mut warnings);
    let mut loaded = Loaded {
        config,
        path: path.to_owned(),
        credentials: parts.credentials,
        pseudonym_key: parts
            .pseudonym_key
            .unwrap_or_else(|| derive(&parts.seal_seed, b"affidavit/pseudonym/v1")),
        keys: parts.keys,
        policy: parts.policy,
        prices: parts.prices,
        tls: parts.tls,
        provider_cas: parts.provider_cas,
        canonical: Vec::new(),
        hash: Sha256Hex::of(b""),
        warnings,
        files,
        seal_seed: parts.seal_seed,
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
    let (problems, warnings, files) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut loader = Loader { root, environment, problems, warnings, files };
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

type ParseSecret = fn(&[u8]) -> Result<Zeroizing<[u8; 32]>, &'static str>;

/// What the files and the environment hold.
struct Parts {
    credentials: BTreeMap<String, Secret>,
    seal_seed: Zeroizing<[u8; 32]>,
    pseudonym_key: Option<Zeroizing<[u8; 32]>>,
    keys: Keys,
    policy: Option<Policy>,
    prices: Option<PriceBook>,
    tls: Vec<Option<TlsFiles>>,
    provider_cas: BTreeMap<String, Vec<CertificateDer<'static>>>,
}

struct Loader<'a> {
    root: &'a Node,
    environment: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    files: BTreeMap<String, LoadedFile>,
}

impl Loader<'_> {
    /// `None` where anything could not be read; the problems say what.
    fn parts(&mut self, config: &Config) -> Option<Parts> {
        let credentials = self.credentials(config);
        let seal_seed =
            self.secret_file("evidence.seal_key", &config.evidence.seal_key, secrets::parse_seal_key);
        let pseudonym_key = config
            .evidence
            .pseudonym_key
            .as_ref()
            .map(|path| self.secret_file("evidence.pseudonym_key", path, secrets::parse_pseudonym_key));
        let keys = self.parsed("keys", &config.keys, Keys::parse);
        // The keys file is in the configuration of record entry by entry, not as a file.
        self.files.remove("keys");
        let policy = config.policy.as_ref().map(|path| self.parsed("policy", path, Policy::parse));
        let prices = config.prices.as_ref().map(|path| self.parsed("prices", path, PriceBook::parse));
        let tls: Vec<_> = config
            .listen
            .iter()
            .enumerate()
            .map(|(index, listen)| listen.tls.as_ref().map(|tls| self.tls(index, tls)))
            .collect();
        let mut provider_cas = BTreeMap::new();
        for (index, provider) in config.providers.iter().enumerate() {
            if let Some(path) = &provider.ca
                && let Some(roots) = self.certificates(&format!("providers[{index}].ca"), path)
            {
                provider_cas.insert(provider.name.as_str().to_owned(), roots);
            }
        }
        Some(Parts {
            credentials,
            seal_seed: seal_seed?,
            pseudonym_key: all_or_none(pseudonym_key)?,
            keys: keys?,
            policy: all_or_none(policy)?,
            prices: all_or_none(prices)?,
            tls: tls.into_iter().map(all_or_none).collect::<Option<_>>()?,
            provider_cas,
        })
    }

    fn problem(&mut self, key: &str, wanted: impl Into<String>) {
        self.problems.push(Problem::at(place(self.root, key), key, wanted));
    }

    fn bytes(&mut self, key: &str, path: &Path) -> Option<Vec<u8>> {
        match read_file(path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let problem =
                    Problem::at(place(self.root, key), key, format!("a file that can be read: {error}"));
                self.problems.push(problem.value(path.display().to_string()));
                None
            }
        }
    }

    /// Reads a file that rules, keeps it, and parses it; its problems name it.
    fn parsed<T>(
        &mut self,
        key: &str,
        path: &Path,
        parse: impl FnOnce(&[u8]) -> Result<T, Vec<Problem>>,
    ) -> Option<T> {
        let bytes = self.bytes(key, path)?;
        let parsed = parse(&bytes);
        self.keep(key, path, bytes);
        match parsed {
            Ok(value) => Some(value),
            Err(problems) => {
                let file = path.display().to_string();
                self.problems.extend(problems.into_iter().map(|problem| problem.in_file(&file)));
                None
            }
        }
    }

    fn keep(&mut self, key: &str, path: &Path, bytes: Vec<u8>) {
        let file = LoadedFile { path: path.to_owned(), sha256: Sha256Hex::of(&bytes), bytes };
        self.files.insert(key.to_owned(), file);
    }

    fn warn_if_open(&mut self, key: &str, path: &Path) {
        let open = std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
        if open {
            let wanted = "a file that only its owner can read (`chmod 600`)";
            let problem = Problem::at(place(self.root, key), key, wanted);
            self.warnings.push(problem.value(path.display().to_string()));
        }
    }

    /// Reads a secret; neither it nor the reason why it is none is ever shown beyond `parse`'s own words.
    fn secret_file(&mut self, key: &str, path: &Path, parse: ParseSecret) -> Option<Zeroizing<[u8; 32]>> {
        let bytes = SecretBytes(self.bytes(key, path)?);
        self.warn_if_open(key, path);
        match parse(&bytes.0) {
            Ok(secret) => Some(secret),
            Err(wanted) => {
                self.problem(key, wanted);
                None
            }
        }
    }

    fn credentials(&mut self, config: &Config) -> BTreeMap<String, Secret> {
        const FORM: &str = "a key of 1 to 8192 visible ASCII characters";
        let mut credentials = BTreeMap::new();
        for (index, provider) in config.providers.iter().enumerate() {
            let Some(credential) = &provider.credential else { continue };
            let (key, text) = match credential {
                Credential::Env(name) => {
                    let key = format!("providers[{index}].credential.env");
                    let Some(value) = (self.environment)(name) else {
                        // A lower-case name may be a key typed into the wrong place: not shown.
                        let upper = !name.bytes().any(|b| b.is_ascii_lowercase());
                        let shown = if upper { format!("`{name}`") } else { "of that name".into() };
                        self.problem(&key, format!("an environment variable {shown} that is set"));
                        continue;
                    };
                    (key, Zeroizing::new(value))
                }
                Credential::File(path) => {
                    let key = format!("providers[{index}].credential.file");
                    let Ok(bytes) = read_file(path) else {
                        self.problem(&key, "a file that can be read");
                        continue;
                    };
                    self.warn_if_open(&key, path);
                    let bytes = SecretBytes(bytes);
                    (key, Zeroizing::new(String::from_utf8_lossy(&bytes.0).trim().to_owned()))
                }
            };
            match Secret::new(text.trim()) {
                Some(secret) => {
                    credentials.insert(provider.name.as_str().to_owned(), secret);
                }
                None => self.problem(&key, FORM),
            }
        }
        credentials
    }

    fn certificates(&mut self, key: &str, path: &Path) -> Option<Vec<CertificateDer<'static>>> {
        let bytes = self.bytes(key, path)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        self.keep(key, path, bytes);
        match found {
            Ok(list) if !list.is_empty() => Some(list),
            _ => {
                self.problem(key, "a PEM file with at least one certificate");
                None
            }
        }
    }

    fn tls(&mut self, index: usize, tls: &super::Tls) -> Option<TlsFiles> {
        let key_path = format!("listen[{index}].tls.key");
        let certificate = self.certificates(&format!("listen[{index}].tls.certificate"), &tls.certificate);
        let client_ca = tls.client_ca.as_ref();
        let client_ca =
            client_ca.map(|path| self.certificates(&format!("listen[{index}].tls.client_ca"), path));
        let bytes = self.bytes(&key_path, &tls.key).map(SecretBytes);
        let key = bytes.and_then(|bytes| {
            self.warn_if_open(&key_path, &tls.key);
            let key = PrivateKeyDer::from_pem_slice(&bytes.0);
            if key.is_err() {
                self.problem(&key_path, "a PEM file with a private key (PKCS#8, PKCS#1 or SEC1)");
            }
            key.ok()
        });
        let (certificate, key) = (certificate?, key?);
        if let Err(error) = matches(&certificate, &key) {
            self.problem(&key_path, format!("the private key of `listen[{index}].tls.certificate`: {error}"));
        }
        Some(TlsFiles { certificate, key, client_ca: all_or_none(client_ca)? })
    }
}

/// Nothing typed is fine; something typed must have been read.
fn all_or_none<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}

/// Whether the key is the certificate's.
fn matches(
    certificate: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<(), rustls::Error> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificate.to_vec(), key.clone_key())
        .map(drop)
}
