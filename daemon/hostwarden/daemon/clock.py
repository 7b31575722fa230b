"""From the kernel's clock (ns since boot, sleep included) to the time of day in a record."""

import time
from collections.abc import Callable

from hostwarden.records.model import rfc3339

REFRESH_NS = 1_000_000_000
_SECOND = 1_000_000_000


def read_offset() -> tuple[int, int]:
    """ns to add to CLOCK_BOOTTIME to get CLOCK_REALTIME, and by how many ns the answer may be wrong."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    real = time.clock_gettime_ns(time.CLOCK_REALTIME)
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return real - (before + after) // 2, after - before


class Clock:
    """Stamps events. Threads may share it: what is remembered is replaced as one tuple."""

    def __init__(self, source: Callable[[], tuple[int, int]] = read_offset) -> None:
        self._source = source
        self._offset = source()[0]
        self._refreshed = self.boot_ns()
        self._second: tuple[int, bytes] = (-1, b"")

    @staticmethod
    def boot_ns() -> int:
        """Now, as events have it."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def refresh(self) -> None:
        """Follow the time of day when it is set or slewed; does its work once a second, costs nothing in between.

        A difference within the error of reading two clocks one after the other is none: or times would jitter.
        """
        now = self.boot_ns()
        if now - self._refreshed < REFRESH_NS:
            return
        offset, error = self._source()
        if abs(offset - self._offset) > error:
            self._offset = offset
        self._refreshed = now

    def stamp(self, boot_ns: int) -> bytes:
        """``2026-11-24T07:20:00.000000001Z`` for an event's time."""
        second, rest = divmod(boot_ns + self._offset, _SECOND)
        known, prefix = self._second
        if known != second:
            prefix = rfc3339(second * _SECOND)[:20].encode()
            self._second = (second, prefix)
        return b"%b%09dZ" % (prefix, rest)

    def now(self) -> bytes:
        """The stamp of this moment."""
        return self.stamp(self.boot_ns())
