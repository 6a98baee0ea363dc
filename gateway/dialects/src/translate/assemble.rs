//! A whole answer out of the events of a stream.

use super::form::{Answer, Content, Event, Part, PartKind, Thinking, ToolUse, Usage};

/// Puts `events` together.
pub(super) fn assembled(events: &[Event]) -> Answer {
    let mut answer = Answer::default();
    for event in events {
        match event {
            Event::Begin { id, model, usage } => {
                (answer.id, answer.model) = (id.clone(), model.clone());
                merge(&mut answer, usage.as_ref());
            }
            Event::PartBegin { kind, .. } => answer.parts.push(part(kind)),
            Event::Delta { index, text } => {
                if let Some(place) = answer.parts.get_mut(*index).and_then(text_of) {
                    place.push_str(text);
                }
            }
            Event::Signature { index, signature } => {
                if let Some(part) = answer.parts.get_mut(*index) {
                    let place = match &mut part.content {
                        Content::Thinking(thinking) => &mut thinking.signature,
                        _ => &mut part.signature,
                    };
                    place.get_or_insert_default().push_str(signature);
                }
            }
            Event::Finish(finish) => answer.finish = Some(finish.clone()),
            Event::Usage(usage) => merge(&mut answer, Some(usage)),
            Event::Error(failure) => answer.failure = Some(failure.clone()),
            Event::PartEnd { .. } | Event::End => {}
        }
    }
    answer
}

fn merge(answer: &mut Answer, later: Option<&Usage>) {
    if let Some(later) = later {
        answer.usage.get_or_insert_default().merge(later);
    }
}

fn part(kind: &PartKind) -> Part {
    match kind {
        PartKind::Text => Content::Text(String::new()),
        PartKind::Refusal => Content::Refusal(String::new()),
        PartKind::Thinking => Content::Thinking(Thinking::default()),
        PartKind::Redacted(redacted) => {
            Content::Thinking(Thinking { redacted: Some(redacted.clone()), ..Thinking::default() })
        }
        PartKind::ToolUse { id, name } => {
            Content::ToolUse(ToolUse { id: id.clone(), name: name.clone(), arguments: String::new() })
        }
    }
    .into()
}

fn text_of(part: &mut Part) -> Option<&mut String> {
    match &mut part.content {
        Content::Text(text) | Content::Refusal(text) => Some(text),
        Content::Thinking(thinking) => Some(&mut thinking.text),
        Content::ToolUse(call) => Some(&mut call.arguments),
        _ => None,
    }
}
