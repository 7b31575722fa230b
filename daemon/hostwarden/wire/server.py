"""hostwardend's end of the sockets: ``serve(run_dir, handlers)`` answers on four, each with its role's calls."""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire import roles, rpc, sockets
from hostwarden.wire.relay import Entrance, Relay
from hostwarden.wire.roles import DOORS, READY_ONLY, Peer, Role
from hostwarden.wire.rpc import Call, Guard

SERVICE = "hostwarden.v1.Host"


class HostHandlers(Protocol):
    """What the daemon answers. Called from worker threads, several at once; raises WireError to say no.

    The peer's role is one that may make the call; anything finer (whose child is it, whose agent) is the handler's.
    A stream must end soon after ``call.is_active()`` turns false, or its worker is lost to others.
    """

    def status(self, request: pb.StatusRequest, peer: Peer, call: Call) -> pb.StatusReply: ...
    def doctor(self, request: pb.DoctorRequest, peer: Peer, call: Call) -> pb.JsonReply: ...
    def ps(self, request: pb.PsRequest, peer: Peer, call: Call) -> Iterator[pb.JsonReply]: ...
    def events(self, request: pb.EventsRequest, peer: Peer, call: Call) -> Iterator[pb.RecordLine]: ...
    def bind(self, request: pb.BindRequest, peer: Peer, call: Call) -> pb.BindReply: ...
    def adopt(self, request: pb.AdoptRequest, peer: Peer, call: Call) -> pb.AdoptReply: ...
    def kill(self, request: pb.KillRequest, peer: Peer, call: Call) -> pb.KillReply: ...
    def freeze(self, request: pb.FreezeRequest, peer: Peer, call: Call) -> pb.FreezeReply: ...
    def release(self, request: pb.ReleaseRequest, peer: Peer, call: Call) -> pb.ReleaseReply: ...
    def reload(self, request: pb.ReloadRequest, peer: Peer, call: Call) -> pb.ReloadReply: ...
    def arm(self, request: pb.ArmRequest, peer: Peer, call: Call) -> pb.ArmReply: ...


@dataclass(frozen=True)
class Agents:
    """Which processes are agents': whatever their uid lets them open, they get what agent.sock gives.

    ``refused`` is told of each call that such a process may not make, and the role whose socket it came through.
    """

    is_agent: Callable[[int], bool] = lambda pid: False
    refused: Callable[[Peer, Role, str], None] = lambda peer, role, call: None

    def narrow(self, peer: Peer, connection: socket.socket) -> Peer:
        """Who has gone since may have been an agent's that left its connection to another: fails closed."""
        if sockets.is_there(connection, peer.pid) and not self.is_agent(peer.pid):
            return peer
        return replace(peer, role=Role.AGENT)

    def refusal(self, role: Role, peer: Peer, call: str) -> tuple[str, str] | None:
        """Message and hint if ``peer``, who came through ``role``'s socket, may not make ``call``, else None."""
        said = roles.refusal(Role(peer.role), call)
        if said is None or peer.role == role:
            return said
        self.refused(peer, role, call)
        return f"{call.lower()} is not permitted to an agent, whatever its user", "somebody who is no agent may do it"


class Server:
    """The four sockets in ``run_dir``. Nobody can connect before ``start``; ``stop`` removes them."""

    def __init__(self, run_dir: Path, handlers: HostHandlers, agents: Agents) -> None:
        self._run_dir = run_dir
        self._handlers = handlers
        self._agents = agents
        self._lock = -1
        self._relay: Relay | None = None
        self._servers: list[rpc.InnerServer] = []
        self._inodes: dict[Path, int] = {}

    def start(self) -> None:
        """Opens the sockets and answers. Raises SocketInUse, SocketProblem; then nothing is left open."""
        inner = sockets.prepare_folder(self._run_dir)
        self._lock = sockets.lock_folder(inner)
        entrances: list[Entrance] = []
        try:
            for role in Role:
                entrances.append(self._entrance(role, inner))
        except BaseException:
            for entrance in entrances:
                entrance.listener.close()
            self.stop()
            raise
        self._relay = Relay(entrances)
        for role, entrance in zip(Role, entrances, strict=True):
            made = self._inner_server(role, entrance, self._relay)
            made.start()
            self._servers.append(made)
        self._relay.start()

    def stop(self) -> None:
        """Ends all calls, closes and removes the sockets. Can be called twice."""
        for path, inode in self._inodes.items():
            sockets.remove(path, inode)
        self._inodes.clear()
        rpc.stop_all(self._servers)
        self._servers.clear()
        if self._relay is not None:
            self._relay.stop()
            self._relay = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _entrance(self, role: Role, inner: Path) -> Entrance:
        door = DOORS[role]
        path = self._run_dir / door.file
        group = sockets.group_id(door.group)
        # Without its group the socket is root's alone: 0660 root:root would give it to whoever has gid 0.
        mode = door.mode if door.group is None or group is not None else door.mode & 0o700
        listener = sockets.listen(path, mode, group, inner)
        self._inodes[path] = path.lstat().st_ino
        return Entrance(role, listener, inner / f"{role}.grpc", door.limits, narrows=self._agents.narrow)

    def _inner_server(self, role: Role, entrance: Entrance, relay: Relay) -> rpc.InnerServer:
        guard = Guard(relay.peer_of, partial(self._agents.refusal, role), entrance.limits.streams)
        return rpc.InnerServer(entrance.inner, SERVICE, _calls(guard, self._handlers), entrance.limits)


def _calls(guard: Guard, handlers: HostHandlers) -> dict[str, Any]:
    def status(request: pb.StatusRequest, peer: Peer, call: Call) -> pb.StatusReply:
        reply = handlers.status(request, peer, call)
        return pb.StatusReply(ready=reply.ready) if peer.role in READY_ONLY else reply

    return {
        "Status": guard.unary("Status", pb.StatusRequest, status),
        "Doctor": guard.unary("Doctor", pb.DoctorRequest, handlers.doctor),
        "Ps": guard.stream("Ps", pb.PsRequest, handlers.ps),
        "Events": guard.stream("Events", pb.EventsRequest, handlers.events),
        "Bind": guard.unary("Bind", pb.BindRequest, handlers.bind),
        "Adopt": guard.unary("Adopt", pb.AdoptRequest, handlers.adopt),
        "Kill": guard.unary("Kill", pb.KillRequest, handlers.kill),
        "Freeze": guard.unary("Freeze", pb.FreezeRequest, handlers.freeze),
        "Release": guard.unary("Release", pb.ReleaseRequest, handlers.release),
        "Reload": guard.unary("Reload", pb.ReloadRequest, handlers.reload),
        "Arm": guard.unary("Arm", pb.ArmRequest, handlers.arm),
    }


def serve(run_dir: Path, handlers: HostHandlers, agents: Agents | None = None) -> Server:
    """A server of ``handlers`` on the sockets in ``run_dir``, not started. Without ``agents`` nobody is one."""
    return Server(run_dir, handlers, agents or Agents())
