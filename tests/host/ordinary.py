"""Ordinary life under a policy that allows it: what people do (``life/*.sh``), as nobody's agent and as an agent.

Both times in the same empty folder, with the same environment: exit code, output and what is left in ``world/`` must
be X"""

import hashlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.host.conftest import Hostwarden, Record
from tests.host.resident import MARKER_POLICY, Outsider, Resident

SCRIPTS = Path(__file__).parent / "life"
ROWS = tuple(sorted(path.stem for path in SCRIPTS.glob("*.sh")))
TOOLS = ("git", "gcc", "make", "tmux", "ssh", "sshd", "rsync", "node", "npm", "sqlite3", "unshare", "python3")
SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ROW_S = 300  # for one run of one row, where the processor is emulated and others use it
SECRET = "the secret"
# Says how the row ended, whatever comes of the last attempt.
WRAPPER = 'bash "$1"; code=$?; cat secret/.env 2>/dev/null; exit $code'

POLICY = """policy: {name}
for: {{life: {name}}}
paths: {paths}
rules:
  - deny: [read, write]
    path: ["**/.env", "**/.ssh/**"]
  - deny: exec
    argv: ["* rm -rf /", "git push --force*"]
  - allow: exec
    path: [{programs}, "{place}/**"]
  - allow: [connect, send]
    to: ["127.0.0.0/8:*", "unix:**"]
  - deny: [ptrace, signal]
otherwise: {{exec: deny, connect: deny, send: deny}}
"""
CONTAINER = "container"  # the row whose agent's programs are also those of a root of its own


@dataclass(frozen=True)
class Ending:
    """How a run went. ``world``: name → what it is, below ``world/``."""

    code: int
    output: str
    errors: str
    world: dict[str, str]


@dataclass(frozen=True)
class Server:
    """An sshd of the suite's own on a loopback port; in ``keys`` are ``key`` and ``known_hosts``."""

    port: int
    keys: Path


def missing_tools() -> list[str]:
    """Programs that the rows need and this host doesn't have."""
    return [name for name in TOOLS if shutil.which(name, path=SEARCHED) is None]


def policies(place: Path) -> dict[str, str]:
    """File name → YAML: what the agents need, who do everything below ``place``, and not much else."""
    return {
        "marker": MARKER_POLICY.format(marker=place / "marker-*"),
        "ordinary": POLICY.format(name="ordinary", paths="host", programs='"/usr/**"', place=place),
        "contained": POLICY.format(name="contained", paths="root", programs='"/usr/**", "/bin/**"', place=place),
    }


@contextmanager
def ssh_server(folder: Path) -> Iterator[Server]:
    """Keys in ``folder``, and an sshd that is nobody's agent; ended with the block."""
    for name in ("key", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/key.pub\nStrictModes no\n"
        f"PidFile none\nUsePAM no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\nMaxStartups 100\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in; made by its unit where there is systemd
    command = [shutil.which("sshd", path=SEARCHED) or "sshd", "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log) as server:
        try:
            _wait_for_port(port, server, folder / "log")
            yield Server(port, folder)
        finally:
            server.terminate()


def _wait_for_port(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    ends = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=10).close()
            return
        except ConnectionRefusedError:
            assert server.poll() is None and time.monotonic() < ends, log.read_text()
            time.sleep(0.05)


class Life:
    """A daemon that was started with ``policies(place)``, an agent under each, an sshd: what rows are lived with."""

    def __init__(self, hostwarden: Hostwarden, place: Path, server: Server) -> None:
        self.hostwarden, self.place = hostwarden, place
        self.environment = {
            "PATH": SEARCHED,
            "LC_ALL": "C.UTF-8",
            "LIFE_PYTHON": sys.executable,
            "LIFE_SSHD": str(server.port),
            "LIFE_KEYS": str(server.keys),
        }
        self.nobodys = Outsider()
        self.agents: dict[str, Resident] = {}
        for name in ("ordinary", "contained"):
            self.agents[name] = Resident(hostwarden, name, f"life={name}", place / f"marker-{name}")
            self.agents[name].attempt(["true"])  # it is there, and so are the records of its start

    def close(self) -> None:
        """End the agents."""
        for agent in self.agents.values():
            agent.close()

    def problems(self, row: str) -> list[str]:
        """Live a row twice: what differs, what was refused, who is in the records and shouldn't be."""
        agent = self.agents["contained" if row == CONTAINER else "ordinary"]
        since = self.hostwarden.sequence
        free, _ = self._live(row, self.nobodys)
        bound, records = self._live(row, agent)
        found = [] if free.code == 0 and free.output.endswith(SECRET) else [f"fails by itself: {free}"]
        found += differences(replace(free, output=free.output.removesuffix(SECRET)), bound)
        refused = [record for record in records if record["verdict"] not in ("allow", "audit", None)]
        own = [record for record in refused if record["target"] == f"{self.place}/{row}/secret/.env"]
        if [(record["action"], record["verdict"]) for record in own] != [("read", "deny")]:
            found.append(f"the policy wasn't in force: {own}")
        found += [f"refused: {record}" for record in refused if record not in own]
        others = [record for record in self.hostwarden.events(since) if record["agent"] != agent.name]
        return found + [f"not the agent's: {record}" for record in others]

    def _live(self, row: str, who: Resident | Outsider) -> tuple[Ending, tuple[Record, ...]]:
        folder = self.place / row
        for name in ("home", "tmp", "secret"):
            (folder / name).mkdir(parents=True)
        (folder / "secret" / ".env").write_text(SECRET)
        settings = {**self.environment, "HOME": f"{folder}/home", "TMPDIR": f"{folder}/tmp"}
        argv: list[str | Path] = ["env", "-i", "-C", folder, *(f"{name}={value}" for name, value in settings.items())]
        done = who.attempt([*argv, "sh", "-c", WRAPPER, "sh", SCRIPTS / f"{row}.sh"], timeout_s=ROW_S)
        ending = Ending(done.code, done.out, done.err, look(folder / "world"))
        shutil.rmtree(folder)
        return ending, done.records


@contextmanager
def started(hostwarden: Hostwarden, place: Path, start: Callable[[], None]) -> Iterator[Life]:
    """What rows are lived with, in ``place``. ``start`` starts the daemon, which has its policies by then."""
    place.chmod(0o755)
    for name, text in policies(place).items():
        (hostwarden.policy_dir / f"{name}.yaml").write_text(text)
    start()
    (place / "sshd").mkdir()
    with ssh_server(place / "sshd") as server:
        life = Life(hostwarden, place, server)
        try:
            yield life
        finally:
            life.close()


def differences(free: Ending, bound: Ending) -> list[str]:
    """What the agent's run came to, and nobody's didn't."""
    found = [
        f"{name}: {getattr(bound, name)!r}, not {getattr(free, name)!r}"
        for name in ("code", "output", "errors")
        if getattr(bound, name) != getattr(free, name)
    ]
    names = sorted({*free.world, *bound.world})
    return found + [
        f"{name}: {bound.world.get(name)}, not {free.world.get(name)}"
        for name in names
        if bound.world.get(name) != free.world.get(name)
    ]


def look(folder: Path) -> dict[str, str]:
    """What is below a folder: kind, mode, owner, and content or target of everything."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            status = path.lstat()
            kind = stat.filemode(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                said = str(path.readlink())
            elif stat.S_ISREG(status.st_mode):
                said = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            else:
                said = str(status.st_rdev)
            found[str(path.relative_to(folder))] = f"{kind} {status.st_uid}:{status.st_gid} {said}"
    return found
