"""The table of programs: what each tier attaches, and that C and kernel can have such programs."""

import re

import pytest

from hostwarden.probes import programs, source
from hostwarden.probes.bpf import ProgramType
from hostwarden.probes.programs import PROGRAMS, REFUSING, of

TIERS = ("lsm", "modify_return", "signal", "cgroup")


@pytest.mark.parametrize("tiers", [(), ("cgroup",), ("signal", "cgroup"), ("lsm", "cgroup"), ("modify_return",), TIERS])
def test_of_gives_a_tiers_programs_and_identity_in_the_order_of_attachment(tiers: tuple[str, ...]) -> None:
    found = of(tiers)
    assert {program.tier for program in found} == {"", *tiers}
    assert [program for program in PROGRAMS if program in found] == list(found)
    assert all(program in found for program in PROGRAMS if program.tier in ("", *tiers))


def test_identity_comes_first() -> None:
    tiers = [program.tier for program in PROGRAMS]
    assert "" not in tiers[tiers.count("") :]
    assert [program.name for program in PROGRAMS[:2]] == ["task_fork", "task_exit"]


@pytest.mark.parametrize("first", ["signal", *REFUSING])
def test_what_is_loaded_together_has_different_names(first: str) -> None:
    names = [program.name for program in of((first, "cgroup"))]
    assert len(names) == len(set(names))


def test_both_tiers_that_refuse_ask_at_the_same_places() -> None:
    by_tier = {tier: {program.name for program in of((tier,)) if program.tier} for tier in REFUSING}
    assert by_tier["lsm"] - by_tier["modify_return"] == {"program_hash", "mapping_hash"}  # only LSM programs may hash
    assert by_tier["modify_return"] <= by_tier["lsm"]


def test_a_content_is_known_before_it_is_asked_for() -> None:
    names = [program.name for program in of(("lsm",))]
    assert names.index("program_hash") < names.index("bprm_check_security")
    assert names.index("mapping_hash") < names.index("mmap_file")


@pytest.mark.parametrize("tier", REFUSING)
def test_hooks_are_called_as_the_kernel_calls_them(tier: str) -> None:
    prefix = "bpf_lsm_" if tier == "lsm" else "security_"
    kind = ProgramType.LSM if tier == "lsm" else ProgramType.TRACING
    asked = [program for program in PROGRAMS if program.tier == tier]
    assert len(asked) >= len(programs.HOOKS)
    assert all(program.hook.startswith(prefix) and program.kind is kind for program in asked)


@pytest.mark.parametrize("name", sorted({program.function for program in PROGRAMS}))
def test_its_function_is_in_the_c_once(name: str) -> None:
    assert len(re.findall(rf"^int {name}\(", source.text(), flags=re.M)) == 1


def test_every_function_that_takes_a_context_is_in_the_table() -> None:
    found = set(re.findall(r"^int (\w+)\((?:u64|struct bpf_sock\w*) \*ctx\)", source.text(), flags=re.M))
    assert found == {program.function for program in PROGRAMS}


def test_sleepable_programs_are_those_that_hash() -> None:
    assert {program.name for program in PROGRAMS if program.is_sleepable} == {"program_hash", "mapping_hash"}


def test_cgroup_programs_need_no_hook_and_others_do() -> None:
    assert all(program.is_cgroup == (program.hook == "") == (program.tier == "cgroup") for program in PROGRAMS)
