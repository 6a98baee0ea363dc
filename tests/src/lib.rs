//! Whole-system promises: end to end, faults, attacks, benchmarks.
