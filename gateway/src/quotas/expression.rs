//! A sum of tokens, as a rule has it: small arithmetic without loops, calls or text.

mod most;

use schemas::record::Usage;

/// The longest expression.
const MAX_BYTES: usize = 512;

/// The deepest nesting.
const MAX_DEPTH: usize = 32;

/// What an expression can name: classes of tokens, and what is counted beside tokens.
pub(crate) const NAMES: [&str; 16] = [
    "input",
    "output",
    "uncached_input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "reasoning",
    "input_audio",
    "output_audio",
    "input_image",
    "output_image",
    "tool_use_input",
    "search_units",
    "web_searches",
    "pages",
    "audio_seconds",
];

/// The counts of [`NAMES`], in their order.
pub(crate) type Counts = [f64; NAMES.len()];

/// Counts of a known usage; a class that is not told is 0.
pub(crate) fn counts(usage: &Usage) -> Counts {
    let beside = [usage.cache_read_tokens, usage.cache_write_5m_tokens, usage.cache_write_1h_tokens];
    let cached = || beside.into_iter().flatten().sum::<i64>();
    let input =
        usage.input_tokens.or_else(|| usage.uncached_input_tokens.map(|n| n.saturating_add(cached())));
    let uncached = usage.uncached_input_tokens.or_else(|| input.map(|n| n.saturating_sub(cached())));
    [
        input,
        usage.output_tokens,
        uncached,
        usage.cache_read_tokens,
        usage.cache_write_5m_tokens,
        usage.cache_write_1h_tokens,
        usage.reasoning_tokens,
        usage.input_audio_tokens,
        usage.output_audio_tokens,
        usage.input_image_tokens,
        usage.output_image_tokens,
        usage.tool_use_input_tokens,
        usage.search_units,
        usage.web_searches,
        usage.pages,
        usage.audio_seconds,
    ]
    .map(|count| count.unwrap_or(0).max(0) as f64)
}

/// One expression, read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expression(Node);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Number(f64),
    Name(usize),
    Negative(Box<Node>),
    Two(Op, Box<Node>, Box<Node>),
    Many(Function, Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Plus,
    Minus,
    Times,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Min,
    Max,
    Abs,
    Ceil,
    Floor,
}

impl Expression {
    /// Reads an expression; `None` where it is none, or too long or too deep.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let mut reader = Reader { rest: text, depth: 0 };
        let node = reader.sum()?;
        reader.skip();
        reader.rest.is_empty().then_some(Self(node))
    }

    /// Its value: below zero is zero, a part of one is one. `None` where it is no number (a division by zero).
    pub(crate) fn value(&self, counts: &Counts) -> Option<u64> {
        units(self.0.value(counts))
    }
}

fn units(value: f64) -> Option<u64> {
    // Above what is exact anything is over every limit.
    value.is_finite().then(|| value.ceil().clamp(0.0, crate::config::MAX_LIMIT as f64) as u64)
}

impl Node {
    fn value(&self, counts: &Counts) -> f64 {
        match self {
            Self::Number(number) => *number,
            Self::Name(index) => counts.get(*index).copied().unwrap_or(0.0),
            Self::Negative(node) => -node.value(counts),
            Self::Two(op, left, right) => {
                let (left, right) = (left.value(counts), right.value(counts));
                match op {
                    Op::Plus => left + right,
                    Op::Minus => left - right,
                    Op::Times => left * right,
                    Op::Over => left / right,
                }
            }
            Self::Many(function, nodes) => {
                let values = nodes.iter().map(|node| node.value(counts));
                // `f64::min` would pass a value by that is no number.
                let pick = |better: fn(f64, f64) -> bool| {
                    values.clone().fold(f64::NAN, |best, next| {
                        if best.is_nan() || next.is_nan() || better(next, best) { next } else { best }
                    })
                };
                match function {
                    _ if values.clone().any(f64::is_nan) => f64::NAN,
                    Function::Min => pick(|a, b| a < b),
                    Function::Max => pick(|a, b| a > b),
                    Function::Abs => pick(|_, _| false).abs(),
                    Function::Ceil => pick(|_, _| false).ceil(),
                    Function::Floor => pick(|_, _| false).floor(),
                }
            }
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    fn takes(&mut self, sign: char) -> bool {
        self.skip();
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn sum(&mut self) -> Option<Node> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut left = self.product()?;
        loop {
            let op = match () {
                () if self.takes('+') => Op::Plus,
                () if self.takes('-') => Op::Minus,
                () => break,
            };
            left = Node::Two(op, Box::new(left), Box::new(self.product()?));
        }
        self.depth -= 1;
        Some(left)
    }

    fn product(&mut self) -> Option<Node> {
        let mut left = self.factor()?;
        loop {
            let op = match () {
                () if self.takes('*') => Op::Times,
                () if self.takes('/') => Op::Over,
                () => return Some(left),
            };
            left = Node::Two(op, Box::new(left), Box::new(self.factor()?));
        }
    }

    fn factor(&mut self) -> Option<Node> {
        if self.takes('-') {
            self.depth += 1;
            let node = if self.depth > MAX_DEPTH { None } else { self.factor() };
            self.depth -= 1;
            return node.map(|node| Node::Negative(Box::new(node)));
        }
        if self.takes('(') {
            let node = self.sum()?;
            return self.takes(')').then_some(node);
        }
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.');
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            let plain = word.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !word.ends_with('.');
            return word.parse().ok().filter(|_| plain).map(Node::Number);
        }
        if let Some(index) = NAMES.iter().position(|name| *name == word) {
            return Some(Node::Name(index));
        }
        let (function, least, most) = match word {
            "min" => (Function::Min, 2, 16),
            "max" => (Function::Max, 2, 16),
            "abs" => (Function::Abs, 1, 1),
            "ceil" => (Function::Ceil, 1, 1),
            "floor" => (Function::Floor, 1, 1),
            _ => return None,
        };
        if !self.takes('(') {
            return None;
        }
        let mut nodes = vec![self.sum()?];
        while self.takes(',') {
            nodes.push(self.sum()?);
        }
        (self.takes(')') && (least..=most).contains(&nodes.len())).then_some(Node::Many(function, nodes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<u64> {
        let counts = [100.0, 10.0, 40.0, 60.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 3.0, 7.0, 1.0, 2.0, 9.0, 30.0];
        Expression::parse(text).expect(text).value(&counts)
    }

    #[test]
    fn sums_of_tokens_have_their_value() {
        let table = [
            ("input + 3*output", Some(130)),
            ("input+output*3-1", Some(129)),
            ("(input + output) * 2", Some(220)),
            ("uncached_input + cache_read / 10", Some(46)),
            ("max(input, output) + min(input, output, 5)", Some(105)),
            ("ceil(output / 3) + floor(output / 3)", Some(7)),
            ("output / 3", Some(4)),
            ("- input", Some(0)),
            ("abs(output - input)", Some(90)),
            ("5 - -3", Some(8)),
            ("input / reasoning", Some(25)),
            ("input / cache_write_1h", None),
            ("max(0 / 0, 1)", None),
            ("0.5 * output", Some(5)),
            ("output_image + 10 * tool_use_input", Some(73)),
            ("search_units + web_searches + pages + audio_seconds", Some(42)),
            ("9999999999999999999999", Some(crate::config::MAX_LIMIT)),
        ];
        for (text, wanted) in table {
            assert_eq!(value(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        let deep = format!("{}1{}", "(".repeat(40), ")".repeat(40));
        let signs = "-".repeat(100) + "1";
        let long = "1+".repeat(300) + "1";
        for text in [
            "",
            " ",
            "input +",
            "inputs",
            "min(input)",
            "ceil(1, 2)",
            "1..2",
            "1.",
            ".5",
            "1e9",
            "os.exit()",
            "input; output",
            "(input",
            "input)",
            "2 input",
            "min",
            "a",
            "input ** 2",
            &deep,
            &signs,
            &long,
        ] {
            assert!(Expression::parse(text).is_none(), "{text}");
        }
    }
}
