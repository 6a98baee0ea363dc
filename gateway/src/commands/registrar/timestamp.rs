//! Asking a timestamp authority for a token over the newest checkpoint, beside the registrar's rounds (RFC 3161).

use std::sync::Arc;
use std::time::Duration;

use evidence::registry::{Anchors, Head};
use http::StatusCode;
use schemas::Sha256Hex;
use schemas::names::AnchorKind;
use schemas::timestamp::{self, Authority, MAX_RESPONSE_BYTES, TimestampFault};
use tokio::sync::watch;

use super::http::Client;
use super::metrics::Metrics;
use super::witness::{blocking, pause};
use crate::secrets;

/// The authority as configured.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) url: String,
    /// How long after a token the next is asked for.
    pub(super) every: Duration,
    /// Policy and roots; without roots a token must only hold by itself.
    pub(super) authority: Authority,
}

/// As it stands in metrics and logs.
const BY: &str = "timestamp";

/// Asks until the registrar ends.
pub(super) async fn follow(
    asked: Asked,
    anchors: Anchors,
    client: Client,
    mut heads: watch::Receiver<Option<Head>>,
    metrics: Arc<Metrics>,
) {
    let (mut done, mut failures) = (None, 0);
    loop {
        let newer = |head: &Option<Head>| head.as_ref().is_some_and(|head| done != Some(head.size));
        let head = match heads.wait_for(newer).await {
            Ok(head) => head.clone(),
            Err(_) => return,
        };
        let Some(head) = head else { continue };
        match ask(&asked, &anchors, &client, &head).await {
            Ok(()) => {
                metrics.asked(BY, "stamped");
                metrics.reached(BY, head.size, head.sealed_us);
                tracing::info!(size = head.size, "timestamped");
                (failures, done) = (0, Some(head.size));
                tokio::time::sleep(asked.every).await;
            }
            Err(error) => {
                failures += 1;
                metrics.asked(BY, "failed");
                let pause = pause(failures);
                tracing::warn!(
                    url = asked.url,
                    error,
                    failures,
                    pause_s = pause.as_secs(),
                    "not timestamped"
                );
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn ask(asked: &Asked, anchors: &Anchors, client: &Client, head: &Head) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let imprint = Sha256Hex::of(&head.note);
    let nonce = secrets::random::<16>().map_err(|error| text(&error))?;
    let request =
        timestamp::request(&imprint, &nonce, asked.authority.policy).map_err(|error| text(&error))?;
    let answer = client.post(&asked.url, "application/timestamp-query", request, MAX_RESPONSE_BYTES).await?;
    if answer.status != StatusCode::OK {
        return Err(format!("status {}", answer.status));
    }
    let token = timestamp::token_of(&answer.body, &nonce).map_err(|error| text(&error))?;
    match timestamp::verify(&token, &imprint, std::slice::from_ref(&asked.authority)) {
        Ok(_) => {}
        // The auditor's roots decide; without any here the token itself holds, and that was the last check.
        Err(TimestampFault::Untrusted(_)) if asked.authority.roots.is_empty() => {}
        Err(fault) => return Err(fault.to_string()),
    }
    let (keeping, head) = (anchors.clone(), head.clone());
    let kept = blocking(move || keeping.keep(&head, AnchorKind::Timestamp, &token)).await;
    kept.map_err(|error| text(&error))?.map_err(|error| text(&error))?;
    Ok(())
}
