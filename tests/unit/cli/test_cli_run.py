"""run: the command is bound before it begins, ends as if it had been started directly, and never runs unbound."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hostwarden.wire.errors import Code, WireError

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Cli, Daemon

Wait = Callable[[Callable[[], Any], str], Any]
RUN = ["run", "--agent", "a", "--"]

# Says "up", then counts what it gets; ends with SIGTERM, or when it is told to.
COUNTER = """
import os, signal, sys, time
got = []
def note(number, frame):
    got.append(signal.Signals(number).name)
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
               signal.SIGTERM):
    signal.signal(number, note)
print("up", os.getpid(), flush=True)
{act}
end = time.monotonic() + 20
while "SIGTERM" not in got and time.monotonic() < end:
    time.sleep(0.02)
time.sleep(0.2)
print(" ".join(got), flush=True)
sys.exit(9)
"""


def counter(act: str = "") -> list[str]:
    return [sys.executable, "-c", COUNTER.replace("{act}", act)]


def is_gone(pid: int) -> bool:
    """Whether no process has this pid, or a dead one that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


# How it ends


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -TERM $$"], 128 + 15),
        (["sh", "-c", "kill -KILL $$"], 128 + 9),
        (["sh", "-c", "kill -USR1 $$"], 128 + 10),
    ],
    ids=lambda value: str(value),
)
def test_exits_with_the_commands_code_and_says_nothing(cli: Cli, daemon: Daemon, command: list[str], code: int) -> None:
    done = cli.process(*RUN, *command)
    assert (done.code, done.out, done.err) == (code, b"", "")


@pytest.mark.parametrize(
    ("name", "code", "what"),
    [
        ("no-such-command-here", 127, "not found"),
        ("./nowhere/x", 127, "not found"),
        ("plain/below", 127, "not found"),  # a file is no folder
        ("./plain", 126, "permission denied"),
        (".", 126, "permission denied"),
        ("./text", 126, "exec format error"),
        ("no\x1b[2Jsuch", 127, "not found"),
    ],
)
def test_what_cannot_be_run(cli: Cli, daemon: Daemon, tmp_path: Path, name: str, code: int, what: str) -> None:
    (tmp_path / "plain").write_text("x")
    (tmp_path / "text").write_text("x")
    (tmp_path / "text").chmod(0o755)
    done = cli.process(*RUN, name, cwd=tmp_path)
    shown = name.replace("\x1b", "\\x1b")
    assert (done.code, done.out, done.err) == (code, b"", f"hostwarden: {shown}: {what}\n")


# What the command gets


def test_the_child_is_bound_before_it_begins(cli: Cli, daemon: Daemon) -> None:
    done = cli.process("run", "--agent", "billing-1", "--label", "team=billing", "--label", "x=1", "--", "true")
    assert done.code == 0
    [bound] = daemon.bound
    assert bound.parent == bound.peer.pid
    assert bound.request.start_ticks == bound.start_ticks
    assert not bound.has_execed
    assert (bound.request.agent, dict(bound.request.labels)) == ("billing-1", {"team": "billing", "x": "1"})


def test_input_output_and_arguments_are_the_commands_own(cli: Cli, daemon: Daemon) -> None:
    script = 'cat; echo "$@"; echo oops >&2'
    done = cli.process(*RUN, "sh", "-c", script, "x", "--json", "--", "-y", "--agent", "z", input=b"in\n")
    assert (done.code, done.out, done.err) == (0, b"in\n--json -- -y --agent z\n", "oops\n")


def test_the_two_dashes_can_be_left_out(cli: Cli, daemon: Daemon) -> None:
    assert cli.process("run", "--agent", "a", "sh", "-c", "exit 4", "--agent").code == 4


def test_bytes_that_are_no_text_reach_the_command(cli: Cli, daemon: Daemon) -> None:
    assert cli.process(*RUN, "printf", "%s", b"a\xff\xfeb").out == b"a\xff\xfeb"


def test_environment_and_descriptors_are_as_if_started_directly(cli: Cli, daemon: Daemon) -> None:
    probe = "env | sort; ls /proc/self/fd; cat /proc/self/status | grep -E '^(Sig(Blk|Ign|Cgt)|Threads)'; cat <&5"
    command = ["sh", "-c", probe]
    outputs = []
    for arguments in (command, None):
        reading, writing = os.pipe()
        os.write(writing, b"passed on\n")
        os.close(writing)
        options: dict[str, Any] = {"pass_fds": (reading,), "preexec_fn": lambda fd=reading: os.dup2(fd, 5)}
        if arguments is None:
            outputs.append(cli.process(*RUN, *command, close_fds=False, preexec_fn=options["preexec_fn"]).out)
        else:
            done = subprocess.run(
                arguments, capture_output=True, env=cli.environment(), close_fds=False, preexec_fn=options["preexec_fn"]
            )
            outputs.append(done.stdout)
        os.close(reading)
    assert outputs[0] == outputs[1]
    assert b"passed on" in outputs[0] and b"GRPC" not in outputs[0]


def test_an_ignored_sigchld_costs_no_exit_code(cli: Cli, daemon: Daemon) -> None:
    ignore = lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # noqa: E731
    assert cli.process(*RUN, "sh", "-c", "exit 6", preexec_fn=ignore).code == 6


def test_an_ignored_interrupt_stays_ignored(cli: Cli, daemon: Daemon) -> None:
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    assert cli.process(*RUN, "sh", "-c", "kill -INT $$; exit 7", preexec_fn=ignore).code == 7


# Who may


def test_anybody_may_run(cli: Cli, daemon: Daemon, as_stranger: dict[str, Any]) -> None:
    done = cli.process(*RUN, "sh", "-c", "exit 5", cwd="/", **as_stranger)
    assert (done.code, done.out, done.err) == (5, b"", "")
    assert daemon.bound[0].peer.role == "agent"


def test_a_responder_runs_through_the_agents_socket(
    cli: Cli, daemon: Daemon, run_dir: Path, as_stranger: dict[str, Any]
) -> None:
    (run_dir / "responder.sock").chmod(0o666)
    assert cli.process(*RUN, "true", cwd="/", **as_stranger).code == 0
    assert daemon.bound[0].peer.role == "agent"


# What isn't bound never runs


@pytest.mark.parametrize(
    ("code", "exit_code"), [(Code.INVALID, 2), (Code.NOT_PERMITTED, 4), (Code.CONFLICT, 1), (Code.INTERNAL, 1)]
)
def test_a_no_from_the_daemon_ends_it(
    cli: Cli, daemon: Daemon, tmp_path: Path, code: Code, exit_code: int, wait_for: Wait
) -> None:
    daemon.trouble["bind"] = WireError(code, "labels are team=x", "use them")
    done = cli.process(*RUN, "touch", str(tmp_path / "ran"))
    assert done.code == exit_code
    assert done.error == ("labels are team=x", "use them")
    assert not (tmp_path / "ran").exists()
    wait_for(lambda: is_gone(daemon.bound[0].request.pid), "the child ends")


def test_without_a_daemon_nothing_runs(cli: Cli, tmp_path: Path) -> None:
    done = cli.process(*RUN, "touch", str(tmp_path / "ran"))
    assert done.code == 3 and "no daemon" in done.error[0]
    assert not (tmp_path / "ran").exists()


def test_a_daemon_that_dies_while_it_is_asked(cli: Cli, daemon: Daemon, tmp_path: Path, wait_for: Wait) -> None:
    daemon.bind_delay_s = 20
    process = cli.start(*RUN, "touch", str(tmp_path / "ran"))
    wait_for(lambda: daemon.bound, "the daemon is asked")
    daemon.stop()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (3, b"")
    assert err.startswith(b"hostwarden: ")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_while_the_daemon_is_asked_ends_it_at_once(
    cli: Cli, daemon: Daemon, tmp_path: Path, number: signal.Signals, wait_for: Wait
) -> None:
    daemon.bind_delay_s = 20
    process = cli.start(*RUN, "touch", str(tmp_path / "ran"))
    wait_for(lambda: daemon.bound, "the daemon is asked")
    began = time.monotonic()
    process.send_signal(number)
    assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == 128 + number
    assert time.monotonic() - began < 5
    assert not (tmp_path / "ran").exists()


def test_a_parent_that_is_killed_leaves_nothing(cli: Cli, daemon: Daemon, tmp_path: Path, wait_for: Wait) -> None:
    daemon.bind_delay_s = 1
    process = cli.start(*RUN, "touch", str(tmp_path / "ran"))
    wait_for(lambda: daemon.bound, "the daemon is asked")
    process.kill()
    process.communicate(timeout=20)
    wait_for(lambda: is_gone(daemon.bound[0].request.pid), "the child ends")
    assert not (tmp_path / "ran").exists()


def test_it_lives_on_when_the_daemon_dies(cli: Cli, daemon: Daemon, wait_for: Wait) -> None:
    process = cli.start(*RUN, "sh", "-c", "echo up; read line; echo $line; exit 5", stdin=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    daemon.stop()
    time.sleep(0.2)
    out, err = process.communicate(b"still here\n", timeout=20)
    assert (process.returncode, out, err) == (5, b"still here\n", b"")


# Signals


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH"])
def test_a_signal_to_the_command_alone_is_passed_on_once(cli: Cli, daemon: Daemon, name: str) -> None:
    process = cli.start(*RUN, *counter())
    assert process.stdout is not None and process.stdout.readline().startswith(b"up ")
    process.send_signal(signal.Signals[name])
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out.split(), err) == (9, [name.encode(), b"SIGTERM"], b"")


def test_a_signal_from_the_child_to_its_group_comes_once(cli: Cli, daemon: Daemon) -> None:
    act = "os.kill(0, signal.SIGUSR1); time.sleep(0.3); os.kill(os.getpid(), signal.SIGTERM)"
    done = cli.process(*RUN, *counter(act), start_new_session=True)
    assert (done.code, done.out.split()[2:]) == (9, [b"SIGUSR1", b"SIGTERM"])


def test_what_the_terminal_sends_comes_once(cli: Cli, daemon: Daemon) -> None:
    def act(master: int, pid: int) -> None:
        seen = b""
        while b"up " not in seen or not seen.endswith(b"\n"):
            seen += os.read(master, 1000)
        os.write(master, b"\x03")  # ^C
        time.sleep(0.1)
        os.write(master, b"\x1c")  # ^\
        time.sleep(0.1)
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
        time.sleep(0.1)
        os.kill(pid, signal.SIGTERM)

    done = cli.on_terminal(*RUN, *counter(), act=act)
    assert done.code == 9
    words = re.findall("SIG[A-Z0-9]+", done.text)  # the terminal's own echo, ^C, stands before the first
    assert words == ["SIGINT", "SIGQUIT", "SIGWINCH", "SIGTERM"]


def test_stopping_and_going_on_at_a_terminal(cli: Cli, daemon: Daemon, wait_for: Wait) -> None:
    """^Z stops both, as the shell above expects; SIGCONT to the group, which is `fg`, lets both go on."""

    def state(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    def act(master: int, pid: int) -> None:
        seen = b""
        while b"up\r\n" not in seen:
            seen += os.read(master, 1000)
        child = daemon.bound[0].request.pid
        # Nobody is a shell above this group, and the kernel drops the ^Z of an orphaned one: stop it without.
        os.killpg(pid, signal.SIGSTOP)
        wait_for(lambda: (state(pid), state(child)) == ("T", "T"), "both stop")
        os.killpg(pid, signal.SIGCONT)
        os.write(master, b"go\n")

    done = cli.on_terminal(*RUN, "sh", "-c", "echo up; read line; exit 8", act=act)
    assert done.code == 8


def test_the_child_is_in_the_terminals_foreground(cli: Cli, daemon: Daemon) -> None:
    probe = "import os, sys; sys.exit(os.tcgetpgrp(0) != os.getpgrp())"
    assert cli.on_terminal(*RUN, sys.executable, "-c", probe).code == 0
