"""The format of the log. This page is the contract with auditors: what is written here is all that may be in a file.

Files
    ``STATE_DIR/log/`` holds segments, named by the sequence of the first record that they hold or will hold, 20 digits
    and ``.seg``: ``00000000000000000001.seg``. In the order of their names they are one text: UTF-8 lines, each of them
    at most 1 MiB, each ending in exactly one newline. Other files there (``tree.json``, ``*.cut``, ``*.new``) are no
    part of the log: the writer's cache, what it cut off after a crash, a segment that isn't in use yet.

Lines
    There are three kinds, told apart by how they begin; nothing else may appear.

    header      first line of each segment, and only there. Determined by what comes before it, so it can't be changed::

                    {"segment":1,"first":4712,"prev":"<leaf hash of record 4711>","log":"<fingerprint of the key>"}

                ``segment`` is the version of this format.

    record      one action, verdict or act of the warden (``model`` has the fields)::

                    {"sequence":4712,"prev":"<leaf hash of record 4711>","time":…}

                ``sequence`` counts from 1 without a hole. ``prev`` of record 1 is 64 zeros. These two keys come
                first, written exactly like this, and occur once.

    checkpoint  a signed note (``note`` has its lines) over all records before it, as a JSON string::

                    {"checkpoint":"hostwarden/<fingerprint>\\n4711\\n<root>\\nhead …\\nprev …\\n\\n— …\\n"}

                It is written only after those records are on disk: at most four times a second, at least once a second
                while records come, and as the last line of a segment that is full or of a log that was closed.

Hashes
    All are SHA-256, written in lower-case hex. The leaf hash of a record is SHA-256(0x00 || its line without the
    newline), as RFC 6962 has it; the tree in a checkpoint is RFC 6962's over the leaf hashes of records 1 to ``size``.
    The fingerprint of a key is the first 16 bytes of SHA-256(raw Ed25519 public key).

What covers what
    A record's bytes: the ``prev`` of the next record, and root and ``head`` of the next checkpoint. A checkpoint's:
    its signature (its text), the rule that it must be what we would write again (its quoting), and the ``prev`` of the
    next checkpoint (its presence). A header's, and a segment's name: the rule that they are determined. Newlines: the
    lines. So there is no byte that nobody looks at; but two things a log can't prove by itself, and verification says
    so: records after the last checkpoint are chained and not yet signed, and a log whose end was cut off at a line is
    a shorter valid log, unless someone kept a later checkpoint (the collector does).

Loss
    Records that never reached the log because a ring was full are a record themselves (action ``loss``).
"""

import os
import re
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import orjson

VERSION = 1
MAX_LINE = 1 << 20  # bytes, without the newline
ZERO = bytes(32)  # what `prev` is where nothing came before
SEGMENT_SUFFIX = ".seg"
RECORD_START = b'{"sequence":'
CHECKPOINT_START = b'{"checkpoint":'
TREE_CACHE = "tree.json"

_NAME = re.compile(r"[0-9]{20}\.seg")
_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_PREFIX = re.compile(rb'\{"sequence":([1-9][0-9]{0,18}),"prev":"([0-9a-f]{64})",').match


class LogError(Exception):
    """The log can't be written or read. One line, with a hint what to do."""


class LogFull(LogError):
    """No space for more. What was written before is whole; the same call may be made again later."""


def log_dir(state_dir: Path) -> Path:
    """Where the segments are."""
    return state_dir / "log"


def fingerprint(public: bytes) -> str:
    """Identity of a log: 32 hex digits from the raw public key that signs its checkpoints."""
    return sha256(public).hexdigest()[:32]


def is_fingerprint(value: object) -> bool:
    """True for what fingerprint() returns: a header may say anything, and what it says ends up in messages."""
    return isinstance(value, str) and _FINGERPRINT.fullmatch(value) is not None


def origin(log: str) -> str:
    """First line of a log's checkpoints, and the name of its key. ``log``: the fingerprint."""
    return f"hostwarden/{log}"


def segment_name(first: int) -> str:
    """File name of the segment whose first record is ``first``."""
    return f"{first:020d}{SEGMENT_SUFFIX}"


def segment_first(path: Path) -> int:
    """The sequence in a segment's name. Raises LogError for a name that segment_name never makes."""
    if not _NAME.fullmatch(path.name) or int(path.stem) < 1:
        raise LogError(f"{path.name!a}: not a segment's name; move the file out of the log's folder")
    return int(path.stem)


def list_segments(folder: Path) -> list[Path]:
    """All ``*.seg`` in order. Raises LogError if the folder can't be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(SEGMENT_SUFFIX))
    except OSError as error:
        raise LogError(f"{folder}: {error.strerror}; is this the log's folder, and may you read it?") from None


def header_line(first: int, prev: bytes, log: str) -> bytes:
    """The header of a segment, without the newline."""
    return orjson.dumps({"segment": VERSION, "first": first, "prev": prev.hex(), "log": log})


def checkpoint_line(note: str) -> bytes:
    """The line for a signed note, without the newline."""
    return orjson.dumps({"checkpoint": note})


def parse_checkpoint(line: bytes) -> str:
    """The note in a checkpoint line. Raises ValueError unless the line is exactly what checkpoint_line writes."""
    value = orjson.loads(line)
    note = value.get("checkpoint") if isinstance(value, dict) else None
    if not isinstance(note, str) or checkpoint_line(note) != line:
        raise ValueError("not written the canonical way")
    return note


def parse_prefix(line: bytes) -> tuple[int, bytes] | None:
    """Sequence and raw ``prev`` of a record line, None if it doesn't begin like one. Looks at the first bytes only."""
    match = _PREFIX(line)
    if match is None:
        return None
    sequence, prev = match.groups()
    return int(sequence), bytes.fromhex(prev.decode())


def parse_record(line: bytes) -> tuple[int, bytes] | None:
    """The same, and the whole line must be a JSON object in which the two keys say what the prefix says.

    A second ``sequence`` or ``prev`` further on would be what most readers believe, so it is compared.
    """
    prefix = parse_prefix(line)
    if prefix is None:
        return None
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if value["sequence"] != prefix[0] or value["prev"] != prefix[1].hex():
        return None
    return prefix


def open_segment(path: Path) -> BinaryIO:
    """Open a segment for reading. Raises LogError.

    A folder under audit may be anyone's: no symbolic link is followed, and a FIFO can't make us wait.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise LogError(f"{path}: {error.strerror}; segments are plain files, not links") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise LogError(f"{path}: not a plain file; move it out of the log's folder")
    return os.fdopen(fd, "rb", buffering=1 << 18)


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines from where the file stands, without newlines, as long as they are whole and not over MAX_LINE.

    Stops before the first that isn't; the file then stands behind what was read of it, so callers keep their own
    offset (add ``len(line) + 1`` for each line).
    """
    while True:
        line = file.readline(MAX_LINE + 1)
        if not line.endswith(b"\n"):
            return
        yield line[:-1]
