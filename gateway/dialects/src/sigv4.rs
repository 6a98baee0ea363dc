//! AWS Signature Version 4 of one request, by headers. No clock and no keys of its own.
//!
//! As every service but S3 wants it: the path is normalised, and coded once more than it stands on the wire.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::fmt::Write as _;

use ring::hmac;
use sha2::{Digest as _, Sha256};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who signs, and for which service where.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    /// The access key's id.
    pub key_id: &'a str,
    /// Its secret.
    pub secret: &'a str,
    /// As `us-east-1`.
    pub region: &'a str,
    /// As `bedrock`.
    pub service: &'a str,
}

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `GET`, `POST`.
    pub method: &'a str,
    /// The path as it stands on the wire.
    pub path: &'a str,
    /// The query as it stands on the wire, without `?`.
    pub query: Option<&'a str>,
    /// The headers to be signed, names in lower case, sorted; `host` and `x-amz-date` are among them. Of a repeated
    /// one each stands here, in its order.
    pub headers: &'a [(&'a str, &'a str)],
    /// SHA-256 of the body.
    pub payload: [u8; 32],
    /// As `20150830T123600Z`: what `x-amz-date` says.
    pub time: &'a str,
}

impl Signer<'_> {
    /// The value of `Authorization`.
    pub fn authorization(&self, signed: &Signed<'_>) -> String {
        let scope = self.scope(signed.time);
        let canonical = canonical_request(signed);
        let to_sign =
            format!("{ALGORITHM}\n{}\n{scope}\n{}", signed.time, hex::encode(Sha256::digest(canonical)));
        let signature = hmac::sign(&self.key(date(signed.time)), to_sign.as_bytes());
        format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={}",
            self.key_id,
            names(signed.headers),
            hex::encode(signature)
        )
    }

    fn scope(&self, time: &str) -> String {
        format!("{}/{}/{}/aws4_request", date(time), self.region, self.service)
    }

    fn key(&self, date: &str) -> hmac::Key {
        let first = format!("AWS4{}", self.secret);
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, first.as_bytes());
        for part in [date, self.region, self.service, "aws4_request"] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
        }
        key
    }
}

impl std::fmt::Debug for Signer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({} {})", self.region, self.service)
    }
}

fn date(time: &str) -> &str {
    time.get(..8).unwrap_or_default()
}

/// The text whose hash is signed.
fn canonical_request(signed: &Signed<'_>) -> String {
    let mut text =
        format!("{}\n{}\n{}\n", signed.method, path(signed.path), query(signed.query.unwrap_or_default()));
    let mut last = "";
    for (name, value) in signed.headers {
        let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        // Writing to a String does not fail.
        if *name == last {
            text.pop();
            let _ = writeln!(text, ",{value}");
        } else {
            let _ = writeln!(text, "{name}:{value}");
        }
        last = name;
    }
    let _ = write!(text, "\n{}\n{}", names(signed.headers), hex::encode(signed.payload));
    text
}

fn names(headers: &[(&str, &str)]) -> String {
    let mut names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    names.dedup();
    names.join(";")
}

fn path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut out = String::from("/");
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.push('/');
        }
        code(&mut out, part.as_bytes());
    }
    if out.len() > 1 && path.ends_with('/') {
        out.push('/');
    }
    out
}

fn query(query: &str) -> String {
    let coded = |text: &str| {
        let mut out = String::new();
        code(&mut out, &decoded(text));
        out
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (coded(name), coded(value))
        })
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((&first, rest)) = bytes.split_first() {
        let hex = |at: usize| rest.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high << 4 | low).unwrap_or_default());
                bytes = rest.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(first);
                bytes = rest;
            }
        }
    }
    out
}

fn code(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn amazons_own_vectors_are_met() {
        let file: Value = serde_json::from_str(include_str!("../testdata/sigv4/vectors.json")).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        for vector in vectors {
            let text = |name: &str| vector[name].as_str().unwrap();
            let mut headers: Vec<(&str, &str)> = vector["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
                .collect();
            headers.sort_by_key(|(name, _)| *name);
            // Most of them code a path once: theirs is what stood there before it was coded for the wire.
            let uncoded = String::from_utf8(decoded(text("path"))).unwrap();
            let signed = Signed {
                method: text("method"),
                path: if vector["path_is_coded"] == true { text("path") } else { &uncoded },
                query: vector["query"].as_str(),
                headers: &headers,
                payload: Sha256::digest(text("body")).into(),
                time: text("time"),
            };
            let name = text("name");
            assert_eq!(canonical_request(&signed), text("canonical"), "{name}");
            let signer = Signer {
                key_id: text("key"),
                secret: text("secret"),
                region: text("region"),
                service: text("service"),
            };
            assert_eq!(signer.authorization(&signed), text("authorization"), "{name}");
            assert!(!format!("{signer:?}").contains(text("secret")));
        }
        assert!(vectors.len() >= 30);
    }

    #[test]
    fn a_model_in_a_path_is_coded_twice() {
        assert_eq!(
            path("/model/us.amazon.nova-lite-v1%3A0/converse"),
            "/model/us.amazon.nova-lite-v1%253A0/converse"
        );
        assert_eq!(path("/model/amazon.nova-lite-v1:0/converse"), "/model/amazon.nova-lite-v1%3A0/converse");
    }
}
