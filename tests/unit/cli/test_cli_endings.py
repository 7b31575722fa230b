"""How the command ends when it isn't its own doing: ^C, a closed pipe, a full disk, a daemon that goes away."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hostwarden.wire.errors import Code, WireError

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Cli, Daemon

Wait = Callable[[Callable[[], Any], str], Any]


def test_an_interrupt_while_following_is_130_and_quiet(cli: Cli, daemon: Daemon) -> None:
    daemon.records = [b'{"sequence":1}']
    process = cli.start("events", "--follow", "--json")
    assert process.stdout is not None
    assert process.stdout.readline() == b'{"sequence":1}\n'
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_reader_who_has_enough_ends_it_quietly(cli: Cli, daemon: Daemon) -> None:
    daemon.records = [b'{"sequence":%d,"target":"%s"}' % (n, b"x" * 500) for n in range(1, 2000)]
    process = cli.start("events", "--json")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith(b'{"sequence":1,')
    process.stdout.close()
    assert process.wait(20) == -signal.SIGPIPE
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_full_disk_under_the_output_is_one_line(cli: Cli, daemon: Daemon) -> None:
    daemon.records = [b'{"sequence":%d}' % n for n in range(1, 20)]
    with open("/dev/full", "wb") as full:
        process = cli.start("events", "--json", stdout=full)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err == b"hostwarden: the output can't be written: no space left on device\n"


def test_each_kind_of_no_has_its_exit_code(cli: Cli, daemon: Daemon) -> None:
    rows = [(Code.INVALID, 2), (Code.NOT_PERMITTED, 4), (Code.NOT_FOUND, 1), (Code.CONFLICT, 1), (Code.BUSY, 1)]
    for code, exit_code in rows:
        daemon.trouble["arm"] = WireError(code, "what \x1b[2J is wrong", "what to do")
        done = cli("arm")
        assert done.code == exit_code
        assert done.error == ("what \\x1b[2J is wrong", "what to do")


def test_many_lines_from_the_daemon_are_many_lines(cli: Cli, daemon: Daemon) -> None:
    daemon.trouble["arm"] = WireError(Code.INVALID, "a.yaml:1:1: this\nb.yaml:2:2: that")
    done = cli("arm")
    assert (done.code, done.err) == (2, "hostwarden: a.yaml:1:1: this\nhostwarden: b.yaml:2:2: that\n")


def test_a_stream_that_breaks_is_exit_3(cli: Cli, daemon: Daemon) -> None:
    daemon.trouble["ps"] = WireError(Code.UNAVAILABLE, "going away")
    assert cli("ps", "--json").code == 3


def test_who_may_not_is_exit_4(cli: Cli, daemon: Daemon, as_stranger: dict[str, Any]) -> None:
    for args in (["kill", "--label", "a=b"], ["ps"], ["events"], ["disarm"], ["adopt", "--pid", "1"]):
        done = cli.process(*args, **as_stranger)
        assert done.code == 4
        message, hint = done.error
        assert "is not permitted on agent.sock" in message and "admin" in hint
    assert not daemon.calls


def test_no_socket_is_open_to_us(cli: Cli, daemon: Daemon, as_stranger: dict[str, Any]) -> None:
    (cli.run_dir / "agent.sock").chmod(0)
    done = cli.process("status", **as_stranger)
    assert done.code == 4
    assert "permission denied" in done.error[0]
