"""The warden's own acts as records: who asked, through which socket, for what, and what came of it."""

import os
import pwd
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from hostwarden.records.model import OWN_ACTS, printable, rfc3339
from hostwarden.wire.roles import Peer

MAX_ARGV = 1024


@dataclass(frozen=True)
class Identity:
    """What every record of this host and boot begins with."""

    host: str
    boot: str

    @classmethod
    def of_this_host(cls) -> "Identity":
        """The host's name and the kernel's id of this boot."""
        return cls(os.uname().nodename, Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def body(
    identity: Identity,
    action: str,
    *,
    peer: Peer | None = None,
    agent: str | None = None,
    labels: Mapping[str, str] | None = None,
    target: str | None = None,
    detail: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> bytes:
    """A record's body for LogWriter. ``fields`` are those that one kind of act has (gap: from, to, lost)."""
    assert action in OWN_ACTS, action
    record: dict[str, Any] = {
        "time": rfc3339(time.time_ns()),
        "host": identity.host,
        "boot": identity.boot,
        "agent": agent,
        "labels": dict(labels or {}),
        "process": asker(peer) if peer else None,
        "action": action,
        "target": target,
        "verdict": "allow",
        "rule": None,
        "policy": None,
        "tier": "none",
        "outcome": "observed",
    }
    if peer:
        record["role"] = str(peer.role)
    if detail:
        record["detail"] = dict(detail)
    return orjson.dumps(record | dict(fields or {}))


def asker(peer: Peer) -> dict[str, Any]:
    """The process at the other end of the socket: pid, uid and gid are the kernel's word, the rest is best effort."""
    folder = Path(f"/proc/{peer.pid}")
    exe: str | None = None
    argv: list[str] | None = None
    try:
        exe = printable(os.fsencode((folder / "exe").readlink()))
        raw = (folder / "cmdline").read_bytes()[:MAX_ARGV].rstrip(b"\0")
        argv = [printable(part) for part in raw.split(b"\0")]
    except OSError:
        pass  # it is gone, or a kernel thread; pid and uid are known
    return {"pid": peer.pid, "exe": exe, "argv": argv, "uid": peer.uid, "user": user_name(peer.uid)}


def user_name(uid: int) -> str | None:
    """None: this host has no such user."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
