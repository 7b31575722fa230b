"""Shows the kernel's half every superblock of the host: it learns their addresses when we open their mount points and
ask for their attributes (which of the two depends on the tier; no system call tells an address).

Nothing is read through such a descriptor (O_PATH), an automount point is not triggered (open(2): without O_DIRECTORY
it isn't, and files can be mount points too), and nobody is waited for: a file server that is gone would stop the daemon
in the middle of the path's lookup, so what asks a server, or lies below it, is opened by a thread of its own that may
hang.
"""

import ctypes
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hostwarden.daemon.mounts import MountPoint, SuperblockAt, read_mounts, visible_ids
from hostwarden.probes import bpf, layout
from hostwarden.probes.pins import Kernel
from hostwarden.records.model import printable

MAX_STUCK = 32  # threads that wait for servers that don't answer
_NETWORK = {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3"}
_USER_SPACE = {"autofs", "fuse", "fuseblk", "virtiofs"}
_ASK_SOMEBODY = _NETWORK | _USER_SPACE
# statx(2): of the descriptor itself; what is cached will do, so that no server is asked; no automount.
_STATX_FLAGS = 0x1000 | 0x4000 | 0x800
_STATX_BYTES = 256


@dataclass(frozen=True)
class Untaught:
    """A mount point that could not be opened; ``reason`` is the system's, or that nobody answered."""

    mount: str
    reason: str


class Teacher:
    """Opens mount points; remembers which of them hang."""

    def __init__(self) -> None:
        self._stuck: dict[int, threading.Thread] = {}  # by mount id

    def teach(self, mounts: Sequence[MountPoint], timeout_s: float = 1.0) -> list[Untaught]:
        """Open one visible mount point of each superblock, and close it. What failed, or took longer, with the reason.

        Of a superblock that nothing visible shows nothing can be opened: the kernel's half meets it unprepared.
        """
        by_id = {mount.id: mount for mount in mounts}
        visible = visible_ids(mounts)
        first: dict[int, MountPoint] = {}
        for mount in mounts:
            if mount.id in visible:
                first.setdefault(mount.dev, mount)
        failed = []
        slow = []
        for mount in first.values():
            if _may_hang(mount, by_id):
                slow.append(mount)
            elif reason := _open(mount.mount):
                failed.append(Untaught(printable(mount.mount), reason))
        return failed + self._teach_slowly(slow, time.monotonic() + timeout_s)

    def _teach_slowly(self, mounts: Sequence[MountPoint], deadline: float) -> list[Untaught]:
        answers: dict[int, str | None] = {}
        self._stuck = {mount_id: thread for mount_id, thread in self._stuck.items() if thread.is_alive()}
        for mount in mounts:
            if mount.id in self._stuck or len(self._stuck) >= MAX_STUCK:
                continue
            # A daemon thread: it must not keep the process from ending either.
            thread = threading.Thread(target=_answer, args=(mount, answers), name="teach", daemon=True)
            self._stuck[mount.id] = thread
            thread.start()
        for thread in list(self._stuck.values()):
            thread.join(max(0.0, deadline - time.monotonic()))
        late = "its file server doesn't answer"
        reasons = [(mount.mount, answers.get(mount.id, late)) for mount in mounts]
        return [Untaught(printable(path), reason) for path, reason in reasons if reason]


def learn(kernel: Kernel, teacher: Teacher) -> tuple[dict[int, SuperblockAt], list[Untaught]]:
    """By dev: where each superblock of the host's mounts is; and the mount points that can't be opened."""
    taught = kernel.maps["taught"]
    for key in bpf.keys(taught, 8):
        bpf.delete(taught, key)
    with kernel.teaching():
        untaught = teacher.teach(read_mounts())
    found = {key: bpf.lookup(taught, key, layout.TAUGHT.size) for key in bpf.keys(taught, 8)}
    taught_now = {int.from_bytes(key, "little"): known for key, known in found.items() if known}
    return {dev: SuperblockAt(*layout.TAUGHT.unpack(known)) for dev, known in taught_now.items()}, untaught


def _answer(mount: MountPoint, answers: dict[int, str | None]) -> None:
    answers[mount.id] = _open(mount.mount)


def _open(path: bytes) -> str | None:
    """Why the mount point can't be opened, None if it was."""
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return error.strerror
    try:
        bpf.libc.statx(fd, b"", _STATX_FLAGS, 0, ctypes.create_string_buffer(_STATX_BYTES))
    finally:
        os.close(fd)
    return None


def _may_hang(mount: MountPoint, by_id: dict[int, MountPoint]) -> bool:
    """Whether the lookup of this mount point passes a file system that asks somebody else."""
    met: set[int] = set()
    above: MountPoint | None = mount
    while above is not None and above.id not in met:
        if above.fstype.split(".")[0] in _ASK_SOMEBODY:
            return True
        met.add(above.id)
        above = by_id.get(above.parent)
    return False
