"""Writing to a map while the kernel says "not at this very moment"; loading a program of several parts."""

import ctypes
import errno
import struct

import pytest

from hostwarden.probes import bpf


@pytest.mark.parametrize("refusals", [0, 1, 3])
def test_a_storage_in_the_making_is_tried_again(monkeypatch: pytest.MonkeyPatch, refusals: int) -> None:
    calls: list[bpf.Command] = []

    def call(command: bpf.Command, attr: bytes, what: str) -> tuple[int, bytes]:
        calls.append(command)
        if len(calls) <= refusals:
            raise OSError(errno.EAGAIN, what)
        return 0, attr

    monkeypatch.setattr(bpf, "call", call)
    bpf.update(3, b"key", b"value")
    assert calls == [bpf.Command.MAP_UPDATE_ELEM] * (refusals + 1)


@pytest.mark.parametrize(("code", "tries"), [(errno.EAGAIN, bpf.UPDATE_TRIES), (errno.E2BIG, 1), (errno.EPERM, 1)])
def test_what_doesnt_pass_is_an_error(monkeypatch: pytest.MonkeyPatch, code: int, tries: int) -> None:
    calls: list[bpf.Command] = []

    def call(command: bpf.Command, attr: bytes, what: str) -> tuple[int, bytes]:
        calls.append(command)
        raise OSError(code, what)

    monkeypatch.setattr(bpf, "call", call)
    with pytest.raises(OSError) as error:
        bpf.update(3, b"key", b"value")
    assert error.value.errno == code and len(calls) == tries


EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)
# of union bpf_attr, BPF_PROG_LOAD (include/uapi/linux/bpf.h)
PROG_TYPE, INSN_CNT, PROG_NAME, PROG_BTF_FD, FUNC_INFO_SIZE, FUNC_INFO, FUNC_INFO_CNT = 0, 4, 48, 72, 76, 80, 88


@pytest.mark.parametrize("parts", [(), ((0, 3),), ((0, 3), (1, 4))])
def test_a_programs_parts_are_told_with_their_types(
    monkeypatch: pytest.MonkeyPatch, parts: tuple[tuple[int, int], ...]
) -> None:
    seen: list[bytes] = []
    told: list[bytes] = []

    def call(command: bpf.Command, attr: bytes, what: str) -> tuple[int, bytes]:
        assert command is bpf.Command.PROG_LOAD
        seen.append(attr)
        address = struct.unpack_from("<Q", attr, FUNC_INFO)[0]
        told.append(ctypes.string_at(address, 8 * len(parts)) if address else b"")
        return 5, attr

    monkeypatch.setattr(bpf, "call", call)
    code = bpf.Code(EXIT * 2, btf=9 if parts else 0, functions=parts)
    assert bpf.prog_load(code, "a_name_of_more_than_15", bpf.ProgramType.LSM, bpf.LSM_MAC, 77) == 5
    (attr,) = seen
    assert struct.unpack_from("<II", attr, PROG_TYPE) == (bpf.ProgramType.LSM, 2)
    assert attr[PROG_NAME : PROG_NAME + 16] == b"a_name_of_more_" + bytes(1)
    assert struct.unpack_from("<II", attr, PROG_BTF_FD) == ((9, 8) if parts else (0, 0))
    assert struct.unpack_from("<I", attr, FUNC_INFO_CNT)[0] == len(parts)
    assert told == [b"".join(struct.pack("<II", *part) for part in parts)]


def test_a_refusal_comes_with_the_verifiers_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def call(command: bpf.Command, attr: bytes, what: str) -> tuple[int, bytes]:
        level, size, log = struct.unpack_from("<IIQ", attr, 24)
        asked.append(size)
        if level:
            ctypes.memmove(log, b"R0 !read_ok\0", 12)
        raise OSError(errno.EACCES, what)

    monkeypatch.setattr(bpf, "call", call)
    with pytest.raises(bpf.VerifierError, match="the kernel refused the program nothing") as error:
        bpf.prog_load(bpf.Code(EXIT), "nothing", bpf.ProgramType.LSM, bpf.LSM_MAC, 1)
    assert error.value.log == "R0 !read_ok"
    assert asked == [0, 1 << 24]
