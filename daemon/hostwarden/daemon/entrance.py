"""How processes become agents': `run` brings a child of the caller's, `adopt` takes what runs already."""

from hostwarden.daemon import members, protect
from hostwarden.daemon.cgroups import CgroupError, Cgroups
from hostwarden.daemon.generations import Generations, Lineage, PolicyProblem
from hostwarden.daemon.registry import Agent, AgentProblem, Registry, check_name
from hostwarden.daemon.stops import Stops
from hostwarden.probes.pins import Kernel
from hostwarden.wire.roles import Peer


class Entrance:
    """One caller at a time (the warden's lock). ``instance`` tells our cgroups from those of other pins' agents."""

    def __init__(
        self,
        kernel: Kernel,
        generations: Generations,
        registry: Registry,
        stops: Stops,
        cgroups: Cgroups,
        instance: str,
    ) -> None:
        self._kernel, self._generations, self._registry = kernel, generations, registry
        self._stops, self._cgroups, self._instance = stops, cgroups, instance

    def bind(self, name: str, labels: dict[str, str], pid: int, start_ticks: int, peer: Peer) -> tuple[Agent, bool]:
        """The agent, and whether a running instance was joined. Raises AgentProblem."""
        check_name(name, labels)  # both before tables are made for these labels: anybody can ask, and that is work
        members.check_child(pid, start_ticks, (peer.pid, peer.uid))
        above = self._kernel.process(pid)
        parent = self._registry.agent(above.agent) if above else None
        lineage = (frozenset(labels.items()), *(parent.lineage if parent else ()))
        agent, joined = self._agent_for(name, labels, lineage, peer)
        try:
            members.bind(self._kernel, pid, start_ticks, agent, (peer.pid, peer.uid), parent.id if parent else None)
            self._place(agent, pid)
        except (AgentProblem, CgroupError) as error:
            if not joined:
                self._registry.free(agent)
            raise AgentProblem(str(error), getattr(error, "hint", "")) from error
        return agent, joined

    def adopt(self, pid: int, name: str, labels: dict[str, str], peer: Peer) -> tuple[Agent, list[int]]:
        """The agent, and which processes became its own: the given one and its descendants. Raises AgentProblem."""
        refusal = protect.refusal(pid, peer.pid)
        if refusal:
            raise AgentProblem(refusal)
        if self._kernel.process(pid) is not None:
            raise AgentProblem(f"process {pid} is an agent's already", "hostwarden ps shows whose")
        agent, joined = self._agent_for(name or f"pid-{pid}", labels, (frozenset(labels.items()),), peer)
        pids = members.adopt_tree(self._kernel, pid, agent, lambda other: bool(protect.refusal(other, peer.pid)))
        if not pids:
            if not joined:
                self._registry.free(agent)
            raise AgentProblem(f"process {pid} is gone")
        return agent, pids

    def _place(self, agent: Agent, pid: int) -> None:
        """Into the agent's cgroup. A child agent stays below its parent's hands: it gets no cgroup of its own."""
        if agent.ancestors:
            return
        folder = self._cgroups.make(f"{agent.name}-{self._instance}")
        self._cgroups.move(folder, pid)
        agent.cgroup = str(folder)

    def _agent_for(self, name: str, labels: dict[str, str], lineage: Lineage, peer: Peer) -> tuple[Agent, bool]:
        self._stops.check_start(labels, self._registry.by_name.get(name))
        agent = self._registry.running(name, labels)
        if agent:
            if agent.lineage != lineage:
                raise AgentProblem(f"the agent {name} was started by another agent, or by none", "use another name")
            if peer.uid not in (0, agent.uid) and not agent.standing:
                raise AgentProblem(f"the agent {name} is another user's", "use another name")
            return agent, True
        try:
            profile = self._generations.profile_of(lineage)
        except PolicyProblem as error:
            raise AgentProblem(f"no tables for the agent {name}: {error}") from error
        return self._registry.create(name, labels, profile, uid=peer.uid, ancestors=lineage[1:]), False
