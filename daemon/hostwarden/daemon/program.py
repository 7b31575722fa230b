"""What a process runs, as records show it; from an exec's event, or from /proc where nobody told us."""

import os
from contextlib import suppress
from typing import NamedTuple

import orjson

from hostwarden.records.model import printable

NULL = b"null"
MAX_SHORT = 256  # bytes of a path where it is repeated in every descendant's records
_MAX_ARGV = 4096  # bytes read from /proc
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_START_FIELD = 19  # of /proc/PID/stat, counted from behind the command's closing parenthesis (field 22, proc(5))


class Program(NamedTuple):
    """JSON values, ready to be written: path, the same cut for lineages, arguments."""

    exe: bytes = NULL
    short: bytes = NULL
    argv: bytes = NULL
    is_cut: bool = False  # argv had more

    @classmethod
    def of(cls, path: bytes, argv: bytes, *, is_cut: bool = False) -> "Program":
        """From a host path and arguments that end in NUL each (none: they couldn't be read)."""
        exe = text(path)
        short = exe if len(path) <= MAX_SHORT else _dumps(printable(path[:MAX_SHORT]) + "…")
        return cls(exe, short, arguments(argv), is_cut)


def text(raw: bytes) -> bytes:
    """Any bytes as a JSON string."""
    return _dumps(printable(raw) if b"\\" in raw else raw.decode(errors="backslashreplace"))


def arguments(raw: bytes) -> bytes:
    """NUL-separated arguments as a JSON list; null where there is nothing (every program has at least argv[0])."""
    if not raw:
        return NULL
    return _dumps([printable(argument) for argument in raw.removesuffix(b"\0").split(b"\0")])


def _dumps(value: str | list[str]) -> bytes:
    """A copy: what orjson returns keeps the 4 kB that it was written into, and these are kept by the ten thousand."""
    return bytes(memoryview(orjson.dumps(value)))


def read_program(pid: int, start: int) -> Program | None:
    """The program of the process that started at ``start`` (ns since boot); None if it is gone, or never was one.

    A pid may change hands between two reads, so the start time is compared before and after. A program that executes
    another in between is told as one of the two, with the arguments of either: records say ``partial``.
    """
    if pid <= 0 or not _is_same(pid, start):
        return None
    exe, argv, is_cut = b"", b"", False
    with suppress(OSError):  # a zombie has neither, a kernel thread no exe
        exe = os.readlink(b"/proc/%d/exe" % pid)  # noqa: PTH115 (a Path would be text)
    with suppress(OSError):
        argv = _read(f"/proc/{pid}/cmdline", _MAX_ARGV)
        is_cut = len(argv) == _MAX_ARGV
    if not exe or not _is_same(pid, start):
        return None
    return Program.of(exe, argv, is_cut=is_cut)


def _is_same(pid: int, start: int) -> bool:
    """/proc tells the start in ticks, the kernel's events in ns: equal down to the tick."""
    try:
        stat = _read(f"/proc/{pid}/stat", 4096)
        # The command's name comes from the process and may hold anything, parentheses too: the last one closes it.
        return int(stat[stat.rindex(b")") + 2 :].split()[_START_FIELD]) == start // _TICK_NS
    except (OSError, ValueError, IndexError):
        return False


def _read(path: str, limit: int) -> bytes:
    """Up to ``limit`` bytes of a file in /proc. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)
