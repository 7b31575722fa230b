"""What a process holds open when it is adopted: descriptors, and where its sockets lead. For the adoption's record.

Everything is what it was a moment ago: the process runs on. Nothing is asked of the files themselves (a stat(2) of one
on a file server that is gone would not return); names are the kernel's, as our mount namespace sees them.
"""

import os
import time
from collections.abc import Iterator
from typing import Any

from hostwarden.daemon.protect import PROC, read_stat
from hostwarden.policy import address
from hostwarden.records.model import printable

MAX_LISTED = 1000  # entries in the record; sockets come first, so that nobody hides them behind many files
MAX_LOOKED_AT = 65_536  # descriptors whose kind is looked up; what is above only counts
DUMP_S = 5.0  # for the host's tables of sockets: on a host with 100,000 of them one takes about that
_FAMILIES = (2, 10)  # AF_INET, AF_INET6
_PROTOCOLS = (6, 17)  # TCP, UDP
_ACCESS = ("read", "write", "read and write", "neither")  # O_ACCMODE
_O_PATH = 0o10000000
_STATES = {  # include/net/tcp_states.h; a connected UDP socket says "established" as well
    1: "established",
    2: "connecting",
    3: "accepting",
    4: "closing",
    5: "closing",
    6: "closing",
    7: "unconnected",
    8: "closing",
    9: "closing",
    10: "listening",
    11: "closing",
    12: "accepting",
}


def held(pid: int) -> dict[str, Any]:
    """``count`` of open descriptors, at most MAX_LISTED ``descriptors``, and a list of what made it ``incomplete``.

    A descriptor has ``fd`` and ``type`` (path, memfd, pipe, socket, or the kernel's name of an anonymous one, like
    io_uring), its ``target`` and ``access``; a socket also ``protocol``; one of TCP or UDP ``local``, ``remote`` and
    ``state``.
    Threads that have descriptors of their own (unshare(2) with CLONE_FILES) are not looked at.
    """
    incomplete: list[str] = []
    links: list[tuple[int, bytes]] = []
    count = 0
    try:
        for fd in _descriptors(pid):
            count += 1
            if count <= MAX_LOOKED_AT and (link := _link(pid, fd)) is not None:
                links.append((fd, link))
    except OSError as error:
        incomplete.append(f"the descriptors of process {pid} can't be read: {error.strerror}")
    stat = read_stat(pid)
    if stat is None or stat.has_ended:
        incomplete = [f"process {pid} has ended"]
    links.sort(key=lambda each: (not each[1].startswith(b"socket:["), each[0]))
    if count > MAX_LISTED:
        incomplete.append(f"{count} descriptors, of which {MAX_LISTED} are listed")
    entries = [_describe(pid, fd, link) for fd, link in links[:MAX_LISTED]]
    _add_addresses(pid, entries, incomplete)
    return {"count": count, "descriptors": entries, "incomplete": incomplete}


def _descriptors(pid: int) -> Iterator[int]:
    with os.scandir(PROC / str(pid) / "fd") as entries:
        for entry in entries:
            yield int(entry.name)


def _link(pid: int, fd: int) -> bytes | None:
    """What a descriptor is, None if it was closed meanwhile."""
    try:
        return os.readlink(os.fsencode(PROC / str(pid) / "fd" / str(fd)))  # noqa: PTH115 (a Path tidies slashes)
    except OSError:
        return None


def _describe(pid: int, fd: int, link: bytes) -> dict[str, Any]:
    """From the link's text: a path begins with a slash, everything else doesn't."""
    kind, _, rest = link.partition(b":")
    entry: dict[str, Any] = {"fd": fd, "type": "path", "target": printable(link)}
    if link.startswith(b"/memfd:"):
        entry["type"] = "memfd"
    elif not link.startswith(b"/"):
        entry["type"] = printable(rest.strip(b"[]") if kind == b"anon_inode" else kind)
    if entry["type"] == "socket":
        entry["protocol"] = _protocol(pid, fd)
    entry["access"] = _access(pid, fd)
    return entry


def _protocol(pid: int, fd: int) -> str | None:
    """TCP, UDPv6, UNIX-STREAM, NETLINK …: the kernel's name (net/socket.c, sockfs_xattr_get)."""
    try:
        raw = os.getxattr(PROC / str(pid) / "fd" / str(fd), "system.sockprotoname")
    except OSError:
        return None
    return printable(raw.rstrip(b"\0"))


def _access(pid: int, fd: int) -> str | None:
    """How it was opened (man 5 proc_pid_fdinfo)."""
    try:
        for line in (PROC / str(pid) / "fdinfo" / str(fd)).read_bytes().splitlines():
            if line.startswith(b"flags:"):
                flags = int(line.split()[1], 8)
                return "neither" if flags & _O_PATH else _ACCESS[flags & os.O_ACCMODE]
    except OSError:
        return None
    return None


def _add_addresses(pid: int, entries: list[dict[str, Any]], incomplete: list[str]) -> None:
    """``local``, ``remote`` and ``state`` of the IP sockets among the entries, matched by inode."""
    wanted: dict[int, list[dict[str, Any]]] = {}
    for entry in entries:
        inode = entry["target"].removeprefix("socket:[").removesuffix("]")
        if entry["type"] == "socket" and inode.isdecimal():
            wanted.setdefault(int(inode), []).append(entry)
    # Sockets of no IP family have no address here, and without any the tables need not be read.
    if not any(str(entry["protocol"]).startswith(("TCP", "UDP")) for same in wanted.values() for entry in same):
        return
    if not _shares_our_network(pid):
        incomplete.append("other network namespace: where its sockets lead can't be seen from here")
        return
    for message in _sockets(incomplete):
        for entry in wanted.get(message["idiag_inode"], ()):
            entry["local"] = _address(message["idiag_src"], message["idiag_sport"])
            entry["remote"] = _address(message["idiag_dst"], message["idiag_dport"])
            entry["state"] = _STATES.get(message["idiag_state"], "unknown")


def _shares_our_network(pid: int) -> bool:
    try:
        return (PROC / str(pid) / "ns" / "net").readlink() == (PROC / "self" / "ns" / "net").readlink()
    except OSError:
        return False


def _sockets(incomplete: list[str]) -> Iterator[Any]:
    """Our network namespace's TCP and UDP sockets, one message each (man 7 sock_diag)."""
    # Here, not above: it costs a daemon that adopts nothing 12 MB.
    from pyroute2 import DiagSocket
    from pyroute2.netlink import NLM_F_MATCH, NLM_F_REQUEST, NLM_F_ROOT
    from pyroute2.netlink.diag import SOCK_DIAG_BY_FAMILY, SS_ALL, inet_diag_req
    from pyroute2.netlink.exceptions import NetlinkError

    deadline = time.monotonic() + DUMP_S
    try:
        with DiagSocket() as diag:
            diag.bind()
            for family, protocol in ((family, protocol) for family in _FAMILIES for protocol in _PROTOCOLS):
                request = inet_diag_req()
                request["sdiag_family"], request["sdiag_protocol"] = family, protocol
                request["idiag_states"] = SS_ALL
                # Not get_sock_stats(): it keeps them all.
                for message in diag.nlm_request(request, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH):
                    yield message
                    if time.monotonic() > deadline:
                        incomplete.append("the host has too many sockets to find all of the process's among them")
                        return
    except (OSError, NetlinkError) as error:
        incomplete.append(f"where its sockets lead can't be read: {error}")


def _address(text: str, port: int) -> str:
    """As in records: IPv4-mapped IPv6 is IPv4."""
    return address.show(address.packed(text), port)
