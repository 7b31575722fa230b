"""`events`: the records of the log, as they are for programs, one readable line each for people."""

import sys
from typing import Annotated, Any

import orjson
import typer

from hostwarden.cli.door import service
from hostwarden.cli.options import Json, globals_of
from hostwarden.cli.output import clean, paint, print_line, words
from hostwarden.policy.vocabulary import unknown
from hostwarden.policy.words import Verdict

_MAX_SINCE = (1 << 64) - 1
_DETAIL_CHARACTERS = 300
_OUTCOME_STYLES = {
    "prevented": "bad",
    "held": "warn",
    "killed_before_effect": "bad",
    "killed_after_effect": "bad",
}


def events(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with the records to come.")] = False,
    since: Annotated[
        int, typer.Option("--since", metavar="SEQ", min=0, max=_MAX_SINCE, help="Records after this one.")
    ] = 0,
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="Of this agent.")] = "",
    verdict: Annotated[str, typer.Option("--verdict", metavar="VERDICT", help="With this verdict.")] = "",
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="Of this host.")] = "",
    json: Json = False,
) -> None:
    """Print records: attempt, verdict, outcome.

    All of them, ascending. With --json a record is the very line of the log.
    """
    verdicts = tuple(map(str, Verdict))
    if verdict and verdict not in verdicts:
        raise typer.BadParameter(unknown("verdict", verdict, verdicts), param_hint="--verdict")
    options = globals_of(context, json)
    is_watched = follow or sys.stdout.isatty()
    with service(options) as client:
        for record in client.events(since, follow, agent, verdict, host):
            if options.json:
                print_line(record.line)
            else:
                shown_host = record.host if options.collector is not None else ""
                sys.stdout.write(record_line(record.line, shown_host) + "\n")
            if is_watched:
                sys.stdout.flush()


def record_line(line: bytes, host: str = "") -> str:
    """A record for people: number, host if given, time, agent, action, target, verdict, outcome, rule, why.

    Bytes that are no record are shown as they are, made harmless: a reader who sees odd things must not see nothing.
    """
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        record = None
    if not isinstance(record, dict):
        return clean(line.decode(errors="backslashreplace"))
    outcome = _text(record.get("outcome"))
    columns = [
        f"{_text(record.get('sequence')):>7}",
        *([host] if host else []),
        _time(record.get("time")),
        f"{_text(record.get('agent')):12}",
        f"{_text(record.get('action')):7}",
        f"{_text(record.get('target')):32}",
        f"{_text(record.get('verdict')):5}",
    ]
    rest = [f"{outcome:20}", _text(record.get("rule")), *_more(record)]
    return "  ".join(map(clean, columns)) + "  " + paint("  ".join(rest).rstrip(), _style(record, outcome))


def _style(record: dict[str, Any], outcome: str) -> str:
    if outcome == "observed" and record.get("verdict") not in ("allow", "audit"):
        return "warn"  # it was refused on paper, and happened
    return _OUTCOME_STYLES.get(outcome, "") or ("warn" if record.get("lost") else "")


def _more(record: dict[str, Any]) -> list[str]:
    """What else a person wants to know: the rule's why; for the warden's own acts, what they were about."""
    more = [words(record["why"])] if record.get("why") else []
    if "lost" in record:
        more.append(f"lost {words(record['lost'])}")
    if record.get("error"):
        more.append(f"error: {words(record['error'])}")
    if record.get("detail"):
        detail = words(record["detail"])
        more.append(detail if len(detail) <= _DETAIL_CHARACTERS else detail[:_DETAIL_CHARACTERS] + "…")
    return more


def _time(value: Any) -> str:
    """``2026-11-24T07:20:00.123456789Z`` to the millisecond."""
    text = _text(value)
    head, dot, fraction = text.partition(".")
    return f"{head}.{fraction[:3]}Z" if dot and fraction.endswith("Z") else text


def _text(value: Any) -> str:
    return "-" if value is None or value == "" else value if isinstance(value, str) else words(value)
