"""Listening unix sockets: made with their permissions, never a moment with others, and only if nobody else listens.

A socket is bound and listening inside a folder that only we may enter, gets its owner and mode there, and is then
renamed to its place: nobody can connect before the permissions hold, a stale socket of a dead process is replaced in
one step, and the process's umask (which all threads share) stays alone.
"""

import errno
import fcntl
import grp
import os
import select
import socket
import stat
import struct
from pathlib import Path

from hostwarden.wire.errors import SocketInUse, SocketProblem
from hostwarden.wire.roles import Peer

BACKLOG = 128
PATH_LIMIT = 107  # sun_path holds 108 bytes with the terminating zero (unix(7))
_UCRED = struct.Struct("iII")  # pid, uid, gid (unix(7), SO_PEERCRED)
_SO_PEERGROUPS = 59  # asm-generic/socket.h; the socket module doesn't name these two
_SO_PEERPIDFD = 77  # since 6.5


def prepare_folder(folder: Path) -> Path:
    """Makes ``folder`` (0755) and its private ``inner`` (0700) if missing; returns ``inner``.

    Raises SocketProblem if they can't be made, belong to someone else, or others may write there: whoever may write to
    the folder could put a socket of his own in our socket's place.
    """
    inner = folder / "inner"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        inner.mkdir(mode=0o700, exist_ok=True)
        for path in (folder, inner):
            status = path.lstat() if path == inner else path.stat()
            if not stat.S_ISDIR(status.st_mode):
                raise SocketProblem(f"{path}: not a folder")
            if status.st_uid != os.geteuid():
                raise SocketProblem(f"{path}: belongs to uid {status.st_uid}, not to uid {os.geteuid()} who runs this")
        if folder.stat().st_mode & 0o022:
            raise SocketProblem(f"{folder}: others may write there; chmod 755 it")
        inner.chmod(0o700)
    except OSError as error:
        raise SocketProblem(f"{error.filename or folder}: {error.strerror}") from error
    return inner


def lock_folder(inner: Path) -> int:
    """A descriptor that holds the lock of ``inner`` until it is closed. Raises SocketInUse if another process has it.

    Two that start at the same time both see stale sockets; the lock decides which of them replaces them.
    """
    lock = os.open(inner / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise SocketInUse(f"{inner.parent}: in use by another running process") from error
    return lock


def listen(path: Path, mode: int, group: int | None, inner: Path) -> socket.socket:
    """A listening, non-blocking socket at ``path``, owned by us and ``group``.

    Raises SocketInUse if someone listens there, SocketProblem if it can't be made.
    """
    staged = inner / f"{path.name}.new"
    if max(len(os.fsencode(path)), len(os.fsencode(staged))) > PATH_LIMIT:
        raise SocketProblem(f"{path}: a socket's path has at most {PATH_LIMIT} bytes; choose a shorter folder")
    _refuse_if_alive(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        staged.unlink(missing_ok=True)
        listener.bind(os.fspath(staged))
        if group is not None:
            os.chown(staged, -1, group)
        staged.chmod(mode)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        staged.rename(path)
    except OSError as error:
        listener.close()
        raise SocketProblem(f"{path}: {error.strerror}") from error
    return listener


def _refuse_if_alive(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketProblem(f"{path}: exists and is not a socket; remove it")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.connect(os.fspath(path))
    except BlockingIOError:  # its backlog is full: alive
        pass
    except (FileNotFoundError, ConnectionRefusedError):
        return
    except OSError as error:
        raise SocketProblem(f"{path}: {error.strerror}") from error
    raise SocketInUse(f"{path}: in use by another running process")


def remove(path: Path, inode: int) -> None:
    """Unlinks our socket at ``path``, unless another has taken the name since."""
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except OSError:
        return  # gone already, or a file system that went read-only: a stale socket harms nobody


def group_id(name: str | None) -> int | None:
    """The gid of ``name``, None if this host has no such group."""
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def credentials(connection: socket.socket, role: str) -> Peer:
    """Who connected, as of the moment of the connect. ``pid`` is 0 for a process outside our pid namespace."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(role, uid, gid, pid)


def is_there(connection: socket.socket, pid: int) -> bool:
    """Whether the process that connected still runs, so that ``pid`` is its number and nobody else's."""
    try:
        fd: int = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            return False  # it is gone
        try:  # before 6.5: a number that was reused in the moment since the connect is taken for it
            fd = os.pidfd_open(pid)
        except (OSError, ValueError):
            return False
    try:
        ended = select.poll()  # not select(2): descriptors may be above 1023
        ended.register(fd, select.POLLIN)  # readable when its process has ended (man 2 pidfd_open)
        return not ended.poll(0)
    finally:
        os.close(fd)


def groups(connection: socket.socket) -> tuple[int, ...]:
    """The supplementary groups of who connected (socket(7), SO_PEERGROUPS); none if they are more than 256."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)  # the most that the socket module takes
    except OSError:
        return ()  # who asks wants to admit somebody: fails closed
    return struct.unpack(f"{len(raw) // 4}I", raw)
