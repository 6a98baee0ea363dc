//! Signs what goes to AWS: anew, under the gateway's own access key, whatever the caller had signed.
//!
//! Signature Version 4 by headers, as every service but S3 wants it: the path is normalised, and coded once more than it
//! stands on the wire. The crate is the one that the AWS SDK signs with.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use jiff::Timestamp;

use crate::config::{Aws, AwsKey};

/// The access key of a provider, and what it signs for.
pub(crate) struct Signing {
    region: String,
    service: String,
    key: Credentials,
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

/// The request cannot be signed, or the signature cannot stand in a header.
#[derive(Debug, thiserror::Error)]
#[error("the request cannot be signed under this access key")]
pub(crate) struct Unsignable;

impl Signing {
    /// Of the configuration.
    ///
    /// # Errors
    /// A token that cannot stand in a header.
    pub(crate) fn new(aws: &Aws, key: &AwsKey) -> Result<Self, Unsignable> {
        let token = key.session_token.as_ref().map(|token| token.expose().to_owned());
        if let Some(token) = &token {
            HeaderValue::try_from(token).map_err(|_| Unsignable)?;
        }
        let (id, secret) = (key.access_key_id.expose(), key.secret_access_key.expose());
        let key = Credentials::new(id, secret, token, None, "affidavit");
        Ok(Self { region: aws.region.clone(), service: aws.service.clone(), key })
    }

    /// Puts date, token and signature into `headers`.
    ///
    /// # Errors
    /// A request that cannot be signed.
    pub(crate) fn sign(
        &self,
        going: &Going<'_>,
        headers: &mut HeaderMap,
        now: Timestamp,
    ) -> Result<(), Unsignable> {
        let identity = self.key.clone().into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(&self.service)
            .time(SystemTime::from(now))
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| Unsignable)?
            .into();
        let uri = format!("{}://{}{}", going.scheme, going.authority, going.target);
        let signed = headers
            .iter()
            .filter(|(name, _)| is_signed(name))
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let body = SignableBody::Precomputed(hex::encode(going.payload));
        let request =
            SignableRequest::new(going.method.as_str(), uri, signed, body).map_err(|_| Unsignable)?;
        let (instructions, _) = sign(request, &params).map_err(|_| Unsignable)?.into_parts();
        for (name, text) in instructions.headers() {
            let name = HeaderName::try_from(name).map_err(|_| Unsignable)?;
            let mut value = HeaderValue::try_from(text).map_err(|_| Unsignable)?;
            // Never shown, never put into an HPACK table.
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(())
    }
}

/// AWS asks for all `x-amz-*`; what changes on the way must not be in.
fn is_signed(name: &HeaderName) -> bool {
    (name.as_str().starts_with("x-amz") && name != "x-amzn-trace-id") || name == CONTENT_TYPE
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::config;

    /// Signs a request to Bedrock at a fixed time.
    fn signed(target: &'static str, given: &[(&'static str, &'static str)]) -> HeaderMap {
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
        for (name, value) in given {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let going = Going {
            method: &Method::POST,
            scheme: &Scheme::HTTPS,
            authority: &Authority::from_static("bedrock-runtime.us-east-1.amazonaws.com"),
            target: &PathAndQuery::from_static(target),
            payload: [0; 32],
        };
        let now = "2026-11-21T22:01:02Z".parse().unwrap();
        Signing::new(&aws, &key).unwrap().sign(&going, &mut headers, now).unwrap();
        headers
    }

    #[test]
    fn all_that_amazon_asks_for_is_signed_and_nothing_that_changes_on_the_way() {
        let headers = signed(
            "/model/a%3A0/converse",
            &[
                ("user-agent", "Boto3"),
                ("content-type", "application/json"),
                ("x-amzn-trace-id", "Root=1"),
                ("x-amzn-bedrock-trace", "ENABLED"),
                ("amz-sdk-request", "attempt=1"),
            ],
        );
        let text = headers[AUTHORIZATION].to_str().unwrap();
        let wanted = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/us-east-1/bedrock/aws4_request, \
                      SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amzn-bedrock-trace, Signature=";
        assert!(text.starts_with(wanted), "{text}");
        assert!(headers[AUTHORIZATION].is_sensitive() && headers["x-amz-security-token"].is_sensitive());
        assert_eq!(headers["x-amz-date"], "20261121T220102Z");
        assert_eq!(headers["x-amz-security-token"], "token");
    }

    /// The expected signatures are botocore's, of the same requests.
    #[test]
    fn paths_queries_and_repeated_headers_are_signed_as_botocore_signs_them() {
        let vectors = [
            // A model's ARN stands coded in the path: it is signed coded twice.
            (
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A0%3Aprofile%2Fx/converse",
                &[][..],
                "f8778f0cae8a42e16b0a4b15b9de4db19bc7adf7b8bc1161e8f11032574162be",
            ),
            (
                "/async-invoke?maxResults=2&nextToken=a%2Bb%3D",
                &[],
                "eb24c9eade412fe6f5d4ec97ba6473c8cb73e4b310356eef787d355b94afe109",
            ),
            (
                "/model/m/invoke",
                &[("x-amzn-note", "a"), ("x-amzn-note", "b   c")],
                "aca81785f009b0757c2a91baa15d87b1e3d1b3ee3c4f4767afdbf836df2cc4a8",
            ),
        ];
        for (target, headers, wanted) in vectors {
            let headers = signed(target, headers);
            let text = headers[AUTHORIZATION].to_str().unwrap();
            let (_, signature) = text.split_once("Signature=").unwrap();
            assert_eq!(signature, wanted, "{target}");
        }
    }
}
