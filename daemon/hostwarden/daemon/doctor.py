"""What this host can and can't do, each with its proof: the matrix of actions and tiers, checks, limits in words."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostwarden.policy.words import FILE_ACTIONS, Action, Tier
from hostwarden.probes import pins

if TYPE_CHECKING:
    from hostwarden.daemon.warden import Warden

# Why a better tier isn't used. The tiers `lsm`, `modify_return` and `landlock` come with a later version.
LATER = "the tiers lsm, modify_return and landlock come in a later version"

LIMITS: tuple[tuple[frozenset[Action], str], ...] = (
    (
        frozenset({Action.WRITE, Action.CREATE}),
        "signal: an open that truncates or creates has changed the file before its process dies (killed_after_effect)",
    ),
    (
        frozenset({Action.READ, Action.WRITE}),
        "signal: who shares the descriptor table (threads, CLONE_FILES) may use the descriptor before all of them die;"
        " the outcome says killed_after_effect",
    ),
    (frozenset(FILE_ACTIONS), "signal: `deny` ends the process (deny_without_lsm), it isn't refused with an error"),
    (
        frozenset(FILE_ACTIONS),
        "io_uring's own opens, unlink, rename, link, mkdir, mknod, symlink, chmod, truncate by path, ptrace and mount"
        " aren't watched yet: a protected file that an agent renames, or shows through an overlay that it mounts in the"
        " host's namespace, is judged by its new name; a bind mount there adds a name that an allow rule may match",
    ),
    (
        frozenset({Action.READ, Action.WRITE}),
        "what a descriptor leads to is judged where it is opened: one that somebody else opened and handed over"
        " (SCM_RIGHTS, fanotify) isn't judged again",
    ),
    (
        frozenset({Action.CONNECT, Action.SEND}),
        "cgroup: IPv4 and IPv6 only: unix sockets, packet sockets, vsock and netlink aren't watched yet; sockets of IP"
        " that it couldn't judge (raw, ping, UDP-Lite, SCTP, MPTCP) are refused where a policy can refuse",
    ),
    (
        frozenset({Action.CONNECT, Action.SEND}),
        "cgroup: the address that is asked for is judged, not the first hop of a source route (IP_OPTIONS, IPV6_RTHDR)",
    ),
    (
        frozenset({Action.READ, Action.WRITE, Action.EXEC}),
        "a hard link made before the policy is seen for the files that its deny rules named then; globs that begin"
        " with ** aren't searched",
    ),
    (
        frozenset({Action.EXEC}),
        "a script that is the interpreter of another script is judged as a file that is read, not executed; so is what"
        " ld.so or an interpreter is given as an argument, and a copy of a program is another program",
    ),
)


def examine(warden: "Warden") -> dict[str, Any]:
    """{"matrix": […], "checks": […], "limits": […]} as `hostwarden doctor` shows it."""
    return {"matrix": _matrix(warden), "checks": _checks(warden), "limits": _limits(warden)}


def _matrix(warden: "Warden") -> list[dict[str, Any]]:
    rows = []
    for proof in warden.proofs:
        cgroup = proof.tier is Tier.CGROUP
        deny = (
            "refused with EPERM" if cgroup else {"kill": "killed", "audit": "recorded only"}.get(warden.deny, "killed")
        )
        rows.append(
            {
                "action": str(proof.action),
                "tier": str(proof.tier) if proof.proven else "none",
                "deny": deny if proof.proven else "nothing",
                "hold": "not in this version",
                "kill": ("refused, then killed" if cgroup else "killed") if proof.proven else "nothing",
                "proven": proof.proven,
                "proof": proof.seen,
                "better": LATER,
            }
        )
    return rows


def _checks(warden: "Warden") -> list[dict[str, Any]]:
    kernel = warden.kernel
    checks = [
        _check(
            "every tier proven",
            bool(warden.proofs) and all(proof.proven for proof in warden.proofs),
            "by actions of the daemon's own" if warden.proofs else "it started disarmed: `hostwarden arm` proves them",
        ),
        _check("armed", warden.is_armed, "verdicts are made real", "hostwarden arm"),
        _check("bpffs", pins.is_complete(warden.config.daemon.bpffs_dir), f"pins in {warden.config.daemon.bpffs_dir}"),
        _check(
            "log", not warden.log_full, f"records reach the disk ({warden.config.daemon.state_dir})", "free some space"
        ),
        _check(
            "gate", kernel.gate() == 0 or None, f"{kernel.gate()} debts open (each costs every system call a look-up)"
        ),
        _check("cgroup v2", True, f"programs at {warden.cgroup}"),
        _check("collector", warden.uplink_ok, warden.uplink_says, "start hostwarden-collector, or set addresses=[]"),
    ]
    return [*checks, *_io_uring()]


def _io_uring() -> list[dict[str, Any]]:
    path = Path("/proc/sys/kernel/io_uring_disabled")
    if not path.exists():
        return []
    closed = path.read_text().strip() == "2"
    says = "closed for everybody" if closed else "agents may use it, and its own opens aren't watched yet"
    return [_check("io_uring", True if closed else None, says, "sysctl kernel.io_uring_disabled=2")]


def _limits(warden: "Warden") -> list[str]:
    limits = [text for _, text in LIMITS]
    if warden.generations.skipped:
        shown = ", ".join(warden.generations.skipped[:5])
        limits.append(f"other names of files (hard links) aren't looked for under: {shown}")
    if os.uname().machine != "x86_64":
        limits.append("only x86_64 has been tried")
    return limits


def _check(name: str, ok: bool | None, says: str, hint: str = "") -> dict[str, Any]:
    return {"name": name, "ok": ok, "says": says, "hint": "" if ok else hint}
