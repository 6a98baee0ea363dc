//! Which headers go on, and which are kept as content.
//!
//! Forwarded: all but hop-by-hop ones (RFC 9110 7.6.1), credentials, cookies and the configured deny list; a
//! header that nobody here knows passes. Kept: only what the configured allow-list names.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};

use crate::authenticate::is_credential;
use crate::config;

/// Patterns of header names: exact, or a prefix (`name-*`).
#[derive(Debug, Default)]
struct Names {
    exact: std::collections::HashSet<String>,
    prefixes: Vec<String>,
}

impl Names {
    fn new(patterns: &[String]) -> Self {
        let mut names = Self::default();
        for pattern in patterns {
            let pattern = pattern.to_ascii_lowercase();
            match pattern.strip_suffix('*') {
                Some(prefix) => names.prefixes.push(prefix.to_owned()),
                None => {
                    names.exact.insert(pattern);
                }
            }
        }
        names
    }

    fn has(&self, name: &str) -> bool {
        self.exact.contains(name) || self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }
}

/// The configured lists.
#[derive(Debug)]
pub(crate) struct Filter {
    deny: Names,
    record_request: Names,
    record_response: Names,
}

/// Never forwarded in a request: hop-by-hop, rewritten here, credentials, cookies.
fn stays(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "host"
            | "content-length"
            | "expect"
            | "authorization"
            | "x-api-key"
            | "api-key"
            | "x-goog-api-key"
            | "x-affidavit-key"
            // What a caller had signed says nothing of what is sent from here.
            | "x-amz-security-token"
            | "x-amz-date"
            | "x-amz-content-sha256"
            | "cookie"
            | "cookie2"
    ) || name.as_str().starts_with("proxy-")
}

/// Never passed back in an answer: hop-by-hop, cookies, what would lead around the gateway or speak for it.
fn stays_back(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "set-cookie"
            | "set-cookie2"
            | "alt-svc"
    ) || name.as_str().starts_with("proxy-")
        || name.as_str().starts_with("x-affidavit-")
}

/// Headers that `Connection` names: they end at this hop too.
fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty() && name != "close" && name != "keep-alive")
        .collect()
}

impl Filter {
    /// Of the configuration.
    pub(crate) fn new(headers: &config::Headers) -> Self {
        Self {
            deny: Names::new(&headers.deny),
            record_request: Names::new(&headers.record_request),
            record_response: Names::new(&headers.record_response),
        }
    }

    /// The headers of a request that go on to the provider.
    pub(crate) fn request(&self, headers: &HeaderMap) -> HeaderMap {
        let named = named_by_connection(headers);
        let mut on = HeaderMap::with_capacity(headers.len() + 1);
        for (name, value) in headers {
            if !stays(name) && !self.deny.has(name.as_str()) && !named.iter().any(|n| n == name.as_str()) {
                on.append(name.clone(), value.clone());
            }
        }
        on
    }

    /// Takes out of an answer's headers what does not go back to the caller.
    pub(crate) fn response(&self, headers: &mut HeaderMap) {
        let named = named_by_connection(headers);
        let out: Vec<HeaderName> = headers
            .keys()
            .filter(|name| stays_back(name) || named.iter().any(|n| n == name.as_str()))
            .cloned()
            .collect();
        for name in out {
            headers.remove(name);
        }
    }

    /// What of an answer's trailers goes back to the caller; none where nothing is left. They pass as headers do: whoever joins
    /// both would take one for the other.
    pub(crate) fn trailers(&self, mut trailers: HeaderMap) -> Option<HeaderMap> {
        self.response(&mut trailers);
        (!trailers.is_empty()).then_some(trailers)
    }

    /// The part `client_request_head`: request line, then the recorded headers, one `name: value` a line.
    pub(crate) fn request_head(&self, method: &Method, target: &str, headers: &HeaderMap) -> Bytes {
        let mut head = BytesMut::with_capacity(256);
        head.put_slice(method.as_str().as_bytes());
        head.put_u8(b' ');
        head.put_slice(target.as_bytes());
        head.put_u8(b'\n');
        lines(&mut head, headers, &self.record_request);
        head.freeze()
    }

    /// The part `provider_response_head`: the status, then the recorded headers.
    pub(crate) fn response_head(&self, status: StatusCode, headers: &HeaderMap) -> Bytes {
        let mut head = BytesMut::with_capacity(256);
        head.put_slice(status.as_str().as_bytes());
        head.put_u8(b'\n');
        lines(&mut head, headers, &self.record_response);
        head.freeze()
    }
}

fn lines(head: &mut BytesMut, headers: &HeaderMap, record: &Names) {
    for (name, value) in headers {
        // A credential is never kept, whatever the list says.
        if record.has(name.as_str()) && !is_credential(name.as_str()) {
            head.put_slice(name.as_str().as_bytes());
            head.put_slice(b": ");
            head.put_slice(value.as_bytes());
            head.put_u8(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use http::HeaderValue;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn hop_by_hop_credentials_cookies_and_denied_headers_stay_and_unknown_ones_pass() {
        let filter = Filter::new(&config::Headers::default());
        let on = filter.request(&map(&[
            ("authorization", "Bearer afk_secret"),
            ("x-api-key", "afk_secret"),
            ("api-key", "afk_secret"),
            ("x-goog-api-key", "afk_secret"),
            ("x-affidavit-key", "afk_secret"),
            ("x-affidavit-subject", "someone"),
            ("x-amz-security-token", "afk_secret"),
            ("x-amz-date", "20261121T000000Z"),
            ("x-amz-content-sha256", "00"),
            ("proxy-authorization", "Basic x"),
            ("cookie", "a=b"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("content-length", "3"),
            ("host", "gateway"),
            ("x-forwarded-for", "10.0.0.1"),
            ("anthropic-beta", "a"),
            ("anthropic-beta", "b"),
            ("openai-new-thing", "1"),
            ("x-custom", "1"),
            ("content-type", "application/json"),
        ]));
        let mut names: Vec<_> = on.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["anthropic-beta", "content-type", "openai-new-thing", "x-custom"]);
        assert_eq!(on.get_all("anthropic-beta").iter().count(), 2);
    }

    #[test]
    fn a_recorded_head_holds_listed_headers_only_and_never_a_credential() {
        let lists = config::Headers { record_request: vec!["*".into()], ..config::Headers::default() };
        let head = Filter::new(&lists).request_head(
            &Method::POST,
            "/v1/x?y=1",
            &map(&[
                ("authorization", "Bearer s3cret"),
                ("x-amz-security-token", "s3cret"),
                ("x-api-key", "s3cret"),
                ("x-goog-api-key", "s3cret"),
                ("user-agent", "u"),
            ]),
        );
        assert_eq!(&head[..], b"POST /v1/x?y=1\nuser-agent: u\n");
    }

    #[test]
    fn an_answer_keeps_its_headers_but_hop_by_hop_cookies_and_ours() {
        let mut headers = map(&[
            ("content-type", "text/event-stream"),
            ("transfer-encoding", "chunked"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("set-cookie", "a=b"),
            ("alt-svc", "h3=\":443\""),
            ("x-affidavit-exchange", "forged"),
            ("x-request-id", "req_1"),
        ]);
        Filter::new(&config::Headers::default()).response(&mut headers);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "x-request-id"]);
    }

    #[test]
    fn trailers_of_which_nothing_goes_back_are_none() {
        let filter = Filter::new(&config::Headers::default());
        assert!(filter.trailers(map(&[("x-affidavit-receipt", "forged"), ("set-cookie", "a=b")])).is_none());
        let left =
            filter.trailers(map(&[("x-checksum", "1"), ("x-affidavit-receipt-outcome", "forged")])).unwrap();
        assert_eq!(left.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-checksum"]);
    }
}
