"""Check every byte of a log, as a stranger would: with the files and the public key, and nothing else.

``segments`` says what must hold, ``diagnose`` who is to blame where it doesn't; here are the files: names and order of
segments, headers, where lines begin and end, and the report. One pass, bounded memory, about 4 µs a record: SHA-256 of
the line, its tree node, and a full JSON parse, because a line that only begins like a record would pass the chain (its
author may hold the key) and then break, or mislead, every other reader.

A log that is being written may be verified: the check goes to the end there is, and waits a moment for half a line.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from hostwarden.records.diagnose import Chain, Problem
from hostwarden.records.key import PUBLIC_FILE, read_public
from hostwarden.records.note import NoteError, open_checkpoint
from hostwarden.records.recover import load_cache
from hostwarden.records.segments import (
    CHECKPOINT_START,
    MAX_LINE,
    RECORD_START,
    LogError,
    fingerprint,
    header_line,
    is_fingerprint,
    list_segments,
    open_segment,
    origin,
    segment_first,
)

MAX_PROBLEMS = 100
PATIENCE_S = 0.2  # how long half a line at the end of a log may take to become whole
_STEP_S = 0.02
_PROGRESS_BYTES = 1 << 22


@dataclass(frozen=True)
class Report:
    """What a verification found. ``ok`` says whether the log is as it was written."""

    records: int  # records in their place
    segments: int
    checkpoints: int  # good ones
    first: int | None  # sequence of the first and the last record, None if there are none
    last: int | None
    signed: int  # the last record that a checkpoint covers: what the key holder vouched for
    unsigned_tail: int  # records after it: chained, not signed yet (a running log has some; a closed one none)
    root: str | None  # hex, over all records; None if a hole made it unknowable
    fingerprint: str | None  # of the key the log was checked with: compare it with what you were told
    problems: tuple[Problem, ...]  # at most MAX_PROBLEMS
    more_problems: int = 0  # that many were found beyond

    @property
    def ok(self) -> bool:
        """Nothing was changed. An unsigned tail is no fault, but say it."""
        return not self.problems


class _Problems:
    """The first MAX_PROBLEMS, and how many came after."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.more = 0

    def __call__(self, problem: Problem) -> None:
        if len(self.found) < MAX_PROBLEMS:
            self.found.append(problem)
        else:
            self.more += 1


def verify(
    log_dir: Path,
    public_key: bytes | None = None,
    *,
    known: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
    patience_s: float = PATIENCE_S,
) -> Report:
    """Verify the segments in ``log_dir`` (or in its folder ``log``, so a state_dir or a copy of one will do).

    ``public_key``: raw Ed25519, 32 bytes; None takes ``log.pub`` beside the folder, which whoever could change the log
    could change too: so compare the report's fingerprint. ``known``: signed checkpoints of this log kept elsewhere (a
    collector has them): the only thing that proves that the end wasn't cut off. ``progress(done, total)`` in bytes.
    ``patience_s``: how long to wait for the rest of half a line before it is called torn.
    Raises LogError if there is no log at all; ValueError for a known checkpoint that the key didn't sign.
    """
    folder = _folder_of_segments(log_dir)
    # The writer's cache first: it names a checkpoint that is in the files by the time they are listed.
    problems = _Problems()
    public = public_key if public_key is not None else _public_beside(folder, problems)
    log = fingerprint(public) if public is not None else None
    cache = load_cache(folder, origin(log), public) if public is not None and log is not None else None
    segments = list_segments(folder)
    if not segments:
        raise LogError(f"{folder}: no segments (*.seg) here; give a host's state_dir or its log folder")
    chain = Chain(log or _claimed_log(segments[0]), public, problems)
    if cache:
        chain.roots[cache[0].size] = cache[0].root
    for note in known:
        _add_known(chain, note, public)
    walk = _Walk(chain, problems, progress, sum(_size(path) for path in segments), patience_s)
    for path in segments:
        walk.segment(path, is_last=path == segments[-1])
    chain.end(walk.offset)
    if cache and chain.signed < cache[0].size < chain.expected:  # unlike one that was streamed, it was on disk
        walk.say(None, f"the checkpoint over {cache[0].size} records was removed or changed")
    return _report(chain, problems, len(segments), log)


def _report(chain: Chain, problems: _Problems, n_segments: int, log: str | None) -> Report:
    last, root = chain.expected - 1, chain.root()
    return Report(
        records=chain.records,
        segments=n_segments,
        checkpoints=chain.checkpoints,
        first=1 if chain.records else None,
        last=last if chain.records else None,
        signed=chain.signed,
        unsigned_tail=last - chain.signed,
        root=root.hex() if root is not None else None,
        fingerprint=log,
        problems=tuple(problems.found),
        more_problems=problems.more,
    )


class _Walk:
    """Lines of all segments, in order, into the chain."""

    def __init__(
        self,
        chain: Chain,
        problems: _Problems,
        progress: Callable[[int, int], None] | None,
        total: int,
        patience_s: float,
    ) -> None:
        self._chain, self._problems, self._progress, self._total = chain, problems, progress, total
        self._patience_s = patience_s  # shared by all segments, so that many torn ones don't make us wait for each
        self._done = self._told = 0
        self.offset = 0

    def segment(self, path: Path, *, is_last: bool) -> None:
        """One file. What can't be opened is a problem, and the next one will miss its records."""
        # A folder under audit may hold any name: none that would steer a terminal goes into the report.
        self._chain.file = path.name if path.name.isascii() and path.name.isprintable() else ascii(path.name)
        self.offset = 0
        try:
            first, file = segment_first(path), open_segment(path)
        except LogError as error:
            self.say(None, str(error).removeprefix(f"{path}: "))
            return
        with file:
            self._header(file, first)
            self._lines(file)
            self._rest(file, is_last=is_last)

    def _header(self, file: BinaryIO, first: int) -> None:
        """Check the first line; a line that is none at all is left to be read as another kind."""
        line = file.readline(MAX_LINE + 1)
        claim, expected = _prev_in(line), self._chain.expected
        if first > expected:
            self._chain.missing(first - 1, claim, 0)
        elif first < expected:
            self.say(None, f"record {expected} should begin this segment, not {first}: renamed or repeated")
        head = self._chain.head if self._chain.head is not None else claim
        wanted = header_line(self._chain.expected, head or b"", self._chain.log) + b"\n"
        if line == wanted:
            self._advance(line)
            return
        self.say(None, f"the header was changed or doesn't follow record {self._chain.expected - 1}")
        if line.startswith((RECORD_START, CHECKPOINT_START)) or not line.endswith(b"\n"):
            file.seek(0)
        else:
            self._advance(line)

    def _lines(self, file: BinaryIO) -> None:
        """All whole lines."""
        chain, limit = self._chain, MAX_LINE + 1
        while True:
            line = file.readline(limit)
            if line[-1:] != b"\n":
                if len(line) < limit and not self._wait_for_more(file):
                    return
                if len(line) == limit:
                    self._too_long(file, line)
                continue
            if line.startswith(CHECKPOINT_START):
                chain.checkpoint(line[:-1], self.offset)
            else:
                chain.record(line[:-1], self.offset)
            self._advance(line)

    def _wait_for_more(self, file: BinaryIO) -> bool:
        """Half a line, or nothing: stand at its beginning, True if it grew whole while we waited."""
        while True:
            file.seek(self.offset)
            half = file.readline(MAX_LINE + 1)
            file.seek(self.offset)
            if half.endswith(b"\n"):
                return True
            if not half or self._patience_s <= 0:
                return False
            self._patience_s -= _STEP_S
            time.sleep(_STEP_S)

    def _too_long(self, file: BinaryIO, line: bytes) -> None:
        """Go over a line that no writer of ours made, in bounded memory."""
        self._chain.record(b"", self.offset)  # unreadable, whatever it is
        while line:
            self._advance(line)
            if line.endswith(b"\n"):
                return
            line = file.readline(MAX_LINE + 1)

    def _rest(self, file: BinaryIO, *, is_last: bool) -> None:
        """Bytes behind the last whole line: a crash, or a cut."""
        file.seek(self.offset)
        rest = file.read(MAX_LINE + 1)
        if not rest:
            return
        expected = self._chain.expected
        is_record = rest.startswith(RECORD_START) or RECORD_START.startswith(rest)
        where = "the log" if is_last else "the segment"
        self.say(
            expected if is_record else None,
            f"{where} ends in the middle of a line, {len(rest)} bytes after record {expected - 1}: torn or appended",
        )

    def _advance(self, line: bytes) -> None:
        self.offset += len(line)
        self._done += len(line)
        if self._progress and self._done - self._told >= _PROGRESS_BYTES:
            self._told = self._done
            self._progress(self._done, max(self._done, self._total))

    def say(self, sequence: int | None, message: str) -> None:
        self._problems(Problem(sequence, self._chain.file, self.offset, message))


def _folder_of_segments(given: Path) -> Path:
    """Raises LogError where we may not look."""
    try:
        return given / "log" if (given / "log").is_dir() else given
    except OSError as error:
        raise LogError(f"{given}: {error.strerror}; give a host's state_dir that you may read") from None


def _public_beside(folder: Path, problems: _Problems) -> bytes | None:
    """The key in log.pub; without one, chain and roots are checked and the missing proof is a problem."""
    for place in (folder.parent, folder):
        if (place / PUBLIC_FILE).exists():
            return read_public(place / PUBLIC_FILE)
    problems(Problem(None, PUBLIC_FILE, 0, "no public key, so no signature was checked: give the host's log.pub"))
    return None


def _add_known(chain: Chain, note: str, public: bytes | None) -> None:
    if public is None:
        raise ValueError("a known checkpoint needs the public key")
    try:
        checkpoint = open_checkpoint(note, chain.name, public)
    except NoteError as error:
        raise ValueError(f"the known checkpoint is none of this log: {error}") from None
    chain.roots[checkpoint.size] = checkpoint.root


def _claimed_log(path: Path) -> str:
    """The fingerprint that the first header names, for a log without a key."""
    try:
        with open_segment(path) as file:
            log = orjson.loads(file.readline(MAX_LINE + 1))["log"]
    except (LogError, ValueError, TypeError, KeyError):
        return "?"
    return log if is_fingerprint(log) else "?"


def _prev_in(header: bytes) -> bytes | None:
    """The hash that a header claims for the record before it."""
    try:
        prev = bytes.fromhex(orjson.loads(header)["prev"])
    except (ValueError, TypeError, KeyError):
        return None
    return prev if len(prev) == 32 else None


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
