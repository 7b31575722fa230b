"""Times of events as people read them."""

import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.daemon import clock as module
from hostwarden.daemon.clock import Clock, read_offset
from hostwarden.records.model import rfc3339


@given(st.lists(st.integers(0, 10**17), min_size=1), st.integers(0, 2 * 10**18))
def test_stamps_are_the_logs_times(times: list[int], offset: int) -> None:
    clock = Clock(lambda: (offset, 0))
    assert [clock.stamp(at).decode() for at in times] == [rfc3339(at + offset) for at in times]


def test_now_is_now() -> None:
    stamp = Clock().now().decode()
    assert abs(datetime.fromisoformat(stamp).timestamp() - time.time()) < 1


def test_the_offset_is_what_the_clocks_say() -> None:
    offset, error = read_offset()
    assert 0 <= error < 1_000_000_000
    boot, real = time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns()
    assert abs(boot + offset - real) < 1_000_000_000


@pytest.mark.parametrize(
    ("offset", "error", "followed"),
    [(1000, 0, True), (1050, 100, False), (900, 100, False), (1101, 100, True), (-(10**9), 100, True)],
)
def test_a_clock_that_is_set_is_followed_and_noise_is_not(
    monkeypatch: pytest.MonkeyPatch, offset: int, error: int, followed: bool
) -> None:
    answers = [(1000, 0)]
    clock = Clock(lambda: answers[-1])
    answers.append((offset, error))
    clock.refresh()
    assert clock.stamp(0).decode() == rfc3339(1000), "not within a second"
    monkeypatch.setattr(module, "REFRESH_NS", 0)
    clock.refresh()
    assert clock.stamp(10**10).decode() == rfc3339(10**10 + (offset if followed else 1000))
