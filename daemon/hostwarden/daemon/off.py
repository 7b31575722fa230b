"""`hostwardend --off`: the way out that needs no daemon. For a root that is no agent."""

import logging
import os
from contextlib import suppress
from pathlib import Path

from hostwarden.daemon.cgroups import CgroupError, Cgroups, find_v2
from hostwarden.daemon.config import Settings
from hostwarden.daemon.lock import Busy, LockProblem, Locks
from hostwarden.daemon.mounts import MountError, read_mounts
from hostwarden.daemon.protect import ancestors
from hostwarden.daemon.state import StateError, load
from hostwarden.probes import bpf, pins
from hostwarden.probes.layout import MEMBER

log = logging.getLogger("hostwardend")


class OffError(Exception):
    """It isn't done: one line, a hint, an exit code."""

    def __init__(self, message: str, hint: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.hint, self.code = hint, code


def off(settings: Settings) -> int:
    """Remove every pin and the bpffs; the number of pins. Raises OffError."""
    bpffs = settings.daemon.bpffs_dir
    agent = _agent_of_asker(bpffs)  # first: an agent may not even list the pins
    if agent:
        raise OffError(f"process {agent} is an agent's: it may not end its own guard", "ask a person", code=4)
    if pins.is_empty(bpffs):
        pins.remove(bpffs)
        return 0
    try:
        with Locks() as locks:
            locks.take(bpffs)
    except (Busy, LockProblem) as error:
        raise OffError(str(error), "stop it first: systemctl stop hostwarden") from error
    try:
        gone = pins.remove(bpffs)
        _remove_cgroups(settings)
        return gone
    except (OSError, pins.BpffsError) as error:
        raise OffError(f"the pins in {bpffs} can't be removed: {error}") from error


def _remove_cgroups(settings: Settings) -> None:
    """The agents' cgroups, where they are empty: what still runs in one goes on, and keeps it."""
    with suppress(StateError, MountError, CgroupError, OSError):
        instance = load(settings.daemon.state_dir).instance
        groups = Cgroups(find_v2(read_mounts()))
        base = groups.base
        for folder in base.glob(f"*-{instance}") if instance else ():
            with suppress(OSError):
                folder.rmdir()
            if groups.is_frozen(folder):  # who was stopped isn't let go by our leaving
                log.warning("an agent stays frozen: echo 0 > %s/cgroup.freeze lets it go on", folder)
        base.rmdir()


def _agent_of_asker(bpffs: Path) -> int | None:
    """The first of this process and its ancestors that is a member. Nothing but that one map is looked at: an agent may
    neither read our state nor, where it can be refused, use bpf(2). Raises OffError for who isn't let.
    """
    pin = bpffs / "map_processes"
    if not pin.exists():
        return None
    try:
        processes = bpf.get(pin)
    except PermissionError as error:
        raise OffError(f"{pin} can't be opened: {error.strerror}", "an agent may not end its own guard", 4) from error
    try:
        mine = [os.getpid(), *ancestors(os.getpid())]
        return next((pid for pid in mine if bpf.lookup(processes, pid.to_bytes(4, "little"), MEMBER.size)), None)
    finally:
        os.close(processes)
