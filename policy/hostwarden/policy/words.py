"""Words that policy, kernel programs, daemon and log share: one list each, for Python and C alike.

The daemon hands every member to the probe loader as a ``-D`` flag (``VERDICT_DENY=4`` …), so C never has a list of its
own. Values are part of the log's and the event ring's format: add, never renumber.
"""

from enum import IntEnum


class Word(IntEnum):
    """A word with a number for the kernel and a lower-case name for people."""

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> "Word":
        """The member named ``text`` (lower case). Raises KeyError."""
        if text != text.lower():
            raise KeyError(text)
        return cls[text.upper()]


class Action(Word):
    """What an agent attempts. The first four name a path, the next two an address."""

    EXEC = 0
    READ = 1
    WRITE = 2
    CREATE = 3
    CONNECT = 4
    SEND = 5


FILE_ACTIONS = (Action.EXEC, Action.READ, Action.WRITE, Action.CREATE)
NET_ACTIONS = (Action.CONNECT, Action.SEND)

# An action that no rule and no `otherwise` of a policy names is decided as the broader one (design section 6: `write`
# includes create, unless create is named).
BROADER = {Action.CREATE: Action.WRITE}


class Verdict(Word):
    """In order of severity: the number is the precedence. HOLD and FREEZE keep their places; they come later."""

    ALLOW = 0
    AUDIT = 1
    HOLD = 2
    DENY = 3
    FREEZE = 4
    KILL = 5


class Mode(Word):
    """Whether a policy's verdicts are made real."""

    ENFORCE = 0
    OBSERVE = 1


class RecordMode(Word):
    """Which decisions become records; the number grows with what is recorded, the largest of several policies wins."""

    NONE = 0
    DENIED = 1
    ALL = 2


class Tier(Word):
    """How a verdict is made real on this kernel."""

    NONE = 0
    LSM = 1
    MODIFY_RETURN = 2
    CGROUP = 3
    LANDLOCK = 4
    SIGNAL = 5


class Outcome(Word):
    """What became of an attempt."""

    OBSERVED = 0
    PREVENTED = 1
    HELD = 2
    KILLED_BEFORE_EFFECT = 3
    KILLED_AFTER_EFFECT = 4
