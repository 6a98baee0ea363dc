//! The egress gateway for LLM traffic.
