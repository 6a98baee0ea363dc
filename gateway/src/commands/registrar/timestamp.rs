//! Asking a timestamp authority for a token over the newest checkpoint (RFC 3161).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evidence::registry::{Anchors, Head};
use http::StatusCode;
use schemas::Sha256Hex;
use schemas::names::AnchorKind;
use schemas::timestamp::{self, Authority, MAX_RESPONSE_BYTES};

use super::asking::{Ask, Trouble, keep};
use super::http::Client;
use crate::secrets;

/// How far the authority's clock, that of whoever sealed and this machine's may differ beyond the token's own accuracy,
/// microseconds. Less than an auditor allows: what is kept is to count.
const TOLERANCE_US: i64 = 60_000_000;

/// The authority as configured.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) url: String,
    /// How long after a token the next is asked for.
    pub(super) every: Duration,
    /// Policy and roots; without roots a token must only hold by itself.
    pub(super) authority: Authority,
}

/// An authority that is asked.
#[derive(Debug)]
pub(super) struct Stamping {
    asked: Asked,
    anchors: Anchors,
    client: Client,
}

impl Stamping {
    pub(super) fn new(asked: Asked, anchors: Anchors, client: Client) -> Self {
        Self { asked, anchors, client }
    }
}

impl Ask for Stamping {
    const DONE: &'static str = "stamped";

    fn by(&self) -> &str {
        "timestamp"
    }

    fn every(&self) -> Duration {
        self.asked.every
    }

    async fn ask(&mut self, head: &Head) -> Result<Head, Trouble> {
        let authority = &self.asked.authority;
        let imprint = Sha256Hex::of(&head.note);
        let nonce = secrets::random::<16>().map_err(|error| Trouble::new("request", error))?;
        let request = timestamp::request(&imprint, &nonce, authority.policy)
            .map_err(|error| Trouble::new("request", error))?;
        let posted =
            self.client.post(&self.asked.url, "application/timestamp-query", request, MAX_RESPONSE_BYTES);
        let answer = posted.await?;
        if answer.status != StatusCode::OK {
            return Err(answer.refused());
        }
        let bad = |error: String| Trouble::new("bad_answer", error);
        let token = timestamp::token_of(&answer.body, &nonce).map_err(|error| bad(error.to_string()))?;
        judge(&token, &imprint, authority, (head.sealed_us, now_us())).map_err(bad)?;
        keep(&self.anchors, head, AnchorKind::Timestamp, token).await?;
        Ok(head.clone())
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Whether a token is worth keeping, over a checkpoint that was sealed at a time, at this time. The error names what is
/// wrong with it.
fn judge(
    token: &[u8],
    imprint: &Sha256Hex,
    authority: &Authority,
    (sealed_us, now_us): (i64, i64),
) -> Result<(), String> {
    let stamp = timestamp::stated(token, imprint).map_err(|fault| fault.to_string())?;
    if let Some(wanted) = authority.policy.map(|policy| policy.to_string())
        && wanted != stamp.policy
    {
        return Err(format!("a token under policy {}, asked for {wanted}", stamp.policy));
    }
    // The auditor's roots decide; without any here the token itself holds, and that was all.
    if !authority.roots.is_empty() {
        timestamp::verify(token, imprint, std::slice::from_ref(authority))
            .map_err(|fault| fault.to_string())?;
    }
    let text =
        |us| jiff::Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |time| time.to_string());
    if stamp.is_before(sealed_us, TOLERANCE_US) {
        let (time, sealed) = (text(stamp.time), text(sealed_us));
        return Err(format!("a token of {time}, over a checkpoint that was sealed at {sealed}"));
    }
    if stamp.is_after(now_us, TOLERANCE_US) {
        return Err(format!("a token of {}, and now is {}", text(stamp.time), text(now_us)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &[u8] = include_bytes!("../../../../schemas/src/timestamp/testdata/data.txt");
    const TOKEN: &[u8] = include_bytes!("../../../../schemas/src/timestamp/testdata/ec.token");
    const ROOT: &[u8] = include_bytes!("../../../../schemas/src/timestamp/testdata/root.pem");
    /// By the token's own word.
    const ACCURACY_US: i64 = 1_500_000;

    fn authority(root: &[u8], policy: &str) -> Authority {
        let roots = if root.is_empty() { vec![] } else { timestamp::certificates(root).unwrap() };
        Authority { roots, intermediates: vec![], policy: timestamp::policy(policy), signers: vec![] }
    }

    fn judged(authority: &Authority, sealed_us: i64, now_us: i64) -> Result<(), String> {
        judge(TOKEN, &Sha256Hex::of(DATA), authority, (sealed_us, now_us))
    }

    #[test]
    fn a_token_under_another_policy_or_of_another_authority_is_not_kept() {
        let time = timestamp::stated(TOKEN, &Sha256Hex::of(DATA)).unwrap().time;
        let other: &[u8] = include_bytes!("../../../../schemas/src/timestamp/testdata/other-root.pem");
        for (root, policy, wanted) in [
            (ROOT, "1.3.6.1.4.1.99999.1", None),
            (ROOT, "", None),
            (&[][..], "1.3.6.1.4.1.99999.1", None),
            (
                ROOT,
                "1.3.6.1.4.1.99999.2",
                Some("under policy 1.3.6.1.4.1.99999.1, asked for 1.3.6.1.4.1.99999.2"),
            ),
            (
                &[],
                "1.3.6.1.4.1.99999.2",
                Some("under policy 1.3.6.1.4.1.99999.1, asked for 1.3.6.1.4.1.99999.2"),
            ),
            (other, "", Some("no chain to a root")),
        ] {
            match (judged(&authority(root, policy), time, time), wanted) {
                (Ok(()), None) => {}
                (Err(found), Some(wanted)) => assert!(found.contains(wanted), "{found}"),
                (found, wanted) => std::panic::panic_any(format!("{found:?}, wanted {wanted:?}")),
            }
        }
        assert!(judge(TOKEN, &Sha256Hex([1; 32]), &authority(ROOT, ""), (time, time)).is_err());
    }

    #[test]
    fn a_token_of_an_impossible_time_is_not_kept() {
        let time = timestamp::stated(TOKEN, &Sha256Hex::of(DATA)).unwrap().time;
        let slack = TOLERANCE_US + ACCURACY_US;
        for root in [ROOT, &[]] {
            let authority = authority(root, "");
            assert_eq!(judged(&authority, time + slack, time + slack), Ok(()));
            assert_eq!(judged(&authority, time - slack, time - slack), Ok(()));
            let early = judged(&authority, time + slack + 1, time + slack + 1).unwrap_err();
            assert!(early.contains("over a checkpoint that was sealed at 2026-11-21T"), "{early}");
            let late = judged(&authority, time - slack - 1, time - slack - 1).unwrap_err();
            assert!(late.contains("and now is 2026-11-21T"), "{late}");
        }
    }
}
