//! `identity`: who calls without a gateway key, by tokens of an issuer or by certificates.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use policies::document::{Node, Place, Problem, Shape};
use policies::pattern::Pattern;
use schemars::JsonSchema;
use schemas::Identifier;
use serde::Serialize;

use super::read::{Reader, attributes_of, whole};
use super::units::{duration_schema, duration_text};
use super::{Attributes, BaseUrl};

const IDENTIFIER_FORM: &str = "an identifier `[A-Za-z0-9_.:/@+-]{1,128}`";

/// What a claim can say of a caller.
const CLAIMS: [&str; 9] = [
    "consumer",
    "team",
    "organisation",
    "cost_centre",
    "system",
    "purpose",
    "data_class",
    "groups",
    "subject",
];

/// Who calls without a gateway key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Identity {
    /// Issuers of tokens (JWT), sent as bearers in the place of a gateway key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jwt: Vec<JwtIssuer>,
    /// Callers' certificates (`listen[].tls.client_ca`), where a caller sends neither key nor token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Certificates>,
}

impl Identity {
    /// True where nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct JwtIssuer {
    /// Its name in logs and metrics.
    #[schemars(with = "String")]
    pub name: Identifier,
    /// The claim `iss`, byte for byte.
    pub issuer: String,
    /// Tokens for one of these (`aud`) count.
    pub audience: Vec<String>,
    /// Its keys: a file, or an address `https://...` (`http://` on this machine only).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub jwks: Option<Jwks>,
    /// True: the address of its keys is asked at `ISSUER/.well-known/openid-configuration`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub discovery: bool,
    /// PEM file of the roots to trust for its addresses; absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Signatures that count; each key has one of them. None of them is symmetric, and `none` is not one.
    #[schemars(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// How far its clock and this one may differ. `30s` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_leeway", schema_with = "duration_schema")]
    pub leeway: Duration,
    /// How long its keys count while it does not answer; then its tokens are refused. `24h` where not typed.
    #[serde(serialize_with = "duration_text")]
    #[schemars(default = "default_max_stale", schema_with = "duration_schema")]
    pub max_stale: Duration,
    /// Stands before the consumer that a token names. Required where several issuers, or certificates as well, name consumers:
    /// else one could speak as another's. Empty: the names are those of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_prefix: Option<String>,
    /// Fact -> claim, a name or a path `a.b`: `consumer` (`sub` where not typed), `team`, `organisation`, `cost_centre`,
    /// `system`, `purpose`, `data_class`, `groups`, `subject`. Recorded with source `claim`.
    pub claims: BTreeMap<String, String>,
    /// Claims that must be there with this value; of a list, one of its items.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub require: BTreeMap<String, String>,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Jwks {
    /// An address.
    Url(BaseUrl),
    /// A file.
    File(PathBuf),
}

/// A signature (RFC 7518 3.1, RFC 8037 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    /// All of them, as tokens name them.
    pub const ALL: [(&'static str, Self); 9] = [
        ("RS256", Self::RS256),
        ("RS384", Self::RS384),
        ("RS512", Self::RS512),
        ("PS256", Self::PS256),
        ("PS384", Self::PS384),
        ("PS512", Self::PS512),
        ("ES256", Self::ES256),
        ("ES384", Self::ES384),
        ("EdDSA", Self::EdDSA),
    ];

    /// The one of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA, Algorithm::PS256]
}

#[expect(clippy::unnecessary_wraps, reason = "the form of a default in the schema")]
fn default_leeway() -> Option<&'static str> {
    Some("30s")
}

#[expect(clippy::unnecessary_wraps, reason = "the form of a default in the schema")]
fn default_max_stale() -> Option<&'static str> {
    Some("1d")
}

/// How a verified certificate says who calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Certificates {
    /// What of the certificate names the consumer.
    pub consumer: CertificateName,
    /// Stands before a consumer that is the certificate's own name. Required where there are issuers of tokens as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_prefix: Option<String>,
    /// What is known of names, the first pattern that fits; with entries here, a name that fits none is nobody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub map: Vec<Mapped>,
    /// In the place of all this for what is shown at single listening addresses: with roots of their own, their names are
    /// others'.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub listeners: Vec<ListenerCertificates>,
}

/// The same for the certificates that are shown at one listening address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ListenerCertificates {
    /// The `address` of one of `listen`, with `tls.client_ca`.
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// What of the certificate names the consumer.
    pub consumer: CertificateName,
    /// Stands before a consumer that is the certificate's own name: names under other roots are others'. Required; empty
    /// where a name is the same one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_prefix: Option<String>,
    /// What is known of names, the first pattern that fits; with entries here, a name that fits none is nobody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub map: Vec<Mapped>,
}

/// A name in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateName {
    /// The subject's only common name.
    SubjectCn,
    /// The only URI among its other names.
    SanUri,
    /// The only DNS name among its other names.
    SanDns,
    /// The only URI among its other names, which is a SPIFFE id (`spiffe://...`).
    Spiffe,
}

impl CertificateName {
    const ALL: [(&'static str, Self); 4] = [
        ("subject_cn", Self::SubjectCn),
        ("san_uri", Self::SanUri),
        ("san_dns", Self::SanDns),
        ("spiffe", Self::Spiffe),
    ];
}

/// What is known of some certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Mapped {
    /// Names that fit: `*` is any text, `?` one character.
    pub pattern: String,
    /// Who calls; absent: the name itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<Identifier>,
    /// The groups that it is in, at most 32.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub groups: Vec<Identifier>,
    /// What else is known.
    #[serde(flatten)]
    pub attributes: Attributes,
}

/// Reads the part.
pub(super) fn read(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Identity> {
    let mut f = Reader::new(node, path, base, problems);
    let jwt = f.fields.node("jwt").is_some().then(|| f.list("jwt", "at least one issuer", issuer));
    let certificates = f.part_of("certificates", certificates);
    f.fields.finish();
    let jwt: Vec<JwtIssuer> = whole(jwt)?.unwrap_or_default();
    let mut seen: Vec<&Identifier> = Vec::new();
    for (index, issuer) in jwt.iter().enumerate() {
        if seen.contains(&&issuer.name) {
            let key = format!("{path}.jwt[{index}].name");
            problems.push(Problem::at(node.place, key, "a name of its own").value(issuer.name.as_str()));
        }
        seen.push(&issuer.name);
    }
    let certificates = whole(certificates)?;
    problems.extend(unprefixed(node, path, &jwt, certificates.as_ref()));
    Some(Identity { jwt, certificates })
}

/// Who names consumers beside others, and does not say how its names are kept apart from theirs.
fn unprefixed(
    node: &Node,
    path: &str,
    jwt: &[JwtIssuer],
    certificates: Option<&Certificates>,
) -> Vec<Problem> {
    let listeners = || certificates.iter().flat_map(|certificates| &certificates.listeners).enumerate();
    if jwt.len() + usize::from(certificates.is_some()) + listeners().count() < 2 {
        return Vec::new();
    }
    let of_jwt = jwt.iter().enumerate().filter(|(_, issuer)| issuer.consumer_prefix.is_none());
    let keys = of_jwt.map(|(index, _)| format!("{path}.jwt[{index}].consumer_prefix"));
    let of_certificates = certificates.filter(|certificates| certificates.consumer_prefix.is_none());
    let keys = keys.chain(of_certificates.map(|_| format!("{path}.certificates.consumer_prefix")));
    let of_listeners = listeners().filter(|(_, listener)| listener.consumer_prefix.is_none());
    let keys = keys.chain(
        of_listeners.map(|(index, _)| format!("{path}.certificates.listeners[{index}].consumer_prefix")),
    );
    let wanted = "a prefix such as `corp:`, where more than one names consumers; `\"\"` where a name is the same one's with each";
    keys.map(|key| Problem::at(node.place, key, wanted)).collect()
}

/// What stands before consumers' names.
fn prefix(f: &mut Reader<'_, '_>) -> Option<String> {
    let form = "a prefix `[A-Za-z0-9_.:/@+-]{0,64}` that does not begin with `p:`";
    let node = f.fields.node("consumer_prefix")?;
    let fits = |text: &&str| {
        text.len() <= 64 && !text.starts_with("p:") && Identifier::new(format!("x{text}")).is_ok()
    };
    let found = node.text().filter(fits);
    if found.is_none() {
        let key = f.fields.path("consumer_prefix");
        f.fields.report(Problem::at(node.place, key, form).value(node.text().unwrap_or(node.describe())));
    }
    found.map(str::to_owned)
}

fn issuer(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<JwtIssuer> {
    let mut f = Reader::new(node, path, base, problems);
    let name = f.fields.required("name", IDENTIFIER_FORM, |text| Identifier::new(text).ok());
    let iss = f.fields.required("issuer", "the claim `iss` of 1 to 512 characters", |text| {
        (1..=512).contains(&text.len()).then(|| text.to_owned())
    });
    let audience_place = f.fields.place_of("audience");
    let audience = f.fields.texts("audience").unwrap_or_default();
    if audience.is_empty() {
        let key = f.fields.path("audience");
        f.fields.report(Problem::at(audience_place, key, "at least one `aud` that tokens are for"));
    }
    let url_form = "a file, or `https://` with host and path (`http://` on this machine only)";
    let jwks = f.fields.optional("jwks", url_form, |text| {
        if !text.contains("://") {
            return Some(Jwks::File(base.join(text)));
        }
        BaseUrl::parse(text).filter(is_safe).map(Jwks::Url)
    });
    let jwks_place = f.fields.place_of("jwks");
    let discovery = f.fields.truth("discovery").unwrap_or(false);
    if f.fields.node("jwks").is_some() == discovery {
        let key = f.fields.path("jwks");
        f.fields.report(Problem::at(jwks_place, key, "one of `jwks` and `discovery: true`"));
    }
    if discovery && !iss.as_deref().is_none_or(|iss| BaseUrl::parse(iss).is_some_and(|url| is_safe(&url))) {
        let (place, key) = (f.fields.place_of("issuer"), f.fields.path("issuer"));
        let wanted =
            "`https://` with host and path, where `discovery` asks it (`http://` on this machine only)";
        f.fields.report(Problem::at(place, key, wanted).value(iss.clone().unwrap_or_default()));
    }
    let ca = f.path("ca");
    let algorithms = algorithms(&mut f);
    let leeway = f.duration("leeway", Duration::ZERO..=Duration::from_secs(300), Duration::from_secs(30));
    let shortest = Duration::from_secs(600);
    let max_stale = f.duration("max_stale", shortest..=30 * super::read::DAY, super::read::DAY);
    let consumer_prefix = prefix(&mut f);
    let mut claims = BTreeMap::from([("consumer".to_owned(), "sub".to_owned())]);
    if let Some(node) = f.fields.node("claims") {
        let path = f.fields.path("claims");
        claims.extend(pairs(node, &path, Some(&CLAIMS), f.fields.problems()));
    }
    let require = f.fields.node("require").map(|node| {
        let path = f.fields.path("require");
        pairs(node, &path, None, f.fields.problems())
    });
    f.fields.finish();
    Some(JwtIssuer {
        name: name?,
        issuer: iss?,
        audience: audience.into_iter().map(|(text, _)| text).collect(),
        jwks,
        discovery,
        ca,
        algorithms,
        leeway,
        max_stale,
        consumer_prefix,
        claims,
        require: require.unwrap_or_default(),
    })
}

/// Keys that come over plain HTTP could be anyone's.
fn is_safe(url: &BaseUrl) -> bool {
    url.tls || url.is_loopback()
}

fn algorithms(f: &mut Reader<'_, '_>) -> Vec<Algorithm> {
    let place = f.fields.place_of("algorithms");
    let Some(typed) = f.fields.texts("algorithms") else { return default_algorithms() };
    let names: Vec<String> = Algorithm::ALL.iter().map(|(name, _)| format!("`{name}`")).collect();
    let wanted = format!("one or more of {}", names.join(", "));
    let key = f.fields.path("algorithms");
    if typed.is_empty() {
        f.fields.report(Problem::at(place, key.clone(), &wanted));
    }
    let mut found = Vec::new();
    for (text, place) in typed {
        match Algorithm::named(&text) {
            Some(algorithm) => found.push(algorithm),
            None => {
                let known = Algorithm::ALL.iter().map(|(name, _)| *name);
                f.fields.report(Problem::at(place, &key, &wanted).value(&text).suggest(&text, known));
            }
        }
    }
    found
}

/// The texts of a map, of known keys where there is a closed set.
fn pairs(
    node: &Node,
    path: &str,
    known: Option<&[&str]>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Shape::Map(entries) = &node.shape else {
        problems.push(Problem::at(node.place, path, "a map of names and claims").value(node.describe()));
        return found;
    };
    for entry in entries {
        let key = format!("{path}.{}", entry.key);
        if let Some(known) = known.filter(|known| !known.contains(&entry.key.as_str())) {
            let wanted = format!("a known key: {}", known.join(", "));
            problems.push(Problem::at(entry.place, key, wanted).suggest(&entry.key, known.iter().copied()));
            continue;
        }
        match entry.value.text().filter(|text| text.len() <= 256) {
            Some(text) => {
                found.insert(entry.key.clone(), text.to_owned());
            }
            None => problems.push(Problem::at(entry.value.place, key, "a text of 1 to 256 characters")),
        }
    }
    found
}

fn certificates(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Certificates> {
    let mut f = Reader::new(node, path, base, problems);
    let (consumer, consumer_prefix, map) = named(&mut f);
    let listeners = f.fields.node("listeners").is_some();
    let listeners = listeners.then(|| f.list("listeners", "at least one listening address", listener));
    f.fields.finish();
    let listeners = whole(listeners)?.unwrap_or_default();
    Some(Certificates { consumer: consumer?, consumer_prefix, map: map?, listeners })
}

fn listener(
    node: &Node,
    path: &str,
    base: &Path,
    problems: &mut Vec<Problem>,
) -> Option<ListenerCertificates> {
    let mut f = Reader::new(node, path, base, problems);
    let form = "the `address` of one of `listen`, as `0.0.0.0:8443`";
    let address = f.fields.required("address", form, |text| text.parse().ok());
    let (consumer, consumer_prefix, map) = named(&mut f);
    f.fields.finish();
    Some(ListenerCertificates { address: address?, consumer: consumer?, consumer_prefix, map: map? })
}

/// How certificates name consumers.
fn named(f: &mut Reader<'_, '_>) -> (Option<CertificateName>, Option<String>, Option<Vec<Mapped>>) {
    let names: Vec<String> = CertificateName::ALL.iter().map(|(name, _)| format!("`{name}`")).collect();
    f.fields.required_node("consumer", &format!("one of {}", names.join(", ")));
    let consumer = f.fields.choice("consumer", &CertificateName::ALL);
    let consumer_prefix = prefix(f);
    let map = f.fields.node("map").is_some().then(|| f.list("map", "at least one entry", mapped));
    (consumer, consumer_prefix, whole(map).map(Option::unwrap_or_default))
}

fn mapped(node: &Node, path: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Mapped> {
    let mut f = Reader::new(node, path, base, problems);
    let form = "a pattern of 1 to 256 characters without spaces; `*` is any text, `?` one character";
    let pattern = f.fields.required("pattern", form, |text| Pattern::parse(text).map(|_| text.to_owned()));
    let consumer = f.fields.optional("consumer", IDENTIFIER_FORM, |text| Identifier::new(text).ok());
    let groups = f.fields.texts("groups").unwrap_or_default();
    let key = f.fields.path("groups");
    let groups = groups_of(groups, &key, f.fields.problems());
    let attributes = attributes_of(&mut f);
    f.fields.finish();
    Some(Mapped { pattern: pattern?, consumer, groups: groups?, attributes })
}

/// Group names as typed, each once; `None` where one is none, or there are more than a record holds.
pub(crate) fn groups_of(
    typed: Vec<(String, Place)>,
    key: &str,
    problems: &mut Vec<Problem>,
) -> Option<Vec<Identifier>> {
    let before = problems.len();
    let mut groups = Vec::with_capacity(typed.len());
    let most = schemas::record::MAX_LIST;
    if let Some((text, place)) = typed.get(most) {
        problems.push(Problem::at(*place, key, format!("at most {most} groups")).value(text));
    }
    for (text, place) in typed {
        match Identifier::new(text.clone()) {
            Ok(group) if groups.contains(&group) => {}
            Ok(group) => groups.push(group),
            Err(_) => problems.push(Problem::at(place, key, IDENTIFIER_FORM).value(text)),
        }
    }
    (problems.len() == before).then_some(groups)
}
