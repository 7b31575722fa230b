"""The whole way: a log on disk that is being written, the reader's cursor, the uplink, the collector's store."""

from typing import Any

from hostwarden.records.key import load_or_create
from hostwarden.records.reader import LogCursor, read_lines
from hostwarden.records.writer import LogWriter
from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire.uplink import Log, Uplink


def test_a_log_that_is_written_meanwhile(collector: Any, tmp_path: Any) -> None:
    state = tmp_path / "host"
    state.mkdir()
    key = load_or_create(state)
    writer = LogWriter(state, key, segment_bytes=100_000)
    writer.open()
    hello = pb.Hello(host="alpha", log=key.fingerprint, public_key=key.public)
    source = Log(hello, lambda since: LogCursor(state, since), lambda: writer.synced_sequence)
    uplink = Uplink([collector.start().address], source)
    uplink.start()
    for n in range(100):
        writer.append([b'{"time":%d,"agent":"a","verdict":"allow"}' % (n * 50 + m) for m in range(50)])
        writer.sync()
        uplink.wake()
        if n == 50:
            assert uplink.wait_acknowledged(1000, 10), uplink.state
    writer.close()
    assert uplink.wait_acknowledged(5000, 20), uplink.state
    uplink.stop()
    assert collector.stored("alpha") == [line for _, line in read_lines(state)]
    ((checkpoints, covered),) = collector.rows("SELECT count(*), max(size) FROM checkpoints")
    assert checkpoints >= 1
    assert covered <= 5000
