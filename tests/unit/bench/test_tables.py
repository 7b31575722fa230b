"""Ratios are made within a round, aims are compared the right way round, tables have what they are given."""

import pytest

from tests.bench.tables import Aim, Pair, Ratio, cost_row, markdown_table, medians, number, text_table


def costs(value: float) -> dict[str, float]:
    medians = {"open": value, "exec": value * 10, "connect": value * 5}
    return medians | {f"{kind} quiet": value / 2 for kind in medians}


def test_a_ratio_is_to_what_was_around_it() -> None:
    pair = Pair(costs(110), (costs(90), costs(110)))
    assert pair.ratio("open") == pytest.approx(1.1)


def test_a_machine_that_drifts_doesnt_drift_the_ratio() -> None:
    pairs = [Pair(costs(1.1 * speed), (costs(speed), costs(speed))) for speed in (100, 200, 400)]
    ratio = Ratio.of(pairs, "exec")
    assert [ratio.median, ratio.low, ratio.high] == pytest.approx([1.1] * 3)


def test_one_bad_round_is_not_the_median() -> None:
    pairs = [Pair(costs(value), (costs(100),)) for value in (105, 104, 900)]
    ratio = Ratio.of(pairs, "open")
    assert (ratio.median, ratio.low, ratio.high) == (1.05, 1.04, 9.0)


def test_medians_by_kind() -> None:
    assert medians([costs(1), costs(3), costs(2)]) == costs(2)


@pytest.mark.parametrize(
    ("value", "is_floor", "verdict"),
    [
        (1.0, False, "met"),
        (1.05, False, "met"),
        (1.051, False, "missed"),
        (None, False, "not measured"),
        (1.05, True, "met"),
        (1.04, True, "missed"),
        (0.0, True, "missed"),
    ],
)
def test_aims(value: float | None, is_floor: bool, verdict: str) -> None:
    assert Aim("x", value, 1.05, is_floor=is_floor).row()[-1] == verdict


def test_an_aims_row_has_units() -> None:
    assert Aim("ratio", 1.061, 1.05, 1.049).row() == ["ratio", "1.06", "1.05", "≤ 1.05", "missed"]
    assert Aim("rate", 71234.5, 60_000, is_floor=True, unit="/s").row() == ["rate", "71,234/s", "", "≥ 60,000/s", "met"]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.456, "0.46"), (1.05, "1.05"), (12.34, "12.3"), (123.4, "123"), (67123.4, "67,123")]
)
def test_numbers(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_row_of_costs() -> None:
    samples = [costs(100), costs(120)]
    pairs = [Pair(sample, (costs(100),)) for sample in samples]
    assert cost_row("peer", samples, pairs, "0") == [
        "peer",
        "110 (1.10, 1.00 to 1.20; 1.10)",
        "1,100 (1.10, 1.00 to 1.20; 1.10)",
        "550 (1.10, 1.00 to 1.20; 1.10)",
        "0",
    ]  # fmt: skip
    assert cost_row("nothing", samples, [], "") == ["nothing", "110", "1,100", "550", ""]


def test_tables() -> None:
    rows = [["a|b", "1"], ["c", "22"]]
    assert text_table(["", "n"], rows).splitlines() == ["     n", "---  --", "a|b  1", "c    22"]
    assert markdown_table(["", "n"], rows).splitlines() == ["|  | n |", "| --- | --- |", "| a\\|b | 1 |", "| c | 22 |"]
