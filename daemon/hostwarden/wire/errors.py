"""Errors of the wire, one table for both ends.

A handler raises ``WireError(code, message, hint)``; the server sends it as the gRPC status below, the client raises the
exception below, and the command line exits with its ``exit_code`` (design section 13)::

    Exception
     ├─ WireError          what a handler answers instead of a reply
     ├─ SocketInUse        another daemon listens there
     ├─ SocketProblem      the folder or the socket can't be made: permissions, length of the path
     └─ ClientError        what a caller gets
         ├─ NoDaemon       3  nobody listens, or it went away
         ├─ NotPermitted   4  this role may not call this
         ├─ Refused        2  the request itself is wrong
         └─ Failed         1  the answer is no
"""

from enum import Enum

import grpc

# A status travels as one HTTP/2 trailer; peers cut the connection above their limit (server and client set 64 kB), and
# percent-encoding makes three bytes of one. Long lists of errors are cut here, and say so.
MESSAGE_LIMIT = 16_000
HINT_KEY = "hint-bin"


class Code(Enum):
    """What kind of no it is."""

    INVALID = grpc.StatusCode.INVALID_ARGUMENT
    NOT_PERMITTED = grpc.StatusCode.PERMISSION_DENIED
    NOT_FOUND = grpc.StatusCode.NOT_FOUND
    CONFLICT = grpc.StatusCode.FAILED_PRECONDITION
    BUSY = grpc.StatusCode.RESOURCE_EXHAUSTED
    TIMEOUT = grpc.StatusCode.DEADLINE_EXCEEDED
    UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
    INTERNAL = grpc.StatusCode.INTERNAL


class WireError(Exception):
    """A handler's answer of no: ``message`` says what is wrong (one line for each error), ``hint`` what to do."""

    def __init__(self, code: Code, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = shorten(message)
        self.hint = shorten(hint)


class SocketInUse(Exception):
    """A live listener owns the socket. The text is one line."""


class SocketProblem(Exception):
    """A socket or its folder can't be had. The text is one line, with the path and what to change."""


class ClientError(Exception):
    """A call that got no reply. ``exit_code`` is the command's."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NoDaemon(ClientError):
    """Nobody listens on the socket, or the one who did went away."""

    exit_code = 3


class NotPermitted(ClientError):
    """The role of the socket, or the permissions of all sockets, forbid the call."""

    exit_code = 4


class Refused(ClientError):
    """The request is invalid."""

    exit_code = 2


class Failed(ClientError):
    """The answer is no."""

    exit_code = 1


# Every other status is Failed: the daemon answered, and the answer isn't yes.
_RAISED: dict[grpc.StatusCode, type[ClientError]] = {
    grpc.StatusCode.UNAVAILABLE: NoDaemon,
    grpc.StatusCode.PERMISSION_DENIED: NotPermitted,
    grpc.StatusCode.INVALID_ARGUMENT: Refused,
}


def client_error(status: grpc.StatusCode, details: str, trailers: list[tuple[str, str | bytes]]) -> ClientError:
    """The exception for a status that came back, the hint taken from the trailers."""
    hint = next((value for key, value in trailers if key == HINT_KEY), b"")
    text = hint.decode(errors="replace") if isinstance(hint, bytes) else hint
    return _RAISED.get(status, Failed)(details or status.name.lower(), text)


def shorten(text: str) -> str:
    """``text``, cut to what fits a status."""
    if len(text.encode(errors="replace")) <= MESSAGE_LIMIT:
        return text
    return text.encode(errors="replace")[:MESSAGE_LIMIT].decode(errors="ignore") + "\n… and more"
