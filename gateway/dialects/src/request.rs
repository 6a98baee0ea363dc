//! A request's head and body -> the facts that policies and records need.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use schemas::Identifier;
use schemas::record::{Asked, MAX_LIST};

use crate::identifier;
use crate::json::{self, boolean, count, integer, name, pick, present, scalar};
use crate::multipart;
use crate::operation::Operation;

/// What a request asks. Texts stand as received; [`RequestFacts::fill`] makes them fit for a leaf (CA-8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// The model: of Azure's path, else of the body.
    pub requested_model: Option<String>,
    /// Whether a stream is asked for, in the body or the query.
    pub stream: Option<bool>,
    /// The largest output allowed; the largest where several fields name one.
    pub max_output_tokens: Option<i64>,
    /// How many answers are asked for.
    pub choices: Option<i64>,
    /// How many tools are offered.
    pub tools_offered: Option<i64>,
    /// The service tier asked for.
    pub service_tier: Option<String>,
    /// The temperature, digits as received.
    pub temperature: Option<String>,
    /// True where the provider is to store the answer or to work in the background.
    pub background: Option<bool>,
    /// The stored object that the request reads, resumes, cancels or continues.
    pub refers_to: Option<String>,
    /// The conversation that the request belongs to.
    pub conversation: Option<String>,
    /// The end user as the caller names them: never for a leaf as it stands.
    pub subject: Option<String>,
    /// Whether the request asks for usage in its stream.
    pub asks_usage: bool,
    /// Whether the body was read as JSON.
    pub json: bool,
    /// Why the body could not be read, or could be read in two ways. Holds no text of the body.
    pub malformed: Option<String>,
    /// Headers and fields by which the caller tried to switch recording off or to choose an id (CA-4), the first 32.
    pub suppression: Vec<String>,
}

impl RequestFacts {
    /// Puts the facts into the record's words.
    pub fn fill(&self, asked: &mut Asked, pseudonym: &dyn Fn(&str) -> String) {
        let identifier = |text: &Option<String>| text.as_deref().map(|text| identifier(text, pseudonym));
        asked.requested_model = identifier(&self.requested_model);
        asked.stream = self.stream;
        asked.max_output_tokens = self.max_output_tokens;
        asked.choices = self.choices;
        asked.tools_offered = self.tools_offered;
        asked.service_tier = identifier(&self.service_tier);
        asked.temperature = identifier(&self.temperature);
        asked.background = self.background;
        asked.refers_to = identifier(&self.refers_to);
    }

    /// The members of an object, by name. One that is repeated is told: two readers may take two bounds from it.
    pub(crate) fn pick_once<'t, const N: usize>(
        &mut self,
        text: &'t str,
        names: &[&str; N],
    ) -> Option<[Option<&'t str>; N]> {
        let (values, repeated) = json::pick_counting(text, names)?;
        if let Some((_, name)) = names.iter().enumerate().find(|(at, _)| repeated & (1 << at) != 0) {
            self.is_repeated(name);
        }
        Some(values)
    }

    fn is_repeated(&mut self, key: &str) {
        self.malformed = Some(format!("the key `{key}` is repeated: which one counts is not defined"));
    }

    /// The suppression attempts in the record's words.
    pub fn suppression(&self) -> Vec<Identifier> {
        self.suppression.iter().filter_map(|name| Identifier::new(name.as_str()).ok()).collect()
    }
}

/// Headers by which callers of known gateways hide an exchange or choose its record.
const SUPPRESSING_HEADERS: &[&str] = &[
    "cf-aig-collect-log",
    "cf-aig-collect-log-payload",
    "cf-aig-skip-log",
    "cf-aig-event-id",
    "helicone-omit-request",
    "helicone-omit-response",
    "helicone-request-id",
    "x-litellm-call-id",
    "x-litellm-disable-logging",
    "x-litellm-enable-message-redaction",
    "x-portkey-debug",
    "x-portkey-trace-id",
    "x-no-log",
];

/// Body fields likewise.
const SUPPRESSING_FIELDS: [&str; 5] = ["no-log", "no_log", "litellm_call_id", "litellm_trace_id", "dryrun"];

/// Reads a request. `body` is decoded. Never fails: what cannot be read is absent, and `malformed` says why.
pub fn request_facts(
    operation: &Operation,
    headers: &HeaderMap,
    path: &str,
    query: Option<&str>,
    body: &[u8],
) -> RequestFacts {
    let mut facts = RequestFacts::default();
    for header in headers.keys() {
        let header = header.as_str();
        if header.starts_with("x-affidavit-") || SUPPRESSING_HEADERS.contains(&header) {
            suppressing(&mut facts, header);
        }
    }
    facts.refers_to = path_id(operation, path);
    facts.stream = query.and_then(|query| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix("stream="))
            .map(|value| matches!(value, "true" | "1"))
    });
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if let Some(boundary) = multipart::boundary(content_type) {
        form(&mut facts, &boundary, body);
    } else if looks_like_json(content_type, body) {
        body_facts(&mut facts, body);
    }
    let json = std::str::from_utf8(body).ok().filter(|_| facts.json);
    operation.dialect().wire().request(&mut facts, operation, json);
    facts.requested_model = operation.path_model(path).or(facts.requested_model);
    facts
}

fn suppressing(facts: &mut RequestFacts, what: &str) {
    if facts.suppression.len() < MAX_LIST {
        facts.suppression.push(what.chars().take(128).collect());
    }
}

fn looks_like_json(content_type: &str, body: &[u8]) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" && !body.is_empty()
        || kind.ends_with("+json") && !body.is_empty()
        || body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
}

/// The id of the stored object in a path: `responses/{id}/...`, `chat/completions/{id}/...`, `batches/{id}`, ...
fn path_id(operation: &Operation, path: &str) -> Option<String> {
    let words: &[&str] = match operation.name() {
        "responses.retrieve" | "responses.delete" | "responses.cancel" | "responses.input_items" => {
            &["responses"]
        }
        "chat.completions.retrieve"
        | "chat.completions.update"
        | "chat.completions.delete"
        | "chat.completions.messages" => &["completions"],
        "batches.retrieve"
        | "batches.cancel"
        | "messages.batches.retrieve"
        | "messages.batches.cancel"
        | "messages.batches.delete"
        | "messages.batches.results" => &["batches"],
        _ => return None,
    };
    let mut segments = path.split('/');
    segments.find(|segment| words.contains(segment))?;
    segments.next().filter(|id| !id.is_empty()).map(percent_decoded)
}

/// What `text` says once its `%XX` are the bytes that they stand for. One that stands for none stays as it is.
pub fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((&first, rest)) = bytes.split_first() {
        let hex =
            |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        if first == b'%'
            && let (Some(high), Some(low)) = (hex(rest.first()), hex(rest.get(1)))
        {
            out.push(high << 4 | low);
            bytes = rest.get(2..).unwrap_or_default();
        } else {
            out.push(first);
            bytes = rest;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

const FIELDS: [&str; 25] = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens_to_sample",
    "n",
    "tools",
    "functions",
    "service_tier",
    "temperature",
    "background",
    "store",
    "previous_response_id",
    "conversation",
    "user",
    "safety_identifier",
    "metadata",
    "speed",
    SUPPRESSING_FIELDS[0],
    SUPPRESSING_FIELDS[1],
    SUPPRESSING_FIELDS[2],
    SUPPRESSING_FIELDS[3],
    SUPPRESSING_FIELDS[4],
];

fn body_facts(facts: &mut RequestFacts, body: &[u8]) {
    let Ok(text) = std::str::from_utf8(body) else {
        facts.malformed = Some("the body is not UTF-8".into());
        return;
    };
    let Some(values) = facts.pick_once(text, &FIELDS) else {
        match json::check(body) {
            Ok(()) => facts.json = true,
            Err(error) => facts.malformed = Some(format!("the body is not JSON: {error}")),
        }
        return;
    };
    facts.json = true;
    let [
        model,
        stream,
        stream_options,
        max_tokens,
        max_completion,
        max_output,
        max_sample,
        n,
        tools,
        functions,
        tier,
        temperature,
        background,
        store,
        previous,
        conversation,
        user,
        safety,
        metadata,
        _speed,
        suppressing_values @ ..,
    ] = values;
    facts.requested_model = name(model);
    facts.stream = boolean(stream).or(facts.stream);
    facts.asks_usage = present(stream_options)
        .and_then(|o| pick(o, &["include_usage"]))
        .is_some_and(|[asked]| boolean(asked) == Some(true));
    facts.max_output_tokens =
        [max_tokens, max_completion, max_output, max_sample].into_iter().filter_map(integer).max();
    facts.choices = integer(n);
    let offered: Vec<i64> = [tools, functions].into_iter().flatten().filter_map(count).collect();
    facts.tools_offered = (!offered.is_empty()).then(|| offered.iter().sum());
    facts.service_tier = name(tier);
    facts.temperature =
        temperature.filter(|t| t.starts_with(|c: char| c == '-' || c.is_ascii_digit())).map(str::to_owned);
    facts.background = match (boolean(background), boolean(store)) {
        (None, None) => None,
        (background, store) => Some(background == Some(true) || store == Some(true)),
    };
    if let Some(previous) = name(previous) {
        facts.refers_to = Some(previous);
    }
    facts.conversation = name(conversation)
        .or_else(|| present(conversation).and_then(|c| pick(c, &["id"])).and_then(|[id]| name(id)));
    let in_metadata = || present(metadata).and_then(|m| pick(m, &["user_id"])).and_then(|[id]| scalar(id));
    facts.subject = name(safety).or_else(|| name(user)).or_else(in_metadata).filter(|s| !s.is_empty());
    for (field, value) in SUPPRESSING_FIELDS.iter().zip(suppressing_values) {
        if present(value).is_some() {
            suppressing(facts, field);
        }
    }
}

fn form(facts: &mut RequestFacts, boundary: &str, body: &[u8]) {
    let (parts, whole) = multipart::parts(boundary, body);
    if !whole {
        facts.malformed = Some("the multipart body breaks off".into());
    }
    for part in parts.iter().filter(|part| !part.is_file && part.content.len() <= 4096) {
        let Ok(value) = std::str::from_utf8(part.content) else { continue };
        let text = || Some(value.to_owned()).filter(|v| !v.is_empty());
        match part.name {
            "model" => {
                if facts.requested_model.is_some() {
                    facts.malformed =
                        Some("the field `model` is repeated: which one counts is not defined".into());
                }
                facts.requested_model = text();
            }
            "stream" => facts.stream = Some(value.eq_ignore_ascii_case("true") || value == "1"),
            "n" => facts.choices = integer(Some(value)),
            "user" => facts.subject = text(),
            "temperature" => facts.temperature = text().filter(|t| t.parse::<f64>().is_ok()),
            field if SUPPRESSING_FIELDS.contains(&field) => suppressing(facts, field),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Dialect, operation};
    use http::Method;

    fn read(
        dialect: Dialect,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> RequestFacts {
        let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        request_facts(&operation(dialect, &method, path), &map, path, query, body.as_bytes())
    }

    const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

    #[test]
    fn a_chat_request_is_read() {
        let facts = read(
            Dialect::OpenAi,
            Method::POST,
            "/v1/chat/completions",
            JSON,
            r#"{"model":"gpt-5","stream":true,"stream_options":{"include_usage":true},"max_tokens":5,"max_completion_tokens":9,
               "n":2,"tools":[{},{}],"temperature":0.70,"user":"ann","store":true,"service_tier":"flex","no-log":true,
               "messages":[{"role":"user","content":"{\"model\":\"other\"}"}]}"#,
        );
        let wanted = RequestFacts {
            requested_model: Some("gpt-5".into()),
            stream: Some(true),
            max_output_tokens: Some(9),
            choices: Some(2),
            tools_offered: Some(2),
            service_tier: Some("flex".into()),
            temperature: Some("0.70".into()),
            background: Some(true),
            subject: Some("ann".into()),
            asks_usage: true,
            json: true,
            suppression: vec!["no-log".into()],
            ..RequestFacts::default()
        };
        assert_eq!(facts, wanted);
    }

    #[test]
    fn azures_deployment_is_the_model_whatever_the_body_says() {
        let facts = read(
            Dialect::AzureOpenAi,
            Method::POST,
            "/openai/deployments/my%20gpt/chat/completions?api-version=1",
            JSON,
            r#"{"model":"cheap"}"#,
        );
        assert_eq!(facts.requested_model.as_deref(), Some("my gpt"));
    }

    #[test]
    fn stored_responses_are_named_by_path_or_body() {
        let read_stream =
            read(Dialect::OpenAi, Method::GET, "/v1/responses/resp_1?stream=true&starting_after=4", &[], "");
        assert_eq!((read_stream.refers_to.as_deref(), read_stream.stream), (Some("resp_1"), Some(true)));
        let next = read(
            Dialect::OpenAi,
            Method::POST,
            "/v1/responses",
            JSON,
            r#"{"previous_response_id":"resp_2","background":true}"#,
        );
        assert_eq!((next.refers_to.as_deref(), next.background), (Some("resp_2"), Some(true)));
    }

    #[test]
    fn what_the_further_dialects_ask_is_read() {
        let cases = [
            (
                Dialect::Gemini,
                "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
                r#"{"model":"models/other","contents":[],"tools":[{"functionDeclarations":[{},{}]},{"googleSearch":{}}],
                    "generationConfig":{"maxOutputTokens":9,"temperature":0.5,"candidateCount":2}}"#,
                (Some("gemini-2.5-pro"), Some(true), Some(9), Some(3), Some("0.5")),
            ),
            (
                Dialect::Vertex,
                "/v1/projects/p/locations/l/publishers/anthropic/models/claude%401:streamRawPredict",
                r#"{"anthropic_version":"vertex-2023-10-16","max_tokens":7,"stream":true,"tools":[{}]}"#,
                (Some("claude@1"), Some(true), Some(7), Some(1), None),
            ),
            (
                Dialect::Gemini,
                "/v1beta/tunedModels/mine:generateContent",
                r#"{"generation_config":{"max_output_tokens":4}}"#,
                (Some("tunedModels/mine"), Some(false), Some(4), None, None),
            ),
            (
                Dialect::Gemini,
                "/v1beta/interactions",
                r#"{"agent":"deep-research","input":"a","stream":true,"generation_config":{"temperature":1}}"#,
                (Some("deep-research"), Some(true), None, None, Some("1")),
            ),
            (
                Dialect::Cohere,
                "/v2/chat",
                r#"{"model":"command-r","max_tokens":3,"temperature":0.1,"stream":false}"#,
                (Some("command-r"), Some(false), Some(3), None, Some("0.1")),
            ),
            (
                Dialect::Ollama,
                "/api/chat",
                r#"{"model":"llama3","options":{"num_predict":6,"temperature":0}}"#,
                (Some("llama3"), Some(true), Some(6), None, Some("0")),
            ),
            (
                Dialect::Watsonx,
                "/ml/v1/text/generation?version=1",
                r#"{"model_id":"ibm/granite","parameters":{"max_new_tokens":8}}"#,
                (Some("ibm/granite"), None, Some(8), None, None),
            ),
        ];
        for (dialect, path, body, wanted) in cases {
            let facts = read(dialect, Method::POST, path, JSON, body);
            let got = (
                facts.requested_model.as_deref(),
                facts.stream,
                facts.max_output_tokens,
                facts.tools_offered,
                facts.temperature.as_deref(),
            );
            assert_eq!(got, wanted, "{path}");
            assert_eq!(facts.malformed, None, "{path}");
        }
    }

    #[test]
    fn only_what_its_dialect_reads_bounds_the_output_of_a_request() {
        let (gemini, predict) = ("/v1beta/models/g:generateContent", "/v1beta/models/m:predict");
        let (generation, converse) = ("/ml/v1/text/generation", "/model/m/converse");
        let cases = [
            (Dialect::Ollama, "/api/chat", r#"{"max_tokens":1}"#, None),
            (Dialect::Ollama, "/api/generate", r#"{"max_tokens":1,"options":{"num_predict":-1}}"#, None),
            (Dialect::Ollama, "/v1/chat/completions", r#"{"max_tokens":1}"#, Some(1)),
            (Dialect::Watsonx, generation, r#"{"max_tokens":1}"#, None),
            (Dialect::Watsonx, generation, r#"{"max_tokens":1,"parameters":{"max_new_tokens":9}}"#, Some(9)),
            (Dialect::Bedrock, converse, r#"{"max_tokens":1,"maxTokens":1}"#, None),
            (Dialect::Bedrock, converse, r#"{"max_tokens":1,"inferenceConfig":{"maxTokens":9}}"#, Some(9)),
            (Dialect::Bedrock, "/model/m/invoke", r#"{"max_tokens":9}"#, Some(9)),
            (Dialect::Gemini, gemini, r#"{"max_tokens":1}"#, None),
            (Dialect::Gemini, predict, r#"{"max_tokens":1,"parameters":{"maxOutputTokens":9}}"#, Some(9)),
        ];
        for (dialect, path, body, wanted) in cases {
            let facts = read(dialect, Method::POST, path, JSON, body);
            assert_eq!((facts.max_output_tokens, facts.malformed), (wanted, None), "{path} {body}");
        }
        let mistral = Some(crate::operation::Maker::Mistral);
        let run = crate::operation_at(Dialect::OpenAi, mistral, &Method::POST, "/v1/conversations");
        let body = br#"{"inputs":"a","max_tokens":1,"completion_args":{"max_tokens":9,"temperature":0.3}}"#;
        let facts = request_facts(&run, &HeaderMap::new(), "/v1/conversations", None, body);
        assert_eq!((facts.max_output_tokens, facts.temperature.as_deref()), (Some(9), Some("0.3")));
    }

    #[test]
    fn a_bound_that_stands_twice_is_named() {
        let cases = [
            (Dialect::Ollama, "/api/chat", r#"{"options":{"num_predict":1,"num_predict":9}}"#, "num_predict"),
            (Dialect::Ollama, "/api/chat", r#"{"options":{"num_predict":1},"options":{}}"#, "options"),
            (
                Dialect::Watsonx,
                "/ml/v1/text/generation",
                r#"{"parameters":{},"parameters":{}}"#,
                "parameters",
            ),
            (
                Dialect::Bedrock,
                "/model/m/converse",
                r#"{"inferenceConfig":{"maxTokens":1,"maxTokens":9}}"#,
                "maxTokens",
            ),
            (
                Dialect::Gemini,
                "/v1beta/models/g:generateContent",
                r#"{"generationConfig":{"maxOutputTokens":1},"generation_config":{"maxOutputTokens":9}}"#,
                "generationConfig",
            ),
        ];
        for (dialect, path, body, key) in cases {
            let malformed = read(dialect, Method::POST, path, JSON, body).malformed;
            assert!(malformed.as_ref().is_some_and(|why| why.contains(key)), "{body}: {malformed:?}");
        }
    }

    #[test]
    fn anthropics_end_user_is_in_the_metadata() {
        let facts = read(
            Dialect::Anthropic,
            Method::POST,
            "/v1/messages",
            JSON,
            r#"{"model":"claude","max_tokens":10,"metadata":{"user_id":"u 1"},"tools":[]}"#,
        );
        assert_eq!(
            (facts.subject.as_deref(), facts.max_output_tokens, facts.tools_offered),
            (Some("u 1"), Some(10), Some(0))
        );
    }

    #[test]
    fn a_form_is_read() {
        let body = "--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--B\r\n\
            Content-Disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n--B--\r\n";
        let facts = read(
            Dialect::OpenAi,
            Method::POST,
            "/v1/audio/transcriptions",
            &[("content-type", "multipart/form-data; boundary=B")],
            body,
        );
        assert_eq!(
            (facts.requested_model.as_deref(), facts.stream, facts.malformed),
            (Some("whisper-1"), Some(true), None)
        );
    }

    #[test]
    fn what_cannot_be_read_or_has_two_meanings_is_named_without_its_text() {
        let cases = [
            (r#"{"model":"a","model":"b"}"#, "the key `model` is repeated"),
            (r#"{"model":"secret"#, "the body is not JSON"),
            ("\"secret\" x", "the body is not JSON"),
        ];
        for (body, wanted) in cases {
            let malformed =
                read(Dialect::OpenAi, Method::POST, "/v1/responses", JSON, body).malformed.unwrap();
            assert!(malformed.starts_with(wanted), "{malformed}");
            assert!(!malformed.contains("secret"), "{malformed}");
        }
        assert_eq!(read(Dialect::OpenAi, Method::POST, "/v1/responses", JSON, "[1]").malformed, None);
    }

    #[test]
    fn attempts_to_hide_are_named() {
        let facts = read(
            Dialect::OpenAi,
            Method::POST,
            "/v1/responses",
            &[("x-affidavit-exchange", "1"), ("cf-aig-skip-log", "true"), ("x-other", "1")],
            "{}",
        );
        let mut names = facts.suppression.clone();
        names.sort();
        assert_eq!(names, ["cf-aig-skip-log", "x-affidavit-exchange"]);
        assert_eq!(facts.suppression().len(), 2);
    }
}
