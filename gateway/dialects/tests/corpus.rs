//! Recorded provider traffic: the facts are what each recording's `expected` says, the forwarded bytes are the
//! recorded bytes, and neither depends on how the bytes are cut.
//!
//! The corpus lies beside the repository (`../shared/corpus`, or `AFFIDAVIT_CORPUS`). Without it the project's own
//! small set in `testdata/` is run. `AFFIDAVIT_LONG=1` runs every split of every stream.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use support::{Line, lines, long};

#[path = "corpus/conversations.rs"]
mod conversations;
#[path = "corpus/expected.rs"]
mod expected;
#[path = "corpus/failures.rs"]
mod failures;
#[path = "corpus/fields.rs"]
mod fields;
#[path = "corpus/splits.rs"]
mod splits;
#[path = "corpus/stripping.rs"]
mod stripping;
#[path = "corpus/translate.rs"]
mod translate;
#[path = "corpus/translated.rs"]
mod translated;

fn every_line(mut f: impl FnMut(&Line)) {
    for line in lines() {
        f(&line);
    }
}
