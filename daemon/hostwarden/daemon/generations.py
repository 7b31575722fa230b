"""Policies in force: compiled beside the old ones, put into the bank that nobody looks at, switched to in one step.

A generation is a number; its lowest bit is the bank of tables. Every label set that agents have owns one profile number
for good, so that a generation switch needs no change to any agent. What a record needs of a generation (which reason
has which number, which row is which file system) is kept for the last few, on disk too: events in the ring may be older
than the tables in force, and older than the daemon.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from hostwarden.daemon import kerneltables
from hostwarden.daemon.builtin import enforced
from hostwarden.daemon.mounts import Superblock, SuperblockAt, fresh_rows
from hostwarden.daemon.protected import Scan, scan
from hostwarden.policy.compile import CompileError, compile_profile
from hostwarden.policy.model import Policy
from hostwarden.policy.oracle import applicable, record_mode
from hostwarden.policy.places import host_paths
from hostwarden.policy.tables import Place, Profile, Reason
from hostwarden.policy.words import Mode, Verdict
from hostwarden.probes import bpf, layout
from hostwarden.probes.pins import Kernel

log = logging.getLogger("hostwardend")
Labels = frozenset[tuple[str, str]]
Lineage = tuple[Labels, ...]  # an agent's own labels, then those of the agent that started it, and so on
HOST_ROW = (Place(b"", b""),)  # paths that are already the host's
FIRST_PROFILE = 2  # 0 is the proof's, 1 the selectors'
NO_PROFILE = layout.SIZES["MAX_PROFILES"] - 1  # never has tables: whoever has this number is refused everything
LARGE_STATES = 1000  # of a profile: what has more isn't kept in memory once it is in the kernel
KEPT = 8  # generations whose reasons are remembered


class PolicyProblem(Exception):
    """The policies can't be put in force; the message says which and why. What was in force stays."""


@dataclass(frozen=True)
class Generation:
    """What a record needs to know of the tables that decided."""

    number: int
    reasons: Mapping[int, Sequence[Reason]]  # by profile number
    rows: Sequence[Sequence[Place]]  # by row of start states; row 0 is @private
    made_of: str = ""  # fingerprint of the pool

    def reason(self, profile: int, index: int) -> Reason:
        """Why; an unknown number gives "no policy spoke"."""
        reasons = self.reasons.get(profile, ())
        return reasons[index] if index < len(reasons) else Reason()

    def show(self, row: int, path: bytes) -> bytes | None:
        """The host path of a path below a superblock's root; None if no place shows it."""
        if not 0 < row < len(self.rows):
            return None
        names = host_paths(path, self.rows[row])
        return min(names, key=len) if names else None


@dataclass
class Pool:
    """Everything that the next generation is made of."""

    policies: tuple[Policy, ...] = ()
    builtin: tuple[Policy, ...] = ()  # of every agent
    proof: tuple[Policy, ...] = ()
    selectors: tuple[Policy, ...] = ()
    superblocks: tuple[Superblock, ...] = ()
    addresses: Mapping[int, SuperblockAt] = field(default_factory=dict)  # by dev
    profiles: dict[Lineage, int] = field(default_factory=dict)  # → profile number

    def policies_of(self, lineage: Lineage) -> tuple[Policy, ...]:
        """What binds an agent: its own policies and those of every ancestor agent, in the order of the files."""
        chosen = {id(policy) for labels in lineage for policy in applicable(self.policies, dict(labels))}
        return tuple(policy for policy in self.policies if id(policy) in chosen)

    def fingerprint(self) -> str:
        """Of everything that the tables are made from."""
        made_of = [
            *(
                f"{policy.name}:{policy.digest}"
                for policy in (*self.policies, *self.builtin, *self.proof, *self.selectors)
            ),
            repr(sorted((sorted(map(sorted, lineage)), number) for lineage, number in self.profiles.items())),
            repr(self.superblocks),
            repr(sorted(self.addresses.items())),
        ]
        return hashlib.sha256("\n".join(made_of).encode()).hexdigest()


class Generations:
    """The tables in the kernel. One caller at a time (the warden's lock)."""

    def __init__(self, kernel: Kernel, state_dir: Path) -> None:
        self._kernel = kernel
        self._folder = state_dir / "generations"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._known: dict[int, Generation] = {}
        self._unsaved: set[int] = set()  # numbers that the disk had no space for
        self._is_said = False
        self._compiled: dict[tuple[str, ...], Profile] = {}  # small ones, for the next agent under the same policies
        self._states: dict[tuple[str, ...], int] = {}
        self._scans: dict[tuple[str, ...], Scan] = {}
        self.pool = Pool()
        for path in self._folder.glob("*.json"):
            generation = _read(path)
            if generation:
                self._known[generation.number] = generation
        # Numbers are never used twice: events of an earlier boot's tables must not find the reasons of this one's.
        self.number = kernel.control().generation or max(self._known, default=0)

    def reason(self, generation: int, profile: int, index: int) -> Reason:
        """Why a verdict came about."""
        known = self._known.get(generation)
        return known.reason(profile, index) if known else Reason()

    def show(self, generation: int, row: int, dev: int, path: bytes) -> bytes:
        """The host path of a path below a superblock's root; of one that no place shows, the path with its device."""
        known = self._known.get(generation)
        shown = known.show(row, path) if known else None
        return b"@device/%d:%d%b" % (dev >> 20, dev & 0xFFFFF, path) if shown is None else shown or b"/"

    @property
    def states(self) -> int:
        """States of all automata in force."""
        return sum(self._states.values())

    @property
    def skipped(self) -> list[str]:
        """Globs whose files could not be looked for (hard links, see protected.py)."""
        return sorted({text for scanned in self._scans.values() for text in scanned.skipped})

    def profile_of(self, lineage: Lineage) -> int:
        """The profile number of a lineage; made and compiled into the bank in force if it is new.

        Raises PolicyProblem.
        """
        if lineage in self.pool.profiles:
            return self.pool.profiles[lineage]
        number = self._free_number()
        policies = self.pool.policies_of(lineage)
        profile = self._compile(policies, self.pool.builtin)
        self._install(self.number & 1, number, profile, policies)
        self.pool.profiles[lineage] = number
        now = self._known[self.number]
        reasons = {**now.reasons, number: profile.reasons}
        self._remember(replace(now, reasons=reasons, made_of=self.pool.fingerprint()))
        return number

    def _free_number(self) -> int:
        """A profile number that nobody had in this generation: events of who had it before name its reasons by it.

        When all have been had, those that are free begin anew with a new generation. Raises PolicyProblem.
        """
        numbers = range(FIRST_PROFILE, NO_PROFILE)
        used = set(self.pool.profiles.values())
        if used.issuperset(numbers):
            raise PolicyProblem(f"more than {len(used)} different sets of labels at once: use fewer")
        if self._known[self.number].reasons.keys() >= set(numbers):
            self.switch(self.pool)
            self.forget_old()
        return next(n for n in numbers if n not in self._known[self.number].reasons)

    def is_in_force(self, pool: Pool) -> bool:
        """Whether the tables in the kernel were made of just this: a daemon that starts again has nothing to do."""
        known = self._known.get(self.number)
        in_kernel = self._kernel.control().generation == self.number
        return in_kernel and known is not None and known.made_of == pool.fingerprint()

    def switch(self, pool: Pool) -> int:
        """Compile everything in ``pool``, install it in the idle bank, switch. The new generation's number.

        Raises PolicyProblem; then nothing has changed.
        """
        before = self.pool, self._compiled, self._scans, self._states
        self.pool, self._compiled, self._scans, self._states = pool, {}, {}, {}
        number = self.number + 1
        bank = number & 1
        try:
            wanted = {0: pool.proof, 1: pool.selectors}
            wanted |= {n: pool.policies_of(lineage) for lineage, n in pool.profiles.items()}
            profiles = {
                n: self._compile(policies, pool.builtin if n >= FIRST_PROFILE else ()) for n, policies in wanted.items()
            }
            self._forget_bank(bank)
            self._install_rows(bank)
            for n, profile in profiles.items():
                self._install(bank, n, profile, wanted[n])
        except (PolicyProblem, OSError) as error:
            self.pool, self._compiled, self._scans, self._states = before
            raise PolicyProblem(str(error)) from error
        reasons = {n: profile.reasons for n, profile in profiles.items()}
        self._drop_large()
        self._remember(Generation(number, reasons, self._rows(), pool.fingerprint()))
        control = self._kernel.control()
        self._kernel.set_control(
            replace(control, generation=number, selectors=any(policy.rules for policy in pool.selectors))
        )
        self.number = number
        # Before anybody touches the other bank: a program without its tables would refuse what is allowed.
        kerneltables.wait_for_programs(self._kernel.maps, bank, 0, profiles[0])
        return number

    def forget_old(self) -> None:
        """Free the idle bank's memory, which no program walks any more."""
        self._forget_bank((self.number + 1) & 1)

    # making

    def _rows(self) -> list[Sequence[Place]]:
        return [(), HOST_ROW, *(superblock.places for superblock in self.pool.superblocks)]

    def _compile(self, policies: Sequence[Policy], builtin: Sequence[Policy] = ()) -> Profile:
        key = tuple(f"{policy.name}:{policy.digest}" for policy in (*policies, *builtin))
        if key not in self._compiled:
            try:
                profile = compile_profile((*policies, *builtin), self._rows()[1:])
                # What is recorded, and what can't be judged and is refused, is the business of people's policies.
                self._compiled[key] = replace(
                    profile,
                    record={action: record_mode(policies, action) for action in profile.record},
                    enforced=enforced(policies),
                )
            except CompileError as error:
                names = ", ".join(policy.name for policy in policies)
                raise PolicyProblem(f"policies {names}: {error}") from error
        profile = self._compiled[key]
        self._states[key] = sum(automaton.n_states for automaton in profile.paths)
        return profile

    def _drop_large(self) -> None:
        """What is in the kernel needn't be here as well: 1,000 globs are 7 MB, and a second to compile again."""
        large = [key for key in self._compiled if self._states[key] > LARGE_STATES]
        for key in large:
            del self._compiled[key]

    def _install(self, bank: int, number: int, profile: Profile, policies: Sequence[Policy]) -> None:
        kerneltables.install(self._kernel.maps, bank, number, profile)
        key = tuple(f"{policy.name}:{policy.digest}" for policy in policies)
        if key not in self._scans:
            self._scans[key] = scan(policies)
        rows = {superblock.dev: row for row, superblock in enumerate(self.pool.superblocks, 2)}
        for file in self._scans[key].files:
            known, row = self.pool.addresses.get(file.dev), rows.get(file.dev)
            if known is None or row is None:
                continue
            states = [
                automaton.run(relative, automaton.starts[row][0])
                for automaton in profile.paths
                for relative in [_relative(file.path, self.pool.superblocks[row - 2].places)]
            ]
            states += [0] * (layout.SIZES["MAX_AUTOMATA"] - len(states))
            name = layout.INODE_KEY.pack(known.address, file.inode, number, bank)
            try:
                bpf.update(self._kernel.maps["inodes"], name, layout.INODE_ROW.pack(*states))
            except OSError:  # full: its other names aren't seen, and doctor says so; the path rule holds as ever
                self._scans[key].skipped.append(file.path.decode(errors="backslashreplace"))
                break

    def _install_rows(self, bank: int) -> None:
        maps = self._kernel.maps
        for row, superblock in enumerate(self.pool.superblocks, 2):
            known = self.pool.addresses.get(superblock.dev)
            if known is not None:
                bpf.update(
                    maps["superblocks"],
                    layout.SUPERBLOCK_KEY.pack(known.address, bank),
                    layout.SUPERBLOCK_ROW.pack(known.root, known.magic, row, superblock.dev),
                )
        for magic, row in fresh_rows(self.pool.superblocks).items():
            bpf.update(maps["magics"], layout.SUPERBLOCK_KEY.pack(magic, bank), row.to_bytes(4, "little"))

    def _forget_bank(self, bank: int) -> None:
        maps = self._kernel.maps
        for number in range(layout.SIZES["MAX_PROFILES"]):
            kerneltables.uninstall(maps, bank, number)
        kerneltables.forget_hashes(maps, bank)
        for name in ("superblocks", "magics"):
            for key in bpf.keys(maps[name], layout.SUPERBLOCK_KEY.size):
                if layout.SUPERBLOCK_KEY.unpack(key)[1] == bank:
                    bpf.delete(maps[name], key)
        for key in bpf.keys(maps["inodes"], layout.INODE_KEY.size):
            if layout.INODE_KEY.unpack(key)[3] == bank:
                bpf.delete(maps["inodes"], key)

    # remembering

    def _remember(self, generation: Generation) -> None:
        self._known[generation.number] = generation
        for number in sorted(self._known)[:-KEPT]:
            del self._known[number]
            (self._folder / f"{number}.json").unlink(missing_ok=True)
        self._unsaved.add(generation.number)
        self.save()

    def save(self) -> None:
        """Write what isn't on disk yet. A full disk keeps no policy from being in force: called again now and then."""
        for number in sorted(self._unsaved):
            path = self._folder / f"{number}.json"
            fresh = path.with_suffix(".new")
            try:
                if number in self._known:
                    fresh.write_text(_write(self._known[number]))
                    fresh.rename(path)
            except OSError as error:
                if not self._is_said:
                    log.error("%s: %s; in force, but records after a restart may lack its rules", path, error.strerror)
                self._is_said = True
                with suppress(OSError):
                    fresh.unlink(missing_ok=True)
                return
            self._unsaved.discard(number)
        self._is_said = False


def _relative(path: bytes, places: Sequence[Place]) -> bytes:
    """A host path as seen from its superblock's root: by the longest mount point that holds it."""
    holding = [place for place in places if path == place.mount or path.startswith(place.mount + b"/")]
    place = max(holding, key=lambda place: len(place.mount), default=Place(b"", b""))
    return place.root + path[len(place.mount) :]


def _write(generation: Generation) -> str:
    return json.dumps(
        {
            "number": generation.number,
            "made_of": generation.made_of,
            "reasons": {
                n: [
                    [reason.policy, reason.digest, reason.location, reason.why, reason.verdict, reason.mode]
                    for reason in reasons
                ]
                for n, reasons in generation.reasons.items()
            },
            "rows": [
                [[place.root.decode("latin-1"), place.mount.decode("latin-1")] for place in places]
                for places in generation.rows
            ],
        }
    )


def _read(path: Path) -> Generation | None:
    """A remembered generation; None if it can't be read (its events then lack their reasons, and say so)."""
    try:
        raw = json.loads(path.read_text())
        return Generation(
            raw["number"],
            {
                int(n): [
                    Reason(policy, digest, location, why, Verdict(verdict), Mode(mode))
                    for policy, digest, location, why, verdict, mode in reasons
                ]
                for n, reasons in raw["reasons"].items()
            },
            [[Place(a.encode("latin-1"), b.encode("latin-1")) for a, b in places] for places in raw["rows"]],
            raw["made_of"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
