"""Functions and callbacks are put behind the program that names them, and found from where they are named."""

import re
import struct
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from hostwarden.probes import bpf, link, programs, source
from hostwarden.probes.link import (
    CALL,
    CALL_STAND_IN,
    INSTRUCTION,
    LOAD_64,
    MOVE,
    PSEUDO_CALL,
    PSEUDO_FUNC,
    STAND_IN,
    LinkError,
)

FUNCTION, OTHER_FUNCTION = programs.FUNCTIONS[:2]
CALLBACK, OTHER_CALLBACK = programs.CALLBACKS[:2]
EXIT = INSTRUCTION.pack(0x95, 0, 0, 0)
NOTHING = INSTRUCTION.pack(0xB7, 0, 0, 0)  # r0 = 0
CONTEXT = INSTRUCTION.pack(MOVE, 2 << 4 | 6, 0, 0)  # r6 = r2
HELPER = INSTRUCTION.pack(CALL, 0, 0, 181)  # bpf_loop
R1, R2 = 1, 2


def call(name: str) -> bytes:
    """As the compiler leaves it: a helper that there isn't."""
    return INSTRUCTION.pack(CALL, 0, 0, CALL_STAND_IN + programs.FUNCTIONS.index(name))


def load(register: int, low: int, high: int) -> bytes:
    """register = a number of 64 bits."""
    return INSTRUCTION.pack(LOAD_64, register, 0, low) + INSTRUCTION.pack(0, 0, 0, high)


def callback(name: str, register: int = R2) -> bytes:
    """A callback's number is loaded."""
    return load(register, programs.CALLBACKS.index(name), STAND_IN)


def linked(program: bytes, code: Mapping[str, bytes] = MappingProxyType({})) -> link.Linked:
    """A program and the functions that there are."""
    return link.link("program", {"program": program, **code}.__getitem__)


def instructions(made: link.Linked) -> list[tuple[int, int, int, int]]:
    """Opcode, registers, offset and immediate of each."""
    return list(INSTRUCTION.iter_unpack(made.instructions))


def test_a_program_that_names_nothing_stays_as_it_is() -> None:
    made = linked(NOTHING + EXIT)
    assert made == link.Linked(NOTHING + EXIT, ((0, "program"),))


def test_a_call_leads_to_the_function() -> None:
    made = linked(NOTHING + call(FUNCTION) + EXIT, {FUNCTION: NOTHING + EXIT})
    assert made.functions == ((0, "program"), (3, FUNCTION))
    assert instructions(made)[1] == (CALL, PSEUDO_CALL, 0, 3 - 2)  # counted from the instruction after it
    assert made.instructions[24:] == NOTHING + EXIT


def test_a_callback_is_a_distance_in_the_same_register() -> None:
    code = {CALLBACK: CONTEXT + NOTHING + EXIT}
    made = linked(NOTHING + callback(CALLBACK, R2) + HELPER + EXIT, code)
    assert made.functions == ((0, "program"), (5, CALLBACK))
    assert instructions(made)[1:3] == [(LOAD_64, PSEUDO_FUNC | R2, 0, 5 - 2), (0, 0, 0, 0)]
    assert instructions(made)[3] == tuple(INSTRUCTION.unpack(HELPER))


def test_what_a_callee_names_is_found_too_and_each_is_there_once() -> None:
    made = linked(
        call(FUNCTION) + call(OTHER_FUNCTION) + EXIT,
        {
            FUNCTION: callback(CALLBACK) + call(OTHER_FUNCTION) + EXIT,
            OTHER_FUNCTION: callback(CALLBACK, R1) + EXIT,
            CALLBACK: CONTEXT + callback(OTHER_CALLBACK) + EXIT,
            OTHER_CALLBACK: CONTEXT + EXIT,
        },
    )
    assert made.functions == (
        (0, "program"),
        (3, FUNCTION),
        (7, OTHER_FUNCTION),
        (10, CALLBACK),
        (14, OTHER_CALLBACK),
    )
    places = {name: place for place, name in made.functions}
    assert leads_to(made) == {
        0: places[FUNCTION],
        1: places[OTHER_FUNCTION],
        3: places[CALLBACK],
        5: places[OTHER_FUNCTION],
        7: places[CALLBACK],
        11: places[OTHER_CALLBACK],
    }


def leads_to(made: link.Linked) -> dict[int, int]:
    """Instruction that names another → the one that it names."""
    found = {}
    for at, (opcode, registers, _, immediate) in enumerate(instructions(made)):
        if (opcode, registers) == (CALL, PSEUDO_CALL) or (opcode, registers & 0xF0) == (LOAD_64, PSEUDO_FUNC):
            found[at] = at + 1 + immediate
    return found


@pytest.mark.parametrize(
    "harmless",
    [
        HELPER,
        INSTRUCTION.pack(CALL, 2 << 4, 0, CALL_STAND_IN),  # a kfunc's
        INSTRUCTION.pack(CALL, 0, 0, CALL_STAND_IN + len(programs.FUNCTIONS)),
        load(1, 3, 0),
        load(1 | 1 << 4, 0, STAND_IN),  # a map
        load(1, 7, STAND_IN + 1),
        INSTRUCTION.pack(LOAD_64, 1, 0, 5) + INSTRUCTION.pack(CALL, 0, 0, CALL_STAND_IN),  # a number's upper half
    ],
)
def test_what_only_looks_like_a_name_stays(harmless: bytes) -> None:
    made = linked(harmless + EXIT)
    assert made == link.Linked(harmless + EXIT, ((0, "program"),))


BEFORE = [NOTHING, INSTRUCTION.pack(0xBF, 1 << 4 | 3, 0, 0), INSTRUCTION.pack(0x7B, 1 << 4 | 10, -8, 0)]


@pytest.mark.parametrize("count", range(len(BEFORE) + 1))
def test_a_context_may_be_fetched_after_what_spares_it(count: int) -> None:
    code = b"".join(BEFORE[:count]) + CONTEXT + EXIT
    made = linked(callback(CALLBACK) + EXIT, {CALLBACK: code})
    assert made.instructions.endswith(code)


@pytest.mark.parametrize(
    "code",
    [
        EXIT,
        NOTHING + EXIT,
        INSTRUCTION.pack(0xB7, R2, 0, 0) + CONTEXT + EXIT,  # r2 = 0
        load(R2, 1, 0) + CONTEXT + EXIT,
        callback(OTHER_CALLBACK, R2) + CONTEXT + EXIT,
        INSTRUCTION.pack(0x79, 1 << 4 | R2, 0, 0) + CONTEXT + EXIT,  # r2 = *(u64 *)r1
        HELPER + CONTEXT + EXIT,  # whatever is called may write there
        NOTHING * link.CONTEXT_WITHIN + CONTEXT + EXIT,
    ],
)
def test_a_callback_that_loses_its_context_is_an_error(code: bytes) -> None:
    with pytest.raises(LinkError, match=CALLBACK):
        linked(callback(CALLBACK) + EXIT, {CALLBACK: code, OTHER_CALLBACK: CONTEXT + EXIT})


def test_a_function_has_no_context_to_lose() -> None:
    made = linked(call(FUNCTION) + EXIT, {FUNCTION: load(R2, 1, 0) + EXIT})
    assert len(made.functions) == 2


def test_numbers_are_given_to_all() -> None:
    flags = link.defines()
    assert flags["CALLBACK_STAND_IN"] == STAND_IN
    assert {flags[f"CALLBACK_{name}"] for name in programs.CALLBACKS} == set(range(len(programs.CALLBACKS)))
    numbers = [flags[f"CALL_{name}"] for name in programs.FUNCTIONS]
    assert numbers == list(range(CALL_STAND_IN, CALL_STAND_IN + len(numbers)))
    assert max(numbers) < STAND_IN <= 0x7FFFFFFF  # kfuncs.py has a stand-in of its own


@pytest.mark.parametrize("name", [*programs.CALLBACKS, *programs.FUNCTIONS])
def test_each_is_in_the_c_and_used_there(name: str) -> None:
    text = source.text()
    assert len(re.findall(rf"^int {name}\(u64 \w+\)", text, flags=re.M)) == 1
    assert re.search(rf"\bLOOP\([^;]*\b{name},|\bCALL\({name},", text)


def test_every_part_is_named_in_the_btf(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[bytes] = []

    def load(raw: bytes) -> int:
        loaded.append(raw)
        return 7

    monkeypatch.setattr(bpf, "btf_load", load)
    made = link.Linked(EXIT * 3, ((0, "program"), (1, "one"), (2, "two")))
    assert link.btf_of(made) == 7
    (raw,) = loaded
    magic, version, _, head, types_at, types, strings_at, strings = link.BTF_HEADER.unpack_from(raw)
    assert (magic, version, head, types_at, strings_at) == (link.BTF_MAGIC, 1, link.BTF_HEADER.size, 0, types)
    assert len(raw) == head + types + strings
    names = raw[head + types :]
    kinds = list(struct.iter_unpack("<III", raw[head + 16 + 12 : head + types]))  # after the int and the prototype
    assert [names[name : names.index(b"\0", name)] for name, _, _ in kinds] == [b"program", b"one", b"two"]
    assert {(kind, of) for _, kind, of in kinds} == {(link.KIND_FUNC, 2)}
    assert link.FIRST_FUNC == 3
