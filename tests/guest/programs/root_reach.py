"""Attempts on what the warden stands on: its files, devices, the kernel; and what only policies forbid."""

import ctypes
import fcntl
import os
import socket
import struct
import time

from tests.guest.programs.root_calls import (
    AT_FDCWD,
    ATTEMPTS,
    IT,
    VICTIM,
    Attempt,
    alone,
    attempt,
    call,
    libc,
    mount,
    packed,
    private,
    text,
    unmount,
    write,
)

# the warden's files, and what they stand on
attempt("files: a policy")(lambda: write(IT["policies"] + "/x.yaml", "x", os.O_CREAT))
attempt("files: read the state")(lambda: os.open(IT["state"] + "/state.json", os.O_RDONLY))
attempt("files: list the state")(lambda: os.listdir(IT["state"]))
attempt("files: rename the state")(lambda: os.rename(IT["state"], IT["state"] + "2"))
attempt("files: rename what the state is in")(lambda: os.rename(os.path.dirname(IT["state"]), "/var/tmp/moved"))
attempt("files: unlink a socket")(lambda: os.unlink(IT["run"] + "/admin.sock"))
attempt("files: mount over the policies")(lambda: mount("none", IT["policies"], "tmpfs"))


def and_back(way: Attempt, back: Attempt) -> Attempt:
    """What got through is taken back at once, so that the next attempt has a world."""

    def both() -> None:
        way()
        back()

    return both


def remount(flags: int) -> Attempt:
    return lambda: mount("none", "/", "", 32 | flags)


attempt("files: mount over what is above")(
    and_back(lambda: mount("none", "/var/tmp", "tmpfs"), lambda: unmount("/var/tmp"))
)
attempt("files: bind over what is above")(
    and_back(lambda: mount("/mnt", "/var", "none", 4096), lambda: unmount("/var"))
)
attempt("files: remount / read-only")(and_back(remount(1), remount(0)))
attempt("files: remount the bind read-only")(and_back(remount(4096 | 1), remount(4096)))
attempt("files: utime of a policy")(lambda: os.utime(IT["policies"] + "/p.yaml", (1, 1)))
attempt("files: futime of a policy")(lambda: os.utime(os.open(IT["policies"] + "/p.yaml", os.O_RDONLY), (1, 1)))
attempt("files: chmod of a policy's descriptor")(lambda: os.fchmod(os.open(IT["policies"] + "/p.yaml", os.O_RDONLY), 0))
attempt("files: chown of a policy")(lambda: os.chown(IT["policies"] + "/p.yaml", 1, 1))
attempt("files: xattr of a policy")(lambda: os.setxattr(IT["policies"] + "/p.yaml", "user.x", b"1"))
attempt("files: hard link to a policy")(lambda: os.link(IT["policies"] + "/p.yaml", "/var/tmp/linked"))


@attempt("files: mount_setattr / read-only")
def set_mount() -> None:
    call(442, AT_FDCWD, text("/"), 0, packed("QQQQ", 1, 0, 0, 0), 32)
    call(442, AT_FDCWD, text("/"), 0, packed("QQQQ", 0, 1, 0, 0), 32)


@attempt("files: reconfigure / read-only")
def reconfigure() -> None:
    fd = call(433, AT_FDCWD, text("/"), 0)
    call(431, fd, 0, text("ro"), 0, 0)
    call(431, fd, 7, 0, 0, 0)
    mount("none", "/", "", 32)


@attempt("files: make policies immutable")
def immutable() -> None:
    fd = os.open(IT["policies"], os.O_RDONLY)
    fcntl.ioctl(fd, 0x40086602, struct.pack("l", 0x10))
    fcntl.ioctl(fd, 0x40086602, struct.pack("l", 0))


@attempt("files: mount over what is above, elsewhere, shared")
def mount_shared() -> None:
    call(272, 0x20000)
    mount("none", "/var/tmp", "tmpfs")
    unmount("/var/tmp")


@attempt("files: unmount /sys elsewhere, shared")
def unmount_sys() -> None:
    call(272, 0x20000)
    call(166, text("/sys"), 2)


@attempt("files: the state through an overlay")
def overlay_read() -> None:
    private("tmpfs")
    os.mkdir("/mnt/o")
    os.mkdir("/mnt/e")
    mount("none", "/mnt/o", "overlay", 0, f"lowerdir={IT['state']}:/mnt/e")
    os.read(os.open("/mnt/o/state.json", os.O_RDONLY), 10)


@attempt("files: the policies as an overlay's upper folder")
def overlay_write() -> None:
    alone()
    work = os.path.dirname(IT["policies"]) + "/work-of-overlay"
    os.makedirs(work, exist_ok=True)
    mount("none", "/mnt", "overlay", 0, f"lowerdir=/srv,upperdir={IT['policies']},workdir={work}")
    write("/mnt/overlaid.yaml", "x", os.O_CREAT)


# devices
attempt("device: the disk")(lambda: os.open(IT["disk_path"], os.O_RDWR))
attempt("device: the disk, to read")(lambda: os.open(IT["disk_path"], os.O_RDONLY))
attempt("device: /dev/mem")(lambda: os.open("/dev/mem", os.O_RDONLY))
attempt("device: /dev/port")(lambda: os.open("/dev/port", os.O_RDONLY))
attempt("device: /proc/kcore")(lambda: os.open("/proc/kcore", os.O_RDONLY))
attempt("device: iopl")(lambda: call(172, 3))
attempt("device: ioperm")(lambda: call(173, 0x80, 1, 1))


@attempt("device: the disk under another name")
def other_name() -> None:
    os.mknod("/var/tmp/other-disk", 0o60600, os.makedev(*IT["disk"]))
    try:
        os.open("/var/tmp/other-disk", os.O_RDWR)
    finally:
        os.unlink("/var/tmp/other-disk")


@attempt("device: /dev/mem under another name")
def other_mem() -> None:
    os.mknod("/var/tmp/other-mem", 0o20600, os.makedev(1, 1))
    try:
        os.open("/var/tmp/other-mem", os.O_RDONLY)
    finally:
        os.unlink("/var/tmp/other-mem")


@attempt("device: the disk in a user namespace")
def disk_in_namespace() -> None:
    call(272, 0x10020000)
    os.open(IT["disk_path"], os.O_RDONLY)


# the kernel's switches
attempt("kernel: sysrq-trigger")(lambda: write("/proc/sysrq-trigger", "h"))
attempt("kernel: core_pattern")(lambda: write("/proc/sys/kernel/core_pattern", "|/bin/false"))
attempt("kernel: kexec_load")(lambda: call(246, 0, 0, 0, 0))
attempt("kernel: kexec_file_load")(lambda: call(320, os.open("/bin/true", 0), -1, 0, 0, 4))
attempt("kernel: init_module")(lambda: call(175, ctypes.create_string_buffer(100), 100, text("")))
attempt("kernel: finit_module")(lambda: call(313, os.open("/bin/true", 0), text(""), 0))
attempt("kernel: delete_module")(lambda: call(176, text("nonesuch"), 0))
attempt("kernel: reboot")(lambda: call(169, 0xFEE1DEAD, 672274793, 0))
attempt("kernel: sethostname")(lambda: call(170, text("agent"), 5))
attempt("kernel: clock_settime")(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time() + 3600))
attempt("kernel: settimeofday")(lambda: call(164, packed("qq", 1, 0), 0))
attempt("kernel: adjtimex")(lambda: call(159, packed("I100x", 0x4000)))
attempt("kernel: acct")(lambda: call(163, 0))
attempt("kernel: swapoff")(lambda: call(168, text("/nonesuch")))
attempt("kernel: syslog clear")(lambda: call(103, 5, 0, 0))
attempt("kernel: chroot")(lambda: os.chroot("/tmp"))
attempt("kernel: FIFREEZE")(lambda: fcntl.ioctl(os.open("/var/tmp", os.O_RDONLY), 0xC0045877, 0))
attempt("kernel: setns to pid 1's mounts")(lambda: call(308, os.open("/proc/1/ns/mnt", os.O_RDONLY), 0))
attempt("kernel: nice of its own, below 0")(lambda: os.setpriority(os.PRIO_PROCESS, 0, -20))
attempt("kernel: real time of its own")(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99)))
attempt("kernel: another program's name")(lambda: call(157, 35, 13, os.open("/bin/true", os.O_RDONLY), 0, 0))


@attempt("kernel: perf_event_open")
def perf() -> None:
    call(298, packed("IIQ", 0, 128, 1), 0, -1, -1, 0)


@attempt("kernel: fanotify permission events")
def fanotify() -> None:
    fd = call(300, 4, 0)
    call(301, fd, 1, 0x10000, AT_FDCWD, text("/etc"))


@attempt("kernel: core_pattern in a private procfs")
def private_switch() -> None:
    private("proc")
    write("/mnt/sys/kernel/core_pattern", "|/bin/false")


@attempt("kernel: a private debugfs")
def private_debug() -> None:
    private("debugfs")
    write("/mnt/clear_warn_once", "1")


@attempt("kernel: a private tracefs")
def private_trace() -> None:
    private("tracefs")
    write("/mnt/tracing_on", "1")


@attempt("kernel: a private sysfs")
def private_sys() -> None:
    private("sysfs")
    write("/mnt/kernel/rcu_expedited", "0")


@attempt("kernel: a format of programs (binfmt_misc)")
def private_formats() -> None:
    private("binfmt_misc")
    write("/mnt/register", ":hostwarden-test:M::\\xfehwt::/bin/false:")


@attempt("kernel: open_by_handle_at")
def by_handle() -> None:
    handle = packed("I", 128)
    call(303, AT_FDCWD, text("/etc/hostname"), handle, ctypes.byref(ctypes.c_int()), 0)
    call(304, os.open("/", os.O_RDONLY), handle, 0)


# what the kernel itself would do for it, as a process that is nobody's
def helper(path: str, then: Attempt) -> None:
    """A program of the agent's making where the kernel looks for a helper of its own."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    os.write(fd, f"#!/bin/sh\ntouch {IT['marker']}\n".encode())
    os.close(fd)
    try:
        then()
    finally:
        os.unlink(path)


def ask_key() -> None:
    libc.syscall(ctypes.c_long(249), text("user"), text("hostwarden:test"), text("x"), ctypes.c_long(-1))


attempt("helper: /sbin/request-key")(lambda: helper("/sbin/request-key", ask_key))


@attempt("helper: modprobe.d")
def module_helper() -> None:
    path = "/etc/modprobe.d/hostwarden-test.conf"
    write(path, f"install net-pf-9 /usr/bin/touch {IT['marker']}\n", os.O_CREAT)
    try:
        socket.socket(9, socket.SOCK_DGRAM)  # no module of this name
    except OSError:
        pass
    finally:
        os.unlink(path)


@attempt("helper: modprobe itself")
def module_program() -> None:
    os.close(os.open("/usr/bin/kmod", os.O_WRONLY))


# those who would do it for it
def connect(address: str, kind: int = socket.SOCK_STREAM) -> None:
    socket.socket(socket.AF_UNIX, kind).connect(address)


attempt("others: systemd")(lambda: connect("/run/systemd/private"))
attempt("others: the system bus")(lambda: connect("/run/dbus/system_bus_socket"))


@attempt("others: typing for a terminal")
def type_for() -> None:
    _, slave = os.openpty()
    os.setsid()
    fcntl.ioctl(slave, 0x540E, 1)
    fcntl.ioctl(slave, 0x5412, b"x")


# what policies have to forbid
attempt("policy: a mount namespace")(lambda: call(272, 0x20000))
attempt("policy: a user namespace")(lambda: call(272, 0x10000000))
attempt("policy: tmpfs over /mnt")(lambda: mount("none", "/mnt", "tmpfs"))
attempt("policy: bind mount")(lambda: mount("/root", "/mnt", "none", 4096))
attempt("policy: kill")(lambda: os.kill(VICTIM, 9))
attempt("policy: ptrace")(lambda: call(101, 16, VICTIM, 0, 0))
attempt("policy: remount / read-only")(ATTEMPTS["files: remount / read-only"])
attempt("policy: mount_setattr / read-only")(ATTEMPTS["files: mount_setattr / read-only"])
attempt("policy: reconfigure / read-only")(ATTEMPTS["files: reconfigure / read-only"])


@attempt("policy: a mount from fsmount")
def new_mount() -> None:
    fd = call(430, text("tmpfs"), 0)
    call(431, fd, 6, 0, 0, 0)
    tree = call(432, fd, 0, 0)
    call(429, tree, text(""), AT_FDCWD, text("/mnt"), 4)


@attempt("policy: a copy of a mount")
def copied_mount() -> None:
    tree = call(428, AT_FDCWD, text("/srv"), 1)
    call(429, tree, text(""), AT_FDCWD, text("/mnt"), 4)
