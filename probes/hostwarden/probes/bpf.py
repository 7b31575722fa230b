"""bpf(2), as far as hostwarden needs it: thin, typed, one OSError with what was asked for.

Source: man 2 bpf and include/uapi/linux/bpf.h (`union bpf_attr`); field order is the kernel's and never changes.
"""

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

SYSCALL_NUMBER = {"x86_64": 321}  # the C side reads x86 registers: no other machine is claimed
ATTR_SIZE = 160

BPF_F_ALLOW_MULTI = 1 << 1
BPF_ANY = 0
UPDATE_TRIES = 100
RAW_TRACEPOINT_BTF, MODIFY_RETURN, LSM_MAC = 23, 26, 27  # enum bpf_attach_type: BPF_TRACE_RAW_TP and so on
BPF_F_SLEEPABLE = 1 << 4

libc = ctypes.CDLL(None, use_errno=True)


class Command(IntEnum):
    """enum bpf_cmd."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    OBJ_GET_INFO_BY_FD = 15
    RAW_TRACEPOINT_OPEN = 17
    BTF_LOAD = 18
    LINK_CREATE = 28


class MapType(IntEnum):
    """enum bpf_map_type, the ones that the loader makes itself."""

    HASH = 1
    ARRAY = 2
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    STACK = 23
    RINGBUF = 27
    TASK_STORAGE = 29


class ProgramType(IntEnum):
    """enum bpf_prog_type."""

    CGROUP_SOCK = 9
    CGROUP_SOCK_ADDR = 18
    TRACING = 26
    LSM = 29


def call(command: Command, attr: bytes, what: str) -> tuple[int, bytes]:
    """One bpf(2): its result and the attribute block as the kernel left it. Raises OSError that names ``what``."""
    buffer = ctypes.create_string_buffer(attr, max(len(attr), ATTR_SIZE))
    result: int = libc.syscall(SYSCALL_NUMBER[os.uname().machine], int(command), buffer, max(len(attr), ATTR_SIZE))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result, buffer.raw


def map_create(
    kind: MapType, key_size: int, value_size: int, entries: int, name: str, *, flags: int = 0, inner: int = 0
) -> int:
    """A new map's descriptor. ``inner`` is the template of a map of maps. Tasks' storage wants its types named."""
    btf = _storage_types(value_size) if kind is MapType.TASK_STORAGE else 0
    types = (btf, 1, 2) if btf else (0, 0, 0)
    attr = struct.pack(
        "<IIIIIII16sIIII", kind, key_size, value_size, entries, flags, inner, 0, name.encode()[:15], 0, *types
    )
    try:
        return call(Command.MAP_CREATE, attr, f"making the map {name}")[0]
    finally:
        if btf:
            os.close(btf)


def _storage_types(value_size: int) -> int:
    """A BTF with the types of a key (an int) and of a value of so many bytes, whatever is in it; its descriptor."""
    strings = b"\0int\0"
    types = struct.pack("<IIII", 1, 1 << 24, 4, 32 | 1 << 24) + struct.pack("<III", 0, 4 << 24, value_size)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return btf_load(header + types + strings)


def update(fd: int, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
    """map[key] = value. Raises OSError (E2BIG: full).

    EAGAIN is a task's storage that somebody's program (not only ours: all of a task's storages hang on one list) makes
    or frees at this very moment, see bpf_local_storage_alloc and bpf_local_storage_update; the next try finds it made.
    """
    k, v = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    attr = struct.pack("<I4xQQQ", fd, ctypes.addressof(k), ctypes.addressof(v), flags)
    for tries_left in reversed(range(UPDATE_TRIES)):
        try:
            call(Command.MAP_UPDATE_ELEM, attr, "writing to a map")
        except BlockingIOError:
            if not tries_left:
                raise
        else:
            return


def push(fd: int, value: bytes) -> None:
    """Onto a stack. Raises OSError (E2BIG: full)."""
    v = ctypes.create_string_buffer(value, len(value))
    call(Command.MAP_UPDATE_ELEM, struct.pack("<I4xQQQ", fd, 0, ctypes.addressof(v), BPF_ANY), "pushing on a stack")


def lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """map[key], or None where there is none."""
    k, v = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value_size)
    attr = struct.pack("<I4xQQQ", fd, ctypes.addressof(k), ctypes.addressof(v), 0)
    try:
        call(Command.MAP_LOOKUP_ELEM, attr, "reading a map")
    except FileNotFoundError:
        return None
    return v.raw


def delete(fd: int, key: bytes) -> bool:
    """Remove a key; False where it wasn't there."""
    k = ctypes.create_string_buffer(key, len(key))
    try:
        call(Command.MAP_DELETE_ELEM, struct.pack("<I4xQQQ", fd, ctypes.addressof(k), 0, 0), "deleting from a map")
    except FileNotFoundError:
        return False
    return True


def keys(fd: int, key_size: int, limit: int = 1 << 20) -> list[bytes]:
    """All keys. Entries that come or go meanwhile may be missed or seen; ``limit`` bounds a walk that restarts."""
    found: list[bytes] = []
    current = ctypes.create_string_buffer(key_size)
    following = ctypes.create_string_buffer(key_size)
    address = 0
    while len(found) < limit:
        attr = struct.pack("<I4xQQ", fd, address, ctypes.addressof(following))
        try:
            call(Command.MAP_GET_NEXT_KEY, attr, "walking a map")
        except FileNotFoundError:
            break
        found.append(following.raw)
        ctypes.memmove(current, following, key_size)
        address = ctypes.addressof(current)
    return found


def pin(fd: int, path: Path) -> None:
    """Keep what ``fd`` refers to alive at ``path`` on a bpffs."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    call(Command.OBJ_PIN, struct.pack("<QII", ctypes.addressof(name), fd, 0), f"pinning {path}")


def get(path: Path) -> int:
    """A descriptor of what is pinned at ``path``."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return call(Command.OBJ_GET, struct.pack("<QII", ctypes.addressof(name), 0, 0), f"opening the pin {path}")[0]


class VerifierError(Exception):
    """The kernel refused a program: ``log`` is the end of what its verifier said."""

    def __init__(self, name: str, error: OSError, log: str) -> None:
        super().__init__(f"the kernel refused the program {name}: {os.strerror(error.errno or errno.EINVAL)}")
        self.log = log


def btf_load(raw: bytes) -> int:
    """Load a BTF; its descriptor."""
    blob = ctypes.create_string_buffer(raw, len(raw))
    return call(Command.BTF_LOAD, struct.pack("<QQIIII", ctypes.addressof(blob), 0, len(raw), 0, 0, 0), "loading BTF")[
        0
    ]


@dataclass(frozen=True)
class Code:
    """A program's instructions; ``btf`` and ``functions`` (first instruction, type id) if it has more than one part."""

    instructions: bytes
    btf: int = 0
    functions: tuple[tuple[int, int], ...] = ()


def prog_load(
    program: Code, name: str, kind: ProgramType, attach_type: int, btf_id: int, *, flags: int = 0, log_bytes: int = 0
) -> int:
    """Load a program; its descriptor. Tried again with the verifier's log when it is refused. Raises VerifierError."""
    instructions = program.instructions
    parts = b"".join(struct.pack("<II", *part) for part in program.functions)
    functions = ctypes.create_string_buffer(parts, max(len(parts), 1))
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(max(log_bytes, 1))
    attr = struct.pack(
        "<IIQQIIQII16sIIIIQIIQIII",
        kind,
        len(instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        1 if log_bytes else 0,
        log_bytes,
        ctypes.addressof(log) if log_bytes else 0,
        0,
        flags,
        name.encode()[:15],
        0,
        attach_type,
        program.btf,
        8 if parts else 0,
        ctypes.addressof(functions) if parts else 0,
        len(program.functions),
        0,
        0,
        0,
        btf_id,
        0,
    )
    try:
        return call(Command.PROG_LOAD, attr, f"loading {name}")[0]
    except OSError as error:
        if not log_bytes:
            return prog_load(program, name, kind, attach_type, btf_id, flags=flags, log_bytes=1 << 24)
        raise VerifierError(name, error, log.value.decode(errors="replace")[-4000:]) from error


def attach_in_kernel(program: int) -> int:
    """Attach a program whose hook is in its BTF id (tp_btf, LSM, fmod_ret); a link, which can be pinned."""
    return call(Command.RAW_TRACEPOINT_OPEN, struct.pack("<QI4x", 0, program), "attaching a program")[0]


def attach_cgroup(program: int, cgroup: int, attach_type: int) -> int:
    """Attach to a cgroup as a link, beside whatever else is attached there; the link's descriptor."""
    attr = struct.pack("<IIII", program, cgroup, attach_type, 0)
    return call(Command.LINK_CREATE, attr, "attaching a cgroup program")[0]


def info(fd: int, size: int = 256) -> bytes:
    """struct bpf_{map,prog,link}_info of a descriptor."""
    buffer = ctypes.create_string_buffer(size)
    call(
        Command.OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", fd, size, ctypes.addressof(buffer)), "asking about a descriptor"
    )
    return buffer.raw
