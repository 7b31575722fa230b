"""Where the running kernel's own types have their members: the BTF, asked through libbpf."""

import ctypes
import struct

ARRAY, STRUCT, UNION, TYPEDEF, QUALIFIERS = 3, 4, 5, 8, (9, 10, 11)  # include/uapi/linux/btf.h
RENAMED = {"f_task_work": "f_rcuhead"}  # exec.h: before 6.11


class Btf:
    """/sys/kernel/btf/vmlinux, as far as offsets of members go (Documentation/bpf/btf.rst)."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libbpf.so.1")
        self._library.btf__load_vmlinux_btf.restype = ctypes.c_void_p
        self._library.btf__type_by_id.restype = ctypes.c_void_p
        self._library.btf__name_by_offset.restype = ctypes.c_char_p
        self._btf = ctypes.c_void_p(self._library.btf__load_vmlinux_btf())

    def offset(self, name: str, path: str) -> int:
        """In bytes, of ``member`` or ``member.member`` of a struct."""
        kind: int = self._library.btf__find_by_name_kind(self._btf, name.encode(), STRUCT)
        assert kind > 0, name
        total = 0
        for part in path.split("."):
            member, _, index = part.removesuffix("]").partition("[")
            found = self._find(kind, member) or self._find(kind, RENAMED.get(member, member))
            assert found is not None, (name, path)
            total, kind = total + found[0], found[1]
            if index:
                kind, size = self._element(kind)
                total += 8 * size * int(index)
        return total // 8

    def _find(self, number: int, wanted: str) -> tuple[int, int] | None:
        """Offset in bits and type of a member, those of nameless structs and unions included."""
        info, size = self._head(number)
        for name, kind, at in self._members(number, info, size):
            at = at & 0xFFFFFF if info >> 31 else at
            if name == wanted:
                return at, self._stripped(kind)
            inner = self._find(self._stripped(kind), wanted) if not name else None
            if inner:
                return at + inner[0], inner[1]
        return None

    def _element(self, number: int) -> tuple[int, int]:
        """Of an array: the elements' type and size in bytes."""
        assert self._head(number)[0] >> 24 & 0x1F == ARRAY
        kind, _, _ = struct.unpack("<III", ctypes.string_at(self._address(number) + 12, 12))
        kind = self._stripped(kind)
        return kind, self._head(kind)[1]

    def _stripped(self, number: int) -> int:
        while (self._head(number)[0] >> 24 & 0x1F) in (TYPEDEF, *QUALIFIERS):
            number = self._head(number)[1]
        return number

    def _head(self, number: int) -> tuple[int, int]:
        _, info, size = struct.unpack("<III", ctypes.string_at(self._address(number), 12))
        return info, size

    def _members(self, number: int, info: int, _size: int) -> list[tuple[str, int, int]]:
        if info >> 24 & 0x1F not in (STRUCT, UNION):
            return []
        raw = ctypes.string_at(self._address(number) + 12, 12 * (info & 0xFFFF))
        return [(self._name(name), kind, at) for name, kind, at in struct.iter_unpack("<III", raw)]

    def _address(self, number: int) -> int:
        address: int = self._library.btf__type_by_id(self._btf, number)
        return address

    def _name(self, offset: int) -> str:
        name: bytes = self._library.btf__name_by_offset(self._btf, offset)
        return name.decode()
