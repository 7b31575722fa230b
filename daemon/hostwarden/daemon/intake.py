"""Everything that is read from files, together: all of it is in force, or nothing of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hostwarden.daemon import policies
from hostwarden.daemon.agentsd import AgentSpec, read_agents
from hostwarden.daemon.builtin import NAME as BUILT_IN
from hostwarden.daemon.config import Settings
from hostwarden.daemon.generations import PolicyProblem
from hostwarden.policy.model import Policy
from hostwarden.policy.source import PolicyError, PolicyErrors
from hostwarden.policy.words import Action, Mode, Tier, Verdict


@dataclass(frozen=True)
class Intake:
    """Everything that is read from files, together: all of it is in force, or nothing of it."""

    policies: tuple[Policy, ...]
    specs: tuple[AgentSpec, ...]


def read_intake(settings: Settings) -> Intake:
    """Policies and agents from their folders. Raises PolicyErrors with every mistake in any of them."""
    errors: list[Any] = []
    found: tuple[Policy, ...] = ()
    specs: tuple[AgentSpec, ...] = ()
    try:
        found = policies.read(settings.daemon.policy_dir)
        errors += [
            PolicyError(
                policy.file, *policy.places["policy"], f"policy {BUILT_IN} is the warden's own, expected another name"
            )
            for policy in found
            if policy.name == BUILT_IN
        ]
    except PolicyErrors as error:
        errors += error.errors
    try:
        specs = read_agents(settings.daemon.agents_dir)
    except PolicyErrors as error:
        errors += error.errors
    if errors:
        raise PolicyErrors(errors)
    return Intake(found, specs)


def check_refusable(intake: Intake, deny: str, tiers: Mapping[Action, Tier]) -> None:
    """deny_without_lsm = "refuse": no policy may say `deny` where the tier can't refuse. Raises PolicyProblem.

    ``tiers``: what this host promises for each action.
    """
    if deny != "refuse":
        return
    for policy in intake.policies:
        if policy.mode is not Mode.ENFORCE:
            continue
        rules = [
            rule.location
            for rule in policy.rules
            if rule.verdict is Verdict.DENY and any(tiers.get(action) is Tier.SIGNAL for action in rule.actions)
        ]
        denied = [action for action, verdict in policy.otherwise.items() if verdict is Verdict.DENY]
        if any(tiers.get(action) is Tier.SIGNAL for action in denied):
            rules.append(f"{policy.file}: otherwise")
        if rules:
            raise PolicyProblem(
                f"{rules[0]}: `deny` of such an action can only kill on this host, and deny_without_lsm is refuse:"
                " write `kill`, or set deny_without_lsm to kill or audit"
            )
