"""Scenarios: the files are what their README says, the table is today's, and a row is judged by the world first."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hostwarden.cli.scenarios import judge, model, policies, runner, table
from hostwarden.cli.scenarios.resident import ACTS
from hostwarden.cli.scenarios.residents import Attempt, Resident
from hostwarden.policy.parse import parse_policy

SECTIONS = ["Plain verdicts", "Same object, other name", "Same act, other door"]


@pytest.fixture(scope="module")
def scenarios() -> model.Scenarios:
    return model.load()


# the files


def test_all_sections_are_there(scenarios: model.Scenarios) -> None:
    assert list(dict.fromkeys(row.section for row in scenarios.rows)) == SECTIONS


def test_acts_exist_and_are_used(scenarios: model.Scenarios) -> None:
    assert {row.words.split()[0] for row in scenarios.rows if row.kind == "act"} == set(ACTS)


def test_every_limit_is_used(scenarios: model.Scenarios) -> None:
    used = {promise for row in scenarios.rows for promise in row.promises.values()}
    assert set(scenarios.limits) - used == set()


def test_policies_are_policies(scenarios: model.Scenarios, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    texts = policies.texts(scenarios.agents, "1", lambda text: _plain(text), tmp_path)
    for name, text in texts.items():
        assert parse_policy(text.encode(), name, lambda user: None).name


def _plain(text: str) -> str:
    for word, value in (("$W", "/w/*"), ("$A", "name")):
        text = text.replace(word, value)
    for letter in "COHF":
        text = text.replace(f"${letter}", "80")
    return text


def test_table_is_todays(scenarios: model.Scenarios) -> None:
    page = (model.folder() / "README.md").read_text()
    assert table.renewed(page, scenarios) == page, "python -m hostwarden.cli.scenarios.table"


ROW = {"name": "one", "act": "open openat rdonly $W/x", "gives": "x", "refused": "read"}
SHARED = "promises: {lsm: &all {read: prevented}, modify_return: *all, signal: {read: handed}}\nlimits: {handed: why}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gives": None, "give": "x"}, "unknown key give"),
        ({"gives": None}, "an effect"),
        ({"refused": None}, "one of refused, works, observed"),
        ({"works": True}, "one of refused, works, observed"),
        ({"run": "cat"}, "one of act, run"),
        ({"agent": "other"}, "no agent other"),
        ({"lsm": "stopped"}, "stopped is neither an outcome nor in limits.yaml"),
    ],
)
def test_mistakes_have_their_place(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    row = {key: value for key, value in (ROW | changes).items() if value is not None}
    write(tmp_path, [row])
    with pytest.raises(model.ScenarioError, match=message) as raised:
        model.load(tmp_path)
    assert "rows.yaml: one" in str(raised.value)


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "limits.yaml").write_text(SHARED)
    (folder / "agents.yaml").write_text("agents: {a: {rules: []}}")
    content = {"section": "S", "agent": "a", "rows": rows}
    (folder / "rows.yaml").write_text(json.dumps(content))


# judging


def record(action: str, outcome: str, **more: str) -> dict[str, Any]:
    return {"action": action, "target": "/w/x", "verdict": "deny", "outcome": outcome, "tier": "lsm", **more}


NO = Attempt(1, "", "EPERM: Operation not permitted", False, 1)
DONE = Attempt(0, "x", "", False, 1)
DEAD = Attempt(137, "", "", False, 1)
CONTROL = judge.Seen(DONE, True, True)
PREVENTED = record("read", "prevented")
BEFORE = record("read", "killed_before_effect", tier="signal")
AFTER = record("read", "killed_after_effect", tier="signal")


@pytest.mark.parametrize(
    ("kind", "promise", "seen", "problem"),
    [
        # prevented: world, record and answer agree
        ("lsm", "prevented", judge.Seen(NO, False, False, [PREVENTED]), None),
        ("lsm", "prevented", judge.Seen(NO, True, False, [PREVENTED]), "it happened all the same"),
        ("lsm", "prevented", judge.Seen(NO, False, True, [PREVENTED]), "not as it was"),
        ("lsm", "prevented", judge.Seen(NO, False, False, []), "no record of read"),
        ("lsm", "prevented", judge.Seen(DONE, False, False, [PREVENTED]), "told something else"),
        ("lsm", "prevented", judge.Seen(DEAD, False, False, [BEFORE]), "outcome killed_before_effect"),
        ("lsm", "prevented", judge.Seen(NO, False, False, [record("send", "prevented")]), "no record of read"),
        ("modify_return", "prevented", judge.Seen(NO, False, False, [PREVENTED]), "tier"),
        # killed
        ("signal", "killed_before_effect", judge.Seen(DEAD, False, False, [BEFORE]), None),
        ("signal", "killed_before_effect", judge.Seen(DEAD, True, False, [BEFORE]), "it happened"),
        ("signal", "killed_before_effect", judge.Seen(DEAD, False, False, [BEFORE, AFTER]), "killed_after_effect"),
        ("signal", "killed_before_effect", judge.Seen(DONE, False, False, [BEFORE]), "lived on"),
        ("signal", "killed_after_effect", judge.Seen(DEAD, True, True, [AFTER]), None),
        # a limit: it happens, and nothing says that it was refused
        ("signal", "handed", judge.Seen(DONE, True, False, []), None),
        ("signal", "handed", judge.Seen(DEAD, False, False, [BEFORE]), "no limit here"),
        ("signal", "handed", judge.Seen(DONE, True, False, [BEFORE]), "no limit here: refused"),
    ],
)
def test_judging(tmp_path: Path, kind: str, promise: str, seen: judge.Seen, problem: str | None) -> None:
    write(tmp_path, [ROW | {kind: promise}])
    scenarios = model.load(tmp_path)
    finding = judge.judge(scenarios.rows[0], kind, scenarios.limits, CONTROL, seen)
    assert finding.passed == (problem is None), finding.problems
    assert problem is None or any(problem in each for each in finding.problems), finding.problems


def test_row_whose_control_fails_proves_nothing(tmp_path: Path) -> None:
    write(tmp_path, [ROW])
    scenarios = model.load(tmp_path)
    control, seen = judge.Seen(NO, False, False), judge.Seen(NO, False, False, [PREVENTED])
    (problem,) = judge.judge(scenarios.rows[0], "lsm", scenarios.limits, control, seen).problems
    assert "proves nothing" in problem


def test_records_between_marks() -> None:
    targets = ["/m/1", "/w/a", "/w/b", "/m/2", "/w/c", "/m/plain"]
    records = [{"target": target} for target in targets]
    assert [each["target"] for each in runner.between_marks(records, "/m", "1")] == ["/w/a", "/w/b"]
    assert [each["target"] for each in runner.between_marks(records, "/m", "2")] == ["/w/c"]


def test_limits_that_doctor_does_not_say(tmp_path: Path) -> None:
    write(tmp_path, [ROW])
    scenarios = model.load(tmp_path)
    assert runner.unsaid(scenarios, "signal", ["something else"]) == ["handed"]
    assert runner.unsaid(scenarios, "signal", ["signal: that is why"]) == []
    assert runner.unsaid(scenarios, "lsm", []) == []


def test_only_some(tmp_path: Path) -> None:
    write(tmp_path, [ROW, ROW | {"name": "another"}])
    assert [row.name for row in runner.only(model.load(tmp_path), "ANOTH").rows] == ["another"]
    with pytest.raises(model.ScenarioError, match="no scenario is called 'third'"):
        runner.only(model.load(tmp_path), "third")


# the process that tries


def test_attempts(tmp_path: Path) -> None:
    """Acts, commands and shells; refusals by name; whatever hangs is ended; a dead child is no dead resident."""
    (tmp_path / "file").write_text("text")
    resident = Resident([], "outsider", tmp_path / "errors")
    try:

        def tries(kind: str, words: str, timeout_s: float = 20) -> Attempt:
            return resident.attempt([], kind, words, str(tmp_path), timeout_s=timeout_s)

        assert tries("act", f"open openat rdonly {tmp_path}/file").out == "text"
        assert tries("run", "cat file").out == "text"
        assert tries("sh", "cat file | cat; exit 3").code == 3
        missing = tries("act", "open openat rdonly absent")
        assert (missing.code, missing.err[:6], missing.is_refused) == (1, "ENOENT", False)
        assert tries("sh", "kill -9 $$").code == 137
        assert tries("sh", "sleep 60", 0.2).timed_out
        assert tries("act", "nonsense").code == 70
        assert tries("sh", "echo still here").out == "still here\n"
    finally:
        resident.close()


def test_resident_needs_the_standard_library_only() -> None:
    code = "import sys; import hostwarden.cli.scenarios.resident; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    strangers = {name for name in done.stdout.split() if name not in sys.stdlib_module_names}
    assert strangers - {"hostwarden", "__main__"} - site_modules() == set()


def site_modules() -> set[str]:
    """What .pth files of the venv load into any Python."""
    code = "import sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())
