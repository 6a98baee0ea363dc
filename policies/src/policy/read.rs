//! From `policy.yaml` to a [`Policy`], with every problem told.

use schemas::{Identifier, Sha256Hex};

use super::{Effect, Mode, OutputBound, Policy, Rule, When};
use crate::document::{self, Fields, Node, Place, Problem, Shape, texts};
use crate::pattern::Patterns;

const EFFECTS: [(&str, Effect); 2] = [("allow", Effect::Allow), ("deny", Effect::Deny)];
const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
const ID_FORM: &str = "an identifier `[A-Za-z0-9_.:/@+-]{1,128}`";
const BOUND_FORM: &str = "a number of tokens from 1 to 2^53, or `{tokens: N, unbounded: allow|deny}`";

pub(super) fn parse(yaml: &[u8]) -> Result<Policy, Vec<Problem>> {
    let text = std::str::from_utf8(yaml).map_err(|_| vec![Problem::general("", "UTF-8 text")])?;
    let root = document::parse(text)?;
    let mut problems = Vec::new();
    let policy = read(&root, Sha256Hex::of(yaml), &mut problems);
    match policy {
        Some(policy) if problems.is_empty() => Ok(policy),
        _ => Err(problems),
    }
}

fn read(root: &Node, hash: Sha256Hex, problems: &mut Vec<Problem>) -> Option<Policy> {
    let mut fields = Fields::new(root, "", problems);
    let mode = required_choice(&mut fields, "mode", &MODES);
    let default = required_choice(&mut fields, "default", &EFFECTS);
    let items = fields.items("rules").unwrap_or_default();
    fields.finish();
    let mut rules = Vec::with_capacity(items.len());
    let mut seen: Vec<(Identifier, u64)> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some((rule, place)) = rule(item, &format!("rules[{index}]"), problems) else { continue };
        if let Some((_, line)) = seen.iter().find(|(id, _)| *id == rule.id) {
            let wanted = format!("an id that no other rule has; it stands at line {line} already");
            problems.push(Problem::at(place, format!("rules[{index}].id"), wanted).value(rule.id.as_str()));
        }
        seen.push((rule.id.clone(), place.line));
        rules.push(rule);
    }
    Some(Policy { hash, mode: mode?, default: default?, rules })
}

fn required_choice<T: Copy>(
    fields: &mut Fields<'_, '_>,
    key: &'static str,
    choices: &[(&'static str, T)],
) -> Option<T> {
    let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
    fields.required_node(key, &format!("one of {}", names.join(", ")))?;
    fields.choice(key, choices)
}

fn rule(node: &Node, path: &str, problems: &mut Vec<Problem>) -> Option<(Rule, Place)> {
    let mut fields = Fields::new(node, path, problems);
    let id = fields.required("id", ID_FORM, |text| Identifier::new(text).ok());
    let place = fields.place_of("id");
    let effect = required_choice(&mut fields, "effect", &EFFECTS);
    let mut when = When::default();
    for (key, patterns) in [
        ("providers", &mut when.providers),
        ("models", &mut when.models),
        ("operations", &mut when.operations),
    ] {
        self::patterns(&mut fields, key, patterns);
    }
    let bound_place = fields.place_of("max_output_tokens");
    let max_output_tokens = fields.node("max_output_tokens").map(|node| {
        let path = fields.path("max_output_tokens");
        bound(node, &path, fields.problems())
    });
    if effect == Some(Effect::Deny) && max_output_tokens.is_some() {
        let wanted = "no bound on a `deny` rule: put it on the `allow` rule that it limits";
        let path = fields.path("max_output_tokens");
        fields.report(Problem::at(bound_place, path, wanted));
    }
    if let Some(node) = fields.node("when") {
        let path = fields.path("when");
        self::when(node, &path, &mut when, fields.problems());
    }
    fields.finish();
    // A bound that could not be read must not become no bound.
    let max_output_tokens = match max_output_tokens {
        None => None,
        Some(bound) => Some(bound?),
    };
    Some((Rule { id: id?, effect: effect?, when, max_output_tokens }, place))
}

fn when(node: &Node, path: &str, when: &mut When, problems: &mut Vec<Problem>) {
    let mut fields = Fields::new(node, path, problems);
    for (key, patterns) in [
        ("consumer", &mut when.consumer),
        ("team", &mut when.team),
        ("organisation", &mut when.organisation),
        ("cost_centre", &mut when.cost_centre),
        ("system", &mut when.system),
        ("purpose", &mut when.purpose),
        ("data_class", &mut when.data_class),
        ("key", &mut when.key),
        ("groups", &mut when.groups),
        ("route", &mut when.route),
    ] {
        self::patterns(&mut fields, key, patterns);
    }
    fields.finish();
}

fn patterns(fields: &mut Fields<'_, '_>, key: &'static str, patterns: &mut Patterns) {
    let Some(node) = fields.node(key) else { return };
    let path = fields.path(key);
    let list = texts(node, &path, fields.problems());
    if list.is_empty() && matches!(&node.shape, Shape::List(items) if items.is_empty()) {
        fields.report(Problem::at(node.place, path, "at least one pattern, or no key"));
        return;
    }
    for (text, place) in list {
        if !patterns.add(&text) {
            let wanted = "a pattern of 1 to 256 characters without spaces; `*` is any text, `?` one character, `!` \
                          in front excludes";
            fields.report(Problem::at(place, &path, wanted).value(text));
        }
    }
}

fn bound(node: &Node, path: &str, problems: &mut Vec<Problem>) -> Option<OutputBound> {
    let tokens = |text: &str| text.parse::<i64>().ok().filter(|n| (1..=1 << 53).contains(n));
    if matches!(node.shape, Shape::Map(_)) {
        let mut fields = Fields::new(node, path, problems);
        let count = fields.required("tokens", "a number of tokens from 1 to 2^53", tokens);
        let unbounded = required_choice(&mut fields, "unbounded", &EFFECTS);
        fields.finish();
        return Some(OutputBound { tokens: count?, unbounded: unbounded? });
    }
    let found = node.text().and_then(tokens);
    if found.is_none() {
        problems
            .push(Problem::at(node.place, path, BOUND_FORM).value(node.text().unwrap_or(node.describe())));
    }
    Some(OutputBound { tokens: found?, unbounded: Effect::Deny })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_told_with_line_key_value_and_form() {
        let yaml = "\
mode: enforced
defualt: deny
rules:
  - id: has space
    effect: allow
  - id: b
    effect: permit
    when: { taem: research }
    models: []
  - id: b
    effect: deny
    max_output_tokens: 10
  - id: c
    effect: allow
    max_output_tokens: lots
    operations: ['chat completions']
  - id: c
    effect: allow
  - id: d
    effect: allow
    max_output_tokens: { tokens: 0, unbounded: maybe }
";
        let told: Vec<String> =
            Policy::parse(yaml.as_bytes()).unwrap_err().iter().map(ToString::to_string).collect();
        let want = [
            "1:7: `mode`: found `enforced`, wanted one of `enforce`, `observe` (did you mean `enforce`?)",
            "1:1: `default`: wanted one of `allow`, `deny`; the key is missing",
            "2:1: `defualt`: wanted a known key: default, mode, rules (did you mean `default`?)",
            "4:9: `rules[0].id`: found `has space`, wanted an identifier `[A-Za-z0-9_.:/@+-]{1,128}`",
            "7:13: `rules[1].effect`: found `permit`, wanted one of `allow`, `deny`",
            "9:13: `rules[1].models`: wanted at least one pattern, or no key",
            "8:13: `rules[1].when.taem`: wanted a known key: consumer, cost_centre, data_class, groups, key, \
             organisation, purpose, route, system, team (did you mean `team`?)",
            "12:24: `rules[2].max_output_tokens`: wanted no bound on a `deny` rule: put it on the `allow` rule that \
             it limits",
            "15:24: `rules[3].max_output_tokens`: found `lots`, wanted a number of tokens from 1 to 2^53, or \
             `{tokens: N, unbounded: allow|deny}`",
            "16:18: `rules[3].operations`: found `chat completions`, wanted a pattern of 1 to 256 characters \
             without spaces; `*` is any text, `?` one character, `!` in front excludes",
            "21:34: `rules[5].max_output_tokens.tokens`: found `0`, wanted a number of tokens from 1 to 2^53",
            "21:48: `rules[5].max_output_tokens.unbounded`: found `maybe`, wanted one of `allow`, `deny`",
        ];
        for (index, want) in want.iter().enumerate() {
            assert!(told.iter().any(|line| line == want), "{index}: {want}\nis not in\n{}", told.join("\n"));
        }
        assert_eq!(told.len(), want.len(), "{}", told.join("\n"));
    }

    #[test]
    fn two_rules_cannot_share_an_id() {
        let yaml =
            "mode: enforce\ndefault: deny\nrules:\n- {id: a, effect: allow}\n- {id: a, effect: deny}\n";
        let problems = Policy::parse(yaml.as_bytes()).unwrap_err();
        assert_eq!(
            problems[0].to_string(),
            "5:8: `rules[1].id`: found `a`, wanted an id that no other rule has; it stands at line 4 already"
        );
    }

    #[test]
    fn the_hash_is_of_the_bytes() {
        let yaml = b"mode: observe\ndefault: allow\n";
        let policy = Policy::parse(yaml).unwrap();
        assert_eq!(policy.hash(), Sha256Hex::of(yaml));
        assert_eq!(policy.mode(), Mode::Observe);
    }

    #[test]
    fn nothing_but_utf8_is_read_and_an_empty_file_is_no_policy() {
        assert!(Policy::parse(b"mode: \xff").is_err());
        assert_eq!(Policy::parse(b"").unwrap_err().len(), 2);
    }

    #[test]
    fn the_examples_are_policies() {
        for yaml in [include_str!("../../examples/starter.yaml"), include_str!("../../examples/teams.yaml")] {
            Policy::parse(yaml.as_bytes()).unwrap();
        }
    }
}
