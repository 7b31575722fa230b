"""The gRPC servers behind the relay: bounded, quiet, and without trust in what arrives.

What a handler raises becomes a status here and nowhere else. Bytes that are no message of the contract become
INVALID_ARGUMENT; gRPC itself would log a trace for each, and any peer could fill the log.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from hostwarden.wire.errors import HINT_KEY, Code, SocketProblem, WireError
from hostwarden.wire.roles import Limits, Peer

MESSAGE_BYTES = 4 * 1024 * 1024
METADATA_BYTES = 64 * 1024  # a status with a long list of errors fits (errors.MESSAGE_LIMIT)
HANDSHAKE_MS = 10_000  # whoever connects and says nothing is cut off after this
AGE_GRACE_MS = 5_000  # a call that is being answered when its connection is too old may take this long
STOP_GRACE_S = 0.5
KEEPALIVE_MS = 300_000  # asks a silent follower this often; one that is stopped gives its worker back

log = logging.getLogger(__name__)
Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class Malformed:
    """Stands for a request that isn't what the contract says."""

    reason: str


class Call:
    """What a handler may know of the call it answers."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context

    def is_active(self) -> bool:
        """False once the peer went away, its deadline passed, or the server stops."""
        return bool(self._context.is_active())

    def on_end(self, callback: Callable[[], None]) -> None:
        """Has ``callback`` called, from another thread, when the call ends; at once if it has."""
        if not self._context.add_callback(callback):
            callback()

    def time_left_s(self) -> float | None:
        """Seconds to the peer's deadline, None without one."""
        left = self._context.time_remaining()
        # gRPC answers an astronomic number for "none".
        return None if left is None or left > 10**8 else float(left)


class Guard:
    """Wraps handlers into what gRPC calls: who is it, may they, is the request whole, what went wrong."""

    def __init__(
        self,
        peer_of: Callable[[str], Peer | None],
        refusal: Callable[[Peer, str], tuple[str, str] | None],
        streams: int,
    ) -> None:
        self._peer_of = peer_of
        self._refusal = refusal
        self._streams = threading.BoundedSemaphore(streams) if streams else None
        self._limit = streams

    def unary(self, name: str, request: type[Message], handler: Callable[[Any, Peer, Call], Any]) -> Any:
        """gRPC's handler of a call with one reply."""

        def behaviour(message: Any, context: grpc.ServicerContext) -> Any:
            try:
                return handler(message, self._check(name, message, context), Call(context))
            except Exception as error:  # noqa: BLE001 - the one place where a handler's errors are answered
                _abort(context, name, error)

        return grpc.unary_unary_rpc_method_handler(behaviour, tolerant(request), serialise)

    def stream(self, name: str, request: type[Message], handler: Callable[[Any, Peer, Call], Iterator[Any]]) -> Any:
        """gRPC's handler of a call with a stream of replies."""

        def behaviour(message: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield from self._answers(name, message, context, handler)

        return grpc.unary_stream_rpc_method_handler(behaviour, tolerant(request), serialise)

    def duplex(self, name: str, request: type[Message], handler: Callable[[Any, Peer, Call], Iterator[Any]]) -> Any:
        """gRPC's handler of a call with a stream each way; ``handler`` gets an iterator of messages or Malformed."""

        def behaviour(messages: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield from self._answers(name, _until_gone(messages), context, handler)

        return grpc.stream_stream_rpc_method_handler(behaviour, tolerant(request), serialise)

    def _answers(
        self,
        name: str,
        message: Any,
        context: grpc.ServicerContext,
        handler: Callable[[Any, Peer, Call], Iterator[Any]],
    ) -> Iterator[Any]:
        try:
            peer = self._check(name, message, context)
            if self._streams is None or not self._streams.acquire(blocking=False):
                raise WireError(
                    Code.BUSY, f"{self._limit} streams are open on this socket already", "close one of them"
                )
            try:
                yield from handler(message, peer, Call(context))
            finally:
                self._streams.release()
        except Exception as error:  # noqa: BLE001 - as above
            _abort(context, name, error)

    def _check(self, name: str, message: Any, context: grpc.ServicerContext) -> Peer:
        peer = self._peer_of(context.peer())
        if peer is None:
            raise WireError(
                Code.NOT_PERMITTED, "who is calling is not known", "connect to the socket in the run folder"
            )
        refusal = self._refusal(peer, name)
        if refusal is not None:
            raise WireError(Code.NOT_PERMITTED, *refusal)
        if isinstance(message, Malformed):
            raise WireError(Code.INVALID, f"{name.lower()}: {message.reason}", "command and daemon differ in version?")
        return peer


def _until_gone(messages: Iterator[Any]) -> Iterator[Any]:
    """What the peer sends, to its end or to the peer's; gRPC raises when a peer goes away, which is nobody's error."""
    try:
        yield from messages
    except grpc.RpcError:
        return


def _abort(context: grpc.ServicerContext, name: str, error: Exception) -> Never:
    if not isinstance(error, WireError):
        log.error("%s failed", name, exc_info=error)
        error = WireError(Code.INTERNAL, "internal error", "the service's log says more")
    context.set_trailing_metadata(((HINT_KEY, error.hint.encode(errors="replace")),))
    context.abort(error.code.value, error.message)


def tolerant(kind: type[Message]) -> Callable[[bytes], Message | Malformed]:
    """A parser of ``kind`` that answers Malformed and never raises."""

    def parse(data: bytes) -> Message | Malformed:
        message = kind()
        try:
            message.ParseFromString(data)
        except DecodeError:
            return Malformed("the request can't be read")
        return message

    return parse


def serialise(message: Message) -> bytes:
    """A reply's bytes."""
    return message.SerializeToString()


class InnerServer:
    """A gRPC server for ``service`` on the unix socket ``inner``. Its threads are made when first needed.

    Calls above twice the workers are refused by gRPC with RESOURCE_EXHAUSTED.
    """

    def __init__(self, inner: Path, service: str, handlers: dict[str, Any], limits: Limits) -> None:
        self._pool = ThreadPoolExecutor(limits.workers, thread_name_prefix=inner.stem)
        self._inner = inner
        self._server = grpc.server(self._pool, options=_options(limits), maximum_concurrent_rpcs=limits.workers * 2)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def start(self) -> None:
        """Listens and answers. Raises SocketProblem."""
        try:
            self._server.add_insecure_port(f"unix:{self._inner}")
            self._inner.chmod(0o600)
        except (RuntimeError, OSError) as error:
            raise SocketProblem(f"{self._inner}: gRPC can't listen there") from error
        self._server.start()

    def begin_stop(self) -> threading.Event:
        """Refuses new calls, cancels those that don't end within the grace; the event is set when none is left."""
        ended = self._server.stop(STOP_GRACE_S)
        self._pool.shutdown(wait=False, cancel_futures=True)  # after the stop: gRPC hands nothing new to it
        return ended


def stop_all(servers: list[InnerServer]) -> None:
    """Stops all of them at once, within twice the grace."""
    for ended in [server.begin_stop() for server in servers]:
        ended.wait(STOP_GRACE_S * 2)


def _options(limits: Limits) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.max_concurrent_streams", limits.calls),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_MS // 5),
    ]
    if limits.max_age_s is not None:
        options.append(("grpc.max_connection_age_ms", limits.max_age_s * 1000))
        options.append(("grpc.max_connection_age_grace_ms", AGE_GRACE_MS))
    return options
