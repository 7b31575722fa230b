"""What was read from files is put in force: tables compiled and switched, agents of agents.d given their places, and
their processes that run already made members.
"""

import os
from dataclasses import replace

import psutil

from hostwarden.daemon import builtin, members, mounts, protect, selectors, tiers
from hostwarden.daemon.agentsd import AgentSpec
from hostwarden.daemon.config import Settings
from hostwarden.daemon.generations import FIRST_PROFILE, NO_PROFILE, Generations, PolicyProblem, Pool
from hostwarden.daemon.intake import Intake, check_refusable
from hostwarden.daemon.registry import Agent, AgentProblem, Registry
from hostwarden.daemon.stops import Stops
from hostwarden.daemon.teach import Teacher, Untaught, learn
from hostwarden.policy.check import unreal
from hostwarden.policy.source import PolicyErrors
from hostwarden.probes.pins import Kernel


class Enactor:
    """One caller at a time (the warden's lock). ``specs``: the agents of agents.d that are in force."""

    def __init__(
        self,
        settings: Settings,
        kernel: Kernel,
        choice: tiers.Choice,
        generations: Generations,
        registry: Registry,
        stops: Stops,
        teacher: Teacher,
    ) -> None:
        self._settings, self._kernel, self._generations = settings, kernel, generations
        self._registry, self._stops, self._teacher = registry, stops, teacher
        self._first, self._promised = choice.first, tiers.promised(choice.first)
        self.specs: tuple[AgentSpec, ...] = ()
        self.untaught: list[Untaught] = []

    def put_in_force(self, intake: Intake, pool: Pool) -> int:
        """Compile and switch, unless the kernel has just these tables. Agents of agents.d get their slots first.

        Raises PolicyErrors, PolicyProblem; then nothing has changed.
        """
        check_refusable(intake, self._settings.daemon.deny_without_lsm, self._promised)
        if errors := unreal(intake.policies, self._promised):
            raise PolicyErrors(errors)
        pool = self._fill(intake, pool)
        fresh: list[Agent] = []
        try:
            for spec in intake.specs:
                fresh += self._give_slot(spec, pool)
            if self._generations.is_in_force(pool):
                self._generations.pool = pool
            else:
                self._generations.switch(pool)
        except (PolicyProblem, AgentProblem) as error:
            for agent in fresh:
                self._registry.free(agent)
            raise PolicyProblem(str(error)) from error
        self.specs = intake.specs
        for spec in intake.specs:
            self._settle(spec, pool)
        selectors.install(self._kernel, intake.specs, {agent.name: agent.id for agent in self._registry})
        return self._generations.number

    def _fill(self, intake: Intake, pool: Pool) -> Pool:
        """With everything that tables are made of, as the host is now."""
        try:
            table = mounts.read_mounts()
            found = mounts.superblocks(table)[: mounts.MAX_ROWS]
        except mounts.MountError as error:
            raise PolicyProblem(str(error)) from error
        addresses, self.untaught = learn(self._kernel, self._teacher)
        return replace(
            pool,
            policies=intake.policies,
            builtin=(builtin.policy(self._settings, table, self._first),),
            selectors=selectors.policy(intake.specs),
            superblocks=tuple(found),
            addresses=addresses,
        )

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
        if spec.name in self._registry.by_name:
            return []
        return [self._registry.create(spec.name, spec.labels, pool.profiles[lineage], standing=True)]

    def _settle(self, spec: AgentSpec, pool: Pool) -> None:
        """What agents.d says of an agent, now that its tables are in force."""
        agent = self._registry.by_name[spec.name]
        agent.standing, agent.labels = True, dict(spec.labels)
        agent.profile = pool.profiles[frozenset(spec.labels.items()),]
        self._stops.apply(agent)
        self._registry.write(agent)

    def drop_standing(self) -> None:
        """Agents that no file names any more: their members stay members, their slots are freed when they are gone."""
        names = {spec.name for spec in self.specs}
        for agent in self._registry:
            if agent.standing and agent.name not in names:
                agent.standing = False

    def seed(self) -> int:
        """Processes that run already and belong to an agent of agents.d, and their descendants, until nobody is new."""
        count = 0
        for _ in range(members.MAX_ROUNDS if self.specs else 0):
            fresh = 0
            for pid in psutil.pids():
                if self._kernel.process(pid) is not None or _is_kept_out(pid):
                    continue
                name = selectors.choose(self.specs, pid)
                agent = self._registry.by_name.get(name) if name else None
                if agent:
                    fresh += len(members.adopt_tree(self._kernel, pid, agent, _is_kept_out))
            count += fresh
            if not fresh:
                break
        return count


def _is_kept_out(pid: int) -> bool:
    return protect.refusal(pid, os.getpid()) is not None
