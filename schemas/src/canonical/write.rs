//! A serde serializer that writes canonical text straight into bytes.
//!
//! Members are written as they come; where they did not come in order, the object's bytes are put in order once,
//! at its end. Keys and member bounds live on two stacks shared by all levels, so a record costs few allocations.

use std::cmp::Ordering;
use std::fmt;

use serde::ser::{self, Serialize, Serializer};

use super::{CanonicalError, MAX_DEPTH, MAX_INTEGER, compare_keys, is_leaf_text};

/// Writes the canonical text of `value`.
///
/// `None` and unit have no form: types leave such keys out (`skip_serializing_if`). The length is not limited here.
///
/// # Errors
/// Floats, null, integers beyond 2^53, keys that are not text or stand twice, nesting beyond [`MAX_DEPTH`].
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    write(value, false)
}

/// As [`to_vec`], and every key and string is what a leaf may hold.
///
/// # Errors
/// As [`to_vec`], and text that a leaf may not hold.
pub(crate) fn to_leaf<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    write(value, true)
}

fn write<T: Serialize + ?Sized>(value: &T, leaf: bool) -> Result<Vec<u8>, CanonicalError> {
    let mut writer = Writer {
        out: Vec::with_capacity(2048),
        keys: Vec::with_capacity(512),
        members: Vec::with_capacity(64),
        leaf,
        ..Writer::default()
    };
    value.serialize(&mut writer)?;
    Ok(writer.out)
}

#[derive(Default)]
struct Writer {
    out: Vec<u8>,
    /// Raw keys of the open objects.
    keys: Vec<u8>,
    /// Finished members of the open objects.
    members: Vec<Member>,
    /// Where an object is put in order.
    scratch: Vec<u8>,
    depth: u32,
    /// Whether text is held against CA-8.
    leaf: bool,
}

#[derive(Clone, Copy)]
struct Member {
    /// The key's first 8 bytes, big-endian: settles most comparisons.
    prefix: u64,
    key: (usize, usize),
    /// `"key":value` in `out`, without commas.
    text: (usize, usize),
}

const ASCII_PREFIX: u64 = 0x8080_8080_8080_8080;

impl Writer {
    fn enter(&mut self, opening: u8) -> Result<(), CanonicalError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(CanonicalError::TooDeep);
        }
        self.out.push(opening);
        Ok(())
    }

    fn leave(&mut self, closing: u8) {
        self.depth -= 1;
        self.out.push(closing);
    }

    fn integer(&mut self, magnitude: u64, negative: bool) -> Result<(), CanonicalError> {
        if magnitude > MAX_INTEGER.unsigned_abs() {
            return Err(CanonicalError::BigInteger);
        }
        if negative {
            self.out.push(b'-');
        }
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        let mut rest = magnitude;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[at..]);
        Ok(())
    }

    fn object(&mut self) -> Result<Object<'_>, CanonicalError> {
        self.enter(b'{')?;
        let (keys, members, text) = (self.keys.len(), self.members.len(), self.out.len());
        Ok(Object { writer: self, keys, members, text, pending: None, extra: 0 })
    }

    fn array(&mut self) -> Result<Array<'_>, CanonicalError> {
        self.enter(b'[')?;
        Ok(Array { first: true, writer: self, extra: 0 })
    }

    fn compare(&self, a: &Member, b: &Member) -> Ordering {
        if a.prefix != b.prefix && (a.prefix | b.prefix) & ASCII_PREFIX == 0 {
            return a.prefix.cmp(&b.prefix);
        }
        let (a, b) = (&self.keys[a.key.0..a.key.1], &self.keys[b.key.0..b.key.1]);
        // The keys of a leaf are ASCII.
        if self.leaf { a.cmp(b) } else { compare_keys(a, b) }
    }

    /// Ends the object whose members stand from `first` and whose text begins at `text`.
    fn order(&mut self, first: usize, text: usize) -> Result<(), CanonicalError> {
        let mut members = std::mem::take(&mut self.members);
        let own = &mut members[first..];
        if !own.windows(2).all(|pair| self.compare(&pair[0], &pair[1]) == Ordering::Less) {
            own.sort_unstable_by(|a, b| self.compare(a, b));
            for pair in own.windows(2) {
                if self.compare(&pair[0], &pair[1]) == Ordering::Equal {
                    let (from, to) = pair[0].key;
                    let key = String::from_utf8_lossy(&self.keys[from..to]).into_owned();
                    return Err(CanonicalError::DuplicateKey { key });
                }
            }
            self.scratch.clear();
            for member in own {
                self.scratch.extend_from_slice(&self.out[member.text.0..member.text.1]);
                self.scratch.push(b',');
            }
            self.scratch.pop();
            self.out.truncate(text);
            self.out.extend_from_slice(&self.scratch);
        }
        members.truncate(first);
        self.members = members;
        Ok(())
    }

    /// Writes a string with its quotes.
    fn string(&mut self, text: &str) -> Result<(), CanonicalError> {
        self.out.push(b'"');
        if self.leaf {
            if !is_leaf_text(text) {
                return Err(CanonicalError::Type("text that a leaf may not hold".into()));
            }
            // Nothing in it is escaped.
            self.out.extend_from_slice(text.as_bytes());
        } else {
            escape(&mut self.out, text);
        }
        self.out.push(b'"');
        Ok(())
    }
}

/// Writes `text` with its quotes left to the caller: what JSON.stringify escapes, and nothing else.
fn escape(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    if !bytes.iter().fold(false, |found, &b| found | (b < 0x20) | (b == b'"') | (b == b'\\')) {
        out.extend_from_slice(bytes);
        return;
    }
    let mut done = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[done..i]);
        done = i + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0a => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            0x0d => out.extend_from_slice(b"\\r"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[done..]);
}

/// Lets `Display` write an escaped string without an allocation between.
struct Escaping<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

struct Object<'a> {
    writer: &'a mut Writer,
    keys: usize,
    members: usize,
    text: usize,
    /// Key range and text start of the member whose value is awaited.
    pending: Option<((usize, usize), usize)>,
    /// Enclosing objects to close with this one (an enum's `{"Variant": …}`).
    extra: u32,
}

impl Object<'_> {
    /// Takes a member's key.
    fn name(&mut self, key: &str) -> Result<(), CanonicalError> {
        let writer = &mut *self.writer;
        let plain = is_leaf_text(key);
        if writer.leaf && !plain {
            return Err(CanonicalError::Type("a key that a leaf may not hold".into()));
        }
        if writer.members.len() > self.members {
            writer.out.push(b',');
        }
        let (from, start) = (writer.keys.len(), writer.out.len());
        writer.keys.extend_from_slice(key.as_bytes());
        writer.out.push(b'"');
        if plain {
            // Nothing in it is escaped.
            writer.out.extend_from_slice(key.as_bytes());
        } else {
            escape(&mut writer.out, key);
        }
        writer.out.extend_from_slice(b"\":");
        self.pending = Some(((from, writer.keys.len()), start));
        Ok(())
    }

    fn member<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CanonicalError> {
        let (key, start) =
            self.pending.take().ok_or_else(|| CanonicalError::Type("value without key".into()))?;
        value.serialize(&mut *self.writer)?;
        let writer = &mut *self.writer;
        let mut prefix = [0; 8];
        let bytes = &writer.keys[key.0..key.1];
        let shown = bytes.len().min(8);
        prefix[..shown].copy_from_slice(&bytes[..shown]);
        let text = (start, writer.out.len());
        writer.members.push(Member { prefix: u64::from_be_bytes(prefix), key, text });
        Ok(())
    }

    fn named<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), CanonicalError> {
        self.name(key)?;
        self.member(value)
    }

    fn finish(self) -> Result<(), CanonicalError> {
        if self.pending.is_some() {
            return Err(CanonicalError::Type("key without value".into()));
        }
        self.writer.order(self.members, self.text)?;
        self.writer.keys.truncate(self.keys);
        for _ in 0..=self.extra {
            self.writer.leave(b'}');
        }
        Ok(())
    }
}

struct Array<'a> {
    writer: &'a mut Writer,
    first: bool,
    extra: u32,
}

impl Array<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CanonicalError> {
        if !std::mem::take(&mut self.first) {
            self.writer.out.push(b',');
        }
        value.serialize(&mut *self.writer)
    }

    fn finish(self) -> Result<(), CanonicalError> {
        self.writer.leave(b']');
        for _ in 0..self.extra {
            self.writer.leave(b'}');
        }
        Ok(())
    }
}

fn unsupported<T>(what: &str) -> Result<T, CanonicalError> {
    Err(CanonicalError::Type(what.into()))
}

impl<'a> Serializer for &'a mut Writer {
    type Ok = ();
    type Error = CanonicalError;
    type SerializeSeq = Array<'a>;
    type SerializeTuple = Array<'a>;
    type SerializeTupleStruct = Array<'a>;
    type SerializeTupleVariant = Array<'a>;
    type SerializeMap = Object<'a>;
    type SerializeStruct = Object<'a>;
    type SerializeStructVariant = Object<'a>;

    fn serialize_bool(self, value: bool) -> Result<(), CanonicalError> {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }
    fn serialize_i8(self, value: i8) -> Result<(), CanonicalError> {
        self.serialize_i64(value.into())
    }
    fn serialize_i16(self, value: i16) -> Result<(), CanonicalError> {
        self.serialize_i64(value.into())
    }
    fn serialize_i32(self, value: i32) -> Result<(), CanonicalError> {
        self.serialize_i64(value.into())
    }
    fn serialize_i64(self, value: i64) -> Result<(), CanonicalError> {
        self.integer(value.unsigned_abs(), value < 0)
    }
    fn serialize_u8(self, value: u8) -> Result<(), CanonicalError> {
        self.integer(value.into(), false)
    }
    fn serialize_u16(self, value: u16) -> Result<(), CanonicalError> {
        self.integer(value.into(), false)
    }
    fn serialize_u32(self, value: u32) -> Result<(), CanonicalError> {
        self.integer(value.into(), false)
    }
    fn serialize_u64(self, value: u64) -> Result<(), CanonicalError> {
        self.integer(value, false)
    }
    fn serialize_f32(self, _: f32) -> Result<(), CanonicalError> {
        Err(CanonicalError::Float)
    }
    fn serialize_f64(self, _: f64) -> Result<(), CanonicalError> {
        Err(CanonicalError::Float)
    }
    fn serialize_char(self, value: char) -> Result<(), CanonicalError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, value: &str) -> Result<(), CanonicalError> {
        self.string(value)
    }
    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), CanonicalError> {
        use fmt::Write as _;
        if self.leaf {
            return self.string(&value.to_string());
        }
        self.out.push(b'"');
        write!(Escaping(&mut self.out), "{value}").map_err(|e| CanonicalError::Type(e.to_string()))?;
        self.out.push(b'"');
        Ok(())
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<(), CanonicalError> {
        unsupported("bytes")
    }
    fn serialize_none(self) -> Result<(), CanonicalError> {
        Err(CanonicalError::Null)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CanonicalError> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), CanonicalError> {
        Err(CanonicalError::Null)
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CanonicalError> {
        Err(CanonicalError::Null)
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), CanonicalError> {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CanonicalError> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), CanonicalError> {
        let mut object = self.object()?;
        object.named(variant, value)?;
        object.finish()
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Array<'a>, CanonicalError> {
        self.array()
    }
    fn serialize_tuple(self, _: usize) -> Result<Array<'a>, CanonicalError> {
        self.array()
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Array<'a>, CanonicalError> {
        self.array()
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Array<'a>, CanonicalError> {
        self.enter(b'{')?;
        self.serialize_str_member(variant);
        let mut array = self.array()?;
        array.extra = 1;
        Ok(array)
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Object<'a>, CanonicalError> {
        self.object()
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Object<'a>, CanonicalError> {
        self.object()
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Object<'a>, CanonicalError> {
        self.enter(b'{')?;
        self.serialize_str_member(variant);
        let mut object = self.object()?;
        object.extra = 1;
        Ok(object)
    }
}

impl Writer {
    /// The one member of an object that holds an enum's variant.
    fn serialize_str_member(&mut self, variant: &str) {
        self.out.push(b'"');
        escape(&mut self.out, variant);
        self.out.extend_from_slice(b"\":");
    }
}

macro_rules! sequence {
    ($($trait:ident :: $method:ident),*) => {$(
        impl ser::$trait for Array<'_> {
            type Ok = ();
            type Error = CanonicalError;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CanonicalError> {
                self.item(value)
            }
            fn end(self) -> Result<(), CanonicalError> {
                self.finish()
            }
        }
    )*};
}

sequence!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! structure {
    ($($trait:ident),*) => {$(
        impl ser::$trait for Object<'_> {
            type Ok = ();
            type Error = CanonicalError;
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), CanonicalError> {
                self.named(key, value)
            }
            fn end(self) -> Result<(), CanonicalError> {
                self.finish()
            }
        }
    )*};
}

structure!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Object<'_> {
    type Ok = ();
    type Error = CanonicalError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CanonicalError> {
        key.serialize(Key(self))
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CanonicalError> {
        self.member(value)
    }
    fn end(self) -> Result<(), CanonicalError> {
        self.finish()
    }
}

/// Takes a map's key: text, and nothing else.
struct Key<'k, 'w>(&'k mut Object<'w>);

macro_rules! refuse_keys {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, _: $type) -> Result<(), CanonicalError> {
            unsupported("a key that is not text")
        }
    )*};
}

impl Serializer for Key<'_, '_> {
    type Ok = ();
    type Error = CanonicalError;
    type SerializeSeq = ser::Impossible<(), CanonicalError>;
    type SerializeTuple = ser::Impossible<(), CanonicalError>;
    type SerializeTupleStruct = ser::Impossible<(), CanonicalError>;
    type SerializeTupleVariant = ser::Impossible<(), CanonicalError>;
    type SerializeMap = ser::Impossible<(), CanonicalError>;
    type SerializeStruct = ser::Impossible<(), CanonicalError>;
    type SerializeStructVariant = ser::Impossible<(), CanonicalError>;

    refuse_keys!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_f32: f32,
        serialize_f64: f64, serialize_bytes: &[u8], serialize_unit_struct: &'static str
    );

    fn serialize_char(self, value: char) -> Result<(), CanonicalError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, value: &str) -> Result<(), CanonicalError> {
        self.0.name(value)
    }
    fn serialize_none(self) -> Result<(), CanonicalError> {
        unsupported("a key that is not text")
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CanonicalError> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), CanonicalError> {
        unsupported("a key that is not text")
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), CanonicalError> {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CanonicalError> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), CanonicalError> {
        unsupported("a key that is not text")
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, CanonicalError> {
        unsupported("a key that is not text")
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, CanonicalError> {
        unsupported("a key that is not text")
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeSeq, CanonicalError> {
        unsupported("a key that is not text")
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, CanonicalError> {
        unsupported("a key that is not text")
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, CanonicalError> {
        unsupported("a key that is not text")
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, CanonicalError> {
        unsupported("a key that is not text")
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, CanonicalError> {
        unsupported("a key that is not text")
    }
}
