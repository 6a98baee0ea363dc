//! The target that a request goes to first.

use std::sync::Arc;

use schemas::record::{Decision, Verdict};

use super::asking::{Asking, scope};
use crate::balance::Picked;
use crate::balance::semantic::{self, Prompt};
use crate::dispatch::original::{Original, Prepared, Unfit};
use crate::dispatch::spread::Spread;
use crate::dispatch::target::Target;
use crate::police;
use crate::quotas::Stage;
use crate::respond::Reason;
use crate::route::Route;

/// The target that is asked first, what goes to it, and the targets that this request must not go to.
pub(super) struct Chosen {
    pub(super) picked: Picked,
    pub(super) denied: Vec<usize>,
    /// What the policy says of each target.
    pub(super) verdicts: Vec<Option<Verdict>>,
    pub(super) prepared: Prepared,
}

/// Chooses among the targets that policy, key and quotas allow, and takes what it may use of its quotas. The verdict that is
/// recorded is the one on the provider that is asked.
///
/// # Errors
/// Why none can be asked.
pub(super) async fn choose_target(
    route: &Arc<Route>,
    asking: &mut Asking,
    original: &Original,
    spread: &mut Spread,
) -> Result<Chosen, Reason> {
    let snapshot = Arc::clone(&asking.snapshot);
    let mut denied = Vec::new();
    let mut refusal = None;
    let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(route.targets.len());
    let sent_model = |target: &Target| {
        let model = original.sent_model(route, target)?;
        Some(snapshot.pseudonyms.identifier(&model))
    };
    for (place, target) in route.targets.iter().enumerate() {
        asking.asked.provider = Some(target.provider.name.clone());
        asking.asked.sent_model = sent_model(target);
        let policy = snapshot.loaded.policy.as_ref();
        let verdict = policy.map(|policy| police::judge(policy, &asking.caller, &asking.asked));
        let is_denied = verdict.as_ref().is_some_and(|verdict| verdict.decision == Decision::Deny);
        if is_denied || !asking.permits(route, target) {
            // What the policy says counts before what the key is for.
            let reason = if is_denied { Reason::PolicyDenied } else { Reason::NotAllowed };
            refusal.get_or_insert((place, reason));
            denied.push(place);
        }
        verdicts.push(verdict);
    }
    let note = |asking: &mut Asking, place: usize| {
        let Some(target) = route.targets.get(place) else { return };
        asking.asked.provider = Some(target.provider.name.clone());
        asking.asked.dialect.clone_from(&target.provider.dialect_name);
        asking.asked.sent_model = sent_model(target);
        asking.asked.target = route.names_targets.then(|| target.name.clone());
        asking.verdict = verdicts.get(place).cloned().flatten();
    };
    if let Some((place, reason)) = refusal.filter(|_| denied.len() == route.targets.len()) {
        note(asking, place);
        return Err(reason);
    }
    if let Some(fact) = route.missing(&asking.caller) {
        return Err(Reason::MissingFact(fact));
    }
    if let Some(semantic) = &route.semantic {
        let placed = spread.placed(route).filter(|place| !denied.contains(place));
        let likely = placed.unwrap_or(semantic.fallback);
        let others = (0..route.targets.len()).filter(|place| *place != likely);
        let places = std::iter::once(likely).chain(others).filter(|place| !denied.contains(place));
        let (mut refusal, mut full_for) = (None, Vec::new());
        for place in places {
            note(asking, place);
            // What asks for no target has room for another model at most.
            if full_for.contains(&asking.asked.sent_model) {
                continue;
            }
            let Some(target) = route.targets.get(place).filter(|_| !snapshot.quotas.is_empty()) else {
                break;
            };
            let load = original.load(&asking.asked, target, original.prepare(route, target).ok().as_ref());
            match asking.reserve_at(Stage::Exchange, original, target, &load).await {
                Ok(()) => {
                    refusal = None;
                    break;
                }
                Err((Reason::QuotaExceeded, _)) => {
                    full_for.push(asking.asked.sent_model.clone());
                    refusal.get_or_insert((place, asking.full.take()));
                }
                Err((reason, _)) => return Err(reason),
            }
        }
        // Whose quotas have no room wherever it goes has nothing embedded.
        if let Some((place, full)) = refusal {
            note(asking, place);
            asking.full = full;
            return Err(Reason::QuotaExceeded);
        }
        let provider = semantic.provider().as_str();
        let prompt = Prompt {
            caller: asking.caller.clone(),
            scope: scope(route, &asking.caller),
            is_allowed: asking.allow.as_ref().is_none_or(|allow| allow.permits_provider(provider)),
            text: semantic::words(route, original.readable.as_deref()),
            placed,
        };
        let meaning = semantic.mean(&asking.app, &snapshot, prompt).await;
        asking.choice = Some(meaning.choice.clone());
        spread.means(meaning);
    }
    let mut excluded = denied.clone();
    let mut refusal = Reason::NotAllowed;
    loop {
        let Some(picked) = route.balancer.pick(&spread.pick(&excluded)) else { return Err(refusal) };
        let place = picked.target();
        let Some(target) = route.targets.get(place) else { return Err(Reason::UnknownRoute) };
        note(asking, place);
        let prepared = match original.prepare(route, target) {
            Ok(prepared) => prepared,
            // Another target may speak so that it can be said.
            Err(Unfit { reason: reason @ Reason::Untranslatable(_), translation }) => {
                if refusal != Reason::QuotaExceeded {
                    refusal = reason;
                    asking.translation = translation;
                }
                excluded.push(place);
                continue;
            }
            // What is wrong with the request itself leads to no other target: a caller chooses none that way.
            Err(Unfit { reason, .. }) => return Err(reason),
        };
        match asking.reserve(original, target, &prepared).await {
            Ok(()) => {
                asking.translation = prepared.recorded();
                return Ok(Chosen { picked, denied, verdicts, prepared });
            }
            Err((reason, true)) => {
                refusal = reason;
                excluded.push(place);
            }
            Err((reason, false)) => return Err(reason),
        }
    }
}
