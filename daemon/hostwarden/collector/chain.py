"""Proves that what a host sends continues what is stored of its log. Pure: bytes in, rows or a refusal out.

A line is taken if its sequence is the next one and its ``prev`` is the leaf hash of the line before; a checkpoint, if
the log's key signed it and its head and RFC 6962 root are those that we compute ourselves. So nobody has to trust the
host about its past, nor the collector: whoever reads the store can do the same sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from hostwarden.records.merkle import Tree
from hostwarden.records.note import Checkpoint, NoteError, open_checkpoint
from hostwarden.records.segments import MAX_LINE, ZERO, origin, parse_prefix

CHECKPOINTS_LIMIT = 64  # in one batch; a host writes at most a few a second, and each costs a signature's check
TEXT_LIMIT = 256  # characters of what is kept in a column of its own
_INT64 = 1 << 63


class ChainError(Exception):
    """What was sent doesn't continue what is stored. One line."""


@dataclass(frozen=True, slots=True)
class Head:
    """How far a log is stored: its last sequence, that line's leaf hash, and the tree over all leaf hashes."""

    stored: int
    leaf_hash: bytes
    tree: Tree

    @classmethod
    def empty(cls) -> "Head":
        """The head of a log of which nothing is stored."""
        return cls(0, ZERO, Tree())


Row = tuple[int, bytes, str | None, str | None, int | float | str | None]  # sequence, line, agent, verdict, time


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a batch adds: rows, checkpoints as (size, note), and the head after them."""

    rows: list[Row]
    checkpoints: list[tuple[int, str]]
    head: Head


@dataclass(frozen=True, slots=True)
class LogKey:
    """Whose signature counts: the log's fingerprint, and the raw Ed25519 key that it is the fingerprint of."""

    log: str
    public: bytes


def accept(
    head: Head,
    key: LogKey,
    first: int,
    lines: Sequence[bytes],
    notes: Sequence[str],
    stored_line: Callable[[int], bytes | None],
) -> Accepted:
    """What remains to be stored of a batch. ``stored_line`` gives a line below the head, by sequence.

    Lines that are stored already must be the same bytes, and are passed over. Raises ChainError.
    """
    if lines and not 0 < first <= head.stored + 1:
        raise ChainError(f"sequence {first} was sent, {head.stored + 1} is next: records are missing")
    known = min(head.stored + 1 - first, len(lines)) if lines else 0
    for sequence, line in enumerate(lines[:known], first):
        if stored_line(sequence) != line:
            raise ChainError(
                f"record {sequence} was sent and stored before, with other bytes: the host shows another past"
            )
    rows, leaves = _follow(head, lines[known:])
    tree = head.tree.copy()
    checkpoints = _checkpoints(head, key, leaves, tree, notes, stored_line)
    tree.extend(leaves[tree.size - head.stored :])
    return Accepted(rows, checkpoints, Head(head.stored + len(rows), leaves[-1] if leaves else head.leaf_hash, tree))


def _follow(head: Head, lines: Sequence[bytes]) -> tuple[list[Row], list[bytes]]:
    """Rows and leaf hashes of the lines that come after ``head``."""
    rows: list[Row] = []
    leaves: list[bytes] = []
    sequence, prev = head.stored, head.leaf_hash
    for line in lines:
        sequence += 1
        record = _parse(line, sequence)
        prefix = parse_prefix(line)
        if prefix is None or prefix[0] != sequence or record["sequence"] is True or record["sequence"] != sequence:
            raise ChainError(f"record {sequence}: does not begin with its sequence and the hash before it")
        if prefix[1] != prev or record["prev"] != prefix[1].hex():
            raise ChainError(f"record {sequence}: its prev is not the hash of record {sequence - 1} as it is stored")
        prev = sha256(b"\0" + line).digest()
        leaves.append(prev)
        rows.append(
            (sequence, line, _text(record.get("agent")), _text(record.get("verdict")), _time(record.get("time")))
        )
    return rows, leaves


def _parse(line: bytes, sequence: int) -> dict[str, Any]:
    # A line break between two tokens is JSON, and would be two lines to whoever reads our output.
    if len(line) > MAX_LINE or b"\n" in line or b"\r" in line:
        raise ChainError(f"record {sequence}: not one line of at most {MAX_LINE} bytes")
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ChainError(f"record {sequence}: not JSON") from None
    if not isinstance(record, dict):
        raise ChainError(f"record {sequence}: not a JSON object")
    return record


def _checkpoints(
    head: Head,
    key: LogKey,
    leaves: list[bytes],
    tree: Tree,
    notes: Sequence[str],
    stored_line: Callable[[int], bytes | None],
) -> list[tuple[int, str]]:
    """Those to store, ``tree`` grown up to the last. Older ones than the head are checked and passed over.

    Only the tree at the head is at hand, so an older root can't be computed; the records under an older checkpoint are
    under the next one too.
    """
    if len(notes) > CHECKPOINTS_LIMIT:
        raise ChainError(f"{len(notes)} checkpoints in one batch, at most {CHECKPOINTS_LIMIT} are taken")
    opened = sorted(((verify(note, key), note) for note in notes), key=lambda pair: pair[0].size)
    taken: list[tuple[int, str]] = []
    for checkpoint, note in opened:
        size = checkpoint.size
        if size > head.stored + len(leaves):
            raise ChainError(f"checkpoint of {size} records, {head.stored + len(leaves)} were sent")
        if size > head.stored:
            leaf = leaves[size - head.stored - 1]
        else:
            leaf = head.leaf_hash if size == head.stored else _leaf(stored_line(size))
        if checkpoint.head != leaf:
            raise ChainError(
                f"checkpoint of {size} records: its head is not record {size}: the host shows another past"
            )
        if size < head.stored:
            continue
        tree.extend(leaves[tree.size - head.stored : size - head.stored])
        if checkpoint.root != tree.root():
            raise ChainError(f"checkpoint of {size} records: its root is not that of the records")
        taken.append((size, note))
    return taken


def verify(note: str, key: LogKey) -> Checkpoint:
    """The checkpoint in ``note``. Raises ChainError unless the log's key signed it."""
    try:
        return open_checkpoint(note, origin(key.log), key.public)
    except NoteError as error:
        raise ChainError(f"checkpoint: {error}") from None


def _leaf(line: bytes | None) -> bytes:
    return ZERO if line is None else sha256(b"\0" + line).digest()


def _text(value: object) -> str | None:
    return value[:TEXT_LIMIT] if isinstance(value, str) else None


def _time(value: object) -> int | float | str | None:
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else None
    return value if isinstance(value, float) else _text(value)
