//! A caller's credential -> who it is. From the head alone, before any body is read.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use schemas::record::{Attributed, Caller, Source};

use crate::app::Pseudonyms;
use crate::keys::{KeyEntry, KeyRefusal, Keys};
use crate::respond::Reason;
use crate::route::Route;

/// Where the SDKs put their API key, and a header of the gateway's own for callers that need the others.
///
/// AWS's SDKs send an API key as a bearer. One that can only sign sends a gateway key as its session token: the
/// signature, made with a secret that nobody here knows, is not looked at.
pub(crate) const CREDENTIALS: [HeaderName; 5] = [
    HeaderName::from_static("x-affidavit-key"),
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-amz-security-token"),
];

/// Finds the gateway key's entry.
///
/// The first credential that is shaped like a gateway key counts; where none is, the first that there is gives
/// the reason.
///
/// # Errors
/// The reason of a 401.
pub(crate) fn authenticate<'a>(
    keys: &'a Keys,
    headers: &HeaderMap,
    now_us: i64,
) -> Result<&'a KeyEntry, Reason> {
    let mut refusal = Reason::MissingKey;
    for name in CREDENTIALS {
        for value in headers.get_all(&name) {
            let Ok(text) = value.to_str() else {
                refusal = worse(refusal, Reason::UnknownKey);
                continue;
            };
            let presented = if name == AUTHORIZATION { bearer(text) } else { Some(text.trim()) };
            let Some(presented) = presented.filter(|text| !text.is_empty()) else { continue };
            match keys.authenticate(presented, now_us) {
                Ok(entry) => return Ok(entry),
                Err(KeyRefusal::Malformed | KeyRefusal::Unknown) => {
                    refusal = worse(refusal, Reason::UnknownKey)
                }
                Err(KeyRefusal::Revoked) => return Err(Reason::RevokedKey),
                Err(KeyRefusal::Expired) => return Err(Reason::ExpiredKey),
            }
        }
    }
    Err(refusal)
}

fn worse(known: Reason, found: Reason) -> Reason {
    if known == Reason::MissingKey { found } else { known }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, rest) = value.trim_start().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
}

/// Who the caller is, with the source of every fact: its key's entry, then the route, then its own word.
pub(crate) fn caller(
    entry: &KeyEntry,
    route: Option<&Route>,
    headers: &HeaderMap,
    pseudonyms: &Pseudonyms,
) -> Caller {
    let key = |value: &Option<schemas::Identifier>| {
        value.clone().map(|value| Attributed { value, source: Source::Key })
    };
    let mut caller = Caller {
        consumer: Some(Attributed { value: entry.consumer.clone(), source: Source::Key }),
        team: key(&entry.team),
        organisation: key(&entry.organisation),
        cost_centre: key(&entry.cost_centre),
        system: key(&entry.system),
        purpose: key(&entry.purpose),
        data_class: key(&entry.data_class),
        subject: None,
        key: Some(entry.id.clone()),
    };
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
    caller.subject = asserted(route, headers, "subject").and_then(|raw| pseudonyms.always(raw)).map(said);
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
