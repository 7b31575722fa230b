"""An attempt as the command line describes it, for `policy explain`. Loaded by that command only: it takes a while."""

import os
import re

import typer

from hostwarden.cli.policyfiles import uid_of
from hostwarden.policy.address import parse_address
from hostwarden.policy.oracle import Attempt
from hostwarden.policy.rules import ACTION_WORDS, parse_uid
from hostwarden.policy.vocabulary import LATER_ACTIONS, quote, unknown
from hostwarden.policy.words import NET_ACTIONS, Action

# Rules speak of the host path that the kernel rebuilds from the object, which never has these.
_UNRESOLVED = re.compile(rb"(?!/)|.*/(\.{0,2})(/|\Z)", re.DOTALL)


def attempt(word: str, target: str, argv: list[str], user: str) -> Attempt:
    """What was typed, as the oracle wants it; without argv an exec has its path alone. Raises BadParameter."""
    if word not in ACTION_WORDS:
        raise typer.BadParameter(unknown("action", word, ACTION_WORDS, LATER_ACTIONS), param_hint="ACTION")
    action, uid = Action[word.upper()], parse_uid(user, uid_of)
    if uid is None:
        raise typer.BadParameter(f"no user {quote(user)} here, expected a name or uid", param_hint="--user")
    if argv and action is not Action.EXEC:
        raise typer.BadParameter(f"argv says nothing about {action}, expected it with exec", param_hint="ARGV")
    if action in NET_ACTIONS:
        return _net_attempt(action, target, uid)
    path = os.fsencode(target)
    if path != b"/" and _UNRESOLVED.match(path):
        message = f"path {quote(target)}, expected an absolute one without `.`, `..`, // or a slash at the end"
        raise typer.BadParameter(message, param_hint="TARGET")
    arguments = tuple(map(os.fsencode, argv)) or (path,)
    return Attempt(action, path=path, argv=arguments if action is Action.EXEC else None, uid=uid)


def _net_attempt(action: Action, target: str, uid: int) -> Attempt:
    try:
        address, port = parse_address(target)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="TARGET") from None
    return Attempt(action, address=address, port=port, uid=uid)
