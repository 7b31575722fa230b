"""What the warden shows: `status`, `ps`, and what its records say of policies."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from hostwarden.daemon.intake import Intake
from hostwarden.daemon.registry import Agent
from hostwarden.policy.words import Action

if TYPE_CHECKING:
    from hostwarden.daemon.warden import Warden


def status(warden: "Warden") -> dict[str, Any]:
    """`status`, whole."""
    uplink = warden.uplink
    return {
        "ready": warden.ready and all(proof.proven for proof in warden.proofs),
        "tiers": {str(action): str(tier) for action, tier in warden.tiers().items()},
        "unjudged": sum(warden.misses.values()),
        "lost": warden.recorder.ledger.total,
        "sequence": warden.log.last_sequence,
        "synced": warden.synced,
        "armed": warden.is_armed,
        "host": warden.identity.host,
        "generation": warden.generations.number,
        "policies": [policy.name for policy in warden.generations.pool.policies],
        "agents": len(warden.registry.by_name),
        "blocked": warden.stops.blocked,
        "frozen": warden.stops.frozen,
        "policy_dir": str(warden.config.daemon.policy_dir),
        "state_dir": str(warden.config.daemon.state_dir),
        "log_full": warden.log_full,
        "collector": asdict(uplink.state) if uplink else None,
        "states": warden.generations.states,
        "pid": os.getpid(),
    }


def agents(warden: "Warden") -> Iterator[dict[str, Any]]:
    """`ps`: one dict an agent."""
    pids: dict[int, list[int]] = {}
    for pid, member in warden.kernel.processes():
        pids.setdefault(member.agent, []).append(pid)
    for agent in warden.registry:
        mine = sorted(pids.get(agent.id, []))
        if not (mine or agent.standing or agent.killed or agent.frozen):
            continue
        counts = warden.kernel.counts(agent.slot)
        yield {
            "agent": agent.name,
            "labels": agent.labels,
            "state": _state(agent, bool(mine)),
            "processes": len(mine),
            "pids": mine[:100],
            "actions": {str(action): counts.seen[action] for action in Action},
            "unrecorded": {str(action): counts.unrecorded[action] for action in Action},
            "denied": counts.denied,
            "lost": sum(map(sum, counts.lost)),
        }


def _state(agent: Agent, is_alive: bool) -> str:
    if agent.killed:
        return "killed"
    if agent.frozen:
        return "frozen"
    return "running" if is_alive else "waiting"


def describe_policies(warden: "Warden", intake: Intake, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """For records."""
    return {
        "generation": warden.generations.number,
        "policies": [
            {"name": policy.name, "digest": policy.digest, "mode": str(policy.mode)} for policy in intake.policies
        ],
        "agents": [spec.name for spec in intake.specs],
        "warnings": list(warnings)[:100],
    }


def describe_start(warden: "Warden", intake: Intake, adopted: bool) -> dict[str, Any]:
    """For the record of the start."""
    return describe_policies(warden, intake) | {
        "adopted": adopted,
        "version": version("hostwarden"),
        "tiers": {str(action): str(tier) for action, tier in warden.tiers().items()},
        "proofs": [f"{proof.what} {proof.tier}: {proof.seen}" for proof in warden.proofs],
    }
