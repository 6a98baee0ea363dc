//! Reads the few fields that matter out of JSON text, without building a tree and without trusting any type.
//!
//! A field of an unexpected type is absent, never an error: a provider that sends a number where a string is
//! usual loses that one fact, not the event. Of a repeated key the last counts, as in most parsers.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The JSON text of `N` members of the object `text`, by name; `None` where `text` is not one whole object.
///
/// The slices lie in `text`, so that [`offset`] tells where.
pub fn pick<'a, const N: usize>(text: &'a str, names: &[&str; N]) -> Option<[Option<&'a str>; N]> {
    pick_counting(text, names).map(|(picked, _)| picked)
}

/// As [`pick`], and a bit for each name that stands more than once (of at most 64 names).
pub fn pick_counting<'a, const N: usize>(
    text: &'a str,
    names: &[&str; N],
) -> Option<([Option<&'a str>; N], u64)> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut repeated = 0;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let picked = deserializer.deserialize_map(Members { names, repeated: &mut repeated }).ok()?;
    deserializer.end().ok()?;
    Some((picked, repeated))
}

/// The members of the object `text`, in order, as they stand; `None` where it is not one whole object.
pub(crate) fn members(text: &str) -> Option<Vec<(String, &str)>> {
    struct All;
    impl<'de> Visitor<'de> for All {
        type Value = Vec<(String, &'de str)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                members.push((key, value.get()));
            }
            Ok(members)
        }
    }
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = deserializer.deserialize_map(All).ok()?;
    deserializer.end().ok()?;
    Some(members)
}

/// As [`pick`], of bytes.
pub fn pick_bytes<'a, const N: usize>(bytes: &'a [u8], names: &[&str; N]) -> Option<[Option<&'a str>; N]> {
    pick(std::str::from_utf8(bytes).ok()?, names)
}

struct Members<'n, const N: usize> {
    names: &'n [&'n str; N],
    repeated: &'n mut u64,
}

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de str>; N];
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(index) = map.next_key_seed(Key { names: self.names })? {
            match index {
                Some(index) => {
                    let value: &'de RawValue = map.next_value()?;
                    if let Some(place) = found.get_mut(index)
                        && place.replace(value.get()).is_some()
                    {
                        *self.repeated |= 1 << index.min(63);
                    }
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

struct Key<'n> {
    names: &'n [&'n str],
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.names.iter().position(|name| *name == key))
    }
}

/// Where `part`, a slice of `whole`, begins in it.
pub fn offset(whole: &str, part: &str) -> Option<usize> {
    let at = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (at.checked_add(part.len())? <= whole.len()).then_some(at)
}

/// Calls `each` with the JSON text of every element of the array `text`; false where it is not a whole array.
pub fn each<'a>(text: &'a str, each: &mut dyn FnMut(&'a str)) -> bool {
    struct Elements<'f, 'a>(&'f mut dyn FnMut(&'a str));
    impl<'a> Visitor<'a> for Elements<'_, 'a> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
            while let Some(value) = seq.next_element::<&'a RawValue>()? {
                (self.0)(value.get());
            }
            Ok(())
        }
    }
    if !text.trim_start().starts_with('[') {
        return false;
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_seq(Elements(each)).is_ok() && deserializer.end().is_ok()
}

/// How many elements the array `text` holds; `None` where it is not an array.
pub fn count(text: &str) -> Option<i64> {
    let mut n = 0_i64;
    each(text, &mut |_| n += 1).then_some(n)
}

/// The string that `text` is; `None` for any other type.
pub fn string(text: &str) -> Option<Cow<'_, str>> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = Cow<'de, str>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }
        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }
    }
    if !text.starts_with('"') {
        return None;
    }
    serde_json::Deserializer::from_str(text).deserialize_str(Text).ok()
}

/// The string that `text` is, owned; `None` for any other type and for the empty string.
pub fn name(text: Option<&str>) -> Option<String> {
    string(text?).filter(|s| !s.is_empty()).map(Cow::into_owned)
}

/// Puts the string that `text` is in `place`, where it is one and not empty. Nothing is allocated for a repeat: every
/// chunk of a stream names the same id and model.
pub fn keep(place: &mut Option<String>, text: Option<&str>) {
    let Some(text) = text else { return };
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    if inner.is_some() && inner == place.as_deref() && !text.contains('\\') {
        return;
    }
    if let Some(new) = name(Some(text)) {
        *place = Some(new);
    }
}

/// A string's content, or a number's digits as they stand.
pub fn scalar(text: Option<&str>) -> Option<String> {
    let text = text?;
    match text.as_bytes().first()? {
        b'"' => string(text).map(Cow::into_owned),
        b'-' | b'0'..=b'9' => Some(text.to_owned()),
        _ => None,
    }
}

/// A count: an integer of 0..=2^53, also one written as a float (`28.0`); `None` for anything else.
pub fn integer(text: Option<&str>) -> Option<i64> {
    const MAX: i64 = 1 << 53;
    let text = text?;
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Ok(n) = text.parse::<i64>() {
        return (n <= MAX).then_some(n);
    }
    let float: f64 = text.parse().ok()?;
    // Integral and in range, so nothing is cut.
    (float.fract() == 0.0 && float <= MAX as f64).then_some(float as i64)
}

/// `true` or `false`.
pub fn boolean(text: Option<&str>) -> Option<bool> {
    match text? {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// The member's text where it is there and not `null`.
pub fn present(text: Option<&str>) -> Option<&str> {
    text.filter(|t| *t != "null")
}

/// The `type` of the data of a server-sent event that are whole, though its blank line is still to come.
pub(crate) fn whole_type(data: &[u8]) -> Option<String> {
    let data = data.strip_suffix(b"\n")?;
    pick_bytes(data, &["type"]).and_then(|[kind]| name(kind))
}

/// Whether `bytes` are one JSON text.
///
/// # Errors
/// What is wrong and where, without any of the text.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    serde_json::from_slice::<IgnoredAny>(bytes).map(|_| ()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_repeated_key_counts() {
        let [a, b] = pick(r#" {"a":1,"x":[{"a":2}],"a": 3 } "#, &["a", "b"]).unwrap();
        assert_eq!((a, b), (Some("3"), None));
    }

    #[test]
    fn an_escaped_key_is_the_same_key() {
        assert_eq!(pick(r#"{"mod\u0065l":"m"}"#, &["model"]).unwrap(), [Some("\"m\"")]);
    }

    #[test]
    fn what_is_not_one_whole_object_gives_nothing() {
        for text in ["", "[]", "1", "{\"a\":1", "{\"a\":1}x", "{a:1}", "null"] {
            assert!(pick(text, &["a"]).is_none(), "{text}");
        }
    }

    #[test]
    fn counts_are_integers_or_absent() {
        let cases = [
            ("0", Some(0)),
            ("28.0", Some(28)),
            ("1e3", Some(1000)),
            ("9007199254740992", Some(1 << 53)),
            ("9007199254740993", None),
            ("1e400", None),
            ("-1", None),
            ("1.5", None),
            ("\"5\"", None),
            ("null", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(integer(Some(text)), wanted, "{text}");
        }
    }

    #[test]
    fn only_strings_are_kept_and_the_last_counts() {
        let mut place = None;
        for (text, wanted) in [
            (Some("null"), None),
            (Some("\"a\""), Some("a")),
            (Some("\"a\""), Some("a")),
            (Some("\"\""), Some("a")),
            (None, Some("a")),
            (Some(r#""\u0062""#), Some("b")),
            (Some(r#""b""#), Some("b")),
            (Some(r#""\\""#), Some("\\")),
            (Some("7"), Some("\\")),
        ] {
            keep(&mut place, text);
            assert_eq!(place.as_deref(), wanted, "{text:?}");
        }
    }

    #[test]
    fn offsets_lie_in_the_text() {
        let text = r#"{"a": [1]}"#;
        let [a] = pick(text, &["a"]).unwrap();
        assert_eq!(offset(text, a.unwrap()), Some(6));
        assert_eq!(offset(text, "elsewhere that is not in the text"), None);
    }

    #[test]
    fn elements_are_given_in_order() {
        let mut seen = Vec::new();
        assert!(each(r#"[1, {"a":[2]} ,"x"]"#, &mut |e| seen.push(e)));
        assert_eq!(seen, ["1", r#"{"a":[2]}"#, "\"x\""]);
        assert_eq!(count("[]"), Some(0));
        assert_eq!(count("{}"), None);
    }
}
