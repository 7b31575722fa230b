"""Each event is in the log exactly once, whenever the daemon dies; nothing leaves a ring before it is on disk."""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from hostwarden.daemon import recorder as module
from hostwarden.daemon.acts import Identity, body
from hostwarden.daemon.clock import Clock
from hostwarden.daemon.enrich import Enricher
from hostwarden.daemon.processes import ProcessTable, Users
from hostwarden.daemon.recorder import MAX_ACT, TAIL_RECORDS, ActsFull, Recorder
from hostwarden.policy.tables import Reason
from hostwarden.policy.words import Action, Verdict
from hostwarden.probes.layout import KIND_EXIT, KIND_FORK, KIND_JOIN, KIND_SHARED, Event
from hostwarden.probes.pins import Counts
from hostwarden.records.key import load_or_create
from hostwarden.records.segments import LogError
from hostwarden.records.verify import verify
from hostwarden.records.writer import LogWriter

MakeEvent = Callable[..., bytes]
IDENTITY = Identity("host", "2f0a7f0e-5a43-4f6e-9d4b-0f6b6f3d8b11")
INSTANCE = "01ab"


class Host:
    """Directory, Reasons and Places in one; reason 9 is one that the tables don't have."""

    def agent(self, agent_id: int) -> Any:
        return SimpleNamespace(name=f"agent-{agent_id}", labels={"team": "billing"})

    def reason(self, generation: int, profile: int, index: int) -> Reason:
        if index == 9:
            raise IndexError(index)
        return Reason()

    def show(self, generation: int, row: int, dev: int, path: bytes) -> bytes:
        return path


class Daemon:
    """A recorder and all that it needs, as they are after a start; the rings are files and outlive it."""

    def __init__(self, state_dir: Path, rings: Any, *, instance: str = INSTANCE, **callbacks: Any) -> None:
        clock = Clock()
        self.log = LogWriter(state_dir, load_or_create(state_dir))
        self.log.open()
        self.table = ProcessTable(clock, probe=lambda pid, start: None, users=Users(lambda uid: _nobody()))
        enricher = Enricher(IDENTITY, clock, self.table, Host(), Host(), Host())
        self.rings = tuple(kernel.open() for kernel in rings)
        self.synced: list[int] = []
        callbacks.setdefault("on_synced", self.synced.append)
        denials, events = self.rings
        self.recorder = Recorder(
            self.log, (denials, events), enricher, self.table, clock, IDENTITY, instance, **callbacks
        )  # fmt: skip
        self.recorder.resume(self.log.tail(TAIL_RECORDS))

    def drain_all(self) -> int:
        """Until nothing is left in the rings."""
        count = self.recorder.drain()
        while any(ring.waiting for ring in self.rings):
            count += self.recorder.drain()
        return count

    def records(self) -> list[dict[str, Any]]:
        return self.log.tail(100_000)

    def stop(self) -> None:
        self.recorder.close()
        self.log.close()


def _nobody() -> Any:
    raise KeyError


@pytest.fixture
def rings(make_ring: Any) -> Any:
    """The kernel's side of denials and events."""
    return make_ring(1 << 16), make_ring(1 << 16)


@pytest.fixture
def daemon(tmp_path: Path, rings: Any) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, rings)
    yield daemon
    daemon.stop()


def targets(records: list[dict[str, Any]]) -> list[str]:
    return [record["target"] for record in records]


# One batch


def test_events_of_both_rings_come_by_time(daemon: Daemon, rings: Any, make_event: MakeEvent) -> None:
    denials, events = rings
    for n in (1, 4, 5):
        denials.put(make_event(path=b"/%d" % n, time=n, enforced=Verdict.DENY))
    for n in (2, 3, 6, 7):
        events.put(make_event(path=b"/%d" % n, time=n))
    assert daemon.recorder.drain() == 7
    records = daemon.records()
    assert targets(records) == [f"/{n}" for n in range(1, 8)]
    assert [record["sequence"] for record in records] == list(range(1, 8))
    assert records[0]["ring"] == "denials@01ab:0"
    assert records[1]["ring"] == "events@01ab:0"
    assert daemon.synced == [7]
    assert daemon.recorder.drain() == 0


def test_a_ring_keeps_its_own_order_whatever_its_times(daemon: Daemon, rings: Any, make_event: MakeEvent) -> None:
    denials, events = rings
    for n, time_ns in enumerate((30, 10, 20)):
        events.put(make_event(path=b"/event%d" % n, time=time_ns))
    denials.put(make_event(path=b"/denial", time=15))
    daemon.drain_all()
    assert [target for target in targets(daemon.records()) if "event" in target] == ["/event0", "/event1", "/event2"]


def test_nothing_is_released_before_it_is_on_disk(daemon: Daemon, rings: Any, make_event: MakeEvent) -> None:
    seen: list[tuple[str, int, int]] = []

    def watch(name: str) -> None:
        real = getattr(daemon.log, name)

        def call(*given: Any) -> Any:
            result = real(*given)
            seen.append((name, daemon.log.synced_sequence, rings[1].consumed))
            return result

        setattr(daemon.log, name, call)

    watch("append")
    watch("sync")
    rings[1].put(make_event(path=b"/x"))
    daemon.recorder.drain()
    assert seen == [("append", 0, 0), ("sync", 1, 0)]
    assert rings[1].consumed == rings[1].produced


def test_lifecycle_is_not_recorded_but_known(daemon: Daemon, rings: Any, make_event: MakeEvent) -> None:
    _, events = rings
    events.put(make_event(pid=10, kind=KIND_JOIN))
    events.put(make_event(pid=10, action=Action.EXEC, path=b"/bin/sh", argv=b"sh\0"))
    events.put(make_event(pid=11, forker=10, forker_start=10_000_000, kind=KIND_FORK))
    events.put(make_event(pid=10, kind=KIND_EXIT))
    assert daemon.recorder.drain() == 1
    assert events.consumed == events.produced
    events.put(make_event(pid=11, forker=10, forker_start=10_000_000, path=b"/x"))
    daemon.drain_all()
    assert daemon.records()[-1]["process"]["lineage"] == [{"pid": 10, "exe": "/bin/sh"}]
    events.put(make_event(pid=11, kind=KIND_EXIT))
    assert daemon.recorder.drain() == 0
    assert events.consumed == events.produced, "a batch without records is released, too"


def test_a_shared_table_is_told_at_once(tmp_path: Path, rings: Any, make_event: MakeEvent) -> None:
    told: list[Event] = []
    daemon = Daemon(tmp_path, rings, on_shared=told.append)
    rings[1].put(make_event(kind=KIND_SHARED, start=0xFFFF888812345678, path=b"/x"))
    assert daemon.recorder.drain() == 0
    assert [(event.start, event.agent) for event in told] == [(0xFFFF888812345678, 7)]
    daemon.stop()


def test_a_flood_does_not_starve_denials(daemon: Daemon, rings: Any, make_event: MakeEvent) -> None:
    denials, events = rings
    while events.put(make_event(path=b"/flood")) >= 0:
        pass
    denials.put(make_event(path=b"/denied", enforced=Verdict.DENY, time=10**12))
    daemon.recorder.drain()
    assert "/denied" in targets(daemon.records())


def test_a_batch_is_bounded_and_released_as_far_as_it_goes(
    daemon: Daemon, rings: Any, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BODIES_BYTES", 20_000)
    count = 0
    while rings[1].put(make_event(path=b"/%04d" % count + b"x" * 400)) >= 0:
        count += 1
    batches, before = [], 0
    while daemon.rings[1].waiting:
        batches.append(daemon.recorder.drain())
        assert rings[1].consumed > before
        before = rings[1].consumed
    assert sum(batches) == count
    assert max(batches) < 30
    assert [target[:5] for target in targets(daemon.records())] == [f"/{n:04d}" for n in range(count)]


def test_an_event_that_enrich_fails_on_is_recorded_bare(daemon: Daemon, rings: Any, make_event: MakeEvent) -> None:
    for n in range(3):
        rings[0].put(make_event(path=b"/%d" % n, enforced=Verdict.DENY, enforced_reason=9 if n == 1 else 0))
    rings[0].put(b"short")
    assert daemon.drain_all() == 4
    records = daemon.records()
    assert targets(records) == ["/0", None, "/2", None]
    assert "event_b64" in records[1]
    assert daemon.recorder.unexplained == 2


# Acts


def act(name: str = "config", **detail: Any) -> bytes:
    return body(IDENTITY, name, detail=detail)


def test_an_acts_future_is_its_sequence_once_it_is_on_disk(daemon: Daemon, rings: Any, make_event: MakeEvent) -> None:
    rings[1].put(make_event(path=b"/x"))
    futures = [daemon.recorder.act(act(n=n)) for n in range(3)]
    assert not any(future.done() for future in futures)
    assert daemon.recorder.drain() == 4
    assert [future.result(0) for future in futures] == [1, 2, 3]
    assert [record["action"] for record in daemon.records()] == ["config"] * 3 + ["read"]


def test_acts_come_from_any_thread_and_wake_the_loop(daemon: Daemon, rings: Any) -> None:
    done: list[int] = []

    def others() -> None:
        done.extend(daemon.recorder.act(act(n=n)).result(10) for n in range(50))

    threads = [threading.Thread(target=others) for _ in range(4)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 20
    while any(thread.is_alive() for thread in threads) and time.monotonic() < until:
        daemon.recorder.wait(5)
        daemon.recorder.drain()
    assert sorted(done) == list(range(1, 201))


def test_a_cancelled_future_stops_nothing(daemon: Daemon) -> None:
    first, second = daemon.recorder.act(act()), daemon.recorder.act(act())
    assert first.cancel()
    daemon.recorder.drain()
    assert second.result(0) == 2


@pytest.mark.parametrize("record", [b"", b"{}", b"[1]", b'{"a":\n1}', b'{"a":"' + b"x" * MAX_ACT + b'"}'])
def test_what_can_be_no_record_is_refused_to_its_author(daemon: Daemon, record: bytes) -> None:
    with pytest.raises(ValueError, match="one line"):
        daemon.recorder.act(record)


def test_acts_are_bounded_and_the_last_hear_of_the_end(
    tmp_path: Path, rings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ACTS", 3)
    daemon = Daemon(tmp_path, rings)
    futures = [daemon.recorder.act(act()) for _ in range(3)]
    with pytest.raises(ActsFull):
        daemon.recorder.act(act())
    daemon.stop()
    with pytest.raises(ActsFull, match="ended before"):
        futures[0].result(0)


# No space


@contextmanager
def no_space() -> Iterator[None]:
    """No file may grow: what a full disk is to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_releases_nothing_and_goes_on(
    daemon: Daemon, rings: Any, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    _, events = rings
    events.put(make_event(path=b"/first"))
    future = daemon.recorder.act(act())
    with no_space():
        for _ in range(3):
            assert daemon.recorder.drain() == 0
            daemon.recorder.wait(1)
        while events.put(make_event(path=b"/more")) >= 0:
            pass
        assert daemon.recorder.drain() == 0
    assert daemon.recorder.is_log_full
    assert (events.consumed, daemon.synced, future.done()) == (0, [], False)
    assert events.lost == 1, "the kernel counts what doesn't fit"
    time.sleep(0.02)
    daemon.drain_all()
    assert not daemon.recorder.is_log_full
    assert future.result(0) == 1
    records = daemon.records()
    assert targets(records)[:3] == [None, "/first", "/more"]
    assert events.consumed == events.produced


def test_between_tries_the_disk_is_left_alone(daemon: Daemon, rings: Any, make_event: MakeEvent) -> None:
    rings[1].put(make_event(path=b"/x"))
    with no_space():
        daemon.recorder.drain()
    assert daemon.recorder.drain() == 0, "not before RETRY_S"
    began = time.monotonic()
    daemon.recorder.wait(10)
    assert 0.1 < time.monotonic() - began < 5
    assert daemon.recorder.drain() == 1


def test_records_that_are_safe_without_their_checkpoint_are_released(
    daemon: Daemon, rings: Any, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, limits = daemon.log.append, resource.getrlimit(resource.RLIMIT_FSIZE)

    def append(bodies: Any) -> Any:
        result = real(bodies)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        return result

    monkeypatch.setattr(daemon.log, "append", append)
    rings[1].put(make_event(path=b"/x"))
    try:
        assert daemon.recorder.drain() == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert daemon.recorder.is_log_full
    assert daemon.synced == [1]
    assert rings[1].consumed == rings[1].produced


def test_a_log_that_breaks_is_the_callers_to_open_again(
    tmp_path: Path, rings: Any, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(tmp_path, rings)
    rings[1].put(make_event(path=b"/x"))

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(LogError, match="while syncing"):
            daemon.recorder.drain()
    daemon.stop()
    again = Daemon(tmp_path, rings)
    again.drain_all()
    assert targets(again.records()) == ["/x"]
    again.stop()


# Death and restart


def _die(*given: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _after(real: Any) -> Any:
    def call(*given: Any) -> None:
        real(*given)
        _die()

    return call


MOMENTS: dict[str, Callable[[Daemon], None]] = {
    "while reading": lambda daemon: setattr(daemon.recorder, "_commit", _die),
    "before append": lambda daemon: setattr(daemon.log, "append", _die),
    "after append": lambda daemon: setattr(daemon.log, "append", _after(daemon.log.append)),
    "after sync": lambda daemon: setattr(daemon.log, "sync", _after(daemon.log.sync)),
    "between releases": lambda daemon: setattr(daemon.rings[0], "release", _after(daemon.rings[0].release)),
    "after release": lambda daemon: setattr(daemon.recorder, "_on_synced", _die),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_whenever_it_dies_each_event_is_there_once(
    tmp_path: Path, rings: Any, make_event: MakeEvent, moment: str
) -> None:
    denials, events = rings
    expected = []

    def happen(generation: int) -> None:
        for n in range(20):
            ring, verdict = (denials, Verdict.DENY) if n % 3 == 0 else (events, Verdict.ALLOW)
            path = b"/%d/%d" % (generation, n)
            ring.put(make_event(path=path, enforced=verdict, time=generation * 100 + n))
            expected.append(path.decode())

    def live(generation: int) -> None:
        daemon = Daemon(tmp_path, rings)
        daemon.recorder.drain()
        happen(generation)
        MOMENTS[moment](daemon)
        daemon.recorder.drain()

    for generation in range(3):
        happen(2 * generation)
        child = os.fork()
        if child == 0:
            try:
                live(2 * generation + 1)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        for kernel in rings:  # the child was the kernel, too
            kernel.produced = int.from_bytes(kernel.pages[4096:4104], "little")
        expected += [f"/{2 * generation + 1}/{n}" for n in range(20)]
    last = Daemon(tmp_path, rings)
    last.drain_all()
    records = last.records()
    assert sorted(targets(records)) == sorted(expected)
    assert [record["sequence"] for record in records] == list(range(1, len(expected) + 1))
    last.stop()
    assert verify(tmp_path).ok


def test_what_is_recorded_already_still_teaches(tmp_path: Path, rings: Any, make_event: MakeEvent) -> None:
    rings[1].put(make_event(action=Action.EXEC, path=b"/bin/sh", argv=b"sh\0"))
    first = Daemon(tmp_path, rings)
    first.recorder._release = lambda: None  # type: ignore[method-assign]
    first.recorder.drain()
    first.stop()
    rings[1].put(make_event(path=b"/x"))
    second = Daemon(tmp_path, rings)
    assert second.recorder.drain() == 1
    assert second.records()[-1]["process"]["exe"] == "/bin/sh"
    second.stop()


@pytest.mark.parametrize(
    "other",
    [
        {"boot": "another"},
        {"ring": "events@other:4096"},
        {"ring": "events@01ab:x"},
        {"ring": "events@01ab:"},
        {"ring": "events@01ab:-8"},
        {"ring": 4096},
        {"ring": None},
        {"ring": "tides@01ab:4096"},
    ],
)
def test_other_boots_instances_and_records_say_nothing(
    daemon: Daemon, rings: Any, make_event: MakeEvent, other: dict[str, Any]
) -> None:
    daemon.recorder.resume([{"boot": IDENTITY.boot, "ring": "events@01ab:4096"} | other])
    rings[1].put(make_event(path=b"/x"))
    assert daemon.recorder.drain() == 1


# Loss


def counts(lost: Mapping[tuple[Action, Verdict], int], lifecycle: int = 0) -> Counts:
    rows = tuple(tuple(lost.get((action, verdict), 0) for verdict in Verdict) for action in Action)
    return Counts((0,) * len(Action), (0,) * len(Action), rows, lifecycle, 0)


def losses(daemon: Daemon) -> list[dict[str, Any]]:
    return [record for record in daemon.records() if record["action"] == "loss"]


def test_losses_are_records_and_add_up_over_restarts(tmp_path: Path, rings: Any) -> None:
    daemon = Daemon(tmp_path, rings)
    kernel = {7: counts({(Action.READ, Verdict.ALLOW): 5}), 8: counts({})}
    assert daemon.recorder.account(lambda: kernel) == 5
    assert daemon.recorder.account(lambda: kernel, at_once=True) == 0, "said already"
    kernel[7] = counts({(Action.READ, Verdict.ALLOW): 9, (Action.EXEC, Verdict.KILL): 1}, lifecycle=2)
    assert daemon.recorder.account(lambda: kernel) == 0, "not within a second"
    assert daemon.recorder.account(lambda: kernel, at_once=True) == 5
    daemon.recorder.drain()
    said = losses(daemon)
    assert [record["lost"] for record in said] == [5, 5]
    assert (said[1]["agent"], said[1]["labels"]) == ("agent-7", {"team": "billing"})
    assert said[1]["detail"] == {
        "lost": {"exec": {"kill": 1}, "read": {"allow": 4}},
        "lifecycle": 2,
        "total": {"lost": {"exec": {"kill": 1}, "read": {"allow": 9}}, "lifecycle": 2},
        "agent_id": 7,
        "instance": INSTANCE,
    }
    assert daemon.recorder.ledger.total == 10
    daemon.stop()
    again = Daemon(tmp_path, rings)
    again.recorder.ledger.resume(again.records())
    kernel[8] = counts({(Action.CONNECT, Verdict.DENY): 3})
    assert again.recorder.account(lambda: kernel) == 3
    again.recorder.drain()
    assert [record["lost"] for record in losses(again)] == [5, 5, 3]
    again.stop()


def test_lost_lifecycle_makes_processes_doubtful(daemon: Daemon, rings: Any, make_event: MakeEvent) -> None:
    rings[1].put(make_event(action=Action.EXEC, path=b"/bin/sh", argv=b"sh\0"))
    daemon.drain_all()
    assert daemon.recorder.account(lambda: {7: counts({}, lifecycle=1)}) == 0
    rings[1].put(make_event(path=b"/x"))
    daemon.drain_all()
    first, loss, second = daemon.records()
    assert "partial" not in first["process"]
    assert (loss["lost"], loss["detail"]["lifecycle"]) == (0, 1)
    assert second["process"]["partial"]


def test_while_the_disk_is_full_losses_wait(daemon: Daemon, rings: Any, make_event: MakeEvent) -> None:
    rings[1].put(make_event(path=b"/x"))
    with no_space():
        daemon.recorder.drain()
        for n in range(1, 100):
            daemon.recorder._account_at = 0
            assert daemon.recorder.account(lambda n=n: {7: counts({(Action.READ, Verdict.ALLOW): n})}) == 0  # type: ignore[misc]
    time.sleep(module.RETRY_S)
    daemon.drain_all()
    assert daemon.recorder.account(lambda: {7: counts({(Action.READ, Verdict.ALLOW): 99})}) == 99


def test_records_are_what_orjson_reads_and_the_log_verifies(tmp_path: Path, rings: Any, make_event: MakeEvent) -> None:
    daemon = Daemon(tmp_path, rings)
    for n in range(500):
        rings[n % 2].put(make_event(path=bytes([1 + n % 255]) * (n % 300), argv=b"", time=n, pid=100 + n % 5))
        if n % 50 == 0:
            daemon.drain_all()
    daemon.drain_all()
    daemon.stop()
    assert verify(tmp_path).ok
    lines = b"".join(path.read_bytes() for path in sorted((tmp_path / "log").glob("*.seg"))).splitlines()
    assert sum("ring" in orjson.loads(line) for line in lines) == 500
