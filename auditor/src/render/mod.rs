//! What people and programs read. Text from evidence is hostile: [`hostile`] makes it harmless.

pub mod hostile;
pub mod text;
pub mod json;
pub mod rests;
pub mod table;
