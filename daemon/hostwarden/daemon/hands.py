"""Ends, stops and lets go all members of agents: complete, at once, and against a fork bomb.

Order (measured, kernel-facts): the agents' rows say *killed*, so every fork, exec and connect of a member ends it from
now on; the gate is raised, so every return to user space does; `cgroup.kill` where the cgroup is ours; then the map of
members is swept with SIGKILL at real-time priority until it holds none (at normal priority a fork bomb starves the
killer). "None left" is the map's word: zombies wait for their parents.

To stop them is the same with SIGSTOP, where they aren't in a cgroup that is frozen as a whole: rows that say *frozen*
make the kernel's half stop whoever acts, so that a fork under way escapes no longer than to its child's first act.
"""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hostwarden.probes import layout
from hostwarden.probes.pins import Kernel

PAUSE_S = 0.001
REAL_TIME_PRIORITY = 10


@dataclass(frozen=True)
class Sweep:
    """What came of it: pids that were seen alive, and those that can't die (uninterruptible in the kernel)."""

    killed: frozenset[int]
    left: frozenset[int]


@contextmanager
def real_time() -> Iterator[None]:
    """This thread at SCHED_FIFO, as far as it may; back to what it was afterwards."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    raised = False
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REAL_TIME_PRIORITY))
        raised = True
    try:
        yield
    finally:
        if raised:
            os.sched_setscheduler(0, before[0], before[1])


def members_of(kernel: Kernel, agent_ids: Collection[int]) -> set[int]:
    """pids of the agents' processes, as the kernel has them."""
    return {pid for pid, member in kernel.processes() if member.agent in agent_ids}


def sweep(kernel: Kernel, agent_ids: Collection[int], timeout_s: float) -> Sweep:
    """End every member of these agents, whose rows already say *killed*; until none is left, or the time is over."""
    killed: set[int] = set()
    ends = time.monotonic() + timeout_s
    with raised_gate(kernel), real_time():
        left = members_of(kernel, agent_ids)
        while left:
            for pid in left:
                end_member(kernel, pid, agent_ids)
            killed |= left
            if time.monotonic() > ends:
                break
            time.sleep(PAUSE_S)
            left = members_of(kernel, agent_ids)
    return Sweep(frozenset(killed - left), frozenset(left))


def stop(
    kernel: Kernel, agent_ids: Collection[int], timeout_s: float, held: Callable[[], Collection[int]]
) -> tuple[set[int], set[int]]:
    """Stop every member of these agents but those that are ``held`` already, by their cgroups.

    Until all are, or the time is over: pids that stand still, pids that don't.
    """
    ends = time.monotonic() + timeout_s
    with real_time():
        while True:
            pids = members_of(kernel, agent_ids)
            moving = {pid for pid in pids.difference(held()) if not is_stopped(pid)}
            for pid in moving:
                signal_member(kernel, pid, agent_ids, signal.SIGSTOP)
            if not moving or time.monotonic() > ends:
                return pids - moving, moving
            time.sleep(PAUSE_S)


def let_go(kernel: Kernel, agent_ids: Collection[int], timeout_s: float) -> None:
    """Let every member of these agents go on; their rows don't say *frozen* any more.

    A program that read the row before may send its SIGSTOP behind our first SIGCONT: so until none is stopped.
    """
    ends = time.monotonic() + timeout_s
    stopped = members_of(kernel, agent_ids)  # all: a stop may also be on its way to who is in a frozen cgroup
    while stopped:
        for pid in stopped:
            signal_member(kernel, pid, agent_ids, signal.SIGCONT)
        if time.monotonic() > ends:
            break
        time.sleep(PAUSE_S)
        stopped = {pid for pid in members_of(kernel, agent_ids) if is_stopped(pid)}


def is_stopped(pid: int) -> bool:
    """Whether no thread of a process runs: all stopped, traced or ended; or it is gone."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return True
    return all(_state(thread) in b"TtZX" for thread in threads)


def _state(thread: Path) -> bytes:
    """A letter of man 5 proc_pid_stat; Z for a thread that is gone."""
    try:
        data = (thread / "stat").read_bytes()
    except OSError:
        return b"Z"
    return data[data.rfind(b")") + 2 :][:1]


def end_member(kernel: Kernel, pid: int, agent_ids: Collection[int]) -> None:
    """SIGKILL to a member."""
    signal_member(kernel, pid, agent_ids, signal.SIGKILL)


def signal_member(kernel: Kernel, pid: int, agent_ids: Collection[int], number: signal.Signals) -> None:
    """A signal through a pidfd: to the process that the map means, not to one that got its pid."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        # Dead and reaped, but its entry is there: the exit hook takes it away before the pid is free, so this is an
        # entry that was written for a process that was gone already.
        member = kernel.process(pid)
        if member and member.agent in agent_ids:
            kernel.forget_process(pid)
        return
    except OSError:
        return  # a zombie's leader on an old kernel: its other threads are ended by the group's signal
    try:
        member = kernel.process(pid)
        if member and member.agent in agent_ids:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)


@contextmanager
def raised_gate(kernel: Kernel) -> Iterator[None]:
    """Every return to user space looks at its debts while this lasts.

    The kernel adds to and takes from the same number; a lost update between our read and write can only leave the gate
    up (costs time) or take away one debt that the sweep settles anyway.
    """
    kernel.set_gate(kernel.gate() + 1)
    try:
        yield
    finally:
        kernel.set_gate(max(0, kernel.gate() - 1))


def end_sharers(kernel: Kernel, files: int) -> list[int]:
    """Those that share a descriptor table in which a refused file was opened: all end."""
    ended = []
    for pid in kernel.sharers(files):
        member = kernel.process(pid)
        if member and not member.flags & layout.MEMBER_WARDEN:
            end_member(kernel, pid, {member.agent})
            ended.append(pid)
    return ended
