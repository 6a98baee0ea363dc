//! Tokens that OpenSSL made (`openssl ts`, and `openssl cms` for those that it refuses to make), and changed ones.

use proptest::prelude::*;

use super::*;

const DATA: &[u8] = include_bytes!("testdata/data.txt");
const TOKEN: &[u8] = include_bytes!("testdata/ec.token");

fn authority() -> Authority {
    let roots = certificates(include_bytes!("testdata/root.pem")).unwrap();
    Authority { roots, intermediates: vec![], policy: None, signers: vec![] }
}

fn judged(token: &[u8]) -> Result<Stamp, TimestampFault> {
    verify(token, &Sha256Hex::of(DATA), &[authority()]).map(|(_, stamp)| stamp)
}

#[test]
fn tokens_of_openssl_hold() {
    // 2026-11-21, in seconds.
    let day = 1_795_219_200_000_000..1_795_305_600_000_000_i64;
    for token in [TOKEN, include_bytes!("testdata/rsa.token"), include_bytes!("testdata/ess-v1.token")] {
        let stamp = judged(token).unwrap();
        assert!(day.contains(&stamp.time), "{stamp:?}");
        assert_eq!((stamp.policy.as_str(), stamp.accuracy), ("1.3.6.1.4.1.99999.1", Some(1_500_000)));
        assert!(stamp.expires > 4_800_000_000_000_000, "{stamp:?}");
    }
}

#[test]
fn of_several_authorities_the_one_that_holds_is_told() {
    let other =
        Authority { roots: certificates(include_bytes!("testdata/other-root.pem")).unwrap(), ..authority() };
    let (n, stamp) = verify(TOKEN, &Sha256Hex::of(DATA), &[other.clone(), authority()]).unwrap();
    assert_eq!(n, 1);
    let pinned = Authority { signers: vec![stamp.signer], ..authority() };
    assert!(verify(TOKEN, &Sha256Hex::of(DATA), std::slice::from_ref(&pinned)).is_ok());
    let named = Authority { policy: policy("1.3.6.1.4.1.99999.1"), ..authority() };
    assert!(verify(TOKEN, &Sha256Hex::of(DATA), &[named]).is_ok());
    for wrong in [
        vec![],
        vec![other],
        vec![Authority { roots: vec![], ..authority() }],
        vec![Authority { policy: policy("1.3.6.1.4.1.99999.2"), ..authority() }],
        vec![Authority { signers: vec![Sha256Hex([1; 32])], ..authority() }],
    ] {
        let fault = verify(TOKEN, &Sha256Hex::of(DATA), &wrong).unwrap_err();
        assert!(matches!(fault, TimestampFault::Untrusted(_)), "{fault}");
    }
}

#[test]
fn a_token_of_another_imprint_is_named() {
    let fault = verify(TOKEN, &Sha256Hex([1; 32]), &[authority()]).unwrap_err();
    assert_eq!(fault, TimestampFault::Imprint(Sha256Hex::of(DATA).to_string()));
}

#[test]
fn certificates_for_other_purposes_or_that_had_ended_are_not_trusted() {
    for (token, what) in [
        (&include_bytes!("testdata/purpose-none.token")[..], "is not for timestamps"),
        (include_bytes!("testdata/purpose-both.token"), "is not for timestamps alone"),
        (include_bytes!("testdata/purpose-loose.token"), "does not make its key usage critical"),
        (include_bytes!("testdata/ended.token"), "no chain to a root"),
    ] {
        let fault = judged(token).unwrap_err();
        assert!(matches!(&fault, TimestampFault::Untrusted(why) if why.contains(what)), "{what}: {fault}");
    }
    let fault = judged(include_bytes!("testdata/no-certificate-named.token")).unwrap_err();
    assert!(matches!(&fault, TimestampFault::Signature(why) if why.contains("no certificate")), "{fault}");
}

#[test]
fn what_a_token_states_is_read_without_an_authority_and_its_accuracy_is_slack() {
    let stamp = stated(TOKEN, &Sha256Hex::of(DATA)).unwrap();
    assert_eq!(stamp, judged(TOKEN).unwrap());
    assert!(matches!(stated(TOKEN, &Sha256Hex([1; 32])), Err(TimestampFault::Imprint(_))));
    assert!(stated(include_bytes!("testdata/purpose-both.token"), &Sha256Hex::of(DATA)).is_err());
    let (time, tolerance, accuracy) = (stamp.time, 1_000_000, 1_500_000);
    for (by, early, late) in [
        (0, false, false),
        (tolerance + accuracy, false, false),
        (tolerance + accuracy + 1, true, false),
        (-tolerance - accuracy, false, false),
        (-tolerance - accuracy - 1, false, true),
    ] {
        assert_eq!(stamp.is_before(time + by, tolerance), early, "{by}");
        assert_eq!(stamp.is_after(time + by, tolerance), late, "{by}");
    }
    let vague = Stamp { accuracy: Some(i64::MAX), ..stamp };
    assert!(!vague.is_before(i64::MAX, i64::MAX) && !vague.is_after(0, i64::MAX));
}

#[test]
fn no_changed_byte_of_a_token_changes_what_it_proves() {
    let whole = judged(TOKEN).unwrap();
    let mut taken = 0;
    for at in 0..TOKEN.len() {
        for bit in [0, 3, 7] {
            let mut changed = TOKEN.to_vec();
            changed[at] ^= 1 << bit;
            // CMS leaves its version numbers and the outer list of digest algorithms unsigned: they say nothing.
            if let Ok(stamp) = judged(&changed) {
                assert_eq!(stamp, whole, "byte {at} bit {bit}");
                taken += 1;
            }
        }
        assert!(judged(&TOKEN[..at]).is_err());
    }
    assert!(taken < 40, "{taken} changes were taken");
    assert!(judged(&vec![0x30; MAX_TOKEN_BYTES + 1]).is_err());
}

#[test]
fn answers_are_read_and_requests_are_one_form() {
    let nonce = [0; 16];
    let whole = request(&Sha256Hex::of(DATA), &nonce, policy("1.2.3")).unwrap();
    assert_eq!(whole, request(&Sha256Hex::of(DATA), &nonce, policy("1.2.3")).unwrap());
    // Made without a nonce: not the answer to any request of ours.
    let answer = include_bytes!("testdata/response.tsr");
    assert_eq!(token_of(answer, &nonce), Err(ResponseError::Nonce));
    let refused = token_of(include_bytes!("testdata/refused.tsr"), &nonce).unwrap_err();
    assert!(matches!(refused, ResponseError::Refused { status: 2, .. }), "{refused}");
    assert!(matches!(token_of(b"<html>", &nonce), Err(ResponseError::Form(_))));
    assert!(token_of(&vec![0; MAX_RESPONSE_BYTES + 1], &nonce).is_err());
}

#[test]
fn certificates_are_read_in_pem_and_der() {
    let pem = include_bytes!("testdata/root.pem");
    let der = certificates(pem).unwrap();
    assert_eq!(certificates(&der[0]).unwrap(), der);
    let two = [&pem[..], include_bytes!("testdata/other-root.pem")].concat();
    assert_eq!(certificates(&two).unwrap().len(), 2);
    for wrong in [&b"nothing"[..], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(certificates(wrong).is_err());
    }
}

proptest! {
    #[test]
    fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), at in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 0..8)) {
        prop_assert!(judged(&bytes).is_err());
        let _ = token_of(&bytes, &[0; 16]);
        let _ = certificates(&bytes);
        // Lengths and tags changed in place: the reader meets every structure out of form.
        let mut changed = TOKEN.to_vec();
        let at = at.index(changed.len());
        changed.splice(at..at, with.iter().copied());
        prop_assert!(judged(&changed).is_ok_and(|stamp| stamp == judged(TOKEN).unwrap()) || judged(&changed).is_err());
        let mut answer = include_bytes!("testdata/response.tsr").to_vec();
        let at = at.min(answer.len() - 1);
        answer.splice(at..=at, with);
        let _ = token_of(&answer, &[0; 16]);
    }
}
