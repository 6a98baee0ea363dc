//! Opening a file from a stranger: magic, footer, schema, layout.

use bytes::Bytes;
use parquet::file::reader::ChunkReader;

use super::Limits;
use super::footer::{self, Footer, Group};
use super::schema::FileSchema;
use super::thrift::{self, Value};
use crate::verify::{FaultCode, Faults};

/// Whether columns behind the known ones are read over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extra {
    /// The schema is claimed to be exactly ours: another column is a fault.
    Refused,
    /// The seal names another schema fingerprint: columns may have been added within version 1.
    Listed,
}

/// Bytes of the footer, or `None` with the fault added.
pub(crate) fn footer_bytes<R: ChunkReader>(
    reader: &R,
    file: &'static str,
    limits: &Limits,
    faults: &mut Faults,
) -> Option<(Bytes, u64)> {
    let len = reader.len();
    let mut bad = |expected: &str, found: String| {
        faults.add(FaultCode::Unreadable, None, file, expected, found);
    };
    if len < 12 {
        bad("a Parquet file", format!("{len} bytes"));
        return None;
    }
    let (head, tail) = match (reader.get_bytes(0, 4), reader.get_bytes(len - 8, 8)) {
        (Ok(head), Ok(tail)) => (head, tail),
        (Err(error), _) | (_, Err(error)) => {
            bad("readable bytes", error.to_string());
            return None;
        }
    };
    if head.as_ref() != b"PAR1" || &tail[4..] != b"PAR1" {
        bad("`PAR1` at both ends", hex::encode(&tail[4..]));
        return None;
    }
    let size = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if size > len - 12 {
        bad("a footer within the file", format!("{size} bytes"));
        return None;
    }
    if size > limits.footer_bytes {
        faults.add(
            FaultCode::ResourceLimit,
            None,
            format!("{file} footer"),
            format!("at most {} bytes", limits.footer_bytes),
            size,
        );
        return None;
    }
    match reader.get_bytes(len - 8 - size, size as usize) {
        Ok(bytes) => Some((bytes, len - 8 - size)),
        Err(error) => {
            bad("readable bytes", error.to_string());
            None
        }
    }
}

/// A footer whose schema and layout hold.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    pub(crate) groups: Vec<Group<'a>>,
    /// Names of columns that this version does not know.
    pub(crate) extra: Vec<String>,
}

/// Checks the footer against `schema`; `None` where the rows cannot be read by it.
pub(crate) fn open<'a>(
    bytes: &'a [u8],
    data_end: u64,
    schema: &FileSchema,
    extra: Extra,
    limits: &Limits,
    faults: &mut Faults,
) -> Option<Opened<'a>> {
    let footer = match footer::parse(bytes, schema.name, faults) {
        Ok(footer) => footer,
        Err(thrift::ThriftError::Nodes) => {
            faults.add(
                FaultCode::ResourceLimit,
                None,
                format!("{} footer", schema.name),
                "fewer values",
                "too many",
            );
            return None;
        }
        Err(error) => {
            faults.add(FaultCode::Unreadable, None, format!("{} footer", schema.name), "a footer", error);
            return None;
        }
    };
    let names = check_schema(&footer, schema, extra, faults)?;
    let total: u64 = footer.groups.iter().map(|group| group.rows).fold(0, u64::saturating_add);
    if total > limits.rows {
        let expected = format!("at most {} rows", limits.rows);
        faults.add(FaultCode::ResourceLimit, None, schema.name, expected, total);
        return None;
    }
    if total != footer.rows {
        faults.add(FaultCode::StatsLie, None, format!("{} footer, rows", schema.name), total, footer.rows);
    }
    check_layout(&footer, schema, &names, data_end, limits, faults)?;
    let known = schema.descriptor.num_columns();
    Some(Opened { groups: footer.groups, extra: names.into_iter().skip(known).collect() })
}

fn name(element: &Value<'_>) -> String {
    String::from_utf8_lossy(element.field(4).and_then(Value::binary).unwrap_or_default()).into_owned()
}

/// The names of all columns, where the known ones stand exactly as wanted.
fn check_schema(
    footer: &Footer<'_>,
    schema: &FileSchema,
    extra: Extra,
    faults: &mut Faults,
) -> Option<Vec<String>> {
    let sample = thrift::read_struct(&schema.sample_footer, usize::MAX).ok()?.0;
    let wanted = sample.field(2).map(Value::list).unwrap_or_default();
    let found = footer.schema.list();
    let mut drift = |place: String, expected: String, found: String| {
        faults.add(FaultCode::SchemaDrift, None, format!("{} schema, {place}", schema.name), expected, found);
    };
    let mut sound = true;
    for (i, wanted) in wanted.iter().enumerate().skip(1) {
        match found.get(i) {
            Some(found) if found == wanted => {}
            Some(found) => {
                drift(format!("column {}", name(wanted)), describe(wanted), describe(found));
                sound = false;
            }
            None => {
                drift(format!("column {}", name(wanted)), describe(wanted), "no such column".into());
                sound = false;
            }
        }
    }
    let names: Vec<String> = found.iter().skip(1).map(name).collect();
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    for pair in sorted.windows(2).filter(|pair| pair[0] == pair[1]) {
        drift(format!("column {}", pair[0]), "one such column".into(), "two".into());
        sound = false;
    }
    for element in found.iter().skip(wanted.len()) {
        // A group would shift the columns; a leaf without a physical type is a group.
        let nested = element.field(1).is_none() || element.int_field(3) == Some(2);
        if extra == Extra::Refused || nested {
            drift(format!("column {}", name(element)), "no such column".into(), describe(element));
            sound = sound && !nested;
        }
    }
    let root_names = (wanted.first().map(name), found.first().map(name));
    let children = found.first().and_then(|root| root.int_field(5));
    if root_names.0 != root_names.1 || children != i64::try_from(names.len()).ok() {
        drift(
            "root".into(),
            format!("`{}` of {} columns", schema.name, names.len()),
            describe(&footer.schema),
        );
        sound = false;
    }
    sound.then_some(names)
}

fn describe(element: &Value<'_>) -> String {
    let repetition = match element.int_field(3) {
        Some(0) => "REQUIRED",
        Some(1) => "OPTIONAL",
        Some(2) => "REPEATED",
        _ => "?",
    };
    let physical = match element.int_field(1) {
        Some(0) => "BOOLEAN".into(),
        Some(1) => "INT32".into(),
        Some(2) => "INT64".into(),
        Some(6) => "BYTE_ARRAY".into(),
        Some(7) => format!("FIXED_LEN_BYTE_ARRAY({})", element.int_field(2).unwrap_or(-1)),
        other => format!("type {other:?}"),
    };
    let logical = match (element.field(10), element.int_field(6)) {
        (Some(logical), _) => format!(" logical {logical:?}"),
        (None, Some(converted)) => format!(" converted {converted}"),
        (None, None) => String::new(),
    };
    format!("{repetition} {physical} {}{logical}", name(element))
}

/// Chunks must stand one behind the other from byte 4 to the footer: nothing hides in between.
fn check_layout(
    footer: &Footer<'_>,
    schema: &FileSchema,
    names: &[String],
    data_end: u64,
    limits: &Limits,
    faults: &mut Faults,
) -> Option<()> {
    let known = schema.descriptor.num_columns();
    let mut at = 4_u64;
    for (g, group) in footer.groups.iter().enumerate() {
        let place = |what: &str| format!("{} footer, row group {g}, {what}", schema.name);
        if group.chunks.len() != names.len() {
            faults.add(FaultCode::SchemaDrift, None, place("columns"), names.len(), group.chunks.len());
            return None;
        }
        if group.rows == 0 {
            faults.add(FaultCode::SchemaDrift, None, place("rows"), "at least one", 0);
        }
        for (chunk, name) in group.chunks.iter().zip(names) {
            let begins = chunk.dictionary_offset.unwrap_or(chunk.data_offset);
            let end = begins.checked_add(chunk.compressed);
            if begins != at || end.is_none_or(|end| end > data_end) || chunk.data_offset < begins {
                let found = format!("{begins} and {} bytes", chunk.compressed);
                faults.add(
                    FaultCode::SchemaDrift,
                    None,
                    place(name),
                    format!("a chunk that begins at {at}"),
                    found,
                );
                return None;
            }
            at = begins + chunk.compressed;
            if chunk.uncompressed > limits.column_bytes {
                let expected = format!("at most {} bytes", limits.column_bytes);
                faults.add(FaultCode::ResourceLimit, None, place(name), expected, chunk.uncompressed);
                return None;
            }
            if chunk.path != [name.as_bytes()] {
                let found: Vec<_> = chunk.path.iter().map(|part| String::from_utf8_lossy(part)).collect();
                faults.add(FaultCode::SchemaDrift, None, place(name), name, found.join("/"));
            }
            if u64::try_from(chunk.values) != Ok(group.rows) {
                faults.add(FaultCode::StatsLie, None, place(name), group.rows, chunk.values);
            }
        }
        for (i, chunk) in group.chunks.iter().take(known).enumerate() {
            let physical = schema.descriptor.column(i).physical_type() as i64;
            if chunk.physical != physical {
                faults.add(FaultCode::SchemaDrift, None, place(&names[i]), physical, chunk.physical);
            }
        }
        let total: u64 = group.chunks.iter().map(|chunk| chunk.uncompressed).fold(0, u64::saturating_add);
        if i64::try_from(total) != Ok(group.total_bytes) {
            faults.add(FaultCode::StatsLie, None, place("total bytes"), total, group.total_bytes);
        }
    }
    if at != data_end {
        let place = format!("{} layout", schema.name);
        faults.add(FaultCode::SchemaDrift, None, place, format!("the footer at {at}"), data_end);
    }
    Some(())
}
