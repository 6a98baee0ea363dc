//! What people and programs read. Text from evidence is hostile: [`hostile`] makes it harmless.

pub mod hostile;
pub mod json;
pub mod rests;
pub mod table;
pub mod text;
