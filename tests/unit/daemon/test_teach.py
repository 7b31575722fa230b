"""Opening the host's mount points: what can't be opened is said, and a file server that is gone stops nobody."""

import ctypes
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hostwarden.daemon.mounts import MountPoint, read_mounts, superblocks
from hostwarden.daemon.teach import Teacher, Untaught

ROOT = MountPoint(1, 0, 8, 1, b"/", b"/", "ext4", b"src")


@pytest.fixture
def silent_fuse(tmp_path: Path) -> Iterator[Path]:
    """A FUSE file system whose server never answers, as a file server that is gone."""
    folder = tmp_path / "fuse"
    folder.mkdir()
    server = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    assert libc.mount(b"silent", os.fsencode(folder), b"fuse", 0, options) == 0, os.strerror(ctypes.get_errno())
    yield folder
    os.close(server)  # everybody who waits gets ENOTCONN
    assert libc.umount2(os.fsencode(folder), 2) == 0


def test_the_host_can_be_taught_and_nothing_stays_open() -> None:
    mounts = read_mounts()
    before = len(os.listdir("/proc/self/fd"))
    assert Teacher().teach(mounts) == []
    assert len(os.listdir("/proc/self/fd")) == before
    assert superblocks(mounts)


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    gone = replace(ROOT, id=2, parent=1, minor=2, mount=os.fsencode(tmp_path / "gone"))
    long = replace(ROOT, id=3, parent=1, minor=3, mount=b"/" + b"x" * 5000)
    odd = replace(ROOT, id=4, parent=1, minor=4, mount=b"/nowhere\n\xff")
    assert Teacher().teach([ROOT, gone, long, odd]) == [
        Untaught(str(tmp_path / "gone"), "No such file or directory"),
        Untaught("/" + "x" * 5000, "File name too long"),
        Untaught("/nowhere\n\\xff", "No such file or directory"),
    ]


def test_nobody_is_waited_for(silent_fuse: Path) -> None:
    fuse = replace(ROOT, id=2, parent=1, minor=2, mount=os.fsencode(silent_fuse), fstype="fuse.silent")
    inner = replace(ROOT, id=3, parent=2, minor=3, mount=os.fsencode(silent_fuse / "inner"))  # ext4, but below it
    other = replace(ROOT, id=4, parent=1, minor=4, mount=b"/nowhere")
    teacher = Teacher()
    began = time.monotonic()
    late = Untaught(str(silent_fuse / "inner"), "its file server doesn't answer")
    assert teacher.teach([ROOT, fuse, inner, other], timeout_s=0.3) == [
        Untaught("/nowhere", "No such file or directory"),
        late,
    ]
    assert 0.3 <= time.monotonic() - began < 3
    threads = len(os.listdir("/proc/self/task"))
    assert late in teacher.teach([ROOT, fuse, inner, other], timeout_s=0.1)
    assert len(os.listdir("/proc/self/task")) == threads  # who hangs isn't asked again
