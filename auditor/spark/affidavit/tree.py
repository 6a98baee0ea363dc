"""FORMAT.md 4: leaf hashes and the tree."""

from hashlib import sha256


def leaf_hash(leaf):
    return sha256(b"\x00" + leaf).digest()


def node(left, right):
    return sha256(b"\x01" + left + right).digest()


def root(hashes):
    """The root by the recursive definition of RFC 6962 2.1."""
    n = len(hashes)
    if n == 0:
        return sha256(b"").digest()
    if n == 1:
        return hashes[0]
    k = 1 << ((n - 1).bit_length() - 1)
    return node(root(hashes[:k]), root(hashes[k:]))


class CompactRange:
    def __init__(self, size=0, nodes=()):
        if len(nodes) != size.bit_count():
            raise ValueError(f"{len(nodes)} roots for size {size}")
        self.size, self.nodes = size, list(nodes)

    def append(self, hash_):
        size = self.size
        while size & 1:
            hash_ = node(self.nodes.pop(), hash_)
            size >>= 1
        self.nodes.append(hash_)
        self.size += 1

    def root(self):
        if not self.nodes:
            return sha256(b"").digest()
        out = self.nodes[-1]
        for left in reversed(self.nodes[:-1]):
            out = node(left, out)
        return out


def inclusion_root(hash_, index, size, proof):
    """The root that an inclusion proof gives (RFC 9162 2.1.3.2)."""
    if index >= size:
        raise ValueError("index is not below size")
    fn, sn, out = index, size - 1, hash_
    for p in proof:
        if sn == 0:
            raise ValueError("the proof is too long")
        if fn & 1 or fn == sn:
            out = node(p, out)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            out = node(out, p)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise ValueError("the proof is too short")
    return out


def consistency_holds(old, old_root, new, new_root, proof):
    """RFC 9162 2.1.4.2."""
    if old == new:
        return old_root == new_root and not proof
    if old == 0:
        return not proof
    if not proof and old & (old - 1):
        return False
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    if not path:
        return False
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node(c, fr), node(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == old_root and sr == new_root
