//! Proven rows in the forms of others: FOCUS for cost tools, OCSF for security tools.

pub mod focus;
pub mod ocsf;
