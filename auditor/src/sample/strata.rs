//! How many of the sample fall to each stratum.

/// One to each stratum; the rest in proportion to what each then has left, rounded down, and what rounding leaves to the
/// largest remainders, the earlier stratum first where they are equal. All of a population that is no larger than `n`.
///
/// `None` where there are more strata than `n`.
pub fn allocate(n: u64, sizes: &[u64]) -> Option<Vec<u64>> {
    let all: u64 = sizes.iter().sum();
    if all <= n {
        return Some(sizes.to_vec());
    }
    let strata = sizes.iter().filter(|size| **size > 0).count() as u64;
    let rest = u128::from(n.checked_sub(strata)?);
    let left = u128::from(all - strata);
    let mut remainders = Vec::with_capacity(sizes.len());
    let mut given: Vec<u64> = Vec::with_capacity(sizes.len());
    for (index, size) in sizes.iter().enumerate() {
        let share = rest * u128::from(size.saturating_sub(1));
        // Below the stratum's size, since `rest < left`.
        let whole = u64::try_from(share.checked_div(left)?).ok()?;
        given.push(whole + u64::from(*size > 0));
        remainders.push((std::cmp::Reverse(share % left), index));
    }
    remainders.sort_unstable();
    let missing = n.saturating_sub(given.iter().sum());
    for (_, index) in remainders.into_iter().take(usize::try_from(missing).ok()?) {
        if let Some(count) = given.get_mut(index) {
            *count += 1;
        }
    }
    Some(given)
}

/// Systematic selection over units of money: the points `start + i * total`, for `i` below `n`, on a line on which each
/// item is `n` times as long as its value. An item that is worth an interval (`total / n`) or more is always hit.
#[derive(Debug, Clone)]
pub struct Units {
    n: u128,
    total: u128,
    next: u128,
    /// Where the next item begins.
    at: u128,
}

impl Units {
    /// `None` for a total that is too large to be counted, or nothing.
    pub fn new(n: u64, total: u128, start: u128) -> Option<Self> {
        let n = u128::from(n);
        // The last point, and a step beyond it, must be countable.
        total.checked_mul(n.checked_add(2)?)?;
        (total > 0 && start < total).then_some(Self { n, total, next: start, at: 0 })
    }

    /// How many points fall on the next item.
    pub fn hits(&mut self, value: u128) -> u64 {
        let end = self.at.saturating_add(self.n.saturating_mul(value));
        self.at = end;
        let mut hits = 0;
        while self.next < end {
            hits += 1;
            self.next += self.total;
        }
        hits
    }
}
