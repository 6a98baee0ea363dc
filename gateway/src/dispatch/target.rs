//! A provider that a route may ask, with what is changed of requests for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use schemas::Identifier;
use serde_json::{Map, Value};

use super::alias::Aliases;
use super::pool::Provider;
use crate::config::{self, Drain, Limits};

/// How long and how large an answer may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The longest silence in it.
    pub(crate) idle: Duration,
    /// The most bytes, as they come over the wire.
    pub(crate) bytes: Option<u64>,
    /// The longest time from its head to its end.
    pub(crate) time: Option<Duration>,
}

/// A target, ready for the hot path.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: Identifier,
    pub(crate) provider: Arc<Provider>,
    /// The provider under each of its keys.
    keyed: Vec<Arc<Provider>>,
    model: Option<String>,
    aliases: Aliases,
    pub(crate) defaults: Map<String, Value>,
    pub(crate) forced: Map<String, Value>,
    /// The most tokens of an answer, in the place of what the caller says.
    pub(crate) max_output: Option<u64>,
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
    pub(crate) first_byte: Option<Duration>,
    idle: Option<Duration>,
    answer: Option<u64>,
    answer_time: Option<Duration>,
    /// The path that is asked, whatever the caller's was.
    pub(crate) path: Option<String>,
    pub(crate) ask_usage: bool,
    /// How far an answer is read on whose caller has left.
    pub(crate) drain: Option<Drain>,
    /// Its last whole answer told no usage.
    silent: AtomicBool,
}

impl Target {
    /// Of the configuration, which was checked.
    pub(crate) fn new(
        typed: &config::Target,
        keyed: &[Arc<Provider>],
        provider: &Arc<Provider>,
        route: &config::Route,
    ) -> Self {
        let name = |text: &String| HeaderName::from_lowercase(text.as_bytes()).ok();
        Self {
            name: typed.name.clone(),
            provider: Arc::clone(provider),
            keyed: keyed.to_vec(),
            model: typed.model.clone(),
            aliases: Aliases::new(&typed.models),
            defaults: typed.parameters.defaults.clone(),
            forced: typed.parameters.forced.clone(),
            max_output: typed.parameters.max_output,
            set: typed
                .headers
                .set
                .iter()
                .filter_map(|(key, value)| Some((name(key)?, HeaderValue::from_str(value).ok()?)))
                .collect(),
            remove: typed.headers.remove.iter().filter_map(name).collect(),
            first_byte: typed.first_byte,
            idle: typed.idle,
            answer: typed.answer,
            answer_time: typed.answer_time,
            path: typed.path.clone(),
            ask_usage: route.ask_usage.unwrap_or(provider.ask_usage),
            drain: route.drain_after_abort.map_or(provider.drain, config::DrainAfterAbort::bounds),
            silent: AtomicBool::new(false),
        }
    }

    /// Whether its last whole answer told no usage: the next one is likely to tell none either.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Notes whether a whole answer told its usage.
    pub(crate) fn told_usage(&self, told: bool) {
        self.silent.store(!told, Ordering::Relaxed);
    }

    /// The provider under the key of that place.
    pub(crate) fn under(&self, key: usize) -> &Arc<Provider> {
        self.keyed.get(key).unwrap_or(&self.provider)
    }

    /// The model that is sent where `asked` is asked for, by the route's `aliases` and its own; `None`: none is put in.
    pub(crate) fn model(&self, aliases: &Aliases, asked: Option<&str>) -> Option<String> {
        if self.model.is_some() {
            return self.model.clone();
        }
        let asked = asked?;
        let meant = aliases.model(asked);
        self.aliases.model(meant.as_deref().unwrap_or(asked)).or(meant).filter(|model| model != asked)
    }

    /// How long and how large an answer of it may be.
    pub(crate) fn bounds(&self, limits: &Limits) -> Bounds {
        Bounds {
            idle: self.idle.unwrap_or(limits.idle),
            bytes: self.answer.or(limits.answer),
            time: self.answer_time.or(limits.answer_time),
        }
    }

    /// Whether a body is changed for it.
    pub(crate) fn puts_in(&self) -> bool {
        !self.defaults.is_empty() || !self.forced.is_empty() || self.max_output.is_some()
    }

    /// Changes the headers of a request for it.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
    }
}
