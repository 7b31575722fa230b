"""Attempts on the warden: its pins, its process, its control group."""

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct

from tests.guest.programs.root_calls import (
    IT,
    THREAD,
    VICTIM,
    WARDEN,
    alone,
    attempt,
    call,
    mount,
    packed,
    private,
    text,
    write,
)

FIOSETOWN = 0x8901

# bpf(2) and the pins
attempt("bpf: a map")(lambda: call(321, 0, packed("IIIII", 2, 4, 4, 1, 0), 160))
attempt("bpf: unlink a link's pin")(lambda: os.unlink(IT["link"]))
attempt("bpf: rename a link's pin")(lambda: os.rename(IT["link"], IT["link"] + "2"))
attempt("bpf: mkdir among the pins")(lambda: os.mkdir(IT["bpffs"] + "/x"))
attempt("bpf: rename the pins' folder")(lambda: os.rename(IT["bpffs"], IT["bpffs"] + "2"))
attempt("bpf: unmount the pins")(lambda: call(166, text(IT["bpffs"]), 2))
attempt("bpf: mount over the pins")(lambda: mount("none", IT["bpffs"], "tmpfs"))


@attempt("bpf: take a pin")
def take_pin() -> None:
    name = ctypes.create_string_buffer(IT["link"].encode() + b"\0")
    call(321, 7, packed("QII", ctypes.addressof(name), 0, 0), 160)


@attempt("bpf: the lock of the next start")
def lock_pins() -> None:
    fcntl.flock(os.open(IT["bpffs"], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)


@attempt("bpf: unmount the pins elsewhere, shared")
def unmount_shared() -> None:
    call(272, 0x20000)
    call(166, text(IT["bpffs"]), 2)


@attempt("bpf: unlink a pin under a bind mount")
def unlink_bound() -> None:
    alone()
    mount(IT["bpffs"], "/mnt", "none", 4096)
    os.unlink("/mnt/" + os.path.basename(IT["link"]))


# the warden, a process
attempt("warden: kill")(lambda: os.kill(WARDEN, 9))
attempt("warden: stop")(lambda: os.kill(WARDEN, 19))
attempt("warden: hang up")(lambda: os.kill(WARDEN, 1))
attempt("warden: tgkill")(lambda: call(234, WARDEN, THREAD, 9))
attempt("warden: tkill")(lambda: call(200, THREAD, 9))
attempt("warden: sigqueue")(lambda: call(129, WARDEN, 9, packed("iii", 9, 0, -1)))
attempt("warden: pidfd_send_signal")(lambda: call(424, os.pidfd_open(WARDEN), 9, 0, 0))
attempt("warden: ptrace attach")(lambda: call(101, 16, WARDEN, 0, 0))
attempt("warden: ptrace seize")(lambda: call(101, 0x4206, WARDEN, 0, 0))
attempt("warden: pidfd_getfd")(lambda: call(438, os.pidfd_open(WARDEN), 3, 0))
attempt("warden: /proc/PID/mem")(lambda: os.open(f"/proc/{WARDEN}/mem", os.O_RDWR))
attempt("warden: /proc/PID/fd")(lambda: [os.open(f"/proc/{WARDEN}/fd/{fd}", os.O_RDONLY) for fd in range(3, 20)])
attempt("warden: /proc/PID/environ")(lambda: os.open(f"/proc/{WARDEN}/environ", os.O_RDONLY))
attempt("warden: limits")(lambda: resource.prlimit(WARDEN, resource.RLIMIT_NOFILE, (0, 0)))
attempt("warden: scheduler")(lambda: os.sched_setscheduler(WARDEN, os.SCHED_IDLE, os.sched_param(0)))
attempt("warden: a thread's scheduler")(lambda: os.sched_setscheduler(THREAD, os.SCHED_IDLE, os.sched_param(0)))
attempt("warden: affinity")(lambda: os.sched_setaffinity(WARDEN, {0}))
attempt("warden: nice")(lambda: os.setpriority(os.PRIO_PROCESS, WARDEN, 19))
attempt("warden: a thread's nice")(lambda: os.setpriority(os.PRIO_PROCESS, THREAD, 19))
attempt("warden: I/O priority")(lambda: call(251, 1, WARDEN, 3 << 13))
attempt("warden: oom_score_adj")(lambda: write(f"/proc/{WARDEN}/oom_score_adj", "1000"))
attempt("warden: a thread's oom_score_adj")(lambda: write(f"/proc/{THREAD}/oom_score_adj", "1000"))
attempt("warden: oom_score_adj below task")(lambda: write(f"/proc/{WARDEN}/task/{THREAD}/oom_score_adj", "1000"))
attempt("warden: coredump_filter")(lambda: write(f"/proc/{WARDEN}/coredump_filter", "ff"))
attempt("warden: move pages")(lambda: call(256, WARDEN, 64, packed("Q", 1), packed("Q", 1)))
attempt("warden: process_madvise")(lambda: call(440, os.pidfd_open(WARDEN), packed("QQ", 4096, 4096), 1, 21, 0))


@attempt("warden: process_vm_readv")
def read_memory() -> None:
    buffer = ctypes.create_string_buffer(16)
    vector = packed("QQ", ctypes.addressof(buffer), 16)
    call(310, WARDEN, vector, 1, vector, 1, 0)


@attempt("warden: oom_score_adj in a private procfs")
def private_proc() -> None:
    private("proc")
    write(f"/mnt/{WARDEN}/oom_score_adj", "1000")


def own_signal(pid: int, *, by_ioctl: bool = False) -> None:
    """A signal of one's choice, sent by the kernel whenever a descriptor becomes ready."""
    here, there = socket.socketpair()
    if by_ioctl:
        fcntl.ioctl(here, FIOSETOWN, struct.pack("i", pid))
    else:
        fcntl.fcntl(here, fcntl.F_SETOWN, pid)
    fcntl.fcntl(here, 10, signal.SIGSTOP)
    fcntl.fcntl(here, fcntl.F_SETFL, os.O_ASYNC)
    there.send(b"x")


attempt("warden: SIGIO of one's choice")(lambda: own_signal(WARDEN))
attempt("policy: SIGIO, the owner told by an ioctl")(lambda: own_signal(VICTIM, by_ioctl=True))
attempt("policy: SIGIO of one's choice")(lambda: own_signal(VICTIM))

# control groups
attempt("cgroup: cgroup.kill")(lambda: write(IT["cgroup"] + "/cgroup.kill", "1"))
attempt("cgroup: cgroup.freeze")(lambda: write(IT["cgroup"] + "/cgroup.freeze", "1"))
attempt("cgroup: leave for the root")(lambda: write("/sys/fs/cgroup/cgroup.procs", "0"))
attempt("cgroup: make one")(lambda: os.mkdir("/sys/fs/cgroup/mine"))
attempt("cgroup: remove one")(lambda: os.rmdir(IT["cgroup"]))


@attempt("cgroup: cgroup.kill in a private mount")
def private_cgroup() -> None:
    private("cgroup2")
    write("/mnt" + IT["cgroup"].removeprefix("/sys/fs/cgroup") + "/cgroup.kill", "1")
