//! OpenAI's tokenizers, and which model has which.

use std::sync::LazyLock;

use regex::Regex;

use crate::ranks::Ranks;

/// A tokenizer, as records name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tokenizer {
    /// GPT-4 and GPT-3.5, and OpenAI's embeddings.
    Cl100kBase,
    /// GPT-4o and what came after it. Also what is nearest to a model of which no tokenizer is at hand.
    O200kBase,
    /// The same tokens of text, with those that frame OpenAI's open models.
    O200kHarmony,
}

/// Models by the beginning of their names, the longer ones first: OpenAI's own table (`tiktoken/model.py`).
const MODELS: &[(&str, Tokenizer)] = &[
    ("gpt-oss", Tokenizer::O200kHarmony),
    ("chatgpt-4o-", Tokenizer::O200kBase),
    ("gpt-4o", Tokenizer::O200kBase),
    ("gpt-4.1", Tokenizer::O200kBase),
    ("gpt-4.5-", Tokenizer::O200kBase),
    ("gpt-5", Tokenizer::O200kBase),
    ("o1", Tokenizer::O200kBase),
    ("o3", Tokenizer::O200kBase),
    ("o4-mini", Tokenizer::O200kBase),
    ("gpt-4-", Tokenizer::Cl100kBase),
    ("gpt-3.5", Tokenizer::Cl100kBase),
    ("gpt-35-turbo", Tokenizer::Cl100kBase),
    ("davinci-002", Tokenizer::Cl100kBase),
    ("babbage-002", Tokenizer::Cl100kBase),
    ("text-embedding-", Tokenizer::Cl100kBase),
];

struct Loaded {
    ranks: Ranks,
    split: Option<Regex>,
}

impl Loaded {
    fn new(compressed: &[u8], alternatives: &[&str]) -> Self {
        Self { ranks: Ranks::read(compressed), split: Regex::new(&alternatives.join("|")).ok() }
    }
}

/// `\s+(?!\S)|\s+` of the published expressions is `\s+` here: [`Pieces`] gives the last of them back.
static CL100K: LazyLock<Loaded> = LazyLock::new(|| {
    Loaded::new(
        include_bytes!("../data/cl100k_base.zst"),
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
            r"[^\r\n\p{L}\p{N}]?\p{L}+",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n]*",
            r"\s*[\r\n]+",
            r"\s+",
        ],
    )
});

static O200K: LazyLock<Loaded> = LazyLock::new(|| {
    Loaded::new(
        include_bytes!("../data/o200k_base.zst"),
        &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+",
        ],
    )
});

impl Tokenizer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cl100kBase, Self::O200kBase, Self::O200kHarmony];

    /// The tokenizer of a model of OpenAI's, also under a name that says whose it is (`openai/gpt-4o`) or that it was
    /// trained further (`ft:gpt-4o:...`); `None` for any other.
    pub fn of_model(model: &str) -> Option<Self> {
        let name = model.rsplit('/').next().unwrap_or(model);
        let name = name.strip_prefix("ft:").unwrap_or(name);
        if matches!(name, "gpt-4") || name.starts_with("gpt-4:") {
            return Some(Self::Cl100kBase);
        }
        let begins = |(prefix, _): &&(&str, Self)| {
            let rest = name.strip_prefix(prefix);
            // `o1` and `o1-mini`, not `o1x`.
            rest.is_some_and(|rest| {
                prefix.ends_with('-')
                    || rest.is_empty()
                    || rest.starts_with(|c: char| !c.is_ascii_alphanumeric())
            })
        };
        MODELS.iter().find(begins).map(|(_, tokenizer)| *tokenizer)
    }

    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cl100kBase => "cl100k_base",
            Self::O200kBase => "o200k_base",
            Self::O200kHarmony => "o200k_harmony",
        }
    }

    fn loaded(self) -> &'static Loaded {
        match self {
            Self::Cl100kBase => &CL100K,
            Self::O200kBase | Self::O200kHarmony => &O200K,
        }
    }

    /// How many tokens `text` is, without any special one. Takes a number of steps per byte, whatever the text.
    pub fn count(self, text: &str) -> u64 {
        let loaded = self.loaded();
        match &loaded.split {
            Some(split) => {
                Pieces { split, text, at: 0 }.map(|piece| loaded.ranks.count(piece.as_bytes())).sum()
            }
            None => loaded.ranks.count(text.as_bytes()),
        }
    }
}

/// A text's pieces, across which no token goes.
struct Pieces<'t> {
    split: &'static Regex,
    text: &'t str,
    at: usize,
}

impl<'t> Iterator for Pieces<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        // Every character is in one alternative, so that a match begins where the last one ended.
        let end = self.split.find_at(self.text, self.at).map_or(self.text.len(), |found| found.end());
        let mut piece = self.text.get(self.at..end).unwrap_or(rest);
        let last = piece.chars().next_back();
        // White space before a word leaves its last character to it.
        if let Some(last) = last.filter(|last| last.is_whitespace() && !matches!(last, '\r' | '\n'))
            && piece.len() > last.len_utf8()
            && end < self.text.len()
        {
            piece = piece.get(..piece.len() - last.len_utf8()).unwrap_or(piece);
        }
        self.at += piece.len();
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use sha2::{Digest as _, Sha256};

    #[test]
    fn the_tokens_are_those_that_openai_publishes() {
        // `openaipublic.blob.core.windows.net/encodings/*.tiktoken`, by the hashes in `tiktoken_ext/openai_public.py`.
        let table = [
            (&*CL100K, 100_256, "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"),
            (&*O200K, 199_998, "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"),
        ];
        for (loaded, tokens, hash) in table {
            assert_eq!(loaded.ranks.len(), tokens);
            let mut file = Sha256::new();
            for rank in 0..tokens {
                let token = base64::engine::general_purpose::STANDARD.encode(loaded.ranks.token(rank));
                file.update(format!("{token} {rank}\n"));
            }
            let found: String = file.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, hash);
        }
    }

    #[test]
    fn texts_have_the_tokens_that_tiktoken_gives() {
        // By tiktoken 0.12: `len(tiktoken.get_encoding(name).encode_ordinary(text))`.
        for (text, cl100k, o200k) in KNOWN {
            assert_eq!(Tokenizer::Cl100kBase.count(text), *cl100k, "cl100k_base {text:?}");
            assert_eq!(Tokenizer::O200kBase.count(text), *o200k, "o200k_base {text:?}");
            assert_eq!(Tokenizer::O200kHarmony.count(text), *o200k, "o200k_harmony {text:?}");
        }
    }

    const KNOWN: &[(&str, u64, u64)] = &[
        ("", 0, 0),
        ("a", 1, 1),
        ("Hello, world!", 4, 4),
        ("  two  spaces\t\tand tabs \n\n  then lines \r\n \n", 13, 13),
        ("It's he'LL WE'RE don't", 9, 8),
        ("def f(x):\n    return x**2  # squared\n", 13, 13),
        ("Der Überläufer schwärzt Äpfel für 1234567 Euro.", 18, 17),
        ("東京都で今日は雨が降っています。", 16, 8),
        ("مرحبا بالعالم", 10, 4),
        ("🎉👩‍👩‍👧‍👦 party", 22, 14),
        ("{\"a\": [1, 2.50, null], \"b\": \"c\\\\d\"}", 21, 21),
        ("https://example.test/a/b?c=d&e=f#g", 12, 12),
        (
            "supercalifragilisticexpialidocioussupercalifragilisticexpialidocioussupercalifragilisticexpialidocious",
            37,
            30,
        ),
        ("éä İstanbul ſ 'ſ", 12, 9),
        ("trailing   ", 3, 3),
        (
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            13,
            13,
        ),
        (
            "------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------",
            5,
            5,
        ),
        ("                                                                                          y", 3, 3),
        (
            "012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
            30,
            30,
        ),
        ("<|endoftext|>", 7, 7),
        (
            "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. ",
            201,
            201,
        ),
    ];

    #[test]
    fn models_have_the_tokenizer_of_openais_own_table() {
        let table = [
            ("gpt-4", Some(Tokenizer::Cl100kBase)),
            ("gpt-4-0613", Some(Tokenizer::Cl100kBase)),
            ("gpt-4-turbo", Some(Tokenizer::Cl100kBase)),
            ("gpt-3.5-turbo-0125", Some(Tokenizer::Cl100kBase)),
            ("gpt-35-turbo-16k", Some(Tokenizer::Cl100kBase)),
            ("text-embedding-3-small", Some(Tokenizer::Cl100kBase)),
            ("ft:gpt-3.5-turbo:org:x", Some(Tokenizer::Cl100kBase)),
            ("ft:gpt-4:org:x", Some(Tokenizer::Cl100kBase)),
            ("ft:gpt-4o:org:x", Some(Tokenizer::O200kBase)),
            ("gpt-4o", Some(Tokenizer::O200kBase)),
            ("openai/gpt-4o-mini", Some(Tokenizer::O200kBase)),
            ("gpt-4.1-mini-2025-04-14", Some(Tokenizer::O200kBase)),
            ("gpt-5-nano", Some(Tokenizer::O200kBase)),
            ("o1", Some(Tokenizer::O200kBase)),
            ("o4-mini-2025-04-16", Some(Tokenizer::O200kBase)),
            ("gpt-oss-120b", Some(Tokenizer::O200kHarmony)),
            ("openai/gpt-oss-20b", Some(Tokenizer::O200kHarmony)),
            ("gpt-oss:20b", Some(Tokenizer::O200kHarmony)),
            ("o1x", None),
            ("claude-sonnet-4", None),
            ("meta-llama/Llama-3.3-70B", None),
            ("", None),
        ];
        for (model, tokenizer) in table {
            assert_eq!(Tokenizer::of_model(model), tokenizer, "{model}");
        }
    }

    #[test]
    fn a_hostile_text_takes_no_longer_than_any_other() {
        let million = 1 << 20;
        let texts = [
            "a".repeat(million),
            "-".repeat(million),
            " ".repeat(million),
            "\n ".repeat(million / 2),
            "Aa".repeat(million / 2),
            "\u{200d}".repeat(million / 3),
            "é".repeat(million / 2),
            "0123456789abcdef".repeat(million / 16),
            "A".repeat(million),
            "'S".repeat(million / 2),
        ];
        for text in texts {
            for tokenizer in [Tokenizer::Cl100kBase, Tokenizer::O200kBase] {
                tokenizer.count("warm");
                let started = std::time::Instant::now();
                assert!(tokenizer.count(&text) > 0);
                let took = started.elapsed();
                // A second here; quadratic in a mebibyte would be hours.
                assert!(took.as_secs() < 20, "{tokenizer:?} {:?}: {took:?}", text.get(..6));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn both_ways_of_merging_give_the_same(text in "[a-z ,.'-]{0,63}|\\PC{0,15}") {
            let ranks = &O200K.ranks;
            let bytes = text.as_bytes();
            if bytes.len() > 1 && bytes.len() < 64 {
                proptest::prop_assert_eq!(ranks.short(bytes), ranks.long(bytes));
            }
        }

        #[test]
        fn the_pieces_are_the_text(text: String) {
            let Some(split) = &O200K.split else { panic!("no expression") };
            let pieces: String = Pieces { split, text: &text, at: 0 }.collect();
            proptest::prop_assert_eq!(pieces, text);
        }
    }
}
