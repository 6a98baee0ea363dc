//! Timestamps (RFC 3161, with ESSCertIDv2 of RFC 5816): an authority's word that bytes existed at a time.
//!
//! ```text
//! request   SHA-256 of the bytes, a nonce, certReq              -> the authority, over HTTP
//! token     CMS SignedData over TSTInfo: the same hash, genTime -> kept beside the bytes
//! ```
//! A token counts where its signature, its one signing certificate and the chain from there to a root of the trust file
//! hold at genTime, and the certificate is for timestamps and nothing else.

mod request;
mod token;

use der::asn1::ObjectIdentifier;

use crate::digest::Sha256Hex;

pub use request::{MAX_RESPONSE_BYTES, ResponseError, request, token_of};
pub use token::{MAX_TOKEN_BYTES, TimestampFault, stated, verify};

/// Whose tokens count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Certificates of the roots, DER.
    pub roots: Vec<Vec<u8>>,
    /// Certificates between a root and the signer that a token may leave out, DER.
    pub intermediates: Vec<Vec<u8>>,
    /// The one policy under which tokens count; none: any.
    pub policy: Option<ObjectIdentifier>,
    /// SHA-256 of the only signing certificates that count; empty: any under the roots.
    pub signers: Vec<Sha256Hex>,
}

/// What a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The bytes existed at this time, microseconds UTC.
    pub time: i64,
    /// How far off the authority's clock may be, microseconds, where it says so.
    pub accuracy: Option<i64>,
    /// The policy under which it was given.
    pub policy: String,
    /// SHA-256 of the signing certificate.
    pub signer: Sha256Hex,
    /// When the signing certificate's validity ends, microseconds UTC: behind it the token needs another over it.
    pub expires: i64,
}

impl Stamp {
    /// Whether it says an earlier time than this one, whatever its authority's clock is off by its own word, and other
    /// clocks by `tolerance` microseconds.
    pub fn is_before(&self, time: i64, tolerance: i64) -> bool {
        self.time.saturating_add(self.slack(tolerance)) < time
    }

    /// The same for a later time.
    pub fn is_after(&self, time: i64, tolerance: i64) -> bool {
        self.time > time.saturating_add(self.slack(tolerance))
    }

    fn slack(&self, tolerance: i64) -> i64 {
        tolerance.saturating_add(self.accuracy.unwrap_or(0))
    }
}

/// An object identifier of dotted numbers; `None` where the text is none.
pub fn policy(text: &str) -> Option<ObjectIdentifier> {
    ObjectIdentifier::new(text).ok()
}

/// The certificates of a PEM text, or the one of DER bytes.
///
/// # Errors
/// What was wanted.
pub fn certificates(file: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    use base64::Engine as _;
    const FORM: &str = "certificates in PEM, or one in DER";
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let found = match std::str::from_utf8(file) {
        Ok(text) if text.contains(BEGIN) => {
            let mut found = Vec::new();
            for part in text.split(BEGIN).skip(1) {
                let body = part.split_once("-----END CERTIFICATE-----").ok_or(FORM)?.0;
                let body: String = body.split_whitespace().collect();
                found.push(base64::engine::general_purpose::STANDARD.decode(body).map_err(|_| FORM)?);
            }
            found
        }
        _ => vec![file.to_vec()],
    };
    let sound = |der: &Vec<u8>| is_certificate(der);
    if found.iter().all(sound) { Ok(found) } else { Err(FORM) }
}

/// Whether the bytes are an X.509 certificate that can be a root.
pub fn is_certificate(der: &[u8]) -> bool {
    webpki::anchor_from_trusted_cert(&rustls_pki_types::CertificateDer::from(der)).is_ok()
}

#[cfg(test)]
mod tests;
