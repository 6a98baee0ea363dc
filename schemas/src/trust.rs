//! The trust file: whose signatures count, and which logs are to be expected.
//!
//! It comes from the operator over another channel than the evidence (AU-1). The text form is YAML, read by the
//! programs; this is its meaning. Format: `FORMAT.md` 11.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::canonical::{self, CanonicalError};
use crate::digest::Sha256Hex;
use crate::names::{Origin, is_part};
use crate::timestamp::{self, Authority};
use crate::tlog::WitnessKey;

/// Version of the trust file's form.
pub const VERSION: u32 = 1;

/// Why a trust file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is `{value}`: wanted {wanted}")]
pub struct TrustError {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What it should be.
    pub wanted: &'static str,
}

/// Whose signatures count for a deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Form of this file, 1.
    pub v: u32,
    /// The deployment: the first part of its logs' origins.
    pub deployment: String,
    /// The deployment's root key, which signs every key entry of its registry: standard base64 of 32 bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root: Option<String>,
    /// Its registry, from which keys and expected logs are taken.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub registry: Option<TrustedRegistry>,
    /// Its gateways, where no registry is named. One that had several keys has an entry for each.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub gateways: Vec<TrustedGateway>,
    /// The organisation that runs the deployment: its own witnesses prove nothing against it. Absent: `deployment`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operator: Option<String>,
    /// Who countersigns the registry's checkpoints.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub witnesses: Vec<TrustedWitness>,
    /// Who puts a time to them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub timestamp_authorities: Vec<TrustedAuthority>,
}

/// A witness of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedWitness {
    /// Its verifier key: `<name>+<key id>+<base64 of 0x04 and 32 bytes>` (C2SP `tlog-cosignature`).
    pub key: String,
    /// The organisation that runs it: several witnesses of one count once.
    pub organisation: String,
    /// Where it can be asked for what it saw last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub url: Option<String>,
}

impl TrustedWitness {
    /// The key; `None` where the text is none.
    pub fn witness_key(&self) -> Option<WitnessKey> {
        self.key.parse().ok()
    }
}

/// A timestamp authority (RFC 3161).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedAuthority {
    /// Its name, as reports call it.
    pub name: String,
    /// The certificates of its roots: standard base64 of DER.
    pub certificates: Vec<String>,
    /// Certificates below a root that its tokens leave out.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub intermediates: Vec<String>,
    /// The one policy under which its tokens count: dotted numbers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<String>,
    /// SHA-256 of the only signing certificates that count; absent: any under the roots.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub signers: Vec<Sha256Hex>,
}

impl TrustedAuthority {
    /// As tokens are verified with it. What is out of form is left out: [`Trust::check`] names it.
    pub fn authority(&self) -> Authority {
        let der = |texts: &[String]| texts.iter().filter_map(|text| STANDARD.decode(text).ok()).collect();
        Authority {
            roots: der(&self.certificates),
            intermediates: der(&self.intermediates),
            policy: self.policy.as_deref().and_then(timestamp::policy),
            signers: self.signers.clone(),
        }
    }
}

/// A deployment's registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedRegistry {
    /// Its origin: `<deployment>/registry/log`.
    pub origin: Origin,
    /// The Ed25519 public key of its seals: standard base64 of 32 bytes.
    pub key: String,
}

/// One key of one gateway, and what is known about its logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedGateway {
    /// The gateway: the second part of its logs' origins.
    pub name: String,
    /// The Ed25519 public key of its seals: standard base64 of 32 bytes.
    pub key: String,
    /// The first log under this key; absent: any log of the gateway may be the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_origin: Option<Origin>,
    /// The last log under this key; absent: there may be later ones.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_origin: Option<Origin>,
    /// The longest silence that its logs may show, in seconds; absent: what `boot` says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub heartbeat_bound_s: Option<u64>,
    /// True where the gateway was taken out of service: after its last `close` nothing is expected.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub closed: Option<bool>,
    /// Up to where the key counts, where it was lost or stolen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revoked: Option<Revoked>,
    /// Keys that may seal and close a log of this key after it: standard base64 of 32 bytes each.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub closers: Vec<String>,
    /// The only logs under this key; absent: any from the first to the last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub logs: Option<Vec<TrustedLog>>,
}

/// A log under a key, and how far it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedLog {
    /// The log.
    pub origin: Origin,
    /// Seals of the log's own key of a larger tree do not count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// The size at which the log was closed: no seal of a larger tree counts, whoever made it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub closed: Option<u64>,
}

/// The last point at which a key counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// The log that was open then; later logs under this key do not count.
    pub origin: Origin,
    /// Its tree size then; seals of a larger tree do not count.
    pub size: u64,
}

impl TrustedGateway {
    /// The public key.
    ///
    /// # Errors
    /// Not standard base64 of 32 bytes.
    pub fn public_key(&self) -> Result<[u8; 32], TrustError> {
        public_key(&self.key).ok_or_else(|| not_a_key(format!("gateways.{}.key", self.name), &self.key))
    }

    /// Whether this entry speaks for the log: the gateway's own, between its first and last, and one of those that are
    /// listed, where any are.
    ///
    /// Epochs begin with their start time, so that the logs of a gateway sort by time.
    pub fn covers(&self, origin: &Origin) -> bool {
        origin.gateway() == self.name
            && self.first_origin.as_ref().is_none_or(|first| origin.epoch() >= first.epoch())
            && self.last_origin.as_ref().is_none_or(|last| origin.epoch() <= last.epoch())
            && (self.logs.is_none() || self.log(origin).is_some())
    }

    /// What is listed of the log.
    pub fn log(&self, origin: &Origin) -> Option<&TrustedLog> {
        self.logs.iter().flatten().find(|log| log.origin == *origin)
    }

    /// Whether the key counts for a seal of the log that ends at `size`.
    pub fn counts_for(&self, origin: &Origin, size: u64) -> bool {
        self.closers_count_for(origin, size)
            && self.log(origin).and_then(|log| log.size).is_none_or(|limit| size <= limit)
            && self.revoked.as_ref().is_none_or(|revoked| {
                origin.epoch() < revoked.origin.epoch() || (*origin == revoked.origin && size <= revoked.size)
            })
    }

    /// Whether a closer's seal of the log that ends at `size` counts: the limits of the log's own key are not its.
    pub fn closers_count_for(&self, origin: &Origin, size: u64) -> bool {
        self.covers(origin) && self.log(origin).and_then(|log| log.closed).is_none_or(|closed| size <= closed)
    }

    /// The keys that may seal and close a log after its own. What is out of form is left out: [`Trust::check`] names it.
    pub fn closing_keys(&self) -> impl Iterator<Item = [u8; 32]> + '_ {
        self.closers.iter().filter_map(|closer| public_key(closer))
    }

    /// Everything in this entry that is out of form, of the trust file of `deployment`.
    fn check(&self, deployment: &str, fault: &mut dyn FnMut(&str, String, &'static str)) {
        const OWN: &str = "a log of this deployment and gateway";
        if !is_part(&self.name) || self.name == crate::names::REGISTRY {
            fault("name", self.name.clone(), "[a-z0-9][a-z0-9.-]{0,62}, and not `registry`");
        }
        if let Err(error) = self.public_key() {
            fault("key", error.value, error.wanted);
        }
        let listed = self.logs.iter().flatten().map(|log| ("logs", &log.origin));
        let named = [
            ("first_origin", self.first_origin.as_ref()),
            ("last_origin", self.last_origin.as_ref()),
            ("revoked.origin", self.revoked.as_ref().map(|revoked| &revoked.origin)),
        ];
        let named = named.into_iter().filter_map(|(name, origin)| Some((name, origin?)));
        for (name, origin) in named.chain(listed) {
            if origin.deployment() != deployment || origin.gateway() != self.name {
                fault(name, origin.to_string(), OWN);
            }
        }
        if let (Some(first), Some(last)) = (&self.first_origin, &self.last_origin)
            && first.epoch() > last.epoch()
        {
            fault("last_origin", last.to_string(), "a log not before first_origin");
        }
        if self.heartbeat_bound_s == Some(0) {
            fault("heartbeat_bound_s", "0".into(), "at least 1 second");
        }
        if self.logs.as_ref().is_some_and(Vec::is_empty) {
            fault("logs", "[]".into(), "at least one log, or no `logs`");
        }
        for (i, closer) in self.closers.iter().enumerate() {
            let wanted = match public_key(closer) {
                None => not_a_key(String::new(), closer).wanted,
                Some(_) if *closer == self.key => "another key than the entry's own",
                Some(_) if self.closers[..i].contains(closer) => "each closer once",
                Some(_) => continue,
            };
            fault("closers", closer.clone(), wanted);
        }
    }
}

/// The public key that a text of trust files and key entries stands for; `None` where it stands for none.
pub fn public_key(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn not_a_key(key: String, value: &str) -> TrustError {
    TrustError {
        key,
        value: value.into(),
        wanted: "standard base64 of the 32 bytes of an Ed25519 public key",
    }
}

/// The text of a public key in trust files.
pub fn key_text(key: &[u8; 32]) -> String {
    STANDARD.encode(key)
}

impl Trust {
    /// Checks all that the types do not; gives every fault.
    pub fn check(&self) -> Vec<TrustError> {
        let mut faults = Vec::new();
        let mut fault = |key: String, value: String, wanted| faults.push(TrustError { key, value, wanted });
        if self.v != VERSION {
            fault("v".into(), self.v.to_string(), "1");
        }
        if !is_part(&self.deployment) {
            fault("deployment".into(), self.deployment.clone(), "[a-z0-9][a-z0-9.-]{0,62}");
        }
        match (&self.root, &self.registry) {
            (None, None) if self.gateways.is_empty() => {
                fault("gateways".into(), "[]".into(), "at least one gateway, or `root` and `registry`");
            }
            (None, None) => {}
            (Some(root), Some(registry)) => {
                for (name, key) in [("root", root), ("registry.key", &registry.key)] {
                    if public_key(key).is_none() {
                        let error = not_a_key(name.into(), key);
                        fault(error.key, error.value, error.wanted);
                    }
                }
                if !registry.origin.is_registry() || registry.origin.deployment() != self.deployment {
                    let origin = registry.origin.to_string();
                    fault("registry.origin".into(), origin, "`<deployment>/registry/log`");
                }
                if !self.gateways.is_empty() {
                    let count = self.gateways.len().to_string();
                    fault("gateways".into(), count, "none: the registry names the gateways");
                }
            }
            (root, _) => {
                let (has, lacks) = if root.is_some() { ("root", "registry") } else { ("registry", "root") };
                fault(lacks.into(), format!("absent beside `{has}`"), "`root` and `registry`, or neither");
            }
        }
        let mut listed = BTreeSet::new();
        for (i, gateway) in self.gateways.iter().enumerate() {
            let mut fault = |name: &str, value, wanted| fault(format!("gateways[{i}].{name}"), value, wanted);
            gateway.check(&self.deployment, &mut fault);
            for log in gateway.logs.iter().flatten() {
                if !listed.insert(&log.origin) {
                    fault("logs", log.origin.to_string(), "each log once, in one entry");
                }
            }
            if self.gateways[..i].iter().any(|other| other.name == gateway.name && overlap(other, gateway)) {
                fault("name", gateway.name.clone(), "entries of one gateway that do not overlap");
            }
        }
        self.check_anchors(&mut faults);
        faults
    }

    /// The organisation that runs the deployment.
    pub fn operator(&self) -> &str {
        self.operator.as_deref().unwrap_or(&self.deployment)
    }

    fn check_anchors(&self, faults: &mut Vec<TrustError>) {
        const ORGANISATION: &str = "[a-z0-9][a-z0-9.-]{0,62}";
        const CERTIFICATE: &str = "standard base64 of a certificate in DER";
        let mut fault = |key: String, value: String, wanted| faults.push(TrustError { key, value, wanted });
        if let Some(operator) = self.operator.as_ref().filter(|operator| !is_part(operator)) {
            fault("operator".into(), operator.clone(), ORGANISATION);
        }
        let counts = [
            ("witnesses", self.witnesses.len()),
            ("timestamp_authorities", self.timestamp_authorities.len()),
        ];
        for (key, count) in counts {
            if count > 0 && self.registry.is_none() {
                fault(
                    key.into(),
                    count.to_string(),
                    "none without `registry`: they speak of its checkpoints",
                );
            }
        }
        for (i, witness) in self.witnesses.iter().enumerate() {
            let key = |name: &str| format!("witnesses[{i}].{name}");
            if witness.witness_key().is_none() {
                let wanted = "`<name>+<key id, 8 hex digits>+<base64 of 0x04 and 32 bytes>`";
                fault(key("key"), witness.key.clone(), wanted);
            }
            if !is_part(&witness.organisation) {
                fault(key("organisation"), witness.organisation.clone(), ORGANISATION);
            }
            if let Some(url) = &witness.url
                && !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme))
            {
                fault(key("url"), url.clone(), "`https://...` or `http://...`");
            }
            if self.witnesses[..i].iter().any(|other| other.key == witness.key) {
                fault(key("key"), witness.key.clone(), "each witness once");
            }
        }
        for (i, authority) in self.timestamp_authorities.iter().enumerate() {
            let key = |name: &str| format!("timestamp_authorities[{i}].{name}");
            if !is_part(&authority.name) {
                fault(key("name"), authority.name.clone(), ORGANISATION);
            }
            if authority.certificates.is_empty() {
                fault(key("certificates"), "[]".into(), "at least one root");
            }
            for text in authority.certificates.iter().chain(&authority.intermediates) {
                let sound = STANDARD.decode(text).is_ok_and(|der| timestamp::is_certificate(&der));
                if !sound {
                    let shown: String = text.chars().take(40).collect();
                    fault(key("certificates"), shown, CERTIFICATE);
                }
            }
            if let Some(policy) = &authority.policy
                && timestamp::policy(policy).is_none()
            {
                fault(key("policy"), policy.clone(), "an object identifier as `1.3.6.1.4.1.4146.2.3`");
            }
        }
    }

    /// The entry that speaks for a log, where there is one: one that lists it before others.
    pub fn gateway(&self, origin: &Origin) -> Option<&TrustedGateway> {
        let covers =
            |gateway: &&TrustedGateway| origin.deployment() == self.deployment && gateway.covers(origin);
        let listed = self.gateways.iter().filter(|gateway| gateway.logs.is_some()).find(covers);
        listed.or_else(|| self.gateways.iter().find(covers))
    }

    /// SHA-256 of the canonical JSON of what the file means: the same for every way to write it.
    ///
    /// # Errors
    /// A number beyond 2^53.
    pub fn fingerprint(&self) -> Result<Sha256Hex, CanonicalError> {
        Ok(Sha256Hex::of(&canonical::to_vec(self)?))
    }
}

/// Whether two entries could both speak for a log. Where logs are listed they cannot: the entry that lists it speaks.
fn overlap(a: &TrustedGateway, b: &TrustedGateway) -> bool {
    if a.logs.is_some() || b.logs.is_some() {
        return false;
    }
    let before = |x: &TrustedGateway, y: &TrustedGateway| match (&x.last_origin, &y.first_origin) {
        (Some(last), Some(first)) => last.epoch() < first.epoch(),
        _ => false,
    };
    !before(a, b) && !before(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(epoch: &str) -> Origin {
        Origin::join("acme", "gw1", epoch).unwrap()
    }

    fn gateway() -> TrustedGateway {
        TrustedGateway {
            name: "gw1".into(),
            key: key_text(&[1; 32]),
            first_origin: Some(origin("20261101t000000z-00000000")),
            heartbeat_bound_s: Some(300),
            ..TrustedGateway::default()
        }
    }

    fn trust(gateways: Vec<TrustedGateway>) -> Trust {
        Trust { v: 1, deployment: "acme".into(), gateways, ..Trust::default() }
    }

    #[test]
    fn the_fingerprint_is_of_the_meaning() {
        let trust = trust(vec![gateway()]);
        assert_eq!(trust.check(), []);
        let json = r#"{"gateways": [{"heartbeat_bound_s": 300, "key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
            "first_origin": "acme/gw1/20261101t000000z-00000000", "name": "gw1"}], "v": 1, "deployment": "acme"}"#;
        let read: Trust = serde_json::from_str(json).unwrap();
        assert_eq!(read, trust);
        assert_eq!(read.fingerprint().unwrap(), trust.fingerprint().unwrap());
        let other = Trust { deployment: "acme2".into(), ..trust.clone() };
        assert_ne!(other.fingerprint().unwrap(), trust.fingerprint().unwrap());
        assert!(serde_json::from_str::<Trust>(&json.replace("\"v\"", "\"closes\": 1, \"v\"")).is_err());
    }

    #[test]
    fn an_entry_speaks_for_its_own_logs_only() {
        let (old, new) = ("20261101t000000z-00000000", "20261201t000000z-00000000");
        let first = TrustedGateway { last_origin: Some(origin("20261130t235959z-ffffffff")), ..gateway() };
        let second = TrustedGateway { first_origin: Some(origin(new)), key: key_text(&[2; 32]), ..gateway() };
        let trust = trust(vec![first.clone(), second.clone()]);
        assert_eq!(trust.check(), []);
        assert_eq!(trust.gateway(&origin(old)), Some(&first));
        assert_eq!(trust.gateway(&origin(new)), Some(&second));
        assert_eq!(trust.gateway(&origin("20261031t000000z-00000000")), None);
        assert_eq!(trust.gateway(&Origin::join("acme", "gw2", old).unwrap()), None);
        assert_eq!(trust.gateway(&Origin::join("other", "gw1", old).unwrap()), None);
    }

    #[test]
    fn a_revoked_key_counts_up_to_its_point() {
        let revoked = Revoked { origin: origin("20261110t000000z-00000000"), size: 100 };
        let gateway = TrustedGateway { revoked: Some(revoked), ..gateway() };
        let cases = [
            ("20261105t000000z-00000000", 1_000, true),
            ("20261110t000000z-00000000", 100, true),
            ("20261110t000000z-00000000", 101, false),
            ("20261110t000000z-00000001", 1, false),
        ];
        for (epoch, size, wanted) in cases {
            assert_eq!(gateway.counts_for(&origin(epoch), size), wanted, "{epoch} {size}");
        }
    }

    #[test]
    fn an_entry_that_lists_logs_speaks_for_these_alone_and_before_others() {
        let (old, middle, new) =
            ("20261110t000000z-00000000", "20261111t000000z-00000000", "20261120t000000z-00000000");
        let log = |epoch, size, closed| TrustedLog { origin: origin(epoch), size, closed };
        let ended = TrustedGateway {
            key: key_text(&[2; 32]),
            first_origin: None,
            closers: vec![key_text(&[3; 32])],
            logs: Some(vec![log(old, Some(50), None), log(new, Some(100), Some(120))]),
            ..gateway()
        };
        let trust = trust(vec![gateway(), ended.clone()]);
        assert_eq!(trust.check(), []);
        assert_eq!(trust.gateway(&origin(old)), Some(&ended));
        assert_eq!(trust.gateway(&origin(middle)), Some(&gateway()));
        // Every log has its own limit, and none that is not listed counts.
        for (epoch, size, own, closer) in [
            (old, 50, true, true),
            (old, 51, false, true),
            (new, 100, true, true),
            (new, 120, false, true),
            (new, 121, false, false),
            (middle, 1, false, false),
        ] {
            assert_eq!(ended.counts_for(&origin(epoch), size), own, "{epoch} {size}");
            assert_eq!(ended.closers_count_for(&origin(epoch), size), closer, "{epoch} {size}");
        }
        assert_eq!(ended.closing_keys().collect::<Vec<_>>(), [[3; 32]]);
    }

    #[test]
    fn closers_and_listed_logs_out_of_form_are_named() {
        let log =
            |origin: &str| TrustedLog { origin: Origin::new(origin).unwrap(), size: None, closed: None };
        let (own, twice) = (key_text(&[1; 32]), key_text(&[2; 32]));
        let wrong = TrustedGateway {
            closers: vec!["AAAA".into(), own, twice.clone(), twice],
            logs: Some(vec![log("acme/gw2/e1"), log("acme/gw1/20261102t000000z-00000000")]),
            ..gateway()
        };
        let again = TrustedGateway { logs: wrong.logs.clone().map(|logs| logs[1..].to_vec()), ..gateway() };
        let none = TrustedGateway { logs: Some(vec![]), ..gateway() };
        let faults: Vec<_> =
            trust(vec![wrong, again, none]).check().into_iter().map(|fault| fault.key).collect();
        let key = |n: usize, name: &str| format!("gateways[{n}].{name}");
        let wanted = [
            key(0, "logs"),
            key(0, "closers"),
            key(0, "closers"),
            key(0, "closers"),
            key(1, "logs"),
            key(2, "logs"),
        ];
        assert_eq!(faults, wanted);
    }

    #[test]
    fn every_fault_is_found_at_once() {
        let wrong = TrustedGateway {
            name: "GW".into(),
            key: "AAAA".into(),
            first_origin: Some(origin("b")),
            last_origin: Some(origin("a")),
            heartbeat_bound_s: Some(0),
            ..TrustedGateway::default()
        };
        let trust = Trust { v: 2, deployment: "Acme".into(), ..trust(vec![wrong, gateway(), gateway()]) };
        let faults: Vec<_> = trust.check().into_iter().map(|fault| fault.key).collect();
        for key in [
            "v",
            "deployment",
            "gateways[0].name",
            "gateways[0].key",
            "gateways[0].last_origin",
            "gateways[0].heartbeat_bound_s",
            "gateways[1].first_origin",
            "gateways[2].name",
        ] {
            assert!(faults.iter().any(|f| f == key), "{key} not in {faults:?}");
        }
        assert_eq!(super::tests::trust(vec![]).check().len(), 1);
    }

    #[test]
    fn a_registry_stands_with_its_root_and_instead_of_gateways() {
        let registry =
            |origin: &str, key: String| Some(TrustedRegistry { origin: Origin::new(origin).unwrap(), key });
        let whole = Trust {
            root: Some(key_text(&[3; 32])),
            registry: registry("acme/registry/log", key_text(&[4; 32])),
            ..trust(vec![])
        };
        assert_eq!(whole.check(), []);
        let cases = [
            (Trust { root: None, ..whole.clone() }, "root"),
            (Trust { registry: None, ..whole.clone() }, "registry"),
            (Trust { root: Some("AAAA".into()), ..whole.clone() }, "root"),
            (
                Trust { registry: registry("acme/registry/log", "AAAA".into()), ..whole.clone() },
                "registry.key",
            ),
            (
                Trust { registry: registry("acme/registry/x", key_text(&[4; 32])), ..whole.clone() },
                "registry.origin",
            ),
            (
                Trust { registry: registry("b/registry/log", key_text(&[4; 32])), ..whole.clone() },
                "registry.origin",
            ),
            (Trust { gateways: vec![gateway()], ..whole.clone() }, "gateways"),
            (
                trust(vec![TrustedGateway { name: "registry".into(), first_origin: None, ..gateway() }]),
                "gateways[0].name",
            ),
        ];
        for (wrong, key) in cases {
            let faults = wrong.check();
            assert!(faults.len() == 1 && faults[0].key == key, "{key}: {faults:?}");
        }
    }

    #[test]
    fn witnesses_and_authorities_stand_beside_a_registry_only() {
        let witness = WitnessKey::new("witness.example/w1", [5; 32]).unwrap();
        let trusted = TrustedWitness { key: witness.to_string(), organisation: "bank".into(), url: None };
        let whole = Trust {
            root: Some(key_text(&[3; 32])),
            registry: Some(TrustedRegistry {
                origin: Origin::registry("acme").unwrap(),
                key: key_text(&[4; 32]),
            }),
            witnesses: vec![trusted.clone()],
            ..trust(vec![])
        };
        assert_eq!((whole.check(), whole.operator()), (vec![], "acme"));
        assert_eq!(whole.witnesses[0].witness_key(), Some(witness));
        let authority = TrustedAuthority {
            name: "tsa".into(),
            certificates: vec!["AAAA".into()],
            intermediates: vec![],
            policy: Some("one.two".into()),
            signers: vec![],
        };
        let wrong = Trust {
            operator: Some("Acme Inc".into()),
            witnesses: vec![
                trusted.clone(),
                trusted.clone(),
                TrustedWitness {
                    key: "AAAA".into(),
                    organisation: "A B".into(),
                    url: Some("ftp://x".into()),
                },
            ],
            timestamp_authorities: vec![
                authority.clone(),
                TrustedAuthority { name: "T".into(), certificates: vec![], policy: None, ..authority },
            ],
            ..whole.clone()
        };
        let faults: Vec<_> = wrong.check().into_iter().map(|fault| fault.key).collect();
        let keys = [
            "operator",
            "witnesses[1].key",
            "witnesses[2].key",
            "witnesses[2].organisation",
            "witnesses[2].url",
            "timestamp_authorities[0].certificates",
            "timestamp_authorities[0].policy",
            "timestamp_authorities[1].name",
            "timestamp_authorities[1].certificates",
        ];
        assert_eq!(faults, keys);
        let without = Trust { witnesses: vec![trusted], ..trust(vec![gateway()]) };
        assert_eq!(without.check()[0].key, "witnesses");
    }
}
