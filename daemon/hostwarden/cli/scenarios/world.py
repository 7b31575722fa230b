"""The world of a row: files, links, mounts, servers, processes outside the agent; and what has become of them.

A world is laid out for the control and for the agent, each in a folder of its own, which a row calls ``$W``.
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import termios
import time
import tty
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hostwarden.cli.scenarios.others import MARK
from hostwarden.cli.scenarios.servers import Giver, Servers, UnixServer

_WAIT_S = 20
_MOMENT_S = 0.3
_ENV_START = 47  # field 50 of /proc/PID/stat, counted behind the name; proc(5)
_VICTIMS_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOSTWARDEN_SCENARIO": "-" * 64}

_LOOP = (7, 0)  # the first loop device

Snapshot = dict[str, tuple[Any, ...]]


class World:
    """One folder and all that belongs to it. ``close`` takes everything away again."""

    def __init__(self, folder: Path, servers: Servers, fill_in: Callable[[str], str]) -> None:
        self.folder = folder
        self._servers, self._fill_in = servers, fill_in
        self._stack = contextlib.ExitStack()
        self._victims: list[subprocess.Popen[bytes]] = []
        self._terminals: list[tuple[int, int]] = []
        self.inherited: list[int] = []
        folder.mkdir()
        folder.chmod(0o755)

    def lay_out(self, entries: Mapping[str, Any]) -> None:
        """Make what ``entries`` say: name → text, null (a folder) or a mapping of one kind to its argument."""
        for name, entry in entries.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if entry is None:
                path.mkdir(exist_ok=True)
            elif isinstance(entry, str):
                path.write_text(self._fill_in(entry))
                path.chmod(0o644)
            else:
                self._make(path, entry)

    def _make(self, path: Path, entry: Mapping[str, Any]) -> None:
        ((kind, argument),) = entry.items()
        makers: dict[str, Callable[[Path, Any], None]] = {
            "link": lambda path, to: path.symlink_to(self._fill_in(to)),
            "hard": lambda path, to: path.hardlink_to(self.folder / to),
            "copy": _copy,
            "script": self._script,
            "device": lambda path, number: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*number)),
            "fifo": lambda path, _: os.mkfifo(path),
            "bind": self._bind,
            "overlay": self._overlay,
            "xattr": _with_attribute,
            "deep": _deep,
            "victim": self._victim,
            "holder": self._holder,
            "inherited": self._inherited,
            "disk": lambda path, _: _disk(path),
            "sysctl": self._sysctl,
            "library": lambda path, name: _copy(path, _library(name)),
            "binfmt": self._binfmt,
            "giver": self._giver,
            "server": self._unix_server,
            "terminal": self._terminal,
        }
        makers[kind](path, argument)

    def _script(self, path: Path, text: str) -> None:
        path.write_text(self._fill_in(text))
        path.chmod(0o755)

    def _bind(self, path: Path, source: str) -> None:
        original = self.folder / source
        path.mkdir() if original.is_dir() else path.touch()
        self._mount(["--bind", str(original), str(path)], path)

    def _overlay(self, path: Path, lower: str) -> None:
        for folder in (path, Path(f"{path}.upper"), Path(f"{path}.work")):
            folder.mkdir()
        options = f"lowerdir={self.folder / lower},upperdir={path}.upper,workdir={path}.work"
        self._mount(["-t", "overlay", "none", "-o", options, str(path)], path)

    def _mount(self, arguments: list[str], path: Path) -> None:
        subprocess.run(["mount", *arguments], check=True, timeout=_WAIT_S)
        self._stack.callback(subprocess.run, ["umount", "-l", str(path)], stderr=subprocess.DEVNULL, timeout=_WAIT_S)

    def _victim(self, path: Path, _: Any) -> None:
        process = subprocess.Popen(["sleep", "3600"], env=_VICTIMS_ENVIRONMENT, start_new_session=True)
        self._victims.append(process)
        self._stack.callback(process.wait, _WAIT_S)
        self._stack.callback(process.kill)
        # Before exec has come to its end, addresses are those of the program before.
        if not _comes_true(lambda: b"HOSTWARDEN_SCENARIO" in _environment(process.pid), _WAIT_S):
            raise OSError(errno.ESRCH, "a process that waits could not be started")
        path.write_text(f"{process.pid} {_behind_name(process.pid)[_ENV_START]}")

    def _holder(self, path: Path, file: str) -> None:
        fd = os.open(self.folder / file, os.O_RDONLY)
        self._stack.callback(os.close, fd)
        path.write_text(f"{os.getpid()} {fd}")

    def _inherited(self, path: Path, file: str) -> None:
        fd = os.open(self.folder / file, os.O_RDONLY)
        self._stack.callback(os.close, fd)
        self.inherited.append(fd)
        path.write_text(str(fd))

    def _sysctl(self, path: Path, setting: str) -> None:
        """A switch of the kernel's, as long as this world exists."""
        name, _, value = setting.partition("=")
        switch = Path("/proc/sys") / name
        before = switch.read_text()
        self._stack.callback(switch.write_text, before)
        switch.write_text(value)
        path.write_text(before)

    def _binfmt(self, path: Path, interpreter: str) -> None:
        """A file that only binfmt_misc(5) knows how to run, by ``interpreter``; known as long as this world exists."""
        name = f"scenario-{self.folder.name}-{os.getpid()}"
        registry = Path(f"{self.folder}.binfmt")
        registry.mkdir()
        self._stack.callback(registry.rmdir)
        self._mount(["-t", "binfmt_misc", "none", str(registry)], registry)
        magic = f"magic of {self.folder.name}"
        (registry / "register").write_text(f":{name}:M::{magic}::{self.folder / interpreter}:\n")
        self._stack.callback((registry / name).write_text, "-1")
        path.write_text(f"{magic}\n")
        path.chmod(0o755)

    def _giver(self, path: Path, file: str) -> None:
        self._stack.callback(Giver(path, self.folder / file).close)

    def _unix_server(self, path: Path, kind: str) -> None:
        server = UnixServer(str(path), kind)
        path.chmod(0o666)
        self._servers.add(str(path), server)
        self._stack.callback(self._servers.remove, str(path))

    def _terminal(self, path: Path, _: Any) -> None:
        ours, theirs = os.openpty()
        tty.setraw(theirs)
        self._terminals.append((ours, theirs))
        for fd in (ours, theirs):
            self._stack.callback(os.close, fd)
        path.symlink_to(os.ttyname(theirs))

    # what has become of it

    def has(self, effects: Mapping[str, Any], out: str) -> bool:
        """Whether all of a row's effects are seen. ``out``: what the attempt said."""
        checks: dict[str, Callable[[Any], bool]] = {
            "gives": lambda text: self._fill_in(text) in out,
            "left": lambda files: all(is_so(self.folder / name, wanted) for name, wanted in files.items()),
            "arrives": lambda where: self._servers.arrived(self._fill_in(where)),
            "victim": self._victim_is,
            "typed": lambda _: any(_waiting(theirs) for _, theirs in self._terminals),
        }
        seen = [checks[kind](wanted) for kind, wanted in effects.items()]  # all of them: each server is asked
        return all(seen)

    def _victim_is(self, wanted: str) -> bool:
        """``ended``, ``stopped`` or ``marked`` (its memory); a signal takes a moment to arrive."""
        process = self._victims[-1]
        checks: dict[str, Callable[[], bool]] = {
            "ended": lambda: process.poll() is not None,
            "stopped": lambda: _behind_name(process.pid)[0] in "Tt",
            "marked": lambda: MARK in _environment(process.pid),
        }
        return _comes_true(checks[wanted], _MOMENT_S)

    def snapshot(self, scratch: tuple[str, ...] = ()) -> Snapshot:
        """All that can be said about each name in the folder, those below ``scratch`` left out."""
        found: Snapshot = {}
        for base, folders, names in os.walk(self.folder):
            for name in (*folders, *names):
                path = Path(base) / name
                relative = str(path.relative_to(self.folder))
                if relative.split("/")[0] not in scratch:
                    found[relative] = _about(path)
        return found

    def close(self) -> None:
        """Processes, servers, mounts and files."""
        self._stack.close()
        for mount_point in reversed(_mounted_below(self.folder)):  # by who was let
            subprocess.run(["umount", "-l", mount_point], stderr=subprocess.DEVNULL, timeout=_WAIT_S)
        shutil.rmtree(self.folder, ignore_errors=True)


def _behind_name(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""  # gone


def _comes_true(is_so: Callable[[], bool], seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True


def is_so(path: Path, wanted: Any) -> bool:
    """Whether a file is as a row says: its text, null (isn't there), or one of is, mode, owner, xattr, lacks, has."""
    if wanted is None:
        return not os.path.lexists(path)
    if not os.path.lexists(path):
        return False
    if isinstance(wanted, str):
        return path.is_file() and path.read_text() == wanted
    ((kind, argument),) = wanted.items()
    status = path.lstat()
    checks: dict[str, Callable[[], bool]] = {
        "is": lambda: argument in ("there", _kind(status.st_mode)),
        "mode": lambda: stat.S_IMODE(status.st_mode) == argument,
        "owner": lambda: status.st_uid == argument,
        "xattr": lambda: argument in os.listxattr(path),
        "lacks": lambda: argument not in os.listxattr(path),
        "has": lambda: argument in path.read_text(),
        "older": lambda: status.st_mtime < argument,
    }
    return checks[kind]()


def _about(path: Path) -> tuple[Any, ...]:
    status = path.lstat()
    about: list[Any] = [status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_nlink]
    if stat.S_ISREG(status.st_mode):
        about += [hashlib.sha256(path.read_bytes()).digest(), status.st_mtime_ns, tuple(os.listxattr(path))]
    elif stat.S_ISLNK(status.st_mode):
        about.append(os.readlink(path))
    return tuple(about)


def _kind(mode: int) -> str:
    words = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo",
             stat.S_IFCHR: "device", stat.S_IFSOCK: "socket"}  # fmt: skip
    return words.get(stat.S_IFMT(mode), "?")


def _copy(path: Path, source: str) -> None:
    shutil.copy(source, path)
    path.chmod(0o755)


def _disk(path: Path) -> None:
    """The node of a block device that is there and may be opened here; the first of all if none may."""
    listed = [line.split()[:2] for line in Path("/proc/partitions").read_text().splitlines()[2:]]
    numbers = [(int(major), int(minor)) for major, minor in listed] + [_LOOP]
    for number in (*numbers, numbers[0]):
        path.unlink(missing_ok=True)
        os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(*number))
        try:
            os.close(os.open(path, os.O_RDONLY))
        except OSError:
            continue  # a container's devices may be kept from root
        return


def _library(name: str) -> str:
    """Where the loader has a library."""
    ctypes.CDLL(name)
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(f"/{name}"):
            return line.split()[-1]
    raise FileNotFoundError(errno.ENOENT, "no such library", name)


def _mounted_below(folder: Path) -> list[str]:
    """Mount points, in the order in which they were made; names of ours have nothing that is escaped there."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [point for point in (line.split()[4] for line in lines) if point.startswith(f"{folder}/")]


def _with_attribute(path: Path, name: str) -> None:
    path.touch()
    os.setxattr(path, name, b"kept")


def _deep(path: Path, spec: tuple[str, int, str]) -> None:
    """``count`` folders inside each other, the last with a file ``secret``: longer than a path may be."""
    name, count, text = spec
    path.mkdir()
    here = os.open(path, os.O_RDONLY)
    for _ in range(count):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    fd = os.open("secret", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here)
    os.write(fd, text.encode())
    os.close(fd)
    os.close(here)


def _waiting(terminal: int) -> bool:
    """Whether somebody has typed."""
    return fcntl.ioctl(terminal, termios.FIONREAD, bytes(4)) != bytes(4)
