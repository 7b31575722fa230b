"""Which words a policy may use where, which come in a later version, and what to say to any other word."""

import difflib
from collections.abc import Collection

from hostwarden.policy.words import Verdict

VERDICTS = (Verdict.ALLOW, Verdict.AUDIT, Verdict.DENY, Verdict.FREEZE, Verdict.KILL)
VERDICT_WORDS = tuple(str(verdict) for verdict in VERDICTS)
TOP_KEYS = ("policy", "for", "mode", "rules", "otherwise", "record", "paths")
CONDITIONS = ("path", "argv", "to", "sha256", "user", "except", "why")
RULE_KEYS = VERDICT_WORDS + CONDITIONS

# Words of the language (design section 6) that this version refuses by name: a policy written for a later version must
# not be taken for a weaker one.
LATER_TOP_KEYS = ("on_record_loss",)
LATER_VERDICTS = ("hold", "limit", "once", "mark", "unmark")
LATER_CONDITIONS = ("on", "when", "unless", "timeout", "then", "rate", "bytes", "request", "within", "status")
LATER_RULE_KEYS = LATER_VERDICTS + LATER_CONDITIONS
LATER_ACTIONS = ("resolve", "http", "exit")

# What people call by its system call, and the action that it is.
CALLS = {
    "append": "write",
    "bind": "listen",
    "chown": "write",
    "execve": "exec",
    "kill": "signal",
    "mkdir": "create",
    "mknod": "create",
    "mmap": "load",
    "move_mount": "mount",
    "open": "read",
    "rmdir": "delete",
    "sendto": "send",
    "setns": "namespace",
    "setxattr": "write",
    "symlink": "create",
    "truncate": "write",
    "umount": "mount",
    "unlink": "delete",
    "unshare": "namespace",
    "utime": "write",
}


def quote(text: str) -> str:
    """``text`` for a one-line message: control characters escaped, at most 60 characters."""
    shown = text if len(text) <= 60 else text[:57] + "..."
    safe = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)
    return f"`{''.join(safe)}`"


def unknown(kind: str, text: str, allowed: Collection[str], later: Collection[str] = ()) -> str:
    """What to say about ``text``, which is not among ``allowed``."""
    if text in later:
        return f"{kind} {quote(text)} isn't in this version yet, expected one of {', '.join(allowed)}"
    if kind == "action" and text in CALLS:
        return f"unknown action {quote(text)}, expected {CALLS[text]}, of which it is part"
    close = difflib.get_close_matches(text[:80].lower(), allowed, n=1)
    hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(allowed)}"
    return f"unknown {kind} {quote(text)}, {hint}"
