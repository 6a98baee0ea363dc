//! The way of a record from memory to proof: journal, seal, spool, ship.
