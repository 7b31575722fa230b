"""The way out of a policy that locks out its operator: disarm, arm, --off. Each is recorded with who asked."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import PROGRAMS, Hostwarden

NOBODY = 65534
KILLED = 128 + signal.SIGKILL


@pytest.fixture
def secret(hostwarden: Hostwarden, folder: Path) -> Path:
    """A file that agents may not read; armed."""
    path = folder / "secret"
    path.write_text("bytes")
    hostwarden.set_policies(p=f"policy: p\nfor: {{team: test}}\nrules:\n  - deny: read\n    path: {path}\n")
    assert hostwarden.status()["armed"] is True
    return path


@pytest.fixture
def waiting(hostwarden: Hostwarden) -> Iterator["subprocess.Popen[str]"]:
    """A shell that is an agent and runs what it is told to on stdin."""
    pipe = subprocess.PIPE
    name, since = f"shell-{os.getpid()}", hostwarden.sequence
    with hostwarden.spawn_agent(["sh"], agent=name, stdin=pipe, stdout=pipe, stderr=pipe) as shell:
        hostwarden.wait_for(since, agent=name, action="exec")
        try:
            yield shell
        finally:
            assert shell.stdin
            shell.stdin.close()


def ask(hostwarden: Hostwarden, *arguments: str) -> tuple[int, int]:
    """A command's exit code, and the pid under which it ran."""
    with subprocess.Popen(hostwarden.command_line(*arguments), stdout=subprocess.DEVNULL) as process:
        return process.wait(timeout=30), process.pid


def test_disarmed_is_allowed_and_recorded_armed_is_enforced_again(hostwarden: Hostwarden, secret: Path) -> None:
    since = hostwarden.sequence
    code, pid = ask(hostwarden, "disarm")
    assert code == 0
    done = hostwarden.run(["cat", str(secret)])
    assert (done.returncode, done.stdout) == (0, "bytes")
    record = hostwarden.wait_for(since, action="read", target=str(secret))[0]
    assert (record["verdict"], record["outcome"], record["rule"]) == ("deny", "observed", "p.yaml:4")
    assert "disarmed" in record["flags"]
    act = hostwarden.wait_for(since, action="disarm")[0]
    assert (act["role"], act["process"]["uid"], act["process"]["pid"]) == ("admin", 0, pid)
    assert hostwarden.status()["armed"] is False
    code, pid = ask(hostwarden, "arm")
    assert code == 0
    act = hostwarden.wait_for(since, action="arm")[0]
    assert (act["role"], act["process"]["pid"]) == ("admin", pid)
    assert hostwarden.run(["cat", str(secret)]).returncode == KILLED


def test_disarmed_stays_so_over_a_restart_until_arm(hostwarden: Hostwarden, secret: Path) -> None:
    assert ask(hostwarden, "disarm")[0] == 0
    hostwarden.stop(signal.SIGKILL)
    assert hostwarden.spawn().poll() is None
    hostwarden.wait_until(lambda: hostwarden.command("status").returncode != 3)
    status = hostwarden.status()
    assert status["armed"] is False
    assert hostwarden.run(["cat", str(secret)]).stdout == "bytes"
    assert ask(hostwarden, "arm")[0] == 0
    assert hostwarden.run(["cat", str(secret)]).returncode == KILLED
    assert hostwarden.status()["ready"] is True


def test_run_of_another_user_is_recorded_as_his(hostwarden: Hostwarden, secret: Path) -> None:
    secret.chmod(0o644)
    since = hostwarden.sequence
    name = f"nobodys-{os.getpid()}"
    done = hostwarden.run(["cat", str(secret)], agent=name, user=NOBODY, group=NOBODY, extra_groups=[])
    assert (done.returncode, done.stdout) == (KILLED, "")
    act = hostwarden.wait_for(since, action="run", agent=name)[0]
    assert (act["role"], act["process"]["uid"]) == ("agent", NOBODY)
    read = hostwarden.wait_for(since, action="read", agent=name, target=str(secret))[0]
    assert (read["verdict"], read["process"]["uid"]) == ("deny", NOBODY)


def test_off_refuses_while_a_daemon_runs(hostwarden: Hostwarden, secret: Path) -> None:
    done = hostwarden.off()
    assert done.returncode == 1
    assert "another hostwardend runs" in done.stderr and "stop it first" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert hostwarden.run(["cat", str(secret)]).returncode == KILLED


def test_off_is_not_for_agents(hostwarden: Hostwarden, secret: Path, waiting: "subprocess.Popen[str]") -> None:
    """Whether a daemon runs or not; and the agent's child is still the agent."""
    off = f"{PROGRAMS}/hostwardend --config {hostwarden.config} --off"
    assert waiting.stdin and waiting.stdout
    for is_running in (True, False):
        if not is_running:
            hostwarden.stop()
        waiting.stdin.write(f"setsid {off}\necho code $?\n")
        waiting.stdin.flush()
        assert waiting.stdout.readline() == "code 4\n"
    assert hostwarden.bpffs.is_mount() and list(hostwarden.bpffs.glob("link_*"))
    hostwarden.start()
    assert hostwarden.run(["cat", str(secret)]).returncode == KILLED


def test_off_removes_every_pin_and_the_mount(
    hostwarden: Hostwarden, secret: Path, waiting: "subprocess.Popen[str]"
) -> None:
    """What was denied a moment ago is free; the next start loads anew."""
    hostwarden.stop()
    assert list(hostwarden.bpffs.glob("link_*"))
    done = hostwarden.off()
    assert done.returncode == 0
    assert "nothing is enforced" in done.stderr
    assert not hostwarden.bpffs.is_mount()
    assert str(hostwarden.bpffs) not in Path("/proc/self/mountinfo").read_text()
    assert waiting.stdin and waiting.stdout
    waiting.stdin.write(f"cat {secret}; echo\n")
    waiting.stdin.flush()
    assert waiting.stdout.readline() == "bytes\n"
    assert hostwarden.off().returncode == 0  # nothing is there any more: done, too
    hostwarden.start()
    assert hostwarden.run(["cat", str(secret)]).returncode == KILLED
    records = hostwarden.events()
    assert [record["sequence"] for record in records] == list(range(1, len(records) + 1))


def test_off_needs_root(hostwarden: Hostwarden) -> None:
    command: list[str | Path] = [PROGRAMS / "hostwardend", "--config", hostwarden.config, "--off"]
    done = subprocess.run(command, capture_output=True, text=True, user=NOBODY, group=NOBODY, extra_groups=[])
    assert done.returncode == 4
    assert done.stderr.splitlines()[0] == "hostwardend: hostwardend needs root: it loads programs into the kernel"
