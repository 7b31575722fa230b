"""A daemon for tests in a guest: as in the host suite, but with the patience that an emulated processor takes."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.host.conftest import Hostwarden

WAIT_S = 120
READY_S = 300  # what isn't compiled yet is compiled, and that takes minutes there


@contextmanager
def started(**policies: str) -> Iterator[Hostwarden]:
    """A daemon that is ready, in folders of its own, with these policies (name → YAML); nothing of it is left."""
    daemon = Hostwarden(Path(tempfile.mkdtemp(prefix="hw-guest-", dir="/var/tmp")))
    daemon.root.chmod(0o755)
    daemon.wait_s = WAIT_S
    for name, text in policies.items():
        (daemon.policy_dir / f"{name}.yaml").write_text(text)
    try:
        start(daemon)
        yield daemon
    finally:
        daemon.take_down()
        shutil.rmtree(daemon.root, ignore_errors=True)


def start(daemon: Hostwarden) -> None:
    """Start it (again), wait until it is ready."""
    running, ends = daemon.spawn(), time.monotonic() + READY_S
    while not daemon.is_ready():
        assert running.poll() is None and time.monotonic() < ends, daemon.log_file.read_text()
        time.sleep(0.5)  # asking takes what starting needs
