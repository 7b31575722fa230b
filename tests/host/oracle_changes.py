"""What a tier that refuses must answer to everything that can be done with a path: the oracle, with what hook.h,
hooks_file.h and hooks_exec.h state on top.

* An attempt is its actions on one name or two; the most severe ruling counts, of equal ones the last; of one action on
  both names, what is said of either.
* An open that creates is refused where nothing has been made yet, as a create alone; else it is all that it is.
* Nothing is moved to where it may be read or executed from where it may not, and no folder if that changes what rules
  say of what can be refused below it.
* A program's files are judged one by one before the new program is there, argv with it if there is one file; then all
  at once (``oracle_answers.executed``).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hostwarden.policy.model import Policy
from hostwarden.policy.oracle import Attempt, decisive
from hostwarden.policy.tables import Automaton, Profile, Reason
from hostwarden.policy.words import Action, Mode, Tier, Verdict
from tests.host.oracle_answers import MAX_COMPONENTS, Answer, accesses_of, is_nowhere, placed, refused, subject
from tests.host.oracle_tries import EXCHANGE, Found, Location, Try

MAX_TEXT = 3800  # bytes of a path as passed, with the folder's own (text.h)
EXEC, READ, WRITE, CREATE, LINK = Action.EXEC, Action.READ, Action.WRITE, Action.CREATE, Action.LINK
# op → actions on the first name, and on the second
ACTIONS: dict[str, tuple[tuple[Action, ...], tuple[Action, ...]]] = {
    "u": ((Action.DELETE,), ()),
    "d": ((CREATE,), ()),
    "s": ((CREATE,), ()),
    "k": ((CREATE,), ()),
    "v": ((Action.RENAME,), (Action.RENAME,)),
    "h": ((READ, WRITE, LINK), (CREATE,)),
    "c": ((Action.CHMOD,), ()),
    "w": ((WRITE,), ()),
    "t": ((WRITE,), ()),
    "a": ((WRITE,), ()),
    "p": ((Action.LOAD,), ()),
}


@dataclass(frozen=True)
class Asked:
    """Whose answer is asked for: these policies', which are in force as ``profile``."""

    policies: Sequence[Policy]
    profile: Profile
    tier: Tier
    armed: bool

    def about(self, found: Found) -> Answer:
        """Everything but exec."""
        made = found.made
        names = [(self._place(made), path) for path in made.paths]
        if made.op == "o":
            making = self._making(found)
            opening = accesses_of(made.flags, bool(found.folders & 1))
            return making or self.worst([(action, names) for action in opening], made.uid)
        first, second = ACTIONS[made.op]
        parts = [(action, names[:1]) for action in first if action not in second]
        parts += [(action, names if action in first else names[1:]) for action in second]
        answer = self.worst(parts, made.uid)
        if made.op in "vh" and not is_refusal(answer) and self._is_moved_out(names, found):
            return replace(answer, action=Action.RENAME, enforced=Verdict.DENY, enforced_reason=Reason())
        return answer

    def can_tell(self, made: Try) -> bool:
        """Whether the kernel can tell what this is about: by text, where nothing else is left, not all that long."""
        longest = max(len(made.location.relative(path)) for path in made.paths)
        deepest = max(made.location.relative(path).count(b"/") + made.location.crossed for path in made.paths)
        return self.tier is not Tier.SIGNAL or (longest < MAX_TEXT and deepest < MAX_COMPONENTS)

    def accesses(self, found: Found) -> int:
        """The event's: a bit for each action that the attempt was."""
        made = found.made
        first, second = (accesses_of(made.flags, bool(found.folders & 1)), ()) if made.op == "o" else ACTIONS[made.op]
        if self._making(found):
            first = (CREATE,)
        return sum(1 << action for action in {*first, *second})

    def _making(self, found: Found) -> Answer | None:
        """The answer to an open that creates, if it is refused as that."""
        made = found.made
        if made.op != "o" or found.folders & 1 or not made.flags & os.O_CREAT:
            return None
        if not self.armed or self.tier is Tier.SIGNAL:
            return None
        making = self.worst([(CREATE, [(made.location, made.payload)])], made.uid)
        return making if is_refusal(making) else None

    def _place(self, made: Try) -> Location:
        """Where the kernel finds it: the hook of attributes is told no mount, and knows nothing that only mounts do."""
        if made.op == "a" and made.location.crossed and self.tier is not Tier.SIGNAL:
            return replace(made.location, below=b"", row=0, places=(), crossed=0)
        return made.location

    def worst(self, parts: Sequence[tuple[Action, Sequence[tuple[Location, bytes]]]], uid: int) -> Answer:
        """The most severe, the last of equals."""
        answers = [self._one(action, names, uid) for action, names in parts]
        return max(reversed(answers), key=lambda answer: (answer.enforced, answer.observed))

    def _one(self, action: Action, names: Sequence[tuple[Location, bytes]], uid: int) -> Answer:
        """One action, on a name or on two."""
        unknown = action is Action.LOAD and bool(self.profile.hashes) and self.tier is not Tier.LSM
        found = []
        for location, path in names:
            if is_nowhere(location, path):
                unknown = True
                if action is not Action.LOAD:
                    continue
                asked, name = self.policies, None
            else:
                asked, name = subject(self.policies, location, path)
            attempt = Attempt(action, path=name, uid=uid)
            found += [entry for number, policy in enumerate(asked) for entry in placed(number, policy, attempt)]
        ordered = [one for _, one in sorted(found, key=lambda entry: entry[0])]
        sides = []
        for mode in Mode:
            one = decisive(ordered, mode)
            sides.append((one.verdict, one.reason) if one else (Verdict.ALLOW, Reason()))
        if unknown and sides[0][0] < Verdict.DENY and action in self.profile.enforced:
            sides[0] = refused(self.profile, action)
        return Answer(action, *sides[0], *sides[1])

    def _is_moved_out(self, names: Sequence[tuple[Location, bytes]], found: Found) -> bool:
        """Out of the reach of what refuses something of the object, or of what is below it."""
        old, new = (self._states(location, path, found.made.uid) for location, path in names)
        if self.tier is Tier.SIGNAL:  # by text nobody can tell a folder
            return self._crosses(old, new, None if found.made.op == "v" else False)
        forth = self._crosses(old, new, bool(found.folders & 1))
        is_swap = found.made.op == "v" and bool(found.made.flags & EXCHANGE)
        return forth or (is_swap and self._crosses(new, old, bool(found.folders & 2)))

    def _states(self, location: Location, path: bytes, uid: int) -> list[int]:
        """The state of each automaton after the name; of one that is unknown, where no text leads from `@private`."""
        known, user = not is_nowhere(location, path), self.profile.users.get(uid, 0)
        row, text = ((location.row or 0), location.relative(path)) if known else (0, b"")
        return [automaton.run(text, automaton.starts[row][user]) for automaton in self.profile.paths]

    def _crosses(self, before: Sequence[int], after: Sequence[int], is_folder: bool | None) -> bool:
        """By the tables, as decide.h states it; None: nobody knows whether it is a folder."""
        denial = other_denial = differs = False
        for automaton, state, other in zip(self.profile.paths, before, after, strict=True):
            if any(_is_denied(automaton, state, way) and not _is_denied(automaton, other, way) for way in (READ, EXEC)):
                return True
            denial = denial or bool(automaton.denial_below[state])
            other_denial = other_denial or bool(automaton.denial_below[other])
            differs = differs or automaton.run(b"/", state) != automaton.run(b"/", other)
        if is_folder is None:
            return denial and not other_denial
        return is_folder and denial and differs


def _is_denied(automaton: Automaton, state: int, action: Action) -> bool:
    verdict = automaton.decisions[automaton.output[state]][action].enforced
    return verdict is Verdict.HOLD or verdict >= Verdict.DENY


def is_refusal(answer: Answer) -> bool:
    """Whether it is EPERM where it can be."""
    return answer.enforced is Verdict.HOLD or answer.enforced >= Verdict.DENY


def without_argv(asked: Asked) -> Asked:
    """What is known of a file before argv is: no rule about argv, and no `otherwise` if one could still allow it."""
    if asked.profile.argv is None:
        return asked
    policies = [
        policy.model_copy(
            update={
                "rules": tuple(rule for rule in policy.rules if rule.argv is None),
                "otherwise": {action: word for action, word in policy.otherwise.items() if action is not Action.EXEC},
            }
        )
        for policy in asked.policies
    ]
    return replace(asked, policies=policies)
