"""status, doctor, ps, adopt, kill, release, arm, disarm: what is asked of the daemon, what is shown, how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hostwarden.wire import hostwarden_pb2 as pb

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Cli, Daemon

EVIL = "x\x1b]0;owned\x07\n\u202egpj.exe\x9b2J"
HARMLESS = "x\\x1b]0;owned\\x07\\x0a\\u202egpj.exe\\x9b2J"


# status


def test_ready(cli: Cli, daemon: Daemon) -> None:
    daemon.status_json = {"agents": 2, "collector": {"address": "unix:/c", "acknowledged": 40}}
    done = cli("status")
    assert (done.code, done.err) == (0, "")
    lines = [" ".join(line.split()) for line in done.text.splitlines()]
    assert lines == [
        "ready",
        "sequence 41",
        "lost 3",
        "agents 2",
        "collector address unix:/c, acknowledged 40",
        "tier of exec signal",
        "tier of connect cgroup",
    ]


def test_disarmed_is_said_first(cli: Cli, daemon: Daemon) -> None:
    daemon.status_json = {"armed": False}
    assert cli("status").text.splitlines()[1].startswith("disarmed: nothing is enforced")


def test_not_ready_is_exit_1(cli: Cli, daemon: Daemon) -> None:
    daemon.is_ready = False
    done = cli("status")
    assert done.code == 1
    assert done.text.startswith("not ready\n")
    done = cli("status", "--json")
    assert (done.code, done.object["ready"]) == (1, False)


def test_status_json_is_what_the_daemon_says(cli: Cli, daemon: Daemon) -> None:
    daemon.status_json = {"state_dir": "/var/lib/hostwarden"}
    assert cli("status", "--json").object == {
        "ready": True,
        "tiers": {"exec": "signal", "connect": "cgroup"},
        "lost": 3,
        "sequence": 41,
        "state_dir": "/var/lib/hostwarden",
    }


def test_a_stranger_learns_that_it_is_ready(cli: Cli, daemon: Daemon, as_stranger: dict[str, Any]) -> None:
    done = cli.process("status", **as_stranger)
    assert (done.code, done.text) == (0, "ready\n")
    assert cli.process("status", "--json", **as_stranger).object == {"ready": True}


def test_a_collectors_status(cli: Cli, collector: tuple[Daemon, str]) -> None:
    handlers, address = collector
    handlers.status_json = {"hosts": {"web1": {"log": "ab12", "sequence": 7}}}
    done = cli("--collector", address, "status")
    assert done.code == 0
    assert "host web1        log ab12, sequence 7" in done.text
    assert cli("--collector", address, "status", "--json").object["hosts"]["web1"]["sequence"] == 7


# doctor

DOCTOR: dict[str, Any] = {
    "matrix": [
        {"action": "exec", "tier": "signal", "deny": "killed_before_effect", "kill": "killed_before_effect"},
        {"action": "connect", "tier": "cgroup", "deny": "prevented", "kill": "prevented", "proof": "refused"},
    ],
    "checks": [
        {"name": "btf", "ok": True, "says": "found", "hint": ""},
        {"name": "lsm", "ok": None, "says": "not tried", "hint": "boot with lsm=bpf"},
    ],
    "limits": ["write: with O_TRUNC the file has changed"],
}


def test_doctor(cli: Cli, daemon: Daemon) -> None:
    daemon.doctor_json = DOCTOR
    done = cli("doctor")
    assert (done.code, done.err) == (0, "")
    lines = [" ".join(line.split()) for line in done.text.splitlines()]
    assert lines[0] == "action tier deny kill proof"
    assert "exec signal killed before effect killed before effect -" in lines
    assert "ok btf found" in lines
    assert "unknown lsm not tried boot with lsm=bpf" in lines
    assert "limit: write: with O_TRUNC the file has changed" in lines
    assert cli("doctor", "--json").object == DOCTOR


def test_a_sentence_that_is_in_every_row_is_said_once(cli: Cli, daemon: Daemon) -> None:
    better = "the tiers lsm, modify_return and landlock come in a later version"  # in our words, as it is
    daemon.doctor_json = {"matrix": [{**row, "better": better} for row in DOCTOR["matrix"]]}
    text = cli("doctor").text
    assert text.count("come in a later version") == 1 and "better: the tiers lsm, modify_return" in text


def test_doctor_with_a_failed_check_is_exit_1(cli: Cli, daemon: Daemon) -> None:
    daemon.doctor_json = {**DOCTOR, "checks": [{"name": "pins", "ok": False, "says": "gone", "hint": "start it"}]}
    done = cli("doctor")
    assert done.code == 1 and "FAILED" in done.text
    assert cli("doctor", "--json").code == 1


@pytest.mark.parametrize("odd", [{}, {"matrix": 3, "checks": {"a": 1}}, {"matrix": [1, {}], "checks": ["x", {}]}])
def test_doctor_of_another_version(cli: Cli, daemon: Daemon, odd: dict[str, Any]) -> None:
    daemon.doctor_json = odd
    done = cli("doctor")
    assert (done.code, done.err) == (0, "")


# ps and adopt

AGENTS: list[dict[str, Any]] = [
    {"agent": "billing-1", "labels": {"team": "billing", "stage": "test"}, "state": "running", "processes": 3},
    {"agent": "[red]x", "labels": {}, "state": "killed", "processes": []},
]


def test_ps(cli: Cli, daemon: Daemon) -> None:
    daemon.agents = AGENTS
    done = cli("ps")
    assert (done.code, done.err) == (0, "")
    assert done.text.splitlines() == [
        "AGENT      LABELS                   STATE    PROCESSES",
        "billing-1  team=billing stage=test  running  3",
        "[red]x     -                        killed   0",
    ]
    assert cli("ps", "--json").objects == AGENTS


def test_ps_in_a_pipe_is_never_folded(cli: Cli, daemon: Daemon) -> None:
    daemon.agents = [{"agent": f"a{n}", "labels": {f"k{i}": "v" * 60 for i in range(9)}} for n in range(3)]
    assert len(cli.process("ps", env={"COLUMNS": "20"}).text.splitlines()) == 4


def test_ps_makes_names_harmless(cli: Cli, daemon: Daemon) -> None:
    daemon.agents = [{"agent": EVIL, "labels": {EVIL: EVIL}, "state": EVIL, "processes": 1}]
    done = cli("ps")
    assert HARMLESS in done.text and len(done.text.splitlines()) == 2
    assert done.text.replace("\n", "").isprintable()


def test_adopt(cli: Cli, daemon: Daemon) -> None:
    daemon.adopt_json = {"connections": ["10.0.0.1:443", {"to": EVIL}], "files": []}
    done = cli("adopt", "--pid", "4711", "--agent", "found", "--label", "team=x")
    assert (done.code, done.err) == (0, "")
    assert done.text.splitlines() == [
        "agent found: 2 processes adopted",
        "  connections: 10.0.0.1:443",
        f"  connections: to {HARMLESS}",
    ]
    [request] = daemon.calls["adopt"]
    assert (request.pid, request.agent, dict(request.labels)) == (4711, "found", {"team": "x"})
    assert cli("adopt", "--pid", "4711", "--json").object == {"agent": "found", "processes": 2, **daemon.adopt_json}


# kill and release


def test_kill(cli: Cli, daemon: Daemon) -> None:
    daemon.kill_reply = pb.KillReply(killed=12, agents=["a", "b"])
    done = cli("kill", "--label", "team=billing", "--label", "stage=*", "--timeout", "500ms")
    assert (done.code, done.text, done.err) == (0, "12 processes of agents a, b killed\n", "")
    [request] = daemon.calls["kill"]
    assert (dict(request.labels), request.timeout_s) == ({"team": "billing", "stage": "*"}, 0.5)


@pytest.mark.parametrize(("typed", "timeout_s"), [(None, 10), ("3", 3), ("1.5s", 1.5), ("2m", 120), ("5m", 300)])
def test_how_long_a_kill_may_take(cli: Cli, daemon: Daemon, typed: str | None, timeout_s: float) -> None:
    cli("kill", "--label", "a=b", *(["--timeout", typed] if typed else []))
    assert daemon.calls["kill"][0].timeout_s == timeout_s


def test_kill_with_some_that_cannot_die_is_exit_1_and_names_them(cli: Cli, daemon: Daemon) -> None:
    daemon.kill_reply = pb.KillReply(killed=1, agents=["a"], left=[77, 78])
    done = cli("kill", "--label", "team=billing")
    assert (done.code, done.text) == (1, "1 process of agent a killed\n")
    assert done.err == "2 processes are still there: 77, 78\n"
    done = cli("kill", "--label", "team=billing", "--json")
    assert (done.code, done.object) == (1, {"killed": 1, "agents": ["a"], "left": [77, 78]})


def test_kill_that_matches_nothing_is_exit_1(cli: Cli, daemon: Daemon) -> None:
    done = cli("kill", "--label", "team=nobody")
    assert (done.code, done.text, done.err) == (
        1,
        "",
        "hostwarden: no agent matches team=nobody\n  `hostwarden ps` shows which labels there are\n",
    )
    done = cli("kill", "--label", "team=nobody", "--json")
    assert (done.code, done.object) == (1, {"killed": 0, "agents": [], "left": []})


def test_release(cli: Cli, daemon: Daemon) -> None:
    daemon.released = ["a"]
    done = cli("release", "--label", "team=billing")
    assert (done.code, done.text) == (0, "agent a may go on, or start again\n")
    assert cli("release", "--label", "team=billing", "--json").object == {"agents": ["a"]}
    daemon.released = []
    done = cli("release", "--label", "team=billing")
    assert (done.code, done.text) == (1, "")
    said = "nothing that was killed or frozen matches team=billing\n  `hostwarden status` shows what is blocked\n"
    assert done.err == f"hostwarden: {said}"


def test_release_by_name(cli: Cli, daemon: Daemon) -> None:
    daemon.released = ["a"]
    assert cli("release", "--agent", "a").code == 0
    [request] = daemon.calls["release"]
    assert (dict(request.labels), request.agent) == ({}, "a")
    daemon.released = []
    assert "frozen matches x=y a\n" in cli("release", "--label", "x=y", "--agent", "a").err


def test_freeze(cli: Cli, daemon: Daemon) -> None:
    daemon.freeze_reply = pb.FreezeReply(frozen=2, agents=["a"])
    done = cli("freeze", "--label", "team=billing", "--timeout", "2s")
    assert (done.code, done.text, done.err) == (0, "2 processes of agent a frozen\n", "")
    [request] = daemon.calls["freeze"]
    assert (dict(request.labels), request.timeout_s) == ({"team": "billing"}, 2)


def test_freeze_that_leaves_some_running_or_matches_nothing_is_exit_1(cli: Cli, daemon: Daemon) -> None:
    daemon.freeze_reply = pb.FreezeReply(frozen=1, agents=["a"], left=[77])
    done = cli("freeze", "--label", "team=billing")
    assert (done.code, done.err) == (1, "1 process not yet still: 77\n")
    done = cli("freeze", "--label", "team=billing", "--json")
    assert (done.code, done.object) == (1, {"frozen": 1, "agents": ["a"], "left": [77]})
    daemon.freeze_reply = pb.FreezeReply()
    done = cli("freeze", "--label", "team=nobody")
    assert (done.code, done.text) == (1, "")
    assert done.err.startswith("hostwarden: no agent matches team=nobody\n")


# arm and disarm


@pytest.mark.parametrize(("command", "is_armed", "said"), [("arm", True, "armed: "), ("disarm", False, "disarmed: ")])
def test_arm_and_disarm_say_what_is_in_force(cli: Cli, daemon: Daemon, command: str, is_armed: bool, said: str) -> None:
    done = cli(command)
    assert done.code == 0 and done.text.startswith(said)
    assert daemon.calls["arm"][0].armed is is_armed
    assert cli(command, "--json").object == {"armed": is_armed}


# colours


@pytest.mark.parametrize("args", [["status"], ["doctor"], ["ps"]], ids=lambda args: args[0])
def test_colours_are_for_terminals_that_want_them(cli: Cli, daemon: Daemon, args: list[str]) -> None:
    daemon.doctor_json, daemon.agents = DOCTOR, AGENTS
    assert b"\x1b[" in cli.on_terminal(*args).out
    assert b"\x1b[" not in cli.on_terminal(*args, env={"NO_COLOR": "1"}).out
    assert b"\x1b[" not in cli.on_terminal(*args, env={"TERM": "dumb"}).out
    assert b"\x1b[" not in cli.process(*args, env={"FORCE_COLOR": "1"}).out
    assert b"\x1b[" not in cli.on_terminal(*args, "--json").out
