"""Functions of the kernel that programs may call by name (kfuncs): bcc 0.26 knows none, so a number stands in for each.

The compiler is given a helper number that no helper has; before loading, each such call becomes a call of the kfunc
(src_reg 2, the BTF id of the function). Source: include/uapi/linux/bpf.h, BPF_PSEUDO_KFUNC_CALL.
"""

import ctypes
import struct
from functools import cache
from pathlib import Path

from hostwarden.probes.headers import BTF

INSTRUCTION = struct.Struct("<BBhi")  # opcode, registers, offset, immediate
CALL = 0x85
PSEUDO_KFUNC = 2 << 4  # src_reg is the upper half of the registers
STAND_IN = 0x7FFF0001
KIND_STRUCT, KIND_FUNC = 4, 12  # include/uapi/linux/btf.h
STRUCTS = ("file", "dentry", "mount")  # that TYPED is asked for


@cache
def type_id(name: str, kind: int, btf: Path = BTF) -> int:
    """A kernel's BTF id of a type or function, by default the running one's; 0 or less where it has none."""
    library, types = _btf(btf)
    number: int = library.btf__find_by_name_kind(types, name.encode(), kind)
    return number


@cache
def _btf(path: Path) -> tuple[ctypes.CDLL, ctypes.c_void_p]:
    library = ctypes.CDLL("libbpf.so.1")
    library.btf__parse_raw.restype = ctypes.c_void_p
    library.btf__parse_raw.argtypes = [ctypes.c_char_p]
    library.btf__find_by_name_kind.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint]
    return library, ctypes.c_void_p(library.btf__parse_raw(bytes(path)))


class _Type(ctypes.Structure):
    """struct btf_type, of include/uapi/linux/btf.h."""

    _fields_ = [("name", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size_or_type", ctypes.c_uint32)]


def parameters(function: str, btf: Path = BTF) -> int:
    """How many parameters a function of the kernel has; 0 if there is none of that name."""
    library, types = _btf(btf)
    library.btf__type_by_id.restype = ctypes.POINTER(_Type)
    library.btf__type_by_id.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    number = type_id(function, KIND_FUNC, btf)
    if number <= 0:
        return 0
    prototype = library.btf__type_by_id(types, library.btf__type_by_id(types, number).contents.size_or_type)
    return int(prototype.contents.info) & 0xFFFF


def defines(btf: Path = BTF) -> dict[str, int]:
    """-D flags: the stand-in, and the ids of the structs; nothing on a kernel without the kfunc (before 6.2)."""
    ids = {f"BTF_{name}": type_id(name, KIND_STRUCT, btf) for name in STRUCTS}
    if type_id("bpf_rdonly_cast", KIND_FUNC, btf) <= 0 or min(ids.values()) <= 0:
        return {}
    return {"KFUNC_CAST": STAND_IN, **ids}


def bind(instructions: bytes) -> bytes:
    """The program with every stand-in call bound to the kernel's function."""
    bound = bytearray(instructions)
    for at in range(0, len(bound), INSTRUCTION.size):
        opcode, registers, _, immediate = INSTRUCTION.unpack_from(bound, at)
        if opcode == CALL and registers == 0 and immediate == STAND_IN:
            INSTRUCTION.pack_into(bound, at, CALL, PSEUDO_KFUNC, 0, type_id("bpf_rdonly_cast", KIND_FUNC))
    return bytes(bound)
