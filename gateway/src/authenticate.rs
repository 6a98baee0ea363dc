//! A caller's credential -> who it is. From the head alone, before any body is read.

use std::borrow::Cow;

use dialects::request::percent_decoded;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use schemas::record::{Attributed, Caller, Source};

use crate::app::{Pseudonyms, Snapshot};
use crate::identity::{Presented, Who, is_token};
use crate::keys::KeyRefusal;
use crate::respond::Reason;
use crate::route::Route;

/// Where the SDKs put their API key, and a header of the gateway's own for callers that need the others.
///
/// AWS's SDKs send an API key as a bearer. One that can only sign sends a gateway key as its session token: the
/// signature, made with a secret that nobody here knows, is not looked at.
pub(crate) const CREDENTIALS: [HeaderName; 6] = [
    HeaderName::from_static("x-affidavit-key"),
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("x-amz-security-token"),
];

/// Headers that carry a credential beside [`CREDENTIALS`], or that ask for one.
const OTHERS: [&str; 4] = ["cookie", "set-cookie", "proxy-authorization", "proxy-authenticate"];

/// Whether a header of this name, in lower case, carries a credential: its value is no fact, counts nothing and is never kept.
pub(crate) fn is_credential(name: &str) -> bool {
    CREDENTIALS.iter().any(|known| known.as_str() == name) || OTHERS.contains(&name)
}

/// The parameter of the query in which Google's older SDKs send the key.
const KEY_PARAMETER: &str = "key";

/// Name and value of a pair of a query. A name may be spelled with percent-encoding, and a key too.
fn decoded(pair: &str) -> (String, String) {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    (percent_decoded(name), percent_decoded(value))
}

/// The key in a query, where there is one.
pub(crate) fn query_key(query: Option<&str>) -> Option<String> {
    query?.split('&').map(decoded).find(|(name, _)| name == KEY_PARAMETER).map(|(_, key)| key)
}

/// A query without what may be a key: it reaches neither record nor provider. `all`: the dialect knows `key` as nothing
/// else; elsewhere only a gateway key and a token are taken out.
pub(crate) fn without_key(query: &str, all: bool) -> Cow<'_, str> {
    let is_key = |pair: &str| {
        let (name, value) = decoded(pair);
        let value = value.trim();
        name == KEY_PARAMETER && (all || value.starts_with(crate::keys::PREFIX) || is_token(value))
    };
    if !query.split('&').any(is_key) {
        return Cow::Borrowed(query);
    }
    Cow::Owned(query.split('&').filter(|pair| !is_key(pair)).collect::<Vec<_>>().join("&"))
}

/// What a caller shows of itself.
pub(crate) struct Shown<'r> {
    pub(crate) headers: &'r HeaderMap,
    pub(crate) query: Option<&'r str>,
    /// Whether the SDKs of the path send their key in the query: elsewhere only a gateway key counts there.
    pub(crate) takes_query_key: bool,
    /// Its certificate, where the TLS layer verified one.
    pub(crate) certificate: Option<&'r Presented>,
    /// Whether the usual headers carry its own credential for the provider: then only `x-affidavit-key` is for the gateway.
    pub(crate) forwards: bool,
}

/// Finds out who calls: by a gateway key, else by a token of a configured issuer, else by a certificate.
///
/// The first credential that is shaped like a gateway key counts, then the first that is shaped like a token; where neither
/// is, a certificate that names somebody, and where none does, the first credential that there is gives the reason. Headers
/// come before the query.
///
/// # Errors
/// The reason of a 401, or that the issuer's keys are not to be had.
pub(crate) async fn authenticate<'a>(
    snapshot: &'a Snapshot,
    shown: &Shown<'_>,
    now_us: i64,
) -> Result<Who<'a>, Reason> {
    let Shown { headers, query, takes_query_key, certificate, forwards } = *shown;
    let (keys, identities) = (&snapshot.loaded.keys, &snapshot.identities);
    let mut refusal = Reason::MissingKey;
    let mut presented = Vec::with_capacity(2);
    for name in CREDENTIALS.into_iter().take(if forwards { 1 } else { CREDENTIALS.len() }) {
        for value in headers.get_all(&name) {
            let Ok(text) = value.to_str() else {
                refusal = worse(refusal, Reason::UnknownKey);
                continue;
            };
            let key = if name == AUTHORIZATION { bearer(text) } else { Some(text.trim()) };
            presented.extend(key.map(Cow::Borrowed));
        }
    }
    if !forwards {
        let counts = |key: &String| takes_query_key || key.starts_with(crate::keys::PREFIX);
        presented.extend(query_key(query).filter(counts).map(Cow::Owned));
    }
    presented.retain(|text| !text.is_empty());
    let mut is_wrong_key = false;
    for text in &presented {
        match keys.authenticate(text, now_us) {
            Ok(entry) => return Ok(Who::Key(entry)),
            Err(KeyRefusal::Malformed) => refusal = worse(refusal, Reason::UnknownKey),
            Err(KeyRefusal::Unknown) => {
                refusal = worse(refusal, Reason::UnknownKey);
                is_wrong_key = true;
            }
            Err(KeyRefusal::Revoked) => return Err(Reason::RevokedKey),
            Err(KeyRefusal::Expired) => return Err(Reason::ExpiredKey),
        }
    }
    if identities.takes_tokens()
        && !is_wrong_key
        && let Some(text) = presented.iter().find(|text| is_token(text))
    {
        let told = identities.token(text, now_us / 1_000_000, &snapshot.pseudonyms).await?;
        return Ok(Who::Told(Box::new(told)));
    }
    // What an SDK sends because it must send something does not stand in a certificate's way; a wrong gateway key does.
    let told = certificate.filter(|_| !is_wrong_key);
    let told = told.and_then(|shown| identities.certificate(shown, now_us / 1_000_000, &snapshot.pseudonyms));
    told.map(|told| Who::Told(Box::new(told))).ok_or(refusal)
}

fn worse(known: Reason, found: Reason) -> Reason {
    if known == Reason::MissingKey { found } else { known }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, rest) = value.trim_start().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
}

/// Who the caller is, with the source of every fact: its key, token or certificate, then the route, then its own word.
pub(crate) fn caller(
    who: &Who<'_>,
    route: Option<&Route>,
    headers: &HeaderMap,
    pseudonyms: &Pseudonyms,
) -> Caller {
    let mut caller = who.caller();
    let Some(route) = route else { return caller };
    let attributes = &route.attributes;
    let slots = [
        (&mut caller.team, attributes.team.as_ref(), "team"),
        (&mut caller.organisation, attributes.organisation.as_ref(), "organisation"),
        (&mut caller.cost_centre, attributes.cost_centre.as_ref(), "cost_centre"),
        (&mut caller.system, attributes.system.as_ref(), "system"),
        (&mut caller.purpose, attributes.purpose.as_ref(), "purpose"),
        (&mut caller.data_class, attributes.data_class.as_ref(), "data_class"),
    ];
    for (slot, of_route, fact) in slots {
        if slot.is_none() {
            *slot = of_route
                .map(|value| Attributed { value: value.clone(), source: Source::Route })
                .or_else(|| asserted(route, headers, fact).map(|raw| said(pseudonyms.identifier(raw))));
        }
    }
    if caller.subject.is_none() {
        caller.subject = asserted(route, headers, "subject").and_then(|raw| pseudonyms.always(raw)).map(said);
    }
    caller
}

fn said(value: schemas::Identifier) -> Attributed {
    Attributed { value, source: Source::Asserted }
}

/// What the caller asserts in the header that the route names for `fact`.
fn asserted<'a>(route: &Route, headers: &'a HeaderMap, fact: &str) -> Option<&'a str> {
    let header = route.asserted_headers.get(fact)?;
    headers.get(header.as_str())?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_query_is_found_and_taken_out() {
        let cases = [
            ("key=afk_1", true, Some("afk_1"), ""),
            ("key=AIza&alt=sse", true, Some("AIza"), "alt=sse"),
            ("alt=sse&key=afk_1&x=%3D", false, Some("afk_1"), "alt=sse&x=%3D"),
            ("alt=sse&key=sort", false, Some("sort"), "alt=sse&key=sort"),
            ("alt=sse&monkey=1&key", false, Some(""), "alt=sse&monkey=1&key"),
            ("k%65y=afk_1&%6B%65%79=afk_2&alt=sse", false, Some("afk_1"), "alt=sse"),
            ("%6bey=AIza", true, Some("AIza"), ""),
            ("key=%61fk_1&alt=sse", false, Some("afk_1"), "alt=sse"),
            ("k%6=afk_1&k%2565y=afk_1", true, None, "k%6=afk_1&k%2565y=afk_1"),
            ("key=eyJa.b.c&alt=sse", false, Some("eyJa.b.c"), "alt=sse"),
            ("%6bey=%65yJa.b.c&alt=sse", false, Some("eyJa.b.c"), "alt=sse"),
            ("alt=sse&key=+eyJa.b.c&key=%20eyJa.b.c", false, Some("+eyJa.b.c"), "alt=sse&key=+eyJa.b.c"),
            ("", true, None, ""),
        ];
        for (query, all, key, left) in cases {
            assert_eq!(query_key(Some(query)).as_deref(), key, "{query}");
            assert_eq!(without_key(query, all), left, "{query}");
        }
        assert_eq!(query_key(None), None);
    }
}
