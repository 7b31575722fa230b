"""A real hostwardend on this kernel, in folders of its own: what the host suite's tests stand on.

``hostwarden`` (module scope) is one daemon for all tests of a file, armed, without policies; ``start_hostwarden`` makes
more of them for tests that break theirs. Everything is taken down again: agents killed, pins removed, bpffs unmounted.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hostwarden.wire.client import connect
from hostwarden.wire.errors import ClientError

PROGRAMS = Path(sys.executable).parent
READY_S = 60
WAIT_S = 10

Record = dict[str, Any]


class Hostwarden:
    """One daemon and everything that it keeps, below ``root``."""

    def __init__(self, root: Path, settings: str = "", collector: str = "addresses = []") -> None:
        self.root = root
        self.state_dir, self.run_dir, self.bpffs = root / "state", root / "run", root / "bpf"
        self.policy_dir, self.agents_dir = root / "policies.d", root / "agents.d"
        self.config = root / "hostwardend.toml"
        self.log_file = root / "hostwardend.log"
        for folder in (self.policy_dir, self.agents_dir):
            folder.mkdir(exist_ok=True)
        self.config.write_text(
            f"""[daemon]
state_dir = "{self.state_dir}"
run_dir = "{self.run_dir}"
policy_dir = "{self.policy_dir}"
agents_dir = "{self.agents_dir}"
bpffs_dir = "{self.bpffs}"
{settings}
[collector]
{collector}
"""
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.wait_s = WAIT_S  # for what a test waits for: in an emulated guest everything takes its time
        self._names = 0

    # life

    def start(self) -> None:
        """Start hostwardend, wait until it is ready."""
        self.spawn()
        ends = time.monotonic() + READY_S
        while not self.is_ready():
            assert self.process is not None
            assert self.process.poll() is None and time.monotonic() < ends, self.log_file.read_text()
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """Whether `status` would exit 0."""
        try:
            return bool(self.status()["ready"])
        except ClientError:
            return False

    def spawn(self) -> "subprocess.Popen[bytes]":
        """Start hostwardend and don't wait."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAMS / "hostwardend", "--config", self.config], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self.process

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def off(self) -> "subprocess.CompletedProcess[str]":
        """`hostwardend --off`."""
        return subprocess.run(
            [PROGRAMS / "hostwardend", "--config", self.config, "--off"], capture_output=True, text=True, timeout=60
        )

    def take_down(self) -> None:
        """Whatever happened: nothing of it is left."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            listed = self.command("--json", "ps")
            for line in listed.stdout.splitlines():
                for pid in json.loads(line)["pids"]:
                    with_suppressed_kill(pid)
            self.stop(signal.SIGTERM if listed.returncode == 0 else signal.SIGKILL)
        self.off()
        for cgroup in (Path("/sys/fs/cgroup/unified/hostwarden"), Path("/sys/fs/cgroup/hostwarden")):
            for folder in cgroup.iterdir() if cgroup.is_dir() else ():
                if folder.is_dir():
                    remove_quietly(folder)

    # commands

    def command_line(self, *arguments: str) -> list[str]:
        """What to execute for `hostwarden ARGUMENTS` on this daemon."""
        return [str(PROGRAMS / "hostwarden"), "--run-dir", str(self.run_dir), *arguments]

    def command(self, *arguments: str, timeout_s: float = 60, **options: Any) -> "subprocess.CompletedProcess[str]":
        """`hostwarden --run-dir … ARGUMENTS`."""
        argv = self.command_line(*arguments)
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, **options)

    def json_lines(self, *arguments: str) -> list[Record]:
        """What a command prints with --json."""
        done = self.command("--json", *arguments)
        assert done.returncode in (0, 1), (arguments, done.stderr)
        # Not splitlines(): a name may hold U+2028 or U+0085, which are no end of a line of JSON.
        return [json.loads(line) for line in done.stdout.split("\n") if line]

    # As the commands ask, and with their client, but without starting Python for each question: there are thousands.

    def status(self) -> Record:
        """`status --json`. Raises ClientError."""
        with connect(self.run_dir) as client:
            reply = client.status()
        return {"ready": reply.ready, **json.loads(reply.json)}

    def events(self, since: int = 0, **wanted: Any) -> list[Record]:
        """Records after ``since`` whose fields are as ``wanted``. Raises ClientError."""
        with connect(self.run_dir) as client:
            records = [json.loads(reply.line) for reply in client.events(since)]
        return [record for record in records if all(record.get(key) == value for key, value in wanted.items())]

    def wait_for(self, since: int = 0, *, count: int = 1, **wanted: Any) -> list[Record]:
        """``events``, as soon as there are ``count`` of them."""
        ends = time.monotonic() + self.wait_s
        while True:
            found = self.events(since, **wanted)
            if len(found) >= count or time.monotonic() > ends:
                assert len(found) >= count, (wanted, [r["action"] for r in self.events(since)][-20:])
                return found
            time.sleep(0.05)

    def wait_until(self, is_so: Callable[[], bool], timeout_s: float = 30) -> None:
        """Until something is so; fails with the daemon's log if it never is."""
        ends = time.monotonic() + timeout_s
        while not is_so():
            assert time.monotonic() < ends, self.log_file.read_text()[-2000:]
            time.sleep(0.05)

    @property
    def sequence(self) -> int:
        """The last record's number."""
        return int(self.status()["sequence"])

    # policies and agents

    def set_policies(self, **files: str) -> None:
        """Replace all policies (name → YAML) and reload; waits until they are in force."""
        for old in self.policy_dir.iterdir():
            old.unlink()
        for name, text in files.items():
            (self.policy_dir / f"{name}.yaml").write_text(text)
        self.reload()

    def reload(self) -> None:
        """SIGHUP; waits for the policy record and fails if the change was refused."""
        assert self.process is not None
        since = self.sequence
        self.process.send_signal(signal.SIGHUP)
        record = self.wait_for(since, action="policy")[0]
        assert "refused" not in record["detail"], record["detail"]

    def run(
        self, argv: Sequence[str], *, agent: str = "", labels: str = "team=test", timeout_s: float = 60, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        """`hostwarden run -- ARGV`, to its end. Each run is an agent of its own unless ``agent`` names one."""
        if not agent:
            self._names += 1
            agent = f"agent-{os.getpid()}-{self._names}"
        return self.command("run", "--agent", agent, "--label", labels, "--", *argv, timeout_s=timeout_s, **options)

    def spawn_agent(
        self, argv: Sequence[str], *, agent: str, labels: str = "team=test", **options: Any
    ) -> "subprocess.Popen[str]":
        """`hostwarden run -- ARGV` in the background."""
        command = self.command_line("run", "--agent", agent, "--label", labels, "--", *argv)
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen(command, text=True, **options)

    def agent(self, name: str) -> Record | None:
        """The line of `ps` about an agent."""
        with connect(self.run_dir) as client:
            lines = [json.loads(reply.json) for reply in client.ps()]
        return next((line for line in lines if line["agent"] == name), None)


def with_suppressed_kill(pid: int) -> None:
    """SIGKILL to what may be gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def remove_quietly(folder: Path) -> None:
    """An empty cgroup, if it is empty."""
    try:
        folder.rmdir()
    except OSError:
        return


@pytest.fixture(scope="module")
def start_hostwarden() -> Iterator[Callable[..., Hostwarden]]:
    """Make and start a daemon in folders of its own; ``start=False`` only makes it."""
    made: list[Hostwarden] = []

    def make(settings: str = "", *, start: bool = True, collector: str = "addresses = []") -> Hostwarden:
        # Not below pytest's own folder: agents under other users must be able to reach their files.
        daemon = Hostwarden(Path(tempfile.mkdtemp(prefix="hw-host-", dir="/var/tmp")), settings, collector)
        daemon.root.chmod(0o755)
        made.append(daemon)
        if start:
            daemon.start()
        return daemon

    yield make
    for daemon in made:
        daemon.take_down()
        shutil.rmtree(daemon.root, ignore_errors=True)


@pytest.fixture(scope="module")
def hostwarden(start_hostwarden: Callable[..., Hostwarden]) -> Hostwarden:
    """One daemon for all tests of a file."""
    return start_hostwarden()


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``program("attempt")``: the compiled ``programs/attempt.c``, static (a loader would open files of its own)."""
    folder = tmp_path_factory.mktemp("programs")

    def compiled(name: str) -> Path:
        binary, source = folder / name, Path(__file__).parent / "programs" / f"{name}.c"
        if not binary.exists():
            command = ["gcc", "-O2", "-static", "-pthread", "-Wall", "-Werror", "-o", str(binary), str(source)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        return binary

    return compiled


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder on the host's own file system, with a name that no other test has."""
    path = Path(tempfile.mkdtemp(prefix="hw-files-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)
