//! Whose messages count: each carries a code under a key that only the deployment's gateways have.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use ring::hmac;

/// Sets this use of the secret apart from any other.
const PURPOSE: &[u8] = b"affidavit/commit/v2";
/// So many places are remembered: what stands there is counted once, however often it is read.
const MAX_PLACES: usize = 1 << 16;

/// Makes and checks the codes of the commit topic's messages (HMAC-SHA-256), and counts messages that do not verify.
#[derive(Clone)]
pub struct CommitKey {
    key: hmac::Key,
    refused: Arc<Mutex<Refused>>,
}

#[derive(Default)]
struct Refused {
    count: u64,
    places: BTreeSet<(i32, i64)>,
}

impl std::fmt::Debug for CommitKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl CommitKey {
    /// From the secret that all gateways of the deployment share.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), PURPOSE);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), refused: Arc::default() }
    }

    /// The key of one partition of a topic: what was written into one counts in no other.
    pub(super) fn of(&self, topic: &str, partition: i32) -> hmac::Key {
        let place = format!("{topic} {partition}");
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&self.key, place.as_bytes()).as_ref())
    }

    /// A message that does not verify stands at this place.
    pub(super) fn refuse(&self, partition: i32, offset: i64) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.places.contains(&(partition, offset)) {
            return;
        }
        if refused.places.len() < MAX_PLACES {
            refused.places.insert((partition, offset));
        }
        refused.count += 1;
        if refused.count == 1 {
            tracing::error!(
                partition,
                offset,
                "a message of the commit topic carries no code of this deployment's secret: it is ignored, and such messages are counted; somebody else writes there, or the secrets differ"
            );
        }
    }

    /// How many messages did not verify.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_and_secret_has_a_key_of_its_own() {
        let code = |secret: u8, topic: &str, partition: i32| {
            let key = CommitKey::new(&[secret; 32]).of(topic, partition);
            hmac::sign(&key, b"x").as_ref().to_vec()
        };
        assert_eq!(code(1, "t", 1), code(1, "t", 1));
        for other in [code(2, "t", 1), code(1, "u", 1), code(1, "t", 2), code(1, "t 1", 1)] {
            assert_ne!(code(1, "t", 1), other);
        }
    }

    #[test]
    fn a_refused_message_is_counted_once_however_often_it_is_read() {
        let key = CommitKey::new(&[1; 32]);
        for (partition, offset) in [(1, 5), (1, 5), (2, 5), (1, 6), (2, 5)] {
            key.clone().refuse(partition, offset);
        }
        assert_eq!(key.refused(), 3);
        assert_eq!(format!("{key:?}"), "[secret]");
    }
}
