"""The other end of ``resident``: agents (and one process that is none) that wait for rows to try."""

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostwarden.cli.scenarios.model import ScenarioError

MODULE = "hostwarden.cli.scenarios.resident"
_WAIT_S = 180  # an emulated host that is busy takes a minute to start an agent


@dataclass(frozen=True)
class Attempt:
    """What one came to. ``code``: 128 + signal if one ended it."""

    code: int
    out: str
    err: str
    timed_out: bool
    pid: int

    @property
    def is_refused(self) -> bool:
        """Whether it was told no."""
        return self.code != 0 and any(word in self.err for word in ("EPERM", "EACCES", *_WORDS))


_WORDS = ("Operation not permitted", "Permission denied", "failed to map segment")  # the last is the loader's


class Resident:
    """A process that tries rows. ``command``: what starts it, in front of Python (`hostwarden run …`), or nothing.

    ``inherited``: descriptors that it has from us.
    """

    def __init__(self, command: list[str], name: str, errors: Path, inherited: Sequence[int] = ()) -> None:
        self.name, self._errors = name, errors
        with errors.open("wb") as file:
            self._process = subprocess.Popen(
                [*command, sys.executable, "-I", "-m", MODULE],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True,
                pass_fds=inherited,
            )  # fmt: skip

    def order(self, **order: Any) -> dict[str, Any]:
        """One order, and its answer. Raises ScenarioError if the process has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps(order), file=self._process.stdin, flush=True)
            patience_s = order.get("timeout_s", 0.0) + _WAIT_S
            if not select.select([self._process.stdout], [], [], patience_s)[0]:
                self._process.kill()
                raise ScenarioError(f"{self.name}: no answer within {patience_s:.0f} s: {order.get('words', order)}")
            line = self._process.stdout.readline()  # one answer to one order: nothing waits in our own buffer
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait(_WAIT_S)
            said = self._errors.read_text(errors="backslashreplace").strip().splitlines()[-1:]
            raise ScenarioError(f"{self.name}: the process that tries rows has ended: {code} {' '.join(said)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def attempt(self, marks: list[str], kind: str, words: str, folder: str, **options: Any) -> Attempt:
        """One attempt. Options: user, timeout_s."""
        return Attempt(**self.order(marks=marks, kind=kind, words=words, folder=folder, **options))

    def hold(self, wanted: Mapping[str, str]) -> None:
        """Open something now, for later."""
        self.order(**wanted)

    def end(self) -> None:
        """It ends with its stdin, in a while."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def close(self) -> None:
        """The same, and wait."""
        self.end()
        try:
            self._process.wait(_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_WAIT_S)
