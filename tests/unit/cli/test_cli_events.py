"""events: the record as it is, or one readable and harmless line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostwarden.cli.events import record_line

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Cli, Daemon

RECORD: dict[str, Any] = {
    "sequence": 17,
    "prev": "00" * 32,
    "time": "2026-11-24T07:20:00.123456789Z",
    "host": "web1",
    "agent": "billing-1",
    "labels": {"team": "billing"},
    "process": {"pid": 7, "exe": "/usr/bin/git", "argv": ["git"], "uid": 0},
    "action": "exec",
    "target": "/usr/bin/git",
    "verdict": "kill",
    "rule": "billing.yaml:7",
    "policy": "billing",
    "why": "ask in #releases",
    "tier": "signal",
    "outcome": "killed_before_effect",
}


def line(**changes: Any) -> bytes:
    return orjson.dumps({**RECORD, **changes})


def squeezed(raw: bytes, host: str = "") -> str:
    return " ".join(record_line(raw, host).split())


def test_a_record_for_people() -> None:
    assert squeezed(line()) == (
        "17 2026-11-24T07:20:00.123Z billing-1 exec /usr/bin/git kill killed_before_effect billing.yaml:7 "
        "ask in #releases"
    )
    assert squeezed(line(), "web1").startswith("17 web1 2026-11-24T")


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"rule": None, "why": None}, "kill killed_before_effect -"),
        ({"error": "EIO"}, "billing.yaml:7 ask in #releases error: EIO"),
        ({"action": "gap", "agent": None, "target": None, "rule": None, "why": None, "lost": 0}, "- lost 0"),
        (
            {
                "action": "kill",
                "target": None,
                "rule": None,
                "why": None,
                "detail": {"labels": {"a": "b"}, "killed": 3},
            },
            "labels a b, killed 3",
        ),
        ({"detail": {"x": "y" * 1000}}, "y…"),
    ],
)
def test_what_else_a_record_says(changes: dict[str, Any], end: str) -> None:
    assert squeezed(line(**changes)).endswith(end)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\x1b[2J", b'{"time":3,"outcome":[1],"why":{"a":[]}}', b"null"])
def test_what_is_no_record_is_shown_and_harmless(raw: bytes) -> None:
    assert record_line(raw).isprintable()


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*RECORD, "lost", "detail", "error"]), VALUES), TEXT)
def test_no_record_can_do_anything_to_a_terminal(changes: dict[str, Any], host: str) -> None:
    assert record_line(line(**changes), host).isprintable()


@settings(max_examples=200, deadline=None)
@given(st.binary())
def test_no_bytes_can_either(raw: bytes) -> None:
    assert record_line(raw).isprintable()


def test_json_is_the_very_line(cli: Cli, daemon: Daemon) -> None:
    daemon.records = [line(sequence=n, target="/a\x1b[2J\u2028b \\xff é") for n in range(1, 4)]
    done = cli("events", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.out == b"".join(record + b"\n" for record in daemon.records)
    assert len(done.objects) == 3


def test_people_get_one_harmless_line_a_record(cli: Cli, daemon: Daemon) -> None:
    daemon.records = [line(target="/a\x1b[2J\nb\u2028c\x9bd"), line(sequence=2)]
    done = cli("events")
    assert (done.code, done.err) == (0, "")
    lines = done.text.split("\n")
    assert len(lines) == 3 and lines[2] == ""
    assert "/a\\x1b[2J\\x0ab\\u2028c\\x9bd" in lines[0]


def test_what_is_asked_for(cli: Cli, daemon: Daemon) -> None:
    daemon.records = [line(sequence=n) for n in range(1, 6)]
    done = cli("events", "--since", "3", "--agent", "a", "--verdict", "deny", "--host", "h", "--json")
    assert [record["sequence"] for record in done.objects] == [4, 5]
    [request] = daemon.calls["events"]
    asked = (request.since, request.agent, request.verdict, request.host, request.follow)
    assert asked == (3, "a", "deny", "h", False)


@pytest.mark.parametrize("json", [True, False])
def test_following_shows_each_record_when_it_comes(cli: Cli, daemon: Daemon, json: bool) -> None:
    daemon.records = [line(), line(sequence=18)]
    process = cli.start("events", "-f", *(["--json"] if json else []))
    assert process.stdout is not None
    assert [b"killed_before_effect" in process.stdout.readline() for _ in range(2)] == [True, True]
    process.terminate()
    process.communicate(timeout=20)


def test_events_of_a_collector_name_the_host(cli: Cli, collector: tuple[Daemon, str]) -> None:
    handlers, address = collector
    handlers.records = [line()]
    assert cli("--collector", address, "events", "--json").out == line() + b"\n"
    assert "  here  2026-" in cli("--collector", address, "events").text


def test_colours_by_outcome(cli: Cli, daemon: Daemon, wait_for: Callable[..., Any]) -> None:
    daemon.records = [
        line(),
        line(sequence=18, outcome="held"),
        line(sequence=19, verdict="deny", outcome="observed"),
        line(sequence=20, verdict="allow", outcome="observed"),
    ]
    shown = cli.on_terminal("events").out.split(b"\n")
    assert [b"\x1b[31;1m" in row for row in shown[:4]] == [True, False, False, False]
    assert [b"\x1b[33m" in row for row in shown[:4]] == [False, True, True, False]
    assert b"\x1b[" not in shown[3]
    assert b"\x1b" not in cli.on_terminal("events", env={"NO_COLOR": "1"}).out
