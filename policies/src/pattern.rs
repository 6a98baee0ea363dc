//! Patterns for names: `*` is any text, `?` one character, anything else itself; case counts.

use std::fmt;

/// One pattern.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// How many of its bytes stand before the first `*` or `?`.
    fixed: usize,
    literals: usize,
}

/// The longest pattern.
pub const MAX_PATTERN_BYTES: usize = 256;

impl Pattern {
    /// Takes 1 to 256 bytes without white space or control characters.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=MAX_PATTERN_BYTES).contains(&text.len());
        let clean = !text.contains(|c: char| c.is_whitespace() || c.is_control());
        (fits && clean).then(|| Self {
            text: text.to_owned(),
            fixed: text.find(['*', '?']).unwrap_or(text.len()),
            literals: text.chars().filter(|c| !matches!(c, '*' | '?')).count(),
        })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True where the whole of `text` fits.
    ///
    /// Takes at most `pattern * text` steps: no pattern is slow.
    pub fn matches(&self, text: &str) -> bool {
        let (fixed, rest) = self.text.as_bytes().split_at(self.fixed);
        let Some(text) = text.as_bytes().strip_prefix(fixed) else { return false };
        if rest.is_empty() {
            return text.is_empty();
        }
        if rest.is_ascii() && text.is_ascii() {
            return fits(rest, text, b'*', b'?');
        }
        // Both are cut between characters.
        let chars = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().collect::<Vec<_>>();
        fits(&chars(rest), &chars(text), '*', '?')
    }

    /// How closely it says what it means: the number of characters that stand for themselves.
    pub fn literals(&self) -> usize {
        self.literals
    }

    /// True where it stands for exactly one text.
    pub fn is_exact(&self) -> bool {
        self.fixed == self.text.len()
    }
}

/// The pattern with its `star` and its sign for `any` one character.
fn fits<T: PartialEq>(pattern: &[T], text: &[T], star: T, any: T) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(c) if *c == star => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == any || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after_star, taken)) = retry else { return false };
                retry = Some((after_star, taken + 1));
                p = after_star;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == star)
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

/// Patterns that a fact is held against: one must fit, and none of those after `!` may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    wanted: Vec<Pattern>,
    unwanted: Vec<Pattern>,
}

impl Patterns {
    /// Adds one as typed: `gpt-4o*`, `!gpt-4o-audio*`. False where it is no pattern.
    #[must_use]
    pub fn add(&mut self, text: &str) -> bool {
        let (list, text) = match text.strip_prefix('!') {
            Some(rest) => (&mut self.unwanted, rest),
            None => (&mut self.wanted, text),
        };
        match Pattern::parse(text) {
            Some(pattern) => {
                list.push(pattern);
                true
            }
            None => false,
        }
    }

    /// True where one of several facts of a kind fits, and none is excluded. Where there is none: only where all patterns
    /// begin with `!`.
    pub fn fit_any<'f>(&self, facts: impl Iterator<Item = &'f str> + Clone) -> bool {
        (self.wanted.is_empty()
            || facts.clone().any(|fact| self.wanted.iter().any(|pattern| pattern.matches(fact))))
            && !facts.clone().any(|fact| self.unwanted.iter().any(|pattern| pattern.matches(fact)))
    }

    /// Where, among several facts of a kind, those are that decide: the first that a pattern wants, the first that one
    /// excludes, and the first that fits all. Whatever else is left out, [`Self::fit_any`] and [`Self::fit`] of each say the
    /// same.
    pub fn deciding(&self, facts: &[&str]) -> impl Iterator<Item = usize> {
        let any = |patterns: &[Pattern]| {
            facts.iter().position(|fact| patterns.iter().any(|pattern| pattern.matches(fact)))
        };
        let fits = || facts.iter().position(|fact| self.fit(Some(fact)));
        [any(&self.wanted), any(&self.unwanted), fits()].into_iter().flatten()
    }

    /// True where a pattern behind a `!` fits.
    pub fn excludes(&self, fact: &str) -> bool {
        self.unwanted.iter().any(|pattern| pattern.matches(fact))
    }

    /// True where it holds no pattern: everything fits.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty()
    }

    /// True where the fact fits. An unknown fact fits only where all patterns begin with `!`.
    pub fn fit(&self, fact: Option<&str>) -> bool {
        let Some(fact) = fact else { return self.wanted.is_empty() };
        (self.wanted.is_empty() || self.wanted.iter().any(|pattern| pattern.matches(fact)))
            && !self.unwanted.iter().any(|pattern| pattern.matches(fact))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn star_is_any_text_and_question_mark_one_character() {
        let table = [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4o*", "gpt-4o", true),
            ("gpt-4o*", "gpt-4o-mini", true),
            ("*", "", true),
            ("?", "", false),
            ("?", "é", true),
            ("claude-*-20??????", "claude-opus-4-20250514", true),
            ("claude-*-20??????", "claude-opus-4-2025051", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a*a", "a", false),
            ("GPT", "gpt", false),
            ("a.c", "abc", false),
        ];
        for (pattern, text, fits) in table {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn patterns_truth_table() {
        let table: &[(&[&str], Option<&str>, bool)] = &[
            (&[], None, true),
            (&[], Some("x"), true),
            (&["x"], Some("x"), true),
            (&["x"], None, false),
            (&["*"], None, false),
            (&["!x"], None, true),
            (&["!x"], Some("x"), false),
            (&["!x"], Some("y"), true),
            (&["a*", "!ab*"], Some("ac"), true),
            (&["a*", "!ab*"], Some("abc"), false),
            (&["a*", "!ab*"], Some("b"), false),
            (&["a*", "!ab*"], None, false),
        ];
        for (list, fact, fits) in table {
            let mut patterns = Patterns::default();
            for text in *list {
                assert!(patterns.add(text));
            }
            assert_eq!(patterns.fit(*fact), *fits, "{list:?} {fact:?}");
        }
    }

    #[test]
    fn of_several_facts_one_must_fit_and_none_be_excluded() {
        let table: &[(&[&str], &[&str], bool)] = &[
            (&[], &[], true),
            (&["a"], &[], false),
            (&["!a"], &[], true),
            (&["a"], &["b", "a"], true),
            (&["a", "!b"], &["b", "a"], false),
            (&["!b"], &["c", "d"], true),
            (&["!b"], &["c", "b"], false),
        ];
        for (list, facts, fits) in table {
            let mut patterns = Patterns::default();
            assert!(list.iter().all(|text| patterns.add(text)));
            assert_eq!(patterns.fit_any(facts.iter().copied()), *fits, "{list:?} {facts:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "!", "a b", "a\nb", &"x".repeat(257)] {
            assert!(!Patterns::default().add(text), "{text:?}");
        }
    }

    /// The definition, word for word; slow on purpose.
    fn by_definition(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|n| by_definition(rest, &text[n..])),
            Some((c, rest)) => {
                text.split_first().is_some_and(|(t, left)| (*c == '?' || c == t) && by_definition(rest, left))
            }
        }
    }

    proptest! {
        #[test]
        fn the_facts_that_decide_say_what_all_say(list in prop::collection::vec("!?[ab*]{1,2}", 0..4),
            facts in prop::collection::vec("[abc]{1,2}", 0..6)) {
            let mut patterns = Patterns::default();
            prop_assert!(list.iter().all(|text| patterns.add(text)));
            let all: Vec<&str> = facts.iter().map(String::as_str).collect();
            let few: Vec<&str> = patterns.deciding(&all).map(|at| all[at]).collect();
            prop_assert_eq!(patterns.fit_any(all.iter().copied()), patterns.fit_any(few.iter().copied()));
            let each = |facts: &[&str]| facts.iter().any(|fact| patterns.fit(Some(fact)));
            prop_assert_eq!(each(&all), each(&few));
        }

        #[test]
        fn matching_is_the_definition(pattern in "[ab*?]{1,8}", text in "[ab]{0,8}") {
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(
                Pattern::parse(&pattern).unwrap().matches(&text),
                by_definition(&chars(&pattern), &chars(&text))
            );
        }
    }
}
