"""What an agent tries with processes that are none of its own, with terminals, mounts and namespaces."""

import ctypes
import errno
import fcntl
import os
import signal
import struct
import termios
from pathlib import Path

from hostwarden.cli.scenarios.files import open_file
from hostwarden.cli.scenarios.kernel import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, call, syscall

MARK = b"AGENT-WAS-HERE"
PTRACE_ATTACH, PTRACE_DETACH, PTRACE_SEIZE = 16, 17, 0x4206
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18


def _victim(path: str) -> tuple[int, int]:
    """Pid, and the address of its environment, of a process outside the agent."""
    pid, address = map(int, Path(path).read_text().split())
    return pid, address


def attach(path: str) -> None:
    """Trace it."""
    pid, _ = _victim(path)
    syscall("ptrace", PTRACE_SEIZE, pid, 0, 0)
    os.write(1, b"traced")


def write_memory(path: str) -> None:
    """process_vm_writev(2) into it."""
    pid, address = _victim(path)
    local = ctypes.create_string_buffer(MARK, len(MARK))
    ours = struct.pack("<QQ", ctypes.addressof(local), len(MARK))
    syscall("process_vm_writev", pid, ours, 1, struct.pack("<QQ", address, len(MARK)), 1, 0)


def write_mem_file(path: str) -> None:
    """The same by /proc/PID/mem."""
    pid, address = _victim(path)
    fd = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    os.pwrite(fd, MARK, address)


def kill(path: str, way: str = "kill") -> None:
    """End it: kill, tgkill, pidfd, group."""
    pid, _ = _victim(path)
    if way == "tgkill":
        syscall("tgkill", pid, pid, signal.SIGKILL)
    elif way == "pidfd":
        signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGKILL)
    elif way == "group":
        os.killpg(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)


def stop(path: str) -> None:
    """Stop it."""
    os.kill(_victim(path)[0], signal.SIGSTOP)


def nudge(path: str) -> None:
    """A signal that does nothing to it: what matters is whether it may be sent."""
    os.kill(_victim(path)[0], signal.SIGCONT)
    os.write(1, b"sent")


def kill_own() -> None:
    """A child of our own: an agent's processes are its own business."""
    child = os.fork()
    if child == 0:
        signal.pause()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.write(1, b"ended")


def trace_own() -> None:
    """The same with ptrace(2)."""
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        syscall("ptrace", PTRACE_SEIZE, child, 0, 0)
        os.write(1, b"traced")
    finally:
        os.kill(child, signal.SIGKILL)


def type_into(path: str) -> None:
    """Put a character into the input of somebody's terminal (TIOCSTI)."""
    terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(terminal, termios.TIOCSTI, b"x")


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode() or None)


def unshared() -> None:
    """A mount namespace of our own, from which nothing comes back."""
    call("unshare", CLONE_NEWNS)
    _mount("none", "/", "", MS_REC | MS_PRIVATE)


def bind_mount(source: str, target: str) -> None:
    """mount --bind, in the host's namespace."""
    _mount(source, target, "", MS_BIND)


def bind_and_read(source: str, target: str, path: str) -> None:
    """mount --bind in a namespace of our own, and what is read there."""
    unshared()
    _mount(source, target, "", MS_BIND)
    open_file("openat", "rdonly", path)


def rebind_and_read(source: str, target: str, path: str) -> None:
    """The same with everything below."""
    unshared()
    _mount(source, target, "", MS_BIND | MS_REC)
    open_file("openat", "rdonly", path)


def bind_chroot_read(source: str, target: str, name: str) -> None:
    """The same, with the mount as our root."""
    unshared()
    _mount(source, target, "", MS_BIND)
    os.chroot(target)
    open_file("openat", "rdonly", name)


def cover_and_read(source: str, target: str, path: str) -> None:
    """Bind it elsewhere, put an empty file system over the original, read by the other name."""
    unshared()
    _mount(source, target, "", MS_BIND)
    _mount("none", source, "tmpfs", 0)
    open_file("openat", "rdonly", path)


def overlay_and_read(lower: str, scratch: str, target: str, path: str) -> None:
    """Show it through an overlay."""
    unshared()
    for name in ("upper", "work"):
        os.mkdir(f"{scratch}/{name}")
    _mount("none", target, "overlay", 0, f"lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work")
    open_file("openat", "rdonly", path)


def own_procfs(target: str, name: str) -> None:
    """A fresh procfs, and what is read there."""
    unshared()
    _mount("none", target, "proc", 0)
    open_file("openat", "rdonly", f"{target}/{name}")


def unmount(target: str) -> None:
    """Take a mount of the host's away."""
    call("umount2", target.encode(), 2)  # MNT_DETACH


def join_namespace(path: str) -> None:
    """setns(2) into the mount namespace of a process outside."""
    pid, _ = _victim(path)
    os.chdir("/")
    call("setns", os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), CLONE_NEWNS)
    os.write(1, b"joined")


def unshare(words: str) -> None:
    """New namespaces: ``user``, ``mnt``, ``net``, ``pid``, joined by commas."""
    flags = {"user": CLONE_NEWUSER, "mnt": CLONE_NEWNS, "net": CLONE_NEWNET, "pid": CLONE_NEWPID}
    call("unshare", sum(flags[word] for word in words.split(",")))
    os.write(1, b"unshared")


def look_into(path: str, name: str) -> None:
    """A file by /proc/PID/root of a process outside."""
    pid, _ = _victim(path)
    open_file("openat", "rdonly", f"/proc/{pid}/root{name}")


def missing(path: str) -> None:
    """Open what isn't there: the kernel's own answer, whatever the rules."""
    try:
        os.open(path, os.O_RDONLY)
    except OSError as error:
        os.write(1, errno.errorcode[error.errno or 0].encode())


ACTS = {
    "attach": attach, "write_memory": write_memory, "write_mem_file": write_mem_file, "kill": kill, "stop": stop,
    "nudge": nudge,
    "kill_own": kill_own, "trace_own": trace_own, "type_into": type_into, "bind_mount": bind_mount,
    "bind_and_read": bind_and_read, "rebind_and_read": rebind_and_read, "bind_chroot_read": bind_chroot_read,
    "cover_and_read": cover_and_read, "overlay_and_read": overlay_and_read,
    "own_procfs": own_procfs, "unmount": unmount, "join_namespace": join_namespace,
    "unshare": unshare, "look_into": look_into, "missing": missing,
}  # fmt: skip
