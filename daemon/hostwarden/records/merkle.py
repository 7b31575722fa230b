"""The Merkle tree of RFC 6962 section 2.1, kept as a compact range.

A compact range is the list of roots of the perfect subtrees that the leaves so far split into, largest first: one hash
for each bit that is set in the number of leaves, so 64 hashes at most, however long the log is. It is all that is
needed to append a leaf and to know the root. Proofs need the leaves again; they are one pass over the log's files.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data): 32 bytes."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right): 32 bytes."""
    return sha256(b"\1" + left + right).digest()


class Tree:
    """An append-only tree over leaf hashes of 32 bytes."""

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        """An empty tree, or the one whose compact range is ``nodes``. Raises ValueError if size and nodes don't fit."""
        if size < 0 or size.bit_count() != len(nodes) or any(len(node) != HASH_BYTES for node in nodes):
            raise ValueError("a compact range has one hash of 32 bytes for each bit set in the tree's size")
        self._size = size
        self._nodes = list(nodes)

    @property
    def size(self) -> int:
        """Leaves."""
        return self._size

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """The compact range, largest subtree first."""
        return tuple(self._nodes)

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaf hashes in order.

        Each trailing 1 bit of the size is a subtree that the new leaf completes: one hash a leaf on average. The loop
        is in the path of every record, hence the local names and no call to node_hash.
        """
        size, nodes = self._size, self._nodes
        pop, push, hash_ = nodes.pop, nodes.append, sha256
        for leaf in leaves:
            bits, node = size, leaf
            while bits & 1:
                node = hash_(b"\1" + pop() + node).digest()
                bits >>= 1
            push(node)
            size += 1
        self._size = size

    def root(self) -> bytes:
        """The tree head over all leaves so far; EMPTY_ROOT if there are none."""
        if not self._nodes:
            return EMPTY_ROOT
        root = self._nodes[-1]
        for node in reversed(self._nodes[:-1]):
            root = node_hash(node, root)
        return root

    def copy(self) -> "Tree":
        """An independent tree with the same leaves."""
        return Tree(self._size, self._nodes)
