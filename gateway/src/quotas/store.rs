//! What a store of counters is asked and answers.

/// One counter in one stretch of time, and what is to be taken of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Take {
    /// The counter's name: rule, facts and stretch, without anything that a caller wrote.
    pub(crate) key: String,
    /// The counter of the stretch before, and how much of it counts, in millionths.
    pub(crate) before: Option<(String, u32)>,
    pub(crate) amount: u64,
    pub(crate) limit: u64,
    /// A request that does not fit is refused.
    pub(crate) refuses: bool,
    /// When the counter may be forgotten, in milliseconds since 1970; `None`: as soon as nothing is held.
    pub(crate) keep_until: Option<i64>,
    /// The counter of what is left over of its owner, without its stretch: where the caller chooses a fact of its name. Who
    /// chooses too many shares that one.
    pub(crate) owner: Option<String>,
}

/// The most counters of one owner in one stretch.
pub(crate) const MAX_OF_OWNER: usize = 1000;

impl Take {
    fn stretch(key: &str) -> &str {
        key.rsplit(':').next().unwrap_or_default()
    }

    /// The owner's counter in this stretch.
    pub(crate) fn of(&self) -> Option<String> {
        self.owner.as_ref().map(|owner| format!("{owner}:{}", Self::stretch(&self.key)))
    }

    /// The same of the stretch before.
    pub(crate) fn of_before(&self) -> Option<String> {
        let (before, _) = self.before.as_ref()?;
        self.owner.as_ref().map(|owner| format!("{owner}:{}", Self::stretch(before)))
    }

    /// Takes from the counter `name` in the place of its own, in the same stretches.
    pub(crate) fn goes_to(&mut self, name: &str) {
        self.key = format!("{name}:{}", Self::stretch(&self.key));
        let before = self.before.take();
        self.before = before.map(|(key, part)| (format!("{name}:{}", Self::stretch(&key)), part));
        self.owner = None;
    }

    /// What ends it, as the `number`th of its reservation.
    pub(crate) fn settle(&self, number: usize) -> Settle {
        Settle {
            number,
            key: self.key.clone(),
            reserved: self.amount,
            spent: 0,
            keep_until: self.keep_until,
            of: self.of(),
        }
    }
}

/// What a counter showed before anything was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Settled, with what counts of the stretch before.
    pub(crate) spent: u64,
    /// Of it, what is of the stretch before.
    pub(crate) before: u64,
    /// Reserved by exchanges under way.
    pub(crate) held: u64,
}

impl Used {
    pub(crate) fn all(self) -> u64 {
        self.spent.saturating_add(self.held)
    }

    pub(crate) fn has_room(self, take: &Take) -> bool {
        self.all().saturating_add(take.amount) <= take.limit
    }
}

/// What became of a reservation: all of it is taken, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// What each counter showed before.
    All(Vec<Used>),
    /// The first that has no room, and what each showed.
    None(usize, Vec<Used>),
}

/// What was reserved of a counter, and what it was in truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settle {
    /// Its place in the reservation, from 1.
    pub(crate) number: usize,
    pub(crate) key: String,
    pub(crate) reserved: u64,
    pub(crate) spent: u64,
    pub(crate) keep_until: Option<i64>,
    /// Its owner's counter in this stretch.
    pub(crate) of: Option<String>,
}

/// `part` millionths of `whole`, rounded up.
pub(crate) fn share(whole: u64, part: u32) -> u64 {
    let product = u128::from(whole) * u128::from(part);
    u64::try_from(product.div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
