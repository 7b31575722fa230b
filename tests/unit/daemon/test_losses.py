"""What is recorded of losses adds up to what the kernel counted, wherever the last word is in the log."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.daemon.losses import Ledger, by_words, recorded_losses
from hostwarden.policy.words import Action, Verdict
from hostwarden.probes.pins import Counts
from hostwarden.records.key import load_or_create
from hostwarden.records.writer import LogWriter

ROWS, COLUMNS = len(Action), len(Verdict)


def counts(cells: list[int], lifecycle: int = 0) -> Counts:
    rows = tuple(tuple(cells[row * COLUMNS : (row + 1) * COLUMNS]) for row in range(ROWS))
    return Counts((0,) * ROWS, (0,) * ROWS, rows, lifecycle, 0)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 1000), min_size=ROWS * COLUMNS, max_size=ROWS * COLUMNS), st.booleans()))
)
def test_the_sum_of_what_was_said_is_what_was_lost(course: list[tuple[list[int], bool]]) -> None:
    ledger, cells, said, records = Ledger("a"), [0] * (ROWS * COLUMNS), 0, []
    for more, restarts in course:
        cells = [cell + step for cell, step in zip(cells, more, strict=True)]
        for lost, detail in ledger.grown({7: counts(cells)}).values():
            said += lost
            records.append(orjson.loads(orjson.dumps({"action": "loss", "detail": detail})))
        if restarts:
            ledger = Ledger("a")
            ledger.resume(records)
    assert said == ledger.total == sum(cells)


def test_agents_that_ended_are_forgotten_and_another_instance_starts_anew() -> None:
    ledger = Ledger("a")
    first = ledger.grown({7: counts([3] * ROWS * COLUMNS)})
    assert ledger.grown({}) == {}
    assert ledger.total == 0
    other = Ledger("b")
    other.resume([{"action": "loss", "detail": first[7][1]}])
    assert other.total == 0


@pytest.mark.parametrize("detail", [None, 3, {}, {"instance": "a"}, {"instance": "a", "agent_id": 7, "total": []}])
def test_what_is_no_loss_record_is_passed_over(detail: Any) -> None:
    ledger = Ledger("a")
    ledger.resume([{"action": "loss", "detail": detail}, {"action": "read"}, {}])
    assert ledger.total == 0


def test_words_leave_out_what_is_nothing() -> None:
    cells = [0] * ROWS * COLUMNS
    cells[Action.READ * COLUMNS + Verdict.DENY] = 2
    assert by_words(counts(cells).lost) == {"read": {"deny": 2}}


def test_losses_are_found_however_far_back_in_this_boot(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, load_or_create(tmp_path), segment_bytes=2000)
    writer.open()

    def append(boot: str, action: str, **more: Any) -> None:
        writer.append([orjson.dumps({"time": "t", "boot": boot, "action": action} | more)])

    append("old", "loss", n=0)
    for _ in range(30):
        append("old", "read", target='"action":"loss"')
    append("new", "loss", n=1)
    for n in range(30):
        append("new", "read", target=f'{{"action":"loss","n":{n}}}')
    append("new", "loss", n=2)
    for _ in range(30):
        append("new", "read")
    writer.close()
    assert [record["n"] for record in recorded_losses(tmp_path, "new")] == [1, 2]
    assert [record["n"] for record in recorded_losses(tmp_path, "newest")] == []
