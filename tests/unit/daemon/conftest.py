"""A ring without a kernel, and events as the kernel would lay them out."""

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from hostwarden.policy.words import Action, Tier
from hostwarden.probes.layout import EVENT, Event
from hostwarden.probes.rings import Ring

BUSY, DISCARD = 1 << 31, 1 << 30


class FileRing:
    """A file laid out like a ring buffer map, and the kernel's side of it."""

    def __init__(self, size: int) -> None:
        page = mmap.PAGESIZE
        self.size, self.produced = size, 0
        self.fd = os.memfd_create("ring", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, 2 * page + 2 * size)
        self.pages = mmap.mmap(self.fd, 2 * page + 2 * size)
        self.lost = 0

    def open(self) -> Ring:
        """A reader, as a daemon that starts has it."""
        return Ring(self.fd, self.size)

    @property
    def consumed(self) -> int:
        """The kernel's view of the consumer's position."""
        value: int = struct.unpack_from("<Q", self.pages, 0)[0]
        return value

    def start_at(self, position: int) -> None:
        """As if so many bytes had passed through it."""
        self.produced = position
        struct.pack_into("<Q", self.pages, 0, position)
        struct.pack_into("<Q", self.pages, mmap.PAGESIZE, position)

    def put(self, data: bytes, bits: int = 0) -> int:
        """bpf_ringbuf_output: where it was put, or -1 if there was no space."""
        total = len(data) + 8 + 7 & ~7
        if self.produced + total - self.consumed >= self.size:  # the last byte is never used
            self.lost += 1
            return -1
        position = self.produced
        for offset, byte in enumerate(struct.pack("<II", len(data) | bits, 0) + data):
            self._set(position + offset, byte)
        self.produced += total
        struct.pack_into("<Q", self.pages, mmap.PAGESIZE, self.produced)
        return position

    def commit(self, position: int) -> None:
        """Clear BUSY."""
        at = 2 * mmap.PAGESIZE + (position & (self.size - 1))
        head = struct.unpack_from("<I", self.pages, at)[0] & ~BUSY
        for offset, byte in enumerate(struct.pack("<I", head)):
            self._set(position + offset, byte)

    def _set(self, position: int, byte: int) -> None:
        at = 2 * mmap.PAGESIZE + (position & (self.size - 1))
        self.pages[at] = self.pages[at + self.size] = byte


@pytest.fixture
def make_ring() -> Iterator[Callable[[int], FileRing]]:
    """``make_ring(bytes)``."""
    with ExitStack() as stack:

        def make(size: int = 1 << 16) -> FileRing:
            ring = FileRing(size)
            stack.callback(os.close, ring.fd)
            return ring

        yield make


def pack_event(
    *, path: bytes = b"", argv: bytes = b"", script: bytes = b"", pid: int = 100, **fields: int | bytes
) -> bytes:
    """An event; what isn't named is a plain read by process 100 of agent 7."""
    usual: dict[str, int | bytes] = {
        "time": 5_000_000_000,
        "start": pid * 1_000_000,
        "agent": 7,
        "tgid": pid,
        "tid": pid,
        "forker": 1,
        "uid": 1000,
        "generation": 1,
        "profile": 2,
        "row": 2,
        "action": Action.READ,
        "tier": Tier.SIGNAL,
        "record": 2,
        "path_length": len(path),
        "argv_length": len(argv),
        "script_length": len(script),
        "argv_total": len(argv),
    }
    values = usual | fields
    values.setdefault("accesses", 1 << int(values["action"]) & 0xFFFF)
    zero = Event._make(EVENT.unpack(bytes(EVENT.size)))
    return EVENT.pack(*zero._replace(**values)) + path + argv + script  # type: ignore[arg-type]


@pytest.fixture
def make_event() -> Callable[..., bytes]:
    """``make_event(path=b"/etc/passwd", action=Action.READ, …)``: the bytes of an event."""
    return pack_event
