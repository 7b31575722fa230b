"""`audit verify`: every byte of a log, checked as a stranger would: with the files, the public key, and no daemon."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hostwarden.cli import later
from hostwarden.cli.door import host, parsed
from hostwarden.cli.errors import CliError, Code
from hostwarden.cli.options import Globals, Json, globals_of, group
from hostwarden.cli.output import count, print_json, say

if TYPE_CHECKING:
    from hostwarden.records.diagnose import Problem
    from hostwarden.records.verify import Report

app = typer.Typer(help="Prove that the log is as it was written.", callback=group, rich_markup_mode=None)

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@app.command("verify")
def verify(
    context: typer.Context,
    state_dir: Annotated[
        Path | None,
        typer.Argument(
            metavar="STATE_DIR", readable=False, help="A host's state_dir, its log folder, or a copy of one."
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The host's log.pub (default: the one beside the log).")
    ] = None,
    json: Json = False,
) -> int:
    """Check every byte of a log.

    Exits 1 and names the records that were changed, 2 if there is no log, 4 if it may not be read.
    """
    from hostwarden.records.key import read_public
    from hostwarden.records.segments import LogError
    from hostwarden.records.verify import verify as check

    options = globals_of(context, json)
    folder = state_dir if state_dir is not None else _running(options)
    try:
        with _shown_progress(options) as progress:
            report = check(folder, read_public(key) if key is not None else None, progress=progress)
    except LogError as error:
        message, _, hint = str(error).partition("; ")
        denied = isinstance(error.__context__, PermissionError)
        raise CliError(message, hint, Code.NOT_PERMITTED if denied else Code.INVALID) from None
    if options.json:
        print_json({"ok": report.ok, "state_dir": str(folder), **asdict(report)})
    else:
        _say_report(report)
    return Code.DONE if report.ok else Code.NO


later.add(app, later.AUDIT_COMMANDS, "audit ")


def _running(options: Globals) -> Path:
    """Where the running daemon keeps its log. Raises CliError."""
    from hostwarden.wire.roles import READY_ONLY

    with host(options) as client:
        folder, is_open = parsed(client.status().json).get("state_dir"), client.role not in READY_ONLY
    if not is_open:
        raise CliError(
            "not permitted to know where the daemon's log is", "ask as root, or name a copy of it", Code.NOT_PERMITTED
        )
    if not isinstance(folder, str):
        raise CliError("the daemon doesn't say where its log is", "name its state_dir", Code.INVALID)
    return Path(folder)


@contextmanager
def _shown_progress(options: Globals) -> Iterator[Progress | None]:
    """A bar on a terminal's stderr, as soon as the first megabytes are done: short logs need none."""
    if options.json or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task: list[Any] = []

        def show(done: int, total: int) -> None:
            if not task:
                task.append(bar.add_task("verifying", total=total))
            bar.update(task[0], completed=done, total=total)

        yield show


def _say_report(report: "Report") -> None:
    for problem in report.problems:
        say(_problem_line(problem), "bad")
    if report.more_problems:
        say(f"and {report.more_problems} more", "bad")
    verdict = "as it was written" if report.ok else "NOT as it was written"
    say(f"{_size(report)}: {verdict}", "good" if report.ok else "bad")
    say(f"signed up to record {report.signed} by {count(report.checkpoints, 'checkpoint')}" + _tail(report))
    say(f"checked with the key {report.fingerprint}" if report.fingerprint else "no key: no signature was checked")


def _problem_line(problem: "Problem") -> str:
    about = f"record {problem.sequence}: " if problem.sequence is not None else ""
    return f"{about}{problem}"


def _size(report: "Report") -> str:
    span = f", {report.first} to {report.last}" if report.records else ""
    return f"{count(report.records, 'record')} in {count(report.segments, 'segment')}{span}"


def _tail(report: "Report") -> str:
    return f"; {report.unsigned_tail} after it, chained and not signed yet" if report.unsigned_tail > 0 else ""
