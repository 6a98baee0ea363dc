//! Fuzzes each parser of outside bytes for a while: seeded mutations of good inputs, on stable Rust.
//!
//! `AFFIDAVIT_FUZZ_SECONDS` (default 2) for each target, `AFFIDAVIT_FUZZ_TARGET` for one alone,
//! `AFFIDAVIT_FUZZ_SEED` for another run. A failing input is written to `target/fuzz/`, and what lies in
//! `tests/fuzz/found/<target>/` is run first, for ever.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../../fuzz/targets.rs"]
mod targets;

use targets::{TARGETS, Target};

/// No input may take longer: a parser that is worse than linear shows here.
const SLOW: Duration = Duration::from_secs(10);

/// Inputs stay below this.
const MAX_BYTES: usize = 256 << 10;

const TOKENS: &[&[u8]] = &[
    b"data: ",
    b"event: ",
    b"\n\n",
    b"\r\n",
    b"\r",
    b": ",
    b"[DONE]",
    b"\xef\xbb\xbf",
    b"null",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\u0000",
    b"\\",
    b"\"usage\":null",
    b"\"usage\":{}",
    b"\"choices\":[]",
    b"\"type\":\"response.completed\"",
    b"\"stream\":true",
    b"\"stream_options\":",
    b"-1",
    b"0",
    b"1e999",
    b"9007199254740993",
    b"18446744073709551616",
    b"0.5",
    b"true",
    b"--B\r\n",
    b"--B--",
    b"name=\"",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x7f\xff\xff\xff",
    b"\x80",
    b"PAR1",
    b"files 99999999999999999999\n",
    b"compact 65\n",
    b"range 0 18446744073709551615\n",
    b"\xe2\x80\x94 ",
    b"../",
    b"/",
    b"*",
    b"? ",
    b"- ",
    b"&a ",
    b"*a",
    b"!!",
    b"|",
    b",,",
    b"\"\"",
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn mutate(random: &mut Random, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    for _ in 0..=random.below(6) {
        let length = input.len();
        let at = random.below(length + 1);
        match random.below(10) {
            0 | 1 if length > 0 => input[at.min(length - 1)] ^= 1 << random.below(8),
            2 if length > 0 => input[at.min(length - 1)] = random.next() as u8,
            3 if length > 0 => {
                let most = 1 << random.below(12);
                let to = (at + random.below(most)).min(length);
                input.drain(at.min(to)..to);
            }
            4 if length > 0 => {
                let most = 1 << random.below(10);
                let to = (at + random.below(most)).min(length);
                let copy = input[at.min(to)..to].to_vec();
                let place = random.below(length);
                input.splice(place..place, copy);
            }
            5 | 6 => {
                let token = TOKENS[random.below(TOKENS.len())];
                input.splice(at..at, token.iter().copied());
            }
            7 => {
                let token = TOKENS[random.below(TOKENS.len())];
                let to = (at + token.len()).min(length);
                input.splice(at.min(to)..to, token.iter().copied());
            }
            8 => input.truncate(at),
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(400)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    input.truncate(MAX_BYTES);
}

/// Runs one input; why it is bad.
fn bad(target: &Target, input: &[u8]) -> Option<String> {
    let started = Instant::now();
    let ran = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    if let Err(payload) = ran {
        let text = payload.downcast_ref::<String>().cloned();
        return Some(
            text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default(),
        );
    }
    (started.elapsed() > SLOW).then(|| format!("took {:?} for {} bytes", started.elapsed(), input.len()))
}

fn report(target: &Target, input: &[u8], why: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{}-{}.bin", target.name, schemas::Sha256Hex::of(input)));
    std::fs::write(&file, input).unwrap();
    format!("{}: {why}; input in {}", target.name, file.display())
}

#[test]
fn no_parser_panics_hangs_or_contradicts_itself() {
    let variable = |name: &str| std::env::var(name).ok();
    let seconds: f64 = variable("AFFIDAVIT_FUZZ_SECONDS").and_then(|s| s.parse().ok()).unwrap_or(2.0);
    let seed: u64 = variable("AFFIDAVIT_FUZZ_SEED").and_then(|s| s.parse().ok()).unwrap_or(0x5eed);
    let only = variable("AFFIDAVIT_FUZZ_TARGET");
    let mut failures = Vec::new();
    let mut ran = 0;
    for target in TARGETS {
        if only.as_deref().is_some_and(|only| only != target.name) {
            continue;
        }
        ran += 1;
        let mut seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/found").join(target.name);
        for entry in std::fs::read_dir(found).into_iter().flatten().flatten() {
            seeds.push(std::fs::read(entry.path()).unwrap());
        }
        for input in seeds.iter().chain([&Vec::new()]) {
            if let Some(why) = bad(target, input) {
                failures.push(report(target, input, &why));
            }
        }
        let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15);
        let started = Instant::now();
        let mut inputs = 0_u64;
        // The first hundred always run, however slow the machine.
        while inputs < 100 || started.elapsed().as_secs_f64() < seconds {
            let mut input = seeds[random.below(seeds.len())].clone();
            mutate(&mut random, &mut input, &seeds);
            inputs += 1;
            if let Some(why) = bad(target, &input) {
                failures.push(report(target, &input, &why));
                break;
            }
        }
        println!(
            "{:<16} {:>4} seeds {:>9} inputs in {:.1} s",
            target.name,
            seeds.len(),
            inputs,
            started.elapsed().as_secs_f64()
        );
    }
    assert!(ran > 0, "no target is named {only:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
