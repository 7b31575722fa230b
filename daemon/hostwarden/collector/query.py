"""Reads records back: all hosts or one, ascending by host and sequence, to the end there is now or for ever."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hostwarden.collector.store import LogRow, Store, logs

PAGE_LINES = 500
PAGE_BYTES = 1 << 20  # a page is all that a reader holds in memory
_INT64_MAX = (1 << 63) - 1  # SQLite's largest; `since` on the wire is a uint64


@dataclass(frozen=True, slots=True)
class Query:
    """Which records. Empty strings mean all."""

    since: int = 0
    agent: str = ""
    verdict: str = ""
    host: str = ""


Found = tuple[str, int, bytes]  # host, sequence, line


class Reader:
    """One reader's place in every log. A context manager; not to be shared between threads."""

    def __init__(self, store: Store, query: Query) -> None:
        self._connection = store.reader()
        self._query = query
        self._sql = _sql(query)
        self._places: dict[int, int] = {}  # log id -> sequence up to which it was looked through

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def pages(self, is_wanted: Callable[[], bool]) -> Iterator[list[Found]]:
        """What is stored now and was not read before, a page at a time, while ``is_wanted``."""
        for log in logs(self._connection):
            if self._query.host not in ("", log.host):
                continue
            while is_wanted() and self._place(log.id) < log.stored:
                page = self._page(log)
                if page:
                    yield page

    def _place(self, log_id: int) -> int:
        return self._places.get(log_id, min(self._query.since, _INT64_MAX))

    def _page(self, log: LogRow) -> list[Found]:
        """The next page up to the head that the log had when we looked; moves the place."""
        parameters = {
            "log": log.id,
            "after": self._place(log.id),
            "until": log.stored,
            "agent": self._query.agent,
            "verdict": self._query.verdict,
        }
        page: list[Found] = []
        size = 0
        cursor = self._connection.execute(self._sql, parameters)
        for sequence, line in cursor:
            page.append((log.host, sequence, line))
            size += len(line)
            if size >= PAGE_BYTES or len(page) >= PAGE_LINES:
                self._places[log.id] = sequence
                break
        else:
            self._places[log.id] = log.stored
        cursor.close()  # or the snapshot would be held while the peer reads
        return page


def _sql(query: Query) -> str:
    """The statement for a page.

    The literal 'allow' is what the partial index on the other verdicts needs. The index is named, because without
    statistics SQLite would walk the primary key through a million records for a handful.
    """
    index = ""
    conditions = ["log_id = :log", "sequence > :after", "sequence <= :until"]
    if query.verdict:
        conditions.append("verdict = :verdict")
        if query.verdict != "allow":
            conditions.append("verdict <> 'allow'")
            index = "INDEXED BY records_by_verdict"
    if query.agent:
        conditions.append("agent = :agent")
        index = "INDEXED BY records_by_agent"
    return f"SELECT sequence, line FROM records {index} WHERE {' AND '.join(conditions)} ORDER BY sequence"  # noqa: S608


def host_heads(connection: sqlite3.Connection) -> dict[str, dict[str, object]]:
    """For Status: host -> log and last stored sequence."""
    return {log.host: {"log": log.key.log, "sequence": log.stored} for log in logs(connection)}
