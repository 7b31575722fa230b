"""What a kernel's types say of its functions, from a BTF that is made here."""

import struct
from pathlib import Path

import pytest

from hostwarden.probes import kfuncs
from hostwarden.probes.kfuncs import CALL, INSTRUCTION, KIND_FUNC, KIND_STRUCT, STAND_IN, STRUCTS

INT, PROTO = 1, 13  # include/uapi/linux/btf.h
FUNCTIONS = {"bpf_rdonly_cast": 2, "bpf_lsm_inode_setattr": 3, "nothing": 0}


def btf(path: Path, functions: dict[str, int], structs: tuple[str, ...] = STRUCTS) -> Path:
    """A file of raw BTF: an int, these functions with so many parameters, and empty structs."""
    strings = bytearray(b"\0")

    def named(name: str) -> int:
        strings.extend(name.encode() + b"\0")
        return len(strings) - len(name) - 1

    types = struct.pack("<IIII", named("int"), INT << 24, 4, 32)
    for number, (name, count) in enumerate(functions.items()):
        types += struct.pack("<III", 0, PROTO << 24 | count, 1)
        types += b"".join(struct.pack("<II", named(f"p{n}"), 1) for n in range(count))
        types += struct.pack("<III", named(name), KIND_FUNC << 24, 2 + 2 * number)
    types += b"".join(struct.pack("<III", named(name), KIND_STRUCT << 24, 0) for name in structs)
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    path.write_bytes(head + types + bytes(strings))
    return path


@pytest.mark.parametrize(("name", "count"), [*FUNCTIONS.items(), ("no_such_function", 0), ("int", 0)])
def test_parameters_are_counted(tmp_path: Path, name: str, count: int) -> None:
    assert kfuncs.parameters(name, btf(tmp_path / "btf", FUNCTIONS)) == count


def test_flags_name_the_structs_of_that_kernel(tmp_path: Path) -> None:
    flags = kfuncs.defines(btf(tmp_path / "btf", FUNCTIONS))
    first = 2 + 2 * len(FUNCTIONS)
    assert flags == {"KFUNC_CAST": STAND_IN} | {f"BTF_{name}": first + n for n, name in enumerate(STRUCTS)}


@pytest.mark.parametrize(
    ("functions", "structs"),
    [({}, STRUCTS), ({"bpf_rdonly_cast": 2}, STRUCTS[1:]), ({"bpf_rdonly_cast": 2}, ())],
)
def test_a_kernel_without_the_kfunc_or_a_struct_gets_no_flags(
    tmp_path: Path, functions: dict[str, int], structs: tuple[str, ...]
) -> None:
    assert kfuncs.defines(btf(tmp_path / "btf", functions, structs)) == {}


def test_only_stand_ins_are_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kfuncs, "type_id", lambda name, kind: 4711)
    helper, call = INSTRUCTION.pack(CALL, 0, 0, 1), INSTRUCTION.pack(CALL, 0, 0, STAND_IN)
    bound = kfuncs.bind(helper + call + helper)
    assert bound == helper + INSTRUCTION.pack(CALL, kfuncs.PSEUDO_KFUNC, 0, 4711) + helper
