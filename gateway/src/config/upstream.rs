//! The way to a provider: through a proxy, with a certificate of the gateway's own, under tokens that it fetches.

use std::path::{Path, PathBuf};

use policies::document::{Node, Problem, Shape};
use schemars::JsonSchema;
use serde::Serialize;

use super::read::{Reader, credential, whole};
use super::{BaseUrl, Credential};

const URL_FORM: &str =
    "`http://` or `https://`, host and port, without user, path, `?` and `#`, as `http://proxy.example:3128`";
const TOKEN_URL_FORM: &str = "`http://` or `https://`, host, port and path, without user, `?` and `#`";
/// What Google's and Azure's own clients ask for.
const GOOGLE_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// The proxy that stands before providers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamProxy {
    /// None.
    Off,
    /// As the environment says when the configuration is read: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, or the same
    /// in lower case, which counts first.
    Environment,
    /// This one.
    #[serde(untagged)]
    At(Box<ProxyAt>),
}

/// Where a proxy is. It is asked for a tunnel (`CONNECT`) to every provider, also to those without TLS: it sees host and port,
/// and never a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ProxyAt {
    /// `http://` or `https://`, host and port.
    #[schemars(with = "String")]
    pub url: BaseUrl,
    /// `user:password` for the proxy (Basic).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// Where the proxy is passed by: a host and all below it (`example.com`, `.example.com`), an address, a network
    /// (`10.0.0.0/8`: of addresses, no name is looked up), `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub no_proxy: Vec<String>,
    /// PEM file of the roots to trust for the proxy's own certificate; absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// The certificate that the gateway shows to a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ClientCertificate {
    /// PEM file: certificate chain, the gateway's own first.
    pub certificate: PathBuf,
    /// PEM file: its private key.
    pub key: PathBuf,
}

/// Access tokens of Google, in the place of a key. One of `service_account` and `metadata`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Google {
    /// The key file (JSON) of a service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<Credential>,
    /// True: the service account of this machine, from Google's metadata server (`GCE_METADATA_HOST`, where it is set).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub metadata: bool,
    /// What is asked for.
    #[schemars(default = "google_scope")]
    pub scope: String,
    /// PEM file of the roots to trust for the token endpoint; absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

fn google_scope() -> &'static str {
    GOOGLE_SCOPE
}

/// Access tokens by OAuth 2.0, in the place of a key: client credentials (RFC 6749 4.4) with `client_id` and one of
/// `client_secret` and `client_assertion`, or IBM Cloud's grant with `api_key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OAuth {
    /// The token endpoint, as `https://login.microsoftonline.com/TENANT/oauth2/v2.0/token` or
    /// `https://iam.cloud.ibm.com/identity/token`.
    #[schemars(with = "String")]
    pub token_url: BaseUrl,
    /// The client's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Credential>,
    /// A signed token that stands for the secret (RFC 7523 2.2), as a workload's federated token file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_assertion: Option<Credential>,
    /// An API key of IBM Cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Credential>,
    /// What is asked for, as `https://cognitiveservices.azure.com/.default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// PEM file of the roots to trust for the token endpoint; absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

impl OAuth {
    /// What it names of secrets, by key.
    pub(super) fn secrets(&self) -> impl Iterator<Item = (&'static str, &Credential)> {
        [
            ("client_secret", &self.client_secret),
            ("client_assertion", &self.client_assertion),
            ("api_key", &self.api_key),
        ]
        .into_iter()
        .filter_map(|(key, place)| Some((key, place.as_ref()?)))
    }
}

/// Reads where the proxy is.
pub(super) fn proxy(
    node: &Node,
    path: &str,
    base: &Path,
    problems: &mut Vec<Problem>,
) -> Option<UpstreamProxy> {
    match (&node.shape, node.text()) {
        (_, Some("off")) => return Some(UpstreamProxy::Off),
        (_, Some("environment")) => return Some(UpstreamProxy::Environment),
        (Shape::Map(_), _) => {}
        _ => {
            // What stands here may hold a password: not shown.
            let wanted = "`off`, `environment`, or a proxy as `{url: 'http://proxy.example:3128'}`";
            problems.push(Problem::at(node.place, path, wanted));
            return None;
        }
    }
    let mut f = Reader::new(node, path, base, problems);
    let url = url(&mut f, "url", URL_FORM, |url| url.path.is_empty());
    let credential = f.part_of("credential", credential);
    let list = f.fields.texts("no_proxy").unwrap_or_default();
    for (text, place) in &list {
        if text.is_empty() || text.contains([',', ' ', '/']) && text.parse::<Network>().is_err() {
            let wanted = "a host, `.suffix`, an address, a network as `10.0.0.0/8`, or `*`";
            f.fields.report(Problem::at(*place, format!("{path}.no_proxy"), wanted).value(text));
        }
    }
    let ca = f.path("ca");
    f.fields.finish();
    Some(UpstreamProxy::At(Box::new(ProxyAt {
        url: url?,
        credential: whole(credential)?,
        no_proxy: list.into_iter().map(|(text, _)| text).collect(),
        ca,
    })))
}

/// An address with the length of its network's prefix.
struct Network;

impl std::str::FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, length) = text.split_once('/').ok_or(())?;
        let address: std::net::IpAddr = address.parse().map_err(|_| ())?;
        let length: u8 = length.parse().map_err(|_| ())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        (length <= most).then_some(Self).ok_or(())
    }
}

/// A URL that may hold a password by mistake: never shown.
fn url(
    f: &mut Reader<'_, '_>,
    key: &'static str,
    form: &str,
    fits: impl Fn(&BaseUrl) -> bool,
) -> Option<BaseUrl> {
    let node = f.fields.required_node(key, form)?;
    let read = node.text().and_then(BaseUrl::parse).filter(fits);
    if read.is_none() {
        let (place, path) = (f.fields.place_of(key), f.fields.path(key));
        f.fields.report(Problem::at(place, path, form));
    }
    read
}

/// Reads the certificate to show.
pub(super) fn client_certificate(
    node: &Node,
    path: &str,
    base: &Path,
    problems: &mut Vec<Problem>,
) -> Option<ClientCertificate> {
    let mut f = Reader::new(node, path, base, problems);
    let (certificate, key) = (f.required_path("certificate"), f.required_path("key"));
    f.fields.finish();
    Some(ClientCertificate { certificate: certificate?, key: key? })
}

/// Reads where Google's tokens come from.
pub(super) fn google(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Google> {
    let mut f = Reader::new(node, path, base, problems);
    let service_account = f.part_of("service_account", credential);
    let metadata = f.fields.truth("metadata").unwrap_or(false);
    let scope = f.fields.optional("scope", SCOPE_FORM, scope);
    let ca = f.path("ca");
    if service_account.is_some() == metadata {
        f.fields.report(Problem::at(node.place, path, "one of `service_account` and `metadata: true`"));
    }
    f.fields.finish();
    let scope = scope.unwrap_or_else(|| GOOGLE_SCOPE.to_owned());
    Some(Google { service_account: whole(service_account)?, metadata, scope, ca })
}

const SCOPE_FORM: &str = "scopes of visible ASCII characters, a space between them";

fn scope(text: &str) -> Option<String> {
    let fits = (1..=2048).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    fits.then(|| text.to_owned())
}

/// Reads where tokens by OAuth come from.
pub(super) fn oauth(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<OAuth> {
    let mut f = Reader::new(node, path, base, problems);
    let token_url = url(&mut f, "token_url", TOKEN_URL_FORM, |_| true);
    let form = "a client's id of 1 to 256 visible ASCII characters";
    let client_id = f.fields.optional("client_id", form, |text| {
        let fits = (1..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| text.to_owned())
    });
    let client_secret = f.part_of("client_secret", credential);
    let client_assertion = f.part_of("client_assertion", credential);
    let api_key = f.part_of("api_key", credential);
    let scope = f.fields.optional("scope", SCOPE_FORM, scope);
    let ca = f.path("ca");
    let ways = [client_secret.is_some(), client_assertion.is_some(), api_key.is_some()];
    if ways.iter().filter(|way| **way).count() != 1 || api_key.is_some() == client_id.is_some() {
        let wanted = "`client_id` with one of `client_secret` and `client_assertion`, or `api_key` alone";
        f.fields.report(Problem::at(node.place, path, wanted));
    }
    f.fields.finish();
    Some(OAuth {
        token_url: token_url?,
        client_id,
        client_secret: whole(client_secret)?,
        client_assertion: whole(client_assertion)?,
        api_key: whole(api_key)?,
        scope,
        ca,
    })
}
