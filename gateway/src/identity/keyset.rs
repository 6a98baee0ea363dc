//! An issuer's public keys (RFC 7517), each with the one signature that it is for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;

use super::token::{Token, TokenFault};
use crate::config::Algorithm;

/// The most keys that are looked at.
const MAX_KEYS: usize = 100;

/// Why a document holds no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysetError {
    /// No JSON object with `keys`.
    #[error("no JSON object with a list `keys`")]
    Form,
    /// More than are looked at.
    #[error("{found} keys, at most {MAX_KEYS} are looked at")]
    Many {
        /// How many.
        found: usize,
    },
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

/// A key as it is written; what is not of this form is not for this.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Point(Vec<u8>),
}

struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    public: Public,
}

/// An issuer's keys that can be used.
pub(crate) struct Keyset {
    keys: Vec<Key>,
}

impl std::fmt::Debug for Keyset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyset").field("keys", &self.keys.len()).finish()
    }
}

impl Keyset {
    /// Reads a key set; keys for something else are passed by. One of which none can be used is one: an issuer withdraws its
    /// keys that way.
    ///
    /// # Errors
    /// It is no key set, or too large a one.
    pub(crate) fn parse(json: &[u8], allowed: &[Algorithm]) -> Result<Self, KeysetError> {
        let document: Document = serde_json::from_slice(json).map_err(|_| KeysetError::Form)?;
        if document.keys.len() > MAX_KEYS {
            return Err(KeysetError::Many { found: document.keys.len() });
        }
        let keys: Vec<Key> = document.keys.into_iter().filter_map(Key::read).collect();
        let keys: Vec<Key> = keys.into_iter().filter(|key| allowed.contains(&key.algorithm)).collect();
        Ok(Self { keys })
    }

    /// Whether no key of it can be used.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a token's key may be here: one that names none may be signed by any.
    pub(super) fn may_have(&self, kid: Option<&str>) -> bool {
        kid.is_none_or(|kid| self.keys.iter().any(|key| key.kid.as_deref() == Some(kid)))
    }

    /// Verifies a token's signature: by the key that it names, or, where it names none, by the only one that there is.
    ///
    /// # Errors
    /// Another algorithm than the key's or the issuer's, no such key, a signature that does not hold.
    pub(super) fn verify(&self, token: &Token<'_>, allowed: &[Algorithm]) -> Result<(), TokenFault> {
        let algorithm = Algorithm::named(token.alg()).filter(|algorithm| allowed.contains(algorithm));
        let algorithm = algorithm.ok_or(TokenFault::Algorithm)?;
        let named: Vec<&Key> = match token.kid() {
            Some(kid) => self.keys.iter().filter(|key| key.kid.as_deref() == Some(kid)).collect(),
            None if self.keys.len() == 1 => self.keys.iter().collect(),
            None => return Err(TokenFault::Kid),
        };
        if named.is_empty() {
            return Err(TokenFault::Kid);
        }
        // A key says itself what it is for: a token cannot choose.
        let mut of_it = named.into_iter().filter(|key| key.algorithm == algorithm).peekable();
        if of_it.peek().is_none() {
            return Err(TokenFault::Algorithm);
        }
        let holds = of_it.any(|key| key.holds(token.signed, &token.signature));
        if holds { Ok(()) } else { Err(TokenFault::Signature) }
    }
}

fn bytes(text: Option<&String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok().filter(|bytes| (1..=1024).contains(&bytes.len()))
}

/// The coordinates of a point, as signatures are verified with it.
fn point(jwk: &Jwk, length: usize) -> Option<Vec<u8>> {
    let (x, y) = (bytes(jwk.x.as_ref())?, bytes(jwk.y.as_ref())?);
    (x.len() == length && y.len() == length).then(|| [&[4][..], &x, &y].concat())
}

impl Key {
    fn read(value: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let signs = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
            && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !signs || jwk.kid.as_ref().is_some_and(|kid| kid.len() > 512) {
            return None;
        }
        let (public, usual, fits): (_, _, &[Algorithm]) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
                let n = bytes(jwk.n.as_ref())?;
                // A first byte of zero is a sign, and no more.
                let n = n.into_iter().skip_while(|byte| *byte == 0).collect();
                let public = Public::Rsa { n, e: bytes(jwk.e.as_ref())? };
                (public, RS256, &[RS256, RS384, RS512, PS256, PS384, PS512])
            }
            ("EC", Some("P-256")) => (Public::Point(point(&jwk, 32)?), Algorithm::ES256, &[Algorithm::ES256]),
            ("EC", Some("P-384")) => (Public::Point(point(&jwk, 48)?), Algorithm::ES384, &[Algorithm::ES384]),
            ("OKP", Some("Ed25519")) => {
                let x = bytes(jwk.x.as_ref()).filter(|x| x.len() == 32)?;
                (Public::Point(x), Algorithm::EdDSA, &[Algorithm::EdDSA])
            }
            _ => return None,
        };
        let algorithm = match jwk.alg.as_deref() {
            // What a key is for where it does not say: what its kind is mostly for.
            None => usual,
            // Its name since RFC 9864.
            Some("Ed25519") => Algorithm::EdDSA,
            Some(name) => Algorithm::named(name)?,
        };
        fits.contains(&algorithm).then_some(Self { kid: jwk.kid, algorithm, public })
    }

    fn holds(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.public {
            Public::Rsa { n, e } => rsa(self.algorithm)
                .is_some_and(|how| RsaPublicKeyComponents { n, e }.verify(how, signed, signature).is_ok()),
            Public::Point(bytes) => curve(self.algorithm)
                .is_some_and(|how| UnparsedPublicKey::new(how, bytes).verify(signed, signature).is_ok()),
        }
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => return None,
    })
}

fn curve(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &signature::ED25519,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
    use serde_json::{Value, json};

    use super::*;

    const ALL: [Algorithm; 4] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA, Algorithm::PS256];

    /// RFC 7515 A.2: an RS256 token and its key.
    const RFC_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    const RFC_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

    fn set(keys: &[Value]) -> Result<Keyset, KeysetError> {
        Keyset::parse(json!({ "keys": keys }).to_string().as_bytes(), &ALL)
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn signed(header: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let text = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(r#"{"iss":"i"}"#)
        );
        let signature = sign(text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn verified(set: &Keyset, text: &str) -> Result<(), TokenFault> {
        set.verify(&Token::read(text).unwrap(), &ALL)
    }

    #[test]
    fn the_token_of_rfc_7515_holds_and_no_changed_one_does() {
        let key = json!({ "kty": "RSA", "n": RFC_N, "e": "AQAB" });
        let keys = set(std::slice::from_ref(&key)).unwrap();
        assert_eq!(verified(&keys, RFC_TOKEN), Ok(()));
        let changed = RFC_TOKEN.replacen(".eyJpc3MiOiJqb2Ui", ".eyJpc3MiOiJqb2Uj", 1);
        let token = Token::read(RFC_TOKEN).unwrap();
        assert_eq!(keys.verify(&token, &[]), Err(TokenFault::Algorithm));
        assert_eq!(keys.verify(&token, &[Algorithm::PS256]), Err(TokenFault::Algorithm));
        if let Ok(token) = Token::read(&changed) {
            assert_eq!(keys.verify(&token, &ALL), Err(TokenFault::Signature));
        }
        // A key that is for another signature, or for none.
        let pss = set(&[with(key.clone(), "alg", json!("PS256"))]).unwrap();
        assert_eq!(verified(&pss, RFC_TOKEN), Err(TokenFault::Algorithm));
        for (name, value) in [("use", json!("enc")), ("key_ops", json!(["sign"])), ("alg", json!("HS256"))] {
            assert!(set(&[with(key.clone(), name, value)]).unwrap().is_empty(), "{name}");
        }
        // One of two keys must be named.
        let two = set(&[with(key.clone(), "kid", json!("a")), with(key, "kid", json!("b"))]).unwrap();
        assert_eq!(verified(&two, RFC_TOKEN), Err(TokenFault::Kid));
    }

    #[test]
    fn elliptic_keys_hold_and_a_token_cannot_choose_another_algorithm() {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let ed = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let (x, y) = ec.public_key().as_ref()[1..].split_at(32);
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let ec_key =
            json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "x": text(x), "y": text(y) });
        let ed_key =
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": text(ed.public_key().as_ref()) });
        let oct = json!({ "kty": "oct", "kid": "secret", "k": "c2VjcmV0", "alg": "HS256" });
        let keys = set(&[oct.clone(), ec_key, ed_key, json!("no key")]).unwrap();
        let by_ec = |bytes: &[u8]| ec.sign(&random, bytes).unwrap().as_ref().to_vec();
        let by_ed = |bytes: &[u8]| ed.sign(bytes).as_ref().to_vec();
        let head = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });
        let table: [(Value, &dyn Fn(&[u8]) -> Vec<u8>, Result<(), TokenFault>); 9] = [
            (head("ES256", "ec"), &by_ec, Ok(())),
            (head("EdDSA", "ed"), &by_ed, Ok(())),
            (head("ES256", "ed"), &by_ec, Err(TokenFault::Algorithm)),
            (head("EdDSA", "ec"), &by_ed, Err(TokenFault::Algorithm)),
            (head("ES256", "other"), &by_ec, Err(TokenFault::Kid)),
            (head("HS256", "secret"), &by_ec, Err(TokenFault::Algorithm)),
            (head("none", "ec"), &|_| Vec::new(), Err(TokenFault::Algorithm)),
            (head("ES256", "ec"), &by_ed, Err(TokenFault::Signature)),
            (json!({ "alg": "ES256" }), &by_ec, Err(TokenFault::Kid)),
        ];
        for (header, sign, wanted) in table {
            assert_eq!(verified(&keys, &signed(&header, sign)), wanted, "{header}");
        }
        assert!(keys.may_have(Some("ec")) && !keys.may_have(Some("secret")) && keys.may_have(None));
        assert!(set(&[oct]).unwrap().is_empty());
    }

    /// The same numbers in every run.
    struct Seeded(u64);

    impl Seeded {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % bound.max(1) as u64).unwrap()
        }

        /// Bytes as somebody hostile would send them: of these, with bits flipped, pieces left out, doubled and put in.
        fn changed(&mut self, seed: &[u8]) -> Vec<u8> {
            const TOKENS: [&[u8]; 12] = [
                b".", b"=", b"\"", b"null", b"{}", b"[[", b"-1", b"1e999", b"\\ud800", b"AQAB", b"\xff",
                b"alg",
            ];
            let mut bytes = seed.to_vec();
            for _ in 0..=self.below(3) {
                let at = self.below(bytes.len());
                let to = (at + self.below(40)).min(bytes.len());
                match self.below(6) {
                    0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                    2 => bytes.truncate(to),
                    3 => drop(bytes.drain(at..to)),
                    4 => {
                        let copy = bytes[at..to].to_vec();
                        drop(bytes.splice(at..at, copy));
                    }
                    _ => drop(bytes.splice(at..at, TOKENS[self.below(TOKENS.len())].iter().copied())),
                }
            }
            bytes
        }
    }

    #[test]
    fn no_changed_token_or_key_set_panics_and_no_changed_token_holds() {
        let rsa = json!({ "keys": [{ "kty": "RSA", "n": RFC_N, "e": "AQAB" }] }).to_string();
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        let curves = json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "kid": "a", "use": "sig", "key_ops": ["verify"], "x": x, "y": x },
            { "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "b", "x": x } ] });
        let keys = Keyset::parse(rsa.as_bytes(), &ALL).unwrap();
        let signature = RFC_TOKEN.rsplit('.').next().unwrap();
        let claims =
            r#"{"iss":"i","aud":["a","b"],"exp":1300819380.5,"nbf":1,"iat":2,"a":{"b":["c",1,true]}}"#;
        let (mut random, mut read, mut parsed) = (Seeded(0x5eed), 0, 0);
        for _ in 0..4000 {
            let header = random.changed(br#"{"alg":"RS256","kid":"a","typ":"at+jwt"}"#);
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let texts = [
                String::from_utf8_lossy(&random.changed(RFC_TOKEN.as_bytes())).into_owned(),
                format!("{}.{}.{signature}", part(&header), part(&random.changed(claims.as_bytes()))),
            ];
            for text in &texts {
                let Ok(token) = Token::read(text) else { continue };
                read += 1;
                let _ =
                    (token.in_time(1_300_000_000, i64::MAX), token.is_from("i"), token.is_for(&["a".into()]));
                let _ = (token.claim("a.b"), token.has(&[("a.b".to_owned(), "c".to_owned())].into()));
                assert!(keys.verify(&token, &ALL).is_err() || text == RFC_TOKEN, "{text} holds");
            }
            for set in [rsa.as_str(), &curves.to_string()] {
                let Ok(set) = Keyset::parse(&random.changed(set.as_bytes()), &ALL) else { continue };
                parsed += 1;
                let _ = (set.is_empty(), set.may_have(Some("a")), verified(&set, RFC_TOKEN));
            }
        }
        assert!(read > 400 && parsed > 400, "{read} tokens and {parsed} key sets were read");
    }

    #[test]
    fn what_holds_no_keys_is_refused() {
        for text in ["", "[]", "{}", r#"{"keys":7}"#] {
            assert!(Keyset::parse(text.as_bytes(), &ALL).is_err(), "{text}");
        }
        for text in [r#"{"keys":[]}"#, r#"{"keys":[{}]}"#] {
            assert!(Keyset::parse(text.as_bytes(), &ALL).unwrap().is_empty(), "{text}");
        }
        assert!(matches!(set(&vec![json!({}); MAX_KEYS + 1]), Err(KeysetError::Many { .. })));
    }
}
