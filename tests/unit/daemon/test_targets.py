"""Words for the kernel's numbers."""

import socket

import pytest

from hostwarden.daemon import targets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (targets.address_text(bytes(10) + b"\xff\xff\x0a\0\0\x01", 443), "10.0.0.1:443"),
        (targets.address_text(bytes.fromhex("fd00" + "00" * 13 + "01"), 5432), "[fd00::1]:5432"),
        (targets.socket_text(socket.AF_PACKET, 3), "socket:packet:3"),
        (targets.socket_text(socket.AF_INET, 1), "socket:inet:1"),
        (targets.socket_text(12345, 0), "socket:12345:0"),
        # the most powerful first, whatever the bits' order
        (targets.namespace_text(0x10000000 | 0x20000 | 0x80), "user,mnt,time"),
        (targets.namespace_text(0x40000000 | 0x1), "net,0x1"),
        (targets.namespace_text(0), "any"),
        (targets.capability_text(0), "CAP_CHOWN"),
        (targets.capability_text(40), "CAP_CHECKPOINT_RESTORE"),
        (targets.capability_text(41), "CAP_41"),
        (targets.kernel_text(1), "bpf"),
        (targets.kernel_text(10), "other"),
        (targets.kernel_text(0), "kernel:0"),
        (targets.kernel_text(11), "kernel:11"),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert text == expected
