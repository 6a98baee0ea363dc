//! `content.json`: a part in every encoding, encrypted and not, and edits that no reader may take.

use schemas::Sha256Hex;
use schemas::content::{
    self, Assembler, DataKey, Dictionary, Encoding, KeyId, Row, RowMeta, Salt, commitment, cut,
    open_row_with, seal_row_with,
};
use schemas::record::PartName;
use serde_json::{Value, json};

use super::sample::{exchange, origin};

const DATA_KEY: [u8; 32] = [0x42; 32];

fn text(lines: usize) -> Vec<u8> {
    (0..lines)
        .flat_map(|i| format!("{{\"role\":\"user\",\"content\":\"line {}\"}}\n", i * i % 97).into_bytes())
        .collect()
}

fn dictionary() -> Vec<u8> {
    // A raw dictionary: any bytes do.
    b"{\"role\":\"user\",\"content\":\"line {\"role\":\"assistant\",\"content\":\"".to_vec()
}

struct Case {
    name: &'static str,
    encoding: Encoding,
    encrypted: bool,
    content: Vec<u8>,
    stream: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let base = text(60);
    let target = [&base[..base.len() - 1], b",{\"role\":\"user\",\"content\":\"go on\"}\n"].concat();
    let edits = content::delta(&base, &target).unwrap();
    let delta = Encoding::Delta { base_exchange: exchange(1), base_part: PartName::ClientRequest };
    let dict = Encoding::ZstdDict { dictionary: Sha256Hex::of(&dictionary()) };
    let whole = |name, encoding, encrypted, content: Vec<u8>| Case {
        name,
        encoding,
        encrypted,
        stream: content.clone(),
        content,
    };
    vec![
        whole("base", Encoding::Zstd, true, base),
        Case { name: "delta of base", encoding: delta, encrypted: true, content: target, stream: edits },
        whole("plain", Encoding::Plain, true, b"short".to_vec()),
        whole("zstd that does not pay", Encoding::Zstd, true, b"abcdefgh".to_vec()),
        whole("zstd with dictionary", dict, true, text(3)),
        whole("empty", Encoding::Zstd, true, vec![]),
        whole("three chunks", Encoding::Zstd, true, vec![b'a'; 2 * content::CHUNK_BYTES + 1]),
        whole("not encrypted", Encoding::Zstd, false, text(20)),
    ]
}

fn key_id() -> KeyId {
    KeyId { origin: origin(), page: 0, slot: 0 }
}

#[test]
fn rows_are_written_as_the_vectors_say() {
    let dictionaries = [Dictionary::new(&dictionary()).unwrap()];
    let mut made = Vec::new();
    for (i, case) in cases().into_iter().enumerate() {
        let salt = Salt::from_bytes([i as u8 + 1; 32]);
        let (id, key) = (key_id(), DataKey::from_bytes(DATA_KEY));
        let rows: Vec<_> = cut(&salt, &case.stream)
            .map(|chunk| {
                let meta = RowMeta {
                    position: 2,
                    exchange: exchange(i as u32 + 1),
                    part: PartName::ClientRequest,
                    chunk: chunk.chunk,
                    last: chunk.last,
                    encoding: case.encoding.clone(),
                };
                let key = case.encrypted.then_some((&id, &key));
                let row = seal_row_with(&origin(), &meta, key, &dictionaries, &chunk.plaintext).unwrap();
                json!({"chunk": row.chunk, "last": row.last, "encoding": row.encoding.to_string(),
                       "key_id": row.key_id.map(|id| id.to_string()), "data_base64": super::base64(&row.data)})
            })
            .collect();
        // A content of one byte over and over is not written out.
        let content = match case.content.first() {
            Some(byte) if case.content.len() > 1 << 20 => json!({"byte": byte, "times": case.content.len()}),
            _ => json!({"base64": super::base64(&case.content)}),
        };
        made.push(json!({"name": case.name, "exchange": exchange(i as u32 + 1), "part": "client_request",
            "salt": hex::encode(salt.as_bytes()), "content": content, "length": case.content.len(),
            "commitment": commitment(&salt, &case.content), "rows": rows}));
    }
    let refused: Vec<_> =
        refused_edits().iter().map(|(why, ops)| json!({"why": why, "edits": hex::encode(ops)})).collect();
    super::golden_json(
        "content.json",
        &json!({"origin": origin(), "key_id": key_id().to_string(), "data_key": hex::encode(DATA_KEY),
            "nonce_key": hex::encode(*DataKey::from_bytes(DATA_KEY).nonce_key()),
            "dictionary_base64": super::base64(&dictionary()), "parts": made,
            "refused_edits_of_a_base_of_10_bytes": refused}),
    );
}

fn refused_edits() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("unknown edit", vec![2]),
        ("insert without length", vec![0]),
        ("insert of nothing", vec![0, 0]),
        ("insert longer than the edits", vec![0, 2, b'x']),
        ("copy without length", vec![1, 0]),
        ("copy of nothing", vec![1, 0, 0]),
        ("copy beyond the base", vec![1, 8, 3]),
        ("varint not in its shortest form", vec![1, 0x80, 0, 1]),
        ("varint of 2^64", vec![0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2, 1]),
    ]
}

fn content_of(part: &Value) -> Vec<u8> {
    match part["content"]["times"].as_u64() {
        Some(times) => vec![part["content"]["byte"].as_u64().unwrap() as u8; times as usize],
        None => super::unbase64(&part["content"]["base64"]),
    }
}

#[test]
fn rows_of_the_vectors_are_read() {
    let vectors = super::read_json("content.json");
    let dictionaries = [Dictionary::new(&super::unbase64(&vectors["dictionary_base64"])).unwrap()];
    let id: KeyId = vectors["key_id"].as_str().unwrap().parse().unwrap();
    let mut bytes = [0; 32];
    hex::decode_to_slice(vectors["data_key"].as_str().unwrap(), &mut bytes).unwrap();
    let key = DataKey::from_bytes(bytes);
    let mut base = None;
    for part in vectors["parts"].as_array().unwrap() {
        let wanted = content_of(part);
        let mut assembler = Assembler::new(wanted.len().max(1 << 20));
        for row in part["rows"].as_array().unwrap() {
            let row = Row {
                position: 2,
                exchange: part["exchange"].as_str().unwrap().parse().unwrap(),
                part: PartName::parse(part["part"].as_str().unwrap()).unwrap(),
                chunk: row["chunk"].as_u64().unwrap() as u32,
                last: row["last"].as_bool().unwrap(),
                encoding: row["encoding"].as_str().unwrap().parse().unwrap(),
                key_id: row["key_id"].as_str().map(|id| id.parse().unwrap()),
                data: super::unbase64(&row["data_base64"]),
            };
            let plain = open_row_with(&origin(), &row, Some((&id, &key)), &dictionaries).unwrap();
            assembler.push(row.chunk, row.last, &row.encoding, &plain).unwrap();
        }
        let assembled = assembler.finish().unwrap();
        assert_eq!(hex::encode(assembled.salt.as_bytes()), part["salt"].as_str().unwrap());
        let salt = assembled.salt;
        let content = assembled.content(base.as_deref(), wanted.len()).unwrap();
        assert!(content == wanted, "{}", part["name"]);
        assert_eq!(commitment(&salt, &content).to_string(), part["commitment"].as_str().unwrap());
        assert_eq!(content.len() as u64, part["length"].as_u64().unwrap());
        base = base.or(Some(content));
    }
    for edits in vectors["refused_edits_of_a_base_of_10_bytes"].as_array().unwrap() {
        let ops = hex::decode(edits["edits"].as_str().unwrap()).unwrap();
        assert!(content::apply(b"0123456789", &ops, 100).is_err(), "{}", edits["why"]);
    }
}
