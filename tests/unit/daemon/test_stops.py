"""Kill, freeze and release: whom they mean, for how long, and what becomes of real processes.

The kernel's half is a table of members here, as the daemon sees it.
"""

import signal
import subprocess
import uuid
from collections.abc import Iterator
from typing import cast

import pytest

from hostwarden.daemon import hands
from hostwarden.daemon.cgroups import Cgroups, find_v2
from hostwarden.daemon.mounts import read_mounts
from hostwarden.daemon.registry import Agent, AgentProblem, Registry
from hostwarden.daemon.state import StartedAgent, State
from hostwarden.daemon.stops import NOBODY, Stops
from hostwarden.probes import layout
from hostwarden.probes.pins import Kernel, Member

BILLING = {"team": "billing"}


class Table:
    """What stops and hands ask of the kernel."""

    def __init__(self) -> None:
        self.members: dict[int, int] = {}
        self.rows: dict[int, tuple[int, int, int]] = {}
        self.children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, agent: Agent, seconds: str = "1000") -> int:
        """A process of an agent's."""
        child = subprocess.Popen(["sleep", seconds])
        self.children[child.pid] = child
        self.members[child.pid] = agent.id
        return child.pid

    def processes(self) -> Iterator[tuple[int, Member]]:
        for pid in list(self.members):
            if self.children[pid].poll() is not None:
                del self.members[pid]
        return iter([(pid, Member(agent, 1, 0, 0)) for pid, agent in self.members.items()])

    def process(self, pid: int) -> Member | None:
        return Member(self.members[pid], 1, 0, 0) if pid in self.members else None

    def forget_process(self, pid: int) -> None:
        self.members.pop(pid, None)

    def gate(self) -> int:
        return 0

    def set_gate(self, value: int) -> None: ...

    def clear_counts(self, slot: int) -> None: ...

    def set_agent(self, slot: int, agent_id: int, profile: int, state: int) -> None:
        self.rows[slot] = (agent_id, profile, state)

    def agent(self, slot: int) -> tuple[int, int, int]:
        return self.rows.get(slot, (0, 0, 0))


class World:
    """Agents, their processes, and a branch of the host's cgroup v2 that is nobody else's."""

    def __init__(self, state: State) -> None:
        self.table = Table()
        self.kernel = cast(Kernel, self.table)
        self.registry = Registry(self.kernel)
        self.branch = find_v2(read_mounts()) / f"test-{uuid.uuid4().hex}"
        self.branch.mkdir()
        self.cgroups = Cgroups(self.branch)
        self.saved = 0
        self.stops = Stops(self.kernel, self.registry, self.cgroups, state, self.save)

    def save(self) -> None:
        self.saved += 1

    def in_cgroup(self, agent: Agent) -> int:
        """A process of an agent that has a cgroup of its own."""
        folder = self.cgroups.make(agent.name)
        agent.cgroup = str(folder)
        pid = self.table.start(agent)
        assert self.cgroups.move(folder, pid)
        return pid

    def state_of(self, agent: Agent) -> int:
        return self.table.rows[agent.slot][2]

    def close(self) -> None:
        for child in self.table.children.values():
            child.kill()
            child.wait()
        for folder in self.cgroups.base.iterdir() if self.cgroups.base.is_dir() else ():
            if folder.is_dir():
                folder.rmdir()
        if self.cgroups.base.is_dir():
            self.cgroups.base.rmdir()
        self.branch.rmdir()


@pytest.fixture
def world() -> Iterator[World]:
    made = World(State())
    yield made
    made.close()


def test_freeze_stops_who_is_in_a_cgroup_and_who_is_not_and_release_lets_go(world: World) -> None:
    own = world.registry.create("own", BILLING, 2)
    adopted = world.registry.create("adopted", BILLING | {"env": "prod"}, 2)
    other = world.registry.create("other", {"team": "docs"}, 2)
    inside, outside, strange = world.in_cgroup(own), world.table.start(adopted), world.table.start(other)
    stopped = world.stops.freeze(BILLING, 10)
    assert stopped.done == {inside, outside} and not stopped.left
    assert stopped.agents == ["adopted", "own"]
    assert own.cgroup is not None and world.cgroups.is_frozen(world.cgroups.folder("own"))
    assert hands.is_stopped(outside) and not hands.is_stopped(strange)
    assert world.state_of(own) == world.state_of(adopted) == layout.AGENT_FROZEN
    assert world.state_of(other) == 0
    assert world.stops.frozen == [BILLING] and world.saved

    assert world.stops.release(BILLING) == ["adopted", "own", "team=billing"]
    assert not world.cgroups.is_frozen(world.cgroups.folder("own"))
    assert not hands.is_stopped(outside)
    assert world.state_of(own) == world.state_of(adopted) == 0
    assert world.stops.frozen == []


def test_who_runs_all_the_same_is_stopped_again(world: World) -> None:
    agent = world.registry.create("a", BILLING, 2)
    pid = world.table.start(agent)
    world.stops.freeze(BILLING, 10)
    world.table.children[pid].send_signal(signal.SIGCONT)
    late = world.table.start(agent)
    world.stops.hold_again(10)
    assert hands.is_stopped(pid) and hands.is_stopped(late)


def test_what_the_kernel_has_frozen_is_learned_and_not_overwritten(world: World) -> None:
    agent = world.registry.create("a", BILLING, 2)
    world.table.rows[agent.slot] = (agent.id, 2, layout.AGENT_FROZEN)
    world.registry.write(agent)
    assert agent.frozen and world.state_of(agent) == layout.AGENT_FROZEN
    assert world.stops.is_news(agent, 1), "nobody has stopped its processes, nor written it down"


def test_a_verdict_is_news_once_and_not_after_a_release(world: World) -> None:
    agent = world.registry.create("a", {}, 2)
    pid = world.table.start(agent)
    assert world.stops.is_news(agent, 5)
    assert world.stops.freeze_agents([agent], 10).done == {pid}
    assert not world.stops.is_news(agent, 6)
    assert world.stops.release({}, "a") == ["a"], "who has no labels has a name"
    assert not hands.is_stopped(pid)
    assert not world.stops.is_news(agent, 7), "what it did before it was let go"
    assert world.stops.is_news(agent, 1 << 62)


def test_agents_that_it_started_are_stopped_with_it_and_not_the_other_way_round(world: World) -> None:
    above = world.registry.create("above", BILLING, 2)
    below = world.registry.create("below", {"task": "x"}, 3, ancestors=above.lineage)
    assert world.stops.freeze_agents([above], 10).agents == ["above", "below"]
    assert world.stops.release({}, "above") == ["above", "below"]
    assert world.stops.freeze_agents([below], 10).agents == ["below"]
    assert world.state_of(above) == 0


@pytest.mark.parametrize(
    ("frozen", "released", "goes_on"),
    [
        (BILLING, BILLING, True),
        (BILLING, {"team": "*"}, True),
        (BILLING, {"env": "prod"}, False),  # a broader block stays
        (BILLING, {"team": "billing", "env": "prod"}, False),
        (BILLING, {"team": "docs"}, False),
        ({"env": "prod"}, {"env": "prod"}, True),
    ],
)
def test_what_release_lets_go(world: World, frozen: dict[str, str], released: dict[str, str], goes_on: bool) -> None:
    agent = world.registry.create("a", BILLING | {"env": "prod"}, 2)
    world.stops.freeze(frozen, 1)
    assert ("a" in world.stops.release(released)) is goes_on
    assert agent.frozen is not goes_on


def test_a_block_by_label_outlasts_a_release_by_name(world: World) -> None:
    agent = world.registry.create("a", BILLING, 2)
    world.stops.freeze(BILLING, 1)
    assert world.stops.release({}, "a") == []
    assert agent.frozen


def test_kill_ends_the_frozen_and_one_release_lifts_both(world: World) -> None:
    agent = world.registry.create("a", BILLING, 2)
    inside, outside = world.in_cgroup(agent), world.table.start(agent)
    world.stops.freeze(BILLING, 10)
    killed = world.stops.kill(BILLING, 10)
    assert killed.done == {inside, outside} and not killed.left
    assert world.state_of(agent) == layout.AGENT_FROZEN | layout.AGENT_KILLED
    assert world.stops.release(BILLING) == ["a", "team=billing"]
    assert world.state_of(agent) == 0


def test_nobody_matches(world: World) -> None:
    assert world.stops.freeze(BILLING, 1) is NOBODY
    assert world.stops.kill(BILLING, 1) is NOBODY
    assert world.stops.release(BILLING) == []
    assert world.stops.blocked == world.stops.frozen == []
    assert not world.saved


def test_new_agents_with_such_labels_are_refused(world: World) -> None:
    running = world.registry.create("a", BILLING, 2)
    world.stops.check_start(BILLING, None)
    world.stops.freeze_agents([running], 1)
    world.stops.check_start(BILLING, None)
    with pytest.raises(AgentProblem, match="the agent a is frozen"):
        world.stops.check_start(BILLING, running)
    world.stops.freeze(BILLING, 1)
    with pytest.raises(AgentProblem, match="with team=billing are frozen") as problem:
        world.stops.check_start(BILLING | {"env": "x"}, None)
    assert problem.value.hint.endswith("hostwarden release --label team=billing")
    world.stops.kill(BILLING, 1)
    with pytest.raises(AgentProblem, match="were ended"):
        world.stops.check_start(BILLING, None)
    world.stops.check_start({"team": "docs"}, None)


def test_a_restart_finds_what_was_in_force() -> None:
    known = StartedAgent(slot=5, incarnation=1, name="a", labels=BILLING, frozen=True)
    world = World(State(blocked=({"x": "y"},), frozen=(BILLING,), agents=(known,)))
    try:
        agent = Agent(5, 1, "a", BILLING, 2)
        world.stops.apply(agent)
        assert agent.frozen and not agent.killed
        assert not world.stops.is_news(agent, 5), "it is recorded already"
        child = Agent(6, 2, "b", {}, 2, ancestors=(frozenset({("x", "y")}),))
        world.stops.apply(child)
        assert child.killed and not child.frozen
    finally:
        world.close()
