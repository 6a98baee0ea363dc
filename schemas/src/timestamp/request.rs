//! Asking a timestamp authority, and the token in its answer.

use der::asn1::{Int, ObjectIdentifier, OctetString};
use der::{Any, Decode as _, Encode as _};
use x509_cert::spki::AlgorithmIdentifier;
use x509_tsp::{MessageImprint, TimeStampReq, TimeStampResp, TspVersion};

use super::token::{self, SHA256};
use crate::digest::Sha256Hex;

/// The largest answer that is read.
pub const MAX_RESPONSE_BYTES: usize = token::MAX_TOKEN_BYTES + 4096;

/// Why an answer gives no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// A request that cannot be written.
    #[error("the request cannot be written: {0}")]
    Request(der::Error),
    /// Not a `TimeStampResp`.
    #[error("not an answer of a timestamp authority: {0}")]
    Form(String),
    /// Another status than granted.
    #[error("the authority refuses: status {status}{}", text.as_deref().map(|t| format!(", `{t}`")).unwrap_or_default())]
    Refused {
        /// PKIStatus.
        status: u8,
        /// What it says, shortened and made harmless.
        text: Option<String>,
    },
    /// Granted, without a token.
    #[error("granted, without a token")]
    NoToken,
    /// A token for another request.
    #[error("the token's nonce is not the request's")]
    Nonce,
}

/// The request for a token over bytes with this SHA-256, DER: `application/timestamp-query`.
///
/// # Errors
/// None that can occur: an encoder's.
pub fn request(
    imprint: &Sha256Hex,
    nonce: &[u8; 16],
    policy: Option<ObjectIdentifier>,
) -> Result<Vec<u8>, ResponseError> {
    let make = || -> der::Result<Vec<u8>> {
        let hash_algorithm = AlgorithmIdentifier { oid: SHA256, parameters: Some(Any::null()) };
        let hashed_message = OctetString::new(imprint.0.to_vec())?;
        TimeStampReq {
            version: TspVersion::V1,
            message_imprint: MessageImprint { hash_algorithm, hashed_message },
            req_policy: policy,
            nonce: Some(integer(nonce)?),
            cert_req: true,
            extensions: None,
        }
        .to_der()
    };
    make().map_err(ResponseError::Request)
}

/// A positive number of 16 bytes whose first bit is cleared and second is set: one form, never shortened.
fn integer(nonce: &[u8; 16]) -> der::Result<Int> {
    let mut bytes = *nonce;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Int::new(&bytes)
}

/// The token of an answer to the request with this nonce, DER. It is not verified.
///
/// # Errors
/// [`ResponseError`].
pub fn token_of(response: &[u8], nonce: &[u8; 16]) -> Result<Vec<u8>, ResponseError> {
    let form = |error: der::Error| ResponseError::Form(error.to_string());
    if response.len() > MAX_RESPONSE_BYTES {
        return Err(ResponseError::Form(format!("{} bytes, at most {MAX_RESPONSE_BYTES}", response.len())));
    }
    let answer = TimeStampResp::from_der(response).map_err(form)?;
    let status = answer.status.status as u8;
    // 0: granted; 1: granted, with changes that the token shows.
    if status > 1 {
        let text = answer.status.status_string.as_ref().and_then(|lines| lines.first());
        let text = text.map(|line| {
            line.as_str().chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect()
        });
        return Err(ResponseError::Refused { status, text });
    }
    let token = answer.time_stamp_token.ok_or(ResponseError::NoToken)?.to_der().map_err(form)?;
    let info = token::info(&token).map_err(|fault| ResponseError::Form(fault.to_string()))?;
    let wanted = integer(nonce).map_err(form)?;
    if info.nonce.as_ref() != Some(&wanted) {
        return Err(ResponseError::Nonce);
    }
    Ok(token)
}
