//! A connection to Kafka: what was configured, as librdkafka takes it, and what its errors mean.
//!
//! librdkafka speaks TLS and SASL by the OpenSSL that it is built with; nothing else here uses that.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::Metadata;
use zeroize::Zeroizing;

use crate::store::{StoreError, Trouble};

/// For how long a token is taken to hold that does not say so itself.
const TOKEN_LIFE_MS: i64 = 5 * 60 * 1000;
/// How long events are taken before an answer is waited for, and how long that is at a time.
const EVENTS_FOR: Duration = Duration::from_millis(50);
const ASK_FOR: Duration = Duration::from_secs(1);

/// The brokers, and how to get in.
#[derive(Debug, Clone)]
pub struct Connection {
    /// `host:port`, one or more of the cluster's brokers.
    pub brokers: Vec<String>,
    /// How the connection is protected, and who we are.
    pub security: Security,
    /// The longest wait for an answer.
    pub timeout: Duration,
}

/// How a connection is protected, and who we are.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// TLS; absent: plain.
    pub tls: Option<Tls>,
    /// Authentication; absent: none, or the client certificate of `tls`.
    pub sasl: Option<Sasl>,
}

/// TLS to the brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the roots to trust; absent: the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of our certificate and its private key, where the brokers ask for one.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Which hash SCRAM uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scram {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Where a bearer token comes from: asked again before the last one ends.
pub type TokenSource = Arc<dyn Fn() -> Result<Zeroizing<String>, String> + Send + Sync>;

/// Authentication.
#[derive(Clone)]
pub enum Sasl {
    /// User and password as they are: over TLS only.
    Plain {
        /// The user.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// User and password, never sent as they are.
    Scram {
        /// The hash.
        hash: Scram,
        /// The user.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// A token (RFC 7628).
    OAuthBearer(TokenSource),
}

impl std::fmt::Debug for Sasl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain { user, .. } => write!(f, "Plain({user})"),
            Self::Scram { hash, user, .. } => write!(f, "Scram({hash:?}, {user})"),
            Self::OAuthBearer(_) => f.write_str("OAuthBearer"),
        }
    }
}

impl Connection {
    /// What every client of these brokers is configured with; `who` is what the brokers' logs call it.
    pub(crate) fn config(&self, who: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        let timeout_ms = self.timeout.as_millis().clamp(1000, 300_000).to_string();
        config
            .set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", who)
            .set("allow.auto.create.topics", "false")
            .set("socket.timeout.ms", &timeout_ms)
            .set("socket.keepalive.enable", "true")
            // How fast a topic that was made anew, or moved, is found again.
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("reconnect.backoff.max.ms", "5000");
        let protocol = match (&self.security.tls, &self.security.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.security.tls {
            // The OpenSSL that is built in knows no folder of roots: `probe` looks where systems have them.
            let ca = tls.ca.as_ref().map_or("probe".into(), |ca| ca.display().to_string());
            config.set("ssl.ca.location", ca).set("ssl.endpoint.identification.algorithm", "https");
            if let Some((certificate, key)) = &tls.client {
                config.set("ssl.certificate.location", certificate.display().to_string());
                config.set("ssl.key.location", key.display().to_string());
            }
        }
        match &self.security.sasl {
            None => {}
            Some(Sasl::Plain { user, password }) => {
                config.set("sasl.mechanism", "PLAIN");
                config.set("sasl.username", user).set("sasl.password", password.as_str());
            }
            Some(Sasl::Scram { hash, user, password }) => {
                let mechanism = if *hash == Scram::Sha256 { "SCRAM-SHA-256" } else { "SCRAM-SHA-512" };
                config.set("sasl.mechanism", mechanism);
                config.set("sasl.username", user).set("sasl.password", password.as_str());
            }
            Some(Sasl::OAuthBearer(_)) => {
                config.set("sasl.mechanism", "OAUTHBEARER");
            }
        }
        config
    }

    /// What every reader is configured with.
    pub(crate) fn reader_config(&self, who: &str) -> ClientConfig {
        let mut config = self.config(who);
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Nothing rests on transactions: one that somebody leaves open would hold up all that comes behind it.
            .set("isolation.level", "read_uncommitted")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "250");
        config
    }

    /// Whether we say who we are by a token.
    pub(crate) fn is_bearer(&self) -> bool {
        matches!(self.security.sasl, Some(Sasl::OAuthBearer(_)))
    }

    /// What every client of these brokers hears.
    pub(crate) fn context(&self) -> Context {
        let token = match &self.security.sasl {
            Some(Sasl::OAuthBearer(source)) => Some(Arc::clone(source)),
            _ => None,
        };
        Context { token, last: Mutex::default() }
    }
}

/// What was not done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) trouble: Trouble,
    pub(crate) detail: String,
}

impl Failed {
    pub(crate) fn new(trouble: Trouble, detail: impl Into<String>) -> Self {
        Self { trouble, detail: detail.into() }
    }

    /// The error for the caller.
    pub(crate) fn store(self, action: &'static str, name: impl ToString) -> StoreError {
        StoreError::Service { action, name: name.to_string(), trouble: self.trouble, detail: self.detail }
    }
}

/// What the brokers say of a topic. Events of the library are taken meanwhile: by one it asks for a token, others say why no
/// answer comes. Only for a reader that is assigned nothing: messages that came would be lost.
pub(crate) fn metadata(
    reader: &BaseConsumer<Context>,
    topic: &str,
    patience: Duration,
) -> Result<Metadata, Failed> {
    let until = Instant::now() + patience;
    loop {
        let heard = Instant::now() + EVENTS_FOR;
        while Instant::now() < heard {
            if let Some(Err(error)) = reader.poll(EVENTS_FOR) {
                let failed = reader.context().failed(&error);
                if failed.trouble.needs_someone() {
                    return Err(failed);
                }
            }
        }
        match reader.fetch_metadata(Some(topic), ASK_FOR) {
            Ok(metadata) => return Ok(metadata),
            Err(error) if Instant::now() >= until => return Err(reader.context().failed(&error)),
            Err(_) => {}
        }
    }
}

/// Hears what librdkafka says: its log lines, the last error of a connection, and its wish for a token.
pub(crate) struct Context {
    token: Option<TokenSource>,
    last: Mutex<Option<Failed>>,
}

impl Context {
    /// Why something failed. That a message waited too long, or that no broker is up, says little: the last error of
    /// a connection says why.
    pub(crate) fn failed(&self, error: &KafkaError) -> Failed {
        let mut failed = Failed::new(trouble(error), pointed(error, error.to_string()));
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if matches!(failed.trouble, Trouble::Timeout | Trouble::Connection)
            && let Some(last) = last
        {
            failed = Failed::new(last.trouble, format!("{}: {}", failed.detail, last.detail));
        }
        failed
    }

    /// Forgets the last error of a connection: something was done since.
    pub(crate) fn done(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes back as an error of a call too.
        tracing::debug!(facility, message, "kafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = if is_certificate(reason) { Trouble::Credentials } else { trouble(&error) };
        let failed = Failed::new(trouble, pointed(&error, reason.to_owned()));
        // That all brokers are down is said behind each error that says why.
        let is_summary = matches!(error.rdkafka_error_code(), Some(Code::AllBrokersDown));
        if !is_summary || last.is_none() {
            *last = Some(failed);
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let source = self.token.as_ref().ok_or("no token is configured")?;
        let token = source()?;
        let (principal_name, lifetime_ms) = claims(&token);
        Ok(OAuthToken { token: token.to_string(), principal_name, lifetime_ms })
    }
}

/// Subject and end of a token that is a JWT; what another one is, only the broker knows.
fn claims(token: &str) -> (String, i64) {
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok())
        .and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok());
    let subject = claims.as_ref().and_then(|claims| claims.get("sub")?.as_str().map(str::to_owned));
    let end = claims.as_ref().and_then(|claims| claims.get("exp")?.as_i64()?.checked_mul(1000));
    (subject.unwrap_or_default(), end.unwrap_or(now_ms.saturating_add(TOKEN_LIFE_MS)))
}

/// The text of an error, and which part of the configuration to look at, where it says so.
fn pointed(error: &KafkaError, text: String) -> String {
    let part = match error.rdkafka_error_code() {
        Some(code) if code == Code::SSL || is_certificate(&text) => {
            "`kafka.tls`: wanted as `ca` the roots of the brokers' certificates, which are for the hosts in `brokers`, \
             and `certificate` and `key` where the brokers ask for them"
        }
        Some(Code::BrokerTransportFailure) if text.contains("security.protocol") => {
            "`kafka.tls`, `kafka.sasl`: wanted as the brokers' listener has them"
        }
        Some(code) if of_code(code) == Trouble::Credentials => {
            "`kafka.sasl`: wanted a mechanism that the brokers offer, and a user with password, or a token, that they know"
        }
        Some(code) if of_code(code) == Trouble::Denied => {
            "`kafka.sasl`: wanted a user with the rights that deploy/README.md lists"
        }
        _ => return text,
    };
    // What an error says of itself may be part of what its connection says.
    if text.contains(part) { text } else { format!("{text}; {part}") }
}

/// Whether the text of a connection's error says that a certificate was refused, the broker's here or ours there: only
/// someone's act changes that. The library has no code for it, and of TLS 1.3 a refusal of ours comes on a connection that
/// seemed to be up, as one that is cut.
fn is_certificate(text: &str) -> bool {
    text.contains("SSL routines") && (text.contains("certificate") || text.contains("unknown ca"))
}

/// Whether a message came that cannot be unpacked: its kind of compression is not known here, or its bytes are damaged.
pub(crate) fn is_unreadable(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(Code::NotImplemented | Code::BadCompression | Code::BadMessage)
    )
}

/// What an error of librdkafka means.
pub(crate) fn trouble(error: &KafkaError) -> Trouble {
    match error {
        KafkaError::AdminOp(code) => of_code(*code),
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => Trouble::Refused,
        other => other.rdkafka_error_code().map_or(Trouble::Unavailable, of_code),
    }
}

fn of_code(code: Code) -> Trouble {
    match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::DelegationTokenExpired => Trouble::Credentials,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => Trouble::Denied,
        Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId => Trouble::NoTopic,
        Code::MessageTimedOut | Code::OperationTimedOut | Code::TimedOutQueue | Code::RequestTimedOut => {
            Trouble::Timeout
        }
        Code::AllBrokersDown
        | Code::BrokerTransportFailure
        | Code::Resolve
        | Code::SSL
        | Code::NetworkException => Trouble::Connection,
        Code::ThrottlingQuotaExceeded | Code::QueueFull => Trouble::Throttled,
        Code::InvalidMessage | Code::BadMessage => Trouble::Damaged,
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidConfig
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidTopic
        | Code::PolicyViolation
        | Code::UnsupportedVersion
        | Code::UnsupportedCompressionType
        | Code::NotImplemented
        | Code::InvalidArgument => Trouble::Refused,
        _ => Trouble::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn connection(security: Security) -> Connection {
        Connection {
            brokers: vec!["a:9092".into(), "b:9092".into()],
            security,
            timeout: Duration::from_secs(30),
        }
    }

    #[test]
    fn what_is_configured_is_what_librdkafka_gets() {
        let secret = || Zeroizing::new("hunter2".to_owned());
        let plain = connection(Security::default()).config("gw1");
        assert_eq!(plain.get("bootstrap.servers"), Some("a:9092,b:9092"));
        assert_eq!(plain.get("security.protocol"), Some("plaintext"));
        let client = Some((PathBuf::from("/c.pem"), PathBuf::from("/k.pem")));
        let tls = connection(Security { tls: Some(Tls { ca: None, client }), sasl: None }).config("gw1");
        assert_eq!(tls.get("security.protocol"), Some("ssl"));
        assert_eq!(tls.get("ssl.ca.location"), Some("probe"));
        assert_eq!(tls.get("ssl.key.location"), Some("/k.pem"));
        let sasl = Sasl::Scram { hash: Scram::Sha512, user: "gw".into(), password: secret() };
        let both = connection(Security { tls: Some(Tls::default()), sasl: Some(sasl.clone()) }).config("gw1");
        assert_eq!(both.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(both.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
        assert!(!format!("{sasl:?}").contains("hunter2"));
        let sasl = Sasl::Plain { user: "gw".into(), password: secret() };
        let open = connection(Security { tls: None, sasl: Some(sasl) }).config("gw1");
        assert_eq!(open.get("security.protocol"), Some("sasl_plaintext"));
        assert_eq!(open.get("sasl.mechanism"), Some("PLAIN"));
        // Each is a configuration that the library takes.
        for config in [plain, both, open] {
            config.create_native_config().unwrap();
        }
    }

    #[test]
    fn a_tokens_own_end_and_subject_are_taken() {
        let token = format!("x.{}.y", URL_SAFE_NO_PAD.encode(br#"{"sub":"gw1","exp":2000000000}"#));
        assert_eq!(claims(&token), ("gw1".into(), 2_000_000_000_000));
        let (subject, end) = claims("opaque");
        assert!(subject.is_empty() && end > 1_700_000_000_000);
        let source: TokenSource = Arc::new(move || Ok(Zeroizing::new(token.clone())));
        let security = Security { tls: None, sasl: Some(Sasl::OAuthBearer(source)) };
        let context = connection(security).context();
        assert_eq!(context.generate_oauth_token(None).unwrap().lifetime_ms, 2_000_000_000_000);
        assert!(connection(Security::default()).context().generate_oauth_token(None).is_err());
    }

    #[test]
    fn errors_have_a_meaning_and_the_connections_last_one_says_why() {
        for (code, wanted) in [
            (Code::SaslAuthenticationFailed, Trouble::Credentials),
            (Code::TopicAuthorizationFailed, Trouble::Denied),
            (Code::UnknownTopicOrPartition, Trouble::NoTopic),
            (Code::MessageTimedOut, Trouble::Timeout),
            (Code::NotEnoughReplicas, Trouble::Unavailable),
            (Code::MessageSizeTooLarge, Trouble::Refused),
        ] {
            assert_eq!(trouble(&KafkaError::MessageProduction(code)), wanted, "{code:?}");
        }
        let context = connection(Security::default()).context();
        let timeout = KafkaError::MessageProduction(Code::MessageTimedOut);
        assert_eq!(context.failed(&timeout).trouble, Trouble::Timeout);
        context.error(KafkaError::Global(Code::Authentication), "wrong password");
        context.error(KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        let failed = context.failed(&timeout);
        assert_eq!(failed.trouble, Trouble::Credentials);
        assert!(failed.detail.contains("wrong password; `kafka.sasl`: wanted"), "{}", failed.detail);
        context.error(KafkaError::Global(Code::SSL), "SSL handshake failed: Disconnected");
        let failed = context.failed(&timeout);
        assert_eq!(failed.trouble, Trouble::Connection);
        assert!(failed.detail.contains("`kafka.tls`: wanted"), "{}", failed.detail);
        // A certificate that is refused is no outage, whichever side refuses it.
        for (code, reason) in [
            (Code::SSL, "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed"),
            (
                Code::BrokerTransportFailure,
                "Receive failed: error:0A000416:SSL routines::ssl/tls alert certificate unknown",
            ),
            (Code::BrokerTransportFailure, "error:0A00045C:SSL routines::tlsv13 alert certificate required"),
            (Code::BrokerTransportFailure, "error:0A000418:SSL routines::tlsv1 alert unknown ca"),
        ] {
            context.error(KafkaError::Global(code), reason);
            context.error(KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
            let failed = context.failed(&timeout);
            assert_eq!(failed.trouble, Trouble::Credentials, "{reason}");
            assert!(failed.detail.contains("`kafka.tls`: wanted"), "{}", failed.detail);
        }
        context.error(KafkaError::Global(Code::BrokerTransportFailure), "incorrect security.protocol?");
        assert!(context.failed(&timeout).detail.contains("`kafka.tls`, `kafka.sasl`: wanted"));
        context.done();
        assert_eq!(context.failed(&timeout).trouble, Trouble::Timeout);
    }
}
