"""sd_notify to a socket of our own."""

import socket
from pathlib import Path

import pytest

from hostwarden.wire.notify import sd_notify


@pytest.mark.parametrize("abstract", [False, True])
def test_the_state_arrives(run_dir: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    address = f"@hostwarden-test-{id(run_dir)}" if abstract else str(run_dir.parent / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert sd_notify("READY=1")
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "@hostwarden-nobody-listens"])
def test_nobody_asked_or_nobody_listens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not sd_notify("READY=1")
