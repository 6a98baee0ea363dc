//! An issuer of tokens on loopback: discovery, keys that can be rotated, and signatures of any claims, right or wrong.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// An issuer with one key at a time (ES256). Stops when dropped.
#[derive(Debug)]
pub struct Issuer {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    kid: String,
    pkcs8: Vec<u8>,
    is_away: bool,
    asked: u64,
}

fn key() -> Vec<u8> {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    pkcs8.expect("a key").as_ref().to_vec()
}

fn pair(pkcs8: &[u8]) -> EcdsaKeyPair {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new()).expect("its key")
}

fn part(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Issuer {
    /// Starts one on a free port, with a key `key-1`.
    ///
    /// # Panics
    /// Where no port can be had.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = State { kid: "key-1".into(), pkcs8: key(), is_away: false, asked: 0 };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 16 << 10];
                let read = stream.read(&mut head).await.unwrap_or(0);
                let line = String::from_utf8_lossy(head.get(..read).unwrap_or_default()).into_owned();
                let answer = answer(&shared, &line, address);
                // Who asked may have gone.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, state, task }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name: the claim `iss`.
    pub fn name(&self) -> String {
        format!("http://{}", self.address)
    }

    /// It has another key from now on, and shows only that.
    pub fn rotate(&self, kid: &str) {
        let mut state = self.state();
        state.kid = kid.to_owned();
        state.pkcs8 = key();
    }

    /// It answers 503, or answers again.
    pub fn set_away(&self, is_away: bool) {
        self.state().is_away = is_away;
    }

    /// How often its keys were asked for.
    pub fn asked(&self) -> u64 {
        self.state().asked
    }

    /// Its public key as it shows it.
    pub fn public(&self) -> Value {
        shown(&self.state())
    }

    /// The header of its tokens.
    pub fn header(&self) -> Value {
        json!({ "alg": "ES256", "typ": "JWT", "kid": self.state().kid })
    }

    /// Claims of a token for `audience` that counts for a minute from now.
    pub fn claims(&self, audience: &str, subject: &str) -> Value {
        let now = now();
        json!({ "iss": self.name(), "aud": audience, "sub": subject, "iat": now, "nbf": now, "exp": now + 60 })
    }

    /// Signs whatever it is told to.
    ///
    /// # Panics
    /// Where its key does not sign.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", part(header.to_string()), part(claims.to_string()));
        let signature =
            pair(&self.state().pkcs8).sign(&SystemRandom::new(), text.as_bytes()).expect("a signature");
        format!("{text}.{}", part(signature))
    }

    /// A token as it should be.
    pub fn token(&self, audience: &str, subject: &str) -> String {
        self.sign(&self.header(), &self.claims(audience, subject))
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn shown(state: &State) -> Value {
    let pair = pair(&state.pkcs8);
    let point = pair.public_key().as_ref();
    let (x, y) = (point.get(1..33).unwrap_or_default(), point.get(33..65).unwrap_or_default());
    json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": state.kid, "x": part(x), "y": part(y) })
}

fn answer(state: &Mutex<State>, line: &str, address: SocketAddr) -> String {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let path = line.split(' ').nth(1).unwrap_or_default();
    let body = match path {
        _ if state.is_away => None,
        "/.well-known/openid-configuration" => {
            let name = format!("http://{address}");
            Some(json!({ "issuer": name, "jwks_uri": format!("{name}/keys") }))
        }
        "/keys" => {
            state.asked += 1;
            Some(json!({ "keys": [shown(&state)] }))
        }
        _ => None,
    };
    match body {
        Some(body) => {
            let body = body.to_string();
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
        }
        None => "HTTP/1.1 503 Away\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
