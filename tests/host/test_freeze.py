"""Freeze: a verdict or a responder stops a whole agent; it stands still, over a restart too, until it is released."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.conftest import Hostwarden

LABELS = "team=freeze"
STILL_S = 0.3  # who isn't stopped writes some thousand bytes meanwhile
COUNTER = 'while :; do echo; done >> "$0"'  # no action after the first: it must be stopped where it is

Start = Callable[[Path], str]


@pytest.fixture
def secret(hostwarden: Hostwarden, folder: Path) -> Path:
    """A file whose reading freezes the agent."""
    file = folder / "secret"
    file.write_text("bytes")
    text = f"policy: p\nfor: {{team: freeze}}\nrules:\n  - freeze: read\n    path: {file}\n    why: ask\n"
    hostwarden.set_policies(p=text)
    return file


@pytest.fixture(params=["run", "adopt"])
def agent(request: pytest.FixtureRequest, hostwarden: Hostwarden, folder: Path) -> Iterator[str]:
    """An agent that counts: in a cgroup of its own, or adopted where it is. Released and ended at the end."""
    name = f"freeze-{os.getpid()}-{request.param}"
    argv = ["sh", "-c", COUNTER, str(folder / "count")]
    with started(hostwarden, name, argv) if request.param == "run" else adopted(hostwarden, name, argv):
        hostwarden.wait_until(lambda: count(folder) > 0)
        yield name
        hostwarden.command("release", "--label", LABELS)
        hostwarden.command("kill", "--label", LABELS)
        hostwarden.command("release", "--label", LABELS)


@contextmanager
def started(hostwarden: Hostwarden, name: str, argv: list[str]) -> Iterator[None]:
    with hostwarden.spawn_agent(argv, agent=name, labels=LABELS):
        yield


@contextmanager
def adopted(hostwarden: Hostwarden, name: str, argv: list[str]) -> Iterator[None]:
    with subprocess.Popen(argv) as process:
        done = hostwarden.command("adopt", "--pid", str(process.pid), "--agent", name, "--label", LABELS)
        assert done.returncode == 0, done.stderr
        yield


def count(folder: Path) -> int:
    """How far it has come."""
    file = folder / "count"
    return file.stat().st_size if file.exists() else 0


def is_still(folder: Path) -> bool:
    """Whether it counts no more."""
    before = count(folder)
    time.sleep(STILL_S)
    return count(folder) == before


def state(hostwarden: Hostwarden, name: str) -> str | None:
    found = hostwarden.agent(name)
    return None if found is None else str(found["state"])


def test_a_verdict_stops_the_whole_agent(hostwarden: Hostwarden, agent: str, secret: Path, folder: Path) -> None:
    since = hostwarden.sequence
    culprit = hostwarden.run(["cat", str(secret)], agent=agent, labels=LABELS)
    assert (culprit.returncode, culprit.stdout) == (128 + signal.SIGKILL, "")
    record = hostwarden.wait_for(since, action="freeze")[0]
    assert (record["agent"], record["target"], record["process"]) == (agent, LABELS, None)
    assert record["detail"]["agents"] == [agent]
    assert (record["detail"]["rule"], record["detail"]["policy"]) == ("p.yaml:4", "p")
    assert record["detail"]["left"] == []
    read = hostwarden.events(since, action="read", verdict="freeze")[0]
    assert (read["target"], read["rule"], read["outcome"]) == (str(secret), "p.yaml:4", "killed_before_effect")
    assert state(hostwarden, agent) == "frozen"
    assert is_still(folder)

    refused = hostwarden.run(["touch", str(folder / "marker")], agent=agent, labels=LABELS)
    assert refused.returncode == 2
    assert f"the agent {agent} is frozen" in refused.stderr
    assert f"hostwarden release --agent {agent}" in refused.stderr
    assert not (folder / "marker").exists()

    released = hostwarden.command("--json", "release", "--agent", agent)
    assert (released.returncode, json.loads(released.stdout)) == (0, {"agents": [agent]})
    hostwarden.wait_until(lambda: not is_still(folder))
    assert state(hostwarden, agent) == "running"
    assert hostwarden.run(["true"], agent=agent, labels=LABELS).returncode == 0


def test_a_responder_stops_and_releases_by_label(hostwarden: Hostwarden, agent: str, folder: Path) -> None:
    since = hostwarden.sequence
    done = hostwarden.command("--json", "freeze", "--label", LABELS)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"frozen": 1, "agents": [agent], "left": []}
    assert is_still(folder)
    assert state(hostwarden, agent) == "frozen"
    assert {"team": "freeze"} in hostwarden.status()["frozen"]
    record = hostwarden.wait_for(since, action="freeze")[0]
    assert (record["target"], record["role"], record["detail"]["frozen"]) == (LABELS, "admin", 1)
    other = hostwarden.run(["true"], agent="another", labels=LABELS)
    assert other.returncode == 2
    assert "are frozen and may not start again" in other.stderr
    assert hostwarden.command("release", "--label", LABELS).returncode == 0
    hostwarden.wait_until(lambda: not is_still(folder))
    assert hostwarden.status()["frozen"] == []


def test_who_is_made_to_run_is_stopped_again(hostwarden: Hostwarden, agent: str, folder: Path) -> None:
    assert hostwarden.command("freeze", "--label", LABELS).returncode == 0
    found = hostwarden.agent(agent)
    assert found is not None
    for pid in found["pids"]:
        os.kill(pid, signal.SIGCONT)
    hostwarden.wait_until(lambda: is_still(folder))
    assert is_still(folder)


def test_it_outlives_the_daemon(hostwarden: Hostwarden, agent: str, folder: Path) -> None:
    assert hostwarden.command("freeze", "--label", LABELS).returncode == 0
    hostwarden.stop(signal.SIGKILL)
    assert is_still(folder)
    hostwarden.start()
    assert state(hostwarden, agent) == "frozen"
    assert is_still(folder)
    assert hostwarden.command("release", "--label", LABELS).returncode == 0
    hostwarden.wait_until(lambda: not is_still(folder))


def test_a_verdict_while_nobody_records_counts_at_the_next_start(
    hostwarden: Hostwarden, agent: str, secret: Path, folder: Path
) -> None:
    trigger = folder / "trigger"
    waiting = f": > {folder}/began; while [ ! -e {trigger} ]; do :; done; cat {secret}"
    with hostwarden.spawn_agent(["sh", "-c", waiting], agent=agent, labels=LABELS):
        hostwarden.wait_until(
            (folder / "began").exists
        )  # it is bound before it is executed, and `run` waits for a word
        since = hostwarden.sequence
        hostwarden.stop(signal.SIGKILL)
        trigger.touch()
        hostwarden.start()
        assert hostwarden.wait_for(since, action="freeze")[0]["agent"] == agent
        assert state(hostwarden, agent) == "frozen" and is_still(folder)
        hostwarden.command("release", "--agent", agent)


@pytest.mark.parametrize("mode", ["observe", "disarmed"])
def test_nobody_is_stopped_by_what_is_only_observed(
    hostwarden: Hostwarden, agent: str, secret: Path, folder: Path, mode: str
) -> None:
    if mode == "observe":
        text = (hostwarden.policy_dir / "p.yaml").read_text()
        hostwarden.set_policies(p=text.replace("rules:", "mode: observe\nrules:", 1))
    else:
        assert hostwarden.command("disarm").returncode == 0
    try:
        since = hostwarden.sequence
        assert hostwarden.run(["cat", str(secret)], agent=agent, labels=LABELS).stdout == "bytes"
        hostwarden.wait_for(since, action="read", verdict="freeze")
        assert not is_still(folder)
        assert state(hostwarden, agent) == "running"
        assert hostwarden.events(since, action="freeze") == []
    finally:
        hostwarden.command("arm")
