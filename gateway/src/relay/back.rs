//! The answer on its way back: whole in one write where it came whole, else as it comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dialects::{Framing, Meter, Operation};
use evidence::{Cut, Unavailable};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRAILER};
use http::{Method, Response, StatusCode};
use schemas::promise::Promise;
use schemas::record::{End, ProviderEnd};

use super::ahead::Ahead;
use super::answer::{Answer, Extent};
use super::flow::Flow;
use super::intake::Memory;
use super::live::{Ending, Live, Open};
use super::outlive::Outliving;
use super::stream::Stream;
use super::translation::{MOST_BYTES, Translated, Translation, Whole};
use crate::app::App;
use crate::dispatch::NoAnswer;
use crate::record;
use crate::respond::{self, Reason};

/// How long an answer that is no stream of events may take to come whole, so that it goes in one write.
pub(super) const WHOLE_WITHIN: Duration = Duration::from_millis(1);

/// The most that is gathered for one write.
pub(super) const WHOLE_BYTES: usize = 256 << 10;

/// What the way back needs to know of the request.
pub(crate) struct Way {
    pub(crate) method: Method,
    /// The gateway asked for usage, and takes the trace of it back out.
    pub(crate) stripping: bool,
    /// The caller takes trailers.
    pub(crate) trailers: bool,
    /// The provider speaks another dialect than the caller.
    pub(crate) translation: Option<Translation>,
}

/// What the records say of an answer beyond its bytes, or its time.
const TOO_LARGE: &str = "the answer exceeds its bound";

const CONCLUDED: &str = "the exchange has its outcome";

/// How much of an answer is read for which room was taken.
const STEP_BYTES: usize = 256 << 10;

/// Reads as much of an `answer` as it takes to know that it can go to the caller: all of it where it is translated whole. Nothing of
/// it is in the outcome yet, so that another target can be asked in its place.
///
/// # Errors
/// Why it cannot.
pub(crate) async fn fits(ahead: &mut Ahead<'_>, translation: Option<&Translation>) -> Result<(), NoAnswer> {
    if let Some(translation) = translation {
        if !comes_as_events(&ahead.answer.head, translation.operation) {
            ahead.answer.translated = Some(translated(ahead, translation).await?);
        }
        return Ok(());
    }
    let Some(open) = ahead.live.open() else { return Ok(()) };
    let most = open.intended.target.bounds(&open.snapshot.limits).bytes;
    if ahead.answer.whole_length().zip(most).is_some_and(|(length, most)| length > most) {
        // What comes at once is kept.
        ahead.answer.read(WHOLE_BYTES, WHOLE_WITHIN).await;
        return Err(NoAnswer { reason: Reason::AnswerTooLarge, text: TOO_LARGE.to_owned() });
    }
    Ok(())
}

/// Whether an answer is a stream that can be translated as it comes. One under a content coding is not asked for: it is read
/// whole, and so is what is no stream.
fn comes_as_events(head: &http::response::Parts, operation: Operation) -> bool {
    let limits = dialects::Limits::default();
    let meter = Meter::new(operation, head.status.as_u16(), &head.headers, false, limits);
    meter.framing().is_some() && record::content_coding(&head.headers).is_none()
}

/// Sends the provider's answer on.
pub(crate) async fn relay(app: &Arc<App>, mut live: Live, answer: Answer, way: Way) -> Response<Flow> {
    let Answer { mut head, chunks: early, first_byte, rest: body, translated, held } = answer;
    let Some(open) = live.open() else { return own(app, live, Reason::ProviderAborted, None).await };
    open.intended.clock.head.get_or_insert_with(Instant::now);
    open.saw_byte_at(first_byte);
    let most = open.intended.target.bounds(&open.snapshot.limits).bytes;
    let operation = way.translation.as_ref().map_or(open.intended.operation, |way| way.operation);
    let recorded = open.snapshot.filter.response_head(head.status, &head.headers);
    let media_type = record::media_type(&head.headers);
    let coding = record::content_coding(&head.headers);
    // Only a stream of events in plain text can have events taken out.
    let stripping = way.stripping
        && coding.is_none()
        && media_type.as_ref().is_some_and(|media_type| media_type.as_str() == "text/event-stream");
    let limits = dialects::Limits::default();
    let mut meter = Meter::new(operation, head.status.as_u16(), &head.headers, stripping, limits);
    if open.prompt.is_some() {
        meter.keep_words();
        open.expects_no_usage();
    }
    let events = meter.framing();
    let translates = way.translation.is_some() && comes_as_events(&head, operation);
    let events = if way.translation.is_none() || translates { events } else { None };
    open.meter = Some(meter);
    open.provider_status = Some(head.status.as_u16());
    if let Err(cut) = open.answer_begins(&recorded, media_type, coding, stripping || translates) {
        return own(app, live, Reason::Evidence(cut.0.reason), Some(cut.to_string())).await;
    }
    open.snapshot.filter.response(&mut head.headers);
    if let Ok(id) = HeaderValue::from_str(open.exchange.as_str()) {
        head.headers.insert(respond::EXCHANGE, id);
    }
    if open.intended.route.server_timing
        && let Ok(timing) = HeaderValue::from_str(&open.intended.clock.server_timing())
    {
        head.headers.append(respond::SERVER_TIMING, timing);
    }
    respond::promised(&mut head.headers, respond::RECEIPT, open.promise());
    open.intended.show_left(&mut head.headers);
    let promises = open.promise().is_some();
    if stripping {
        head.headers.remove(CONTENT_LENGTH);
    }
    if let Some(translation) = &way.translation {
        if translates {
            let exchange = live.open().map(|open| open.exchange.as_str().to_owned()).unwrap_or_default();
            translation.head(&mut head.headers, "text/event-stream");
            if let Some(open) = live.open() {
                open.status = Some(head.status.as_u16());
            }
            let trails = promises && way.trailers;
            if trails {
                head.headers.insert(TRAILER, HeaderValue::from_static("x-affidavit-receipt-outcome"));
            }
            let translator = Some(translation.stream(&exchange));
            if let Some(open) = live.open() {
                open.loses(&[]);
            }
            let framing = Some(Framing::ServerSent);
            let stream = Stream::new(Arc::clone(app), live, body, early, (None, trails), framing, translator);
            return Response::from_parts(head, Flow::Stream(Box::new(stream)));
        }
        return all_of_it(
            app,
            live,
            Answer { head, chunks: early, first_byte, rest: body, translated, held },
            translation,
        )
        .await;
    }
    if way.method == Method::HEAD || is_bodiless(head.status) || (early.is_empty() && body.is_end_stream()) {
        return whole(app, live, head, Vec::new(), None, None).await;
    }
    let mut answer = Answer { head, chunks: early, first_byte, rest: body, translated, held };
    let length = answer.whole_length();
    let known = length.filter(|_| !stripping);
    let is_too_large = length.zip(most).is_some_and(|(length, most)| length > most);
    let extent = if events.is_none() || is_too_large {
        // Head and body go in one write behind the commit, where all of it comes in a moment.
        let ahead = Ahead::new(&mut live, &mut answer, operation);
        let extent = ahead.answer.read(WHOLE_BYTES, WHOLE_WITHIN).await;
        ahead.done();
        extent
    } else {
        Extent::Part
    };
    if let Some(open) = live.open() {
        open.saw_byte_at(answer.first_byte);
    }
    if is_too_large || (extent == Extent::Whole && exceeds(&answer.chunks, most)) {
        // Nothing of it went yet; what came at once is kept.
        took(&mut live, &answer.chunks);
        return own(app, live, Reason::AnswerTooLarge, Some(TOO_LARGE.to_owned())).await;
    }
    let Answer { mut head, chunks, rest: body, .. } = answer;
    let body = match extent {
        Extent::Part => body,
        Extent::Whole | Extent::Broken => match body.end() {
            Ok(trailers) => return whole(app, live, head, chunks, trailers, None).await,
            Err(error) => {
                took(&mut live, &chunks);
                return own(app, live, Reason::ProviderAborted, Some(error)).await;
            }
        },
    };
    if let Some(open) = live.open() {
        open.status = Some(head.status.as_u16());
    }
    // The outcome's promise is made when the head is long gone. Where the length is known no trailers can follow.
    let trails = promises && way.trailers && known.is_none();
    if trails {
        head.headers.insert(TRAILER, HeaderValue::from_static("x-affidavit-receipt-outcome"));
    }
    let stream = Stream::new(Arc::clone(app), live, body, chunks, (known, trails), events, None);
    Response::from_parts(head, Flow::Stream(Box::new(stream)))
}

fn exceeds(chunks: &[Bytes], most: Option<u64>) -> bool {
    let came: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    most.is_some_and(|most| came > most)
}

/// Takes what came of an answer of which nothing goes to the caller: it is kept (CA-6), and its usage read (CA-5).
pub(super) fn took(live: &mut Live, chunks: &[Bytes]) {
    let Some(open) = live.open() else { return };
    keep(open, chunks);
    let mut segments = Vec::new();
    if let Some(meter) = &mut open.meter {
        for chunk in chunks {
            meter.feed(chunk, &mut segments);
            segments.clear();
        }
    }
    if chunks.iter().any(|chunk| !chunk.is_empty()) {
        open.saw_byte();
        open.saw_output();
    }
}

fn keep(open: &mut Open, chunks: &[Bytes]) {
    for chunk in chunks {
        // Where it cannot be kept the outcome still says what happened.
        let _ = open.came(chunk);
    }
}

fn is_bodiless(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// Sends an answer on that can be translated only as a whole.
async fn all_of_it(
    app: &Arc<App>,
    mut live: Live,
    mut answer: Answer,
    translation: &Translation,
) -> Response<Flow> {
    let translated = match answer.translated.take() {
        Some(translated) => Ok(translated),
        None => {
            let mut ahead = Ahead::new(&mut live, &mut answer, translation.operation);
            let translated = translated(&mut ahead, translation).await;
            ahead.done();
            translated
        }
    };
    if let Some(open) = live.open() {
        open.saw_byte_at(answer.first_byte);
    }
    match translated {
        Ok(translated) => {
            let Answer { head, chunks, .. } = answer;
            whole(app, live, head, chunks, None, Some((translation, translated))).await
        }
        Err(NoAnswer { reason, text }) => {
            took(&mut live, &answer.chunks);
            own(app, live, reason, Some(text)).await
        }
    }
}

/// Reads an answer to its end, and says it in the caller's words.
async fn translated(ahead: &mut Ahead<'_>, translation: &Translation) -> Result<Translated, NoAnswer> {
    let memory = gathered(ahead).await.map_err(|(reason, text)| NoAnswer { reason, text: text.into() })?;
    let body = ahead.answer.joined();
    let Some(open) = ahead.live.open() else {
        return Err(NoAnswer { reason: Reason::ProviderAborted, text: CONCLUDED.into() });
    };
    in_words(open, translation, &ahead.answer.head, &body, memory).await
}

/// A whole answer in the caller's words.
async fn in_words(
    open: &mut Open,
    translation: &Translation,
    head: &http::response::Parts,
    body: &Bytes,
    memory: Memory,
) -> Result<Translated, NoAnswer> {
    let snapshot = Arc::clone(&open.snapshot);
    let room = (memory, &snapshot.memory, snapshot.limits.admission);
    translation.whole(head, body, open.exchange.as_str(), room).await
}

/// Reads an answer to its end, as far as it may be translated, and takes its room of the memory for bodies as it comes.
async fn gathered(Ahead { live, answer, .. }: &mut Ahead<'_>) -> Result<Memory, (Reason, &'static str)> {
    const NO_ROOM: &str = "no memory for an answer that is to be translated was free in time";
    let Some(open) = live.open() else { return Err((Reason::ProviderAborted, CONCLUDED)) };
    let snapshot = Arc::clone(&open.snapshot);
    let (budget, patience) = (&snapshot.memory, snapshot.limits.admission);
    let bounds = open.intended.target.bounds(&snapshot.limits);
    let until = bounds.time.map(|time| tokio::time::Instant::now() + time);
    let mut memory = std::mem::take(&mut answer.held);
    let mut room = 0;
    loop {
        room = answer.length().max(room) + STEP_BYTES;
        memory.grow(budget, room as u64, patience).await.map_err(|reason| (reason, NO_ROOM))?;
        let extent = answer.read_on(room, until, bounds.idle).await;
        if exceeds(&answer.chunks, bounds.bytes) {
            return Err((Reason::AnswerTooLarge, TOO_LARGE));
        }
        match extent {
            Extent::Whole => return Ok(memory),
            Extent::Broken => return Err((Reason::ProviderAborted, "the answer broke off")),
            Extent::Part if until.is_some_and(|until| tokio::time::Instant::now() >= until) => {
                return Err((Reason::AnswerTooLong, TOO_LARGE));
            }
            Extent::Part if answer.length() < room => {
                return Err((Reason::ProviderTimeout, "no byte of the provider came in time"));
            }
            Extent::Part if room as u64 >= MOST_BYTES => {
                return Err((Reason::ProviderAborted, "the answer is too large to be translated"));
            }
            Extent::Part => {}
        }
    }
}

/// An answer that came whole: recorded, then sent in one write.
async fn whole(
    app: &Arc<App>,
    mut live: Live,
    mut head: http::response::Parts,
    mut chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    translation: Option<(&Translation, Translated)>,
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
            // What cannot be kept tells its usage all the same.
            failed = failed.or(open.came(chunk).err());
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
    if let (Some((translation, translated)), Some(open)) = (translation, live.open()) {
        chunks.clear();
        let Whole { body, dropped } = translation.put(&mut head, translated);
        open.loses(&dropped);
        open.answers_with(&body, record::media_type(&head.headers), None);
        open.status = Some(head.status.as_u16());
        total = body.len();
        chunks.push(body);
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

/// Answers for a provider whose answer `came` and cannot go to the caller.
pub(crate) async fn unfit(
    app: &Arc<App>,
    mut live: Live,
    failure: NoAnswer,
    (came, spoken): (Answer, Option<Operation>),
) -> Response<Flow> {
    // As where it came in part: the outcome says what happened.
    let _ = keep_part(&mut live, &came, spoken);
    own(app, live, failure.reason, Some(failure.text)).await
}

/// Answers with what an earlier target of the exchange answered, for one that did not: the caller reads why it failed in its
/// provider's own words. The outcome tells of the last one, with what `came` of its answer, and what the caller got is content.
pub(crate) async fn earlier(
    app: &Arc<App>,
    mut live: Live,
    (failure, came, spoken): (NoAnswer, Option<Answer>, Option<Operation>),
    (answer, translation): (Answer, Option<Translation>),
) -> Response<Flow> {
    let mut body = answer.bytes();
    let mut head = answer.head;
    if let Some(came) = came {
        let _ = keep_part(&mut live, &came, spoken);
    }
    let Some(open) = live.open() else { return own(app, live, failure.reason, Some(failure.text)).await };
    if let Some(translation) = &translation {
        match in_words(open, translation, &head, &body, Memory::default()).await {
            // What was left out of it stands beside no other attempt's `translation`.
            Ok(translated) => body = translation.put(&mut head, translated).body,
            Err(NoAnswer { text, .. }) => return own(app, live, failure.reason, Some(text)).await,
        }
    }
    let (media_type, coding) = (record::media_type(&head.headers), record::content_coding(&head.headers));
    open.answers_with(&body, media_type, coding);
    open.status = Some(head.status.as_u16());
    open.snapshot.filter.response(&mut head.headers);
    if let Ok(id) = HeaderValue::from_str(open.exchange.as_str()) {
        head.headers.insert(respond::EXCHANGE, id);
    }
    open.intended.show_left(&mut head.headers);
    let (exchange, intent) = (open.exchange.clone(), open.promise().cloned());
    let dialect = open.intended.operation.dialect();
    respond::promised(&mut head.headers, respond::RECEIPT, intent.as_ref());
    let ending = Ending {
        provider_end: open.provider_status.map(|_| ProviderEnd::Cut),
        reason: Some(failure.reason),
        error: Some(failure.text),
        released: body.len() as u64,
        ..Ending::new(end_of(failure.reason))
    };
    let committed =
        Outliving::new(app, live.conclude(ending)).when_left(|app| app.telemetry.released_lost()).await;
    match committed {
        Ok(outcome) => {
            respond::promised(&mut head.headers, respond::OUTCOME_RECEIPT, outcome.as_ref());
            Response::from_parts(head, Flow::released(app, body, None))
        }
        Err(unavailable) => unrecorded(dialect, Some(exchange.as_str()), unavailable, intent.as_ref()),
    }
}

/// Keeps what came of an answer of which nothing goes to the caller (CA-6), and reads its usage (CA-5): in the words of `spoken`,
/// where those are not the caller's.
///
/// # Errors
/// It cannot be kept; its usage is read all the same.
pub(super) fn keep_part(live: &mut Live, came: &Answer, spoken: Option<Operation>) -> Result<(), Cut> {
    let Some(open) = live.open() else { return Ok(()) };
    let mut kept = Ok(());
    // Else it was on its way to the caller.
    if open.meter.is_none() {
        kept = begins(open, came);
        let operation = spoken.unwrap_or(open.intended.operation);
        let (status, headers) = (came.head.status.as_u16(), &came.head.headers);
        let mut meter = Meter::new(operation, status, headers, false, dialects::Limits::default());
        if open.prompt.is_some() {
            meter.keep_words();
        }
        open.meter = Some(meter);
    }
    open.saw_byte_at(came.first_byte);
    took(live, &came.chunks);
    kept
}

/// Keeps what came of an answer of which nothing goes to the caller, and does not read it.
pub(super) fn keep_unread(live: &mut Live, came: &Answer) {
    let Some(open) = live.open() else { return };
    open.saw_byte_at(came.first_byte);
    if open.meter.is_some() || begins(open, came).is_ok() {
        keep(open, &came.chunks);
    }
}

/// Opens the parts of an answer of which nothing goes to the caller.
fn begins(open: &mut Open, came: &Answer) -> Result<(), Cut> {
    let (status, headers) = (came.head.status, &came.head.headers);
    open.provider_status = Some(status.as_u16());
    let recorded = open.snapshot.filter.response_head(status, headers);
    let (media_type, coding) = (record::media_type(headers), record::content_coding(headers));
    open.answer_begins(&recorded, media_type, coding, false)
}

fn end_of(reason: Reason) -> End {
    match reason {
        Reason::ProviderUnreachable => End::Unreachable,
        Reason::ProviderTimeout => End::Timeout,
        Reason::ProviderAborted => End::ProviderAbort,
        _ => End::GatewayAbort,
    }
}

async fn own(app: &Arc<App>, mut live: Live, reason: Reason, error: Option<String>) -> Response<Flow> {
    let Some(open) = live.open() else {
        return respond::answer(dialects::Dialect::OpenAi, reason, None, None);
    };
    let dialect = open.intended.operation.dialect();
    let exchange = open.exchange.clone();
    let intent = open.promise().cloned();
    let mut left = HeaderMap::new();
    open.intended.show_left(&mut left);
    let body = respond::body(dialect, reason, Some(exchange.as_str()));
    open.own_answer(&body);
    open.status = Some(reason.status());
    let end = end_of(reason);
    let provider_end = open.provider_status.map(|_| ProviderEnd::Cut);
    tracing::warn!(%exchange, reason = reason.name(), error, "no answer of the provider was passed on");
    let released = body.len() as u64;
    let ending = Ending { provider_end, reason: Some(reason), error, released, ..Ending::new(end) };
    let committed =
        Outliving::new(app, live.conclude(ending)).when_left(|app| app.telemetry.released_lost()).await;
    match committed {
        Ok(outcome) => {
            let mut answer = respond::answer_with(dialect, body, reason, Some(exchange.as_str()), None);
            answer.headers_mut().extend(left);
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
