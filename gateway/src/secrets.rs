//! Key files of the gateway's own: the seal key, the key of pseudonyms and the deployment's commit secret.
//!
//! The seal key is an Ed25519 key in PKCS#8 PEM, so that `openssl pkey -in seal.key -pubout` reads it too. The key
//! of pseudonyms, and the commit secret, are 32 random bytes in base64. Lines before it that begin with `#` are comments.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// PKCS#8 version 1 of an Ed25519 key (RFC 8410 7), up to the seed.
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The system's random source gave nothing.
#[derive(Debug, thiserror::Error)]
#[error("the system's random source gave no bytes")]
pub struct NoRandom;

/// Fresh random bytes.
///
/// # Errors
/// The system's random source gave nothing.
pub fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandom> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(bytes.as_mut()).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// The text of a seal key file.
pub fn seal_key_text(seed: &[u8; 32], public: &[u8; 32], origin: &str) -> Zeroizing<String> {
    signing_key_text("seal", seed, public, origin)
}

/// The text of the file of a key that signs `what`, of the form of a seal key's.
pub fn signing_key_text(what: &str, seed: &[u8; 32], public: &[u8; 32], origin: &str) -> Zeroizing<String> {
    let mut der = Zeroizing::new([0; 48]);
    der[..16].copy_from_slice(&PKCS8);
    der[16..].copy_from_slice(seed);
    let public = STANDARD.encode(public);
    let encoded = Zeroizing::new(STANDARD.encode(der.as_ref()));
    Zeroizing::new(format!(
        "# Affidavit {what} key (Ed25519) of {origin}. Whoever has it can sign evidence: keep it secret.\n\
         # public key: {public}\n{BEGIN}\n{}\n{END}\n",
        encoded.as_str()
    ))
}

/// Reads a seal key file: the seed.
///
/// # Errors
/// What was wanted. Nothing of the file is in it.
pub fn parse_seal_key(file: &[u8]) -> Result<Zeroizing<[u8; 32]>, &'static str> {
    const FORM: &str =
        "an Ed25519 key in PKCS#8 PEM, as `gateway keygen` or `openssl genpkey -algorithm ed25519` makes";
    let text = std::str::from_utf8(file).map_err(|_| FORM)?;
    let (_, rest) = text.split_once(BEGIN).ok_or(FORM)?;
    let (body, _) = rest.split_once(END).ok_or(FORM)?;
    let body = Zeroizing::new(body.split_whitespace().collect::<String>());
    let der = Zeroizing::new(STANDARD.decode(body.as_bytes()).map_err(|_| FORM)?);
    let seed = der.strip_prefix(&PKCS8).ok_or(FORM)?;
    seed.try_into().map(Zeroizing::new).map_err(|_| FORM)
}

/// The text of a pseudonym key file.
pub fn pseudonym_key_text(key: &[u8; 32]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(key));
    Zeroizing::new(format!(
        "# Affidavit pseudonym key: makes the pseudonyms of end users and of odd names in records. Keep it secret,\n\
         # and keep it: with another one the same person gets another pseudonym.\n{}\n",
        encoded.as_str()
    ))
}

/// Reads a pseudonym key file.
///
/// # Errors
/// What was wanted. Nothing of the file is in it.
pub fn parse_pseudonym_key(file: &[u8]) -> Result<Zeroizing<[u8; 32]>, &'static str> {
    bytes_of(file).ok_or("32 bytes in base64, as `gateway keygen --pseudonym-key` makes")
}

/// The text of a commit secret file.
pub fn commit_secret_text(secret: &[u8; 32]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(secret));
    Zeroizing::new(format!(
        "# Affidavit commit secret: the same for all gateways of a deployment. Whoever has it can stop gateways, and put\n\
         # records into a log that dies before it is closed: keep it secret.\n{}\n",
        encoded.as_str()
    ))
}

/// Reads a commit secret: a file, or what an environment variable holds.
///
/// # Errors
/// What was wanted. Nothing of the secret is in it.
pub fn parse_commit_secret(file: &[u8]) -> Result<Zeroizing<[u8; 32]>, &'static str> {
    bytes_of(file).ok_or("32 bytes in base64, as `gateway keygen --commit-secret` makes")
}

fn bytes_of(file: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let text = std::str::from_utf8(file).ok()?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let key = Zeroizing::new(STANDARD.decode(line).ok()?);
    key.as_slice().try_into().map(Zeroizing::new).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_are_read_back() {
        let seed = random::<32>().unwrap();
        assert_eq!(parse_seal_key(seal_key_text(&seed, &[7; 32], "acme/gw1").as_bytes()).unwrap(), seed);
        assert_eq!(parse_pseudonym_key(pseudonym_key_text(&seed).as_bytes()).unwrap(), seed);
        assert_eq!(parse_commit_secret(commit_secret_text(&seed).as_bytes()).unwrap(), seed);
        assert_eq!(parse_commit_secret(STANDARD.encode(seed.as_ref()).as_bytes()).unwrap(), seed);
        for none in ["", "hunter2", "AAAA"] {
            assert!(parse_commit_secret(none.as_bytes()).is_err(), "{none}");
        }
    }

    #[test]
    fn a_key_made_by_openssl_is_read() {
        // openssl genpkey -algorithm ed25519; the seed by `openssl pkey -text`.
        let pem = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                    -----END PRIVATE KEY-----\n";
        let seed = parse_seal_key(pem).unwrap();
        assert_eq!(
            hex::encode(seed.as_ref()),
            "d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842"
        );
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        for file in
            [&b""[..], b"\xff", b"secret", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
        {
            assert!(!parse_seal_key(file).unwrap_err().contains("secret"));
            assert!(parse_pseudonym_key(file).is_err());
        }
        let two =
            b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
        assert!(parse_pseudonym_key(two).is_err());
    }
}
