//! Asking one witness for its cosignature (C2SP `tlog-witness`).
//!
//! What the witness saw last is asked of the witness: nothing is kept here.

use std::time::Duration;

use evidence::registry::{Anchors, Head};
use http::StatusCode;
use schemas::names::AnchorKind;
use schemas::tlog::WitnessKey;

use super::asking::{Ask, Trouble, blocking, keep};
use super::http::{Answered, Client};

/// The longest answer that is read, in bytes.
const LIMIT: usize = 16 << 10;
/// How often a witness may be ahead of this registrar before that is an alarm: another registrar may be faster.
const AHEAD: u32 = 3;

/// A witness as configured.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) key: WitnessKey,
    /// Its submission prefix.
    pub(super) url: String,
    /// How long after a cosignature the next is asked for.
    pub(super) every: Duration,
}

/// A witness that is asked.
#[derive(Debug)]
pub(super) struct Witness {
    asked: Asked,
    anchors: Anchors,
    client: Client,
    /// What it is known to be at.
    at: Option<u64>,
}

impl Witness {
    pub(super) fn new(asked: Asked, anchors: Anchors, client: Client) -> Self {
        Self { asked, anchors, client, at: None }
    }

    async fn cosigned(&mut self, head: &Head) -> Result<Head, Trouble> {
        let url = format!("{}/add-checkpoint", self.asked.url.trim_end_matches('/'));
        // At most: what we believe, what the witness says, and once more where another registrar came between.
        for _ in 0..3 {
            let old = self.at.unwrap_or(0);
            let (reading, newest) = (self.anchors.clone(), head.clone());
            let submission = blocking(move || reading.submission(&newest, old)).await?;
            let Some((target, body)) = submission else { return Err(fork(old)) };
            let answer = self.client.post(&url, "text/plain; charset=utf-8", body, LIMIT).await?;
            match answer.status {
                StatusCode::OK => return self.kept(target, &answer).await,
                StatusCode::CONFLICT => match size(&answer) {
                    Some(theirs) if theirs > head.size => return Err(ahead(theirs, head.size)),
                    Some(theirs) => self.at = Some(theirs),
                    None => return Err(fork(old)),
                },
                _ => return Err(answer.refused()),
            }
        }
        Err(Trouble::new("bad_answer", "it names another size each time"))
    }

    /// Holds an answer against what was submitted, and keeps it.
    async fn kept(&mut self, target: Head, answer: &Answered) -> Result<Head, Trouble> {
        let wrong = |error: String| Trouble::new("bad_answer", format!("the answer does not hold: {error}"));
        let lines = std::str::from_utf8(&answer.body).map_err(|error| wrong(error.to_string()))?;
        let text = target.text(self.anchors.origin());
        let (line, _) = self.asked.key.find(&text, lines).map_err(wrong)?;
        let mut note = target.note.to_vec();
        note.extend_from_slice(format!("{line}\n").as_bytes());
        keep(&self.anchors, &target, AnchorKind::Cosignature, note).await?;
        self.at = Some(target.size);
        Ok(target)
    }
}

impl Ask for Witness {
    const DONE: &'static str = "cosigned";

    fn by(&self) -> &str {
        self.asked.key.name()
    }

    fn every(&self) -> Duration {
        self.asked.every
    }

    async fn ask(&mut self, head: &Head) -> Result<Head, Trouble> {
        let reached = self.cosigned(head).await;
        if reached.is_err() {
            // Known anew: the witness may have been given another state.
            self.at = None;
        }
        reached
    }
}

fn fork(size: u64) -> Trouble {
    let what = format!(
        "the witness cosigned another tree: size {size} was never sealed in this registry, or has another root"
    );
    Trouble { result: "fork", what, alarm: Some(0) }
}

fn ahead(theirs: u64, ours: u64) -> Trouble {
    let what = format!(
        "the witness is at size {theirs}, this registry at {ours}: it was cut back, or another registrar is ahead"
    );
    Trouble { result: "ahead", what, alarm: Some(AHEAD) }
}

/// The size in a witness's refusal (`text/x.tlog.size`).
fn size(answer: &Answered) -> Option<u64> {
    let plain = answer.content_type.split(';').next()?.trim() == "text/x.tlog.size";
    let text = std::str::from_utf8(&answer.body).ok().filter(|_| plain)?;
    text.strip_suffix('\n').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_size_of_its_own_type_is_taken() {
        let answer = |content_type: &str, body: &'static str| Answered {
            status: StatusCode::CONFLICT,
            content_type: content_type.into(),
            body: body.into(),
        };
        assert_eq!(size(&answer("text/x.tlog.size", "17\n")), Some(17));
        for wrong in [
            answer("text/plain", "17\n"),
            answer("text/x.tlog.size", "17"),
            answer("text/x.tlog.size", "-1\n"),
            answer("text/x.tlog.size", "\n"),
            answer("text/x.tlog.size", "99999999999999999999999\n"),
        ] {
            assert_eq!(size(&wrong), None, "{wrong:?}");
        }
    }
}
