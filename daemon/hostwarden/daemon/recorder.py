"""From the kernel's rings to the synced log, in batches; nothing leaves a ring before it is on disk.

One thread runs ``wait()``, ``drain()`` and ``account()`` in a loop. A batch goes: acts of the warden that others
queued, then events of both rings by time; enriched, appended, synced; then the rings are released, futures resolved,
and on_synced told. A daemon that dies anywhere in between finds the same events in the rings again, and ``resume()``
reads in the log's tail which of them are recorded: none is lost, and none is there twice.

When there is no space (LogFull) the batch in hand is kept and tried again, and the rings are left alone: the kernel
goes on deciding, and counts what doesn't fit any more.
"""

import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from hostwarden.daemon.acts import Identity, body
from hostwarden.daemon.clock import Clock
from hostwarden.daemon.enrich import Enricher
from hostwarden.daemon.losses import Ledger
from hostwarden.daemon.processes import ProcessTable
from hostwarden.policy.words import Verdict
from hostwarden.probes.layout import (
    EVENT,
    EVENT_HEADER,
    KIND_ACTION,
    KIND_EXEC,
    KIND_EXIT,
    KIND_FORK,
    KIND_JOIN,
    KIND_SHARED,
    Event,
)
from hostwarden.probes.pins import Counts
from hostwarden.probes.rings import RECORD_HEADER, Batch, Ring, following
from hostwarden.records.segments import MAX_LINE, LogFull

READ_BYTES = 256 << 10  # of each ring, a turn: few enough to be fair, many enough that a sync costs each record little
BODIES_BYTES = 8 << 20  # of bodies in a batch: an agent can make 10 kB of event into 100 kB of record
MAX_ACTS = 4096
MAX_ACT = MAX_LINE - 256  # bytes; sequence and prev come in front
RETRY_S = 0.5
PACE_S = 0.005  # between two batches, unless a ring fills up: a sync for each single event would cost more than events
ACCOUNT_S = 1.0
# Records that resume() must be given, at least: as many as one batch can hold.
TAIL_RECORDS = 2 * READ_BYTES // (RECORD_HEADER + EVENT_HEADER) + MAX_ACTS + 2

_log = logging.getLogger(__name__)

RINGS = ("denials", "events")  # in the order in which they are read
_KIND_AT, _ENFORCED_AT = 64, 89  # of layout.EVENT; kinds fit in the low byte


class Log(Protocol):
    """What is needed of records.LogWriter."""

    @property
    def synced_sequence(self) -> int:
        """The last record on disk."""

    def append(self, bodies: Sequence[bytes]) -> tuple[int, list[bytes]]:
        """Write all or nothing; the first one's sequence, and the lines."""

    def sync(self, now: float | None = None) -> int:
        """Make durable; the last synced sequence."""

    def tick(self, now: float | None = None) -> None:
        """Sync and sign what is left, if anything."""


class ActsFull(Exception):
    """Too many acts wait to be recorded: the disk is full, or stands still. One line."""


@dataclass(slots=True)
class _Pending:
    """A batch on its way to the disk. The futures are those of the first bodies."""

    bodies: list[bytes] = field(default_factory=list)
    futures: list["Future[int] | None"] = field(default_factory=list)
    first: int = 0  # sequence of the first body, once appended


class Recorder:
    """The one reader of both rings and the one writer of ``log``."""

    def __init__(
        self,
        log: Log,
        rings: tuple[Ring, Ring],
        enricher: Enricher,
        table: ProcessTable,
        clock: Clock,
        identity: Identity,
        instance: str,
        *,
        on_synced: Callable[[int], None] = lambda sequence: None,
        on_shared: Callable[[Event], None] = lambda event: None,
        on_freeze: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """``rings``: denials, events. ``instance`` names their maps: another one when they are made anew."""
        self._log, self._rings, self._enricher, self._table, self._clock = log, rings, enricher, table, clock
        self._identity, self.ledger = identity, Ledger(instance)
        self._on_synced, self._on_shared, self._on_freeze = on_synced, on_shared, on_freeze
        self._prefixes = tuple(f"{name}@{instance}:" for name in RINGS)
        self._names = tuple(orjson.dumps(prefix)[1:-1] for prefix in self._prefixes)
        self._recorded = [-1, -1]  # last position of each ring that an earlier daemon has put in the log
        self._ends = [ring.position for ring in rings]  # where release() may go when what was enriched is on disk
        self._stream: Iterator[tuple[int, bytes, int]] = iter(())
        self._acts: deque[tuple[bytes, Future[int] | None]] = deque()
        self._pending: _Pending | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._retry_at = self._account_at = self._drained_at = 0.0
        self.is_log_full = False
        self.unexplained = 0  # events that enrich failed on: a bug, see the daemon's log

    # for any thread

    def act(self, record: bytes) -> "Future[int]":
        """Queue the body of an act of the warden's own; the future gives its sequence once it is on disk.

        Raises ValueError for what can't be a record, ActsFull.
        """
        if record[:2] != b'{"' or b"\n" in record or len(record) > MAX_ACT:
            raise ValueError("an act's body is a JSON object on one line, not empty, and not longer than a record")
        if len(self._acts) >= MAX_ACTS:
            raise ActsFull(f"{MAX_ACTS} acts wait to be recorded; look at the disk of the state_dir")
        future: Future[int] = Future()
        self._acts.append((record, future))
        self.wake()
        return future

    def wake(self) -> None:
        """Make wait() return."""
        os.eventfd_write(self._wake, 1)

    # for the recorder's thread

    def resume(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Learn from the log's tail (TAIL_RECORDS at least) which events of these rings are recorded already."""
        for record in records:
            ring = record.get("ring")
            if record.get("boot") != self._identity.boot or not isinstance(ring, str):
                continue
            for index, prefix in enumerate(self._prefixes):
                if ring.startswith(prefix) and ring[len(prefix) :].isdecimal():
                    self._recorded[index] = max(self._recorded[index], int(ring[len(prefix) :]))

    def wait(self, timeout_s: float) -> None:
        """Until there is something to do, or the time is over; while the disk is full, until it is worth a try."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        until_retry = self._retry_at - time.monotonic()
        if until_retry > 0:
            timeout_s = min(timeout_s, until_retry)
        elif self._pending is None and not self._acts:
            self._pace()
            for ring in self._rings:
                poll.register(ring.fd, select.POLLIN)
        else:
            timeout_s = 0
        if any(fd == self._wake for fd, _ in poll.poll(timeout_s * 1000)):
            os.eventfd_read(self._wake)

    def _pace(self) -> None:
        rest = self._drained_at + PACE_S - time.monotonic()
        if rest > 0 and all(ring.waiting < ring.size // 8 for ring in self._rings):
            time.sleep(rest)

    def drain(self) -> int:
        """One batch, if there is anything; how many records are on disk now that weren't.

        Raises LogError if the log can't be written for another reason than space: nothing more can be recorded until
        it is opened anew, and the rings still hold what isn't.
        """
        now = time.monotonic()
        if now < self._retry_at:
            return 0
        self._clock.refresh()
        if self._pending is None:
            self._pending = _Pending()
            self._gather(self._pending)
        try:
            return self._commit(self._pending, now)
        except LogFull:
            self.is_log_full, self._retry_at = True, now + RETRY_S
            return 0
        finally:
            self._drained_at = now

    def account(self, losses: Callable[[], Mapping[int, Counts]], *, at_once: bool = False) -> int:
        """Once a second: ask for all agents' counts, and queue a record for each that lost something since.

        Returns how many actions that were. ``at_once``: before a slot's counts are cleared, and at the end.
        """
        now = time.monotonic()
        if not at_once and (now < self._account_at or self._pending is not None):
            return 0  # a batch in hand: the disk is full, and what grows meanwhile is said in one record then
        self._account_at = now + ACCOUNT_S
        grown = self.ledger.grown(losses())
        for agent_id, (lost, detail) in grown.items():
            if detail["lifecycle"] or "exec" in detail["lost"]:
                self._table.doubt()
            fields = self._enricher.about_agent(agent_id) | {"lost": lost}
            self._acts.append((body(self._identity, "loss", detail=detail, fields=fields), None))
        return sum(lost for lost, _ in grown.values())

    def close(self) -> None:
        """Acts that never got on disk are told so. The rings stay mapped: they are the caller's."""
        futures = [future for _, future in self._acts] + (self._pending.futures if self._pending else [])
        for future in futures:
            if future and not future.done():
                future.set_exception(ActsFull("the daemon ended before this could be recorded"))
        os.close(self._wake)

    # a batch

    def _gather(self, pending: _Pending) -> None:
        for _ in range(len(self._acts)):
            record, future = self._acts.popleft()
            pending.bodies.append(record)
            pending.futures.append(future)
            if future:
                future.set_running_or_notify_cancel()  # it is recorded either way: it was done
        if not self._enrich(pending.bodies):
            self._stream = _by_time(*(ring.read(READ_BYTES) for ring in self._rings))
            self._enrich(pending.bodies)

    def _enrich(self, bodies: list[bytes]) -> bool:
        """Bodies of what is left of the events that were read, up to BODIES_BYTES. False: there was nothing left."""
        ends, recorded, names, make = self._ends, self._recorded, self._names, self._enricher.body
        size, index = 0, -1
        for index, raw, position in self._stream:
            ends[index] = following(position, raw)
            try:
                if raw[_KIND_AT] != KIND_ACTION:
                    self._lifecycle(raw)
                    continue
                if raw[_ENFORCED_AT] == Verdict.FREEZE:
                    self._on_freeze(Event._make(EVENT.unpack_from(raw)))
                if position <= recorded[index]:
                    self._enricher.relearn(raw)
                    continue
                made = make(raw, names[index], position)
            except Exception:  # noqa: BLE001 (a bug may not blind the log, nor end every daemon that reads this event)
                made = self._unexplained(raw, index, position)
            bodies.append(made)
            size += len(made)
            if size > BODIES_BYTES:
                break
        else:
            ends[:] = [ring.position for ring in self._rings]  # behind records that the kernel discarded, too
        return index >= 0

    def _unexplained(self, raw: bytes, index: int, position: int) -> bytes:
        """A record of what the header says, and the event's bytes."""
        self.unexplained += 1
        if self.unexplained & (self.unexplained - 1) == 0:  # 1, 2, 4, …: whoever caused it can repeat it
            _log.exception("an event can't be explained (%d so far); its bytes are in the log", self.unexplained)
        return self._enricher.bare(raw, self._names[index], position)

    def _lifecycle(self, raw: bytes) -> None:
        event = Event._make(EVENT.unpack_from(raw))
        if event.kind == KIND_EXEC:
            self._enricher.relearn(raw)
        elif event.kind == KIND_FORK:
            self._table.forked(event)
        elif event.kind == KIND_EXIT:
            self._table.exited(event)
        elif event.kind == KIND_JOIN:
            self._table.joined(event)
        elif event.kind == KIND_SHARED:
            self._on_shared(event)

    def _commit(self, pending: _Pending, now: float) -> int:
        """Append, sync, release, tell: each step only if the one before is done. Raises LogFull, LogError."""
        if not pending.bodies:
            self._pending = None
            self._release()  # lifecycle is recorded nowhere
            self._log.tick(now)
            self.is_log_full = False
            return 0
        if not pending.first:
            pending.first = self._log.append(pending.bodies)[0]
        last = pending.first + len(pending.bodies) - 1
        is_signed = True
        try:
            self._log.sync(now)
        except LogFull:
            if self._log.synced_sequence < last:
                raise
            is_signed = False  # only the checkpoint has no space: the records are safe
        self._pending = None
        self._release()
        for sequence, future in enumerate(pending.futures, pending.first):
            if future and not future.cancelled():
                future.set_result(sequence)
        self._on_synced(last)
        self.is_log_full = not is_signed
        return len(pending.bodies)

    def _release(self) -> None:
        for ring, end in zip(self._rings, self._ends, strict=True):
            if end > ring.released:
                ring.release(end)


def _by_time(denials: Batch, events: Batch) -> Iterator[tuple[int, bytes, int]]:
    """Index of the ring, event, position. Each ring's own order is kept, even where its times aren't in order.

    resume() relies on that: what the log has of a ring is everything up to a position.
    """
    first, second = zip(denials.events, denials.positions), zip(events.events, events.positions)  # noqa: B905
    one, two = next(first, None), next(second, None)
    while one and two:
        if int.from_bytes(one[0][:8], "little") <= int.from_bytes(two[0][:8], "little"):
            yield 0, *one
            one = next(first, None)
        else:
            yield 1, *two
            two = next(second, None)
    if one:
        yield 0, *one
    if two:
        yield 1, *two
    for raw, position in first:
        yield 0, raw, position
    for raw, position in second:
        yield 1, raw, position
