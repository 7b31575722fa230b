"""The C as compiled: instructions that name their maps, and what the maps are. Kept in the cache, for compiling takes
seconds (and an emulated guest a minute), and nothing of it is needed when neither the C nor the kernel has changed.

bcc compiles, opens the maps that the C declares, and puts their descriptors into the instructions; here each becomes a
name again. `link.py` puts descriptors in where the programs are loaded.
"""

import base64
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hostwarden.probes import bpf, headers, kfuncs, layout, link, source
from hostwarden.probes.programs import CALLBACKS, FUNCTIONS, MAPS, PROGRAMS, REFUSING, TABLES

PSEUDO_MAP_FD = 1 << 4
TABLE_STAND_IN = 0x7FFD0000  # the first of TABLES; no process has so many descriptors
FORMAT = "1"


class CompileError(Exception):
    """The probes don't compile: one line and a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class MapSpec:
    """What a map is made with; ``kind`` is enum bpf_map_type."""

    kind: int
    key_size: int
    value_size: int
    entries: int
    flags: int

    def create(self, name: str) -> int:
        """A new map; its descriptor."""
        kind = bpf.MapType(self.kind)
        return bpf.map_create(kind, self.key_size, self.value_size, self.entries, name, flags=self.flags)


@dataclass(frozen=True)
class Object:
    """``code``: instructions by function; ``maps``: those that the C declares."""

    code: Mapping[str, bytes]
    sites: Mapping[str, tuple[tuple[int, str], ...]]  # by function: byte offset of an instruction, name of its map
    maps: Mapping[str, MapSpec]

    def bound(self, name: str, descriptors: Mapping[str, int]) -> bytes:
        """A function's instructions with these maps in them."""
        text = bytearray(self.code[name])
        for at, map_name in self.sites[name]:
            struct.pack_into("<i", text, at + 4, descriptors[map_name])
        return bytes(text)

    def to_json(self) -> bytes:
        """For the cache."""
        return json.dumps(
            {
                "code": {name: base64.b85encode(code).decode() for name, code in self.code.items()},
                "sites": self.sites,
                "maps": {name: asdict(spec) for name, spec in self.maps.items()},
            }
        ).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> "Object":
        """From the cache. Raises ValueError, KeyError, TypeError."""
        found = json.loads(raw)
        return cls(
            {name: base64.b85decode(code) for name, code in found["code"].items()},
            {name: tuple((at, map_name) for at, map_name in sites) for name, sites in found["sites"].items()},
            {name: MapSpec(**spec) for name, spec in found["maps"].items()},
        )


def flags(tree: Path, defines: Mapping[str, int], tiers: Collection[str], btf: Path = headers.BTF) -> dict[str, int]:
    """All -D flags: ``defines`` (words, sizes of rings), and what follows from kernel, tiers and our own tables."""
    tables = {f"FD_{name.upper()}": TABLE_STAND_IN + number for number, name in enumerate(TABLES)}
    # Before 6.9 the LSM hook had no mount mapping before the dentry; security_inode_setattr has had one for longer.
    late = kfuncs.parameters("bpf_lsm_inode_setattr", btf) == 3 or "modify_return" in tiers
    kernel = kfuncs.defines(btf) | headers.defines(tree) | {"SETATTR_DENTRY": int(late)}
    return dict(defines) | layout.SIZES | link.defines() | tables | kernel | tier_flags(tiers, defines)


def tier_flags(tiers: Collection[str], defines: Mapping[str, int]) -> dict[str, int]:
    """Under which tier the hooks and exec's programs record what they do; ``defines`` has the words."""
    best = next((tier for tier in REFUSING if tier in tiers), "")
    number = defines[f"TIER_{(best or 'signal').upper()}"]
    return {"TIER_HOOKS": number, "TIER_EXEC": number} | ({"REFUSING_TIER": 1} if best else {})


def get(tree: Path, cache: Path, defines: Mapping[str, int]) -> Object:
    """Compiled for the kernel whose headers ``tree`` has, with these flags (`flags`); from ``cache`` where it is there.

    Raises CompileError.
    """
    made_of = FORMAT + tree.name + source.digest(defines)
    kept = cache / f"probes-{hashlib.sha256(made_of.encode()).hexdigest()[:24]}.json"
    known = _read(kept)
    if known is None:
        known = _compile(tree, defines)
        _write(kept, known)
    return known


def _read(path: Path) -> Object | None:
    """Only what nobody but us could have written: these programs run in the kernel."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
                return None
            return Object.from_json(file.read())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, made: Object) -> None:
    """A cache that can't be written costs time, nothing else."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(made.to_json())
        Path(file.name).rename(path)
    except OSError:
        return


def _compile(tree: Path, defines: Mapping[str, int]) -> Object:
    try:
        from bcc import BPF, lib
    except ImportError as error:
        hint = "apt install python3-bpfcc, and make the venv with --system-site-packages"
        raise CompileError("bcc isn't installed", hint) from error
    os.environ["BCC_KERNEL_SOURCE"] = str(tree)
    # No warnings: vmlinux.h makes thousands that nobody can mend.
    cflags = ["-w", *(f"-D{name}={value}" for name, value in defines.items())]
    try:
        module = BPF(text=source.text(), cflags=cflags)
    except Exception as error:
        raise CompileError("the probes don't compile on this kernel (the compiler's words are above)") from error
    names = {lib.bpf_table_fd(module.module, name.encode()): name for name in MAPS}
    names |= {TABLE_STAND_IN + number: name for number, name in enumerate(TABLES)}
    wanted = {program.function for program in PROGRAMS} | set(CALLBACKS) | set(FUNCTIONS)
    code = {name: _dump(module, name) for name in sorted(wanted)}
    there = {name: found for name, found in code.items() if found is not None}
    sites = {name: _sites(found, names) for name, found in there.items()}
    specs = {name: _spec(lib, module.module, name.encode()) for name in MAPS}
    return Object(there, sites, specs)


def _dump(module: Any, name: str) -> bytes | None:
    """None: a function of tiers that these flags leave out."""
    try:
        return bytes(module.dump_func(name.encode()))
    except Exception:  # noqa: BLE001 (bcc raises nothing narrower; a name that is missed is said when it is linked)
        return None


def _spec(lib: Any, module: Any, name: bytes) -> MapSpec:
    number = lib.bpf_table_id(module, name)
    return MapSpec(
        lib.bpf_table_type_id(module, number),
        lib.bpf_table_key_size_id(module, number),
        lib.bpf_table_leaf_size_id(module, number),
        lib.bpf_table_max_entries_id(module, number),
        lib.bpf_table_flags_id(module, number),
    )


def _sites(code: bytes, names: Mapping[int, str]) -> tuple[tuple[int, str], ...]:
    found, at = [], 0
    while at < len(code):
        opcode, registers, _, low = link.INSTRUCTION.unpack_from(code, at)
        if opcode == link.LOAD_64:
            if registers & 0xF0 == PSEUDO_MAP_FD:
                found.append((at, names[low]))
            at += link.INSTRUCTION.size
        at += link.INSTRUCTION.size
    return tuple(found)
