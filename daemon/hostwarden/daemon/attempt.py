"""Tries what must be refused, as a member of the proof's agent: proofs.py starts this by its path, with Python alone.

On stdin one line of JSON, {"folder": PATH, "tries": [NAME, …]}; what a try needs is made, then a line says "ready". At
the next byte of stdin (by then we are a member) each is tried; its result is a line of JSON, [NAME, errno's name or
null where the call succeeded, whether it had an effect that only this process can see].
"""

import ctypes
import errno
import json
import mmap
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUTS = 0x00020000, 0x04000000
MS_REC_PRIVATE = 0x44000
PR_SET_PDEATHSIG, PTRACE_ATTACH = 1, 16
NAMES = Path("/proc/self/ns/uts")
NOWHERE = ("192.0.2.1", 9)  # TEST-NET-1 (RFC 5737): no host has it, and the refusal comes before any packet

libc = ctypes.CDLL(None, use_errno=True)


def call(result: int) -> None:
    """A libc call's result. Raises OSError."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class World:
    """What tries need. The working folder is the proof's."""

    def __init__(self, tries: list[str]) -> None:
        self.victim = self._start_victim() if {"ptrace", "signal"} & set(tries) else 0
        if "mount" in tries:  # in a namespace of our own: what isn't refused stays in it
            call(libc.unshare(CLONE_NEWNS))
            call(libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None))
        if "connect unix" in tries:
            Path("socket").unlink(missing_ok=True)
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind("socket")
            self.listener.listen()
        self.names = NAMES.readlink()

    @staticmethod
    def _start_victim() -> int:
        """A process that isn't a member, for it is born before we are one; it ends with us."""
        ready, is_ready = os.pipe()
        pid = os.fork()
        if pid == 0:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.close(0)
            os.close(1)
            os.close(is_ready)
            while True:
                signal.pause()
        os.close(is_ready)
        os.read(ready, 1)  # its end: attached to before, it would stand still with our output open, and outlive us
        os.close(ready)
        return pid

    def is_victim_touched(self) -> bool:
        """Whether it was stopped or ended."""
        return os.waitpid(self.victim, os.WNOHANG | os.WUNTRACED) != (0, 0)


def read(world: World) -> None:
    Path("file").read_bytes()


def write(world: World) -> None:
    with Path("file").open("r+b") as file:
        file.write(b"x")


def create(world: World) -> None:
    with Path("new").open("xb"):
        pass


def load(world: World) -> None:
    with Path("library").open("rb") as file:
        mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()


def connect(world: World) -> None:
    with socket.socket() as tcp:
        tcp.settimeout(1)
        tcp.connect(NOWHERE)


def connect_unix(world: World) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.connect("socket")


def send(world: World) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.sendto(b"x", NOWHERE)


def listen(world: World) -> None:
    with socket.socket() as tcp:
        tcp.bind(("", 0))
        tcp.listen()


TRIES: dict[str, Callable[[World], object]] = {
    "read": read,
    "write": write,
    "create": create,
    "load": load,
    "delete": lambda world: Path("deleted").unlink(),
    "rename": lambda world: Path("renamed").rename("renamed-to"),
    "link": lambda world: Path("linked-to").hardlink_to("linked"),
    "chmod": lambda world: Path("changed").chmod(0o640),
    "connect": connect,
    "connect unix": connect_unix,
    "send": send,
    "listen": listen,
    "mount": lambda world: call(libc.mount(b"none", b"mount", b"tmpfs", 0, None)),
    "namespace": lambda world: call(libc.unshare(CLONE_NEWUTS)),
    "ptrace": lambda world: call(libc.ptrace(PTRACE_ATTACH, world.victim, None, None)),
    "signal": lambda world: os.kill(world.victim, signal.SIGTERM),
    # The last, for where it isn't refused it is the end of this program: that one prints what is no JSON.
    "exec": lambda world: os.execv("./program", ["program"]),  # noqa: S606 (no shell is what is meant)
}
EFFECTS: dict[str, Callable[[World], bool]] = {
    "mount": lambda world: os.path.ismount("mount"),
    "namespace": lambda world: NAMES.readlink() != world.names,
    "ptrace": World.is_victim_touched,
    "signal": World.is_victim_touched,
}


def _line() -> bytes:
    """A line of stdin and nothing more: the byte that says go comes later."""
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1) or b"\n"
    return line


def main() -> None:
    """See the module."""
    job = json.loads(_line())
    os.chdir(job["folder"])
    world = World(job["tries"])
    os.write(1, b"ready\n")
    os.read(0, 1)
    for name in (each for each in TRIES if each in job["tries"]):
        code = None
        try:
            TRIES[name](world)
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, str(error))
        effect = name in EFFECTS and EFFECTS[name](world)
        os.write(1, json.dumps([name, code, effect]).encode() + b"\n")


if __name__ == "__main__":
    main()
