"""Follow a log line by line, and name what was changed: not only that a hash is wrong, but which record is to blame.

Every leaf hash is claimed twice: by the bytes of its record, and by the ``prev`` of the next one or the ``head`` of a
checkpoint. The first rule that applies says who is to blame when the two differ:

=====================================================================  ================================================
what is seen                                                           what it means
=====================================================================  ================================================
a signed head differs from the record before it                        that record was changed
the claimant itself is as its own successor claims                     the record before the claimant was changed
the claimant would be, if its ``prev`` were right                      the claimant's ``prev`` was changed
neither                                                                one of the two was: said so
=====================================================================  ================================================

so a broken link waits for one more line (``_suspect``). Then the tree goes on with the hash that the *claim* says,
which is the one that was signed: if the next root fits, nothing else was changed. A single missing record is bridged
the same way; after a larger hole the roots can't be checked any more, while chain and signed heads still are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from hostwarden.records.merkle import Tree, leaf_hash
from hostwarden.records.note import Checkpoint, open_checkpoint, read_unproven
from hostwarden.records.segments import ZERO, origin, parse_checkpoint, parse_record

_MAX_LEAVES = 4096  # leaf hashes that wait for the tree


@dataclass(frozen=True)
class Problem:
    """Something that isn't as it was written. ``sequence``: the record it is about, if it is about one."""

    sequence: int | None
    file: str
    offset: int  # of the line that showed it, bytes
    message: str

    def __str__(self) -> str:
        return f"{self.file}: byte {self.offset}: {self.message}"


class _Record(NamedTuple):
    sequence: int
    line: bytes
    prev: bytes
    digest: bytes
    file: str
    offset: int
    is_blamed: bool


class Chain:
    """The state of a check after some lines. ``file`` is set by the caller when a new segment begins."""

    def __init__(self, log: str, public: bytes | None, report: Callable[[Problem], None]) -> None:
        """``log``: fingerprint of the key that signs; ``public``: the key itself, None if it isn't known."""
        self.log, self.name = log, origin(log)
        self._public, self._report = public, report
        self.file = ""
        self.records = self.checkpoints = 0
        self.expected = 1  # the sequence that the next record has
        self.signed = 0  # size of the last good checkpoint
        self.roots: dict[int, bytes] = {}  # sizes that someone knows a signed root of; gone when it was compared
        self._tree: Tree | None = Tree()  # None: a hole can't be bridged
        self._leaves: list[bytes] = []
        self._last: _Record | None = None  # its leaf waits for a claim
        self._suspect: _Record | None = None  # the record before _last, if the link between them is broken
        self._settled: bytes | None = ZERO  # without _last: leaf hash of the record before; None: not known
        self._checkpoint: bytes | None = ZERO  # SHA-256 of the last checkpoint line; None: it was bad
        self._unreadable: tuple[str, int] | None = None  # where a line is that may once have been record `expected`
        self._is_astray = False  # the last record was out of place
        self._offset = 0  # of the last record

    @property
    def head(self) -> bytes | None:
        """Leaf hash of the last record; None if it isn't known."""
        return self._last.digest if self._last else self._settled

    def root(self) -> bytes | None:
        """Root over all records, None if a hole made it unknowable. After end()."""
        self._push()
        return self._tree.root() if self._tree else None

    # Lines

    def record(self, line: bytes, offset: int) -> None:
        """A line that isn't a checkpoint."""
        parsed = parse_record(line)
        if parsed is None:
            self._unreadable = self._unreadable or (self.file, offset)
            return
        sequence, prev = parsed
        is_blamed = False
        if sequence != self.expected:
            if prev == self.head:  # the place is right, so the number is wrong
                self._problem(self.expected, offset, f"record {self.expected} was changed: it says {sequence}")
                is_blamed = True
            elif sequence > self.expected:
                self.missing(sequence - 1, prev, offset)
            else:
                self._stray(sequence, offset)
                return
        if self._unreadable:
            self._blame_unreadable(None)
        self._is_astray = False
        if self._last:
            self._claim(prev, is_signed=False)
        elif self._settled not in (None, prev) and not is_blamed:
            self._problem(self.expected, offset, f"record {self.expected} was changed: its prev doesn't fit")
            is_blamed = True
        self._offset = offset
        self._last = _Record(self.expected, line, prev, sha256(b"\0" + line).digest(), self.file, offset, is_blamed)
        self.expected += 1
        self.records += 1

    def checkpoint(self, line: bytes, offset: int) -> None:
        """A line that begins like a checkpoint."""
        try:
            checkpoint = self._open(line)
        except ValueError as error:
            self._checkpoint = None
            self._problem(None, offset, f"the checkpoint after record {self.expected - 1} was changed: {error}")
            return
        if checkpoint.size < self.expected - 1:
            where = f"record {self.expected - 1}"
            self._problem(None, offset, f"a checkpoint over {checkpoint.size} records stands after {where}: moved")
            return
        if checkpoint.size >= self.expected:
            self.missing(checkpoint.size, checkpoint.head, offset)
        elif self._unreadable:
            self._blame_unreadable(None)
        if self._checkpoint not in (None, checkpoint.prev):
            self._problem(None, offset, f"a checkpoint before the one after record {checkpoint.size} was removed")
        self._checkpoint = sha256(line).digest()
        self._settle(checkpoint, offset)
        self.checkpoints += 1

    def missing(self, until: int, claim: bytes | None, offset: int) -> None:
        """Records ``expected`` to ``until`` aren't there; what follows claims ``claim`` for the hash of the last."""
        first = self.expected
        self._give_up_waiting()
        n_missing = until - first + 1
        if self._unreadable:
            self._blame_unreadable(first)
            first += 1
        if first <= until:
            who = f"record {first} is" if first == until else f"records {first} to {until} are"
            self._problem(first, offset, f"{who} missing after record {first - 1}")
        if n_missing == 1 and claim is not None:
            self._leaves.append(claim)
        else:
            self._tree = None
        self._settled, self.expected = claim, until + 1

    def end(self, offset: int) -> None:
        """Nothing follows."""
        if self._unreadable:
            self._blame_unreadable(self.expected)
        self._give_up_waiting()
        self._push()
        last = self.expected - 1
        for size in sorted(self.roots):
            end = f"the log ends at record {last}: cut off" if size > last else "the hole before it hides its root"
            self._problem(None, offset, f"a checkpoint over {size} records was signed, but {end}")

    # Who is to blame

    def _open(self, line: bytes) -> Checkpoint:
        note = parse_checkpoint(line)
        if self._public is None:
            return read_unproven(note, self.name)
        return open_checkpoint(note, self.name, self._public)

    def _claim(self, claim: bytes, *, is_signed: bool) -> None:
        """What follows the last record says that its leaf hash is ``claim``."""
        last = self._last
        assert last is not None
        if self._suspect:
            if not self._resolve(self._suspect, last, claim):
                return
            self._suspect = None
        if last.digest == claim or last.is_blamed or is_signed:
            if last.digest != claim and not last.is_blamed:
                self._blame(last, f"record {last.sequence} was changed")
            self._add(claim)
        else:
            self._suspect = last

    def _resolve(self, suspect: _Record, last: _Record, claim: bytes) -> bool:
        """Decide about a broken link now that its second record has a claim too. False if that settles both."""
        if last.digest == claim:
            self._blame(suspect, f"record {suspect.sequence} was changed")
        elif _relinked(last, suspect.digest) == claim:
            self._blame(last, f"record {last.sequence} was changed: its prev doesn't fit")
            self._add(suspect.digest)
            self._add(claim)
            self._suspect = None
            return False
        else:
            self._doubt(suspect)
        self._add(last.prev)
        return True

    def _settle(self, checkpoint: Checkpoint, offset: int) -> None:
        """A good checkpoint over exactly the records so far."""
        size, begin = checkpoint.size, self.signed + 1
        if self._last:
            self._claim(checkpoint.head, is_signed=True)
        elif self._settled not in (None, checkpoint.head):
            self._problem(size, offset, f"record {size} isn't the one that was signed")
        self._last, self._settled = None, checkpoint.head
        root = self.root()
        if root is not None and root != checkpoint.root:
            text = f"records {begin} to {size} don't give the root that was signed; no root after this can be checked"
            self._problem(size, offset, text)
            self._tree = None
        self.signed = size

    def _give_up_waiting(self) -> None:
        """No claim will come for the last record."""
        if self._suspect and self._last:
            self._doubt(self._suspect)
            self._add(self._last.prev)
        if self._last:
            self._add(self._last.digest)
            self._settled = self._last.digest
        self._suspect = self._last = None

    def _stray(self, sequence: int, offset: int) -> None:
        """A record whose number was there already: not part of the chain. A run of them is one problem."""
        if not self._is_astray:
            text = f"record {sequence} stands after record {self.expected - 1}: inserted, repeated or out of order"
            self._problem(sequence, offset, text)
        self._is_astray = True

    def _blame_unreadable(self, sequence: int | None) -> None:
        """The line that couldn't be read was record ``sequence``, or none: then what follows has its number."""
        assert self._unreadable is not None
        (file, offset), self._unreadable = self._unreadable, None
        if sequence is None:
            text = f"after record {self.expected - 1}: neither a record nor a checkpoint; inserted or changed"
        else:
            text = f"record {sequence} was changed: no longer a record"
        self._report(Problem(sequence, file, offset, text))

    def _doubt(self, record: _Record) -> None:
        self._blame(record, f"record {record.sequence} was changed, or the next one's link to it")

    def _blame(self, record: _Record, message: str) -> None:
        self._report(Problem(record.sequence, record.file, record.offset, message))

    def _problem(self, sequence: int | None, offset: int, message: str) -> None:
        self._report(Problem(sequence, self.file, offset, message))

    def _add(self, leaf: bytes) -> None:
        self._leaves.append(leaf)
        if len(self._leaves) >= _MAX_LEAVES:
            self._push()

    def _push(self) -> None:
        """Move the waiting leaves into the tree, with a stop at each size whose root is known from elsewhere."""
        if self._tree:
            begin = self._tree.size
            for size in sorted(self.roots):
                if begin < size <= begin + len(self._leaves):
                    self._tree.extend(self._leaves[self._tree.size - begin : size - begin])
                    if self._tree.root() != self.roots.pop(size):
                        text = f"another history of {size} records was signed by the same key"
                        self._problem(size, self._offset, text)
            self._tree.extend(self._leaves[self._tree.size - begin :])
        self._leaves.clear()


def _relinked(record: _Record, prev: bytes) -> bytes:
    """The leaf hash that ``record`` would have with another ``prev``."""
    at = len(b'{"sequence":%d,"prev":"' % record.sequence)
    return leaf_hash(record.line[:at] + prev.hex().encode() + record.line[at + 64 :])
