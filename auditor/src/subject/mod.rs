//! Everything of one end user, to hand over (GDPR Article 15): content as it crossed, the story and the proof of each
//! exchange, and a manifest that says what belongs to it.
//!
//! ```text
//! DIR/index.html            to read, without scripts
//!     exchanges.csv .json   the same for machines
//!     exchanges/ID/story.txt, proof.json, <position>-<part>.<ext>
//!     manifest.json         what it rests on, and SHA-256 and length of every file; written last
//! ```
//! Nothing of other end users is in it: an exchange is taken where its own, proven records name the subject, and a data key
//! that several share is used here and never handed on.

pub mod check;
pub mod folder;
pub mod manifest;
pub mod page;
pub mod who;
