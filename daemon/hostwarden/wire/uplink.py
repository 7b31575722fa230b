"""A host's stream to a collector: one thread that connects, resumes, sends, and comes back after anything.

What was acknowledged is on a collector's disk. What was sent and not acknowledged is sent again after a reconnect, from
where the collector says it stands (Welcome); the collector tells repeated lines by their bytes. At most a window of
lines and bytes is on the way, so a slow collector costs the host no memory: the log's files are the queue.
"""

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

import grpc

from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire.client import OPTIONS, unix_path
from hostwarden.wire.rpc import KEEPALIVE_MS

log = logging.getLogger(__name__)

WINDOW_LINES = 64 * 1024
WINDOW_BYTES = 8 * 1024 * 1024
CHECKPOINTS_LIMIT = 64  # in one batch; the newest stand for all before them
POLL_S = 1.0  # looks for new records at least this often; `wake` makes it look at once
BACKOFF_S = (0.25, 30.0)  # first and longest wait between two tries; doubled after each
REFUSED_S = 30.0  # a refusal seldom mends itself
_METHOD = "/hostwarden.v1.Collector/Stream"


class Portion(Protocol):
    """Lines from ``first`` on, without newlines, and notes of checkpoints; ``hostwarden.records.reader.Batch`` is one.

    At most about 1 MiB of lines and one more line of at most 1 MiB.
    """

    @property
    def first(self) -> int: ...
    @property
    def lines(self) -> Sequence[bytes]: ...
    @property
    def checkpoints(self) -> Sequence[str]: ...


class Cursor(Protocol):
    """A place in the log; ``hostwarden.records.reader.LogCursor`` is one. ``read`` never waits."""

    def read(self, until: int | None = None) -> Portion: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Log:
    """The log to stream. ``open_at(sequence)`` is a cursor behind that record, ``synced()`` the last one that may go.

    ``fits(sequence, leaf_hash)`` says what is wrong with what a collector claims to hold of this log, None if nothing.
    Whatever these raise is the stream's failure: it is logged, shown in ``state``, and tried again.
    """

    hello: pb.Hello
    open_at: Callable[[int], Cursor]
    synced: Callable[[], int]
    fits: Callable[[int, bytes], str | None] = lambda sequence, leaf_hash: None


class Phase(StrEnum):
    """What the uplink does."""

    CONNECTING = "connecting"
    STREAMING = "streaming"
    WAITING = "waiting"  # before the next try
    REFUSED = "refused"  # the collector, or our own log, says that the two don't fit
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class State:
    """A picture of the uplink. ``trouble`` is why the last stream ended, empty once one is up again."""

    phase: Phase
    address: str
    acknowledged: int
    trouble: str


class Uplink:
    """Streams ``log`` to the first of ``addresses`` that answers. Raises Refused for an address that isn't one."""

    def __init__(self, addresses: Sequence[str], source: Log) -> None:
        self._targets = [(address, f"unix:{unix_path(address)}") for address in addresses]
        self._log = source
        self._changed = threading.Condition()
        self._state = State(Phase.CONNECTING, addresses[0] if addresses else "", 0, "")
        self._stopping = False
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    @property
    def state(self) -> State:
        """How it stands now."""
        return self._state

    @property
    def acknowledged(self) -> int:
        """The last sequence that a collector has on its disk, as far as we know."""
        return self._state.acknowledged

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def wake(self) -> None:
        """There are new records."""
        with self._changed:
            self._changed.notify_all()

    def wait_acknowledged(self, sequence: int, timeout_s: float) -> bool:
        """Waits until ``sequence`` is acknowledged; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._state.acknowledged >= sequence, timeout_s)

    def stop(self) -> None:
        """Ends the stream; returns when the thread is gone. What wasn't acknowledged is sent at the next start."""
        with self._changed:
            self._stopping = True
            call = self._call
            self._changed.notify_all()
        if call is not None:
            call.cancel()
        if self._thread.is_alive():
            self._thread.join()
        self._show(phase=Phase.STOPPED)

    def _run(self) -> None:
        delay, turn = BACKOFF_S[0], 0
        while self._targets and not self._stopping:
            address, target = self._targets[turn % len(self._targets)]
            self._show(phase=Phase.CONNECTING, address=address)
            before = self._state.acknowledged
            trouble, refused = self._session(target)
            if self._stopping:
                return
            delay = BACKOFF_S[0] if self._state.acknowledged > before else delay
            if trouble and trouble != self._state.trouble:
                log.warning("collector %s: %s", address, trouble)
            self._show(phase=Phase.REFUSED if refused else Phase.WAITING, trouble=trouble)
            turn += 1
            self._pause(max(delay, REFUSED_S) if refused else delay)
            delay = min(delay * 2, BACKOFF_S[1])

    def _session(self, target: str) -> tuple[str, bool]:
        """One connection, to its end: why it ended, and whether it was a refusal."""
        keepalive = [("grpc.keepalive_time_ms", KEEPALIVE_MS), ("grpc.keepalive_timeout_ms", KEEPALIVE_MS // 5)]
        session = _Session(self._log, self._changed, self._on_progress)
        with grpc.insecure_channel(target, options=[*OPTIONS, *keepalive]) as channel:
            stream = channel.stream_stream(_METHOD, _serialise, pb.CollectorMessage.FromString)
            call = stream(session.requests())
            with self._changed:
                self._call = call
                stopping = self._stopping
            if stopping:
                call.cancel()
            try:
                return session.receive(call)
            except grpc.RpcError as error:
                return _reason(error), False
            finally:
                session.end()
                self._call = None

    def _on_progress(self, stored: int) -> None:
        self._show(phase=Phase.STREAMING, acknowledged=stored, trouble="")

    def _pause(self, delay_s: float) -> None:
        jittered = delay_s * (0.5 + secrets.randbelow(1000) / 2000)  # hosts must not come back in step
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, jittered)

    def _show(self, **changes: Any) -> None:
        with self._changed:
            self._state = replace(self._state, **changes)
            self._changed.notify_all()


class _Session:
    """One connection and its window: ``requests`` runs in gRPC's thread, ``receive`` in the uplink's.

    ``changed`` guards what both touch, and wakes ``requests``: after an acknowledgement, new records, or the end.
    """

    def __init__(self, source: Log, changed: threading.Condition, on_progress: Callable[[int], None]) -> None:
        self._log, self._changed, self._on_progress = source, changed, on_progress
        self._since: int | None = None  # what the collector held at first, once it said so
        self._sent: deque[tuple[int, int]] = deque()  # last sequence and bytes of each batch on the way
        self._bytes = 0
        self._acknowledged = 0
        self._ended = False
        self._failure = ""

    def end(self) -> None:
        """No more requests."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def requests(self) -> Iterator[pb.HostMessage]:
        """Hello, then batches as the window allows."""
        yield pb.HostMessage(hello=self._log.hello)
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._since is not None)
        try:
            yield from self._batches()
        except Exception as error:
            log.exception("the log can't be read for the collector")
            self._failure = f"the log can't be read: {error}"

    def _batches(self) -> Iterator[pb.HostMessage]:
        cursor = self._log.open_at(self._since or 0)
        try:
            while not self._ended:
                synced = self._log.synced()
                portion = cursor.read(synced)
                if portion.lines or portion.checkpoints:
                    yield self._message(portion)
                    self._wait_for_room()
                else:
                    self._wait_for_more(synced)
        finally:
            cursor.close()

    def _message(self, portion: Portion) -> pb.HostMessage:
        lines, checkpoints = portion.lines, portion.checkpoints[-CHECKPOINTS_LIMIT:]
        size = sum(map(len, lines))
        with self._changed:
            self._sent.append((portion.first + len(lines) - 1, size))
            self._bytes += size
        return pb.HostMessage(batch=pb.Batch(first=portion.first, lines=lines, checkpoints=checkpoints))

    def _wait_for_room(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or not self._is_full())

    def _wait_for_more(self, synced: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._log.synced() != synced, POLL_S)

    def _is_full(self) -> bool:
        last = self._sent[-1][0] if self._sent else self._acknowledged
        return last - self._acknowledged >= WINDOW_LINES or self._bytes >= WINDOW_BYTES

    def receive(self, call: Any) -> tuple[str, bool]:
        """Takes what the collector says, to the end of the stream: why it ended, and whether it was a refusal."""
        for message in call:
            kind = message.WhichOneof("kind")
            if kind == "refusal":
                return message.refusal.reason or "refused", True
            if kind == "welcome":
                wrong = self._log.fits(message.welcome.stored, message.welcome.leaf_hash)
                if wrong:
                    return wrong, True
                self._acknowledge(message.welcome.stored)
            elif kind == "ack":
                self._acknowledge(message.ack.stored)
        return self._failure or "the collector ended the stream", False

    def _acknowledge(self, stored: int) -> None:
        with self._changed:
            self._since = stored if self._since is None else self._since
            self._acknowledged = stored
            while self._sent and self._sent[0][0] <= stored:
                self._bytes -= self._sent.popleft()[1]
        self._on_progress(stored)


def _reason(error: Any) -> str:
    if error.code() is grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
        return "no collector listens there, or it went away"
    return str(error.details() or error.code().name.lower()).splitlines()[0]


def _serialise(message: pb.HostMessage) -> bytes:
    return message.SerializeToString()
