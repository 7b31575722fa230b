"""How often the kernel did not call our programs: a program of the tier `modify_return` that runs already on a CPU is
skipped there, and what it would have refused happens (kernel/bpf/trampoline.c, `active`). Counted in bpf_prog_info.
"""

import struct

from hostwarden.probes import bpf
from hostwarden.probes.pins import Kernel

# struct bpf_prog_info (linux/bpf.h): recursion_misses stands behind run_time_ns and run_cnt; since 5.12.
_AT = struct.Struct("<208xQ")


def read(kernel: Kernel) -> dict[str, int]:
    """Program → how often it was skipped since it was loaded; those that weren't aren't there."""
    counts = {name: int(_AT.unpack_from(bpf.info(fd))[0]) for name, fd in kernel.programs.items()}
    return {name: count for name, count in counts.items() if count}


def grown(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    """What came since."""
    return {name: count - before.get(name, 0) for name, count in now.items() if count > before.get(name, 0)}
