"""What can be reached: loopback ports by their letter, unix sockets by their path. Only what arrives counts.

Nothing runs beside the runner: what was sent lies in the kernel's queues until ``arrived`` looks.
"""

import os
import socket
import threading
import time
from pathlib import Path

from hostwarden.cli.scenarios.network import LEAVING, UDPLITE

LETTERS = "CHO"  # closed, closed at one address, open
MARK = b"="
_WAIT_S = 5.0
_FAMILIES = ((socket.AF_INET, "0.0.0.0", "127.0.0.1"), (socket.AF_INET6, "::", "::1"))  # noqa: S104 - all of loopback
_KINDS = ((socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, 0), (socket.SOCK_DGRAM, UDPLITE))


class Port:
    """One port with TCP, UDP and UDP-Lite of both families."""

    def __init__(self) -> None:
        self._servers: list[socket.socket] = []
        self._peers: list[socket.socket] = []
        self.number = self._open()

    def _open(self) -> int:
        """The first socket chooses the number, and the others may find it taken."""
        for _ in range(50):
            number = 0
            try:
                for family, address, _ in _FAMILIES:
                    for kind, protocol in _KINDS:
                        number = self._bind(family, kind, protocol, address, number)
            except OSError:
                self.close()
                continue
            return number
        raise OSError("no port is free for all kinds of sockets")

    def _bind(self, family: int, kind: int, protocol: int, address: str, number: int) -> int:
        server = socket.socket(family, kind, protocol)
        self._servers.append(server)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind((address, number))
        if kind == socket.SOCK_STREAM:
            server.listen(64)
        server.setblocking(False)
        return int(server.getsockname()[1])

    def arrived(self) -> bytes:
        """Everything since the last time. Our own mark, sent last through each socket, tells that all is here."""
        wanted = len(self._servers)
        for family, _, address in _FAMILIES:
            with socket.create_connection((address, self.number), _WAIT_S) as stream:
                stream.sendall(MARK)
            for protocol in (0, UDPLITE):
                with socket.socket(family, socket.SOCK_DGRAM, protocol) as datagram:
                    datagram.sendto(MARK, (address, self.number))
        data, ends = b"", time.monotonic() + _WAIT_S
        while data.count(MARK) < wanted and time.monotonic() < ends:
            data += self._drained()
        return data.replace(MARK, b"")

    def _drained(self) -> bytes:
        data = b""
        for server in self._servers:
            data += _datagrams(server) if server.type == socket.SOCK_DGRAM else self._accepted(server)
        for peer in tuple(self._peers):
            more = _received(peer)
            if more == b"":
                self._peers.remove(peer)
                peer.close()
            data += more or b""
        return data

    def _accepted(self, server: socket.socket) -> bytes:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return b""
            peer.setblocking(False)
            self._peers.append(peer)

    def close(self) -> None:
        """Nothing is open any more."""
        for each in (*self._servers, *self._peers):
            each.close()
        self._servers, self._peers = [], []


class UnixServer:
    """A stream or datagram socket at a path, or at ``\\0name``."""

    def __init__(self, address: str, kind: str) -> None:
        self._is_stream = kind == "stream"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if self._is_stream else socket.SOCK_DGRAM)
        self._socket.bind(address)
        if self._is_stream:
            self._socket.listen(16)
        self._socket.setblocking(False)

    def arrived(self) -> bytes:
        """Everything since the last time: unix sockets have no way that anything could still be on."""
        if not self._is_stream:
            return _datagrams(self._socket)
        data = b""
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return data
            with peer:
                peer.setblocking(False)
                data += _received(peer) or b"connected"

    def close(self) -> None:
        """The path stays; its folder is removed as a whole."""
        self._socket.close()


class Giver:
    """Hands a descriptor to whoever connects (SCM_RIGHTS)."""

    def __init__(self, path: Path, file: Path) -> None:
        self._fd = os.open(file, os.O_RDONLY)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._socket.listen(4)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return  # closed
            with peer:
                socket.send_fds(peer, [b"here"], [self._fd])

    def close(self) -> None:
        """End the thread and both descriptors."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_WAIT_S)
        self._socket.close()
        os.close(self._fd)


class Servers:
    """All of them: ports by letter, ``A`` for the abstract socket, unix sockets by path."""

    def __init__(self, token: str) -> None:
        self.ports = {letter: Port() for letter in LETTERS}
        self.free = _free_port()
        self.abstract = f"hostwarden-scenarios-{token}"
        self._all: dict[str, Port | UnixServer] = dict(self.ports)
        self._all["A"] = UnixServer(f"\0{self.abstract}", "stream")

    def add(self, key: str, server: UnixServer) -> None:
        """Another one."""
        self._all[key] = server

    def remove(self, key: str) -> None:
        """And away with it."""
        self._all.pop(key).close()

    def arrived(self, key: str) -> bool:
        """Whether the word, or at unix sockets a connection, has arrived since the last time."""
        data = self._all[key].arrived()
        return LEAVING in data or b"connected" in data

    def close(self) -> None:
        """All."""
        for server in self._all.values():
            server.close()


def _free_port() -> int:
    """A port that nobody listens on, for who wants to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _datagrams(server: socket.socket) -> bytes:
    data = b""
    while True:
        try:
            data += server.recv(4096)
        except OSError:
            return data


def _received(peer: socket.socket) -> bytes | None:
    """What is there; b"" at the end; None if nothing is there yet."""
    try:
        return peer.recv(4096)
    except BlockingIOError:
        return None
    except OSError:
        return b""
