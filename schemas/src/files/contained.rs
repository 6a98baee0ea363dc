//! Decoders that are not ours, run so that whatever they meet in a stranger's bytes stays a fault.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

thread_local! {
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// What `decode` gives; `None` where it broke.
pub(crate) fn contained<T>(decode: impl FnOnce() -> T) -> Option<T> {
    WITHIN.set(true);
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    WITHIN.set(false);
    decoded.ok()
}

/// For a program's `main`: a decoder that breaks on a stranger's bytes is told as a fault of the file, and not printed
/// as a panic of the program. Every other panic is printed as before.
pub fn hush_decoders() {
    let print = take_hook();
    set_hook(Box::new(move |panic| {
        if !WITHIN.get() {
            print(panic);
        }
    }));
}
