//! Real services for tests, each a plain process on loopback ports with a fresh data folder, ended when dropped.
//!
//! `tests/run` builds their binaries once into a cache folder outside of the checkout, keyed by version.

mod cached;
mod faults;
mod issuer;
mod kafka;
mod liar;
mod loki;
mod minio;
mod moto;
mod otelcol;
mod redis;
mod redis_cluster;
mod s3;
mod sentinels;
mod versitygw;
mod wire;

pub use cached::cached;
pub use faults::{Fault, FaultProxy, Handled};
pub use issuer::{Issuer, now};
pub use kafka::{Allow, Authority, Certificate, Guard, Kafka, Operator, Tokens, Took, Writer, messages};
pub use liar::{Answer, Asked, Liar};
pub use loki::Loki;
pub use minio::{Minio, MinioKeys};
pub use moto::Moto;
pub use otelcol::{Otelcol, Span};
pub use redis::Redis;
pub use redis_cluster::RedisCluster;
pub use s3::S3Server;
pub use sentinels::Sentinels;
pub use versitygw::Versitygw;
pub use wire::{Network, Wire};
