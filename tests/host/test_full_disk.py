"""The disk under state_dir is full, then isn't: verdicts don't depend on it, loss is said, the log is whole."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.host.attempts import attempting
from tests.host.conftest import Hostwarden

Program = Callable[[str], Path]
SIZE = "6m"


@pytest.fixture(scope="module")
def small(start_hostwarden: Callable[..., Hostwarden]) -> Iterator[Hostwarden]:
    """A daemon whose state_dir is a small file system of its own, with small rings."""
    daemon = start_hostwarden("events_ring_kib = 64\ndenials_ring_kib = 64\nsegment_mib = 1", start=False)
    daemon.state_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", daemon.state_dir], check=True)
    try:
        daemon.start()
        yield daemon
        daemon.take_down()
    finally:
        subprocess.run(["umount", daemon.state_dir], check=True)


@pytest.fixture
def secret(small: Hostwarden, folder: Path) -> Path:
    """What agents may not read."""
    path = folder / "secret"
    path.write_text("bytes")
    small.set_policies(p=f"policy: p\nfor: {{team: test}}\nrules:\n  - deny: read\n    path: {path}\n")
    return path


@pytest.fixture
def ballast(small: Hostwarden) -> Iterator[Path]:
    """What fills the disk; removed at the end, whatever happens."""
    path = small.state_dir / "ballast"
    yield path
    path.unlink(missing_ok=True)


def fill(ballast: Path) -> None:
    """To the last byte."""
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def counted(small: Hostwarden, name: str, target: Path) -> int:
    """Reads of the agent that are recorded, and those that are counted lost."""
    records = [record for record in small.events() if record["agent"] == name]
    recorded: int = sum(record["target"] == str(target) for record in records)
    lost = sum(int(record["lost"]) for record in records if record["action"] == "loss")
    return recorded + lost


def check_log(small: Hostwarden) -> None:
    records = small.events()
    assert [record["sequence"] for record in records] == list(range(1, len(records) + 1))
    rings = [record["ring"] for record in records if "ring" in record]
    assert len(rings) == len(set(rings))
    verified = small.command("audit", "verify", str(small.state_dir))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "Traceback" not in small.log_file.read_text(), small.log_file.read_text()


def test_full_and_free_again(small: Hostwarden, program: Program, folder: Path, secret: Path, ballast: Path) -> None:
    """More is tried than the rings hold: every try is refused, and in the end recorded or counted, exactly."""
    name = f"full-{os.getpid()}"
    with attempting(small, program, "read", secret, folder / "counters", agent=name, period_s=0.001) as attempts:
        fill(ballast)
        small.wait_until(lambda: bool(small.status()["log_full"]))
        attempts.go_on(1000)
        assert small.process and small.process.poll() is None
        ballast.unlink()
        small.wait_until(lambda: not small.status()["log_full"])
        attempts.go_on(50)
    small.wait_until(lambda: counted(small, name, secret) >= attempts.tries)
    assert counted(small, name, secret) == attempts.tries
    assert small.status()["lost"] == sum(r["lost"] for r in small.events(agent=name, action="loss")) > 0
    check_log(small)


def test_while_full_people_can_still_act(small: Hostwarden, folder: Path, secret: Path, ballast: Path) -> None:
    """Kill ends an agent at once and shuts its labels; a policy change is whole or refused; all is recorded later."""
    name, since = f"ended-{os.getpid()}", small.sequence
    with small.spawn_agent(["sleep", "60"], agent=name, labels="full=yes") as running:
        small.wait_for(since, agent=name, action="exec")
        fill(ballast)
        killed = small.command("kill", "--label", "full=yes")
        assert (killed.returncode, killed.stderr) == (0, "")
        assert running.wait(timeout=10) == 137
    refused = small.run(["touch", str(folder / "marker")], labels="full=yes")
    assert refused.returncode == 2 and not (folder / "marker").exists()
    started = small.run(["cat", str(secret)])  # no answer of the daemon's waits for the disk
    assert (started.returncode, started.stdout) == (137, "")
    assert small.process
    small.process.send_signal(signal.SIGHUP)
    started = small.run(["cat", str(secret)])
    assert (started.returncode, started.stdout) == (137, "")
    assert small.process.poll() is None
    ballast.unlink()
    small.wait_for(since, action="kill", target="full=yes")
    small.wait_for(since, action="policy")
    assert small.status()["blocked"] == [{"full": "yes"}]
    small.wait_until(lambda: '"full"' in (small.state_dir / "state.json").read_text())
    assert small.command("release", "--label", "full=yes").returncode == 0
    assert small.run(["cat", str(secret)]).returncode == 137
    check_log(small)


def test_the_mount_table_changes_while_full(small: Hostwarden, folder: Path, secret: Path, ballast: Path) -> None:
    """New tables need a file of the daemon's own: without space for it the old ones decide on, and it lives."""
    fill(ballast)
    mounted = folder / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mounted], check=True)
    try:
        for _ in range(3):
            assert small.run(["cat", str(secret)]).returncode == 137
        assert small.process and small.process.poll() is None
    finally:
        subprocess.run(["umount", mounted], check=True)
    ballast.unlink()
    small.wait_until(lambda: not small.status()["log_full"])
    assert small.run(["cat", str(secret)]).returncode == 137
    check_log(small)


def test_restart_while_full(small: Hostwarden, program: Program, folder: Path, secret: Path, ballast: Path) -> None:
    """It may not start, but says why in one line, and never unguards anything."""
    name = f"again-{os.getpid()}"
    with attempting(small, program, "read", secret, folder / "counters", agent=name) as attempts:
        fill(ballast)
        assert small.stop() in (0, 1)
        attempts.go_on()
        before = len(small.log_file.read_text())
        process = small.spawn()
        small.wait_until(lambda: process.poll() is not None or small.is_ready())
        process.kill()
        said = small.log_file.read_text()[before:]
        if process.wait() == 1:  # else it runs, and waits for space
            lines = [line for line in said.splitlines() if line != "hostwardend: probes adopted"]
            assert 1 <= len(lines) <= 2 and "No space left" in lines[0], said
        assert "Traceback" not in said
        attempts.go_on()
        ballast.unlink()
        small.start()
    small.wait_until(lambda: counted(small, name, secret) >= attempts.tries)
    assert counted(small, name, secret) == attempts.tries
    check_log(small)
