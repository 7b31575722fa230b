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
    """What an agent attempts. The last two are of records only: what the warden itself keeps from every agent, whatever
    policies say.
    """

    EXEC = 0
    READ = 1
    WRITE = 2  # and truncate, chown, setxattr, utime
    CREATE = 3  # and mkdir, mknod, symlink
    CONNECT = 4
    SEND = 5
    DELETE = 6  # and rmdir
    RENAME = 7  # judged on both names
    LINK = 8  # judged on the file that gets another name, which is a create
    CHMOD = 9
    LISTEN = 10  # judged by the local address
    MOUNT = 11  # judged on the mount point
    NAMESPACE = 12
    PTRACE = 13  # of a process outside the agent; its own are free
    SIGNAL = 14  # likewise
    LOAD = 15  # mapping a file executable
    CAPABILITY = 16
    KERNEL = 17  # bpf, modules, kexec, perf, settime, TIOCSTI, ...


POLICY_ACTIONS = tuple(Action)[:16]  # those that a policy can name; each is a column of the kernel's tables
FILE_ACTIONS = (
    Action.EXEC,
    Action.READ,
    Action.WRITE,
    Action.CREATE,
    Action.DELETE,
    Action.RENAME,
    Action.LINK,
    Action.CHMOD,
    Action.MOUNT,
    Action.LOAD,
)  # judged by `path`
NET_ACTIONS = (Action.CONNECT, Action.SEND, Action.LISTEN)  # judged by `to`
CONTENT_ACTIONS = (Action.EXEC, Action.LOAD)  # of those, what runs code: judged by `sha256`, too
PLAIN_ACTIONS = (Action.NAMESPACE, Action.PTRACE, Action.SIGNAL)  # have no target that a rule could name

# An action that no rule and no `otherwise` of a policy names is decided as the broader one (design section 6: `write`
# includes these, unless they are named).
BROADER = dict.fromkeys((Action.CREATE, Action.DELETE, Action.RENAME, Action.LINK, Action.CHMOD), Action.WRITE)


class Verdict(Word):
    """In order of severity: the number is the precedence. HOLD keeps its place; it comes later."""

    ALLOW = 0
    AUDIT = 1
    HOLD = 2
    DENY = 3
    FREEZE = 4  # refuse, then stop the agent
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
