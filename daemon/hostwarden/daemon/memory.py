"""What a restart must find again, kept up to date: state.py has the file, this what goes into it."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from hostwarden.daemon.registry import Agent, Registry
from hostwarden.daemon.state import StartedAgent, State, StateError, save

log = logging.getLogger("hostwardend")


class Shut(Protocol):
    """Label sets that may not start or go on: those that were killed, and those that were frozen."""

    @property
    def blocked(self) -> Sequence[Mapping[str, str]]:
        """By `kill`."""

    @property
    def frozen(self) -> Sequence[Mapping[str, str]]:
        """By `freeze`."""


class Memory:
    """The state as it was saved last. One caller at a time (the warden's lock)."""

    def __init__(self, state_dir: Path, state: State) -> None:
        self._state_dir, self.state = state_dir, state
        self.is_unsaved = False  # the disk had no space for what is in force

    def save(self, shut: Shut, registry: Registry, generation: int) -> None:
        """Write it down, as far as the disk has space.

        A full disk must not keep anybody from killing an agent: it is said once, and tried again until it works.
        """
        self.state = self.state.model_copy(
            update={
                "blocked": tuple(map(dict, shut.blocked)),
                "frozen": tuple(map(dict, shut.frozen)),
                "incarnations": registry.incarnation,
                "generation": generation,
                "agents": tuple(_to_remember(agent) for agent in registry),
            }
        )
        try:
            save(self._state_dir, self.state)
            self.is_unsaved = False
        except StateError as error:
            if not self.is_unsaved:
                log.error("%s; what was asked is in force, but a restart would forget it", error)
            self.is_unsaved = True


def remembered(known: StartedAgent) -> Agent:
    """An agent as it was."""
    fields = known.model_dump()
    fields["ancestors"] = tuple(frozenset(labels.items()) for labels in known.ancestors)
    return Agent(**fields)


def _to_remember(agent: Agent) -> StartedAgent:
    fields = {name: getattr(agent, name) for name in StartedAgent.model_fields}
    return StartedAgent(**fields | {"ancestors": tuple(dict(labels) for labels in agent.ancestors)})
