"""What an action was aimed at, in people's words, where that is no file: addresses, sockets, processes, namespaces,
capabilities, and the kernel itself. Numbers are the kernel's (include/uapi/linux).
"""

import socket
from ipaddress import IPv6Address

_V4_MAPPED = bytes(10) + b"\xff\xff"

# CLONE_NEW* (sched.h), the one that gives power over the others first.
NAMESPACES = {
    0x10000000: "user",
    0x00020000: "mnt",
    0x20000000: "pid",
    0x40000000: "net",
    0x08000000: "ipc",
    0x04000000: "uts",
    0x02000000: "cgroup",
    0x00000080: "time",
}

# capability.h, by number.
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip

# What of the kernel the warden keeps from every agent (probes/…/event.h, KERNEL_*).
KERNEL = ("", "bpf", "module", "kexec", "perf", "time", "tty", "device", "warden", "cgroup", "other")

_FAMILIES = {int(family): family.name.removeprefix("AF_").lower() for family in socket.AddressFamily}


def address_text(address: bytes, port: int) -> str:
    """``10.0.0.1:443`` or ``[fd00::1]:443``; v4 comes v4-mapped."""
    if address.startswith(_V4_MAPPED):
        return "{}.{}.{}.{}:{}".format(*address[12:], port)
    return f"[{IPv6Address(address)}]:{port}"


def socket_text(family: int, protocol: int) -> str:
    """A kind of socket that has no address to be judged by: ``socket:packet:768``, ``socket:inet:1``."""
    return f"socket:{_FAMILIES.get(family, family)}:{protocol}"


def namespace_text(flags: int) -> str:
    """``user,mnt``; bits that nobody has named yet as a number; setns(2) need not say which, that is ``any``."""
    rest = flags & ~sum(NAMESPACES)
    names = [name for bit, name in NAMESPACES.items() if flags & bit] + ([f"{rest:#x}"] if rest else [])
    return ",".join(names) or "any"


def capability_text(number: int) -> str:
    """``CAP_SYS_ADMIN``."""
    return f"CAP_{CAPABILITIES[number]}" if number < len(CAPABILITIES) else f"CAP_{number}"


def kernel_text(number: int) -> str:
    """``bpf``, ``module``."""
    return KERNEL[number] if 0 < number < len(KERNEL) else f"kernel:{number}"
