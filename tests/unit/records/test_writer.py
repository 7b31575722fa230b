"""Appending: numbers, chain, checkpoints in time, segments, and what happens when the disk says no."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from hostwarden.records.key import load_or_create
from hostwarden.records.merkle import leaf_hash
from hostwarden.records.segments import MAX_LINE, LogError, LogFull
from hostwarden.records.verify import verify
from hostwarden.records.writer import LogWriter

Body = Callable[[int], bytes]


@pytest.fixture
def writer(tmp_path: Path) -> LogWriter:
    writer = LogWriter(tmp_path, load_or_create(tmp_path))
    assert not writer.open()
    return writer


def file_lines(state_dir: Path) -> list[bytes]:
    return [line for path in sorted((state_dir / "log").glob("*.seg")) for line in path.read_bytes().splitlines()]


def kinds(state_dir: Path) -> str:
    """The log as letters: h(eader), r(ecord), c(heckpoint)."""
    return "".join({b'{"seg': "h", b'{"seq': "r", b'{"che': "c"}[line[:5]] for line in file_lines(state_dir))


def test_numbers_and_chain(writer: LogWriter, tmp_path: Path, body: Body) -> None:
    assert (writer.last_sequence, writer.head) == (0, bytes(32))
    first, lines = writer.append([body(1), body(2)])
    assert (first, writer.last_sequence) == (1, 2)
    assert writer.append([]) == (3, [])
    first, more = writer.append([body(3)])
    assert first == 3
    prev = bytes(32)
    for sequence, line in enumerate(lines + more, 1):
        value = orjson.loads(line)
        assert (value.pop("sequence"), value.pop("prev")) == (sequence, prev.hex())
        assert orjson.dumps(value) == body(sequence)
        prev = leaf_hash(line)
    assert writer.head == prev
    assert file_lines(tmp_path)[1:] == lines + more


@pytest.mark.parametrize(
    "bad",
    [b"{}", b"", b"[1]", b'{"a":\n1}', b'{"a":"' + b"x" * MAX_LINE + b'"}'],
    ids=["empty", "no", "list", "nl", "big"],
)
def test_a_body_that_cannot_be_a_line_changes_nothing(
    writer: LogWriter, tmp_path: Path, body: Body, bad: bytes
) -> None:
    writer.append([body(1)])
    before = file_lines(tmp_path)
    with pytest.raises(ValueError):
        writer.append([body(2), bad])
    assert file_lines(tmp_path) == before
    assert writer.append([body(2)])[0] == 2
    writer.close()
    assert verify(tmp_path).ok


def test_the_longest_record_is_written_and_read(writer: LogWriter, tmp_path: Path) -> None:
    around = len(b'{"sequence":1,"prev":"",') + 64 + len(b'"a":""}')
    writer.append([b'{"a":"' + b"x" * (MAX_LINE - around) + b'"}'])
    assert len(writer.tail(1)[0]["a"]) == MAX_LINE - around
    writer.close()
    assert verify(tmp_path).records == 1


def test_checkpoints_come_at_most_every_quarter_of_a_second(writer: LogWriter, tmp_path: Path, body: Body) -> None:
    for step in range(11):  # 1 s of activity, synced every 0.1 s
        writer.append([body(step)])
        assert writer.synced_sequence == step
        assert writer.sync(100 + step / 10) == step + 1
    assert kinds(tmp_path) == "hrc" + "rrrc" * 3 + "r"


def test_tick_signs_what_is_left_and_then_costs_nothing(writer: LogWriter, tmp_path: Path, body: Body) -> None:
    writer.append([body(1)])
    writer.sync(1.0)
    writer.append([body(2)])
    writer.sync(1.1)
    assert writer.signed_sequence == 1
    writer.tick(1.2)
    assert writer.signed_sequence == 1
    writer.tick(1.3)
    assert writer.signed_sequence == 2
    size = sum(path.stat().st_size for path in (tmp_path / "log").iterdir())
    for step in range(20):
        writer.tick(2.0 + step)
    assert sum(path.stat().st_size for path in (tmp_path / "log").iterdir()) == size
    writer.append([body(3)])
    writer.tick(30.0)
    assert (writer.synced_sequence, writer.signed_sequence) == (3, 3)


def test_close_signs_and_a_restart_goes_on(tmp_path: Path, body: Body) -> None:
    key = load_or_create(tmp_path)
    for start in range(3):
        writer = LogWriter(tmp_path, key)
        assert not writer.open()
        assert writer.last_sequence == start * 2
        assert writer.append([body(1), body(2)])[0] == start * 2 + 1
        writer.close()
        writer.close()
        with pytest.raises(LogError, match="closed"):
            writer.append([body(1)])
    assert kinds(tmp_path) == "h" + "rrc" * 3
    assert verify(tmp_path).ok


def test_a_start_without_records_adds_nothing(tmp_path: Path) -> None:
    key = load_or_create(tmp_path)
    for _ in range(3):
        writer = LogWriter(tmp_path, key)
        writer.open()
        writer.close()
    assert kinds(tmp_path) == "h"
    report = verify(tmp_path)
    assert report.ok
    assert (report.first, report.last) == (None, None)


def test_segments_are_full_whole_and_end_in_a_checkpoint(tmp_path: Path, body: Body) -> None:
    writer = LogWriter(tmp_path, load_or_create(tmp_path), segment_bytes=1000)
    writer.open()
    for step in range(12):
        writer.append([body(step), body(step)])
    assert writer.tail(100) == [orjson.loads(line) for line in file_lines(tmp_path) if line.startswith(b'{"sequence"')]
    assert [record["sequence"] for record in writer.tail(3)] == [22, 23, 24]
    assert writer.tail(0) == []
    writer.close()
    files = sorted((tmp_path / "log").glob("*.seg"))
    assert len(files) >= 3
    for path in files:
        lines = path.read_bytes().splitlines()
        assert lines[0].startswith(b'{"segment":1,"first":%d,' % int(path.stem))
        assert lines[-1].startswith(b'{"checkpoint"')
    assert verify(tmp_path).ok
    assert not list((tmp_path / "log").glob("*.new"))


def test_two_writers_on_one_log(writer: LogWriter, tmp_path: Path) -> None:
    with pytest.raises(LogError, match="another hostwardend") as caught:
        LogWriter(tmp_path, load_or_create(tmp_path)).open()
    assert "\n" not in str(caught.value)
    writer.close()
    second = LogWriter(tmp_path, load_or_create(tmp_path))
    second.open()
    second.close()


def test_a_state_dir_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    key = load_or_create(tmp_path)
    (tmp_path / "log").write_text("")
    with pytest.raises(LogError, match="able to write") as caught:
        LogWriter(tmp_path, key).open()
    assert "\n" not in str(caught.value)


FULL = """
import resource, sys
from pathlib import Path
from hostwarden.records.key import load_or_create
from hostwarden.records.segments import LogFull
from hostwarden.records.writer import LogWriter

state_dir, limit, segment_bytes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
writer = LogWriter(state_dir, load_or_create(state_dir), segment_bytes=segment_bytes)
writer.open()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
body = b'{"x":"%s"}' % (b"y" * 100)
written = refused = 0

def limit_to(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

for step in range(40):
    limit_to(limit if step % 4 else hard)
    try:
        assert writer.append([body] * 3)[0] == written + 1
        written += 3
    except LogFull as error:
        refused += 1
        assert writer.last_sequence == written
    try:
        writer.sync(float(step))
    except LogFull as error:
        assert "make room" in str(error) and "\\n" not in str(error)
        refused += 1
    assert writer.synced_sequence == written
limit_to(hard)
writer.append([body])
writer.close()
print(written + 1, refused)
"""


@pytest.mark.parametrize("limit", [1, 50, 700, 1000, 1234, 2000])
@pytest.mark.parametrize("segment_bytes", [1 << 20, 1500])
def test_no_space_changes_nothing_and_recording_goes_on(tmp_path: Path, limit: int, segment_bytes: int) -> None:
    """RLIMIT_FSIZE is a disk that is full in the middle of a write, for records, checkpoints and new segments."""
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(limit), str(segment_bytes)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    written, refused = map(int, run.stdout.split())
    assert refused
    report = verify(tmp_path)
    assert report.ok, report.problems
    assert (report.records, report.unsigned_tail) == (written, 0)


def test_a_disk_that_breaks_stops_the_writer_and_a_new_one_finds_out(
    writer: LogWriter, tmp_path: Path, body: Body
) -> None:
    """A device that takes nothing and can't be truncated stands where the segment was."""
    writer.append([body(1)])
    writer.sync(1.0)
    device = os.open("/dev/full", os.O_WRONLY)
    os.dup2(device, writer._fd)
    os.close(device)
    with pytest.raises(LogFull):
        writer.append([body(2)])
    with pytest.raises(LogError, match="half-written"):
        writer.append([body(2)])
    with pytest.raises(LogError, match="half-written"):
        writer.sync(2.0)
    writer.close()
    again = LogWriter(tmp_path, load_or_create(tmp_path))
    assert not again.open()
    assert again.append([body(2)])[0] == 2
    again.close()
    assert verify(tmp_path).ok


def test_a_failed_sync_is_never_asked_again(writer: LogWriter, tmp_path: Path, body: Body) -> None:
    writer.append([body(1)])
    reading, writing = os.pipe()  # can't be synced
    os.dup2(writing, writer._fd)
    with pytest.raises(LogError, match="check the disk"):
        writer.sync(1.0)
    assert (writer.synced_sequence, writer.signed_sequence) == (0, 0)
    with pytest.raises(LogError, match="not synced"):
        writer.append([body(2)])
    writer.close()
    os.close(reading)
    os.close(writing)
