"""An attempt as the command line describes it, for `policy explain`. Loaded by that command only: it takes a while."""

import os
from dataclasses import replace

import typer

from hostwarden.cli.policyfiles import uid_of
from hostwarden.policy.attempts import parse_attempt, parse_content
from hostwarden.policy.oracle import Attempt
from hostwarden.policy.rules import ACTION_WORDS, parse_uid
from hostwarden.policy.vocabulary import LATER_ACTIONS, quote, unknown
from hostwarden.policy.words import CONTENT_ACTIONS, Action


def attempt(word: str, target: str, argv: list[str], user: str, sha256: str | None = None) -> Attempt:
    """What was typed, as the oracle wants it; without argv an exec has its path alone. Raises BadParameter."""
    if word not in ACTION_WORDS:
        raise typer.BadParameter(unknown("action", word, ACTION_WORDS, LATER_ACTIONS), param_hint="ACTION")
    action, uid = Action[word.upper()], parse_uid(user, uid_of)
    if uid is None:
        raise typer.BadParameter(f"no user {quote(user)} here, expected a name or uid", param_hint="--user")
    if argv and action is not Action.EXEC:
        raise typer.BadParameter(f"argv says nothing about {action}, expected it with exec", param_hint="ARGV")
    if sha256 is not None and action not in CONTENT_ACTIONS:
        message = f"sha256 says nothing about {action}, expected it with exec or load"
        raise typer.BadParameter(message, param_hint="--sha256")
    try:
        found = parse_attempt(action, target, uid)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="TARGET") from None
    try:
        content = None if sha256 is None else parse_content(sha256)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--sha256") from None
    return replace(found, argv=tuple(map(os.fsencode, argv)) or found.argv, sha256=content)
