"""A second thread changes the name, the socket address or the arguments while the call goes on; a file is exchanged for
another between check and use: where actions are refused, nothing that is denied ever happens.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.daemon import started
from tests.host.races import TRIES, Ground, Program, ground, is_connected

# An exec is by far the dearest under emulation: names are raced for TRIES times by opens, arguments by their own test.
EXECS = 2_000
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def raced(program: Program) -> Iterator[Ground]:
    with started() as daemon, tempfile.TemporaryDirectory(prefix="hw-races-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with ground(daemon, program, folder) as made:
            yield made


@pytest.mark.parametrize("act", ["read", "read-link", "chmod"])
def test_what_is_denied_is_not_reached_by_another_name(raced: Ground, act: str) -> None:
    came_to = raced.switch(act, "here", agent=act)
    assert came_to.tries == TRIES and came_to.refused > 0 and came_to.killed == came_to.other == 0
    assert came_to.reached == 0
    assert (raced.folder / "file-z").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("act", ["exec", "exec-link"])
def test_what_is_denied_never_runs(raced: Ground, act: str) -> None:
    came_to = raced.switch(act, "child", tries=EXECS, agent=act)
    assert came_to.tries == EXECS and came_to.refused > 0 and came_to.other == 0
    assert not raced.has_run()


@pytest.mark.parametrize("act", ["tcp", "udp", "unix"])
def test_who_is_denied_is_not_reached(raced: Ground, act: str) -> None:
    came_to = raced.switch(act, "here", agent=act)
    assert came_to.tries == TRIES and came_to.refused > 0 and came_to.killed == 0
    assert raced.server.arrived() == (0, b"") and not is_connected(raced.unix)


def test_what_is_told_is_not_what_is_denied(raced: Ground) -> None:
    """`other` are those that were refused early, `killed` those that had rewritten what was judged then."""
    ran, killed, other = map(int, raced.arguments(agent="argv").split())
    assert ran + killed + other == TRIES and other > 0
    assert not raced.has_run()
