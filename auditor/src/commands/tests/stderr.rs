//! Standard error of a test: what its own thread wrote, and nobody else sees.

use std::cell::RefCell;
use std::io::{self, Write};

thread_local! {
    static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// In the place of [`io::stderr`].
pub(crate) fn stderr() -> impl Write {
    struct Stderr;

    impl Write for Stderr {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            WRITTEN.with_borrow_mut(|written| written.extend_from_slice(bytes));
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    Stderr
}

/// Takes what was written since it was last taken.
pub(crate) fn taken() -> String {
    String::from_utf8(WRITTEN.take()).unwrap()
}
