use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};

use super::{CanonicalError, MAX_DEPTH, parse, to_vec};

fn text<T: Serialize>(value: &T) -> String {
    String::from_utf8(to_vec(value).unwrap()).unwrap()
}

#[derive(Serialize)]
struct Outer {
    zebra: u32,
    #[serde(flatten)]
    inner: Tagged,
    apple: &'static str,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Tagged {
    Sub(Sub),
}

#[derive(Serialize)]
struct Sub {
    xylophone: bool,
    banana: Vec<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<u8>,
    nested: BTreeMap<String, Plain>,
}

#[derive(Serialize)]
enum Plain {
    Unit,
    New(i32),
    Tuple(i32, i32),
    Struct { b: u8, a: u8 },
}

#[test]
fn flattened_tagged_structs_come_out_sorted() {
    let nested = BTreeMap::from([
        ("t".to_owned(), Plain::Tuple(2, 1)),
        ("s".to_owned(), Plain::Struct { b: 1, a: 2 }),
        ("n".to_owned(), Plain::New(-7)),
        ("u".to_owned(), Plain::Unit),
    ]);
    let sub = Sub { xylophone: true, banana: vec![3, 0, -1], missing: None, nested };
    let value = Outer { zebra: 9, inner: Tagged::Sub(sub), apple: "a\"\\\u{8}\u{1}\n\u{7f}é" };
    let wanted = "{\"apple\":\"a\\\"\\\\\\b\\u0001\\n\u{7f}é\",\"banana\":[3,0,-1],\"kind\":\"sub\",\
                  \"nested\":{\"n\":{\"New\":-7},\"s\":{\"Struct\":{\"a\":2,\"b\":1}},\"t\":{\"Tuple\":[2,1]},\"u\":\"Unit\"},\
                  \"xylophone\":true,\"zebra\":9}";
    assert_eq!(text(&value), wanted);
    assert_eq!(to_vec(&parse(wanted.as_bytes()).unwrap()).unwrap(), wanted.as_bytes());
}

#[test]
fn keys_sort_by_utf16_code_units() {
    // RFC 8785 3.2.3: U+1F600 (surrogates D83D DE00) sorts before U+FB33, though its UTF-8 bytes are larger.
    let value =
        json!({"\u{fb33}": 1, "\u{1f600}": 2, "\u{80}": 3, "1": 4, "\r": 5, "\u{20ac}": 6, "\u{f6}": 7});
    assert_eq!(text(&value), "{\"\\r\":5,\"1\":4,\"\u{80}\":3,\"ö\":7,\"€\":6,\"😀\":2,\"\u{fb33}\":1}");
    assert_eq!(parse(text(&value).as_bytes()).unwrap(), value);
}

#[test]
fn values_without_a_form_are_refused() {
    assert_eq!(to_vec(&json!({"a": 0.5})), Err(CanonicalError::Float));
    assert_eq!(to_vec(&1.0_f32), Err(CanonicalError::Float));
    assert_eq!(to_vec(&json!({"a": null})), Err(CanonicalError::Null));
    assert_eq!(to_vec(&None::<u8>), Err(CanonicalError::Null));
    assert_eq!(to_vec(&((1_u64 << 53) + 1)), Err(CanonicalError::BigInteger));
    assert_eq!(to_vec(&(-(1_i64 << 53) - 1)), Err(CanonicalError::BigInteger));
    assert_eq!(text(&(-(1_i64 << 53))), "-9007199254740992");
    assert!(matches!(to_vec(&BTreeMap::from([(1, 2)])), Err(CanonicalError::Type(_))));
    #[derive(Serialize)]
    struct Twice {
        a: u8,
        #[serde(flatten)]
        more: BTreeMap<&'static str, u8>,
    }
    let twice = Twice { a: 1, more: BTreeMap::from([("a", 2)]) };
    assert_eq!(to_vec(&twice), Err(CanonicalError::DuplicateKey { key: "a".into() }));
}

#[test]
fn only_canonical_text_is_read() {
    let not = |offset, what| CanonicalError::NotCanonical { offset, what };
    let key = |k: &str| k.to_owned();
    let cases: &[(&[u8], CanonicalError)] = &[
        (br#"{"a":1,"a":2}"#, CanonicalError::DuplicateKey { key: key("a") }),
        (br#"{"b":1,"a":2}"#, CanonicalError::KeyOrder { key: key("a") }),
        (br#"{"a":1.0}"#, CanonicalError::Float),
        (br#"{"a":1e3}"#, CanonicalError::Float),
        (br#"{"a":null}"#, CanonicalError::Null),
        (br#"{"a":9007199254740993}"#, CanonicalError::BigInteger),
        (br#"{"a":99999999999999999999999999}"#, CanonicalError::BigInteger),
        (br#"{"a": 1}"#, not(5, "white space")),
        (b"{}\n", not(2, "white space")),
        (br#"{"a":01}"#, not(5, "a leading zero, or minus zero,")),
        (br#"{"a":-0}"#, not(5, "a leading zero, or minus zero,")),
        (br#""\/""#, not(1, "this escape")),
        (br#""\u0041""#, not(1, "this escape")),
        (br#""\u000a""#, not(1, "this escape")),
        (br#""\u001F""#, not(1, "this escape")),
        (br#""\ud800""#, not(1, "this escape")),
        (b"\"\x01\"", not(1, "an unescaped control character")),
        (b"\"\xff\"", CanonicalError::NotUtf8 { offset: 1 }),
        (b"", CanonicalError::Syntax { offset: 0, wanted: "a value" }),
        (b"{}{}", CanonicalError::Syntax { offset: 2, wanted: "the end" }),
        (br#"{"a":1,}"#, CanonicalError::Syntax { offset: 7, wanted: "a key" }),
        (b"\xef\xbb\xbf{}", CanonicalError::Syntax { offset: 0, wanted: "a value" }),
        (b"[1,", CanonicalError::Syntax { offset: 3, wanted: "a value" }),
        (b"\"abc", CanonicalError::Syntax { offset: 4, wanted: "a closing quote" }),
    ];
    for (input, wanted) in cases {
        assert_eq!(parse(input).as_ref(), Err(wanted), "{}", String::from_utf8_lossy(input));
    }
    assert_eq!(parse(br#""\u001f""#).unwrap(), json!("\u{1f}"));
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let limit = MAX_DEPTH as usize;
    assert!(parse(nested(limit).as_bytes()).is_ok());
    assert_eq!(parse(nested(limit + 1).as_bytes()), Err(CanonicalError::TooDeep));
    let mut value = json!(1);
    for _ in 0..limit {
        value = json!([value]);
    }
    assert!(to_vec(&value).is_ok());
    assert_eq!(to_vec(&json!([value])), Err(CanonicalError::TooDeep));
    let long = format!("\"{}\"", "a".repeat(65_534));
    assert_eq!(parse(long.as_bytes()), Err(CanonicalError::TooLong { length: 65_536, limit: 65_535 }));
    assert!(parse(&long.as_bytes()[1..]).is_err());
    assert!(parse(format!("\"{}\"", "a".repeat(65_533)).as_bytes()).is_ok());
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53)..=(1_i64 << 53)).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn writing_then_reading_gives_the_value_back(value in any_value()) {
        let bytes = to_vec(&value).unwrap();
        prop_assert_eq!(&parse(&bytes).unwrap(), &value);
        // And it is JSON of the same meaning to a parser that we did not write.
        prop_assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), value);
    }

    #[test]
    fn what_is_read_is_written_the_same(value in any_value(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = to_vec(&value).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = parse(&bytes) {
            prop_assert_eq!(to_vec(&read).unwrap(), bytes);
        }
    }

    #[test]
    fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(read) = parse(&bytes) {
            prop_assert_eq!(to_vec(&read).unwrap(), bytes);
        }
    }
}
