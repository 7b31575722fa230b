"""What compiling may cost: a hostile policy is refused, and hangs nobody."""

import time
from collections.abc import Callable

MAX_SECONDS = 20.0  # for all that one compilation tries


class TooManyStates(Exception):
    """An automaton outgrew its bound, or the time is up; the caller splits its globs or names them."""


class Budget:
    """Time that one compilation may take, over all automata that it tries."""

    def __init__(self, seconds: float = MAX_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def is_spent(self) -> bool:
        """Whether there is no time left."""
        return self._clock() >= self._end
