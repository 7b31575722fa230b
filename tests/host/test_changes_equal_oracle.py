"""Everything that is done with a path: the kernel's verdict and reason are the oracle's, here when it has been done."""

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given

from hostwarden.policy.words import Outcome, Verdict
from tests.host import test_kernel_equals_oracle as opens
from tests.host.oracle_answers import Answer
from tests.host.oracle_change_tries import WORDS, changes, path_rules, softened
from tests.host.oracle_changes import ACTIONS, Asked
from tests.host.oracle_policies import HOMES, Sketch, sketches
from tests.host.oracle_world import World, opened

EXAMPLES, CHANGED, LEAST = 100, 100, 4_000


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Probes, file systems and a member, for all tests of this file."""
    with opened() as made:
        yield made


@pytest.fixture(scope="module")
def homes(world: World) -> dict[str, str]:
    """Where the file systems are on the host."""
    return {name: str(world.root / name) for name in HOMES} | {"": ""}


@pytest.mark.timeout(600 + opens.MORE)
def test_changes(world: World, homes: dict[str, str]) -> None:
    tally, all_of, denied = opens.Tally(), Counter[str](), Counter[str]()

    @opens.examples(EXAMPLES)
    @given(sketches(path_rules, WORDS), opens.seeds)
    def check(made: list[Sketch], seed: int) -> None:
        made = [softened(sketch) for sketch in made] if seed % 3 else made
        policies, profile, text, armed = opens.put_in_force(world, homes, made)
        asked = Asked(policies, profile, world.tier, armed)
        salts = opens.salts(seed, 3 * CHANGED)
        tries = [one for one in changes(world.locations, salts, opens.globs_of(made), CHANGED) if asked.can_tell(one)]
        world.make(tries)
        tally.tried += len(tries)
        for found in world.attempt(tries):
            seen = Answer.seen(found.seen.head, profile)
            opens.assert_equal(seen, asked.about(found), found, text)
            assert found.seen.head.outcome == Outcome.OBSERVED
            assert found.seen.head.accesses == asked.accesses(found), found
            for path, name in zip([found.seen.path, found.seen.script], found.made.paths, strict=False):
                assert path == found.made.location.relative(name), found
            tally.add((text, found.made), seen)
            all_of[found.made.op] += 1
            denied[found.made.op] += seen.enforced >= Verdict.DENY

    check()
    print(tally.show("pairs of policies and attempts"))
    print("denied, of: " + ", ".join(f"{op} {denied[op]}/{all_of[op]}" for op in sorted(all_of)))
    assert len(tally.pairs) >= LEAST, tally.show("pairs")
    assert all(0 < denied[op] < all_of[op] for op in ("o", *ACTIONS)), (denied, all_of)
