//! One rule, ready for the hot path: whom it fits, which counters it takes from, and how much.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use policies::pattern::Patterns;
use schemas::record::{Asked, Attributed, Caller, Cost, Usage, UsageRole, UsageSource};
use schemas::{Identifier, Sha256Hex};

use super::expression::{self, Expression};
use super::store::Take;
use super::window::{Stretch, Window};
use crate::config::{Count, CountedBy, MAX_LIMIT, NANO, QuotaMatch, QuotaRule, Then};

/// How many warnings are remembered, so that none is given twice; beyond that one may be.
const MAX_WARNED: usize = 10_000;

/// The most groups of a caller that are counted by: a rule takes from a counter for each.
pub(crate) const MAX_COUNTED_GROUPS: usize = 256;

/// Who asks, for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) consumer: Option<&'a str>,
    pub(crate) team: Option<&'a str>,
    pub(crate) organisation: Option<&'a str>,
    pub(crate) groups: &'a [Identifier],
    /// The groups that counters are kept by: also those that the record has no room for.
    pub(crate) counted: &'a [Identifier],
    pub(crate) key: Option<&'a str>,
    pub(crate) subject: Option<&'a str>,
    pub(crate) route: Option<&'a str>,
    pub(crate) provider: Option<&'a str>,
    pub(crate) target: Option<&'a str>,
    /// The model that was asked for.
    pub(crate) asked_model: Option<&'a str>,
    /// The one that is sent, where it is another.
    pub(crate) sent_model: Option<&'a str>,
    pub(crate) operation: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
}

impl<'a> Who<'a> {
    /// As the records have it. A route with one provider has one target, of the provider's name.
    pub(crate) fn of(caller: &'a Caller, asked: &'a Asked, headers: &'a HeaderMap) -> Self {
        fn text(fact: &Option<Attributed>) -> Option<&str> {
            fact.as_ref().map(|fact| fact.value.as_str())
        }
        let name = |name: &'a Option<Identifier>| name.as_ref().map(Identifier::as_str);
        Self {
            consumer: text(&caller.consumer),
            team: text(&caller.team),
            organisation: text(&caller.organisation),
            groups: &caller.groups,
            counted: &caller.groups,
            key: name(&caller.key),
            subject: text(&caller.subject),
            route: name(&asked.route),
            provider: name(&asked.provider),
            target: name(&asked.target).or(name(&asked.provider)),
            asked_model: name(&asked.requested_model),
            sent_model: name(&asked.sent_model),
            operation: name(&asked.operation),
            headers,
        }
    }

    /// The model that answers.
    fn model(&self) -> Option<&'a str> {
        self.sent_model.or(self.asked_model)
    }
}

/// What a request may take, before it is known.
#[derive(Debug, Clone)]
pub(crate) struct Estimate {
    pub(crate) input: u64,
    pub(crate) output: u64,
    /// What that costs, where the price book has a price.
    pub(crate) cost: Option<Cost>,
}

/// How an exchange ended, for what it is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Went {
    /// To the provider, which answered, or which did and may charge for it.
    There,
    /// The same, and an estimate knows only a part of it.
    Partly,
    /// The provider refused it, or was never reached: nothing was used but what it tells.
    Nowhere,
}

/// A rule, and what was seen of its counters.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) typed: QuotaRule,
    pub(crate) limit: u64,
    matches: Vec<(Fact, Patterns)>,
    models: Option<Patterns>,
    groups: Option<Patterns>,
    expression: Option<Expression>,
    pub(crate) window: Window,
    /// Begins the keys of its counters.
    id: String,
    /// The largest share of the limit that a counter of a stretch was seen at, and when the stretch ends.
    pub(crate) peak: Mutex<(i64, f64)>,
    /// What was warned of, also by the rule in whose place this one is.
    warned: Arc<Mutex<Warned>>,
}

/// Counters that were warned of, each with a share in millionths.
type Warned = HashSet<(String, u32)>;

type Fact = for<'a> fn(&Who<'a>) -> Option<&'a str>;

impl Rule {
    pub(crate) fn new(typed: &QuotaRule) -> Self {
        let QuotaMatch {
            routes,
            providers,
            targets,
            models,
            operations,
            consumers,
            teams,
            organisations,
            groups,
            keys,
        } = &typed.matches;
        let lists: [(&Vec<String>, Fact); 8] = [
            (routes, |who| who.route),
            (providers, |who| who.provider),
            (targets, |who| who.target),
            (operations, |who| who.operation),
            (consumers, |who| who.consumer),
            (teams, |who| who.team),
            (organisations, |who| who.organisation),
            (keys, |who| who.key),
        ];
        let matches = lists.into_iter().filter(|(list, _)| !list.is_empty());
        let counted = typed.count.map_or("expression", Count::name);
        let id = Sha256Hex::of(format!("{counted} {}", typed.name.as_str()).as_bytes()).to_string();
        Self {
            limit: typed.units().unwrap_or_default(),
            matches: matches.map(|(list, fact)| (fact, patterns(list))).collect(),
            models: (!models.is_empty()).then(|| patterns(models)),
            groups: (!groups.is_empty()).then(|| patterns(groups)),
            expression: typed.expression.as_deref().and_then(Expression::parse),
            window: Window::of(typed),
            id: id.get(..16).unwrap_or_default().to_owned(),
            peak: Mutex::new((0, 0.0)),
            warned: Arc::default(),
            typed: typed.clone(),
        }
    }

    /// The same, and what `before` warned of is not told again while the limit is what it was.
    pub(crate) fn after(typed: &QuotaRule, before: Option<&Self>) -> Self {
        let rule = Self::new(typed);
        match before.filter(|before| before.limit == rule.limit) {
            Some(before) => Self { warned: Arc::clone(&before.warned), ..rule },
            None => rule,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.typed.name.as_str()
    }

    /// Shares of `warn_at` that the counter `key` has reached and that nobody was warned of in its stretch.
    pub(crate) fn reached(&self, key: &str, share: f64) -> Vec<crate::config::Ratio> {
        let is_reached = |at: &&crate::config::Ratio| share >= f64::from(at.millionths()) / 1e6;
        let mut reached = self.typed.warn_at.iter().filter(is_reached).peekable();
        if reached.peek().is_none() {
            return Vec::new();
        }
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() >= MAX_WARNED {
            warned.clear();
        }
        reached.filter(|at| warned.insert((key.to_owned(), at.millionths()))).copied().collect()
    }

    pub(crate) fn refuses(&self) -> bool {
        self.typed.then == Then::Refuse
    }

    pub(crate) fn fits(&self, who: &Who<'_>) -> bool {
        let of_groups = self
            .groups
            .as_ref()
            .is_none_or(|patterns| patterns.fit_any(who.groups.iter().map(Identifier::as_str)));
        // Either name will do: no alias leads past a rule.
        let of_models = self.models.as_ref().is_none_or(|patterns| {
            patterns.fit(who.asked_model) || who.sent_model.is_some_and(|sent| patterns.fit(Some(sent)))
        });
        of_groups && of_models && self.matches.iter().all(|(fact, patterns)| patterns.fit(fact(who)))
    }

    /// What is to be taken for a request at `now_ms`: of one counter, or of one for each of its groups that the rule fits.
    pub(crate) fn takes(&self, who: &Who<'_>, amount: u64, now_ms: i64) -> (Option<Stretch>, Vec<Take>) {
        let stretch = self.window.at(now_ms);
        let fits = |group: &&str| self.groups.as_ref().is_none_or(|patterns| patterns.fit(Some(group)));
        let mut groups: Vec<Option<&str>> = if self.typed.by.contains(&CountedBy::Group) {
            who.counted.iter().map(Identifier::as_str).filter(fits).map(Some).collect()
        } else {
            Vec::new()
        };
        if groups.is_empty() {
            groups.push(None);
        }
        groups.sort_unstable();
        groups.dedup();
        let take = |group: Option<&str>| {
            let counter = format!("{}:{}", self.id, self.counter(who, group));
            let owner = self.typed.by.iter().any(is_chosen).then(|| self.owner(who, group));
            let key = |from: i64| format!("{counter}:{from}");
            let before = stretch.filter(|stretch| stretch.before > 0);
            let kept = |stretch: Stretch| {
                let length = stretch.until.saturating_sub(stretch.from);
                let more = if matches!(self.window, Window::Sliding(_)) { length } else { 0 };
                stretch.until.saturating_add(more)
            };
            Take {
                key: key(stretch.map_or(0, |stretch| stretch.from)),
                before: before
                    .map(|s| (key(s.from.saturating_sub(s.until.saturating_sub(s.from))), s.before)),
                amount,
                limit: self.limit,
                refuses: self.refuses(),
                keep_until: stretch.map(kept),
                owner,
            }
        };
        (stretch, groups.into_iter().map(take).collect())
    }

    /// The facts that the counter is kept by, as a hash: no text of a caller gets into a store.
    fn counter(&self, who: &Who<'_>, group: Option<&str>) -> String {
        if self.typed.by.is_empty() {
            return "all".into();
        }
        facts(self.typed.by.iter(), who, group)
    }

    /// Who answers for the counters of facts that a caller chooses: the consumer, and what it does not choose.
    fn owner(&self, who: &Who<'_>, group: Option<&str>) -> String {
        let given = self.typed.by.iter().filter(|by| !is_chosen(by));
        format!("{}:{}+", self.id, facts([&CountedBy::Consumer].into_iter().chain(given), who, group))
    }

    /// What is reserved. Money without a price takes nothing: nobody can say what.
    pub(crate) fn reserves(&self, estimate: &Estimate) -> u64 {
        let amount = match self.typed.count {
            Some(Count::Requests | Count::Concurrency) => 1,
            Some(Count::Tokens) => estimate.input.saturating_add(estimate.output),
            Some(Count::InputTokens) => estimate.input,
            Some(Count::OutputTokens) => estimate.output,
            Some(Count::Money) => estimate.cost.as_ref().and_then(|cost| self.money(cost)).unwrap_or(0),
            None => self.expression.as_ref().map_or(0, |sum| sum.most(estimate.input, estimate.output)),
        };
        amount.min(MAX_LIMIT)
    }

    /// What is charged in the end; `None` where nobody knows: then it stays what was reserved.
    pub(crate) fn charges(
        &self,
        usage: &Usage,
        cost: Option<&Cost>,
        went: Went,
        reserved: u64,
    ) -> Option<u64> {
        let known = || self.charged(usage, cost).map(|amount| amount.min(MAX_LIMIT));
        match self.typed.count {
            Some(Count::Requests) => return Some(1),
            Some(Count::Concurrency) => return Some(0),
            // Who refused it and tells what it used all the same is believed.
            _ if went == Went::Nowhere => {
                use UsageSource::{Drained, Partial, Provider};
                let is_told = matches!(usage.source, Provider | Drained | Partial);
                return known().filter(|_| is_told && usage.role == UsageRole::Incurred).or(Some(0));
            }
            // Of an operation that nobody knows, and that told nothing, nobody knows whether it used anything.
            _ if usage.role == UsageRole::None && usage.source == UsageSource::Unknown => {
                return (reserved == 0).then_some(0);
            }
            _ if usage.role != UsageRole::Incurred => return Some(0),
            _ => {}
        }
        let known = known();
        match usage.source {
            UsageSource::NotApplicable => Some(0),
            UsageSource::Provider | UsageSource::Drained => known,
            // A lower bound.
            UsageSource::Partial => known.filter(|known| *known > reserved),
            UsageSource::Estimated if went == Went::Partly => known.filter(|known| *known > reserved),
            UsageSource::Estimated => known,
            UsageSource::Unknown => None,
        }
    }

    fn charged(&self, usage: &Usage, cost: Option<&Cost>) -> Option<u64> {
        let number = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
        let counts = || expression::counts(usage);
        // The double is exact: no provider counts beyond 2^53.
        let input = || {
            let known = usage.input_tokens.or(usage.uncached_input_tokens).is_some();
            known.then(|| counts().first().copied().unwrap_or_default() as u64)
        };
        match self.typed.count {
            Some(Count::Tokens) => {
                // A model without output (embeddings) reports none.
                Some(input()?.saturating_add(number(usage.output_tokens).unwrap_or(0)))
            }
            Some(Count::InputTokens) => input(),
            Some(Count::OutputTokens) => number(usage.output_tokens),
            // What has no price counts nothing; what is in another currency neither.
            Some(Count::Money) => cost.map(|cost| self.money(cost).unwrap_or(0)),
            Some(Count::Requests | Count::Concurrency) => None,
            None => self.expression.as_ref()?.value(&counts()),
        }
    }

    /// Whether it counts what requests use, and not requests.
    pub(crate) fn counts_use(&self) -> bool {
        !matches!(self.typed.count, Some(Count::Requests | Count::Concurrency))
    }

    /// A cost in units of the limit, rounded up.
    fn money(&self, cost: &Cost) -> Option<u64> {
        if self.typed.currency.as_deref() != Some(cost.currency.as_str()) {
            return None;
        }
        let units = policies::decimal::Decimal::parse(&cost.total)?.units();
        u64::try_from(u128::try_from(units).ok()?.div_ceil(1000)).ok()
    }

    /// A number of units as a record and a header have it.
    pub(crate) fn show(&self, units: u64) -> String {
        if self.typed.count == Some(Count::Money) {
            return policies::decimal::Decimal::from_units(
                i128::from(units) * (1_000_000_000_000 / i128::from(NANO)),
            )
            .to_string();
        }
        units.to_string()
    }

    /// What it counts, as typed.
    pub(crate) fn counts(&self) -> &'static str {
        self.typed.count.map_or("expression", Count::name)
    }
}

/// True for facts that a request names as it likes.
fn is_chosen(by: &CountedBy) -> bool {
    matches!(by, CountedBy::Header(_) | CountedBy::Model)
}

/// Facts as a hash: no text of a caller gets into a store.
fn facts<'b>(list: impl Iterator<Item = &'b CountedBy>, who: &Who<'_>, group: Option<&str>) -> String {
    let mut text = Vec::new();
    for by in list {
        let fact = match by {
            CountedBy::Consumer => who.consumer.map(str::as_bytes),
            CountedBy::Team => who.team.map(str::as_bytes),
            CountedBy::Organisation => who.organisation.map(str::as_bytes),
            CountedBy::Group => group.map(str::as_bytes),
            CountedBy::Key => who.key.map(str::as_bytes),
            CountedBy::Subject => who.subject.map(str::as_bytes),
            CountedBy::Route => who.route.map(str::as_bytes),
            CountedBy::Provider => who.provider.map(str::as_bytes),
            CountedBy::Target => who.target.map(str::as_bytes),
            CountedBy::Model => who.model().map(str::as_bytes),
            CountedBy::Header(name) => who.headers.get(name.as_str()).map(http::HeaderValue::as_bytes),
        };
        // With its length before it, two facts are never read as one.
        match fact {
            Some(fact) => {
                text.extend_from_slice(format!("{}:", fact.len()).as_bytes());
                text.extend_from_slice(fact);
            }
            None => text.extend_from_slice(b"-"),
        }
    }
    Sha256Hex::of(&text).to_string().get(..32).unwrap_or_default().to_owned()
}

fn patterns(list: &[String]) -> Patterns {
    let mut patterns = Patterns::default();
    for text in list {
        // They were checked when the configuration was read.
        let _ = patterns.add(text);
    }
    patterns
}
