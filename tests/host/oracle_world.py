"""A world in which the kernel's half is asked and answers: probes, file systems, a member process; without a daemon.

``opened()`` loads the probes on a bpffs of its own, mounts file systems of every kind that path.h tells apart, and
starts ``programs/member.c`` as a member. ``World.install`` puts policies in force, ``World.attempt`` has the member
make attempts; each comes back with the event that the kernel wrote about it.
"""

import ctypes
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hostwarden.daemon import cgroups, kerneltables, mounts
from hostwarden.daemon.attach import Job, attach
from hostwarden.daemon.defines import defines
from hostwarden.daemon.members import mark
from hostwarden.daemon.proofs import Proof
from hostwarden.daemon.registry import Agent
from hostwarden.daemon.teach import Teacher
from hostwarden.policy.compile import compile_profile
from hostwarden.policy.model import Policy
from hostwarden.policy.places import host_paths
from hostwarden.policy.tables import Place, Profile
from hostwarden.policy.words import Action
from hostwarden.probes import bpf, layout, pins
from hostwarden.probes.rings import Ring, size_of

PROGRAMS = Path(__file__).parent / "programs"
HOST_ROW = 1
SLOT, NUMBER = 2, 2  # the member's agent, and its profile
REQUEST = struct.Struct("<BBHIII")  # op way length flags uid folder
REPLY = struct.Struct("<iI")  # result pid
DENIALS_KIB, EVENTS_KIB = 16384, 16384
WAIT_S = 60
MS_BIND = 4096
FSOPEN, FSCONFIG, FSMOUNT, FSCONFIG_CMD_CREATE = 430, 431, 432, 6  # x86-64; include/uapi/linux/mount.h


@dataclass(frozen=True)
class Location:
    """A folder that attempts are relative to, and what the host's mount table says of its file system.

    ``below`` is the folder as seen from its superblock's root; ``row`` None: the kernel knows no host path. ``crossed``
    isn't 0 where the file system was mounted after the tables were made: the kernel then walks through so many mounts,
    and finds the host path.
    """

    name: str
    index: int
    below: bytes
    row: int | None
    places: tuple[Place, ...]
    crossed: int = 0

    def relative(self, path: bytes) -> bytes:
        """What the kernel rebuilds: the path from the superblock's root (through mounts: from the host's)."""
        return self.below + b"/" + path if path else self.below

    def names(self, path: bytes) -> list[bytes]:
        """Every host path of the file; none if no place shows it."""
        return host_paths(self.relative(path), self.places)


@dataclass(frozen=True)
class Try:
    """One attempt. ``op`` is member.c's: o(pen), x (execute), n(et); ``payload``: path, path and argv, or address."""

    op: str
    location: Location
    payload: bytes
    flags: int = 0
    uid: int = 0
    way: int = 0

    def pack(self, op: str = "", payload: bytes | None = None) -> bytes:
        """As member.c reads it."""
        body = self.payload if payload is None else payload
        head = REQUEST.pack(ord(op or self.op), self.way, len(body), self.flags, self.uid, self.location.index)
        return head + body


@dataclass(frozen=True)
class Seen:
    """An event as the ring had it: header, path, argv, script's path."""

    head: layout.Event
    path: bytes
    argv: bytes
    script: bytes

    @classmethod
    def of(cls, raw: bytes) -> "Seen":
        """Unpack one."""
        head = layout.Event(*layout.EVENT.unpack_from(raw))
        texts, at = [], layout.EVENT_HEADER
        for length in (head.path_length, head.argv_length, head.script_length):
            texts.append(raw[at : at + length])
            at += length
        return cls(head, *texts)


@dataclass(frozen=True)
class Found:
    """An attempt that the kernel decided; ``result`` is member.c's."""

    made: Try
    result: int
    seen: Seen


class World:
    """See the module."""

    def __init__(self, root: Path, kernel: pins.Kernel, locations: dict[str, Location], stack: ExitStack) -> None:
        self.root, self.kernel, self.locations = root, kernel, locations
        self.superblocks: list[Sequence[Place]] = []
        self._stack = stack
        self._agent = Agent(SLOT, 1, "oracle", {}, NUMBER)
        self._rings = [Ring(kernel.maps[name], size_of(kernel.maps[name])) for name in ("denials", "events")]
        for ring in self._rings:
            stack.callback(ring.close)
        self.folders: list[int] = []

    # policies

    def install(self, policies: Sequence[Policy], *, armed: bool) -> Profile:
        """Compile and put in force for the member, which makes no attempt meanwhile. `deny` kills nobody here."""
        profile = compile_profile(policies, self.superblocks)
        control = self.kernel.control()
        kerneltables.forget_hashes(self.kernel.maps, control.generation & 1)
        kerneltables.install(self.kernel.maps, control.generation & 1, NUMBER, profile)
        self.kernel.set_control(replace(control, armed=armed, deny_is_kill=False, shown=1024))
        return profile

    # attempts

    def make(self, tries: Sequence[Try], op: str = "m") -> None:
        """Have the files made that ``tries`` open, or ("l") the programs that they execute."""
        self._talk([each.pack(op, each.payload.partition(b"\0")[0]) for each in tries])

    def attempt(self, tries: Sequence[Try]) -> list[Found]:
        """Make the attempts, and find the event of each."""
        self._drain()
        replies = self._talk([each.pack() for each in tries])
        return self._match(tries, replies, self._drain())

    def _talk(self, requests: Sequence[bytes]) -> list[tuple[int, int]]:
        batch = b"".join(requests)
        assert self.member.stdin and self.member.stdout
        self.member.stdin.write(len(batch).to_bytes(4, "little") + batch)
        self.member.stdin.flush()
        raw = self.member.stdout.read(REPLY.size * len(requests))
        assert len(raw) == REPLY.size * len(requests), f"the member ended: {self.member.wait(WAIT_S)}"
        return [REPLY.unpack_from(raw, at) for at in range(0, len(raw), REPLY.size)]

    def _drain(self) -> list[Seen]:
        """Every action since the last call, in the order in which they were made; both rings are empty afterwards."""
        raw: list[bytes] = []
        for ring in self._rings:
            batch = ring.read(ring.size)
            raw += batch.events
            ring.release(batch.end)
        seen = [Seen.of(event) for event in raw]
        return sorted((one for one in seen if one.head.kind == layout.KIND_ACTION), key=lambda one: one.head.time)

    def _match(self, tries: Sequence[Try], replies: Sequence[tuple[int, int]], events: list[Seen]) -> list[Found]:
        """Attempts that came to nothing (no such file) have no event; all others have theirs, in order."""
        made = [(each, result, child) for each, (result, child) in zip(tries, replies, strict=True)]
        seen = [each for each in made if is_seen(each[0], each[1])]
        if all(each.op == "x" for each in tries):  # a program that is passed on is a descriptor that is taken, too
            events = [event for event in events if event.head.action == Action.EXEC]
        assert len(seen) == len(events), f"{len(seen)} attempts, but {len(events)} events"
        for (each, result, child), event in zip(seen, events, strict=True):
            assert event.head.tgid == (child or self.member.pid), (each, result, event)
        return [Found(each, result, event) for (each, result, _), event in zip(seen, events, strict=True)]

    def start_member(self) -> None:
        """Build and start member.c, mark it as a member, and show the kernel its agent."""
        program = build("member.c", self.root)
        for folder in self.folders:
            tiny = os.open("tiny", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755, dir_fd=folder)
            os.write(tiny, build("tiny.S", self.root, "-nostdlib", "-static").read_bytes())
            os.close(tiny)
        self.member = subprocess.Popen(
            [program, *map(str, self.folders)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=self.folders,
            cwd="/",
            env={},
        )
        self._stack.callback(self._end_member)
        self.install([], armed=False)
        self._talk([Try("m", self.locations["disk"], b"").pack()])  # its start-up is over: it isn't an attempt
        self.kernel.set_agent(SLOT, self._agent.id, NUMBER, 0)
        assert mark(self.kernel, self.member.pid, self._agent)

    def _end_member(self) -> None:
        assert self.member.stdin and self.member.stdout
        self.member.stdin.close()
        try:
            self.member.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.member.kill()
            self.member.wait()
        self.member.stdout.close()


def is_seen(each: Try, result: int) -> bool:
    """Whether the kernel decides this attempt: opens and execs that succeed; net always, but a datagram to port 0 fails
    before any hook (net/ipv4/udp.c, net/ipv6/udp.c).
    """
    if each.op == "n":
        return not (each.payload[16:18] == b"\0\0" and each.way & 7 not in (0, 1, 4))
    return result >= 0


def build(source: str, folder: Path, *flags: str) -> Path:
    """Compile one of programs/ into ``folder``."""
    program = folder / Path(source).stem
    if not program.exists():
        subprocess.run(["gcc", "-O2", "-o", program, *flags, PROGRAMS / source], check=True, timeout=WAIT_S)
    return program


@contextmanager
def opened() -> Iterator[World]:
    """The world, and everything taken down again."""
    with ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="hw-oracle-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        root.chmod(0o755)
        kernel = _load(root, stack)
        folders, later = _mount_all(root, stack)
        table = mounts.read_mounts()
        world = World(root, kernel, {}, stack)
        world.folders = [fd for _, fd, _ in folders]
        _teach(world, table, folders)
        _mount("tmpfs", later, stack)  # after the kernel was taught: known by the chain of mounts alone
        world.folders.append(_folder(later, stack))
        # The host's root may itself be mounted on something, that of the initramfs: one more to cross.
        crossed = next(2 if mount.parent != mount.id else 1 for mount in table if mount.mount == b"/")
        place = (Place(b"", b""),)
        world.locations["late"] = Location("late", len(folders), os.fsencode(later), HOST_ROW, place, crossed)
        world.start_member()
        yield world


def _load(root: Path, stack: ExitStack) -> pins.Kernel:
    bpffs, state = root / "bpf", root / "state"
    state.mkdir()
    stack.callback(pins.remove, bpffs)
    flags = defines(DENIALS_KIB, EVENTS_KIB)
    job = Job(bpffs, cgroups.find_v2(mounts.read_mounts()), root / "cache", state, flags)
    kernel = attach(
        job, lambda: None, lambda kernel, tier: [Proof(Action.EXEC, tier, True, "not asked here", "exec")]
    ).kernel
    stack.callback(kernel.close)
    return kernel


# name, descriptor, and the folder below its superblock's root (None: no mount shows the superblock)
_Folder = tuple[str, int, bytes | None]


def _mount_all(root: Path, stack: ExitStack) -> tuple[list[_Folder], Path]:
    for name in ("disk", "memory", "twice", "again", "hidden", "part", "late"):
        (root / name).mkdir()
    folders: list[_Folder] = [("disk", _folder(root / "disk", stack), os.fsencode(root / "disk"))]
    _mount("tmpfs", root / "memory", stack)
    folders.append(("memory", _folder(root / "memory", stack), b""))
    # One file system at two places: whole, and a subtree of it.
    _mount("tmpfs", root / "twice", stack)
    (root / "twice/a").mkdir()
    _bind(root / "twice/a", root / "again", stack)
    folders.append(("twice", _folder(root / "twice", stack), b""))
    # Of this one the host shows a subtree only; the rest is reached by a descriptor from before.
    _mount("tmpfs", root / "hidden", None)
    (root / "hidden/a").mkdir()
    _bind(root / "hidden/a", root / "part", stack)
    folders.append(("part", _folder(root / "hidden", stack), b""))
    _unmount(root / "hidden")
    folders.append(("private", detached("tmpfs", stack), None))
    return folders, root / "late"


def _teach(world: World, table: list[mounts.MountPoint], folders: Sequence[_Folder]) -> None:
    """What Warden does at its start: rows for the host's file systems, in the kernel's maps."""
    kernel, maps = world.kernel, world.kernel.maps
    pidfd = os.pidfd_open(os.getpid())
    kernel.mark_thread(pidfd, pins.Member(0, 0, 0, layout.MEMBER_WARDEN))
    os.close(pidfd)
    Teacher().teach(table)
    found = mounts.superblocks(table)[: mounts.MAX_ROWS]
    world.superblocks = [(Place(b"", b""),), *(superblock.places for superblock in found)]
    rows = mounts.dev_rows(found)
    for key in bpf.keys(maps["taught"], 8):
        address = bpf.lookup(maps["taught"], key, 8)
        dev = int.from_bytes(key, "little")
        if address and dev in rows:
            place = layout.SUPERBLOCK_KEY.pack(int.from_bytes(address, "little"), 0)
            bpf.update(maps["superblocks"], place, layout.SUPERBLOCK_ROW.pack(rows[dev], dev))
    for magic, row in mounts.fresh_rows(found).items():
        bpf.update(maps["magics"], layout.SUPERBLOCK_KEY.pack(magic, 0), row.to_bytes(4, "little"))
    for index, (name, fd, below) in enumerate(folders):
        if below is None:
            world.locations[name] = Location(name, index, b"", 0, ())
            continue
        number = os.fstat(fd).st_dev
        row = rows[os.major(number) << 20 | os.minor(number)]
        world.locations[name] = Location(name, index, below, row, tuple(world.superblocks[row - 1]))


def _folder(path: Path, stack: ExitStack) -> int:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    stack.callback(os.close, fd)
    return fd


def detached(kind: str, stack: ExitStack, *options: tuple[str, str]) -> int:
    """A file system that no mount table shows: a descriptor of its root. ``options`` are fsconfig(2)'s strings."""
    context = _call(FSOPEN, ctypes.c_char_p(kind.encode()), 1)
    for key, value in options:
        _call(FSCONFIG, context, 1, ctypes.c_char_p(key.encode()), ctypes.c_char_p(value.encode()), 0)
    _call(FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
    fd = _call(FSMOUNT, context, 1, 0)
    os.close(context)
    stack.callback(os.close, fd)
    return fd


def _call(number: int, *arguments: object) -> int:
    result: int = bpf.libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"system call {number}: {os.strerror(code)}")
    return result


def _mount(kind: str, at: Path, stack: ExitStack | None) -> None:
    if bpf.libc.mount(b"hostwarden-test", os.fsencode(at), kind.encode(), 0, b"mode=0755") != 0:
        raise OSError(ctypes.get_errno(), f"mounting {kind} at {at}")
    if stack:
        stack.callback(_unmount, at)


def _bind(source: Path, at: Path, stack: ExitStack) -> None:
    if bpf.libc.mount(os.fsencode(source), os.fsencode(at), None, MS_BIND, None) != 0:
        raise OSError(ctypes.get_errno(), f"binding {source} at {at}")
    stack.callback(_unmount, at)


def _unmount(at: Path) -> None:
    if bpf.libc.umount2(os.fsencode(at), pins.MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), f"unmounting {at}")
