"""The kernel's half, adopted if it is pinned already, else loaded by a process that ends again: the best tier first,
and the first that is proven stays.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostwarden.daemon import tiers
from hostwarden.daemon.proofs import Proof
from hostwarden.daemon.tiers import Choice
from hostwarden.policy.words import Action, Tier, Verdict
from hostwarden.probes import pins, source

LOADER = "hostwarden.probes.loader"
LOADER_TIMEOUT_S = 600  # an emulated guest compiles for half a minute, and more under load
NOTE = "digest"  # in state_dir: what the pinned programs were made from, and for which tiers
OFF = "run `hostwardend --off` (agents end their protection), then start again"

Prove = Callable[[pins.Kernel, Tier], list[Proof]]


class AttachError(Exception):
    """The probes can't be had: one line and a hint. The daemon doesn't claim readiness."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Job:
    """Where the kernel's half goes, and what it is made from. ``allowed`` are the tiers of the configuration."""

    bpffs: Path
    cgroup: Path
    cache: Path
    state_dir: Path
    defines: dict[str, int]
    allowed: tuple[Tier, ...] = tuple(Tier)


@dataclass(frozen=True)
class Attached:
    """``adopted``: the pins were there, with everything in them; nothing was compiled, and nothing proven yet."""

    kernel: pins.Kernel
    adopted: bool
    choice: Choice
    proofs: Sequence[Proof] = ()


@dataclass(frozen=True)
class Note:
    """What is remembered beside the pins, so that adopting them needs no guess.

    ``proven`` is false while they are tried: what a daemon that died meanwhile has left is nobody's protection yet.
    """

    digest: str
    first: Tier
    declined: dict[Tier, str] = field(default_factory=dict)
    proven: bool = True

    def write(self, path: Path) -> None:
        """Raises OSError."""
        found = {
            "digest": self.digest,
            "first": str(self.first),
            "declined": {str(tier): why for tier, why in self.declined.items()},
            "proven": self.proven,
        }
        path.write_text(json.dumps(found) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Note | None":
        """None: there is none that we understand."""
        try:
            found: dict[str, Any] = json.loads(path.read_text())
            declined = {Tier[tier.upper()]: str(why) for tier, why in found["declined"].items()}
            return cls(found["digest"], Tier[found["first"].upper()], declined, bool(found["proven"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def attach(job: Job, lock: Callable[[], None], prove: Prove) -> Attached:
    """Adopt or load. ``lock`` is called once the bpffs is there, before anything on it is touched.

    ``prove`` tries what must be refused on what was just loaded; a tier of whose promises nothing is kept makes room
    for the next. Raises AttachError; then nothing new is pinned, and what was pinned still is.
    """
    try:
        pins.mount_bpffs(job.bpffs)
    except pins.BpffsError as error:
        raise AttachError(str(error), "mount one: mount -t bpf bpf /sys/fs/bpf, or choose another bpffs_dir") from error
    lock()
    note = Note.read(job.state_dir / NOTE)
    if note and not note.proven:
        pins.clear(job.bpffs)
    return _load_best(job, prove) if pins.is_empty(job.bpffs) else _adopt(job, note)


def _adopt(job: Job, note: Note | None) -> Attached:
    if note is None or note.digest != source.digest(job.defines):
        raise AttachError(
            f"{job.bpffs} holds the probes of another version or configuration", f"{OFF}; upgrades in place come later"
        )
    choice = Choice(note.first, note.declined)
    if note.first not in job.allowed:
        raise AttachError(f"{job.bpffs} holds probes for the tier {note.first}, which daemon.tiers leaves out", OFF)
    if not pins.is_complete(job.bpffs, choice.names):
        raise AttachError(f"{job.bpffs} holds only a part of our pins", "run `hostwardend --off`, then start again")
    return Attached(_open(job, choice), adopted=True, choice=choice)


def _load_best(job: Job, prove: Prove) -> Attached:
    declined = tiers.left_out(job.allowed)
    wanted = tiers.candidates(job.allowed)
    failure: AttachError | None = None
    for tier in wanted:
        choice = Choice(tier, dict(declined))
        why = tiers.why_not(tier)
        if why is None:
            try:
                attached = _try(job, choice, prove)
            except AttachError as error:
                failure, why = error, f"its programs can't be loaded: {error}"
            else:
                if _is_there(attached.proofs, tier) or tier is wanted[-1]:
                    Note(source.digest(job.defines), tier, dict(declined)).write(job.state_dir / NOTE)
                    return attached
                attached.kernel.close()
                pins.clear(job.bpffs)
                why = "its programs attach, but aren't called: " + "; ".join(_unkept(attached.proofs, tier)[:1])
        declined[tier] = why
    if failure:
        raise failure
    reasons = "; ".join(f"{tier}: {why}" for tier, why in declined.items())
    raise AttachError(f"no tier that daemon.tiers allows can be had here: {reasons}", "allow the tier signal")


def _try(job: Job, choice: Choice, prove: Prove) -> Attached:
    """Load and prove. Raises AttachError, and what ``prove`` raises; nothing of it stays then."""
    Note(source.digest(job.defines), choice.first, dict(choice.declined), proven=False).write(job.state_dir / NOTE)
    _load(job, choice)
    kernel = _open(job, choice)
    try:
        return Attached(kernel, adopted=False, choice=choice, proofs=prove(kernel, choice.first))
    except BaseException:
        kernel.close()
        pins.clear(job.bpffs)
        raise


def _is_there(proofs: Collection[Proof], tier: Tier) -> bool:
    """Whether anything of what a tier promises was seen. A tier that keeps a part of its promises is there, and what is
    missing keeps the daemon from being ready: to go on with a weaker one would hide it.
    """
    return any(proof.proven for proof in proofs if proof.tier is tier)


def _unkept(proofs: Collection[Proof], tier: Tier) -> list[str]:
    return [f"{proof.what}: {proof.seen}" for proof in proofs if proof.tier is tier and not proof.proven]


def _open(job: Job, choice: Choice) -> pins.Kernel:
    return pins.Kernel(job.bpffs, len(Action), len(Verdict), choice.names)


def _load(job: Job, choice: Choice) -> None:
    told = {
        "bpffs": str(job.bpffs),
        "cgroup": str(job.cgroup),
        "cache": str(job.cache),
        "defines": job.defines,
        "tiers": choice.names,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", LOADER],
            input=json.dumps(told),
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
