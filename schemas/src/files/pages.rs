//! The pages of one column chunk: headers parsed and bounded here, then handed to the Parquet library's decoders.

use std::collections::BTreeMap;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::Result as ParquetResult;

use super::thrift::{self, Value};

/// Parquet's number for a codec.
pub(crate) const UNCOMPRESSED: i64 = 0;
pub(crate) const ZSTD: i64 = 6;

/// What a chunk is claimed to be, and the bounds for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(crate) rows: u64,
    pub(crate) codec: i64,
    /// Of the page headers and the decompressed pages.
    pub(crate) uncompressed: u64,
    /// Where the first data page begins, from the chunk's start.
    pub(crate) data_offset: u64,
}

/// What was seen in the pages.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// (page type, encoding) -> count
    pub(crate) encodings: BTreeMap<(i64, i64), i64>,
    pub(crate) page_statistics: bool,
    pub(crate) uncompressed: u64,
    pub(crate) data_offset: Option<u64>,
}

const DATA_PAGE: i64 = 0;
const DICTIONARY_PAGE: i64 = 2;
const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const RLE: i64 = 3;
const DELTA_BINARY_PACKED: i64 = 5;
const RLE_DICTIONARY: i64 = 8;

fn encoding(number: i64) -> Result<Encoding, String> {
    match number {
        PLAIN => Ok(Encoding::PLAIN),
        DELTA_BINARY_PACKED => Ok(Encoding::DELTA_BINARY_PACKED),
        RLE => Ok(Encoding::RLE),
        PLAIN_DICTIONARY | RLE_DICTIONARY => Ok(Encoding::RLE_DICTIONARY),
        other => Err(format!("encoding {other} is not used by this format")),
    }
}

fn number(value: &Value<'_>, id: i16, bound: u64, what: &str) -> Result<u64, String> {
    let found = value.int_field(id).ok_or_else(|| format!("a page header without {what}"))?;
    match u64::try_from(found) {
        Ok(found) if found <= bound => Ok(found),
        _ => Err(format!("{what} {found} of a page is not within 0..={bound}")),
    }
}

/// Splits `chunk` into decompressed pages. The claim's sizes have been bounded by the caller.
pub(crate) fn split(chunk: &Bytes, claim: Claim) -> Result<(Vec<Page>, Seen), String> {
    let mut pages = Vec::new();
    let mut seen = Seen::default();
    let mut decompressor = None;
    let mut rows = 0_u64;
    let mut at = 0_usize;
    while at < chunk.len() {
        let (header, used) = thrift::read_struct(&chunk[at..], 256)
            .map_err(|error| format!("page header at {at}: {error}"))?;
        let begins = at as u64;
        at += used;
        let left = claim.uncompressed.saturating_sub(seen.uncompressed);
        let size = number(&header, 2, left.saturating_sub(used as u64), "uncompressed size")?;
        let stored = number(&header, 3, (chunk.len() - at) as u64, "compressed size")? as usize;
        seen.uncompressed += size + used as u64;
        let body = chunk.slice(at..at + stored);
        at += stored;
        let buf = match claim.codec {
            UNCOMPRESSED if size == stored as u64 => body,
            UNCOMPRESSED => return Err(format!("page of {stored} bytes claims {size}")),
            ZSTD => {
                let decompressor = match &mut decompressor {
                    Some(decompressor) => decompressor,
                    none => none.insert(zstd::bulk::Decompressor::new().map_err(|error| error.to_string())?),
                };
                Bytes::from(inflate(decompressor, &body, size)?)
            }
            other => return Err(format!("codec {other} is not used by this format")),
        };
        match header.int_field(1) {
            Some(DICTIONARY_PAGE) => {
                let head = header.field(7).ok_or("a dictionary page without its header")?;
                if !pages.is_empty() {
                    return Err("a dictionary page behind another page".into());
                }
                let values = number(head, 1, claim.rows.min(size), "number of values")?;
                let kind = head.int_field(2).unwrap_or(-1);
                *seen.encodings.entry((DICTIONARY_PAGE, kind)).or_default() += 1;
                let encoding = match kind {
                    PLAIN | PLAIN_DICTIONARY => Encoding::PLAIN,
                    other => return Err(format!("encoding {other} is not one for a dictionary page")),
                };
                pages.push(Page::DictionaryPage {
                    buf,
                    num_values: values as u32,
                    encoding,
                    is_sorted: false,
                });
            }
            Some(DATA_PAGE) => {
                let head = header.field(5).ok_or("a data page without its header")?;
                seen.data_offset.get_or_insert(begins);
                seen.page_statistics |= head.field(5).is_some();
                let values = number(head, 1, claim.rows - rows, "number of values")?;
                rows += values;
                let kind = head.int_field(2).unwrap_or(-1);
                *seen.encodings.entry((DATA_PAGE, kind)).or_default() += 1;
                if head.int_field(3) != Some(RLE) || head.int_field(4) != Some(RLE) {
                    return Err("levels of a data page are not RLE".into());
                }
                pages.push(Page::DataPage {
                    buf,
                    num_values: values as u32,
                    encoding: encoding(kind)?,
                    def_level_encoding: Encoding::RLE,
                    rep_level_encoding: Encoding::RLE,
                    statistics: None,
                });
            }
            other => return Err(format!("page type {other:?} is not used by this format")),
        }
    }
    if rows != claim.rows {
        return Err(format!("pages hold {rows} values of {}", claim.rows));
    }
    if claim.data_offset != seen.data_offset.unwrap_or(0) {
        return Err(format!(
            "the first data page begins at {:?}, not {}",
            seen.data_offset, claim.data_offset
        ));
    }
    Ok((pages, seen))
}

fn inflate(
    decompressor: &mut zstd::bulk::Decompressor<'static>,
    body: &[u8],
    size: u64,
) -> Result<Vec<u8>, String> {
    let plain = decompressor.decompress(body, size as usize).map_err(|error| format!("zstd: {error}"))?;
    if plain.len() as u64 == size {
        Ok(plain)
    } else {
        Err(format!("page of {} bytes claims {size}", plain.len()))
    }
}

/// Gives decoded pages to the library's column reader.
pub(crate) struct PageList(pub(crate) std::vec::IntoIter<Page>);

impl Iterator for PageList {
    type Item = ParquetResult<Page>;
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Ok)
    }
}

impl PageReader for PageList {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        Ok(self.0.next())
    }
    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        Ok(self.0.as_slice().first().map(|page| PageMetadata {
            num_rows: None,
            num_levels: Some(page.num_values() as usize),
            is_dict: page.is_dictionary_page(),
        }))
    }
    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.0.next();
        Ok(())
    }
}
