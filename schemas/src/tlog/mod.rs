//! What logs and witnesses say to each other (C2SP `tlog-checkpoint`, `tlog-cosignature`, `tlog-witness`).
//!
//! ```text
//! log -> witness   old <size>, consistency proof, checkpoint      (Submission)
//! witness -> log   — <witness> <base64(key id || time || signature)>  (cosignature)
//! ```
//! Any log's, not only a registry's: an origin is a line of text here.
//! Sources: <https://c2sp.org/tlog-witness>, <https://c2sp.org/tlog-cosignature>, <https://c2sp.org/tlog-checkpoint>.

mod cosignature;
mod head;
mod submission;

pub use cosignature::{COSIGNATURE_TYPE, CosignatureError, WitnessKey, cosign, cosignature_text};
pub use head::{HeadError, TreeHead};
pub use submission::{MAX_PROOF, MAX_SUBMISSION_BYTES, Submission, SubmissionError};
