"""An attempt as people write it, for `policy test` and `policy explain`: an action and its target as records tell it.

Every target that a record can have is one, but for sockets of families that no rule can name.
"""

import re

from hostwarden.policy.address import UNIX, is_resolved, parse_address, unix_path
from hostwarden.policy.oracle import Attempt
from hostwarden.policy.vocabulary import quote
from hostwarden.policy.words import NET_ACTIONS, PLAIN_ACTIONS, Action

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


def parse_attempt(action: Action, target: str, uid: int) -> Attempt:
    """``target`` is a path, ``address:port``, ``unix:/path``, ``unix:@name``, ``pid:N`` or names of namespaces, as the
    action wants it; an exec's argv is its path alone. Raises ValueError with what is wrong and what was expected.
    """
    if action in PLAIN_ACTIONS:
        return Attempt(action, object=_object(action, target), uid=uid)
    if action in NET_ACTIONS and target.startswith(UNIX):
        return Attempt(action, path=unix_path(target), uid=uid)
    if action in NET_ACTIONS:
        address, port = parse_address(target)
        return Attempt(action, address=address, port=port, uid=uid)
    if not is_resolved(target):
        raise ValueError(f"path {quote(target)}, expected an absolute one without `.`, `..`, // or a slash at the end")
    path = target.encode("utf-8", "surrogateescape")
    return Attempt(action, path=path, argv=(path,) if action is Action.EXEC else None, uid=uid)


def parse_content(text: str) -> bytes:
    """The 32 bytes of a SHA-256. Raises ValueError."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError(f"sha256 {quote(text)}, expected 64 hex digits, as sha256sum prints them")
    return bytes.fromhex(text)


def _object(action: Action, target: str) -> str:
    if action is Action.NAMESPACE:
        if not set(target.split(",")) <= set(NAMESPACES):
            raise ValueError(f"namespaces {quote(target)}, expected some of {', '.join(NAMESPACES)}: `user,mnt`")
    elif not re.fullmatch(r"pid:[1-9][0-9]{0,9}", target):
        raise ValueError(f"{quote(target)}, expected pid:N, a process outside the agent (its own are free)")
    return target
