"""The tree against RFC 6962: published vectors, the recursive definition, and its own compact range."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.records.merkle import EMPTY_ROOT, Tree, leaf_hash, node_hash

# The vectors of the Certificate Transparency reference implementation.
LEAVES = [bytes.fromhex(x) for x in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << ((len(leaves) - 1).bit_length() - 1)
    return node_hash(by_definition(leaves[:k]), by_definition(leaves[k:]))


@pytest.mark.parametrize("n", range(len(ROOTS)))
def test_roots_of_the_reference_vectors(n: int) -> None:
    tree = Tree()
    for leaf in LEAVES[:n]:
        tree.append(leaf_hash(leaf))
    assert tree.root().hex() == ROOTS[n]
    assert tree.size == n


@given(st.lists(st.binary(max_size=8), max_size=130), st.integers(0, 130))
def test_every_size_and_any_way_of_appending_gives_the_defined_root(data: list[bytes], split: int) -> None:
    leaves = [leaf_hash(x) for x in data]
    tree = Tree()
    tree.extend(leaves[:split])
    again = Tree(tree.size, tree.nodes)  # what tree.json keeps
    twin = tree.copy()
    for leaf in leaves[split:]:
        again.append(leaf)
    twin.extend(leaves[split:])
    assert again.root() == twin.root() == by_definition(leaves)
    assert tree.root() == by_definition(leaves[:split]), "a copy is independent"


@pytest.mark.parametrize(
    ("size", "nodes"), [(1, []), (2, [bytes(32)] * 2), (3, [bytes(32)]), (1, [bytes(31)]), (-1, [bytes(32)])]
)
def test_a_compact_range_that_does_not_fit_its_size_is_refused(size: int, nodes: list[bytes]) -> None:
    with pytest.raises(ValueError, match="compact range"):
        Tree(size, nodes)
