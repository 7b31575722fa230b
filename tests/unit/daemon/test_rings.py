"""Reading and releasing are two steps; nothing that wasn't released is lost. One test asks the real kernel."""

import ctypes
import os
import select
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostwarden.probes import bpf
from hostwarden.probes.rings import Ring, RingError, following, size_of

BUSY, DISCARD = 1 << 31, 1 << 30
MakeRing = Callable[[int], Any]
PAGE = 4096


def test_events_come_in_order_with_their_positions(make_ring: MakeRing) -> None:
    kernel = make_ring(PAGE)
    ring = kernel.open()
    put = [kernel.put(data) for data in (b"one", b"", b"twelve bytes", b"x" * 100)]
    batch = ring.read(PAGE)
    assert batch.events == [b"one", b"", b"twelve bytes", b"x" * 100]
    assert batch.positions == put == [0, 16, 24, 48]
    assert batch.end == ring.position == following(48, b"x" * 100) == kernel.produced


def test_reading_moves_nothing_and_releasing_does(make_ring: MakeRing) -> None:
    kernel = make_ring(PAGE)
    ring = kernel.open()
    kernel.put(b"first")
    second = kernel.put(b"second")
    batch = ring.read(PAGE)
    assert kernel.consumed == ring.released == 0
    assert ring.waiting == batch.end
    assert ring.read(PAGE).events == []
    ring.release(second)
    assert kernel.consumed == second
    ring.release(batch.end)
    assert ring.waiting == 0


def test_who_opens_the_ring_next_finds_what_was_not_released(make_ring: MakeRing) -> None:
    kernel = make_ring(PAGE)
    ring = kernel.open()
    kernel.put(b"synced")
    kernel.put(b"read, not synced")
    first = ring.read(8)
    assert first.events == [b"synced"]
    ring.release(first.end)
    assert ring.read(PAGE).events == [b"read, not synced"]
    ring.close()
    again = kernel.open()
    assert again.position == first.end
    assert again.read(PAGE).events == [b"read, not synced"]


def test_a_record_that_wraps_is_one_stretch(make_ring: MakeRing) -> None:
    kernel = make_ring(PAGE)
    kernel.start_at((1 << 40) + PAGE - 24)
    ring = kernel.open()
    data = bytes(range(200))
    position = kernel.put(data)
    batch = ring.read(PAGE)
    assert batch.events == [data]
    assert batch.positions == [position] == [(1 << 40) + PAGE - 24]


def test_a_full_ring_loses_until_it_is_released(make_ring: MakeRing) -> None:
    kernel = make_ring(PAGE)
    ring = kernel.open()
    while kernel.put(b"x" * 120) >= 0:
        pass
    batch = ring.read(1 << 20)
    assert len(batch.events) == PAGE // 128 - 1
    assert kernel.put(b"x" * 120) == -1
    ring.release(batch.end)
    assert kernel.put(b"y" * 120) == PAGE - 128


def test_what_is_reserved_holds_back_what_is_behind(make_ring: MakeRing) -> None:
    kernel = make_ring(PAGE)
    ring = kernel.open()
    kernel.put(b"before")
    busy = kernel.put(b"being written", BUSY)
    kernel.put(b"behind")
    assert ring.read(PAGE).events == [b"before"]
    assert ring.position == busy
    kernel.commit(busy)
    assert ring.read(PAGE).events == [b"being written", b"behind"]


def test_what_is_discarded_is_passed_over(make_ring: MakeRing) -> None:
    kernel = make_ring(PAGE)
    ring = kernel.open()
    kernel.put(b"never meant to be", DISCARD)
    kept = kernel.put(b"kept")
    batch = ring.read(PAGE)
    assert (batch.events, batch.positions) == ([b"kept"], [kept])


def test_the_limit_is_passed_by_one_event_at_most(make_ring: MakeRing) -> None:
    kernel = make_ring(PAGE)
    ring = kernel.open()
    for _ in range(10):
        kernel.put(b"x" * 24)
    assert len(ring.read(64).events) == 2
    assert len(ring.read(65).events) == 3
    assert len(ring.read(1 << 20).events) == 5


@pytest.mark.parametrize("position", [8, 12, 32, 1 << 40, -8])
def test_only_what_was_read_is_released(make_ring: MakeRing, position: int) -> None:
    kernel = make_ring(PAGE)
    ring = kernel.open()
    kernel.put(b"x" * 8)
    ring.release(ring.read(PAGE).end)
    kernel.put(b"not read")
    with pytest.raises(ValueError, match="was not read"):
        ring.release(position)
    assert kernel.consumed == 16


def test_positions_that_contradict_each_other_are_an_error(make_ring: MakeRing) -> None:
    kernel = make_ring(PAGE)
    ring = kernel.open()
    kernel.put(struct.pack("<II", 8, 0))
    struct.pack_into("<I", kernel.pages, 2 * PAGE, 2000)  # longer than what was produced
    with pytest.raises(RingError, match="contradict"):
        ring.read(PAGE)


@pytest.mark.parametrize("size", [0, 1, 2048, 4095, 4097, 3 * 4096])
def test_a_size_that_no_ring_has(make_ring: MakeRing, size: int) -> None:
    with pytest.raises(RingError, match="power of two"):
        Ring(make_ring(PAGE).fd, size)


def test_what_is_no_ring_says_so() -> None:
    with pytest.raises(RingError, match="can't be mapped"):
        Ring(os.pipe()[0], PAGE)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_course_of_things_loses_and_repeats_nothing(make_ring: MakeRing, data: st.DataObject) -> None:
    kernel = make_ring(PAGE)
    kernel.start_at(data.draw(st.integers(0, 1 << 50)) & ~7)
    ring = kernel.open()
    put: list[tuple[int, bytes]] = []
    got: list[tuple[int, bytes]] = []
    released = 0  # how many of ``got``
    for step in data.draw(st.lists(st.sampled_from("pppprrlc"), max_size=60)):
        if step == "p":
            event = data.draw(st.binary(max_size=700))
            position = kernel.put(event)
            if position >= 0:
                put.append((position, event))
        elif step == "r":
            batch = ring.read(data.draw(st.integers(1, 2 * PAGE)))
            got += zip(batch.positions, batch.events, strict=True)
        elif step == "l" and got:
            released = data.draw(st.integers(released, len(got)))
            ring.release(ring.position if released == len(got) else got[released][0])
        elif step == "c":
            ring.close()
            ring = kernel.open()
            del got[released:]
    batch = ring.read(2 * PAGE)
    got += zip(batch.positions, batch.events, strict=True)
    assert got == put


# The real kernel: a ring buffer map that a program of ours fills.

RINGBUF = 27  # enum bpf_map_type
RAW_TRACEPOINT = 17  # enum bpf_prog_type
PROG_TEST_RUN = 10  # enum bpf_cmd


def _instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", code, destination | source << 4, offset, immediate)


def _output(ring: int) -> bytes:
    """ringbuf_output of eight times ``ctx[0]`` on the stack, ``ctx[1]`` & 63 bytes of it; returns what it returned."""
    code = _instruction(0x79, 6, 1, 0) + _instruction(0x79, 3, 1, 8)  # r6 = ctx[0]; r3 = ctx[1]
    code += b"".join(_instruction(0x7B, 10, 6, -64 + 8 * i) for i in range(8))
    code += _instruction(0x57, 3, immediate=63)
    code += _instruction(0x18, 1, 1, immediate=ring) + _instruction(0)  # r1 = map
    code += _instruction(0xBF, 2, 10) + _instruction(0x07, 2, immediate=-64)  # r2 = stack
    return code + _instruction(0xB7, 4) + _instruction(0x85, immediate=130) + _instruction(0x95)


@pytest.fixture
def kernel_ring() -> Any:
    """(descriptor, function that puts) of a BPF ring of one page."""
    name = b"hw_test_ring"
    attr = struct.pack("<IIIIIII16s", RINGBUF, 0, 0, PAGE, 0, 0, 0, name)
    ring = bpf.call(bpf.Command.MAP_CREATE, attr, "making a ring")[0]
    program = bpf.prog_load(bpf.Code(_output(ring)), "hw_test_out", RAW_TRACEPOINT, 0, 0)  # type: ignore[arg-type]

    def put(word: int, length: int) -> bool:
        context = ctypes.create_string_buffer(struct.pack("<QQ", word, length), 16)
        attr = struct.pack(
            "<IIIIQQIIIIQQIII", program, 0, 0, 0, 0, 0, 0, 0, 16, 0, ctypes.addressof(context), 0, 0, 0, 0
        )
        _, answer = bpf.call(PROG_TEST_RUN, attr, "running the program")  # type: ignore[arg-type]
        return bool(struct.unpack_from("<i", answer, 4)[0] == 0)

    yield ring, put
    os.close(program)
    os.close(ring)


def test_the_kernels_own_ring(kernel_ring: Any) -> None:
    fd, put = kernel_ring
    assert size_of(fd) == PAGE
    ring = Ring(fd, size_of(fd))
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(0) == []
    events = []
    for turn in range(500):  # several times around
        length = turn * 7 % 64
        assert put(turn, length)
        events.append((struct.pack("<Q", turn) * 8)[:length])
        assert poll.poll(0) == [(fd, select.POLLIN)]
        if turn % 5 == 4:
            batch = ring.read(PAGE)
            assert batch.events == events[-5:]
            assert poll.poll(0), "what isn't released is still there"
            ring.release(batch.end)
            assert poll.poll(0) == []
    ring.close()


def test_the_kernel_refuses_what_does_not_fit_and_keeps_what_was_not_released(kernel_ring: Any) -> None:
    fd, put = kernel_ring
    first = Ring(fd, PAGE)
    count = 0
    while put(count, 56):
        count += 1
    assert count == PAGE // 64 - 1
    assert len(first.read(PAGE).events) == count
    assert not put(count, 56), "read isn't released"
    first.close()
    second = Ring(fd, PAGE)
    batch = second.read(PAGE)
    assert batch.events == [struct.pack("<Q", n) * 7 for n in range(count)]
    second.release(batch.positions[1])
    assert put(count, 56)
    assert second.read(PAGE).events == [struct.pack("<Q", count) * 7]
    second.close()
