"""The SQLite store: all logs of all hosts in one file, every batch in one transaction that is on disk when it returns.

One connection writes, under a lock; each reader has its own and never holds a snapshot between two pages, so the
write-ahead log can be folded back. What is in `logs` (head and tree) changes in the same transaction as the records
that it is about, so no crash can part them.
"""

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hostwarden.collector.chain import Accepted, ChainError, Head, LogKey
from hostwarden.records.merkle import HASH_BYTES, Tree

VERSION = 1  # user_version; a newer file is not touched
REFUSALS_KEPT = 10_000  # rows; a host that is refused again and again can't fill the disk
BUSY_MS = 5000
WAL_PAGES = 4000  # 16 MB between two foldings of the write-ahead log

_SCHEMA = """
CREATE TABLE logs(
    id INTEGER PRIMARY KEY,
    host TEXT NOT NULL UNIQUE,      -- a host has one log, a log has one host
    log TEXT NOT NULL UNIQUE,       -- fingerprint of public_key
    public_key BLOB NOT NULL,       -- Ed25519, 32 bytes
    stored INTEGER NOT NULL,        -- sequence of the last record
    leaf_hash BLOB NOT NULL,        -- of the last record
    tree BLOB NOT NULL              -- compact range over all leaf hashes: roots of 32 bytes, largest subtree first
);
CREATE TABLE records(
    log_id INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    line BLOB NOT NULL,             -- as the host wrote it, without the newline: what follows is read from it
    agent TEXT, verdict TEXT, time,
    PRIMARY KEY(log_id, sequence)
) WITHOUT ROWID;
CREATE INDEX records_by_agent ON records(agent, log_id, sequence) WHERE agent IS NOT NULL;
CREATE INDEX records_by_verdict ON records(verdict, log_id, sequence) WHERE verdict <> 'allow';
CREATE INDEX records_by_time ON records(time);
CREATE TABLE checkpoints(
    log_id INTEGER NOT NULL,
    size INTEGER NOT NULL,
    note TEXT NOT NULL,             -- signature, head and root were right when it was stored
    PRIMARY KEY(log_id, size, note)
) WITHOUT ROWID;
CREATE TABLE refusals(
    id INTEGER PRIMARY KEY,
    time REAL NOT NULL,             -- seconds since the epoch, by our clock
    host TEXT NOT NULL, log TEXT NOT NULL, uid INTEGER NOT NULL, pid INTEGER NOT NULL,
    reason TEXT NOT NULL
);
PRAGMA user_version = 1;
"""

_INSERT_RECORD = "INSERT INTO records(log_id, sequence, line, agent, verdict, time) VALUES(?, ?, ?, ?, ?, ?)"
_INSERT_CHECKPOINT = "INSERT OR IGNORE INTO checkpoints(log_id, size, note) VALUES(?, ?, ?)"


class StoreError(Exception):
    """The store can't be opened, written or read: full, read-only, damaged. One line. Nothing was half done."""


class Superseded(Exception):
    """A newer stream of the same host has taken over."""


@dataclass(frozen=True, slots=True)
class LogRow:
    """What the store knows of one log."""

    id: int
    host: str
    key: LogKey
    stored: int


class Store:
    """One SQLite file. Methods may be called from any thread; all raise StoreError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._owners: dict[int, object] = {}  # log id -> the token of the stream that may append
        self._guard = _take_lock(path)
        try:
            self._writer = _open(path)
        except BaseException:
            os.close(self._guard)
            raise

    def close(self) -> None:
        """Folds the write-ahead log back and closes the file."""
        with self._lock:
            self._writer.close()
            os.close(self._guard)

    def claim(self, host: str, key: LogKey, token: object) -> tuple[int, Head]:
        """Makes ``token`` the only one that may append to the host's log; returns the log's id and head.

        Raises ChainError if the host is bound to another log, or the log to another host.
        """
        with self._lock, self._transaction():
            for row in self._writer.execute("SELECT host, log FROM logs WHERE host = ? OR log = ?", (host, key.log)):
                if row != (host, key.log):
                    raise ChainError(f"host {row[0]} is bound to log {row[1]}; {host} sent log {key.log}")
            self._writer.execute(
                "INSERT OR IGNORE INTO logs(host, log, public_key, stored, leaf_hash, tree) VALUES(?, ?, ?, 0, ?, ?)",
                (host, key.log, key.public, Head.empty().leaf_hash, b""),
            )
            log_id, stored, leaf, tree = self._writer.execute(
                "SELECT id, stored, leaf_hash, tree FROM logs WHERE host = ?", (host,)
            ).fetchone()
            self._owners[log_id] = token
        return log_id, Head(stored, leaf, Tree(stored, _nodes(tree)))

    def append(self, log_id: int, token: object, accepted: Accepted) -> None:
        """Stores what a batch adds; it is on disk when this returns. Raises Superseded."""
        head = accepted.head
        with self._lock:
            if self._owners.get(log_id) is not token:
                raise Superseded
            with self._transaction():
                self._writer.executemany(_INSERT_RECORD, ((log_id, *row) for row in accepted.rows))
                self._writer.executemany(_INSERT_CHECKPOINT, ((log_id, *row) for row in accepted.checkpoints))
                self._writer.execute(
                    "UPDATE logs SET stored = ?, leaf_hash = ?, tree = ? WHERE id = ?",
                    (head.stored, head.leaf_hash, b"".join(head.tree.nodes), log_id),
                )

    def release(self, log_id: int, token: object) -> None:
        """The stream of ``token`` ended."""
        with self._lock:
            if self._owners.get(log_id) is token:
                del self._owners[log_id]

    def line(self, log_id: int, sequence: int) -> bytes | None:
        """A stored line."""
        with self._lock, _translated(self._path):
            row = self._writer.execute(
                "SELECT line FROM records WHERE log_id = ? AND sequence = ?", (log_id, sequence)
            ).fetchone()
        return None if row is None else row[0]

    def refuse(self, host: str, log: str, uid: int, pid: int, reason: str) -> None:
        """Keeps a refusal."""
        with self._lock, self._transaction():
            row = (time.time(), host, log, uid, pid, reason)
            done = self._writer.execute(
                "INSERT INTO refusals(time, host, log, uid, pid, reason) VALUES(?, ?, ?, ?, ?, ?)", row
            )
            self._writer.execute("DELETE FROM refusals WHERE id <= ?", ((done.lastrowid or 0) - REFUSALS_KEPT,))

    def reader(self) -> sqlite3.Connection:
        """A connection of its own for one reader, read-only."""
        with _translated(self._path):
            connection = sqlite3.connect(f"file:{_quoted(self._path)}?mode=ro", uri=True, check_same_thread=False)
            connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
            return connection

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated(self._path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise


def logs(connection: sqlite3.Connection) -> list[LogRow]:
    """All logs, by host."""
    rows = connection.execute("SELECT id, host, log, public_key, stored FROM logs ORDER BY host")
    return [LogRow(log_id, host, LogKey(log, public), stored) for log_id, host, log, public, stored in rows]


def _take_lock(path: Path) -> int:
    """Two collectors on one file would each believe in their own heads."""
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreError(f"{path}: in use by another running collector") from error
    return lock


def _open(path: Path) -> sqlite3.Connection:
    with _translated(path):
        _create_private(path)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            elif version != VERSION:
                raise StoreError(f"{path}: made by a newer hostwarden-collector (version {version})")
        except BaseException:
            connection.close()
            raise
        return connection


def _create_private(path: Path) -> None:
    # SQLite would take the umask's mode; its -wal and -shm files get the mode of this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def _nodes(tree: bytes) -> list[bytes]:
    return [tree[at : at + HASH_BYTES] for at in range(0, len(tree), HASH_BYTES)]


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
