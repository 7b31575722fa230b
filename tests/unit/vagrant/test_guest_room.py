"""Processes around the guests: what is logged, what fails, and whether a room is there."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from vagrant import machine, room, run, suites
from vagrant.guests import GUESTS, VmError


def test_output_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "logs" / "log"
    for word in ("one", "two"):
        run.logged(["sh", "-c", f"echo {word}; echo {word} >&2"], log)
    assert log.read_text() == "one\none\ntwo\ntwo\n"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo before; echo 'no space' >&2; exit 3", "sh -c failed: no space"),
        ("printf 'why\\n\\tfrom trace.rb\\n'; exit 1", "sh -c failed: why"),
        ("exit 1", "sh -c failed: it said nothing"),
        ("sleep 60", "sh -c gave no answer for 1 s"),
    ],
)
def test_failure_is_one_line_that_points_to_the_log(command: str, message: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("what somebody else said\n")
    with pytest.raises(VmError) as error:
        run.logged(["sh", "-c", command], log, timeout_s=1)
    assert str(error.value) == f"{message} (all that it said: {log})"


def test_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(VmError, match="vagrantt isn't installed"):
        run.logged(["vagrantt", "up"], tmp_path / "log")


def test_a_wait_ends_with_a_line(tmp_path: Path) -> None:
    run.wait_for("nothing", lambda: True, 0, tmp_path / "log")
    with pytest.raises(VmError, match="the moon isn't there after 0 s"):
        run.wait_for("the moon", lambda: False, 0, tmp_path / "log")


def test_without_a_room_nothing_runs_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PID", tmp_path / "none")
    with pytest.raises(VmError, match=r"no guest is up; try: \./dev vm up"):
        room.command("true")


def test_a_pid_that_is_somebody_elses_by_now_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PID", tmp_path / "pid")
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        birth = int(Path(f"/proc/{parent.pid}/stat").read_text().rpartition(")")[2].split()[19])
        room.PID.write_text(f"{parent.pid} {birth}")
        found = room.first_process()
        room.PID.write_text(f"{parent.pid} {birth - 1}")
        found_later = room.first_process()
        os.kill(child, signal.SIGKILL)
    assert (found, found_later) == (child, None)


def test_a_guest_that_is_not_up_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "STATE", tmp_path)
    with pytest.raises(VmError, match=r"6\.12 isn't up; try: \./dev vm up 6\.12"):
        machine.ssh(GUESTS["6.12"], "true")


def test_the_suite_tells_a_guest_who_it_is() -> None:
    whole, some = suites.line(GUESTS["6.1"]), suites.line(GUESTS["6.1"], ["-k", "a b"])
    assert "sudo HOSTWARDEN_GUEST=6.1 .venv/bin/pytest" in whole
    assert whole.endswith(" tests/guest")
    assert some.endswith(" -k 'a b'")
