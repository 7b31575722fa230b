"""When one condition surely holds wherever another does. Right rather than complete: False may mean "not known"."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from hostwarden.policy.address import contains
from hostwarden.policy.globs import ArgvGlob, Deep, OneOf, PathGlob, Wild
from hostwarden.policy.match import match_argv, match_path
from hostwarden.policy.model import Net, Rule
from hostwarden.policy.words import Action

MAX_PAIRS = 4096  # compared one by one
T = TypeVar("T", PathGlob, ArgvGlob, Net)


def covers_path(wide: PathGlob, narrow: PathGlob) -> bool:
    """Equal, or ``x/**`` over what is below x, or a glob that matches a plain path."""
    if wide == narrow or (is_deep(wide) and narrow.components[: len(stem(wide))] == stem(wide)):
        return True
    path = plain_path(narrow)
    return path is not None and match_path(wide, path)


def covers_argv(wide: ArgvGlob, narrow: ArgvGlob) -> bool:
    """Equal, or ``words*`` over what begins with these words, or a glob that matches a plain line."""
    if wide == narrow or (wide.nodes[-1:] == (Wild.MANY,) and narrow.nodes[: len(wide.nodes) - 1] == wide.nodes[:-1]):
        return True
    line = _plain(narrow.nodes)
    return line is not None and match_argv(wide, line)


def covers_net(wide: Net, narrow: Net) -> bool:
    """The prefix contains the other, and the port is the same or any."""
    port = 0 if narrow.port is None else narrow.port
    return (
        wide.length <= narrow.length
        and wide.port in (None, narrow.port)
        and contains(Net(wide.prefix, wide.length, None), narrow.prefix, port)
    )


def covers_rule(wide: Rule, narrow: Rule, actions: Iterable[Action]) -> bool:
    """Whether ``wide`` surely matches whenever ``narrow`` does, for each of ``actions``."""
    if not all(wide.decides(action) for action in actions):
        return False
    if wide.users is not None and not (narrow.users is not None and set(narrow.users) <= set(wide.users)):
        return False
    if wide.sha256 is not None and not (narrow.sha256 is not None and set(narrow.sha256) <= set(wide.sha256)):
        return False
    return _covers_paths(wide, narrow) and _covers_argv(wide, narrow) and _covers_targets(wide, narrow)


def all_covered(wide: Sequence[T], narrow: Sequence[T], covers: Callable[[T, T], bool]) -> bool:
    """Whether each of ``narrow`` is covered by one of ``wide``; among too many, only by its equal."""
    if set(narrow) <= set(wide):
        return True
    return len(wide) * len(narrow) <= MAX_PAIRS and all(any(covers(w, n) for w in wide) for n in narrow)


def is_deep(glob: PathGlob) -> bool:
    """Whether the glob ends in ``/**``."""
    return bool(glob.components) and isinstance(glob.components[-1], Deep)


def stem(glob: PathGlob) -> tuple[object, ...]:
    """The components before the last one."""
    return glob.components[:-1]


def plain_path(glob: PathGlob) -> bytes | None:
    """The one path that a glob without wildcards matches."""
    path = b""
    for component in glob.components:
        name = None if isinstance(component, Deep) else _plain(component)
        if name is None:
            return None
        path += b"/" + name
    return path


def _plain(nodes: tuple[Wild | OneOf, ...]) -> bytes | None:
    text = bytearray()
    for node in nodes:
        if isinstance(node, Wild) or len(node.bytes) != 1:
            return None
        text += bytes(node.bytes)
    return bytes(text)


# In each of these: every target of the narrow rule is one of the wide rule's, and whatever the wide rule excepts, the
# narrow one excepts as well.


def _covers_paths(wide: Rule, narrow: Rule) -> bool:
    return _holds(wide.path_globs, narrow.path_globs, covers_path) and all_covered(
        narrow.except_path_globs, wide.except_path_globs, covers_path
    )


def _covers_argv(wide: Rule, narrow: Rule) -> bool:
    return _holds(wide.argv_globs, narrow.argv_globs, covers_argv) and all_covered(
        narrow.except_argv_globs, wide.except_argv_globs, covers_argv
    )


def _covers_targets(wide: Rule, narrow: Rule) -> bool:
    nets = _holds(wide.nets, narrow.nets, covers_net)
    unix = _holds(wide.unix_globs, narrow.unix_globs, covers_path)
    spared = all_covered(narrow.except_nets, wide.except_nets, covers_net)
    return nets and unix and spared and all_covered(narrow.except_unix_globs, wide.except_unix_globs, covers_path)


def _holds(wide: Sequence[T] | None, narrow: Sequence[T] | None, covers: Callable[[T, T], bool]) -> bool:
    """Whether the condition ``wide`` (None: absent) holds wherever ``narrow`` does."""
    return wide is None or (narrow is not None and all_covered(wide, narrow, covers))
