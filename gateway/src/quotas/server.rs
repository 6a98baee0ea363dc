//! Which server holds the counters: the first of some addresses that takes writes, the master that a Sentinel names, or the
//! node of a cluster that owns their slot.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisConnectionInfo, Value, cmd};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::link::Down;
use crate::config::{QuotaRedis, RedisUrl};

/// The least time that connecting may take: TLS and authentication take several turns.
const CONNECT: Duration = Duration::from_secs(2);

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// The most nodes of a cluster that are remembered beside those that are configured.
const MAX_LEARNED: usize = 64;

/// The secrets of the store; never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Passwords {
    /// Of the servers.
    pub(crate) server: Option<String>,
    /// Of the sentinels.
    pub(crate) sentinel: Option<String>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    tls: bool,
    host: String,
    port: u16,
}

impl Address {
    fn of(url: &RedisUrl, port: u16) -> Self {
        Self { tls: url.tls, host: url.host().to_owned(), port: url.port(port) }
    }
}

/// What moves the bytes of a connection.
pub(super) type Driver = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection, and what moves its bytes.
pub(super) struct Way {
    pub(super) connection: MultiplexedConnection,
    pub(super) driver: Driver,
}

impl Way {
    /// Answers come only while it is driven.
    async fn ask<T: FromRedisValue>(&mut self, question: &Cmd) -> Result<T, Down> {
        tokio::select! {
            answer = question.query_async(&mut self.connection) => Ok(answer?),
            () = &mut self.driver => Err(Down::NotConnected),
        }
    }

    /// Goes on only where it takes writes.
    async fn writable(mut self) -> Result<Self, Down> {
        let answer: Value = self.ask(&cmd("ROLE")).await?;
        let is_replica = matches!(&answer, Value::Array(parts)
            if parts.first() == Some(&Value::BulkString(b"slave".to_vec())));
        if is_replica { Err(Down::Replica) } else { Ok(self) }
    }
}

/// What the addresses are.
#[derive(Debug)]
enum Kind {
    /// Servers, the first comes first.
    Servers,
    /// Nodes of a cluster.
    Cluster {
        /// That of all keys: it is taken from their prefix.
        slot: u16,
    },
    /// Sentinels of this master.
    Sentinels(String),
}

/// The ways to the one server that holds the counters.
pub(super) struct Servers {
    kind: Kind,
    /// The longest time that one of them may take.
    within: Duration,
    user: RedisConnectionInfo,
    user_of_sentinel: RedisConnectionInfo,
    tls: Arc<ClientConfig>,
    configured: Vec<Address>,
    /// Who is asked, in this order. What was of no use goes to the end, but for configured servers.
    known: Mutex<Vec<Address>>,
}

fn user(name: Option<&str>, password: Option<&str>) -> RedisConnectionInfo {
    let mut user = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(name) = name {
        user = user.set_username(name);
    }
    if let Some(password) = password {
        user = user.set_password(password);
    }
    user
}

impl Servers {
    pub(super) fn new(config: &QuotaRedis, passwords: &Passwords, tls: Arc<ClientConfig>) -> Self {
        let kind = match (&config.cluster, &config.sentinel) {
            (Some(_), _) => Kind::Cluster { slot: slot_of(&config.prefix) },
            (_, Some(sentinel)) => Kind::Sentinels(sentinel.master.clone()),
            _ => Kind::Servers,
        };
        let port = if matches!(kind, Kind::Sentinels(_)) { SENTINEL_PORT } else { PORT };
        let configured: Vec<Address> = config.addresses().iter().map(|url| Address::of(url, port)).collect();
        let of_sentinel = config.sentinel.as_ref().and_then(|sentinel| sentinel.username.as_deref());
        Self {
            kind,
            within: config.timeout.max(CONNECT),
            user: user(config.username.as_deref(), passwords.server.as_deref())
                .set_db(config.database.into()),
            user_of_sentinel: user(of_sentinel, passwords.sentinel.as_deref()),
            tls,
            known: Mutex::new(configured.clone()),
            configured,
        }
    }

    /// Whether another server may take the place of one that is lost.
    pub(super) fn are_several(&self) -> bool {
        self.configured.len() > 1 || !matches!(self.kind, Kind::Servers)
    }

    /// A connection to the server that takes writes.
    ///
    /// # Errors
    /// Why the last that was asked leads to none.
    pub(super) async fn find(&self) -> Result<Way, Down> {
        let mut last = Down::NotConnected;
        let all = self.known().clone();
        for address in all {
            let found = async {
                match &self.kind {
                    Kind::Servers => self.connect(&address, &self.user).await?.writable().await,
                    Kind::Cluster { slot } => self.owner(&address, *slot).await,
                    Kind::Sentinels(master) => self.master(&address, master).await,
                }
            };
            let error = match tokio::time::timeout(self.within, found).await {
                Ok(Ok(way)) => return Ok(way),
                Ok(Err(error)) => error,
                Err(_) => Down::Slow,
            };
            last = Down::At(format!("{}:{}", address.host, address.port), Box::new(error));
            if !matches!(self.kind, Kind::Servers) {
                self.comes_last(&address);
            }
        }
        Err(last)
    }

    /// A server said that another has the slot, and named its `host:port`.
    pub(super) fn moved_to(&self, named: &str) {
        let Some((host, port)) = named.rsplit_once(':') else { return };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let (Ok(port), Some(tls)) = (port.parse(), self.configured.first().map(|first| first.tls)) else {
            return;
        };
        if host.is_empty() || !matches!(self.kind, Kind::Cluster { .. }) {
            return;
        }
        let address = Address { tls, host: host.to_owned(), port };
        let mut known = self.known();
        known.retain(|other| *other != address);
        known.insert(0, address);
    }

    /// The master that the sentinel at `address` names.
    async fn master(&self, address: &Address, name: &str) -> Result<Way, Down> {
        let mut way = self.connect(address, &self.user_of_sentinel).await?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let named: Option<(String, u16)> = way.ask(&question).await?;
        let (host, port) = named.ok_or(Down::Unnamed)?;
        self.connect(&Address { tls: address.tls, host, port }, &self.user).await?.writable().await
    }

    /// The node that owns the slot, as the one at `address` says.
    async fn owner(&self, address: &Address, slot: u16) -> Result<Way, Down> {
        let mut way = self.connect(address, &self.user).await?;
        let mut question = cmd("CLUSTER");
        question.arg("SLOTS");
        let answer: Value = way.ask(&question).await?;
        let (owner, others) = nodes(&answer, slot, address).ok_or(Down::NoOwner)?;
        let found = if owner == *address {
            way.writable().await?
        } else {
            self.connect(&owner, &self.user).await?.writable().await?
        };
        self.learn(owner, others);
        Ok(found)
    }

    /// Nodes that others named: where none that is configured is left, one of these may be.
    fn learn(&self, owner: Address, others: Vec<Address>) {
        let mut all = vec![owner];
        for address in others.into_iter().take(MAX_LEARNED).chain(self.configured.iter().cloned()) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        *self.known() = all;
    }

    fn comes_last(&self, address: &Address) {
        let mut known = self.known();
        if let Some(at) = known.iter().position(|other| other == address) {
            let address = known.remove(at);
            known.push(address);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<Address>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self, address: &Address, user: &RedisConnectionInfo) -> Result<Way, Down> {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        // Who asks has a bound of its own.
        let plain = AsyncConnectionConfig::new().set_response_timeout(None);
        if !address.tls {
            let (connection, driver) = MultiplexedConnection::new_with_config(user, stream, plain).await?;
            return Ok(Way { connection, driver: Box::pin(driver) });
        }
        let name =
            ServerName::try_from(address.host.clone()).map_err(|_| Down::Name(address.host.clone()))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?;
        let (connection, driver) = MultiplexedConnection::new_with_config(user, stream, plain).await?;
        Ok(Way { connection, driver: Box::pin(driver) })
    }
}

/// The owner of `slot` in an answer to `CLUSTER SLOTS`, and all other nodes. A node that does not know its own address is
/// where it was `asked`.
fn nodes(answer: &Value, slot: u16, asked: &Address) -> Option<(Address, Vec<Address>)> {
    let Value::Array(ranges) = answer else { return None };
    let node = |value: &Value| {
        let Value::Array(parts) = value else { return None };
        let (host, port) = (parts.first()?, parts.get(1)?);
        let host = match host {
            Value::BulkString(host) if host.as_slice() == b"?" => return None,
            Value::BulkString(host) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
            _ => asked.host.clone(),
        };
        let Value::Int(port) = port else { return None };
        Some(Address { tls: asked.tls, host, port: u16::try_from(*port).ok()? })
    };
    let (mut owner, mut others) = (None, Vec::new());
    for range in ranges {
        let Value::Array(parts) = range else { return None };
        let [Value::Int(first), Value::Int(last), rest @ ..] = parts.as_slice() else { return None };
        let is_in = (*first..=*last).contains(&i64::from(slot));
        for (place, value) in rest.iter().enumerate() {
            let Some(node) = node(value) else { continue };
            if is_in && place == 0 {
                owner = Some(node);
            } else {
                others.push(node);
            }
        }
    }
    Some((owner?, others))
}

/// The slot of all keys that begin with `{prefix}`: CRC-16 (XMODEM) of what stands in the braces, modulo 16384.
fn slot_of(prefix: &str) -> u16 {
    let crc = prefix.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % 16384
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address { tls: false, host: host.into(), port }
    }

    fn node(host: Option<&str>, port: i64) -> Value {
        let host = host.map_or(Value::Nil, |host| Value::BulkString(host.into()));
        Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec()), Value::Array(vec![])])
    }

    #[test]
    fn a_slot_is_that_of_the_cluster_specification() {
        // As `CLUSTER KEYSLOT` of a Redis 7.0 says.
        for (text, slot) in [("123456789", 12739), ("affidavit", 261), ("foo", 12182), ("", 0)] {
            assert_eq!(slot_of(text), slot, "{text}");
        }
    }

    #[test]
    fn the_owner_of_a_slot_is_found_in_what_a_node_says() {
        let range = |first, last, nodes: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
        };
        let answer = Value::Array(vec![
            range(0, 5460, vec![node(Some("10.0.0.1"), 7000), node(Some("10.0.0.4"), 7003)]),
            range(5461, 10922, vec![node(None, 7001), node(Some("?"), 7004)]),
            range(10923, 16382, vec![node(Some(""), 7002)]),
        ]);
        let asked = at("seed", 7009);
        let owner = |slot| nodes(&answer, slot, &asked).map(|(owner, _)| owner);
        assert_eq!(owner(5460), Some(at("10.0.0.1", 7000)));
        assert_eq!(
            owner(5461),
            Some(at("seed", 7001)),
            "who does not know its address is where it was asked"
        );
        assert_eq!(owner(10923), Some(at("seed", 7002)));
        assert_eq!(owner(16383), None, "nobody has it");
        assert_eq!(nodes(&answer, 0, &asked).unwrap().1.len(), 3);
        let others =
            [Value::Nil, Value::Array(vec![Value::Int(1)]), Value::Array(vec![Value::Array(vec![])])];
        for other in others {
            assert_eq!(nodes(&other, 0, &asked), None, "{other:?}");
        }
    }
}
