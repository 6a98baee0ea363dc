//! The public value: what the operator could not know when the newest batch was sealed.

use crate::time::{self, SECOND};

/// The wanted forms.
pub const FORMS: &str = "`drand:ROUND:HEX` (64 digits), `nist:PULSE:HEX` (128 digits) or `text:...`";

/// When round 1 of drand's quicknet came out, seconds since 1970.
const QUICKNET: i64 = 1_692_803_367;
/// Seconds between its rounds.
const PERIOD: i64 = 3;

/// A public value as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    /// As it goes into the seed.
    pub text: String,
    /// When it came out, microseconds UTC, where that is known.
    pub at: Option<i64>,
}

impl Beacon {
    /// Reads it; `at` is when it came out, where the form does not say.
    ///
    /// # Errors
    /// Another form, or a time that is not the form's own.
    pub fn parse(typed: &str, at: Option<i64>) -> Result<Self, String> {
        let wrong = || format!("`{typed}`: wanted {FORMS}");
        let (source, value) = typed.split_once(':').ok_or_else(wrong)?;
        if source == "text" {
            let value = value.trim();
            if value.is_empty() || value.chars().any(char::is_control) || value.len() > 1024 {
                return Err(format!("`{typed}`: wanted one line of 1 to 1024 bytes after `text:`"));
            }
            return Ok(Self { text: format!("text:{value}"), at });
        }
        let (number, hex) = value.split_once(':').ok_or_else(wrong)?;
        let number: i64 = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
        let hex = hex.to_ascii_lowercase();
        let is_hex = |digits: usize| hex.len() == digits && hex.bytes().all(|b| b.is_ascii_hexdigit());
        match source {
            "drand" if is_hex(64) => {
                let out = (number - 1).checked_mul(PERIOD).and_then(|s| s.checked_add(QUICKNET));
                let out = out.and_then(|s| s.checked_mul(SECOND)).ok_or_else(wrong)?;
                if at.is_some_and(|at| at != out) {
                    return Err(format!(
                        "round {number} came out at {}: leave the time out",
                        time::text(out)
                    ));
                }
                Ok(Self { text: format!("drand:{number}:{hex}"), at: Some(out) })
            }
            "nist" if is_hex(128) => Ok(Self { text: format!("nist:{number}:{hex}"), at }),
            _ => Err(wrong()),
        }
    }

    /// Whether it is later than the newest seal, and out already. `Ok(false)`: nobody said when it came out.
    ///
    /// # Errors
    /// It came out before, or is not out.
    pub fn is_later(&self, sealed_at: i64, now: i64) -> Result<bool, String> {
        let Some(at) = self.at else { return Ok(false) };
        let told = time::text(at);
        if at <= sealed_at {
            return Err(format!(
                "the public value came out at {told}, the newest seal is of {}: the operator may have known it; wanted a later one",
                time::text(sealed_at)
            ));
        }
        // Clocks differ a little.
        if at > now.saturating_add(60 * SECOND) {
            return Err(format!("the public value comes out at {told} only; it is {} now", time::text(now)));
        }
        Ok(true)
    }
}

/// Where it is read, and how anybody checks it.
pub fn provenance(text: &str) -> String {
    let number = text.split(':').nth(1).unwrap_or_default();
    match text.split(':').next() {
        Some("drand") => format!(
            "`randomness` of round {number} of drand's quicknet (chain \
             52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971): \
             https://api.drand.sh/v2/beacons/quicknet/rounds/{number} gives the signature; its SHA-256 is the value, and any \
             drand client checks the signature with the chain's public key"
        ),
        Some("nist") => format!(
            "`outputValue` of pulse {number} of NIST's randomness beacon, chain 2: \
             https://beacon.nist.gov/beacon/2.0/chain/2/pulse/{number}; the pulse is signed and chained to those before"
        ),
        _ => "given as text: whoever relies on it looks it up where it was published".to_owned(),
    }
}
