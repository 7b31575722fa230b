"""Which agents are ended or stopped, by whose word, and which labels may not start: until `release`.

`kill` ends every process and shuts the labels. `freeze` stops every process, by a responder's word or by a verdict, and
what is frozen goes on where it stood. Both hold over a restart; what was killed stays shut over a reboot as well.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hostwarden.daemon import hands
from hostwarden.daemon.cgroups import CgroupError, Cgroups
from hostwarden.daemon.clock import Clock
from hostwarden.daemon.memory import remembered
from hostwarden.daemon.registry import Agent, AgentProblem, Registry, carries, show_labels
from hostwarden.daemon.state import State
from hostwarden.probes.pins import Kernel

LET_GO_S = 0.5
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Stopped:
    """What came of `kill` or `freeze`: pids that were ended or stand still, pids that aren't, the agents' names."""

    done: frozenset[int]
    left: frozenset[int]
    agents: list[str]


NOBODY = Stopped(frozenset(), frozenset(), [])


class Stops:
    """One caller at a time (the warden's lock). ``save`` makes what is in force outlive us."""

    def __init__(
        self, kernel: Kernel, registry: Registry, cgroups: Cgroups, state: State, save: Callable[[], None]
    ) -> None:
        self._kernel, self._registry, self._cgroups, self._save = kernel, registry, cgroups, save
        self.blocked = [dict(block) for block in state.blocked]
        self.frozen = [dict(block) for block in state.frozen]
        # Whose members were stopped, and that is recorded: not who the kernel has frozen while nobody was here.
        self._stood = {remembered(known).id for known in state.agents if known.frozen}
        self._released_ns: dict[int, int] = {}  # agent → when it was let go last: what it did before counts no more

    # who may not

    def apply(self, agent: Agent) -> None:
        """What its labels, or those of an agent that it descends from, say of an agent that just came."""
        agent.killed = agent.killed or _covering(self.blocked, agent) is not None
        agent.frozen = agent.frozen or _covering(self.frozen, agent) is not None

    def check_start(self, labels: Labels, running: Agent | None) -> None:
        """Raises AgentProblem if an agent with these labels, or the running one that would be joined, is shut."""
        for blocks, what in ((self.blocked, "were ended"), (self.frozen, "are frozen")):
            block = next((block for block in blocks if carries(labels, block)), None)
            if block is not None:
                options = show_labels(block).replace(",", " --label ")
                raise AgentProblem(
                    f"agents with {show_labels(block)} {what} and may not start again",
                    f"a responder lets them: hostwarden release --label {options}",
                )
        if running and running.frozen:
            raise AgentProblem(
                f"the agent {running.name} is frozen",
                f"a responder lets it go on: hostwarden release --agent {running.name}",
            )

    def family(self, labels: Labels) -> list[Agent]:
        """Agents that carry the labels, and agents that those started."""
        return [agent for agent in self._registry if any(carries(dict(own), labels) for own in agent.lineage)]

    # kill

    def kill(self, labels: Labels, timeout_s: float) -> Stopped:
        """End all members of the matching agents; they, and their labels, are shut until ``release``."""
        matching = self.family(labels)
        if not matching:
            return NOBODY
        ids = {agent.id for agent in matching}
        before = hands.members_of(self._kernel, ids)
        if dict(labels) not in self.blocked:
            self.blocked.append(dict(labels))
        for agent in matching:
            agent.killed = True
            self._registry.write(agent)
        self._save()
        for folder in _folders(matching):
            with suppress(CgroupError):  # only the quick way: the sweep ends what is left
                self._cgroups.kill_all(folder)
        swept = hands.sweep(self._kernel, ids, timeout_s)
        killed = (before | swept.killed) - swept.left  # many die before the sweep sees them
        return Stopped(frozenset(killed), swept.left, _names(matching))

    # freeze

    def freeze(self, labels: Labels, timeout_s: float) -> Stopped:
        """Stop all members of the matching agents; they, and their labels, stand still until ``release``."""
        matching = self.family(labels)
        if not matching:
            return NOBODY
        if dict(labels) not in self.frozen:
            self.frozen.append(dict(labels))
        alive = {member.agent for _, member in self._kernel.processes()}
        stopped = self.freeze_agents(matching, timeout_s)
        # One that has ended isn't told of: it is only not forgotten yet.
        return replace(stopped, agents=_names([agent for agent in matching if agent.standing or agent.id in alive]))

    def freeze_agents(self, agents: Collection[Agent], timeout_s: float) -> Stopped:
        """Stop all members of these agents, and those of agents that they started."""
        matching = [agent for agent in self._registry if any(_descends(agent, above) for above in agents)]
        for agent in matching:
            agent.frozen = True
            self._registry.write(agent)
            self._stood.add(agent.id)
        self._save()
        return self._hold(matching, timeout_s)

    def is_news(self, agent: Agent, time_ns: int) -> bool:
        """Whether a verdict at that time (since boot) is one to stop the agent for: nobody has, or let it go since."""
        return agent.id not in self._stood and time_ns > self._released_ns.get(agent.id, 0)

    def hold_again(self, timeout_s: float) -> None:
        """Whoever of a frozen agent runs all the same (a process that came by its exe, a SIGCONT) is stopped again."""
        frozen = [agent for agent in self._registry if agent.frozen and not agent.killed]
        if frozen:
            self._hold(frozen, timeout_s)

    def _hold(self, agents: Collection[Agent], timeout_s: float) -> Stopped:
        folders = _folders(agents)
        for folder in folders:
            with suppress(CgroupError):  # then one by one
                self._cgroups.freeze(folder, True)

        def held() -> set[int]:
            pids: set[int] = set()
            for folder in folders:
                with suppress(CgroupError):
                    pids.update(self._cgroups.procs(folder) if self._cgroups.is_frozen(folder) else ())
            return pids

        still, moving = hands.stop(self._kernel, {agent.id for agent in agents}, timeout_s, held)
        return Stopped(frozenset(still), frozenset(moving), _names(agents))

    # release

    def release(self, labels: Labels, name: str = "") -> list[str]:
        """Blocks that carry these labels are lifted (a broader one stays); and what is frozen by that name.

        The blocks and agents that may start again or go on.
        """
        blocked, frozen = (
            [block for block in blocks if labels and carries(block, labels)] for blocks in (self.blocked, self.frozen)
        )
        self.blocked[:] = [block for block in self.blocked if block not in blocked]
        self.frozen[:] = [block for block in self.frozen if block not in frozen]
        names = {show_labels(block) for block in (*blocked, *frozen)}
        thawed = []
        named = self._registry.by_name.get(name)
        for agent in self._registry:
            if agent.killed and _covering(self.blocked, agent) is None and blocked:
                agent.killed = False
                self._registry.write(agent)
                names.add(agent.name)
            if agent.frozen and self._may_thaw(agent, labels, named, frozen):
                thawed.append(agent)
                self._stood.discard(agent.id)
                self._released_ns[agent.id] = Clock.boot_ns()
                self._registry.thaw(agent)
                names.add(agent.name)
        if names:
            self._save()
            self._let_go(thawed)
        return sorted(names)

    def _may_thaw(self, agent: Agent, labels: Labels, named: Agent | None, lifted: Collection[Labels]) -> bool:
        if _covering(self.frozen, agent) is not None:
            return False
        meant = bool(labels) and any(carries(dict(own), labels) for own in agent.lineage)
        return meant or (named is not None and _descends(agent, named)) or _covering(lifted, agent) is not None

    def _let_go(self, agents: Collection[Agent]) -> None:
        for folder in _folders(agents):
            with suppress(CgroupError):
                self._cgroups.freeze(folder, False)
        hands.let_go(self._kernel, {agent.id for agent in agents}, LET_GO_S)


def _covering(blocks: Collection[Labels], agent: Agent) -> Labels | None:
    """The first block that an agent carries, or one that it descends from."""
    return next((block for block in blocks for own in agent.lineage if carries(dict(own), block)), None)


def _descends(agent: Agent, above: Agent) -> bool:
    """Whether it is that agent, or was started by one with its lineage: two agents may have the same, both count."""
    depth = len(above.lineage)
    return agent is above or (len(agent.lineage) > depth and agent.lineage[-depth:] == above.lineage)


def _folders(agents: Collection[Agent]) -> list[Path]:
    return [Path(agent.cgroup) for agent in agents if agent.cgroup]


def _names(agents: Collection[Agent]) -> list[str]:
    return sorted(agent.name for agent in agents)
