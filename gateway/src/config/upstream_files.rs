//! What the way to a provider refers to: the proxy's password, certificates, and what tokens are fetched with.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::RsaKeyPair;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::files::{Loader, read_file};
use super::read::whole;
use super::secret::{Fingerprints, Secret, SecretBytes};
use super::upstream::{Google, OAuth, ProxyAt, UpstreamProxy};
use super::{BaseUrl, Config, Credential, Provider};

/// A certificate chain and its private key.
pub type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What a provider's way needs of secrets and TLS.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// The proxy's rules; `None`: there is none.
    pub proxy: Option<ProxyRules>,
    /// The certificate that the gateway shows, and its key.
    pub client: Option<Pair>,
    /// What tokens are fetched with.
    pub tokens: Option<TokenFiles>,
}

/// Which proxy is asked for which address.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyRules {
    /// For `https` addresses: a URL, which may hold user and password.
    pub https: Zeroizing<String>,
    /// For `http` addresses.
    pub http: Zeroizing<String>,
    /// Where it is passed by, with commas between.
    pub no: String,
    /// The value of `Proxy-Authorization`, where it is not in the URL.
    pub authorization: Option<Secret>,
    /// The roots to trust for the proxy; `None`: the system's.
    pub roots: Option<Vec<CertificateDer<'static>>>,
}

impl fmt::Debug for ProxyRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyRules").field("no", &self.no).finish_non_exhaustive()
    }
}

/// How tokens are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFiles {
    /// Who asks, and how.
    pub grant: Grant,
    /// Whom.
    pub url: BaseUrl,
    /// For what.
    pub scope: Option<String>,
    /// The roots to trust for the token endpoint; `None`: the system's.
    pub roots: Option<Vec<CertificateDer<'static>>>,
}

/// Who asks for a token, and how.
#[derive(Clone, PartialEq, Eq)]
pub enum Grant {
    /// A service account of Google's, by an assertion that it signs (RFC 7523 2.1).
    ServiceAccount {
        /// Who.
        email: String,
        /// Which of its keys.
        key_id: Option<String>,
        /// The token endpoint as the key file has it: whom the assertion is for.
        audience: String,
        /// The key, PKCS#8.
        key: Zeroizing<Vec<u8>>,
    },
    /// The machine's own account, by Google's metadata server.
    Metadata,
    /// A client with a secret.
    Secret {
        /// Which client.
        client: String,
        /// Its secret.
        secret: Secret,
    },
    /// A client with a signed token in the place of a secret.
    Assertion {
        /// Which client.
        client: String,
        /// The token.
        assertion: Secret,
    },
    /// An API key of IBM Cloud.
    ApiKey(Secret),
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServiceAccount { .. } => "ServiceAccount",
            Self::Metadata => "Metadata",
            Self::Secret { .. } => "Secret",
            Self::Assertion { .. } => "Assertion",
            Self::ApiKey(_) => "ApiKey",
        })
    }
}

/// What counts of a service account's key file.
#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key_id: Option<String>,
    private_key: String,
    token_uri: String,
}

impl Upstream {
    /// The fingerprints of its secrets, by labels that begin with `label`.
    pub(super) fn fingerprints(&self, label: &str, of: &Fingerprints) -> Vec<(String, String)> {
        let mut list = Vec::new();
        let mut add = |part: &str, secret: &[u8]| {
            let label = format!("{label}/{part}");
            list.push((label.clone(), of.of(&label, secret)));
        };
        if let Some(proxy) = &self.proxy {
            for (part, secret) in [
                ("upstream_proxy.https", Some(proxy.https.as_str())),
                ("upstream_proxy.http", Some(proxy.http.as_str())),
                ("upstream_proxy.credential", proxy.authorization.as_ref().map(Secret::expose)),
                ("upstream_proxy.no_proxy", Some(proxy.no.as_str())),
            ] {
                if let Some(secret) = secret.filter(|secret| !secret.is_empty()) {
                    add(part, secret.as_bytes());
                }
            }
        }
        if let Some((_, key)) = &self.client {
            add("client_certificate.key", key.secret_der());
        }
        match self.tokens.as_ref().map(|tokens| &tokens.grant) {
            Some(Grant::ServiceAccount { key, .. }) => add("google.service_account", key),
            Some(Grant::Secret { secret, .. }) => add("oauth.client_secret", secret.expose().as_bytes()),
            Some(Grant::Assertion { assertion, .. }) => {
                add("oauth.client_assertion", assertion.expose().as_bytes());
            }
            Some(Grant::ApiKey(secret)) => add("oauth.api_key", secret.expose().as_bytes()),
            Some(Grant::Metadata) | None => {}
        }
        list
    }
}

impl Loader<'_> {
    /// What every provider's way needs, by its name; a part that cannot be read is a problem.
    pub(super) fn upstreams(&mut self, config: &Config) -> BTreeMap<String, Upstream> {
        // Read once: its problems are told once.
        let common = config.upstream_proxy.as_ref().map(|proxy| self.proxy("upstream_proxy", proxy));
        let mut upstreams = BTreeMap::new();
        for (index, provider) in config.providers.iter().enumerate() {
            let key = format!("providers[{index}]");
            let own = provider
                .upstream_proxy
                .as_ref()
                .map(|proxy| self.proxy(&format!("{key}.upstream_proxy"), proxy));
            let proxy = own.or_else(|| common.clone()).flatten().flatten();
            let client = provider.client_certificate.as_ref().map(|pair| {
                let key = format!("{key}.client_certificate");
                self.pair(&key, &pair.certificate, &pair.key)
            });
            let tokens = self.tokens(&key, provider);
            if let (Some(client), Some(tokens)) = (whole(client), whole(tokens)) {
                upstreams.insert(provider.name.as_str().to_owned(), Upstream { proxy, client, tokens });
            }
        }
        upstreams
    }

    /// The rules of a proxy; `Some(None)`: there is none.
    fn proxy(&mut self, key: &str, typed: &UpstreamProxy) -> Option<Option<ProxyRules>> {
        match typed {
            UpstreamProxy::Off => Some(None),
            UpstreamProxy::Environment => self.proxy_of_environment(key).map(Some),
            UpstreamProxy::At(at) => self.proxy_at(key, at).map(Some),
        }
    }

    fn proxy_at(&mut self, key: &str, at: &ProxyAt) -> Option<ProxyRules> {
        let place = format!("{key}.credential");
        let form = "`user:password` of visible ASCII characters";
        let credential = at.credential.as_ref().map(|credential| {
            self.secret_of(&place, credential, form, |text| Secret::new(text).filter(|_| text.contains(':')))
        });
        let roots = at.ca.as_ref().map(|path| self.certificates(&format!("{key}.ca"), path));
        let authorization = whole(credential)?.and_then(|credential| {
            let coded = Zeroizing::new(STANDARD.encode(credential.expose()));
            Secret::header_value(&format!("Basic {}", coded.as_str()))
        });
        let url = Zeroizing::new(at.url.to_string());
        let no = at.no_proxy.join(",");
        Some(ProxyRules { https: url.clone(), http: url, no, authorization, roots: whole(roots)? })
    }

    fn proxy_of_environment(&mut self, key: &str) -> Option<ProxyRules> {
        let variable = |names: [&str; 2]| {
            names.iter().find_map(|name| (self.environment)(name)).filter(|text| !text.is_empty())
        };
        let all = variable(["all_proxy", "ALL_PROXY"]);
        let [https, http] = [["https_proxy", "HTTPS_PROXY"], ["http_proxy", "HTTP_PROXY"]]
            .map(|names| Zeroizing::new(variable(names).or_else(|| all.clone()).unwrap_or_default()));
        let no = variable(["no_proxy", "NO_PROXY"]).unwrap_or_default();
        for (name, url) in [("HTTPS_PROXY", &https), ("HTTP_PROXY", &http)] {
            let uri = url.parse::<http::Uri>().ok();
            let fits = uri.is_some_and(|uri| matches!(uri.scheme_str(), None | Some("http" | "https")));
            if !url.is_empty() && !fits {
                let wanted =
                    format!("`{name}` (or `ALL_PROXY`) in the environment as `http://proxy.example:3128`");
                self.problem(key, wanted);
                return None;
            }
        }
        Some(ProxyRules { https, http, no, ..ProxyRules::default() })
    }

    /// What tokens are fetched with; `None`: none are.
    fn tokens(&mut self, key: &str, provider: &Provider) -> Option<Option<TokenFiles>> {
        match (&provider.google, &provider.oauth) {
            (Some(google), _) => Some(self.google(&format!("{key}.google"), google)),
            (None, Some(oauth)) => Some(self.oauth(&format!("{key}.oauth"), oauth)),
            (None, None) => None,
        }
    }

    fn google(&mut self, key: &str, google: &Google) -> Option<TokenFiles> {
        let roots = google.ca.as_ref().map(|path| self.certificates(&format!("{key}.ca"), path));
        let (grant, url) = match &google.service_account {
            Some(place) => self.service_account(&format!("{key}.service_account"), place)?,
            None => (Grant::Metadata, self.metadata_url(key)?),
        };
        Some(TokenFiles { grant, url, scope: Some(google.scope.clone()), roots: whole(roots)? })
    }

    /// Reads the key file of a service account. Nothing of it is ever shown.
    fn service_account(&mut self, key: &str, place: &Credential) -> Option<(Grant, BaseUrl)> {
        let text = self.secret_text(key, place)?;
        let read = read_key_file(&text.0);
        if read.is_none() {
            let wanted = "a service account's key file as Google makes it: JSON with `client_email`, `private_key` \
                          (RSA, PKCS#8) and `token_uri`";
            self.problem(key, wanted);
        }
        read
    }

    fn metadata_url(&mut self, key: &str) -> Option<BaseUrl> {
        let host = (self.environment)("GCE_METADATA_HOST").filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| "metadata.google.internal".into());
        let path = "computeMetadata/v1/instance/service-accounts/default/token";
        let url = BaseUrl::parse(&format!("http://{host}/{path}"));
        if url.is_none() {
            self.problem(&format!("{key}.metadata"), "a host in `GCE_METADATA_HOST`");
        }
        url
    }

    fn oauth(&mut self, key: &str, oauth: &OAuth) -> Option<TokenFiles> {
        let roots = oauth.ca.as_ref().map(|path| self.certificates(&format!("{key}.ca"), path));
        let (name, place) = oauth.secrets().next()?;
        let secret = self.secret(&format!("{key}.{name}"), place)?;
        let client = oauth.client_id.clone().unwrap_or_default();
        let grant = match name {
            "client_secret" => Grant::Secret { client, secret },
            "client_assertion" => Grant::Assertion { client, assertion: secret },
            _ => Grant::ApiKey(secret),
        };
        Some(TokenFiles {
            grant,
            url: oauth.token_url.clone(),
            scope: oauth.scope.clone(),
            roots: whole(roots)?,
        })
    }

    /// Reads a secret of any text.
    fn secret_text(&mut self, key: &str, place: &Credential) -> Option<SecretBytes> {
        match place {
            Credential::Env(name) => {
                let value = (self.environment)(name);
                if value.is_none() {
                    self.problem(&format!("{key}.env"), "an environment variable of that name that is set");
                }
                value.map(|value| SecretBytes(value.into_bytes()))
            }
            Credential::File(path) => {
                let key = format!("{key}.file");
                let Ok(bytes) = read_file(path) else {
                    self.problem(&key, "a file that can be read");
                    return None;
                };
                self.warn_if_open(&key, path);
                Some(SecretBytes(bytes))
            }
            Credential::Vault(at) => {
                let text = self.of_vault(key, at)?;
                Some(SecretBytes(text.as_bytes().to_vec()))
            }
        }
    }
}

fn read_key_file(text: &[u8]) -> Option<(Grant, BaseUrl)> {
    let file: KeyFile = serde_json::from_slice(text).ok()?;
    let pem = Zeroizing::new(file.private_key);
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
    let key = Zeroizing::new(key.secret_pkcs8_der().to_vec());
    RsaKeyPair::from_pkcs8(&key).ok()?;
    let url = BaseUrl::parse(&file.token_uri)?;
    let grant = Grant::ServiceAccount {
        email: file.client_email,
        key_id: file.private_key_id,
        audience: file.token_uri,
        key,
    };
    Some((grant, url))
}
