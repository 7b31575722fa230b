"""What people do, under a policy that allows it, on this kernel: nothing breaks, nobody is refused (ordinary.py)."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.host import ordinary
from tests.host.conftest import Hostwarden


@pytest.fixture(scope="module")
def life(start_hostwarden: Callable[..., Hostwarden]) -> Iterator[ordinary.Life]:
    place = Path(tempfile.mkdtemp(prefix="hw-life-", dir="/var/tmp"))
    hostwarden = start_hostwarden(start=False)
    try:
        with ordinary.started(hostwarden, place, hostwarden.start) as life:
            yield life
    finally:
        shutil.rmtree(place)


def test_everything_that_is_needed_is_installed() -> None:
    assert ordinary.missing_tools() == []


@pytest.mark.timeout(2 * ordinary.ROW_S)
@pytest.mark.parametrize("row", ordinary.ROWS)
def test_nothing_that_people_do_breaks(row: str, life: ordinary.Life) -> None:
    problems = life.problems(row)
    assert not problems, "\n".join(problems)
