//! The format as others see it: `FORMAT.md` and the golden vectors of `testdata/v1`.
//!
//! `BLESS=1 cargo test -p schemas --test format` writes both anew (then run it without): allowed while
//! version 1 is a draft.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "tests")]

mod content;
mod leaves;
mod promise;
mod registry;
mod sample;
mod ship;
mod store;
mod text;
mod tree;

use std::path::PathBuf;

/// Whether files are to be written instead of compared.
fn bless() -> bool {
    std::env::var_os("BLESS").is_some()
}

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/v1")).join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(testdata(name)).unwrap_or_else(|error| std::panic::panic_any(format!("{name}: {error}")))
}

/// Holds a vector against what the code makes today.
fn golden(name: &str, made: &[u8]) {
    let path = testdata(name);
    if bless() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if std::fs::read(&path).ok().as_deref() != Some(made) {
            std::fs::write(&path, made).unwrap();
        }
        return;
    }
    let found = read(name);
    let same = found.iter().zip(made).take_while(|(a, b)| a == b).count();
    assert!(
        found == made,
        "{name} differs from byte {same} on ({} and {} bytes); `BLESS=1` writes it anew",
        found.len(),
        made.len()
    );
}

fn golden_json(name: &str, made: &serde_json::Value) {
    let mut text = serde_json::to_string_pretty(made).unwrap();
    text.push('\n');
    golden(name, text.as_bytes());
}

fn read_json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&read(name)).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn unbase64(text: &serde_json::Value) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap()
}
