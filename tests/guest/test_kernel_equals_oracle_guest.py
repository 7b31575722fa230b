"""Where actions are refused, the kernel's verdict and reason are the oracle's, too: for everything that can be done
with a path, for programs and scripts at each of the moments at which they are judged, and for addresses.

Few examples, for a guest may be emulated: tests/host/test_kernel_equals_oracle.py makes ten times as many natively,
with the same decisions behind other hooks. HOSTWARDEN_EXAMPLES makes more of them.
"""

import errno
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import pytest
from hypothesis import given

from hostwarden.policy.address import show
from hostwarden.policy.oracle import Attempt, decide
from hostwarden.policy.words import Action, Outcome, Tier, Verdict
from tests.host import oracle_answers, oracle_nets, oracle_policies
from tests.host import test_kernel_equals_oracle as native
from tests.host.oracle_answers import Answer
from tests.host.oracle_attempts import argv_of, path_of
from tests.host.oracle_change_tries import WORDS, changes, path_rules, softened
from tests.host.oracle_changes import ACTIONS, Asked, is_refusal, without_argv
from tests.host.oracle_policies import Sketch, sketches
from tests.host.oracle_tries import Found, Location
from tests.host.oracle_world import World, opened

CHANGES, CHANGED, LEAST_CHANGES = 16, 100, 900
EXEC_EXAMPLES, EXECS, LEAST_EXECS = 8, 30, 120
SCRIPT_EXAMPLES, SCRIPTS, LEAST_SCRIPTS = 6, 15, 20
NET_EXAMPLES, ADDRESSES, LEAST_ADDRESSES = 6, 60, 200
# A failure isn't made smaller: that would take an emulated guest longer than a person.
examples = partial(native.examples, shrink=False)


@pytest.fixture(scope="module")
def tier(guest: str) -> Tier:
    """The one that the guest is there for."""
    return Tier.MODIFY_RETURN if guest.endswith("-nolsm") else Tier.LSM


@pytest.fixture(scope="module")
def world(tier: Tier) -> Iterator[World]:
    """Probes, file systems and a member, for all tests of this file."""
    with opened(tier, Tier.CGROUP) as made:
        assert made.tier is tier
        yield made


@pytest.fixture(scope="module")
def homes(world: World) -> dict[str, str]:
    """Where the file systems are on the host."""
    return {name: str(world.root / name) for name in oracle_policies.HOMES} | {"": ""}


def in_force(world: World, homes: dict[str, str], made: Sequence[Sketch], seed: int) -> tuple[Asked, str]:
    """Policies in force, and their text. Two times of three what is deadly is softened, so that they can be armed."""
    if seed % 3:
        made = [softened(sketch) for sketch in made]
    policies, profile, text, armed = native.put_in_force(world, homes, made)
    return Asked(policies, profile, world.tier, armed), text


def assert_done(asked: Asked, found: Found, seen: Answer, tier: Tier, text: str) -> None:
    """What is refused came back with EPERM, and the event says so; nothing else did."""
    head = found.seen.head
    refused = asked.armed and is_refusal(seen)
    assert head.outcome == (Outcome.PREVENTED if refused else Outcome.OBSERVED), (text, found)
    assert head.tier == tier
    assert not refused or found.result == -errno.EPERM, (text, found)


# everything that can be done with a path


@pytest.mark.timeout(900)
def test_everything_with_a_path(world: World, homes: dict[str, str]) -> None:
    tally, refused, all_of = native.Tally(), Counter[str](), Counter[str]()

    @examples(CHANGES)
    @given(sketches(path_rules, WORDS), native.seeds)
    def check(made: list[Sketch], seed: int) -> None:
        asked, text = in_force(world, homes, made, seed)
        tries = changes(world.locations, native.salts(seed, 3 * CHANGED), native.globs_of(made), CHANGED)
        world.make(tries)
        tally.tried += len(tries)
        for found in world.attempt(tries):
            seen = Answer.seen(found.seen.head, asked.profile)
            native.assert_equal(seen, asked.about(found), found, text)
            assert_done(asked, found, seen, world.tier, text)
            assert_shown(asked, found)
            tally.add((text, found.made), seen)
            all_of[found.made.op] += 1
            refused[found.made.op] += found.seen.head.outcome == Outcome.PREVENTED

    check()
    print(tally.show("pairs of policies and attempts"))
    print("refused, of: " + ", ".join(f"{op} {refused[op]}/{all_of[op]}" for op in sorted(all_of)))
    assert len(tally.pairs) >= LEAST_CHANGES, tally.show("pairs")
    assert all(refused[op] and refused[op] < all_of[op] for op in ("o", *ACTIONS)), (refused, all_of)


def assert_shown(asked: Asked, found: Found) -> None:
    """The event names what was acted on, who it was, and every action that it was."""
    made, seen = found.made, found.seen
    assert seen.head.accesses == asked.accesses(found), found
    assert seen.head.uid == made.uid
    shown = [seen.path, seen.script]
    for path, name in zip(shown, made.paths, strict=False):
        if not oracle_answers.is_nowhere(made.location, name) and not (made.op == "a" and made.location.crossed):
            assert path == made.location.relative(name), found


# programs and scripts


def executed(asked: Asked, files: Sequence[tuple[Location, bytes]], argv: tuple[bytes, ...], uid: int) -> Answer:
    """What is refused first: the script, its interpreter, or the program; or else the last word, about all at once.
    ``files`` begins with the interpreter.
    """
    last = oracle_answers.executed(asked.policies, asked.profile, files, argv, uid, asked.tier)
    if len(files) == 1 or not asked.armed:
        return last
    before = without_argv(asked)
    for file in reversed(files):
        early = oracle_answers.executed(before.policies, before.profile, [file], (), uid, asked.tier)
        if is_refusal(early):
            return early
    return last


def assert_executed(asked: Asked, found: Found, tier: Tier, text: str) -> None:
    """Refused before anything of it was there; or, by argv of a script, ended before its first instruction."""
    head = found.seen.head
    if not asked.armed or head.enforced < Verdict.DENY:
        assert (head.outcome, head.tier) == (Outcome.OBSERVED, tier), (text, found)
    elif head.tier == tier:
        assert (head.outcome, found.result) == (Outcome.PREVENTED, -errno.EPERM), (text, found)
    else:
        assert (head.outcome, head.tier) == (Outcome.KILLED_BEFORE_EFFECT, Tier.SIGNAL), (text, found)
        assert found.result == 9, (text, found)


@pytest.mark.timeout(900)
def test_programs(world: World, homes: dict[str, str]) -> None:
    tally, outcomes = native.Tally(), Counter[str]()

    @examples(EXEC_EXAMPLES)
    @given(sketches(native.exec_rules, ["exec"]), native.seeds)
    def check(made: list[Sketch], seed: int) -> None:
        asked, text = in_force(world, homes, made, seed)
        argvs = [glob for sketch in made for rule in sketch.rules for glob in (*rule.argv, *rule.except_argv)]
        tries = []
        for salt in native.salts(seed, EXECS):
            uid, argv = salt.choose(oracle_policies.UIDS), argv_of(salt, argvs)
            place, path = path_of(salt, native.globs_of(made), native.below(world))
            tries.append(native.exec_try(world.locations[place], path, argv, uid))
        world.make(tries, "l")
        tally.tried += len(tries)
        for found in world.attempt(tries):
            path, *rest = found.made.payload.removesuffix(b"\0").split(b"\0")
            line = tuple(rest[: found.made.flags]) or (b"",)
            seen = Answer.seen(found.seen.head, asked.profile)
            expected = executed(asked, [(found.made.location, path)], line, found.made.uid)
            native.assert_equal(seen, expected, found, text)
            assert_executed(asked, found, world.tier, text)
            outcomes[str(Outcome(found.seen.head.outcome))] += 1
            tally.add((text, found.made.location.name, path, line), seen)

    check()
    print(tally.show("triples of policies, programs and argv"), dict(outcomes))
    assert len(tally.pairs) >= LEAST_EXECS, tally.show("triples")
    assert outcomes.keys() == {"observed", "prevented"}, outcomes


@pytest.mark.timeout(900)
def test_scripts(world: World, homes: dict[str, str]) -> None:
    tally, outcomes = native.Tally(), Counter[str]()

    @examples(SCRIPT_EXAMPLES)
    @given(sketches(native.exec_rules, ["exec"]), native.seeds)
    def check(made: list[Sketch], seed: int) -> None:
        asked, text = in_force(world, homes, made, seed)
        known = [glob for glob in native.globs_of(made) if glob.home not in ("part", "late")]
        argvs = [glob for sketch in made for rule in sketch.rules for glob in (*rule.argv, *rule.except_argv)]
        for salt in native.salts(seed, SCRIPTS):
            script, argv = native.script_of(world, salt, known), argv_of(salt, argvs)
            if not script.is_possible or not native.write_script(world, script):
                continue
            uid = salt.choose(oracle_policies.UIDS)
            tally.tried += 1
            for found in world.attempt([native.exec_try(script.place, script.path, argv, uid)]):
                files = [(script.interpreter_place, script.interpreter), (script.place, script.path)]
                option = (script.option,) if script.option else ()
                line = (script.shown(world.root), *option, script.path, *argv[1:])
                seen = Answer.seen(found.seen.head, asked.profile)
                native.assert_equal(seen, executed(asked, files, line, uid), found, text)
                assert_executed(asked, found, world.tier, text)
                outcomes[str(Outcome(found.seen.head.outcome))] += 1
                tally.add((text, script, line), seen)

    check()
    print(tally.show("triples of policies, scripts and argv"), dict(outcomes))
    assert len(tally.pairs) >= LEAST_SCRIPTS, tally.show("triples")
    assert outcomes.keys() >= {"observed", "prevented"}, outcomes


# addresses


@pytest.mark.timeout(900)
def test_addresses(world: World, homes: dict[str, str]) -> None:
    tally = native.Tally()

    @examples(NET_EXAMPLES)
    @given(sketches(oracle_nets.net_rules, oracle_policies.NET_WORDS), native.seeds)
    def check(made: list[Sketch], seed: int) -> None:
        asked, text = in_force(world, homes, made, seed)
        texts = [net for sketch in made for rule in sketch.rules for net in (*rule.to, *rule.except_to)]
        known = [oracle_nets.net_of(one) for one in texts if not one.startswith("unix:")] or [oracle_nets.net_of("*:*")]
        disk = world.locations["disk"]
        near = [native.net_try(disk, salt, salt.choose(known)) for salt in native.salts(seed, ADDRESSES)]
        tries = list({one.payload: one for one in near}.values())
        tally.tried += len(tries)
        for found in world.attempt(tries):
            target = found.made.payload
            action = Action.CONNECT if found.made.way & 7 in native.CONNECTS else Action.SEND
            address, port = native.MEANS.get(target[:16], target[:16]), int.from_bytes(target[16:], "big")
            seen = Answer.seen(found.seen.head, asked.profile)
            attempt = Attempt(action, address=address, port=port, uid=found.made.uid)
            native.assert_equal(seen, Answer.of(action, decide(asked.policies, attempt)), found, text)
            assert_done(asked, found, seen, Tier.CGROUP, text)
            assert show(found.seen.head.address, found.seen.head.port) == show(address, port)
            tally.add((text, address, port), seen)

    check()
    print(tally.show("pairs of policies and addresses"))
    assert len(tally.pairs) >= LEAST_ADDRESSES, tally.show("pairs")
