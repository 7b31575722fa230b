"""`status` and `doctor`: how the daemon is, and what this host can do."""

from collections.abc import Iterator
from typing import Any

import typer

from hostwarden.cli.door import host, parsed, service
from hostwarden.cli.errors import Code
from hostwarden.cli.options import Json, globals_of
from hostwarden.cli.output import print_json, say, say_pairs, say_table, words

_FIRST = ("sequence", "lost", "agents", "collector")  # the rest of a status follows in the daemon's order
_ONCE_CHARACTERS = 30
_MARKS = {True: "ok", False: "FAILED", None: "unknown"}


def status(context: typer.Context, json: Json = False) -> int:
    """Say whether it is ready, and how it is.

    Exits 0 only when ready, else 1.
    """
    options = globals_of(context, json)
    with service(options) as client:
        reply = client.status()
    shown = {"ready": reply.ready, **parsed(reply.json)}
    if options.json:
        print_json(shown)
    else:
        _say_status(shown)
    return Code.DONE if reply.ready else Code.NO


def doctor(context: typer.Context, json: Json = False) -> int:
    """Say what each verdict does on this host.

    Action by action, with its proof, and what is missing. Exits 1 if a check failed.
    """
    options = globals_of(context, json)
    with host(options) as client:
        found = parsed(client.doctor().json)
    checks = _dicts(found.get("checks"))
    if options.json:
        print_json(found)
    else:
        _say_doctor(found, checks)
    return Code.NO if any(check.get("ok") is False for check in checks) else Code.DONE


def _say_status(shown: dict[str, Any]) -> None:
    is_ready = shown.pop("ready")
    say("ready" if is_ready else "not ready", "good" if is_ready else "bad")
    if shown.get("armed") is False:
        say("disarmed: nothing is enforced, until `hostwarden arm`", "bad")
    say_pairs(_status_pairs(shown))


def _status_pairs(shown: dict[str, Any]) -> Iterator[tuple[str, str]]:
    tiers = shown.pop("tiers", {})
    for key in [*(key for key in _FIRST if key in shown), *(key for key in shown if key not in _FIRST)]:
        value = shown[key]
        if key == "hosts" and isinstance(value, dict):  # a collector's
            yield from ((f"host {name}", words(about)) for name, about in value.items())
        else:
            yield key.replace("_", " "), words(value)
    if isinstance(tiers, dict):
        yield from ((f"tier of {action}", str(tier)) for action, tier in tiers.items())


def _say_doctor(found: dict[str, Any], checks: list[dict[str, Any]]) -> None:
    matrix = _dicts(found.get("matrix"))
    columns = {
        key: [_cell(row.get(key)) for row in matrix] for key in dict.fromkeys(key for row in matrix for key in row)
    }
    # A sentence that is the same in each row would leave the others no room: once, below, is enough.
    once = [key for key, cells in columns.items() if len(set(cells)) == 1 and len(cells[0]) > _ONCE_CHARACTERS]
    shown = {key: cells for key, cells in columns.items() if key not in once}
    say_table(list(shown), zip(*shown.values(), strict=True))
    for key in once:
        say(f"{key}: {columns[key][0]}")
    if checks:
        say("")
        rows = ([_MARKS.get(check.get("ok"), "unknown"), *_about(check)] for check in checks)
        say_table(["check", "name", "says", "hint"], rows)
    for limit in found.get("limits") or ():
        say(f"limit: {words(limit)}")


def _about(check: dict[str, Any]) -> list[str]:
    return ["" if check.get(key) is None else words(check[key]) for key in ("name", "says", "hint")]


def _cell(value: Any) -> str:
    """One of our words, like killed_before_effect, is easier to read without its underscores; a sentence stays."""
    text = words(value)
    return text if " " in text else text.replace("_", " ")


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
