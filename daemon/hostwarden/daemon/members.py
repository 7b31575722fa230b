"""Making processes members: `run`, `adopt`, and the scan that seeds agents.d. Children follow in the kernel.

Races: a process is marked through a pidfd, so a pid that was reused is noticed; parents are marked before their
children are looked for, so a child that is born meanwhile inherits; the scan is repeated until it finds nobody new.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hostwarden.daemon.protect import read_stat, tree
from hostwarden.daemon.registry import Agent, AgentProblem
from hostwarden.probes import layout
from hostwarden.probes.pins import Kernel, Member

MAX_ROUNDS = 50


def mark(kernel: Kernel, pid: int, agent: Agent, start_ticks: int | None = None) -> bool:
    """Make a process (all its threads) a member. False: it is gone, or isn't the one that was meant.

    Threads that are there have no entry of their own on kernels before 6.9 (a pidfd takes no thread): their leader's
    counts, in the kernel (identity.h), and new threads inherit.
    """
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            stat = read_stat(pid)
            if stat is None or (start_ticks is not None and stat.start != start_ticks):
                return False
            member = Member(agent.id, stat.ppid, 0, 0)
            kernel.mark_process(pid, member)
            kernel.mark_thread(pidfd, member)
        finally:
            os.close(pidfd)
        if read_stat(pid) is None:
            kernel.forget_process(pid)
            return False
        return True
    return False


def mark_warden(kernel: Kernel) -> None:
    """Our opens teach the kernel's half which superblock is which (probes/…/teach.h), and we are nobody's agent."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        kernel.mark_thread(pidfd, Member(0, 0, 0, layout.MEMBER_WARDEN))
        # A glob of agents.d that names our interpreter has made us an agent at exec: never the warden.
        kernel.forget_process(os.getpid())
    finally:
        os.close(pidfd)


def check_child(pid: int, start_ticks: int, asker: tuple[int, int]) -> None:
    """Raises AgentProblem if a process isn't the asker's child under the asker's uid. ``asker`` is (pid, uid)."""
    stat = read_stat(pid)
    asker_pid, asker_uid = asker
    if stat is None or stat.start != start_ticks:
        raise AgentProblem(f"process {pid} is gone")
    if stat.ppid != asker_pid:
        raise AgentProblem(f"process {pid} isn't a child of the caller ({asker_pid})")
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:  # it ended meanwhile
        raise AgentProblem(f"process {pid} is gone") from None
    if asker_uid not in (0, uid):
        raise AgentProblem(f"process {pid} doesn't run as the caller's user")


def bind(
    kernel: Kernel, pid: int, start_ticks: int, agent: Agent, asker: tuple[int, int], parent_id: int | None
) -> None:
    """`run`: the caller's child, stopped before its exec, becomes a member. ``asker`` is (pid, uid) of the peer.

    ``parent_id`` is the agent that the child is in already: a member may only move to an agent that is bound by all
    that bound it (the caller sees to that). Raises AgentProblem if it isn't the caller's child under the caller's uid.
    """
    check_child(pid, start_ticks, asker)
    now = kernel.process(pid)
    if (now.agent if now else None) != parent_id:
        raise AgentProblem(f"process {pid} has changed its agent meanwhile")
    if not mark(kernel, pid, agent, start_ticks):
        raise AgentProblem(f"process {pid} is gone")


def adopt_tree(kernel: Kernel, pid: int, agent: Agent, is_kept_out: Callable[[int], bool]) -> list[int]:
    """A process and all its descendants. Returns the pids that became members, the given one first."""
    found: list[int] = []
    for _ in range(MAX_ROUNDS):
        fresh = [
            candidate
            for candidate in tree(pid)
            if candidate not in found and kernel.process(candidate) is None and not is_kept_out(candidate)
        ]
        marked = [candidate for candidate in fresh if mark(kernel, candidate, agent)]
        if not marked:
            break
        found += marked
    return found
