//! Asking one witness for its cosignature of each checkpoint, beside the registrar's rounds.
//!
//! What the witness saw last is asked of the witness: nothing is kept here. One that does not answer is asked again,
//! each time later, and then for the newest checkpoint only: a cosignature binds all that is below it.

use std::sync::Arc;
use std::time::Duration;

use evidence::registry::{Anchors, Head};
use http::StatusCode;
use schemas::names::AnchorKind;
use schemas::tlog::WitnessKey;
use tokio::sync::watch;

use super::http::{Answered, Client};
use super::metrics::Metrics;

/// The longest answer that is read, in bytes.
const LIMIT: usize = 16 << 10;
/// How long after a failure the next try comes: doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(300);

/// A witness as configured.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) key: WitnessKey,
    /// Its submission prefix.
    pub(super) url: String,
    /// How long after a cosignature the next is asked for.
    pub(super) every: Duration,
}

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Asking(String),
    #[error("status {status}: {text}")]
    Status { status: StatusCode, text: String },
    #[error(
        "the witness is at size {theirs}, this registry at {ours}: it was cut back, or another registrar is ahead"
    )]
    Ahead { theirs: u64, ours: u64 },
    #[error(
        "the witness cosigned another tree: size {0} was never sealed in this registry, or has another root"
    )]
    Fork(u64),
    #[error("the answer does not hold: {0}")]
    Answer(String),
    #[error("{0}")]
    Registry(#[from] evidence::registry::RegistrarError),
}

impl Trouble {
    fn result(&self) -> &'static str {
        match self {
            Self::Asking(_) => "no_answer",
            Self::Status { .. } => "refused",
            Self::Ahead { .. } => "ahead",
            Self::Fork(_) => "fork",
            Self::Answer(_) => "bad_answer",
            Self::Registry(_) => "store",
        }
    }
}

/// How long to wait after so many failures.
pub(super) fn pause(failures: u32) -> Duration {
    LAST_PAUSE
        .min(FIRST_PAUSE.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)))
}

/// Asks until the registrar ends.
pub(super) async fn follow(
    asked: Asked,
    anchors: Anchors,
    client: Client,
    mut heads: watch::Receiver<Option<Head>>,
    metrics: Arc<Metrics>,
) {
    let name = asked.key.name().to_owned();
    // What the witness is known to be at; and what was cosigned since this start.
    let (mut at, mut done, mut failures) = (None, None, 0);
    loop {
        let newer = |head: &Option<Head>| head.as_ref().is_some_and(|head| done != Some(head.size));
        let head = match heads.wait_for(newer).await {
            Ok(head) => head.clone(),
            Err(_) => return,
        };
        let Some(head) = head else { continue };
        match ask(&asked, &anchors, &client, &head, &mut at).await {
            Ok(reached) => {
                metrics.asked(&name, "cosigned");
                metrics.reached(&name, reached.size, reached.sealed_us);
                tracing::info!(witness = name, size = reached.size, "cosigned");
                (failures, done) = (0, Some(reached.size));
                if reached.size == head.size {
                    tokio::time::sleep(asked.every).await;
                }
            }
            Err(trouble) => {
                failures += 1;
                metrics.asked(&name, trouble.result());
                let pause = pause(failures);
                let pause_s = pause.as_secs();
                if matches!(trouble, Trouble::Fork(_))
                    || (matches!(trouble, Trouble::Ahead { .. }) && failures > 3)
                {
                    tracing::error!(witness = name, error = %trouble, failures, pause_s, "the registry does not continue what was witnessed");
                } else {
                    tracing::warn!(witness = name, error = %trouble, failures, pause_s, "not cosigned");
                }
                // Also known anew: the witness may have been given another state.
                at = None;
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn ask(
    asked: &Asked,
    anchors: &Anchors,
    client: &Client,
    head: &Head,
    at: &mut Option<u64>,
) -> Result<Head, Trouble> {
    let url = format!("{}/add-checkpoint", asked.url.trim_end_matches('/'));
    // At most: what we believe, what the witness says, and once more where another registrar came between.
    for _ in 0..3 {
        let old = at.unwrap_or(0);
        let (reading, newest) = (anchors.clone(), head.clone());
        let submission = blocking(move || reading.submission(&newest, old)).await??;
        let Some((target, body)) = submission else { return Err(Trouble::Fork(old)) };
        let answer =
            client.post(&url, "text/plain; charset=utf-8", body, LIMIT).await.map_err(Trouble::Asking)?;
        match answer.status {
            StatusCode::OK => {
                let lines =
                    std::str::from_utf8(&answer.body).map_err(|error| Trouble::Answer(error.to_string()))?;
                let text = target.text(anchors.origin());
                let (line, _) = asked.key.find(&text, lines).map_err(Trouble::Answer)?;
                let mut note = target.note.to_vec();
                note.extend_from_slice(format!("{line}\n").as_bytes());
                let (keeping, kept) = (anchors.clone(), target.clone());
                blocking(move || keeping.keep(&kept, AnchorKind::Cosignature, &note)).await??;
                *at = Some(target.size);
                return Ok(target);
            }
            StatusCode::CONFLICT => match size(&answer) {
                Some(theirs) if theirs > head.size => {
                    return Err(Trouble::Ahead { theirs, ours: head.size });
                }
                Some(theirs) => *at = Some(theirs),
                None => return Err(Trouble::Fork(old)),
            },
            status => {
                let text = String::from_utf8_lossy(&answer.body);
                let text = text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
                return Err(Trouble::Status { status, text });
            }
        }
    }
    Err(Trouble::Answer("it names another size each time".into()))
}

/// The size in a witness's refusal (`text/x.tlog.size`).
fn size(answer: &Answered) -> Option<u64> {
    let plain = answer.content_type.split(';').next()?.trim() == "text/x.tlog.size";
    let text = std::str::from_utf8(&answer.body).ok().filter(|_| plain)?;
    text.strip_suffix('\n').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// Store and proofs block: they are given a thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, evidence::registry::RegistrarError> + Send + 'static,
) -> Result<Result<T, evidence::registry::RegistrarError>, Cut> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Cut)
}

/// A thread that did not come to its end.
#[derive(Debug, thiserror::Error)]
#[error("the work was cut")]
pub(super) struct Cut;

impl From<Cut> for Trouble {
    fn from(cut: Cut) -> Self {
        Self::Asking(cut.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let found: Vec<u64> = (1..12).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(found, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(pause(u32::MAX), LAST_PAUSE);
    }

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
