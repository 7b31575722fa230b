"""Opening a log after a crash, and refusing one that no crash made."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostwarden.records.key import load_or_create
from hostwarden.records.recover import Recovery, load_cache
from hostwarden.records.segments import LogError, parse_prefix
from hostwarden.records.verify import verify
from hostwarden.records.writer import LogWriter

if TYPE_CHECKING:
    from tests.unit.records.conftest import Log

Body = Callable[[int], bytes]


def record_lines(folder: Path) -> list[bytes]:
    lines = [line for path in sorted(folder.glob("*.seg")) for line in path.read_bytes().splitlines(keepends=True)]
    return [line for line in lines if line.startswith(b'{"sequence"') and line.endswith(b"\n")]


def reopen(log: Log) -> tuple[LogWriter, Recovery]:
    writer = LogWriter(log.state_dir, log.key)
    return writer, writer.open()


@pytest.fixture(scope="module")
def made(make_log: Callable[..., Log]) -> Log:
    """As ``log``, only copied from."""
    return make_log([3, 3, 3], [2])


@pytest.mark.parametrize("sizes", [[3], [2, 2]], ids=["one checkpoint", "two"])
def test_a_log_cut_at_any_length_is_recovered_and_goes_on(
    make_log: Callable[..., Log], tmp_path: Path, body: Body, sizes: list[int]
) -> None:
    log = make_log(sizes)
    (log.folder / "tree.json").unlink()
    data = log.segments[0].read_bytes()
    copy = log.copy(tmp_path / "copy")
    path = copy.segments[0]
    ends = {i + 1 for i, byte in enumerate(data) if byte == 10}
    near = {end + step for end in ends for step in (-2, -1, 0, 1, 30)}  # lines cut early, late, and not at all
    for length in sorted({*near, *range(0, len(data), 13)} & set(range(len(data)))):
        shutil.rmtree(copy.folder)
        copy.folder.mkdir()
        path.write_bytes(data[:length])
        whole = record_lines(copy.folder)
        end_of_last_line = max((end for end in ends if end <= length), default=0)
        writer, recovery = reopen(copy)
        assert recovery.bytes_cut == length - end_of_last_line
        assert recovery.lines_cut == (length != end_of_last_line)
        assert writer.last_sequence == len(whole)
        assert writer.append([body(1)])[0] == len(whole) + 1
        writer.close()
        assert record_lines(copy.folder)[:-1] == whole
        report = verify(copy.folder, log.key.public)
        assert report.ok, (length, report.problems)
        assert (report.records, report.unsigned_tail) == (len(whole) + 1, 0)


def test_what_is_cut_is_kept(log: Log, tmp_path: Path) -> None:
    torn = b'{"sequence":10,"prev":"' + b"0" * 64 + b'"}\nhalf'
    with log.segments[1].open("ab") as file:
        file.write(torn)
    writer, recovery = reopen(log)
    assert (recovery.bytes_cut, recovery.lines_cut, recovery.signed_lost) == (len(torn), 2, 0)
    assert recovery.saved is not None
    assert recovery.saved.read_bytes() == torn
    assert writer.last_sequence == 9
    writer.close()
    assert verify(log.folder, log.key.public).ok


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"\n\n", b'{"checkpoint":"x"}\n', b'{"segment":1}\n', b"z" * (3 << 20)])
def test_any_tail_that_is_no_record_is_cut(log: Log, tail: bytes) -> None:
    with log.segments[1].open("ab") as file:
        file.write(tail)
    writer, recovery = reopen(log)
    assert recovery.bytes_cut == len(tail)
    writer.close()
    assert verify(log.folder, log.key.public).ok


def test_a_replayed_checkpoint_is_cut_and_not_believed(log: Log) -> None:
    """An old line at the end must not make the writer give numbers twice."""
    old = next(line for line in log.lines(1) if line.startswith(b'{"checkpoint"'))
    earlier = next(line for line in log.lines(0) if line.startswith(b'{"checkpoint"'))
    with log.segments[1].open("ab") as file:
        file.write(earlier + old)
    writer, recovery = reopen(log)
    assert (writer.last_sequence, recovery.lines_cut) == (9, 2)
    writer.close()
    assert verify(log.folder, log.key.public).ok


def test_a_segment_that_was_only_begun_is_taken_away(log: Log, body: Body) -> None:
    for header in (b"", b'{"segment":1,"fir'):
        (log.folder / f"{10:020d}.seg").write_bytes(header)
        writer, recovery = reopen(log)
        assert recovery.bytes_cut == len(header)
        assert writer.last_sequence == 9
        writer.close()
    (log.folder / f"{10:020d}.new").write_bytes(b"left behind")
    reopen(log)[0].close()
    assert len(log.segments) == 2
    assert not list(log.folder.glob("*.new"))
    assert verify(log.folder, log.key.public).ok


def test_lost_signed_records_are_said(log: Log) -> None:
    """Cut at a line, below what tree.json's checkpoint covers: no crash does that."""
    lines = log.lines(1)
    log.write(lines[:2], 1)
    writer, recovery = reopen(log)
    assert (recovery.bytes_cut, recovery.signed_lost, writer.last_sequence) == (0, 2, 7)
    assert recovery
    writer.append([b'{"action":"recovered"}'])
    writer.close()
    assert verify(log.folder, log.key.public).ok
    for path in log.segments:
        path.unlink()
    assert reopen(log)[1].signed_lost == 8


# What no crash did


def damage(log: Log, segment: int, row: int, old: bytes, new: bytes) -> None:
    lines = log.lines(segment)
    assert old in lines[row]
    lines[row] = lines[row].replace(old, new)
    log.write(lines, segment)
    (log.folder / "tree.json").unlink()


@pytest.mark.parametrize(
    ("segment", "row", "old", "new"),
    [
        (0, 2, b'"prev":"', b'"prev":"00'),  # a link that was signed
        (0, 2, b'"sequence":2', b'"sequence":3'),
        (1, 0, b'"first":7', b'"first":8'),
        (1, 2, b'"sequence":8', b'"sequence":7'),
        (1, 2, b"\n", b""),
    ],
)
def test_damage_below_a_checkpoint_is_refused_and_left_alone(
    log: Log, segment: int, row: int, old: bytes, new: bytes
) -> None:
    damage(log, segment, row, old, new)
    before = [path.read_bytes() for path in log.segments]
    with pytest.raises(LogError) as caught:
        reopen(log)
    assert "\n" not in str(caught.value)
    assert [path.read_bytes() for path in log.segments] == before


def test_a_changed_record_neither_stops_the_writer_nor_is_hidden_by_it(log: Log, body: Body) -> None:
    """A flipped byte must not stop the recording of what happens next; and the next roots are the true ones."""
    damage(log, 1, 2, b"/srv/", b"/SRV/")
    writer, recovery = reopen(log)
    assert not recovery
    writer.append([body(1)])
    writer.close()
    report = verify(log.folder, log.key.public)
    assert [(problem.sequence, problem.message) for problem in report.problems] == [(8, "record 8 was changed")]


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_segment_is_refused(make_log: Callable[..., Log], missing: int) -> None:
    log = make_log([2, 2, 2], [1, 2])
    (log.folder / "tree.json").unlink()
    log.segments[missing].unlink()
    with pytest.raises(LogError, match=r"missing|root"):
        reopen(log)


@pytest.mark.parametrize("log_name", ["\n", "\x1b[2J", "", "0" * 31])
def test_a_header_that_names_no_key_is_refused_in_one_plain_line(log: Log, log_name: str) -> None:
    damage(log, 1, 0, log.key.fingerprint.encode(), orjson.dumps(log_name)[1:-1])
    with pytest.raises(LogError, match="names no key") as caught:
        reopen(log)
    assert str(caught.value).isprintable()


def test_another_key_is_refused(log: Log, tmp_path: Path) -> None:
    other = load_or_create(tmp_path)
    with pytest.raises(LogError, match="another key"):
        LogWriter(log.state_dir, other).open()


# Segment, place as a part of its length, bytes put there, number of bytes taken away.
EDIT = st.tuples(st.integers(0, 1), st.floats(0, 1), st.binary(max_size=3), st.integers(0, 300))


@settings(max_examples=150, deadline=None)
@given(
    edits=st.lists(EDIT, max_size=3),
    has_cache=st.booleans(),
)
def test_after_any_damage_the_writer_goes_on_or_says_why_not(
    made: Log, edits: list[tuple[int, float, bytes, int]], has_cache: bool
) -> None:
    """And what it goes on from is never a number given twice."""
    with tempfile.TemporaryDirectory() as folder:
        log = made.copy(Path(folder) / "copy")
        if not has_cache:
            (log.folder / "tree.json").unlink()
        for segment, where, noise, removed in edits:
            data = log.segments[segment].read_bytes()
            at = int(where * len(data))
            log.segments[segment].write_bytes(data[:at] + noise + data[at + removed :])
        try:
            writer = LogWriter(log.state_dir, log.key)
            writer.open()
        except LogError as error:
            assert "\n" not in str(error)
            return
        last = writer.last_sequence
        writer.append([b'{"action":"recovered"}'])
        writer.close()
        numbers = [prefix[0] for prefix in map(parse_prefix, record_lines(log.folder)) if prefix]
        assert numbers[-1] == last + 1
        assert max(numbers) == last + 1


# The cache


def test_the_cache_is_believed_only_if_signed_and_right(log: Log) -> None:
    path, name, public = log.folder / "tree.json", log.key.name, log.key.public
    good = path.read_bytes()
    cache = load_cache(log.folder, name, public)
    assert cache is not None
    assert cache[0].size == cache[1].size == 9
    for i in range(0, len(good) - 1, 3):
        path.write_bytes(good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :])
        assert load_cache(log.folder, name, public) is None, i
        writer, recovery = reopen(log) if i % 60 == 0 else (None, None)
        if writer:
            assert not recovery
            assert writer.last_sequence == 9
            writer.close()


def test_an_older_cache_is_a_start_and_a_strange_one_is_passed_over(log: Log, body: Body) -> None:
    old = (log.folder / "tree.json").read_bytes()
    for _ in range(2):
        writer = reopen(log)[0]
        writer.append([body(1)] * 3)
        writer.close()
        (log.folder / "tree.json").write_bytes(old)
    root = verify(log.folder, log.key.public).root
    writer, _recovery = reopen(log)
    assert writer.last_sequence == 15
    assert writer._tree.root().hex() == root
    writer.close()
