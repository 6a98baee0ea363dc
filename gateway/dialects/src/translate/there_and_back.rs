//! Random conversations, written by a half and read by the other half of the same dialect; and written for the dialects
//! that only providers speak.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::form::{
    Cache, Caller, Content, Conversation, Document, Effort, Json, Options, OutputFormat, Part, Provider,
    Reasoning, ReasoningMode, Role, Sampling, Source, Thinking, Tool, ToolChoice, ToolResult, ToolUse, Turn,
};
use super::{anthropic, bedrock, gemini, openai};

/// What differs between the dialects that are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    OpenAi,
    Anthropic,
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z ]{0,8}[a-z]",
        select(vec!["\"\\\n\t", "é💥\u{2028}", "{\"a\":1}", "\u{1}b"]).prop_map(str::to_owned)
    ]
}

fn schema() -> impl Strategy<Value = Json> {
    let schemas = [
        r#"{"type":"object","properties":{"z":{"type":"number","minimum":1.0}, "a":{"type":["string","integer"],"enum":["x", 2]}},"required":["a","z"],"additionalProperties":false}"#,
        r#"{"type":"object","properties":{},"additionalProperties":false}"#,
    ];
    select(schemas.to_vec()).prop_map(|text| Json::object(text).unwrap())
}

fn number() -> impl Strategy<Value = Json> {
    select(vec!["0.50", "1", "0", "1e-1"]).prop_map(|text| Json::new(text).unwrap())
}

fn cache(dialect: Dialect) -> BoxedStrategy<Option<Cache>> {
    if dialect == Dialect::OpenAi {
        return Just(None).boxed();
    }
    let ttl = select(vec![None, Some("5m"), Some("1h")]);
    option::weighted(0.2, ttl.prop_map(|ttl| Cache { ttl: ttl.map(str::to_owned) })).boxed()
}

fn base64(media_type: &str) -> Source {
    Source::Base64 { media_type: media_type.to_owned(), data: "aGVsbG8=".to_owned() }
}

fn media(dialect: Dialect) -> BoxedStrategy<Content> {
    let url = Source::Url { url: "https://h/a.png?b=c".to_owned(), media_type: None };
    let image = select(vec![base64("image/png"), base64("image/jpeg"), url]).prop_map(Content::Image);
    let pdf = text().prop_map(|title| {
        Content::Document(Document { source: base64("application/pdf"), title: Some(title), context: None })
    });
    let plain = (text(), option::of(text())).prop_map(|(text, context)| {
        Content::Document(Document { source: Source::Text(text), title: None, context })
    });
    match dialect {
        Dialect::OpenAi => prop_oneof![image, pdf, Just(Content::Audio(base64("audio/wav")))].boxed(),
        Dialect::Anthropic => prop_oneof![image, pdf, plain].boxed(),
    }
}

fn said(dialect: Dialect) -> impl Strategy<Value = Part> {
    let content = prop_oneof![3 => text().prop_map(Content::Text), 1 => media(dialect)];
    (content, cache(dialect)).prop_map(|(content, cache)| Part { content, cache, signature: None })
}

fn thought(dialect: Dialect) -> BoxedStrategy<Vec<Part>> {
    let signed =
        text().prop_map(|text| Thinking { text, signature: Some("c2ln".to_owned()), redacted: None });
    let redacted = Just(Thinking { redacted: Some("c2VjcmV0".to_owned()), ..Thinking::default() });
    match dialect {
        Dialect::OpenAi => Just(Vec::new()).boxed(),
        Dialect::Anthropic => {
            let thinking = prop_oneof![signed, redacted].prop_map(|t| Part::from(Content::Thinking(t)));
            vec(thinking, 0..2).boxed()
        }
    }
}

/// The name and the arguments of a call; its result, and whether the tool failed.
type Called = (String, &'static str, Vec<Part>, bool);

fn called(dialect: Dialect) -> BoxedStrategy<Called> {
    let arguments = select(vec![r#"{"z": 1.50, "a":[1e2]}"#, "{}", r#"{"é":"\u0041","é":null}"#]);
    let result = match dialect {
        Dialect::OpenAi => vec(text().prop_map(Part::text), 1..2).boxed(),
        Dialect::Anthropic => vec(said(dialect), 1..3).boxed(),
    };
    let failed = if dialect == Dialect::OpenAi { Just(false).boxed() } else { any::<bool>().boxed() };
    ("[a-z_]{1,9}", arguments, result, failed).boxed()
}

/// What the user says, what the model says to it, and which tools it calls.
type Exchange = (Vec<Part>, Vec<Part>, String, Vec<Called>);

fn exchanges(dialect: Dialect) -> impl Strategy<Value = Vec<Exchange>> {
    vec((vec(said(dialect), 1..3), thought(dialect), text(), vec(called(dialect), 0..3)), 0..4)
}

fn turns(exchanges: Vec<Exchange>, last: Vec<Part>) -> Vec<Turn> {
    let mut turns = Vec::new();
    let mut results: Vec<Part> = Vec::new();
    for (number, (user, mut thoughts, answer, calls)) in exchanges.into_iter().enumerate() {
        let parts = results.drain(..).chain(user).collect();
        turns.push(Turn { role: Role::User, parts });
        thoughts.push(Part::text(answer));
        for (at, (name, arguments, parts, is_error)) in calls.into_iter().enumerate() {
            let id = format!("call_{number}_{at}");
            let call = ToolUse { id: id.clone(), name, arguments: arguments.to_owned() };
            thoughts.push(Content::ToolUse(call).into());
            results.push(Content::ToolResult(ToolResult { id, parts, is_error }).into());
        }
        turns.push(Turn { role: Role::Assistant, parts: thoughts });
    }
    let parts = results.into_iter().chain(last).collect();
    turns.push(Turn { role: Role::User, parts });
    turns
}

fn tools(dialect: Dialect) -> impl Strategy<Value = (Vec<Tool>, Option<ToolChoice>, Option<bool>)> {
    let tool = ("[a-z]{1,9}", option::of(text()), schema(), any::<bool>(), cache(dialect)).prop_map(
        |(name, description, schema, strict, cache)| Tool {
            name,
            description,
            schema: Some(schema),
            strict: strict.then_some(true),
            cache,
        },
    );
    let choices = vec![
        None,
        Some(ToolChoice::Auto),
        Some(ToolChoice::None),
        Some(ToolChoice::Required),
        Some(ToolChoice::Tool("f".into())),
    ];
    (vec(tool, 1..3), select(choices), any::<bool>()).prop_map(move |(tools, choice, one)| {
        // Anthropic says it within the choice.
        let says = dialect == Dialect::OpenAi || !matches!(choice, None | Some(ToolChoice::None));
        (tools, choice, (one && says).then_some(false))
    })
}

fn sampling(dialect: Dialect) -> impl Strategy<Value = Sampling> {
    let draw = (option::of(number()), option::of(number()), 1_i64..9000, vec(text(), 0..4));
    (draw, option::of(number()), option::of(number())).prop_map(
        move |((temperature, top_p, most, stop), one, two)| {
            let own = |number: Option<Json>, whose| number.filter(|_| dialect == whose);
            Sampling {
                temperature,
                top_p,
                top_k: own(one.clone(), Dialect::Anthropic),
                max_output_tokens: Some(most),
                stop,
                seed: own(one.clone(), Dialect::OpenAi),
                presence_penalty: own(two, Dialect::OpenAi),
                frequency_penalty: own(one, Dialect::OpenAi),
            }
        },
    )
}

fn output(dialect: Dialect) -> impl Strategy<Value = Option<OutputFormat>> {
    let named = (text(), option::of(text()), schema(), any::<bool>()).prop_map(
        move |(name, description, schema, strict)| match dialect {
            Dialect::OpenAi => {
                OutputFormat::JsonSchema { name: Some(name), description, schema, strict: Some(strict) }
            }
            Dialect::Anthropic => {
                OutputFormat::JsonSchema { name: None, description: None, schema, strict: None }
            }
        },
    );
    option::of(named)
}

fn conversation(dialect: Dialect) -> impl Strategy<Value = Conversation> {
    let reasoning = match dialect {
        Dialect::OpenAi => Reasoning { effort: Some(Effort::Medium), ..Reasoning::default() },
        Dialect::Anthropic => Reasoning { mode: Some(ReasoningMode::Off), ..Reasoning::default() },
    };
    let instruction = (text(), cache(dialect)).prop_map(|(text, cache)| Part {
        content: Content::Text(text),
        cache,
        signature: None,
    });
    (
        vec(instruction, 0..3),
        (exchanges(dialect), vec(said(dialect), 1..3)).prop_map(|(all, last)| turns(all, last)),
        tools(dialect),
        sampling(dialect),
        output(dialect),
        (option::of(Just(reasoning)), option::of(text()), any::<bool>()),
    )
        .prop_map(|(system, turns, (tools, tool_choice, parallel_tools), sampling, output, rest)| {
            let (reasoning, user, stream) = rest;
            Conversation {
                model: "claude-opus-5".to_owned(),
                system,
                turns,
                tools,
                tool_choice,
                parallel_tools,
                sampling,
                output,
                reasoning,
                user,
                stream,
                stream_usage: stream,
                ..Conversation::default()
            }
        })
}

/// Turns of one role that follow each other are one.
fn joined(mut conversation: Conversation) -> Conversation {
    let mut turns: Vec<Turn> = Vec::new();
    for turn in conversation.turns {
        match turns.last_mut().filter(|last| last.role == turn.role) {
            Some(last) => last.parts.extend(turn.parts),
            None => turns.push(turn),
        }
    }
    conversation.turns = turns;
    conversation
}

fn there_and_back(half: &(impl Caller + Provider), conversation: Conversation) {
    let written = half.write_request(&conversation, Options::default()).unwrap();
    assert_eq!(written.dropped, []);
    let (read, dropped) = half.read_request(&written.path, &written.body).unwrap();
    assert_eq!(dropped, []);
    assert_eq!(joined(read), joined(conversation), "{}", String::from_utf8_lossy(&written.body));
}

/// Each text and each call's arguments stand in `body`, as they are.
fn all_said(conversation: &Conversation, body: &str) {
    let says = |text: &str| {
        assert!(text.trim().is_empty() || body.contains(text), "{text} is not in {body}");
    };
    let parts = conversation.system.iter().chain(conversation.turns.iter().flat_map(|turn| &turn.parts));
    for part in parts {
        match &part.content {
            Content::Text(text) if !text.trim().is_empty() => says(Json::string(text).text()),
            Content::ToolUse(call) => says(&call.arguments),
            Content::ToolResult(result) => {
                for part in &result.parts {
                    if let Content::Text(text) = &part.content
                        && !text.trim().is_empty()
                    {
                        // An object is the result itself.
                        let object = body.contains(text.as_str());
                        assert!(
                            object || body.contains(Json::string(text).text()),
                            "{text} is not in {body}"
                        );
                    }
                }
            }
            _ => {}
        }
    }
}

fn config() -> ProptestConfig {
    let cases = if std::env::var_os("AFFIDAVIT_LONG").is_some() { 5_000 } else { 200 };
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_conversation_comes_back_from_openais_dialect(conversation in conversation(Dialect::OpenAi)) {
        there_and_back(&openai::Chat { path: "/v1/chat/completions" }, conversation);
    }

    #[test]
    fn a_conversation_comes_back_from_anthropics_dialect(conversation in conversation(Dialect::Anthropic)) {
        there_and_back(&anthropic::Messages, conversation);
    }

    #[test]
    fn what_is_said_is_said_to_gemini_and_bedrock(
        conversation in prop_oneof![conversation(Dialect::OpenAi), conversation(Dialect::Anthropic)],
        model in select(vec!["gemini-2.5-pro", "gemini-3-flash", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "amazon.nova-2-lite-v1:0", "m"]),
    ) {
        let conversation = Conversation { model: model.to_owned(), ..conversation };
        let halves: [&dyn Provider; 3] =
            [&gemini::Gemini { vertex: false }, &gemini::Gemini { vertex: true }, &bedrock::Bedrock];
        for half in halves {
            let written = half.write_request(&conversation, Options { drop: true, ..Options::default() }).unwrap();
            let body = String::from_utf8(written.body).unwrap();
            prop_assert!(Json::object(&body).is_some());
            all_said(&conversation, &body);
        }
    }
}
