"""What this host can and can't, each with its proof: the matrix of actions and tiers, checks, limits in words."""

import os
from typing import TYPE_CHECKING, Any

from hostwarden.daemon import peek, tiers
from hostwarden.daemon.limits import LIMITS
from hostwarden.daemon.proofs import Proof, tries
from hostwarden.policy.words import Tier
from hostwarden.probes import pins

if TYPE_CHECKING:
    from hostwarden.daemon.warden import Warden

LANDLOCK = "landlock comes in a later version"
# What each verdict does where a tier is proven. A hold that can't be made is a denial: never an allow.
REFUSED = {"deny": "refused with EPERM", "kill": "refused, then killed", "freeze": "refused, then the agent is stopped"}
KILLED = {"deny": "killed", "kill": "killed", "freeze": "killed, then the agent is stopped"}
AUDITED = KILLED | {"deny": "recorded only"}
NOTHING = dict.fromkeys(REFUSED, "nothing")
HOLD_LATER = "as deny, in this version"


def examine(warden: "Warden") -> dict[str, Any]:
    """{"matrix": […], "checks": […], "limits": […]} as `hostwarden doctor` shows it."""
    return {"matrix": _matrix(warden), "checks": _checks(warden), "limits": _limits(warden)}


def _matrix(warden: "Warden") -> list[dict[str, Any]]:
    """A row for everything that must be proven."""
    better = "; ".join([*(f"{tier}: {why}" for tier, why in warden.choice.declined.items()), LANDLOCK])
    known = {proof.what: proof for proof in warden.proofs}
    return [_row(warden, each.what, known.get(each.what), better) for each in tries(warden.choice.first)]


def _row(warden: "Warden", what: str, proof: Proof | None, better: str) -> dict[str, Any]:
    proven = proof is not None and proof.proven
    tier = proof.tier if proof and proven else Tier.NONE
    does = NOTHING
    if tier in tiers.REFUSING:
        does = REFUSED
    elif tier is Tier.SIGNAL:
        does = KILLED if warden.deny == "kill" else AUDITED
    return {
        "action": what,
        "tier": str(tier),
        "deny": does["deny"],
        "hold": HOLD_LATER if proven else does["deny"],
        "freeze": does["freeze"],
        "kill": does["kill"],
        "proven": proven,
        "proof": proof.seen if proof else "not tried yet",
        "better": better,
    }


def _checks(warden: "Warden") -> list[dict[str, Any]]:
    kernel, config = warden.kernel, warden.config.daemon
    checks = [
        _check(
            "every tier proven",
            bool(warden.proofs) and all(proof.proven for proof in warden.proofs),
            "by actions of the daemon's own" if warden.proofs else "it started disarmed: `hostwarden arm` proves them",
        ),
        _check("armed", warden.is_armed, "verdicts are made real", "hostwarden arm"),
        _check("bpffs", pins.is_complete(config.bpffs_dir, warden.choice.names), f"pins in {config.bpffs_dir}"),
        _check("log", not warden.log_full, f"records reach the disk ({config.state_dir})", "free some space"),
        _check(
            "gate", kernel.gate() == 0 or None, f"{kernel.gate()} debts open (each costs every system call a look-up)"
        ),
        _check("cgroup v2", True, f"programs at {warden.cgroup}"),
        _check("collector", warden.uplink_ok, warden.uplink_says, "start hostwarden-collector, or set addresses=[]"),
    ]
    first = _modify_return(warden) if warden.choice.first is Tier.MODIFY_RETURN else []
    return [*checks, *first, *(_io_uring() if warden.choice.first is Tier.SIGNAL else [])]


def _modify_return(warden: "Warden") -> list[dict[str, Any]]:
    mode, misses = peek.preemption(), sum(warden.misses.values())
    safe = mode not in tiers.UNSAFE_PREEMPTION if mode else None
    return [
        _check(
            "preemption", safe, f"{mode or 'unknown'}: only none and voluntary are safe", "boot with preempt=voluntary"
        ),
        _check("recursion_misses", misses == 0, f"{misses} times the kernel didn't call our programs"),
    ]


def _io_uring() -> list[dict[str, Any]]:
    text = peek.read("/proc/sys/kernel/io_uring_disabled")
    if text is None:
        return []
    closed = text == "2"
    says = "closed for everybody" if closed else "agents may use it, and its own opens aren't seen on this tier"
    return [_check("io_uring", True if closed else None, says, "sysctl kernel.io_uring_disabled=2")]


def _limits(warden: "Warden") -> list[str]:
    limits = [f"{tier}: {text}" for tier in (warden.choice.first, Tier.CGROUP) for text in LIMITS[tier]]
    if warden.generations.skipped:
        shown = ", ".join(warden.generations.skipped[:5])
        limits.append(f"other names of files (hard links) aren't looked for under: {shown}")
    if os.uname().machine != "x86_64":
        limits.append("only x86_64 has been tried")
    return limits


def _check(name: str, ok: bool | None, says: str, hint: str = "") -> dict[str, Any]:
    return {"name": name, "ok": ok, "says": says, "hint": "" if ok else hint}
