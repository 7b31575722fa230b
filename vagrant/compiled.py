"""The probes, compiled on this host for a guest's kernel, as the daemon there finds them in its cache.

Seconds here; where the processor is emulated it would be minutes. The guest can do it too: what is missing it makes.

``python -m vagrant.compiled SERIES BOX CACHE`` does it: a process for each kernel, since guests are brought up side by
side, and in one process bcc knows one tree of headers and its compiler one thread.
"""

import sys
from pathlib import Path

from hostwarden.daemon.config import DaemonSettings
from hostwarden.daemon.defines import defines
from hostwarden.probes import headers, objects
from vagrant.guests import TREE, Guest
from vagrant.run import logged

CACHE = "/var/cache/hostwarden"  # in the guest: the daemon's default
TIERS = ("lsm", "modify_return")


def probes(guest: Guest, box: Path, state: Path, log: Path) -> Path:
    """A folder with a file ``probes-…`` for each tier, made in ``state`` unless it's there. Raises VmError."""
    cache = state / "compiled" / guest.series
    argv: list[str | Path] = [sys.executable, "-m", "vagrant.compiled", guest.series, box, cache]
    logged(argv, log, {"PYTHONPATH": str(TREE)})
    return cache


def main(series: str, box: Path, cache: Path) -> None:
    """Compile what isn't in ``cache``. Raises HeadersError, CompileError."""
    btf = box / f"btf-{series}"
    tree = headers.tree(cache, btf, (box / f"release-{series}").read_text())
    default = DaemonSettings()
    words = defines(default.denials_ring_kib, default.events_ring_kib)
    for tier in TIERS:
        objects.get(tree, cache, objects.flags(tree, words, (tier, "cgroup"), btf))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
