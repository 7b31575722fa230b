"""Attempts of the member, as member.c is told of them, and what came of each."""

import os
import struct
from dataclasses import dataclass

from hostwarden.policy.places import host_paths
from hostwarden.policy.tables import Place
from hostwarden.probes import layout

REQUEST = struct.Struct("<BBHIII")  # op way length flags uid folder
REPLY = struct.Struct("<iIQQI4x")  # result pid from until folders


@dataclass(frozen=True)
class Location:
    """A folder that attempts are relative to, and what the host's mount table says of its file system.

    ``below`` is the folder as seen from its superblock's root; ``row`` None: the kernel knows no host path. ``crossed``
    isn't 0 where the file system was mounted after the tables were made: the kernel then walks through so many mounts,
    and finds the host path.
    """

    name: str
    index: int
    below: bytes
    row: int | None
    places: tuple[Place, ...]
    crossed: int = 0

    def relative(self, path: bytes) -> bytes:
        """What the kernel rebuilds: the path from the superblock's root (through mounts: from the host's)."""
        return self.below + b"/" + path if path else self.below

    def names(self, path: bytes) -> list[bytes]:
        """Every host path of the file; none if no place shows it."""
        return host_paths(self.relative(path), self.places)


# Made before: what each op needs to be there, or not; the second letter is about a second path.
NEEDS = {
    "o": "m", "x": "m", "n": "", "u": "m", "d": "f", "s": "f", "k": "f", "v": "mf", "h": "mf", "c": "m", "w": "m",
    "t": "m", "a": "m", "p": "m",
}  # fmt: skip
FOLDER = 1  # `way` of u and v: it is a folder
EXCHANGE = 2  # `flags` of v: RENAME_EXCHANGE


@dataclass(frozen=True)
class Try:
    """One attempt. ``op`` is member.c's: o(pen), x (execute), n(et), or u(nlink), d (mkdir), s(ymlink), k (mknod),
    v (rename), h (hard link), c(hmod), w (chown), t(runcate), a (setxattr), p (map executable); ``payload``: path, path
    and argv, two paths, or an address.
    """

    op: str
    location: Location
    payload: bytes
    flags: int = 0
    uid: int = 0
    way: int = 0

    @property
    def paths(self) -> list[bytes]:
        """What is acted on; of a rename or a link also the new name."""
        return self.payload.split(b"\0")[: len(NEEDS[self.op])]

    def pack(self, op: str = "", payload: bytes | None = None) -> bytes:
        """As member.c reads it."""
        body = self.payload if payload is None else payload
        head = REQUEST.pack(ord(op or self.op), self.way, len(body), self.flags, self.uid, self.location.index)
        return head + body

    def needs(self, file: str) -> list[bytes]:
        """Requests for what must be there before; ``file`` is what a file is made of: `m`, or `l` for a program."""
        needs = NEEDS[self.op]
        if self.op == "o" and self.flags & os.O_CREAT:
            needs = "f"
        elif self.op in "uv" and self.way == FOLDER:
            needs = "D" + needs[1:]
        if self.op == "v" and self.flags & EXCHANGE:
            needs = 2 * needs[0]
        letters = (file if need == "m" else need for need in needs)
        return [self.pack(letter, path) for letter, path in zip(letters, self.paths, strict=True)]


@dataclass(frozen=True)
class Seen:
    """An event as the ring had it: header, path, argv, script's path."""

    head: layout.Event
    path: bytes
    argv: bytes
    script: bytes

    @classmethod
    def of(cls, raw: bytes) -> "Seen":
        """Unpack one."""
        head = layout.Event(*layout.EVENT.unpack_from(raw))
        texts, at = [], layout.EVENT_HEADER
        for length in (head.path_length, head.argv_length, head.script_length):
            texts.append(raw[at : at + length])
            at += length
        return cls(head, *texts)


@dataclass(frozen=True)
class Found:
    """An attempt that the kernel decided; ``result`` is member.c's, ``folders`` has a bit for each name of a folder."""

    made: Try
    result: int
    seen: Seen
    folders: int = 0


def must_be_seen(each: Try, result: int) -> bool:
    """Whether the kernel must have decided this attempt: what succeeds, and what it refuses; net always, but a datagram
    to port 0 fails before any hook (net/ipv4/udp.c, net/ipv6/udp.c).
    """
    if each.op == "n":
        return not (each.payload[16:18] == b"\0\0" and each.way & 7 not in (0, 1, 4))
    return result >= 0
