"""What the compiler makes of an agent's policies: the kernel's tables, still as plain Python.

``hostwarden.policy.compile`` produces them, ``hostwarden.daemon`` packs them into BPF maps, the C side
(``match.h``, ``decide.h``) walks them. The rule by which they are combined is the same everywhere:

* every automaton that was walked gives one Decision for the action,
* the most severe of them wins, for enforcing and for observing policies apart,
* `covered` masks are united; each policy that has an `otherwise` for the action and whose bit is not covered adds it,
* joint rules (path, argv and content: all that the rule asks for) whose bit is set in every part add theirs.

The actions that have no target (PLAIN_ACTIONS), and targets without a path (a memfd, a socket that is neither of the
internet nor of unix), are decided by the state in which row PRIVATE starts, with no text walked.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hostwarden.policy.words import Action, Mode, RecordMode, Verdict

MAX_POLICIES = 32  # bits of a covered mask
MAX_JOINT = 64  # bits of a joint mask
MAX_AUTOMATA = 8  # walked one after the other over the same path
MAX_HASHES = 4096  # contents that the rules of a profile name
MAX_DECISIONS = 2048  # distinct decision rows of one automaton
MAX_TRANSITIONS = 1 << 20  # u16 entries of one automaton's transition table
MAX_USERS = 8  # user classes of a profile
MAX_SUPERBLOCKS = 256  # start rows
PRIVATE = 0  # index of the start row for file systems that no host mount shows (`@private`)


@dataclass(frozen=True)
class Place:
    """One line of the host's mount table: the part ``root`` of a superblock is seen at the host path ``mount``.

    Both are absolute, without a trailing slash; the root directory is the empty string.
    """

    root: bytes
    mount: bytes


@dataclass(frozen=True)
class Reason:
    """Why a verdict came about: the policy, and the rule's place in its file (None: `otherwise`, or nobody spoke)."""

    policy: str | None = None
    digest: str | None = None
    location: str | None = None  # "file:line"
    why: str | None = None
    verdict: Verdict = Verdict.ALLOW
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True)
class Decision:
    """What one automaton's final state says about one action. Reasons are indices into Profile.reasons; 0 is none."""

    enforced: Verdict = Verdict.ALLOW
    enforced_reason: int = 0
    observed: Verdict = Verdict.ALLOW
    observed_reason: int = 0
    covered: int = 0  # bit i: an allow or audit rule of policy i matched, so its `otherwise` doesn't apply
    joint: int = 0  # bit j: this part of joint rule j matched (exec and load only)


@dataclass(frozen=True)
class Automaton:
    """A minimised DFA over byte classes.

    ``next[(state << shift) | classes[byte]]`` is the next state; ``output[state]`` the row of ``decisions``, in which
    each action has its own Decision. ``starts[row][user]`` is where a walk begins: row PRIVATE, then one row for each
    superblock in the order they were given to the compiler (an argv automaton has one row). ``denial_below[state]`` is
    1 if something below the path that ends in this state can be denied: moving or hiding such a directory is what
    renaming and mounting are judged for.
    """

    classes: bytes
    shift: int
    next: "array[int]"
    output: "array[int]"
    decisions: Sequence[Mapping[Action, Decision]]
    starts: Sequence[Sequence[int]]
    denial_below: bytes

    @property
    def n_states(self) -> int:
        """States, the dead one included."""
        return len(self.output)

    def run(self, text: bytes, state: int) -> int:
        """The state after ``text``."""
        for byte in text:
            state = self.next[(state << self.shift) | self.classes[byte]]
        return state


@dataclass(frozen=True)
class Otherwise:
    """What policy number ``policy`` (its bit) says of an action for which none of its allow or audit rules matched."""

    policy: int
    verdict: Verdict
    mode: Mode
    reason: int


@dataclass(frozen=True)
class Joint:
    """A rule with at least two of path, argv and sha256, or with sha256 alone: it matches where all parts have its bit.

    Each path state has the bits of rules without a path condition, too; ``Profile`` says which ask for no argv and
    for no content.
    """

    verdict: Verdict
    mode: Mode
    reason: int
    covers: int  # the policy's bit as a mask if the rule is allow or audit, else 0
    actions: frozenset[Action] = frozenset([Action.EXEC])  # of CONTENT_ACTIONS


@dataclass(frozen=True)
class NetEntry:
    """One prefix of the longest-prefix table. v4 is stored v4-mapped: 10.0.0.0/8 is ::ffff:10.0.0.0/104.

    ``port`` None stands for every port that no other entry of the table names. An entry already carries the union of
    all rules whose prefix and port contain it, `otherwise` included, so the longest match is the whole answer.
    """

    user: int
    port: int | None
    prefix: bytes  # 16 bytes
    length: int  # 0 to 128
    decisions: Mapping[Action, Decision]  # NET_ACTIONS


@dataclass(frozen=True)
class Profile:
    """All that decides for one set of policies: agents with the same policies share it."""

    reasons: Sequence[Reason]  # [0] is Reason()
    paths: Sequence[Automaton]  # 1 to MAX_AUTOMATA
    argv: Automaton | None  # None: no rule has an argv condition
    joint: Sequence[Joint]  # by severity, most severe first
    otherwise: Mapping[Action, Sequence[Otherwise]]  # what the automata don't hold; most severe first
    net: Sequence[NetEntry]
    users: Mapping[int, int]  # uid → user class; every other uid is class 0
    record: Mapping[Action, RecordMode]
    enforced: frozenset[Action]  # actions that an enforcing policy has a deny or kill for (rule or otherwise)
    has_roots: bool = False  # a policy says `paths: root`: the agent's own container begins at `/`
    root_row: int = 0  # of start rows: the file system that the host's root is on
    hashes: Mapping[bytes, int] = field(default_factory=dict)  # SHA-256 → bits of joint rules that name it
    joint_without_argv: int = 0  # bits of joint rules that ask for no argv
    joint_without_hash: int = 0  # and for no content
    argv_unread: Decision = field(default_factory=Decision)  # severest argv verdict: argv unreadable or too long
