"""./dev where nothing has to be installed: usage, exit codes, one-line errors, and what the lock pins."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def dev(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "dev", *arguments], capture_output=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["package"], 2, "dev: package isn't in this version yet"),
        (["vm", "fly"], 2, "guests: 6.1 6.12 6.12-nolsm (vagrant/README.md); without GUEST: all of them"),
        (["fly"], 2, "dev: no command fly"),
    ],
)
def test_errors(arguments: list[str], code: int, message: str) -> None:
    done = dev(*arguments)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (code, message)
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["test", "demo", "bench"])
def test_not_root_is_one_line(command: str, tmp_path: Path) -> None:
    """Run as nobody from a copy, since nobody may not enter the folders of whoever runs the tests."""
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder.name.startswith(("pytest-", "popen-")):  # pytest's own, one more under xdist
            folder.chmod(0o755)
    script = tmp_path / "dev"
    script.write_bytes((ROOT / "dev").read_bytes())
    script.chmod(0o755)
    done = subprocess.run([script, command], capture_output=True, text=True, user=65534, group=65534, extra_groups=[])
    assert done.returncode == 1
    assert (
        done.stderr == f"dev: {command} needs root, for it loads programs into the kernel; try: sudo ./dev {command}\n"
    )


def test_no_apt_is_one_line(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "readlink", "dirname", "flock"):
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    done = dev("setup", env={"PATH": os.fspath(tools)})
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("dev: no apt here")


def test_set_up_again_does_nothing() -> None:
    stamp = ROOT / ".venv" / "installed"
    before = stamp.stat().st_mtime_ns if stamp.exists() else None
    if before is None:
        pytest.fail("the suites are run by ./dev test, or after ./dev setup")
    done = dev("setup")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stamp.stat().st_mtime_ns == before


def test_lock_pins_every_dependency_and_names_no_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    pinned = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines}
    names = {re.sub(r"[-_.]+", "-", re.split(r"[<>=! ]", text)[0]).lower() for text in wanted}
    assert names - pinned == set()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!+]+", line)] == []
