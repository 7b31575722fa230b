"""The warden: everything that is decided outside the kernel, in one place, one caller at a time.

It owns the kernel's tables, the agents, and what must be remembered. Handlers ask it from their threads, the loop from
its own; records are handed to the recorder. Each of its acts is a record, refusals included.
"""

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from hostwarden.daemon import cgroups, hands, held, members, mounts, proofs, protect, selectors, shown
from hostwarden.daemon.acts import Identity, body
from hostwarden.daemon.agentsd import AgentSpec
from hostwarden.daemon.attach import Attached
from hostwarden.daemon.config import Settings
from hostwarden.daemon.generations import FIRST_PROFILE, NO_PROFILE, Generations, Lineage, PolicyProblem, Pool
from hostwarden.daemon.intake import Intake, check_refusable, read_intake
from hostwarden.daemon.memory import Memory, remembered
from hostwarden.daemon.recorder import ActsFull, Recorder
from hostwarden.daemon.registry import (
    FIRST_SLOT,
    MAX_AGENTS,
    Agent,
    AgentProblem,
    Registry,
    carries,
    check_name,
    show_labels,
)
from hostwarden.daemon.state import State
from hostwarden.daemon.teach import Teacher, Untaught
from hostwarden.policy.check import check
from hostwarden.policy.source import PolicyErrors
from hostwarden.policy.words import Action, Outcome, Tier, Verdict
from hostwarden.probes import bpf, layout
from hostwarden.probes.pins import Member
from hostwarden.records.writer import LogWriter
from hostwarden.wire.roles import Peer
from hostwarden.wire.uplink import Uplink

SYNC_TIMEOUT_S = 5  # below the patience of those who ask (wire/client.py)
FULL_TIMEOUT_S = 0.1
UNKNOWN = {"hostwarden": "unknown"}  # labels of agents that a daemon finds in the kernel and nowhere else
log = logging.getLogger("hostwardend")


class NotReady(Exception):
    """The daemon can't do that now."""


@dataclass(frozen=True)
class Killed:
    """What `kill` did."""

    killed: frozenset[int]
    left: frozenset[int]
    agents: list[str]


class Warden:
    """See the module."""

    def __init__(self, settings: Settings, attached: Attached, cgroup: Path, state: State, identity: Identity) -> None:
        self.config, self.cgroup, self.identity = settings, cgroup, identity
        self.kernel = attached.kernel
        self.cgroups = cgroups.Cgroups(cgroup)
        self.recorder: Recorder  # set before begin()
        self._loop_thread = threading.get_ident()
        self.proofs: list[proofs.Proof] = []
        self.ready = False
        self._stale_gate = 0
        self.uplink: Uplink | None = None
        self.log: LogWriter  # set before begin()
        self._memory = Memory(settings.daemon.state_dir, state)
        self.blocked = [dict(block) for block in state.blocked]
        self._lock = threading.RLock()
        self._specs: tuple[AgentSpec, ...] = ()
        self.generations = Generations(self.kernel, settings.daemon.state_dir)
        self.registry = Registry(self.kernel)
        self._teacher = Teacher()
        self.untaught: list[Untaught] = []
        self._proof_folder = proofs.prepare(settings.daemon.state_dir)

    # beginning

    def begin(self, intake: Intake) -> None:
        """Put everything in force and find who is a member. Raises PolicyProblem; then nothing has changed."""
        with self._lock:
            self._mark_self()
            self.registry.incarnation = self._memory.state.incarnations
            for known in self._memory.state.agents:
                agent = remembered(known)
                agent.killed = self._is_shut(agent)
                self.registry.add(agent)
            self._keep_strangers()
            pool = Pool(proof=(proofs.policy(self._proof_folder),))
            named = [agent for agent in self.registry if agent.profile != NO_PROFILE]
            pool.profiles.update({agent.lineage: agent.profile for agent in named})
            self._put_in_force(intake, pool)
            control = self.kernel.control()
            self.kernel.set_control(
                replace(
                    control,
                    armed=self._memory.state.armed,
                    deny_is_kill=self.deny == "kill",
                    shown=self.config.daemon.argv_shown,
                )
            )
            self._seed()
            self._prove()
            self._save()

    def _keep_strangers(self) -> None:
        """Members of agents that the state doesn't know: it was moved away, or a full disk didn't take it.

        They keep their slots. What their labels were nobody knows, so all is refused them (no tables: fails closed).
        """
        known = {agent.id for agent in self.registry}
        for agent_id in {member.agent for _, member in self.kernel.processes()} - known:
            slot, incarnation = agent_id % MAX_AGENTS, agent_id >> layout.AGENT_SLOT_BITS
            if slot >= FIRST_SLOT:
                log.error("agent %d is running and state.json doesn't know it: everything is refused it", agent_id)
                self.registry.add(Agent(slot, incarnation, f"unknown-{agent_id}", dict(UNKNOWN), NO_PROFILE))

    def _prove(self) -> None:
        """By actions that must be refused: none can be while we are disarmed, so `arm` asks for it then."""
        if self._memory.state.armed:
            self.proofs = proofs.prove(self.kernel, self._proof_folder, self.deny == "kill")

    def _mark_self(self) -> None:
        """Our opens teach the kernel which superblock is which (probes/…/teach.h)."""
        pidfd = os.pidfd_open(os.getpid())
        try:
            self.kernel.mark_thread(pidfd, Member(0, 0, 0, layout.MEMBER_WARDEN))
            # A glob of agents.d that names our interpreter has made us an agent at exec: never the warden.
            self.kernel.forget_process(os.getpid())
        finally:
            os.close(pidfd)

    @property
    def deny(self) -> str:
        """What `deny` becomes on a tier that can't refuse."""
        return self.config.daemon.deny_without_lsm

    def _put_in_force(self, intake: Intake, pool: Pool) -> int:
        """Compile and switch, unless the kernel has just these tables. Agents of agents.d get their slots first."""
        check_refusable(intake, self.deny)
        try:
            found = mounts.superblocks(mounts.read_mounts())[: mounts.MAX_ROWS]
        except mounts.MountError as error:
            raise PolicyProblem(str(error)) from error
        pool = replace(
            pool,
            policies=intake.policies,
            selectors=selectors.policy(intake.specs),
            superblocks=tuple(found),
            addresses=self._teach(),
        )
        fresh: list[Agent] = []
        try:
            for spec in intake.specs:
                fresh += self._give_slot(spec, pool)
            if self.generations.is_in_force(pool):
                self.generations.pool = pool
            else:
                self.generations.switch(pool)
        except (PolicyProblem, AgentProblem) as error:
            for agent in fresh:
                self.registry.free(agent)
            raise PolicyProblem(str(error)) from error
        self._specs = intake.specs
        for spec in intake.specs:
            self._settle(spec, pool)
        selectors.install(self.kernel, intake.specs, {agent.name: agent.id for agent in self.registry})
        return self.generations.number

    def _teach(self) -> dict[int, int]:
        """dev → address of each superblock that the host's mounts show."""
        taught = self.kernel.maps["taught"]
        for key in bpf.keys(taught, 8):
            bpf.delete(taught, key)
        self.untaught = self._teacher.teach(mounts.read_mounts())
        addresses = {}
        for key in bpf.keys(taught, 8):
            address = bpf.lookup(taught, key, 8)
            if address:
                addresses[int.from_bytes(key, "little")] = int.from_bytes(address, "little")
        return addresses

    def _give_slot(self, spec: AgentSpec, pool: Pool) -> list[Agent]:
        """A place for an agent of agents.d, and a profile in ``pool``; the agent if it is new. Running ones stay as
        they are until the tables for them are in force. Raises PolicyProblem, AgentProblem.
        """
        lineage = (frozenset(spec.labels.items()),)
        if lineage not in pool.profiles:
            used = set(pool.profiles.values())
            number = next((n for n in range(FIRST_PROFILE, NO_PROFILE) if n not in used), None)
            if number is None:
                raise PolicyProblem("too many different sets of labels: use fewer")
            pool.profiles[lineage] = number
        if spec.name in self.registry.by_name:
            return []
        return [self.registry.create(spec.name, spec.labels, pool.profiles[lineage], standing=True)]

    def _settle(self, spec: AgentSpec, pool: Pool) -> None:
        """What agents.d says of an agent, now that its tables are in force."""
        agent = self.registry.by_name[spec.name]
        agent.standing, agent.labels = True, dict(spec.labels)
        agent.profile = pool.profiles[frozenset(spec.labels.items()),]
        agent.killed = agent.killed or self._is_blocked(agent.labels)
        self.registry.write(agent)

    def _seed(self) -> int:
        """Processes that run already and belong to an agent of agents.d, and their descendants, until nobody is new."""
        count = 0
        for _ in range(members.MAX_ROUNDS if self._specs else 0):
            fresh = 0
            for pid in psutil.pids():
                if self.kernel.process(pid) is not None or protect.refusal(pid, os.getpid()):
                    continue
                name = selectors.choose(self._specs, pid)
                agent = self.registry.by_name.get(name) if name else None
                if agent:
                    fresh += len(members.adopt_tree(self.kernel, pid, agent, self._is_kept_out))
            count += fresh
            if not fresh:
                break
        return count

    def _is_kept_out(self, pid: int) -> bool:
        return protect.refusal(pid, os.getpid()) is not None

    # what is asked

    def bind(self, name: str, labels: dict[str, str], pid: int, start_ticks: int, peer: Peer) -> tuple[str, bool]:
        """`run`. Returns the agent's name, and whether a running instance was joined. Raises AgentProblem."""
        with self._lock:
            self._check_ready()
            check_name(name, labels)  # both before tables are made for these labels: anybody can ask, and that is work
            members.check_child(pid, start_ticks, (peer.pid, peer.uid))
            above = self.kernel.process(pid)
            parent = self.registry.agent(above.agent) if above else None
            lineage = (frozenset(labels.items()), *(parent.lineage if parent else ()))
            agent, joined = self._agent_for(name, labels, lineage, peer)
            try:
                members.bind(self.kernel, pid, start_ticks, agent, (peer.pid, peer.uid), parent.id if parent else None)
                self._place(agent, pid)
            except (AgentProblem, cgroups.CgroupError) as error:
                if not joined:
                    self.registry.free(agent)
                raise AgentProblem(str(error), getattr(error, "hint", "")) from error
            self._save()
        self._record("run", peer, agent=agent, target=None, detail={"pid": pid, "joined": joined})
        return agent.name, joined

    def _place(self, agent: Agent, pid: int) -> None:
        """Into the agent's cgroup. A child agent stays below its parent's hands: it gets no cgroup of its own."""
        if agent.ancestors:
            return
        folder = self.cgroups.make(f"{agent.name}-{self._memory.state.instance}")
        self.cgroups.move(folder, pid)
        agent.cgroup = str(folder)

    def _agent_for(self, name: str, labels: dict[str, str], lineage: Lineage, peer: Peer) -> tuple[Agent, bool]:
        blocked = self._blocking(labels)
        if blocked is not None:
            raise AgentProblem(
                f"agents with {show_labels(blocked)} were ended and may not start again",
                "a responder lets them: hostwarden release --label " + show_labels(blocked).replace(",", " --label "),
            )
        agent = self.registry.running(name, labels)
        if agent:
            if agent.lineage != lineage:
                raise AgentProblem(f"the agent {name} was started by another agent, or by none", "use another name")
            if peer.uid not in (0, agent.uid) and not agent.standing:
                raise AgentProblem(f"the agent {name} is another user's", "use another name")
            return agent, True
        try:
            profile = self.generations.profile_of(lineage)
        except PolicyProblem as error:
            raise AgentProblem(f"no tables for the agent {name}: {error}") from error
        return self.registry.create(name, labels, profile, uid=peer.uid, ancestors=lineage[1:]), False

    def adopt(self, pid: int, name: str, labels: dict[str, str], peer: Peer) -> tuple[str, list[int], dict[str, Any]]:
        """A process and its descendants. Returns name, pids, and what they held open before. Raises AgentProblem."""
        with self._lock:
            self._check_ready()
            refusal = protect.refusal(pid, peer.pid)
            if refusal:
                raise AgentProblem(refusal)
            if self.kernel.process(pid) is not None:
                raise AgentProblem(f"process {pid} is an agent's already", "hostwarden ps shows whose")
            agent, joined = self._agent_for(name or f"pid-{pid}", labels, (frozenset(labels.items()),), peer)
            pids = members.adopt_tree(self.kernel, pid, agent, lambda other: bool(protect.refusal(other, peer.pid)))
            if not pids:
                if not joined:
                    self.registry.free(agent)
                raise AgentProblem(f"process {pid} is gone")
            self._save()
        open_before = held.held(pid)
        self._record("adopt", peer, agent=agent, target=None, detail={"pids": pids[:1000], "held": open_before})
        return agent.name, pids, open_before

    def kill(self, labels: Mapping[str, str], timeout_s: float, peer: Peer) -> Killed:
        """End all members of the matching agents; they, and their labels, are shut until ``release``."""
        with self._lock:
            self._check_ready()
            matching = self._family(labels)
            if not matching:
                return Killed(frozenset(), frozenset(), [])
            ids = {agent.id for agent in matching}
            before = hands.members_of(self.kernel, ids)
            if dict(labels) not in self.blocked:
                self.blocked.append(dict(labels))
            for agent in matching:
                agent.killed = True
                self.registry.write(agent)
            self._save()
            for agent in matching:
                if agent.cgroup:
                    with suppress(cgroups.CgroupError):  # only the quick way: the sweep ends what is left
                        self.cgroups.kill_all(Path(agent.cgroup))
            swept = hands.sweep(self.kernel, ids, timeout_s)
        killed = (before | swept.killed) - swept.left  # many die before the sweep sees them
        names = sorted(agent.name for agent in matching)
        detail = {"labels": dict(labels), "agents": names, "killed": len(killed), "left": sorted(swept.left)}
        self._record("kill", peer, labels=labels, target=show_labels(labels), detail=detail)
        return Killed(frozenset(killed), swept.left, names)

    def _family(self, labels: Mapping[str, str]) -> list[Agent]:
        """Agents that carry the labels, and agents that those started."""
        return [agent for agent in self.registry if any(carries(dict(own), labels) for own in agent.lineage)]

    def release(self, labels: Mapping[str, str], peer: Peer) -> list[str]:
        """Blocks that carry these labels are lifted (a broader one stays). The agents that may start again."""
        with self._lock:
            lifted = [block for block in self.blocked if carries(block, labels)]
            if not lifted:
                return []
            self.blocked[:] = [block for block in self.blocked if block not in lifted]
            names = [show_labels(block) for block in lifted]
            for agent in self.registry:
                if agent.killed and not self._is_shut(agent):
                    agent.killed = False
                    self.registry.write(agent)
                    names.append(agent.name)
            self._save()
        self._record("release", peer, labels=labels, target=show_labels(labels), detail={"agents": sorted(names)})
        return sorted(names)

    def arm(self, armed: bool, peer: Peer) -> None:
        """Verdicts are made real, or only recorded."""
        with self._lock:
            self._memory.state = self._memory.state.model_copy(update={"armed": armed})
            self._save()
            self.kernel.set_control(replace(self.kernel.control(), armed=armed))
            if not self.proofs:
                self._prove()
        self._record("arm" if armed else "disarm", peer)

    def reload(self, peer: Peer | None) -> tuple[int, int, list[str]]:
        """Policies and agents read again: all of it, or nothing. Raises PolicyErrors, PolicyProblem."""
        try:
            intake = read_intake(self.config)
            with self._lock:
                pool = replace(self.generations.pool, profiles=dict(self.generations.pool.profiles))
                number = self._put_in_force(intake, pool)
                self._drop_standing(intake.specs)
                self._seed()
                self._save()
        except (PolicyErrors, PolicyProblem) as error:
            lines = [str(each) for each in getattr(error, "errors", [error])]
            self._record("policy", peer, detail={"refused": lines[:100]})
            raise
        warnings = [str(warning) for warning in check(intake.policies, self.tiers())]
        self._record("policy", peer, detail=shown.describe_policies(self, intake, warnings))
        self._forget_old(number)
        return number, len(intake.policies), warnings

    def mounts_changed(self) -> None:
        """The host's mount table is another: the same policies, other start states."""
        with self._lock:
            pool = replace(self.generations.pool, profiles=dict(self.generations.pool.profiles))
            before = self.generations.number
            try:
                self._put_in_force(Intake(pool.policies, self._specs), pool)
            except PolicyProblem as error:
                self._record("policy", None, detail={"refused": [str(error)], "because": "mounts changed"})
                return
            if self.generations.number != before:
                self.generations.forget_old()

    def _forget_old(self, number: int) -> None:
        """Unless somebody has switched since: what is idle now was in force a moment ago."""
        with self._lock:
            if self.generations.number == number:
                self.generations.forget_old()

    def _drop_standing(self, specs: Sequence[AgentSpec]) -> None:
        names = {spec.name for spec in specs}
        for agent in self.registry:
            if agent.standing and agent.name not in names:
                agent.standing = False  # its members stay members; its slot is freed when they are gone

    def tidy(self) -> None:
        """Free the slots of agents that have no member left. Called now and then."""
        with self._lock:
            alive = {member.agent for _, member in self.kernel.processes()}
            ended = [
                agent for agent in self.registry if not agent.standing and not agent.killed and agent.id not in alive
            ]
            if ended:
                self.recorder.account(self.counts, at_once=True)  # before their slots begin a new life
            for agent in ended:
                if agent.cgroup:
                    with suppress(cgroups.CgroupError):  # an empty folder that stays harms nobody
                        self.cgroups.remove(Path(agent.cgroup))
                self.registry.free(agent)
            used = {agent.lineage for agent in self.registry}
            for lineage in [lineage for lineage in self.generations.pool.profiles if lineage not in used]:
                del self.generations.pool.profiles[lineage]
            if ended or self._memory.is_unsaved:
                self._save()
            self.generations.save()
            self._stale_gate = self.kernel.lower_stale_gate(self._stale_gate)

    # what is shown

    def tiers(self) -> dict[Action, Tier]:
        """Action → the tier that was proven for it."""
        proven = {proof.action: proof.tier for proof in self.proofs if proof.proven}
        return {action: proven.get(action, Tier.NONE) for action in Action}

    @property
    def synced(self) -> int:
        """The last sequence that is on disk."""
        return self.log.synced_sequence

    @property
    def is_armed(self) -> bool:
        """Whether verdicts are made real."""
        return self._memory.state.armed

    @property
    def log_full(self) -> bool:
        """Whether records wait for disk space."""
        return self.recorder.is_log_full

    @property
    def uplink_ok(self) -> bool | None:
        """None: no collector is configured, or it isn't reached just now."""
        return True if self.uplink and self.uplink_says.startswith("connected") else None

    @property
    def uplink_says(self) -> str:
        """In words."""
        if self.uplink is None:
            return "none is configured"
        state = self.uplink.state
        return f"{state.phase.value}, acknowledged {self.uplink.acknowledged}"

    def counts(self) -> dict[int, Any]:
        """Agent id → what it did, in numbers, for the recorder's accounts."""
        return {agent.id: self.kernel.counts(agent.slot) for agent in self.registry}

    def is_agent(self, pid: int) -> bool:
        """Whether a process is a member now."""
        return self.kernel.process(pid) is not None

    def refused(self, peer: Peer, socket: str, call: str) -> None:
        """An agent's process asked for what only operators may ask for."""
        member = self.kernel.process(peer.pid)
        agent = self.registry.agent(member.agent) if member else None
        outcome = {"verdict": str(Verdict.DENY), "outcome": str(Outcome.PREVENTED)}
        self._record("refused", peer, agent=agent, detail={"call": call, "socket": str(socket)}, fields=outcome)

    def shared_table(self, files: int) -> None:
        """A refused file was opened into a table that others share: they end, too."""
        hands.end_sharers(self.kernel, files)

    # remembering

    def _blocking(self, labels: Mapping[str, str]) -> dict[str, str] | None:
        return next((block for block in self.blocked if carries(labels, block)), None)

    def _is_blocked(self, labels: Mapping[str, str]) -> bool:
        return self._blocking(labels) is not None

    def _is_shut(self, agent: Agent) -> bool:
        """Killed by its own labels, or by those of an agent that it descends from; also after a restart."""
        return any(self._is_blocked(dict(own)) for own in agent.lineage)

    def _check_ready(self) -> None:
        if not self.ready:
            raise NotReady("hostwardend isn't ready yet, try again in a moment")

    def _save(self) -> None:
        self._memory.save(self.blocked, self.registry, self.generations.number)

    def _record(self, action: str, peer: Peer | None, *, agent: Agent | None = None, **fields: Any) -> None:
        """Write an act and wait until it is on disk: who asked gets no answer before the log has the question."""
        labels = fields.pop("labels", agent.labels if agent else None)
        written = body(self.identity, action, peer=peer, agent=agent.name if agent else None, labels=labels, **fields)
        try:
            future = self.recorder.act(written)
        except ActsFull as error:  # the disk stands still: it was done, and the daemon's own log has it
            log.error("%s; not recorded: %s", error, written.decode(errors="replace"))
            return
        if threading.get_ident() != self._loop_thread:
            # The disk is full, or we end: the act was done, and its record waits with all others.
            with suppress(TimeoutError, ActsFull):
                future.result(FULL_TIMEOUT_S if self.log_full else SYNC_TIMEOUT_S)
