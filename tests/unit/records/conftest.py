"""Logs to look at, to damage, and to look at again."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hostwarden.records.key import LogKey, load_or_create
from hostwarden.records.writer import LogWriter


def make_body(i: int) -> bytes:
    """A small record's body, each one different."""
    return b'{"time":"2026-11-24T07:20:00.%09dZ","action":"read","target":"/srv/%d"}' % (i, i)


@dataclass
class Log:
    """A closed log of ``sizes`` records a checkpoint; a new segment after each checkpoint in ``rotate_after``."""

    state_dir: Path
    key: LogKey

    @property
    def folder(self) -> Path:
        return self.state_dir / "log"

    @property
    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.seg"))

    def copy(self, to: Path) -> "Log":
        """An independent copy, key included."""
        shutil.copytree(self.state_dir, to)
        return Log(to, self.key)

    def lines(self, segment: int = 0) -> list[bytes]:
        """Lines with their newlines."""
        return self.segments[segment].read_bytes().splitlines(keepends=True)

    def write(self, lines: list[bytes], segment: int = 0) -> None:
        self.segments[segment].write_bytes(b"".join(lines))


@pytest.fixture
def body() -> Callable[[int], bytes]:
    return make_body


@pytest.fixture(scope="session")
def make_log(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Log]:
    """``make_log([2, 3], [1])``: two records, checkpoint, new segment, three records, checkpoint; closed."""

    def make(sizes: list[int], rotate_after: list[int] | None = None) -> Log:
        state_dir = tmp_path_factory.mktemp("state")
        key = load_or_create(state_dir)
        written, clock = 0, 0.0
        for i, size in enumerate(sizes):
            is_new = i in (rotate_after or [])
            writer = LogWriter(state_dir, key, segment_bytes=1 if is_new else 1 << 20)
            writer.open()
            writer.append([make_body(written + n) for n in range(size)])
            written, clock = written + size, clock + 1
            writer.sync(clock)
            writer.close()
        return Log(state_dir, key)

    return make


@pytest.fixture
def log(make_log: Callable[..., Log]) -> Log:
    """Nine records, three checkpoints, two segments: 1 to 3 and 4 to 6 in the first, 7 to 9 in the second."""
    return make_log([3, 3, 3], [2])
