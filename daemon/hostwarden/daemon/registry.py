"""Agents: a name, labels, a slot in the kernel. The same name again joins the running instance."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hostwarden.policy.labels import is_key, is_value
from hostwarden.probes import layout
from hostwarden.probes.pins import Kernel

Labels = frozenset[tuple[str, str]]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_AGENTS = layout.SIZES["MAX_AGENTS"]
FIRST_SLOT = 2  # 0 is never used (an id of 0 means free), 1 is the proof's
PROOF_SLOT = 1


class AgentProblem(Exception):
    """An agent can't be what was asked for: one line, a hint, and whether it is a matter of permission."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass
class Agent:
    """A running instance (or one that agents.d keeps a place for)."""

    slot: int
    incarnation: int
    name: str
    labels: dict[str, str]
    profile: int
    standing: bool = False  # named in agents.d: its slot is never freed
    killed: bool = False  # by label, and not released
    frozen: bool = False  # by label, by name or by a verdict, and not released
    uid: int = 0  # who started it
    cgroup: str | None = None
    ancestors: tuple[Labels, ...] = ()  # labels of the agent that started this one, of the one that started that, …

    @property
    def lineage(self) -> tuple[Labels, ...]:
        """Its own labels and its ancestors': the policies of all of them bind it."""
        return (frozenset(self.labels.items()), *self.ancestors)

    @property
    def id(self) -> int:
        """What members and events carry."""
        return self.slot | self.incarnation << layout.AGENT_SLOT_BITS

    @property
    def state(self) -> int:
        """AGENT_* for the kernel."""
        return (layout.AGENT_KILLED if self.killed else 0) | (layout.AGENT_FROZEN if self.frozen else 0)


@dataclass
class Registry:
    """All agents of this host. One caller at a time (the warden's lock), but for ``agent``."""

    kernel: Kernel
    incarnation: int = 0  # the last that was given: no id is used twice, whatever the slot
    by_id: dict[int, Agent] = field(default_factory=dict)
    by_name: dict[str, Agent] = field(default_factory=dict)
    gone: dict[int, Agent] = field(default_factory=dict)  # ended, but their events may still be in the ring

    def agent(self, agent_id: int) -> Agent | None:
        """Whose event this is."""
        return self.by_id.get(agent_id) or self.gone.get(agent_id)

    def __iter__(self) -> Iterator[Agent]:
        return iter(list(self.by_name.values()))

    def matching(self, labels: Mapping[str, str]) -> list[Agent]:
        """Agents that carry all of ``labels``."""
        return [agent for agent in self if carries(agent.labels, labels)]

    def running(self, name: str, labels: Mapping[str, str]) -> Agent | None:
        """The instance to join, if there is one. Raises AgentProblem where its labels are others."""
        agent = self.by_name.get(name)
        if agent and agent.labels != dict(labels):
            raise AgentProblem(
                f"the agent {name} is running with the labels {show_labels(agent.labels)}, not {show_labels(labels)}",
                "use those labels, or another name",
            )
        return agent

    def create(
        self,
        name: str,
        labels: Mapping[str, str],
        profile: int,
        *,
        standing: bool = False,
        uid: int = 0,
        ancestors: tuple[Labels, ...] = (),
    ) -> Agent:
        """A new agent in a free slot. Raises AgentProblem."""
        check_name(name, labels)
        used = {agent.slot for agent in self.by_id.values()}
        slot = next((slot for slot in range(FIRST_SLOT, MAX_AGENTS) if slot not in used), None)
        if slot is None:
            raise AgentProblem(f"all {MAX_AGENTS - FIRST_SLOT} places for agents are taken", "end some agents first")
        self.incarnation += 1
        agent = Agent(slot, self.incarnation, name, dict(labels), profile, standing, uid=uid, ancestors=ancestors)
        self.kernel.clear_counts(slot)
        self.add(agent)
        return agent

    def add(self, agent: Agent) -> None:
        """Put an agent in its slot (a new one, or one that was remembered)."""
        self.incarnation = max(self.incarnation, agent.incarnation)
        self.by_id[agent.id] = self.by_name[agent.name] = agent
        self.write(agent)

    def write(self, agent: Agent) -> None:
        """Tell the kernel. It freezes by itself, at a verdict: what it says of that is learned, not overwritten."""
        agent_id, _, state = self.kernel.agent(agent.slot)
        agent.frozen = agent.frozen or bool(agent_id == agent.id and state & layout.AGENT_FROZEN)
        self.kernel.set_agent(agent.slot, agent.id, agent.profile, agent.state)

    def thaw(self, agent: Agent) -> None:
        """Tell the kernel that a frozen agent may go on."""
        agent.frozen = False
        self.kernel.set_agent(agent.slot, agent.id, agent.profile, agent.state)

    def free(self, agent: Agent) -> None:
        """Nobody is a member any more: its slot may be used again."""
        self.kernel.set_agent(agent.slot, 0, 0, 0)
        del self.by_id[agent.id]
        del self.by_name[agent.name]
        self.gone[agent.id] = agent
        while len(self.gone) > MAX_AGENTS:
            del self.gone[next(iter(self.gone))]


def carries(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether ``labels`` has all of ``wanted`` (``*`` is any value)."""
    return all(key in labels and value in (labels[key], "*") for key, value in wanted.items())


def show_labels(labels: Mapping[str, str]) -> str:
    """``team=billing,env=prod``."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "(none)"


def check_name(name: str, labels: Mapping[str, str]) -> None:
    """Raises AgentProblem for a name or labels that can't be used."""
    if not NAME.fullmatch(name):
        raise AgentProblem(
            "an agent's name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit", "choose another name"
        )
    if len(labels) > 32:
        raise AgentProblem("at most 32 labels", "")
    for key, value in labels.items():
        if not is_key(key) or not is_value(value):
            raise AgentProblem("a label is key=value, each of A-Z a-z 0-9 . _ / -", "for example team=billing")
