//! Trace context (W3C, <https://www.w3.org/TR/trace-context/>): what a caller sends, and what goes on to a provider.

use http::{HeaderMap, HeaderValue};
use schemas::ExchangeId;

use crate::config::TraceContext;
use crate::secrets;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

/// The caller's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    pub(super) is_sampled: bool,
}

/// The trace that an exchange belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trace {
    pub(super) parent: Option<Parent>,
    /// The gateway's span for the caller's request.
    pub(super) server: [u8; 8],
    /// Its span for the request to the provider.
    pub(super) client: [u8; 8],
}

impl Trace {
    /// Of a request with these headers; `None` where the system has no random bytes: a span is not worth a refusal.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let random = secrets::random::<16>().ok()?;
        let (server, client) = random.split_first_chunk::<8>()?;
        let span = |bytes: &[u8]| <[u8; 8]>::try_from(bytes).ok().filter(|id| *id != [0; 8]);
        Some(Self { parent: parent(headers), server: span(server)?, client: span(client)? })
    }

    /// Its id: the caller's, or else the exchange's own id, so that the record of a trace's root is found without a table.
    pub(super) fn id(&self, exchange: &ExchangeId) -> [u8; 16] {
        self.parent.map_or_else(|| bytes_of(exchange), |parent| parent.trace)
    }
}

/// The 16 bytes of a UUID.
fn bytes_of(exchange: &ExchangeId) -> [u8; 16] {
    let mut id = [0; 16];
    let digits: Vec<u8> = exchange.as_str().bytes().filter(|b| *b != b'-').collect();
    // Its form was checked when it was made.
    let _ = hex::decode_to_slice(digits, &mut id);
    id
}

/// What a caller's `traceparent` says; nothing where there are none or many, or where its form is not the standard's.
pub(super) fn parent(headers: &HeaderMap) -> Option<Parent> {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let value = all.next()?.as_bytes();
    if all.next().is_some() {
        return None;
    }
    let (head, more) = value.split_at_checked(55)?;
    let [version, trace, span, flags] = fields(head)?;
    let version: [u8; 1] = lower_hex(version)?;
    // A later version may say more behind another `-`; this one says nothing more.
    let fits = if version == [0] { more.is_empty() } else { more.is_empty() || more.starts_with(b"-") };
    let (trace, span, flags) = (lower_hex(trace)?, lower_hex(span)?, lower_hex::<1>(flags)?);
    (fits && version != [0xff] && trace != [0; 16] && span != [0; 8]).then_some(Parent {
        trace,
        span,
        is_sampled: flags[0] & 1 == 1,
    })
}

/// The four fields of a head of 55 bytes.
fn fields(head: &[u8]) -> Option<[&[u8]; 4]> {
    let fields: Vec<&[u8]> = head.split(|byte| *byte == b'-').collect();
    <[&[u8]; 4]>::try_from(fields).ok()
}

fn lower_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_lower = text.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    (is_lower && text.len() == 2 * N && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

/// Puts into a provider's headers what it may know of the trace.
pub(crate) fn apply(
    how: TraceContext,
    headers: &mut HeaderMap,
    trace: Option<(&Trace, bool)>,
    exchange: &ExchangeId,
) {
    match how {
        TraceContext::Forward => {}
        TraceContext::Off => {
            for name in [TRACEPARENT, TRACESTATE, BAGGAGE] {
                headers.remove(name);
            }
        }
        TraceContext::Replace => {
            headers.remove(TRACEPARENT);
            if trace.is_none_or(|(trace, _)| trace.parent.is_none()) {
                // Without a valid parent the rest says nothing.
                headers.remove(TRACESTATE);
            }
            let Some((trace, is_sampled)) = trace else { return };
            let (id, span) = (hex::encode(trace.id(exchange)), hex::encode(trace.client));
            let text = format!("00-{id}-{span}-{:02x}", u8::from(is_sampled));
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(TRACEPARENT, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn with(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_parent_is_read_as_the_standard_says_and_nothing_else_is_one() {
        let parent = |value: &str| parent(&with(&[value]));
        let good = parent(GOOD).unwrap();
        assert_eq!(hex::encode(good.trace), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((hex::encode(good.span).as_str(), good.is_sampled), ("00f067aa0ba902b7", true));
        assert!(!parent(&GOOD.replace("-01", "-02")).unwrap().is_sampled);
        assert!(parent(&GOOD.replacen("00", "cc", 1)).is_some());
        assert!(parent(&format!("cc{}-what-will-be", &GOOD[2..])).is_some());
        let hostile: Vec<String> = vec![
            String::new(),
            "00".into(),
            GOOD[..54].into(),
            format!("{GOOD}-"),
            format!("{GOOD}-00"),
            format!("{GOOD}0"),
            format!("cc{}0", &GOOD[2..]),
            GOOD.replacen("00", "ff", 1),
            GOOD.to_uppercase(),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            GOOD.replace("00f067aa0ba902b7", "0000000000000000"),
            GOOD.replace('-', "_"),
            GOOD.replace("4bf9", "4bg9"),
            "00-4bf92f3577b34da6a3ce929d0e0e47360-0f067aa0ba902b7-01".into(),
            "-".repeat(57),
            "0".repeat(8000),
        ];
        for value in hostile {
            assert_eq!(parent(&value), None, "{value}");
        }
        assert_eq!(super::parent(&with(&[GOOD, GOOD])), None);
        assert_eq!(super::parent(&with(&[])), None);
        let mut bytes = HeaderMap::new();
        bytes.insert(TRACEPARENT, HeaderValue::from_bytes(&[0xf0; 55]).unwrap());
        assert_eq!(super::parent(&bytes), None);
    }

    #[test]
    fn a_provider_learns_what_is_configured() {
        let exchange = ExchangeId::new("01a1fc23-fcba-7aed-b09b-6a27f061fc4c").unwrap();
        let sent = |how, value: &str| {
            let mut headers = with(&[value]);
            headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
            headers.insert(BAGGAGE, HeaderValue::from_static("user=x"));
            let trace = Trace::of(&headers).unwrap();
            apply(how, &mut headers, Some((&trace, true)), &exchange);
            let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            (text(TRACEPARENT), text(TRACESTATE), text(BAGGAGE), hex::encode(trace.client))
        };
        let forwarded = sent(TraceContext::Forward, GOOD);
        assert_eq!((forwarded.0.as_deref(), forwarded.1.as_deref()), (Some(GOOD), Some("a=b")));
        assert_eq!(sent(TraceContext::Forward, "junk").0.as_deref(), Some("junk"));
        let off = sent(TraceContext::Off, GOOD);
        assert_eq!((off.0, off.1, off.2), (None, None, None));
        let (parent, state, _, client) = sent(TraceContext::Replace, GOOD);
        assert_eq!(parent.unwrap(), format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{client}-01"));
        assert_eq!(state.as_deref(), Some("a=b"));
        let (parent, state, _, client) = sent(TraceContext::Replace, "junk");
        assert_eq!(parent.unwrap(), format!("00-01a1fc23fcba7aedb09b6a27f061fc4c-{client}-01"));
        assert_eq!(state, None);
    }
}
