//! The most that a sum can come to, before anybody knows of which classes the tokens are.
//!
//! Of the input that is estimated all can be read from a cache, or written to one; be audio, or images; come from tools. Of
//! the output all can be reasoning, audio, images. And there can be less of both. A sum that is linear in the classes is
//! largest, and smallest, where all tokens are of one class of each kind: it is asked there. What is not linear lies within
//! what its parts allow. What is counted beside tokens is not estimated: it counts once.

use super::{Counts, Expression, Function, NAMES, Node, Op, units};

/// Places of [`NAMES`].
const INPUT: usize = 0;
const OUTPUT: usize = 1;
/// What a cache had of the input; each token is of one of them.
const BY_CACHE: [usize; 4] = [2, 3, 4, 5];
/// Of what kind it is, where it is no text.
const INPUT_KINDS: [usize; 2] = [7, 9];
const TOOL_USE: usize = 11;
/// Of what kind the output is, where it is no plain text.
const OUTPUT_KINDS: [usize; 3] = [6, 8, 10];
/// What is no tokens.
const BESIDE: [usize; 4] = [12, 13, 14, 15];

/// From and to, both included.
type Range = (f64, f64);

const EVERYTHING: Range = (f64::NEG_INFINITY, f64::INFINITY);

/// Tokens that a request may use.
#[derive(Debug, Clone, Copy)]
struct Estimated {
    input: f64,
    output: f64,
}

impl Expression {
    /// The most that it can come to with so many tokens at most. Where nothing bounds it (a division by what may be nothing),
    /// what it is of plain text that no cache had.
    pub(crate) fn most(&self, input: u64, output: u64) -> u64 {
        let estimated = Estimated { input: input as f64, output: output as f64 };
        let (_, most) = self.0.range(&estimated);
        units(most).or_else(|| self.value(&estimated.plain())).unwrap_or(0)
    }
}

impl Estimated {
    fn plain(&self) -> Counts {
        let mut counts = Counts::default();
        for (place, count) in [(INPUT, self.input), (OUTPUT, self.output), (BY_CACHE[0], self.input)] {
            put(&mut counts, place, count);
        }
        counts
    }

    /// The counts of which `linear` makes the most.
    fn dearest(&self, linear: &Linear) -> Counts {
        let mut counts = Counts::default();
        let of = |place: &usize| linear.of.get(*place).copied().unwrap_or_default();
        let largest = |places: &[usize]| {
            let by_size = |a: &&usize, b: &&usize| of(a).total_cmp(&of(b));
            places.iter().max_by(by_size).copied()
        };
        let if_any = |place: Option<usize>| place.filter(|place| of(place) > 0.0);
        let input = [Some(INPUT), largest(&BY_CACHE), if_any(largest(&INPUT_KINDS)), if_any(Some(TOOL_USE))];
        let output = [Some(OUTPUT), if_any(largest(&OUTPUT_KINDS))];
        for (places, count) in [(&input[..], self.input), (&output[..], self.output)] {
            let places = || places.iter().flatten();
            if places().map(of).sum::<f64>() > 0.0 {
                places().for_each(|place| put(&mut counts, *place, count));
            }
        }
        if self.input + self.output > 0.0 {
            let beside = BESIDE.into_iter().filter_map(|place| if_any(Some(place)));
            beside.for_each(|place| put(&mut counts, place, 1.0));
        }
        counts
    }
}

fn put(counts: &mut Counts, place: usize, count: f64) {
    if let Some(found) = counts.get_mut(place) {
        *found = count;
    }
}

impl Node {
    /// Where its value lies.
    fn range(&self, estimated: &Estimated) -> Range {
        if let Some(linear) = Linear::of(self) {
            let at = |linear: &Linear| self.value(&estimated.dearest(linear));
            return sound((at(&linear.times(-1.0)), at(&linear)));
        }
        match self {
            // They are linear.
            Self::Number(_) | Self::Name(_) => EVERYTHING,
            Self::Negative(node) => {
                let (least, most) = node.range(estimated);
                (-most, -least)
            }
            Self::Two(op, left, right) => {
                let (left, right) = (left.range(estimated), right.range(estimated));
                match op {
                    Op::Plus => sound((left.0 + right.0, left.1 + right.1)),
                    Op::Minus => sound((left.0 - right.1, left.1 - right.0)),
                    Op::Times => corners(left, right, |a, b| a * b),
                    Op::Over if right.0 > 0.0 || right.1 < 0.0 => corners(left, right, |a, b| a / b),
                    Op::Over => EVERYTHING,
                }
            }
            Self::Many(function, nodes) => {
                let ranges = nodes.iter().map(|node| node.range(estimated));
                let both = |of: fn(f64, f64) -> f64| {
                    let pick = |a: Range, b: Range| (of(a.0, b.0), of(a.1, b.1));
                    ranges.clone().reduce(pick).unwrap_or(EVERYTHING)
                };
                match function {
                    Function::Min => both(f64::min),
                    Function::Max => both(f64::max),
                    Function::Abs => {
                        let (least, most) = both(f64::max);
                        (0.0, least.abs().max(most.abs()))
                    }
                    Function::Ceil => {
                        let (least, most) = both(f64::max);
                        (least.ceil(), most.ceil())
                    }
                    Function::Floor => {
                        let (least, most) = both(f64::max);
                        (least.floor(), most.floor())
                    }
                }
            }
        }
    }
}

/// What is no number says nothing.
fn sound(range: Range) -> Range {
    if range.0.is_nan() || range.1.is_nan() { EVERYTHING } else { range }
}

fn corners(left: Range, right: Range, of: fn(f64, f64) -> f64) -> Range {
    let all = [of(left.0, right.0), of(left.0, right.1), of(left.1, right.0), of(left.1, right.1)];
    if all.iter().any(|value| value.is_nan()) {
        return EVERYTHING;
    }
    (all.into_iter().fold(f64::INFINITY, f64::min), all.into_iter().fold(f64::NEG_INFINITY, f64::max))
}

/// A sum of so much for each count.
#[derive(Debug, Clone, Copy)]
struct Linear {
    constant: f64,
    of: Counts,
}

impl Linear {
    /// Of an expression that is one.
    fn of(node: &Node) -> Option<Self> {
        match node {
            Node::Number(constant) => Some(Self { constant: *constant, of: Counts::default() }),
            Node::Name(place) => {
                let mut of = Counts::default();
                put(&mut of, *place, 1.0);
                Some(Self { constant: 0.0, of })
            }
            Node::Negative(node) => Some(Self::of(node)?.times(-1.0)),
            Node::Two(op, left, right) => {
                let (left, right) = (Self::of(left)?, Self::of(right)?);
                match op {
                    Op::Plus => Some(left.plus(&right)),
                    Op::Minus => Some(left.plus(&right.times(-1.0))),
                    Op::Times if right.is_constant() => Some(left.times(right.constant)),
                    Op::Times if left.is_constant() => Some(right.times(left.constant)),
                    Op::Over if right.is_constant() && right.constant != 0.0 => {
                        Some(left.times(1.0 / right.constant))
                    }
                    Op::Times | Op::Over => None,
                }
            }
            Node::Many(..) => None,
        }
    }

    fn is_constant(&self) -> bool {
        self.of.iter().all(|share| *share == 0.0)
    }

    fn times(&self, factor: f64) -> Self {
        Self { constant: self.constant * factor, of: self.of.map(|share| share * factor) }
    }

    fn plus(&self, other: &Self) -> Self {
        let mut of = self.of;
        of.iter_mut().zip(other.of).for_each(|(share, more)| *share += more);
        Self { constant: self.constant + other.constant, of }
    }
}

const _: () =
    assert!(NAMES.len() == BY_CACHE.len() + INPUT_KINDS.len() + OUTPUT_KINDS.len() + BESIDE.len() + 3);

#[cfg(test)]
mod tests {
    use super::*;

    fn most(text: &str) -> u64 {
        Expression::parse(text).expect(text).most(100, 10)
    }

    #[test]
    fn the_places_are_those_of_the_names() {
        let names = |places: &[usize]| places.iter().map(|place| NAMES[*place]).collect::<Vec<_>>();
        assert_eq!(names(&[INPUT, OUTPUT, TOOL_USE]), ["input", "output", "tool_use_input"]);
        assert_eq!(names(&BY_CACHE), ["uncached_input", "cache_read", "cache_write_5m", "cache_write_1h"]);
        assert_eq!(names(&INPUT_KINDS), ["input_audio", "input_image"]);
        assert_eq!(names(&OUTPUT_KINDS), ["reasoning", "output_audio", "output_image"]);
        assert_eq!(names(&BESIDE), ["search_units", "web_searches", "pages", "audio_seconds"]);
    }

    #[test]
    fn all_tokens_can_be_of_the_dearest_class() {
        let table = [
            ("input + 3 * output", 130),
            ("reasoning", 10),
            ("output_image", 10),
            ("cache_read", 100),
            (
                "uncached_input + 0.1 * cache_read + 1.25 * cache_write_5m + 2 * cache_write_1h + 5 * output",
                250,
            ),
            ("input + 9 * input_audio + 4 * input_image + tool_use_input", 1100),
            ("input - cache_read", 100),
            ("7 - input", 7),
            ("pages + 2 * search_units", 3),
            ("web_searches + input", 101),
            ("max(cache_read, 3 * output)", 100),
            ("max(output, reasoning) + 5", 15),
            ("min(cache_read, uncached_input)", 100),
            ("ceil(cache_read / 3) + floor(output / 3)", 37),
            ("abs(output - input)", 100),
            ("cache_read * output / 2", 500),
            ("input / (1 + output)", 100),
            ("input / output", 10),
            ("1 / 0", 0),
            ("input * 99999999999999999999", crate::config::MAX_LIMIT),
        ];
        for (text, wanted) in table {
            assert_eq!(most(text), wanted, "{text}");
        }
        assert_eq!(Expression::parse("pages + 1").expect("one").most(0, 0), 1, "nothing is asked for");
    }

    /// Whatever the tokens turn out to be, as long as there are no more of them than was estimated.
    #[test]
    fn what_is_used_is_never_over_it() {
        let sums = [
            "input + 3 * output",
            "uncached_input + 0.1 * cache_read + 1.25 * cache_write_5m + 2 * cache_write_1h + 5 * output",
            "8 * input_audio + input - 2 * input_image + tool_use_input / 3",
            "output + 4 * reasoning - output_audio + 3 * output_image",
            "max(cache_read - uncached_input, 2 * output) + min(cache_write_5m, input_image, 40)",
            "ceil(cache_read / 7) + ceil(uncached_input / 7) - floor(reasoning / 3)",
            "abs(output - input) * (1 + reasoning) / (2 + cache_read)",
            "-(input - 500) * (output_audio - 5)",
        ];
        let mut seed = 88_172_645_463_325_252_u64;
        let mut random = |most: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % (most + 1)) as f64
        };
        for text in sums {
            let sum = Expression::parse(text).expect(text);
            for _ in 0..2000 {
                let (most_input, most_output) = (random(300) as u64, random(300) as u64);
                let mut counts = Counts::default();
                let mut share = |whole: f64, places: &[usize]| {
                    let mut left = whole;
                    for place in places {
                        counts[*place] = random(left as u64);
                        left -= counts[*place];
                    }
                    left
                };
                let input = share(most_input as f64, &[INPUT]);
                let input = most_input as f64 - input;
                let rest = share(input, &BY_CACHE[1..]);
                share(input, &INPUT_KINDS);
                share(input, &[TOOL_USE]);
                let output = most_output as f64 - share(most_output as f64, &[OUTPUT]);
                share(output, &OUTPUT_KINDS);
                counts[BY_CACHE[0]] = rest;
                let (used, most) = (sum.value(&counts), sum.most(most_input, most_output));
                assert!(used.is_some_and(|used| used <= most), "{text}: {used:?} {most} {counts:?}");
            }
        }
    }
}
