//! What the configuration refers to: files and environment variables, read with every problem told.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use policies::document::{Node, Problem};
use policies::policy::Policy;
use policies::price::PriceBook;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use schemas::Sha256Hex;
use zeroize::Zeroizing;

use super::check::place;
use super::cluster::Cluster;
use super::load::{AwsKey, IssuerFiles, LoadedFile, OtlpFiles, TapFiles, TlsFiles};
use super::read::whole;
use super::secret::{Secret, SecretBytes};
use super::{
    ClientTls, Commit, Config, Credential, Jwks, JwtIssuer, Out, Pair, TapSink, Upstream, Vault, VaultAuth,
    VaultSecret,
};
use crate::identity::Keyset;
use crate::keys::Keys;
use crate::secrets;
use crate::vault::{self, Login};

/// The largest file that is read: a configuration, policy, price book or keys file.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Whether others can read or change a secret with this mode. What another user owns, as the secrets that Kubernetes
/// mounts, this process can only read by its group.
fn is_open(mode: u32, is_own: bool) -> bool {
    let allowed = if is_own { 0o700 } else { 0o740 };
    mode & 0o777 & !allowed != 0
}

pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let length = std::fs::metadata(path)?.len();
    if length > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("{length} bytes is more than {MAX_FILE_BYTES}")));
    }
    std::fs::read(path)
}

type ParseSecret = fn(&[u8]) -> Result<Zeroizing<[u8; 32]>, &'static str>;

/// What the files and the environment hold.
pub(super) struct Parts {
    pub(super) credentials: BTreeMap<String, Secret>,
    pub(super) provider_keys: BTreeMap<String, Vec<Secret>>,
    pub(super) aws_keys: BTreeMap<String, AwsKey>,
    pub(super) kafka_password: Option<Secret>,
    pub(super) commit_password: Option<Secret>,
    pub(super) tap: Vec<TapFiles>,
    pub(super) otlp: Option<OtlpFiles>,
    pub(super) commit_secret: Option<Zeroizing<[u8; 32]>>,
    pub(super) quota_store: Option<TapFiles>,
    pub(super) quota_sentinel: Option<Secret>,
    pub(super) seal_seed: Zeroizing<[u8; 32]>,
    pub(super) pseudonym_key: Option<Zeroizing<[u8; 32]>>,
    pub(super) promise_seed: Option<Zeroizing<[u8; 32]>>,
    pub(super) keys: Keys,
    pub(super) policy: Option<Policy>,
    pub(super) prices: Option<PriceBook>,
    pub(super) tls: Vec<Option<TlsFiles>>,
    pub(super) provider_cas: BTreeMap<String, Vec<CertificateDer<'static>>>,
    pub(super) issuers: Vec<IssuerFiles>,
    pub(super) upstreams: BTreeMap<String, Upstream>,
}

pub(super) struct Loader<'a> {
    pub(super) root: &'a Node,
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pub(super) files: BTreeMap<String, LoadedFile>,
    pub(super) vault: Option<vault::Client>,
    /// The Vault in force, and its secrets.
    pub(super) vault_before: Option<(&'a Vault, &'a vault::Held)>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(root: &'a Node, environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            root,
            environment,
            problems: Vec::new(),
            warnings: Vec::new(),
            files: BTreeMap::new(),
            vault: None,
            vault_before: None,
        }
    }
}

impl Loader<'_> {
    /// `None` where anything could not be read; the problems say what.
    pub(super) fn parts(&mut self, config: &Config) -> Option<Parts> {
        // First: others are read out of it.
        self.vault = config.vault.as_ref().and_then(|vault| self.vault(vault));
        let credentials = self.credentials(config);
        let provider_keys = self.provider_keys(config);
        let aws_keys = self.aws_keys(config);
        let upstreams = self.upstreams(config);
        let kafka_password = self.kafka(config);
        let commit_password = self.commit(config);
        let tap: Vec<_> =
            config.evidence.tap.iter().enumerate().map(|(index, sink)| self.tap(index, sink)).collect();
        let otlp = self.otlp(config);
        let commit_secret = self.commit_secret(config);
        let quota_store = self.quota_store(config);
        let quota_sentinel = self.quota_sentinel(config);
        let seal_seed =
            self.secret_file("evidence.seal_key", &config.evidence.seal_key, secrets::parse_seal_key);
        let pseudonym_key = config
            .evidence
            .pseudonym_key
            .as_ref()
            .map(|path| self.secret_file("evidence.pseudonym_key", path, secrets::parse_pseudonym_key));
        let promise_seed = config.evidence.promise_key.as_ref().map(|path| {
            let seed = self.secret_file("evidence.promise_key", path, secrets::parse_seal_key)?;
            if seal_seed.as_ref() == Some(&seed) {
                // What one key says of seals and of promises could not be told apart by whoever holds only the key.
                self.problem("evidence.promise_key", "another key than `evidence.seal_key`");
            }
            Some(seed)
        });
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
        let issuers: Vec<_> = config
            .identity
            .jwt
            .iter()
            .enumerate()
            .map(|(index, issuer)| self.issuer(index, issuer))
            .collect();
        Some(Parts {
            issuers: issuers.into_iter().collect::<Option<_>>()?,
            credentials,
            provider_keys,
            aws_keys,
            kafka_password: kafka_password?,
            commit_password: commit_password?,
            tap: tap.into_iter().collect::<Option<_>>()?,
            otlp: otlp?,
            commit_secret: commit_secret?,
            quota_store: quota_store?,
            quota_sentinel: quota_sentinel?,
            seal_seed: seal_seed?,
            pseudonym_key: whole(pseudonym_key)?,
            promise_seed: whole(promise_seed)?,
            keys: keys?,
            policy: whole(policy)?,
            prices: whole(prices)?,
            tls: tls.into_iter().map(whole).collect::<Option<_>>()?,
            provider_cas,
            upstreams,
        })
    }

    pub(super) fn problem(&mut self, key: &str, wanted: impl Into<String>) {
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
    pub(super) fn parsed<T>(
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

    pub(super) fn warn_if_open(&mut self, key: &str, path: &Path) {
        let user = rustix::process::geteuid().as_raw();
        if std::fs::metadata(path).is_ok_and(|meta| is_open(meta.mode(), meta.uid() == user)) {
            let wanted = "a file that only its owner can read (`chmod 600`)";
            let problem = Problem::at(place(self.root, key), key, wanted);
            self.warnings.push(problem.value(path.display().to_string()));
        }
    }

    /// Reads a secret; neither it nor the reason why it is none is ever shown beyond `parse`'s own words.
    pub(super) fn secret_file(
        &mut self,
        key: &str,
        path: &Path,
        parse: ParseSecret,
    ) -> Option<Zeroizing<[u8; 32]>> {
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
        let mut credentials = BTreeMap::new();
        for (index, provider) in config.providers.iter().enumerate() {
            let Some(credential) = &provider.credential else { continue };
            if let Some(secret) = self.secret(&format!("providers[{index}].credential"), credential) {
                credentials.insert(provider.name.as_str().to_owned(), secret);
            }
        }
        credentials
    }

    /// Reads the keys of providers that have several; one that cannot be read is a problem.
    fn provider_keys(&mut self, config: &Config) -> BTreeMap<String, Vec<Secret>> {
        let mut keys = BTreeMap::new();
        for (index, provider) in config.providers.iter().enumerate() {
            let read = |(at, key): (usize, &super::ProviderKey)| {
                self.secret(&format!("providers[{index}].keys[{at}].credential"), &key.credential)
            };
            let all: Vec<Option<Secret>> = provider.keys.iter().enumerate().map(read).collect();
            if let Some(all) = all.into_iter().collect::<Option<Vec<_>>>().filter(|all| !all.is_empty()) {
                keys.insert(provider.name.as_str().to_owned(), all);
            }
        }
        keys
    }

    /// A Vault, with what the gateway shows it of itself.
    fn vault(&mut self, vault: &Vault) -> Option<vault::Client> {
        let roots = vault.ca.as_ref().map(|path| self.certificates("vault.ca", path));
        let login = match &vault.auth {
            VaultAuth::Token(at) => Login::Token(self.secret("vault.auth.token", at)?),
            VaultAuth::Kubernetes(typed) => {
                let at = Credential::File(typed.token.clone());
                let token = self.secret("vault.auth.kubernetes.token", &at)?;
                Login::Kubernetes { mount: typed.mount.clone(), role: typed.role.clone(), token }
            }
            VaultAuth::Approle(typed) => {
                let role_id = self.secret("vault.auth.approle.role_id", &typed.role_id);
                let secret_id = self.secret("vault.auth.approle.secret_id", &typed.secret_id);
                Login::Approle { mount: typed.mount.clone(), role_id: role_id?, secret_id: secret_id? }
            }
        };
        let client = vault::Client::new(vault, whole(roots)?, login);
        let client = client.map(|client| match self.vault_before.filter(|(before, _)| *before == vault) {
            Some((_, held)) => client.after(held),
            None => client,
        });
        client.map_err(|why| self.problem("vault", format!("TLS that can be set up: {why}"))).ok()
    }

    /// Reads what an issuer of tokens refers to.
    fn issuer(&mut self, index: usize, issuer: &JwtIssuer) -> Option<IssuerFiles> {
        let key = format!("identity.jwt[{index}]");
        let roots = issuer.ca.as_ref().map(|path| self.certificates(&format!("{key}.ca"), path));
        let jwks = match &issuer.jwks {
            Some(Jwks::File(path)) => {
                let key = format!("{key}.jwks");
                let bytes = self.bytes(&key, path)?;
                self.keep(&key, path, bytes.clone());
                let algorithms = &issuer.algorithms;
                let why = match Keyset::parse(&bytes, algorithms) {
                    Ok(keys) => {
                        keys.is_empty().then(|| "no public key for a signature that counts".to_owned())
                    }
                    Err(error) => Some(error.to_string()),
                };
                if let Some(why) = why {
                    self.problem(&key, format!("keys (JWKS) of `algorithms`: {why}"));
                    return None;
                }
                Some(bytes)
            }
            _ => None,
        };
        Some(IssuerFiles { jwks, roots: whole(roots)? })
    }

    /// Reads the access keys of providers; a part that cannot be read is a problem.
    fn aws_keys(&mut self, config: &Config) -> BTreeMap<String, AwsKey> {
        let mut keys = BTreeMap::new();
        for (index, provider) in config.providers.iter().enumerate() {
            let Some(aws) = &provider.aws else { continue };
            let mut part =
                |name: &str, at: &Credential| self.secret(&format!("providers[{index}].aws.{name}"), at);
            let id = part("access_key_id", &aws.access_key_id);
            let secret = part("secret_access_key", &aws.secret_access_key);
            let token = aws.session_token.as_ref().map(|token| part("session_token", token));
            if let (Some(access_key_id), Some(secret_access_key), Some(session_token)) =
                (id, secret, whole(token))
            {
                let key = AwsKey { access_key_id, secret_access_key, session_token };
                keys.insert(provider.name.as_str().to_owned(), key);
            }
        }
        keys
    }

    /// Reads a secret from where it is.
    pub(super) fn secret(&mut self, key: &str, credential: &Credential) -> Option<Secret> {
        self.secret_of(key, credential, "a key of 1 to 8192 visible ASCII characters", Secret::new)
    }

    pub(super) fn secret_of(
        &mut self,
        key: &str,
        credential: &Credential,
        form: &str,
        make: fn(&str) -> Option<Secret>,
    ) -> Option<Secret> {
        let (key, text) = match credential {
            Credential::Env(name) => {
                let key = format!("{key}.env");
                let Some(value) = (self.environment)(name) else {
                    // A lower-case name may be a key typed into the wrong place: not shown.
                    let upper = !name.bytes().any(|b| b.is_ascii_lowercase());
                    let shown = if upper { format!("`{name}`") } else { "of that name".into() };
                    self.problem(&key, format!("an environment variable {shown} that is set"));
                    return None;
                };
                (key, Zeroizing::new(value))
            }
            Credential::File(path) => {
                let key = format!("{key}.file");
                let Ok(bytes) = read_file(path) else {
                    self.problem(&key, "a file that can be read");
                    return None;
                };
                self.warn_if_open(&key, path);
                let bytes = SecretBytes(bytes);
                (key, Zeroizing::new(String::from_utf8_lossy(&bytes.0).trim().to_owned()))
            }
            Credential::Vault(at) => (format!("{key}.vault"), self.of_vault(key, at)?),
        };
        let secret = make(text.trim());
        if secret.is_none() {
            self.problem(&key, form);
        }
        secret
    }

    /// Reads a secret out of the Vault.
    pub(super) fn of_vault(&mut self, key: &str, at: &VaultSecret) -> Option<Zeroizing<String>> {
        let read = match &mut self.vault {
            Some(vault) => vault.read(at).map_err(|why| format!("a secret that can be read: {why}")),
            None => Err("a `vault` that can be asked as well".to_owned()),
        };
        read.map_err(|wanted| self.problem(&format!("{key}.vault"), wanted)).ok()
    }

    /// Reads the password of the way out, and looks whether its PEM files are there.
    fn kafka(&mut self, config: &Config) -> Option<Option<Secret>> {
        let Out::Kafka(kafka) = &config.evidence.out else { return Some(None) };
        self.connection("evidence.out.kafka", &kafka.cluster)
    }

    fn commit(&mut self, config: &Config) -> Option<Option<Secret>> {
        let Commit::Kafka(kafka) = &config.evidence.commit else { return Some(None) };
        whole(kafka.cluster.as_ref().map(|cluster| self.connection("evidence.commit.kafka", cluster)))
            .map(Option::flatten)
    }

    /// Reads the secret under which messages of the commit topic are written.
    fn commit_secret(&mut self, config: &Config) -> Option<Option<Zeroizing<[u8; 32]>>> {
        let Commit::Kafka(kafka) = &config.evidence.commit else { return Some(None) };
        let key = "evidence.commit.kafka.secret";
        match &kafka.secret {
            Credential::File(path) => {
                self.secret_file(&format!("{key}.file"), path, secrets::parse_commit_secret).map(Some)
            }
            Credential::Env(_) | Credential::Vault(_) => {
                let text = self.secret(key, &kafka.secret)?;
                match secrets::parse_commit_secret(text.expose().as_bytes()) {
                    Ok(secret) => Some(Some(secret)),
                    Err(wanted) => {
                        self.problem(&format!("{key}.env"), wanted);
                        None
                    }
                }
            }
        }
    }

    /// Reads what a connection to brokers refers to; gives its password.
    pub(super) fn connection(&mut self, part: &str, cluster: &Cluster) -> Option<Option<Secret>> {
        let tls = cluster.tls.as_ref().map(|tls| self.kafka_tls(&format!("{part}.tls"), tls));
        let password = cluster.password().map(|place| self.secret(&format!("{part}.sasl.secret"), place));
        whole(tls)?;
        whole(password)
    }

    /// Looks whether the PEM files of a connection to brokers are there: librdkafka reads them itself.
    fn kafka_tls(&mut self, key: &str, tls: &ClientTls) -> Option<()> {
        for (name, path) in [("ca", &tls.ca), ("certificate", &tls.certificate)] {
            if let Some(path) = path {
                self.certificates(&format!("{key}.{name}"), path)?;
            }
        }
        if let Some(path) = &tls.key {
            let key = format!("{key}.key");
            SecretBytes(self.bytes(&key, path)?);
            self.warn_if_open(&key, path);
        }
        Some(())
    }

    /// Reads what a sink of the tap needs.
    fn tap(&mut self, index: usize, sink: &TapSink) -> Option<TapFiles> {
        let (way, tls) = sink.way();
        let key = format!("evidence.tap[{index}].{way}");
        if let Some(kafka) = &sink.kafka {
            let secret = self.connection(&key, &kafka.cluster)?;
            return Some(TapFiles { secret, ..TapFiles::default() });
        }
        let mut files = tls.map_or_else(|| Some(TapFiles::default()), |tls| self.tap_tls(&key, tls))?;
        files.uses_tls = sink.url().is_none_or(|url| url.tls);
        if let Some(webhook) = &sink.webhook {
            let secret = webhook.secret.as_ref().map(|place| self.secret(&format!("{key}.secret"), place));
            let token = webhook.token.as_ref().map(|place| self.secret(&format!("{key}.token"), place));
            files.secret = whole(secret)?;
            files.token = whole(token)?;
        }
        if let Some(loki) = &sink.loki {
            let password = loki.password.as_ref().map(|place| self.secret(&format!("{key}.password"), place));
            let token = loki.token.as_ref().map(|place| self.secret(&format!("{key}.token"), place));
            files.secret = whole(password)?;
            files.token = whole(token)?;
        }
        Some(files)
    }

    /// Reads what the way to a collector needs.
    fn otlp(&mut self, config: &Config) -> Option<Option<OtlpFiles>> {
        let Some(otlp) = &config.telemetry.otlp else { return Some(None) };
        let key = "telemetry.otlp";
        let mut headers = BTreeMap::new();
        for (name, place) in &otlp.headers {
            let form = "a header's value of 1 to 8192 visible ASCII characters and spaces";
            let secret = self.secret_of(&format!("{key}.headers.{name}"), place, form, Secret::header_value);
            headers.extend(secret.map(|secret| (name.clone(), secret)));
        }
        let mut tls = self.tap_tls(key, &otlp.tls)?;
        tls.uses_tls = otlp.endpoint.tls;
        (headers.len() == otlp.headers.len()).then_some(Some(OtlpFiles { headers, tls }))
    }

    /// Reads what the store of quotas needs.
    fn quota_store(&mut self, config: &Config) -> Option<Option<TapFiles>> {
        let Some(redis) = config.quotas.redis() else { return Some(None) };
        let key = "quotas.store.redis";
        let password = redis.password.as_ref().map(|place| self.secret(&format!("{key}.password"), place));
        let mut files = self.tap_tls(key, &redis.tls)?;
        files.uses_tls = redis.addresses().iter().any(|url| url.tls);
        files.secret = whole(password)?;
        Some(Some(files))
    }

    fn quota_sentinel(&mut self, config: &Config) -> Option<Option<Secret>> {
        let sentinel = config.quotas.redis().and_then(|redis| redis.sentinel.as_ref());
        let place = sentinel.and_then(|sentinel| sentinel.password.as_ref());
        whole(place.map(|place| self.secret("quotas.store.redis.sentinel.password", place)))
    }

    fn tap_tls(&mut self, key: &str, tls: &ClientTls) -> Option<TapFiles> {
        let roots = tls.ca.as_ref().map(|path| self.certificates(&format!("{key}.tls.ca"), path));
        let mut files = TapFiles { roots: whole(roots)?, ..TapFiles::default() };
        if let (Some(certificate), Some(path)) = (&tls.certificate, &tls.key) {
            files.client = Some(self.pair(&format!("{key}.tls"), certificate, path)?);
        }
        Some(files)
    }

    /// Reads a certificate chain and its private key, at `certificate` and `key` of `part`.
    pub(super) fn pair(&mut self, part: &str, certificate: &Path, path: &Path) -> Option<Pair> {
        let chain = self.certificates(&format!("{part}.certificate"), certificate)?;
        let key = format!("{part}.key");
        let bytes = SecretBytes(self.bytes(&key, path)?);
        self.warn_if_open(&key, path);
        let Ok(private) = PrivateKeyDer::from_pem_slice(&bytes.0) else {
            self.problem(&key, "a PEM file with a private key (PKCS#8, PKCS#1 or SEC1)");
            return None;
        };
        if let Err(error) = matches(&chain, &private) {
            self.problem(&key, format!("the private key of its `certificate`: {error}"));
            return None;
        }
        Some((chain, private))
    }

    pub(super) fn certificates(&mut self, key: &str, path: &Path) -> Option<Vec<CertificateDer<'static>>> {
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
        Some(TlsFiles { certificate, key, client_ca: whole(client_ca)? })
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

#[cfg(test)]
mod tests {
    use super::is_open;

    #[test]
    fn a_secret_is_open_where_others_can_read_or_change_it() {
        assert!([0o600, 0o400].iter().all(|mode| !is_open(*mode, true)));
        assert!([0o640, 0o604, 0o620, 0o644].iter().all(|mode| is_open(*mode, true)));
        // As Kubernetes mounts it: root's, for the pod's group.
        assert!([0o100_440, 0o100_400].iter().all(|mode| !is_open(*mode, false)));
        assert!([0o460, 0o444].iter().all(|mode| is_open(*mode, false)));
    }
}
