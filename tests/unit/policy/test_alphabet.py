"""Byte classes tell apart exactly what the sets tell apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.policy.alphabet import OTHER, alphabet_of

sets = st.lists(st.frozensets(st.integers(0, 255), max_size=300), max_size=8)


@given(sets)
def test_bytes_share_a_class_if_no_set_tells_them_apart(members: list[frozenset[int]]) -> None:
    alphabet = alphabet_of(members)
    views = [tuple(byte in one for one in members) for byte in range(256)]
    for left in range(0, 256, 7):
        for right in range(256):
            same = alphabet.classes[left] == alphabet.classes[right]
            assert same == (views[left] == views[right])
    for byte in range(256):
        assert (alphabet.classes[byte] == OTHER) == (not any(views[byte]))
    assert set(alphabet.classes) | {OTHER} == set(range(alphabet.size))


@pytest.mark.parametrize("order", [1, -1])
def test_order_of_sets_does_not_matter(order: int) -> None:
    members = [frozenset(b"abc"), frozenset(b"bcd"), frozenset(range(256))]
    assert alphabet_of(members[::order]) == alphabet_of(members)


def test_all_bytes_alone() -> None:
    alphabet = alphabet_of(frozenset([byte]) for byte in range(256))
    assert len(set(alphabet.classes)) == 256
    assert alphabet.with_own_class(0).size == 258
