"""An agent that tries one forbidden act again and again (programs/attempt.c), and what came of it, seen in a file."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct

from tests.host.conftest import Hostwarden

COUNTERS = Struct("<8Q")  # tries, successes, children killed, children that ended otherwise, …, stop
STOP_AT = 56
WAIT_S = 30


class Attempts:
    """The counters of one ``attempt``: tries prove that it went on, successes that it got through."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_bytes(bytes(COUNTERS.size))

    def _count(self, index: int) -> int:
        return int(COUNTERS.unpack(self.file.read_bytes())[index])

    @property
    def tries(self) -> int:
        """Acts tried and seen to their end."""
        return self._count(0)

    @property
    def successes(self) -> int:
        """Acts that reached what they must not reach; counted by the act itself, not by its exit code."""
        return self._count(1)

    @property
    def killed(self) -> int:
        """Acts that ended with SIGKILL."""
        return self._count(2)

    def go_on(self, more: int = 20) -> None:
        """Wait for ``more`` tries from now; none of all so far was a success."""
        wanted, ends = self.tries + more, time.monotonic() + WAIT_S
        while self.tries < wanted:
            assert time.monotonic() < ends, f"the agent stands still at {self.tries}"
            time.sleep(0.005)
        assert self.successes == 0

    def stop(self) -> None:
        """Ask the program to end."""
        with self.file.open("r+b") as file:
            file.seek(STOP_AT)
            file.write(b"\1")


@contextmanager
def attempting(
    hostwarden: Hostwarden,
    program: Callable[[str], Path],
    mode: str,
    target: Path,
    file: Path,
    *,
    agent: str,
    period_s: float = 0.02,
) -> Iterator[Attempts]:
    """An agent that reads or executes ``target`` all the time; at the end, not one try may have been a success."""
    attempts = Attempts(file)
    argv = [str(program("attempt")), mode, str(target), str(file), str(int(period_s * 1e6))]
    with hostwarden.spawn_agent(argv, agent=agent, stderr=subprocess.PIPE) as running:
        try:
            attempts.go_on()
            yield attempts
            assert running.poll() is None, "the agent didn't live through it"
            attempts.go_on()
        finally:
            attempts.stop()
            running.wait(timeout=WAIT_S)
    assert attempts.killed == attempts.tries
