//! How many connections each peer has: one that holds many leaves room for others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of one peer at a time; more are closed.
const MOST: usize = 16;

/// The peers that have a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// The place of a connection among those of its peer; it goes with it.
#[derive(Debug)]
pub(super) struct Place {
    peers: Peers,
    peer: IpAddr,
}

/// Who counts as one: an IPv4 address, and a network of IPv6, of which whoever has one address has all.
fn one(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

impl Peers {
    /// A place for one more connection of the peer; none where it has as many as it may.
    pub(super) fn take(&self, peer: IpAddr) -> Option<Place> {
        let peer = one(peer);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(peer).or_default();
        if *count >= MOST {
            return None;
        }
        *count += 1;
        Some(Place { peers: self.clone(), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_share_and_leaves_the_rest_to_others() {
        let peers = Peers::default();
        let take = |peer: &str| peers.take(peer.parse().unwrap());
        for (peer, same, other) in [
            ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
        ] {
            let mut held: Vec<Place> = (0..MOST).map(|_| take(peer).unwrap()).collect();
            assert!(take(peer).is_none() && take(same).is_none());
            assert!(take(other).is_some());
            held.pop();
            assert!(take(same).is_some());
        }
        assert!(peers.0.lock().unwrap().is_empty());
    }
}
