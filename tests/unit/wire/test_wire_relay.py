"""The relay under a plain echo server: bytes, half-close, backpressure, bounds, and a clean end."""

import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hostwarden.wire import sockets
from hostwarden.wire.relay import CHUNK, Entrance, Relay
from hostwarden.wire.roles import Limits

LIMITS = Limits(workers=1, streams=1, connections=8, per_uid=3, waiting=2, calls=1)
Serve = Callable[[socket.socket, str], None]


def _echo(connection: socket.socket, name: str) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


@contextmanager
def _behind(run_dir: Path, serve: Serve = _echo, limits: Limits = LIMITS) -> Iterator[tuple[Path, Relay]]:
    inner = sockets.prepare_folder(run_dir)
    backend = socket.socket(socket.AF_UNIX)
    backend.bind(str(inner / "a.grpc"))
    backend.listen(16)

    def work(connection: socket.socket, name: bytes) -> None:
        with connection:
            with suppress(OSError):
                serve(connection, name.decode().removeprefix("\0"))

    def accept() -> None:
        while True:
            try:
                connection, name = backend.accept()
            except OSError:
                return
            threading.Thread(target=work, args=(connection, name), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    relay = Relay([Entrance("agent", sockets.listen(run_dir / "a.sock", 0o600, None, inner), inner / "a.grpc", limits)])
    relay.start()
    try:
        yield run_dir / "a.sock", relay
    finally:
        relay.stop()
        backend.shutdown(socket.SHUT_RDWR)
        backend.close()


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(path))
    return connection


def _says(connection: socket.socket, timeout_s: float = 10) -> bytes | None:
    """The echo of a word; None if none comes in time."""
    try:
        connection.settimeout(timeout_s)
        connection.sendall(b"ping")
        return connection.recv(4)
    except TimeoutError:
        return None
    except (BrokenPipeError, ConnectionResetError):
        return b""


def test_bytes_come_through_whole(run_dir: Path) -> None:
    data = os.urandom(3 * CHUNK * 8 + 17)

    def send(client: socket.socket) -> None:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    with _behind(run_dir) as (path, _), _connect(path) as client:
        threading.Thread(target=send, args=(client,)).start()
        received = b""
        while chunk := client.recv(65536):
            received += chunk
    assert received == data


def test_half_close_lets_the_answer_through(run_dir: Path) -> None:
    def serve(connection: socket.socket, name: str) -> None:
        asked = b""
        while data := connection.recv(65536):
            asked += data
        connection.sendall(asked.upper())

    with _behind(run_dir, serve) as (path, _), _connect(path) as client:
        client.sendall(b"late answer")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"LATE ANSWER"
        assert client.recv(100) == b""


def test_a_reader_that_stalls_stalls_its_writer_and_nobody_else(run_dir: Path) -> None:
    written = [0]

    def serve(connection: socket.socket, name: str) -> None:
        if connection.recv(4) == b"ping":
            connection.sendall(b"ping")
            return
        while True:
            written[0] += connection.send(bytes(65536))

    with _behind(run_dir, serve) as (path, _), _connect(path) as stalled:
        stalled.sendall(b"more")
        time.sleep(0.3)
        first = written[0]
        assert first < 4 << 20
        with _connect(path) as other:
            assert _says(other) == b"ping"
        assert written[0] == first
        stalled.recv(65536)  # ends the stall; closing it now ends the server's thread


def test_peer_is_known_by_the_name_while_connected(run_dir: Path) -> None:
    names: list[str] = []

    def serve(connection: socket.socket, name: str) -> None:
        names.append(name)
        _echo(connection, name)

    with _behind(run_dir, serve) as (path, relay):
        with _connect(path) as client:
            assert _says(client) == b"ping"
            peer = relay.peer_of(f"unix-abstract:{names[0]}")
            assert peer is not None
            assert (peer.role, peer.uid, peer.pid) == ("agent", os.getuid(), os.getpid())
            for stranger in (
                "unix:",
                "unix-abstract:hostwarden/",
                f"unix-abstract:{names[0][:-1]}",
                "ipv4:127.0.0.1:1",
            ):
                assert relay.peer_of(stranger) is None
        deadline = time.monotonic() + 5
        while relay.peer_of(f"unix-abstract:{names[0]}") is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert relay.peer_of(f"unix-abstract:{names[0]}") is None


def test_more_of_one_uid_wait_and_more_than_that_are_closed(run_dir: Path) -> None:
    with _behind(run_dir) as (path, _):
        relayed = [_connect(path) for _ in range(LIMITS.per_uid)]
        assert [_says(one) for one in relayed] == [b"ping"] * 3
        waiting = [_connect(path) for _ in range(LIMITS.waiting)]
        assert [_says(one, 0.1) for one in waiting] == [None, None]
        with _connect(path) as refused:
            assert _says(refused) == b""
        relayed.pop().close()
        waiting[0].settimeout(10)
        assert waiting[0].recv(4) == b"ping"  # what it said while it waited
        for one in (*relayed, *waiting):
            one.close()
        with _connect(path) as late:
            assert _says(late) == b"ping"


def test_a_waiting_one_that_goes_away_frees_its_place(run_dir: Path) -> None:
    with _behind(run_dir) as (path, _):
        for _ in range(5):
            held = [_connect(path) for _ in range(LIMITS.per_uid + LIMITS.waiting)]
            for one in held:
                one.close()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with _connect(path) as late:
                if _says(late) == b"ping":
                    return
            time.sleep(0.01)
        raise AssertionError("the places were not freed")


def test_who_is_not_admitted_is_closed(run_dir: Path) -> None:
    inner = sockets.prepare_folder(run_dir)
    listener = sockets.listen(run_dir / "a.sock", 0o600, None, inner)
    relay = Relay([Entrance("agent", listener, inner / "a.grpc", LIMITS, lambda peer, connection: peer.uid == 4242)])
    relay.start()
    with _connect(run_dir / "a.sock") as client:
        assert _says(client) == b""
    relay.stop()


def test_nobody_behind_it(run_dir: Path) -> None:
    inner = sockets.prepare_folder(run_dir)
    listener = sockets.listen(run_dir / "a.sock", 0o600, None, inner)
    relay = Relay([Entrance("agent", listener, inner / "none.grpc", LIMITS)])
    relay.start()
    for _ in range(20):
        with _connect(run_dir / "a.sock") as client:
            assert _says(client) == b""
    relay.stop()


def test_out_of_descriptors_it_waits_and_goes_on(run_dir: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with _behind(run_dir) as (path, _):
        client = socket.socket(socket.AF_UNIX)
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        fillers: list[int] = []
        try:
            while True:
                fillers.append(os.dup(0))
        except OSError:
            pass
        client.connect(str(path))
        before = time.process_time()
        time.sleep(0.5)
        spent = time.process_time() - before
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert _says(client) == b"ping"
        assert spent < 0.25
        client.close()


def _in_use() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def test_stop_closes_connections_and_leaves_nothing(run_dir: Path) -> None:
    threads, descriptors = _in_use()  # at most: what earlier tests left may still be ending
    with _behind(run_dir) as (path, _):
        clients = [_connect(path) for _ in range(5)]
        assert _says(clients[0]) == b"ping"
    for client in clients:
        assert _says(client) == b""
        client.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and (_in_use()[0] > threads or _in_use()[1] > descriptors):
        time.sleep(0.01)
    assert _in_use()[0] <= threads
    assert _in_use()[1] <= descriptors


@pytest.mark.parametrize("end", ["open", "half closed", "gone"])
def test_idle_costs_nothing(run_dir: Path, end: str) -> None:
    done = threading.Event()

    def serve(connection: socket.socket, name: str) -> None:
        _echo(connection, name)
        done.wait(10)
        connection.sendall(b"late")

    with _behind(run_dir, serve) as (path, _), _connect(path) as client:
        assert _says(client) == b"ping"
        if end == "half closed":  # one direction is over: its end may not be an event for ever
            client.shutdown(socket.SHUT_WR)
        if end == "gone":  # and neither may the hang-up, while the server hasn't finished
            client.close()
        time.sleep(0.05)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.02
        done.set()
        if end == "half closed":
            assert client.recv(4) == b"late"


@pytest.mark.parametrize("n", [200])
def test_many_short_connections(run_dir: Path, n: int) -> None:
    with _behind(run_dir) as (path, _):
        for _ in range(n):
            with _connect(path) as client:
                assert _says(client) == b"ping"
