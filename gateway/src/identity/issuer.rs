//! An issuer's keys: fetched beside the traffic, kept while the issuer is away, fetched once more for a key that is new.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::fetch::Fetch;
use super::keyset::Keyset;
use super::token::{Token, TokenFault};
use crate::config::{BaseUrl, IssuerFiles, Jwks, JwtIssuer};
use crate::dispatch::pool::PoolError;
use crate::telemetry::{IdentityTelemetry, Telemetry};

/// How long keys are kept before they are fetched again, whatever their server says.
const SHORTEST: Duration = Duration::from_secs(300);
const LONGEST: Duration = Duration::from_secs(86_400);
/// How long where it says nothing.
const USUAL: Duration = Duration::from_secs(3600);
/// The waits after failures.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// How far apart fetches for tokens are that name a key which is not here.
const ASKS_APART: Duration = Duration::from_secs(30);
/// How long a request waits for keys.
const WAIT: Duration = Duration::from_secs(3);

/// An issuer, and its keys as they are known.
pub(crate) struct Issuer {
    typed: JwtIssuer,
    files: IssuerFiles,
    /// How it is asked; `None` where its keys are a file.
    fetch: Option<Fetch>,
    keys: ArcSwapOption<Taken>,
    /// How many fetches have ended.
    ended: watch::Sender<u64>,
    /// When the last one began.
    begun: Mutex<Option<Instant>>,
    /// Asks for one.
    asked: Notify,
    is_kept: AtomicBool,
    is_asking: AtomicBool,
    telemetry: IdentityTelemetry,
}

/// Keys, and when they came.
struct Taken {
    keys: Arc<Keyset>,
    at: Instant,
}

/// What is read of a discovery document.
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

impl Issuer {
    /// Of a configuration; with the keys of `before`, which has them from the same place.
    pub(super) fn new(
        typed: &JwtIssuer,
        files: &IssuerFiles,
        before: Option<&Self>,
        telemetry: &Telemetry,
    ) -> Result<Self, PoolError> {
        let (fetch, keys) = match (&typed.jwks, &files.jwks) {
            (Some(Jwks::File(_)), Some(bytes)) => (None, Keyset::parse(bytes, &typed.algorithms).ok()),
            (Some(Jwks::Url(url)), _) => (Some(Fetch::new(files.roots.clone(), url.tls)?), None),
            _ => {
                let uses_tls = typed.issuer.starts_with("https://");
                (Some(Fetch::new(files.roots.clone(), uses_tls)?), None)
            }
        };
        let keys = keys.map(|keys| Arc::new(Taken { keys: Arc::new(keys), at: Instant::now() }));
        let keys = keys.or_else(|| before?.keys.load_full());
        let telemetry = telemetry.identity.clone();
        if fetch.is_some() {
            telemetry.expect(&typed.name, keys.is_some());
        }
        Ok(Self {
            typed: typed.clone(),
            files: files.clone(),
            fetch,
            keys: ArcSwapOption::new(keys),
            ended: watch::Sender::new(0),
            begun: Mutex::new(None),
            asked: Notify::new(),
            is_kept: AtomicBool::new(false),
            is_asking: AtomicBool::new(false),
            telemetry,
        })
    }

    pub(super) fn typed(&self) -> &JwtIssuer {
        &self.typed
    }

    /// Whether it is what a configuration says.
    pub(super) fn is(&self, typed: &JwtIssuer, files: &IssuerFiles) -> bool {
        self.typed == *typed && self.files == *files
    }

    /// Whether it has the keys that a configuration speaks of, whatever else that says.
    pub(super) fn has_keys_of(&self, typed: &JwtIssuer, files: &IssuerFiles) -> bool {
        let of = |typed: &JwtIssuer| {
            (typed.issuer.clone(), typed.jwks.clone(), typed.discovery, typed.algorithms.clone())
        };
        of(&self.typed) == of(typed) && self.files == *files
    }

    /// The keys, where they are not too old to count.
    fn current(&self) -> Option<Arc<Keyset>> {
        let taken = self.keys.load_full()?;
        let counts = self.fetch.is_none() || taken.at.elapsed() < self.typed.max_stale;
        counts.then(|| Arc::clone(&taken.keys))
    }

    /// Begins to keep its keys fresh, once, until the issuer is dropped.
    pub(super) fn begin(self: &Arc<Self>) {
        if self.fetch.is_some() && !self.is_kept.swap(true, Ordering::AcqRel) {
            tokio::spawn(keep(Arc::downgrade(self)));
        }
    }

    /// The keys for a token. Waits a bounded time where there are none yet, or not the one that it names, and the issuer
    /// was not asked just before.
    ///
    /// # Errors
    /// There are no keys, or only such that are too old.
    pub(super) async fn keys(&self, token: &Token<'_>) -> Result<Arc<Keyset>, TokenFault> {
        if let Some(keys) = self.current().filter(|keys| keys.may_have(token.kid())) {
            return Ok(keys);
        }
        let mut ended = self.ended.subscribe();
        let before = *ended.borrow_and_update();
        if self.fetch.is_some() && self.may_ask() {
            self.asked.notify_one();
            let done = ended.wait_for(|count| *count > before);
            // Too late: what is known by then counts.
            let _ = tokio::time::timeout(WAIT, done).await;
        }
        self.current().ok_or(TokenFault::Unavailable)
    }

    /// Whether a request may ask for a fetch, or wait for the one that runs.
    fn may_ask(&self) -> bool {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_asking.load(Ordering::Acquire) || begun.is_none_or(|at| at.elapsed() >= ASKS_APART)
    }

    /// When a fetch may begin that a request asks for.
    fn not_before(&self) -> Option<Instant> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at + ASKS_APART)
    }

    /// Fetches the keys; how long they are good for.
    async fn refresh(&self) -> Result<Duration, String> {
        let Some(fetch) = &self.fetch else { return Ok(LONGEST) };
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.is_asking.store(true, Ordering::Release);
        let fetched = self.fetched(fetch).await;
        self.is_asking.store(false, Ordering::Release);
        match &fetched {
            Ok(_) => self.telemetry.taken(&self.typed.name),
            Err(_) => self.telemetry.failed(&self.typed.name),
        }
        self.ended.send_modify(|count| *count += 1);
        fetched
    }

    async fn fetched(&self, fetch: &Fetch) -> Result<Duration, String> {
        let url = match &self.typed.jwks {
            Some(Jwks::Url(url)) => url.to_string(),
            _ => self.discovered(fetch).await?,
        };
        let document = fetch.get(&url).await.map_err(|error| format!("`{url}`: {error}"))?;
        let keys = Keyset::parse(&document.body, &self.typed.algorithms);
        let keys = keys.map_err(|error| format!("`{url}`: {error}"))?;
        if keys.is_empty() {
            let issuer = self.typed.name.as_str();
            tracing::warn!(
                issuer,
                url,
                "the issuer has no key that can be used: every token of its is refused"
            );
        }
        self.keys.store(Some(Arc::new(Taken { keys: Arc::new(keys), at: Instant::now() })));
        // Asked again well before they are too old.
        let longest = LONGEST.min(self.typed.max_stale / 2).max(SHORTEST);
        Ok(document.max_age.unwrap_or(USUAL).clamp(SHORTEST, longest))
    }

    /// Where the keys are, by the issuer's own word (OpenID Connect Discovery 1.0, 4.3).
    async fn discovered(&self, fetch: &Fetch) -> Result<String, String> {
        let url = self.typed.discovery_url();
        let document = fetch.get(&url).await.map_err(|error| format!("`{url}`: {error}"))?;
        let found: Discovered = serde_json::from_slice(&document.body)
            .map_err(|_| format!("`{url}`: no JSON object with `issuer` and `jwks_uri`"))?;
        if found.issuer != self.typed.issuer {
            return Err(format!("`{url}` names another issuer than `{}`", self.typed.issuer));
        }
        // Keys that come over plain HTTP could be anyone's.
        let safe = BaseUrl::parse(&found.jwks_uri).is_some_and(|url| url.tls || url.is_loopback());
        if safe {
            Ok(found.jwks_uri)
        } else {
            Err(format!("`{url}`: its `jwks_uri` is no `https://` address"))
        }
    }
}

/// Keeps an issuer's keys fresh for as long as it is configured.
async fn keep(issuer: Weak<Issuer>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(held) = issuer.upgrade() else { return };
        let next = match held.refresh().await {
            Ok(good_for) => {
                pause = FIRST_PAUSE;
                good_for
            }
            Err(why) => {
                let (name, has_keys) = (held.typed.name.as_str(), held.keys.load().is_some());
                tracing::warn!(
                    issuer = name,
                    why,
                    has_keys,
                    "the issuer's keys could not be fetched; those that are here stay for `max_stale`"
                );
                let now = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                now
            }
        };
        drop(held);
        if !waited(&issuer, Instant::now() + next).await {
            return;
        }
    }
}

/// Waits until then, or until a request may and does ask before; false where the issuer is gone.
async fn waited(issuer: &Weak<Issuer>, then: Instant) -> bool {
    /// How soon it is seen that an issuer is configured no longer.
    const LOOK: Duration = Duration::from_secs(5);
    loop {
        let Some(held) = issuer.upgrade() else { return false };
        let left = then.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        tokio::select! {
            () = held.asked.notified() => {
                if held.not_before().is_none_or(|at| at <= Instant::now()) {
                    return true;
                }
            }
            () = tokio::time::sleep(left.min(LOOK)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicU64;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use schemas::Identifier;
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Algorithm;

    /// An issuer on loopback: what it answers, and how often it was asked.
    struct Server {
        url: String,
        answer: Arc<Mutex<String>>,
        count: Arc<AtomicU64>,
    }

    async fn server(kid: &str) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (answer, count) = (Arc::new(Mutex::new(set(kid))), Arc::new(AtomicU64::new(0)));
        let (told, counted) = (Arc::clone(&answer), Arc::clone(&count));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let body = told.lock().unwrap().clone();
                let text = if body.is_empty() {
                    "HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n".to_owned()
                } else {
                    format!(
                        "HTTP/1.1 200 OK\r\ncache-control: max-age=1\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    )
                };
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        Server { url, answer, count }
    }

    fn set(kid: &str) -> String {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x }] }).to_string()
    }

    fn issuer(url: &str) -> Arc<Issuer> {
        let typed = JwtIssuer {
            name: Identifier::new("i").unwrap(),
            issuer: "https://i.example".into(),
            audience: vec!["gateway".into()],
            jwks: BaseUrl::parse(url).map(Jwks::Url),
            discovery: false,
            ca: None,
            algorithms: vec![Algorithm::EdDSA],
            leeway: Duration::ZERO,
            max_stale: Duration::from_secs(86_400),
            consumer_prefix: None,
            claims: BTreeMap::new(),
            require: BTreeMap::new(),
        };
        Arc::new(Issuer::new(&typed, &IssuerFiles::default(), None, &Telemetry::new()).unwrap())
    }

    fn token(kid: &str) -> String {
        let part = |text: String| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.AAAA", part(json!({ "alg": "EdDSA", "kid": kid }).to_string()), part("{}".into()))
    }

    async fn has(issuer: &Issuer, kid: &str) -> Result<bool, TokenFault> {
        let text = token(kid);
        let keys = issuer.keys(&Token::read(&text).unwrap()).await?;
        Ok(keys.may_have(Some(kid)))
    }

    #[tokio::test]
    async fn the_first_use_waits_for_the_keys_and_many_at_once_ask_once() {
        let server = server("a").await;
        let issuer = issuer(&server.url);
        issuer.begin();
        issuer.begin();
        let all = futures_util::future::join_all((0..20).map(|_| has(&issuer, "a"))).await;
        assert!(all.iter().all(|one| *one == Ok(true)), "{all:?}");
        assert_eq!(server.count.load(Ordering::SeqCst), 1);
        // A key that is not here, just behind a fetch: those that there are are what there is.
        assert_eq!(has(&issuer, "b").await, Ok(false));
    }

    #[tokio::test]
    async fn a_new_key_is_fetched_once_in_thirty_seconds_and_keys_stay_while_the_issuer_is_away() {
        let server = server("a").await;
        let issuer = issuer(&server.url);
        issuer.begin();
        assert_eq!(has(&issuer, "a").await, Ok(true));
        *server.answer.lock().unwrap() = set("c");
        let before = server.count.load(Ordering::SeqCst);
        *issuer.begun.lock().unwrap() = Instant::now().checked_sub(Duration::from_secs(10));
        assert_eq!(has(&issuer, "c").await, Ok(false), "ten seconds are too soon");
        assert_eq!(server.count.load(Ordering::SeqCst), before);
        *issuer.begun.lock().unwrap() = Instant::now().checked_sub(Duration::from_secs(31));
        assert_eq!(has(&issuer, "c").await, Ok(true));
        assert_eq!(server.count.load(Ordering::SeqCst), before + 1);
        for broken in ["", "{}", "{\"keys\":7}"] {
            *server.answer.lock().unwrap() = broken.to_owned();
            assert!(issuer.refresh().await.is_err(), "{broken}");
            assert_eq!(has(&issuer, "c").await, Ok(true), "{broken}");
        }
        *server.answer.lock().unwrap() = "{\"keys\":[]}".to_owned();
        assert!(issuer.refresh().await.is_ok());
        assert_eq!(has(&issuer, "c").await, Ok(false), "an issuer withdraws its keys");
    }

    #[tokio::test]
    async fn keys_that_are_too_old_count_no_longer_and_an_edited_issuer_keeps_those_that_do() {
        let server = server("a").await;
        let first = issuer(&server.url);
        first.refresh().await.unwrap();
        server.answer.lock().unwrap().clear();
        let edited = |change: &dyn Fn(&mut JwtIssuer)| {
            let mut typed = first.typed.clone();
            change(&mut typed);
            let files = IssuerFiles::default();
            let before = Some(&*first).filter(|before| before.has_keys_of(&typed, &files));
            Arc::new(Issuer::new(&typed, &files, before, &Telemetry::new()).unwrap())
        };
        let renamed = edited(&|typed| typed.leeway = Duration::from_secs(1));
        assert_eq!(has(&renamed, "a").await, Ok(true));
        for other in [
            edited(&|typed| typed.issuer.push('x')),
            edited(&|typed| typed.algorithms = vec![Algorithm::ES256]),
        ] {
            assert_eq!(has(&other, "a").await, Err(TokenFault::Unavailable), "{}", other.typed.issuer);
        }
        let stale = edited(&|typed| typed.max_stale = Duration::ZERO);
        assert_eq!(has(&stale, "a").await, Err(TokenFault::Unavailable));
        *server.answer.lock().unwrap() = set("a");
    }

    #[tokio::test]
    async fn an_issuer_that_never_answered_is_unavailable_and_nobody_waits_long() {
        let server = server("a").await;
        server.answer.lock().unwrap().clear();
        let issuer = issuer(&server.url);
        issuer.begin();
        let begun = Instant::now();
        assert_eq!(has(&issuer, "a").await, Err(TokenFault::Unavailable));
        assert!(begun.elapsed() < WAIT + Duration::from_secs(1));
    }
}
