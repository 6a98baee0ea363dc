//! Which stretch of time a count belongs to.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::config::{Calendar, Count, QuotaRule, WindowKind};

/// The stretches of a rule.
#[derive(Debug, Clone)]
pub(crate) enum Window {
    /// What is under way, without an end.
    Open,
    /// Stretches of so many milliseconds.
    Fixed(i64),
    /// The same, with what the last one used by its share.
    Sliding(i64),
    /// Of the calendar.
    Calendar(Calendar, TimeZone),
}

/// One stretch, in milliseconds since 1970-01-01 UTC; `until` is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) from: i64,
    pub(crate) until: i64,
    /// How much of the one before counts, in millionths.
    pub(crate) before: u32,
}

const MILLION: i64 = 1_000_000;

impl Window {
    pub(crate) fn of(rule: &QuotaRule) -> Self {
        if rule.count == Some(Count::Concurrency) {
            return Self::Open;
        }
        if let Some(calendar) = rule.calendar {
            // It was checked when the configuration was read.
            let zone = rule.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok());
            return Self::Calendar(calendar, zone.unwrap_or(TimeZone::UTC));
        }
        let ms = rule.per.map_or(60_000, |per| i64::try_from(per.as_millis()).unwrap_or(i64::MAX).max(1));
        match rule.window.unwrap_or_default() {
            WindowKind::Fixed => Self::Fixed(ms),
            WindowKind::Sliding => Self::Sliding(ms),
        }
    }

    /// The stretch of `now_ms`; `None` for what has no end.
    pub(crate) fn at(&self, now_ms: i64) -> Option<Stretch> {
        match self {
            Self::Open => None,
            Self::Fixed(ms) => Some(fixed(now_ms, *ms)),
            Self::Sliding(ms) => {
                let stretch = fixed(now_ms, *ms);
                let left = i128::from(stretch.until - now_ms) * i128::from(MILLION) / i128::from(*ms);
                let before = u32::try_from(left.clamp(0, i128::from(MILLION))).unwrap_or_default();
                Some(Stretch { before, ..stretch })
            }
            Self::Calendar(calendar, zone) => {
                // A clock out of all calendars counts by hours.
                Some(of_calendar(*calendar, zone, now_ms).unwrap_or_else(|| fixed(now_ms, 3_600_000)))
            }
        }
    }

    /// Milliseconds until `amount` fits below `limit` beside what is used: of this `stretch`, and what counts now of the one
    /// before it. Where it fits already, or no window slides, until the stretch ends.
    pub(crate) fn frees_ms(
        &self,
        stretch: Stretch,
        now_ms: i64,
        (used, before): (u64, u64),
        (amount, limit): (u64, u64),
    ) -> i64 {
        let left = stretch.until.saturating_sub(now_ms).max(0);
        let over = used.saturating_add(before).saturating_add(amount).saturating_sub(limit);
        if over == 0 || !matches!(self, Self::Sliding(_)) {
            return left;
        }
        let part = |ms: i64, over: u64, all: u64| {
            let product = u128::try_from(ms).unwrap_or_default() * u128::from(over);
            i64::try_from(product.div_ceil(u128::from(all.max(1)))).unwrap_or(ms)
        };
        // What the stretch before used counts less from moment to moment, and evenly.
        if before >= over {
            return part(left, over, before);
        }
        // From its end on so does what this one used, and nothing of the one before counts any more.
        let over = used.saturating_sub(limit.saturating_sub(amount)).min(used);
        left.saturating_add(part(stretch.until.saturating_sub(stretch.from), over, used))
    }

    /// Its length in whole seconds, as `ratelimit-policy` has it; months have the one at hand.
    pub(crate) fn seconds(&self, stretch: Option<Stretch>) -> Option<i64> {
        stretch.map(|stretch| (stretch.until - stretch.from).max(1000) / 1000)
    }
}

fn fixed(now_ms: i64, ms: i64) -> Stretch {
    let from = now_ms - now_ms.rem_euclid(ms);
    Stretch { from, until: from.saturating_add(ms), before: 0 }
}

fn of_calendar(calendar: Calendar, zone: &TimeZone, now_ms: i64) -> Option<Stretch> {
    let today = Timestamp::from_millisecond(now_ms).ok()?.to_zoned(zone.clone()).date();
    let (from, until) = match calendar {
        Calendar::Day => (today, today.checked_add(1.day()).ok()?),
        Calendar::Week => {
            let since = i64::from(today.weekday().since(Weekday::Monday));
            let monday = today.checked_sub(since.days()).ok()?;
            (monday, monday.checked_add(7.days()).ok()?)
        }
        Calendar::Month => {
            let first = today.first_of_month();
            (first, first.checked_add(1.month()).ok()?)
        }
    };
    let ms = |date: jiff::civil::Date| Some(date.to_zoned(zone.clone()).ok()?.timestamp().as_millisecond());
    Some(Stretch { from: ms(from)?, until: ms(until)?, before: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn stretches_of_the_calendar_begin_at_midnight_of_their_zone() {
        let table = [
            (Calendar::Day, "UTC", "2026-11-22T10:00:00Z", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"),
            (Calendar::Week, "UTC", "2026-11-22T10:00:00Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
            (Calendar::Month, "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            // A day of 25 hours, and one that begins before UTC's.
            (
                Calendar::Day,
                "Europe/Vienna",
                "2026-10-25T10:00:00Z",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
            ),
            (
                Calendar::Month,
                "Asia/Tokyo",
                "2026-10-31T16:00:00Z",
                "2026-10-31T15:00:00Z",
                "2026-11-30T15:00:00Z",
            ),
        ];
        for (calendar, zone, now, from, until) in table {
            let window = Window::Calendar(calendar, TimeZone::get(zone).unwrap());
            let stretch = window.at(ms(now)).unwrap();
            assert_eq!((stretch.from, stretch.until), (ms(from), ms(until)), "{zone} {now}");
        }
    }

    #[test]
    fn a_sliding_window_has_room_when_its_weighted_sum_says_so() {
        let (length, limit) = (10_000, 10);
        let (sliding, fixed) = (Window::Sliding(length), Window::Fixed(length));
        let share = |whole, now| super::super::store::share(whole, sliding.at(now).unwrap().before);
        // Of this stretch, of the whole one before, wanted, and when.
        let table = [
            (10, 0, 1, 0, 11_000),
            (10, 0, 1, 9_000, 2_000),
            (10, 0, 10, 0, 20_000),
            (7, 0, 5, 4_000, 6_000 + 2_858),
            (0, 10, 1, 0, 1_000),
            (2, 10, 3, 0, 5_000),
            (9, 10, 2, 5_000, 5_000 + 1_112),
            (3, 0, 4, 4_000, 6_000),
        ];
        for (used, last, amount, now, wanted) in table {
            let seen = |at: i64| {
                let (of_this, last) = match at / length {
                    0 => (used, last),
                    1 => (0, used),
                    _ => (0, 0),
                };
                of_this + share(last, at)
            };
            let stretch = sliding.at(now).unwrap();
            let counts = (used, share(last, now));
            let frees = sliding.frees_ms(stretch, now, counts, (amount, limit));
            assert_eq!(frees, wanted, "{used} {last} {amount} {now}");
            assert!(seen(now + frees) + amount <= limit, "{used} {last} {amount} {now}");
            let fits = seen(now) + amount <= limit;
            assert!(fits || seen(now + frees - 2) + amount > limit, "{used} {last} {amount} {now}");
            assert_eq!(fixed.frees_ms(stretch, now, counts, (amount, limit)), length - now);
        }
        let stretch = sliding.at(0).unwrap();
        assert_eq!(sliding.frees_ms(stretch, 0, (5, 0), (11, 10)), 20_000, "it never fits");
        assert_eq!(sliding.frees_ms(stretch, 0, (0, 0), (11, 10)), 10_000);
        let most = u64::MAX;
        assert!(sliding.frees_ms(stretch, 0, (most, most), (most, most)) > 0);
    }

    #[test]
    fn a_sliding_stretch_counts_the_one_before_by_what_is_left() {
        let window = Window::Sliding(60_000);
        let before = |ms| window.at(ms).unwrap().before;
        assert_eq!((before(60_000), before(75_000), before(119_999)), (1_000_000, 750_000, 16));
        assert_eq!(
            Window::Fixed(60_000).at(75_000),
            Some(Stretch { from: 60_000, until: 120_000, before: 0 })
        );
        assert_eq!(Window::Open.at(5), None);
        for now in [i64::MIN / 2, -1, 0, i64::MAX / 2] {
            for window in
                [Window::Fixed(1000), Window::Sliding(1), Window::Calendar(Calendar::Week, TimeZone::UTC)]
            {
                let stretch = window.at(now).unwrap();
                assert!(stretch.from <= now && now < stretch.until, "{now}");
            }
        }
    }
}
