"""The guests' suite in every guest: two at a time, each verdict once, logs kept."""

import shlex
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vagrant import box, machine, room
from vagrant.guests import Guest, VmError
from vagrant.run import say

AT_ONCE = 2  # an emulated guest takes a core
LIMIT_S = 1800  # for one guest's suite
TAIL = 40  # lines of a failed guest's log that go to the terminal


@dataclass(frozen=True)
class Verdict:
    """How it went in a guest. ``summary``: pytest's last line, or why there is none."""

    guest: Guest
    has_passed: bool
    summary: str
    log: Path


def run(guests: Sequence[Guest]) -> int:
    """Boot, test and end each; prints a line for each. Exit code: 0, or 1 if any failed.

    Raises VmError if there is nothing to boot.
    """
    box.folder()  # once, here: what fails here fails for all
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            verdicts = list(pool.map(_run_one, guests))
    finally:
        machine.down(guests)
    for verdict in verdicts:
        if not verdict.has_passed:
            print(f"--- {verdict.guest.name}: the end of {verdict.log}\n{_tail(verdict.log)}")
    for verdict in verdicts:
        print(f"guest {verdict.guest.name}: {verdict.summary} ({verdict.log})", flush=True)
    return 0 if all(verdict.has_passed for verdict in verdicts) else 1


def line(guest: Guest, arguments: Sequence[str] = ()) -> str:
    """The shell line that runs pytest in the guest, as root: with ``arguments``, or all of tests/guest."""
    # Everything takes ten times as long, or more, where the processor is emulated.
    words = [
        ".venv/bin/pytest",
        "-o",
        "cache_dir=/tmp/pytest",
        "--timeout=900",
        "--durations=12",
        *(arguments or ["tests/guest"]),
    ]
    return f"cd {machine.INSTALLED} && sudo HOSTWARDEN_GUEST={guest.name} {shlex.join(words)}"


def _run_one(guest: Guest) -> Verdict:
    log = room.LOGS / f"{guest.name}-tests.log"
    began = time.monotonic()
    try:
        machine.up(guest)
        say(f"{guest.name}: tests run, output in {log}")
        with log.open("wb") as out:
            command = machine.ssh(guest, line(guest))
            code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=LIMIT_S).returncode
        words = _tail(log, 1).strip("= ")
    except subprocess.TimeoutExpired:
        code, words = 1, f"tests took more than {LIMIT_S} s"
    except VmError as error:
        return Verdict(guest, False, str(error), log)
    machine.down([guest])
    return Verdict(guest, code == 0, f"{words}, {time.monotonic() - began:.0f} s in all", log)


def _tail(log: Path, lines: int = TAIL) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(nothing)"
