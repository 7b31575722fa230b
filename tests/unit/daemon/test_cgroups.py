"""Agents' cgroups, on this host's real cgroup v2 and with real processes."""

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.daemon import cgroups as module
from hostwarden.daemon.cgroups import CgroupError, Cgroups, find_v2
from hostwarden.daemon.mounts import parse_mountinfo, read_mounts

AGENT = "billing.test"


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    """A branch of the host's cgroup v2 that is nobody else's."""
    branch = find_v2(read_mounts()) / f"test-{uuid.uuid4().hex}"
    branch.mkdir()
    found = Cgroups(branch)
    yield found
    folder = found.folder(AGENT)
    found.kill_all(folder)
    wait_for(lambda: found.remove(folder))
    if found.base.is_dir():
        found.base.rmdir()
    branch.rmdir()


def wait_for(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_where_it_is_mounted() -> None:
    lines = (
        b"1 0 8:1 / / rw - ext4 x rw\n2 1 0:2 / /sys/fs/cgroup rw - tmpfs x rw\n3 2 0:3 / /sys/fs/cgroup/cpu rw - "
        b"cgroup x rw\n4 1 0:4 /sub /mnt rw - cgroup2 x rw\n"
    )
    with pytest.raises(CgroupError, match=r"no cgroup v2 is mounted: mount -t cgroup2 "):
        find_v2(parse_mountinfo(lines))
    lines += b"5 2 0:4 / /sys/fs/cgroup/unified\\040x rw - cgroup2 x rw\n"
    assert find_v2(parse_mountinfo(lines)) == Path("/sys/fs/cgroup/unified x")


def test_a_life(cgroups: Cgroups) -> None:
    folder = cgroups.make(AGENT)
    assert folder == cgroups.make(AGENT) and folder.parent.name == "hostwarden"
    assert cgroups.procs(folder) == []
    first = subprocess.Popen(["sleep", "60"])
    assert cgroups.move(folder, first.pid)
    (folder / "inner").mkdir()
    second = subprocess.Popen(["sh", "-c", "sleep 60 & wait"])
    (folder / "inner" / "cgroup.procs").write_text(str(second.pid))
    wait_for(lambda: len(cgroups.procs(folder)) >= 2)
    pids = cgroups.procs(folder)
    assert {first.pid, second.pid} <= set(pids)
    assert not cgroups.remove(folder) and folder.is_dir()
    assert cgroups.kill_all(folder) >= len(pids)
    assert (first.wait(20), second.wait(20)) == (-9, -9)
    wait_for(lambda: not cgroups.procs(folder))
    wait_for(lambda: cgroups.remove(folder))
    assert not folder.exists()
    # of what is gone
    assert cgroups.procs(folder) == []
    assert cgroups.kill_all(folder) == 0
    assert cgroups.remove(folder)
    assert not cgroups.freeze(folder, True) and not cgroups.is_frozen(folder)


def test_a_process_that_is_gone_is_no_error(cgroups: Cgroups) -> None:
    folder = cgroups.make(AGENT)
    child = subprocess.Popen(["true"])
    child.wait()
    assert not cgroups.move(folder, child.pid)
    with pytest.raises(CgroupError, match=r"process 12 can't be moved to .*: No such file or directory"):
        cgroups.move(cgroups.folder("not-made"), 12)


def test_freezing_and_thawing(cgroups: Cgroups, tmp_path: Path) -> None:
    folder = cgroups.make(AGENT)
    count = tmp_path / "count"
    loop = subprocess.Popen(["sh", "-c", f"while :; do echo x >> {count}; sleep 0.01; done"])
    cgroups.move(folder, loop.pid)
    wait_for(count.exists)
    assert cgroups.freeze(folder, True)
    wait_for(lambda: cgroups.is_frozen(folder))
    size = count.stat().st_size
    time.sleep(0.2)
    assert count.stat().st_size == size
    assert cgroups.freeze(folder, False)
    wait_for(lambda: count.stat().st_size > size)
    assert not cgroups.is_frozen(folder)
    cgroups.freeze(folder, True)  # the frozen die too
    cgroups.kill_all(folder)
    assert loop.wait(20) == -9


def test_without_the_kernels_help_all_die_too(cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on kernels before 5.14, which have no cgroup.kill: against processes that fork all the time."""
    write = module._write

    def old_kernel(file: Path, text: str) -> None:
        if file.name == "cgroup.kill":
            raise FileNotFoundError(2, "No such file or directory")
        write(file, text)

    monkeypatch.setattr(module, "_write", old_kernel)
    folder = cgroups.make(AGENT)
    busy = subprocess.Popen(["sh", "-c", "read go; while :; do sleep 30 & sleep 0.01; done"], stdin=subprocess.PIPE)
    cgroups.move(folder, busy.pid)
    assert busy.stdin is not None
    busy.stdin.write(b"\n")
    busy.stdin.close()
    wait_for(lambda: len(cgroups.procs(folder)) > 10)
    cgroups.kill_all(folder)
    assert cgroups.procs(folder) == []
    assert busy.wait(20) == -9


def test_errors_have_one_line(tmp_path: Path) -> None:
    (tmp_path / "hostwarden").write_text("in the way")
    with pytest.raises(CgroupError, match=r"the cgroup .*/hostwarden/a can't be made: File exists"):
        Cgroups(tmp_path).make("a")
    with pytest.raises(AssertionError):
        Cgroups(tmp_path).kill_all(tmp_path)
    with pytest.raises(AssertionError):
        Cgroups(tmp_path).kill_all(tmp_path / "hostwarden" / "..")


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("billing-1_A", "billing-1_A"),
        ("cgroup.kill", "cgroup\\x2ekill"),
        ("..", "\\x2e\\x2e"),
        ("a/../b", "a\\x2f\\x2e\\x2e\\x2fb"),
        ("a\\x2e", "a\\x5cx2e"),
        ("a" + "." * 63, "a" + "\\x2e" * 63),  # the longest that agents.d and `run` let through
    ],
)
def test_names(agent: str, name: str) -> None:
    assert Cgroups(Path("/c")).folder(agent) == Path("/c/hostwarden") / name


@pytest.mark.parametrize("agent", ["", "." * 64, "a" * 256])
def test_names_that_are_none(agent: str) -> None:
    with pytest.raises(CgroupError, match="no folder can have this name, expected a shorter one"):
        Cgroups(Path("/c")).folder(agent)


NAMES = st.text(st.characters(), min_size=1, max_size=20)


@given(NAMES, NAMES)
def test_two_agents_never_share_a_folder(one: str, other: str) -> None:
    base = Cgroups(Path("/c"))
    try:
        folders = base.folder(one), base.folder(other)
    except CgroupError:
        return
    assert (folders[0] == folders[1]) == (one == other)
    assert all(folder.parent == base.base and os.fsencode(folder.name).isascii() for folder in folders)
