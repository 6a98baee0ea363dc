//! Secrets of a Vault's, or an OpenBao's, key-value engine (version 2), as `GET /v1/MOUNT/data/PATH` gives them.
//!
//! Read when a configuration is loaded, each path once; the gateway logs in anew each time, so that no lease of a token has to
//! be kept alive. Nothing of a secret, and nothing that the server says in an error, is in a problem.
//!
//! A reload while the Vault is away goes on with the secrets in force: what else changed, as a gateway key that was taken back,
//! does not wait for it.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::Full;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::config::{Secret, Vault, VaultSecret};
use crate::identity::{Document, Fetch};

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");

/// How the gateway shows who it is.
pub(crate) enum Login {
    /// A token.
    Token(Secret),
    /// A role of the pod's service account, at a mount.
    Kubernetes { mount: String, role: String, token: Secret },
    /// A role with a secret, at a mount.
    Approle { mount: String, role_id: Secret, secret_id: Secret },
}

/// The secrets that a configuration read, by where they are.
#[derive(Clone, Default)]
pub(crate) struct Held {
    secrets: BTreeMap<VaultSecret, Zeroizing<String>>,
    /// Those that could not be read again, and why.
    kept: BTreeMap<VaultSecret, String>,
}

impl Held {
    /// Where the secrets are that could not be read again, and why.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (&VaultSecret, &str)> {
        self.kept.iter().map(|(at, why)| (at, why.as_str()))
    }
}

/// A Vault that is asked while a configuration is loaded.
pub(crate) struct Client {
    address: String,
    mount: String,
    namespace: Option<String>,
    fetch: Fetch,
    login: Login,
    token: Option<Zeroizing<String>>,
    seen: BTreeMap<String, Map<String, Value>>,
    /// Why nobody is asked any more: it did not let the gateway in, or did not answer.
    closed: Option<String>,
    /// The secrets in force.
    before: Held,
    held: Held,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Versioned {
    data: Map<String, Value>,
}

#[derive(Deserialize)]
struct LoggedIn {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
}

impl Client {
    /// Of a configuration; nothing is asked yet.
    ///
    /// # Errors
    /// Roots that cannot be used.
    pub(crate) fn new(
        typed: &Vault,
        roots: Option<Vec<CertificateDer<'static>>>,
        login: Login,
    ) -> Result<Self, String> {
        let fetch = Fetch::new(roots, typed.address.tls).map_err(|error| error.to_string())?;
        Ok(Self {
            address: typed.address.to_string(),
            mount: typed.mount.clone(),
            namespace: typed.namespace.clone(),
            fetch,
            login,
            token: None,
            seen: BTreeMap::new(),
            closed: None,
            before: Held::default(),
            held: Held::default(),
        })
    }

    /// With the secrets that the same Vault gave for the configuration in force.
    pub(crate) fn after(mut self, before: &Held) -> Self {
        self.before = before.clone();
        self
    }

    /// The secrets that were read.
    pub(crate) fn into_held(self) -> Held {
        self.held
    }

    /// Reads a secret; where that fails, the one in force. Blocks, also inside a runtime.
    ///
    /// # Errors
    /// Why it cannot be read, and none is in force.
    pub(crate) fn read(&mut self, at: &VaultSecret) -> Result<Zeroizing<String>, String> {
        let secret = match self.read_anew(at) {
            Ok(secret) => secret,
            Err(why) => {
                let secret = self.before.secrets.get(at).cloned().ok_or_else(|| why.clone())?;
                self.held.kept.insert(at.clone(), why);
                secret
            }
        };
        self.held.secrets.insert(at.clone(), secret.clone());
        Ok(secret)
    }

    fn read_anew(&mut self, at: &VaultSecret) -> Result<Zeroizing<String>, String> {
        if let Some(why) = self.closed.as_ref().filter(|_| !self.seen.contains_key(&at.path)) {
            return Err(why.clone());
        }
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.map_err(|error| error.to_string())?.block_on(self.ask(at))
            });
            thread.join().unwrap_or_else(|_| Err("reading broke off".to_owned()))
        })
    }

    async fn ask(&mut self, at: &VaultSecret) -> Result<Zeroizing<String>, String> {
        if !self.seen.contains_key(&at.path) {
            let token = match &self.token {
                Some(token) => token.clone(),
                None => {
                    let logged_in = self.logged_in().await;
                    // Each further try would wait as long, and count against the role.
                    logged_in.inspect_err(|why| self.closed = Some(why.clone()))?
                }
            };
            self.token = Some(token.clone());
            let request = Request::get(format!("{}/v1/{}/data/{}", self.address, self.mount, at.path));
            let request = self.with(request, Some(&token))?.body(Full::default()).map_err(text)?;
            let document = self.fetch.ask(request).await;
            let document = document.inspect_err(|why| self.closed = Some(why.clone()))?;
            let found: Answer<Versioned> = answered(&document, "secret")?;
            self.seen.insert(at.path.clone(), found.data.data);
        }
        let value = self.seen.get(&at.path).and_then(|secret| secret.get(&at.key)).and_then(Value::as_str);
        let value = value.ok_or_else(|| format!("the secret `{}` has no text `{}`", at.path, at.key))?;
        Ok(Zeroizing::new(value.to_owned()))
    }

    async fn logged_in(&self) -> Result<Zeroizing<String>, String> {
        let (mount, body) = match &self.login {
            Login::Token(token) => return Ok(Zeroizing::new(token.expose().to_owned())),
            Login::Kubernetes { mount, role, token } => {
                (mount, json!({ "role": role, "jwt": token.expose() }))
            }
            Login::Approle { mount, role_id, secret_id } => {
                (mount, json!({ "role_id": role_id.expose(), "secret_id": secret_id.expose() }))
            }
        };
        let request = Request::post(format!("{}/v1/auth/{mount}/login", self.address))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let request =
            self.with(request, None)?.body(Full::new(Bytes::from(body.to_string()))).map_err(text)?;
        let logged: LoggedIn = answered(&self.fetch.ask(request).await?, "login")?;
        Ok(Zeroizing::new(logged.auth.client_token))
    }

    fn with(
        &self,
        mut request: http::request::Builder,
        token: Option<&Zeroizing<String>>,
    ) -> Result<http::request::Builder, String> {
        if let Some(token) = token {
            let mut value =
                HeaderValue::try_from(token.as_str()).map_err(|_| "the token cannot stand in a header")?;
            value.set_sensitive(true);
            request = request.header(TOKEN, value);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header(NAMESPACE, namespace);
        }
        Ok(request)
    }
}

fn answered<T: for<'d> Deserialize<'d>>(document: &Document, what: &str) -> Result<T, String> {
    match document.status {
        StatusCode::OK => {}
        StatusCode::FORBIDDEN => {
            return Err(format!("status 403 to the {what}: the role may not, or is not known"));
        }
        StatusCode::NOT_FOUND => {
            return Err(format!("status 404 to the {what}: no such path, or it was deleted"));
        }
        other => return Err(format!("status {} to the {what}", other.as_u16())),
    }
    serde_json::from_slice(&document.body).map_err(|_| format!("the answer to the {what} has another form"))
}

fn text(error: http::Error) -> String {
    error.to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::config::{BaseUrl, Credential, VaultAuth};

    /// The answers of a key-value engine mounted at `kv`, and of the logins, by Vault's API documentation; gives its address.
    /// A token that begins with `sk-` or `logged-in` counts.
    pub(crate) fn server(secrets: &[(&str, &str, &str)]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let secrets: Vec<[String; 3]> = secrets
            .iter()
            .map(|(path, key, value)| [path, key, value].map(|text| (*text).to_owned()))
            .collect();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                let (mut head, mut buffer) = (String::new(), [0; 4096]);
                while !whole(&head) {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => break,
                        Ok(read) => head.push_str(&String::from_utf8_lossy(&buffer[..read])),
                    }
                }
                let (status, body) = answer(&secrets, &head);
                let text = format!(
                    "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(text.as_bytes());
            }
        });
        format!("http://{address}")
    }

    fn whole(request: &str) -> bool {
        let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        body.len() >= length.unwrap_or(0)
    }

    fn answer(secrets: &[[String; 3]], request: &str) -> (u16, String) {
        let line = request.lines().next().unwrap_or_default();
        let logged_in =
            json!({ "auth": { "client_token": "logged-in-1", "lease_duration": 60 } }).to_string();
        if line.starts_with("POST /v1/auth/approle/login ") {
            let fits = request.contains(r#""role_id":"role""#) && request.contains(r#""secret_id":"s3cret""#);
            return if fits {
                (200, logged_in)
            } else {
                (400, r#"{"errors":["invalid role or secret ID"]}"#.into())
            };
        }
        if line.starts_with("POST /v1/auth/k8s/login ") {
            let fits = request.contains(r#""role":"gateway""#) && request.contains(r#""jwt":"eyJ.a.b""#);
            return if fits { (200, logged_in) } else { (403, r#"{"errors":["permission denied"]}"#.into()) };
        }
        let head = request.to_lowercase();
        if !head.contains("x-vault-token: sk-") && !head.contains("x-vault-token: logged-in-1") {
            return (403, r#"{"errors":["permission denied"]}"#.into());
        }
        let found = secrets.iter().find(|[path, ..]| line.starts_with(&format!("GET /v1/kv/data/{path} ")));
        match found {
            Some([_, key, value]) => {
                let data =
                    json!({ "data": { "data": { key: value, "number": 7 }, "metadata": { "version": 3 } } });
                (200, data.to_string())
            }
            None => (404, r#"{"errors":[]}"#.into()),
        }
    }

    fn client(address: &str, login: Login) -> Client {
        let typed = Vault {
            address: BaseUrl::parse(address).unwrap(),
            ca: None,
            auth: VaultAuth::Token(Credential::Env("X".into())),
            mount: "kv".into(),
            namespace: None,
            refresh: Duration::from_secs(1),
        };
        Client::new(&typed, None, login).unwrap()
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    #[test]
    fn each_way_in_leads_to_the_secret_and_a_wrong_one_is_told_without_it() {
        let address = server(&[("llm/openai", "api_key", "sk-1")]);
        let at = |key: &str| VaultSecret { path: "llm/openai".into(), key: key.into() };
        let approle = |secret_id: &str| Login::Approle {
            mount: "approle".into(),
            role_id: secret("role"),
            secret_id: secret(secret_id),
        };
        let pod = Login::Kubernetes { mount: "k8s".into(), role: "gateway".into(), token: secret("eyJ.a.b") };
        for login in [Login::Token(secret("sk-root")), approle("s3cret"), pod] {
            let mut client = client(&address, login);
            assert_eq!(client.read(&at("api_key")).unwrap().as_str(), "sk-1");
            assert_eq!(
                client.read(&at("number")).unwrap_err(),
                "the secret `llm/openai` has no text `number`"
            );
        }
        let wrong = client(&address, approle("wr0ng")).read(&at("api_key")).unwrap_err();
        assert_eq!(wrong, "status 400 to the login");
        let unknown = client(&address, Login::Token(secret("unknown"))).read(&at("api_key")).unwrap_err();
        assert_eq!(unknown, "status 403 to the secret: the role may not, or is not known");
        assert!(client("http://127.0.0.1:1", Login::Token(secret("sk-root"))).read(&at("api_key")).is_err());
    }

    #[test]
    fn while_the_vault_is_away_the_secrets_in_force_stay_and_it_is_asked_once() {
        let at = |path: &str| VaultSecret { path: path.into(), key: "b".into() };
        let mut before = client(&server(&[("a", "b", "sk-2")]), Login::Token(secret("sk-root")));
        before.read(&at("a")).unwrap();
        let before = before.into_held();
        assert_eq!(before.kept().count(), 0);
        // Whoever connects is counted, and gets no answer.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = std::sync::Arc::clone(&count);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                drop(stream);
            }
        });
        for login in [
            Login::Token(secret("sk-root")),
            Login::Kubernetes { mount: "k8s".into(), role: "gateway".into(), token: secret("eyJ.a.b") },
        ] {
            let asked = count.load(std::sync::atomic::Ordering::SeqCst);
            let mut away = client(&address, login).after(&before);
            assert_eq!(away.read(&at("a")).unwrap().as_str(), "sk-2");
            assert!(away.read(&at("new")).is_err(), "one that was never read is not there");
            assert_eq!(away.read(&at("a")).unwrap().as_str(), "sk-2");
            assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), asked + 1, "one try a load");
            let held = away.into_held();
            assert_eq!(held.kept().map(|(at, _)| at.path.as_str()).collect::<Vec<_>>(), ["a"]);
            // Away for longer than one load.
            let mut still = client(&address, Login::Token(secret("sk-root"))).after(&held);
            assert_eq!(still.read(&at("a")).unwrap().as_str(), "sk-2");
        }
    }

    #[tokio::test]
    async fn it_is_read_inside_a_runtime_too() {
        let address = server(&[("a", "b", "sk-2")]);
        let at = VaultSecret { path: "a".into(), key: "b".into() };
        assert_eq!(client(&address, Login::Token(secret("sk-root"))).read(&at).unwrap().as_str(), "sk-2");
    }
}
