"""Which tier makes which action's verdict real: what could be tried on this kernel, best first, and why not.

A tier is tried, and only the proof by denial says that it is there (proofs.py). What is here only saves a try that
can't succeed, and says why. One tier is the first of all: it takes every action that cgroup programs don't.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hostwarden.daemon import peek
from hostwarden.policy.words import POLICY_ACTIONS, Action, Tier
from hostwarden.probes import trial

# Refusing before any effect comes before ending who did it.
BEST_FIRST = (Tier.LSM, Tier.MODIFY_RETURN, Tier.SIGNAL)
REFUSING = frozenset({Tier.LSM, Tier.MODIFY_RETURN, Tier.CGROUP})  # tiers where `deny` is EPERM
CGROUP_ACTIONS = frozenset({Action.CONNECT, Action.SEND})  # over IP; unix sockets are the first tier's
# Under these the recursion guard of fmod_ret programs fails open (measured: half of what was denied went through).
UNSAFE_PREEMPTION = ("full", "lazy")


@dataclass(frozen=True)
class Choice:
    """The first tier, and why each better one isn't it."""

    first: Tier
    declined: Mapping[Tier, str]

    @property
    def names(self) -> list[str]:
        """The tiers whose programs are attached, as the loader knows them."""
        return [str(self.first), str(Tier.CGROUP)]


def promised(first: Tier) -> dict[Action, Tier]:
    """Action → the tier that must be proven for it."""
    return {action: Tier.CGROUP if action in CGROUP_ACTIONS else first for action in POLICY_ACTIONS}


def candidates(allowed: Collection[Tier]) -> list[Tier]:
    """First tiers that the configuration allows, best first."""
    return [tier for tier in BEST_FIRST if tier in allowed]


def left_out(allowed: Collection[Tier]) -> dict[Tier, str]:
    """Why the others aren't tried."""
    return {tier: "daemon.tiers leaves it out" for tier in BEST_FIRST if tier not in allowed}


def why_not(tier: Tier) -> str | None:
    """Why a first tier can't be had on this kernel, in a line; None: it is worth a try."""
    if tier is Tier.LSM:
        return _no_lsm(peek.security_modules(), peek.built_with("CONFIG_BPF_LSM")) or trial.refusal("lsm")
    if tier is Tier.MODIFY_RETURN:
        return _preempted(peek.preemption()) or trial.refusal("modify_return")
    return None


def _no_lsm(modules: Collection[str] | None, built: str | None) -> str | None:
    if modules is None or "bpf" in modules:
        return None
    if built == "":
        return "this kernel was built without CONFIG_BPF_LSM"
    listed = ",".join(modules)
    return f"bpf isn't among the kernel's security modules ({listed}): boot with lsm={listed},bpf"


def _preempted(mode: str | None) -> str | None:
    if mode is None:
        return "how the kernel preempts itself can't be told, and under full preemption such programs are skipped"
    if mode in UNSAFE_PREEMPTION:
        return f"under {mode} preemption the kernel skips such programs now and then: boot with preempt=voluntary"
    return None
