"""Runs other programs: what they say goes to a log, and a failure is one line that points there."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vagrant.guests import VmError

Words = Sequence[str | Path]  # a command


def say(line: str) -> None:
    """A line about what is going on, for people."""
    print(line, file=sys.stderr, flush=True)


def logged(argv: Words, log: Path, env: dict[str, str] | None = None, timeout_s: float = 1200) -> None:
    """Run ``argv`` without stdin, output appended to ``log``. Raises VmError with its last words."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        start = out.tell()
        try:
            code = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=os.environ | (env or {}),
                cwd="/",
                timeout=timeout_s,
            ).returncode
        except FileNotFoundError as error:
            raise VmError(f"{argv[0]} isn't installed; try: ./dev vm, which installs what it needs") from error
        except subprocess.TimeoutExpired as error:
            raise VmError(f"{_name(argv)} gave no answer for {timeout_s:.0f} s (all that it said: {log})") from error
    if code:
        raise VmError(f"{_name(argv)} failed: {_last_words(log, start)} (all that it said: {log})")


def wait_for(what: str, is_true: Callable[[], bool], timeout_s: float, log: Path) -> None:
    """Look every 0.2 s. Raises VmError when time is up."""
    end = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > end:
            raise VmError(f"{what} isn't there after {timeout_s:.0f} s (see {log})")
        time.sleep(0.2)


def _name(argv: Words) -> str:
    words = [Path(word).name for word in argv]
    if words[0] == "nsenter":
        words = words[words.index("--") + 1 :]
    return " ".join(words[:2])


def _last_words(log: Path, start: int) -> str:
    with log.open("rb") as said:
        said.seek(start)
        lines = said.read().decode(errors="replace").rstrip().splitlines()
    lines = [line for line in lines if not line.startswith("\t")] or lines  # Ruby's traces
    return lines[-1].strip()[:200] if lines else "it said nothing"
