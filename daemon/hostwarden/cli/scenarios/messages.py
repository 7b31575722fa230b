"""Structures of the kernel's for which Python has no words: messages of sendmmsg(2), a ring of io_uring."""

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Sequence

from hostwarden.cli.scenarios.kernel import AT_FDCWD, syscall

_ENTRIES = 4
_SQ_OFFSET, _SQES_OFFSET = 0, 0x10000000
_GETEVENTS = 1
# Operations, as in linux/io_uring.h
OPERATIONS = {"connect": 16, "openat": 18, "renameat": 35, "unlinkat": 36, "mkdirat": 37,
              "symlinkat": 38, "linkat": 39, "sendmsg": 9}  # fmt: skip


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("name_length", ctypes.c_uint32), ("vectors", ctypes.POINTER(_Iovec)),
        ("count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int), ("sent", ctypes.c_uint32), ("pad", ctypes.c_uint32),
    ]  # fmt: skip


def socket_address(host: str, port: int) -> bytes:
    """A sockaddr_in or sockaddr_in6."""
    if ":" in host:
        packed = socket.inet_pton(socket.AF_INET6, host)
        return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + packed + bytes(4)
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)


def send_many(peer: socket.socket, data: bytes, addresses: Sequence[tuple[str, int]]) -> int:
    """One datagram to each address in one sendmmsg(2); how many went out. Raises OSError if the first didn't."""
    vector = _Iovec(data, len(data))
    names = [socket_address(*address) for address in addresses]
    messages = (_Message * len(names))()
    for message, name in zip(messages, names, strict=True):
        message.name, message.name_length = name, len(name)
        message.vectors, message.count = ctypes.pointer(vector), 1
    return syscall("sendmmsg", peer.fileno(), messages, len(names), 0)


class Ring:
    """The smallest io_uring: one entry is submitted, and its result waited for."""

    def __init__(self) -> None:
        parameters = ctypes.create_string_buffer(120)
        self._fd = syscall("io_uring_setup", _ENTRIES, parameters)
        words = struct.unpack("<30I", parameters.raw)
        self._sq = dict(
            zip(("head", "tail", "mask", "entries", "flags", "dropped", "array"), words[10:17], strict=True)
        )
        self._cq = dict(zip(("head", "tail", "mask", "entries", "overflow", "cqes"), words[20:26], strict=True))
        size = max(self._sq["array"] + 4 * words[0], self._cq["cqes"] + 16 * words[1])
        self._rings = mmap.mmap(self._fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=_SQ_OFFSET)
        self._sqes = mmap.mmap(self._fd, 64 * words[0], flags=mmap.MAP_SHARED, offset=_SQES_OFFSET)

    def submit(
        self, operation: str, fd: int, address: int = 0, length: int = 0, offset: int = 0, flags: int = 0
    ) -> int:
        """The result of one operation. Raises OSError."""
        entry = struct.pack("<BBHiQQII", OPERATIONS[operation], 0, 0, fd, offset, address, length, flags)
        self._sqes[:64] = entry.ljust(64, b"\0")
        struct.pack_into("<I", self._rings, self._sq["array"], 0)
        (tail,) = struct.unpack_from("<I", self._rings, self._sq["tail"])
        struct.pack_into("<I", self._rings, self._sq["tail"], tail + 1)
        syscall("io_uring_enter", self._fd, 1, 1, _GETEVENTS, 0, 0)
        (head, mask) = (struct.unpack_from("<I", self._rings, self._cq[name])[0] for name in ("head", "mask"))
        (result,) = struct.unpack_from("<i", self._rings, self._cq["cqes"] + 16 * (head & mask) + 8)
        struct.pack_into("<I", self._rings, self._cq["head"], head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result), operation)
        return int(result)


def uring(operation: str, *words: str) -> None:
    """An act by io_uring: openat PATH (and read), unlinkat PATH, renameat/linkat/symlinkat OLD NEW, mkdirat PATH,
    connect HOST PORT (and send), send HOST PORT (a datagram, by sendmsg)."""
    ring = Ring()
    if operation in ("connect", "sendmsg"):
        _send(ring, operation, words[0], int(words[1]))
        return
    paths = [ctypes.create_string_buffer(os.fsencode(word)) for word in words]
    addresses = [ctypes.addressof(path) for path in paths]
    if operation == "openat":
        fd = ring.submit("openat", AT_FDCWD, addresses[0], 0, 0, os.O_RDONLY)
        os.write(1, os.read(fd, 4096))
    elif operation in ("unlinkat", "mkdirat"):
        ring.submit(operation, AT_FDCWD, addresses[0], 0o755 if operation == "mkdirat" else 0)
    elif operation == "symlinkat":
        ring.submit(operation, AT_FDCWD, addresses[0], 0, addresses[1])
    else:  # the second folder's descriptor is in len
        ring.submit(operation, AT_FDCWD, addresses[0], AT_FDCWD & 0xFFFFFFFF, addresses[1])


def _send(ring: Ring, operation: str, host: str, port: int) -> None:
    name = socket_address(host, port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    data = b"leaving"
    if operation == "connect":
        peer = socket.socket(family, socket.SOCK_STREAM)
        buffer = ctypes.create_string_buffer(name, len(name))
        ring.submit("connect", peer.fileno(), ctypes.addressof(buffer), 0, len(name))
        peer.sendall(data)
        return
    peer = socket.socket(family, socket.SOCK_DGRAM)
    vector = _Iovec(data, len(data))
    message = _Message(name, len(name), ctypes.pointer(vector), 1)
    ring.submit("sendmsg", peer.fileno(), ctypes.addressof(message), 1)


ACTS = {"uring": uring}
