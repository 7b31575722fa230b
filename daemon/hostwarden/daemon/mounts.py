"""The host's mount table: where each superblock stands, as the compiler's ``Place``s, and when that changes.

Which places count: those that a path lookup reaches. A mount is hidden where another is mounted on its own root, or
on a folder above its mount point; what it shows can then be named by nobody, and the name means something else by now:
an `allow` for the name must not open the hidden files, if they are also to be had under a second, secret name. But a
superblock of which no place is visible can still be in use, by descriptors and working folders older than what hides
it, and by mount namespaces that were made before. Then its hidden places are the only names it has, and they count:
without them it would be an unknown file system, and a rule that denies its files by path would say nothing about them.

Source: man 5 proc_pid_mountinfo; fs/proc_namespace.c (show_mountinfo), whose major:minor is the superblock's s_dev.
"""

import os
import re
import select
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hostwarden.policy.tables import MAX_SUPERBLOCKS, PRIVATE, Place

TABLE = Path("/proc/self/mountinfo")
FIRST_ROW = (
    2  # of superblocks(): row 0 is PRIVATE, row 1 the host's own paths, which the compiler is always given first
)
MAX_ROWS = MAX_SUPERBLOCKS - FIRST_ROW
_DELETED = b"//deleted"  # what the kernel appends where a folder was removed; no path has two slashes by itself
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class MountError(Exception):
    """The mount table can't be read: one line."""


@dataclass(frozen=True)
class MountPoint:
    """One line of mountinfo. ``root`` and ``mount`` are absolute, "/" included; bytes, for names need be no UTF-8."""

    id: int
    parent: int
    major: int
    minor: int
    root: bytes
    mount: bytes
    fstype: str
    source: bytes

    @property
    def dev(self) -> int:
        """The kernel's s_dev: 20 bits of minor (include/linux/kdev_t.h), not what stat(2) makes of it."""
        return self.major << 20 | self.minor


class SuperblockAt(NamedTuple):
    """Where a superblock is in the kernel, and what tells it from a later one at that address (probes/…/path.h)."""

    address: int
    root: int  # its root's dentry, by address
    magic: int


@dataclass(frozen=True)
class Superblock:
    """A mounted file system: its s_dev, and the host paths under which parts of it are seen."""

    dev: int
    fstype: str
    places: tuple[Place, ...]


def read_mounts(table: Path = TABLE) -> list[MountPoint]:
    """The mounts of our own mount namespace, in the table's order. Raises MountError."""
    try:
        return parse_mountinfo(table.read_bytes())
    except OSError as error:
        raise MountError(f"{table} can't be read: {error.strerror}; is /proc mounted?") from error


def parse_mountinfo(data: bytes) -> list[MountPoint]:
    """The lines of a mountinfo file. Raises MountError for a line that the kernel would not write."""
    mounts = []
    # Not splitlines(): a carriage return is a character like any other, and the kernel doesn't escape it.
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), start=1):
        fields = line.split(b" ")
        try:
            # Fields 1 to 6, then optional ones (shared:1 master:2 …) up to a dash, then type, source and options.
            dash = fields.index(b"-", 6)
            major, _, minor = fields[2].partition(b":")
            root, mount = _unescaped(fields[3]), _unescaped(fields[4])
            # A source may be empty, which leaves two spaces in a row; the type is never.
            fstype, source = _unescaped(fields[dash + 1]).decode(errors="replace"), _unescaped(fields[dash + 2])
            mounts.append(
                MountPoint(int(fields[0]), int(fields[1]), int(major), int(minor), root, mount, fstype, source)
            )
        except (ValueError, IndexError):
            raise MountError(f"mountinfo, line {number}: not as man 5 proc_pid_mountinfo has it") from None
    return mounts


def _unescaped(field: bytes) -> bytes:
    """Space, tab, newline and backslash are written as three octal digits (and # in some fields)."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), field)


def superblocks(mounts: Sequence[MountPoint]) -> list[Superblock]:
    """One entry for each device, in the order in which they first appear; each place once, visible ones only if any.

    There may be more than rows for them (MAX_ROWS): those at the end are left to the kernel's half, which walks the
    chain of mounts for them, and refuses what it meets in other mount namespaces.
    """
    visible = visible_ids(mounts)
    seen: dict[int, list[MountPoint]] = {}
    for mount in mounts:
        if _has_name(mount):
            seen.setdefault(mount.dev, []).append(mount)
    found = []
    for dev, group in seen.items():
        shown = [mount for mount in group if mount.id in visible] or group
        places = dict.fromkeys(Place(_trimmed(mount.root), _trimmed(mount.mount)) for mount in shown)
        found.append(Superblock(dev, shown[0].fstype, tuple(places)))
    return found


def _has_name(mount: MountPoint) -> bool:
    """Whether the mount shows a tree under a name. Not so where a folder was removed; nor do the mounts of `ip netns`,
    whose roots are like net:[4026531840]: their objects are judged by their kind, for they have no path.
    """
    paths = (mount.root, mount.mount)
    return all(path.startswith(b"/") and not path.endswith(_DELETED) for path in paths)


def _trimmed(path: bytes) -> bytes:
    return b"" if path == b"/" else path


def visible_ids(mounts: Sequence[MountPoint]) -> set[int]:
    """Ids of the mounts whose root a path lookup reaches.

    By parents, not by the table's order: that is the order of ids on newer kernels, and `mount --move` keeps an id.
    """
    by_id = {mount.id: mount for mount in mounts}
    children: dict[tuple[int, bytes], int] = {}  # (parent, mount point) → child; of several (old kernels) the last
    for mount in mounts:
        if mount.parent != mount.id:
            children[mount.parent, mount.mount] = mount.id
    attached: dict[int, bool] = {}
    for mount in mounts:
        _attach(mount, by_id, children, attached)
    return {mount.id for mount in mounts if attached[mount.id] and (mount.id, mount.mount) not in children}


def _attach(
    mount: MountPoint,
    by_id: dict[int, MountPoint],
    children: dict[tuple[int, bytes], int],
    attached: dict[int, bool],
) -> None:
    """Note whether a lookup comes through ``mount``, be it on to another that is mounted on its root."""
    chain = []  # without recursion: mounts nest a hundred thousand deep, if someone wants them to
    while mount.id not in attached:
        chain.append(mount)
        attached[mount.id] = False  # so that a table with a circle ends
        above = by_id.get(mount.parent)
        if above is None or above.id == mount.id:
            break
        mount = above
    for each in reversed(chain):
        parent = by_id.get(each.parent)
        if parent is None or parent.id == each.id:
            attached[each.id] = True  # the namespace's root: what it is mounted on is not in the table
        else:
            attached[each.id] = attached[parent.id] and not _is_shadowed(each, parent, children)


def _is_shadowed(mount: MountPoint, parent: MountPoint, children: dict[tuple[int, bytes], int]) -> bool:
    """Whether a lookup leaves ``parent`` for another mount before it comes to ``mount``'s mount point, or there."""
    if children[parent.id, mount.mount] != mount.id:
        return True
    path = mount.mount
    while path != parent.mount and len(path) > 1:
        path = path[: path.rfind(b"/")] or b"/"
        if (parent.id, path) in children:
            return True
    return False


# s_magic of file systems that the kernel makes up (include/uapi/linux/magic.h, and the source where it isn't there). An
# agent in a mount namespace of its own may mount a fresh one, a new superblock that no mount of the host shows.
MAGICS: dict[str, int] = {
    "binfmt_misc": 0x42494E4D,
    "binder": 0x6C6F6F70,
    "bpf": 0xCAFE4A11,
    "cgroup": 0x27E0EB,
    "cgroup2": 0x63677270,
    "configfs": 0x62656570,
    "debugfs": 0x64626720,
    "devpts": 0x1CD1,
    "efivarfs": 0xDE5E81E4,
    "fusectl": 0x65735543,
    "hugetlbfs": 0x958458F6,
    "mqueue": 0x19800202,
    "nfsd": 0x6E667364,
    "proc": 0x9FA0,
    "pstore": 0x6165676C,
    "resctrl": 0x7655821,
    "rpc_pipefs": 0x67596969,
    "securityfs": 0x73636673,
    "selinuxfs": 0xF97CFF8C,
    "smackfs": 0x43415D53,
    "sysfs": 0x62656572,
    "tracefs": 0x74726163,
}
# Memory that begins empty: nothing of the host's is in it, and it has no name on the host.
EMPTY_MAGICS = {"tmpfs": 0x01021994, "ramfs": 0x858458F6}


def fresh_rows(found: Sequence[Superblock]) -> dict[int, int]:
    """s_magic → start row for superblocks that no host mount shows; what is not in it is unknown, and denied.

    A fresh procfs is judged as the host's: the one with the shortest name, for a host may have more of them, in the
    roots of containers. tmpfs and ramfs are PRIVATE. ``found`` is what ``superblocks`` gave.
    """
    rows = dict.fromkeys(EMPTY_MAGICS.values(), PRIVATE)
    shortest: dict[int, int] = {}
    for index, superblock in enumerate(found):
        whole = [len(place.mount) for place in superblock.places if not place.root]
        magic = MAGICS.get(superblock.fstype)
        if magic is not None and whole and min(whole) < shortest.get(magic, 1 << 16):
            shortest[magic] = min(whole)
            rows[magic] = FIRST_ROW + index
    return rows


def dev_rows(found: Sequence[Superblock]) -> dict[int, int]:
    """s_dev → start row of what ``superblocks`` gave."""
    return {superblock.dev: FIRST_ROW + index for index, superblock in enumerate(found)}


class MountWatch:
    """Tells when our mount namespace's table has changed, whatever changed it.

    ``fileno`` can be polled for POLLPRI (it is always readable). The kernel tells each change once, to whoever polls
    the descriptor first: a loop that polls it has its answer by that, and ``changed`` is for those that don't. Begin
    to watch before the table is read.
    """

    def __init__(self, table: Path = TABLE) -> None:
        try:
            self._fd = os.open(table, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MountError(f"{table} can't be opened: {error.strerror}; is /proc mounted?") from error
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLPRI)

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def changed(self, timeout_s: float = 0) -> bool:
        """Whether a mount came, went or moved since the last answer; waits for it up to ``timeout_s``."""
        return bool(self._poll.poll(timeout_s * 1000))

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)
