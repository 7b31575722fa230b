"""The kernel's half, adopted if it is pinned already, else loaded by a process that ends again."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hostwarden.policy.words import Action, Verdict
from hostwarden.probes import pins, source

LOADER = "hostwarden.probes.loader"
LOADER_TIMEOUT_S = 120
DIGEST = "digest"  # in state_dir: what the pinned programs were made from


class AttachError(Exception):
    """The probes can't be had: one line and a hint. The daemon doesn't claim readiness."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Attached:
    """``adopted``: the pins were there, with everything in them; nothing was compiled."""

    kernel: pins.Kernel
    adopted: bool


def attach(
    bpffs: Path, cgroup: Path, cache: Path, state_dir: Path, defines: dict[str, int], lock: Callable[[], None]
) -> Attached:
    """Adopt or load. ``lock`` is called once the bpffs is there, before anything on it is touched.

    Raises AttachError; then nothing new is pinned, and what was pinned still is.
    """
    try:
        pins.mount_bpffs(bpffs)
    except pins.BpffsError as error:
        raise AttachError(str(error), "mount one: mount -t bpf bpf /sys/fs/bpf, or choose another bpffs_dir") from error
    lock()
    digest, note = source.digest(defines), state_dir / DIGEST
    if not pins.is_empty(bpffs):
        known = note.read_text().strip() if note.exists() else ""
        if not pins.is_complete(bpffs):
            raise AttachError(f"{bpffs} holds only a part of our pins", "run `hostwardend --off`, then start again")
        if known != digest:
            raise AttachError(
                f"{bpffs} holds the probes of another version or configuration",
                "run `hostwardend --off` (agents end their protection), then start again; upgrades in place come later",
            )
        return Attached(pins.Kernel(bpffs, len(Action), len(Verdict)), adopted=True)
    _load(bpffs, cgroup, cache, defines)
    note.write_text(digest + "\n")
    return Attached(pins.Kernel(bpffs, len(Action), len(Verdict)), adopted=False)


def _load(bpffs: Path, cgroup: Path, cache: Path, defines: dict[str, int]) -> None:
    job = {"bpffs": str(bpffs), "cgroup": str(cgroup), "cache": str(cache), "defines": defines}
    try:
        done = subprocess.run(
            [sys.executable, "-m", LOADER],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=LOADER_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AttachError(f"loading the probes took more than {LOADER_TIMEOUT_S} s") from error
    print(done.stderr, end="", file=sys.stderr)
    try:
        result = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise AttachError("the loader ended without a word", "its last words are in the log above") from error
    if not result["ok"]:
        raise AttachError(result["error"], result.get("hint", ""))
