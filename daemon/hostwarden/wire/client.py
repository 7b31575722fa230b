"""The commands' end of the sockets: a thin typed client for one host, and one for a collector.

``connect(run_dir)`` takes the first socket it may open: admin, responder, auditor, agent (design section 13). Every
call returns the reply's message, or raises NoDaemon, NotPermitted, Refused or Failed with one line and a hint.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire.errors import HINT_KEY, Failed, NoDaemon, NotPermitted, Refused, client_error
from hostwarden.wire.roles import DOORS, Role
from hostwarden.wire.rpc import MESSAGE_BYTES, METADATA_BYTES

ANSWER_S = 10.0  # for calls that only look
WORK_S = 60.0  # for calls that change what is in force
START_HINT = "is hostwardend running? see `systemctl status hostwardend`"
COLLECTOR_HINT = "is hostwarden-collector running? see `systemctl status hostwarden-collector`"

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    ("grpc.enable_retries", 0),  # a kill that is sent twice is two kills in the log
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


class _Client:
    """A channel to one service. Use as a context manager, or call ``close``."""

    service = ""

    def __init__(self, path: Path, hint: str) -> None:
        self._path, self._hint = path, hint
        self._channel = grpc.insecure_channel(f"unix:{path.absolute()}", options=OPTIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls and the connection."""
        self._channel.close()

    def _unary(self, name: str, request: Message, reply: Any, timeout_s: float) -> Any:
        method = self._channel.unary_unary(f"/{self.service}/{name}", _serialise, reply.FromString)
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._translated(error, name, timeout_s) from None

    def _stream(self, name: str, request: Message, reply: Any) -> Iterator[Any]:
        method = self._channel.unary_stream(f"/{self.service}/{name}", _serialise, reply.FromString)
        call = method(request)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._translated(error, name, 0) from None
        finally:
            call.cancel()

    def _translated(self, error: Any, name: str, timeout_s: float) -> Exception:
        status, trailers = error.code(), list(error.trailing_metadata() or ())
        if any(key == HINT_KEY for key, _ in trailers):  # a handler's own words
            return client_error(status, error.details() or "", trailers)
        if status is grpc.StatusCode.UNAVAILABLE:
            return NoDaemon(f"{self._path}: the connection broke before the answer came", self._hint)
        if status is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Failed(f"{name.lower()}: no answer within {timeout_s:g} s", self._hint)
        if status is grpc.StatusCode.CANCELLED:
            return NoDaemon(f"{name.lower()}: cancelled", self._hint)
        return client_error(status, f"{name.lower()}: {(error.details() or status.name).splitlines()[0]}", trailers)


class HostClient(_Client):
    """hostwardend, in the role of the socket that could be opened."""

    service = "hostwarden.v1.Host"

    def __init__(self, path: Path, role: Role) -> None:
        super().__init__(path, START_HINT)
        self.role = role

    def status(self) -> pb.StatusReply:
        """Whether it is ready, tiers, losses, last sequence; through agent.sock only ``ready``."""
        reply: pb.StatusReply = self._unary("Status", pb.StatusRequest(), pb.StatusReply, ANSWER_S)
        return reply

    def doctor(self) -> pb.JsonReply:
        """The matrix action × tier."""
        reply: pb.JsonReply = self._unary("Doctor", pb.DoctorRequest(), pb.JsonReply, WORK_S)
        return reply

    def ps(self) -> Iterator[pb.JsonReply]:
        """One agent a message."""
        return self._stream("Ps", pb.PsRequest(), pb.JsonReply)

    def events(
        self, since: int = 0, follow: bool = False, agent: str = "", verdict: str = "", host: str = ""
    ) -> Iterator[pb.RecordLine]:
        """Records above ``since``, ascending; with ``follow`` also those to come."""
        return self._stream("Events", _events_request(since, follow, agent, verdict, host), pb.RecordLine)

    def bind(self, agent: str, labels: Mapping[str, str], pid: int, start_ticks: int) -> pb.BindReply:
        """Makes the caller's stopped child ``pid`` a process of ``agent``."""
        request = pb.BindRequest(agent=agent, labels=labels, pid=pid, start_ticks=start_ticks)
        reply: pb.BindReply = self._unary("Bind", request, pb.BindReply, ANSWER_S)
        return reply

    def adopt(self, pid: int, agent: str, labels: Mapping[str, str]) -> pb.AdoptReply:
        """Makes ``pid`` and its descendants processes of ``agent``."""
        request = pb.AdoptRequest(pid=pid, agent=agent, labels=labels)
        reply: pb.AdoptReply = self._unary("Adopt", request, pb.AdoptReply, WORK_S)
        return reply

    def kill(self, labels: Mapping[str, str], timeout_s: float) -> pb.KillReply:
        """Ends every process of every matching agent; the daemon answers within ``timeout_s`` seconds."""
        request = pb.KillRequest(labels=labels, timeout_s=timeout_s)
        reply: pb.KillReply = self._unary("Kill", request, pb.KillReply, timeout_s + ANSWER_S)
        return reply

    def freeze(self, labels: Mapping[str, str], timeout_s: float) -> pb.FreezeReply:
        """Stops every process of every matching agent; the daemon answers within ``timeout_s`` seconds."""
        request = pb.FreezeRequest(labels=labels, timeout_s=timeout_s)
        reply: pb.FreezeReply = self._unary("Freeze", request, pb.FreezeReply, timeout_s + ANSWER_S)
        return reply

    def release(self, labels: Mapping[str, str], agent: str = "") -> pb.ReleaseReply:
        """Lets killed agents start again, and frozen ones go on: by labels, by the name of a frozen one, or both."""
        request = pb.ReleaseRequest(labels=labels, agent=agent)
        reply: pb.ReleaseReply = self._unary("Release", request, pb.ReleaseReply, WORK_S)
        return reply

    def reload(self) -> pb.ReloadReply:
        """Reads policies and agents anew, all or nothing."""
        reply: pb.ReloadReply = self._unary("Reload", pb.ReloadRequest(), pb.ReloadReply, WORK_S)
        return reply

    def arm(self, armed: bool) -> pb.ArmReply:
        """Starts or stops enforcing."""
        reply: pb.ArmReply = self._unary("Arm", pb.ArmRequest(armed=armed), pb.ArmReply, WORK_S)
        return reply


class CollectorClient(_Client):
    """hostwarden-collector: the records of all its hosts."""

    service = "hostwarden.v1.Collector"

    def __init__(self, path: Path) -> None:
        super().__init__(path, COLLECTOR_HINT)

    def status(self) -> pb.StatusReply:
        """Ready, and in ``json`` the hosts with what is stored of each."""
        reply: pb.StatusReply = self._unary("Status", pb.StatusRequest(), pb.StatusReply, ANSWER_S)
        return reply

    def events(
        self, since: int = 0, follow: bool = False, agent: str = "", verdict: str = "", host: str = ""
    ) -> Iterator[pb.RecordLine]:
        """Records above ``since`` of each host, ascending by host and sequence; ``follow`` as they come."""
        return self._stream("Events", _events_request(since, follow, agent, verdict, host), pb.RecordLine)


def connect(run_dir: Path, role: Role | None = None) -> HostClient:
    """A client through the first socket in ``run_dir`` that may be opened, or through ``role``'s.

    Raises NoDaemon if nobody listens, NotPermitted if somebody does but every socket is closed to us.
    """
    denied: Path | None = None
    for candidate in Role if role is None else (role,):
        path = run_dir / DOORS[candidate].file
        try:
            _probe(path)
        except PermissionError:
            denied = path
        except OSError:
            continue
        else:
            return HostClient(path, candidate)
    if denied is not None:
        raise NotPermitted(f"{denied}: permission denied", "root, or a member of the socket's group, may open it")
    raise NoDaemon(f"{run_dir}: no daemon listens there", START_HINT)


def connect_collector(address: str) -> CollectorClient:
    """A client of the collector at ``unix:/path``. Raises Refused for other addresses, NoDaemon, NotPermitted."""
    path = unix_path(address)
    try:
        _probe(path)
    except PermissionError:
        raise NotPermitted(
            f"{path}: permission denied", "root, or a member of the socket's group, may open it"
        ) from None
    except OSError as error:
        raise NoDaemon(f"{path}: {os.strerror(error.errno or 0).lower()}", COLLECTOR_HINT) from None
    return CollectorClient(path)


def unix_path(address: str) -> Path:
    """The path of ``unix:/path``. Raises Refused for anything else."""
    path = Path(address.removeprefix("unix:"))
    if not address.startswith("unix:") or not path.is_absolute():
        raise Refused(f"{address}: not an address of a collector", "unix:/path is; TCP comes with mutual TLS, later")
    return path


def _probe(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(os.fspath(path))


def _events_request(since: int, follow: bool, agent: str, verdict: str, host: str) -> pb.EventsRequest:
    return pb.EventsRequest(since=since, follow=follow, agent=agent, verdict=verdict, host=host)


def _serialise(message: Message) -> bytes:
    return message.SerializeToString()
