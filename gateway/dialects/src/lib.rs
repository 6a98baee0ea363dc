//! What the bytes of a provider's API mean: operations, models, usage, streams.
