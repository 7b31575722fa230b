"""agents.d: what a file may say, every mistake in one line, and what two files may not both say."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostwarden.daemon.agentsd import AgentSpec, is_agent_name, load_agents, parse_agent, read_agents
from hostwarden.policy.match import match_path
from hostwarden.policy.source import PolicyErrors

GOOD = b"""\
# the billing team's agents
agent: billing
labels: {team: billing, stage: live}
match:
  unit: [billing.service, billing-jobs.slice]
  exe:
    - /opt/billing/bin/*
    - "**/agent-{a,b}"
"""


def errors_of(*files: str) -> list[str]:
    """What is wrong with these files, named 0.yaml, 1.yaml, …"""
    with pytest.raises(PolicyErrors) as caught:
        load_agents([(f"{i}.yaml", text.encode()) for i, text in enumerate(files)])
    lines = [str(error) for error in caught.value.errors]
    assert all("\n" not in line for line in lines)
    return lines


def test_a_whole_file() -> None:
    spec = parse_agent(GOOD, "/etc/hostwarden/agents.d/billing.yaml")
    assert (spec.name, spec.labels) == ("billing", {"team": "billing", "stage": "live"})
    assert spec.units == ("billing.service", "billing-jobs.slice")
    assert [(exe.text, exe.line, len(exe.globs)) for exe in spec.exes] == [
        ("/opt/billing/bin/*", 7, 1),
        ("**/agent-{a,b}", 8, 2),
    ]
    assert match_path(spec.exes[0].globs[0], b"/opt/billing/bin/loop")
    assert spec.location == "billing.yaml:2"


def test_a_single_value_is_a_list_of_one() -> None:
    spec = parse_agent(b"agent: a\nmatch: {unit: 'a@1.service'}", "a.yaml")
    assert (spec.units, spec.exes, spec.labels) == (("a@1.service",), (), {})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        # the file
        ("", "1:1: an empty file, expected an agent (`agent: NAME`, `labels: {...}`, `match: {...}`)"),
        ("- a", "1:1: a list, expected an agent"),
        ("agent: a\n", "1:1: no `match`, expected `match: {unit: [...], exe: [...]}`"),
        ("match: {unit: a.service}", "1:1: no `agent`, expected `agent: NAME`"),
        ("agent: a\nmatch: {unit: a.service}\nlable: {}", "3:1: unknown key `lable`, did you mean labels?"),
        ("agent: a\nmatch: {unit: a.service}\nrun: {}", "3:1: key `run` isn't in this version yet, expected one of"),
        # names and labels
        ("agent: ../a\nmatch: {unit: a.service}", "1:8: name `../a`, expected 1 to 64 of"),
        (f"agent: {'a' * 65}\nmatch: {{unit: a.service}}", "1:8: name `aaa"),
        ("agent: a\nlabels: {'a b': c}\nmatch: {unit: a.service}", "2:10: label `a b`, expected 1 to 63 of"),
        ("agent: a\nlabels: {a: '*'}\nmatch: {unit: a.service}", "2:13: label value `*`, expected 1 to 63 of"),
        ("agent: a\nlabels: [a]\nmatch: {unit: a.service}", "2:9: a list, expected labels like {team: billing}"),
        (
            "agent: a\nmatch: {unit: a.service}\nlabels: {" + ", ".join(f"k{i}: v" for i in range(33)) + "}",
            "3:9: 33 labels, expected at most 32",
        ),
        # selectors
        ("agent: a\nmatch: {}", "2:8: matches nothing, expected `unit: [...]`, `exe: [...]` or both"),
        ("agent: a\nmatch: {unit: []}", "2:15: an empty list, expected a unit like billing.service"),
        ("agent: a\nmatch: {user: root}", "2:9: selector `user` isn't in this version yet, expected one of unit, exe"),
        ("agent: a\nmatch: {sha256: x}", "2:9: selector `sha256` isn't in this version yet"),
        ("agent: a\nmatch: {cgroup: x}", "2:9: selector `cgroup` isn't in this version yet"),
        ("agent: a\nmatch: {container: x}", "2:9: selector `container` isn't in this version yet"),
        ("agent: a\nmatch: {exec: /x}", "2:9: unknown selector `exec`, did you mean exe?"),
        ("agent: a\nmatch: {unit: billing}", "2:15: unit `billing`, expected the name of a systemd service, scope or"),
        ("agent: a\nmatch: {unit: a/b.service}", "2:15: unit `a/b.service`, expected the name of a systemd service"),
        ("agent: a\nmatch: {unit: a@.service}", "2:15: unit `a@.service`, expected an instance of the template, like"),
        ("agent: a\nmatch: {unit: system.slice}", "2:15: unit `system.slice`, expected a narrower unit"),
        (f"agent: a\nmatch: {{unit: {'a' * 56}.service}}", "2:15: unit `aaa"),
        ("agent: a\nmatch: {exe: [bin/x]}", "2:15: exe `bin/x`: not anchored, expected / or **/ at the start"),
        ("agent: a\nmatch: {exe: [/a/**/b/]}", "2:22: exe `/a/**/b/`: a slash at the end"),
        ("agent: a\nmatch: {exe: /**}", "2:14: exe `/**` is every program of the host, hostwardend too"),
        ("agent: a\nmatch: {exe: '/" + "y" * 300 + "{" + ",".join("z" * 100) + "}'}", "2:14: exe `/yyy"),
        ("agent: a\nmatch: {unit: [" + ", ".join(f"u{i}.service" for i in range(65)) + "]}", "2:"),
        # twice in one file
        ("agent: a\nmatch: {unit: [a.service, a.service]}", "2:27: unit `a.service` is also at 0.yaml:2, expected it"),
    ],
)
def test_mistakes(text: str, error: str) -> None:
    (line,) = errors_of(text)
    assert line.startswith(f"0.yaml:{error}")
    assert ", expected " in line or ", did you mean " in line


def test_every_mistake_of_every_file_at_once() -> None:
    assert errors_of(
        "agent: a b\nlabels: {'': x}\nmatch: {unit: x, exe: y}\nmore: 1",
        "agent: good\nmatch: {exe: /opt/x, unit: x.service}",
        "agent: [",
        "agent: good\nmatch: {exe: /opt/x, unit: [x.service, y.service]}",
    ) == [
        "0.yaml:1:8: name `a b`, expected 1 to 64 of A-Z a-z 0-9 . _ - that begin with a letter or digit",
        "0.yaml:2:10: label ``, expected 1 to 63 of A-Z a-z 0-9 . _ / - that begin with a letter or digit",
        "0.yaml:3:15: unit `x`, expected the name of a systemd service, scope or slice, like billing.service",
        "0.yaml:3:23: exe `y`: not anchored, expected / or **/ at the start",
        "0.yaml:4:1: unknown key `more`, expected one of agent, labels, match",
        "2.yaml:1:9: not YAML: did not find expected node content; expected valid YAML (values with * { } [ ] : # or ! "
        "need quotes)",
        "3.yaml:1:8: agent `good` is also at 1.yaml:1, expected it once on a host",
        "3.yaml:2:14: exe `/opt/x` is also at 1.yaml:2, expected it once on a host",
        "3.yaml:2:29: unit `x.service` is also at 1.yaml:2, expected it once on a host",
    ]


def test_too_many_agents() -> None:
    files = [(f"{i}.yaml", f"agent: a{i}\nmatch: {{unit: a{i}.service}}".encode()) for i in range(513)]
    with pytest.raises(PolicyErrors) as caught:
        load_agents(files)
    assert str(caught.value) == "512.yaml:1:1: 513 agents, expected at most 512"
    assert len(load_agents(files[:512])) == 512


def test_a_folder(tmp_path: Path) -> None:
    assert read_agents(tmp_path / "none") == ()
    (tmp_path / "b.yaml").write_text("agent: b\nmatch: {exe: /b}")
    (tmp_path / "a.yaml").write_text("agent: a\nmatch: {exe: /a}")
    (tmp_path / ".hidden.yaml").write_text("nonsense")
    (tmp_path / "README").write_text("nonsense")
    assert [spec.name for spec in read_agents(tmp_path)] == ["a", "b"]
    os.mkfifo(tmp_path / "c.yaml")
    (tmp_path / "d.yml").write_text("agent: d\nmatch: {exe: /d}")
    (tmp_path / "e.yaml").mkdir()
    (tmp_path / "f.yaml").symlink_to("nowhere")
    (tmp_path / "g.yaml").write_text("agent: a\nmatch: {exe: /g}")
    (tmp_path / "h.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(PolicyErrors) as caught:
        read_agents(tmp_path)
    assert [str(error).removeprefix(f"{tmp_path}/") for error in caught.value.errors] == [
        "c.yaml:1:1: not a regular file, expected one",
        "d.yml:1:1: a name that ends in .yml, expected .yaml",
        "e.yaml:1:1: a folder, expected a file",
        "f.yaml:1:1: No such file or directory, expected a file that can be read",
        f"g.yaml:1:8: agent `a` is also at {tmp_path}/a.yaml:1, expected it once on a host",
        "h.yaml:1:1: longer than 1048576 bytes, expected a smaller file",
    ]
    with pytest.raises(PolicyErrors, match=r"a.yaml:1:1: Not a directory, expected a folder that can be read"):
        read_agents(tmp_path / "a.yaml")


@pytest.mark.parametrize(("text", "good"), [("a", True), ("a.b_c-9", True), ("", False), (".a", False), ("a\n", False)])
def test_names(text: str, good: bool) -> None:
    assert is_agent_name(text) is good


WORDS = st.sampled_from(
    ["agent", "labels", "match", "unit", "exe", ":", " ", "\n", "  ", "- ", "[", "]", "{", "}", ",", "a.service", "/x*"]
)


@given(st.one_of(st.binary(max_size=200), st.lists(WORDS, max_size=30).map(lambda words: "".join(words).encode())))
def test_any_bytes_give_an_agent_or_errors(data: bytes) -> None:
    try:
        assert isinstance(parse_agent(data, "x.yaml"), AgentSpec)
    except PolicyErrors as error:
        assert error.errors and all("\n" not in str(each) for each in error.errors)
