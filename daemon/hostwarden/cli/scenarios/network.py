"""What an agent tries in order to send the word "leaving": each kind of socket, each way to name its peer."""

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from hostwarden.cli.scenarios.messages import send_many

LEAVING = b"leaving"
PATIENCE_S = 10
MPTCP, UDPLITE = 262, 136
FASTOPEN_CONNECT = 30
_NETLINK_GETLINK = struct.pack("=LHHLL", 32, 18, 0x301, 1, 0) + bytes(16)  # RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP
_ETH_ALL, _NULL_INTERFACE = 3, "lo"

Address = tuple[str, int]


def _opened(host: str, kind: int, protocol: int = 0) -> socket.socket:
    peer = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind, protocol)
    peer.settimeout(PATIENCE_S)
    return peer


def _address(host: str, port: str) -> Address:
    return host, int(port)


def _connect(peer: socket.socket, address: Address) -> None:
    peer.connect(address)
    peer.sendall(LEAVING)


def tcp(host: str, port: str) -> None:
    """TCP."""
    _connect(_opened(host, socket.SOCK_STREAM), _address(host, port))


def udp(host: str, port: str) -> None:
    """Connected UDP."""
    _connect(_opened(host, socket.SOCK_DGRAM), _address(host, port))


def mptcp(host: str, port: str) -> None:
    """Multipath TCP."""
    _connect(_opened(host, socket.SOCK_STREAM, MPTCP), _address(host, port))


def udplite(host: str, port: str) -> None:
    """UDP-Lite, which no connect hook sees."""
    _connect(_opened(host, socket.SOCK_DGRAM, UDPLITE), _address(host, port))


def sendto(host: str, port: str) -> None:
    """An addressed datagram."""
    _opened(host, socket.SOCK_DGRAM).sendto(LEAVING, _address(host, port))


def sendmsg(host: str, port: str) -> None:
    """The same by sendmsg(2)."""
    _opened(host, socket.SOCK_DGRAM).sendmsg([LEAVING], [], 0, _address(host, port))


def sendmmsg(host: str, port: str, other_host: str, other_port: str) -> None:
    """Two datagrams in one call, the second to the other address."""
    peer = _opened(host, socket.SOCK_DGRAM)
    peer.settimeout(None)
    addresses = [_address(host, port), _address(other_host, other_port)]
    sent = send_many(peer, LEAVING, addresses)
    if sent == 1:  # the kernel tells the second one's error only to who sends it again
        send_many(peer, LEAVING, addresses[1:])


def elsewhere(host: str, port: str, other_host: str, other_port: str) -> None:
    """Connected to one address, sent to another."""
    peer = _opened(host, socket.SOCK_DGRAM)
    peer.connect(_address(host, port))
    peer.sendto(LEAVING, _address(other_host, other_port))


def reconnect(host: str, port: str, other_host: str, other_port: str) -> None:
    """Connected to one address, then to another."""
    peer = _opened(host, socket.SOCK_DGRAM)
    peer.connect(_address(host, port))
    _connect(peer, _address(other_host, other_port))


def fastopen(host: str, port: str) -> None:
    """TCP fast open: no connect(2)."""
    peer = _opened(host, socket.SOCK_STREAM)
    peer.settimeout(None)
    peer.sendto(LEAVING, socket.MSG_FASTOPEN, _address(host, port))


def fastopen_connect(host: str, port: str) -> None:
    """The same by a socket option."""
    peer = _opened(host, socket.SOCK_STREAM)
    peer.setsockopt(socket.IPPROTO_TCP, FASTOPEN_CONNECT, 1)
    _connect(peer, _address(host, port))


def in_thread(host: str, port: str) -> None:
    """TCP in a thread."""
    _threaded(tcp, host, port)


def listen(host: str, port: str) -> None:
    """Listen, and say so once the port is ours."""
    server = _opened(host, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(_address(host, port))
    server.listen()
    os.write(1, b"listening")


def unix(path: str) -> None:
    """Connect to a unix socket by its path, or by @name, and send."""
    _unix(socket.SOCK_STREAM, path).sendall(LEAVING)


def unix_datagram(path: str) -> None:
    """An addressed datagram to a unix socket."""
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(LEAVING, _unix_name(path))


def unix_datagram_connected(path: str) -> None:
    """The same, connected."""
    _unix(socket.SOCK_DGRAM, path).send(LEAVING)


def unix_relative(folder: str, name: str) -> None:
    """The same socket by a relative name, from a changed directory."""
    os.chdir(folder)
    unix(name)


def unix_link(path: str, link: str) -> None:
    """The same socket by a symlink that we make."""
    os.symlink(path, link)
    unix(link)


def unix_listen(path: str) -> None:
    """Listen at a path, or at @name."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(_unix_name(path))
    server.listen()
    os.write(1, b"listening")


def _unix(kind: int, path: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, kind)
    peer.settimeout(PATIENCE_S)
    peer.connect(_unix_name(path))
    return peer


def _unix_name(path: str) -> str:
    return f"\0{path[1:]}" if path.startswith("@") else path


def raw(host: str) -> None:
    """An ICMP echo through a raw socket."""
    _opened(host, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(b"\x08\0" + bytes(6), (host, 0))
    os.write(1, b"sent")


def ping(host: str) -> None:
    """The same through a ping socket, which needs no privilege where net.ipv4.ping_group_range allows it."""
    _opened(host, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).sendto(b"\x08\0" + bytes(6), (host, 0))
    os.write(1, b"sent")


def packet() -> None:
    """A frame through a packet socket."""
    peer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_ALL))
    peer.bind((_NULL_INTERFACE, 0))
    peer.send(bytes(12) + b"\x88\xb5" + LEAVING)
    os.write(1, b"sent")


def netlink_route() -> None:
    """What `ip link` asks: netlink that isn't raw is nobody's way out."""
    peer = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    peer.send(_NETLINK_GETLINK)
    if len(peer.recv(65536)) > 16:  # a header alone would be an error
        os.write(1, b"answered")


def vsock() -> None:
    """A socket of the family between host and guests."""
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as peer:
        peer.settimeout(1)
        _tell_unreachable(lambda: peer.connect((1, 9)))


def family(number: str, kind: str, protocol: str = "0") -> None:
    """A socket of any family."""
    socket.socket(int(number), int(kind), int(protocol)).close()
    os.write(1, b"opened")


def _tell_unreachable(connect: Callable[[], Any]) -> None:
    """Whether it is let through shows in which error comes: from the stack, not from a guard."""
    try:
        connect()
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise
    os.write(1, b"tried")


def _threaded(act: Callable[..., None], *arguments: str) -> None:
    refused: list[OSError] = []

    def work() -> None:
        try:
            act(*arguments)
        except OSError as error:
            refused.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if refused:
        raise refused[0]


ACTS = {
    "tcp": tcp, "udp": udp, "mptcp": mptcp, "udplite": udplite, "sendto": sendto, "sendmsg": sendmsg,
    "sendmmsg": sendmmsg, "elsewhere": elsewhere, "reconnect": reconnect, "fastopen": fastopen,
    "fastopen_connect": fastopen_connect, "in_thread": in_thread, "listen": listen, "unix": unix,
    "unix_datagram": unix_datagram, "unix_datagram_connected": unix_datagram_connected,
    "unix_relative": unix_relative, "unix_link": unix_link, "unix_listen": unix_listen, "raw": raw, "ping": ping,
    "packet": packet, "netlink_route": netlink_route, "vsock": vsock, "family": family,
}  # fmt: skip
