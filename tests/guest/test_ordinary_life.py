"""What people do, under a policy that allows it, where actions are refused: nothing breaks (tests/host/ordinary.py)."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.daemon import start
from tests.host import ordinary
from tests.host.conftest import Hostwarden


@pytest.fixture(scope="module")
def life() -> Iterator[ordinary.Life]:
    place = Path(tempfile.mkdtemp(prefix="hw-life-", dir="/var/tmp"))
    root = place / "daemon"
    root.mkdir()
    hostwarden = Hostwarden(root)
    try:
        with ordinary.started(hostwarden, place, lambda: start(hostwarden)) as life:
            yield life
    finally:
        hostwarden.take_down()
        shutil.rmtree(place)


@pytest.mark.parametrize("row", ordinary.ROWS)
def test_nothing_that_people_do_breaks(row: str, life: ordinary.Life) -> None:
    problems = life.problems(row)
    assert not problems, "\n".join(problems)
