//! Signs what goes to AWS: anew, under the gateway's own access key, whatever the caller had signed.

use dialects::sigv4::{Signed, Signer};
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use jiff::Timestamp;

use crate::config::{Aws, AwsKey};

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// The access key of a provider, and what it signs for.
pub(crate) struct Signing {
    region: String,
    service: String,
    key: AwsKey,
    token: Option<HeaderValue>,
}

/// A request that is about to go.
pub(crate) struct Going<'a> {
    pub(crate) method: &'a Method,
    pub(crate) scheme: &'a Scheme,
    pub(crate) authority: &'a Authority,
    pub(crate) target: &'a PathAndQuery,
    /// SHA-256 of the body.
    pub(crate) payload: [u8; 32],
}

/// The signature, or the token, cannot stand in a header.
#[derive(Debug, thiserror::Error)]
#[error("the access key holds bytes that cannot stand in a header")]
pub(crate) struct Unsignable;

impl Signing {
    /// Of the configuration.
    ///
    /// # Errors
    /// A token that cannot stand in a header.
    pub(crate) fn new(aws: &Aws, key: &AwsKey) -> Result<Self, Unsignable> {
        let token = key.session_token.as_ref().map(|token| secret(token.expose())).transpose()?;
        Ok(Self { region: aws.region.clone(), service: aws.service.clone(), key: key.clone(), token })
    }

    /// Puts date, token and signature into `headers`.
    ///
    /// # Errors
    /// A key that cannot stand in a header.
    pub(crate) fn sign(
        &self,
        going: &Going<'_>,
        headers: &mut HeaderMap,
        now: Timestamp,
    ) -> Result<(), Unsignable> {
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        headers.insert(DATE, HeaderValue::try_from(time.as_str()).map_err(|_| Unsignable)?);
        if let Some(token) = &self.token {
            headers.insert(TOKEN, token.clone());
        }
        let host = host(going.scheme, going.authority);
        let mut signed: Vec<(&str, &str)> = headers
            .iter()
            .filter(|(name, _)| is_signed(name))
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        signed.push(("host", &host));
        // Stable: a repeated header keeps its order.
        signed.sort_by_key(|(name, _)| *name);
        let signer = Signer {
            key_id: self.key.access_key_id.expose(),
            secret: self.key.secret_access_key.expose(),
            region: &self.region,
            service: &self.service,
        };
        let authorization = signer.authorization(&Signed {
            method: going.method.as_str(),
            path: going.target.path(),
            query: going.target.query(),
            headers: &signed,
            payload: going.payload,
            time: &time,
        });
        headers.insert(AUTHORIZATION, secret(&authorization)?);
        Ok(())
    }
}

/// AWS asks for all `x-amz-*`; what changes on the way must not be in.
fn is_signed(name: &HeaderName) -> bool {
    (name.as_str().starts_with("x-amz") && name != "x-amzn-trace-id") || name == CONTENT_TYPE
}

/// The `Host` that the client sends: without the scheme's own port, which no configured address has.
fn host(scheme: &Scheme, authority: &Authority) -> String {
    let own = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    match authority.port_u16() {
        Some(port) if port != own => format!("{}:{port}", authority.host()),
        _ => authority.host().to_owned(),
    }
}

/// Marked sensitive: never shown, never put into an HPACK table.
fn secret(text: &str) -> Result<HeaderValue, Unsignable> {
    let mut value = HeaderValue::try_from(text).map_err(|_| Unsignable)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config;

    #[test]
    fn all_that_amazon_asks_for_is_signed_and_nothing_that_changes_on_the_way() {
        let credential = || config::Credential::Env("X".into());
        let aws = Aws {
            region: "us-east-1".into(),
            service: "bedrock".into(),
            access_key_id: credential(),
            secret_access_key: credential(),
            session_token: Some(credential()),
        };
        let part = |text| config::Secret::new(text).unwrap();
        let key = AwsKey {
            access_key_id: part("AKIDEXAMPLE"),
            secret_access_key: part("secret"),
            session_token: Some(part("token")),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("user-agent", "Boto3"),
            ("content-type", "application/json"),
            ("x-amzn-trace-id", "Root=1"),
            ("x-amzn-bedrock-trace", "ENABLED"),
            ("amz-sdk-request", "attempt=1"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let going = Going {
            method: &Method::POST,
            scheme: &Scheme::HTTPS,
            authority: &Authority::from_static("bedrock-runtime.us-east-1.amazonaws.com:443"),
            target: &PathAndQuery::from_static("/model/a%3A0/converse"),
            payload: [0; 32],
        };
        let now = "2026-11-21T22:01:02Z".parse().unwrap();
        Signing::new(&aws, &key).unwrap().sign(&going, &mut headers, now).unwrap();
        let text = headers[AUTHORIZATION].to_str().unwrap();
        let wanted = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/us-east-1/bedrock/aws4_request, \
                      SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amzn-bedrock-trace, Signature=";
        assert!(text.starts_with(wanted), "{text}");
        assert!(headers[AUTHORIZATION].is_sensitive() && headers[TOKEN].is_sensitive());
        assert_eq!(headers[DATE], "20261121T220102Z");
    }

    #[test]
    fn the_host_is_what_the_client_sends() {
        let of = |scheme, text| host(scheme, &Authority::from_static(text));
        assert_eq!(of(&Scheme::HTTPS, "a.example:443"), "a.example");
        assert_eq!(of(&Scheme::HTTPS, "a.example:80"), "a.example:80");
        assert_eq!(of(&Scheme::HTTP, "127.0.0.1:8080"), "127.0.0.1:8080");
        assert_eq!(of(&Scheme::HTTP, "[::1]:80"), "[::1]");
    }
}
