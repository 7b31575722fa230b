"""./dev demo as a person runs it: it says that all is as said, looks well, takes less than a minute, leaves nothing."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.demo.scenes import SCENES
from tests.demo.warden import cgroup_root

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "tests.demo.main"]
TITLES = [*(title for title, _ in SCENES), "Killed by label", "The log proves itself"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for the demo's own, short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="hw-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def play(place: Path, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, *COMMAND, *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(place)}, capture_output=True, text=True)


def left_behind(place: Path) -> list[str]:
    """Files, cgroups, mounts and processes of a demo that had ``place`` as its folder."""
    found = [str(path) for path in place.iterdir()]
    found += map(str, (cgroup_root() / "hostwarden").glob("billing-*"))
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {place}/" in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            about = os.readlink(process / "cwd") + (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if str(place) in about:
            found.append(about)
    return found


def test_demo_shows_what_it_says(place: Path) -> None:
    began = time.monotonic()
    done = play(place)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert time.monotonic() - began < 60
    assert "NOT SO" not in done.stdout
    assert [title for title in TITLES if f". {title} -" not in done.stdout] == []
    assert max(map(len, done.stdout.splitlines())) < 80
    assert "\033" not in done.stdout
    assert "scripted" in done.stdout
    assert left_behind(place) == []


def test_demo_that_only_watches_sees_the_harm(place: Path) -> None:
    """With the policy in observe mode everything happens, and the demo's facts say so: they can fail."""
    done = play(place, "--observe")
    failures = " ".join(done.stdout.rpartition("The end")[2].split())
    assert done.returncode == 1
    for harm in (
        "bytes of the key that the agent or its model got",
        "bytes that arrived",
        "is no longer",
        "got through",
    ):
        assert harm in failures
    assert left_behind(place) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_interrupted_leaves_nothing(place: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        COMMAND, cwd=ROOT, env={**os.environ, "TMPDIR": str(place)}, stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "the child runs on" in line:
                demo.send_signal(number)
                break
        demo.stdout.read()
        assert demo.wait(60) != 0
    assert left_behind(place) == []


def test_kernel_that_cannot_is_one_sentence(place: Path) -> None:
    """A kernel without BTF, as far as this mount namespace shows: the demo says what hostwardend said."""
    hide_btf = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$@"', "sh"]
    done = play(place, prefix=hide_btf)
    end = " ".join(done.stdout.rpartition("The end")[2].split())
    assert (done.returncode, done.stderr) == (1, ""), done.stdout
    assert "hostwardend can't run here: no BTF" in end
    assert end.count("NOT SO") == 1
    assert left_behind(place) == []
