"""`policy check`, `policy explain`, `policy test`: what policies say, without a daemon and without an agent."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hostwarden.cli import later
from hostwarden.cli.errors import CliError, Code
from hostwarden.cli.options import Globals, Json, Labels, agent_labels, globals_of, group
from hostwarden.cli.output import count, note, print_json, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hostwarden.policy.cases import Case, Result
    from hostwarden.policy.model import Policy
    from hostwarden.policy.parse import PolicyError

app = typer.Typer(help="Check policies, explain a decision, run test cases.", callback=group, rich_markup_mode=None)

NOBODY = "65534"  # as in files of cases
Policies = Annotated[
    list[Path] | None,
    typer.Option("--policies", metavar="DIR", help="Policy files or folders (default: the daemon's policy_dir)."),
]


@app.command("check")
def check(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE|DIR", help="Default: the daemon's policy_dir.")
    ] = None,
    json: Json = False,
) -> int:
    """Report all mistakes and warnings.

    Mistakes exit 2; warnings, what is most likely not meant, exit 0.
    """
    from hostwarden.cli import policyfiles
    from hostwarden.policy.check import check as warnings_of
    from hostwarden.policy.check import unreal
    from hostwarden.policy.parse import PolicyErrors

    options = globals_of(context, json)
    daemon = policyfiles.ask_daemon(options)
    with policyfiles.mistakes_shown(options):
        policies = policyfiles.load(paths or [daemon.policy_dir or policyfiles.POLICY_DIR])
        too_much = _not_compilable(policies, daemon.labels or ())
        too_much += [] if daemon.tiers is None else unreal(policies, daemon.tiers)
        if too_much:
            raise PolicyErrors(too_much)
    warnings = warnings_of(policies, daemon.tiers, daemon.labels)
    if options.json:
        print_json(policyfiles.findings(policies, [], warnings))
        return Code.DONE
    for warning in warnings:
        note(str(warning))
    say(f"{count(len(policies), 'policy', 'policies')} checked, {count(len(warnings), 'warning')}")
    return Code.DONE


@app.command("explain")
def explain(
    context: typer.Context,
    action: Annotated[str, typer.Argument(metavar="ACTION", help="exec, read, write, create, delete, connect …")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A path, ADDRESS:PORT, unix:/PATH or pid:N.")],
    argv: Annotated[
        list[str] | None, typer.Argument(metavar="ARGV", help="After `--`, for exec only; without: the path alone.")
    ] = None,
    label: Labels = None,
    user: Annotated[str, typer.Option("--user", metavar="USER", help="Name or uid (default: nobody).")] = NOBODY,
    sha256: Annotated[str | None, typer.Option("--sha256", metavar="HEX", help="Content, of exec and load.")] = None,
    policies: Policies = None,
    json: Json = False,
) -> None:
    """Say what decides an action, and why.

    For example: policy explain --label team=billing exec /usr/bin/git -- git push --force
    """
    from hostwarden.cli import policyfiles
    from hostwarden.cli.attempt import attempt
    from hostwarden.policy.explain import explain as explanation_of

    options, labels = globals_of(context, json), agent_labels(label)
    tried = attempt(action, target, argv or [], user, sha256)
    with policyfiles.mistakes_shown(options):
        explanation = explanation_of(_in_force(options, policies), labels, tried)
    if options.json:
        print_json(explanation.as_dict())
        return
    for line in explanation.lines():
        say(line)


@app.command("test")
def test(
    context: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="CASES", help="Files of cases, or folders of them.")
    ] = None,
    policies: Policies = None,
    on_host: Annotated[
        bool, typer.Option("--host", help="Try what policies must refuse, on this host; CASES: a folder of scenarios.")
    ] = False,
    only: Annotated[str, typer.Option("--only", metavar="TEXT", help="With --host: scenarios called so.")] = "",
    json: Json = False,
) -> int:
    """Decide the cases in files and compare.

    Exits 1 if one isn't decided as expected. With --host, agents really try what they must not, in a folder of their
    own and beside the policies in force; the daemon has to run.
    """
    from hostwarden.cli import policyfiles
    from hostwarden.policy.cases import run_cases

    options = globals_of(context, json)
    if on_host:
        return _on_host(options, files or [], only)
    if not files:
        raise CliError("missing argument 'CASES'", "see `hostwarden policy test --help`", Code.INVALID)
    with policyfiles.mistakes_shown(options):
        cases = _cases(files)
        results = run_cases(_in_force(options, policies), cases)
    failed = [result for result in results if not result.passed]
    if options.json:
        print_json({"passed": len(results) - len(failed), "failed": len(failed), "cases": [*map(_case_dict, results)]})
    else:
        for result in failed:
            say(str(result), "bad")
        say(f"{count(len(results), 'case')}: {len(results) - len(failed)} as expected, {len(failed)} not")
    return Code.NO if failed else Code.DONE


later.add(app, later.POLICY_COMMANDS, "policy ")


def _on_host(options: Globals, folders: list[Path], only: str) -> int:
    from hostwarden.cli.hosttest import test_host

    if len(folders) > 1:
        raise typer.BadParameter("expected one folder of scenarios at most", param_hint="CASES")
    return test_host(options, folders[0] if folders else None, only)


def _in_force(options: Globals, paths: list[Path] | None) -> "tuple[Policy, ...]":
    """The policies that were named, else those in the daemon's folder. Raises PolicyErrors."""
    from hostwarden.cli import policyfiles

    return policyfiles.load(paths or [policyfiles.ask_daemon(options).policy_dir or policyfiles.POLICY_DIR])


def _not_compilable(policies: "Sequence[Policy]", agents: "Sequence[Mapping[str, str]]") -> "list[PolicyError]":
    """What the kernel's tables can't hold: each policy alone, and together those that apply to an agent there is."""
    from hostwarden.policy.compile import CompileError, compile_profile
    from hostwarden.policy.oracle import applicable
    from hostwarden.policy.parse import PolicyError

    together = {tuple(policy.name for policy in applicable(policies, labels)) for labels in agents}
    errors = []
    for names in sorted({(policy.name,) for policy in policies} | together - {()}):
        chosen = [policy for policy in policies if policy.name in names]
        try:
            compile_profile(chosen, [])
        except CompileError as error:
            errors.append(PolicyError(", ".join(policy.file for policy in chosen), 0, 0, str(error)))
    return errors


def _cases(paths: list[Path]) -> "list[Case]":
    """The cases of all files. Raises PolicyErrors with the mistakes of all of them."""
    from hostwarden.cli import policyfiles
    from hostwarden.policy.cases import parse_cases
    from hostwarden.policy.parse import PolicyErrors

    found = policyfiles.read(paths)
    cases: list[Case] = []
    for name, text in found.files:
        try:
            cases += parse_cases(text, name, policyfiles.uid_of)
        except PolicyErrors as error:
            found.errors += error.errors
    if found.errors:
        raise PolicyErrors(found.errors)
    return cases


def _case_dict(result: "Result") -> dict[str, Any]:
    from hostwarden.policy.explain import target

    case, reason = result.case, result.ruling.enforced_reason
    return {
        "file": case.file,
        "line": case.line,
        "column": case.column,
        "action": str(case.attempt.action),
        "target": target(case.attempt),
        "passed": result.passed,
        "expected": str(case.expect),
        "actual": str(result.ruling.enforced),
        "policy": reason.policy,
        "rule": reason.location,
        "mistakes": list(result.mistakes),
    }
