//! Verifies Affidavit evidence and answers questions from proven rows.
