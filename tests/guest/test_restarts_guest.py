"""The daemon dies, stands still, comes back, is started twice, changes its policies, while an agent tries everything
that is denied every millisecond: not one try is a success.
"""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.guest.daemon import start, started
from tests.host.attempts import Attempts
from tests.host.conftest import PROGRAMS, Hostwarden
from tests.host.races import Program

RESTARTS = 20
ENDS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)  # in turn
RELOADS = 10
AGENT = "tries-everything"
MORE = 50  # tries, at the least, in each state of the daemon
pytestmark = pytest.mark.timeout(900)


def policy(folder: Path, port: int, number: int) -> str:
    """All of them deny what is tried, each by a rule of another line."""
    return f"""policy: p{number}
for: {{team: tried}}
rules:
{"".join(f"  - audit: read{chr(10)}    path: /nowhere/{n}{chr(10)}" for n in range(number))}
  - deny: [read, create, delete]
    path: ["{folder}/secret", "{folder}/kept/**"]
  - deny: exec
    path: {folder}/mark
  - deny: connect
    to: ["127.0.0.1:{port}"]
"""


class Patient(Attempts):
    """The same counters, where everything takes its time."""

    def go_on(self, more: int = MORE) -> None:
        """Wait for ``more`` tries from now; none of all so far was a success."""
        wanted, ends = self.tries + more, time.monotonic() + 120
        while self.tries < wanted:
            assert time.monotonic() < ends, f"the agent stands still at {self.tries}"
            time.sleep(0.05)
        assert self.successes == 0


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hw-tries-", dir="/var/tmp") as name:
        made = Path(name)
        made.chmod(0o755)
        (made / "kept").mkdir()
        for file in ("secret", "kept/file"):
            (made / file).write_text("bytes")
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[socket.socket]:
    """Who is not to be reached."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


@pytest.fixture(scope="module")
def daemon(folder: Path, server: socket.socket) -> Iterator[Hostwarden]:
    with started(p=policy(folder, server.getsockname()[1], 0)) as made:
        yield made


@contextmanager
def trying(daemon: Hostwarden, program: Program, folder: Path, server: socket.socket) -> Iterator[Attempts]:
    mark = folder / "mark"
    mark.write_bytes(program("mark").read_bytes())
    mark.chmod(0o755)
    counters = Patient(folder / "counters")
    port = str(server.getsockname()[1])
    argv = [
        str(program("every")),
        str(folder / "counters"),
        str(folder / "secret"),
        str(folder / "kept"),
        port,
        str(mark),
    ]
    with daemon.spawn_agent(argv, agent=AGENT, labels="team=tried") as running:
        try:
            counters.go_on()
            yield counters
            counters.go_on()
            assert running.poll() is None, "the agent didn't live through it"
        finally:
            counters.stop()
            running.wait(60)
    assert (folder / "kept/file").read_text() == "bytes" and not (folder / "kept/new").exists()
    with pytest.raises(BlockingIOError):
        server.accept()


def second_start(daemon: Hostwarden) -> "subprocess.CompletedProcess[str]":
    """Another hostwardend on the same folders."""
    command = [str(PROGRAMS / "hostwardend"), "--config", str(daemon.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def test_no_moment_is_open(daemon: Hostwarden, program: Program, folder: Path, server: socket.socket) -> None:
    assert daemon.process
    with trying(daemon, program, folder, server) as tries:
        # it stands still
        daemon.process.send_signal(signal.SIGSTOP)
        tries.go_on()
        daemon.process.send_signal(signal.SIGCONT)
        # it is started twice
        assert second_start(daemon).returncode != 0
        tries.go_on()
        # it dies and comes back; once it is killed while it stands still, once while it is starting
        for turn in range(RESTARTS):
            if turn == 3:
                daemon.process.send_signal(signal.SIGSTOP)
            daemon.stop(ENDS[turn % len(ENDS)] if turn != 3 else signal.SIGKILL)
            tries.go_on()
            if turn == 5:
                daemon.spawn()
                tries.go_on()
                daemon.stop(signal.SIGKILL)
            start(daemon)
    adopted = daemon.log_file.read_text().count("probes adopted")
    assert adopted >= RESTARTS
    refused = {record["action"] for record in daemon.events(agent=AGENT, verdict="deny")}
    assert refused == {"read", "create", "delete", "exec", "connect"}


def test_no_table_is_missing_while_policies_change(
    daemon: Hostwarden, program: Program, folder: Path, server: socket.socket
) -> None:
    port = server.getsockname()[1]
    with trying(daemon, program, folder, server) as tries:
        for turn in range(1, RELOADS + 1):
            for old in daemon.policy_dir.iterdir():
                old.unlink()
            (daemon.policy_dir / f"p{turn % 2}.yaml").write_text(policy(folder, port, turn % 2))
            daemon.reload()
            tries.go_on(10)
    assert os.listdir(daemon.policy_dir) == [f"p{RELOADS % 2}.yaml"]
