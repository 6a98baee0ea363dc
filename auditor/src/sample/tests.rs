use std::collections::BTreeMap;

use proptest::prelude::*;
use schemas::{Origin, Sha256Hex};

use super::beacon::Beacon;
use super::check;
use super::draw::{Count, Drawn, plan};
use super::population::Item;
use super::seed::{self, Head, Parameters};
use super::strata::{Units, allocate};
use crate::decimal::Decimal;
use crate::time::SECOND;

const ORIGIN: &str = "acme/gw1/20260921t133320z-00000001";

fn head() -> Head {
    let origin = Origin::new(ORIGIN).unwrap();
    Head { origin, size: 400, root: Sha256Hex::of(b"root"), sealed_at: 1_790_000_000 * SECOND }
}

fn parameters(n: u64, by: &[&str], by_value: bool) -> Parameters {
    Parameters {
        deployment: "acme".into(),
        n,
        by: by.iter().map(ToString::to_string).collect(),
        by_value: by_value.then(|| "cost".into()),
        currency: None,
        from: None,
        to: None,
        seed_from: "text:4 8 15 16 23 42".into(),
        seed_at: None,
    }
}

fn item(position: u64, team: Option<&str>, cost: i128) -> Item {
    Item {
        stratum: vec![team.map(str::to_owned)],
        origin: ORIGIN.into(),
        position,
        exchange: format!("exchange-{position}"),
        state: "ended".into(),
        started_at: None,
        cost: (cost >= 0).then(|| ("USD".to_owned(), Decimal(cost))).into_iter().collect(),
        leaf_hash: Sha256Hex::of(&position.to_be_bytes()).to_string(),
    }
}

/// 200 exchanges of three teams and of none, of growing cost.
fn population() -> Vec<Item> {
    let team = |n: u64| match n % 10 {
        0 => None,
        1 | 2 => Some("research"),
        3 => Some("sales"),
        _ => Some("support"),
    };
    (0..200).map(|n| item(2 * n, team(n), i128::from(n % 7) * 1000)).collect()
}

fn drawn(items: &[Item], mut parameters: Parameters, heads: &[Head]) -> Vec<Drawn> {
    let mut count = Count::default();
    items.iter().for_each(|item| count.add(item).unwrap());
    let (.., mut pass) = plan(count, &mut parameters, heads).unwrap();
    items.iter().for_each(|item| pass.add(item.clone()));
    pass.finish()
}

fn positions(drawn: &[Drawn]) -> Vec<u64> {
    drawn.iter().map(|drawn| drawn.item.position).collect()
}

#[test]
fn the_seed_is_the_hash_of_a_text_that_names_all_it_rests_on() {
    let text = seed::text(&parameters(6, &["team"], false), &[head()]);
    let root = Sha256Hex::of(b"root");
    assert_eq!(
        text,
        format!(
            "affidavit/sample/v2\ndeployment acme\nlog {ORIGIN} 400 {root}\npublic text:4 8 15 16 23 42\n\
             public_at -\nn 6\nby team\nby_value -\ncurrency -\nfrom -\nto -\n"
        )
    );
    let one = seed::seed(&parameters(6, &["team"], false), &[head()]);
    let other_root = Head { root: Sha256Hex::of(b"other"), ..head() };
    let others = [
        seed::seed(&parameters(7, &["team"], false), &[head()]),
        seed::seed(&parameters(6, &["team"], false), &[other_root]),
        seed::seed(&Parameters { seed_from: "text:x".into(), ..parameters(6, &["team"], false) }, &[head()]),
    ];
    assert!(!others.contains(&one));
}

#[test]
fn a_known_seed_draws_what_it_always_drew() {
    let found = drawn(&population(), parameters(6, &["team"], false), &[head()]);
    assert_eq!(positions(&found), KNOWN_TICKETS);
    assert_eq!(found[0].ticket.unwrap().to_string(), KNOWN_TICKET);
    let by_value = drawn(&population(), parameters(5, &[], true), &[head()]);
    assert_eq!(positions(&by_value), KNOWN_UNITS);
    // In whatever order the rows come, and with whatever comes besides.
    let mut turned = population();
    turned.reverse();
    assert_eq!(positions(&drawn(&turned, parameters(6, &["team"], false), &[head()])), KNOWN_TICKETS);
}

#[test]
fn papers_of_another_version_are_told_by_which_they_were_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let told = |paper: &str| {
        std::fs::write(folder.path().join("method.json"), paper).unwrap();
        format!("{:#}", check::method(folder.path()).unwrap_err())
    };
    let v1 = told("{\"format\":\"affidavit/sample/v1\",\"what\":\"is not known here\"}");
    assert!(
        v1.contains("drawn by `affidavit/sample/v1`, and this build draws by `affidavit/sample/v2`"),
        "{v1}"
    );
    for paper in ["{}", "{\"format\":7}", "{\"format\":\"affidavit/seal/v1\"}"] {
        assert!(told(paper).contains("wanted `format`: `affidavit/sample/v2`"), "{paper}");
    }
    assert!(told("{\"format\":\"affidavit/sample/v2\"}").contains("missing field"));
}

// As another program counts them.
const KNOWN_TICKETS: [u64; 6] = [92, 230, 262, 266, 360, 364];
const KNOWN_TICKET: &str = "0a3847654db23b078cdae3ee7602c57b8ef95acca757080a2a3bb0acac52ffb8";
const KNOWN_UNITS: [u64; 5] = [10, 90, 166, 248, 328];

#[test]
fn every_stratum_is_drawn_from_and_only_the_lowest_tickets_are() {
    let (items, parameters) = (population(), parameters(30, &["team"], false));
    let found = drawn(&items, parameters.clone(), &[head()]);
    let seed = seed::seed(&parameters, &[head()]);
    let mut sizes = BTreeMap::<_, u64>::new();
    found.iter().for_each(|drawn| *sizes.entry(drawn.item.stratum.clone()).or_default() += 1);
    let of = |team: Option<&str>| sizes[&vec![team.map(str::to_owned)]];
    assert_eq!((of(None), of(Some("research")), of(Some("sales")), of(Some("support"))), (4, 6, 3, 17));
    for item in &items {
        let ticket = seed::ticket(&seed, &item.origin, item.position);
        let of_stratum = || found.iter().filter(|drawn| drawn.item.stratum == item.stratum);
        let is_drawn = of_stratum().any(|drawn| drawn.item.position == item.position);
        let lower = of_stratum().all(|drawn| ticket <= drawn.ticket.unwrap());
        assert!(is_drawn || !lower, "{}", item.position);
    }
}

#[test]
fn what_cannot_be_drawn_as_asked_is_refused_with_what_is_wanted() {
    let told = |items: &[Item], mut parameters: Parameters| {
        let mut count = Count::default();
        items.iter().for_each(|item| count.add(item).unwrap());
        plan(count, &mut parameters, &[head()]).unwrap_err().to_string()
    };
    assert!(told(&[], parameters(6, &[], false)).contains("no exchange"));
    assert!(told(&population(), parameters(3, &["team"], false)).contains("wanted at least 4"));
    assert!(told(&[item(0, None, -1), item(1, None, 0)], parameters(3, &[], true)).contains("has a cost"));
    let mut mixed = population();
    mixed[1].cost = [("EUR".into(), Decimal(5))].into();
    assert!(told(&mixed, parameters(3, &[], true)).contains("--currency"));
    let other = Parameters { currency: Some("CHF".into()), ..parameters(3, &[], true) };
    assert!(told(&population(), other).contains("CHF"));
    // No more than there is.
    assert_eq!(drawn(&population(), parameters(1000, &["team"], false), &[head()]).len(), 200);
}

#[test]
fn public_values_have_a_form_and_must_be_later_than_the_newest_seal() {
    let (drand, nist) = ("Ab".repeat(32), "0f".repeat(64));
    let round = Beacon::parse(&format!("drand:1000:{drand}"), None).unwrap();
    assert_eq!(round.text, format!("drand:1000:{}", "ab".repeat(32)));
    assert_eq!(round.at, Some((1_692_803_367 + 999 * 3) * SECOND));
    let at = round.at.unwrap();
    assert_eq!(round.is_later(at - 1, at), Ok(true));
    assert!(round.is_later(at, at).unwrap_err().contains("may have known"));
    assert!(round.is_later(0, at - 61 * SECOND).unwrap_err().contains("it is"));
    assert!(Beacon::parse(&format!("drand:1000:{drand}"), Some(at + 1)).is_err());
    let pulse = Beacon::parse(&format!("nist:77:{nist}"), None).unwrap();
    assert_eq!(pulse.is_later(0, 0), Ok(false));
    let told = Beacon::parse("text: 1 2 3 ", Some(5)).unwrap();
    assert_eq!((told.text.as_str(), told.is_later(4, 5)), ("text:1 2 3", Ok(true)));
    let (short, zero) = (format!("drand:7:{nist}"), format!("drand:0:{drand}"));
    for wrong in ["", "drand", "drand:1", "text:", "text: \n", "text:a\nb", "dice:1:2", &short, &zero] {
        assert!(Beacon::parse(wrong, None).is_err(), "{wrong}");
    }
}

#[test]
fn a_number_below_a_bound_is_drawn_without_a_bias() {
    let seed = Sha256Hex::of(b"seed");
    assert_eq!(seed::below(&seed, 0), None);
    assert_eq!(seed::below(&seed, 1), Some(0));
    // Nearly half of all numbers are beyond the largest multiple of this bound: they are drawn again, not folded.
    let bound = (1_u128 << 127) + 1;
    let mut missed = 0;
    for n in 0..64_u32 {
        let seed = Sha256Hex::of(&n.to_be_bytes());
        let first = Sha256Hex::of(format!("{seed} start 0\n").as_bytes());
        let first = u128::from_be_bytes(*first.0.first_chunk::<16>().unwrap());
        let drawn = seed::below(&seed, bound).unwrap();
        assert!(drawn < bound);
        missed += u32::from(first >= bound);
        assert_eq!(drawn == first, first < bound);
    }
    assert!((16..48).contains(&missed), "{missed}");
}

proptest! {
    #[test]
    fn shares_add_up_and_none_is_nothing_or_more_than_there_is(
        n in 1_u64..500, sizes in proptest::collection::vec(1_u64..10_000, 1..40),
    ) {
        let all: u64 = sizes.iter().sum();
        match allocate(n, &sizes) {
            None => prop_assert!(n < sizes.len() as u64),
            Some(given) => {
                prop_assert_eq!(given.iter().sum::<u64>(), n.min(all));
                prop_assert!(given.iter().zip(&sizes).all(|(given, size)| *given >= 1 && given <= size));
                // A larger stratum never gets less.
                for (a, x) in sizes.iter().zip(&given) {
                    for (b, y) in sizes.iter().zip(&given) {
                        prop_assert!(a <= b || x >= y, "{} of {}, {} of {}", x, a, y, b);
                    }
                }
            }
        }
    }

    #[test]
    fn points_on_units_of_money_hit_every_item_of_an_interval_and_are_all_used(
        n in 1_u64..100, values in proptest::collection::vec(0_u128..1_000_000, 1..200), start in any::<u128>(),
    ) {
        let total: u128 = values.iter().sum();
        prop_assume!(total > 0);
        let mut units = Units::new(n, total, start % total).unwrap();
        let hits: Vec<u64> = values.iter().map(|value| units.hits(*value)).collect();
        prop_assert_eq!(hits.iter().sum::<u64>(), n);
        for (value, hits) in values.iter().zip(hits) {
            let least = u64::try_from(value * u128::from(n) / total).unwrap();
            prop_assert!((least..=least + 1).contains(&hits), "{} of {} by {}", value, total, n);
            prop_assert!(*value > 0 || hits == 0);
        }
    }

    #[test]
    fn a_sum_that_no_number_holds_is_refused(total in (u128::MAX / 4)..u128::MAX) {
        prop_assert!(Units::new(10, total, 0).is_none());
    }
}
