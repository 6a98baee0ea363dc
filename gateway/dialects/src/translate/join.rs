//! The turns as dialects want them that know two sides only: one behind the other, each side once.

use super::form::{Content, Conversation, Dropped, Part, Role};

/// A part, and where in the middle form it stands.
pub(super) struct Placed<'c> {
    /// `messages[1].content[0]`.
    pub(super) path: String,
    /// The part.
    pub(super) part: &'c Part,
}

/// All that one side says before the other speaks.
pub(super) struct Joined<'c> {
    /// Whether the model says it.
    pub(super) assistant: bool,
    /// What.
    pub(super) parts: Vec<Placed<'c>>,
}

/// The conversation's instructions, then its turns, joined where two of one side follow each other.
///
/// Instructions between turns stand with those at the beginning: neither dialect that is written from this has them
/// for every model. That they moved is listed.
pub(super) fn joined<'c>(
    conversation: &'c Conversation,
    dropped: &mut Vec<Dropped>,
) -> (Vec<Placed<'c>>, Vec<Joined<'c>>) {
    let placed = |path: String, part: &'c Part| Placed { path, part };
    let mut system: Vec<_> = conversation
        .system
        .iter()
        .enumerate()
        .map(|(at, part)| placed(format!("system[{at}]"), part))
        .collect();
    let mut turns: Vec<Joined<'c>> = Vec::new();
    for (turn_at, turn) in conversation.turns.iter().enumerate() {
        let parts = turn
            .parts
            .iter()
            .enumerate()
            .map(|(at, part)| placed(format!("messages[{turn_at}].content[{at}]"), part));
        if turn.role == Role::System {
            if !turns.is_empty() {
                dropped.push(Dropped::hint(format!("messages[{turn_at}]"), "system_position"));
            }
            system.extend(parts);
            continue;
        }
        let assistant = turn.role == Role::Assistant;
        match turns.last_mut().filter(|last| last.assistant == assistant) {
            Some(last) => last.parts.extend(parts),
            None => turns.push(Joined { assistant, parts: parts.collect() }),
        }
    }
    for at in 1..turns.len() {
        if let Some([calls, results]) = turns.get_mut(at - 1..=at) {
            order_results(calls, results);
        }
    }
    (system, turns)
}

/// Puts the results of parallel calls into the order of the calls: not every model looks at the ids.
fn order_results<'c>(calls: &Joined<'c>, turn: &mut Joined<'c>) {
    let ids: Vec<&str> = calls
        .parts
        .iter()
        .filter_map(|placed| match &placed.part.content {
            Content::ToolUse(call) => Some(call.id.as_str()),
            _ => None,
        })
        .collect();
    let place = |placed: &Placed<'_>| match &placed.part.content {
        Content::ToolResult(result) => Some(ids.iter().position(|id| *id == result.id).unwrap_or(usize::MAX)),
        _ => None,
    };
    // Only the results change places with each other.
    let at: Vec<usize> =
        (0..turn.parts.len()).filter(|at| turn.parts.get(*at).and_then(place).is_some()).collect();
    let mut results: Vec<Placed<'c>> = Vec::new();
    let mut rest: Vec<Placed<'c>> = Vec::new();
    for placed in std::mem::take(&mut turn.parts) {
        if place(&placed).is_some() { results.push(placed) } else { rest.push(placed) }
    }
    results.sort_by_key(place);
    let (mut results, mut rest) = (results.into_iter(), rest.into_iter());
    let count = results.len() + rest.len();
    for position in 0..count {
        let next = if at.contains(&position) { results.next() } else { rest.next() };
        turn.parts.extend(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::form::{ToolResult, ToolUse, Turn};

    fn call(id: &str) -> Part {
        Content::ToolUse(ToolUse { id: id.into(), name: "t".into(), arguments: "{}".into() }).into()
    }

    fn result(id: &str) -> Part {
        Content::ToolResult(ToolResult { id: id.into(), parts: Vec::new(), is_error: false }).into()
    }

    fn turn(role: Role, parts: Vec<Part>) -> Turn {
        Turn { role, parts }
    }

    #[test]
    fn one_side_speaks_once_and_results_come_in_the_order_of_the_calls() {
        let conversation = Conversation {
            turns: vec![
                turn(Role::System, vec![Part::text("first")]),
                turn(Role::User, vec![Part::text("a")]),
                turn(Role::User, vec![Part::text("b")]),
                turn(Role::Assistant, vec![call("1"), call("2")]),
                turn(Role::User, vec![result("2")]),
                turn(Role::System, vec![Part::text("then")]),
                turn(Role::User, vec![Part::text("c"), result("1"), result("?")]),
            ],
            ..Conversation::default()
        };
        let mut dropped = Vec::new();
        let (system, turns) = joined(&conversation, &mut dropped);
        let paths =
            |placed: &[Placed<'_>]| -> Vec<String> { placed.iter().map(|p| p.path.clone()).collect() };
        assert_eq!(paths(&system), ["messages[0].content[0]", "messages[5].content[0]"]);
        assert_eq!(dropped, [Dropped::hint("messages[5]", "system_position")]);
        let turns: Vec<_> = turns.iter().map(|turn| (turn.assistant, paths(&turn.parts))).collect();
        let path = |turn, part| format!("messages[{turn}].content[{part}]");
        assert_eq!(
            turns,
            [
                (false, vec![path(1, 0), path(2, 0)]),
                (true, vec![path(3, 0), path(3, 1)]),
                (false, vec![path(6, 1), path(6, 0), path(4, 0), path(6, 2)]),
            ]
        );
    }
}
