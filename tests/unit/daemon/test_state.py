"""What survives a restart: written whole or not at all, and never taken for empty when it can't be read."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.daemon.state import StartedAgent, State, StateError, load, save

FULL = State(
    blocked=({"team": "billing"}, {"stage": "*", "a/b": "c"}),
    armed=False,
    agents=(StartedAgent(slot=3, incarnation=7, name="billing", labels={"team": "billing"}),),
    generation=41,
    instance="0123abcd",
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_missing_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path) == State() == State(armed=True, blocked=())


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(GOOD)
    (tmp_path / "state.json").chmod(0o600)
    assert load(tmp_path) == FULL
    save(tmp_path, State(generation=1))
    (tmp_path / "state.json.new").write_text("left by a crash")
    save(tmp_path, FULL)
    assert load(tmp_path) == FULL
    assert os.listdir(tmp_path) == ["state.json"]
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    assert orjson.loads((tmp_path / "state.json").read_bytes())["version"] == 1


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "state.json.new").symlink_to(victim)
    save(tmp_path, FULL)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "state.json").is_symlink()


STATE = FULL.model_dump_json()
GOOD = f'{{"version":1,"sha256":"{hashlib.sha256(STATE.encode()).hexdigest()}","state":{STATE}}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "corrupted ('the file': Invalid JSON: EOF"),
        (GOOD[:-10], "corrupted ('the file': Invalid JSON: EOF"),
        ("[]", "corrupted ('the file': "),
        ("{}", "corrupted ('version': Field required)"),
        (
            GOOD.replace('"version":1', '"version":2'),
            "version 2, this hostwardend reads 1: start the one that wrote it",
        ),
        (GOOD.replace('"armed"', '"armde"'), "corrupted ('state.armde': Extra inputs are not permitted)"),
        (GOOD.replace('"armed":false', '"armed":0'), "corrupted ('state.armed': Input should be a valid boolean)"),
        (
            GOOD.replace('"team":"billing"', '"team":1', 1),
            "corrupted ('state.blocked.0.team': Input should be a valid string)",
        ),
        (
            GOOD.replace('"slot":3', '"slot":-3'),
            "corrupted ('state.agents.0.slot': Input should be greater than or equal to 0)",
        ),
        (GOOD.replace('"armed"', '"\\u001b[2J"'), "corrupted ('state.\\x1b[2J': Extra inputs are not permitted)"),
        (GOOD.replace("billing", "bilking", 1), "corrupted (its digest doesn't fit what it says)"),
        (GOOD.replace('"sha256"', '"sha265"'), "corrupted ('sha256': Field required)"),
        ('{"version":1,' + " " * (8 << 20) + '"armed":false}', "longer than 8388608 bytes, expected a smaller file"),
    ],
)
def test_corrupted_is_one_line_and_never_the_defaults(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(StateError) as caught:
        load(tmp_path)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}/state.json: {message}")
    assert line.isprintable()
    assert "version 2" in line or "restore it from a copy, or move it away" in line


def test_what_others_could_have_written_is_not_believed(tmp_path: Path) -> None:
    save(tmp_path, FULL)
    file = tmp_path / "state.json"
    file.chmod(0o620)
    with pytest.raises(StateError, match="others may write it"):
        load(tmp_path)
    file.chmod(0o600)
    os.chown(file, 65534, 0)
    with pytest.raises(StateError, match="others may write it"):
        load(tmp_path)
    file.unlink()
    file.symlink_to("nowhere")
    with pytest.raises(StateError, match="No such file or directory, expected a file that can be read; restore it"):
        load(tmp_path)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(StateError, match="not a regular file, expected one; restore it"):
        load(tmp_path)


def test_a_full_disk_leaves_what_was(small_disk: Path) -> None:
    save(small_disk, FULL)
    blocked = tuple({"team": f"t{i:060}"} for i in range(1000))
    with pytest.raises(StateError) as caught:
        save(small_disk, State(blocked=blocked))
    file = small_disk / "state.json"
    assert str(caught.value) == (f"{file}: can't be written: No space left on device; what it said before still holds")
    assert load(small_disk) == FULL
    assert os.listdir(small_disk) == ["state.json"]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="can't be written: No such file or directory"):
        save(tmp_path / "none", FULL)


TEXT = st.text(max_size=20)
STATES = st.builds(
    State,
    blocked=st.lists(st.dictionaries(TEXT, TEXT, max_size=3), max_size=5).map(tuple),
    armed=st.booleans(),
    agents=st.lists(
        st.builds(
            StartedAgent,
            slot=st.integers(0, 1023),
            incarnation=st.integers(0, (1 << 32) - 1),
            name=st.text(min_size=1, max_size=64),
            labels=st.dictionaries(TEXT, TEXT, max_size=3),
        ),
        max_size=4,
    ).map(tuple),
    generation=st.integers(0, (1 << 32) - 1),
)


@given(STATES)
def test_every_state_comes_back(tmp_path_factory: pytest.TempPathFactory, state: State) -> None:
    save(tmp_path_factory.getbasetemp(), state)
    assert load(tmp_path_factory.getbasetemp()) == state


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_changed_byte_is_an_error_or_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    data = bytearray(GOOD.encode())
    data[at] = byte
    file = tmp_path_factory.getbasetemp() / "state.json"
    file.write_bytes(data)
    file.chmod(0o600)
    try:
        assert load(file.parent) == FULL
    except StateError as error:
        assert str(error).isprintable()
