"""Which socket the commands take, and what they say when there is none."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from hostwarden.wire import client as client_module
from hostwarden.wire.client import connect, connect_collector, unix_path
from hostwarden.wire.errors import Failed, NoDaemon, NotPermitted, Refused, client_error
from hostwarden.wire.roles import DOORS, Role
from hostwarden.wire.server import Server, serve

NOBODY = 65534


def _as_nobody(run_dir: Path) -> str:
    code = """if True:
        import sys
        from pathlib import Path
        from hostwarden.wire.client import connect
        from hostwarden.wire.errors import ClientError
        try:
            print(connect(Path(sys.argv[1])).role)
        except ClientError as error:
            print(type(error).__name__, error.exit_code)
    """
    argv = [sys.executable, "-c", code, str(run_dir)]
    return subprocess.run(
        argv, stdout=subprocess.PIPE, text=True, user=NOBODY, group=NOBODY, extra_groups=[]
    ).stdout.strip()


def test_first_socket_that_may_be_opened(server: Server, run_dir: Path) -> None:
    with connect(run_dir) as client:
        assert client.role is Role.ADMIN
    assert _as_nobody(run_dir) == "agent"
    for role in (Role.RESPONDER, Role.AUDITOR):
        os.chown(run_dir / DOORS[role].file, 0, NOBODY)
        (run_dir / DOORS[role].file).chmod(0o660)
        assert _as_nobody(run_dir) == "responder"
    (run_dir / DOORS[Role.RESPONDER].file).chmod(0o600)
    assert _as_nobody(run_dir) == "auditor"
    (run_dir / DOORS[Role.AUDITOR].file).chmod(0o600)
    (run_dir / DOORS[Role.AGENT].file).chmod(0o600)
    assert _as_nobody(run_dir) == "NotPermitted 4"


@pytest.mark.parametrize("role", [None, *Role])
def test_nobody_listens(run_dir: Path, role: Role | None) -> None:
    with pytest.raises(NoDaemon, match="no daemon listens there") as caught:
        connect(run_dir, role)
    assert caught.value.exit_code == 3
    assert "systemctl status hostwardend" in caught.value.hint


def test_stale_sockets_are_no_daemon(run_dir: Path, handlers: Any) -> None:
    # A daemon that is killed leaves its sockets behind: the command must not hang on them, and a new one replaces them.
    code = "import os, sys, signal; from pathlib import Path; from hostwarden.wire import sockets\n"
    code += "r = Path(sys.argv[1]); i = sockets.prepare_folder(r); l = sockets.lock_folder(i)\n"
    code += "a = [sockets.listen(r / n, 0o600, None, i) for n in ('admin.sock', 'agent.sock')]; os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(run_dir)]).returncode == -signal.SIGKILL
    assert (run_dir / "admin.sock").is_socket()
    with pytest.raises(NoDaemon):
        connect(run_dir)
    server = serve(run_dir, handlers)
    server.start()
    with connect(run_dir) as client:
        assert client.status().ready
    server.stop()


def test_daemon_that_goes_away_in_the_middle(run_dir: Path, handlers: Any) -> None:
    server = serve(run_dir, handlers)
    server.start()
    with connect(run_dir) as client:
        stream = client.events(follow=True)
        assert next(stream).sequence == 1
        threading.Timer(0.1, server.stop).start()
        with pytest.raises(NoDaemon):
            next(stream)
        with pytest.raises(NoDaemon):
            client.status()


def test_no_answer_in_time(server: Server, run_dir: Path, handlers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ANSWER_S", 0.2)
    handlers.delay_s = 0.5
    with connect(run_dir) as client, pytest.raises(Failed, match=r"^status: no answer within 0\.2 s$") as caught:
        client.status()
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("address", ["", "tcp:host:1", "host:443", "unix:relative", "/run/x.sock", "unix://x"])
def test_addresses_that_are_none(address: str) -> None:
    if address == "unix://x":
        assert unix_path(address) == Path("//x")
        return
    with pytest.raises(Refused, match="not an address of a collector") as caught:
        unix_path(address)
    assert caught.value.exit_code == 2


def test_no_collector(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match="no such file") as caught:
        connect_collector(f"unix:{tmp_path}/c.sock")
    assert "hostwarden-collector" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "kind", "exit_code"),
    [
        (grpc.StatusCode.UNAVAILABLE, NoDaemon, 3),
        (grpc.StatusCode.PERMISSION_DENIED, NotPermitted, 4),
        (grpc.StatusCode.INVALID_ARGUMENT, Refused, 2),
        (grpc.StatusCode.NOT_FOUND, Failed, 1),
        (grpc.StatusCode.INTERNAL, Failed, 1),
        (grpc.StatusCode.UNIMPLEMENTED, Failed, 1),
    ],
)
def test_exit_codes(status: grpc.StatusCode, kind: type[Exception], exit_code: int) -> None:
    error = client_error(status, "", [("other", "x"), ("hint-bin", b"do \xff")])
    assert type(error) is kind
    assert error.exit_code == exit_code
    assert error.message
    assert error.hint == "do �"
