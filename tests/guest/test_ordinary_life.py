"""What people do, under a policy that allows it, where actions are refused: nothing breaks (tests/host/ordinary.py)."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host import ordinary
from tests.host.conftest import Hostwarden

READY_S = 300  # where the processor is emulated, compiling takes its time
SETTINGS = 'cache_dir = "/var/cache/hostwarden"'  # with what was compiled for this kernel before


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hw-life-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def hostwarden(place: Path) -> Iterator[Hostwarden]:
    """One daemon for all rows, in folders of its own."""
    root = place / "daemon"
    root.mkdir()
    daemon = Hostwarden(root, SETTINGS)
    try:
        daemon.spawn()
        daemon.wait_until(daemon.is_ready, READY_S)
        yield daemon
    finally:
        daemon.take_down()


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[ordinary.Server]:
    folder = place / "sshd"
    folder.mkdir()
    with ordinary.ssh_server(folder) as server:
        yield server


def test_everything_that_is_needed_is_installed() -> None:
    assert ordinary.missing_tools() == []


@pytest.mark.timeout(2 * ordinary.ROW_S)
@pytest.mark.parametrize("row", ordinary.ROWS)
def test_nothing_that_people_do_breaks(row: str, hostwarden: Hostwarden, place: Path, server: ordinary.Server) -> None:
    folder = place / row
    folder.mkdir()
    ordinary.live(row, hostwarden, folder, server)
