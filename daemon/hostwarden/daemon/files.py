"""Files that people wrote, read with care: bounded, regular, and never waited for."""

import os
import stat
from pathlib import Path

MAX_FILES = 512  # of one folder


class FileProblem(Exception):
    """A file or folder can't be read: what is wrong and what was expected, without its name."""


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of the file at ``path``. Raises FileProblem if it isn't a regular file, can't be read, or has more."""
    try:
        # Not blocking: a FIFO under that name would stop the daemon for good.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISDIR(mode):
                raise FileProblem("a folder, expected a file")
            if not stat.S_ISREG(mode):
                raise FileProblem("not a regular file, expected one")
            with os.fdopen(os.dup(fd), "rb") as file:
                data = file.read(limit + 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise FileProblem(f"{error.strerror}, expected a file that can be read") from error
    if len(data) > limit:
        raise FileProblem(f"longer than {limit} bytes, expected a smaller file")
    return data


def names_in(folder: Path, suffix: str) -> list[str]:
    """The names of a folder's files that end in ``suffix``, sorted, hidden ones left out; none if it doesn't exist.

    Raises FileProblem.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FileProblem(f"{error.strerror}, expected a folder that can be read") from error
    names = [name for name in names if name.endswith(suffix) and not name.startswith(".")]
    if len(names) > MAX_FILES:
        raise FileProblem(f"{len(names)} files that end in {suffix}, expected at most {MAX_FILES}")
    return names
