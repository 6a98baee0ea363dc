//! How much is sent to a sink before it must have acknowledged it: less after each try that took too long, so that one that is
//! slow gets on.

/// Beyond this it is the sink's own affair.
const WIDEST: usize = 10_000;

/// What is on its way to a sink, and its bound.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// How many items may be on their way; `None`: as many as the sink likes.
    most: Option<usize>,
    out: usize,
}

impl Window {
    /// How many items may be sent now; at least one.
    pub(super) fn room(&self) -> usize {
        self.most.map_or(usize::MAX, |most| most.saturating_sub(self.out).max(1))
    }

    /// Nothing more is sent before what is on its way is acknowledged.
    pub(super) fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.out >= most)
    }

    pub(super) fn sends(&mut self, items: usize) {
        self.out += items;
    }

    /// All of it is acknowledged: a window that was full gets wider.
    pub(super) fn acknowledged(&mut self) {
        if self.is_full() {
            self.most = self.most.map(|most| most + most / 8 + 1).filter(|most| *most < WIDEST);
        }
        self.out = 0;
    }

    /// Nothing of it counts; where that was for want of time, half as much goes next.
    pub(super) fn failed(&mut self, for_time: bool) {
        if for_time && self.out > 0 {
            self.most = Some((self.out / 2).max(1));
        }
        self.out = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_halved_to_one_item_and_widens_to_no_bound_again() {
        let mut window = Window::default();
        assert_eq!((window.room(), window.is_full()), (usize::MAX, false));
        window.sends(256);
        window.failed(false);
        assert_eq!(window.room(), usize::MAX, "only want of time narrows it");
        let mut halved = Vec::new();
        while window.room() > 1 {
            window.sends(window.room().min(256));
            window.failed(true);
            halved.push(window.room());
        }
        assert_eq!(halved, [128, 64, 32, 16, 8, 4, 2, 1]);
        window.sends(1);
        window.failed(true);
        assert_eq!(window.room(), 1);
        window.failed(true);
        assert_eq!(window.room(), 1, "nothing was on its way");
        let mut times = 0;
        while window.room() < usize::MAX {
            window.sends(window.room());
            assert!(window.is_full());
            window.acknowledged();
            times += 1;
        }
        assert!((50..150).contains(&times), "{times}");
    }

    #[test]
    fn it_widens_only_where_it_was_full() {
        let mut window = Window { most: Some(8), out: 0 };
        window.sends(3);
        assert_eq!(window.room(), 5);
        window.acknowledged();
        assert_eq!(window.room(), 8);
        window.sends(8);
        window.acknowledged();
        assert_eq!(window.room(), 10);
    }
}
