"""What is pinned on our bpffs, opened: the kernel's half as an object with typed maps. No compiling, no bcc."""

import ctypes
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hostwarden.probes import bpf, layout, programs
from hostwarden.probes.programs import MAPS, TABLES

BPFFS_MAGIC = 0xCAFE4A11
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MNT_DETACH = 2


class BpffsError(Exception):
    """The bpffs can't be had: one line."""


class _StatFs(ctypes.Structure):
    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_byte * 248)]


def is_bpffs(path: Path) -> bool:
    """Whether ``path`` is on a bpffs."""
    buffer = _StatFs()
    return bool(bpf.libc.statfs(os.fsencode(path), ctypes.byref(buffer)) == 0 and buffer.f_type == BPFFS_MAGIC)


def mount_bpffs(path: Path) -> None:
    """A bpffs instance of our own at ``path``, mounted if it isn't there yet. Raises BpffsError."""
    parent = path.parent
    try:
        if parent == Path("/sys/fs/bpf") and not is_bpffs(parent):
            _mount(parent)  # the usual place, not yet mounted on this host
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise BpffsError(f"{path} can't be made: {error.strerror}") from error
    if not path.is_mount():
        _mount(path)
    if not is_bpffs(path):
        raise BpffsError(f"{path} is a mount, but no bpffs: choose another bpffs_dir")
    path.chmod(0o700)


def _mount(path: Path) -> None:
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    if bpf.libc.mount(b"hostwarden", os.fsencode(path), b"bpf", flags, b"mode=0700") != 0:
        code = ctypes.get_errno()
        raise BpffsError(f"no bpffs can be mounted at {path}: {os.strerror(code)}")


def remove(path: Path) -> int:
    """Take every pin away and unmount: enforcement ends. The number of pins. Raises BpffsError."""
    if not path.is_dir() or not is_bpffs(path):
        return 0
    gone = clear(path)
    if path.is_mount() and bpf.libc.umount2(os.fsencode(path), MNT_DETACH) != 0:
        raise BpffsError(f"{path} can't be unmounted: {os.strerror(ctypes.get_errno())}")
    if not path.is_mount() and not is_bpffs(path.parent):
        path.rmdir()
    return gone


def clear(path: Path) -> int:
    """Take every pin away: enforcement ends. The number of pins."""
    gone = 0
    # Links first: nothing of ours may run while its maps go.
    for pin in sorted(_ours(path), key=lambda pin: not pin.name.startswith("link_")):
        pin.unlink()
        gone += 1
    return gone


def is_complete(path: Path, tiers: Collection[str]) -> bool:
    """Whether everything that the loader pins for these tiers is there."""
    wanted = [f"map_{name}" for name in (*MAPS, *TABLES)]
    for program in programs.of(tiers):
        if not program.is_optional:
            wanted += [f"prog_{program.name}"] + ([f"link_{program.name}"] if program.is_standing else [])
    return path.is_dir() and is_bpffs(path) and all((path / name).exists() for name in wanted)


def is_empty(path: Path) -> bool:
    """Whether nothing is pinned there (or there is no bpffs)."""
    return not path.is_dir() or not is_bpffs(path) or not _ours(path)


def _ours(path: Path) -> list[Path]:
    """Our pins; a kernel with CONFIG_BPF_PRELOAD puts two files of its own into every bpffs, which can't be removed."""
    return [pin for pin in path.iterdir() if pin.name.startswith(("link_", "prog_", "map_"))]


@dataclass(frozen=True)
class Counts:
    """`struct hw_counts` of one agent: seen = recorded + lost + unrecorded."""

    seen: tuple[int, ...]  # by action
    unrecorded: tuple[int, ...]  # by action
    lost: tuple[tuple[int, ...], ...]  # by action, then verdict
    lost_lifecycle: int
    denied: int


@dataclass(frozen=True)
class Member:
    """`struct hw_member`."""

    agent: int
    forker: int
    forker_start: int
    flags: int
    shared_files: int = 0

    def pack(self) -> bytes:
        """As the kernel has it."""
        return layout.MEMBER.pack(self.forker_start, self.shared_files, self.agent, self.forker, self.flags, 0)

    @classmethod
    def unpack(cls, raw: bytes) -> "Member":
        """From the kernel's bytes."""
        forker_start, shared, agent, forker, flags, _ = layout.MEMBER.unpack(raw)
        return cls(agent, forker, forker_start, flags, shared)


@dataclass(frozen=True)
class Control:
    """`struct hw_control`."""

    host_mnt_ns: int = 0
    generation: int = 0
    armed: bool = True
    deny_is_kill: bool = True
    selectors: bool = False
    shown: int = 1024
    warden: int = 0
    capabilities: int = 0  # mask of those that no agent has on the tiers that refuse


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


ZERO = _u32(0)


class Kernel:
    """Open descriptors of every pin; links are held, so that unmounting the bpffs doesn't end enforcement."""

    def __init__(self, bpffs: Path, n_actions: int, n_verdicts: int, tiers: Collection[str]) -> None:
        self.maps = {name: bpf.get(bpffs / f"map_{name}") for name in (*MAPS, *TABLES)}
        pinned = [program for program in programs.of(tiers) if (bpffs / f"prog_{program.name}").exists()]
        self.programs = {program.name: bpf.get(bpffs / f"prog_{program.name}") for program in pinned}
        self._links = [bpf.get(bpffs / f"link_{program.name}") for program in pinned if program.is_standing]
        self._teacher = next((program.name for program in pinned if not program.is_standing), None)
        self._counts = layout.counts_layout(n_actions, n_verdicts)
        self._n_actions, self._n_verdicts = n_actions, n_verdicts

    def close(self) -> None:
        """Let go; what is pinned stays."""
        for fd in (*self.maps.values(), *self.programs.values(), *self._links):
            os.close(fd)

    @contextmanager
    def teaching(self) -> Iterator[None]:
        """While inside, a mount point whose attributes the daemon asks for tells which superblock stands there.

        Not attached all the time: every stat of every process would pay. (With the signal tier, whose program at the
        end of system calls sees the daemon's opens anyway, nothing has to be done.)
        """
        if self._teacher is None:
            yield
            return
        link = bpf.attach_in_kernel(self.programs[self._teacher])
        try:
            yield
        finally:
            os.close(link)

    # control and gate

    def control(self) -> Control:
        """The switchboard as it is."""
        raw = bpf.lookup(self.maps["control"], ZERO, layout.CONTROL.size)
        assert raw is not None
        mnt, generation, armed, kill, selectors, shown, warden, capabilities = layout.CONTROL.unpack(raw)
        return Control(mnt, generation, bool(armed), bool(kill), bool(selectors), shown, warden, capabilities)

    def set_control(self, new: Control) -> None:
        """Replace the switchboard: one update, seen whole or not at all by the next action."""
        packed = layout.CONTROL.pack(
            new.host_mnt_ns,
            new.generation,
            new.armed,
            new.deny_is_kill,
            new.selectors,
            new.shown,
            new.warden,
            new.capabilities,
        )
        bpf.update(self.maps["control"], ZERO, packed)

    def gate(self) -> int:
        """How many debts are open."""
        raw = bpf.lookup(self.maps["gate"], ZERO, 8)
        return int.from_bytes(raw or b"", "little")

    def set_gate(self, value: int) -> None:
        """Set the number of open debts: only while no agent has one, or to raise it."""
        bpf.update(self.maps["gate"], ZERO, value.to_bytes(8, "little"))

    def lower_stale_gate(self, seen_before: int) -> int:
        """Close a gate behind which no debt is left; the gate as it is now, for the next call.

        A debt whose bearer ended in an odd way can leave it up, which costs every system call a look-up. It is closed
        only if it stood at the same number at the last call, seconds ago, and nobody is doomed: debts are settled
        within microseconds, or have an entry that says so.
        """
        now = self.gate()
        if now and now == seen_before:
            doomed = any(member.flags & layout.MEMBER_DOOMED for _, member in self.processes())
            if not doomed and not bpf.keys(self.maps["doomed_files"], 8, 1) and self.gate() == now:
                self.set_gate(0)
                return 0
        return now

    # members

    def mark_thread(self, pidfd: int, member: Member) -> None:
        """Task storage of the thread that ``pidfd`` refers to. Raises OSError (ESRCH: gone)."""
        bpf.update(self.maps["members"], _u32(pidfd), member.pack())

    def member_of_thread(self, pidfd: int) -> Member | None:
        """The membership in task storage, or None."""
        raw = bpf.lookup(self.maps["members"], _u32(pidfd), layout.MEMBER.size)
        return Member.unpack(raw) if raw else None

    def mark_process(self, pid: int, member: Member) -> None:
        """The tgid map's entry. Raises OSError (E2BIG: full)."""
        bpf.update(self.maps["processes"], _u32(pid), member.pack())

    def forget_process(self, pid: int) -> None:
        """Take the tgid map's entry away (a process that was gone before it was marked)."""
        bpf.delete(self.maps["processes"], _u32(pid))

    def process(self, pid: int) -> Member | None:
        """The tgid map's entry, or None: not a member."""
        raw = bpf.lookup(self.maps["processes"], _u32(pid), layout.MEMBER.size)
        return Member.unpack(raw) if raw else None

    def processes(self) -> Iterator[tuple[int, Member]]:
        """Every member process. Those that come or go meanwhile may be seen or not."""
        for key in bpf.keys(self.maps["processes"], 4):
            raw = bpf.lookup(self.maps["processes"], key, layout.MEMBER.size)
            if raw:
                yield int.from_bytes(key, "little"), Member.unpack(raw)

    def sharers(self, files: int) -> list[int]:
        """tgids that were seen to share the descriptor table ``files``."""
        found = (layout.SHARER.unpack(key) for key in bpf.keys(self.maps["sharers"], layout.SHARER.size))
        return [tgid for table, tgid in found if table == files]

    # agents

    def set_agent(self, slot: int, agent_id: int, profile: int, state: int) -> None:
        """An agent's row; an id of 0 frees it."""
        bpf.update(self.maps["agents"], _u32(slot), layout.AGENT.pack(agent_id, profile, state, 0))

    def agent(self, slot: int) -> tuple[int, int, int]:
        """id, profile and state of a slot."""
        raw = bpf.lookup(self.maps["agents"], _u32(slot), layout.AGENT.size)
        assert raw is not None
        agent_id, profile, state, _ = layout.AGENT.unpack(raw)
        return agent_id, profile, state

    def counts(self, slot: int) -> Counts:
        """What the agent in ``slot`` did, in numbers."""
        raw = bpf.lookup(self.maps["counts"], _u32(slot), self._counts.size)
        assert raw is not None
        numbers = self._counts.unpack(raw)
        n, v = self._n_actions, self._n_verdicts
        lost = numbers[2 * n : 2 * n + n * v]
        rows = tuple(lost[action * v : (action + 1) * v] for action in range(n))
        return Counts(numbers[:n], numbers[n : 2 * n], rows, numbers[-2], numbers[-1])

    def clear_counts(self, slot: int) -> None:
        """A slot begins a new life."""
        bpf.update(self.maps["counts"], _u32(slot), bytes(self._counts.size))
