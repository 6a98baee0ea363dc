use proptest::prelude::*;

use super::*;
use crate::names::Origin;

fn origin() -> Origin {
    Origin::new("acme/gw1/20261120t101500z-3f9a1c20").unwrap()
}

fn exchange(n: u32) -> ExchangeId {
    ExchangeId::new(format!("018f0000-0000-7000-8000-{n:012x}")).unwrap()
}

fn key_id() -> KeyId {
    KeyId { origin: origin(), page: 3, slot: 17 }
}

fn meta(chunk: u32, last: bool, encoding: Encoding) -> RowMeta {
    RowMeta { position: 5, exchange: exchange(1), part: PartName::ClientRequest, chunk, last, encoding }
}

fn text(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| format!("line {} of the history\n", i * i % 977).into_bytes()).collect()
}

fn noise(n: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

#[test]
fn a_part_of_any_length_comes_back() {
    let salt = Salt::from_bytes([9; 32]);
    let key = DataKey::from_bytes([4; 32]);
    for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
        for content in [vec![b'a'; length], noise(length, 7)] {
            for key in [None, Some((&key_id(), &key))] {
                let mut assembler = Assembler::new(length);
                let mut rows = 0;
                for piece in cut(&salt, &content) {
                    let row = seal_row(
                        &origin(),
                        &meta(piece.chunk, piece.last, Encoding::Zstd),
                        key,
                        &piece.plaintext,
                    )
                    .unwrap();
                    assert!(row.data.len() <= MAX_ROW_BYTES);
                    let plain = open_row(&origin(), &row, key).unwrap();
                    assembler.push(row.chunk, row.last, &row.encoding, &plain).unwrap();
                    rows += 1;
                }
                assert_eq!(rows, length.div_ceil(CHUNK_BYTES).max(1));
                let part = assembler.finish().unwrap();
                assert_eq!(part.salt, salt);
                assert_eq!(commitment(&part.salt, &part.stream), commitment(&salt, &content));
                assert!(part.content(None, length).unwrap() == content);
            }
        }
    }
}

#[test]
fn equal_input_gives_equal_bytes_and_other_input_another_nonce() {
    let key = DataKey::from_bytes([4; 32]);
    let id = key_id();
    let seal = |m: &RowMeta, plain: &[u8]| seal_row(&origin(), m, Some((&id, &key)), plain).unwrap().data;
    let base = meta(0, true, Encoding::Plain);
    let first = seal(&base, b"plain");
    assert_eq!(first, seal(&base, b"plain"));
    let mut nonces = vec![first[..12].to_vec(), seal(&base, b"plaim")[..12].to_vec()];
    nonces.push(seal(&RowMeta { chunk: 1, ..base.clone() }, b"plain")[..12].to_vec());
    nonces.push(seal(&RowMeta { last: false, ..base.clone() }, b"plain")[..12].to_vec());
    nonces.push(seal(&RowMeta { part: PartName::Error, ..base.clone() }, b"plain")[..12].to_vec());
    nonces.push(seal(&RowMeta { exchange: exchange(2), ..base }, b"plain")[..12].to_vec());
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 6);
}

#[test]
fn a_row_is_bound_to_all_that_it_says() {
    let key = DataKey::from_bytes([4; 32]);
    let id = key_id();
    let row = seal_row(&origin(), &meta(0, true, Encoding::Zstd), Some((&id, &key)), &text(20)).unwrap();
    assert!(open_row(&origin(), &row, Some((&id, &key))).is_ok());
    assert_eq!(open_row(&origin(), &row, None), Err(ContentError::KeyAbsent(id.clone())));
    let wrong_key = DataKey::from_bytes([5; 32]);
    assert_eq!(open_row(&origin(), &row, Some((&id, &wrong_key))), Err(ContentError::Decrypt));
    let other_id = KeyId { slot: 18, ..id.clone() };
    assert!(matches!(
        open_row(&origin(), &row, Some((&other_id, &key))),
        Err(ContentError::KeyMismatch { .. })
    ));
    let other_log = Origin::new("acme/gw1/20261120t101500z-3f9a1c21").unwrap();
    assert!(matches!(open_row(&other_log, &row, Some((&id, &key))), Err(ContentError::KeyMismatch { .. })));
    let changed = [
        Row { exchange: exchange(2), ..row.clone() },
        Row { part: PartName::Error, ..row.clone() },
        Row { chunk: 1, ..row.clone() },
        Row { last: false, ..row.clone() },
        Row { encoding: Encoding::Plain, ..row.clone() },
        Row { data: row.data[..row.data.len() - 1].to_vec(), ..row.clone() },
        Row { data: row.data[..11].to_vec(), ..row.clone() },
        Row { data: vec![], ..row.clone() },
    ];
    for changed in changed {
        assert_eq!(
            open_row(&origin(), &changed, Some((&id, &key))),
            Err(ContentError::Decrypt),
            "{changed:?}"
        );
    }
    for bit in 0..row.data.len() * 8 {
        let mut data = row.data.clone();
        data[bit / 8] ^= 1 << (bit % 8);
        let changed = Row { data, ..row.clone() };
        assert_eq!(open_row(&origin(), &changed, Some((&id, &key))), Err(ContentError::Decrypt), "bit {bit}");
    }
}

#[test]
fn decompression_is_capped_whatever_a_row_says() {
    let row = |data: Vec<u8>, chunk| Row {
        position: 0,
        exchange: exchange(1),
        part: PartName::ClientRequest,
        chunk,
        last: true,
        encoding: Encoding::Zstd,
        key_id: None,
        data,
    };
    let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 19).unwrap();
    assert!(bomb.len() < 20_000);
    assert!(matches!(open_row(&origin(), &row(bomb, 0), None), Err(ContentError::TooLong { .. })));
    let full = zstd::bulk::compress(&vec![0; CHUNK_BYTES + 32], 3).unwrap();
    assert!(open_row(&origin(), &row(full.clone(), 0), None).is_ok());
    assert!(matches!(open_row(&origin(), &row(full, 1), None), Err(ContentError::TooLong { .. })));
    let unsized_frame = zstd::stream::encode_all(&b"abc"[..], 3).unwrap();
    let twice = [zstd::bulk::compress(b"abc", 3).unwrap(), zstd::bulk::compress(b"abc", 3).unwrap()].concat();
    let cut = zstd::bulk::compress(&text(30), 3).unwrap()[..40].to_vec();
    for data in [unsized_frame, twice, cut, vec![], b"not zstd".to_vec()] {
        assert!(matches!(open_row(&origin(), &row(data, 0), None), Err(ContentError::Encoding { .. })));
    }
    let plain = Row { encoding: Encoding::Plain, ..row(vec![0; CHUNK_BYTES + 33], 0) };
    assert!(matches!(open_row(&origin(), &plain, None), Err(ContentError::TooLong { .. })));
}

#[test]
fn dictionaries_are_named_by_hash() {
    let dictionary = Dictionary::new(&text(4)).unwrap();
    let encoding = Encoding::ZstdDict { dictionary: dictionary.sha256() };
    let plain = text(6);
    let dictionaries = [dictionary];
    let row =
        seal_row_with(&origin(), &meta(0, true, encoding.clone()), None, &dictionaries, &plain).unwrap();
    assert_eq!(row.encoding, encoding);
    assert_eq!(open_row_with(&origin(), &row, None, &dictionaries).unwrap(), plain);
    assert!(matches!(open_row(&origin(), &row, None), Err(ContentError::DictionaryAbsent(_))));
    assert!(matches!(
        seal_row(&origin(), &meta(0, true, encoding), None, &plain),
        Err(ContentError::DictionaryAbsent(_))
    ));
}

#[test]
fn a_dictionary_makes_a_short_part_shorter_and_stays_a_dictionary_of_its_hash() {
    let dictionaries = [Dictionary::new(&text(4)).unwrap(), Dictionary::new(&text(40)).unwrap()];
    let seal = |encoding| seal_row_with(&origin(), &meta(0, true, encoding), None, &dictionaries, &text(3));
    let of = |n: usize| Encoding::ZstdDict { dictionary: dictionaries[n].sha256() };
    let (alone, row) = (seal(Encoding::Zstd).unwrap(), seal(of(0)).unwrap());
    assert!(row.data.len() * 2 < alone.data.len(), "{} of {}", row.data.len(), alone.data.len());
    assert_eq!(row, seal(of(0)).unwrap(), "equal input gives equal bytes");
    let other = Row { encoding: of(1), ..row };
    assert_ne!(open_row_with(&origin(), &other, None, &dictionaries).ok(), Some(text(3)));
}

#[test]
fn a_frame_with_a_dictionary_is_bounded_as_any_other() {
    let dictionaries = [Dictionary::new(&text(4)).unwrap()];
    let encoding = Encoding::ZstdDict { dictionary: dictionaries[0].sha256() };
    let made = |data: Vec<u8>| Row {
        position: 0,
        exchange: exchange(1),
        part: PartName::ClientRequest,
        chunk: 0,
        last: true,
        encoding: encoding.clone(),
        key_id: None,
        data,
    };
    let bomb = zstd::bulk::compress(&vec![0; CHUNK_BYTES + 33], 3).unwrap();
    let open = |data| open_row_with(&origin(), &made(data), None, &dictionaries);
    assert!(matches!(open(bomb), Err(ContentError::TooLong { .. })));
    let whole = seal_row_with(&origin(), &meta(0, true, encoding.clone()), None, &dictionaries, &text(9))
        .unwrap()
        .data;
    assert!(open(whole.clone()).is_ok());
    assert!(matches!(open([whole.as_slice(), b"x"].concat()), Err(ContentError::Encoding { .. })));
    assert!(matches!(open(whole[..whole.len() - 1].to_vec()), Err(ContentError::Encoding { .. })));
}

#[test]
fn only_raw_content_is_a_dictionary() {
    let samples: Vec<_> = (0..200).map(|i| text(5 + i % 7)).collect();
    let trained = zstd::dict::from_samples(&samples, 4096).unwrap();
    for bytes in [trained, vec![], vec![b'a'; MAX_DICTIONARY_BYTES + 1]] {
        assert!(matches!(Dictionary::new(&bytes), Err(ContentError::Dictionary { .. })));
    }
    assert!(Dictionary::new(&vec![b'a'; MAX_DICTIONARY_BYTES]).is_ok());
}

#[test]
fn encodings_have_one_text() {
    let hash = Sha256Hex([0xab; 32]);
    let cases = [
        (Encoding::Plain, "plain".to_owned()),
        (Encoding::Zstd, "zstd".to_owned()),
        (Encoding::ZstdDict { dictionary: hash }, format!("zstd_dict:{hash}")),
        (
            Encoding::Delta { base_exchange: exchange(1), base_part: PartName::ProviderResponse },
            "delta:018f0000-0000-7000-8000-000000000001:provider_response".to_owned(),
        ),
    ];
    for (encoding, text) in cases {
        assert_eq!(encoding.to_string(), text);
        assert_eq!(text.parse::<Encoding>().unwrap(), encoding);
    }
    for text in [
        "",
        "gzip",
        "Plain",
        "plain:",
        "zstd_dict",
        "zstd_dict:AB",
        "delta:x:y",
        "delta:018f0000-0000-7000-8000-000000000001",
    ] {
        assert!(text.parse::<Encoding>().is_err(), "{text}");
    }
}

#[test]
fn chunks_that_do_not_make_one_part_are_refused() {
    let full = vec![1; CHUNK_BYTES];
    let first = [vec![0; 32], full.clone()].concat();
    let zstd = Encoding::Zstd;
    let delta = Encoding::Delta { base_exchange: exchange(1), base_part: PartName::ClientRequest };
    let begin = || {
        let mut assembler = Assembler::new(10 << 20);
        assembler.push(0, false, &zstd, &first).unwrap();
        assembler
    };
    assert!(Assembler::new(1).push(1, true, &zstd, &full).is_err());
    assert!(Assembler::new(1).push(0, true, &zstd, &[0; 31]).is_err());
    assert!(Assembler::new(99).push(0, false, &zstd, &[0; 40]).is_err());
    assert!(Assembler::new(7).push(0, true, &zstd, &[0; 40]).is_err());
    assert!(Assembler::new(8).push(0, true, &zstd, &[0; 40]).is_ok());
    assert!(begin().push(0, true, &zstd, &full).is_err());
    assert!(begin().push(2, true, &zstd, &full).is_err());
    assert!(begin().push(1, false, &zstd, &full[1..]).is_err());
    assert!(begin().push(1, true, &zstd, &[]).is_err());
    assert!(begin().push(1, true, &delta, &full).is_err());
    assert!(begin().finish().is_err());
    let mut assembler = begin();
    assembler.push(1, true, &Encoding::Plain, &[2]).unwrap();
    assert!(assembler.push(2, true, &zstd, &[2]).is_err());
    assert_eq!(assembler.finish().unwrap().stream.len(), CHUNK_BYTES + 1);
}

#[test]
fn a_resent_history_costs_its_tail_only() {
    let base = text(4000);
    let mut target = base[..base.len() - 2].to_vec();
    target.extend_from_slice(b",{\"role\":\"user\",\"content\":\"go on\"}]}");
    let ops = delta(&base, &target).unwrap();
    assert!(ops.len() < 60, "{}", ops.len());
    assert_eq!(apply(&base, &ops, target.len()).unwrap(), target);
    // Edited in the middle and moved about.
    let moved = [&base[30_000..60_000], b"inserted here", &base[..30_000]].concat();
    let ops = delta(&base, &moved).unwrap();
    assert!(ops.len() < 200, "{}", ops.len());
    assert_eq!(apply(&base, &ops, moved.len()).unwrap(), moved);
    assert_eq!(delta(&noise(5000, 1), &noise(5000, 2)), None);
    assert_eq!(delta(b"", &target), None);
}

#[test]
fn repetitive_content_stays_linear() {
    let zeros = vec![0; 8 << 20];
    let mut target = zeros.clone();
    target[4 << 20] = 1;
    let started = std::time::Instant::now();
    let ops = delta(&zeros, &target).unwrap();
    assert_eq!(apply(&zeros, &ops, target.len()).unwrap(), target);
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

#[test]
fn malformed_edits_are_refused() {
    let base = b"0123456789";
    let ok = [1, 2, 3, 0, 2, b'x', b'y'];
    assert_eq!(apply(base, &ok, 5).unwrap(), b"234xy");
    assert_eq!(apply(base, &ok, 4), Err(ContentError::TooLong { limit: 4 }));
    assert_eq!(apply(base, &[], 0).unwrap(), b"");
    let cases: &[&[u8]] = &[
        &[2],
        &[0],
        &[0, 0],
        &[0, 2, b'x'],
        &[1, 0],
        &[1, 0, 0],
        &[1, 8, 3],
        &[1, 0x80, 0, 1],
        &[0, 0x81, 0x80],
        &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1],
        &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1],
        &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    ];
    for ops in cases {
        assert!(matches!(apply(base, ops, 100), Err(ContentError::Delta { .. })), "{ops:?}");
    }
}

proptest! {
    #[test]
    fn edits_lead_from_base_to_target(
        seed in any::<u64>(),
        cuts in prop::collection::vec((0_usize..8000, 0_usize..3000, any::<bool>()), 0..12),
    ) {
        let base = noise(8000, seed);
        let mut target = Vec::new();
        for (from, length, copied) in cuts {
            if copied {
                target.extend_from_slice(&base[from..(from + length).min(base.len())]);
            } else {
                target.extend_from_slice(&noise(length, from as u64 ^ seed.rotate_left(7)));
            }
        }
        if let Some(ops) = delta(&base, &target) {
            prop_assert!(ops.len() < target.len());
            prop_assert_eq!(apply(&base, &ops, target.len()).unwrap(), target);
        }
    }

    #[test]
    fn hostile_edits_do_not_panic(base in prop::collection::vec(any::<u8>(), 0..50), ops in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(out) = apply(&base, &ops, 1000) {
            prop_assert!(out.len() <= 1000);
        }
    }
}
