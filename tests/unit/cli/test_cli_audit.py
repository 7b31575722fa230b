"""audit verify: 0 as written, 1 changed and which record, 2 no such log; without a daemon."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hostwarden.records.key import load_or_create
from hostwarden.records.writer import LogWriter

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Cli, Daemon


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state_dir with twelve records, all signed, in one segment."""
    state_dir = tmp_path_factory.mktemp("state")
    writer = LogWriter(state_dir, load_or_create(state_dir))
    writer.open()
    writer.append([b'{"time":"2026-11-24T07:20:00.%09dZ","action":"read"}' % n for n in range(12)])
    writer.sync(0.0)
    writer.close()
    return state_dir


@pytest.fixture
def state(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "state"))


def flip(state: Path, record: int) -> None:
    """Changes one byte of a record."""
    [segment] = sorted((state / "log").glob("*.seg"))
    lines = segment.read_bytes().splitlines(keepends=True)
    found = next(n for n, line in enumerate(lines) if line.startswith(b'{"sequence":%d,' % record))
    lines[found] = lines[found].replace(b'"read"', b'"reae"')
    segment.write_bytes(b"".join(lines))


def test_a_log_as_it_was_written(cli: Cli, state: Path) -> None:
    done = cli("audit", "verify", str(state))
    assert (done.code, done.err) == (0, "")
    first, second, third = done.text.splitlines()
    assert first == "12 records in 1 segment, 1 to 12: as it was written"
    assert second.startswith("signed up to record 12 by ")
    assert third.startswith("checked with the key ")
    shown = cli("audit", "verify", str(state), "--json").object
    assert (shown["ok"], shown["records"], shown["signed"], shown["problems"]) == (True, 12, 12, [])
    assert len(shown["root"]) == 64 and len(shown["fingerprint"]) == 32


def test_the_log_folder_will_do(cli: Cli, state: Path) -> None:
    assert cli("audit", "verify", str(state / "log")).code == 0


def test_the_record_that_was_changed_is_named(cli: Cli, state: Path) -> None:
    flip(state, 7)
    done = cli("audit", "verify", str(state))
    assert (done.code, done.err) == (1, "")
    assert done.text.startswith("record 7: 00000000000000000001.seg: byte ")
    assert "NOT as it was written" in done.text
    done = cli("audit", "verify", str(state), "--json")
    assert (done.code, done.object["ok"]) == (1, False)
    problem = done.object["problems"][0]
    assert (problem["sequence"], problem["file"]) == (7, "00000000000000000001.seg")


def test_a_key_of_ones_own(cli: Cli, state: Path, tmp_path: Path) -> None:
    key = tmp_path / "kept.pub"
    (state / "log.pub").rename(key)
    done = cli("audit", "verify", str(state))
    assert done.code == 1 and "no signature was checked" in done.text
    assert cli("audit", "verify", str(state), "--key", str(key)).code == 0
    (tmp_path / "other").mkdir()
    load_or_create(tmp_path / "other")
    done = cli("audit", "verify", str(state), "--key", str(tmp_path / "other" / "log.pub"))
    assert done.code == 1


@pytest.mark.parametrize("name", ["none", "empty", "file", "x\x1b[2J"])
def test_no_such_log_is_exit_2(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    done = cli("audit", "verify", str(tmp_path / name))
    assert done.code == 2
    message, hint = done.error
    assert hint and message.isprintable()
    done = cli("audit", "verify", str(tmp_path / name), "--json")
    assert (done.code, done.out) == (2, b"")


@pytest.mark.parametrize("text", [None, b"nonsense", b"\xff"])
def test_no_such_key_is_exit_2(cli: Cli, state: Path, tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "k").write_bytes(text)
    done = cli("audit", "verify", str(state), "--key", str(tmp_path / "k"))
    assert done.code == 2 and "log.pub" in done.error[1]


def test_the_running_daemons_log_is_the_default(cli: Cli, daemon: Daemon, state: Path) -> None:
    daemon.status_json = {"state_dir": str(state)}
    assert cli("audit", "verify").text.startswith("12 records")


def test_a_daemon_that_does_not_say(cli: Cli, daemon: Daemon) -> None:
    done = cli("audit", "verify")
    assert (done.code, done.error[1]) == (2, "name its state_dir")


def test_no_daemon_to_ask_is_exit_3(cli: Cli) -> None:
    assert cli("audit", "verify").code == 3


def test_a_long_log_shows_how_far_it_is(cli: Cli, tmp_path: Path) -> None:
    state = tmp_path / "long"
    state.mkdir()
    writer = LogWriter(state, load_or_create(state))
    writer.open()
    writer.append([b'{"target":"%s"}' % (b"x" * 100_000)] * 100)
    writer.sync(0.0)
    writer.close()
    shown = cli.on_terminal("audit", "verify", str(state))
    assert shown.code == 0
    assert b"verifying" in shown.out and b"as it was written" in shown.out
    assert b"verifying" not in cli.on_terminal("audit", "verify", str(state), "--json").out
