//! Thrift's compact protocol, as far as Parquet uses it: a bounded reader of untyped values.
//!
//! The Parquet library reserves memory by counts that a footer claims; so what a stranger's footer claims is looked
//! at here first, against the bytes that are there.

/// One value. Integers of all widths are one variant; struct fields keep their ids.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Int(i64),
    Double([u8; 8]),
    Binary(&'a [u8]),
    List(Vec<Value<'a>>),
    Struct(Vec<(i16, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// The field `id` of a struct.
    pub(crate) fn field(&self, id: i16) -> Option<&Value<'a>> {
        match self {
            Self::Struct(fields) => fields.iter().find(|(found, _)| *found == id).map(|(_, value)| value),
            _ => None,
        }
    }
    /// The elements of a list; none where it is no list.
    pub(crate) fn list(&self) -> &[Value<'a>] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }
    /// An integer.
    pub(crate) fn int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }
    /// The integer field `id` of a struct.
    pub(crate) fn int_field(&self, id: i16) -> Option<i64> {
        self.field(id)?.int()
    }
    /// Bytes.
    pub(crate) fn binary(&self) -> Option<&'a [u8]> {
        match self {
            Self::Binary(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Why bytes are not a thrift struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ThriftError {
    #[error("the bytes end inside a value")]
    Ends,
    #[error("a length or number is out of range")]
    Range,
    #[error("a field id stands twice or is out of range")]
    Field,
    #[error("type {0} is not used by this format")]
    Type(u8),
    #[error("nested deeper than {MAX_DEPTH}")]
    Depth,
    #[error("more values than the bound")]
    Nodes,
}

const MAX_DEPTH: usize = 12;

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: usize,
}

/// Reads one struct from the front of `bytes`; also how many bytes it took. `nodes` bounds how many values it holds.
pub(crate) fn read_struct(bytes: &[u8], nodes: usize) -> Result<(Value<'_>, usize), ThriftError> {
    let mut input = Input { bytes, at: 0, nodes };
    let value = input.structure(0)?;
    Ok((value, input.at))
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, ThriftError> {
        let byte = *self.bytes.get(self.at).ok_or(ThriftError::Ends)?;
        self.at += 1;
        Ok(byte)
    }
    fn varint(&mut self) -> Result<u64, ThriftError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(ThriftError::Range);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ThriftError::Range)
    }
    fn zigzag(&mut self) -> Result<i64, ThriftError> {
        let value = self.varint()?;
        Ok(((value >> 1) as i64) ^ -((value & 1) as i64))
    }
    fn take(&mut self, len: usize) -> Result<&'a [u8], ThriftError> {
        let end = self.at.checked_add(len).ok_or(ThriftError::Range)?;
        let bytes = self.bytes.get(self.at..end).ok_or(ThriftError::Ends)?;
        self.at = end;
        Ok(bytes)
    }
    fn node(&mut self) -> Result<(), ThriftError> {
        self.nodes = self.nodes.checked_sub(1).ok_or(ThriftError::Nodes)?;
        Ok(())
    }
    fn value(&mut self, kind: u8, depth: usize) -> Result<Value<'a>, ThriftError> {
        self.node()?;
        Ok(match kind {
            3 => Value::Int(i64::from(self.byte()? as i8)),
            4..=6 => Value::Int(self.zigzag()?),
            7 => Value::Double(self.take(8)?.try_into().map_err(|_| ThriftError::Ends)?),
            8 => {
                let len = usize::try_from(self.varint()?).map_err(|_| ThriftError::Range)?;
                Value::Binary(self.take(len)?)
            }
            9 | 10 => self.list(depth)?,
            12 => self.structure(depth)?,
            other => return Err(ThriftError::Type(other)),
        })
    }
    fn list(&mut self, depth: usize) -> Result<Value<'a>, ThriftError> {
        if depth >= MAX_DEPTH {
            return Err(ThriftError::Depth);
        }
        let head = self.byte()?;
        let kind = head & 0x0f;
        let len = match head >> 4 {
            15 => self.varint()?,
            short => u64::from(short),
        };
        let len = usize::try_from(len).map_err(|_| ThriftError::Range)?;
        // An element takes at least one byte.
        if len > self.bytes.len() - self.at {
            return Err(ThriftError::Ends);
        }
        if len > self.nodes {
            return Err(ThriftError::Nodes);
        }
        let mut list = Vec::with_capacity(len);
        for _ in 0..len {
            list.push(match kind {
                1 | 2 => {
                    self.node()?;
                    Value::Bool(self.byte()? == 1)
                }
                _ => self.value(kind, depth + 1)?,
            });
        }
        Ok(Value::List(list))
    }
    fn structure(&mut self, depth: usize) -> Result<Value<'a>, ThriftError> {
        if depth >= MAX_DEPTH {
            return Err(ThriftError::Depth);
        }
        let mut fields: Vec<(i16, Value<'a>)> = Vec::new();
        let mut id = 0_i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(Value::Struct(fields));
            }
            let delta = i16::from(head >> 4);
            let next = match delta {
                0 => i16::try_from(self.zigzag()?).map_err(|_| ThriftError::Field)?,
                _ => id.checked_add(delta).ok_or(ThriftError::Field)?,
            };
            // Ids only grow, so none stands twice: two readers cannot take two different ones.
            if next <= id {
                return Err(ThriftError::Field);
            }
            id = next;
            let value = match head & 0x0f {
                1 => {
                    self.node()?;
                    Value::Bool(true)
                }
                2 => {
                    self.node()?;
                    Value::Bool(false)
                }
                kind => self.value(kind, depth + 1)?,
            };
            fields.push((id, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_lists_and_nested_structs() {
        // { 1: i32 -3, 2: [i64 1, 2], 3: binary "ab", 4: { 1: true } }
        let bytes = [0x15, 5, 0x19, 0x26, 2, 4, 0x18, 2, b'a', b'b', 0x1c, 0x11, 0, 0, 99];
        let (value, used) = read_struct(&bytes, 100).unwrap();
        assert_eq!(used, 14);
        assert_eq!(value.int_field(1), Some(-3));
        assert_eq!(value.field(2).unwrap().list(), [Value::Int(1), Value::Int(2)]);
        assert_eq!(value.field(3).unwrap().binary(), Some(&b"ab"[..]));
        assert_eq!(value.field(4).unwrap().field(1), Some(&Value::Bool(true)));
    }

    #[test]
    fn a_claimed_count_beyond_the_bytes_is_refused_before_memory_is_reserved() {
        let bytes = [0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 0];
        assert_eq!(read_struct(&bytes, usize::MAX), Err(ThriftError::Ends));
    }

    #[test]
    fn a_field_that_stands_twice_is_refused() {
        let bytes = [0x15, 2, 0x05, 2, 4, 0];
        assert_eq!(read_struct(&bytes, 100), Err(ThriftError::Field));
    }

    #[test]
    fn depth_and_node_bounds_hold() {
        assert_eq!(read_struct(&[0x1c; 100], 1000), Err(ThriftError::Depth));
        let mut many = vec![0x19, 0xf3, 100];
        many.extend([1; 101]);
        many.push(0);
        assert_eq!(read_struct(&many, 50), Err(ThriftError::Nodes));
    }

    #[test]
    fn every_cut_is_an_error_and_no_byte_string_panics() {
        let bytes = [0x15, 5, 0x19, 0x26, 2, 4, 0x18, 2, b'a', b'b', 0x1c, 0x11, 0, 0];
        for cut in 0..bytes.len() {
            assert!(read_struct(&bytes[..cut], 100).is_err(), "{cut}");
        }
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let junk: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 33) as u8
                })
                .collect();
            let _ = read_struct(&junk, 1000);
        }
    }
}
