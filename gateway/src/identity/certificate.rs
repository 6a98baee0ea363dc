//! A caller's certificate, which the TLS layer verified -> who calls.

use policies::pattern::Pattern;
use schemas::record::Source;
use schemas::{Identifier, Sha256Hex};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Tag, Tagged as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::who::Told;
use crate::app::Pseudonyms;
use crate::config::{Attributes, CertificateName, Certificates, ListenerCertificates, Mapped};

/// `commonName` (RFC 4519 2.3).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The longest name that is looked at.
const MAX_NAME_BYTES: usize = 2048;

/// The names in a certificate that a caller showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Presented {
    common_names: Vec<String>,
    uris: Vec<String>,
    dns: Vec<String>,
    /// The end of its time, seconds since 1970.
    not_after: i64,
    /// The listening address that it was shown to, and the roots that it was verified with.
    shown: (usize, Option<Sha256Hex>),
}

impl Presented {
    /// Reads a certificate that was verified at the `index`th listening address with `roots`; `None` where it cannot be read.
    pub(crate) fn read(der: &[u8], index: usize, roots: Option<Sha256Hex>) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?.tbs_certificate;
        let end = certificate.validity.not_after.to_unix_duration().as_secs();
        let not_after = i64::try_from(end).unwrap_or(i64::MAX);
        let mut presented = Self { not_after, shown: (index, roots), ..Self::default() };
        for attribute in certificate.subject.0.iter().flat_map(|names| names.0.iter()) {
            let is_text = matches!(
                attribute.value.tag(),
                Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString
            );
            if attribute.oid == COMMON_NAME && is_text {
                presented
                    .common_names
                    .extend(std::str::from_utf8(attribute.value.value()).map(str::to_owned));
            }
        }
        let others = certificate.get::<SubjectAltName>().ok()?.map(|(_, names)| names.0).unwrap_or_default();
        for name in others {
            match name {
                GeneralName::UniformResourceIdentifier(uri) => presented.uris.push(uri.as_str().to_owned()),
                GeneralName::DnsName(name) => presented.dns.push(name.as_str().to_owned()),
                _ => {}
            }
        }
        Some(presented)
    }

    /// Whether it still counts: a connection may outlive it, and the roots that it was verified with.
    pub(super) fn counts(&self, now_s: i64, roots: impl Fn(usize) -> Option<Sha256Hex>) -> bool {
        let (index, verified_with) = self.shown;
        now_s <= self.not_after && roots(index) == verified_with
    }

    /// Where it was shown: which of the listening addresses.
    pub(super) fn listener(&self) -> usize {
        self.shown.0
    }

    /// The only name of a kind: of more nobody could say which one calls.
    fn name(&self, kind: CertificateName) -> Option<&str> {
        let names = match kind {
            CertificateName::SubjectCn => &self.common_names,
            CertificateName::SanUri | CertificateName::Spiffe => &self.uris,
            CertificateName::SanDns => &self.dns,
        };
        let [name] = names.as_slice() else { return None };
        let fits = kind != CertificateName::Spiffe || is_spiffe(name);
        (fits && (1..=MAX_NAME_BYTES).contains(&name.len())).then_some(name)
    }
}

/// A SPIFFE id of a workload: a trust domain, and a path (SPIFFE-ID 2).
fn is_spiffe(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("spiffe://") else { return false };
    let Some((domain, path)) = rest.split_once('/') else { return false };
    !domain.is_empty() && !path.is_empty() && !uri.contains(['?', '#', '@', '%'])
}

struct Entry {
    pattern: Pattern,
    consumer: Option<Identifier>,
    groups: Vec<Identifier>,
    attributes: Attributes,
}

/// What certificates mean.
pub(super) struct Rules {
    name: CertificateName,
    prefix: String,
    map: Vec<Entry>,
}

impl Certificates {
    /// Ready for the hot path.
    pub(super) fn rules(&self) -> Rules {
        Rules::new(self.consumer, self.consumer_prefix.as_deref(), &self.map)
    }
}

impl ListenerCertificates {
    /// Ready for the hot path.
    pub(super) fn rules(&self) -> Rules {
        Rules::new(self.consumer, self.consumer_prefix.as_deref(), &self.map)
    }
}

impl Rules {
    fn new(name: CertificateName, prefix: Option<&str>, map: &[Mapped]) -> Self {
        let entries = map.iter().filter_map(|typed| {
            Some(Entry {
                pattern: Pattern::parse(&typed.pattern)?,
                consumer: typed.consumer.clone(),
                groups: typed.groups.clone(),
                attributes: typed.attributes.clone(),
            })
        });
        Self { name, prefix: prefix.unwrap_or_default().to_owned(), map: entries.collect() }
    }

    /// Who shows a certificate; `None` where it names nobody, or nobody who is known.
    pub(super) fn told(&self, presented: &Presented, pseudonyms: &Pseudonyms) -> Option<Told> {
        let name = presented.name(self.name)?;
        let entry = self.map.iter().find(|entry| entry.pattern.matches(name));
        if entry.is_none() && !self.map.is_empty() {
            return None;
        }
        let consumer = entry.and_then(|entry| entry.consumer.clone());
        Some(Told {
            source: Source::Certificate,
            consumer: consumer.unwrap_or_else(|| pseudonyms.identifier(&format!("{}{name}", self.prefix))),
            attributes: entry.map(|entry| entry.attributes.clone()).unwrap_or_default(),
            subject: None,
            groups: entry.map(|entry| entry.groups.clone()).unwrap_or_default(),
            group_count: None,
            counted: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn presented(names: &[&str], uris: &[&str], dns: &[&str]) -> Presented {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for name in names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.subject_alt_names.extend(dns.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())));
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Presented::read(der.der(), 0, None).unwrap()
    }

    fn rules(name: CertificateName, map: &[(&str, Option<&str>)]) -> Rules {
        let map = map.iter().map(|(pattern, consumer)| Mapped {
            pattern: (*pattern).into(),
            consumer: consumer.map(|consumer| Identifier::new(consumer).unwrap()),
            groups: vec![Identifier::new("g").unwrap()],
            attributes: Attributes::default(),
        });
        Rules::new(name, None, &map.collect::<Vec<_>>())
    }

    #[test]
    fn the_only_name_of_its_kind_says_who_calls() {
        let spiffe = "spiffe://acme.example/ns/pay/sa/bot";
        let shown = presented(&["Payroll Bot"], &[spiffe], &["a.example", "b.example"]);
        let of = |name, map: &[(&str, Option<&str>)]| {
            let told = rules(name, map).told(&shown, &Pseudonyms::new(&[1; 32]));
            told.map(|told| (told.consumer.to_string(), told.groups.len()))
        };
        assert!(of(CertificateName::SubjectCn, &[]).unwrap().0.starts_with("p:"), "a space is no identifier");
        assert_eq!(of(CertificateName::Spiffe, &[]), Some((spiffe.into(), 0)));
        assert_eq!(
            of(CertificateName::SanUri, &[("spiffe://acme.example/*", Some("pay"))]),
            Some(("pay".into(), 1))
        );
        assert_eq!(of(CertificateName::Spiffe, &[("spiffe://other.example/*", Some("pay"))]), None);
        assert_eq!(of(CertificateName::SanDns, &[]), None, "two names are nobody's");
        let table = [
            (presented(&[], &["https://x.example/a"], &[]), None),
            (presented(&[], &["spiffe://x.example"], &[]), None),
            (presented(&[], &["spiffe://x.example/a", "spiffe://x.example/b"], &[]), None),
            (presented(&[], &["spiffe://x.example/a"], &[]), Some("spiffe://x.example/a")),
        ];
        for (shown, wanted) in table {
            let told = rules(CertificateName::Spiffe, &[]).told(&shown, &Pseudonyms::new(&[1; 32]));
            assert_eq!(told.as_ref().map(|told| told.consumer.as_str()), wanted, "{shown:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_are_none() {
        for bytes in [&b""[..], b"\x30\x00", &[0x30; 400]] {
            assert!(Presented::read(bytes, 0, None).is_none());
        }
    }

    #[test]
    fn a_certificate_counts_until_its_end_and_under_the_roots_that_verified_it() {
        let roots = |text: &str| Some(Sha256Hex::of(text.as_bytes()));
        let shown = Presented { shown: (1, roots("a")), ..presented(&["a"], &[], &[]) };
        let end = shown.not_after;
        let table = [(end, "a", true), (end + 1, "a", false), (end, "b", false)];
        for (now, then, wanted) in table {
            assert_eq!(shown.counts(now, |index| roots(if index == 1 { then } else { "x" })), wanted);
        }
        assert!(!shown.counts(end, |_| None), "no certificates are asked for any more");
        let mut prefixed = rules(CertificateName::SubjectCn, &[]);
        prefixed.prefix = "tls:".into();
        let told = prefixed.told(&shown, &Pseudonyms::new(&[1; 32])).unwrap();
        assert_eq!(told.consumer.as_str(), "tls:a");
    }
}
