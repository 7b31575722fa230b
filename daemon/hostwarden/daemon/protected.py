"""Files that a policy protects, by inode: so that another name (a hard link) is the same file to the kernel.

A path rule sees the name that was opened. A file with several names is looked up by inode as well, in a table made from
the files that exist when the tables are made: those that a deny or kill rule names. Globs are followed on the file
system as far as bounds allow; a glob that begins with ``**`` would mean scanning everything and is left out, which
`doctor` says. Making a hard link becomes an action of its own with the `lsm` tier.
"""

import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hostwarden.policy.globs import DEEP, Component, OneOf, PathGlob
from hostwarden.policy.match import match_path
from hostwarden.policy.model import Policy
from hostwarden.policy.words import Verdict

MAX_FILES = 16384  # of one profile
MAX_ENTRIES = 200_000  # directory entries looked at
MAX_SECONDS = 2.0
MAX_DEPTH = 32


@dataclass(frozen=True)
class File:
    """A protected file as the host sees it."""

    path: bytes
    dev: int  # major << 20 | minor
    inode: int


@dataclass
class Scan:
    """What was found; ``skipped`` names the globs that were not (wholly) followed."""

    files: list[File]
    skipped: list[str]


def scan(policies: Sequence[Policy]) -> Scan:
    """The regular files that deny and kill rules of ``policies`` name now."""
    found = Scan([], [])
    budget = _Budget(time.monotonic() + MAX_SECONDS)
    seen: set[tuple[int, int]] = set()
    for policy in policies:
        for rule in policy.rules:
            if rule.verdict < Verdict.DENY:
                continue
            for pattern in rule.path or ():
                for glob in pattern.globs:
                    if not glob.components or glob.components[0] is DEEP:
                        found.skipped.append(pattern.text)
                        continue
                    for file in _files(glob, budget):
                        if (file.dev, file.inode) not in seen and len(found.files) < MAX_FILES:
                            seen.add((file.dev, file.inode))
                            found.files.append(file)
                    if budget.is_spent:
                        found.skipped.append(pattern.text)
    return found


@dataclass
class _Budget:
    ends: float
    entries: int = MAX_ENTRIES

    @property
    def is_spent(self) -> bool:
        return self.entries <= 0 or time.monotonic() > self.ends


def _files(glob: PathGlob, budget: _Budget) -> Iterator[File]:
    for path in _expand(b"", glob.components, budget, 0):
        if not match_path(glob, path):
            continue
        try:
            status = os.lstat(path)
        except OSError:
            continue  # gone since, or not ours to see
        if stat.S_ISREG(status.st_mode):
            yield File(path, os.major(status.st_dev) << 20 | os.minor(status.st_dev), status.st_ino)


def _expand(base: bytes, components: Sequence[Component], budget: _Budget, depth: int) -> Iterator[bytes]:
    if budget.is_spent or depth > MAX_DEPTH:
        return
    if not components:
        yield base
        return
    first, rest = components[0], components[1:]
    if first is DEEP:  # everything below, and the thing itself: the caller matches the whole glob
        yield base
        for name, is_folder in _entries(base, budget):
            path = base + b"/" + name
            yield from _expand(path, components, budget, depth + 1) if is_folder else (path,)
        return
    assert isinstance(first, tuple)
    literal = _literal(first)
    if literal is not None:
        yield from _expand(base + b"/" + literal, rest, budget, depth + 1)
        return
    alone = PathGlob((first,))
    for name, is_folder in _entries(base, budget):
        if match_path(alone, b"/" + name) and (is_folder or not rest):
            yield from _expand(base + b"/" + name, rest, budget, depth + 1)


def _literal(nodes: Sequence[object]) -> bytes | None:
    literal = bytearray()
    for node in nodes:
        if not isinstance(node, OneOf) or len(node.bytes) != 1:
            return None
        literal.append(next(iter(node.bytes)))
    return bytes(literal)


def _entries(folder: bytes, budget: _Budget) -> list[tuple[bytes, bool]]:
    try:
        with os.scandir(folder or b"/") as entries:
            found = []
            for entry in entries:
                budget.entries -= 1
                if budget.is_spent:
                    break
                found.append((entry.name, entry.is_dir(follow_symlinks=False)))
            return found
    except OSError:
        return []
