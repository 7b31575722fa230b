"""The collector's calls: Stream from hosts, Events and Status for people.

A stream is Hello, Welcome, then batches and acknowledgements. An Ack is sent after the batch is on disk, never before.
A chain that doesn't fit ends the stream with a Refusal, which is kept in the store; a store that can't write ends it
with UNAVAILABLE, and the host sends again. A newer stream of a host takes over from an older one, which is refused at
its next batch: it is nearly always what a cut connection left behind, and the chain decides about anything else.
"""

import logging
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import orjson

from hostwarden.collector.chain import TEXT_LIMIT, ChainError, Head, LogKey, accept
from hostwarden.collector.query import Query, Reader, host_heads
from hostwarden.collector.store import Store, StoreError, Superseded
from hostwarden.records.segments import fingerprint
from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire.errors import Code, WireError
from hostwarden.wire.roles import Peer
from hostwarden.wire.rpc import Call, Malformed

log = logging.getLogger(__name__)
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
KEY_BYTES = 32
LOOK_S = 5.0  # a follower looks whether its peer is still there at least this often


class CollectorService:
    """What the collector answers. ``close`` ends all followers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._commits = 0
        self._closed = False
        self._trouble = ""  # why the last write failed; empty after one that didn't

    def close(self) -> None:
        """No follower waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stream(self, messages: Iterator[Any], peer: Peer, call: Call) -> Iterator[pb.CollectorMessage]:
        """A host's stream."""
        hello = _hello(next(messages, None))
        try:
            yield from self._take(hello, messages)
        except ChainError as error:
            yield self._refusal(hello, peer, str(error))
        except Superseded:
            log.info("%s: a newer stream takes over from pid %d", hello.host, peer.pid)
            yield pb.CollectorMessage(refusal=pb.Refusal(reason="a newer stream of this host took over"))
        except StoreError as error:
            self._trouble = str(error)
            log.error("%s: not stored: %s", hello.host, error)
            raise _unavailable(error) from error

    def events(self, request: pb.EventsRequest, peer: Peer, call: Call) -> Iterator[pb.RecordLine]:
        """Records of all hosts, or of one."""
        query = Query(request.since, request.agent, request.verdict, request.host)
        call.on_end(self._wake)
        try:
            with Reader(self._store, query) as reader:
                while True:
                    commits = self._commits
                    for page in reader.pages(call.is_active):
                        for host, sequence, line in page:
                            yield pb.RecordLine(host=host, sequence=sequence, line=line)
                    if not request.follow or not self._wait_for_more(commits, call):
                        return
        except (StoreError, sqlite3.Error) as error:
            raise _unavailable(error) from error

    def status(self, request: pb.StatusRequest, peer: Peer, call: Call) -> pb.StatusReply:
        """Ready unless the last write failed; ``json`` has each host's log and last stored sequence."""
        try:
            with closing(self._store.reader()) as connection:
                hosts = host_heads(connection)
        except (StoreError, sqlite3.Error) as error:
            raise _unavailable(error) from error
        shown = {"ready": not self._trouble, "hosts": hosts, "trouble": self._trouble or None}
        return pb.StatusReply(ready=not self._trouble, json=orjson.dumps(shown))

    def _take(self, hello: pb.Hello, messages: Iterator[Any]) -> Iterator[pb.CollectorMessage]:
        key = _key(hello)
        token = object()
        log_id, head = self._store.claim(hello.host, key, token)
        log.info("%s: streams log %s from record %d", hello.host, key.log, head.stored + 1)
        try:
            yield pb.CollectorMessage(welcome=pb.Welcome(stored=head.stored, leaf_hash=head.leaf_hash))
            for message in messages:
                head = self._store_batch(log_id, token, key, head, _batch(message))
                yield pb.CollectorMessage(ack=pb.Ack(stored=head.stored))
        finally:
            self._store.release(log_id, token)

    def _store_batch(self, log_id: int, token: object, key: LogKey, head: Head, batch: pb.Batch) -> Head:
        accepted = accept(
            head, key, batch.first, batch.lines, batch.checkpoints, lambda sequence: self._store.line(log_id, sequence)
        )
        self._store.append(log_id, token, accepted)
        self._trouble = ""
        self._wake()
        return accepted.head

    def _refusal(self, hello: pb.Hello, peer: Peer, reason: str) -> pb.CollectorMessage:
        log.warning("%s: refused, uid %d pid %d: %s", hello.host, peer.uid, peer.pid, reason)
        self._store.refuse(hello.host, hello.log[:TEXT_LIMIT], peer.uid, peer.pid, reason)
        return pb.CollectorMessage(refusal=pb.Refusal(reason=reason))

    def _wake(self) -> None:
        with self._changed:
            self._commits += 1
            self._changed.notify_all()

    def _wait_for_more(self, seen: int, call: Call) -> bool:
        """Waits for a commit after ``seen`` of them. False when the peer is gone or the collector stops."""
        with self._changed:
            while self._commits == seen and not self._closed and call.is_active():
                self._changed.wait(LOOK_S)
            return not self._closed and call.is_active()


def _hello(message: Any) -> pb.Hello:
    if not isinstance(message, pb.HostMessage) or message.WhichOneof("kind") != "hello":
        raise WireError(Code.INVALID, "stream: the first message is not a Hello")
    hello: pb.Hello = message.hello
    if not _HOST.fullmatch(hello.host):
        raise WireError(Code.INVALID, "hello: host is not a name of letters, digits, '.', '_', '-', at most 253 long")
    return hello


def _key(hello: pb.Hello) -> LogKey:
    if len(hello.public_key) != KEY_BYTES or hello.log != fingerprint(hello.public_key):
        raise WireError(Code.INVALID, "hello: log is not the fingerprint of an Ed25519 public key")
    return LogKey(hello.log, hello.public_key)


def _batch(message: Any) -> pb.Batch:
    if isinstance(message, Malformed) or message.WhichOneof("kind") != "batch":
        raise WireError(Code.INVALID, "stream: a message that is not a Batch")
    batch: pb.Batch = message.batch
    return batch


def _unavailable(error: Exception) -> WireError:
    return WireError(Code.UNAVAILABLE, f"the collector's store: {error}", "free space or repair it; nothing was lost")
