"""Bytes that are nobody's protocol, messages that are nobody's: a clear refusal each, no crash, not a line of log."""

import os
import random
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest

from hostwarden.wire.client import OPTIONS, connect
from hostwarden.wire.roles import ALL_CALLS, DOORS, Role
from hostwarden.wire.server import SERVICE, Server

Capture = pytest.CaptureFixture[str]
Log = pytest.LogCaptureFixture
EXAMPLES = int(os.environ.get("HOSTWARDEN_EXAMPLES", "1000"))
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes(3) + b"\x04" + bytes(5)
EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
}


def _untyped(method: Any) -> Any:
    """Without serialisers the method takes bytes; the stubs know no type for that."""
    return method


def _frame(rng: random.Random) -> bytes:
    body = rng.randbytes(rng.choice((0, 1, 4, 5, 8, 9, 40)))
    head = len(body).to_bytes(3, "big") + bytes((rng.randrange(12), rng.randrange(256)))
    return head + rng.randrange(4).to_bytes(4, "big") + body


def _raw(rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return PREFACE[: rng.randrange(len(PREFACE))]
    return PREFACE + SETTINGS + b"".join(_frame(rng) for _ in range(rng.randrange(1, 8)))


def _still_well(run_dir: Path) -> None:
    for role in Role:
        with connect(run_dir, role) as client:
            assert client.status().ready


def _quiet(capfd: Capture, caplog: Log) -> None:
    assert capfd.readouterr() == ("", "")
    assert not caplog.records, caplog.text


def test_raw_bytes(server: Server, run_dir: Path, capfd: Capture, caplog: Log) -> None:
    rng = random.Random(7)
    for n in range(EXAMPLES):
        door = DOORS[list(Role)[n % len(Role)]]
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10)
            try:
                peer.connect(str(run_dir / door.file))
                peer.sendall(_raw(rng))
                if rng.randrange(2):
                    peer.shutdown(socket.SHUT_WR)
                    while peer.recv(65536):
                        pass
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused already
    _still_well(run_dir)
    _quiet(capfd, caplog)


def test_random_messages(server: Server, run_dir: Path, capfd: Capture, caplog: Log) -> None:
    rng = random.Random(11)
    calls = sorted(ALL_CALLS - {"Doctor", "Kill"})  # these two fail in the test's handlers for any message
    seen: set[grpc.StatusCode] = set()
    with grpc.insecure_channel(f"unix:{run_dir / 'admin.sock'}", options=OPTIONS) as channel:
        for n in range(EXAMPLES):
            method = f"/{SERVICE}/{calls[n % len(calls)]}"
            message = rng.randbytes(rng.randrange(60))
            try:
                if calls[n % len(calls)] in ("Ps", "Events"):
                    next(_untyped(channel.unary_stream(method))(message, timeout=0.2), None)
                else:
                    _untyped(channel.unary_unary(method))(message, timeout=10)
                seen.add(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                seen.add(error.code())
    assert seen <= EXPECTED, seen
    assert {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT} <= seen
    _still_well(run_dir)
    _quiet(capfd, caplog)


def test_unknown_method(server: Server, run_dir: Path) -> None:
    with grpc.insecure_channel(f"unix:{run_dir / 'admin.sock'}", options=OPTIONS) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            _untyped(channel.unary_unary("/hostwarden.v1.Host/Explode"))(b"", timeout=5)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_oversized_message(server: Server, run_dir: Path, capfd: Capture, caplog: Log) -> None:
    with grpc.insecure_channel(f"unix:{run_dir / 'admin.sock'}", options=OPTIONS) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            _untyped(channel.unary_unary(f"/{SERVICE}/Status"))(bytes(5 << 20), timeout=5)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    _still_well(run_dir)
    _quiet(capfd, caplog)
