"""An agent that stays and executes what tests ask it to, so that a row of a table costs milliseconds.

``Resident.attempt(argv)`` gives what the command came to and every record that it caused: after each command the agent
reads two marker files, one under an audit rule and one under none, so a mark follows through either ring buffer. When
both marks are in the log, so is all that came before.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostwarden.wire.client import connect
from tests.host.conftest import PROGRAMS, Hostwarden, Record

SCRIPT = Path(__file__).parent / "programs" / "resident.py"
WAIT_S = 30
KILLED = 128 + 9
# Every test file's policies include this one. Not enforcing: it must not be what makes a policy strict.
MARKER_POLICY = "policy: marker\nfor: {{}}\nrules:\n  - audit: read\n    path: {marker}\n"


@dataclass(frozen=True)
class Attempt:
    """What a command came to. ``code`` is 128 + signal if one ended it."""

    code: int
    out: str
    err: str
    pid: int = 0
    timed_out: bool = False
    records: tuple[Record, ...] = field(default=(), repr=False)

    @property
    def refusals(self) -> list[Record]:
        """The records whose verdict is more than audit."""
        return [record for record in self.records if record["verdict"] in ("deny", "kill")]

    def refused(self, *fields: str) -> list[Any]:
        """The refusals, of each these fields (or the one field, bare)."""
        chosen = [tuple(record.get(name) for name in fields) for record in self.refusals]
        return [each[0] for each in chosen] if len(fields) == 1 else chosen

    def of(self, **wanted: Any) -> list[Record]:
        """The records whose fields are as wanted."""
        return [record for record in self.records if all(record.get(key) == value for key, value in wanted.items())]


class Resident:
    """One agent with the given labels (``case=names,team=test``), below ``marker``'s policy."""

    def __init__(self, hostwarden: Hostwarden, name: str, labels: str, marker: Path) -> None:
        self.name, self.marker = name, marker
        for path in (marker, Path(f"{marker}.plain")):
            path.touch()
        command: list[str | Path] = [PROGRAMS / "hostwarden", "--run-dir", hostwarden.run_dir, "run", "--agent", name]
        command += [part for label in labels.split(",") for part in ("--label", label)]
        self.process = subprocess.Popen(
            [*command, "--", sys.executable, "-I", SCRIPT, marker],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._client = connect(hostwarden.run_dir)

    def attempt(
        self,
        argv: Sequence[str | Path],
        *,
        uid: int | None = None,
        text: str = "",
        timeout_s: float = 20,
    ) -> Attempt:
        """Let the agent execute ``argv``; with ``uid``, as that user. What it may read on stdin is ``text``."""
        assert self.process.stdin is not None and self.process.stdout is not None
        since = self._client.status().sequence
        order = {"argv": [str(part) for part in argv], "uid": uid, "input": text, "timeout_s": timeout_s}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, f"the agent itself has ended: {self.process.wait(WAIT_S)}"
        return Attempt(**json.loads(line), records=self._records(since))

    def _records(self, since: int) -> tuple[Record, ...]:
        """This agent's records after ``since``, the marks left out."""
        marks = {str(self.marker), f"{self.marker}.plain"}
        ends = time.monotonic() + WAIT_S
        while True:
            records = [json.loads(each.line) for each in self._client.events(since, agent=self.name)]
            if marks <= {record["target"] for record in records}:
                return tuple(record for record in records if record["target"] not in marks)
            assert time.monotonic() < ends, "the markers' records didn't come"
            time.sleep(0.01)

    def close(self) -> None:
        """End it."""
        self._client.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(WAIT_S)


class Outsider:
    """The same for a process that is no agent: what it does comes to what it comes to without hostwarden."""

    def attempt(
        self,
        argv: Sequence[str | Path],
        *,
        uid: int | None = None,
        text: str = "",
        timeout_s: float = 20,
    ) -> Attempt:
        """As ``Resident.attempt``; no records."""
        done = subprocess.run(
            [str(part) for part in argv],
            user=uid, input=text, capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip
        code = done.returncode if done.returncode >= 0 else 128 - done.returncode
        return Attempt(code, done.stdout, done.stderr)
