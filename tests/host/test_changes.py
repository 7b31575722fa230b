"""Acts that this kernel can only punish: the effect is there, the process is dead, the record says so (change.h)."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.host.conftest import Hostwarden

CODE = "import os, socket, ctypes, mmap, sys; os.chdir({folder!r}); {act}; print('lived')"

# name, what is tried from within the folder, action, target below the folder, outcome
AFTER, BEFORE = "killed_after_effect", "killed_before_effect"
ROWS = [
    ("unlink", "os.unlink('kept/file')", "delete", "kept/file", AFTER),
    ("with dots", "os.unlink(os.getcwd() + '/kept/../kept/./file')", "delete", "kept/file", AFTER),
    ("unlinkat", "os.unlink('file', dir_fd=os.open('kept', os.O_PATH))", "delete", "kept/file", AFTER),
    ("from within", "os.chdir('kept'); os.unlink('file')", "delete", "kept/file", AFTER),
    ("rmdir", "os.rmdir('kept/empty')", "delete", "kept/empty", AFTER),
    ("rename away", "os.rename('kept/file', 'moved')", "rename", "kept/file", AFTER),
    ("rename over", "os.rename('other', 'kept/file')", "rename", "other", AFTER),
    ("rename a parent", "os.rename('kept', 'gone')", "rename", "kept", AFTER),
    ("link", "os.link('kept/file', 'second')", "link", "kept/file", AFTER),
    ("symlink into", "os.symlink('/', 'kept/link')", "create", "kept/link", AFTER),
    ("mkdir", "os.mkdir('kept/new')", "create", "kept/new", AFTER),
    ("mkfifo", "os.mkfifo('kept/pipe')", "create", "kept/pipe", AFTER),
    ("chmod", "os.chmod('kept/file', 0o777)", "chmod", "kept/file", AFTER),
    ("fchmod", "os.fchmod(os.open('kept/file', os.O_RDONLY), 0o777)", "chmod", "kept/file", AFTER),
    ("chown", "os.chown('kept/file', 1, 1)", "write", "kept/file", AFTER),
    ("truncate", "os.truncate('kept/file', 0)", "write", "kept/file", AFTER),
    ("setxattr", "os.setxattr('kept/file', 'user.x', b'1')", "write", "kept/file", AFTER),
    ("map code", "mmap.mmap(os.open('kept/code', os.O_RDONLY), 4096, prot=5, flags=2)", "load", "kept/code", BEFORE),
]  # fmt: skip


@pytest.fixture
def place(folder: Path) -> Path:
    """A folder with a part that is kept from agents."""
    _furnish(folder)
    return folder


def _furnish(folder: Path) -> None:
    (folder / "kept" / "empty").mkdir(parents=True)
    (folder / "kept/file").write_text("bytes")
    (folder / "other").write_text("other")
    shutil.copy("/usr/bin/true", folder / "kept/code")


def _policy(place: Path) -> str:
    return f"""
policy: p
for: {{team: test}}
rules:
  - deny: [write, rename, chmod, delete, link, create]
    path: {place}/kept/**
  - deny: load
    path: {place}/kept/code
  - deny: [namespace, ptrace, signal]
  - deny: listen
    to: ["*:*", "unix:{place}/kept/**"]
  - deny: connect
    to: ["unix:{place}/kept/**", "unix:@kept*"]
"""


@pytest.mark.parametrize(
    ("act", "action", "target", "outcome"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_who_changes_what_is_kept_dies(
    hostwarden: Hostwarden, place: Path, act: str, action: str, target: str, outcome: str
) -> None:
    code = CODE.format(folder=str(place), act=act)
    assert subprocess.run(["python3", "-c", code], capture_output=True, text=True, check=True).stdout == "lived\n"
    shutil.rmtree(place)
    place.mkdir()
    _furnish(place)
    hostwarden.set_policies(p=_policy(place))
    since = hostwarden.sequence
    done = hostwarden.run(["python3", "-c", code])
    assert (done.returncode, done.stdout) == (128 + 9, "")
    record = hostwarden.wait_for(since, action=action, verdict="deny")[0]
    assert record["target"] == f"{place}/{target}"
    assert record["outcome"] == outcome
    assert record["tier"] == "signal"


def test_names_elsewhere_are_changed_at_will(hostwarden: Hostwarden, place: Path) -> None:
    hostwarden.set_policies(p=_policy(place))
    act = (
        "open('a', 'w').write('x'); os.rename('a', 'b'); os.chmod('b', 0o600); os.link('b', 'c'); os.unlink('b'); "
        "os.truncate('c', 0); os.mkdir('d'); os.symlink('x', 'd/l'); os.rename('d', 'e'); "
        "os.unlink('e/l'); os.rmdir('e')"
    )
    since = hostwarden.sequence
    done = hostwarden.run(["python3", "-c", CODE.format(folder=str(place), act=act)])
    assert (done.returncode, done.stdout) == (0, "lived\n")
    hostwarden.wait_for(since, action="delete")
    assert [record for record in hostwarden.events(since) if record["verdict"] == "deny"] == []


SOCKETS = [
    ("unix stream", "socket.socket(socket.AF_UNIX).connect('kept/door')", "connect", "unix:{place}/kept/door"),
    ("abstract", "socket.socket(socket.AF_UNIX).connect('\\0kept-{pid}')", "connect", "unix:@kept-{pid}"),
    ("listen", "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()", "listen", ""),
    ("bind unix", "socket.socket(socket.AF_UNIX).bind('kept/own')", "create", "{place}/kept/own"),
    ("unshare", "ctypes.CDLL(None).unshare(0x04000000)", "namespace", "uts"),
    ("signal", "os.kill({pid}, 18)", "signal", "pid:{pid}"),
    ("attach", "ctypes.CDLL(None).ptrace(0x4206, {pid}, 0, 0)", "ptrace", "pid:{pid}"),
]  # fmt: skip


@pytest.mark.parametrize(("act", "action", "target"), [row[1:] for row in SOCKETS], ids=[row[0] for row in SOCKETS])
def test_who_reaches_out_dies(hostwarden: Hostwarden, place: Path, act: str, action: str, target: str) -> None:
    unix = socket.AF_UNIX
    with subprocess.Popen(["sleep", "60"]) as other, socket.socket(unix) as door, socket.socket(unix) as name:
        try:
            door.bind(str(place / "kept/door"))
            door.listen()
            name.bind(f"\0kept-{other.pid}")
            name.listen()
            hostwarden.set_policies(p=_policy(place))
            since = hostwarden.sequence
            code = CODE.format(folder=str(place), act=act.format(pid=other.pid))
            done = hostwarden.run(["python3", "-c", code])
            assert done.returncode == 128 + 9
            record = hostwarden.wait_for(since, action=action, verdict="deny")[0]
            assert record["outcome"] == "killed_after_effect"
            if target:
                assert record["target"] == target.format(place=place, pid=other.pid)
        finally:
            other.kill()


def test_an_agents_own_processes_are_its_own(hostwarden: Hostwarden, place: Path) -> None:
    hostwarden.set_policies(p=_policy(place))
    act = "pid = os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '60'); os.kill(pid, 15); os.waitpid(pid, 0)"
    done = hostwarden.run(["python3", "-c", CODE.format(folder=str(place), act=act)])
    assert (done.returncode, done.stdout) == (0, "lived\n")
