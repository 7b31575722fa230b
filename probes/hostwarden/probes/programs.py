"""Which program goes to which hook, for which tier: the table from which the loader loads, attaches and pins."""

from dataclasses import dataclass

from hostwarden.probes.bpf import RAW_TRACEPOINT_BTF, ProgramType

SOCK_CREATE, CONNECT4, CONNECT6, SENDMSG4, SENDMSG6 = 2, 10, 11, 14, 15  # enum bpf_attach_type


@dataclass(frozen=True)
class Program:
    """``name`` is the C function's and the pin's; ``hook`` the tracepoint (tp_btf), empty for cgroup programs."""

    name: str
    kind: ProgramType
    attach_type: int
    hook: str
    tier: str  # "" for identity, which every tier needs

    @property
    def is_cgroup(self) -> bool:
        """Attached to the root of the cgroup v2 hierarchy."""
        return self.kind is not ProgramType.TRACING


def _tracepoint(name: str, hook: str, tier: str) -> Program:
    return Program(name, ProgramType.TRACING, RAW_TRACEPOINT_BTF, hook, tier)


def _cgroup(name: str, attach_type: int, kind: ProgramType = ProgramType.CGROUP_SOCK_ADDR) -> Program:
    return Program(name, kind, attach_type, "", "cgroup")


# In the order of attachment, which is the order in which one hook's programs run: identity comes first, and a
# process is selected as a member before its exec is judged.
PROGRAMS = (
    _tracepoint("task_fork", "sched_process_fork", ""),
    _tracepoint("task_exit", "sched_process_exit", ""),
    _tracepoint("select_exec", "sched_process_exec", ""),
    _tracepoint("exec_read", "sched_process_exec", "signal"),
    _tracepoint("exec_signal", "sched_process_exec", "signal"),
    _tracepoint("open_signal", "sys_exit", "signal"),
    _cgroup("connect4", CONNECT4),
    _cgroup("connect6", CONNECT6),
    _cgroup("send4", SENDMSG4),
    _cgroup("send6", SENDMSG6),
    _cgroup("make_socket", SOCK_CREATE, ProgramType.CGROUP_SOCK),
)

# Maps that bcc makes from maps.h; the loader pins each under its own name.
MAPS = (
    "members", "processes", "agents", "counts", "control", "gate", "doomed_files", "sharers", "superblocks", "magics",
    "taught", "inodes", "units", "selected", "pool",
)  # fmt: skip
# Maps that the loader makes itself: maps of maps, the rings, the stack of free scratches.
TABLES = ("profiles", "automata", "nets", "denials", "events", "free")
