"""`policy test --host`: the scenarios of `tests/scenarios` against this host's daemon, in a folder of their own."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostwarden.cli.door import host
from hostwarden.cli.errors import CliError, Code
from hostwarden.cli.options import Globals
from hostwarden.cli.output import count, note, print_json, say

if TYPE_CHECKING:
    from hostwarden.cli.scenarios.judge import Finding
    from hostwarden.cli.scenarios.model import Scenarios


def test_host(options: Globals, place: Path | None, only: str) -> int:
    """Every scenario in ``place`` (default: those that came with the program) whose name has ``only`` in it.

    Exits 1 if one isn't as promised for this kind of host, or if `doctor` doesn't say why something isn't refused.
    Raises CliError where the scenarios can't be tried.
    """
    from hostwarden.cli.scenarios import runner
    from hostwarden.cli.scenarios.model import ScenarioError, load
    from hostwarden.wire.roles import Role

    with host(options, "Reload") as client:
        if client.role is not Role.ADMIN:
            raise CliError("only root can try what policies must refuse", "try: sudo", Code.NOT_PERMITTED)
        try:
            scenarios = load(place)
            scenarios = runner.only(scenarios, only) if only else scenarios
            kind, findings, told = runner.run(scenarios, client, options.run_dir, note)
        except ScenarioError as error:
            raise CliError(str(error), "the daemon's log may say more") from None
        unsaid = runner.unsaid(scenarios, kind, told.get("limits", []))
    failed = [finding for finding in findings if not finding.passed]
    if options.json:
        print_json(_as_dict(kind, findings, unsaid))
    else:
        _show(kind, findings, failed, unsaid, scenarios)
    return Code.NO if failed or unsaid else Code.DONE


def _as_dict(kind: str, findings: "list[Finding]", unsaid: list[str]) -> dict[str, Any]:
    from hostwarden.cli.scenarios.runner import as_dict

    return {
        "kind": kind,
        "passed": sum(finding.passed for finding in findings),
        "failed": sum(not finding.passed for finding in findings),
        "unsaid": unsaid,
        "scenarios": [as_dict(finding) for finding in findings],
    }


def _show(
    kind: str, findings: "list[Finding]", failed: "list[Finding]", unsaid: list[str], scenarios: "Scenarios"
) -> None:
    for finding in failed:
        say(f"{finding.row.section}: {finding.row.name}", "bad")
        for problem in finding.problems:
            say(f"  {problem}")
    for key in unsaid:
        say(f"doctor doesn't say: {scenarios.limits[key]}", "bad")
    tried = count(len(findings), "scenario")
    say(f"{tried} on a host of kind {kind}: {len(findings) - len(failed)} as promised, {len(failed)} not")
