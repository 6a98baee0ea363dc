//! Quotas of tokens and money, in fixed and sliding windows, driven to their limits by two gateways on one real Redis: what is
//! spent and reserved is never over the limit, nobody is refused room that is there, and in the end the counters are the sums of
//! what the records say.

#![allow(clippy::print_stdout, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use policies::decimal::Decimal;
use serde_json::Value;
use tests::client::{Call, send};
use tests::gateway::{Gateway, Setup};
use tests::oracle::Evidence;
use tests::provider::Provider;
use tests::services::Redis;

/// Of all stretches of the one rule: settled, reserved.
const COUNTED: &str = "local s, h = 0, 0 for _, key in ipairs(redis.call('KEYS', '{affidavit}:*:all:*')) do \
    if string.match(key, ':all:%d+$') then s = s + (redis.call('HGET', key, 's') or 0) \
    h = h + (redis.call('HGET', key, 'h') or 0) end end return {s, h}";

/// Of the stretches that begin at two times: settled and reserved together, of each.
const STRETCHES: &str = "local out = {0, 0} for _, key in ipairs(redis.call('KEYS', '{affidavit}:*:all:*')) do \
    for i = 1, 2 do if string.match(key, ':all:' .. ARGV[i] .. '$') then \
    out[i] = (redis.call('HGET', key, 's') or 0) + (redis.call('HGET', key, 'h') or 0) end end end return out";

fn numbers(said: &str) -> [u64; 2] {
    let mut numbers = said.lines().map(|line| line.trim().parse().expect("a number"));
    [(); 2].map(|()| numbers.next().expect("two numbers"))
}

/// A chat whose prompt is so many words: that and six more is what the provider says that it took.
#[derive(Clone, Copy)]
struct Chat {
    words: usize,
    max_tokens: u64,
}

impl Chat {
    fn body(self, stream: bool) -> String {
        let (prompt, max_tokens) = (vec!["a"; self.words].join(" "), self.max_tokens);
        format!(
            r#"{{"model":"gpt-4o-mini","max_tokens":{max_tokens},"stream":{stream},"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
        )
    }

    /// What QUOTAS.md says that it reserves.
    fn reserves(self, stream: bool) -> u64 {
        self.body(stream).len().div_ceil(3) as u64 + self.max_tokens
    }

    fn uses(self) -> u64 {
        self.words as u64 + 6
    }
}

/// Two gateways with one rule on one Redis.
struct Driven {
    dir: tempfile::TempDir,
    provider: Provider,
    redis: Arc<Redis>,
    gateways: [Gateway; 2],
}

impl Driven {
    async fn start(rule: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (provider, redis) = (Provider::start([]).await, Arc::new(Redis::start()));
        let rest = format!(
            "quotas:\n  store:\n    redis: {{ urls: [\"redis://{}\"], lease: 10s, timeout: 5s }}\n  rules:\n    - {{ name: r, {rule} }}\n",
            redis.address
        );
        let gateways = ["gw1", "gw2"].map(|name| {
            let setup =
                Setup { provider: provider.url(), name: name.into(), rest: rest.clone(), ..Setup::default() };
            Gateway::start(&dir.path().join(name), &setup)
        });
        Self { dir, provider, redis, gateways }
    }

    /// The `n`th call: at one gateway or the other, whole or streamed.
    async fn call(&self, chat: Chat, n: usize) -> u16 {
        let gateway = &self.gateways[n % 2];
        let body = chat.body(n / 2 % 2 == 1);
        let call = Call::post("/openai/v1/chat/completions", &gateway.key, body);
        let status = send(gateway.address, &call).await.status;
        assert!([200, 429].contains(&status), "{status}\n{}", gateway.log());
        status
    }

    /// So many calls at once, half of them streams; how many passed.
    async fn at_once(&self, chat: Chat, count: usize) -> usize {
        let all = futures_util::future::join_all((0..count).map(|n| self.call(chat, n))).await;
        all.iter().filter(|status| **status == 200).count()
    }

    /// Waits until nothing is reserved; what is settled.
    async fn settled(&self) -> u64 {
        let begun = Instant::now();
        loop {
            let [settled, held] = counted(&self.redis);
            if held == 0 {
                return settled;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{held} stay reserved");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A hundred calls at once, again and again until none of them passes; how many passed.
    async fn until_full(&self, chat: Chat) -> usize {
        let (mut passed, mut rounds) = (0, 0);
        loop {
            let more = self.at_once(chat, 100).await;
            self.settled().await;
            if more == 0 {
                println!("{passed} calls passed in {rounds} rounds of 100 at once");
                return passed;
            }
            (passed, rounds) = (passed + more, rounds + 1);
            assert!(rounds < 60, "no limit is reached: {passed} calls passed");
        }
    }

    /// Stops both; gives what each exchange took by its record, and what each refusal wanted.
    fn records(mut self, took: impl Fn(&Value) -> u64) -> (Vec<u64>, Vec<String>) {
        let (mut all, mut wanted) = (Vec::new(), Vec::new());
        for gateway in &mut self.gateways {
            assert_eq!(gateway.stop(), Some(0), "{}", gateway.log());
            let evidence = Evidence::read(gateway);
            all.extend(evidence.of_kind("outcome").map(&took));
            for refusal in evidence.of_kind("refusal") {
                assert!(
                    refusal["reason"] == "quota_exceeded" && refusal["limit"]["rule"] == "r",
                    "{refusal}"
                );
                wanted.push(refusal["limit"]["wanted"].as_str().expect("what was wanted").to_owned());
            }
            let (code, out, err) = gateway.verify(&[]);
            assert_eq!(code, 0, "{out}{err}");
        }
        assert_eq!(self.provider.seen().len(), all.len(), "who was refused was not sent on");
        drop(self.dir);
        (all, wanted)
    }
}

fn counted(redis: &Redis) -> [u64; 2] {
    numbers(&redis.cli(&["EVAL", COUNTED, "0"]))
}

/// Looks at the counter all the time; gives the most that it ever showed, settled and reserved.
struct Watched {
    ended: Arc<AtomicBool>,
    looks: JoinHandle<(u64, u32)>,
}

impl Watched {
    fn start(redis: &Arc<Redis>) -> Self {
        let (ended, redis) = (Arc::new(AtomicBool::new(false)), Arc::clone(redis));
        let is_over = Arc::clone(&ended);
        let looks = std::thread::spawn(move || {
            let (mut most, mut looks) = (0_u64, 0_u32);
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(counted(&redis).iter().sum::<u64>());
                looks += 1;
            }
            (most, looks)
        });
        Self { ended, looks }
    }

    fn end(self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        let (most, looks) = self.looks.join().expect("it looks to the end");
        println!("at most {most} were spent and reserved, by {looks} looks");
        assert!(looks > 3);
        most
    }
}

fn tokens(outcome: &Value) -> u64 {
    let count = |name: &str| outcome["usage"][name].as_u64().expect("a count");
    assert_eq!(outcome["usage"]["source"], "provider");
    count("input_tokens") + count("output_tokens")
}

fn nano(text: &str) -> u64 {
    let units = u128::try_from(Decimal::parse(text).expect("a sum").units()).expect("no debt");
    u64::try_from(units.div_ceil(1000)).expect("a small sum")
}

fn money(outcome: &Value) -> u64 {
    assert_eq!(outcome["cost"]["currency"], "USD");
    nano(outcome["cost"]["total"].as_str().expect("a sum"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis"]
async fn tokens_spent_and_reserved_are_never_over_the_limit_and_the_records_say_what_was_spent() {
    const LIMIT: u64 = 2000;
    let chat = Chat { words: 30, max_tokens: 10 };
    let driven = Driven::start(&format!("count: tokens, limit: {LIMIT}, per: 31d")).await;
    let watched = Watched::start(&driven.redis);
    let passed = driven.until_full(chat).await;
    assert!(watched.end() <= LIMIT, "over the limit");
    let settled = driven.settled().await;
    let (took, wanted) = driven.records(tokens);
    assert_eq!(
        (took.len(), settled),
        (passed, took.iter().sum::<u64>()),
        "the counter is the sum of the records"
    );
    assert!(took.iter().all(|took| *took == chat.uses()), "{took:?}");
    assert!(chat.uses() + 10 < chat.reserves(false), "what is reserved is not what is used");
    for wanted in &wanted {
        let wanted = wanted.parse::<u64>().expect("a number");
        assert!([chat.reserves(false), chat.reserves(true)].contains(&wanted), "{wanted}");
    }
    // Nobody was refused what was there.
    assert!(settled <= LIMIT && settled + chat.reserves(true).min(chat.reserves(false)) > LIMIT, "{settled}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis"]
async fn money_spent_and_reserved_is_never_over_the_limit_and_the_records_say_what_was_spent() {
    const LIMIT: &str = "0.0004";
    let driven = Driven::start(&format!("count: money, currency: USD, limit: {LIMIT}, per: 31d")).await;
    let watched = Watched::start(&driven.redis);
    let passed = driven.until_full(Chat { words: 30, max_tokens: 10 }).await;
    assert!(watched.end() <= nano(LIMIT), "over the limit");
    let settled = driven.settled().await;
    let (took, wanted) = driven.records(money);
    assert_eq!(
        (took.len(), settled),
        (passed, took.iter().sum::<u64>()),
        "the counter is the sum of the records"
    );
    let wanted = wanted.iter().map(|wanted| nano(wanted)).min().expect("refusals");
    assert!(took.iter().all(|took| *took < wanted), "what is reserved is not what is used");
    assert!(settled <= nano(LIMIT) && settled + wanted > nano(LIMIT), "{settled} {wanted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis"]
async fn what_is_spent_is_over_the_limit_only_by_what_was_used_beyond_reservations() {
    const LIMIT: u64 = 5000;
    // Words of one letter: three bytes of them are more than a token.
    let chat = Chat { words: 300, max_tokens: 1 };
    let driven = Driven::start(&format!("count: tokens, limit: {LIMIT}, per: 31d")).await;
    let watched = Watched::start(&driven.redis);
    let passed = driven.until_full(chat).await;
    let most = watched.end();
    let settled = driven.settled().await;
    let (took, wanted) = driven.records(tokens);
    assert_eq!(
        (took.len(), settled),
        (passed, took.iter().sum::<u64>()),
        "the counter is the sum of the records"
    );
    let reserved = wanted.iter().map(|wanted| wanted.parse::<u64>().expect("a number")).min();
    let reserved = reserved.expect("refusals");
    assert!(chat.uses() > reserved + 50, "{reserved}");
    // Each that passed fitted beside what the others had reserved, and what they had used by then.
    assert!(passed as u64 * reserved <= LIMIT, "{passed} passed that reserve {reserved}");
    let beyond = passed as u64 * (chat.uses() - reserved);
    assert!(most <= LIMIT + beyond && settled + chat.reserves(true) > LIMIT, "{most} {settled}");
    println!("{settled} spent of {LIMIT}, {beyond} beyond what {passed} calls had reserved");
}

const SLIDING_MS: u64 = 6000;

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    u64::try_from(now.as_millis()).expect("a time")
}

/// The counters of the stretch at hand and of the one before.
struct Seen {
    until_ms: u64,
    last: u64,
    this: u64,
}

impl Seen {
    fn read(redis: &Redis) -> Self {
        let from = now_ms() / SLIDING_MS * SLIDING_MS;
        let (before, now) = ((from - SLIDING_MS).to_string(), from.to_string());
        let [last, this] = numbers(&redis.cli(&["EVAL", STRETCHES, "0", &before, &now]));
        Self { until_ms: from + SLIDING_MS, last, this }
    }

    /// What counts then: of the last stretch the share that is less than one length ago.
    fn used(&self, now_ms: u64) -> f64 {
        let share = self.until_ms.saturating_sub(now_ms) as f64 / SLIDING_MS as f64;
        self.last as f64 * share + self.this as f64
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis"]
async fn a_sliding_window_takes_the_last_one_by_its_share_and_refuses_no_room_that_is_there() {
    const LIMIT: u64 = 2000;
    let chat = Chat { words: 60, max_tokens: 10 };
    let driven = Driven::start(&format!("count: tokens, limit: {LIMIT}, per: 6s, window: sliding")).await;
    let first = now_ms() / SLIDING_MS;
    let (mut refused, mut passed, mut alone) = (0, [0; 3], 0);
    loop {
        // What begins in one stretch ends in it: who is behind the edge counts in the stretch before.
        let left = SLIDING_MS - now_ms() % SLIDING_MS;
        if left < 1500 {
            tokio::time::sleep(Duration::from_millis(left + 10)).await;
        }
        let stretch = usize::try_from(now_ms() / SLIDING_MS - first).expect("a few");
        let Some(passed) = passed.get_mut(stretch) else { break };
        *passed += driven.at_once(chat, 20).await;
        // Whoever passed did so before this moment: its share of the last stretch was larger.
        let seen = Seen::read(&driven.redis);
        let used = seen.used(now_ms());
        assert!(used <= LIMIT as f64, "{used} of {LIMIT} are used");
        driven.settled().await;
        // One alone is refused only where there is no room for it.
        let begun = now_ms();
        let used = Seen::read(&driven.redis).used(begun);
        if driven.call(chat, alone).await == 200 {
            *passed += 1;
        } else {
            let wanted = chat.reserves(alone / 2 % 2 == 1);
            assert!(
                used + 1.0 + wanted as f64 > LIMIT as f64,
                "{wanted} was refused beside {used} of {LIMIT}"
            );
            refused += usize::from(stretch > 0);
        }
        alone += 1;
        driven.settled().await;
    }
    println!("{passed:?} calls passed in the stretches, {refused} of {alone} alone were refused");
    let settled = driven.settled().await;
    let (took, _) = driven.records(tokens);
    assert_eq!(
        (took.len(), settled),
        (passed.iter().sum::<usize>(), took.iter().sum::<u64>()),
        "the sum of the records"
    );
    // The limit was met, and what had slid out was there again.
    assert!(refused >= 3 && passed[2] >= 5, "{refused} {passed:?}");
}
