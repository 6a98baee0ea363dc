//! A Kafka cluster: its brokers, and how to get in. Each part of a configuration that names a topic has these keys.

use std::path::Path;
use std::time::Duration;

use policies::document::{Node, Problem, texts};
use schemars::JsonSchema;
use serde::Serialize;

use super::Credential;
use super::read::{Reader, credential, whole};
use super::tls::{self, ClientTls};

/// A Kafka cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Cluster {
    /// `host:port` of one or more brokers of the cluster.
    pub brokers: Vec<String>,
    /// TLS to the brokers, `{}` for the system's roots; absent: plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// Authentication to the brokers; absent: none but the certificate of `tls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<KafkaSasl>,
}

impl Cluster {
    /// A connection as the evidence's side takes it; `secret` is the password.
    pub(super) fn connection(&self, timeout: Duration, secret: Option<&str>) -> evidence::topic::Connection {
        use evidence::topic;
        topic::Connection {
            brokers: self.brokers.clone(),
            security: topic::Security {
                tls: self.tls.as_ref().map(|tls| topic::Tls {
                    ca: tls.ca.clone(),
                    client: tls.certificate.clone().zip(tls.key.clone()),
                }),
                sasl: self.sasl.as_ref().map(|sasl| sasl.settings(secret.unwrap_or_default())),
            },
            timeout,
        }
    }

    /// The password's place, where it is read at the start.
    pub(super) fn password(&self) -> Option<&Credential> {
        let sasl = self.sasl.as_ref()?;
        (sasl.mechanism != Mechanism::OAuthBearer).then_some(&sasl.secret)
    }

    /// Whether what is sent crosses a network in the clear.
    pub(super) fn is_in_the_clear(&self) -> bool {
        self.tls.is_none() && !self.brokers.iter().all(|broker| is_here(broker))
    }
}

/// Authentication to the brokers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct KafkaSasl {
    /// How.
    pub mechanism: Mechanism,
    /// The user; not with `oauthbearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where the password is; with `oauthbearer` a file with the token, read again before the token ends.
    pub secret: Credential,
}

/// How the gateway says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Mechanism {
    /// User and password as they are: over TLS only.
    #[serde(rename = "plain")]
    Plain,
    /// SCRAM-SHA-256.
    #[serde(rename = "scram-sha-256")]
    Scram256,
    /// SCRAM-SHA-512.
    #[serde(rename = "scram-sha-512")]
    Scram512,
    /// A bearer token out of a file, as Kubernetes or an agent puts it there.
    #[serde(rename = "oauthbearer")]
    OAuthBearer,
}

impl KafkaSasl {
    fn settings(&self, secret: &str) -> evidence::topic::Sasl {
        use evidence::topic::{Sasl, Scram};
        let user = self.user.clone().unwrap_or_default();
        let password = zeroize::Zeroizing::new(secret.to_owned());
        match (self.mechanism, &self.secret) {
            (Mechanism::Plain, _) => Sasl::Plain { user, password },
            (Mechanism::Scram256, _) => Sasl::Scram { hash: Scram::Sha256, user, password },
            (Mechanism::Scram512, _) => Sasl::Scram { hash: Scram::Sha512, user, password },
            (Mechanism::OAuthBearer, place) => {
                let place = place.clone();
                Sasl::OAuthBearer(std::sync::Arc::new(move || read_secret(&place)))
            }
        }
    }
}

/// The password or token as it is now.
pub(super) fn read_secret(place: &Credential) -> Result<zeroize::Zeroizing<String>, String> {
    let text = match place {
        Credential::File(path) => {
            std::fs::read_to_string(path).map_err(|error| format!("`{}`: {error}", path.display()))?
        }
        Credential::Env(name) => std::env::var(name).map_err(|_| format!("`{name}` is not set"))?,
        Credential::Vault(_) => {
            return Err("a token that is read again and again is a file or a variable".into());
        }
    };
    let text = zeroize::Zeroizing::new(text);
    Ok(zeroize::Zeroizing::new(text.trim().to_owned()))
}

/// Reads the cluster's keys; `None` where a required key is missing or unreadable.
pub(super) fn cluster(f: &mut Reader<'_, '_>) -> Option<Cluster> {
    let brokers = brokers(f);
    let tls = f.part_of("tls", tls::read);
    let sasl = f.part_of("sasl", sasl);
    Some(Cluster { brokers: brokers?, tls: whole(tls)?, sasl: whole(sasl)? })
}

fn brokers(f: &mut Reader<'_, '_>) -> Option<Vec<String>> {
    const FORM: &str = "brokers as `[kafka1.example:9093, kafka2.example:9093]`";
    let node = f.fields.required_node("brokers", FORM)?;
    let path = f.fields.path("brokers");
    let list = texts(node, &path, f.fields.problems());
    if list.is_empty() {
        f.fields.report(Problem::at(node.place, path, FORM));
        return None;
    }
    let mut is_whole = true;
    for (text, place) in &list {
        if !is_broker(text) {
            is_whole = false;
            f.fields.report(Problem::at(*place, &path, "a broker as `kafka1.example:9093`").value(text));
        }
    }
    is_whole.then(|| list.into_iter().map(|(text, _)| text).collect())
}

fn sasl(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<KafkaSasl> {
    let mut f = Reader::new(node, path, base, problems);
    let mechanisms = [
        ("plain", Mechanism::Plain),
        ("scram-sha-256", Mechanism::Scram256),
        ("scram-sha-512", Mechanism::Scram512),
        ("oauthbearer", Mechanism::OAuthBearer),
    ];
    f.fields.required_node("mechanism", "one of `plain`, `scram-sha-256`, `scram-sha-512`, `oauthbearer`");
    let mechanism = f.fields.choice("mechanism", &mechanisms);
    let user = f.fields.optional("user", "a user's name", |text| {
        ((1..=256).contains(&text.len()) && !text.contains(['\n', '\r'])).then(|| text.to_owned())
    });
    f.fields.required_node("secret", "`{env: NAME}` or `{file: PATH}`: where the password or token is");
    let secret = f.part_of("secret", credential);
    let is_bearer = mechanism == Some(Mechanism::OAuthBearer);
    if mechanism.is_some() && user.is_some() == is_bearer {
        let (place, key) = (f.fields.place_of("mechanism"), f.fields.path("user"));
        let wanted = if is_bearer { "nothing: the token says who it is" } else { "a user's name" };
        f.fields.report(Problem::at(place, key, wanted));
    }
    f.fields.finish();
    Some(KafkaSasl { mechanism: mechanism?, user, secret: secret?? })
}

pub(super) fn is_broker(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'))
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Whether a broker is on this machine.
fn is_here(broker: &str) -> bool {
    let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
