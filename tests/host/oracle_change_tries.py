"""Everything that can be done with a path: rules about it that hypothesis makes, and attempts near them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from tests.host.oracle_attempts import path_of
from tests.host.oracle_changes import ACTIONS
from tests.host.oracle_policies import DEADLY, UIDS, Glob, Rule, Salt, Sketch, actions, globs, some, users, verdicts
from tests.host.oracle_tries import EXCHANGE, Location, Try

WORDS = ("read", "write", "create", "delete", "rename", "link", "chmod", "load")
OPENS = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.O_WRONLY | os.O_TRUNC)
path_rules = st.builds(
    Rule,
    verdicts,
    actions(WORDS),
    path=some(globs, 0, 3),
    except_path=st.one_of(st.just(()), some(globs, 1, 2)),
    users=users,
)
OPS = ("o", "o", "o", "v", "v", *ACTIONS)


def softened(sketch: Sketch) -> Sketch:
    """Without what could end or stop the member."""
    rules = tuple(replace(rule, verdict="deny") if rule.verdict in DEADLY else rule for rule in sketch.rules)
    otherwise = tuple((action, "deny" if word in DEADLY else word) for action, word in sketch.otherwise)
    return replace(sketch, rules=rules, otherwise=otherwise)


def change_of(locations: Mapping[str, Location], salt: Salt, known: Sequence[Glob]) -> Try | None:
    """An attempt near the globs."""
    op, uid, way, flags = salt.choose(OPS), salt.choose(UIDS), salt.below(2), 0
    below = {name: len(location.below) for name, location in locations.items()}
    place, path = path_of(salt, known, below)
    location, payload = locations[place], path
    if op == "o":
        flags = salt.choose(OPENS)
    elif not path:
        return None
    if op in "vh":
        _, second = path_of(salt, known, below)
        if not second or second == path:
            return None
        payload += b"\0" + second
        flags = EXCHANGE if op == "v" and salt.below(4) == 0 else 0
    return Try(op, location, payload, flags, uid, way)


def changes(locations: Mapping[str, Location], salts: Iterable[Salt], known: Sequence[Glob], count: int) -> list[Try]:
    """Attempts none of which is in another's way by using its name."""
    used: set[tuple[str, bytes]] = set()
    tries: list[Try] = []
    for salt in salts:
        made = change_of(locations, salt, known)
        names = {(made.location.name, path) for path in made.paths} if made else set()
        if made and not names & used:
            used |= names
            tries.append(made)
    return tries[:count]
