"""The addresses of ``to``: ``10.0.0.0/8:5432``, ``[fd00::/8]:*``, ``*:443``; and of attempts: ``10.1.2.3:443``.

Every address is 16 bytes: IPv4 is IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2), so an agent can't choose the family
that no rule speaks of.
"""

import ipaddress
import re

from hostwarden.policy.model import Net
from hostwarden.policy.vocabulary import quote

UNIX = "unix:"
ABSTRACT = b"/./"  # what an abstract name stands behind where it is taken for a path: no file is there
FORMS = '"10.0.0.0/8:5432", "[fd00::/8]:*" or "*:443"'
MAPPED = bytes(10) + b"\xff\xff"
MAPPED_BITS = 96
_TARGET = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<other>[^\[\]]*)):(?P<port>\*|[0-9]{1,5})")
_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]*)")

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_net(text: str) -> Net:
    """One entry of ``to`` that is no unix socket. Raises ValueError with what is wrong and what was expected."""
    match = _TARGET.fullmatch(text)
    if match is None:
        raise ValueError(_no_target(text))
    port = None if match["port"] == "*" else int(match["port"])
    if port is not None and port > 65535:
        raise ValueError(f"port {port}, expected 0 to 65535 or *")
    if match["v6"] is not None:
        return _net6(match["v6"], port)
    host = match["other"]
    if host == "*":
        return Net(bytes(16), 0, port)
    if ":" in host:
        raise ValueError(f"{quote(text)}: an IPv6 address stands in brackets, expected [{host}]:{match['port']}")
    if _NAME.fullmatch(host) and not re.fullmatch(r"[0-9.]+", host):
        raise ValueError(f"{quote(host)}: names aren't in this version yet, expected an address: {FORMS}")
    return _net4(host, port)


def parse_address(text: str) -> tuple[bytes, int]:
    """The 16-byte address and the port of ``10.1.2.3:443`` or ``[fd00::1]:443``. Raises ValueError."""
    net = parse_net(text)
    if net.length != 128 or net.port is None:
        raise ValueError(f'{quote(text)}: expected one address and one port, "10.1.2.3:443" or "[fd00::1]:443"')
    return net.prefix, net.port


def packed(address: str) -> bytes:
    """A textual address as 16 bytes, IPv4 mapped. Raises ValueError."""
    parsed = ipaddress.ip_address(address)
    return MAPPED + parsed.packed if parsed.version == 4 else parsed.packed


def show(address: bytes, port: int) -> str:
    """``10.1.2.3:443`` or ``[fd00::1]:443``: the `target` of a record."""
    if address.startswith(MAPPED):
        return f"{ipaddress.IPv4Address(address[12:])}:{port}"
    return f"[{ipaddress.IPv6Address(address)}]:{port}"


def unix_path(text: str) -> bytes:
    """What an attempt on ``unix:/run/x.sock`` or ``unix:@name`` is matched as. Raises ValueError.

    NUL bytes in an abstract name don't count: a rule can't name them, and they must not tell a name from a rule's.
    """
    name = text.removeprefix(UNIX)
    raw = name.encode("utf-8", "surrogateescape").replace(b"\0", b"")
    if len(raw) > 1 and name.startswith("@"):
        return ABSTRACT + raw[1:]
    if not is_resolved(name):
        raise ValueError(f"{quote(text)}: expected unix: and a resolved path, or unix:@ and an abstract name")
    return raw


def show_unix(path: bytes) -> str:
    """``unix:/run/x.sock`` or ``unix:@name``: the `target` of a record."""
    name = b"@" + path.removeprefix(ABSTRACT) if path.startswith(ABSTRACT) else path
    return UNIX + name.decode("utf-8", "backslashreplace")


def is_resolved(path: str) -> bool:
    """Whether a path is one as the kernel rebuilds it from an object: absolute, nothing to follow in it."""
    return path == "/" or (path.startswith("/") and "\0" not in path and not {"", ".", ".."} & set(path.split("/")[1:]))


def contains(net: Net, address: bytes, port: int) -> bool:
    """Whether ``net`` holds this address and port."""
    shift = 128 - net.length
    same = int.from_bytes(net.prefix, "big") >> shift == int.from_bytes(address, "big") >> shift
    return same and net.port in (None, port)


def _no_target(text: str) -> str:
    if text.count(":") > 1 and "[" not in text:
        return f"{quote(text)}: an IPv6 address stands in brackets, expected [ADDRESS]:PORT"
    if re.search(r":[^:\]]*\Z", text) and not text.endswith("]"):
        return f"{quote(text)}: not a port after the last colon, expected 0 to 65535 or *"
    return f"{quote(text)}: no port, expected {FORMS}"


def _net4(host: str, port: int | None) -> Net:
    network = _network(host, ipaddress.IPv4Network, "IPv4 address or network like 10.0.0.0/8")
    return Net(MAPPED + network.network_address.packed, MAPPED_BITS + network.prefixlen, port)


def _net6(host: str, port: int | None) -> Net:
    if "%" in host:
        raise ValueError(f"{quote(host)}: a zone can't be matched, expected an address without %")
    network = _network(host, ipaddress.IPv6Network, "IPv6 address or network like fd00::/8")
    prefix, length = network.network_address.packed, network.prefixlen
    if length < MAPPED_BITS and contains(Net(prefix, length, None), MAPPED + bytes(4), 0):
        # As a prefix it would hold all of IPv4 as well, which nobody who writes [::/0] has in mind.
        raise ValueError(
            f"[{network}] holds the IPv4-mapped addresses, which are IPv4: expected *:PORT for every address of both "
            "families, or [2000::/3] for global IPv6"
        )
    return Net(prefix, length, port)


def _network(host: str, kind: type[ipaddress.IPv4Network] | type[ipaddress.IPv6Network], expected: str) -> _Network:
    address, slash, length = host.partition("/")
    if slash and not re.fullmatch(r"[0-9]{1,3}", length):
        raise ValueError(f"{quote(host)}: not a prefix length, expected an {expected}")
    try:
        network = kind(host, strict=False)
    except ValueError:
        raise ValueError(f"{quote(host)}: not an {expected}") from None
    if str(network.network_address) != str(ipaddress.ip_address(address)):
        raise ValueError(f"{quote(host)} has bits set below the prefix, expected {network}")
    return network
