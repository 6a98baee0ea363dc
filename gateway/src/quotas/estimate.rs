//! How many tokens a request may take, before anybody has counted them: cheap, and rather too many.

use memchr::memmem;

/// Bytes of JSON that make a token: English prose has 4 and more, code and other scripts fewer.
const BYTES_A_TOKEN: usize = 3;

/// From here on a run of base64 is no text: an image, a file or audio.
const ATTACHMENT_BYTES: usize = 1024;

/// Tokens of an attachment, at least, and of one that is only named: what a large image takes.
const ATTACHMENT_TOKENS: u64 = 1600;

/// Bytes of base64 that make a token of an attachment that is larger than that.
const ATTACHMENT_BYTES_A_TOKEN: usize = 64;

/// Fields of a request whose value is data in base64.
const DATA_FIELDS: [&[u8]; 4] = [b"data", b"file_data", b"bytes", b"b64_json"];

/// Fields whose value can be an address with the data in it.
const ADDRESS_FIELDS: [&[u8]; 6] =
    [b"url", b"image_url", b"file_data", b"file_url", b"video_url", b"audio_url"];

/// Fields whose value can be the address of something that the provider fetches.
const FETCHED_FIELDS: [&[u8]; 9] = [
    b"url",
    b"image_url",
    b"file_url",
    b"video_url",
    b"audio_url",
    b"fileUri",
    b"file_uri",
    b"uri",
    b"file_data",
];

/// Fields whose value names something that the provider keeps.
const KEPT_FIELDS: [&[u8]; 1] = [b"file_id"];

/// How an address begins that something is fetched from.
const SCHEMES: [&[u8]; 4] = [b"https", b"http", b"gs", b"s3"];

/// By what requests ask for their input to be kept in a cache: Anthropic's word and its like, and Converse's.
const CACHE_FIELDS: [&[u8]; 2] = [b"cache_control", b"cachePoint"];

/// How far before the data the type of a `data:` address begins, at most.
const TYPE_BYTES: usize = 256;

/// How much larger a body may be than what came under a content coding that cannot be undone.
const CODED: u64 = 16;

/// Input tokens of a body without its content coding, by its bytes: a third of them, but for attachments.
pub(crate) fn input_tokens(body: &[u8]) -> u64 {
    let mut text = body.len();
    let mut tokens = 0;
    let is_base64 =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_');
    let mut at = 0;
    for run in body.split(|byte| !is_base64(byte)) {
        if run.len() >= ATTACHMENT_BYTES && is_attachment(body.get(..at).unwrap_or_default()) {
            text -= run.len();
            tokens += ATTACHMENT_TOKENS.max(count(run.len() / ATTACHMENT_BYTES_A_TOKEN));
        } else if names_attachment(body, at, run) {
            tokens += ATTACHMENT_TOKENS;
        }
        at += run.len() + 1;
    }
    tokens + count(text.div_ceil(BYTES_A_TOKEN))
}

/// Whether a run of base64 behind `before` is an attachment: all of the value of a field of data, or of an address of data.
/// Any other is text, however long.
fn is_attachment(before: &[u8]) -> bool {
    if let Some(head) = before.strip_suffix(b"\"") {
        return field(head).is_some_and(|name| DATA_FIELDS.contains(&name));
    }
    let Some(head) = before.strip_suffix(b";base64,") else { return false };
    let near = head.get(head.len().saturating_sub(TYPE_BYTES)..).unwrap_or_default();
    let Some(quote) = near.iter().rposition(|byte| *byte == b'"') else { return false };
    let is_address = near.get(quote + 1..).is_some_and(|text| text.starts_with(b"data:"));
    let head = head.get(..head.len() - near.len() + quote).unwrap_or_default();
    is_address && field(head).is_some_and(|name| ADDRESS_FIELDS.contains(&name))
}

/// Whether the text whose first run, at `at`, is `run` names an attachment that is not in the body.
fn names_attachment(body: &[u8], at: usize, run: &[u8]) -> bool {
    let Some(head) = body.get(..at).and_then(|before| before.strip_suffix(b"\"")) else { return false };
    let is_address =
        body.get(at + run.len()) == Some(&b':') && SCHEMES.iter().any(|it| run.eq_ignore_ascii_case(it));
    let fields = if is_address { &FETCHED_FIELDS[..] } else { &KEPT_FIELDS[..] };
    !run.is_empty() && field(head).is_some_and(|name| fields.contains(&name))
}

/// Whether a body asks for its input to be kept in a cache. The words may stand in a text as well.
pub(crate) fn writes_cache(body: &[u8]) -> bool {
    CACHE_FIELDS.iter().any(|name| memmem::find(body, name).is_some())
}

/// The name of the field whose text begins behind `before` and its quote. Within a text quotes are escaped, so none is found.
fn field(before: &[u8]) -> Option<&[u8]> {
    let before = before.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end().strip_suffix(b"\"")?;
    let quote = before.iter().rposition(|byte| *byte == b'"')?;
    before.get(quote + 1..)
}

/// The same where only the length is known.
pub(crate) fn input_tokens_of(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_A_TOKEN as u64)
}

/// The same of a body under a content coding that cannot be undone.
pub(crate) fn input_tokens_unread(bytes: u64) -> u64 {
    input_tokens_of(bytes.saturating_mul(CODED))
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_counts_by_its_bytes_and_an_image_does_not() {
        assert_eq!(input_tokens(b""), 0);
        assert_eq!(input_tokens(b"Hello, world"), 4);
        let prose = "The quick brown fox jumps over the lazy dog. ".repeat(1000);
        assert_eq!(input_tokens(prose.as_bytes()), 15_000);
        let image = format!("{{\"data\":\"{}\"}}", "iVBORw0KGgo/".repeat(10_000));
        let tokens = input_tokens(image.as_bytes());
        assert!((1600..2500).contains(&tokens), "{tokens}");
        assert_eq!(input_tokens_of(10), 4);
        assert_eq!(input_tokens_unread(30), 160);
        assert_eq!(input_tokens_of(u64::MAX), u64::MAX / 3);
    }
    #[test]
    fn what_is_only_named_counts_as_an_attachment() {
        let table = [
            (r#"{"type":"image_url","image_url":{"url":"https://a.test/b.png"}}"#, 1),
            (r#"{"type":"input_image","image_url" : "HTTP://a.test/b.png"}"#, 1),
            (r#"{"type":"image","source":{"type":"url","url":"https:\/\/a.test\/b.png"}}"#, 1),
            (r#"{"fileData":{"fileUri":"gs://bucket/a.mp4"}}"#, 1),
            (r#"{"s3Location":{"uri":"s3://bucket/a.pdf"}}"#, 1),
            (r#"[{"type":"input_file","file_id":"file-abc"},{"url":"https://a.test"}]"#, 2),
            (r#"{"text":"https://a.test/b.png"}"#, 0),
            (r#"{"text":"see {\"url\":\"https://a.test/b.png\"}"}"#, 0),
            (r#"{"url":"see https://a.test"}"#, 0),
            (r#"{"url":"https"}"#, 0),
            (r#"{"file_id":""}"#, 0),
        ];
        for (body, named) in table {
            let text = count(body.len().div_ceil(BYTES_A_TOKEN));
            assert_eq!(input_tokens(body.as_bytes()), text + named * ATTACHMENT_TOKENS, "{body}");
        }
    }
    #[test]
    fn the_words_that_ask_for_a_cache_are_found() {
        assert!(writes_cache(br#"{"cache_control":{"type":"ephemeral"}}"#));
        assert!(writes_cache(br#"{"cachePoint":{"type":"default"}}"#));
        assert!(!writes_cache(b"{}"));
    }
    #[test]
    fn a_long_run_is_an_attachment_only_where_data_stands() {
        let run = "QUJD".repeat(3000);
        let table = [
            (format!(r#"{{"type":"base64","data" : "{run}"}}"#), true),
            (format!(r#"{{"image_url":{{"url":"data:image/png;base64,{run}"}}}}"#), true),
            (format!(r#"{{"file_data":"data:application/pdf;base64,{run}"}}"#), true),
            (format!(r#"{{"content":"{run}"}}"#), false),
            (format!(r#"{{"text":"data:image/png;base64,{run}"}}"#), false),
            (format!(r#"{{"url":"see data:image/png;base64,{run}"}}"#), false),
            (format!(r#"{{"content":"{{\"data\":\"{run}\"}}"}}"#), false),
            (format!(r#"{{"data":"see {run}"}}"#), false),
            (run.clone(), false),
            (format!("\"{run}"), false),
            (format!(";base64,{run}"), false),
        ];
        for (body, is_small) in table {
            let tokens = input_tokens(body.as_bytes());
            assert_eq!(tokens < 2000, is_small, "{tokens} {}", &body[..60]);
            assert!(is_small || tokens >= 4000, "{tokens}");
        }
    }
}
