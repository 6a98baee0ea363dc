//! Batches on their way through a topic: the chunks that carry objects, and the receipts that answer.
//!
//! Neither is evidence: what counts is the batch, by its seal, and what the store says of it. Format: `FORMAT.md` 16.

mod chunk;
mod receipt;

pub use chunk::{CHUNK_BYTES, Chunk, ChunkError, MAX_MESSAGE_BYTES, MAX_OBJECT_BYTES, pieces};
pub use receipt::{Archived, ArchiverKey, Receipt, ReceiptError, SignedReceipt, receipt_key_name};
