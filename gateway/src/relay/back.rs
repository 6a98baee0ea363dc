//! The answer on its way back: whole in one write where it came whole, else as it comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dialects::Meter;
use evidence::Unavailable;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRAILER};
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use schemas::promise::Promise;
use schemas::record::{End, ProviderEnd};

use super::flow::Flow;
use super::live::{Ending, Live};
use super::outlive::Outliving;
use super::stream::Stream;
use crate::app::App;
use crate::dispatch::{self, NoAnswer};
use crate::record;
use crate::respond::{self, Reason};

/// How long an answer that is no stream of events may take to come whole, so that it goes in one write.
const WHOLE_WITHIN: Duration = Duration::from_millis(1);

/// The most that is gathered for one write.
const WHOLE_BYTES: usize = 256 << 10;

/// What the way back needs to know of the request.
pub(crate) struct Way {
    pub(crate) method: Method,
    /// The gateway asked for usage, and takes the trace of it back out.
    pub(crate) stripping: bool,
    /// The caller takes trailers.
    pub(crate) trailers: bool,
}

/// Sends the provider's answer on.
pub(crate) async fn relay(
    app: &Arc<App>,
    mut live: Live,
    response: Response<Incoming>,
    way: Way,
) -> Response<Flow> {
    let (mut head, body) = response.into_parts();
    let Some(open) = live.open() else { return own(app, live, Reason::ProviderAborted, None).await };
    open.intended.clock.head = Some(Instant::now());
    let operation = open.intended.operation;
    let recorded = open.snapshot.filter.response_head(head.status, &head.headers);
    let media_type = record::media_type(&head.headers);
    let coding = record::content_coding(&head.headers);
    // Only a stream of events in plain text can have events taken out.
    let stripping = way.stripping
        && coding.is_none()
        && media_type.as_ref().is_some_and(|media_type| media_type.as_str() == "text/event-stream");
    let limits = dialects::Limits::default();
    let meter = Meter::new(operation, head.status.as_u16(), &head.headers, stripping, limits);
    let events = meter.framing();
    open.meter = Some(meter);
    open.provider_status = Some(head.status.as_u16());
    if let Err(cut) = open.answer_begins(&recorded, media_type, coding, stripping) {
        return own(app, live, Reason::Evidence(cut.0.reason), Some(cut.to_string())).await;
    }
    open.snapshot.filter.response(&mut head.headers);
    if let Ok(id) = HeaderValue::from_str(open.exchange.as_str()) {
        head.headers.insert(respond::EXCHANGE, id);
    }
    respond::promised(&mut head.headers, respond::RECEIPT, open.promise());
    let promises = open.promise().is_some();
    if stripping {
        head.headers.remove(CONTENT_LENGTH);
    }
    if way.method == Method::HEAD || is_bodiless(head.status) || body.is_end_stream() {
        return whole(app, live, head, Vec::new(), None).await;
    }
    let known = body.size_hint().exact().filter(|_| !stripping);
    let (chunks, body) = if events.is_some() {
        (Vec::new(), body)
    } else {
        match gather(body).await {
            Gathered::Whole { chunks, trailers } => return whole(app, live, head, chunks, trailers).await,
            Gathered::Start { chunks, body } => (chunks, body),
            Gathered::Failed { chunks, error } => {
                if let Some(open) = live.open() {
                    for chunk in &chunks {
                        // Where it cannot be kept the outcome still says what happened.
                        let _ = open.came(chunk);
                    }
                }
                return own(app, live, Reason::ProviderAborted, Some(error)).await;
            }
        }
    };
    if let Some(open) = live.open() {
        open.status = Some(head.status.as_u16());
    }
    // The outcome's promise is made when the head is long gone. Where the length is known no trailers can follow.
    let trails = promises && way.trailers && known.is_none();
    if trails {
        head.headers.insert(TRAILER, HeaderValue::from_static("x-affidavit-receipt-outcome"));
    }
    let stream = Stream::new(Arc::clone(app), live, body, chunks, (known, trails), events);
    Response::from_parts(head, Flow::Stream(Box::new(stream)))
}

fn is_bodiless(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// An answer's body, as far as it came at once.
enum Gathered {
    Whole { chunks: Vec<Bytes>, trailers: Option<HeaderMap> },
    Start { chunks: Vec<Bytes>, body: Incoming },
    Failed { chunks: Vec<Bytes>, error: String },
}

/// Waits a moment for the whole body, so that head and body go in one write behind the commit.
async fn gather(mut body: Incoming) -> Gathered {
    let mut chunks = Vec::new();
    let mut total = 0;
    let mut ended: Option<Result<Option<HeaderMap>, String>> = None;
    let all = async {
        while total < WHOLE_BYTES {
            match body.frame().await {
                None => {
                    ended = Some(Ok(None));
                    return;
                }
                Some(Err(error)) => {
                    ended = Some(Err(dispatch::chain(&error)));
                    return;
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        total += data.len();
                        chunks.push(data);
                        if body.is_end_stream() {
                            ended = Some(Ok(None));
                            return;
                        }
                    }
                    Err(frame) => {
                        ended = Some(Ok(frame.into_trailers().ok()));
                        return;
                    }
                },
            }
        }
    };
    // What did not come in time is streamed.
    let _ = tokio::time::timeout(WHOLE_WITHIN, all).await;
    match ended {
        Some(Ok(trailers)) => Gathered::Whole { chunks, trailers },
        Some(Err(error)) => Gathered::Failed { chunks, error },
        None => Gathered::Start { chunks, body },
    }
}

/// An answer that came whole: recorded, then sent in one write.
async fn whole(
    app: &Arc<App>,
    mut live: Live,
    mut head: http::response::Parts,
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
) -> Response<Flow> {
    let mut total = 0;
    let mut failed = None;
    let mut intent = None;
    let mut passed = None;
    if let Some(open) = live.open() {
        intent = open.promise().cloned();
        passed = trailers.and_then(|trailers| open.snapshot.filter.trailers(trailers));
        let mut segments = Vec::new();
        for chunk in &chunks {
            total += chunk.len();
            if let Err(cut) = open.came(chunk) {
                failed = Some(cut);
                break;
            }
            if let Some(meter) = &mut open.meter {
                // Nothing is taken out of a body that came whole, and all of it is held anyway.
                meter.feed(chunk, &mut segments);
                segments.clear();
            }
        }
        if total > 0 {
            open.saw_byte();
        }
        open.saw_output();
        open.status = Some(head.status.as_u16());
    }
    if let Some(cut) = failed {
        return own(app, live, Reason::Evidence(cut.0.reason), Some(cut.to_string())).await;
    }
    let dialect = live.open().map(|open| (open.intended.operation.dialect(), open.exchange.clone()));
    let ending = Ending {
        provider_end: Some(ProviderEnd::Seen),
        released: total as u64,
        ..Ending::new(End::Complete)
    };
    let committed =
        Outliving::new(app, live.conclude(ending)).when_left(|app| app.telemetry.released_lost()).await;
    match committed {
        Ok(promise) => {
            respond::promised(&mut head.headers, respond::OUTCOME_RECEIPT, promise.as_ref());
            let body = joined(chunks, total);
            Response::from_parts(head, Flow::released(app, body, passed))
        }
        Err(unavailable) => {
            let (dialect, exchange) = match &dialect {
                Some((dialect, exchange)) => (*dialect, Some(exchange.as_str())),
                None => (dialects::Dialect::OpenAi, None),
            };
            unrecorded(dialect, exchange, unavailable, intent.as_ref())
        }
    }
}

fn joined(mut chunks: Vec<Bytes>, total: usize) -> Bytes {
    if chunks.len() == 1 {
        return chunks.swap_remove(0);
    }
    let mut all = BytesMut::with_capacity(total);
    for chunk in chunks {
        all.extend_from_slice(&chunk);
    }
    all.freeze()
}

/// Answers for a provider that did not, with the outcome recorded first.
pub(crate) async fn no_answer(app: &Arc<App>, live: Live, failure: NoAnswer) -> Response<Flow> {
    own(app, live, failure.reason, Some(failure.text)).await
}

async fn own(app: &Arc<App>, mut live: Live, reason: Reason, error: Option<String>) -> Response<Flow> {
    let Some(open) = live.open() else {
        return respond::answer(dialects::Dialect::OpenAi, reason, None, None);
    };
    let dialect = open.intended.operation.dialect();
    let exchange = open.exchange.clone();
    let intent = open.promise().cloned();
    let body = respond::body(dialect, reason, Some(exchange.as_str()));
    open.own_answer(&body);
    open.status = Some(reason.status());
    let end = match reason {
        Reason::ProviderUnreachable => End::Unreachable,
        Reason::ProviderTimeout => End::Timeout,
        Reason::ProviderAborted => End::ProviderAbort,
        _ => End::GatewayAbort,
    };
    let provider_end = open.provider_status.map(|_| ProviderEnd::Cut);
    tracing::warn!(%exchange, reason = reason.name(), error, "no answer of the provider was passed on");
    let released = body.len() as u64;
    let ending = Ending { provider_end, reason: Some(reason), error, released, ..Ending::new(end) };
    let committed =
        Outliving::new(app, live.conclude(ending)).when_left(|app| app.telemetry.released_lost()).await;
    match committed {
        Ok(outcome) => {
            let mut answer = respond::answer_with(dialect, body, reason, Some(exchange.as_str()), None);
            respond::promised(answer.headers_mut(), respond::RECEIPT, intent.as_ref());
            respond::promised(answer.headers_mut(), respond::OUTCOME_RECEIPT, outcome.as_ref());
            answer
        }
        Err(unavailable) => unrecorded(dialect, Some(exchange.as_str()), unavailable, intent.as_ref()),
    }
}

/// Answers where the outcome could not be recorded. The intent is on stable storage all the same, and its receipt holds.
fn unrecorded(
    dialect: dialects::Dialect,
    exchange: Option<&str>,
    unavailable: Unavailable,
    intent: Option<&Promise>,
) -> Response<Flow> {
    let retry = Some(unavailable.retry_after_s);
    let mut answer = respond::answer(dialect, Reason::Evidence(unavailable.reason), exchange, retry);
    respond::promised(answer.headers_mut(), respond::RECEIPT, intent);
    answer
}
