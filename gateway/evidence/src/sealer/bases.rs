//! Recent parts, to write later ones as edits of them: agents resend their whole history with each turn.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use schemas::record::PartName;
use schemas::{ExchangeId, Identifier};

/// Bytes of parts that are kept.
const KEPT_BYTES: usize = 48 << 20;
/// Parts above this are not kept and not written as edits.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// Parts below this are not worth it.
pub(super) const MIN_BYTES: usize = 512;
/// Candidates that are looked at for one part.
const LOOKED_AT: usize = 64;
/// Edits of edits of edits: at most this deep (the format allows 256). A part that would go deeper is written whole, and
/// the next ones go on from it.
const MAX_DEPTH: u32 = 192;
/// Turns of a conversation that go on from one another before one goes on from the first of them: so the depth grows
/// with the digits of the turn's number, not with the number, and reading one part back stays cheap. A step costs what
/// these turns added once more: stored is at most twice (for long ones three times) what was new.
const STRIDE: u32 = 32;
/// A common beginning of at least this makes another exchange's part a candidate.
const MIN_PREFIX: usize = 128;

/// Content that edits go back to is at most this much older than they are, microseconds by the seals' times: content files are
/// kept so much longer than their retention class says, so that every part can be put together until its own time is over.
pub(super) const SPAN_US: i64 = schemas::content::MAX_DELTA_SPAN_US;

/// A part that others may refer to: of the same data key (or none) and retention class.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) key: Option<Identifier>,
    pub(super) class: String,
    pub(super) exchange: ExchangeId,
    pub(super) part: PartName,
    pub(super) content: Bytes,
    pub(super) chain: Chain,
}

impl Base {
    fn group(&self) -> Group {
        (self.key.clone(), self.class.clone())
    }
}

/// Where a part stands among the parts that it was made from.
#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    /// Edits to apply to have it: 0 where it is stored whole.
    pub(super) depth: u32,
    /// Turns since the one that is stored whole.
    turn: u32,
    /// The time of the seal of the batch that the one stored whole is in.
    oldest_us: i64,
    /// The latest turns before it, or itself, whose number is a multiple of [`STRIDE`], and of its square.
    steps: [Option<(ExchangeId, PartName)>; 2],
}

/// A base and the batch that holds it.
#[derive(Debug)]
struct Kept {
    batch: u64,
    base: Base,
}

/// Parts may refer to one another that have one data key (or none) and one retention class.
type Group = (Option<Identifier>, String);

#[derive(Debug, Default)]
pub(super) struct Bases {
    /// Newest last.
    kept: VecDeque<Kept>,
    /// The number of the oldest that is kept.
    first: u64,
    /// The numbers of each group's parts, newest last: where each exchange has its own key there are as many groups as
    /// exchanges, and a look at all parts would cost more than all the rest of sealing.
    groups: HashMap<Group, VecDeque<u64>>,
    bytes: usize,
    /// The batch that is being built.
    batch: u64,
    /// The time of its seal.
    sealed_us: i64,
}

impl Bases {
    /// A batch is built from its beginning, to be sealed at `sealed_us`. Where an earlier try at it failed, what that try
    /// took in is forgotten: a part must never be written as edits of itself, or of a part that was not stored.
    pub(super) fn begin(&mut self, batch: u64, sealed_us: i64) {
        while let Some(newest) = self.kept.pop_back_if(|kept| kept.batch >= batch) {
            self.left(&newest.base, VecDeque::pop_back);
        }
        self.batch = batch;
        self.sealed_us = sealed_us;
    }

    /// Whether what a part goes back to will be kept as long as a part of this batch.
    fn outlives(&self, base: &Base) -> bool {
        self.sealed_us.saturating_sub(base.chain.oldest_us) <= SPAN_US
    }

    /// The oldest or the newest part is kept no more.
    fn left(&mut self, base: &Base, take: fn(&mut VecDeque<u64>) -> Option<u64>) {
        self.bytes -= base.content.len();
        let group = base.group();
        if let Some(numbers) = self.groups.get_mut(&group) {
            take(numbers);
            if numbers.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// The parts of a group, newest first.
    fn of_group(&self, group: &Group) -> impl Iterator<Item = &Base> {
        let numbers = self.groups.get(group).into_iter().flatten().rev();
        numbers.filter_map(|number| {
            let at = usize::try_from(number - self.first).ok()?;
            self.kept.get(at).map(|kept| &kept.base)
        })
    }

    /// The best part to write a part's content as edits of, and those edits; `like.chain` becomes what it is then.
    pub(super) fn delta(&self, like: &mut Base) -> Option<(&Base, Vec<u8>)> {
        like.chain = Chain { oldest_us: self.sealed_us, ..Chain::default() };
        let found = self.nearest(like).and_then(|nearest| self.edits(nearest, like));
        let turn = like.chain.turn;
        let own = (like.exchange.clone(), like.part);
        for (step, every) in like.chain.steps.iter_mut().zip([STRIDE, STRIDE * STRIDE]) {
            if turn.is_multiple_of(every) {
                *step = Some(own.clone());
            }
        }
        found
    }

    /// The edits that make `like` from `nearest`, or from the turn a step back, where one is due.
    fn edits<'a>(&'a self, nearest: &'a Base, like: &mut Base) -> Option<(&'a Base, Vec<u8>)> {
        let turn = nearest.chain.turn + 1;
        let [short, long] = &nearest.chain.steps;
        let group = like.group();
        let back = |step: &Option<(ExchangeId, PartName)>, every| match step {
            Some((exchange, part)) if turn.is_multiple_of(every) => {
                self.of_group(&group).find(|base| base.exchange == *exchange && base.part == *part)
            }
            _ => None,
        };
        // The longest step that is due and of which at least half comes again.
        let chosen = [back(long, STRIDE * STRIDE), back(short, STRIDE), Some(nearest)].into_iter().flatten();
        let (base, ops) = chosen
            .filter(|base| base.chain.depth < MAX_DEPTH && self.outlives(base))
            .find_map(|base| Some((base, schemas::content::delta(&base.content, &like.content)?)))?;
        let steps = nearest.chain.steps.clone();
        like.chain = Chain { depth: base.chain.depth + 1, turn, oldest_us: base.chain.oldest_us, steps };
        Some((base, ops))
    }

    /// The part that begins like this one: the turn before, mostly.
    fn nearest(&self, like: &Base) -> Option<&Base> {
        if like.content.len() < MIN_BYTES {
            return None;
        }
        let mut best: Option<(&Base, usize)> = None;
        for base in self.of_group(&like.group()).take(LOOKED_AT).filter(|base| self.outlives(base)) {
            let prefix = common_prefix(&base.content, &like.content);
            if base.exchange != like.exchange && prefix < MIN_PREFIX {
                continue;
            }
            // Of equals the first: the newest.
            if best.is_none_or(|(_, longest)| prefix > longest) {
                best = Some((base, prefix));
            }
            // Nearly all of it comes again: this is the turn before.
            if prefix >= base.content.len() / 8 * 7 {
                break;
            }
        }
        best.map(|(best, _)| best)
    }

    /// Takes a part in, and lets the oldest go.
    pub(super) fn keep(&mut self, base: Base) {
        if base.content.len() < MIN_BYTES || base.content.len() > MAX_BYTES {
            return;
        }
        self.bytes += base.content.len();
        let number = self.first + self.kept.len() as u64;
        self.groups.entry(base.group()).or_default().push_back(number);
        self.kept.push_back(Kept { batch: self.batch, base });
        while self.bytes > KEPT_BYTES {
            let Some(gone) = self.kept.pop_front() else { return };
            self.first += 1;
            self.left(&gone.base, VecDeque::pop_front);
        }
    }
}

/// How many bytes two parts have in common at their start.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 1024;
    let steps = a.chunks_exact(STEP).zip(b.chunks_exact(STEP)).take_while(|(a, b)| a == b).count();
    let from = steps * STEP;
    let rest = a.iter().skip(from).zip(b.iter().skip(from));
    from + rest.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use schemas::Sha256Hex;

    fn base(n: u8, key: &str, content: &[u8]) -> Base {
        Base {
            key: Identifier::new(key).ok(),
            class: "standard".into(),
            exchange: ExchangeId::new(format!("00000000-0000-7000-8000-0000000000{n:02x}")).unwrap(),
            part: PartName::ClientRequest,
            content: Bytes::copy_from_slice(content),
            chain: Chain::default(),
        }
    }

    #[test]
    fn the_common_beginning_is_counted_to_the_byte() {
        let long: Vec<u8> = (0..5000_u32).map(|i| (i % 251) as u8).collect();
        for at in [0, 1, 1023, 1024, 1025, 4999] {
            let mut other = long.clone();
            other[at] ^= 1;
            assert_eq!(common_prefix(&long, &other), at);
            assert_eq!(common_prefix(&long, &long[..at]), at);
        }
        assert_eq!(common_prefix(&long, &long), 5000);
    }

    #[test]
    fn the_longest_beginning_under_the_same_key_is_the_base() {
        let text: Vec<u8> = (0..4000_u32).flat_map(|i| i.to_le_bytes()).collect();
        let mut bases = Bases::default();
        bases.keep(base(1, "k1", &text[..2000]));
        bases.keep(base(2, "k1", &text[..8000]));
        bases.keep(base(3, "k2", &text));
        let (best, ops) = bases.delta(&mut base(4, "k1", &text)).unwrap();
        assert_eq!(best.exchange, base(2, "k1", b"").exchange);
        assert_eq!(schemas::content::apply(&best.content, &ops, 1 << 20).unwrap(), text);
        assert!(bases.delta(&mut base(5, "k3", &text)).is_none());
    }

    #[test]
    fn a_long_conversation_stays_shallow_and_is_stored_at_most_three_times() {
        let mut bases = Bases::default();
        let mut history = Vec::new();
        let (mut deepest, mut stored) = (0, 0);
        for turn in 0..1100_u32 {
            history
                .extend((0..4_u32).flat_map(|i| Sha256Hex::of(&[turn, i].map(u32::to_le_bytes).concat()).0));
            let mut part = base(0, "k1", &history);
            part.exchange = ExchangeId::new(format!("00000000-0000-7000-8000-{turn:012x}")).unwrap();
            stored += match bases.delta(&mut part) {
                Some((from, ops)) => {
                    let content = schemas::content::apply(&from.content, &ops, 4 << 20).unwrap();
                    assert_eq!(content, part.content);
                    ops.len()
                }
                None => part.content.len(),
            };
            deepest = deepest.max(part.chain.depth);
            bases.keep(part);
        }
        assert!(deepest <= MAX_DEPTH / 3 * 2, "{deepest} edits");
        assert!(stored < history.len() * 3, "{stored} of {}", history.len());
    }

    #[test]
    fn edits_go_back_to_nothing_that_is_a_day_older() {
        let mut bases = Bases::default();
        let mut history: Vec<u8> = (0..2000_u32).flat_map(|i| i.to_le_bytes()).collect();
        let (mut whole, mut latest_whole) = (Vec::new(), 0);
        // A turn an hour, over four days.
        for hour in 0..96_i64 {
            let now = hour * 3600 * 1_000_000;
            bases.begin(hour as u64, now);
            history.extend((hour as u32).to_le_bytes());
            let mut part = base(0, "k1", &history);
            part.exchange = ExchangeId::new(format!("00000000-0000-7000-8000-{hour:012x}")).unwrap();
            if bases.delta(&mut part).is_none() {
                whole.push(hour);
                latest_whole = now;
            }
            assert!(now - latest_whole <= SPAN_US);
            assert_eq!(part.chain.oldest_us, latest_whole);
            bases.keep(part);
        }
        assert_eq!(whole, [0, 25, 50, 75]);
    }

    #[test]
    fn what_a_failed_try_took_in_is_forgotten() {
        let text: Vec<u8> = (0..4000_u32).flat_map(|i| i.to_le_bytes()).collect();
        let mut bases = Bases::default();
        bases.begin(0, 0);
        bases.keep(base(1, "k1", &text[..12_000]));
        bases.begin(1, 0);
        bases.keep(base(2, "k1", &text));
        // The batch is built again: its own part is no base of itself, the stored one still is.
        bases.begin(1, 0);
        let (from, _) = bases.delta(&mut base(2, "k1", &text)).unwrap();
        assert_eq!(from.exchange, base(1, "k1", b"").exchange);
        assert_eq!(bases.bytes, 12_000);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut bases = Bases::default();
        for n in 0..40 {
            bases.keep(base(n, "k1", &vec![n; 3 << 20]));
        }
        assert!(bases.bytes <= KEPT_BYTES);
        assert_eq!(bases.bytes, bases.kept.iter().map(|kept| kept.base.content.len()).sum::<usize>());
        let group = base(0, "k1", b"").group();
        let found: Vec<u8> = bases.of_group(&group).map(|base| base.content[0]).collect();
        assert_eq!(found, (0..40).rev().take(16).collect::<Vec<u8>>());
        bases.begin(0, 0);
        assert!(bases.groups.is_empty() && bases.bytes == 0);
    }
}
