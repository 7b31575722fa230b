"""Addresses of `to`, and of attempts."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.policy.address import MAPPED, contains, packed, parse_address, parse_net, show, show_unix, unix_path
from hostwarden.policy.model import Net


def v4(text: str) -> bytes:
    return MAPPED + ipaddress.IPv4Address(text).packed


def v6(text: str) -> bytes:
    return ipaddress.IPv6Address(text).packed


@pytest.mark.parametrize(
    ("text", "net"),
    [
        ("10.0.0.0/8:5432", Net(v4("10.0.0.0"), 104, 5432)),
        ("10.1.2.3:443", Net(v4("10.1.2.3"), 128, 443)),
        ("0.0.0.0/0:*", Net(v4("0.0.0.0"), 96, None)),
        ("[fd00::/8]:*", Net(v6("fd00::"), 8, None)),
        ("[::1]:53", Net(v6("::1"), 128, 53)),
        ("*:443", Net(bytes(16), 0, 443)),
        ("*:*", Net(bytes(16), 0, None)),
        ("*:0", Net(bytes(16), 0, 0)),
        ("1.2.3.4:65535", Net(v4("1.2.3.4"), 128, 65535)),
        # IPv4-mapped IPv6 is IPv4
        ("[::ffff:10.1.2.3]:443", Net(v4("10.1.2.3"), 128, 443)),
        ("[::ffff:10.0.0.0/104]:*", Net(v4("10.0.0.0"), 104, None)),
        ("[::ffff:0:0/96]:*", Net(v4("0.0.0.0"), 96, None)),
        ("[2000::/3]:443", Net(v6("2000::"), 3, 443)),
    ],
)
def test_read(text: str, net: Net) -> None:
    assert parse_net(text) == net


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.1.0.0/8:1", "expected 10.0.0.0/8"),
        ("[fd00::1/8]:1", "expected fd00::/8"),
        ("[::ffff:10.1.0.0/104]:1", "expected ::ffff:"),
        ("payments.internal:443", "names aren't in this version yet"),
        ("*.example.com:443", "names aren't in this version yet"),
        ("fd00::1:443", "brackets"),
        ("::1", "brackets"),
        ("10.1.2.3", "no port"),
        ("[::1]", "no port"),
        ("", "no port"),
        ("10.1.2.3:", "not a port"),
        ("10.1.2.3:http", "not a port"),
        ("10.1.2.3:-1", "not a port"),
        ("10.1.2.3:65536", "0 to 65535"),
        ("10.1.2.3:999999", "not a port"),
        ("10.1.2.3:٣", "not a port"),  # a digit to Unicode, not to us
        ("10.1.2:1", "not an IPv4 address"),
        ("010.1.2.3:1", "not an IPv4 address"),
        ("10.0.0.0/255.0.0.0:1", "not a prefix length"),
        ("10.0.0.0/33:1", "not an IPv4 address"),
        ("10.0.0.0/:1", "not a prefix length"),
        ("[fd00::/129]:1", "not an IPv6 address"),
        ("[10.0.0.1]:1", "not an IPv6 address"),
        ("[fe80::1%eth0]:1", "zone"),
        ("10.*:443", "not an IPv4 address"),
        # as prefixes they would hold IPv4 too, which who writes them doesn't mean
        ("[::/0]:*", r"\*:PORT"),
        ("[::/80]:443", r"\*:PORT"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_net(text)


@given(st.text(max_size=40) | st.from_regex(r"\[?[0-9a-f.:/%*]*\]?:[0-9*]*", fullmatch=True))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        net = parse_net(text)
    except ValueError as error:
        assert str(error).splitlines() == [str(error)]
    else:
        assert len(net.prefix) == 16 and 0 <= net.length <= 128


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_is_shown_and_read_again(address: ipaddress.IPv4Address, port: int) -> None:
    raw = packed(str(address))
    assert len(raw) == 16
    assert parse_address(show(raw, port)) == (raw, port)


@pytest.mark.parametrize(
    ("text", "path", "shown"),
    [
        ("unix:/run/x.sock", b"/run/x.sock", "unix:/run/x.sock"),
        ("unix:@x", b"/./x", "unix:@x"),
        ("unix:@/a//b", b"/.//a//b", "unix:@/a//b"),
        ("unix:@a\0b\0", b"/./ab", "unix:@ab"),
        ("unix:@\udcff", b"/./\xff", "unix:@\\xff"),
    ],
)
def test_unix_sockets(text: str, path: bytes, shown: str) -> None:
    assert unix_path(text) == path
    assert show_unix(path) == shown


@pytest.mark.parametrize("text", ["unix:", "unix:@", "unix:x", "unix:/a/../b", "unix:/a/", "unix:/a\0"])
def test_what_is_no_unix_socket(text: str) -> None:
    with pytest.raises(ValueError, match="expected unix: and a resolved path"):
        unix_path(text)


@pytest.mark.parametrize("text", ["10.0.0.0/8:1", "*:443", "10.1.2.3:*", "x:1"])
def test_an_attempt_has_one_address_and_port(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


@pytest.mark.parametrize(
    ("net", "address", "port", "expected"),
    [
        ("10.0.0.0/8:443", "10.255.255.255", 443, True),
        ("10.0.0.0/8:443", "11.0.0.0", 443, False),
        ("10.0.0.0/8:443", "9.255.255.255", 443, False),
        ("10.0.0.0/8:443", "10.0.0.0", 80, False),
        ("10.0.0.0/8:*", "::ffff:10.0.0.1", 80, True),
        ("0.0.0.0/0:*", "fd00::1", 80, False),
        ("[fd00::/8]:*", "fdff::", 1, True),
        ("[fd00::/8]:*", "10.0.0.1", 1, False),
        ("*:*", "10.0.0.1", 0, True),
        ("*:*", "fd00::1", 0, True),
        ("*:0", "10.0.0.1", 1, False),
        ("[::]:53", "::", 53, True),
        ("[::]:53", "0.0.0.0", 53, False),
    ],
)
def test_contains(net: str, address: str, port: int, expected: bool) -> None:
    assert contains(parse_net(net), packed(address), port) is expected
