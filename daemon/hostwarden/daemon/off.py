"""`hostwardend --off`: the way out that needs no daemon. For a root that is no agent."""

import logging
import os
from contextlib import suppress

from hostwarden.daemon.attach import pinned_tiers
from hostwarden.daemon.cgroups import CgroupError, Cgroups, find_v2
from hostwarden.daemon.config import Settings
from hostwarden.daemon.lock import Busy, LockProblem, Locks
from hostwarden.daemon.mounts import MountError, read_mounts
from hostwarden.daemon.protect import ancestors
from hostwarden.daemon.state import StateError, load
from hostwarden.policy.words import Action, Verdict
from hostwarden.probes import pins

log = logging.getLogger("hostwardend")


class OffError(Exception):
    """It isn't done: one line, a hint, an exit code."""

    def __init__(self, message: str, hint: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.hint, self.code = hint, code


def off(settings: Settings) -> int:
    """Remove every pin and the bpffs; the number of pins. Raises OffError."""
    bpffs = settings.daemon.bpffs_dir
    if pins.is_empty(bpffs):
        pins.remove(bpffs)
        return 0
    agent = _agent_of_asker(settings)
    if agent:
        raise OffError(f"process {agent} is an agent's: it may not end its own guard", "ask a person", code=4)
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


def _agent_of_asker(settings: Settings) -> int | None:
    """The first of this process and its ancestors that is a member."""
    pinned = pinned_tiers(settings.daemon.state_dir)
    if pinned is None or not pins.is_complete(settings.daemon.bpffs_dir, pinned):
        return None
    kernel = pins.Kernel(settings.daemon.bpffs_dir, len(Action), len(Verdict), pinned)
    try:
        mine = [os.getpid(), *ancestors(os.getpid())]
        return next((pid for pid in mine if kernel.process(pid) is not None), None)
    finally:
        kernel.close()
