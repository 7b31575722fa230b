"""The short-lived process that compiles, loads, attaches and pins, so that the daemon never carries LLVM in memory.

``python -m hostwarden.probes.loader`` reads a job (JSON) on stdin and writes a result (JSON, one line) on stdout:
``{"ok": true, …}`` or ``{"ok": false, "error": …, "hint": …}``. It never half-enforces: everything is loaded before
anything is attached, everything attached is counted, and on failure what was pinned is taken away again.

bcc may call exit() itself and prints on stderr: both stay in this process.
"""

import ctypes
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostwarden.probes import bpf, headers, kfuncs, layout, link, objects, programs, source
from hostwarden.probes.programs import MAPS, Program

BPF_F_NO_PREALLOC = 1


class LoadError(Exception):
    """What could not be done, and a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Job:
    """``defines`` are the words and the rings' sizes as -D flags; ``tiers`` those whose programs are wanted."""

    bpffs: Path
    cgroup: Path
    cache: Path
    defines: Mapping[str, int]
    tiers: tuple[str, ...]


def tables(pages: Mapping[str, int]) -> dict[str, int]:
    """The maps of maps and the rings (``pages`` of 4 KiB each), by name: their descriptors."""
    slots = 2 * layout.SIZES["MAX_PROFILES"]
    automata = slots * layout.SIZES["AUTOMATA_A_PROFILE"]
    made = {
        "profiles": _map_of_maps("profiles", slots, bpf.MapType.ARRAY, 4, layout.profile_size(), 1),
        "automata": _map_of_maps("automata", automata, bpf.MapType.ARRAY, 4, layout.automaton_size(), 1),
        "nets": _map_of_maps(
            "nets",
            slots,
            bpf.MapType.LPM_TRIE,
            layout.NET_KEY.size,
            layout.NET_VALUE_ACTIONS * layout.DECISION.size,
            layout.SIZES["NET_ENTRIES"],
            BPF_F_NO_PREALLOC,
        ),
    } | {name: bpf.map_create(bpf.MapType.RINGBUF, 0, 0, size * 4096, name) for name, size in pages.items()}
    made["free"] = bpf.map_create(bpf.MapType.STACK, 0, 4, layout.SIZES["SCRATCHES"], "free")
    for slot in range(layout.SIZES["SCRATCHES"]):
        bpf.push(made["free"], slot.to_bytes(4, "little"))
    return made


def _map_of_maps(name: str, slots: int, kind: bpf.MapType, key: int, value: int, entries: int, flags: int = 0) -> int:
    template = bpf.map_create(kind, key, value, entries, name, flags=flags)
    try:
        return bpf.map_create(bpf.MapType.ARRAY_OF_MAPS, 4, 4, slots, name, inner=template)
    finally:
        os.close(template)


def load(job: Job) -> dict[str, Any]:
    """Compile (or have it from the cache), load all, pin the maps, attach and pin all. Raises LoadError."""
    tree = headers.tree(job.cache)
    made = objects.get(tree, job.cache, objects.flags(tree, job.defines, job.tiers))
    maps = {name: made.maps[name].create(name) for name in MAPS}
    maps |= tables({name: job.defines[f"{name.upper()}_PAGES"] for name in ("denials", "events")})
    wanted = [program for program in programs.of(job.tiers) if not program.is_optional or _btf_id(program) > 0]
    loaded = {program.name: _load_program(made, program, maps) for program in wanted}
    pinned: list[Path] = []
    try:
        for name, fd in maps.items():
            _pin(fd, job.bpffs / f"map_{name}", pinned)
        for name, fd in loaded.items():
            _pin(fd, job.bpffs / f"prog_{name}", pinned)
        for program in wanted:
            if program.is_standing:
                _pin(_attach(program, loaded[program.name], job.cgroup), job.bpffs / f"link_{program.name}", pinned)
    except (OSError, LoadError):
        for path in reversed(pinned):
            path.unlink(missing_ok=True)
        raise
    return {"ok": True, "attached": len(wanted), "digest": source.digest(job.defines)}


def _load_program(made: objects.Object, program: Program, maps: Mapping[str, int]) -> int:
    linked = link.link(program.function, lambda name: kfuncs.bind(made.bound(name, maps)))
    code = bpf.Code(linked.instructions)
    if len(linked.functions) > 1:
        parts = tuple((first, link.FIRST_FUNC + n) for n, (first, _) in enumerate(linked.functions))
        code = bpf.Code(linked.instructions, link.btf_of(linked), parts)
    flags = bpf.BPF_F_SLEEPABLE if program.is_sleepable else 0
    hook = _btf_id(program, must=True)
    try:
        return bpf.prog_load(code, program.name, program.kind, program.attach_type, hook, flags=flags)
    except bpf.VerifierError as error:
        print(error.log, file=sys.stderr)
        raise LoadError(str(error), "the verifier's last words are in the daemon's log") from error
    finally:
        if code.btf:
            os.close(code.btf)


def _btf_id(program: Program, *, must: bool = False) -> int:
    """Where the program is attached to, as the kernel's BTF numbers it; 0 for cgroup programs, or if it has no such
    hook.
    """
    if program.is_cgroup:
        return 0
    name = program.hook.removeprefix("bpf_lsm_") if program.kind is bpf.ProgramType.LSM else program.hook
    number: int = ctypes.CDLL("libbpf.so.1").libbpf_find_vmlinux_btf_id(name.encode(), program.attach_type)
    if number <= 0 and must:
        raise LoadError(f"this kernel has no {program.hook}", "it is older than 6.1, or built without what is needed")
    return max(number, 0)


def _attach(program: Program, fd: int, cgroup: Path) -> int:
    if not program.is_cgroup:
        return bpf.attach_in_kernel(fd)
    folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return bpf.attach_cgroup(fd, folder, program.attach_type)
    except PermissionError as error:
        raise LoadError(
            f"attaching {program.name} to {cgroup} is refused: a program that lets no other beside it stands there",
            "`bpftool cgroup tree` names it",
        ) from error
    finally:
        os.close(folder)


def _pin(fd: int, path: Path, pinned: list[Path]) -> None:
    bpf.pin(fd, path)
    pinned.append(path)


def main() -> int:
    """The loader's process: see the module's docstring."""
    raw = json.load(sys.stdin)
    job = Job(Path(raw["bpffs"]), Path(raw["cgroup"]), Path(raw["cache"]), raw["defines"], tuple(raw["tiers"]))
    result: dict[str, Any]
    try:
        result = load(job)
    except (LoadError, headers.HeadersError, objects.CompileError) as error:
        result = {"ok": False, "error": str(error), "hint": getattr(error, "hint", "")}
    except OSError as error:
        result = {"ok": False, "error": error.strerror or str(error), "hint": ""}
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
