//! Exchanges that went through a translation: what it left out is asked for in SQL, and shown.

use schemas::Identifier;
use schemas::record::{Body, Dropped, Intent, Translation, Usage, UsageRole, UsageSource};

use super::Place;
use crate::commands::show;
use crate::fixture::{START, Writer, exchange_id, id};
use crate::source::MemorySource;
use crate::time::SECOND;

fn dropped(count: u64, meaning: u64, words: &[&str]) -> Dropped {
    let what: Vec<Identifier> = words.iter().map(|word| id(word)).collect();
    Dropped { count, meaning, unknown: 0, what }
}

/// Two exchanges, of which the second lost something on both ways.
fn translated() -> Writer {
    let mut writer = Writer::boot("20260921t133320z-00000001", START, None, MemorySource::default());
    for (n, request, answer) in [
        (1, Dropped::default(), Dropped::default()),
        (2, dropped(3, 1, &["logprobs", "seed"]), dropped(1, 0, &["citations"])),
    ] {
        let translation = Some(Translation { from: id("openai"), to: id("anthropic"), dropped: request });
        let position = writer.push(Body::Intent(Intent {
            translation: translation.clone(),
            ..Writer::intent_of(exchange_id(n))
        }));
        let usage = Usage::of(UsageSource::NotApplicable, UsageRole::None);
        let mut outcome = writer.outcome_of(exchange_id(n), position, None, vec![], usage);
        (outcome.translation, outcome.answer_dropped) = (translation, Some(answer));
        writer.push(Body::Outcome(outcome));
    }
    writer.now += 2 * SECOND;
    writer.close();
    writer
}

#[test]
fn which_exchanges_lost_what_is_one_question() {
    let place = Place::new(&translated());
    let sql = "SELECT exchange, translated_from, translated_to, dropped, dropped_meaning, answer_dropped FROM exchanges \
               WHERE dropped > 0 OR answer_dropped > 0";
    let head = "exchange,translated_from,translated_to,dropped,dropped_meaning,answer_dropped";
    let wanted = format!("{head}\n{},openai,anthropic,3,1,1\n", exchange_id(2));
    assert_eq!(place.ask("query", "csv", &[sql]), wanted);
    let words = "SELECT leaf_text(leaf, 'translation.dropped.what') AS asked, leaf_text(leaf, 'answer_dropped.what') AS answered \
                 FROM records WHERE kind = 'outcome' AND dropped > 0";
    assert_eq!(place.ask("query", "csv", &[words]), "asked,answered\n\"logprobs,seed\",citations\n");
}

#[test]
fn what_is_shown_of_an_exchange_says_what_was_left_out() {
    let leaf = serde_json::json!({
        "kind": "intent",
        "translation": { "from": "openai", "to": "anthropic", "dropped": dropped(3, 1, &["logprobs", "seed"]) },
    });
    let mut told = Vec::new();
    show::each_fact(&leaf, "", &mut |name, value| told.push(format!("{name} {value}")));
    for wanted in [
        "translation.dropped.count 3",
        "translation.dropped.meaning 1",
        "translation.dropped.what logprobs, seed",
        "translation.from openai",
        "translation.to anthropic",
    ] {
        assert!(told.iter().any(|line| line == wanted), "{wanted}: {told:?}");
    }
}
