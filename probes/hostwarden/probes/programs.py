"""Which program goes to which hook, for which tier: the table from which the loader loads, attaches and pins."""

from collections.abc import Collection
from dataclasses import dataclass

from hostwarden.probes.bpf import LSM_MAC, MODIFY_RETURN, RAW_TRACEPOINT_BTF, ProgramType

SOCK_CREATE, CONNECT4, CONNECT6, SENDMSG4, SENDMSG6 = 2, 10, 11, 14, 15  # enum bpf_attach_type
REFUSING = ("lsm", "modify_return")  # tiers whose hooks return an error before any effect


@dataclass(frozen=True)
class Program:
    """``name`` is the pin's, ``function`` the C function's; ``hook`` the kernel's function or tracepoint, empty for
    cgroup programs. ``tier`` "" is identity, which every tier needs.

    ``is_standing``: attached as long as it is pinned; others only while the daemon wants them. ``is_optional``: not
    every kernel has the hook, and nothing is open where it hasn't.
    """

    name: str
    kind: ProgramType
    attach_type: int
    hook: str
    tier: str
    function: str
    is_sleepable: bool = False
    is_standing: bool = True
    is_optional: bool = False

    @property
    def is_cgroup(self) -> bool:
        """Attached to the root of the cgroup v2 hierarchy."""
        return self.kind in (ProgramType.CGROUP_SOCK, ProgramType.CGROUP_SOCK_ADDR)


@dataclass(frozen=True)
class Hook:
    """One place where the kernel asks: an LSM hook, and the security_* function that calls it."""

    lsm: str
    function: str  # of ours
    security: str = ""  # "security_" and the hook's name if empty
    is_optional: bool = False


HOOKS = (
    Hook("file_open", "file_open"),
    Hook("file_receive", "file_receive"),
    Hook("file_fcntl", "file_fcntl"),
    Hook("file_send_sigiotask", "file_sigio"),
    Hook("file_ioctl", "file_ioctl"),
    Hook("file_ioctl_compat", "file_ioctl", is_optional=True),  # from 6.8
    Hook("mmap_file", "mmap_lsm"),
    Hook("file_mprotect", "file_mprotect"),
    Hook("path_mknod", "path_mknod"),
    Hook("path_mkdir", "path_mkdir"),
    Hook("path_symlink", "path_symlink"),
    Hook("path_unlink", "path_unlink"),
    Hook("path_rmdir", "path_rmdir"),
    Hook("path_truncate", "path_truncate"),
    Hook("path_chmod", "path_chmod"),
    Hook("path_chown", "path_chown"),
    Hook("path_rename", "path_rename"),
    Hook("path_link", "path_link"),
    Hook("inode_setattr", "set_times"),
    Hook("inode_setxattr", "set_attribute"),
    Hook("inode_removexattr", "set_attribute"),
    Hook("inode_set_acl", "set_attribute", is_optional=True),  # from 6.2
    Hook("bprm_check_security", "program_check", "security_bprm_check"),
    Hook("unix_stream_connect", "unix_connect"),
    Hook("unix_may_send", "unix_send"),
    Hook("socket_create", "socket_create"),
    Hook("socket_listen", "socket_listen"),
    Hook("task_alloc", "task_alloc"),
    Hook("task_kill", "task_kill"),
    Hook("task_setnice", "task_tune"),
    Hook("task_setscheduler", "task_tune"),
    Hook("task_setrlimit", "task_tune"),
    Hook("ptrace_access_check", "ptrace_check"),
    Hook("userns_create", "userns_create", "security_create_user_ns"),
    Hook("capable", "capable"),
    Hook("sb_mount", "sb_mount"),
    Hook("sb_remount", "sb_remount"),
    Hook("sb_umount", "sb_umount"),
    Hook("sb_pivotroot", "sb_pivotroot"),
    Hook("move_mount", "move_mount"),
    Hook("bpf", "use_bpf"),
    Hook("perf_event_open", "use_perf"),
    Hook("settime", "set_time", "security_settime64"),
    Hook("kernel_read_file", "kernel_file"),
    Hook("kernel_load_data", "kernel_data"),
)
SECURITY_FUNCTIONS = {"mmap_lsm": "mmap_security"}  # where the arguments differ


def _tracepoint(name: str, hook: str, tier: str) -> Program:
    return Program(name, ProgramType.TRACING, RAW_TRACEPOINT_BTF, hook, tier, name)


def _cgroup(name: str, attach_type: int, kind: ProgramType = ProgramType.CGROUP_SOCK_ADDR) -> Program:
    return Program(name, kind, attach_type, "", "cgroup", name)


def _lsm(hook: Hook) -> Program:
    kind, attach = ProgramType.LSM, LSM_MAC
    return Program(hook.lsm, kind, attach, f"bpf_lsm_{hook.lsm}", "lsm", hook.function, is_optional=hook.is_optional)


def _modify_return(hook: Hook) -> Program:
    function = SECURITY_FUNCTIONS.get(hook.function, hook.function)
    target = hook.security or f"security_{hook.lsm}"
    kind = ProgramType.TRACING
    return Program(hook.lsm, kind, MODIFY_RETURN, target, "modify_return", function, is_optional=hook.is_optional)


# In the order of attachment, which is the order in which one hook's programs run: identity comes first, a process is
# selected as a member before its exec is judged, and a program's content is known before it is.
PROGRAMS = (
    _tracepoint("task_fork", "sched_process_fork", ""),
    _tracepoint("task_exit", "sched_process_exit", ""),
    _tracepoint("select_exec", "sched_process_exec", ""),
    _tracepoint("exec_read", "sched_process_exec", ""),
    _tracepoint("exec_signal", "sched_process_exec", ""),
    _tracepoint("call_signal", "sys_exit", "signal"),
    _tracepoint("signal_signal", "signal_generate", "signal"),
    Program("teach", ProgramType.LSM, LSM_MAC, "bpf_lsm_inode_getattr", "lsm", "teach_getattr", is_standing=False),
    Program(
        "teach",
        ProgramType.TRACING,
        MODIFY_RETURN,
        "security_inode_getattr",
        "modify_return",
        "teach_getattr",
        is_standing=False,
    ),
    Program(
        "program_hash",
        ProgramType.LSM,
        LSM_MAC,
        "bpf_lsm_bprm_check_security",
        "lsm",
        "program_hash",
        is_sleepable=True,
    ),
    Program("mapping_hash", ProgramType.LSM, LSM_MAC, "bpf_lsm_mmap_file", "lsm", "mapping_hash", is_sleepable=True),
    *map(_lsm, HOOKS),
    *map(_modify_return, HOOKS),
    _cgroup("connect4", CONNECT4),
    _cgroup("connect6", CONNECT6),
    _cgroup("send4", SENDMSG4),
    _cgroup("send6", SENDMSG6),
    _cgroup("make_socket", SOCK_CREATE, ProgramType.CGROUP_SOCK),
)

# Callbacks of bpf_loop (link.py): one turn of a loop each.
CALLBACKS = (
    "rebuild_turn", "walk_turn", "rule_turn", "result_turn", "joint_turn", "otherwise_turn", "work_turn",
    "argument_turn", "text_turn", "shorten_turn",
)  # fmt: skip
# Functions that programs call (quirks.h, CALL): compiled once, however many programs call them.
FUNCTIONS = ("locate_asked", "judge_located", "conclude_judged", "locate_text")

# Maps that bcc makes from the C; the loader pins each under its own name.
MAPS = (
    "members", "processes", "agents", "counts", "control", "gate", "doomed_files", "sharers", "superblocks", "magics",
    "taught", "inodes", "hashes", "units", "selected", "pool", "digests",
)  # fmt: skip
# Maps that the loader makes itself: maps of maps, the rings, the stack of free scratches.
TABLES = ("profiles", "automata", "nets", "denials", "events", "free")


def of(tiers: Collection[str]) -> tuple[Program, ...]:
    """The programs of these tiers, and those that every tier needs."""
    return tuple(program for program in PROGRAMS if not program.tier or program.tier in tiers)
