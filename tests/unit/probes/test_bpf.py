"""Writing to a map while the kernel says "not at this very moment"."""

import errno

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
