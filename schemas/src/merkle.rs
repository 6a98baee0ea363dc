//! The RFC 6962 Merkle tree over leaf hashes: roots, proofs and compact ranges.
//!
//! A node is SHA-256(0x01 || left || right); a tree of n leaves splits at the largest power of two below n; the root
//! of no leaves is SHA-256(""). Format: `FORMAT.md` 4.

use crate::digest::{Hasher, Sha256Hex};

/// A leaf hash, or the hash of a node.
pub type Hash = Sha256Hex;

/// Why a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf lies outside the tree.
    #[error("index {index} lies outside a tree of {size} leaves")]
    Index {
        /// The leaf's index.
        index: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// The older tree is larger than the newer.
    #[error("a tree of {new} leaves cannot contain one of {old}")]
    Shrunk {
        /// Leaves in the older tree.
        old: u64,
        /// Leaves in the newer tree.
        new: u64,
    },
    /// Not as many hashes as such a proof has.
    #[error("proof of {found} hashes, wanted {wanted}")]
    Length {
        /// Hashes found.
        found: usize,
        /// Hashes wanted.
        wanted: usize,
    },
    /// The proof leads to another root.
    #[error("the proof leads to root {found}, wanted {wanted}")]
    Root {
        /// The root that the proof leads to.
        found: Hash,
        /// The root that was given.
        wanted: Hash,
    },
    /// A compact range whose number of nodes does not fit its size.
    #[error("a compact range of size {size} has {wanted} nodes, found {found}")]
    Nodes {
        /// Leaves that the range covers.
        size: u64,
        /// Nodes found.
        found: usize,
        /// Nodes wanted.
        wanted: usize,
    },
}

/// The hash of an inner node.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Hasher::default();
    hasher.update([1]);
    hasher.update(left.0);
    hasher.update(right.0);
    hasher.finish()
}

/// The root of a tree without leaves: SHA-256("").
pub fn empty_root() -> Hash {
    Sha256Hex::of(b"")
}

/// The roots of the perfect subtrees that tile `[0, size)`, left to right: one for each bit of `size`.
///
/// It is all that is needed to append, and to name the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompactRange {
    size: u64,
    nodes: Vec<Hash>,
}

impl CompactRange {
    /// The range of no leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a range as a seal states it.
    ///
    /// # Errors
    /// Not one node for each bit of `size`.
    pub fn from_parts(size: u64, nodes: Vec<Hash>) -> Result<Self, ProofError> {
        let wanted = size.count_ones() as usize;
        if nodes.len() == wanted {
            Ok(Self { size, nodes })
        } else {
            Err(ProofError::Nodes { size, found: nodes.len(), wanted })
        }
    }

    /// Appends the next leaf.
    pub fn append(&mut self, leaf_hash: Hash) {
        let mut hash = leaf_hash;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                hash = node(&left, &hash);
            }
        }
        self.nodes.push(hash);
        self.size += 1;
    }

    /// Leaves covered.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The subtree roots, left to right.
    pub fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// The root of the tree of `size` leaves.
    pub fn root(&self) -> Hash {
        let mut nodes = self.nodes.iter().rev();
        let Some(last) = nodes.next() else { return empty_root() };
        nodes.fold(*last, |right, left| node(left, &right))
    }

    /// The node that covers the leaves from `begin`, where one does.
    fn starting_at(&self, begin: u64) -> Option<Hash> {
        let mut from = 0;
        let mut rest = self.size;
        for node in &self.nodes {
            if from == begin {
                return Some(*node);
            }
            let width = 1_u64 << rest.ilog2();
            from += width;
            rest -= width;
        }
        None
    }
}

/// The largest power of two below `n`, for `n > 1`.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// The root of a tree over `leaf_hashes`.
pub fn root(leaf_hashes: &[Hash]) -> Hash {
    let mut range = CompactRange::new();
    for hash in leaf_hashes {
        range.append(*hash);
    }
    range.root()
}

/// The proof that leaf `index` is in the tree over `leaf_hashes`, bottom up; empty where there is no such leaf.
pub fn inclusion_proof(leaf_hashes: &[Hash], index: u64) -> Vec<Hash> {
    inclusion_in_batch(&CompactRange::new(), leaf_hashes, index)
}

/// The proof for the leaf at `before.size() + index_in_batch` in the tree that ends with `batch`, bottom up.
///
/// Needs only the batch's leaf hashes and the compact range at its start. Empty where there is no such leaf.
pub fn inclusion_in_batch(before: &CompactRange, batch: &[Hash], index_in_batch: u64) -> Vec<Hash> {
    let mut proof = Vec::new();
    if index_in_batch >= batch.len() as u64 {
        return proof;
    }
    let tiles = Tiles { before, batch };
    let index = before.size + index_in_batch;
    let (mut begin, mut end) = (0, before.size + batch.len() as u64);
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            proof.push(tiles.subtree(middle, end));
            end = middle;
        } else {
            proof.push(tiles.subtree(begin, middle));
            begin = middle;
        }
    }
    proof.reverse();
    proof
}

/// Leaves of which the older ones are known only as a compact range.
struct Tiles<'a> {
    before: &'a CompactRange,
    batch: &'a [Hash],
}

impl Tiles<'_> {
    /// The hash of the subtree over `[begin, end)`, which is a subtree of the whole tree and, where it ends within
    /// `before`, has a parent that does not: so it is a node of `before`.
    fn subtree(&self, begin: u64, end: u64) -> Hash {
        let from = self.before.size;
        if begin >= from {
            let slice = (begin - from) as usize..(end - from) as usize;
            return root(&self.batch[slice]);
        }
        if let Some(node) = self.before.starting_at(begin).filter(|_| end <= from) {
            return node;
        }
        if end - begin <= 1 {
            return empty_root();
        }
        let middle = begin + split(end - begin);
        node(&self.subtree(begin, middle), &self.subtree(middle, end))
    }
}

/// Checks that `leaf_hash` is leaf `index` of the tree of `size` leaves with `root` (RFC 9162 2.1.3.2).
///
/// # Errors
/// The first reason why it does not hold.
pub fn verify_inclusion(
    leaf_hash: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    same_root(root_of_inclusion(leaf_hash, index, size, proof)?, root)
}

/// The root that an inclusion proof leads to, where it has the length of one.
///
/// # Errors
/// No such leaf, or a proof of another length.
pub fn root_of_inclusion(
    leaf_hash: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
) -> Result<Hash, ProofError> {
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let (mut inner, mut outer) = (index, size - 1);
    let wanted = inclusion_length(index, size);
    if proof.len() != wanted {
        return Err(ProofError::Length { found: proof.len(), wanted });
    }
    let mut hash = *leaf_hash;
    for sibling in proof {
        if inner & 1 == 1 || inner == outer {
            hash = node(sibling, &hash);
            while inner & 1 == 0 && inner != 0 {
                inner >>= 1;
                outer >>= 1;
            }
        } else {
            hash = node(&hash, sibling);
        }
        inner >>= 1;
        outer >>= 1;
    }
    Ok(hash)
}

/// How many hashes an inclusion proof has.
fn inclusion_length(index: u64, size: u64) -> usize {
    let (mut begin, mut end, mut length) = (0, size, 0);
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            end = middle
        } else {
            begin = middle
        }
        length += 1;
    }
    length
}

fn same_root(found: Hash, wanted: &Hash) -> Result<(), ProofError> {
    if found == *wanted { Ok(()) } else { Err(ProofError::Root { found, wanted: *wanted }) }
}

/// The proof that the tree over `leaf_hashes` extends the tree over its first `old_size` (RFC 9162 2.1.4.1).
///
/// Empty where `old_size` is 0, the whole, or more.
pub fn consistency_proof(leaf_hashes: &[Hash], old_size: u64) -> Vec<Hash> {
    let mut proof = Vec::new();
    let new_size = leaf_hashes.len() as u64;
    if old_size == 0 || old_size >= new_size {
        return proof;
    }
    let slice = |begin: u64, end: u64| root(&leaf_hashes[begin as usize..end as usize]);
    let (mut begin, mut end, mut whole) = (0, new_size, true);
    while old_size != end {
        let middle = begin + split(end - begin);
        if old_size <= middle {
            proof.push(slice(middle, end));
            end = middle;
        } else {
            proof.push(slice(begin, middle));
            begin = middle;
            whole = false;
        }
    }
    if !whole {
        proof.push(slice(begin, end));
    }
    proof.reverse();
    proof
}

/// The proof that the tree that ends with `leaves` extends the tree of `before.size()` leaves.
///
/// Needs only the compact range there and the leaf hashes behind it. Empty where either is empty.
pub fn consistency_from(before: &CompactRange, leaves: &[Hash]) -> Vec<Hash> {
    let mut proof = Vec::new();
    let old_size = before.size;
    if old_size == 0 || leaves.is_empty() {
        return proof;
    }
    let tiles = Tiles { before, batch: leaves };
    let (mut begin, mut end, mut whole) = (0, old_size + leaves.len() as u64, true);
    while old_size != end {
        let middle = begin + split(end - begin);
        if old_size <= middle {
            proof.push(tiles.subtree(middle, end));
            end = middle;
        } else {
            proof.push(tiles.subtree(begin, middle));
            begin = middle;
            whole = false;
        }
    }
    if !whole {
        proof.push(tiles.subtree(begin, end));
    }
    proof.reverse();
    proof
}

/// Checks that the tree of `new_size` leaves extends the tree of `old_size` (RFC 9162 2.1.4.2).
///
/// An old tree without leaves is extended by every tree, with an empty proof.
///
/// # Errors
/// The first reason why it does not hold.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old_size > new_size {
        return Err(ProofError::Shrunk { old: old_size, new: new_size });
    }
    if old_size == new_size || old_size == 0 {
        if !proof.is_empty() {
            return Err(ProofError::Length { found: proof.len(), wanted: 0 });
        }
        let wanted = if old_size == 0 { empty_root() } else { *new_root };
        same_root(wanted, old_root)?;
        return if new_size == 0 { same_root(empty_root(), new_root) } else { Ok(()) };
    }
    let wanted = consistency_length(old_size, new_size);
    if proof.len() != wanted {
        return Err(ProofError::Length { found: proof.len(), wanted });
    }
    let mut hashes = proof.iter();
    let (mut inner, mut outer) = (old_size - 1, new_size - 1);
    while inner & 1 == 1 {
        inner >>= 1;
        outer >>= 1;
    }
    // Where the old tree is perfect its own root is the start, and is not in the proof.
    let start =
        if old_size.is_power_of_two() { *old_root } else { hashes.next().copied().unwrap_or(*old_root) };
    let (mut old, mut new) = (start, start);
    for hash in hashes {
        if inner & 1 == 1 || inner == outer {
            old = node(hash, &old);
            new = node(hash, &new);
            while inner & 1 == 0 && inner != 0 {
                inner >>= 1;
                outer >>= 1;
            }
        } else {
            new = node(&new, hash);
        }
        inner >>= 1;
        outer >>= 1;
    }
    same_root(old, old_root)?;
    same_root(new, new_root)
}

/// How many hashes a consistency proof has, for `0 < old_size < new_size`.
fn consistency_length(old_size: u64, new_size: u64) -> usize {
    let (mut begin, mut end, mut whole, mut length) = (0, new_size, true, 0);
    while old_size != end {
        let middle = begin + split(end - begin);
        if old_size <= middle {
            end = middle;
        } else {
            begin = middle;
            whole = false;
        }
        length += 1;
    }
    if whole { length } else { length + 1 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::leaf;

    fn leaves(n: usize) -> Vec<Hash> {
        (0..n).map(|i| leaf::hash(&i.to_be_bytes())).collect()
    }

    /// RFC 6962 2.1, word by word.
    fn mth(d: &[Hash]) -> Hash {
        match d {
            [] => Sha256Hex::of(b""),
            [one] => *one,
            _ => {
                let mut k = 1;
                while k * 2 < d.len() {
                    k *= 2;
                }
                node(&mth(&d[..k]), &mth(&d[k..]))
            }
        }
    }

    /// RFC 6962 2.1.1, word by word.
    fn path(m: usize, d: &[Hash]) -> Vec<Hash> {
        if d.len() == 1 {
            return vec![];
        }
        let mut k = 1;
        while k * 2 < d.len() {
            k *= 2;
        }
        let (mut proof, other) =
            if m < k { (path(m, &d[..k]), mth(&d[k..])) } else { (path(m - k, &d[k..]), mth(&d[..k])) };
        proof.push(other);
        proof
    }

    /// RFC 6962 2.1.2, word by word.
    fn subproof(m: usize, d: &[Hash], whole: bool) -> Vec<Hash> {
        if m == d.len() {
            return if whole { vec![] } else { vec![mth(d)] };
        }
        let mut k = 1;
        while k * 2 < d.len() {
            k *= 2;
        }
        let (mut proof, other) = if m <= k {
            (subproof(m, &d[..k], whole), mth(&d[k..]))
        } else {
            (subproof(m - k, &d[k..], false), mth(&d[..k]))
        };
        proof.push(other);
        proof
    }

    #[test]
    fn roots_of_the_certificate_transparency_reference_tree() {
        // The test vectors of google/certificate-transparency and transparency-dev/merkle.
        let inputs = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
        let hashes: Vec<_> = inputs.iter().map(|i| leaf::hash(&hex::decode(i).unwrap())).collect();
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        for (size, wanted) in roots.iter().enumerate() {
            assert_eq!(root(&hashes[..size]).to_string(), *wanted, "{size}");
        }
    }

    #[test]
    fn every_small_tree_agrees_with_the_recursive_definition() {
        for n in 0..=20 {
            let all = leaves(n);
            assert_eq!(root(&all), mth(&all));
            for index in 0..n {
                let proof = inclusion_proof(&all, index as u64);
                assert_eq!(proof, path(index, &all));
                verify_inclusion(&all[index], index as u64, n as u64, &proof, &mth(&all)).unwrap();
                for from in 0..=index {
                    let mut before = CompactRange::new();
                    all[..from].iter().for_each(|h| before.append(*h));
                    assert_eq!(
                        inclusion_in_batch(&before, &all[from..], (index - from) as u64),
                        proof,
                        "{from} {index} {n}"
                    );
                }
            }
            for old in 1..=n {
                let proof = consistency_proof(&all, old as u64);
                assert_eq!(proof, subproof(old, &all, true), "{old} {n}");
                verify_consistency(old as u64, &mth(&all[..old]), n as u64, &mth(&all), &proof).unwrap();
            }
        }
    }

    #[test]
    fn a_compact_range_has_a_node_for_each_bit() {
        let mut range = CompactRange::new();
        for (i, hash) in leaves(70).into_iter().enumerate() {
            assert_eq!(range.nodes().len(), i.count_ones() as usize);
            assert_eq!(range, CompactRange::from_parts(i as u64, range.nodes().to_vec()).unwrap());
            range.append(hash);
        }
        assert_eq!(
            CompactRange::from_parts(70, vec![]),
            Err(ProofError::Nodes { size: 70, found: 0, wanted: 3 })
        );
    }

    #[test]
    fn sizes_near_the_end_of_u64_do_not_overflow() {
        let hash = Sha256Hex([1; 32]);
        assert!(verify_inclusion(&hash, u64::MAX - 1, u64::MAX, &[hash; 64], &hash).is_err());
        assert!(verify_consistency(u64::MAX - 1, &hash, u64::MAX, &hash, &[hash; 64]).is_err());
        assert_eq!(verify_inclusion(&hash, 5, 5, &[], &hash), Err(ProofError::Index { index: 5, size: 5 }));
        assert_eq!(verify_consistency(6, &hash, 5, &hash, &[]), Err(ProofError::Shrunk { old: 6, new: 5 }));
    }

    proptest! {
        #[test]
        fn large_trees_agree_with_the_recursive_definition(n in 1_usize..300, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
            let all = leaves(n);
            let whole = mth(&all);
            let (index, old) = (a.index(n), b.index(n) + 1);
            prop_assert_eq!(root(&all), whole);
            let proof = inclusion_proof(&all, index as u64);
            prop_assert_eq!(&proof, &path(index, &all));
            prop_assert!(verify_inclusion(&all[index], index as u64, n as u64, &proof, &whole).is_ok());
            let consistency = consistency_proof(&all, old as u64);
            prop_assert_eq!(&consistency, &subproof(old, &all, true));
            let mut before = CompactRange::new();
            all[..old].iter().for_each(|hash| before.append(*hash));
            prop_assert_eq!(&consistency_from(&before, &all[old..]), &consistency);
            prop_assert!(verify_consistency(old as u64, &mth(&all[..old]), n as u64, &whole, &consistency).is_ok());
        }

        #[test]
        fn a_changed_proof_does_not_hold(n in 2_usize..80, a in any::<prop::sample::Index>(), bit in 0_usize..256, at in any::<prop::sample::Index>(), wrong in any::<prop::sample::Index>()) {
            let all = leaves(n);
            let whole = root(&all);
            let index = a.index(n);
            let flip = |proof: &[Hash]| {
                let mut changed = proof.to_vec();
                let i = at.index(changed.len());
                changed[i].0[bit / 8] ^= 1 << (bit % 8);
                changed
            };
            let proof = inclusion_proof(&all, index as u64);
            prop_assert!(verify_inclusion(&all[index], index as u64, n as u64, &flip(&proof), &whole).is_err());
            let other = wrong.index(n);
            if other != index {
                prop_assert!(verify_inclusion(&all[index], other as u64, n as u64, &proof, &whole).is_err());
            }
            prop_assert!(verify_inclusion(&all[index], index as u64, n as u64, &proof[1..], &whole).is_err());
            let old = index.max(1);
            let proof = consistency_proof(&all, old as u64);
            let old_root = root(&all[..old]);
            prop_assert!(verify_consistency(old as u64, &old_root, n as u64, &whole, &flip(&proof)).is_err());
            prop_assert!(verify_consistency(old as u64, &whole, n as u64, &whole, &proof).is_err());
        }
    }
}
