"""Which tier is tried for what, and why others aren't."""

import pytest

from hostwarden.daemon import tiers
from hostwarden.policy.words import POLICY_ACTIONS, Action, Tier


@pytest.mark.parametrize("first", [Tier.LSM, Tier.MODIFY_RETURN, Tier.SIGNAL])
def test_the_first_tier_takes_everything_but_what_cgroups_refuse(first: Tier) -> None:
    promised = tiers.promised(first)
    assert set(promised) == set(POLICY_ACTIONS)
    assert {action for action, tier in promised.items() if tier is Tier.CGROUP} == {Action.CONNECT, Action.SEND}
    assert {tier for action, tier in promised.items() if action not in tiers.CGROUP_ACTIONS} == {first}


def test_the_best_that_is_allowed_comes_first_whatever_the_order() -> None:
    assert tiers.candidates(tuple(Tier)) == [Tier.LSM, Tier.MODIFY_RETURN, Tier.SIGNAL]
    assert tiers.candidates((Tier.SIGNAL, Tier.CGROUP, Tier.LSM)) == [Tier.LSM, Tier.SIGNAL]
    assert set(tiers.left_out((Tier.SIGNAL, Tier.CGROUP))) == {Tier.LSM, Tier.MODIFY_RETURN}
    assert tiers.Choice(Tier.LSM, {}).names == ["lsm", "cgroup"]


@pytest.mark.parametrize(
    ("modules", "built", "says"),
    [
        (("lockdown", "capability", "bpf"), "y", None),
        (None, "", None),  # nobody knows: it is tried
        (("lockdown", "capability"), "y", "boot with lsm=lockdown,capability,bpf"),
        (("lockdown", "capability"), None, "boot with lsm=lockdown,capability,bpf"),
        (("lockdown", "capability"), "", "built without CONFIG_BPF_LSM"),
    ],
)
def test_no_lsm(modules: tuple[str, ...] | None, built: str | None, says: str | None) -> None:
    why = tiers._no_lsm(modules, built)
    assert (why is None) if says is None else (why is not None and says in why)


@pytest.mark.parametrize(
    ("mode", "is_safe"), [("none", True), ("voluntary", True), ("lazy", False), ("full", False), (None, False)]
)
def test_modify_return_is_left_alone_where_it_would_fail_open(mode: str | None, is_safe: bool) -> None:
    assert (tiers._preempted(mode) is None) is is_safe


def test_the_signal_tier_is_always_worth_a_try() -> None:
    assert tiers.why_not(Tier.SIGNAL) is None
