"""A cgroup v2 of its own for each agent that `run` starts: <cgroup2>/hostwarden/AGENT. It ends and stops all at once.

Membership is held elsewhere (task storage): a process that leaves its cgroup is an agent's all the same. So this is the
quick way to reach many processes, and never the proof that none is left.

Source: Documentation/admin-guide/cgroup-v2.rst.
"""

import contextlib
import errno
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hostwarden.daemon.mounts import MountPoint, visible_ids

OURS = "hostwarden"
MAX_FOLDERS = 1000  # below an agent's cgroup: an agent that is root can make some, as far as its policy lets it
_NAME_MAX = 255
_ROUNDS = 100  # of signals, where the kernel can't end a cgroup at once


class CgroupError(Exception):
    """A cgroup can't be had or used. One line, with what to do."""


def find_v2(mounts: Sequence[MountPoint]) -> Path:
    """Where cgroup v2 is mounted, whole: /sys/fs/cgroup, or /sys/fs/cgroup/unified beside v1. Raises CgroupError."""
    visible = visible_ids(mounts)
    for mount in mounts:
        if mount.fstype == "cgroup2" and mount.root == b"/" and mount.id in visible:
            return Path(os.fsdecode(mount.mount))
    raise CgroupError("no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CgroupError(f"{what}: {error.strerror}{_HINTS.get(error.errno or 0, '')}") from error


_HINTS = {
    errno.EROFS: "; cgroup v2 is mounted read-only: mount -o remount,rw it",
    errno.EACCES: "; hostwardend has to be root",
    errno.ENOSPC: "; a limit above it (cgroup.max.descendants) is reached",
    errno.EAGAIN: "; a limit above it (cgroup.max.descendants or cgroup.max.depth) is reached",
}


class Cgroups:
    """The agents' cgroups below ``root``, the mount point of cgroup v2."""

    def __init__(self, root: Path) -> None:
        self.base = root / OURS

    def folder(self, agent: str) -> Path:
        """Where the agent's cgroup is or would be. Raises CgroupError for a name that no folder can have."""
        # Every file of the kernel's in there has a dot in its name (cgroup.procs, memory.max), and so have systemd's
        # units: without dots a name can be neither. Two agents never share a folder, for the backslash goes as well.
        name = re.sub(
            rb"[^A-Za-z0-9_-]", lambda found: b"\\x%02x" % ord(found[0]), agent.encode(errors="surrogatepass")
        )
        if not name or len(name) > _NAME_MAX:
            raise CgroupError(f"agent {agent[:64]!a}: no folder can have this name, expected a shorter one")
        return self.base / name.decode()

    def make(self, agent: str) -> Path:
        """The agent's cgroup, made if it isn't there. Raises CgroupError."""
        folder = self.folder(agent)
        with _translated(f"the cgroup {folder} can't be made"):
            self.base.mkdir(mode=0o755, exist_ok=True)
            folder.mkdir(mode=0o755, exist_ok=True)
        # Bounds what procs() has to walk. Where it can't be set, procs() still has its own bound.
        with contextlib.suppress(OSError):
            _write(folder / "cgroup.max.descendants", str(MAX_FOLDERS))
        return folder

    def move(self, folder: Path, pid: int) -> bool:
        """Put a process with all its threads into a cgroup; False if it is gone. Raises CgroupError."""
        self._check(folder)
        with _translated(f"process {pid} can't be moved to {folder}"):
            try:
                _write(folder / "cgroup.procs", str(pid))
            except ProcessLookupError:
                return False
        return True

    def procs(self, folder: Path) -> list[int]:
        """Processes in a cgroup and all below it, ascending; none if it is gone. Raises CgroupError."""
        self._check(folder)
        pids: set[int] = set()
        with _translated(f"the processes of {folder} can't be listed"):
            for each in self._folders(folder):
                try:
                    pids.update(map(int, (each / "cgroup.procs").read_text().split()))
                except (FileNotFoundError, NotADirectoryError):
                    continue  # removed meanwhile: only an empty one can be
                except OSError as error:
                    # ENODEV: removed between open and read. EOPNOTSUPP: holds threads only; their processes are
                    # listed by the cgroup above it.
                    if error.errno not in (errno.ENODEV, errno.EOPNOTSUPP):
                        raise
        return sorted(pids - {0})  # 0: a process of another pid namespace

    def freeze(self, folder: Path, stop: bool) -> bool:
        """Stop all in a cgroup, or let it go on; False if it is gone or this kernel can't do it. Raises CgroupError."""
        self._check(folder)
        with _translated(f"{folder} can't be {'frozen' if stop else 'thawed'}"):
            try:
                _write(folder / "cgroup.freeze", "1" if stop else "0")
            except FileNotFoundError:
                return False
        return True

    def is_frozen(self, folder: Path) -> bool:
        """Whether everything in it has stopped by now."""
        self._check(folder)
        with contextlib.suppress(OSError):
            return "frozen 1" in (folder / "cgroup.events").read_text().splitlines()
        return False

    def kill_all(self, folder: Path) -> int:
        """SIGKILL to everything in a cgroup and below, forks under way included; how many there were.

        They may take a moment to end: ``procs`` tells. Raises CgroupError.
        """
        self._check(folder)
        pids = self.procs(folder)
        with _translated(f"the processes of {folder} can't be killed"):
            try:
                _write(folder / "cgroup.kill", "1")
            except FileNotFoundError:
                if folder.is_dir():  # before 5.14
                    self._kill_one_by_one(folder)
        return len(pids)

    def _kill_one_by_one(self, folder: Path) -> None:
        """Stopped first, for what can't run can't fork; a stopped process still dies by SIGKILL."""
        self.freeze(folder, True)
        for _ in range(_ROUNDS):
            pids = self.procs(folder)
            if not pids:
                break
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.freeze(folder, False)

    def remove(self, folder: Path) -> bool:
        """Remove a cgroup and those below it; False, and it stays, if a process is left. Raises CgroupError."""
        self._check(folder)
        with _translated(f"the cgroup {folder} can't be removed"):
            for each in reversed(list(self._folders(folder))):  # children before parents
                try:
                    each.rmdir()
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                        return False
                    raise
        return True

    def _folders(self, folder: Path) -> Iterator[Path]:
        """A cgroup and all below it, parents before children. Raises OSError if they are too many to be honest."""
        found = [folder]
        for each in found:  # grows while it is walked
            try:
                with os.scandir(each) as entries:
                    found += [each / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            except (FileNotFoundError, NotADirectoryError):
                continue
            if len(found) > 2 * MAX_FOLDERS:
                raise OSError(errno.E2BIG, f"more than {2 * MAX_FOLDERS} cgroups below it")
        yield from found

    def _check(self, folder: Path) -> None:
        # A bug, not a user's mistake: a wrong path here would kill or freeze the host.
        assert folder.parent == self.base and folder.name not in ("", ".", ".."), folder


def _write(file: Path, text: str) -> None:
    """Like a shell's echo; never makes a file, whose absence means that this kernel doesn't know it."""
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
