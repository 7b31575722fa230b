"""From an agent's action to the collector's store: whoever dies on the way, every record is there once, in order."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.host.attempts import Attempts, attempting
from tests.host.conftest import PROGRAMS, Hostwarden, Record

Program = Callable[[str], Path]
WAIT_S = 60


class Collector:
    """One hostwarden-collector on a unix socket, below ``root``."""

    def __init__(self, root: Path) -> None:
        self.address = f"unix:{root}/collector.sock"
        self.config, self.log_file = root / "collector.toml", root / "collector.log"
        self.config.write_text(f'[collector]\nlisten = "{self.address}"\nstore = "sqlite:///{root}/records.db"\n')
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, wait until it answers."""
        argv = [str(PROGRAMS / "hostwarden-collector"), "--config", str(self.config)]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        ends = time.monotonic() + WAIT_S
        while self.command("status").returncode != 0:
            assert self.process.poll() is None and time.monotonic() < ends, self.log_file.read_text()

    def stop(self, number: int) -> None:
        """End it with a signal."""
        assert self.process
        self.process.send_signal(number)
        self.process.wait(timeout=30)

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`hostwarden --collector … ARGUMENTS`."""
        argv = [str(PROGRAMS / "hostwarden"), "--collector", self.address, *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60)

    def lines(self, *arguments: str) -> list[str]:
        """What `events --json` prints."""
        done = self.command("--json", "events", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    def stored(self, host: str) -> int:
        """The last sequence that it has of a host."""
        done = self.command("--json", "status")
        assert done.returncode == 0, done.stderr
        hosts = json.loads(done.stdout)["hosts"]
        return int(hosts[host]["sequence"]) if host in hosts else 0


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    found = Collector(tmp_path_factory.mktemp("c"))
    found.start()
    yield found
    if found.process and found.process.poll() is None:
        found.stop(signal.SIGTERM)


@pytest.fixture(scope="module")
def sender(start_hostwarden: Callable[..., Hostwarden], collector: Collector) -> Hostwarden:
    """A daemon that streams to the collector."""
    return start_hostwarden(collector=f'addresses = ["{collector.address}"]')


@pytest.fixture
def secret(sender: Hostwarden, folder: Path) -> Path:
    """What agents may not read."""
    path = folder / "secret"
    path.write_text("bytes")
    sender.set_policies(p=f"policy: p\nfor: {{team: test}}\nrules:\n  - deny: read\n    path: {path}\n")
    return path


def host_lines(sender: Hostwarden) -> list[str]:
    done = sender.command("--json", "events")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def check_equal(sender: Hostwarden, collector: Collector) -> list[Record]:
    """The collector has the host's own lines, byte for byte, each once, in order, from 1; all of them."""
    here = host_lines(sender)
    host = json.loads(here[0])["host"]
    sender.wait_until(lambda: collector.stored(host) >= len(here))
    there = collector.lines()
    assert there[: len(here)] == here
    records = [json.loads(line) for line in there]
    assert [record["sequence"] for record in records] == list(range(1, len(records) + 1))
    return records


def mine(records: list[Record], agent: str, target: Path) -> list[Record]:
    return [record for record in records if record["agent"] == agent and record["target"] == str(target)]


def test_what_an_agent_does_reaches_the_collector(sender: Hostwarden, collector: Collector, secret: Path) -> None:
    name = f"streamed-{os.getpid()}"
    assert sender.run(["cat", str(secret)], agent=name).returncode == 137
    (record,) = mine(check_equal(sender, collector), name, secret)
    assert (record["verdict"], record["outcome"]) == ("deny", "killed_before_effect")
    sender.wait_until(lambda: sender.status()["collector"]["phase"] == "streaming")
    # and can be asked for there as at home
    for arguments in (["--agent", name], ["--verdict", "deny"], ["--since", str(record["sequence"] - 1)]):
        assert record in [json.loads(line) for line in collector.lines(*arguments)]
    assert collector.lines("--host", record["host"]) == collector.lines()
    assert collector.lines("--host", "another") == []
    shown = collector.command("status")
    assert (shown.returncode, shown.stderr) == (0, "") and record["host"] in shown.stdout


def test_collector_dies_in_mid_stream(
    sender: Hostwarden, collector: Collector, program: Program, folder: Path, secret: Path
) -> None:
    """Four times, at any point of what it does; the host goes on recording, and sends again what has no answer."""
    name = f"dies-{os.getpid()}"
    with attempting(sender, program, "read", secret, folder / "counters", agent=name, period_s=0.002) as attempts:
        for _ in range(4):
            attempts.go_on(100)
            collector.stop(signal.SIGKILL)
            attempts.go_on(50)
            collector.start()
    check_all_arrived(sender, collector, attempts, name, secret)


def check_all_arrived(sender: Hostwarden, collector: Collector, attempts: Attempts, name: str, secret: Path) -> None:
    sender.wait_for(agent=name, target=str(secret), count=attempts.tries)
    records = check_equal(sender, collector)
    assert len(mine(records, name, secret)) == attempts.tries
    rings = [record["ring"] for record in records if "ring" in record]
    assert len(rings) == len(set(rings))


def test_daemon_dies_in_mid_stream(
    sender: Hostwarden, collector: Collector, program: Program, folder: Path, secret: Path
) -> None:
    """What was streamed was on disk before: numbering goes on, and nothing that the collector has is another's."""
    name = f"restarts-{os.getpid()}"
    with attempting(sender, program, "read", secret, folder / "counters", agent=name, period_s=0.005) as attempts:
        for how in (signal.SIGKILL, signal.SIGTERM):
            attempts.go_on(100)
            sender.stop(how)
            sender.start()
    check_all_arrived(sender, collector, attempts, name, secret)


def test_both_die(sender: Hostwarden, collector: Collector, program: Program, folder: Path, secret: Path) -> None:
    """The collector first, and it comes back last: the host's log on disk is what bridges the time."""
    name = f"both-{os.getpid()}"
    with attempting(sender, program, "read", secret, folder / "counters", agent=name) as attempts:
        collector.stop(signal.SIGKILL)
        attempts.go_on(50)
        sender.stop(signal.SIGKILL)
        attempts.go_on(50)
        sender.start()
        assert sender.status()["ready"] is True  # a host needs no collector
        collector.start()
    check_all_arrived(sender, collector, attempts, name, secret)
    gaps = [record for record in check_equal(sender, collector) if record["action"] == "gap"]
    assert gaps and all(gap["lost"] == 0 for gap in gaps)


def test_commands_that_work_on_a_host_only(collector: Collector) -> None:
    for command in (["ps"], ["kill", "--label", "team=test"], ["arm"]):
        done = collector.command(*command)
        assert (done.returncode, done.stdout) == (2, "")
        assert "doesn't work through a collector" in done.stderr


def test_no_collector(sender: Hostwarden, collector: Collector, tmp_path: Path) -> None:
    argv = [str(PROGRAMS / "hostwarden"), "--collector", f"unix:{tmp_path}/none.sock", "events"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 2


def test_the_hosts_log_verifies_after_all_that(sender: Hostwarden) -> None:
    done = sender.command("audit", "verify", str(sender.state_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in sender.log_file.read_text()
