"""Who is who: the agents' processes, from the events that say when they fork, execute and end.

A process is named by its pid and its start time: pids come back, the pair doesn't. Threads act as their process. What a
process passes on is fixed when it forks: a child's lineage says what its ancestors were running *when they forked*,
whatever they run now. So nothing has to be kept, or written again, for the sake of descendants.

What no event told us (a process that was adopted, events that were lost) is read from /proc, once, and every record of
that process says ``partial``.
"""

import pwd
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from hostwarden.daemon.clock import Clock
from hostwarden.daemon.program import Program, read_program, text
from hostwarden.probes.layout import Event
from hostwarden.probes.pins import Member

MAX_PROCESSES = 200_000
MAX_BYTES = 160 << 20  # what they weigh: an agent chooses how long its names are
MAX_HEADS = 16 << 20  # bytes of heads
MAX_LINEAGE = 32
KEPT_NS = 5_000_000_000  # an ended process's refusals may still be waiting in the other ring
MAX_EXITED = 10_000
_CUT = b'{"pid":0,"exe":"\xe2\x80\xa6"}'  # "…": there are more ancestors

_FROM_PROC, _LINEAGE = 1, 2  # what of a process no event told us

Key = tuple[int, int]  # pid, start in ns since boot


@dataclass(slots=True)
class Process:
    """One process. ``lineage`` holds JSON objects, parent first; ``head`` is the caller's, dropped when it is stale."""

    pid: int
    start: int
    started: bytes
    agent: int
    uid: int
    ppid: int
    lineage: tuple[bytes, ...]
    program: Program
    gaps: int
    since: int = 0  # time of the exec that ``program`` comes from
    epoch: int = 0
    head: bytes | None = None
    bequest: tuple[bytes, ...] | None = None  # the lineage of its next child

    @property
    def is_partial(self) -> bool:
        """Whether something about it isn't from events."""
        return self.gaps != 0

    def weight(self) -> int:
        """Bytes, about."""
        return 900 + len(self.program.exe) + len(self.program.argv)


class Users:
    """Names of uids as JSON strings (or null), asked for at most once a minute each."""

    def __init__(self, lookup: Callable[[int], Any] = pwd.getpwuid, expiry_s: float = 60, limit: int = 4096) -> None:
        self._lookup, self._expiry_s, self._limit = lookup, expiry_s, limit
        self._names: dict[int, tuple[bytes, float]] = {}

    def name(self, uid: int) -> bytes:
        """The user's name, whatever bytes /etc/passwd has for it."""
        now = time.monotonic()
        known = self._names.get(uid)
        if known is not None and known[1] > now:
            return known[0]
        try:
            name = text(self._lookup(uid).pw_name.encode(errors="surrogateescape"))
        except (KeyError, OSError):  # no such user, or no passwd to be read
            name = b"null"
        if len(self._names) >= self._limit:
            self._names.clear()
        self._names[uid] = (name, now + self._expiry_s)
        return name


class ProcessTable:
    """All processes of agents that are alive, and those that ended a moment ago.

    ``member`` is the kernel's own list, by pid (``pins.Kernel.process``): who forked whom survives the daemon there.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        member: Callable[[int], Member | None] = lambda pid: None,
        users: Users | None = None,
        probe: Callable[[int, int], Program | None] = read_program,
        max_processes: int = MAX_PROCESSES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._clock, self._member, self._probe = clock, member, probe
        self._users = users if users is not None else Users()
        self._max_processes, self._max_bytes = max_processes, max_bytes
        self._processes: dict[Key, Process] = {}
        self._exited: deque[tuple[int, Key]] = deque()
        self._weight = self._heads = 0
        self._epoch = 0
        self.find = self._processes.get  # (pid, start) → Process | None; bound here because every record asks

    def __len__(self) -> int:
        return len(self._processes)

    def lineage(self, key: Key) -> list[dict[str, Any]]:
        """Ancestors of a process, parent first, up to the agent's first process; [] for one that isn't known."""
        process = self.find(key)
        return [orjson.loads(ancestor) for ancestor in process.lineage] if process else []

    # what events say

    def forked(self, event: Event) -> None:
        """FORK: the child runs what its forker ran, under the same agent."""
        forker = (event.forker, event.forker_start)
        parent = self.find(forker) or self._from_kernel(forker, event.agent, event.uid, self._member(event.forker))
        process = self.find((event.tgid, event.start))
        if process is None:
            process = self._add(event, _bequest(parent), parent.program, parent.gaps)
            process.epoch = parent.epoch
        else:  # it acted before we read this: refusals come through the other ring
            process.lineage, process.ppid = _bequest(parent), event.forker
            process.gaps = process.gaps & ~_LINEAGE | parent.gaps & _LINEAGE
            process.head = process.bequest = None

    def joined(self, event: Event) -> None:
        """JOIN: an agent's first process, about to run the program that made it one. Its forker is nobody's."""
        if self.find((event.tgid, event.start)) is None:
            # Its exec's event comes next and says the rest; where execs aren't recorded, describe() asks /proc.
            self._add(event, (), Program(), _FROM_PROC).epoch = -1

    def exited(self, event: Event) -> None:
        """EXIT: kept for a moment, then forgotten."""
        key = (event.tgid, event.start)
        if key in self._processes:
            self._exited.append((event.time, key))
        oldest = event.time - KEPT_NS
        while self._exited and (self._exited[0][0] < oldest or len(self._exited) > MAX_EXITED):
            self._remove(self._exited.popleft()[1])

    def executed(self, event: Event, program: Program) -> Process:
        """An exec: the process runs ``program`` from now on, unless we know of a later exec already."""
        process = self.acting(event, program)
        if event.time >= process.since:
            process.since, process.epoch = event.time, self._epoch
            process.gaps &= ~_FROM_PROC
            self._run(process, program)
        return process

    def acting(self, event: Event, program: Program | None = None) -> Process:
        """The process that an event is about, made up from kernel and /proc if nobody told us of it.

        ``program`` is what it runs, where the event itself says so.
        """
        process = self.find((event.tgid, event.start))
        if process is None:
            lineage, gap = self._ancestry((event.forker, event.forker_start), event.agent, event.uid, 0)
            gap |= _FROM_PROC
            process = self._add(event, lineage, program or self._program(event.tgid, event.start), gap)
        if process.uid != event.uid or process.agent != event.agent:
            process.uid, process.agent, process.head = event.uid, event.agent, None
        return process

    def doubt(self) -> None:
        """Forks or execs were lost: what each process runs is asked of /proc again when it next acts."""
        self._epoch += 1
        self.forget_heads()

    # what records say

    def describe(self, process: Process) -> bytes:
        """The ``process`` object of a record, as JSON; ask again when ``head`` was dropped."""
        if process.epoch != self._epoch:
            self._ask_again(process)
        program = process.program
        return b'{"pid":%d,"start":"%b","exe":%b,"argv":%b%b,"uid":%d,"user":%b,"ppid":%d,"lineage":[%b]%b}' % (
            process.pid,
            process.started,
            program.exe,
            program.argv,
            b',"argv_cut":true' if program.is_cut else b"",
            process.uid,
            self._users.name(process.uid),
            process.ppid,
            b",".join(process.lineage),
            b',"partial":true' if process.gaps else b"",
        )

    def keep_head(self, process: Process, head: bytes) -> None:
        """Remember what the caller made of describe(); within bounds."""
        self._heads += len(head)
        if self._heads > MAX_HEADS:
            self.forget_heads()
        process.head = head

    def forget_heads(self) -> None:
        """Every head is stale."""
        for process in self._processes.values():
            process.head = None
        self._heads = 0

    def _ask_again(self, process: Process) -> None:
        process.epoch = self._epoch
        program = self._probe(process.pid, process.start)
        process.gaps |= _FROM_PROC
        if program is not None and program != process.program:
            self._run(process, program)

    # the table

    def _add(self, event: Event, lineage: tuple[bytes, ...], program: Program, gaps: int) -> Process:
        key = (event.tgid, event.start)
        return self._insert(key, event.agent, event.uid, event.forker, lineage, program, gaps)

    def _program(self, pid: int, start: int) -> Program:
        return self._probe(pid, start) or Program()

    def _from_kernel(self, key: Key, agent: int, uid: int, member: Member | None, depth: int = 0) -> Process:
        """A member of which we have only the name, and what the kernel remembers of it (None: it has ended)."""
        lineage: tuple[bytes, ...] = ()
        gap, ppid = _LINEAGE, 0
        if member is not None:
            ppid = member.forker
            lineage, gap = self._ancestry((member.forker, member.forker_start), agent, uid, depth)
        return self._insert(key, agent, uid, ppid, lineage, self._program(*key), gap | _FROM_PROC)

    def _ancestry(self, forker: Key, agent: int, uid: int, depth: int) -> tuple[tuple[bytes, ...], int]:
        """The lineage of a process that ``forker`` forked, and whether it has a gap.

        An agent's first process has none: its forker is no member. (Its start is 0 where the daemon made the process a
        member: then the forker being one of this agent, too, is the only sign that it wasn't the first.)
        """
        parent = self.find(forker)
        if parent is not None:
            return _bequest(parent), parent.gaps & _LINEAGE
        member = self._member(forker[0])
        is_of_agent = member is not None and member.agent == agent
        if forker[1] == 0:
            return (), _LINEAGE if is_of_agent else 0
        if self._probe(*forker) is None or depth >= MAX_LINEAGE:
            return (), _LINEAGE  # it has ended; whether it was the agent's, nobody can tell any more
        if not is_of_agent:
            return (), 0
        parent = self._from_kernel(forker, agent, uid, member, depth + 1)
        return _bequest(parent), parent.gaps & _LINEAGE

    def _insert(
        self, key: Key, agent: int, uid: int, ppid: int, lineage: tuple[bytes, ...], program: Program, gaps: int
    ) -> Process:
        started = self._clock.stamp(key[1])
        process = Process(*key, started, agent, uid, ppid, lineage, program, gaps, epoch=self._epoch)
        self._processes[key] = process
        self._weight += process.weight()
        self._bound()
        return process

    def _run(self, process: Process, program: Program) -> None:
        is_listed = self.find((process.pid, process.start)) is process
        if is_listed:
            self._weight -= process.weight()
        process.program, process.head, process.bequest = program, None, None
        if is_listed:
            self._weight += process.weight()
            self._bound()

    def _bound(self) -> None:
        """Those that ended go first, then the oldest: one that acts again is read from /proc."""
        while (len(self._processes) > self._max_processes or self._weight > self._max_bytes) and self._processes:
            key = self._exited.popleft()[1] if self._exited else next(iter(self._processes))
            self._remove(key)

    def _remove(self, key: Key) -> None:
        process = self._processes.pop(key, None)
        if process is not None:
            self._weight -= process.weight()


def _bequest(parent: Process) -> tuple[bytes, ...]:
    """The lineage of a child that ``parent`` forks now; its children share it."""
    if parent.bequest is None:
        ancestors = parent.lineage
        if len(ancestors) >= MAX_LINEAGE:
            ancestors = (*ancestors[: MAX_LINEAGE - 1], _CUT)
        parent.bequest = (b'{"pid":%d,"exe":%b}' % (parent.pid, parent.program.short), *ancestors)
    return parent.bequest
