"""Ordinary life under a policy that allows it: what people do (``life/*.sh``), as nobody's agent and as an agent.

Both times in the same empty folder, with the same environment: exit code, output and what is left in ``world/`` must
be equal, the agent must have been refused nothing, and who is no agent must not appear in the records at all. Each run
ends with the one thing that the policy forbids, reading a ``.env``: so the policy was in force, and since refusals come
in their order, those of before are in the log, too.
"""

import hashlib
import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hostwarden.policy.words import POLICY_ACTIONS
from tests.host.conftest import Hostwarden, Record

SCRIPTS = Path(__file__).parent / "life"
ROWS = tuple(sorted(path.stem for path in SCRIPTS.glob("*.sh")))
TOOLS = ("git", "gcc", "make", "tmux", "ssh", "sshd", "rsync", "node", "npm", "sqlite3", "unshare", "python3")
SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ROW_S = 300  # for one run of one row, where the processor is emulated and others use it
SECRET = "the secret"
# Says how the row ended, whatever comes of the last attempt.
WRAPPER = 'bash "$1"; code=$?; cat secret/.env 2>/dev/null; exit $code'

POLICY = """policy: life
for: {{team: life}}
{paths}
rules:
  - deny: [read, write]
    path: ["**/.env", "**/.ssh/**"]
  - deny: exec
    argv: ["* rm -rf /", "git push --force*"]
  - allow: exec
    path: [{programs}]
  - allow: [connect, send]
    to: ["127.0.0.0/8:*", "unix:**"]
  - deny: [ptrace, signal]
otherwise: {{exec: deny, connect: deny, send: deny}}
"""
# A row's own words: a container's programs are those of its own root.
CONTAINED = "paths: root"


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


def policy(row: str, place: Path) -> str:
    """The policy that a row's agent is under: what it needs, and not much else."""
    programs = '"**"' if row == "container" else f'"/usr/**", "{place}/**"'
    return POLICY.format(paths=CONTAINED if row == "container" else "", programs=programs)


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


def live(row: str, hostwarden: Hostwarden, place: Path, server: Server) -> None:
    """A row, twice, in ``place``; AssertionError says what differs or was refused."""
    environment = {
        "PATH": SEARCHED,
        "LC_ALL": "C.UTF-8",
        "HOME": f"{place}/home",
        "TMPDIR": f"{place}/tmp",
        "LIFE_SSHD": str(server.port),
        "LIFE_KEYS": str(server.keys),
    }
    argv = ["sh", "-c", WRAPPER, "sh", str(SCRIPTS / f"{row}.sh")]
    hostwarden.set_policies(life=policy(row, place))
    since = hostwarden.sequence
    with _emptied(place):
        done = subprocess.run(
            argv, cwd=place, env=environment, capture_output=True, text=True, timeout=ROW_S, stdin=subprocess.DEVNULL
        )
        free = Ending(done.returncode, done.stdout.removesuffix(SECRET), done.stderr, look(place / "world"))
        assert done.returncode == 0, free
        assert done.stdout.endswith(SECRET)
    with _emptied(place):
        done = hostwarden.run(
            argv, agent=f"life-{row}", labels="team=life", cwd=place, env=environment, timeout_s=ROW_S
        )
        bound = Ending(done.returncode, done.stdout, done.stderr, look(place / "world"))
    hostwarden.wait_for(since, target=f"{place}/secret/.env", verdict="deny")
    records = hostwarden.events(since)
    assert refusals(records, place) == []
    assert bound == free
    assert strangers(records, f"life-{row}") == []


def refusals(records: Sequence[Record], place: Path) -> list[str]:
    """What the agent was refused, but for what it is refused on purpose."""
    expected = f"{place}/secret/.env"
    return [
        f"{record['action']} {record['target']} {record['verdict']} ({record['rule']}, {record['process']['exe']})"
        for record in records
        if record["verdict"] not in ("allow", None) and record["target"] != expected
    ]


def strangers(records: Sequence[Record], agent: str) -> list[Record]:
    """Actions of others than the agent."""
    actions = {action.name.lower() for action in POLICY_ACTIONS} | {"capability", "kernel"}
    return [record for record in records if record["action"] in actions and record["agent"] != agent]


@contextmanager
def _emptied(place: Path) -> Iterator[None]:
    """The folder as each run finds it; empty again afterwards."""
    for name in ("home", "tmp", "secret"):
        (place / name).mkdir()
    (place / "secret" / ".env").write_text(SECRET)
    try:
        yield
    finally:
        for entry in place.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


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
