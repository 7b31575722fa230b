"""Who is never adopted (design section 4), and which processes belong to one that is.

Never: pid 1, hostwardend and what it started, kernel threads, and whoever asks, with its ancestors: an operator must
not shut in the shell he works in. All of it is what /proc says now; a caller that acts on it holds a pidfd meanwhile.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
PF_KTHREAD = 0x00200000  # include/linux/sched.h
MAX_DEPTH = 4096  # ancestors that are followed; pid_max bounds it in truth, a torn read could make a circle
MAX_SCANS = 32
_GONE = b"ZXx"  # states of what has ended and waits for its parent (man 5 proc_pid_stat)


@dataclass(frozen=True)
class Stat:
    """What we need of /proc/PID/stat. ``pid`` and ``start`` (clock ticks since boot) name a process for good."""

    pid: int
    ppid: int
    state: bytes
    flags: int
    threads: int
    start: int

    @property
    def has_ended(self) -> bool:
        """Whether it is a zombie or less. A first thread that has ended while others go on looks like one."""
        return self.state in _GONE and self.threads <= 1

    @property
    def is_kernel_thread(self) -> bool:
        """By the kernel's own flag, not by an empty argv, which anybody can have."""
        return bool(self.flags & PF_KTHREAD)


def read_stat(pid: int) -> Stat | None:
    """A process's line, None if it is gone."""
    try:
        data = (PROC / str(pid) / "stat").read_bytes()
    except OSError:  # ENOENT, or ESRCH if it ended between open and read
        return None
    # The name may hold spaces and parentheses; behind its last one, fields are counted from the third.
    fields = data[data.rfind(b")") + 2 :].split()
    return Stat(
        pid, ppid=int(fields[1]), state=fields[0], flags=int(fields[6]), threads=int(fields[17]), start=int(fields[19])
    )


def ancestors(pid: int) -> list[int]:
    """Parent, its parent, …, up to pid 1 or as far as they can be seen."""
    found: list[int] = []
    stat = read_stat(pid)
    while stat is not None and stat.ppid > 0 and len(found) < MAX_DEPTH:
        found.append(stat.ppid)
        stat = read_stat(stat.ppid)
    return found


def refusal(pid: int, asker_pid: int | None) -> str | None:
    """Why ``pid`` is not adopted, in one line; None if it may be.

    ``asker_pid`` is the process that asks; None where nobody does (a unit or an exe of agents.d), 0 for one that our
    pid namespace doesn't show (man 7 unix, SO_PEERCRED): whom its request would shut in can't be told then.
    """
    stat = read_stat(pid) if pid > 0 else None
    if stat is None:
        return f"there is no process {pid}"
    leader = _leader(pid)
    if leader != pid:
        return f"{pid} is a thread of process {leader}: adopt that" if leader else f"there is no process {pid}"
    if pid == 1:
        return "process 1 starts everything on this host and is never adopted"
    if stat.is_kernel_thread:
        return f"{pid} is a thread of the kernel's"
    if stat.has_ended:
        return f"process {pid} has ended"
    if pid == os.getpid() or os.getpid() in ancestors(pid):
        return f"process {pid} is hostwardend's own"
    if asker_pid == 0:
        return "who asks is in a pid namespace that this one doesn't show: ask from the host's"
    if asker_pid is not None and pid in (asker_pid, *ancestors(asker_pid)):
        return f"process {pid} is the one that asks, or an ancestor of it"
    return None


def _leader(pid: int) -> int | None:
    """The process that a pid or tid belongs to: /proc has a folder for each thread, though it lists only processes."""
    try:
        for line in (PROC / str(pid) / "status").read_bytes().splitlines():
            if line.startswith(b"Tgid:"):
                return int(line.split()[1])
    except OSError:
        return None
    return None


def tree(pid: int, spared: Collection[int] = ()) -> list[int]:
    """``pid`` and its descendants, parents before children; without those ``spared``, and what is below these.

    Scanned until nothing new turns up, for they may fork meanwhile. A child whose parent ended before it was seen is
    pid 1's (or a subreaper's) by now and isn't found. Empty if ``pid`` is gone.
    """
    found: dict[int, int] = {}  # pid → start time, in the order found
    alive: dict[int, Stat] = {}
    for _ in range(MAX_SCANS):
        alive = _scan()
        fresh = _below(pid, alive, found, spared)
        if not fresh:
            break
        found.update(fresh)
    return [each for each, start in found.items() if each in alive and alive[each].start == start]


def _scan() -> dict[int, Stat]:
    """All processes that haven't ended."""
    with os.scandir(PROC) as entries:
        stats = [read_stat(int(entry.name)) for entry in entries if entry.name.isdigit()]
    return {stat.pid: stat for stat in stats if stat is not None and not stat.has_ended}


def _below(root: int, alive: dict[int, Stat], found: dict[int, int], spared: Collection[int]) -> dict[int, int]:
    """What of the tree isn't in ``found`` yet, parents before children."""
    children: dict[int, list[Stat]] = {}
    for stat in alive.values():
        children.setdefault(stat.ppid, []).append(stat)
    fresh: dict[int, int] = {}
    # From what was found before as well: it may have lost its parents since.
    known = [each for each, start in found.items() if each in alive and alive[each].start == start]
    queue = [alive[each] for each in ({root: None} | dict.fromkeys(known)) if each in alive and each not in spared]
    seen = {stat.pid for stat in queue}
    for stat in queue:  # grows while it is walked
        if stat.pid not in found:
            fresh[stat.pid] = stat.start
        for child in children.get(stat.pid, ()):
            if child.pid not in seen and child.pid not in spared:
                seen.add(child.pid)
                queue.append(child)
    return fresh
