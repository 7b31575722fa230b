"""What a writer does at start: find the end of the log, and make it an end that can be continued.

The rule that makes this safe: a checkpoint is written only when what it covers is on disk. So nothing up to the last
checkpoint whose signature is right can be the trace of a crash, and nothing there is ever changed: if it doesn't give
the root that was signed, the writer refuses, and `audit verify` says why. Behind it, records are kept as long as each
is whole and chained to the one before; what follows the first that isn't is the trace of a crash, is copied to a
``.cut`` file beside the segments, and cut off.

The tree is not rebuilt from the records but from their ``prev``, which are the leaf hashes, and not from record 1 but
from ``tree.json``, a compact range with the checkpoint that signs its root, written whenever a segment is full.
Adopting a log takes a pass over its last segment, not over years.
"""

import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import orjson

from hostwarden.records.key import LogKey, replace_file, sync_folder
from hostwarden.records.merkle import EMPTY_ROOT, Tree, leaf_hash
from hostwarden.records.note import Checkpoint, open_checkpoint
from hostwarden.records.segments import (
    CHECKPOINT_START,
    RECORD_START,
    TREE_CACHE,
    ZERO,
    LogError,
    header_line,
    is_fingerprint,
    list_segments,
    open_segment,
    parse_checkpoint,
    parse_prefix,
    parse_record,
    segment_first,
    segment_name,
    whole_lines,
)

_MAX_TORN_HEADER = 4096  # bytes: a newest segment without a whole first line is a crash, if it isn't larger than this
_CANDIDATES = 8  # checkpoints tried from the end of a segment; a crash can spoil one
_MAX_CACHE = 1 << 16  # bytes
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Recovery:
    """What opening the log changed or found; all zero after a clean stop. The daemon writes a record about it."""

    bytes_cut: int = 0
    lines_cut: int = 0  # the last of them may be half a line
    saved: Path | None = None  # where the cut bytes are kept, if there was space
    signed_lost: int = 0  # records that a checkpoint of ours covers and that are no longer in the files: not a crash

    def __bool__(self) -> bool:
        return bool(self.bytes_cut or self.signed_lost)


@dataclass
class End:
    """The end of a log: all that is needed to append."""

    sequence: int = 0
    head: bytes = ZERO
    signed: int = 0  # size of the last checkpoint
    checkpoint: bytes = ZERO  # SHA-256 of its line
    path: Path | None = None  # the segment to go on with; None: there is none yet
    offset: int = 0


@dataclass(frozen=True)
class _Anchor:
    """The last checkpoint that is signed rightly, or the beginning; ``offset`` is behind it in segment ``index``."""

    checkpoint: Checkpoint
    digest: bytes
    index: int
    offset: int


def recover(folder: Path, key: LogKey) -> tuple[End, Tree, Recovery]:
    """Find, and where a crash left something, restore the end of the log in ``folder``. Raises LogError, OSError."""
    for leftover in folder.glob("*.new"):
        leftover.unlink(missing_ok=True)
    cache = load_cache(folder, key.name, key.public)
    segments = list_segments(folder)
    if segments and segment_first(segments[0]) != 1:
        raise LogError(f"{folder}: the first segment is missing; restore it, or move the log away to start a new one")
    recovery = _drop_unborn(segments)
    end, tree = End(), Tree()
    if segments:
        anchor = _find_anchor(segments, key)
        tree = _tree_at(segments, anchor, cache)
        end = _walk(segments, anchor, tree, key.fingerprint)
        recovery = _cut(segments[-1], end.offset, end.sequence) or recovery
    if cache and cache[0].size > end.sequence:
        lost = cache[0].size - end.sequence
        recovery = Recovery(recovery.bytes_cut, recovery.lines_cut, recovery.saved, lost)
    return end, tree, recovery


def save_cache(folder: Path, note: str, tree: Tree) -> None:
    """Keep the compact range that ``note`` signs. Only a cache: no space for it is no reason to stop."""
    data = orjson.dumps({"checkpoint": note, "nodes": [node.hex() for node in tree.nodes]}) + b"\n"
    with suppress(OSError):
        replace_file(folder / TREE_CACHE, data, 0o640)


def load_cache(folder: Path, name: str, public: bytes) -> tuple[Checkpoint, Tree] | None:
    """The cache, if its checkpoint is signed and its nodes give the root; else None."""
    try:
        with (folder / TREE_CACHE).open("rb") as file:
            value = orjson.loads(file.read(_MAX_CACHE))
        checkpoint = open_checkpoint(value["checkpoint"], name, public)
        tree = Tree(checkpoint.size, [bytes.fromhex(node) for node in value["nodes"]])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return (checkpoint, tree) if tree.root() == checkpoint.root else None


def _drop_unborn(segments: list[Path]) -> Recovery:
    """A newest segment without a whole header never held a record: take it away, the one before goes on."""
    if not segments:
        return Recovery()
    with open_segment(segments[-1]) as file:
        whole = file.readline(_MAX_TORN_HEADER).endswith(b"\n")
        size = os.fstat(file.fileno()).st_size
    if whole:
        return Recovery()
    if size > _MAX_TORN_HEADER:
        raise _damaged(segments[-1], "it has no header")
    path = segments.pop()
    recovery = _cut(path, 0, segment_first(path) - 1) or Recovery()
    path.unlink()
    sync_folder(path.parent)
    return recovery


def _find_anchor(segments: list[Path], key: LogKey) -> _Anchor:
    """Look in the last segment, then in the one before: a full segment ends in a checkpoint."""
    for index in range(len(segments) - 1, max(-1, len(segments) - 3), -1):
        for line, last_sequence, offset in _last_checkpoints(segments[index]):
            with suppress(ValueError):  # of parse_checkpoint, and NoteError is one
                checkpoint = open_checkpoint(parse_checkpoint(line), key.name, key.public)
                if checkpoint.size == last_sequence:
                    return _Anchor(checkpoint, sha256(line).digest(), index, offset)
                if checkpoint.size > last_sequence:
                    raise _damaged(segments[index], f"records up to {checkpoint.size} were signed and aren't there")
                # An old checkpoint that was copied here: it is cut with the tail.
    if len(segments) > 2:
        raise _damaged(segments[-2], f"no checkpoint signed by {key.name}")
    return _Anchor(Checkpoint(key.name, 0, EMPTY_ROOT, ZERO, ZERO), ZERO, 0, 0)


def _last_checkpoints(path: Path) -> Iterable[tuple[bytes, int, int]]:
    """Line, sequence of the last record before it, and offset behind it of the last few checkpoints, last first."""
    found: deque[tuple[bytes, int, int]] = deque(maxlen=_CANDIDATES)
    offset, record, is_repeat = 0, b"", False
    with open_segment(path) as file:
        for line in whole_lines(file):
            offset += len(line) + 1
            if line.startswith(RECORD_START):
                record, is_repeat = line, False
            elif line.startswith(CHECKPOINT_START) and not is_repeat:  # we never write two without a record between
                is_repeat = True
                prefix = parse_prefix(record)
                found.append((line, prefix[0] if prefix else segment_first(path) - 1, offset))
    return reversed(found)


def _tree_at(segments: list[Path], anchor: _Anchor, cache: tuple[Checkpoint, Tree] | None) -> Tree:
    """The tree over what the anchor covers. Raises LogError if it isn't what was signed."""
    wanted = anchor.checkpoint
    starts = [(ZERO, Tree())]
    if cache and cache[0].size <= wanted.size:
        starts.insert(0, (cache[0].head, cache[1]))
    for head, tree in starts:
        tree.extend(_leaves(segments, tree.size, head, wanted))
        if tree.size == wanted.size and tree.root() == wanted.root:
            return tree
    raise _damaged(segments[anchor.index], f"the records up to {wanted.size} don't give the root that was signed")


def _leaves(segments: list[Path], size: int, head: bytes, wanted: Checkpoint) -> Iterator[bytes]:
    """Leaf hashes of records ``size`` + 1 to ``wanted.size``: the next record's ``prev``, and the checkpoint's head.

    Ends early if the records aren't what should follow ``head``.
    """
    if size == wanted.size:
        return
    expected, start = size + 1, max(i for i, path in enumerate(segments) if segment_first(path) <= size + 1)
    for path in segments[start:]:
        with open_segment(path) as file:
            for line in whole_lines(file):
                prefix = parse_prefix(line) if line.startswith(RECORD_START) else None
                if prefix is None or prefix[0] <= size:
                    continue
                if prefix[0] != expected or (expected == size + 1 and prefix[1] != head):
                    return
                if expected > size + 1:
                    yield prefix[1]
                if expected == wanted.size:
                    yield wanted.head
                    return
                expected += 1


def _walk(segments: list[Path], anchor: _Anchor, tree: Tree, log: str) -> End:
    """Follow the chain from the anchor to the last record that fits; add the leaves to ``tree``."""
    size, head = anchor.checkpoint.size, anchor.checkpoint.head
    end = End(size, head, size, anchor.digest, segments[anchor.index], anchor.offset)
    for path in segments[anchor.index :]:
        if path != end.path:
            end.path, end.offset = path, 0
        with open_segment(path) as file:
            _header(file.readline(_MAX_TORN_HEADER)[:-1], path, end, log)
            file.seek(end.offset)
            for line in whole_lines(file):
                if parse_record(line) != (end.sequence + 1, end.head):
                    break
                end.sequence, end.head = end.sequence + 1, leaf_hash(line)
                end.offset += len(line) + 1
                tree.append(end.head)
            if path != segments[-1] and end.offset != os.fstat(file.fileno()).st_size:
                raise _damaged(path, f"byte {end.offset} is not what follows record {end.sequence}")
    return end


def _header(line: bytes, path: Path, end: End, log: str) -> None:
    """Check a segment's header as far as it is known here; stand behind it if the walk is just coming in."""
    try:
        value = orjson.loads(line)
        prev, theirs = bytes.fromhex(value["prev"]), value["log"]
    except (ValueError, TypeError, KeyError):
        raise _damaged(path, "the header is not a header") from None
    if not is_fingerprint(theirs):
        raise _damaged(path, "the header names no key")
    if theirs != log:
        raise LogError(f"{path}: signed by another key ({theirs}); restore its log.key, or move the log away")
    first, prev = (segment_first(path), prev) if end.offset else (end.sequence + 1, end.head)
    if line != header_line(first, prev, log) or path.name != segment_name(first):
        raise _damaged(path, f"the header doesn't follow record {end.sequence}")
    end.offset = end.offset or len(line) + 1


def _cut(path: Path, offset: int, sequence: int) -> Recovery | None:
    """Cut ``path`` off at ``offset``, keeping what is cut if there is space. None if there is nothing to cut."""
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if size == offset:
            return None
        file.seek(offset)
        lines, last = 0, b"\n"
        while chunk := file.read(_CHUNK):
            lines, last = lines + chunk.count(b"\n"), chunk[-1:]
        saved = _keep(file, offset, path.with_name(f"{sequence + 1:020d}-{size - offset}.cut"))
        os.ftruncate(file.fileno(), offset)
        os.fsync(file.fileno())
    return Recovery(size - offset, lines + (last != b"\n"), saved)


def _keep(file: BinaryIO, offset: int, path: Path) -> Path | None:
    """Copy what is behind ``offset``; None if there is no space for it, which is no reason not to start."""
    try:
        with path.open("wb") as copy:
            file.seek(offset)
            shutil.copyfileobj(file, copy, _CHUNK)
            os.fchmod(copy.fileno(), 0o640)
            copy.flush()
            os.fsync(copy.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        return None
    return path


def _damaged(path: Path, what: str) -> LogError:
    return LogError(f"{path}: {what}; run `hostwarden audit verify`, then move the log away to start a new one")
