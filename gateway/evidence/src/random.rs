//! Random bytes for salts, nonces and exchange ids, taken from the system a page at a time.
//!
//! One call of the system serves some thirty salts. Each byte is handed out once and wiped. Data keys do not come from
//! here but from the system itself.

use std::cell::RefCell;

use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroize as _;

const PAGE: usize = 1024;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { page: [0; PAGE], used: PAGE }) };
}

struct Pool {
    page: [u8; PAGE],
    used: usize,
}

/// `N` random bytes (`N` is at most 1024).
///
/// Waits where the system has none: nothing is made without randomness.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    const { assert!(N <= PAGE) };
    POOL.with_borrow_mut(|pool| {
        if PAGE - pool.used < N {
            while SystemRandom::new().fill(&mut pool.page).is_err() {
                std::thread::yield_now();
            }
            pool.used = 0;
        }
        let mut out = [0; N];
        let taken = &mut pool.page[pool.used..pool.used + N];
        out.copy_from_slice(taken);
        taken.zeroize();
        pool.used += N;
        out
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::bytes;

    #[test]
    fn no_byte_is_handed_out_twice() {
        let mut seen: HashSet<[u8; 32]> = HashSet::new();
        for _ in 0..200 {
            assert!(seen.insert(bytes::<32>()));
            assert_ne!(bytes::<12>(), [0; 12]);
        }
        assert_ne!(bytes::<1024>(), [0; 1024]);
    }
}
