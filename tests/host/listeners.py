"""Loopback servers that count what arrives at a port: TCP, UDP and UDP-Lite, IPv4 and IPv6, on all addresses or one."""

import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

MARK = b"="  # what ``arrived`` itself sends, to know that all before it has been counted
WAIT_S = 20
Addresses = dict[socket.AddressFamily, str]
ANY: Addresses = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
LOOPBACK: Addresses = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
UDPLITE = 136
KINDS = ((socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, 0), (socket.SOCK_DGRAM, UDPLITE))


class Listener:
    """One port with everything that listens there."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._lock = threading.Lock()
        self._bytes = bytearray()
        self._connections = 0
        self._marks = 0
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self.port = self._open()
        self._over = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _open(self) -> int:
        """All sockets on one port: the first one chooses it, and the others may find it taken."""
        for _ in range(50):
            port = 0
            try:
                for family in self._addresses:
                    for kind, protocol in KINDS:
                        port = self._bind(family, kind, protocol, port)
            except OSError:
                self._close_sockets()
                continue
            return port
        raise AssertionError("no port is free for all kinds of sockets")

    def _bind(self, family: socket.AddressFamily, kind: socket.SocketKind, protocol: int, port: int) -> int:
        server = socket.socket(family, kind, protocol)
        self._sockets.append(server)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind((self._addresses[family], port))
        if kind == socket.SOCK_STREAM:
            server.listen(64)
        server.setblocking(False)
        self._selector.register(server, selectors.EVENT_READ, kind == socket.SOCK_STREAM)
        return int(server.getsockname()[1])

    def _serve(self) -> None:
        while not self._over:
            for entry, _ in self._selector.select(0.1):
                assert isinstance(entry.fileobj, socket.socket)
                self._accept(entry.fileobj) if entry.data else self._receive(entry.fileobj)

    def _accept(self, server: socket.socket) -> None:
        client, _ = server.accept()
        client.setblocking(False)
        self._sockets.append(client)
        self._selector.register(client, selectors.EVENT_READ, False)
        with self._lock:
            self._connections += 1

    def _receive(self, peer: socket.socket) -> None:
        try:
            data = peer.recv(4096)
        except OSError:
            data = b""
        if not data and peer.type == socket.SOCK_STREAM:
            self._selector.unregister(peer)
            peer.close()
        with self._lock:
            self._bytes += data.replace(MARK, b"")
            self._marks += data.count(MARK)

    def arrived(self) -> tuple[int, bytes]:
        """Connections and bytes since the last time this was asked, nothing still on its way."""
        with self._lock:
            wanted = self._marks + self._mark()
        ends = time.monotonic() + WAIT_S
        while True:
            with self._lock:
                if self._marks >= wanted:
                    found = self._connections - len(self._addresses), bytes(self._bytes)
                    self._connections = 0
                    self._bytes.clear()
                    return found
            assert time.monotonic() < ends, "the listener's own marks didn't arrive"
            time.sleep(0.005)

    def _mark(self) -> int:
        """One mark through each socket; how many."""
        count = 0
        for family, address in self._addresses.items():
            if address == ANY[family]:
                address = LOOPBACK[family]
            with socket.create_connection((address, self.port)) as stream:
                stream.sendall(MARK)
            for protocol in (0, UDPLITE):
                with socket.socket(family, socket.SOCK_DGRAM, protocol) as datagram:
                    datagram.sendto(MARK, (address, self.port))
            count += 3
        return count

    def _close_sockets(self) -> None:
        for each in self._sockets:
            each.close()
        self._sockets.clear()
        self._selector.close()
        self._selector = selectors.DefaultSelector()

    def close(self) -> None:
        """Stop serving."""
        self._over = True
        self._thread.join(WAIT_S)
        self._close_sockets()


@contextmanager
def listener(addresses: Addresses = ANY) -> Iterator[Listener]:
    """One, closed afterwards."""
    made = Listener(addresses)
    try:
        yield made
    finally:
        made.close()
