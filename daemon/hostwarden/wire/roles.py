"""Roles: which socket may call what, who may open it, and how much of the daemon it may occupy.

The role is the socket a peer came through, guarded by file permissions (design section 10); no field of any message can
change it. Each role is served by workers of its own, so a role can starve only itself: whatever agents or auditors do
to their sockets, an administrator's `kill` finds a free worker.
"""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """In the order in which a command tries the sockets."""

    ADMIN = "admin"
    RESPONDER = "responder"
    AUDITOR = "auditor"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel said when the connection was made (unix(7), SO_PEERCRED)."""

    role: str
    uid: int
    gid: int
    pid: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What one role may occupy at most. ``workers`` is above ``streams``, so unary calls never wait for followers."""

    workers: int  # threads that answer calls
    streams: int  # calls that stream, followers included, at once
    connections: int  # at once, of all uids; more are closed
    per_uid: int  # relayed at once, of one uid; more wait their turn
    waiting: int  # of one uid; more are closed
    calls: int  # concurrent calls on one connection
    max_age_s: int | None = None  # a connection is closed after this; None: never


@dataclass(frozen=True, slots=True)
class Door:
    """A role's socket: its name in the run folder, its permissions, its calls."""

    file: str
    mode: int
    group: str | None  # owner is root; without the group on this host, the mode loses its group bits
    calls: frozenset[str]
    limits: Limits


ALL_CALLS = frozenset(
    {"Status", "Doctor", "Ps", "Events", "Bind", "Adopt", "Kill", "Freeze", "Release", "Reload", "Arm"}
)
READS = frozenset({"Status", "Doctor", "Ps", "Events"})

# For agents per_uid * calls is below workers, and connections end by age: one uid can't keep the others from `run`,
# even by opening calls whose request never comes (gRPC gives those a thread all the same).
DOORS: dict[Role, Door] = {
    Role.ADMIN: Door("admin.sock", 0o600, None, ALL_CALLS, Limits(6, 4, 64, 32, 32, 16)),
    Role.RESPONDER: Door(
        "responder.sock",
        0o660,
        "hostwarden-responders",
        READS | {"Kill", "Freeze", "Release"},
        Limits(6, 4, 64, 16, 16, 16),
    ),
    Role.AUDITOR: Door("auditor.sock", 0o660, "hostwarden-auditors", READS, Limits(5, 3, 64, 16, 16, 16)),
    Role.AGENT: Door(
        "agent.sock", 0o666, None, frozenset({"Status", "Bind"}), Limits(4, 0, 128, 3, 13, 1, max_age_s=30)
    ),
}

# The Status that an agent gets says `ready` and nothing else: tiers and sequence are the operators' business.
READY_ONLY = frozenset({Role.AGENT})


def refusal(role: Role, call: str) -> tuple[str, str] | None:
    """Message and hint if ``role`` may not make ``call``, else None."""
    if call in DOORS[role].calls:
        return None
    able = [other.value for other in Role if call in DOORS[other].calls]
    message = f"{call.lower()} is not permitted on {DOORS[role].file}"
    return message, f"it needs the socket of: {', '.join(able)}"
