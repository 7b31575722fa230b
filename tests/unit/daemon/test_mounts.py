"""The host's mount table: how it is read, which places count, and that the kernel's own tables come out right."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.daemon.mounts import (
    EMPTY_MAGICS,
    FIRST_ROW,
    MAGICS,
    MountError,
    MountPoint,
    MountWatch,
    Superblock,
    dev_rows,
    fresh_rows,
    parse_mountinfo,
    read_mounts,
    superblocks,
    visible_ids,
)
from hostwarden.policy.tables import PRIVATE, Place

Mounter = Callable[..., None]


@pytest.fixture
def mount() -> Iterator[Mounter]:
    """mount(8) with these arguments, the target last; undone at the end."""
    done: list[Path] = []

    def mounted(*words: object) -> None:
        subprocess.run(["mount", *map(str, words)], check=True)
        done.append(Path(str(words[-1])))

    yield mounted
    for target in reversed(done):
        subprocess.run(["umount", "--lazy", target], check=True)


def line(mount_id: int, parent: int, mount: str, root: str = "/", dev: str = "8:1", fstype: str = "ext4") -> str:
    return f"{mount_id} {parent} {dev} {root} {mount} rw - {fstype} src rw\n"


def parsed(*lines: str) -> list[MountPoint]:
    return parse_mountinfo("".join(lines).encode())


def places_on(found: list[Superblock], below: Path) -> dict[bytes, set[bytes]]:
    """mount point → roots, of what is mounted at or below a folder."""
    result: dict[bytes, set[bytes]] = {}
    for superblock in found:
        for place in superblock.places:
            if place.mount.startswith(os.fsencode(below)):
                result.setdefault(place.mount, set()).add(place.root)
    return result


def test_a_line_with_everything() -> None:
    data = (
        b"36 35 98:5 /mnt\\0401 /a\\040b\\011c\\012d\\134e\r\xff rw master:1 shared:7 - fuse.x\\040y src\\040 rw\n"
        b"37 35 0:1048575 / / rw - tmpfs  rw\n"  # a source may be empty
    )
    first, second = parse_mountinfo(data)
    assert first == MountPoint(36, 35, 98, 5, b"/mnt 1", b"/a b\tc\nd\\e\r\xff", "fuse.x y", b"src ")
    assert first.dev == 98 << 20 | 5
    assert (second.mount, second.fstype, second.source, second.dev) == (b"/", "tmpfs", b"", 1048575)


@pytest.mark.parametrize("data", [b"x", b"1 2 3 / / rw - a b c", b"1 2 8:1 / / rw ext4 src rw", b"1 2 8:1 / / rw - e"])
def test_what_is_no_mountinfo(data: bytes) -> None:
    with pytest.raises(MountError, match=r"mountinfo, line 1: not as man 5 proc_pid_mountinfo has it"):
        parse_mountinfo(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_mounts_or_an_error(data: bytes) -> None:
    try:
        superblocks(parse_mountinfo(data))
    except MountError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("lines", "visible"),
    [
        # alone, and one in another
        ([line(1, 0, "/")], {1}),
        ([line(1, 0, "/"), line(2, 1, "/a"), line(3, 2, "/a/b")], {1, 2, 3}),
        # stacked on one mount point, twice
        ([line(1, 0, "/"), line(2, 1, "/a"), line(3, 2, "/a"), line(4, 3, "/a")], {1, 4}),
        # what is below a covered mount; what is mounted on the one that covers it
        ([line(1, 0, "/"), line(2, 1, "/a"), line(3, 2, "/a/b"), line(4, 2, "/a")], {1, 4}),
        ([line(1, 0, "/"), line(2, 1, "/a"), line(3, 2, "/a/b"), line(4, 2, "/a"), line(5, 4, "/a/b")], {1, 4, 5}),
        # a sibling above, and one that only begins with the same letters
        ([line(1, 0, "/"), line(2, 1, "/a/b"), line(3, 1, "/a")], {1, 3}),
        ([line(1, 0, "/"), line(2, 1, "/ab"), line(3, 1, "/a")], {1, 2, 3}),
        # the same whatever the order: after mount --move ids don't grow with time
        ([line(3, 1, "/a"), line(2, 1, "/a/b"), line(1, 0, "/")], {1, 3}),
        # the root itself is covered
        ([line(1, 0, "/"), line(2, 1, "/a"), line(3, 1, "/")], {3}),
        # old kernels: two on one mount point with the same parent
        ([line(1, 0, "/"), line(2, 1, "/a"), line(3, 1, "/a")], {1, 3}),
        # tables that the kernel doesn't write, but a torn read may give
        ([line(1, 1, "/")], {1}),
        ([line(1, 2, "/a"), line(2, 1, "/b")], set()),
        ([line(7, 5, "/a")], {7}),
    ],
)
def test_which_mounts_are_visible(lines: list[str], visible: set[int]) -> None:
    assert visible_ids(parsed(*lines)) == visible


def test_a_hundred_thousand_mounts_in_each_other() -> None:
    lines = [line(1, 0, "/")] + [line(i, i - 1, "/a") for i in range(2, 100_001)]
    assert visible_ids(parsed(*lines)) == {1, 100_000}


def test_superblocks_have_their_visible_places_once() -> None:
    found = superblocks(
        parsed(
            line(1, 0, "/"),
            line(2, 1, "/data", root="/srv/data"),
            line(3, 1, "/data2", root="/srv/data"),
            line(4, 1, "/t", dev="0:30", fstype="tmpfs"),
            line(5, 4, "/t", root="/srv/data"),  # hides the tmpfs
            line(6, 1, "/other", dev="0:31", fstype="tmpfs"),
            line(7, 6, "/other", dev="0:31", fstype="tmpfs"),
            line(8, 1, "/gone", root="/x//deleted"),
            line(9, 1, "/y//deleted"),
            line(10, 1, "/run/netns/a", root="net:[4026532281]", dev="0:4", fstype="nsfs"),
            line(11, 1, "/root/t", dev="0:31", root="/sub", fstype="tmpfs"),
        )
    )
    assert found == [
        Superblock(
            8 << 20 | 1,
            "ext4",
            (
                Place(b"", b""),
                Place(b"/srv/data", b"/data"),
                Place(b"/srv/data", b"/data2"),
                Place(b"/srv/data", b"/t"),
            ),
        ),
        Superblock(30, "tmpfs", (Place(b"", b"/t"),)),  # hidden, but the only name it has
        Superblock(31, "tmpfs", (Place(b"", b"/other"), Place(b"/sub", b"/root/t"))),
    ]
    assert dev_rows(found) == {8 << 20 | 1: FIRST_ROW, 30: FIRST_ROW + 1, 31: FIRST_ROW + 2}


def test_a_hidden_place_does_not_count_beside_a_visible_one() -> None:
    lines = [line(1, 0, "/"), line(2, 1, "/pub", dev="8:2"), line(3, 1, "/secret", dev="8:2"), line(4, 2, "/pub")]
    assert superblocks(parsed(*lines))[1].places == (Place(b"", b"/secret"),)


def test_fresh_file_systems() -> None:
    found = superblocks(
        parsed(
            line(1, 0, "/"),
            line(2, 1, "/srv/chroot/proc", dev="0:50", fstype="proc"),
            line(3, 1, "/proc", dev="0:51", fstype="proc"),
            line(4, 1, "/sys", dev="0:52", fstype="sysfs"),
            line(5, 1, "/v1", dev="0:53", root="/sub", fstype="cgroup"),  # a part of one says nothing about a whole one
            line(6, 1, "/tmp", dev="0:54", fstype="tmpfs"),
        )
    )
    assert fresh_rows(found) == {
        MAGICS["proc"]: FIRST_ROW + 2,
        MAGICS["sysfs"]: FIRST_ROW + 3,
        EMPTY_MAGICS["tmpfs"]: PRIVATE,
        EMPTY_MAGICS["ramfs"]: PRIVATE,
    }


class _StatFs(ctypes.Structure):
    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_byte * 248)]


def test_magics_are_the_kernels() -> None:
    libc = ctypes.CDLL(None)
    checked = 0
    mounts = read_mounts()
    visible = visible_ids(mounts)
    for each in mounts:
        magic = (MAGICS | EMPTY_MAGICS).get(each.fstype)
        if magic is not None and each.id in visible:
            status = _StatFs()
            assert libc.statfs(each.mount, ctypes.byref(status)) == 0
            assert status.f_type & 0xFFFFFFFF == magic, each
            checked += 1
    assert checked >= 4  # proc, sysfs, cgroup2, devpts, whatever the host


def test_this_host(tmp_path: Path, mount: Mounter) -> None:
    mounts = read_mounts()
    root = next(each for each in superblocks(mounts) if Place(b"", b"") in each.places)
    assert root.dev == os.stat("/").st_dev >> 8 << 20 | os.stat("/").st_dev & 0xFF
    odd = tmp_path / "a b\\c\rd\u00e9"
    for name in (odd, tmp_path / "bind", tmp_path / "over"):
        name.mkdir()
    mount("-t", "tmpfs", "x", odd)
    (odd / "sub").mkdir()
    (odd / "covered").mkdir()
    mount("--bind", odd / "sub", tmp_path / "bind")
    (tmp_path / "file").touch()
    mount("--bind", odd / "covered", tmp_path / "over")
    mount("-t", "tmpfs", "y", tmp_path / "over")
    (odd / "f").touch()
    mount("--bind", odd / "f", tmp_path / "file")
    assert places_on(superblocks(read_mounts()), tmp_path) == {
        os.fsencode(odd): {b""},
        os.fsencode(tmp_path / "bind"): {b"/sub"},
        os.fsencode(tmp_path / "over"): {b""},
        os.fsencode(tmp_path / "file"): {b"/f"},
    }
    (odd / "sub").rmdir()
    assert os.fsencode(tmp_path / "bind") not in places_on(superblocks(read_mounts()), tmp_path)


IN_A_NAMESPACE = """
import os, subprocess, sys
from hostwarden.daemon.mounts import MountWatch, read_mounts, visible_ids
def run(*words): subprocess.run(words, check=True)
folder = sys.argv[1]
os.mkdir(f"{folder}/old"), os.mkdir(f"{folder}/new")
"""

MOVED = """
run("mount", "-t", "tmpfs", "old", f"{folder}/old")
run("mount", "-t", "tmpfs", "new", f"{folder}/new")
run("mount", "--move", f"{folder}/old", f"{folder}/new")
mounts = read_mounts()
assert [each.source for each in mounts if each.id in visible_ids(mounts)][-1] == b"old"
assert not [each for each in mounts if each.source == b"new" and each.id in visible_ids(mounts)]
"""

WATCHED = """
watch = MountWatch()
assert not watch.changed()
run("mount", "-t", "tmpfs", "x", folder)
assert watch.changed()
assert not watch.changed()
assert not watch.changed(0.01)
later = subprocess.Popen(["sh", "-c", "sleep 0.1; mount --bind $0 $0", folder])
assert watch.changed(20)
later.wait()
run("umount", folder)
assert watch.changed()
assert os.get_inheritable(watch.fileno()) is False
watch.close()
"""


@pytest.mark.parametrize("code", [MOVED, WATCHED], ids=["moved", "watched"])
def test_in_a_namespace_of_its_own(tmp_path: Path, code: str) -> None:
    """Where nobody else mounts anything meanwhile, and nothing is propagated."""
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", IN_A_NAMESPACE + code]
    done = subprocess.run([*words, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_proc(tmp_path: Path) -> None:
    with pytest.raises(MountError, match=r"can't be read: No such file or directory; is /proc mounted\?"):
        read_mounts(tmp_path / "mountinfo")
    with pytest.raises(MountError, match=r"can't be opened: No such file or directory; is /proc mounted\?"):
        MountWatch(tmp_path / "mountinfo")
