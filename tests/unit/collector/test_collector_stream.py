"""The stream of a host over a real socket: welcome, acknowledgement, resume, and every refusal."""

import os
import random
import threading
from collections.abc import Callable
from typing import Any

import grpc
import orjson
import pytest

from hostwarden.wire import hostwarden_pb2 as pb

MakeLog = Callable[..., Any]
MakeHost = Callable[[], Any]
EXAMPLES = int(os.environ.get("HOSTWARDEN_EXAMPLES", "1000"))


def _lines(inside: Any) -> list[tuple[int, bytes]]:
    rows: list[tuple[int, bytes]] = (
        inside.store.reader().execute("SELECT sequence, line FROM records ORDER BY log_id, sequence").fetchall()
    )
    return rows


def test_welcome_store_acknowledge_resume(inside: Any, host: MakeHost, make_log: MakeLog) -> None:
    log = make_log().grow(10)
    with host() as first:
        assert first.hello(log) == pb.Welcome(stored=0, leaf_hash=bytes(32))
        assert first.store(log, 1, 4, log.checkpoint(4)) == 4
        assert first.store(log, 5, 6) == 6
        assert first.store(log, 7, 6, log.checkpoint(6)) == 6  # a checkpoint alone
    with host() as second:
        assert second.hello(log) == pb.Welcome(stored=6, leaf_hash=log.leaves[5])
        assert second.store(log, 7, 10, log.checkpoint()) == 10
    assert _lines(inside) == list(enumerate(log.lines, 1))
    notes = inside.store.reader().execute("SELECT size, note FROM checkpoints ORDER BY size").fetchall()
    assert notes == [(n, log.checkpoint(n)) for n in (4, 6, 10)]


def test_an_acknowledged_batch_is_on_disk(inside: Any, host: MakeHost, make_log: MakeLog) -> None:
    assert inside.store.reader().execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert inside.store._writer.execute("PRAGMA synchronous").fetchone() == (2,)


def test_lines_sent_again_are_acknowledged_and_not_stored_again(inside: Any, host: MakeHost, make_log: MakeLog) -> None:
    log = make_log().grow(10)
    with host() as end:
        end.hello(log)
        assert [end.store(log, 1, 6), end.store(log, 1, 3), end.store(log, 4, 9), end.store(log, 10, 10)] == [
            6,
            6,
            9,
            10,
        ]
    assert _lines(inside) == list(enumerate(log.lines, 1))


def test_another_past_is_refused_and_kept_as_a_refusal(
    inside: Any, host: MakeHost, make_log: MakeLog, caplog: pytest.LogCaptureFixture
) -> None:
    log = make_log().grow(10)
    with host() as end:
        end.hello(log)
        end.store(log, 1, 6)
        assert "record 4 was sent and stored before, with other bytes" in end.refused(log.fork(3).batch(2, 8))
    assert _lines(inside) == list(enumerate(log.lines[:6], 1))
    rows = inside.store.reader().execute("SELECT host, log, uid, pid, reason FROM refusals").fetchall()
    assert [row[:4] for row in rows] == [("alpha", log.log, os.getuid(), os.getpid())]
    assert "another past" in rows[0][4]
    assert "alpha: refused" in caplog.text


@pytest.mark.parametrize("where", ["line", "hole", "checkpoint"])
def test_a_wrong_chain_stores_nothing_of_its_batch(inside: Any, host: MakeHost, make_log: MakeLog, where: str) -> None:
    log = make_log().grow(10)
    batch = log.batch(5, 10)
    if where == "line":
        batch.batch.lines[3] = batch.batch.lines[3].replace(b"allow", b"audit")
    elif where == "hole":
        batch.batch.first = 6
    else:
        batch.batch.checkpoints.append(log.checkpoint(root=bytes(32)))
    with host() as end:
        end.hello(log)
        end.store(log, 1, 4)
        end.refused(batch)
    with host() as end:
        assert end.hello(log).stored == 4
        end.store(log, 5, 10)
    assert _lines(inside) == list(enumerate(log.lines, 1))


def test_a_host_is_bound_to_its_log_and_a_log_to_its_host(host: MakeHost, make_log: MakeLog, inside: Any) -> None:
    log, impostor = make_log("alpha").grow(2), make_log("alpha").grow(2)
    with host() as end:
        end.hello(log)
        end.store(log, 1, 2)
    with host() as end:
        reason = end.refused(pb.HostMessage(hello=impostor.hello))
    assert reason == f"host alpha is bound to log {log.log}; alpha sent log {impostor.log}"
    log.host = "beta"
    with host() as end:
        assert "host alpha is bound to log" in end.refused(pb.HostMessage(hello=log.hello))
    assert inside.store.reader().execute("SELECT count(*) FROM refusals").fetchone() == (2,)


HELLOS: dict[str, dict[str, object]] = {
    "no host": {"host": ""},
    "host with a slash": {"host": "../x"},
    "host with a line break": {"host": "a\nb"},
    "long host": {"host": "a" * 254},
    "short key": {"public_key": b"x"},
    "log of another key": {"log": "0" * 32},
    "no log": {"log": ""},
}


@pytest.mark.parametrize("name", HELLOS)
def test_bad_hello(host: MakeHost, make_log: MakeLog, name: str) -> None:
    hello = make_log().hello
    for field, value in HELLOS[name].items():
        setattr(hello, field, value)
    with host() as end:
        status, details = end.failed(pb.HostMessage(hello=hello))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("hello: ")


def test_messages_out_of_turn(host: MakeHost, make_log: MakeLog) -> None:
    log = make_log().grow(2)
    for first in (log.batch(1, 2), pb.HostMessage(), b"\xff\xff\xff"):
        with host() as end:
            assert end.failed(first) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "stream: the first message is not a Hello",
            )
    for later in (pb.HostMessage(hello=log.hello), pb.HostMessage(), b"\xff\xff\xff"):
        with host() as end:
            end.hello(log)
            assert end.failed(later) == (grpc.StatusCode.INVALID_ARGUMENT, "stream: a message that is not a Batch")


def test_too_large_a_message(host: MakeHost, make_log: MakeLog, inside: Any) -> None:
    log = make_log().grow(5, padding=1 << 20)
    with host() as end:
        end.hello(log)
        assert end.failed(log.batch(1, 5))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    with host() as end:
        end.hello(log)
        assert end.store(log, 1, 3) == 3


def test_a_newer_stream_takes_over(inside: Any, host: MakeHost, make_log: MakeLog) -> None:
    log = make_log().grow(10)
    with host() as old, host() as new:
        old.hello(log)
        old.store(log, 1, 3)
        assert new.hello(log).stored == 3
        assert old.refused(log.batch(4, 6)) == "a newer stream of this host took over"
        assert new.store(log, 4, 10) == 10
    assert _lines(inside) == list(enumerate(log.lines, 1))


def test_two_streams_of_one_host_at_full_speed(inside: Any, host: MakeHost, make_log: MakeLog) -> None:
    log = make_log().grow(300)

    def send() -> None:
        with host() as end:
            stored = end.hello(log).stored
            while stored < len(log.lines):
                answer = end.ask(log.batch(stored + 1, stored + 7))
                if answer.WhichOneof("kind") == "refusal":
                    assert answer.refusal.reason == "a newer stream of this host took over"
                    return
                stored = answer.ack.stored

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    send()
    assert _lines(inside) == list(enumerate(log.lines, 1))


@pytest.mark.parametrize(
    ("breaks", "mends", "words"),
    [
        ("PRAGMA max_page_count = 40", "PRAGMA max_page_count = 100000", "full"),
        ("PRAGMA query_only = 1", "PRAGMA query_only = 0", "readonly"),
    ],
)
def test_a_store_that_cannot_write(
    inside: Any, host: MakeHost, make_log: MakeLog, breaks: str, mends: str, words: str
) -> None:
    log = make_log().grow(400, padding=465)
    with host() as end:
        end.hello(log)
        assert end.store(log, 1, 20) == 20
        inside.store._writer.execute(breaks)
        status, details = end.failed(log.batch(21, 400))
        assert status is grpc.StatusCode.UNAVAILABLE
        assert words in details
    with inside.client() as client:
        assert not client.status().ready
        assert words in orjson.loads(client.status().json)["trouble"]
        assert len(list(client.events())) == 20  # what is stored can still be read
    inside.store._writer.execute(mends)
    with host() as end:
        assert end.hello(log).stored == 20
        assert end.store(log, 21, 400) == 400
    with inside.client() as client:
        assert client.status().ready
    assert _lines(inside) == list(enumerate(log.lines, 1))


def test_noise(inside: Any, host: MakeHost, make_log: MakeLog, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(5)
    log = make_log().grow(3)
    good = log.batch(1, 3, log.checkpoint()).SerializeToString()
    with host() as end:
        end.hello(log)
        end.store(log, 1, 3)
    for n in range(EXAMPLES // 4):
        noise = bytearray(good if n % 2 else rng.randbytes(rng.randrange(80)))
        for _ in range(rng.randrange(1, 4)):
            if noise:
                noise[rng.randrange(len(noise))] = rng.randrange(256)
        with host() as end:
            try:
                if n % 4 < 2:
                    assert end.hello(log).stored == 3
                answer = end.ask(bytes(noise))
                assert answer.WhichOneof("kind") in ("ack", "refusal")
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _lines(inside) == list(enumerate(log.lines, 1))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_host_that_vanishes_leaves_no_trace_in_the_log(
    inside: Any, host: MakeHost, make_log: MakeLog, caplog: pytest.LogCaptureFixture
) -> None:
    log = make_log().grow(3)
    for _ in range(20):  # more than may be open at once
        end = host()
        end.hello(log)
        end._channel.close()
    with host() as end:
        end.hello(log)
        assert end.store(log, 1, 3) == 3
    assert not [record for record in caplog.records if record.levelname not in ("INFO", "DEBUG")]
