"""Usage: what the command understands, and what it says where it doesn't. One line, one hint, exit 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Cli, Daemon

COMMANDS = (
    *("status", "doctor", "run", "adopt", "ps", "events", "kill", "freeze", "release", "arm", "disarm", "policy"),
    "audit",
)
LATER = [
    *(["why"], ["holds"], ["approve"], ["refuse"], ["top"]),
    *(["policy", "replay"], ["policy", "learn"], ["policy", "schema"], ["policy", "apply"]),
    *(["audit", "prove"], ["audit", "export"]),
]

# arguments, what the line has, what the hint has
MISTAKES = [
    ([], "missing command", "hostwarden --help"),
    (["stauts"], "no such command 'stauts'", "did you mean 'status'?"),
    (["qqqq"], "no such command 'qqqq'", "hostwarden --help"),
    (["policy"], "missing command", "hostwarden policy --help"),
    (["policy", "chekc"], "no such command 'chekc'", "'check'"),
    (["audit", "verfy"], "no such command 'verfy'", "'verify'"),
    (["--colector", "x", "ps"], "no such option: --colector", "did you mean --collector?"),
    (["status", "--jso"], "no such option: --jso", "did you mean --json?"),
    (["status", "now"], "got unexpected extra argument", "hostwarden status --help"),
    (["--run-dir"], "option '--run-dir' requires an argument", "--help"),
    # run, adopt
    (["run", "--", "true"], "missing option '--agent'", "hostwarden run --help"),
    (["run", "--agent", "a", "--", ""], "CMD: an empty name", "hostwarden run --help"),
    (["run", "--agent", "a"], "missing argument 'CMD'", "hostwarden run --help"),
    (["run", "--agent", "a", "--label", "x", "--", "true"], "label 'x': expected key=value", "run --help"),
    (["run", "--agent", "a", "--label", "x=1", "--label", "x=2", "--", "true"], "label x is given twice", "run --help"),
    (["adopt"], "missing option '--pid'", "hostwarden adopt --help"),
    (["adopt", "--pid", "x"], "'--pid': expected a valid integer", "adopt --help"),
    (["adopt", "--pid", "0"], "'--pid': expected greater than or equal to 1", "adopt --help"),
    # events
    (["events", "--since", "-1"], "'--since': expected greater than or equal to 0", "events --help"),
    (["events", "--since", str(1 << 64)], "'--since': expected less than", "events --help"),
    (["events", "--verdict", "den"], "unknown verdict `den`, did you mean deny?", "events --help"),
    # kill, release: never everything by accident
    (["kill"], "--label: none given", "kill --help"),
    (["freeze"], "--label: none given", "freeze --help"),
    (["release"], "--label: none given", "release --help"),
    (["kill", "--label", "team"], "label 'team': expected key=value", "kill --help"),
    (["kill", "--label", "a=b", "--label", "a=c"], "label a is given twice", "kill --help"),
    (["kill", "--label", "a=\x1b[2J"], "label value '\\x1b[2J'", "kill --help"),
    (["kill", "--label", "a=b", "--timeout", "soon"], "--timeout: 'soon': expected a time like 10s", "kill --help"),
    (["kill", "--label", "a=b", "--timeout", "0s"], "--timeout: '0s'", "kill --help"),
    (["kill", "--label", "a=b", "--timeout", "301s"], "--timeout: '301s'", "kill --help"),
    # policy explain
    (["policy", "explain"], "missing argument 'ACTION'", "policy explain --help"),
    (["policy", "explain", "exek", "/x"], "unknown action `exek`, did you mean exec?", "policy explain --help"),
    (["policy", "explain", "resolve", "x"], "action `resolve` isn't in this version yet", "policy explain --help"),
    (["policy", "explain", "read", "x/y"], "path `x/y`, expected an absolute one", "policy explain --help"),
    (["policy", "explain", "read", "/x/../y"], "expected an absolute one", "policy explain --help"),
    (["policy", "explain", "read", "/x/./y"], "expected an absolute one", "policy explain --help"),
    (["policy", "explain", "read", "/x//y"], "expected an absolute one", "policy explain --help"),
    (["policy", "explain", "read", "/x/"], "expected an absolute one", "policy explain --help"),
    (["policy", "explain", "read", "/x\n/../y"], "expected an absolute one", "policy explain --help"),
    (["policy", "explain", "read", "/x", "--", "y"], "argv says nothing about read", "policy explain --help"),
    (["policy", "explain", "connect", "nowhere"], "invalid value for TARGET", "policy explain --help"),
    (["policy", "explain", "read", "/x", "--user", "nobody-at-all"], "no user `nobody-at-all`", "explain --help"),
    (["policy", "test"], "missing argument 'CASES'", "policy test --help"),
    # a collector serves two commands, today
    (["--collector", "unix:/x", "ps"], "ps doesn't work through a collector", "on the host"),
    (["--collector", "unix:/x", "kill", "--label", "a=b"], "kill doesn't work through a collector", "on the host"),
    (["--collector", "unix:/x", "policy", "check"], "policy doesn't work through a collector", "on the host"),
    (["--collector", "tcp://x:1", "status"], "not an address of a collector", "unix:/path"),
    # what comes later
    *(([*words, "--label", "x=y", "3"], f"{' '.join(words)} isn't in this version yet", "--help") for words in LATER),
]


@pytest.mark.parametrize(("args", "line", "hint"), MISTAKES, ids=lambda value: " ".join(value)[:60] if value else "-")
def test_a_mistake_is_one_line_and_exit_2(cli: Cli, args: list[str], line: str, hint: str) -> None:
    done = cli(*args)
    assert done.code == 2
    message, said = done.error
    assert line in message
    assert hint in said


def test_help_names_the_commands_and_not_what_comes_later(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0 and done.err == ""
    listed = [line.split()[0] for line in done.text.partition("Commands:")[2].splitlines() if line.strip()]
    assert listed == list(COMMANDS)
    assert not any(char in done.text for char in "─│╭")  # no boxes
    assert "..." not in done.text.partition("Commands:")[2].replace("-- CMD...", "")  # nothing cut off


@pytest.mark.parametrize("command", [*COMMANDS, "policy check", "policy explain", "policy test", "audit verify"])
def test_each_command_has_help(cli: Cli, command: str) -> None:
    done = cli(*command.split(), "--help")
    assert done.code == 0 and done.err == ""
    assert f"Usage: hostwarden {command}" in done.text


def test_version(cli: Cli) -> None:
    done = cli("--version")
    assert (done.code, done.text.split()[0]) == (0, "hostwarden")


@pytest.mark.parametrize(
    "args",
    [
        *(["--json", "status"], ["status", "--json"], ["--json", "status", "--json"]),
        *(["ps", "--json"], ["--json", "doctor"], ["kill", "--json", "--label", "a=b"], ["arm", "--json"]),
        *(["disarm", "--json"], ["events", "--json"], ["release", "--label", "a=b", "--json"], ["adopt", "--pid", "7"]),
        *(["policy", "check", "--json"], ["policy", "--json", "check"], ["--json", "audit", "verify", "/none"]),
        *(["audit", "--json", "verify", "/none"], ["policy", "explain", "read", "/x", "--json"]),
        *(
            ["policy", "test", "/none", "--json"],
            ["freeze", "--label", "a=b", "--json"],
            ["policy", "replay", "--json"],
        ),
    ],
    ids=" ".join,
)
def test_json_is_understood_anywhere_and_stdout_is_nothing_else(cli: Cli, daemon: Daemon, args: list[str]) -> None:
    daemon.agents = [{"agent": "a", "labels": {}, "state": "running", "processes": 1}]
    daemon.records = [b'{"sequence":1}', b'{"sequence":2}']
    done = cli(*args, *(["--json"] if args[0] == "adopt" else []))
    assert "no such option" not in done.err
    assert done.objects or done.err.startswith("hostwarden: ")


@pytest.mark.parametrize(
    "args",
    [["status"], ["doctor"], ["ps"], ["events"], ["kill", "--label", "a=b"], ["release", "--label", "a=b"], ["arm"]],
    ids=lambda args: args[0],
)
def test_no_daemon_is_exit_3(cli: Cli, args: list[str]) -> None:
    done = cli(*args)
    assert done.code == 3
    message, hint = done.error
    assert "no daemon listens there" in message and "hostwardend" in hint


def test_no_collector_is_exit_3(cli: Cli) -> None:
    done = cli("--collector", "unix:/nowhere/at-all", "events")
    assert done.code == 3
    assert done.error == (
        "/nowhere/at-all: no such file or directory",
        "is hostwarden-collector running? see `systemctl status hostwarden-collector`",
    )


def test_run_dir_is_an_option_as_well(cli: Cli, daemon: Daemon) -> None:
    done = cli.process("--run-dir", str(cli.run_dir), "status", env={"HOSTWARDEN_RUN_DIR": "/nowhere"})
    assert done.code == 0
