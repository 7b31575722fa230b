"""One daemon for each folder: real processes, real flocks, a real bpffs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostwarden.daemon.lock import Busy, LockProblem, Locks
from hostwarden.probes import pins

HOLDER = """
import subprocess, sys
from pathlib import Path
from hostwarden.daemon.lock import Locks
locks = Locks()
locks.take(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["plain", "bpffs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on an ordinary file system, and one that is a bpffs of its own."""
    path = tmp_path / "hostwarden"
    if request.param == "plain":
        path.mkdir()
        yield path
    else:
        pins.mount_bpffs(path)
        assert pins.is_bpffs(path)
        yield path
        pins.remove(path)
        assert not path.exists()


def test_a_second_process_is_refused_until_the_first_is_gone(folder: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    locks = Locks()
    try:
        began = time.monotonic()
        with pytest.raises(Busy) as caught:
            locks.take(folder)
        assert time.monotonic() - began < 1
        assert str(caught.value) == f"another hostwardend runs on {folder}: stop it, or choose other folders"
        holder.kill()  # no clean-up of its own
        holder.wait()
        locks.take(folder)  # though what it started lives on
        os.kill(child, 0)
        locks.verify()
    finally:
        locks.close()
        os.kill(child, signal.SIGKILL)
        holder.communicate()


def test_within_one_process(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Locks() as first, Locks() as second:
        first.take(folder)
        with pytest.raises(Busy):
            second.take(folder)
        first.close()
        second.take(folder)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    locks = Locks()
    with pytest.raises(LockProblem, match=r"none: No such file or directory; expected a folder that hostwardend may"):
        locks.take(tmp_path / "none")
    with pytest.raises(LockProblem, match=r"file: Not a directory; expected a folder that hostwardend may read"):
        locks.take(tmp_path / "file")


def test_a_bpffs_that_is_mounted_over_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "hostwarden"
    pins.mount_bpffs(path)
    with Locks() as hidden, Locks() as shown:
        hidden.take(path)
        hidden.verify()
        pins._mount(path)  # as one that looked for a mount a moment before ours would
        try:
            shown.take(path)  # another folder, another lock
            shown.verify()
            with pytest.raises(Busy, match=r"was mounted over or replaced since we locked it"):
                hidden.verify()
        finally:
            subprocess.run(["umount", "--lazy", path], check=True)
        hidden.verify()
    pins.remove(path)
    assert not path.exists()
