"""What was stored comes back: all hosts or one, filtered, in order, and as it comes."""

import threading
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from hostwarden.collector.query import PAGE_LINES, Query, _sql
from hostwarden.wire.errors import Failed

MakeLog = Callable[..., Any]
MakeHost = Callable[[], Any]


@pytest.fixture
def logs(inside: Any, host: MakeHost, make_log: MakeLog) -> dict[str, Any]:
    """Two hosts, the later name stored first, interleaved."""
    made = {name: make_log(name).grow(12) for name in ("zeta", "alpha")}
    for first in (1, 5, 9):
        for log in made.values():
            with host() as end:
                end.hello(log)
                end.store(log, first, first + 3)
    return made


def _read(inside: Any, **query: Any) -> list[tuple[str, int]]:
    with inside.client() as client:
        found = list(client.events(**query))
    return [(line.host, line.sequence) for line in found]


def test_all_by_host_and_sequence_with_their_bytes(inside: Any, logs: dict[str, Any]) -> None:
    with inside.client() as client:
        found = [(line.host, line.sequence, line.line) for line in client.events()]
    assert found == [(name, n, line) for name in ("alpha", "zeta") for n, line in enumerate(logs[name].lines, 1)]


@pytest.mark.parametrize(
    ("query", "keeps"),
    [
        ({"host": "zeta"}, lambda host, n, record: host == "zeta"),
        ({"host": "nobody"}, lambda host, n, record: False),
        ({"since": 7}, lambda host, n, record: n > 7),
        ({"since": 12}, lambda host, n, record: False),
        ({"since": 2**64 - 1}, lambda host, n, record: False),
        ({"agent": "billing"}, lambda host, n, record: record["agent"] == "billing"),
        ({"agent": "bill"}, lambda host, n, record: False),
        ({"verdict": "deny"}, lambda host, n, record: record["verdict"] == "deny"),
        ({"verdict": "allow"}, lambda host, n, record: record["verdict"] == "allow"),
        (
            {"verdict": "deny", "agent": "billing", "since": 3, "host": "alpha"},
            lambda host, n, record: (
                host == "alpha" and n > 3 and record["verdict"] == "deny" and record["agent"] == "billing"
            ),
        ),
        ({"agent": "' OR 1 --", "verdict": "x' OR '1'='1"}, lambda host, n, record: False),
    ],
)
def test_filters(
    inside: Any, logs: dict[str, Any], query: dict[str, Any], keeps: Callable[[str, int, Any], bool]
) -> None:
    expected = [
        (name, n)
        for name in ("alpha", "zeta")
        for n, line in enumerate(logs[name].lines, 1)
        if keeps(name, n, orjson.loads(line))
    ]
    assert _read(inside, **query) == expected


def test_indexes_are_used(inside: Any, logs: dict[str, Any]) -> None:
    parameters = {"log": 1, "after": 0, "until": 9, "agent": "a", "verdict": "deny"}
    connection = inside.store.reader()
    for query, index in ((Query(agent="a"), "records_by_agent"), (Query(verdict="deny"), "records_by_verdict")):
        plan = str(connection.execute("EXPLAIN QUERY PLAN " + _sql(query), parameters).fetchall())
        assert index in plan
        assert "TEMP B-TREE" not in plan
    connection.close()


def test_more_than_a_page(inside: Any, host: MakeHost, make_log: MakeLog) -> None:
    log = make_log().grow(PAGE_LINES * 2 + 3)
    with host() as end:
        end.hello(log)
        end.store(log, 1, len(log.lines))
    assert _read(inside) == [("alpha", n) for n in range(1, len(log.lines) + 1)]


def test_follow_gets_what_comes(inside: Any, host: MakeHost, logs: dict[str, Any], make_log: MakeLog) -> None:
    late = make_log("mu").grow(2)
    with inside.client() as client:
        stream = client.events(follow=True, since=10)
        assert [(line.host, line.sequence) for line in (next(stream) for _ in range(4))] == [
            ("alpha", 11), ("alpha", 12), ("zeta", 11), ("zeta", 12),
        ]  # fmt: skip
        zeta = logs["zeta"].grow(2)
        with host() as end:
            end.hello(zeta)
            started = time.monotonic()
            end.store(zeta, 13, 14)
            assert [next(stream).sequence for _ in range(2)] == [13, 14]
            assert time.monotonic() - started < 1
        with host() as end:
            end.hello(late.grow(10))
            end.store(late, 1, 12)
        assert [(line.host, line.sequence) for line in (next(stream) for _ in range(2))] == [("mu", 11), ("mu", 12)]


def test_followers_are_bounded_and_give_their_place_back(inside: Any, logs: dict[str, Any]) -> None:
    for _ in range(2):
        clients = [inside.client() for _ in range(8)]
        streams = [client.events(follow=True) for client in clients]
        for stream in streams:
            next(stream)
        with inside.client() as ninth:
            with pytest.raises(Failed, match="8 streams are open"):
                next(ninth.events())
            assert ninth.status().ready
        for client in clients:
            client.close()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                assert len(_read(inside)) == 24
                break
            except Failed:
                time.sleep(0.02)
        else:
            raise AssertionError("the places were not given back")


def test_status(inside: Any, logs: dict[str, Any]) -> None:
    with inside.client() as client:
        status = client.status()
    assert status.ready
    assert orjson.loads(status.json) == {
        "ready": True,
        "hosts": {name: {"log": logs[name].log, "sequence": 12} for name in ("alpha", "zeta")},
        "trouble": None,
    }


def test_reading_while_writing(inside: Any, host: MakeHost, make_log: MakeLog) -> None:
    log = make_log().grow(2000)
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            sequences = [n for _, n in _read(inside)]
            assert sequences == list(range(1, len(sequences) + 1))
            seen.append(len(sequences))

    reader = threading.Thread(target=read)
    reader.start()
    with host() as end:
        end.hello(log)
        for first in range(1, 2001, 50):
            end.store(log, first, first + 49)
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert len(_read(inside)) == 2000
