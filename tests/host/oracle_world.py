"""A world in which the kernel's half is asked and answers: probes, file systems, a member process; without a daemon.

``opened()`` loads the probes on a bpffs of its own, mounts file systems of every kind that path.h tells apart, and
starts ``programs/member.c`` as a member. ``World.install`` puts policies in force, ``World.attempt`` has the member
make attempts; each comes back with the event that the kernel wrote about it.
"""

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from hostwarden.daemon import cgroups, kerneltables, mounts
from hostwarden.daemon.attach import Job, attach
from hostwarden.daemon.defines import defines
from hostwarden.daemon.members import mark
from hostwarden.daemon.proofs import Proof
from hostwarden.daemon.registry import Agent
from hostwarden.daemon.teach import Teacher
from hostwarden.daemon.tiers import REFUSING
from hostwarden.policy.compile import compile_profile
from hostwarden.policy.model import Policy
from hostwarden.policy.tables import Place, Profile
from hostwarden.policy.words import Action, Tier
from hostwarden.probes import bpf, layout, pins
from hostwarden.probes.rings import Ring, size_of
from tests.host.oracle_tries import REPLY, Found, Location, Seen, Try, must_be_seen

PROGRAMS = Path(__file__).parent / "programs"
HOST_ROW = 1
SLOT, NUMBER = 2, 2  # the member's agent, and its profile
DENIALS_KIB, EVENTS_KIB = 1024, 4096  # as configured by default: for these, guests bring compiled probes along
WAIT_S = 60
CACHE = Path("/var/cache/hostwarden")
MS_BIND = 4096
FSOPEN, FSCONFIG, FSMOUNT, FSCONFIG_CMD_CREATE = 430, 431, 432, 6  # x86-64; include/uapi/linux/mount.h


class World:
    """See the module."""

    def __init__(self, root: Path, kernel: pins.Kernel, tier: Tier, stack: ExitStack) -> None:
        self.root, self.kernel, self.tier = root, kernel, tier
        self.locations: dict[str, Location] = {}
        self.superblocks: list[Sequence[Place]] = []
        self._stack = stack
        self._agent = Agent(SLOT, 1, "oracle", {}, NUMBER)
        self._rings = [Ring(kernel.maps[name], size_of(kernel.maps[name])) for name in ("denials", "events")]
        for ring in self._rings:
            stack.callback(ring.close)
        self.folders: list[int] = []

    # policies

    @property
    def refuses(self) -> bool:
        """Whether what is denied comes back with EPERM."""
        return self.tier in REFUSING

    def install(self, policies: Sequence[Policy], *, armed: bool) -> Profile:
        """Compile and put in force for the member, which makes no attempt meanwhile. `deny` doesn't kill it, but, where
        opens are refused, a child whose program is denied only when it is there.
        """
        profile = compile_profile(policies, self.superblocks)
        control = self.kernel.control()
        kerneltables.forget_hashes(self.kernel.maps, control.generation & 1)
        kerneltables.install(self.kernel.maps, control.generation & 1, NUMBER, profile)
        self.kernel.set_control(replace(control, armed=armed, deny_is_kill=self.refuses, shown=1024))
        return profile

    # attempts

    def make(self, tries: Sequence[Try], file: str = "m") -> None:
        """Have made what ``tries`` need to be there, files as empty ones or ("l") as programs; nothing is refused."""
        control = self.kernel.control()
        self.kernel.set_control(replace(control, armed=False))
        self._talk([request for each in tries for request in each.needs(file)])
        self.kernel.set_control(control)

    def attempt(self, tries: Sequence[Try]) -> list[Found]:
        """Make the attempts, and find the event of each."""
        self._drain()
        replies = self._talk([each.pack() for each in tries])
        return self._match(tries, replies, self._drain())

    def _talk(self, requests: Sequence[bytes]) -> list[tuple[int, int, int, int, int]]:
        """Result, child's pid, begin, end and folders of each."""
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

    def _match(
        self, tries: Sequence[Try], replies: Sequence[tuple[int, int, int, int, int]], events: Sequence[Seen]
    ) -> list[Found]:
        """What was decided between the begin and the end of an attempt is about it, and nothing is twice."""
        found = []
        for each, (result, child, begin, end, folders) in zip(tries, replies, strict=True):
            about = [one for one in events if begin <= one.head.time <= end]
            assert len(about) <= 1, (each, result, about)
            assert about or not must_be_seen(each, result), (each, result)
            for event in about:
                assert event.head.tgid == (child or self.member.pid), (each, result, event)
                found.append(Found(each, result, event, folders))
        return found

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


def build(source: str, folder: Path, *flags: str) -> Path:
    """Compile one of programs/ into ``folder``."""
    program = folder / Path(source).stem
    if not program.exists():
        subprocess.run(["gcc", "-O2", "-o", program, *flags, PROGRAMS / source], check=True, timeout=WAIT_S)
    return program


@contextmanager
def opened(*allowed: Tier) -> Iterator[World]:
    """The world, and everything taken down again. The first tier is the best of ``allowed``, or of all."""
    with ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="hw-oracle-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        root.chmod(0o755)
        kernel, tier = _load(root, allowed or tuple(Tier), stack)
        folders, later = _mount_all(root, stack)
        table = mounts.read_mounts()
        world = World(root, kernel, tier, stack)
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


def _load(root: Path, allowed: Sequence[Tier], stack: ExitStack) -> tuple[pins.Kernel, Tier]:
    bpffs, state = root / "bpf", root / "state"
    state.mkdir()
    stack.callback(pins.remove, bpffs)
    cache = CACHE if CACHE.is_dir() else root / "cache"  # guests bring it along
    flags = defines(DENIALS_KIB, EVENTS_KIB)
    job = Job(bpffs, cgroups.find_v2(mounts.read_mounts()), cache, state, flags, tuple(allowed))
    attached = attach(
        job, lambda: None, lambda kernel, tier: [Proof(Action.EXEC, tier, True, "not asked here", "exec")]
    )
    stack.callback(attached.kernel.close)
    return attached.kernel, attached.choice.first


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
    with kernel.teaching():
        Teacher().teach(table)
    found = mounts.superblocks(table)[: mounts.MAX_ROWS]
    world.superblocks = [(Place(b"", b""),), *(superblock.places for superblock in found)]
    rows = mounts.dev_rows(found)
    for key in bpf.keys(maps["taught"], 8):
        known = bpf.lookup(maps["taught"], key, layout.TAUGHT.size)
        dev = int.from_bytes(key, "little")
        if known and dev in rows:
            address, root, magic = layout.TAUGHT.unpack(known)
            place = layout.SUPERBLOCK_KEY.pack(address, 0)
            bpf.update(maps["superblocks"], place, layout.SUPERBLOCK_ROW.pack(root, magic, rows[dev], dev))
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
