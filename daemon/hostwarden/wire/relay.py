"""The outer ends: accepts connections, learns from the kernel who is there, and hands the bytes to gRPC's inner socket.

gRPC's Python interface doesn't give SO_PEERCRED. So each accepted connection is relayed over a second one, whose client
end we bind to an abstract name that nobody can guess and that exists once; gRPC tells its handlers that name
(``context.peer()``), and ``Relay.peer_of`` knows who it stands for. A peer without such a name came past the relay.

One thread, one epoll set, no timer: idle costs nothing. Each direction holds at most one chunk, and reads no more until
that is written, so a reader that stalls stalls its writer and nobody else.
"""

import logging
import os
import secrets
import selectors
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hostwarden.wire import sockets
from hostwarden.wire.roles import Limits, Peer

log = logging.getLogger(__name__)
CHUNK = 64 * 1024
TURNS = 8  # chunks one direction may move before the other connections' turn
RETRY_S = 1.0  # out of descriptors: try to accept again after this
NAME = "hostwarden/"
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


@dataclass(eq=False)
class Entrance:
    """One outer socket and the inner one behind it.

    ``admits`` may refuse a peer that the file's mode let in; ``narrows`` may make it one of a lesser role.
    """

    role: str
    listener: socket.socket
    inner: Path
    limits: Limits
    admits: Callable[[Peer, socket.socket], bool] = lambda peer, connection: True
    narrows: Callable[[Peer, socket.socket], Peer] = lambda peer, connection: peer
    present: Counter[int] = field(default_factory=Counter)  # uid -> connections, relayed or waiting
    relayed: Counter[int] = field(default_factory=Counter)  # uid -> connections relayed
    waiting: deque[tuple[socket.socket, Peer]] = field(default_factory=deque)

    def has_room(self, uid: int) -> bool:
        """Whether one more of ``uid`` may be relayed or wait."""
        limits = self.limits
        return self.present.total() < limits.connections and self.present[uid] < limits.per_uid + limits.waiting


class _Flow:
    """One direction of a connection."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.pending = b""
        self.ended = False

    def move(self, scratch: memoryview) -> None:
        """Moves what can be moved without waiting. Raises OSError when an end is broken."""
        for _ in range(TURNS):
            try:
                if self.pending:
                    self.pending = self.pending[self.sink.send(self.pending) :]
                    continue
                if self.ended:
                    return
                count = self.source.recv_into(scratch)
            except BlockingIOError:
                return
            if count == 0:
                self.ended = True
                self.sink.shutdown(socket.SHUT_WR)
                return
            self._send(scratch[:count])

    def _send(self, chunk: memoryview) -> None:
        try:
            sent = self.sink.send(chunk)
        except BlockingIOError:
            sent = 0
        self.pending = bytes(chunk[sent:])


class _Link:
    """A relayed connection: both sockets, both directions."""

    def __init__(self, entrance: Entrance, peer: Peer, name: str, outer: socket.socket, inner: socket.socket) -> None:
        self.entrance, self.peer, self.name = entrance, peer, name
        self.up, self.down = _Flow(outer, inner), _Flow(inner, outer)
        self.masks: dict[socket.socket, int] = {outer: 0, inner: 0}

    def wanted(self) -> list[tuple[socket.socket, int]]:
        """What each socket waits for now."""
        return [(mine.source, _mask(mine, other)) for mine, other in ((self.up, self.down), (self.down, self.up))]

    @property
    def over(self) -> bool:
        return self.up.ended and self.down.ended and not self.up.pending and not self.down.pending


def _mask(outgoing: _Flow, incoming: _Flow) -> int:
    reads = READ if not outgoing.pending and not outgoing.ended else 0
    return reads | (WRITE if incoming.pending else 0)


class Relay:
    """Relays the connections of all entrances in one thread. ``stop`` closes them and the listeners."""

    def __init__(self, entrances: list[Entrance]) -> None:
        self._entrances = entrances
        self._peers: dict[str, Peer] = {}
        self._links: set[_Link] = set()
        self._selector = selectors.DefaultSelector()
        self._scratch = memoryview(bytearray(CHUNK))
        self._waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._paused: list[Entrance] = []
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> None:
        """Starts to accept."""
        self._selector.register(self._waker, READ, None)
        for entrance in self._entrances:
            self._selector.register(entrance.listener, READ, entrance)
        self._thread.start()

    def stop(self) -> None:
        """Closes everything. Returns when the thread is gone."""
        if self._thread.is_alive():
            os.eventfd_write(self._waker, 1)
            self._thread.join()
        for entrance in self._entrances:
            entrance.listener.close()
        self._selector.close()
        os.close(self._waker)

    def peer_of(self, grpc_peer: str) -> Peer | None:
        """Who is behind what gRPC calls its peer; None for a connection that isn't the relay's."""
        # The name is 128 random bits and bound by us while it is in the table: there is nothing to compare slowly.
        return self._peers.get(grpc_peer.removeprefix("unix-abstract:"))

    def _run(self) -> None:
        while True:
            events = self._selector.select(RETRY_S if self._paused else None)
            for entrance in self._paused:
                self._selector.register(entrance.listener, READ, entrance)
            self._paused.clear()
            for key, _ in events:
                if key.data is None:
                    self._close_all()
                    return
                self._handle(key.data)

    def _handle(self, ready: Entrance | _Link) -> None:
        """One event. A bug costs one connection: without this thread nobody could reach the daemon any more."""
        try:
            if isinstance(ready, Entrance):
                self._accept(ready)
            elif ready in self._links:  # not closed by an earlier event of this round
                self._turn(ready)
        except Exception:
            log.exception("the relay failed on an event")
            if isinstance(ready, _Link) and ready in self._links:
                self._close(ready)

    def _accept(self, entrance: Entrance) -> None:
        try:
            connection, _ = entrance.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # EMFILE, ENFILE, ENOMEM: the client stays in the backlog, we don't spin
            self._selector.unregister(entrance.listener)
            self._paused.append(entrance)
            return
        connection.setblocking(False)
        peer = entrance.narrows(sockets.credentials(connection, entrance.role), connection)
        if not entrance.has_room(peer.uid) or not entrance.admits(peer, connection):
            connection.close()
            return
        entrance.present[peer.uid] += 1
        if entrance.relayed[peer.uid] < entrance.limits.per_uid:
            self._open(entrance, connection, peer)
        else:
            entrance.waiting.append((connection, peer))

    def _open(self, entrance: Entrance, connection: socket.socket, peer: Peer) -> None:
        name = NAME + secrets.token_hex(16)
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link = _Link(entrance, peer, name, connection, inner)
        self._links.add(link)
        self._peers[name] = peer
        entrance.relayed[peer.uid] += 1
        try:
            inner.setblocking(False)
            inner.bind("\0" + name)
            inner.connect(os.fspath(entrance.inner))
            self._watch(link)
        except OSError:  # gRPC is stopping, its backlog is full, or the kernel watches enough descriptors
            self._close(link)

    def _turn(self, link: _Link) -> None:
        try:
            link.up.move(self._scratch)
            link.down.move(self._scratch)
            self._watch(link)
        except OSError:
            self._close(link)
            return
        if link.over:
            self._close(link)

    def _watch(self, link: _Link) -> None:
        for end, mask in link.wanted():
            before = link.masks[end]
            if mask == before:
                continue
            if not before:
                self._selector.register(end, mask, link)
            elif not mask:  # or a hang-up would wake us for ever while the other side is still being written
                self._selector.unregister(end)
            else:
                self._selector.modify(end, mask, link)
            link.masks[end] = mask

    def _close(self, link: _Link) -> None:
        for end, mask in link.masks.items():
            if mask:
                self._selector.unregister(end)
            end.close()
        self._links.discard(link)
        del self._peers[link.name]
        entrance, uid = link.entrance, link.peer.uid
        _decrement(entrance.relayed, uid)
        _decrement(entrance.present, uid)
        self._admit_next(entrance, uid)

    def _admit_next(self, entrance: Entrance, uid: int) -> None:
        for index, (connection, peer) in enumerate(entrance.waiting):
            if peer.uid == uid:
                del entrance.waiting[index]
                self._open(entrance, connection, peer)
                return

    def _close_all(self) -> None:
        for entrance in self._entrances:
            for connection, _ in entrance.waiting:
                connection.close()
            entrance.waiting.clear()
        for link in list(self._links):
            self._close(link)


def _decrement(counter: Counter[int], uid: int) -> None:
    counter[uid] -= 1
    if not counter[uid]:
        del counter[uid]  # uids come and go; the table doesn't grow with them
