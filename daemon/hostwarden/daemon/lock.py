"""One hostwardend for each bpffs and each log: a lock on the folders themselves.

flock(2) on a folder's descriptor needs no file that could be left over or be deleted, works on bpffs, is taken or
refused at once, and ends with the process however it ends.
"""

import fcntl
import os
from pathlib import Path
from typing import Self


class Busy(Exception):
    """Another hostwardend has a folder. One line."""


class LockProblem(Exception):
    """A folder can't be locked. One line."""


class Locks:
    """The locks that we hold, until ``close`` or the end of the process. Take the bpffs's after it was mounted."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}

    def take(self, folder: Path) -> None:
        """Lock ``folder``, which must exist. Raises Busy or LockProblem; locks that are held already stay."""
        try:
            # Not inherited by what we execute: a child that lives on must not hold our lock.
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise LockProblem(f"{folder}: {error.strerror}; expected a folder that hostwardend may read") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise Busy(f"another hostwardend runs on {folder}: stop it, or choose other folders") from None
        except OSError as error:
            os.close(fd)
            raise LockProblem(f"{folder}: can't be locked: {error.strerror}") from error
        self._held[folder] = fd

    def verify(self) -> None:
        """Look whether the locked folders are still those that their names lead to. Raises Busy.

        Two that start at once may both mount a bpffs, one on the other, and lock one each. Who asks this before it says
        that it is ready finds out if its own is the hidden one.
        """
        for folder, fd in self._held.items():
            try:
                same = os.path.samestat(os.fstat(fd), folder.stat())
            except OSError:
                same = False
            if not same:
                raise Busy(f"{folder} was mounted over or replaced since we locked it; another hostwardend may have it")

    def close(self) -> None:
        """Let go of all."""
        while self._held:
            os.close(self._held.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
