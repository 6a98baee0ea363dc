//! Pictures of pages: read as Chromium writes them, and written small, with a palette.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};

const HEAD: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A picture, three bytes a pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    pixels: Vec<[u8; 3]>,
}

/// Width and height of a PNG.
///
/// # Panics
/// Where it is none.
pub fn size(png: &[u8]) -> (usize, usize) {
    assert!(png.starts_with(HEAD) && png.len() > 33, "no PNG");
    (number(png, 16), number(png, 20))
}

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

impl Picture {
    /// Reads a PNG of eight bits a colour, with or without transparency, which is left out.
    ///
    /// # Panics
    /// Where it is another.
    pub fn read(png: &[u8]) -> Self {
        let (width, height) = size(png);
        let step = match (png[24], png[25], png[28]) {
            (8, 2, 0) => 3,
            (8, 6, 0) => 4,
            form => std::panic::panic_any(format!("depth, colours and interlacing {form:?}")),
        };
        let (mut data, mut at) = (Vec::new(), HEAD.len());
        while at + 12 <= png.len() {
            let length = number(png, at);
            if &png[at + 4..at + 8] == b"IDAT" {
                data.extend_from_slice(&png[at + 8..at + 8 + length]);
            }
            at += length + 12;
        }
        let mut rows = Vec::new();
        flate2::read::ZlibDecoder::new(&data[..]).read_to_end(&mut rows).expect("rows");
        assert_eq!(rows.len(), (width * step + 1) * height);
        let mut above = vec![0; width * step];
        let mut pixels = Vec::with_capacity(width * height);
        for row in rows.chunks_exact(width * step + 1) {
            above = unfiltered(row[0], &row[1..], &above, step);
            pixels.extend(above.chunks_exact(step).map(|pixel| [pixel[0], pixel[1], pixel[2]]));
        }
        Self { width, height, pixels }
    }

    /// How many pixels of a thousand are not of the colour that most are of.
    pub fn inked(&self) -> usize {
        let most = self.counted().values().copied().max().unwrap_or(0);
        (self.pixels.len() - most) * 1000 / self.pixels.len().max(1)
    }

    /// As a PNG with the 256 colours that most pixels have: any other becomes the nearest of them.
    ///
    /// # Panics
    /// Never: it writes into memory.
    pub fn small(&self) -> Vec<u8> {
        let mut colours: Vec<([u8; 3], usize)> = self.counted().into_iter().collect();
        colours.sort_by_key(|(colour, n)| (std::cmp::Reverse(*n), *colour));
        let palette: Vec<[u8; 3]> = colours.iter().take(256).map(|(colour, _)| *colour).collect();
        let nearest = |colour: [u8; 3]| {
            let far = |of: &[u8; 3]| -> u32 {
                of.iter().zip(colour).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
            };
            (0..=255u8).zip(&palette).min_by_key(|(_, of)| far(of)).map_or(0, |(index, _)| index)
        };
        let index: HashMap<[u8; 3], u8> =
            colours.iter().map(|(colour, _)| (*colour, nearest(*colour))).collect();
        let mut rows = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        for row in self.pixels.chunks_exact(self.width) {
            let mut line = vec![0];
            line.extend(row.iter().map(|pixel| index[pixel]));
            rows.write_all(&line).expect("memory");
        }
        let mut head = Vec::new();
        for side in [self.width, self.height] {
            head.extend_from_slice(&u32::try_from(side).expect("a side of a picture").to_be_bytes());
        }
        head.extend_from_slice(&[8, 3, 0, 0, 0]);
        let mut out = HEAD.to_vec();
        chunk(&mut out, b"IHDR", &head);
        chunk(&mut out, b"PLTE", palette.as_flattened());
        chunk(&mut out, b"IDAT", &rows.finish().expect("memory"));
        chunk(&mut out, b"IEND", &[]);
        out
    }

    fn counted(&self) -> HashMap<[u8; 3], usize> {
        let mut out = HashMap::new();
        for pixel in &self.pixels {
            *out.entry(*pixel).or_default() += 1;
        }
        out
    }
}

/// PNG 9.2: what a row is, from what it is above and to the left.
fn unfiltered(filter: u8, row: &[u8], above: &[u8], step: usize) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(row.len());
    for (at, value) in row.iter().enumerate() {
        let left = if at < step { 0 } else { out[at - step] };
        let (up, corner) = (above[at], if at < step { 0 } else { above[at - step] });
        let foretold = match filter {
            0 => 0,
            1 => left,
            2 => up,
            3 => u8::midpoint(left, up),
            4 => paeth(left, up, corner),
            _ => std::panic::panic_any(format!("filter {filter}")),
        };
        out.push(value.wrapping_add(foretold));
    }
    out
}

fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let base = i16::from(left) + i16::from(up) - i16::from(corner);
    let far = |of: u8| base.abs_diff(i16::from(of));
    if far(left) <= far(up) && far(left) <= far(corner) {
        left
    } else if far(up) <= far(corner) {
        up
    } else {
        corner
    }
}

fn chunk(out: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    out.extend_from_slice(&u32::try_from(data.len()).expect("a small picture").to_be_bytes());
    let mut sum = flate2::Crc::new();
    for part in [&name[..], data] {
        sum.update(part);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&sum.sum().to_be_bytes());
}
