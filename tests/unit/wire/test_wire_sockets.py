"""Sockets appear with their permissions, replace stale ones, and leave live ones alone."""

import os
import socket
import stat
from pathlib import Path

import pytest

from hostwarden.wire import sockets
from hostwarden.wire.errors import SocketInUse, SocketProblem


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_mode_whatever_the_umask(run_dir: Path, mode: int) -> None:
    inner = sockets.prepare_folder(run_dir)
    old = os.umask(0o077)
    try:
        listener = sockets.listen(run_dir / "a.sock", mode, 0, inner)
    finally:
        os.umask(old)
    status = (run_dir / "a.sock").stat()
    assert stat.S_IMODE(status.st_mode) == mode
    assert list(inner.iterdir()) == []
    listener.close()


def test_group(run_dir: Path) -> None:
    inner = sockets.prepare_folder(run_dir)
    with sockets.listen(run_dir / "a.sock", 0o660, 4242, inner):
        assert (run_dir / "a.sock").stat().st_gid == 4242


def test_stale_socket_is_replaced(run_dir: Path) -> None:
    inner = sockets.prepare_folder(run_dir)
    sockets.listen(run_dir / "a.sock", 0o600, None, inner).close()
    with sockets.listen(run_dir / "a.sock", 0o600, None, inner), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(run_dir / "a.sock"))


def test_live_socket_is_left_alone(run_dir: Path) -> None:
    inner = sockets.prepare_folder(run_dir)
    with sockets.listen(run_dir / "a.sock", 0o600, None, inner):
        with pytest.raises(SocketInUse, match=r"a\.sock: in use by another running process"):
            sockets.listen(run_dir / "a.sock", 0o600, None, inner)


def test_a_file_that_is_no_socket_is_kept(run_dir: Path) -> None:
    inner = sockets.prepare_folder(run_dir)
    (run_dir / "a.sock").write_text("mine")
    with pytest.raises(SocketProblem, match="exists and is not a socket"):
        sockets.listen(run_dir / "a.sock", 0o600, None, inner)
    assert (run_dir / "a.sock").read_text() == "mine"


def test_long_path(run_dir: Path) -> None:
    inner = sockets.prepare_folder(run_dir / ("x" * 90))
    with pytest.raises(SocketProblem, match="at most 107 bytes"):
        sockets.listen(inner.parent / "responder.sock", 0o600, None, inner)


def test_lock(run_dir: Path) -> None:
    inner = sockets.prepare_folder(run_dir)
    lock = sockets.lock_folder(inner)
    with pytest.raises(SocketInUse, match="in use by another running process"):
        sockets.lock_folder(inner)
    os.close(lock)
    os.close(sockets.lock_folder(inner))


def test_folder_modes(run_dir: Path) -> None:
    inner = sockets.prepare_folder(run_dir)
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o755
    assert stat.S_IMODE(inner.stat().st_mode) == 0o700
    inner.chmod(0o777)
    assert stat.S_IMODE(sockets.prepare_folder(run_dir).stat().st_mode) == 0o700


def test_folder_that_others_may_write(run_dir: Path) -> None:
    run_dir.mkdir()
    run_dir.chmod(0o775)
    with pytest.raises(SocketProblem, match="others may write there"):
        sockets.prepare_folder(run_dir)


def test_folder_of_another_user(run_dir: Path) -> None:
    run_dir.mkdir(mode=0o755)
    os.chown(run_dir, 65534, 65534)
    with pytest.raises(SocketProblem, match="belongs to uid 65534"):
        sockets.prepare_folder(run_dir)


def test_inner_that_is_a_link(run_dir: Path, tmp_path: Path) -> None:
    run_dir.mkdir(mode=0o755)
    (run_dir / "inner").symlink_to(tmp_path)
    with pytest.raises(SocketProblem, match="not a folder"):
        sockets.prepare_folder(run_dir)


def test_folder_that_cannot_be_made(run_dir: Path) -> None:
    run_dir.write_text("a file")
    with pytest.raises(SocketProblem, match="File exists"):
        sockets.prepare_folder(run_dir)


def test_remove_spares_the_successor(run_dir: Path) -> None:
    inner = sockets.prepare_folder(run_dir)
    path = run_dir / "a.sock"
    sockets.listen(path, 0o600, None, inner).close()
    inode = path.stat().st_ino
    with sockets.listen(path, 0o600, None, inner):
        sockets.remove(path, inode)
        assert path.exists()
        sockets.remove(path, path.stat().st_ino)
        assert not path.exists()
    sockets.remove(path, inode)


def test_credentials_and_groups(run_dir: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        peer = sockets.credentials(ours, "agent")
        assert (peer.role, peer.uid, peer.gid, peer.pid) == ("agent", os.getuid(), os.getgid(), os.getpid())
        assert set(sockets.groups(ours)) == set(os.getgroups())


def test_group_id() -> None:
    assert sockets.group_id("root") == 0
    assert sockets.group_id("hostwarden-no-such-group") is None
    assert sockets.group_id(None) is None
