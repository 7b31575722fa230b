"""What people do, under a policy that allows it, on this kernel: nothing breaks, nobody is refused (ordinary.py)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host import ordinary
from tests.host.conftest import Hostwarden


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ordinary.Server]:
    with ordinary.ssh_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def test_everything_that_is_needed_is_installed() -> None:
    assert ordinary.missing_tools() == []


@pytest.mark.timeout(2 * ordinary.ROW_S)
@pytest.mark.parametrize("row", ordinary.ROWS)
def test_nothing_that_people_do_breaks(row: str, hostwarden: Hostwarden, folder: Path, server: ordinary.Server) -> None:
    ordinary.live(row, hostwarden, folder, server)
