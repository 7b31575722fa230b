"""The probes, compiled on this host for a guest's kernel, as the daemon there finds them in its cache.

Seconds here; where the processor is emulated it would be minutes. The guest can do it too: what is missing it makes.
"""

from pathlib import Path

from hostwarden.daemon.config import DaemonSettings
from hostwarden.daemon.defines import defines
from hostwarden.probes import headers, objects
from vagrant.guests import Guest, VmError

CACHE = "/var/cache/hostwarden"  # in the guest: the daemon's default
TIERS = ("lsm", "modify_return")
# Sizes of the rings, denials and events, in KiB: the daemon's defaults, and those of tests/host/oracle_world.py.
RINGS = [(DaemonSettings().denials_ring_kib, DaemonSettings().events_ring_kib), (16384, 16384)]


def probes(guest: Guest, box: Path, state: Path) -> Path:
    """A folder with a file ``probes-…`` for each tier, made in ``state`` unless it's there. Raises VmError."""
    cache = state / "compiled" / guest.series
    btf = box / f"btf-{guest.series}"
    try:
        tree = headers.tree(cache, btf, (box / f"release-{guest.series}").read_text())
        for denials_kib, events_kib in RINGS:
            for tier in TIERS:
                flags = objects.flags(tree, defines(denials_kib, events_kib), (tier, "cgroup"), btf)
                objects.get(tree, cache, flags)
    except (headers.HeadersError, objects.CompileError) as error:
        raise VmError(f"the probes don't compile for {guest.name}: {error}") from error
    return cache
