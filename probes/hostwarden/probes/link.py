"""Functions of a program, and loops whose turns the verifier looks at once (bpf_loop's callbacks).

bcc 0.26 can neither call nor point at a function: in the C a number stands in for each (quirks.h, CALL and CALLBACK).
Here each function that a program names is put behind its instructions, and its place into the instruction that named it
(`src_reg` 1, BPF_PSEUDO_CALL; 4, BPF_PSEUDO_FUNC). The kernel wants a BTF that names the parts; its content doesn't
matter to anybody else. Sources: include/uapi/linux/bpf.h, include/uapi/linux/btf.h.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from hostwarden.probes import bpf
from hostwarden.probes.programs import CALLBACKS, FUNCTIONS

INSTRUCTION = struct.Struct("<BBhi")  # opcode, registers (source in the upper half), offset, immediate
LOAD_64 = 0x18
MOVE, R2 = 0xBF, 2
PSEUDO_CALL, PSEUDO_FUNC = 1 << 4, 4 << 4
CALL = 0x85
STAND_IN = 0x7FFF0001  # upper word of a callback's number
CALL_STAND_IN = 0x7FFE0000  # the first function's; no helper has such numbers
CONTEXT_WITHIN = 8  # instructions in which a callback fetches its context

BTF_MAGIC, BTF_HEADER = 0xEB9F, struct.Struct("<HBBIIIII")
KIND_INT, KIND_FUNC, KIND_FUNC_PROTO = 1 << 24, 12 << 24, 13 << 24
FIRST_FUNC = 3  # type ids: 1 the int, 2 the prototype, then the functions


class LinkError(Exception):
    """A callback isn't as bpf_loop needs it: a mistake in the C."""


@dataclass(frozen=True)
class Linked:
    """``functions``: where each part begins, in instructions, and its name: the program's own first."""

    instructions: bytes
    functions: tuple[tuple[int, str], ...]


def defines() -> dict[str, int]:
    """-D flags: a number for each callback and function."""
    callbacks = {f"CALLBACK_{name}": number for number, name in enumerate(CALLBACKS)}
    functions = {f"CALL_{name}": CALL_STAND_IN + number for number, name in enumerate(FUNCTIONS)}
    return {"CALLBACK_STAND_IN": STAND_IN} | callbacks | functions


def link(name: str, compiled: Callable[[str], bytes]) -> Linked:
    """The program ``name`` with all that it, or what it calls, names. ``compiled`` gives instructions by name."""
    text = bytearray()
    places: dict[str, int] = {}
    names = [name]
    for part in names:  # grows: functions name functions
        code = compiled(part)
        if part in CALLBACKS:
            _check_context(part, code)
        places[part] = len(text) // INSTRUCTION.size
        names += [callee for callee in dict.fromkeys(callee for _, callee in _sites(code)) if callee not in names]
        text += code
    for at, callee in _sites(text):
        opcode, registers, offset, _ = INSTRUCTION.unpack_from(text, at)
        distance = places[callee] - at // INSTRUCTION.size - 1
        if opcode == CALL:
            INSTRUCTION.pack_into(text, at, CALL, PSEUDO_CALL, 0, distance)
            continue
        INSTRUCTION.pack_into(text, at, LOAD_64, registers & 15 | PSEUDO_FUNC, offset, distance)
        INSTRUCTION.pack_into(text, at + INSTRUCTION.size, 0, 0, 0, 0)
    return Linked(bytes(text), tuple((place, part) for part, place in places.items()))


def btf_of(linked: Linked) -> int:
    """A BTF with a function for each part, loaded; its descriptor. Type ids are FIRST_FUNC and on, in their order."""
    names = ["u64", *(name for _, name in linked.functions)]
    strings, offsets = bytearray(b"\0"), []
    for name in names:
        offsets.append(len(strings))
        strings += name.encode() + b"\0"
    types = struct.pack("<IIII", offsets[0], KIND_INT, 8, 64) + struct.pack("<III", 0, KIND_FUNC_PROTO, 1)
    types += b"".join(struct.pack("<III", offset, KIND_FUNC, 2) for offset in offsets[1:])
    header = BTF_HEADER.pack(BTF_MAGIC, 1, 0, BTF_HEADER.size, 0, len(types), len(types), len(strings))
    return bpf.btf_load(header + types + strings)


def _sites(code: bytes | bytearray) -> list[tuple[int, str]]:
    """Where a stand-in is loaded or called, and for which function."""
    found, at = [], 0
    while at < len(code):
        opcode, registers, _, low = INSTRUCTION.unpack_from(code, at)
        if opcode == CALL and registers == 0 and CALL_STAND_IN <= low < CALL_STAND_IN + len(FUNCTIONS):
            found.append((at, FUNCTIONS[low - CALL_STAND_IN]))
        elif opcode == LOAD_64:
            high = INSTRUCTION.unpack_from(code, at + INSTRUCTION.size)[3]
            if registers >> 4 == 0 and high == STAND_IN:
                found.append((at, CALLBACKS[low]))
            at += INSTRUCTION.size
        at += INSTRUCTION.size
    return found


def _check_context(name: str, code: bytes) -> None:
    """The compiler knows nothing of the context in r2: it must be fetched before anything writes there."""
    for at in range(0, min(len(code), CONTEXT_WITHIN * INSTRUCTION.size), INSTRUCTION.size):
        opcode, registers, _, _ = INSTRUCTION.unpack_from(code, at)
        if opcode == MOVE and registers >> 4 == R2:
            return
        if registers & 15 == R2 or opcode == CALL:
            break
    raise LinkError(f"the callback {name} loses its context before it fetches it")
