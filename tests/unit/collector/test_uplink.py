"""A host's uplink against collectors that run, die, are full, refuse, hang: exactly once, no hole, bounded, prompt."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hostwarden.wire import uplink as uplink_module
from hostwarden.wire.errors import Refused
from hostwarden.wire.uplink import WINDOW_BYTES, WINDOW_LINES, Log, Phase, Uplink

MakeLog = Callable[..., Any]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplink_module, "BACKOFF_S", (0.02, 0.2))


@contextmanager
def _running(addresses: list[str], source: Log) -> Iterator[Uplink]:
    made = Uplink(addresses, source)
    made.start()
    try:
        yield made
    finally:
        started = time.monotonic()
        made.stop()
        assert time.monotonic() - started < 2
        assert made.state.phase is Phase.STOPPED


def _until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_everything_arrives_and_what_comes_later_too(collector: Any, make_log: MakeLog) -> None:
    log = make_log().grow(5000)
    collector.start()
    with _running([collector.address], log.source) as uplink:
        assert uplink.wait_acknowledged(5000, 20)
        assert (uplink.state.phase, uplink.state.trouble) == (Phase.STREAMING, "")
        log.grow(1)
        uplink.wake()
        started = time.monotonic()
        assert uplink.wait_acknowledged(5001, 5)
        assert time.monotonic() - started < 0.5
    assert collector.stored("alpha") == log.lines


def test_kill_9_of_the_collector_again_and_again(collector: Any, make_log: MakeLog) -> None:
    log = make_log().grow(40_000, padding=465)
    collector.start()
    with _running([collector.address], log.source) as uplink:
        for share in (1, 2, 3, 4):
            assert uplink.wait_acknowledged(share * 8000, 30), uplink.state
            collector.end(signal.SIGKILL)
            acknowledged = uplink.acknowledged
            assert len(collector.stored("alpha")) >= acknowledged  # what was acknowledged survived
            collector.start()
        assert uplink.wait_acknowledged(40_000, 30), uplink.state
    assert collector.stored("alpha") == log.lines


def test_the_host_starts_again_in_the_middle(collector: Any, make_log: MakeLog) -> None:
    log = make_log().grow(20_000)
    collector.start()
    for share in (1, 2, 3):
        with _running([collector.address], log.source) as uplink:
            assert uplink.wait_acknowledged(share * 5000, 20)
    with _running([collector.address], log.source) as uplink:
        assert uplink.wait_acknowledged(20_000, 20)
    assert collector.stored("alpha") == log.lines


def test_many_hosts_at_once(collector: Any, make_log: MakeLog) -> None:
    logs = [make_log(f"host-{n}").grow(3000) for n in range(6)]
    collector.start()
    uplinks = [Uplink([collector.address], log.source) for log in logs]
    for uplink in uplinks:
        uplink.start()
    for uplink in uplinks:
        assert uplink.wait_acknowledged(3000, 30), uplink.state
        uplink.stop()
    for log in logs:
        assert collector.stored(log.host) == log.lines


def test_the_first_that_answers(collector: Any, make_log: MakeLog, tmp_path: Path) -> None:
    log = make_log().grow(100)
    with _running([f"unix:{tmp_path}/nobody.sock", collector.address], log.source) as uplink:
        _until(lambda: uplink.state.trouble != "")
        assert uplink.state.trouble == "no collector listens there, or it went away"
        collector.start()
        assert uplink.wait_acknowledged(100, 10)
        assert uplink.state.address == collector.address


def test_a_refusal_is_shown_and_not_hammered(collector: Any, make_log: MakeLog) -> None:
    log = make_log().grow(100)
    collector.start()
    with _running([collector.address], log.source) as uplink:
        assert uplink.wait_acknowledged(100, 10)
    log.lines[50:] = log.fork(50).lines[50:]
    other = make_log().grow(10)
    with _running([collector.address], other.source) as uplink:
        _until(lambda: uplink.state.phase is Phase.REFUSED)
        assert "host alpha is bound to log" in uplink.state.trouble
        time.sleep(0.5)
    assert collector.rows("SELECT count(*) FROM refusals") == [(1,)]


def test_a_collector_that_holds_what_we_never_wrote(collector: Any, make_log: MakeLog) -> None:
    log = make_log().grow(100)
    collector.start()
    with _running([collector.address], log.source) as uplink:
        assert uplink.wait_acknowledged(100, 10)
    asked: list[tuple[int, bytes]] = []

    def fits(sequence: int, leaf_hash: bytes) -> str | None:
        asked.append((sequence, leaf_hash))
        return "the collector holds another past"

    with _running([collector.address], replace(log.source, fits=fits)) as uplink:
        _until(lambda: uplink.state.phase is Phase.REFUSED)
        assert uplink.state.trouble == "the collector holds another past"
    assert asked == [(100, log.leaves[99])]


def test_a_collector_that_hangs_costs_a_window_and_no_more(
    collector: Any, make_log: MakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = make_log().grow(12_000, padding=2000)
    assert sum(map(len, log.lines)) > WINDOW_BYTES * 2
    read = [0]
    source = log.source

    def open_at(since: int) -> Any:
        cursor = source.open_at(since)
        take = cursor.read

        def counted(until: int | None = None) -> Any:
            portion = take(until)
            read[0] += sum(map(len, portion.lines))
            return portion

        cursor.read = counted
        return cursor

    collector.start()
    os.kill(collector.process.pid, signal.SIGSTOP)
    with _running([collector.address], replace(source, open_at=open_at)) as uplink:
        time.sleep(0.5)
        assert read[0] <= WINDOW_BYTES + 2 * 1000 * 2000
        os.kill(collector.process.pid, signal.SIGCONT)
        assert uplink.wait_acknowledged(2000, 20)
        os.kill(collector.process.pid, signal.SIGSTOP)
        time.sleep(0.3)
        acknowledged = uplink.acknowledged
        assert read[0] <= acknowledged * 2000 + WINDOW_BYTES + 3 * 1000 * 2000
        assert acknowledged <= WINDOW_LINES
    os.kill(collector.process.pid, signal.SIGCONT)


def test_a_log_that_cannot_be_read_is_tried_again(collector: Any, make_log: MakeLog) -> None:
    log = make_log().grow(2000)
    source, broken = log.source, threading.Event()
    broken.set()

    def open_at(since: int) -> Any:
        if broken.is_set():
            raise OSError("the disk said no")
        return source.open_at(since)

    collector.start()
    with _running([collector.address], replace(source, open_at=open_at)) as uplink:
        _until(lambda: uplink.state.trouble == "the log can't be read: the disk said no")
        broken.clear()
        assert uplink.wait_acknowledged(2000, 10)
    assert collector.stored("alpha") == log.lines


def test_nothing_unsynced_is_sent(collector: Any, make_log: MakeLog) -> None:
    log = make_log().grow(500)
    synced = [200]
    collector.start()
    with _running([collector.address], replace(log.source, synced=lambda: synced[0])) as uplink:
        assert uplink.wait_acknowledged(200, 10)
        assert not uplink.wait_acknowledged(201, 0.3)
        assert collector.stored("alpha") == log.lines[:200]
        synced[0] = 500
        uplink.wake()
        assert uplink.wait_acknowledged(500, 5)


def test_no_address_no_thread(make_log: MakeLog) -> None:
    with _running([], make_log().source) as uplink:
        assert not uplink.wait_acknowledged(1, 0.05)


@pytest.mark.parametrize("address", ["collector.example:443", "tcp:x", "unix:relative"])
def test_addresses_that_are_none(make_log: MakeLog, address: str) -> None:
    with pytest.raises(Refused, match="not an address of a collector"):
        Uplink([address], make_log().source)


def test_idle_costs_nothing_and_threads_end(collector: Any, make_log: MakeLog) -> None:
    before = threading.active_count()
    collector.start()
    with _running([collector.address], make_log().grow(10).source) as uplink:
        assert uplink.wait_acknowledged(10, 5)
        spent = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - spent < 0.05
    _until(lambda: threading.active_count() <= before)


def test_a_collector_that_lost_its_store_gets_everything_again(collector: Any, make_log: MakeLog) -> None:
    log = make_log().grow(1000)
    collector.start()
    with _running([collector.address], log.source) as uplink:
        assert uplink.wait_acknowledged(1000, 10)
        collector.end()
        shutil.rmtree(collector.database.parent)
        collector.start()
        log.grow(10)
        assert uplink.wait_acknowledged(1010, 10)
    assert collector.stored("alpha") == log.lines
