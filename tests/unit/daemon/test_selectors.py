"""agents.d for the kernel's half, and for the scan of what runs already."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostwarden.daemon import selectors
from hostwarden.daemon.agentsd import AgentSpec, parse_agent
from hostwarden.policy.words import Action, Verdict


def spec(name: str, match: str) -> AgentSpec:
    """One file of agents.d."""
    return parse_agent(f"agent: {name}\nlabels: {{team: x}}\nmatch: {match}\n".encode(), f"{name}.yaml")


@pytest.fixture
def sleeper() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
    yield process.pid
    process.kill()
    process.wait()


def test_rule_n_is_the_nth_agent_with_globs() -> None:
    specs = [
        spec("by-unit", "{unit: [a.service]}"),
        spec("first", '{exe: ["/opt/\\"odd\\"/*"]}'),
        spec("second", "{exe: [/usr/bin/x]}"),
    ]
    (policy,) = selectors.policy(specs)
    assert [rule.path[0].text for rule in policy.rules if rule.path] == ['/opt/"odd"/*', "/usr/bin/x"]
    assert all(rule.actions == (Action.EXEC,) and rule.verdict is Verdict.AUDIT for rule in policy.rules)
    assert [each.name for each in selectors.with_exes(specs)] == ["first", "second"]


def test_no_globs_no_profile() -> None:
    assert selectors.policy([spec("by-unit", "{unit: [a.service]}")]) == ()


def test_a_running_process_is_chosen_by_its_exe(sleeper: int) -> None:
    exe = Path(os.readlink(f"/proc/{sleeper}/exe"))
    specs = [spec("other", "{exe: [/usr/bin/none-such]}"), spec("mine", f'{{exe: ["{exe.parent}/python3*"]}}')]
    assert selectors.choose(specs, sleeper) == "mine"
    assert selectors.choose(specs[:1], sleeper) is None


def test_a_process_that_is_gone_is_nobodys() -> None:
    assert selectors.choose([spec("all", "{exe: [/usr/**]}")], 2**22 - 1) is None
