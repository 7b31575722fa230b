"""The load: compiled programs, and a file whose path is forty bytes long."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.tables import Costs

PROGRAMS = Path(__file__).parent / "programs"
UID = 54321  # nobody else's, so that a peer's filter finds just this
PATH_BYTES = 40
PAUSE_US = 3000


class Load:
    """What is run under every configuration alike."""

    def __init__(self, folder: Path, batches: int) -> None:
        folder.chmod(0o755)
        self._batches = batches
        self.file = (
            folder
            / "a-file-of-forty-bytes-path".ljust(PATH_BYTES - len(str(folder)) - 1, ".")[
                : PATH_BYTES - len(str(folder)) - 1
            ]
        )
        assert len(os.fsencode(self.file)) == PATH_BYTES
        self.file.write_bytes(b"")
        self._ops, self.flood = compiled(folder, "ops"), compiled(folder, "flood")
        self._nothing = compiled(folder, "nothing", "-static", "-nostdlib")

    def argv(self, batches: int | None = None, pause_us: int = PAUSE_US) -> list[str]:
        """The load as a command."""
        return [*map(str, (self._ops, UID, batches or self._batches, pause_us, self.file, self._nothing))]

    def run(self, prefix: Sequence[str] = (), batches: int | None = None) -> Costs:
        """ns an operation, by kind. ``prefix``: under what it is run. Raises CalledProcessError."""
        done = subprocess.run(
            [*prefix, *self.argv(batches)], stdout=subprocess.PIPE, text=True, timeout=300, check=True
        )
        costs: dict[str, float] = json.loads(done.stdout)
        return costs


def compiled(folder: Path, name: str, *options: str) -> Path:
    """``programs/NAME.c``. Static: a loader would open files of its own. Raises CalledProcessError."""
    source, binary = PROGRAMS / f"{name}.c", folder / name
    subprocess.run(["gcc", "-O2", "-Wall", *(options or ("-static",)), "-o", binary, source], check=True)
    return binary
