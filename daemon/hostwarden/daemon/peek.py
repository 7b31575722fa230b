"""What the kernel says of itself on file systems that nobody may have mounted: they are mounted nowhere for it
(fsmount(2) gives a descriptor that no path leads to), so nothing is left behind.
"""

import gzip
import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from hostwarden.probes.bpf import libc

FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432  # the same on every machine
_CLOEXEC, _CREATE = 1, 6  # FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC; FSCONFIG_CMD_CREATE (linux/mount.h)
_MAX_BYTES = 1 << 20

Read = Callable[[str], str | None]


def read(path: str) -> str | None:
    """A small text file, None if it isn't there for us."""
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_BYTES).decode(errors="replace").strip()
    except OSError:
        return None


def read_unmounted(fstype: str, path: str) -> str | None:
    """``path`` below the root of a file system of the kernel's; None if it doesn't have it, or keeps it shut."""
    with ExitStack() as stack:

        def own(fd: int) -> int:
            if fd < 0:
                raise OSError
            stack.callback(os.close, fd)
            return fd

        try:
            context = own(libc.syscall(FSOPEN, fstype.encode(), _CLOEXEC))
            if libc.syscall(FSCONFIG, context, _CREATE, None, None, 0) != 0:
                return None
            root = own(libc.syscall(FSMOUNT, context, _CLOEXEC, 0))
            file = own(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root))
            return os.read(file, _MAX_BYTES).decode(errors="replace").strip()
        except OSError:
            return None


def security_modules() -> tuple[str, ...] | None:
    """The kernel's `lsm=` list as it is in force; None if it can't be read."""
    text = read("/sys/kernel/security/lsm") or read_unmounted("securityfs", "lsm")
    return tuple(text.split(",")) if text else None


def built_with(option: str) -> str | None:
    """How the running kernel was configured (``CONFIG_BPF_LSM`` → "y"); "" where it is off, None if nobody kept it."""
    text = _config()
    if text is None:
        return None
    found = re.search(rf"^{re.escape(option)}=(.*)$", text, re.MULTILINE)
    return found[1] if found else ""


def _config() -> str | None:
    try:
        return gzip.decompress(Path("/proc/config.gz").read_bytes()).decode(errors="replace")
    except OSError:
        return read(f"/boot/config-{os.uname().release}")


def preemption() -> str | None:
    """``none``, ``voluntary``, ``lazy`` or ``full``: how the kernel preempts itself just now; None if it can't be told.

    The mode of a kernel with PREEMPT_DYNAMIC is in debugfs (kernel/sched/debug.c; the one in brackets), and may be
    changed there at any time; where that is shut (lockdown), it is what it was booted with.
    """
    shown = read("/sys/kernel/debug/sched/preempt") or read_unmounted("debugfs", "sched/preempt")
    return mode(shown, os.uname().version, read("/proc/cmdline") or "", built_with)


def mode(shown: str | None, version: str, command_line: str, option: Callable[[str], str | None]) -> str | None:
    """``preemption`` from what the kernel shows."""
    current = re.search(r"\((\w+)\)", shown or "") or re.search(r"\bPREEMPT\((\w+)\)", version)
    if current:
        return current[1]
    if re.search(r"\bPREEMPT_RT\b", version):
        return "full"
    if not re.search(r"\bPREEMPT_DYNAMIC\b", version):
        return "full" if re.search(r"\bPREEMPT\b", version) else "voluntary"
    booted = re.findall(r"(?:^|\s)preempt=(\w+)", command_line)
    if booted:
        return str(booted[-1])
    for name, word in (("NONE", "none"), ("VOLUNTARY", "voluntary"), ("LAZY", "lazy"), ("", "full")):
        if option("CONFIG_PREEMPT" + (f"_{name}" if name else "")) == "y":
            return word
    return None
