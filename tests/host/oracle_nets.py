"""Addresses that hypothesis makes, and attempts near them.

All of them lie in networks for documentation, in private ones or on this host; the member has no route to any.
"""

import ipaddress
from dataclasses import dataclass

from hypothesis import strategies as st

from hostwarden.policy.address import MAPPED
from tests.host.oracle_policies import NET_WORDS, SOCKETS, Rule, Salt, actions, some, users, verdicts

BASES4 = ("10.1.2.3", "127.0.0.1", "192.0.2.1", "198.51.100.7", "203.0.113.255", "169.254.169.254", "255.255.255.255")
BASES6 = ("fd00::1", "2001:db8::1", "fe80::1", "::1", "ff02::1", "64:ff9b::a01:203", "::10.1.2.3", "2002:a01:203::1")
PORTS = (80, 443, 1, 65535, 8080, 53)
LENGTHS4 = (*range(33), 8, 24, 32)
LENGTHS6 = (*range(3, 129), 128, 64, 48)


@dataclass(frozen=True)
class Net:
    """An address of `to`: ``length`` counts bits of the family; no ``base``: every address."""

    base: str
    length: int
    port: int | None

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """As Python knows it; everything is IPv4's everything."""
        return ipaddress.ip_network((self.base or "0.0.0.0", self.length), strict=False)

    def text(self) -> str:
        """As a policy has it."""
        port = "*" if self.port is None else str(self.port)
        if not self.base:
            return f"*:{port}"
        shown = str(self.network)
        return f"[{shown}]:{port}" if self.network.version == 6 else f"{shown}:{port}"

    def near(self, salt: Salt) -> tuple[bytes, int]:
        """An address (16 bytes) and a port that it holds, or nearly."""
        network = self.network
        first, last, bits = int(network[0]), int(network[-1]), network.max_prefixlen
        number = salt.choose((first, last, first - 1, last + 1, (first + last) // 2, first ^ 1 << salt.below(bits), 0))
        number %= 1 << bits
        packed = number.to_bytes(bits // 8, "big")
        if bits == 32:  # as IPv6 has it; and what looks like it and is another address
            packed = salt.choose((MAPPED, MAPPED, MAPPED, MAPPED, bytes(12), NAT64)) + packed
        port = self.port if self.port is not None else salt.choose(PORTS)
        return packed, salt.choose((port, port, port, (port + 1) % 65536, salt.choose(PORTS), 0))


NAT64 = bytes.fromhex("0064ff9b0000000000000000")
ports = st.one_of(st.none(), st.sampled_from(PORTS))
nets = st.one_of(
    st.builds(Net, st.sampled_from(BASES4), st.sampled_from(LENGTHS4), ports),
    st.builds(Net, st.sampled_from(BASES4), st.sampled_from(LENGTHS4), ports),
    st.builds(Net, st.sampled_from(BASES6), st.sampled_from(LENGTHS6), ports).filter(lambda net: not holds_mapped(net)),
    st.builds(
        lambda base, length, port: Net(f"::ffff:{base}", 96 + length, port),
        st.sampled_from(BASES4),
        st.sampled_from(LENGTHS4),
        ports,
    ),
    st.builds(Net, st.just(""), st.just(0), ports),
)


def holds_mapped(net: Net) -> bool:
    """IPv6 networks that hold all of IPv4: the language refuses them (address.py)."""
    return net.length < 96 and ipaddress.ip_address("::ffff:0.0.0.0") in net.network


targets = st.one_of(nets.map(Net.text), nets.map(Net.text), nets.map(Net.text), st.sampled_from(SOCKETS))
net_rules = st.builds(
    lambda to, but, **rest: Rule(to=to, except_to=but, **rest),
    some(targets, 0, 3),
    st.one_of(st.just(()), some(targets, 1, 2)),
    verdict=verdicts,
    actions=actions(NET_WORDS),
    users=users,
)


def net_of(text: str) -> Net:
    """What ``Net.text`` wrote, read back."""
    host, _, port = text.rpartition(":")
    base, _, length = host.strip("[]").partition("/")
    return Net("" if base == "*" else base, int(length or 0), None if port == "*" else int(port))
