"""A BPF ring buffer, read straight from its mapped pages, and given back only when the reader says so.

Source: Documentation/bpf/ringbuf.rst and kernel/bpf/ringbuf.c. The map's descriptor maps to: one page that the consumer
writes (its position), one page that the kernel writes (the producer's position), and the data twice in a row, so that a
record is one stretch even where it wraps. It is mapped here once, and a record that wraps is put together: pages of
a ring count as the daemon's memory, each time they are mapped. A record is a header of eight bytes (u32 length with
two flag bits, u32 page offset), then the data, padded to eight bytes. Positions count bytes since the map was made and
never go back: within one map, a position names an event for good.

libbpf's reader moves the consumer's position as it reads. Here reading and releasing are two steps, because an event
is safe only when its record is on disk: what was read and not released is still there for whoever opens the ring next.

Memory order: the kernel clears BUSY and moves its position with release semantics; the consumer must load the position
before the header, the header before the data, and store its own position after all of them. Positions and headers are
aligned words, and an item of a ``memoryview`` cast to "Q" is one load or store of eight bytes. x86 (the only machine
that hostwarden claims, see bpf.py) reorders neither loads with loads nor loads with later stores; the compiler can't
either, since each step is a call into the interpreter's runtime. A machine with weaker order would need fences here.
"""

import mmap
import struct
from dataclasses import dataclass

from hostwarden.probes import bpf

RECORD_HEADER = 8  # bytes before each record
_BUSY, _DISCARD = 1 << 31, 1 << 30
_LENGTH = _DISCARD - 1
_MAX_ENTRIES = struct.Struct("<16xI")  # struct bpf_map_info: type, id, key_size, value_size, max_entries


class RingError(Exception):
    """The ring can't be mapped, or doesn't hold what a ring holds. One line."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read found: events in the ring's order, where each begins, and where the next read goes on."""

    events: list[bytes]
    positions: list[int]
    end: int


def size_of(fd: int) -> int:
    """Bytes of data that the ring buffer map ``fd`` holds. Raises OSError."""
    size: int = _MAX_ENTRIES.unpack_from(bpf.info(fd))[0]
    return size


def following(position: int, event: bytes) -> int:
    """Where the record after ``event`` at ``position`` begins."""
    return position + (len(event) + RECORD_HEADER + 7 & ~7)


class Ring:
    """The one reader of the ring buffer map ``fd`` with ``size`` bytes of data. Borrows the descriptor.

    ``fd`` polls readable (EPOLLIN) while anything isn't released, which includes what was read already: whoever waits
    before releasing doesn't wait.
    """

    def __init__(self, fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        if size < page or size & (size - 1):
            raise RingError(f"a ring of {size} bytes: it must be a power of two, and a page at least")
        self.fd, self.size = fd, size
        try:
            self._consumer_page = mmap.mmap(fd, page, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            self._pages = mmap.mmap(fd, page + size, prot=mmap.PROT_READ, offset=page)
        except (OSError, ValueError) as error:
            raise RingError(f"a ring can't be mapped: {error}; is it a ring buffer of this size?") from None
        self._consumer = memoryview(self._consumer_page).cast("Q")
        self._words = memoryview(self._pages).cast("Q")  # [0] is the producer's position
        self._position = self.released

    @property
    def position(self) -> int:
        """Where the next read begins; at first, the kernel's own note of what was released."""
        return self._position

    @property
    def released(self) -> int:
        """The consumer's position, as the kernel sees it."""
        return self._consumer[0]

    @property
    def waiting(self) -> int:
        """Bytes that are not released yet; the ring overflows at ``size``."""
        return self._words[0] - self._consumer[0]

    def read(self, limit_bytes: int) -> Batch:
        """Events from ``position`` on: those that are complete, until ``limit_bytes`` are passed. Moves nothing.

        Raises RingError if the ring's bookkeeping can't be true: someone else writes to its pages.
        """
        words, pages, mask = self._words, self._pages, self.size - 1
        start, first_word, first_byte = mmap.PAGESIZE, mmap.PAGESIZE // 8, mmap.PAGESIZE + RECORD_HEADER
        events: list[bytes] = []
        positions: list[int] = []
        position, produced = self._position, words[0]
        stop = min(produced, position + limit_bytes)
        while position < stop:
            at = position & mask
            head = words[first_word + (at >> 3)] & 0xFFFFFFFF
            if head & _BUSY:
                break  # reserved, and not yet written: everything behind it waits
            length = head & _LENGTH
            if not head & _DISCARD:
                event = pages[first_byte + at : first_byte + at + length]  # ends with the mapping where it wraps
                events.append(event if len(event) == length else event + pages[start : start + length - len(event)])
                positions.append(position)
            position += length + RECORD_HEADER + 7 & ~7
        if position > produced or produced - self._consumer[0] > self.size:
            raise RingError("a ring's positions contradict each other; stop whatever else reads it, then restart")
        self._position = position
        return Batch(events, positions, position)

    def release(self, position: int) -> None:
        """Give the kernel back everything before ``position``: it is on disk. Raises ValueError if it wasn't read."""
        if not self._consumer[0] <= position <= self._position or position & 7:
            raise ValueError(f"position {position} was not read, or is released already")
        self._consumer[0] = position

    def close(self) -> None:
        """Unmap; the descriptor stays the caller's."""
        self._consumer.release()
        self._words.release()
        self._consumer_page.close()
        self._pages.close()
