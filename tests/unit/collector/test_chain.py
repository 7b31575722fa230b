"""What continues a log is taken, everything else is refused with its reason. Pure."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.collector.chain import CHECKPOINTS_LIMIT, Accepted, ChainError, Head, LogKey, accept
from hostwarden.records.merkle import Tree

MakeLog = Callable[..., Any]


def _key(log: Any) -> LogKey:
    return LogKey(log.log, log.public)


def _take(log: Any, head: Head, first: int, lines: list[bytes], notes: tuple[str, ...] = ()) -> Accepted:
    return accept(head, _key(log), first, lines, notes, lambda n: log.lines[n - 1] if n else None)


def _head(log: Any, n: int) -> Head:
    return _take(log, Head.empty(), 1, log.lines[:n]).head if n else Head.empty()


def test_rows(make_log: MakeLog) -> None:
    log = make_log().grow(3)
    accepted = _take(log, Head.empty(), 1, log.lines)
    assert accepted.rows == [
        (1, log.lines[0], "research", "allow", 1000),
        (2, log.lines[1], "billing", "deny", 2000),
        (3, log.lines[2], "research", "kill", 3000),
    ]
    tree = Tree()
    tree.extend(log.leaves)
    assert (accepted.head.stored, accepted.head.leaf_hash) == (3, log.leaves[2])
    assert accepted.head.tree.root() == tree.root()


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"agent": None, "verdict": None, "time": None}, (None, None, None)),
        ({"agent": {"name": "x"}, "verdict": 4, "time": [1]}, (None, None, None)),
        ({"agent": "a" * 5000, "verdict": "", "time": 1.5}, ("a" * 256, "", 1.5)),
        ({"time": "2026-11-24T07:00:00Z"}, ("research", "allow", "2026-11-24T07:00:00Z")),
        ({"time": 2**63}, ("research", "allow", None)),
    ],
)
def test_columns_from_whatever_a_host_writes(make_log: MakeLog, fields: dict[str, object], kept: Any) -> None:
    log = make_log().grow(1, **fields)
    assert _take(log, Head.empty(), 1, log.lines).rows[0][2:] == kept


@given(st.lists(st.integers(1, 12), max_size=8), st.data())
def test_any_split_with_any_overlap_gives_the_same_head(sizes: list[int], data: st.DataObject) -> None:
    log = _LOG
    head, rows = Head.empty(), []
    for size in sizes:
        first = data.draw(st.integers(1, head.stored + 1))
        lines = log.lines[first - 1 : head.stored + size]
        notes = tuple(log.checkpoint(n) for n in data.draw(st.sets(st.integers(0, first + len(lines) - 1), max_size=3)))
        accepted = _take(log, head, first, lines, notes)
        rows += accepted.rows
        assert [size for size, _ in accepted.checkpoints] == sorted(
            size for size, _ in accepted.checkpoints if size >= head.stored
        )
        head = accepted.head
    assert [row[1] for row in rows] == log.lines[: head.stored]
    assert head.leaf_hash == (log.leaves[head.stored - 1] if head.stored else bytes(32))
    tree = Tree()
    tree.extend(log.leaves[: head.stored])
    assert head.tree.root() == tree.root()


def _changed(line: bytes, old: bytes, new: bytes) -> bytes:
    assert old in line
    return line.replace(old, new, 1)


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "not JSON": (lambda line: line[:-1], "not JSON"),
    "empty": (lambda line: b"", "not JSON"),
    "a list": (lambda line: b"[" + line + b"]", "not a JSON object"),
    "two lines": (lambda line: _changed(line, b",", b",\n"), "not one line"),
    "carriage return": (lambda line: line + b"\r", "not one line"),
    "too long": (lambda line: line[:-1] + b',"x":"' + b"x" * (1 << 20) + b'"}', "not one line"),
    "other sequence": (lambda line: _changed(line, b'"sequence":5', b'"sequence":6'), "does not begin with"),
    "sequence twice": (lambda line: line[:-1] + b',"sequence":9}', "does not begin with"),
    "sequence is true": (lambda line: line[:-1] + b',"sequence":true}', "does not begin with"),
    "no prev": (lambda line: _changed(line, b'"prev"', b'"post"'), "does not begin with"),
    "space first": (lambda line: b" " + line, "does not begin with"),
    "wrong prev": (lambda line: line[:22] + (b"1" if line[22:23] == b"0" else b"0") + line[23:], "its prev is not"),
    "prev twice": (lambda line: line[:-1] + b',"prev":"' + b"0" * 64 + b'"}', "its prev is not"),
    "not UTF-8": (lambda line: line[:-1] + b',"x":"\xff"}', "not JSON"),
    "lone surrogate": (lambda line: line[:-1] + b',"x":"\\ud800"}', "not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_line_that_does_not_continue(make_log: MakeLog, name: str) -> None:
    log = make_log().grow(8)
    change, reason = BROKEN[name]
    lines = [*log.lines[:4], change(log.lines[4]), *log.lines[5:]]
    with pytest.raises(ChainError, match=rf"^record 5: .*{reason}"):
        _take(log, Head.empty(), 1, lines)


def test_a_changed_record_is_found_at_the_next(make_log: MakeLog) -> None:
    log = make_log().grow(8)
    lines = [*log.lines]
    lines[3] = _changed(lines[3], b"allow", b"audit")
    with pytest.raises(ChainError, match=r"^record 5: its prev is not the hash of record 4 as it is stored"):
        _take(log, Head.empty(), 1, lines)


@pytest.mark.parametrize("first", [0, 6, 7, 2**64 - 1])
def test_a_hole(make_log: MakeLog, first: int) -> None:
    log = make_log().grow(8)
    with pytest.raises(ChainError, match=rf"^sequence {first} was sent, 5 is next"):
        _take(log, _head(log, 4), first, log.lines[5:])


def test_another_past(make_log: MakeLog) -> None:
    log = make_log().grow(8)
    other = log.fork(3)
    with pytest.raises(ChainError, match=r"^record 4 was sent and stored before, with other bytes"):
        accept(_head(log, 6), _key(log), 2, other.lines[1:], (), lambda n: log.lines[n - 1])


def test_checkpoints(make_log: MakeLog) -> None:
    log = make_log().grow(8)
    notes = [log.checkpoint(n) for n in (8, 6, 4, 2)]
    accepted = _take(log, _head(log, 4), 3, log.lines[2:], tuple(notes))
    assert accepted.checkpoints == [(4, notes[2]), (6, notes[1]), (8, notes[0])]


def test_checkpoint_of_nothing(make_log: MakeLog) -> None:
    log = make_log()
    assert _take(log, Head.empty(), 1, [], (log.checkpoint(0),)).head.stored == 0


@pytest.mark.parametrize(
    ("size", "changes", "reason"),
    [
        (6, {"root": bytes(32)}, "its root is not that of the records"),
        (6, {"head": bytes(32)}, "its head is not record 6"),
        (3, {"head": bytes(32)}, "its head is not record 3"),  # below what is stored
        (6, {"size": 9}, "checkpoint of 9 records, 8 were sent"),
        (6, {"size": 7}, "its head is not record 7"),
        (6, {"origin": "hostwarden/" + "0" * 32}, "another log"),
    ],
)
def test_a_signed_lie(make_log: MakeLog, size: int, changes: dict[str, object], reason: str) -> None:
    log = make_log().grow(8)
    with pytest.raises(ChainError, match=reason):
        _take(log, _head(log, 4), 5, log.lines[4:], (log.checkpoint(size, **changes),))


def test_a_checkpoint_that_the_key_did_not_sign(make_log: MakeLog) -> None:
    log, thief = make_log().grow(8), make_log()
    thief.lines, thief.leaves, thief.name = log.lines, log.leaves, log.name
    for note in (thief.checkpoint(), log.checkpoint()[:-5] + "AAA=\n", "", "x" * 5000):
        with pytest.raises(ChainError, match=r"^checkpoint: "):
            _take(log, Head.empty(), 1, log.lines, (note,))


def test_too_many_checkpoints(make_log: MakeLog) -> None:
    log = make_log().grow(1)
    with pytest.raises(ChainError, match="at most 64 are taken"):
        _take(log, Head.empty(), 1, log.lines, (log.checkpoint(),) * (CHECKPOINTS_LIMIT + 1))


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=4), st.integers(0, 2**64 - 1))
def test_noise_is_refused(lines: list[bytes], first: int) -> None:
    with pytest.raises(ChainError):
        _take(_LOG, Head.empty(), first, lines)


_LOG: Any = None


@pytest.fixture(autouse=True, scope="module")
def _shared_log(request: pytest.FixtureRequest) -> None:
    global _LOG
    _LOG = request.getfixturevalue("shared_log")
