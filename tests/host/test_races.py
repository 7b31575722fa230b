"""A second thread changes the name, the socket address or the arguments while the call goes on; a file is exchanged for
another between check and use. On this kernel's tiers nothing of it is unrecorded, and who gets as far as the denied
file or program dies before it can use it.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from hostwarden.wire.client import connect
from tests.host.conftest import Hostwarden
from tests.host.races import TRIES, Ground, Outcome, ground, is_connected

Program = Callable[[str], Path]
RECORDED_S = 60


@pytest.fixture
def raced(hostwarden: Hostwarden, program: Program, folder: Path) -> Iterator[Ground]:
    with ground(hostwarden, program, folder) as made:
        yield made


def in_the_log(raced: Ground, agent: str, since: int, count: int) -> None:
    """Each refusal has its record, or is in one that says how many were lost (allowed acts, too); there are no more."""

    refused = lost = 0
    ends = time.monotonic() + RECORDED_S
    with connect(raced.hostwarden.run_dir) as client:
        while refused + lost < count:
            assert time.monotonic() < ends, (refused, lost, count)
            refused = lost = 0
            for reply in client.events(since, agent=agent):
                record = orjson.loads(reply.line)
                refused += record["verdict"] == "deny"
                lost += record["lost"] if record["action"] == "loss" else 0
    assert refused <= count


@pytest.mark.timeout(300)
@pytest.mark.parametrize("act", ["read", "read-link", "exec", "exec-link"])
def test_who_gets_there_dies_and_is_recorded(raced: Ground, act: str) -> None:
    agent, since = f"{act}-{os.getpid()}", raced.hostwarden.sequence
    came_to = raced.switch(act, "child", agent=agent)
    assert came_to.tries == TRIES and came_to.other == 0
    assert came_to.reached == 0 and not raced.has_run()
    assert came_to.killed > 0, "the race was none"
    in_the_log(raced, agent, since, came_to.killed + came_to.refused)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("act", ["tcp", "udp"])
def test_who_connects_is_refused_and_recorded(raced: Ground, act: str) -> None:
    agent, since = f"{act}-{os.getpid()}", raced.hostwarden.sequence
    came_to = raced.switch(act, "here", agent=agent)
    assert came_to == Outcome(0, came_to.let, came_to.refused, 0, 0) and came_to.tries == TRIES
    assert came_to.refused > 0, "the race was none"
    assert raced.server.arrived() == (0, b"")
    in_the_log(raced, agent, since, came_to.refused)


@pytest.mark.timeout(300)
def test_arguments_are_judged_as_the_program_has_them(raced: Ground) -> None:
    agent, since = f"argv-{os.getpid()}", raced.hostwarden.sequence
    ran, killed, other = map(int, raced.arguments(agent=agent).split())
    assert ran + killed == TRIES and killed > 0 and other == 0
    assert not raced.has_run()
    in_the_log(raced, agent, since, killed)
    assert not is_connected(raced.unix)
