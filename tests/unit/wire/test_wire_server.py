"""The four sockets over real gRPC: who may what, who is asking, what went wrong, and who can starve whom."""

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest

from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire import rpc
from hostwarden.wire.client import OPTIONS, HostClient, connect
from hostwarden.wire.errors import Failed, NotPermitted, Refused, SocketInUse, SocketProblem
from hostwarden.wire.roles import ALL_CALLS, DOORS, Peer, Role
from hostwarden.wire.server import SERVICE, Agents, Server, serve
from hostwarden.wire.sockets import credentials, is_there

NOBODY = 65534


class Handlers(Protocol):
    peers: list[Peer]
    followers: int
    ended: threading.Semaphore

    def __getattr__(self, name: str) -> Any: ...


def _call(client: HostClient, name: str) -> Any:
    calls: dict[str, Callable[[], Any]] = {
        "Status": client.status,
        "Doctor": client.doctor,
        "Ps": lambda: list(client.ps()),
        "Events": lambda: list(client.events()),
        "Bind": lambda: client.bind("a", {}, 1, 1),
        "Adopt": lambda: client.adopt(1, "a", {}),
        "Kill": lambda: client.kill({"a": "b"}, 5),
        "Freeze": lambda: client.freeze({"a": "b"}, 5),
        "Release": lambda: client.release({}),
        "Reload": client.reload,
        "Arm": lambda: client.arm(True),
    }
    return calls[name]()


@pytest.mark.parametrize(("role", "name"), list(itertools.product(Role, sorted(ALL_CALLS))))
def test_a_role_gets_its_calls_and_no_others(server: Server, run_dir: Path, role: Role, name: str) -> None:
    with connect(run_dir, role) as client:
        if name in DOORS[role].calls:
            try:
                _call(client, name)
            except (Failed, Refused) as error:
                assert "permitted" not in error.message
        else:
            with pytest.raises(NotPermitted, match=f"{name.lower()} is not permitted on {role}.sock") as caught:
                _call(client, name)
            assert caught.value.hint.startswith("it needs the socket of: admin")


def test_status_says_everything_but_to_agents(server: Server, run_dir: Path) -> None:
    with connect(run_dir) as client:
        assert client.status() == pb.StatusReply(ready=True, sequence=7, lost=1, json=b"{}", tiers={"exec": "signal"})
    with connect(run_dir, Role.AGENT) as client:
        assert client.status() == pb.StatusReply(ready=True)


def test_the_peer_is_who_the_kernel_says(server: Server, run_dir: Path, handlers: Handlers) -> None:
    code = "import sys; from pathlib import Path; from hostwarden.wire.client import connect\n"
    code += "c = connect(Path(sys.argv[1])); print(c.role, c.bind('a', {}, 1, 1).agent)"
    argv = [sys.executable, "-c", code, str(run_dir)]
    done = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, user=NOBODY, group=NOBODY, extra_groups=[])
    assert done.communicate()[0] == "agent a\n"
    assert handlers.peers == [Peer(Role.AGENT, NOBODY, NOBODY, done.pid)]


def test_root_comes_in_as_admin(server: Server, run_dir: Path, handlers: Handlers) -> None:
    with connect(run_dir) as client:
        assert client.bind("a", {"k": "v"}, os.getpid(), 1) == pb.BindReply(agent="a", joined=True)
    assert handlers.peers == [Peer(Role.ADMIN, os.getuid(), os.getgid(), os.getpid())]


def test_who_is_an_agents_gets_what_agents_get_through_every_socket(run_dir: Path, handlers: Any) -> None:
    told: list[tuple[Peer, str, str]] = []
    agents = Agents(lambda pid: pid == os.getpid(), lambda peer, role, call: told.append((peer, role, call)))
    server = serve(run_dir, handlers, agents)
    server.start()
    try:
        with connect(run_dir) as client:
            assert client.role is Role.ADMIN
            assert client.status() == pb.StatusReply(ready=True)
            assert client.bind("a", {}, 1, 1).agent == "a"
            for name in sorted(ALL_CALLS - DOORS[Role.AGENT].calls):
                with pytest.raises(NotPermitted, match="is not permitted to an agent"):
                    _call(client, name)
        with connect(run_dir, Role.AGENT) as client, pytest.raises(NotPermitted, match=r"on agent\.sock"):
            client.arm(False)
    finally:
        server.stop()
    me = Peer(Role.AGENT, os.getuid(), os.getgid(), os.getpid())
    assert told == [(me, Role.ADMIN, name) for name in sorted(ALL_CALLS - DOORS[Role.AGENT].calls)]
    assert {peer.role for peer in handlers.peers} == {Role.AGENT}


def test_who_has_gone_since_is_nobody(tmp_path: Path) -> None:
    """Its connection may be in other hands, and its number another process's."""
    code = "import os, socket, sys, time; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
    code += "if sys.argv[2] == 'heir' and os.fork(): os._exit(0)\n"
    code += "s.send(str(os.getpid()).encode()); s.recv(1)"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        for kind in ("itself", "heir"):
            process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "socket"), kind])
            connection, _ = listener.accept()
            with connection:
                speaker = int(connection.recv(64))
                if kind == "heir":
                    process.wait(10)
                peer = credentials(connection, Role.ADMIN)
                assert (peer.pid, speaker == peer.pid) == (process.pid, kind == "itself")
                assert is_there(connection, peer.pid) is (kind == "itself")
                connection.send(b".")
            process.wait(10)


def test_past_the_relay_nobody_gets_in(server: Server, run_dir: Path, handlers: Handlers) -> None:
    for role in Role:
        with grpc.insecure_channel(f"unix:{run_dir}/inner/{role}.grpc", options=OPTIONS) as channel:
            method: Any = channel.unary_unary(f"/{SERVICE}/Status", pb.StatusRequest.SerializeToString, None)
            with pytest.raises(grpc.RpcError) as caught:
                method(pb.StatusRequest(), timeout=5)
            assert isinstance(caught.value, grpc.Call)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert handlers.peers == []


def test_a_handlers_no_arrives_with_its_hint(server: Server, run_dir: Path) -> None:
    with connect(run_dir) as client, pytest.raises(Failed) as caught:
        client.adopt(4711, "a", {})
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == ("no process 4711", "see `ps`", 1)


def test_a_long_list_of_errors_arrives_shortened(server: Server, run_dir: Path) -> None:
    with connect(run_dir) as client, pytest.raises(Refused) as caught:
        client.reload()
    lines = caught.value.message.splitlines()
    assert lines[0] == "a.yaml:0:1: wörd"
    assert len(lines) > 500
    assert lines[-1] == "… and more"
    assert caught.value.hint == "fix it – now"


@pytest.mark.parametrize("stream", [False, True])
def test_a_bug_is_logged_and_not_told(
    server: Server, run_dir: Path, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(run_dir) as client, pytest.raises(Failed, match=r"^internal error$"):
        _ = list(client.events(verdict="broken")) if stream else client.doctor()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "a secret of the daemon" in caplog.text


def test_the_deadline_reaches_the_handler(server: Server, run_dir: Path) -> None:
    with connect(run_dir) as client:
        assert client.kill({"team": "x"}, 20) == pb.KillReply(killed=30, agents=["team"])


def _follow(run_dir: Path, role: Role, n: int) -> list[tuple[HostClient, Iterator[pb.RecordLine]]]:
    followers = [(client, client.events(follow=True)) for client in (connect(run_dir, role) for _ in range(n))]
    for _, stream in followers:
        assert next(stream).sequence == 1
    return followers


@pytest.mark.parametrize("role", [Role.ADMIN, Role.RESPONDER, Role.AUDITOR])
def test_followers_are_bounded_and_starve_nobody(server: Server, run_dir: Path, handlers: Handlers, role: Role) -> None:
    limit = DOORS[role].limits.streams
    followers = _follow(run_dir, role, limit)
    with connect(run_dir, role) as client:
        with pytest.raises(Failed, match=f"{limit} streams are open on this socket already"):
            list(client.ps())
        assert client.status().ready
    followers[0][1].close()  # type: ignore[attr-defined]
    assert handlers.ended.acquire(timeout=5)
    time.sleep(0.05)  # the worker has left the handler, and is about to give its place back
    with connect(run_dir, role) as client:
        assert len(list(client.ps())) == 3
    for client, _ in followers:
        client.close()
    for _ in range(limit - 1):
        assert handlers.ended.acquire(timeout=5)
    assert handlers.followers == 0


def test_calls_that_never_send_their_request_starve_only_their_own_role(server: Server, run_dir: Path) -> None:
    def never() -> Iterator[pb.StatusRequest]:
        threading.Event().wait(5)
        yield pb.StatusRequest()

    channels = [grpc.insecure_channel(f"unix:{run_dir}/auditor.sock", options=OPTIONS) for _ in range(3)]
    for channel, _ in itertools.product(channels, range(10)):
        channel.stream_unary(f"/{SERVICE}/Status", pb.StatusRequest.SerializeToString, None).future(never())
    time.sleep(0.2)
    with connect(run_dir) as client:
        started = time.monotonic()
        assert client.kill({}, 5)
        assert time.monotonic() - started < 1
    for channel in channels:
        channel.close()


def test_one_uids_silent_calls_leave_workers_to_other_agents(server: Server, run_dir: Path) -> None:
    code = """if True:
        import sys, threading, grpc
        from hostwarden.wire import client, hostwarden_pb2 as pb
        def never():
            threading.Event().wait(60)
            yield pb.StatusRequest()
        held = []
        for n in range(10):
            channel = grpc.insecure_channel("unix:" + sys.argv[1], options=client.OPTIONS)
            method = channel.stream_unary("/hostwarden.v1.Host/Status", pb.StatusRequest.SerializeToString, None)
            held += [channel] + [method.future(never()) for _ in range(5)]
        threading.Event().wait(1)
        print("held", flush=True)
        threading.Event().wait(60)
    """
    argv = [sys.executable, "-c", code, str(run_dir / "agent.sock")]
    rude = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, user=NOBODY, group=NOBODY, extra_groups=[])
    assert rude.stdout is not None
    assert rude.stdout.readline() == "held\n"
    try:
        with connect(run_dir, Role.AGENT) as client:
            assert client.status().ready
    finally:
        rude.kill()
        rude.wait()
        rude.stdout.close()


def test_a_connection_of_agents_that_goes_on_for_ever_is_ended(
    run_dir: Path, handlers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = DOORS[Role.AGENT]
    monkeypatch.setitem(DOORS, Role.AGENT, replace(door, limits=replace(door.limits, max_age_s=1)))
    monkeypatch.setattr(rpc, "AGE_GRACE_MS", 500)
    made = serve(run_dir, handlers)
    made.start()
    with grpc.insecure_channel(f"unix:{run_dir}/agent.sock", options=OPTIONS) as channel:
        silent = threading.Event()
        call: Any = channel.stream_unary(f"/{SERVICE}/Status", pb.StatusRequest.SerializeToString, None)
        started = time.monotonic()
        with pytest.raises(grpc.RpcError):
            call(iter(lambda: silent.wait(10), None), timeout=10)
        assert time.monotonic() - started < 5
        silent.set()
    made.stop()


def test_a_second_daemon_is_refused(server: Server, run_dir: Path, handlers: Any) -> None:
    with pytest.raises(SocketInUse, match="in use by another running process"):
        serve(run_dir, handlers).start()
    with connect(run_dir) as client:
        assert client.status().ready


def test_a_foreign_listener_is_left_alone_and_nothing_is_left_open(run_dir: Path, handlers: Any) -> None:
    run_dir.mkdir(mode=0o755)
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(run_dir / "auditor.sock"))
        foreign.listen()
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(SocketInUse, match=r"auditor\.sock"):
            serve(run_dir, handlers).start()
        assert len(os.listdir("/proc/self/fd")) == before
        assert sorted(os.listdir(run_dir)) == ["auditor.sock", "inner"]


def test_a_folder_that_cannot_be_had(tmp_path: Path, handlers: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SocketProblem, match=r"Not a directory|File exists"):
        serve(tmp_path / "file" / "run", handlers).start()


def test_stop_ends_streams_and_threads_and_a_new_one_starts(run_dir: Path, handlers: Any) -> None:
    for _ in range(3):
        before = threading.active_count()
        made = serve(run_dir, handlers)
        made.start()
        followers = _follow(run_dir, Role.ADMIN, 2)
        started = time.monotonic()
        made.stop()
        made.stop()
        assert time.monotonic() - started < 3
        assert sorted(os.listdir(run_dir)) == ["inner"]
        for client, _ in followers:
            client.close()
        deadline = time.monotonic() + 5
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() <= before


def test_modes(server: Server, run_dir: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in run_dir.iterdir()}
    # The groups of responders and auditors don't exist on a machine without hostwarden installed.
    assert modes["admin.sock"] == 0o600
    assert modes["agent.sock"] == 0o666
    assert modes["responder.sock"] in (0o600, 0o660)
    assert modes["auditor.sock"] in (0o600, 0o660)
