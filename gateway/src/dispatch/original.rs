//! A caller's request as it came, and what of it is sent to a target: made anew for each.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use dialects::operation::Tokens;
use dialects::translate::form::{Lost, Options};
use dialects::translate::{Pair, Untranslatable};
use dialects::{Operation, RequestFacts, change, sibling};
use evidence::{NewPart, StoredBody};
use http::Method;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use schemas::Identifier;
use schemas::record::{Asked, Caller, PartName, Translation as Recorded};
use sha2::{Digest as _, Sha256};

use super::Outgoing;
use super::forward::Forwarded;
use super::pool::Provider;
use super::target::Target;
use super::upload::Upload;
use crate::app::Snapshot;
use crate::estimate::{Estimates, Sent};
use crate::quotas;
use crate::relay::intake::Memory;
use crate::relay::translation::Translation;
use crate::respond::Reason;
use crate::route::Route;

/// A request's body, all of it.
pub(crate) enum Body {
    Memory(Bytes),
    Stored(StoredBody),
}

impl Body {
    /// As content of the exchange.
    pub(crate) fn part(&self) -> NewPart {
        match self {
            Self::Memory(bytes) => NewPart::bytes(PartName::ClientRequest, bytes.clone()),
            Self::Stored(stored) => NewPart::stored(stored),
        }
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Stored(stored) => stored.len(),
        }
    }

    /// Whether it has none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// SHA-256 of all of it, for a signature.
    async fn sha256(&self) -> Result<[u8; 32], Reason> {
        let stored = match self {
            Self::Memory(bytes) => return Ok(Sha256::digest(bytes).into()),
            Self::Stored(stored) => stored,
        };
        let mut hasher = Sha256::new();
        let mut chunks = stored.chunks();
        while let Some(chunk) = chunks.next().await {
            hasher.update(chunk.map_err(unreadable)?);
        }
        Ok(hasher.finalize().into())
    }

    /// All of it in memory.
    async fn whole(&self) -> Result<Bytes, Reason> {
        let stored = match self {
            Self::Memory(bytes) => return Ok(bytes.clone()),
            Self::Stored(stored) => stored,
        };
        let mut whole = Vec::new();
        let mut chunks = stored.chunks();
        while let Some(chunk) = chunks.next().await {
            whole.extend_from_slice(&chunk.map_err(unreadable)?);
        }
        Ok(whole.into())
    }

    fn upload(&self) -> Upload {
        match self {
            Self::Memory(bytes) => Upload::whole(bytes.clone()),
            Self::Stored(stored) => Upload::stored(stored),
        }
    }
}

/// Why a request is not translated, in a word of a closed set.
fn reason(error: &Untranslatable) -> Reason {
    match error {
        Untranslatable::Operation(_) => Reason::Untranslatable("operation"),
        Untranslatable::Unreadable(_) => Reason::MalformedBody,
        Untranslatable::CannotCarry(error) => {
            Reason::Untranslatable(error.dropped.first().map_or("unknown_key", |dropped| dropped.what))
        }
    }
}

/// Why nothing can be sent to a target.
#[derive(Debug)]
pub(crate) struct Unfit {
    pub(crate) reason: Reason,
    /// What its dialect cannot say, where it is that.
    pub(crate) translation: Option<Recorded>,
}

impl From<Reason> for Unfit {
    fn from(reason: Reason) -> Self {
        Self { reason, translation: None }
    }
}

impl Unfit {
    fn of(pair: &Pair, error: &Untranslatable) -> Self {
        let translation = match error {
            Untranslatable::CannotCarry(error) => pair.record(&Lost::places(&error.dropped)),
            Untranslatable::Operation(_) => pair.record(&Lost::default()),
            Untranslatable::Unreadable(_) => None,
        };
        Self { reason: reason(error), translation }
    }
}

/// A spilled body cannot be read back.
pub(crate) fn unreadable(error: std::io::Error) -> Reason {
    tracing::error!(%error, "a spilled body could not be read back");
    Reason::Evidence(evidence::Reason::JournalFailed)
}

/// The request as it came.
pub(crate) struct Original {
    pub(crate) method: Method,
    /// Behind the route's prefix.
    pub(crate) rest: String,
    pub(crate) query: Option<String>,
    /// Filtered already.
    pub(crate) headers: HeaderMap,
    pub(crate) operation: Operation,
    pub(crate) body: Body,
    /// The body without its content coding, where it can be read and may be changed.
    pub(crate) readable: Option<Bytes>,
    /// Whether the body came under a content coding.
    pub(crate) is_coded: bool,
    /// Whether the body can be read in one way only.
    pub(crate) is_sound: bool,
    pub(crate) is_json: bool,
    /// The model that the caller named.
    pub(crate) model: Option<String>,
    /// How many tokens its body may be, where a quota counts.
    pub(crate) input_tokens: u64,
    /// Whether its body asks for a cache, likewise.
    pub(crate) writes_cache: bool,
    /// The groups that quotas count by, where the record does not hold all.
    pub(crate) counted: Option<Arc<[Identifier]>>,
    /// Held for as long as `readable` is.
    pub(crate) _memory: Memory,
}

/// What is sent to one target.
pub(crate) struct Prepared {
    target: PathAndQuery,
    headers: HeaderMap,
    /// The body, where it is not as it came.
    pub(crate) changed: Option<Bytes>,
    /// Usage was asked for on the caller's behalf.
    pub(crate) stripping: bool,
    /// The model that is sent, where it is another than the caller named.
    pub(crate) model: Option<String>,
    /// The target speaks another dialect than the caller.
    pub(crate) translation: Option<Translation>,
}

impl Prepared {
    /// How records say that it is translated, where it is.
    pub(crate) fn recorded(&self) -> Option<Recorded> {
        self.translation.as_ref().and_then(Translation::recorded)
    }
}

/// Where a request goes, and the model that is put into its body.
struct Place {
    way: PathAndQuery,
    in_body: Option<String>,
}

/// Headers that mean something to providers of the caller's dialect only.
fn is_of_the_dialect(name: &str) -> bool {
    name.starts_with("anthropic-") || name.starts_with("openai-")
}

/// Whether the body of a request with these `facts` may be changed for some target of `route`.
pub(crate) fn may_change(route: &Route, operation: &Operation, facts: &RequestFacts) -> bool {
    let asked = facts.requested_model.as_deref();
    let asks = operation.can_ask_usage() && facts.stream == Some(true) && !facts.asks_usage;
    // What a prompt means is read off it later too.
    route.semantic.is_some()
        || route.targets.iter().any(|target| {
            let translates = target.provider.dialect != operation.dialect();
            translates
                || target.puts_in()
                || target.model(&route.aliases, asked).is_some()
                || (target.ask_usage && asks)
        })
}

impl Original {
    /// Whether it may be sent again where it is not known what became of it: no more comes of it than tokens.
    pub(crate) fn is_repeatable(&self) -> bool {
        let harmless = matches!(self.method, Method::GET | Method::HEAD);
        // A turn that is put behind a stored conversation would stand in it twice.
        let is_kept = matches!(self.operation.name(), "conversations.append" | "conversations.restart");
        harmless || !is_kept && matches!(self.operation.tokens(), Tokens::Incurs | Tokens::Counts)
    }

    /// Whether it is said in another dialect for `target`.
    fn is_translated(&self, route: &Route, target: &Target) -> bool {
        let spoken = target.provider.dialect;
        spoken != route.dialect && spoken != self.operation.dialect() && !self.is_moved(target)
    }

    /// Whether `target` has the same API behind other paths.
    fn is_moved(&self, target: &Target) -> bool {
        sibling::are_siblings(self.operation.dialect(), target.provider.dialect)
    }

    /// The model that is sent to `target`, where it is another than the caller named.
    pub(crate) fn sent_model(&self, route: &Route, target: &Target) -> Option<String> {
        let names_models = self.model.is_some() || self.operation.uses_tokens();
        let tokens = matches!(self.operation.tokens(), Tokens::Incurs | Tokens::Counts);
        let takes_one = self.is_translated(route, target) || (names_models && tokens);
        target.model(&route.aliases, self.model.as_deref()).filter(|_| takes_one)
    }

    /// What is sent to `target`.
    ///
    /// # Errors
    /// Why nothing can be: a path that none can have, what cannot be said there, or a body that must be changed and cannot be
    /// read.
    pub(crate) fn prepare(&self, route: &Route, target: &Target) -> Result<Prepared, Unfit> {
        if self.is_translated(route, target) {
            return self.translated(route, target);
        }
        let model = self.sent_model(route, target);
        let Place { way, in_body } = self.place(target, model.as_deref())?;
        let mut changed = self.with_model(in_body.as_deref())?;
        if target.puts_in() && self.operation.uses_tokens() && !self.body.is_empty() {
            changed = self.with_parameters(changed, target, &self.operation)?;
        }
        let mut stripping = false;
        let plain = changed.as_deref().or(self.readable.as_deref().filter(|_| !self.is_coded));
        if let Some(plain) = plain
            && target.ask_usage
            && self.operation.can_ask_usage()
            && self.is_sound
            && let Some(asking) = dialects::ask_for_usage(plain)
        {
            stripping = true;
            changed = Some(asking);
        }
        let mut headers = self.headers.clone();
        if changed.is_some() && self.is_coded {
            headers.remove(CONTENT_ENCODING);
        }
        target.headers(&mut headers);
        let changed = changed.map(Bytes::from);
        Ok(Prepared { target: way, headers, changed, stripping, model, translation: None })
    }

    /// Where the request goes at a `target` that speaks as the caller does, with `model` in the place of the one that the
    /// caller named.
    fn place(&self, target: &Target, model: Option<&str>) -> Result<Place, Reason> {
        let provider = &target.provider;
        if self.is_moved(target) {
            let moved = sibling::moved(provider.dialect, &self.rest, self.query.as_deref());
            let sibling::Moved { path, query, model: named } = moved.ok_or(Reason::MalformedPath)?;
            let way = self.own_way(target).or_else(|| provider.translated_target(&path, query.as_deref()));
            let way = way.ok_or(Reason::MalformedPath)?;
            return Ok(Place { way, in_body: model.map(str::to_owned).or(named) });
        }
        let (mut rest, mut in_body) = (Cow::Borrowed(self.rest.as_str()), model.map(str::to_owned));
        if let Some(model) = in_body.take_if(|_| self.operation.is_model_in_path(&self.rest)) {
            let changed = self.operation.with_path_model(&self.rest, &model);
            rest = Cow::Owned(changed.ok_or(Reason::MalformedPath)?);
        }
        let query = self.query.as_deref();
        // A path that no dialect knows is the provider's own.
        let is_own = self.operation.is_other();
        let way = self.own_way(target).or_else(|| {
            if is_own { provider.target(&rest, query) } else { provider.asked_target(&rest, query) }
        });
        let way = way.ok_or(Reason::MalformedPath)?;
        Ok(Place { way, in_body })
    }

    /// Where `target` has such requests sent, where it has a path of its own for them.
    fn own_way(&self, target: &Target) -> Option<PathAndQuery> {
        let typed =
            target.path.as_deref().filter(|_| self.method == Method::POST && self.operation.uses_tokens())?;
        let (path, query) = typed.split_once('?').map_or((typed, None), |(path, query)| (path, Some(query)));
        target.provider.target(path, query)
    }

    /// What the answer to `prepared` is read as: the operation, as the target calls it.
    pub(crate) fn spoken(&self, prepared: &Prepared) -> Operation {
        prepared.translation.as_ref().map_or(self.operation, |translation| translation.operation)
    }

    /// What is sent to a target that speaks another dialect.
    ///
    /// # Errors
    /// What has no translation, or a body that cannot be read.
    fn translated(&self, route: &Route, target: &Target) -> Result<Prepared, Unfit> {
        let pair = Pair::of(self.operation.dialect(), target.provider.dialect)
            .ok_or(Reason::Untranslatable("operation"))?;
        let readable = self.readable.as_deref().filter(|_| self.is_sound).ok_or(Reason::MalformedBody)?;
        let model = self.sent_model(route, target);
        let chat_bound = target.provider.chat_bound;
        let options = Options { drop: route.drops_untranslatable, chat_bound, ..Options::default() };
        let translated = pair
            .request(&self.operation, &self.rest, readable, model.as_deref(), options)
            .map_err(|error| Unfit::of(&pair, &error))?;
        let lost = Lost::places(&translated.dropped);
        let translation = Translation::new(pair, pair.operation(&translated.path), translated.asked, lost);
        let mut changed = Some(translated.body);
        if target.puts_in() {
            changed = self.with_parameters(changed, target, &translation.operation)?;
        }
        let mut headers = self.headers.clone();
        let foreign: Vec<HeaderName> =
            headers.keys().filter(|name| is_of_the_dialect(name.as_str())).cloned().collect();
        for name in foreign.iter().chain([&CONTENT_ENCODING]) {
            headers.remove(name);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in translated.headers {
            let value = HeaderValue::from_str(&value).map_err(|_| Reason::MalformedBody)?;
            headers.insert(HeaderName::from_static(name), value);
        }
        target.headers(&mut headers);
        let (path, query) = match translated.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (translated.path.as_str(), None),
        };
        let own = self.own_way(target);
        let way =
            own.or_else(|| target.provider.translated_target(path, query)).ok_or(Reason::MalformedPath)?;
        let changed = changed.map(Bytes::from);
        Ok(Prepared {
            target: way,
            headers,
            changed,
            stripping: false,
            model,
            translation: Some(translation),
        })
    }

    /// The body with `model`, where one is to be put in and there is a place for it.
    fn with_model(&self, model: Option<&str>) -> Result<Option<Vec<u8>>, Reason> {
        let Some(model) = model.filter(|_| !self.body.is_empty()) else { return Ok(None) };
        let kind = self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let readable = self.readable.as_deref().filter(|_| self.is_sound).ok_or(Reason::MalformedBody)?;
        if self.is_json {
            return change::with_model(readable, model).map(Some).ok_or(Reason::MalformedBody);
        }
        match change::form_with_model(kind, readable, model) {
            Some(changed) => Ok(Some(changed)),
            // The caller named a model, and it cannot be found where it stood.
            None if self.model.is_some() => Err(Reason::MalformedBody),
            None => Ok(None),
        }
    }

    /// The body with the parameters of `target`, which is asked for `spoken`.
    fn with_parameters(
        &self,
        body: Option<Vec<u8>>,
        target: &Target,
        spoken: &Operation,
    ) -> Result<Option<Vec<u8>>, Reason> {
        let readable = body.as_deref().or(self.readable.as_deref());
        let readable = readable.filter(|_| self.is_sound).ok_or(Reason::MalformedBody)?;
        if !self.is_json {
            return Ok(body);
        }
        let filled = change::merged(readable, &target.defaults, false).ok_or(Reason::MalformedBody)?;
        let chat_bound = target.provider.chat_bound;
        let bounded = match target.max_output.and_then(|most| change::max_output(spoken, most, chat_bound)) {
            Some(words) => change::merged(&filled, &words, true).ok_or(Reason::MalformedBody)?,
            None => filled,
        };
        let forced = change::merged(&bounded, &target.forced, true).ok_or(Reason::MalformedBody)?;
        Ok(if forced == readable { body } else { Some(forced) })
    }

    /// The body that `next` sends, where it is not the one that was sent first: `first`, or the caller's own.
    ///
    /// # Errors
    /// A stored body that cannot be read back.
    pub(crate) async fn instead(
        &self,
        first: Option<&Bytes>,
        next: &Prepared,
    ) -> Result<Option<Bytes>, Reason> {
        match (first, &next.changed) {
            (None, None) => Ok(None),
            (Some(first), Some(changed)) if first == changed => Ok(None),
            (_, Some(changed)) => Ok(Some(changed.clone())),
            (Some(_), None) => self.body.whole().await.map(Some),
        }
    }

    /// What of `prepared` is kept for a count, in case that its provider tells none.
    pub(crate) fn kept(&self, prepared: &Prepared, estimates: &Estimates) -> Option<Sent> {
        let model = prepared.model.clone().or_else(|| self.model.clone());
        let stored = match &self.body {
            Body::Stored(stored) if prepared.changed.is_none() && !self.is_coded => Some(stored),
            _ => None,
        };
        let plain = prepared.changed.as_ref().or(self.readable.as_ref()).filter(|_| stored.is_none());
        Sent::new(estimates, self.spoken(prepared), model, plain, stored)
    }

    /// What of `prepared` says how much it may use at `target`, else what of the caller's own does, which is in `asked`.
    pub(crate) fn load(&self, asked: &Asked, target: &Target, prepared: Option<&Prepared>) -> quotas::Load {
        let own = quotas::Load {
            operation: prepared.map_or(self.operation, |prepared| self.spoken(prepared)),
            input_tokens: self.input_tokens,
            max_output_tokens: asked.max_output_tokens,
            choices: asked.choices,
            is_sound: self.is_sound,
            writes_cache: self.writes_cache,
        };
        let Some((prepared, changed)) = prepared.and_then(|it| Some((it, it.changed.as_ref()?))) else {
            return own;
        };
        let (headers, path) = (&prepared.headers, prepared.target.path());
        let facts = dialects::request_facts(&own.operation, headers, path, None, changed);
        // A model and a wish for usage are no input.
        let is_own = prepared.translation.is_none() && !target.puts_in();
        quotas::Load {
            input_tokens: if is_own { own.input_tokens } else { quotas::input_tokens(changed) },
            max_output_tokens: facts.max_output_tokens,
            choices: facts.choices,
            is_sound: facts.malformed.is_none(),
            writes_cache: quotas::writes_cache(changed),
            ..own
        }
    }

    /// What is asked of the quotas for its `load` at `target`; `asked` names that one, and the model that is sent to it.
    pub(crate) fn quota_request<'a>(
        &'a self,
        (caller, asked): (&'a Caller, &'a Asked),
        load: &'a quotas::Load,
        target: &'a Target,
        snapshot: &'a Snapshot,
    ) -> quotas::Request<'a> {
        let who = quotas::Who::of(caller, asked, &self.headers);
        let counted = self.counted.as_deref().unwrap_or(who.counted);
        quotas::Request {
            who: quotas::Who { counted, ..who },
            asked,
            load,
            prices: snapshot.loaded.prices.as_ref(),
            price_name: &target.provider.price_name,
        }
    }

    /// What goes to `provider` over the wire.
    ///
    /// # Errors
    /// A stored body that cannot be read back.
    pub(crate) async fn outgoing(
        &self,
        prepared: &Prepared,
        provider: &Provider,
        forwarded: Option<Forwarded>,
    ) -> Result<Outgoing, Reason> {
        let payload = match (&provider.signing, &prepared.changed) {
            (None, _) => None,
            (Some(_), Some(changed)) => Some(Sha256::digest(changed).into()),
            (Some(_), None) => Some(self.body.sha256().await?),
        };
        Ok(Outgoing {
            method: self.method.clone(),
            target: prepared.target.clone(),
            headers: prepared.headers.clone(),
            body: match &prepared.changed {
                Some(changed) => Upload::whole(changed.clone()),
                None => self.body.upload(),
            },
            payload,
            forwarded,
            uncoded: prepared.stripping || prepared.translation.is_some(),
        })
    }
}
