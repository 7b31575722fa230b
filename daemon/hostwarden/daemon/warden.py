"""The warden: everything that is decided outside the kernel, one caller at a time.

It owns the kernel's tables, the agents, and what must be remembered. Handlers ask it from their threads, the loop from
its own; records are handed to the recorder. Each of its acts is a record, refusals included.
"""

import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hostwarden.daemon import (
    builtin,
    cgroups,
    hands,
    held,
    members,
    misses,
    peek,
    proofs,
    shown,
)
from hostwarden.daemon.acts import Identity, body
from hostwarden.daemon.attach import Attached
from hostwarden.daemon.config import Settings
from hostwarden.daemon.enact import Enactor
from hostwarden.daemon.entrance import Entrance
from hostwarden.daemon.generations import NO_PROFILE, Generations, PolicyProblem, Pool
from hostwarden.daemon.intake import Intake, read_intake
from hostwarden.daemon.memory import Memory, remembered
from hostwarden.daemon.recorder import ActsFull, Recorder
from hostwarden.daemon.registry import (
    FIRST_SLOT,
    MAX_AGENTS,
    Agent,
    Registry,
    show_labels,
)
from hostwarden.daemon.state import State
from hostwarden.daemon.stops import NOBODY, Stopped, Stops
from hostwarden.daemon.teach import Teacher
from hostwarden.policy.check import check
from hostwarden.policy.source import PolicyErrors
from hostwarden.policy.words import POLICY_ACTIONS, Action, Outcome, Tier, Verdict
from hostwarden.probes import layout
from hostwarden.probes.layout import Event
from hostwarden.records.writer import LogWriter
from hostwarden.wire.roles import Peer
from hostwarden.wire.uplink import Uplink

SYNC_TIMEOUT_S = 5  # below the patience of those who ask (wire/client.py)
FULL_TIMEOUT_S = 0.1
VERDICT_S = 0.5  # for stopping an agent at a verdict: the kernel's half refuses all that it does meanwhile
UNKNOWN = {"hostwarden": "unknown"}  # labels of agents that a daemon finds in the kernel and nowhere else
log = logging.getLogger("hostwardend")


class NotReady(Exception):
    """The daemon can't do that now."""


class Warden:
    """See the module."""

    def __init__(
        self,
        settings: Settings,
        attached: Attached,
        cgroup: Path,
        state: State,
        identity: Identity,
        teacher: Teacher,
    ) -> None:
        self.config, self.cgroup, self.identity = settings, cgroup, identity
        self.kernel, self.choice, self._adopted = attached.kernel, attached.choice, attached.adopted
        self.cgroups = cgroups.Cgroups(cgroup)
        self.recorder: Recorder  # set before begin()
        self._loop_thread = threading.get_ident()
        self.proofs = list(attached.proofs)
        self.ready = False
        self._stale_gate = 0
        self.misses: dict[str, int] = {}  # program → how often the kernel has skipped it
        self.uplink: Uplink | None = None
        self.log: LogWriter  # set before begin()
        self._memory = Memory(settings.daemon.state_dir, state)
        self._lock = threading.RLock()
        self.generations = Generations(self.kernel, settings.daemon.state_dir)
        self.registry = Registry(self.kernel)
        self.stops: Stops  # these three when the agents are known
        self.enactor: Enactor
        self.entrance: Entrance
        self._to_freeze: dict[int, Event] = {}  # agent → the first event that says so
        self._teacher = teacher

    # beginning

    def begin(self, intake: Intake) -> None:
        """Put everything in force and find who is a member. Raises PolicyProblem; then nothing has changed."""
        with self._lock:
            members.mark_warden(self.kernel)
            self.registry.incarnation = self._memory.state.incarnations
            for known in self._memory.state.agents:
                self.registry.add(remembered(known))
            self.stops = Stops(self.kernel, self.registry, self.cgroups, self._memory.state, self._save)
            for agent in self.registry:
                self.stops.apply(agent)
                self.registry.write(agent)
            self.enactor = Enactor(
                self.config, self.kernel, self.choice, self.generations, self.registry, self.stops, self._teacher
            )
            self.entrance = Entrance(
                self.kernel, self.generations, self.registry, self.stops, self.cgroups, self._memory.state.instance
            )
            self._keep_strangers()
            pool = Pool(proof=(proofs.policy(self.config.daemon.state_dir),))
            named = [agent for agent in self.registry if agent.profile != NO_PROFILE]
            pool.profiles.update({agent.lineage: agent.profile for agent in named})
            self.enactor.put_in_force(intake, pool)
            control = self.kernel.control()
            self.kernel.set_control(
                replace(
                    control,
                    armed=self._memory.state.armed,
                    deny_is_kill=self.deny == "kill",
                    shown=self.config.daemon.argv_shown,
                    warden=os.getpid(),
                    capabilities=builtin.CAPABILITY_MASK,
                )
            )
            self.enactor.seed()
            if self._adopted:  # what was just loaded has been proven (attach.py)
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
            self.proofs = proofs.prove(
                self.kernel, self.config.daemon.state_dir, self.choice.first, self.deny == "kill"
            )

    @property
    def deny(self) -> str:
        """What `deny` becomes on a tier that can't refuse."""
        return self.config.daemon.deny_without_lsm

    # what is asked

    def bind(self, name: str, labels: dict[str, str], pid: int, start_ticks: int, peer: Peer) -> tuple[str, bool]:
        """`run`. Returns the agent's name, and whether a running instance was joined. Raises AgentProblem."""
        with self._lock:
            self._check_ready()
            agent, joined = self.entrance.bind(name, labels, pid, start_ticks, peer)
            self._save()
        self._record("run", peer, agent=agent, target=None, detail={"pid": pid, "joined": joined})
        return agent.name, joined

    def adopt(self, pid: int, name: str, labels: dict[str, str], peer: Peer) -> tuple[str, list[int], dict[str, Any]]:
        """A process and its descendants. Returns name, pids, and what they held open before. Raises AgentProblem."""
        with self._lock:
            self._check_ready()
            agent, pids = self.entrance.adopt(pid, name, labels, peer)
            self._save()
        open_before = held.held(pid)
        self._record("adopt", peer, agent=agent, target=None, detail={"pids": pids[:1000], "held": open_before})
        return agent.name, pids, open_before

    def kill(self, labels: Mapping[str, str], timeout_s: float, peer: Peer) -> Stopped:
        """End all members of the matching agents; they, and their labels, are shut until ``release``."""
        return self._end("kill", "killed", labels, timeout_s, peer)

    def freeze(self, labels: Mapping[str, str], timeout_s: float, peer: Peer) -> Stopped:
        """Stop all members of the matching agents; they, and their labels, stand still until ``release``."""
        return self._end("freeze", "frozen", labels, timeout_s, peer)

    def _end(self, act: str, done: str, labels: Mapping[str, str], timeout_s: float, peer: Peer) -> Stopped:
        with self._lock:
            self._check_ready()
            stopped = (self.stops.kill if act == "kill" else self.stops.freeze)(labels, timeout_s)
        if stopped is not NOBODY:
            detail = {"labels": dict(labels), "agents": stopped.agents, done: len(stopped.done)}
            detail["left"] = sorted(stopped.left)
            self._record(act, peer, labels=labels, target=show_labels(labels), detail=detail)
        return stopped

    def freeze_at(self, event: Event) -> None:
        """A verdict says so: the kernel's half has refused and stopped who acted, ``settle`` does the rest."""
        if not event.flags & layout.FLAGS["disarmed"]:
            self._to_freeze.setdefault(event.agent, event)

    def settle(self) -> None:
        """Stop the agents that verdicts have frozen, unless somebody else is at work: then at the next call."""
        if not self._to_freeze or not self._lock.acquire(blocking=False):
            return
        try:
            events, self._to_freeze = self._to_freeze, {}
            for event in events.values():
                agent = self.registry.by_id.get(event.agent)
                if agent is None or not self.stops.is_news(agent, event.time):
                    continue
                stopped = self.stops.freeze_agents([agent], VERDICT_S)
                reason = self.generations.reason(event.generation, event.profile, event.enforced_reason)
                detail = {"agents": stopped.agents, "frozen": len(stopped.done), "left": sorted(stopped.left)}
                detail |= {"rule": reason.location, "policy": reason.policy, "pid": event.tgid}
                self._record("freeze", None, agent=agent, target=show_labels(agent.labels), detail=detail)
        finally:
            self._lock.release()

    def release(self, labels: Mapping[str, str], name: str, peer: Peer) -> list[str]:
        """Blocks that carry these labels are lifted (a broader one stays), and what is frozen goes on, also by its
        name. The agents that may start again or go on.
        """
        with self._lock:
            names = self.stops.release(labels, name)
        if names:
            target = show_labels(labels) if labels else name
            self._record("release", peer, labels=labels, target=target, detail={"agents": names})
        return names

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
                number = self.enactor.put_in_force(intake, pool)
                self.enactor.drop_standing()
                self.enactor.seed()
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
                self.enactor.put_in_force(Intake(pool.policies, self.enactor.specs), pool)
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

    def tidy(self) -> None:
        """Free the slots of agents that have no member left. Called now and then."""
        with self._lock:
            alive = {member.agent for _, member in self.kernel.processes()}
            ended = [
                agent
                for agent in self.registry
                if not (agent.standing or agent.killed or agent.frozen) and agent.id not in alive
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
            self.stops.hold_again(VERDICT_S)
            self._watch_misses()
            self._stale_gate = self.kernel.lower_stale_gate(self._stale_gate)

    def _watch_misses(self) -> None:
        """On the tier where the kernel may skip programs: what it skipped is a record, at once."""
        if self.choice.first is not Tier.MODIFY_RETURN:
            return
        now = misses.read(self.kernel)
        fresh = misses.grown(now, self.misses)
        self.misses = now
        if fresh:
            log.error("the kernel did not ask our programs %d times: see `hostwarden doctor`", sum(fresh.values()))
            self._record("unjudged", None, detail={"misses": fresh, "total": now, "preemption": peek.preemption()})

    # what is shown

    def tiers(self) -> dict[Action, Tier]:
        """Action → the tier that was proven for it; of connect and send, for IP."""
        proven = {proof.what: proof.tier for proof in self.proofs if proof.proven}
        return {action: proven.get(str(action), Tier.NONE) for action in POLICY_ACTIONS}

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

    def _check_ready(self) -> None:
        if not self.ready:
            raise NotReady("hostwardend isn't ready yet, try again in a moment")

    def _save(self) -> None:
        self._memory.save(self.stops, self.registry, self.generations.number)

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
