"""`ps` and `adopt`: which agents there are, and making one of what runs already."""

from typing import Annotated, Any

import typer

from hostwarden.cli.door import host, parsed
from hostwarden.cli.options import Json, Labels, agent_labels, globals_of
from hostwarden.cli.output import count, labels_words, print_json, print_line, say, say_table, words


def ps(context: typer.Context, json: Json = False) -> None:
    """List agents: labels, state, processes."""
    options = globals_of(context, json)
    agents: list[dict[str, Any]] = []
    with host(options) as client:
        for reply in client.ps():
            if options.json:
                print_line(reply.json)
            else:
                agents.append(parsed(reply.json))
    if not options.json:
        say_table(["AGENT", "LABELS", "STATE", "PROCESSES"], map(_row, agents))


def adopt(
    context: typer.Context,
    pid: Annotated[int, typer.Option("--pid", metavar="PID", min=1, max=(1 << 22), help="The process to adopt.")],
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="The agent's name.")] = "",
    label: Labels = None,
    json: Json = False,
) -> None:
    """Make an agent of a running process.

    Its descendants as well; says what they hold open.
    """
    options = globals_of(context, json)
    labels = agent_labels(label)
    with host(options) as client:
        reply = client.adopt(pid, agent, labels)
    held = parsed(reply.json)
    if options.json:
        print_json({"agent": reply.agent, "processes": reply.processes, **held})
        return
    say(f"agent {reply.agent}: {count(reply.processes, 'process', 'processes')} adopted")
    for what, entries in held.items():
        for entry in entries if isinstance(entries, list) else [entries]:
            say(f"  {what.replace('_', ' ')}: {words(entry)}")


def _row(agent: dict[str, Any]) -> list[str]:
    processes = agent.get("processes")
    count = len(processes) if isinstance(processes, list) else processes
    return [words(agent.get("agent")), labels_words(agent.get("labels")), words(agent.get("state")), words(count)]
