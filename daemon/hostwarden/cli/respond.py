"""What a responder and an administrator do: `kill`, `freeze`, `release`, `disarm`, `arm`."""

from typing import Annotated

import typer

from hostwarden.cli.door import host
from hostwarden.cli.errors import Code
from hostwarden.cli.options import Globals, Json, Labels, globals_of, seconds, selected
from hostwarden.cli.output import count, note, print_json, report, say

_SHOWN = 20  # names or pids in a line for people


def kill(
    context: typer.Context,
    label: Labels = None,
    timeout: Annotated[str, typer.Option("--timeout", metavar="TIME", help="How long to wait for the last.")] = "10s",
    json: Json = False,
) -> int:
    """End every agent with all these labels.

    Every process of theirs; new ones are refused until `release`. Exits 0 when none is left, 1 when some can't die or
    no agent matches.
    """
    options = globals_of(context, json)
    labels, timeout_s = selected(label), seconds(timeout, "--timeout")
    with host(options) as client:
        reply = client.kill(labels, timeout_s)
    agents, left = list(reply.agents), list(reply.left)
    if options.json:
        print_json({"killed": reply.killed, "agents": agents, "left": left})
    elif agents:
        say(f"{count(reply.killed, 'process', 'processes')} of {_names(agents)} killed")
    if not agents:
        report(f"no agent matches {_typed(labels)}", "`hostwarden ps` shows which labels there are")
    if left:
        note(f"{count(len(left), 'process is', 'processes are')} still there: {_some(list(map(str, left)))}")
    return Code.DONE if agents and not left else Code.NO


def freeze(
    context: typer.Context,
    label: Labels = None,
    timeout: Annotated[str, typer.Option("--timeout", metavar="TIME", help="How long to wait for the last.")] = "10s",
    json: Json = False,
) -> int:
    """Stop every agent with all these labels.

    Every process of theirs stands still, and new ones are refused, until `release`. Exits 0 when all stand still, 1
    when some don't or no agent matches.
    """
    options = globals_of(context, json)
    labels, timeout_s = selected(label), seconds(timeout, "--timeout")
    with host(options) as client:
        reply = client.freeze(labels, timeout_s)
    agents, left = list(reply.agents), list(reply.left)
    if options.json:
        print_json({"frozen": reply.frozen, "agents": agents, "left": left})
    elif agents:
        say(f"{count(reply.frozen, 'process', 'processes')} of {_names(agents)} frozen")
    if not agents:
        report(f"no agent matches {_typed(labels)}", "`hostwarden ps` shows which labels there are")
    if left:
        note(f"{count(len(left), 'process', 'processes')} not yet still: {_some(list(map(str, left)))}")
    return Code.DONE if agents and not left else Code.NO


def release(
    context: typer.Context,
    label: Labels = None,
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="A frozen agent, by its name.")] = "",
    json: Json = False,
) -> int:
    """Let killed agents start again, and frozen ones go on."""
    options = globals_of(context, json)
    labels = selected(label) if label or not agent else {}
    with host(options) as client:
        agents = list(client.release(labels, agent).agents)
    if options.json:
        print_json({"agents": agents})
    elif agents:
        say(f"{_names(agents)} may go on, or start again")
    if not agents:
        wanted = " ".join(filter(None, (_typed(labels), agent)))
        report(f"nothing that was killed or frozen matches {wanted}", "`hostwarden status` shows what is blocked")
    return Code.DONE if agents else Code.NO


def arm(context: typer.Context, json: Json = False) -> None:
    """Enforce again after `disarm`."""
    _arm(globals_of(context, json), True)


def disarm(context: typer.Context, json: Json = False) -> None:
    """Stop enforcing, go on recording.

    The way out for a policy that locks out its operator.
    """
    _arm(globals_of(context, json), False)


def _arm(options: Globals, wanted: bool) -> None:
    with host(options) as client:
        is_armed = client.arm(wanted).armed
    if options.json:
        print_json({"armed": is_armed})
    elif is_armed:
        say("armed: policies are enforced and recorded")
    else:
        say("disarmed: nothing is enforced, everything is recorded, until `hostwarden arm`")


def _names(agents: list[str]) -> str:
    return f"{'agent' if len(agents) == 1 else 'agents'} {_some(agents)}"


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _typed(labels: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in labels.items())
