//! Verifying a timestamp token.

use std::time::Duration;

use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use der::asn1::{Int, ObjectIdentifier, OctetString};
use der::{Any, Decode, Encode as _, Sequence, Tag, Tagged as _};
use ring::digest::{self, digest};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::ring as algorithms;
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::ext::Extensions;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_tsp::{Accuracy, MessageImprint};

use super::{Authority, Stamp};
use crate::digest::Sha256Hex;

/// The largest token that is read.
pub const MAX_TOKEN_BYTES: usize = 64 << 10;

/// The most certificates of a token that are looked at.
const MAX_CERTIFICATES: usize = 10;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.12");
const SIGNING_CERTIFICATE_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const TIME_STAMPING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8");
pub(super) const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");

/// id-kp-timeStamping, the value of its DER.
const TIME_STAMPING_BYTES: &[u8] = &[43, 6, 1, 5, 5, 7, 3, 8];

/// Why a token does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampFault {
    /// Not a token of the form that RFC 3161 asks for.
    #[error("not a timestamp token: {0}")]
    Form(String),
    /// Over other bytes.
    #[error("it is over other bytes: their SHA-256 is {0}")]
    Imprint(String),
    /// Its signature, or what is signed beside the time, does not hold.
    #[error("its signature does not hold: {0}")]
    Signature(String),
    /// Sound, and not by an authority that counts.
    #[error("{0}")]
    Untrusted(String),
}

/// `TSTInfo` (RFC 3161 2.4.2), with the time as its own text: fractions of a second are allowed there.
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
pub(super) struct Info {
    version: u8,
    policy: ObjectIdentifier,
    message_imprint: MessageImprint,
    serial_number: Int,
    gen_time: Any,
    #[asn1(optional = "true")]
    accuracy: Option<Accuracy>,
    #[asn1(default = "Default::default")]
    ordering: bool,
    #[asn1(optional = "true")]
    pub(super) nonce: Option<Int>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    tsa: Option<GeneralName>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

/// `ESSCertIDv2` (RFC 5816 2.2.1).
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
struct CertIdV2 {
    #[asn1(optional = "true")]
    hash_algorithm: Option<AlgorithmIdentifierOwned>,
    cert_hash: OctetString,
    #[asn1(optional = "true")]
    issuer_serial: Option<Any>,
}

/// `ESSCertID` (RFC 2634 5.4.1): SHA-1. It only names the certificate among those under the roots.
#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
struct CertId {
    cert_hash: OctetString,
    #[asn1(optional = "true")]
    issuer_serial: Option<Any>,
}

#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
struct SigningCertificateV2 {
    certs: Vec<CertIdV2>,
    #[asn1(optional = "true")]
    policies: Option<Any>,
}

#[derive(Clone, Debug, Eq, PartialEq, Sequence)]
struct SigningCertificate {
    certs: Vec<CertId>,
    #[asn1(optional = "true")]
    policies: Option<Any>,
}

fn form(error: der::Error) -> TimestampFault {
    TimestampFault::Form(error.to_string())
}

fn bad(what: impl Into<String>) -> TimestampFault {
    TimestampFault::Signature(what.into())
}

fn parse<'a, T: Decode<'a>>(bytes: &'a [u8]) -> Result<T, TimestampFault> {
    T::from_der(bytes).map_err(form)
}

/// The signed data of a token, and the bytes of its `TSTInfo`.
fn opened(token: &[u8]) -> Result<(SignedData, Vec<u8>), TimestampFault> {
    if token.len() > MAX_TOKEN_BYTES {
        let found = format!("{} bytes, at most {MAX_TOKEN_BYTES}", token.len());
        return Err(TimestampFault::Form(found));
    }
    let outer: ContentInfo = parse(token)?;
    if outer.content_type != SIGNED_DATA {
        return Err(TimestampFault::Form(format!("content of type {}", outer.content_type)));
    }
    let signed: SignedData = outer.content.decode_as().map_err(form)?;
    if signed.encap_content_info.econtent_type != TST_INFO {
        let found = signed.encap_content_info.econtent_type;
        return Err(TimestampFault::Form(format!("signed content of type {found}")));
    }
    let content = signed.encap_content_info.econtent.as_ref();
    let content = content.ok_or_else(|| TimestampFault::Form("no content".into()))?;
    let content: OctetString = content.decode_as().map_err(form)?;
    let bytes = content.into_bytes();
    Ok((signed, bytes))
}

/// What a token says; nothing of it is verified.
pub(super) fn info(token: &[u8]) -> Result<Info, TimestampFault> {
    parse(&opened(token)?.1)
}

/// A token that holds by itself, over the bytes that it should be over.
struct Sound {
    info: Info,
    stamp: Stamp,
    /// The signing certificate, DER.
    signer: Vec<u8>,
    /// All certificates of the token, DER.
    certificates: Vec<Vec<u8>>,
}

fn sound(token: &[u8], imprint: &Sha256Hex) -> Result<Sound, TimestampFault> {
    let (signed, content) = opened(token)?;
    let info: Info = parse(&content)?;
    let time = gen_time(&info.gen_time)?;
    if info.version != 1 {
        return Err(TimestampFault::Form(format!("version {}", info.version)));
    }
    let unknown = info.extensions.iter().flatten().find(|extension| extension.critical);
    if let Some(extension) = unknown {
        return Err(TimestampFault::Form(format!("a critical extension {}", extension.extn_id)));
    }
    if info.message_imprint.hash_algorithm.oid != SHA256 {
        let found = format!("of algorithm {}", info.message_imprint.hash_algorithm.oid);
        return Err(TimestampFault::Imprint(found));
    }
    let hashed = info.message_imprint.hashed_message.as_bytes();
    if hashed != imprint.0 {
        return Err(TimestampFault::Imprint(hex::encode(hashed)));
    }
    let [signer] = signed.signer_infos.0.as_slice() else {
        let found = signed.signer_infos.0.len();
        return Err(TimestampFault::Form(format!("{found} signers, wanted 1")));
    };
    let certificates = certificates(&signed)?;
    let (certificate, der) = certificates
        .iter()
        .find(|(certificate, _)| is_of(certificate, &signer.sid))
        .ok_or_else(|| bad("its certificate is not in the token"))?;
    signature_holds(signer, &content, der)?;
    for_timestamps_only(certificate)?;
    let stamp = Stamp {
        time,
        accuracy: info.accuracy.as_ref().map(accuracy),
        policy: info.policy.to_string(),
        signer: Sha256Hex::of(der),
        expires: micros(certificate.tbs_certificate.validity.not_after.to_unix_duration()),
    };
    let signer = der.clone();
    Ok(Sound { info, stamp, signer, certificates: certificates.into_iter().map(|(_, der)| der).collect() })
}

/// What a token over bytes with this SHA-256 says, where it holds by itself. Whose certificate it is by is not judged.
///
/// # Errors
/// The first fault; [`TimestampFault::Untrusted`] where its certificate is not one for timestamps.
pub fn stated(token: &[u8], imprint: &Sha256Hex) -> Result<Stamp, TimestampFault> {
    sound(token, imprint).map(|sound| sound.stamp)
}

/// Verifies a token over bytes with this SHA-256: by one of the authorities, which is told by its place in the list.
///
/// # Errors
/// The first fault; [`TimestampFault::Untrusted`] only where all else holds.
pub fn verify(
    token: &[u8],
    imprint: &Sha256Hex,
    authorities: &[Authority],
) -> Result<(usize, Stamp), TimestampFault> {
    let Sound { info, stamp, signer, certificates } = sound(token, imprint)?;
    let others: Vec<CertificateDer<'_>> =
        certificates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let mut why = String::from("the trust file names no timestamp authority");
    for (n, authority) in authorities.iter().enumerate() {
        match trusted(authority, &info, &stamp, &signer, &others) {
            Ok(()) => return Ok((n, stamp)),
            Err(fault) => why = fault,
        }
    }
    Err(TimestampFault::Untrusted(why))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// `GeneralizedTime` as RFC 3161 2.4.2 wants it: `YYYYMMDDhhmmss[.s...]Z`. Beyond microseconds digits are dropped.
fn gen_time(any: &Any) -> Result<i64, TimestampFault> {
    let wrong = || TimestampFault::Form("a time that is not `YYYYMMDDhhmmss[.s...]Z`".into());
    if any.tag() != Tag::GeneralizedTime {
        return Err(wrong());
    }
    let text = std::str::from_utf8(any.value()).ok().and_then(|text| text.strip_suffix('Z'));
    let text = text.ok_or_else(wrong)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() != 14 || !digits(whole) || !digits(fraction) || fraction.len() > 30 {
        return Err(wrong());
    }
    let number = |range: std::ops::Range<usize>| whole.get(range).and_then(|text| text.parse().ok());
    let (Some(year), Some(month), Some(day)) = (whole[..4].parse().ok(), number(4..6), number(6..8)) else {
        return Err(wrong());
    };
    let (Some(hour), Some(minute), Some(second)) = (number(8..10), number(10..12), number(12..14)) else {
        return Err(wrong());
    };
    let time = der::DateTime::new(year, month, day, hour, minute, second).map_err(|_| wrong())?;
    let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
    Ok(micros(time.unix_duration()).saturating_add(fraction.parse().unwrap_or(0)))
}

fn accuracy(accuracy: &Accuracy) -> i64 {
    let part = |of: Option<i16>| i64::from(of.unwrap_or(0).clamp(0, 999));
    let seconds = i64::try_from(accuracy.seconds.unwrap_or(0)).unwrap_or(i64::MAX);
    seconds.saturating_mul(1_000_000).saturating_add(part(accuracy.millis) * 1000 + part(accuracy.micros))
}

/// The X.509 certificates of a token, with their DER.
fn certificates(signed: &SignedData) -> Result<Vec<(Certificate, Vec<u8>)>, TimestampFault> {
    let mut found = Vec::new();
    for choice in signed.certificates.iter().flat_map(|set| set.0.iter()) {
        let CertificateChoices::Certificate(certificate) = choice else { continue };
        if found.len() == MAX_CERTIFICATES {
            return Err(TimestampFault::Form(format!("more than {MAX_CERTIFICATES} certificates")));
        }
        found.push((certificate.clone(), certificate.to_der().map_err(form)?));
    }
    Ok(found)
}

fn is_of(certificate: &Certificate, sid: &SignerIdentifier) -> bool {
    let of = &certificate.tbs_certificate;
    match sid {
        SignerIdentifier::IssuerAndSerialNumber(named) => {
            named.issuer == of.issuer && named.serial_number == of.serial_number
        }
        SignerIdentifier::SubjectKeyIdentifier(named) => {
            let own = of.extensions.iter().flatten().find(|extension| extension.extn_id == SUBJECT_KEY_ID);
            own.and_then(|own| OctetString::from_der(own.extn_value.as_bytes()).ok())
                .is_some_and(|own| own.as_bytes() == named.0.as_bytes())
        }
    }
}

fn hash_of(oid: &ObjectIdentifier) -> Option<&'static digest::Algorithm> {
    match *oid {
        SHA256 => Some(&digest::SHA256),
        SHA384 => Some(&digest::SHA384),
        SHA512 => Some(&digest::SHA512),
        _ => None,
    }
}

/// The signed attributes name content, content's digest and certificate, and the certificate's key signed them.
fn signature_holds(signer: &SignerInfo, content: &[u8], certificate: &[u8]) -> Result<(), TimestampFault> {
    let attributes = signer.signed_attrs.as_ref().ok_or_else(|| bad("no signed attributes"))?;
    let one = |oid: ObjectIdentifier| -> Result<Option<&Any>, TimestampFault> {
        let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
        let Some(first) = found.next() else { return Ok(None) };
        match (first.values.as_slice(), found.next()) {
            ([value], None) => Ok(Some(value)),
            _ => Err(bad(format!("attribute {oid} has not one value"))),
        }
    };
    let content_type = one(CONTENT_TYPE)?.and_then(|value| value.decode_as::<ObjectIdentifier>().ok());
    if content_type != Some(TST_INFO) {
        return Err(bad("the signed content type is not that of a timestamp"));
    }
    let hash = hash_of(&signer.digest_alg.oid)
        .ok_or_else(|| bad(format!("digest algorithm {} is not taken", signer.digest_alg.oid)))?;
    let stated = one(MESSAGE_DIGEST)?.and_then(|value| value.decode_as::<OctetString>().ok());
    if stated.as_ref().map(OctetString::as_bytes) != Some(digest(hash, content).as_ref()) {
        return Err(bad("the signed digest is not that of the content"));
    }
    names_certificate(one(SIGNING_CERTIFICATE)?, one(SIGNING_CERTIFICATE_V2)?, certificate)?;
    // RFC 5652 5.4: the attributes are signed as a SET OF.
    let message = attributes.to_der().map_err(form)?;
    let der = CertificateDer::from(certificate);
    let key = EndEntityCert::try_from(&der).map_err(|error| bad(error.to_string()))?;
    let tried = candidates(&signer.signature_algorithm.oid, &signer.digest_alg.oid);
    if tried.is_empty() {
        return Err(bad(format!("signature algorithm {} is not taken", signer.signature_algorithm.oid)));
    }
    let holds = |with: &&dyn SignatureVerificationAlgorithm| {
        key.verify_signature(*with, &message, signer.signature.as_bytes())
    };
    if tried.iter().any(|with| holds(with).is_ok()) { Ok(()) } else { Err(bad("not by its certificate")) }
}

/// The first certificate that the signed attributes name is this one (RFC 5816 2.2.1, RFC 2634 5.4).
fn names_certificate(v1: Option<&Any>, v2: Option<&Any>, certificate: &[u8]) -> Result<(), TimestampFault> {
    const OTHER: &str = "the signed attributes name another certificate";
    if v1.is_none() && v2.is_none() {
        return Err(bad("the signed attributes name no certificate"));
    }
    if let Some(value) = v2 {
        let named: SigningCertificateV2 = value.decode_as().map_err(form)?;
        let first = named.certs.first().ok_or_else(|| bad(OTHER))?;
        let hash = match &first.hash_algorithm {
            Some(algorithm) => hash_of(&algorithm.oid).ok_or_else(|| bad("a digest that is not taken"))?,
            None => &digest::SHA256,
        };
        if first.cert_hash.as_bytes() != digest(hash, certificate).as_ref() {
            return Err(bad(OTHER));
        }
    }
    if let Some(value) = v1 {
        let named: SigningCertificate = value.decode_as().map_err(form)?;
        let first = named.certs.first().ok_or_else(|| bad(OTHER))?;
        if first.cert_hash.as_bytes() != digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate).as_ref() {
            return Err(bad(OTHER));
        }
    }
    Ok(())
}

/// The algorithms that a signature algorithm of a token may be; the certificate's key decides.
fn candidates(
    signature: &ObjectIdentifier,
    digest: &ObjectIdentifier,
) -> Vec<&'static dyn SignatureVerificationAlgorithm> {
    const RSA: &str = "1.2.840.113549.1.1.1";
    let rsa = |hash: &ObjectIdentifier| match *hash {
        SHA256 => vec![algorithms::RSA_PKCS1_2048_8192_SHA256],
        SHA384 => vec![algorithms::RSA_PKCS1_2048_8192_SHA384],
        SHA512 => vec![algorithms::RSA_PKCS1_2048_8192_SHA512],
        _ => vec![],
    };
    match signature.to_string().as_str() {
        RSA => rsa(digest),
        "1.2.840.113549.1.1.11" => rsa(&SHA256),
        "1.2.840.113549.1.1.12" => rsa(&SHA384),
        "1.2.840.113549.1.1.13" => rsa(&SHA512),
        "1.2.840.113549.1.1.10" => vec![
            algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
            algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
            algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        ],
        "1.2.840.10045.4.3.2" => vec![algorithms::ECDSA_P256_SHA256, algorithms::ECDSA_P384_SHA256],
        "1.2.840.10045.4.3.3" => vec![algorithms::ECDSA_P256_SHA384, algorithms::ECDSA_P384_SHA384],
        "1.3.101.112" => vec![algorithms::ED25519],
        _ => vec![],
    }
}

/// RFC 3161 2.3: one extended key usage, timestamps, and critical.
fn for_timestamps_only(certificate: &Certificate) -> Result<(), TimestampFault> {
    let wrong = |what: &str| TimestampFault::Untrusted(format!("the signing certificate {what}"));
    let extensions = certificate.tbs_certificate.extensions.iter().flatten();
    let usage = extensions.filter(|extension| extension.extn_id == EXTENDED_KEY_USAGE).collect::<Vec<_>>();
    let [usage] = usage.as_slice() else { return Err(wrong("is not for timestamps")) };
    let purposes: Vec<ObjectIdentifier> =
        Decode::from_der(usage.extn_value.as_bytes()).map_err(|_| wrong("has no readable key usage"))?;
    if purposes != [TIME_STAMPING] {
        return Err(wrong("is not for timestamps alone"));
    }
    if !usage.critical {
        return Err(wrong("does not make its key usage critical"));
    }
    Ok(())
}

fn trusted(
    authority: &Authority,
    info: &Info,
    stamp: &Stamp,
    signer: &[u8],
    others: &[CertificateDer<'_>],
) -> Result<(), String> {
    if let Some(wanted) = authority.policy.filter(|wanted| *wanted != info.policy) {
        return Err(format!("given under policy {}, wanted {wanted}", info.policy));
    }
    if !authority.signers.is_empty() && !authority.signers.contains(&stamp.signer) {
        return Err(format!("signed by certificate {}, which is not pinned", stamp.signer));
    }
    let roots: Vec<CertificateDer<'_>> =
        authority.roots.iter().map(|root| CertificateDer::from(root.as_slice())).collect();
    let anchors: Vec<TrustAnchor<'_>> =
        roots.iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok()).collect();
    let mut between = others.to_vec();
    between.extend(authority.intermediates.iter().map(|der| CertificateDer::from(der.as_slice())));
    let der = CertificateDer::from(signer);
    let end = EndEntityCert::try_from(&der).map_err(|error| error.to_string())?;
    let time = UnixTime::since_unix_epoch(Duration::from_micros(u64::try_from(stamp.time).unwrap_or(0)));
    end.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        &between,
        time,
        KeyUsage::required(TIME_STAMPING_BYTES),
        None,
        None,
    )
    .map(|_| ())
    .map_err(|error| format!("no chain to a root of the trust file at the token's time: {error}"))
}
