//! Writes a synthetic quarter into a folder, for benchmarks and for trying things by hand.

use std::path::PathBuf;

use clap::Parser;
use tests::quarter::{Plan, Quarter};

/// A quarter of records that three gateways would have written, with known violations.
#[derive(Parser)]
struct Arguments {
    /// The folder: store, trust file and registers go into it.
    folder: PathBuf,
    /// How many exchanges.
    #[arg(long, default_value_t = 100_000)]
    exchanges: u64,
    /// How often each violation is planted.
    #[arg(long, default_value_t = 50)]
    each: u64,
    /// What the chances are drawn from.
    #[arg(long, default_value_t = 3)]
    seed: u64,
}

fn main() {
    let Arguments { folder, exchanges, each, seed } = Arguments::parse();
    let quarter = Quarter::make(&folder, Plan { exchanges, each, seed });
    let seconds = quarter.took.as_secs_f64();
    eprintln!("{exchanges} exchanges, {} records, {} bytes, {seconds:.1} s", quarter.records, quarter.bytes);
}
