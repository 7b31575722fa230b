"""Byte classes: bytes that no glob tells apart share a column of the transition table."""

from collections.abc import Iterable
from dataclasses import dataclass

OTHER = 0  # the class of every byte that nothing names; it may hold no byte at all


@dataclass(frozen=True)
class Alphabet:
    """``classes[byte]`` is the byte's class, below ``size``. Class OTHER is always there, be it empty: so there can be
    257 of them.
    """

    classes: tuple[int, ...]
    size: int

    def of(self, members: frozenset[int]) -> frozenset[int]:
        """The classes that ``members`` consists of: a set that the alphabet was made from, or a union of such."""
        return frozenset(self.classes[byte] for byte in members)

    def with_own_class(self, byte: int) -> "Alphabet":
        """The alphabet in which ``byte`` has a class of its own, the last one."""
        classes = (*self.classes[:byte], self.size, *self.classes[byte + 1 :])
        return Alphabet(classes, self.size + 1)


def alphabet_of(sets: Iterable[frozenset[int]]) -> Alphabet:
    """The coarsest alphabet that tells the members of each set from the rest."""
    classes = [OTHER] * 256
    size = 1
    for members in set(sets):
        outside = {classes[byte] for byte in range(256) if byte not in members}
        outside.add(OTHER)  # what is named leaves it, even if nothing stays behind
        split: dict[int, int] = {}
        for byte in members:
            old = classes[byte]
            if old in outside:
                if old not in split:
                    split[old], size = size, size + 1
                classes[byte] = split[old]
    return _renumbered(classes)


def _renumbered(classes: list[int]) -> Alphabet:
    """Numbers without holes, in the order of the bytes, so that the same globs always give the same tables."""
    order = {OTHER: OTHER}
    for number in classes:
        order.setdefault(number, len(order))
    return Alphabet(tuple(order[number] for number in classes), len(order))
