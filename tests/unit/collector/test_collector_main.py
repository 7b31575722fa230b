"""The program: start, stop, exit codes, one line for each error, and who may connect."""

import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534


def _fails(collector: Any) -> tuple[int, list[str]]:
    process = collector.spawn()
    code = process.wait(20)
    return code, collector.stderr.splitlines()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_start_and_stop(collector: Any, how: int) -> None:
    collector.start()
    path = Path(collector.address.removeprefix("unix:"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_IMODE(collector.database.stat().st_mode) == 0o600
    assert stat.S_IMODE(collector.database.parent.stat().st_mode) & 0o027 == 0
    assert collector.end(how) == 0
    assert not path.exists()
    assert not Path(f"{collector.database}-wal").exists()
    assert "Traceback" not in collector.stderr


def test_ready_and_stopping_are_told_to_systemd(
    collector: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        collector.spawn()
        assert manager.recv(100) == b"READY=1"
        with collector.client() as client:
            assert client.status().ready
        collector.end()
        assert manager.recv(100) == b"STOPPING=1"


def test_invalid_configuration(collector: Any) -> None:
    collector.config.write_text('[collector]\nlisten = 1\nstore = "x"\n')
    code, lines = _fails(collector)
    assert code == 2
    assert lines == [
        f"{collector.config}: collector.listen: Input should be a valid string",
        f'{collector.config}: collector.store: must be "sqlite:////path", with an absolute path',
    ]


def test_usage() -> None:
    done = subprocess.run([sys.executable, "-m", "hostwarden.collector.main", "--nope"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage: hostwarden-collector" in done.stderr


def test_a_second_one_on_the_same_socket(collector: Any) -> None:
    first = collector.start().process
    collector.config.write_text(collector.config.read_text().replace("records.db", "other.db"))
    code, lines = _fails(collector)
    assert code == 1
    assert lines[-1].endswith("/run: in use by another running process")
    assert lines[-1].startswith("hostwarden-collector: ")
    assert first.poll() is None
    first.terminate()
    assert first.wait(20) == 0


def test_a_second_one_on_the_same_store(collector: Any) -> None:
    first = collector.start().process
    collector.config.write_text(collector.config.read_text().replace("collector.sock", "other.sock"))
    code, lines = _fails(collector)
    assert code == 1
    assert lines[-1].endswith("records.db: in use by another running collector")
    first.terminate()
    assert first.wait(20) == 0


def test_after_kill_9_it_starts_again(collector: Any) -> None:
    collector.start()
    collector.end(signal.SIGKILL)
    assert Path(collector.address.removeprefix("unix:")).exists()
    collector.start()
    assert collector.end() == 0


def _newer(path: Path) -> None:
    sqlite3.connect(path).execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (
            lambda path: path.write_bytes(b"not a database, and longer than a header of SQLite's is" * 20),
            "not a database",
        ),
        (_newer, "made by a newer hostwarden-collector"),
    ],
)
def test_a_store_that_cannot_be_opened(collector: Any, breaks: Callable[[Path], object], words: str) -> None:
    collector.database.parent.mkdir()
    breaks(collector.database)
    code, lines = _fails(collector)
    assert code == 1
    assert len(lines) == 1
    assert words in lines[0]


def test_a_folder_that_cannot_be_made(collector: Any) -> None:
    collector.database.parent.write_text("a file")
    code, lines = _fails(collector)
    assert (code, len(lines)) == (1, 1)
    assert "File exists" in lines[0] or "Not a directory" in lines[0]


def test_who_is_neither_root_nor_in_the_group_is_turned_away(run_dir: Path, make_collector: Any) -> None:
    collector = make_collector(run_dir).start()
    path = collector.address.removeprefix("unix:")
    Path(path).chmod(0o666)  # a careless hand
    code = """if True:
        import sys
        from hostwarden.wire.client import connect_collector
        from hostwarden.wire.errors import ClientError
        try:
            print(connect_collector("unix:" + sys.argv[1]).status().ready)
        except ClientError as error:
            print(type(error).__name__)
    """
    for groups, answer in (([], "NoDaemon"), ([0], "True")):
        argv = [sys.executable, "-c", code, path]
        done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, user=NOBODY, group=NOBODY, extra_groups=groups)
        assert done.stdout.strip() == answer
