"""What was compiled, kept: maps by name, in a file that only we could have written."""

import os
from pathlib import Path

import pytest

from hostwarden.probes import link, objects, programs
from hostwarden.probes.link import INSTRUCTION, LOAD_64
from hostwarden.probes.objects import PSEUDO_MAP_FD, MapSpec, Object

NOT_BASE_85 = b'{"code": {"f": "no base 85 \\""}, "sites": {}, "maps": {}}'
EXIT = INSTRUCTION.pack(0x95, 0, 0, 0)


def load_map(descriptor: int) -> bytes:
    """r1 = a map."""
    return INSTRUCTION.pack(LOAD_64, PSEUDO_MAP_FD | 1, 0, descriptor) + INSTRUCTION.pack(0, 0, 0, 0)


CODE = load_map(9) + INSTRUCTION.pack(0xB7, 0, 0, 9) + load_map(objects.TABLE_STAND_IN) + EXIT
NAMES = {9: "members", objects.TABLE_STAND_IN: "profiles"}
MADE = Object(
    {"f": CODE, "g": EXIT},
    {"f": objects._sites(CODE, NAMES), "g": ()},
    {"members": MapSpec(29, 4, 40, 0, 1), "processes": MapSpec(1, 4, 40, 131072, 0)},
)


def test_maps_are_named_where_they_are_loaded() -> None:
    assert MADE.sites["f"] == ((0, "members"), (24, "profiles"))


def test_descriptors_are_put_where_maps_are_named_and_nowhere_else() -> None:
    bound = MADE.bound("f", {"members": 33, "profiles": 44})
    assert bound == load_map(33) + INSTRUCTION.pack(0xB7, 0, 0, 9) + load_map(44) + EXIT
    assert MADE.bound("g", {}) == EXIT


def test_what_is_kept_is_what_was_made() -> None:
    assert Object.from_json(MADE.to_json()) == MADE


def test_a_cache_is_read_back(tmp_path: Path) -> None:
    kept = tmp_path / "probes.json"
    objects._write(kept, MADE)
    assert objects._read(kept) == MADE
    assert kept.stat().st_mode & 0o077 == 0
    assert os.listdir(tmp_path) == ["probes.json"]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_others_could_have_written_is_not_taken(tmp_path: Path, mode: int) -> None:
    kept = tmp_path / "probes.json"
    objects._write(kept, MADE)
    kept.chmod(mode)
    assert objects._read(kept) is None


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"null", NOT_BASE_85])
def test_what_is_spoilt_is_not_taken(tmp_path: Path, raw: bytes) -> None:
    kept = tmp_path / "probes.json"
    kept.write_bytes(raw)
    kept.chmod(0o600)
    assert objects._read(kept) is None
    assert objects._read(tmp_path / "nothing") is None


def test_a_cache_that_cant_be_written_costs_nothing_else(tmp_path: Path) -> None:
    objects._write(tmp_path / "nowhere" / "probes.json", MADE)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("tiers", "flags"),
    [
        (("signal", "cgroup"), {"TIER_HOOKS": 5, "TIER_EXEC": 5}),
        (("lsm", "cgroup"), {"TIER_HOOKS": 1, "TIER_EXEC": 1, "REFUSING_TIER": 1}),
        (("modify_return", "cgroup"), {"TIER_HOOKS": 2, "TIER_EXEC": 2, "REFUSING_TIER": 1}),
    ],
)
def test_tiers_choose_what_is_compiled(tiers: tuple[str, ...], flags: dict[str, int]) -> None:
    words = {"TIER_LSM": 1, "TIER_MODIFY_RETURN": 2, "TIER_SIGNAL": 5}
    assert objects.tier_flags(tiers, words) == flags


def test_stand_ins_are_apart() -> None:
    tables = range(objects.TABLE_STAND_IN, objects.TABLE_STAND_IN + len(programs.TABLES))
    assert tables[-1] < link.CALL_STAND_IN < link.STAND_IN
