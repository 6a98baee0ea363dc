//! Facts to verdict. No I/O, no clock: the same facts give the same verdict.

use std::collections::BTreeMap;

use schemas::Identifier;
use schemas::record::{Decision, MAX_LIST, Verdict};

use super::{Effect, Facts, Mode, Output, OutputBound, Policy, Rule, When, output};

impl When {
    fn fits(&self, facts: &Facts<'_>) -> bool {
        [
            (&self.consumer, facts.consumer),
            (&self.team, facts.team),
            (&self.organisation, facts.organisation),
            (&self.cost_centre, facts.cost_centre),
            (&self.system, facts.system),
            (&self.purpose, facts.purpose),
            (&self.data_class, facts.data_class),
            (&self.key, facts.key),
            (&self.route, facts.route),
            (&self.providers, facts.provider),
            (&self.models, facts.model),
            (&self.operations, facts.operation),
        ]
        .iter()
        .all(|(patterns, fact)| patterns.fit(*fact))
            && self.groups.fit_any(facts.groups.iter().map(Identifier::as_str))
    }
}

impl OutputBound {
    fn kept_by(&self, facts: &Facts<'_>) -> bool {
        if !writes(facts) {
            return true;
        }
        match asked_output(facts) {
            Some(tokens) => tokens <= self.tokens,
            None => self.unbounded == Effect::Allow,
        }
    }
}

/// Whether the request makes a model write what an output bound means.
fn writes(facts: &Facts<'_>) -> bool {
    facts.operation.is_some_and(|operation| output(operation, facts.model) == Output::Bounded)
}

/// The largest output over all answers that the request asks for.
fn asked_output(facts: &Facts<'_>) -> Option<i64> {
    let of_one = facts.max_output_tokens.filter(|tokens| *tokens >= 0)?;
    Some(of_one.saturating_mul(facts.choices.unwrap_or(1).max(1)))
}

impl Policy {
    /// Decides about a request.
    ///
    /// `rules` of the verdict are those that apply, in the order of the file. `facts` holds what is not in the
    /// record elsewhere: `decided_by` (a rule's id, or `default`), and where an output bound was weighed
    /// `output_bound`, the most generous one, and `output_asked` (a number, or `unbounded`).
    ///
    /// Where another model is sent than is asked for, both names are judged, and what is refused by one of them is refused:
    /// an alias opens nothing. `judged_model` then says which the verdict is of: `sent_model` where only that one is
    /// refused, else `requested_model`.
    pub fn evaluate(&self, facts: &Facts<'_>) -> Verdict {
        let mut asked = self.evaluate_one(facts);
        let Some(sent) = facts.sent_model.filter(|sent| facts.model != Some(*sent)) else { return asked };
        let mut sent = self.evaluate_one(&Facts { model: Some(sent), ..*facts });
        let only_sent = asked.decision == Decision::Allow && sent.decision != Decision::Allow;
        let (verdict, name) =
            if only_sent { (&mut sent, "sent_model") } else { (&mut asked, "requested_model") };
        if let Ok(name) = Identifier::new(name) {
            verdict.facts.insert("judged_model".to_owned(), name);
        }
        if only_sent { sent } else { asked }
    }

    /// Decides about a request as if it went out under the model that is asked for.
    fn evaluate_one(&self, facts: &Facts<'_>) -> Verdict {
        let applying: Vec<&Rule> = self.rules.iter().filter(|rule| rule.when.fits(facts)).collect();
        let (effect, decided_by, bound) = self.decide(&applying, facts);
        let mut seen = BTreeMap::new();
        let mut note = |name: &str, value: &str| {
            if let Ok(value) = Identifier::new(value) {
                seen.insert(name.to_owned(), value);
            }
        };
        note("decided_by", decided_by.map_or("default", |rule| rule.id.as_str()));
        if let Some(bound) = bound {
            note("output_bound", &bound.tokens.to_string());
            match asked_output(facts) {
                Some(tokens) => note("output_asked", &tokens.to_string()),
                None => note("output_asked", "unbounded"),
            }
        }
        Verdict {
            decision: match (effect, self.mode) {
                (Effect::Allow, _) => Decision::Allow,
                (Effect::Deny, Mode::Enforce) => Decision::Deny,
                (Effect::Deny, Mode::Observe) => Decision::WouldDeny,
            },
            policy: self.hash,
            rules: applying.iter().take(MAX_LIST).map(|rule| rule.id.clone()).collect(),
            rule_count: (applying.len() > MAX_LIST).then_some(applying.len() as u64),
            facts: seen,
        }
    }

    fn decide<'r>(
        &self,
        applying: &[&'r Rule],
        facts: &Facts<'_>,
    ) -> (Effect, Option<&'r Rule>, Option<OutputBound>) {
        if let Some(deny) = applying.iter().find(|rule| rule.effect == Effect::Deny) {
            return (Effect::Deny, Some(deny), None);
        }
        let keeps = |rule: &&&Rule| rule.max_output_tokens.is_none_or(|bound| bound.kept_by(facts));
        if let Some(allow) = applying.iter().find(keeps) {
            return (Effect::Allow, Some(allow), allow.max_output_tokens.filter(|_| writes(facts)));
        }
        // Every rule that applies has a bound that is not kept: name the most generous.
        let widest = applying.iter().max_by_key(|rule| rule.max_output_tokens.map(|bound| bound.tokens));
        match widest {
            Some(rule) => (Effect::Deny, Some(rule), rule.max_output_tokens),
            None => (self.default, None, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(mode: &str, default: &str, rules: &str) -> Policy {
        Policy::parse(format!("mode: {mode}\ndefault: {default}\nrules:\n{rules}").as_bytes()).unwrap()
    }

    const RULES: &str = "
- {id: chat, effect: allow, when: {team: [research, 'lab-*']}, providers: openai, models: ['gpt-4o*', '!gpt-4o-audio*'],
   operations: [chat.completions, responses.create], max_output_tokens: 1000}
- {id: wide, effect: allow, when: {consumer: batch}, models: 'gpt-4o*', max_output_tokens: {tokens: 5000, unbounded: allow}}
- {id: embed, effect: allow, operations: embeddings.create, max_output_tokens: 1}
- {id: secret, effect: deny, when: {data_class: ['!public', '!internal']}}
- {id: list, effect: allow, operations: 'models.*'}
";

    #[test]
    fn what_is_refused_under_either_name_of_a_model_is_refused() {
        let rules = policy(
            "enforce",
            "allow",
            "- {id: no-opus, effect: deny, models: 'claude-opus*'}\n- {id: no-slow, effect: deny, models: slow}\n",
        );
        let judged = |model, sent_model| {
            let verdict = rules.evaluate(&Facts { model: Some(model), sent_model, ..Facts::default() });
            let name = verdict.facts.get("judged_model").map(|name| name.as_str().to_owned());
            (verdict.decision, verdict.facts["decided_by"].as_str().to_owned(), name)
        };
        let told = |rule: &str, name: &str| (Decision::Deny, rule.to_owned(), Some(name.to_owned()));
        assert_eq!(judged("fast", Some("claude-opus-5")), told("no-opus", "sent_model"));
        assert_eq!(judged("slow", Some("claude-opus-5")), told("no-slow", "requested_model"));
        assert_eq!(judged("slow", Some("gpt-4o")), told("no-slow", "requested_model"));
        let allowed = (Decision::Allow, "default".to_owned(), Some("requested_model".to_owned()));
        assert_eq!(judged("fast", Some("gpt-4o")), allowed);
        assert_eq!(judged("fast", None).2, None);
        assert_eq!(judged("fast", Some("fast")).2, None);
    }

    fn facts<'a>(
        who: (&'a str, &'a str, Option<&'a str>),
        what: (&'a str, Option<&'a str>, &'a str),
        output: (Option<i64>, Option<i64>),
    ) -> Facts<'a> {
        Facts {
            consumer: Some(who.0),
            team: Some(who.1),
            data_class: who.2,
            provider: Some(what.0),
            model: what.1,
            operation: Some(what.2),
            max_output_tokens: output.0,
            choices: output.1,
            ..Facts::default()
        }
    }

    #[test]
    fn truth_table() {
        const OPEN: Option<&str> = Some("public");
        let chat = "chat.completions";
        let gpt = Some("gpt-4o-mini");
        // who (consumer, team, data class), what (provider, model, operation), output (max, n) -> decision, decider
        let table = [
            (("a", "research", OPEN), ("openai", gpt, chat), (Some(1000), None), Decision::Allow, "chat"),
            (("a", "lab-7", OPEN), ("openai", gpt, chat), (Some(1), None), Decision::Allow, "chat"),
            (("a", "sales", OPEN), ("openai", gpt, chat), (Some(1), None), Decision::Deny, "default"),
            (("a", "research", OPEN), ("other", gpt, chat), (Some(1), None), Decision::Deny, "default"),
            (
                ("a", "research", OPEN),
                ("openai", Some("o3"), chat),
                (Some(1), None),
                Decision::Deny,
                "default",
            ),
            (
                ("a", "research", OPEN),
                ("openai", Some("gpt-4o-audio-x"), chat),
                (Some(1), None),
                Decision::Deny,
                "default",
            ),
            (("a", "research", OPEN), ("openai", None, chat), (Some(1), None), Decision::Deny, "default"),
            (
                ("a", "research", OPEN),
                ("openai", gpt, "files.create"),
                (None, None),
                Decision::Deny,
                "default",
            ),
            // The bound: over it, unbounded, and over it by the number of answers.
            (("a", "research", OPEN), ("openai", gpt, chat), (Some(1001), None), Decision::Deny, "chat"),
            (("a", "research", OPEN), ("openai", gpt, chat), (None, None), Decision::Deny, "chat"),
            (("a", "research", OPEN), ("openai", gpt, chat), (Some(500), Some(2)), Decision::Allow, "chat"),
            (("a", "research", OPEN), ("openai", gpt, chat), (Some(501), Some(2)), Decision::Deny, "chat"),
            (
                ("a", "research", OPEN),
                ("openai", gpt, chat),
                (Some(i64::MAX), Some(3)),
                Decision::Deny,
                "chat",
            ),
            // The most generous rule that applies counts.
            (("batch", "research", OPEN), ("openai", gpt, chat), (Some(5000), None), Decision::Allow, "wide"),
            (("batch", "research", OPEN), ("openai", gpt, chat), (Some(5001), None), Decision::Deny, "wide"),
            (("batch", "research", OPEN), ("openai", gpt, chat), (None, None), Decision::Allow, "wide"),
            // An output bound means nothing where no output is made.
            (
                ("a", "sales", OPEN),
                ("openai", Some("text-embedding-3-small"), "embeddings.create"),
                (None, None),
                Decision::Allow,
                "embed",
            ),
            (("a", "sales", OPEN), ("openai", None, "models.list"), (None, None), Decision::Allow, "list"),
            // An operation that nobody knows may write: it does not slip past a bound.
            (("batch", "sales", OPEN), ("openai", gpt, "other"), (Some(5001), None), Decision::Deny, "wide"),
            // A bound below zero is none: servers read it as no end.
            (("a", "research", OPEN), ("openai", gpt, chat), (Some(-1), None), Decision::Deny, "chat"),
            (("batch", "research", OPEN), ("openai", gpt, chat), (Some(-1), None), Decision::Allow, "wide"),
            // A deny rule wins, also over an unknown data class.
            (
                ("a", "research", Some("secret")),
                ("openai", gpt, chat),
                (Some(1), None),
                Decision::Deny,
                "secret",
            ),
            (("a", "research", None), ("openai", gpt, chat), (Some(1), None), Decision::Deny, "secret"),
            (
                ("a", "sales", Some("internal")),
                ("openai", None, "models.list"),
                (None, None),
                Decision::Allow,
                "list",
            ),
        ];
        for (row, (who, what, output, decision, decider)) in table.into_iter().enumerate() {
            let enforce = policy("enforce", "deny", RULES).evaluate(&facts(who, what, output));
            assert_eq!(
                (enforce.decision, enforce.facts["decided_by"].as_str()),
                (decision, decider),
                "row {row}"
            );
            let observe = policy("observe", "deny", RULES).evaluate(&facts(who, what, output));
            let watched = if decision == Decision::Deny { Decision::WouldDeny } else { decision };
            assert_eq!(observe.decision, watched, "row {row}, observing");
            let open = policy("enforce", "allow", RULES).evaluate(&facts(who, what, output));
            let opened = if decider == "default" { Decision::Allow } else { decision };
            assert_eq!(open.decision, opened, "row {row}, default allow");
        }
    }

    #[test]
    fn an_output_bound_holds_in_every_dialect() {
        let bounded = policy("enforce", "deny", "- {id: short, effect: allow, max_output_tokens: 1000}\n");
        let decided = |operation, model, max_output_tokens| {
            let facts = Facts { operation: Some(operation), model, max_output_tokens, ..Facts::default() };
            let verdict = bounded.evaluate(&facts);
            (verdict.decision, verdict.facts.contains_key("output_bound"))
        };
        for operation in [
            "models.generate_content",
            "models.stream_generate_content",
            "models.predict",
            "interactions.create",
            "converse",
            "converse_stream",
            "invoke_model",
            "invoke_model_stream",
            "chat.create",
            "generate.create",
            "prompts.generate",
            "conversations.start",
        ] {
            for over in [Some(1001), None] {
                assert_eq!(decided(operation, None, over), (Decision::Deny, true), "{operation} {over:?}");
            }
            assert_eq!(decided(operation, None, Some(1000)), (Decision::Allow, true), "{operation}");
        }
        let titan = Some("amazon.titan-embed-text-v2:0");
        assert_eq!(decided("invoke_model", titan, None), (Decision::Allow, false));
        assert_eq!(decided("images.generations", None, None), (Decision::Allow, false));
    }

    #[test]
    fn rules_name_groups() {
        let rules = "- {id: eng, effect: allow, when: {groups: [eng, 'lab-*']}}\n- {id: out, effect: deny, when: {groups: contractors}}\n";
        let policy = policy("enforce", "deny", rules);
        let decided = |groups: &[&str]| {
            let groups: Vec<Identifier> =
                groups.iter().map(|group| Identifier::new(*group).unwrap()).collect();
            policy.evaluate(&Facts { groups: &groups, ..Facts::default() }).decision
        };
        assert_eq!(decided(&["sales", "lab-1"]), Decision::Allow);
        assert_eq!(decided(&["eng", "contractors"]), Decision::Deny);
        assert_eq!(decided(&["sales"]), Decision::Deny);
        assert_eq!(decided(&[]), Decision::Deny);
    }

    #[test]
    fn the_verdict_holds_rules_and_facts_that_decided() {
        let policy = policy("enforce", "deny", RULES);
        let over = facts(
            ("batch", "research", Some("public")),
            ("openai", Some("gpt-4o"), "chat.completions"),
            (Some(4000), Some(2)),
        );
        let verdict = policy.evaluate(&over);
        let rules: Vec<&str> = verdict.rules.iter().map(Identifier::as_str).collect();
        assert_eq!(rules, ["chat", "wide"]);
        let facts: Vec<(&str, &str)> = verdict.facts.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(facts, [("decided_by", "wide"), ("output_asked", "8000"), ("output_bound", "5000")]);
        assert_eq!(verdict.policy, policy.hash());
        assert_eq!(verdict.rule_count, None);
    }

    #[test]
    fn more_than_32_rules_are_counted() {
        let rules: String = (0..40).map(|n| format!("- {{id: r{n}, effect: allow}}\n")).collect();
        let verdict = policy("enforce", "deny", &rules).evaluate(&Facts::default());
        assert_eq!((verdict.rules.len(), verdict.rule_count), (32, Some(40)));
    }

    proptest! {
        #[test]
        fn the_order_of_rules_does_not_change_the_decision(
            shuffled in Just(RULES.trim().split("\n- ").map(|rule| rule.trim_start_matches("- ").to_owned()).collect::<Vec<_>>()).prop_shuffle(),
            team in "(research|lab-1|sales)", class in proptest::option::of("(public|secret)"),
            model in proptest::option::of("(gpt-4o|gpt-4o-audio|o3)"), consumer in "(a|batch)",
            operation in "(chat.completions|embeddings.create|models.list)",
            max in proptest::option::of(1_i64..9000), n in proptest::option::of(-1_i64..4),
        ) {
            let rules: String = shuffled.iter().map(|rule| format!("- {rule}\n")).collect();
            let facts = facts((&consumer, &team, class.as_deref()), ("openai", model.as_deref(), &operation), (max, n));
            let one = policy("enforce", "deny", RULES).evaluate(&facts);
            let other = policy("enforce", "deny", &rules).evaluate(&facts);
            prop_assert_eq!(one.decision, other.decision);
        }

        #[test]
        fn one_more_deny_rule_never_allows_more(max in proptest::option::of(1_i64..9000), team in "(research|sales)") {
            let facts = facts(("a", &team, Some("public")), ("openai", Some("gpt-4o"), "chat.completions"), (max, None));
            let more = format!("{RULES}- {{id: no, effect: deny, when: {{consumer: a}}}}\n");
            prop_assert_eq!(policy("enforce", "allow", &more).evaluate(&facts).decision, Decision::Deny);
        }
    }
}
