"""Read a log while it is being written: for `events`, for `--follow`, and for the stream to the collector.

A LogCursor is a place in the log. ``read()`` returns what is there after it, at most a batch, and moves on; an empty
batch means nothing new yet, so following is calling it again. It goes over the ends of segments by itself and keeps one
batch in memory. It trusts the chain (``verify`` doesn't), but stops with LogError where the next record isn't next.

A writer that runs out of space takes back the batch it was writing. Whoever reads beside a writer and passes records on
gives ``until=writer.synced_sequence``: up to there nothing is ever taken back.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from hostwarden.records.segments import (
    CHECKPOINT_START,
    MAX_LINE,
    RECORD_START,
    LogError,
    list_segments,
    log_dir,
    open_segment,
    parse_checkpoint,
    parse_prefix,
    segment_first,
    segment_name,
)

MAX_LINES = 1000
MAX_BYTES = 1 << 20  # with the line that crosses it, a batch stays below gRPC's 4 MiB a message
_TAIL_CHUNK = 1 << 18


@dataclass(frozen=True)
class Batch:
    """Record lines without newlines, the first of them number ``first``, and the notes of checkpoints.

    A checkpoint's size is never above the last line's sequence, or ``first - 1`` if there are no lines. A cursor that
    starts at the beginning of a segment leaves out the checkpoint before it; the next one stands for both.
    """

    first: int
    lines: list[bytes] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lines or self.checkpoints)


class LogCursor:
    """The place after record ``since`` in the log of ``state_dir``. The log need not exist yet."""

    def __init__(self, state_dir: Path, since: int = 0) -> None:
        self._folder = log_dir(state_dir)
        self._since = since
        self._next = since + 1  # the sequence that read() returns next
        self._seen = 0  # the sequence before the line at _offset
        self._file: BinaryIO | None = None
        self._path = self._folder
        self._offset = 0

    def __enter__(self) -> "LogCursor":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back. The cursor can't be used afterwards."""
        if self._file:
            self._file.close()
            self._file = None

    def read(self, until: int | None = None, max_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES) -> Batch:
        """Up to ``max_lines`` records (and the one that crosses ``max_bytes``), none above ``until``.

        Raises LogError where the next record should be and isn't.
        """
        batch, n_bytes = Batch(self._next), 0
        while len(batch.lines) < max_lines and n_bytes < max_bytes:
            line = self._line()
            if line is None:
                break
            if line.startswith(CHECKPOINT_START):
                if self._seen >= self._since:
                    batch.checkpoints.append(self._note(line))
            elif until is not None and self._seen >= until:
                break
            elif self._accept(line):
                batch.lines.append(line)
                n_bytes += len(line) + 1
            self._offset += len(line) + 1
        return batch

    def _accept(self, line: bytes) -> bool:
        """True if the record line is after ``since``. Raises LogError if it isn't the next one."""
        prefix = parse_prefix(line)
        if prefix is None or prefix[0] != self._seen + 1:
            raise self._damaged(f"record {self._seen + 1} should be here")
        self._seen += 1
        if self._seen < self._next:
            return False
        self._next += 1
        return True

    def _note(self, line: bytes) -> str:
        try:
            return parse_checkpoint(line)
        except ValueError:
            raise self._damaged("a checkpoint should be here") from None

    def _damaged(self, what: str) -> LogError:
        return LogError(f"{self._path}: byte {self._offset}: {what}; `hostwarden audit verify` tells what was changed")

    def _line(self) -> bytes | None:
        """The whole line at _offset, None if there is none yet."""
        if self._file is None and not self._open_first():
            return None
        while True:
            assert self._file is not None
            self._file.seek(self._offset)  # within the buffer this is cheap; after half a line it is what we need
            line = self._file.readline(MAX_LINE + 1)
            if line.endswith(b"\n"):
                return line[:-1]
            if len(line) > MAX_LINE:
                raise self._damaged("the line is too long")
            if line or not self._open_next():
                return None

    def _open_first(self) -> bool:
        if not self._folder.is_dir():
            return False
        wanted = [path for path in list_segments(self._folder) if segment_first(path) <= self._next]
        return bool(wanted) and self._open(wanted[-1], segment_first(wanted[-1]))

    def _open_next(self) -> bool:
        path = self._folder / segment_name(self._seen + 1)
        return path != self._path and path.exists() and self._open(path, self._seen + 1)

    def _open(self, path: Path, first: int) -> bool:
        """Stand behind the header of ``path``. False if it was just taken away (a segment that never came into use)."""
        file = open_segment(path)
        self.close()
        header = file.readline(MAX_LINE + 1)
        if not header.endswith(b"\n"):
            file.close()
            return False
        self._file, self._path, self._offset, self._seen = file, path, len(header), first - 1
        return True


def read_lines(state_dir: Path, since: int = 0, until: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Sequence and line (no newline) of all records after ``since``, up to ``until`` or to the end there is now."""
    with LogCursor(state_dir, since) as cursor:
        while batch := cursor.read(until):
            yield from enumerate(batch.lines, batch.first)


def last_lines(state_dir: Path, n: int) -> list[bytes]:
    """The last ``n`` record lines, oldest first; fewer if the log has fewer. Reads backwards from the end."""
    found: list[bytes] = []
    for path in reversed(list_segments(log_dir(state_dir))):
        if len(found) >= n:
            break
        found = _last_of(path, n - len(found)) + found
    return found


def _last_of(path: Path, n: int) -> list[bytes]:
    """The last ``n`` record lines of one segment."""
    with open_segment(path) as file:
        size = file.seek(0, os.SEEK_END)
        chunk = _TAIL_CHUNK
        while True:
            start = max(0, size - chunk)
            file.seek(start)
            # Before the first newline stands half a line or the header, behind the last what is unfinished.
            lines = [line for line in file.read(size - start).split(b"\n")[1:-1] if line.startswith(RECORD_START)]
            if len(lines) >= n or not start:
                return lines[-n:]
            chunk *= 2
