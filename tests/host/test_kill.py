"""Kill by label: complete when the command returns, also against a fork bomb; nothing new starts until `release`."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.attempts import Attempts
from tests.host.conftest import Hostwarden, Record

Program = Callable[[str], Path]
Label = Callable[[], str]
SIZE = 1000
CHAINS = 100


@pytest.fixture
def label(hostwarden: Hostwarden, request: pytest.FixtureRequest) -> Iterator[str]:
    """A label of the test's own; what was shut by it is opened again at the end."""
    text = f"kill={request.node.name.translate(str.maketrans('[]', '..'))[:60].rstrip('._-')}"
    yield text
    hostwarden.command("kill", "--label", text)
    hostwarden.command("release", "--label", text)


def alive(binary: Path) -> list[int]:
    """Processes that run ``binary``; zombies run nothing any more."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_it = os.readlink(folder / "exe") == str(binary)
            state = (folder / "stat").read_text().rpartition(") ")[2][0]
        except OSError:  # it ended meanwhile, or is a zombie
            continue
        if is_it and state not in "ZX":
            found.append(int(folder.name))
    return found


def kill(hostwarden: Hostwarden, label: str) -> Record:
    """`kill --json`: all are gone."""
    done = hostwarden.command("--json", "kill", "--label", label, "--timeout", "30s")
    assert (done.returncode, done.stderr) == (0, "")
    answer: Record = json.loads(done.stdout)
    assert answer["left"] == []
    return answer


@contextmanager
def outside(argv: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that hostwarden didn't start, in a cgroup that isn't ours, with sessions and groups of its own."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def check_shut(hostwarden: Hostwarden, label: str, marker: Path) -> None:
    """Nothing with that label starts: one line, a hint, and the program didn't run."""
    refused = hostwarden.run(["touch", str(marker)], labels=label)
    assert refused.returncode == 2
    assert refused.stdout == ""
    message, hint = refused.stderr.splitlines()
    assert "may not start again" in message
    assert f"hostwarden release --label {label}" in hint
    assert not marker.exists()


def test_tree_of_a_thousand_started_by_run(hostwarden: Hostwarden, program: Program, folder: Path, label: str) -> None:
    """Sleeping, deaf, stopped, in sessions of their own, orphaned, spinning: all, and counted."""
    name, binary = f"tree-{os.getpid()}", program("tree")
    with hostwarden.spawn_agent([str(binary), str(SIZE)], agent=name, labels=label, stdout=subprocess.PIPE) as running:
        assert running.stdout and running.stdout.readline() == "ready\n"
        agent = hostwarden.agent(name)
        assert agent and agent["processes"] == SIZE + 1 == len(alive(binary))
        since = hostwarden.sequence
        answer = kill(hostwarden, label)
        assert alive(binary) == []
        assert running.wait(timeout=10) == 128 + signal.SIGKILL
    assert (answer["killed"], answer["agents"]) == (SIZE + 1, [name])
    agent = hostwarden.agent(name)
    assert agent and (agent["state"], agent["processes"]) == ("killed", 0)
    check_shut(hostwarden, label, folder / "marker")
    record = hostwarden.wait_for(since, action="kill")[0]
    assert record["target"] == label
    assert (record["role"], record["process"]["uid"]) == ("admin", 0)
    assert (record["detail"]["killed"], record["detail"]["agents"]) == (SIZE + 1, [name])


def test_tree_of_a_thousand_that_was_adopted(
    hostwarden: Hostwarden, program: Program, folder: Path, label: str
) -> None:
    """No cgroup of ours has it. Orphans aren't its children any more, so they were never an agent's."""
    binary = program("tree")
    with outside([str(binary), str(SIZE)]) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        adopted = hostwarden.command("--json", "adopt", "--pid", str(process.pid), "--label", label)
        assert adopted.returncode == 0, adopted.stderr
        members = json.loads(adopted.stdout)["processes"]
        orphans = len([i for i in range(SIZE) if i % 6 == 4])
        assert members == SIZE + 1 - orphans
        answer = kill(hostwarden, label)
        left = alive(binary)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert answer["killed"] == members
        assert len(left) == orphans
    check_shut(hostwarden, label, folder / "marker")


def check_bomb_is_over(bomb: Attempts, binary: Path) -> None:
    """Nobody runs it, and its own count of forks stands still."""
    assert alive(binary) == []
    count = bomb.tries
    time.sleep(0.2)
    assert bomb.tries == count > CHAINS


def test_fork_bomb_started_by_run(hostwarden: Hostwarden, program: Program, folder: Path, label: str) -> None:
    name, binary, bomb = f"bomb-{os.getpid()}", program("bomb"), Attempts(folder / "counters")
    argv = [str(binary), str(bomb.file), str(CHAINS)]
    with hostwarden.spawn_agent(argv, agent=name, labels=label, stderr=subprocess.DEVNULL) as running:
        hostwarden.wait_until(lambda: bomb.tries > 20 * CHAINS)
        answer = kill(hostwarden, label)
        check_bomb_is_over(bomb, binary)
        running.wait(timeout=10)
    assert answer["agents"] == [name] and answer["killed"] > 0
    check_shut(hostwarden, label, folder / "marker")


def test_fork_bomb_that_was_adopted(hostwarden: Hostwarden, program: Program, folder: Path, label: str) -> None:
    binary, bomb = program("bomb"), Attempts(folder / "counters")
    with outside([str(binary), str(bomb.file), str(CHAINS)]) as process:
        adopted = hostwarden.command("adopt", "--pid", str(process.pid), "--label", label)
        assert adopted.returncode == 0, adopted.stderr
        assert process.stdin
        process.stdin.close()
        hostwarden.wait_until(lambda: bomb.tries > 20 * CHAINS)
        kill(hostwarden, label)
        check_bomb_is_over(bomb, binary)
    check_shut(hostwarden, label, folder / "marker")


def test_shut_until_release_also_over_a_restart(hostwarden: Hostwarden, folder: Path, label: str) -> None:
    name, marker = f"shut-{os.getpid()}", folder / "marker"
    with hostwarden.spawn_agent(["sleep", "60"], agent=name, labels=label) as running:
        hostwarden.wait_for(agent=name, action="exec")
        kill(hostwarden, label)
        running.wait(timeout=10)
    hostwarden.stop(signal.SIGKILL)
    hostwarden.start()
    agent = hostwarden.agent(name)
    assert agent and agent["state"] == "killed"
    check_shut(hostwarden, label, marker)
    hostwarden.stop()
    assert hostwarden.off().returncode == 0  # as a reboot: the kernel's half is gone
    hostwarden.start()
    check_shut(hostwarden, label, marker)
    released = hostwarden.command("release", "--label", label)
    assert (released.returncode, released.stderr) == (0, "")
    assert hostwarden.run(["touch", str(marker)], labels=label).returncode == 0
    assert marker.exists()
    again = hostwarden.command("release", "--label", label)
    assert again.returncode == 1
    assert len(again.stderr.splitlines()) == 2


def test_release_says_whom_it_lets_start_again(hostwarden: Hostwarden, label: str) -> None:
    name = f"released-{os.getpid()}"
    with hostwarden.spawn_agent(["sleep", "60"], agent=name, labels=label) as running:
        hostwarden.wait_for(agent=name, action="exec")
        kill(hostwarden, label)
        running.wait(timeout=10)
    since = hostwarden.sequence
    released = hostwarden.command("--json", "release", "--label", label)
    assert released.returncode == 0
    assert name in json.loads(released.stdout)["agents"]
    record = hostwarden.wait_for(since, action="release")[0]
    assert (record["target"], record["role"], record["process"]["uid"]) == (label, "admin", 0)
    assert hostwarden.run(["true"], agent=name, labels=label).returncode == 0


def test_others_live_on(hostwarden: Hostwarden, label: str) -> None:
    """An agent with other labels, one with more of them, and a process that is no agent's."""
    names = [f"other-{os.getpid()}", f"more-{os.getpid()}"]
    with outside(["sleep", "60"]) as stranger:
        with hostwarden.spawn_agent(["sleep", "60"], agent=names[0], labels="team=other") as other:
            more = f"{label}.and-more"
            with hostwarden.spawn_agent(["sleep", "60"], agent=names[1], labels=more) as longer:
                for name in names:
                    hostwarden.wait_for(agent=name, action="exec")
                with hostwarden.spawn_agent(["sleep", "60"], agent=f"this-{os.getpid()}", labels=label) as this:
                    hostwarden.wait_for(agent=f"this-{os.getpid()}", action="exec")
                    assert kill(hostwarden, label)["killed"] == 1
                    assert this.wait(timeout=10) == 137
                assert [process.poll() for process in (other, longer, stranger)] == [None, None, None]
                assert hostwarden.run(["true"], labels="team=other").returncode == 0
                kill(hostwarden, more)
                hostwarden.command("release", "--label", more)
            kill(hostwarden, "team=other")
            hostwarden.command("release", "--label", "team=other")


def test_agents_that_an_agent_started_end_with_it(hostwarden: Hostwarden, label: str) -> None:
    """A child agent has labels of its own, and is its parent's all the same."""
    name, binary = f"parent-{os.getpid()}", Path("/usr/bin/sleep")
    child = [str(binary), "61"]
    inner = hostwarden.command_line("run", "--agent", f"child-{os.getpid()}", "--label", "team=child", "--", *child)
    with hostwarden.spawn_agent(inner, agent=name, labels=label, stderr=subprocess.DEVNULL) as running:
        hostwarden.wait_for(agent=f"child-{os.getpid()}", action="exec")
        answer = kill(hostwarden, label)
        running.wait(timeout=10)
    assert answer["agents"] == sorted([name, f"child-{os.getpid()}"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--label", "kill=nobody-has-it"], 1, "no agent"),
        ([], 2, "none given"),  # and not: every agent
        (["--label", "kill"], 2, "kill"),
        (["--label", "=x"], 2, "--label"),
        (["--label", "kill=x", "--timeout", "soon"], 2, "soon"),
    ],
)
def test_kills_that_end_nobody(hostwarden: Hostwarden, arguments: list[str], code: int, says: str) -> None:
    done = hostwarden.command("kill", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr and 1 <= len(done.stderr.splitlines()) <= 2
    assert hostwarden.status()["blocked"] == []
