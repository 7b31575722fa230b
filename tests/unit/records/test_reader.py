"""Reading beside a writer: batches, resuming, following over growth and rotation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hostwarden.records.key import load_or_create
from hostwarden.records.note import open_checkpoint
from hostwarden.records.reader import Batch, LogCursor, last_lines, read_lines
from hostwarden.records.segments import LogError, checkpoint_line
from hostwarden.records.writer import LogWriter

if TYPE_CHECKING:
    from tests.unit.records.conftest import Log

Body = Callable[[int], bytes]


def all_lines(log: Log) -> list[bytes]:
    return [line[:-1] for s in range(len(log.segments)) for line in log.lines(s) if line.startswith(b'{"sequence"')]


@pytest.mark.parametrize("since", [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 100])
def test_lines_after_a_sequence(log: Log, since: int) -> None:
    assert list(read_lines(log.state_dir, since)) == list(enumerate(all_lines(log), 1))[since:]


@pytest.mark.parametrize("until", [0, 1, 6, 8, 9, 50])
def test_lines_up_to_a_sequence(log: Log, until: int) -> None:
    assert [sequence for sequence, _ in read_lines(log.state_dir, 2, until)] == list(range(3, min(until, 9) + 1))


def test_an_empty_or_missing_log(tmp_path: Path) -> None:
    cursor = LogCursor(tmp_path)
    assert not cursor.read()
    (tmp_path / "log").mkdir()
    assert not cursor.read()
    writer = LogWriter(tmp_path, load_or_create(tmp_path))
    writer.open()
    assert not cursor.read()
    line = writer.append([b'{"a":1}'])[1]
    assert cursor.read() == Batch(1, line)
    writer.close()


@pytest.mark.parametrize("max_lines", [1, 2, 4, 100])
@pytest.mark.parametrize("since", [0, 2, 3, 6])
def test_batches_carry_every_checkpoint_behind_its_records(log: Log, max_lines: int, since: int) -> None:
    lines: list[bytes] = []
    sizes: list[int] = []
    with LogCursor(log.state_dir, since) as cursor:
        while batch := cursor.read(max_lines=max_lines):
            assert batch.first == since + len(lines) + 1
            assert len(batch.lines) <= max_lines
            lines += batch.lines
            for note in batch.checkpoints:
                checkpoint = open_checkpoint(note, log.key.name, log.key.public)
                assert checkpoint.size <= since + len(lines)
                assert checkpoint_line(note) + b"\n" in log.lines(0) + log.lines(1)
                sizes.append(checkpoint.size)
    assert lines == all_lines(log)[since:]
    assert sizes == {0: [3, 6, 9], 2: [3, 6, 9], 3: [3, 6, 9], 6: [9]}[since]


def test_a_batch_ends_with_the_line_that_crosses_the_bound(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, load_or_create(tmp_path))
    writer.open()
    writer.append([b'{"a":"' + b"x" * 1000 + b'"}'] * 10)
    writer.close()
    with LogCursor(tmp_path) as cursor:
        assert [len(cursor.read(max_bytes=2500).lines) for _ in range(5)] == [3, 3, 3, 1, 0]


def test_following_a_log_that_grows_and_rotates(tmp_path: Path, body: Body) -> None:
    writer = LogWriter(tmp_path, load_or_create(tmp_path), segment_bytes=700)
    writer.open()
    with LogCursor(tmp_path) as cursor:
        for step in range(60):
            lines = writer.append([body(step)] * (step % 3 + 1))[1]
            assert not cursor.read(until=writer.synced_sequence).lines, "nothing that isn't on disk"
            writer.sync(float(step))
            got: list[bytes] = []
            notes: list[str] = []
            while batch := cursor.read(until=writer.synced_sequence):
                got += batch.lines
                notes += batch.checkpoints
            assert got == lines
            assert len(notes) == 1
    writer.close()
    assert len(list((tmp_path / "log").glob("*.seg"))) > 10


def test_half_a_line_is_not_there_yet(log: Log) -> None:
    data = log.segments[1].read_bytes()
    path = log.segments[1]
    with LogCursor(log.state_dir, 6) as cursor:
        for length in range(len(data) - 800, len(data) + 1):
            path.write_bytes(data[:length])
            batch = cursor.read()
            assert all(line + b"\n" in data for line in batch.lines)
        assert cursor.read() == Batch(10)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 8, 9, 10])
def test_the_last_lines(log: Log, n: int) -> None:
    assert last_lines(log.state_dir, n) == all_lines(log)[max(0, 9 - n) :]


def test_the_last_lines_when_they_are_long(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, load_or_create(tmp_path))
    writer.open()
    lines = writer.append([b'{"a":"' + b"x" * 300_000 + b'"}'] * 7)[1]
    assert last_lines(tmp_path, 5) == lines[-5:]
    assert last_lines(tmp_path, 50) == lines
    writer.close()


@pytest.mark.parametrize(
    "line",
    [b"garbage\n", b'{"sequence":9,"prev":"' + b"0" * 64 + b'","a":1}\n', b'{"checkpoint":1}\n', b"x" * (2 << 20)],
)
def test_what_is_not_next_stops_the_reader_with_one_line(log: Log, line: bytes) -> None:
    lines = log.lines(1)
    log.write([*lines[:2], line, *lines[2:]], 1)
    with pytest.raises(LogError, match="audit verify") as caught:
        list(read_lines(log.state_dir))
    assert "\n" not in str(caught.value)
