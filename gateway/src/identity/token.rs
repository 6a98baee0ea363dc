//! A token in compact form (RFC 7515, RFC 7519), taken apart and not yet believed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The longest token.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// How deep a path into the claims may lead.
const MAX_DEPTH: usize = 8;

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum TokenFault {
    /// No JWS of three parts with a JSON header and JSON claims, or one for another use.
    #[error("malformed")]
    Malformed,
    /// Longer than 16 KiB.
    #[error("too large")]
    TooLarge,
    /// `alg` is none that the issuer may use, or not its key's.
    #[error("algorithm")]
    Algorithm,
    /// The header names extensions that must be understood (`crit`), and none is here.
    #[error("critical header")]
    Critical,
    /// `iss` is no configured issuer.
    #[error("issuer")]
    Issuer,
    /// `aud` has no configured audience.
    #[error("audience")]
    Audience,
    /// The issuer has no key of this `kid`.
    #[error("kid")]
    Kid,
    /// The signature does not hold.
    #[error("signature")]
    Signature,
    /// Past `exp`.
    #[error("expired")]
    Expired,
    /// Before `nbf`, or issued in the time to come.
    #[error("not yet valid")]
    NotYetValid,
    /// A claim that must be there is not, or has another value or form.
    #[error("claims")]
    Claims,
    /// No claim names the consumer.
    #[error("consumer")]
    Consumer,
    /// The issuer's keys were never here, and do not come.
    #[error("issuer unavailable")]
    Unavailable,
}

/// Whether a text is shaped like a token.
pub(crate) fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// The header. A name that comes twice is refused by what reads it.
#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

/// A token that nobody has verified.
pub(super) struct Token<'t> {
    header: Header,
    claims: Map<String, Value>,
    /// Header and claims as they were signed.
    pub(super) signed: &'t [u8],
    pub(super) signature: Vec<u8>,
}

impl<'t> Token<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// A form that is none.
    pub(super) fn read(text: &'t str) -> Result<Self, TokenFault> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenFault::TooLarge);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenFault::Malformed)?;
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenFault::Malformed);
        let header: Header = serde_json::from_slice(&part(header)?).map_err(|_| TokenFault::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenFault::Critical);
        }
        if !header.typ.as_deref().is_none_or(is_type) {
            return Err(TokenFault::Malformed);
        }
        let claims = serde_json::from_slice(&part(claims)?).map_err(|_| TokenFault::Malformed)?;
        Ok(Self { header, claims, signed: signed.as_bytes(), signature: part(signature)? })
    }

    /// The name of its signature.
    pub(super) fn alg(&self) -> &str {
        &self.header.alg
    }

    /// The name of its key.
    pub(super) fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Whether it says that `issuer` made it.
    pub(super) fn is_from(&self, issuer: &str) -> bool {
        self.claims.get("iss").and_then(Value::as_str) == Some(issuer)
    }

    /// Whether it says that it is for one of `audience`.
    pub(super) fn is_for(&self, audience: &[String]) -> bool {
        let wanted = |value: &Value| value.as_str().is_some_and(|text| audience.iter().any(|a| a == text));
        match self.claims.get("aud") {
            Some(Value::Array(list)) => list.iter().any(wanted),
            Some(value) => wanted(value),
            None => false,
        }
    }

    /// Whether it counts at `now` (seconds since 1970).
    ///
    /// # Errors
    /// Before or after its time, or no end.
    pub(super) fn in_time(&self, now: i64, leeway: i64) -> Result<(), TokenFault> {
        let end = self.time("exp")?.ok_or(TokenFault::Claims)?;
        if end.saturating_add(leeway) <= now {
            return Err(TokenFault::Expired);
        }
        for begin in ["nbf", "iat"] {
            if self.time(begin)?.is_some_and(|begin| begin.saturating_sub(leeway) > now) {
                return Err(TokenFault::NotYetValid);
            }
        }
        Ok(())
    }

    /// A time in seconds, which may have a fraction.
    fn time(&self, claim: &str) -> Result<Option<i64>, TokenFault> {
        let Some(value) = self.claims.get(claim) else { return Ok(None) };
        if let Some(whole) = value.as_i64() {
            return Ok(Some(whole));
        }
        let found = value.as_f64().filter(|time| time.is_finite() && time.abs() < 1e15);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "bounded above, and a fraction of a second counts nothing"
        )]
        found.map(|time| Some(time as i64)).ok_or(TokenFault::Claims)
    }

    /// Whether each claim of `required` is there with its value.
    ///
    /// # Errors
    /// One is not.
    pub(super) fn has(&self, required: &BTreeMap<String, String>) -> Result<(), TokenFault> {
        let holds = |(path, wanted): (&String, &String)| {
            let same = |value: &Value| text(value).is_some_and(|text| text == *wanted);
            match self.claim(path) {
                Some(Value::Array(list)) => list.iter().any(same),
                Some(value) => same(value),
                None => false,
            }
        };
        if required.iter().all(holds) { Ok(()) } else { Err(TokenFault::Claims) }
    }

    /// The claim at `path`: one of that name, else the one that its parts lead to.
    pub(super) fn claim(&self, path: &str) -> Option<&Value> {
        if let Some(value) = self.claims.get(path) {
            return Some(value);
        }
        let mut parts = path.split('.').take(MAX_DEPTH);
        let mut value = self.claims.get(parts.next()?)?;
        for part in parts {
            value = value.get(part)?;
        }
        Some(value)
    }
}

/// What a value says as text: a string, a number, a truth.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// Whether `typ` is that of a token that says who calls (RFC 7519 5.1, RFC 9068 2.1). A token for another use (a logout,
/// a proof) that the same issuer signed does not.
fn is_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compact(header: &str, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(header), part(claims), part("signature"))
    }

    fn read(header: &str, claims: &str) -> Result<(), TokenFault> {
        Token::read(&compact(header, claims)).map(drop)
    }

    #[test]
    fn forms_that_are_none_are_refused_by_name() {
        let header = r#"{"alg":"RS256","kid":"a","typ":"at+jwt"}"#;
        assert_eq!(read(header, "{}"), Ok(()));
        let table = [
            (r#"{"alg":"RS256","crit":["b64"],"b64":false}"#, "{}", TokenFault::Critical),
            (r#"{"alg":"RS256","crit":[]}"#, "{}", TokenFault::Critical),
            (r#"{"alg":"RS256","typ":"logout+jwt"}"#, "{}", TokenFault::Malformed),
            (r#"{"alg":"RS256","alg":"none"}"#, "{}", TokenFault::Malformed),
            (r#"{"kid":"a"}"#, "{}", TokenFault::Malformed),
            (r#"{"alg":7}"#, "{}", TokenFault::Malformed),
            (r#"[]"#, "{}", TokenFault::Malformed),
            (header, "[]", TokenFault::Malformed),
            (header, "not JSON", TokenFault::Malformed),
            (header, &"9".repeat(MAX_TOKEN_BYTES), TokenFault::TooLarge),
        ];
        for (header, claims, fault) in table {
            assert_eq!(read(header, claims), Err(fault), "{header}");
        }
        for text in ["eyJ.eyJ", "eyJhbGciOiJSUzI1NiJ9.e30.=", "eyJhbGciOiJSUzI1NiJ9.e30.a+b", "..", "a.b.c.d"]
        {
            assert_eq!(Token::read(text).err(), Some(TokenFault::Malformed), "{text}");
        }
        assert!(
            is_token("eyJa.b.c") && !is_token("afk_a_b") && !is_token("eyJa.b.c.d.e") && !is_token("eyJa.b")
        );
    }

    #[test]
    fn times_have_a_leeway_and_an_end_is_wanted() {
        let at = |claims: Value, now: i64| {
            let text = compact(r#"{"alg":"RS256"}"#, &claims.to_string());
            Token::read(&text).unwrap().in_time(now, 30)
        };
        let table = [
            (json!({ "exp": 1000 }), 1029, Ok(())),
            (json!({ "exp": 1000 }), 1030, Err(TokenFault::Expired)),
            (json!({ "exp": 1000.7 }), 1029, Ok(())),
            (json!({ "exp": "1000" }), 0, Err(TokenFault::Claims)),
            (json!({ "exp": null }), 0, Err(TokenFault::Claims)),
            (json!({ "exp": 1e300 }), 0, Err(TokenFault::Claims)),
            (json!({ "exp": i64::MAX }), 0, Ok(())),
            (json!({ "exp": i64::MIN }), 0, Err(TokenFault::Expired)),
            (json!({}), 0, Err(TokenFault::Claims)),
            (json!({ "exp": 1000, "nbf": 530 }), 500, Ok(())),
            (json!({ "exp": 1000, "nbf": 531 }), 500, Err(TokenFault::NotYetValid)),
            (json!({ "exp": 1000, "iat": 531 }), 500, Err(TokenFault::NotYetValid)),
            (json!({ "exp": 1000, "nbf": "x" }), 500, Err(TokenFault::Claims)),
        ];
        for (claims, now, wanted) in table {
            assert_eq!(at(claims.clone(), now), wanted, "{claims} at {now}");
        }
    }

    #[test]
    fn claims_are_found_by_name_and_by_path() {
        let claims = json!({ "aud": ["x", "gateway"], "iss": "https://i", "https://a.b/c": "whole", "a": { "b": { "c": 7 } },
            "list": ["one", "two"], "yes": true });
        let text = compact(r#"{"alg":"RS256"}"#, &claims.to_string());
        let token = Token::read(&text).unwrap();
        assert_eq!(token.claim("https://a.b/c").and_then(Value::as_str), Some("whole"));
        assert_eq!(token.claim("a.b.c").and_then(Value::as_i64), Some(7));
        assert!(
            token.claim("a.b.d").is_none() && token.claim("").is_none() && token.claim("list.0").is_none()
        );
        let has = |path: &str, value: &str| token.has(&[(path.to_owned(), value.to_owned())].into()).is_ok();
        assert!(has("a.b.c", "7") && has("list", "two") && has("yes", "true"));
        assert!(!has("list", "three") && !has("a.b", "7") && !has("none", ""));
        assert!(token.is_for(&["gateway".into()]) && !token.is_for(&["gate".into()]) && !token.is_for(&[]));
        assert!(token.is_from("https://i") && !token.is_from("https://i/"));
    }
}
