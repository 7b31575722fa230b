"""What the kernel counted as lost, said in the log: how many actions of which agent, by action and verdict.

The kernel's counters only grow, and so does what the log says: each loss record has what was lost since the one before
(`lost`, and by action and verdict in `detail`), and the total so far. So a daemon that starts again goes on from the
log's last word, and the sum of `lost` over an agent's records is what its counters say, exactly.
"""

import mmap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from hostwarden.policy.words import Action, Verdict
from hostwarden.probes.pins import Counts
from hostwarden.records.segments import list_segments, log_dir, open_segment

_NEEDLE = b'"action":"loss"'  # a string in a record can't hold it: its quotes would be escaped

ByAction = dict[str, dict[str, int]]


class Ledger:
    """What is recorded of losses, by agent id, for one set of pinned maps (``instance``)."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._lost: dict[int, ByAction] = {}
        self._lifecycle: dict[int, int] = {}

    @property
    def total(self) -> int:
        """Actions lost, over all agents that still count."""
        return sum(map(_sum, self._lost.values()))

    def resume(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Go on from what loss records of this boot say, oldest first; others are passed over."""
        for record in records:
            detail = record.get("detail")
            if record.get("action") != "loss" or not isinstance(detail, dict):
                continue
            with suppress(KeyError, TypeError, ValueError, AttributeError):  # not one that we wrote
                if detail["instance"] == self._instance:
                    agent = int(detail["agent_id"])
                    self._lifecycle[agent] = int(detail["total"]["lifecycle"])
                    self._lost[agent] = {
                        action: {verdict: int(number) for verdict, number in row.items()}
                        for action, row in detail["total"]["lost"].items()
                    }

    def grown(self, counts: Mapping[int, Counts]) -> dict[int, tuple[int, dict[str, Any]]]:
        """For each agent that lost more than is recorded: how many actions, and a loss record's ``detail``.

        What is returned counts as recorded. Agents that ``counts`` doesn't name are forgotten: they have ended.
        """
        for agent in self._lifecycle.keys() - counts.keys():
            del self._lifecycle[agent], self._lost[agent]
        found = {}
        for agent, now in counts.items():
            total = by_words(now.lost)
            more = _difference(total, self._lost.get(agent, {}))
            lifecycle = now.lost_lifecycle - self._lifecycle.get(agent, 0)
            if not more and lifecycle <= 0:
                continue
            self._lost[agent], self._lifecycle[agent] = total, now.lost_lifecycle
            found[agent] = (
                _sum(more),
                {
                    "lost": more,
                    "lifecycle": lifecycle,
                    "total": {"lost": total, "lifecycle": now.lost_lifecycle},
                    "agent_id": agent,
                    "instance": self._instance,
                },
            )
        return found


def by_words(lost: tuple[tuple[int, ...], ...]) -> ByAction:
    """Counters by action and verdict as words, without the zeros."""
    rows = {
        str(Action(action)): {str(Verdict(verdict)): number for verdict, number in enumerate(row) if number}
        for action, row in enumerate(lost)
    }
    return {action: row for action, row in rows.items() if row}


def _difference(now: ByAction, before: ByAction) -> ByAction:
    """What grew. The kernel reads counters one by one while they grow, so a later number is never smaller."""
    rows = {
        action: {verdict: n - before.get(action, {}).get(verdict, 0) for verdict, n in row.items()}
        for action, row in now.items()
    }
    grown = {action: {verdict: n for verdict, n in row.items() if n > 0} for action, row in rows.items()}
    return {action: row for action, row in grown.items() if row}


def _sum(lost: ByAction) -> int:
    return sum(sum(row.values()) for row in lost.values())


def recorded_losses(state_dir: Path, boot: str) -> list[dict[str, Any]]:
    """The log's loss records of this boot, oldest first. Raises LogError.

    They may be far from the end, so this looks through segments, newest first, down to another boot's: about a second
    for a gigabyte. Worth it only if the kernel's counters say that something was lost.
    """
    found: list[list[dict[str, Any]]] = []
    for path in reversed(list_segments(log_dir(state_dir))):
        with open_segment(path) as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
            found.append([record for record in _losses_in(text) if record.get("boot") == boot])
            file.readline()  # the header
            with suppress(orjson.JSONDecodeError):
                if orjson.loads(file.readline()).get("boot", boot) != boot:
                    break
    return [record for records in reversed(found) for record in records]


def _losses_in(text: mmap.mmap) -> Iterator[dict[str, Any]]:
    at = text.find(_NEEDLE)
    while at >= 0:
        start, end = text.rfind(b"\n", 0, at) + 1, text.find(b"\n", at)
        with suppress(orjson.JSONDecodeError):
            record = orjson.loads(text[start : end if end >= 0 else len(text)])
            if isinstance(record, dict):
                yield record
        at = text.find(_NEEDLE, end) if end >= 0 else -1
