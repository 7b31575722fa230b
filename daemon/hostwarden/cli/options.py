"""Options that several commands have, and what is made of their texts."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from hostwarden.policy.labels import parse_label, parse_selector

RUN_DIR = Path("/run/hostwarden")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|)")
_MAX_SECONDS = 300.0  # the daemon answers no later, whatever it is asked
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0}

Json = Annotated[bool, typer.Option("--json", help="Print JSON only: one object, or one object a line.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; can be repeated.")]


@dataclass(frozen=True)
class Globals:
    """The options before the command. ``collector`` None: this host's daemon."""

    run_dir: Path = RUN_DIR
    collector: str | None = None
    json: bool = False


def globals_of(context: typer.Context, json: bool) -> Globals:
    """The options before the command, and `--json` where it was typed after it."""
    given: Globals = context.obj
    return replace(given, json=given.json or json)


def group(context: typer.Context, json: Json = False) -> None:
    """The callback of a family of commands, so that `policy --json check` is understood, too."""
    context.obj = globals_of(context, json)


def agent_labels(texts: list[str] | None) -> dict[str, str]:
    """The labels that an agent is to have, or has. Raises BadParameter."""
    labels: dict[str, str] = {}
    for text in texts or ():
        try:
            key, value = parse_label(text)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--label") from None
        if key in labels:
            raise typer.BadParameter(f"label {key} is given twice", param_hint="--label")
        labels[key] = value
    return labels


def selected(texts: list[str] | None) -> dict[str, str]:
    """The terms by which agents are picked, `*` for any value. Raises BadParameter, for none at all too."""
    if not texts:
        raise typer.BadParameter("none given, and without one it would be every agent", param_hint="--label")
    try:
        return dict(parse_selector(texts).terms)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--label") from None


def seconds(text: str, option: str) -> float:
    """``10s``, ``500ms``, ``2m`` or plain seconds, above 0 and up to five minutes. Raises BadParameter."""
    match = _DURATION.fullmatch(text)
    value = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < value <= _MAX_SECONDS:
        message = f"{text[:40]!r}: expected a time like 10s, 500ms or 2m, above 0 and up to 5m"
        raise typer.BadParameter(message, param_hint=option)
    return value
