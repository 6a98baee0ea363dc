//! What exchanges look like: models, tokens and sizes of recorded ones.

use policies::price::PriceBook;
use schemas::Identifier;
use schemas::record::{Usage, UsageRole, UsageSource};

use crate::corpus;

/// The price book that the gateways had.
pub(super) const BOOK: &[u8] = include_bytes!("../../../policies/prices/2026-11.csv");

/// One kind of exchange.
#[derive(Debug, Clone)]
pub(super) struct Sort {
    pub(super) provider: &'static str,
    pub(super) dialect: &'static str,
    pub(super) operation: &'static str,
    pub(super) requested: Identifier,
    pub(super) served: Identifier,
    pub(super) stream: bool,
    pub(super) status: i64,
    pub(super) finish: Option<Identifier>,
    pub(super) request: u64,
    pub(super) response: u64,
    pub(super) usage: Usage,
}

/// All kinds of the corpus, and the price book.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) sorts: Vec<Sort>,
    pub(super) book: PriceBook,
}

impl Traffic {
    pub(super) fn read() -> Self {
        let sorts: Vec<Sort> = corpus::lines().iter().filter_map(sort).collect();
        assert!(!sorts.is_empty(), "no recorded exchange with a model and tokens");
        Self { sorts, book: PriceBook::parse(BOOK).expect("the price book") }
    }

    /// Every model that serves.
    pub(super) fn models(&self) -> std::collections::BTreeSet<&str> {
        self.sorts.iter().map(|sort| sort.served.as_str()).collect()
    }
}

/// A recorded exchange that has a model and tokens; others are left out.
fn sort(line: &corpus::Line) -> Option<Sort> {
    let text = |name: &str| Identifier::new(line.expected.get(name)?.as_str()?).ok();
    let number = |name: &str| line.expected.get(name)?.as_i64();
    let operation = match line.dialect.as_str() {
        "openai-chat" => "chat.completions",
        "openai-responses" => "responses.create",
        "anthropic-messages" => "messages.create",
        _ => return None,
    };
    let dialect = line.gateway_dialect()?;
    let served = text("model")?;
    let (input, output) = (number("input_tokens")?, number("output_tokens").unwrap_or(0));
    Some(Sort {
        provider: match dialect {
            "anthropic" => "anthropic",
            "azure_openai" => "azure",
            _ => "openai",
        },
        dialect,
        operation,
        requested: text("request_model").unwrap_or_else(|| served.clone()),
        served,
        stream: line.streaming,
        status: i64::from(line.status),
        finish: text("finish_reason"),
        request: line.request().len() as u64,
        response: line.response().len() as u64,
        usage: Usage {
            input_tokens: Some(input),
            cache_read_tokens: number("cached_input_tokens").filter(|cached| *cached <= input),
            output_tokens: Some(output),
            reasoning_tokens: number("reasoning_tokens").filter(|part| *part <= output),
            ..Usage::of(UsageSource::Provider, UsageRole::Incurred)
        },
    })
}
