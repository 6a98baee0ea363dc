//! Ways into a broker: certificates of an authority of the tests, users with passwords, and signed tokens.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use crate::process::free_port;

/// The users that the broker knows; the password of each is its name and `-secret`.
const USERS: [&str; 2] = ["gw1", "ar1"];
/// For whom tokens are that the broker takes.
const AUDIENCE: &str = "brokers";

/// A certificate authority, with what it gave out in a folder.
#[derive(Debug)]
pub struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// The PEM files of a certificate and its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("authority").tempdir().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Affidavit tests");
        let own = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("ca.pem"), own.pem()).expect("a file");
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// The PEM file of its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a host, in the name of `common`.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn certificate(&self, common: &str, host: &str) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, common);
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |ending: &str, text: String| {
            let path = self.folder.path().join(format!("{common}.{ending}"));
            std::fs::write(&path, text).expect("a file");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, mode).expect("its mode");
            path
        };
        // Brokers take key and certificate in one file.
        file("both", format!("{}{}", key.serialize_pem(), signed.pem()));
        Certificate { certificate: file("pem", signed.pem()), key: file("key", key.serialize_pem()) }
    }

    fn both(&self, common: &str) -> PathBuf {
        self.folder.path().join(format!("{common}.both"))
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// Signs tokens (JWT, ES256).
#[derive(Debug)]
pub struct Tokens(EcdsaKeyPair);

impl Tokens {
    /// With a new key.
    ///
    /// # Panics
    /// Where none can be made.
    pub fn new() -> Self {
        let (random, form) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let key = EcdsaKeyPair::generate_pkcs8(form, &random).expect("a key");
        Self(EcdsaKeyPair::from_pkcs8(form, key.as_ref(), &random).expect("a key"))
    }

    /// A token for `subject` that ends `life_s` seconds from now.
    ///
    /// # Panics
    /// Where it cannot be signed.
    pub fn token(&self, subject: &str, life_s: i64) -> String {
        self.token_for(subject, AUDIENCE, life_s)
    }

    /// As [`Tokens::token`], for another service than these brokers.
    ///
    /// # Panics
    /// As there.
    pub fn token_for(&self, subject: &str, audience: &str, life_s: i64) -> String {
        let now = jiff::Timestamp::now().as_second();
        let head = r#"{"alg":"ES256","kid":"1","typ":"JWT"}"#;
        let (begun, end) = (now.min(now + life_s) - 60, now + life_s);
        let claims = format!(
            r#"{{"iss":"tests","sub":"{subject}","aud":"{audience}","iat":{begun},"exp":{end},"scope":"kafka"}}"#
        );
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The public key as brokers read it.
    fn set(&self) -> String {
        let point = self.0.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..65]].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!(
            r#"{{"keys":[{{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"1","x":"{x}","y":"{y}"}}]}}"#
        )
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self::new()
    }
}

/// The ways into a broker that is guarded. Whoever comes by TLS without a certificate is nobody, who may do everything, as
/// on the plain listener; all others have the rights that they were given.
#[derive(Debug)]
pub struct Guard {
    /// Whose certificates the broker has and takes.
    pub authority: Authority,
    /// Whose tokens the broker takes.
    pub tokens: Tokens,
    /// TLS.
    pub tls: SocketAddr,
    /// TLS that asks for a certificate; the user is `CN=...`.
    pub mutual: SocketAddr,
    /// TLS with the certificate of another host.
    pub elsewhere: SocketAddr,
    /// SASL over TLS.
    pub sasl: SocketAddr,
}

impl Guard {
    pub(super) fn new() -> Self {
        let authority = Authority::new();
        authority.certificate("broker", "127.0.0.1");
        authority.certificate("elsewhere", "elsewhere.example");
        let tokens = Tokens::new();
        let set = authority.folder.path().join("keys.json");
        std::fs::write(set, tokens.set()).expect("a file");
        let [tls, mutual, elsewhere, sasl] = [(); 4].map(|()| free_port());
        Self { authority, tokens, tls, mutual, elsewhere, sasl }
    }

    pub(super) fn listeners(&self) -> Vec<(&'static str, &'static str, SocketAddr)> {
        vec![
            ("TLS", "SSL", self.tls),
            ("MUTUAL", "SSL", self.mutual),
            ("ELSEWHERE", "SSL", self.elsewhere),
            ("SASL", "SASL_SSL", self.sasl),
        ]
    }

    fn key_set(&self) -> String {
        format!("file://{}", self.authority.folder.path().join("keys.json").display())
    }

    pub(super) fn options(&self) -> Vec<String> {
        vec![format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={}", self.key_set())]
    }

    /// Users whose passwords the broker keeps itself.
    pub(super) fn users(&self) -> Vec<String> {
        let of = |user: &&str| {
            ["SCRAM-SHA-256", "SCRAM-SHA-512"]
                .map(|kind| ["--add-scram".into(), format!("{kind}=[name={user},password={user}-secret]")])
        };
        USERS.iter().flat_map(of).flatten().collect()
    }

    pub(super) fn settings(&self) -> String {
        let security = "org.apache.kafka.common.security";
        let store = |path: &Path| path.display().to_string();
        let mut text = String::from(
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\n",
        );
        for (listener, common) in
            [("tls", "broker"), ("mutual", "broker"), ("elsewhere", "elsewhere"), ("sasl", "broker")]
        {
            let _ = write!(
                text,
                "listener.name.{listener}.ssl.keystore.type=PEM\n\
                 listener.name.{listener}.ssl.keystore.location={}\n\
                 listener.name.{listener}.ssl.truststore.type=PEM\n\
                 listener.name.{listener}.ssl.truststore.location={}\n",
                store(&self.authority.both(common)),
                store(&self.authority.ca()),
            );
        }
        // The validator that brokers have without it, in Kafka 4.1, looks at no signature and at no audience.
        let bearer = "listener.name.sasl.oauthbearer.sasl.oauthbearer";
        let plain = USERS.map(|user| format!("user_{user}=\"{user}-secret\"")).join(" ");
        let _ = write!(
            text,
            "listener.name.mutual.ssl.client.auth=required\n\
             listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
             listener.name.sasl.plain.sasl.jaas.config={security}.plain.PlainLoginModule required {plain};\n\
             listener.name.sasl.scram-sha-256.sasl.jaas.config={security}.scram.ScramLoginModule required;\n\
             listener.name.sasl.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;\n\
             listener.name.sasl.oauthbearer.sasl.jaas.config={security}.oauthbearer.OAuthBearerLoginModule required;\n\
             listener.name.sasl.oauthbearer.sasl.server.callback.handler.class=\
             {security}.oauthbearer.OAuthBearerValidatorCallbackHandler\n\
             listener.name.sasl.sasl.oauthbearer.jwt.validator.class={security}.oauthbearer.BrokerJwtValidator\n\
             {bearer}.jwks.endpoint.url={}\n\
             {bearer}.expected.audience={AUDIENCE}\n",
            self.key_set(),
        );
        text
    }
}
