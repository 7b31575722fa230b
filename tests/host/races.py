"""What is denied, tried while another thread changes what it is done to (programs/switch.c, race.c)."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.host.conftest import Hostwarden
from tests.host.listeners import Listener, listener

TRIES = 20_000
RUN_S = 600
Program = Callable[[str], Path]


@dataclass(frozen=True)
class Outcome:
    """What the tries of one race came to; ``reached``: how many read what is denied."""

    reached: int
    let: int
    refused: int
    killed: int
    other: int

    @property
    def tries(self) -> int:
        return self.let + self.refused + self.killed + self.other


@dataclass(frozen=True)
class Ground:
    """Pairs of things, of which the one whose name ends in z is denied to ``team=race``."""

    hostwarden: Hostwarden
    program: Program
    folder: Path
    server: Listener
    unix: socket.socket
    free_port: int

    def pair(self, stem: str) -> tuple[str, str]:
        return f"{self.folder}/{stem}-a", f"{self.folder}/{stem}-z"

    @property
    def counters(self) -> Path:
        """Where a denied program would count itself (programs/mark.c)."""
        return self.folder / "counters"

    def has_run(self) -> bool:
        """Whether a denied program did."""
        return any(self.counters.read_bytes()) or (self.folder / "mark").exists()

    def switch(self, act: str, way: str, *, tries: int = TRIES, agent: str) -> Outcome:
        """One race, to its end, as an agent."""
        stem = {"read-link": "link", "exec": "program", "exec-link": "programs", "unix": "socket"}.get(act, "file")
        pair = (str(self.free_port), str(self.server.port)) if act in ("tcp", "udp") else self.pair(stem)
        argv = [str(self.program("switch")), act, str(tries), way, *pair, str(self.counters)]
        done = self.hostwarden.run(argv, agent=agent, labels="team=race", timeout_s=RUN_S)
        assert done.returncode == 0, (done.returncode, done.stderr)
        return Outcome(*map(int, done.stdout.split()))

    def arguments(self, *, tries: int = TRIES, agent: str) -> str:
        """The race for argv; what race.c says."""
        argv = [str(self.program("race")), str(self.program("saw")), "forbidden", str(tries)]
        command = ["env", f"MARK={self.folder}/mark", *argv]
        done = self.hostwarden.run(command, agent=agent, labels="team=race", timeout_s=RUN_S)
        assert done.returncode == 0, (done.returncode, done.stderr)
        return done.stdout


@contextmanager
def ground(hostwarden: Hostwarden, program: Program, folder: Path) -> Iterator[Ground]:
    """Everything that is raced for, and the policy."""
    make_tiny(folder / "program-a")
    (folder / "program-z").write_bytes(program("mark").read_bytes())
    (folder / "program-z").chmod(0o700)
    for letter in "az":
        (folder / f"file-{letter}").write_text(letter)
        (folder / f"file-{letter}").chmod(0o600)
        (folder / f"link-{letter}").symlink_to(f"file-{letter}")
        (folder / f"programs-{letter}").symlink_to(f"program-{letter}")
    (folder / "counters").write_bytes(bytes(64))
    with listener() as server, socket.socket() as free, socket.socket(socket.AF_UNIX) as unix:
        free.bind(("127.0.0.1", 0))  # and nobody listens there
        unix.bind(f"{folder}/socket-z")
        unix.listen()
        unix.setblocking(False)
        hostwarden.set_policies(races=policy(folder, server.port))
        yield Ground(hostwarden, program, folder, server, unix, free.getsockname()[1])


def policy(folder: Path, port: int) -> str:
    return f"""policy: races
for: {{team: race}}
rules:
  - deny: [read, chmod]
    path: {folder}/file-z
  - deny: exec
    path: {folder}/program-z
  - deny: exec
    argv: ["* forbidden"]
  - deny: [connect, send]
    to: ["127.0.0.1:{port}", "unix:{folder}/socket-z"]
"""


def is_connected(unix: socket.socket) -> bool:
    """Whether anybody has come to the unix socket."""
    try:
        unix.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def make_tiny(binary: Path) -> None:
    """The smallest program there is (programs/tiny.S): what an exec costs, and nothing else."""
    source = Path(__file__).parent / "programs" / "tiny.S"
    subprocess.run(["gcc", "-static", "-nostdlib", "-o", str(binary), str(source)], check=True)
