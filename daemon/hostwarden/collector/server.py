"""The collector's end of its socket: who may connect, how many, and gRPC behind the relay.

May connect: root, the collector's own uid, and members of its group (config ``group``, else the process's own). The
socket's mode (0660, that group) says the same; the peer's credentials are asked as well, so a careless chmod opens
nothing. Who may connect may both send as any host that isn't bound to another key, and read: on one host these are
hostwardend and operators. Telling them apart needs certificates, which come with TCP.
"""

import os
import socket
from pathlib import Path
from typing import Any

from hostwarden.collector.service import CollectorService
from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire import rpc, sockets
from hostwarden.wire.relay import Entrance, Relay
from hostwarden.wire.roles import Limits, Peer
from hostwarden.wire.rpc import Guard

SERVICE = "hostwarden.v1.Collector"
ROLE = "collector"
HOSTS, READERS, SPARE = 16, 8, 4  # streams of hosts, streams of readers, workers that are left for Status
LIMITS = Limits(HOSTS + READERS + SPARE, HOSTS, connections=64, per_uid=64, waiting=0, calls=32)


class CollectorServer:
    """The socket at ``path``, served by ``service``."""

    def __init__(self, path: Path, group: str, service: CollectorService) -> None:
        self._path, self._service = path, service
        gid = sockets.group_id(group) if group else None
        self._gid = os.getegid() if gid is None else gid
        self._lock = -1
        self._inode = 0
        self._relay: Relay | None = None
        self._inner: rpc.InnerServer | None = None

    def start(self) -> None:
        """Listens. Raises SocketInUse, SocketProblem."""
        inner = sockets.prepare_folder(self._path.parent)
        self._lock = sockets.lock_folder(inner)
        try:
            listener = sockets.listen(self._path, 0o660, self._gid, inner)
            self._inode = self._path.lstat().st_ino
            self._relay = Relay([Entrance(ROLE, listener, inner / "collector.grpc", LIMITS, self._admits)])
            self._inner = rpc.InnerServer(inner / "collector.grpc", SERVICE, self._calls(self._relay), LIMITS)
            self._inner.start()
            self._relay.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends all calls, closes and removes the socket. Can be called twice."""
        sockets.remove(self._path, self._inode)
        self._service.close()
        if self._inner is not None:
            rpc.stop_all([self._inner])
            self._inner = None
        if self._relay is not None:
            self._relay.stop()
            self._relay = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _admits(self, peer: Peer, connection: socket.socket) -> bool:
        return peer.uid in (0, os.geteuid()) or self._gid in (peer.gid, *sockets.groups(connection))

    def _calls(self, relay: Relay) -> dict[str, Any]:
        hosts, readers = (Guard(relay.peer_of, lambda peer, call: None, streams) for streams in (HOSTS, READERS))
        return {
            "Stream": hosts.duplex("Stream", pb.HostMessage, self._service.stream),
            "Events": readers.stream("Events", pb.EventsRequest, self._service.events),
            "Status": readers.unary("Status", pb.StatusRequest, self._service.status),
        }
