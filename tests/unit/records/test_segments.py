"""The format, line by line: what is one of its lines and what only looks like one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.records.segments import (
    ZERO,
    LogError,
    checkpoint_line,
    header_line,
    list_segments,
    parse_checkpoint,
    parse_prefix,
    parse_record,
    segment_first,
    segment_name,
)

PREV = b"0f" * 32


def test_the_header_is_written_in_one_way() -> None:
    assert header_line(1, ZERO, "ab" * 16) == (
        b'{"segment":1,"first":1,"prev":"' + b"0" * 64 + b'","log":"' + b"ab" * 16 + b'"}'
    )


@given(st.integers(1, 10**20 - 1))
def test_names_sort_as_their_numbers(first: int) -> None:
    path = Path(segment_name(first))
    assert (len(path.stem), segment_first(path)) == (20, first)


def test_segments_are_listed_in_order_and_nothing_else_is(tmp_path: Path) -> None:
    for name in (segment_name(10), segment_name(9), "tree.json", "x.cut", segment_name(11).replace("seg", "new")):
        (tmp_path / name).touch()
    assert [path.name for path in list_segments(tmp_path)] == [segment_name(9), segment_name(10)]
    with pytest.raises(LogError, match="may you read it"):
        list_segments(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "line",
    [
        b'{"sequence":1,"prev":"%b","a":1}' % PREV,
        b'{"sequence":9223372036854775807,"prev":"%b","a":{"sequence":2}}' % PREV,
    ],
)
def test_a_record(line: bytes) -> None:
    parsed = parse_record(line)
    assert parsed == parse_prefix(line)
    assert parsed is not None
    assert parsed[1].hex().encode() == PREV


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"sequence":0,"prev":"%b","a":1}' % PREV,
        b'{"sequence":01,"prev":"%b","a":1}' % PREV,
        b'{"sequence":-1,"prev":"%b","a":1}' % PREV,
        b'{"sequence":1.0,"prev":"%b","a":1}' % PREV,
        b'{"sequence":1 ,"prev":"%b","a":1}' % PREV,
        b'{"sequence":99999999999999999999,"prev":"%b","a":1}' % PREV,
        b'{"sequence":1,"prev":"%b","a":1}' % PREV.upper(),
        b'{"sequence":1,"prev":"%b","a":1}' % PREV[1:],
        b'{"sequence":1,"prev":"%b"}' % PREV,
        b'{"sequence":1,"prev":"%b",}' % PREV,
        b'{"sequence":1,"prev":"%b","a":1}}' % PREV,
        b'{"sequence":1,"prev":"%b","a":1}\r' % PREV + b"x",
        b'{"sequence":1,"prev":"%b","a":NaN}' % PREV,
        b'{"sequence":1,"prev":"%b","a":"\xff"}' % PREV,
        b'{"sequence":1,"prev":"%b","sequence":2}' % PREV,
        b'{"sequence":1,"prev":"%b","prev":null}' % PREV,
        b' {"sequence":1,"prev":"%b","a":1}' % PREV,
    ],
)
def test_no_record(line: bytes) -> None:
    assert parse_record(line) is None


@given(st.text(max_size=50))
def test_a_checkpoint_line_is_written_in_one_way(note: str) -> None:
    assert parse_checkpoint(checkpoint_line(note)) == note


@pytest.mark.parametrize(
    "line",
    [b"", b"1", b'{"checkpoint":1}', b'{"checkpoint": "x"}', b'{"checkpoint":"\\u0041"}', b'{"checkpoint":"a","b":1}'],
)
def test_no_checkpoint(line: bytes) -> None:
    with pytest.raises(ValueError):
        parse_checkpoint(line)
