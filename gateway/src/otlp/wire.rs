//! Protocol Buffers, as far as OTLP needs them: a message is written field by field.
//!
//! Encoding: <https://protobuf.dev/programming-guides/encoding/>. The messages and their field numbers are those of
//! opentelemetry-proto 1.x (`trace/v1/trace.proto`, `metrics/v1/metrics.proto`, `common/v1/common.proto`).

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// A message that is being written.
#[derive(Debug, Clone, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn tag(&mut self, field: u64, kind: u64) {
        self.varint((field << 3) | kind);
    }

    /// A field of an integer or an enumeration.
    pub(super) fn int(&mut self, field: u64, value: i64) -> &mut Self {
        self.tag(field, VARINT);
        self.varint(u64::from_ne_bytes(value.to_ne_bytes()));
        self
    }

    /// A field `fixed64`.
    pub(super) fn fixed64(&mut self, field: u64, value: u64) -> &mut Self {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A field `fixed32`.
    pub(super) fn fixed32(&mut self, field: u64, value: u32) -> &mut Self {
        self.tag(field, FIXED32);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A field `double`.
    pub(super) fn double(&mut self, field: u64, value: f64) -> &mut Self {
        self.fixed64(field, value.to_bits())
    }

    /// A field of bytes or text.
    pub(super) fn bytes(&mut self, field: u64, value: &[u8]) -> &mut Self {
        self.tag(field, LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A field of another message.
    pub(super) fn message(&mut self, field: u64, value: &Self) -> &mut Self {
        self.bytes(field, &value.0)
    }

    /// A packed field of eight bytes each.
    pub(super) fn packed(&mut self, field: u64, values: impl ExactSizeIterator<Item = u64>) -> &mut Self {
        self.tag(field, LENGTH);
        self.varint(values.len() as u64 * 8);
        for value in values {
            self.0.extend_from_slice(&value.to_le_bytes());
        }
        self
    }

    /// The bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A value of an attribute.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Int(i64),
    Double(f64),
    Bool(bool),
    Texts(Vec<&'a str>),
}

/// `repeated KeyValue`, at `field`.
pub(super) fn attribute(to: &mut Message, field: u64, key: &str, value: &Value<'_>) {
    let mut pair = Message::default();
    pair.bytes(1, key.as_bytes()).message(2, &any(value));
    to.message(field, &pair);
}

/// `AnyValue`.
fn any(value: &Value<'_>) -> Message {
    let mut any = Message::default();
    match value {
        Value::Text(text) => any.bytes(1, text.as_bytes()),
        Value::Bool(truth) => any.int(2, i64::from(*truth)),
        Value::Int(number) => any.int(3, *number),
        Value::Double(number) => any.double(4, *number),
        Value::Texts(texts) => {
            let mut list = Message::default();
            for text in texts {
                list.message(1, &any_text(text));
            }
            any.message(5, &list)
        }
    };
    any
}

fn any_text(text: &str) -> Message {
    any(&Value::Text(text))
}

/// How many spans or points an answer says were not taken: `partial_success` (1), `rejected` (1). Whatever cannot be read
/// says nothing.
pub(super) fn rejected(answer: &[u8]) -> u64 {
    let Some(Field::Bytes(partial)) = find(answer, 1) else { return 0 };
    match find(partial, 1) {
        Some(Field::Varint(count)) => count,
        _ => 0,
    }
}

enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

/// The first field of that number.
fn find(mut rest: &[u8], wanted: u64) -> Option<Field<'_>> {
    while !rest.is_empty() {
        let tag = read_varint(&mut rest)?;
        let field = match tag & 7 {
            VARINT => Field::Varint(read_varint(&mut rest)?),
            LENGTH => {
                let length = usize::try_from(read_varint(&mut rest)?).ok()?;
                let (bytes, behind) = rest.split_at_checked(length)?;
                rest = behind;
                Field::Bytes(bytes)
            }
            kind @ (FIXED64 | FIXED32) => {
                let (bytes, behind) = rest.split_at_checked(if kind == FIXED64 { 8 } else { 4 })?;
                rest = behind;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        if tag >> 3 == wanted {
            return Some(field);
        }
    }
    None
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_the_encoding_says() {
        // The examples of the encoding's own text.
        let mut message = Message::default();
        message.int(1, 150);
        assert_eq!(message.into_bytes(), [0x08, 0x96, 0x01]);
        let mut message = Message::default();
        message.bytes(2, b"testing");
        assert_eq!(hex::encode(message.into_bytes()), "120774657374696e67");
        let mut inner = Message::default();
        inner.int(1, 150);
        let mut message = Message::default();
        message.message(3, &inner);
        assert_eq!(message.into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let mut message = Message::default();
        message.int(1, -2).packed(4, [1].into_iter());
        assert_eq!(hex::encode(message.into_bytes()), "08feffffffffffffffff0122080100000000000000");
    }

    #[test]
    fn an_answer_says_what_was_not_taken_and_a_hostile_one_nothing() {
        let mut partial = Message::default();
        partial.int(1, 300).bytes(2, b"no room");
        let mut answer = Message::default();
        answer.message(1, &partial);
        assert_eq!(rejected(&answer.into_bytes()), 300);
        assert_eq!(rejected(b""), 0);
        for hostile in [&[0x0a, 0xff][..], &[0x0a, 0x7f, 0], &[0xff; 40], &[0x0b], &[0x09, 1], b"<html>"] {
            assert_eq!(rejected(hostile), 0, "{hostile:?}");
        }
    }
}
