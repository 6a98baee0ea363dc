//! What is longer than one message stands in pieces.

use std::collections::BTreeMap;

/// Things whose pieces are not all there.
#[derive(Debug)]
pub(super) struct Pieces<K>(BTreeMap<K, BTreeMap<u32, Vec<u8>>>);

impl<K> Default for Pieces<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Copy> Pieces<K> {
    /// Takes a piece; gives the whole where it is.
    pub(super) fn take(&mut self, of: K, piece: u32, pieces: u32, bytes: &[u8]) -> Option<Vec<u8>> {
        if pieces == 1 {
            return Some(bytes.to_vec());
        }
        let here = self.0.entry(of).or_default();
        here.insert(piece, bytes.to_vec());
        if here.len() < pieces as usize {
            return None;
        }
        Some(self.0.remove(&of)?.into_values().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_whole_with_its_last_piece_in_any_order() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.take(3, 1, 2, b"b"), None);
        assert_eq!(pieces.take(3, 1, 2, b"b"), None);
        assert_eq!(pieces.take(4, 0, 1, b"x"), Some(b"x".to_vec()));
        assert_eq!(pieces.take(3, 0, 2, b"a"), Some(b"ab".to_vec()));
        assert!(pieces.0.is_empty());
    }
}
