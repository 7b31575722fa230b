"""What the kernel must answer, by the oracle: the policies' own words, with what path.h and open.h state on top.

* A file with several host paths, or none, is asked about as one whose path conditions are answered already.
* A path that can't be rebuilt (too deep, too long, unknown file system) is denied where an enforcing policy could deny;
  so is a program whose content can't be known, where rules ask for it.
* An open is every access that it was: the most severe ruling counts, of equal ones the later action's.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hostwarden.policy.globs import Deep, PathGlob, parse_path
from hostwarden.policy.match import match_path
from hostwarden.policy.model import PathPattern, Policy
from hostwarden.policy.oracle import Attempt, Contribution, Ruling, contributions, decide, decisive
from hostwarden.policy.tables import Profile, Reason
from hostwarden.policy.words import Action, Mode, Tier, Verdict
from hostwarden.probes.layout import Event
from tests.host.oracle_tries import Found, Location

MAX_PATH = 4095  # bytes from the superblock's root on
MAX_COMPONENTS = 64  # each mount that a walk by chain crosses counts as one
MAX_ARGV = 4096  # bytes, each argument's NUL included
EVERYTHING = PathPattern("/**", 1, 1, tuple(parse_path("/**")))
NOTHING = PathPattern("/impossible", 1, 1, tuple(parse_path("/impossible")))


@dataclass(frozen=True)
class Answer:
    """The action that an event is about, and both sides' verdict and reason."""

    action: Action
    enforced: Verdict
    enforced_reason: Reason
    observed: Verdict
    observed_reason: Reason

    @classmethod
    def of(cls, action: Action, ruling: Ruling) -> "Answer":
        """The oracle's."""
        return cls(action, ruling.enforced, ruling.enforced_reason, ruling.observed, ruling.observed_reason)

    @classmethod
    def seen(cls, head: Event, profile: Profile) -> "Answer":
        """The kernel's."""
        reasons = profile.reasons
        return cls(
            Action(head.action),
            Verdict(head.enforced),
            reasons[head.enforced_reason],
            Verdict(head.observed),
            reasons[head.observed_reason],
        )


def is_nowhere(location: Location, path: bytes) -> bool:
    """Whether the kernel can't rebuild this path."""
    relative = location.relative(path)
    too_deep = relative.count(b"/") + location.crossed > MAX_COMPONENTS
    return location.row is None or len(relative) > MAX_PATH or too_deep


def accesses_of(flags: int, is_folder: bool) -> tuple[Action, ...]:
    """What an open with these flags is, in the order of actions; a file that is created is new each time."""
    if is_folder:
        return (Action.READ,)
    mode = flags & os.O_ACCMODE
    found = [Action.READ] if mode in (os.O_RDONLY, os.O_RDWR) else []
    found += [Action.WRITE] if mode in (os.O_WRONLY, os.O_RDWR) else []
    found += [Action.CREATE] if flags & os.O_CREAT else []
    return tuple(found)


def opened(policies: Sequence[Policy], profile: Profile, found: Found) -> Answer:
    """For an open."""
    made = found.made
    answers = []
    for action in accesses_of(made.flags, is_folder=found.result == 1):
        if is_nowhere(made.location, made.payload):
            answers.append(Answer(action, *refused(profile, action), Verdict.ALLOW, Reason()))
            continue
        asked, path = subject(policies, made.location, made.payload)
        answers.append(Answer.of(action, decide(asked, Attempt(action, path=path, uid=made.uid))))
    return max(reversed(answers), key=lambda answer: (answer.enforced, answer.observed))


def refused(profile: Profile, action: Action) -> tuple[Verdict, Reason]:
    """For what can't be known: by no rule."""
    return (Verdict.DENY if action in profile.enforced else Verdict.ALLOW), Reason()


def subject(policies: Sequence[Policy], location: Location, path: bytes) -> tuple[Sequence[Policy], bytes]:
    """The policies and the path that the oracle is to be asked with."""
    names = location.names(path)
    if len(names) == 1:
        return policies, names[0]
    return answered(policies, names, location.relative(path)), b"/x"


def answered(policies: Sequence[Policy], names: Sequence[bytes], relative: bytes) -> list[Policy]:
    """The policies with their path conditions answered, for a file with any number of names: a glob matches if it
    matches any of them; without names, those that begin with `**` are matched with the path from the superblock's root.
    """
    return [
        policy.model_copy(
            update={
                "rules": tuple(
                    rule.model_copy(update=_answer(rule.path_globs, rule.except_path_globs, names, relative))
                    for rule in policy.rules
                )
            }
        )
        for policy in policies
    ]


def _answer(
    globs: Sequence[PathGlob] | None, excepts: Sequence[PathGlob], names: Sequence[bytes], relative: bytes
) -> dict[str, tuple[PathPattern, ...]]:
    if globs is None and not excepts:
        return {}

    def is_met(some: Iterable[PathGlob]) -> bool:
        if names:
            return any(match_path(glob, name) for glob in some for name in names)
        return any(match_path(glob, relative) for glob in some if _floats(glob))

    wanted = globs is None or is_met(globs)
    return {"path": (EVERYTHING if wanted and not is_met(excepts) else NOTHING,), "except_path": ()}


def _floats(glob: PathGlob) -> bool:
    return bool(glob.components) and isinstance(glob.components[0], Deep)


def executed(
    policies: Sequence[Policy],
    profile: Profile,
    files: Sequence[tuple[Location, bytes]],
    argv: tuple[bytes, ...],
    uid: int,
    tier: Tier = Tier.SIGNAL,
) -> Answer:
    """For an exec of ``files``: a program, or a script's interpreter and the script: what is said of any counts."""
    line = argv if sum(len(argument) + 1 for argument in argv) <= MAX_ARGV else None
    found: list[tuple[tuple[int, int], Contribution]] = []
    # Nobody but the LSM can vouch for a content, and without one a profile that asks for it can't decide.
    unknown = bool(profile.hashes) and tier is not Tier.LSM
    for location, path in files:
        asked, name = policies, None
        if is_nowhere(location, path):
            unknown = True
        else:
            asked, name = subject(policies, location, path)
        attempt = Attempt(Action.EXEC, path=name, argv=line, uid=uid)
        found += [entry for number, policy in enumerate(asked) for entry in placed(number, policy, attempt)]
    ordered = [one for _, one in sorted(found, key=lambda entry: entry[0])]
    sides = []
    for mode in Mode:
        one = decisive(ordered, mode)
        sides.append((one.verdict, one.reason) if one else (Verdict.ALLOW, Reason()))
    if unknown and sides[0][0] < Verdict.DENY and Action.EXEC in profile.enforced:
        sides[0] = refused(profile, Action.EXEC)
    return Answer(Action.EXEC, *sides[0], *sides[1])


def placed(number: int, policy: Policy, attempt: Attempt) -> list[tuple[tuple[int, int], Contribution]]:
    """A policy's contributions with their places: the earlier of equals decides, whichever file it speaks of."""
    order = {id(rule): place for place, rule in enumerate(policy.rules)}
    return [
        ((number, len(order) if one.rule is None else order[id(one.rule)]), one)
        for one in contributions(policy, attempt)
    ]
