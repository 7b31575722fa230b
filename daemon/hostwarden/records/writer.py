"""Append records to the log: number, chain, write, sync, sign, rotate.

One thread calls. What append() returned is in the file; what sync() returned is on disk and survives a power cut; what
a checkpoint covers is proven. Readers only read the files (``reader``), which never shrink below synced_sequence.
"""

import errno
import fcntl
import os
import time
from binascii import hexlify
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from hostwarden.records.key import LogKey, sync_folder, write_new
from hostwarden.records.merkle import Tree
from hostwarden.records.note import Checkpoint, sign_note
from hostwarden.records.reader import last_lines
from hostwarden.records.recover import End, Recovery, recover, save_cache
from hostwarden.records.segments import (
    MAX_LINE,
    LogError,
    LogFull,
    checkpoint_line,
    header_line,
    log_dir,
    segment_name,
)

SEGMENT_BYTES = 64 << 20
MIN_CHECKPOINT_S = 0.25  # a checkpoint costs a signature, 600 bytes and a sync
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class LogWriter:
    """The one writer of the log in ``state_dir``; ``open()`` before anything else.

    A call that raises LogFull changed nothing and may be made again. After any other LogError from append() or sync()
    the state of the disk is unknown: close(), and open a new writer, which finds out.
    """

    def __init__(self, state_dir: Path, key: LogKey, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._state_dir, self._folder, self._key = state_dir, log_dir(state_dir), key
        self._segment_bytes = segment_bytes
        self._end, self._tree = End(), Tree()
        self._synced = 0  # sequence
        self._synced_offset = 0
        self._signed_at = float("-inf")
        self._note = ""  # the last checkpoint we wrote
        self._fd = self._lock = -1
        self._broken = "not open"

    @property
    def last_sequence(self) -> int:
        """The last record appended; 0 if there is none."""
        return self._end.sequence

    @property
    def synced_sequence(self) -> int:
        """The last record that is on disk: what may be streamed."""
        return self._synced

    @property
    def signed_sequence(self) -> int:
        """The last record that a checkpoint covers."""
        return self._end.signed

    @property
    def head(self) -> bytes:
        """Leaf hash of the last record, 32 bytes; zeros if there is none."""
        return self._end.head

    def open(self) -> Recovery:
        """Take the log, cut off what a crash left, be ready to append. Raises LogError."""
        try:
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._take_lock()
            self._end, self._tree, recovery = recover(self._folder, self._key)
            if self._end.path is None:
                self._start_segment()
            else:
                self._attach(self._end.path)
            os.fsync(self._fd)  # what recovery kept may never have been synced
        except OSError as error:
            self._release()
            raise _translate(error, self._folder) from None
        except LogError:
            self._release()
            raise
        self._synced, self._synced_offset, self._broken = self._end.sequence, self._end.offset, ""
        return recovery

    def append(self, bodies: Sequence[bytes]) -> tuple[int, list[bytes]]:
        """Write records; return the first one's sequence and all lines (no newlines).

        A body is a JSON object as orjson writes it, not empty, without ``sequence`` and ``prev``: these are put in
        front. All or none are appended. Raises LogFull, LogError; ValueError for a body that can't be a line.
        """
        self._check()
        if bodies and self._end.offset >= self._segment_bytes:
            self._rotate()
        first = self._end.sequence + 1
        if not bodies:
            return first, []
        lines, leaves = _chain(first, self._end.head, bodies)
        self._write(b"\n".join(lines) + b"\n", len(lines))
        self._end.sequence += len(lines)
        self._end.head = leaves[-1]
        self._tree.extend(leaves)
        return first, lines

    def sync(self, now: float | None = None) -> int:
        """Put all on disk, sign if the last checkpoint is MIN_CHECKPOINT_S old; return the last synced sequence.

        ``now``: time.monotonic(). Raises LogFull if there is no space for a checkpoint: the records are safe then, and
        the next call signs them. Raises LogError.
        """
        self._check()
        now = time.monotonic() if now is None else now
        self._flush()
        if self._end.signed < self._end.sequence and now - self._signed_at >= MIN_CHECKPOINT_S:
            self._sign(now)
        return self._synced

    def tick(self, now: float | None = None) -> None:
        """Call this at least once a second: syncs and signs what is left, else costs nothing. Raises as sync."""
        if self._end.signed < self._end.sequence or self._synced_offset < self._end.offset:
            self.sync(now)

    def close(self) -> None:
        """Sync, sign, give the log back. Raises as sync, but the log is given back all the same. Twice is once."""
        try:
            if not self._broken:
                self._seal()
        finally:
            self._release()

    def tail(self, n: int) -> list[dict[str, Any]]:
        """The last ``n`` records, oldest first. One that someone made unreadable is left out: verification names it."""
        records = []
        for line in last_lines(self._state_dir, n):
            with suppress(orjson.JSONDecodeError):
                records.append(orjson.loads(line))
        return records

    def _check(self) -> None:
        if self._broken:
            raise LogError(f"{self._folder}: the log is {self._broken}; start hostwardend again to recover it")

    def _write(self, data: bytes, n_lines: int) -> None:
        """All of ``data``, or nothing of it."""
        if data.count(b"\n") != n_lines:
            raise ValueError("a newline inside a line")
        rest = memoryview(data)
        try:
            while rest:  # short writes happen where space or a limit runs out; the next one says which
                rest = rest[os.write(self._fd, rest) :]
        except BaseException as error:
            self._take_back()
            if isinstance(error, OSError):
                raise _translate(error, self._end.path) from None
            raise
        self._end.offset += len(data)

    def _take_back(self) -> None:
        """Half a batch is in the file: back to the last whole line before it."""
        try:
            os.ftruncate(self._fd, self._end.offset)
        except OSError as error:
            self._broken = f"half-written ({error.strerror})"

    def _flush(self) -> None:
        """fdatasync what isn't yet. A sync that failed once may not be asked again: Linux forgets what it lost."""
        if self._synced_offset == self._end.offset:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._broken = f"not synced ({error.strerror})"
            raise LogError(f"{self._end.path}: {error.strerror} while syncing; check the disk, then restart") from None
        self._synced, self._synced_offset = self._end.sequence, self._end.offset

    def _sign(self, now: float) -> None:
        """Write a checkpoint over all records, which are on disk, and sync it: the order recovery relies on."""
        checkpoint = Checkpoint(
            self._key.name, self._end.sequence, self._tree.root(), self._end.head, self._end.checkpoint
        )
        note = sign_note(checkpoint.text(), self._key)
        line = checkpoint_line(note)
        self._write(line + b"\n", 1)
        self._end.signed, self._end.checkpoint = checkpoint.size, sha256(line).digest()
        self._signed_at, self._note = now, note
        self._flush()

    def _seal(self) -> None:
        """Make everything so far durable, signed, and quick to open again."""
        self._flush()
        if self._end.signed < self._end.sequence:
            self._sign(time.monotonic())
        if self._note:
            save_cache(self._folder, self._note, self._tree)

    def _rotate(self) -> None:
        """A new segment. If there is no space for one, the old one stays and can still be appended to later."""
        self._seal()
        fd = self._fd
        try:
            self._start_segment()
        except OSError as error:
            raise _translate(error, self._folder) from None
        os.close(fd)

    def _start_segment(self) -> None:
        """Make the segment that follows; it has its name only when its header is on disk."""
        first = self._end.sequence + 1
        header = header_line(first, self._end.head, self._key.fingerprint) + b"\n"
        path = self._folder / segment_name(first)
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        try:
            write_new(temporary, header, 0o640)
            temporary.rename(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(self._folder)
        self._attach(path)
        self._end.path, self._end.offset, self._synced_offset = path, len(header), len(header)

    def _attach(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _take_lock(self) -> None:
        self._lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LogError(f"{self._folder}: another hostwardend writes here; use another state_dir") from None

    def _release(self) -> None:
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1
        self._broken = "closed"


def _chain(sequence: int, head: bytes, bodies: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Lines and leaf hashes. The one loop that runs for every record: 1 µs each, so no calls that aren't needed."""
    lines, leaves = [], []
    hash_, hex_ = sha256, hexlify
    for body in bodies:
        if body[:2] != b'{"':
            raise ValueError("a record's body is a JSON object with at least one key")
        line = b'{"sequence":%d,"prev":"%b",%b' % (sequence, hex_(head), body[1:])
        head = hash_(b"\0" + line).digest()
        lines.append(line)
        leaves.append(head)
        sequence += 1
    if max(map(len, lines)) > MAX_LINE:
        raise ValueError(f"a record is longer than {MAX_LINE} bytes")
    return lines, leaves


def _translate(error: OSError, path: Path | None) -> LogError:
    """The one place where errors of the file system become messages."""
    if error.errno in _FULL:
        return LogFull(f"{path}: {error.strerror}; make room on this file system, recording goes on by itself")
    return LogError(f"{path}: {error.strerror}; hostwardend must be able to write there")
