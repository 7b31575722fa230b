"""Who is who, from events that may be late, doubled or lost, and from /proc for the rest."""

import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.daemon.clock import Clock
from hostwarden.daemon.processes import KEPT_NS, MAX_EXITED, MAX_LINEAGE, ProcessTable, Users
from hostwarden.daemon.program import MAX_SHORT, Program, arguments, read_program, text
from hostwarden.probes.layout import EVENT, KIND_EXIT, KIND_FORK, KIND_JOIN, Event
from hostwarden.probes.pins import Member
from hostwarden.records.model import printable

MakeEvent = Callable[..., bytes]
PYTHON = Program.of(b"/usr/bin/python3", b"python3\0agent.py\0")
GIT = Program.of(b"/usr/bin/git", b"git\0status\0")


def start_of(pid: int) -> int:
    return pid * 1_000_000


@pytest.fixture
def event(make_event: MakeEvent) -> Callable[..., Event]:
    """``event(pid, forker, kind=…)``: a header; start times follow from pids."""

    def make(pid: int, forker: int = 1, **fields: Any) -> Event:
        usual = {"forker": forker, "forker_start": start_of(forker)}
        return Event._make(EVENT.unpack_from(make_event(pid=pid, **(usual | fields))))

    return make


def make_table(running: dict[int, Program] | None = None, members: dict[int, Member] | None = None, **more: Any) -> Any:
    """A table whose /proc is ``running`` and whose kernel knows ``members``, by pid."""
    programs, known = running or {}, members or {}

    def probe(pid: int, start: int) -> Program | None:
        return programs.get(pid) if start == start_of(pid) else None

    return ProcessTable(Clock(), member=known.get, probe=probe, users=Users(lambda uid: _no_user()), **more)


def _no_user() -> Any:
    raise KeyError


def described(table: ProcessTable, event: Event) -> Any:
    return orjson.loads(table.describe(table.acting(event)))


def ancestors(table: ProcessTable, pid: int) -> list[tuple[int, str | None]]:
    return [(ancestor["pid"], ancestor["exe"]) for ancestor in table.lineage((pid, start_of(pid)))]


Make = Callable[..., Event]


def test_a_child_runs_what_its_forker_ran_until_it_executes(event: Make) -> None:
    table = make_table()
    table.joined(event(10))
    table.executed(event(10), PYTHON)
    table.forked(event(11, 10, kind=KIND_FORK))
    before = described(table, event(11, 10))
    assert (before["exe"], before["argv"], before["ppid"]) == ("/usr/bin/python3", ["python3", "agent.py"], 10)
    table.executed(event(11, 10, time=6_000_000_000), GIT)
    after = described(table, event(11, 10))
    assert (after["exe"], after["argv"]) == ("/usr/bin/git", ["git", "status"])
    assert after["lineage"] == before["lineage"] == [{"pid": 10, "exe": "/usr/bin/python3"}]
    assert "partial" not in after
    assert table.lineage((10, start_of(10))) == []


def test_a_lineage_says_what_ancestors_ran_when_they_forked(event: Make) -> None:
    table = make_table()
    table.joined(event(10))
    table.executed(event(10), PYTHON)
    table.forked(event(11, 10, kind=KIND_FORK))
    table.executed(event(10, time=6_000_000_000), GIT)
    table.forked(event(12, 10, kind=KIND_FORK))
    assert ancestors(table, 11) == [(10, "/usr/bin/python3")]
    assert ancestors(table, 12) == [(10, "/usr/bin/git")]


def test_a_lineage_outlives_its_ancestors(event: Make) -> None:
    table = make_table()
    table.joined(event(10))
    table.executed(event(10), PYTHON)
    for pid in (11, 12):
        table.forked(event(pid, pid - 1, kind=KIND_FORK))
        table.exited(event(pid - 1, kind=KIND_EXIT))
    table.exited(event(99, kind=KIND_EXIT, time=5_000_000_000 + 2 * KEPT_NS))
    assert len(table) == 1
    assert ancestors(table, 12) == [(11, "/usr/bin/python3"), (10, "/usr/bin/python3")]


def test_a_long_lineage_ends_in_an_ellipsis(event: Make) -> None:
    table = make_table()
    table.joined(event(10))
    for pid in range(11, 100):
        table.forked(event(pid, pid - 1, kind=KIND_FORK))
    lineage = ancestors(table, 99)
    assert [pid for pid, _ in lineage] == [*range(98, 98 - MAX_LINEAGE, -1), 0]
    assert lineage[-1] == (0, "…")


def test_the_same_pid_later_is_another_process(event: Make) -> None:
    table = make_table()
    table.joined(event(10))
    table.executed(event(10), PYTHON)
    table.joined(event(10, start=7))
    assert len(table) == 2
    assert described(table, event(10, start=7))["exe"] is None
    assert described(table, event(10))["exe"] == "/usr/bin/python3"


def test_an_exec_that_is_read_late_changes_nothing(event: Make) -> None:
    table = make_table()
    table.executed(event(10, time=200), GIT)
    table.executed(event(10, time=100), PYTHON)
    assert described(table, event(10))["exe"] == "/usr/bin/git"


def test_a_fork_that_is_read_late_mends_the_lineage_only(event: Make) -> None:
    table = make_table()
    table.executed(event(11, 10, time=200), GIT)
    assert described(table, event(11, 10))["partial"]
    table.joined(event(10))
    table.executed(event(10), PYTHON)
    table.forked(event(11, 10, kind=KIND_FORK, time=100))
    process = described(table, event(11, 10))
    assert process["exe"] == "/usr/bin/git"
    assert process["lineage"] == [{"pid": 10, "exe": "/usr/bin/python3"}]
    assert "partial" not in process


# What no event told


def test_an_unknown_process_is_read_from_proc_once_and_says_so(event: Make) -> None:
    running = {10: PYTHON}
    table = make_table(running)
    process = described(table, event(10, 1, forker_start=0))
    assert (process["exe"], process["lineage"], process["partial"]) == ("/usr/bin/python3", [], True)
    running.clear()
    assert described(table, event(10))["exe"] == "/usr/bin/python3"


def test_a_process_that_is_gone_has_what_is_known(event: Make) -> None:
    process = described(make_table(), event(10, 1))
    assert process["exe"] is None
    assert process["argv"] is None
    assert (process["pid"], process["uid"], process["ppid"], process["partial"]) == (10, 1000, 1, True)


def test_after_a_restart_the_kernel_says_who_forked_whom(event: Make) -> None:
    running = {10: PYTHON, 11: GIT, 12: GIT, 2: PYTHON}
    members = {10: Member(7, 2, start_of(2), 0), 11: Member(7, 10, start_of(10), 0), 12: Member(7, 11, start_of(11), 0)}
    table = make_table(running, members)
    process = described(table, event(12, 11))
    assert process["lineage"] == [{"pid": 11, "exe": "/usr/bin/git"}, {"pid": 10, "exe": "/usr/bin/python3"}]
    table.executed(event(12, 11), PYTHON)
    assert "partial" not in described(table, event(12, 11)), "2 is alive and no member, so 10 was the first"
    assert table.find((10, start_of(10))).ppid == 2


@pytest.mark.parametrize(
    ("running", "members", "is_partial"),
    [
        ({1: PYTHON}, {}, False),  # the forker is there, and nobody's
        ({1: PYTHON}, {1: Member(8, 0, 0, 0)}, False),  # another agent's
        ({}, {}, True),  # it has ended, and nobody knows what it was
        ({}, {1: Member(7, 0, 0, 0)}, True),  # another process has its pid
    ],
)
def test_whether_a_lineage_is_whole(
    event: Make, running: dict[int, Program], members: dict[int, Member], is_partial: bool
) -> None:
    table = make_table(running, members)
    table.executed(event(10, 1), PYTHON)
    assert ("partial" in described(table, event(10, 1))) is is_partial


def test_forkers_that_name_each_other_are_no_endless_walk(event: Make) -> None:
    programs = dict.fromkeys(range(2, 200), PYTHON)
    members = {pid: Member(7, pid - 1, start_of(pid - 1), 0) for pid in range(2, 200)}
    table = make_table(programs, members)
    assert 20 < len(described(table, event(199, 198))["lineage"]) <= MAX_LINEAGE + 1


def test_a_thread_of_a_known_process_acts_as_the_process(event: Make) -> None:
    table = make_table()
    table.executed(event(10), PYTHON)
    assert table.acting(event(10, tid=17)) is table.find((10, start_of(10)))


def test_after_a_loss_proc_is_asked_again(event: Make) -> None:
    running = {10: PYTHON}
    table = make_table(running)
    table.executed(event(10), PYTHON)
    running[10] = GIT
    table.keep_head(table.acting(event(10)), b"stale")
    table.doubt()
    process = table.acting(event(10))
    assert process.head is None
    assert described(table, event(10))["exe"] == "/usr/bin/git"
    assert process.is_partial
    table.executed(event(10, time=6_000_000_000), PYTHON)
    assert not process.gaps & 1


def test_a_new_member_whose_exec_is_not_recorded_is_asked_of_proc(event: Make) -> None:
    table = make_table({10: PYTHON})
    table.joined(event(10, kind=KIND_JOIN))
    process = described(table, event(10))
    assert (process["exe"], process["lineage"], process["partial"]) == ("/usr/bin/python3", [], True)


def test_another_uid_and_another_program_drop_the_head(event: Make) -> None:
    table = make_table()
    process = table.executed(event(10), PYTHON)
    table.keep_head(process, b"head")
    assert table.acting(event(10)).head == b"head"
    assert table.acting(event(10, uid=0)).head is None
    table.keep_head(process, b"head")
    assert table.executed(event(10, uid=0, time=6_000_000_000), GIT).head is None


# Bounds


def test_a_flood_of_processes_stays_within_bounds(event: Make) -> None:
    table = make_table(max_processes=100)
    for pid in range(10, 1000):
        table.forked(event(pid, pid // 2, kind=KIND_FORK))
    assert len(table) == 100
    assert table.find((999, start_of(999))) is not None


def test_those_that_ended_go_first(event: Make) -> None:
    table = make_table(max_processes=3)
    for pid in (10, 11, 12):
        table.joined(event(pid))
    table.exited(event(12, kind=KIND_EXIT))
    table.joined(event(13))
    assert table.find((12, start_of(12))) is None
    assert table.find((10, start_of(10))) is not None


def test_long_names_weigh(event: Make) -> None:
    table = make_table(max_bytes=1 << 20)
    for pid in range(10, 400):
        table.executed(event(pid), Program.of(b"/" + b"\xff" * 4000, b"\1" * 2000))
    assert 20 < len(table) < 60
    for pid in range(10, 400):
        table.exited(event(pid, kind=KIND_EXIT, time=10**12 + pid * KEPT_NS))
    table.exited(event(10, kind=KIND_EXIT, time=10**13))
    assert len(table) == 0
    assert table._weight == 0


def test_many_short_lives_are_forgotten(event: Make) -> None:
    table = make_table()
    for n in range(MAX_EXITED + 500):
        table.joined(event(10, start=n))
        table.exited(event(10, start=n, kind=KIND_EXIT))
    assert len(table) == MAX_EXITED


# Users


def test_names_of_users_are_remembered_for_a_while() -> None:
    asked: list[int] = []

    def lookup(uid: int) -> Any:
        asked.append(uid)
        if uid == 4:
            raise KeyError(uid)
        return SimpleNamespace(pw_name=f"user{uid}")

    users = Users(lookup, limit=3)
    assert [users.name(uid) for uid in (1, 1, 4, 4)] == [b'"user1"', b'"user1"', b"null", b"null"]
    assert asked == [1, 4]
    assert Users(lookup, expiry_s=-1).name(1) == b'"user1"'
    for uid in range(10, 20):
        users.name(uid)
    assert len(users._names) <= 3


def test_a_name_may_hold_anything() -> None:
    users = Users(lambda uid: SimpleNamespace(pw_name='e"vil\n\udcff\x1b[0m'))
    assert orjson.loads(users.name(1)) == 'e"vil\n\\xff\x1b[0m'


# Programs


@given(
    st.binary(min_size=1, max_size=300), st.lists(st.binary(max_size=40).filter(lambda a: b"\0" not in a), min_size=1)
)
def test_any_bytes_are_told(path: bytes, argv: list[bytes]) -> None:
    program = Program.of(path, b"".join(argument + b"\0" for argument in argv))
    assert orjson.loads(program.exe) == printable(path)
    assert orjson.loads(program.argv) == [printable(argument) for argument in argv]
    assert text(path) == program.exe
    if len(path) > MAX_SHORT:
        assert orjson.loads(program.short) == printable(path[:MAX_SHORT]) + "…"


def test_arguments_that_were_not_read_and_those_that_were_cut() -> None:
    assert arguments(b"") == b"null"
    assert arguments(b"\0") == b'[""]'
    assert arguments(b"git\0push\0--for") == b'["git","push","--for"]'


def _start_ns(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        ticks = int(stat.read().rsplit(")", 1)[1].split()[19])
    return ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def test_a_real_process_is_read_from_proc() -> None:
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, "ar g"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout
            child.stdout.read(1)  # Popen returns while the kernel is still laying out the new program
            start = _start_ns(child.pid)
            program = read_program(child.pid, start + 999)  # the kernel's start has digits behind the tick
            assert program is not None
            assert orjson.loads(program.argv)[1:] == ["-c", code, "ar g"]
            assert orjson.loads(program.exe) == os.path.realpath(sys.executable)
            assert read_program(child.pid, start + 10_000_000) is None, "another process had this pid"
            assert read_program(child.pid, start - 1) is None
        finally:
            child.kill()
    assert read_program(child.pid, start) is None


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_what_is_no_process(pid: int) -> None:
    assert read_program(pid, 1) is None
