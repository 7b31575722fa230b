"""What doctor says: each action once, what each verdict does, why a better tier isn't there, and the limits."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from hostwarden.daemon import doctor, misses, proofs, tiers
from hostwarden.daemon.limits import LIMITS
from hostwarden.policy.words import POLICY_ACTIONS, Tier

if TYPE_CHECKING:
    from hostwarden.daemon.warden import Warden


def warden(first: Tier, *, unproven: str = "", deny: str = "kill") -> "Warden":
    """As much of one as the matrix asks."""
    found = [
        proofs.Proof(each.action, each.tier, each.what != unproven, f"saw {each.what}", each.what)
        for each in proofs.tries(first)
    ]
    choice = tiers.Choice(first, {Tier.LSM: "bpf is missing"} if first is not Tier.LSM else {})
    generations = SimpleNamespace(skipped=["**/x"])
    return cast("Warden", SimpleNamespace(proofs=found, choice=choice, deny=deny, generations=generations))


def row(found: "Warden", what: str) -> dict[str, Any]:
    [line] = [line for line in doctor._matrix(found) if line["action"] == what]
    return line


@pytest.mark.parametrize("first", [Tier.LSM, Tier.MODIFY_RETURN, Tier.SIGNAL])
def test_every_action_has_one_row(first: Tier) -> None:
    rows = doctor._matrix(warden(first))
    assert sorted(line["action"] for line in rows) == sorted([*map(str, POLICY_ACTIONS), proofs.UNIX])
    assert {frozenset(line) for line in rows} == {frozenset(rows[0])}


REFUSED = ("refused with EPERM", "refused, then the agent is stopped", "refused, then killed")
KILLED = ("killed", "killed, then the agent is stopped", "killed")


@pytest.mark.parametrize(
    ("first", "deny", "what", "tier", "does"),
    [
        (Tier.LSM, "kill", "delete", "lsm", REFUSED),
        (Tier.LSM, "kill", "connect", "cgroup", REFUSED),
        (Tier.LSM, "kill", "connect unix", "lsm", REFUSED),
        (Tier.MODIFY_RETURN, "kill", "ptrace", "modify_return", REFUSED),
        (Tier.SIGNAL, "kill", "exec", "signal", KILLED),
        (Tier.SIGNAL, "audit", "exec", "signal", ("recorded only", *KILLED[1:])),
        (Tier.SIGNAL, "kill", "send", "cgroup", REFUSED),
        (Tier.SIGNAL, "kill", "connect unix", "signal", KILLED),
    ],
)
def test_what_verdicts_do(first: Tier, deny: str, what: str, tier: str, does: tuple[str, ...]) -> None:
    line = row(warden(first, deny=deny), what)
    assert (line["tier"], (line["deny"], line["freeze"], line["kill"])) == (tier, does)
    assert line["proven"] is True


def test_what_is_not_proven_does_nothing_and_says_what_was_seen() -> None:
    line = row(warden(Tier.LSM, unproven="mount"), "mount")
    assert (line["tier"], line["deny"], line["proven"], line["proof"]) == ("none", "nothing", False, "saw mount")


def test_why_a_better_tier_is_not_there() -> None:
    assert row(warden(Tier.SIGNAL), "exec")["better"].startswith("lsm: bpf is missing; ")
    assert row(warden(Tier.LSM), "exec")["better"] == doctor.LANDLOCK


@pytest.mark.parametrize("first", [Tier.LSM, Tier.MODIFY_RETURN, Tier.SIGNAL])
def test_limits_are_those_of_the_tiers_in_use(first: Tier) -> None:
    said = doctor._limits(warden(first))
    assert {line.partition(":")[0] for line in said} >= {str(first), "cgroup"}
    assert len(said) == len(set(said)) and all(str(tier) not in said for tier in Tier)
    assert any("**/x" in line for line in said)
    assert sum(len(LIMITS[tier]) for tier in (first, Tier.CGROUP)) <= len(said)


@pytest.mark.parametrize(
    ("now", "before", "fresh"),
    [
        ({}, {}, {}),
        ({"file_open": 3}, {}, {"file_open": 3}),
        ({"file_open": 3}, {"file_open": 3}, {}),
        ({"file_open": 3, "mmap_file": 1}, {"file_open": 1}, {"file_open": 2, "mmap_file": 1}),
    ],
)
def test_what_was_skipped_since(now: dict[str, int], before: dict[str, int], fresh: dict[str, int]) -> None:
    assert misses.grown(now, before) == fresh
