"""The kernel decides as the oracle does: the same verdict, for the same reason, on what hypothesis makes.

Each example is a set of policies, put in force in this kernel, and attempts that a member process really makes; what
is compared is what the kernel's events say. The same examples every time (``derandomize``); HOSTWARDEN_EXAMPLES makes
more of them.
"""

import errno
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st

from hostwarden.policy.address import MAPPED, packed, show
from hostwarden.policy.model import Policy
from hostwarden.policy.oracle import Attempt, decide
from hostwarden.policy.tables import Profile
from hostwarden.policy.words import Action, Outcome, Verdict
from tests.host import oracle_answers, oracle_nets, oracle_policies
from tests.host.oracle_answers import Answer
from tests.host.oracle_attempts import argv_of, path_of
from tests.host.oracle_nets import Net
from tests.host.oracle_policies import Glob, Salt, Sketch, parsed, sketches
from tests.host.oracle_tries import Found, Location, Try
from tests.host.oracle_world import World, opened

PATH_EXAMPLES, PATHS, LEAST_PATHS = 200, 130, 20_000
NET_EXAMPLES, ADDRESSES, LEAST_ADDRESSES = 130, 60, 5_000
EXEC_EXAMPLES, EXECS, LEAST_EXECS = 90, 30, 1_500
SCRIPT_EXAMPLES, SCRIPTS, LEAST_SCRIPTS = 40, 60, 300
MORE = int(os.environ.get("HOSTWARDEN_EXAMPLES", "0"))


def examples(count: int, *, shrink: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Settings of every test here: the same examples in every run. Wall-clock time says nothing on a shared machine."""
    return settings(
        max_examples=max(count, MORE),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        verbosity=Verbosity.quiet,  # an assertion says all that is needed; printing an example takes minutes
        print_blob=True,
    )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Probes, file systems and a member, for all tests of this file."""
    with opened() as made:
        yield made


@pytest.fixture(scope="module")
def homes(world: World) -> dict[str, str]:
    """Where the file systems are on the host."""
    return {name: str(world.root / name) for name in oracle_policies.HOMES} | {"": ""}


class Tally:
    """What was really compared."""

    def __init__(self) -> None:
        self.pairs: set[tuple[object, ...]] = set()
        self.verdicts: dict[str, int] = {}
        self.tried = 0

    def add(self, pair: tuple[object, ...], answer: Answer) -> None:
        """One comparison; the same pair again counts once."""
        if pair in self.pairs:
            return
        self.pairs.add(pair)
        word = f"{answer.enforced}/{answer.observed}"
        self.verdicts[word] = self.verdicts.get(word, 0) + 1

    def show(self, what: str) -> str:
        """For people."""
        verdicts = ", ".join(f"{word} {count}" for word, count in sorted(self.verdicts.items()))
        return f"{len(self.pairs)} {what} compared, of {self.tried} attempts (enforced/observed: {verdicts})"


def put_in_force(
    world: World, homes: dict[str, str], made: Sequence[Sketch]
) -> tuple[list[Policy], Profile, str, bool]:
    """Policies, tables, text, and whether they are armed: not if one could end the member, or stop it."""
    policies, text = parsed(made, homes)
    armed = not any(sketch.kills for sketch in made)
    return policies, world.install(policies, armed=armed), text, armed


def assert_equal(seen: Answer, expected: Answer, found: Found, text: str) -> None:
    """Or say all that is needed to find out why."""
    made = found.made
    assert seen == expected, (
        f"\n{text}\nat {made.location.name} {made.payload!r} flags {made.flags:#o} uid {made.uid}: {found.seen}"
        f"\nkernel {seen}\noracle {expected}"
    )


seeds = st.integers(0, (1 << 32) - 1)

# paths

FLAGS = (
    os.O_RDONLY,
    os.O_WRONLY,
    os.O_RDWR,
    os.O_RDONLY,
    os.O_WRONLY | os.O_CREAT,
    os.O_RDWR | os.O_CREAT | os.O_EXCL,
    os.O_RDONLY | os.O_CREAT,
    os.O_WRONLY | os.O_TRUNC,
)


def salts(seed: int, count: int) -> Iterator[Salt]:
    """So many numbers to choose with. One seed, not so many draws: hypothesis would spend its time on them."""
    source = random.Random(seed)
    return (Salt(source.getrandbits(128)) for _ in range(count))


def globs_of(made: Sequence[Sketch]) -> list[Glob]:
    """What the rules name; paths are made from it."""
    return [glob for sketch in made for rule in sketch.rules for glob in (*rule.path, *rule.except_path)]


def below(world: World) -> dict[str, int]:
    """Place → length of its own path from its superblock's root."""
    return {name: len(location.below) for name, location in world.locations.items()}


@pytest.mark.timeout(600 + MORE)
def test_paths(world: World, homes: dict[str, str]) -> None:
    tally = Tally()

    @examples(PATH_EXAMPLES)
    @given(sketches(oracle_policies.path_rules, oracle_policies.FILE_WORDS), seeds)
    def check(made: list[Sketch], seed: int) -> None:
        policies, profile, text, _ = put_in_force(world, homes, made)
        known, near = globs_of(made), {}
        for salt in salts(seed, 2 * PATHS):
            flags, uid = salt.choose(FLAGS), salt.choose(oracle_policies.UIDS)
            place, path = path_of(salt, known, below(world))
            near[place, path] = Try("o", world.locations[place], path, flags, uid)
        tries = list(near.values())[:PATHS]
        world.make(tries)
        tally.tried += len(tries)
        for found in world.attempt(tries):
            seen = Answer.seen(found.seen.head, profile)
            assert_equal(seen, oracle_answers.opened(policies, profile, found), found, text)
            assert_shown(found)
            tally.add((text, found.made.location.name, found.made.payload), seen)

    check()
    print(tally.show("pairs of policies and paths"))
    assert len(tally.pairs) >= LEAST_PATHS, tally.show("pairs")


def assert_shown(found: Found) -> None:
    """The event names the file, the user, and says that nothing was done about it."""
    made, head = found.made, found.seen.head
    if not oracle_answers.is_nowhere(made.location, made.payload):
        assert found.seen.path == made.location.relative(made.payload)
        assert head.row == made.location.row
    assert head.uid == made.uid
    assert head.outcome == Outcome.OBSERVED


# addresses

TCP, UDP, SEND, SEND_UNSPEC, FAST_OPEN, SEND_MANY, FAMILY6 = 0, 1, 2, 3, 4, 5, 8  # member.c's ways
CONNECTS = {TCP, UDP, FAST_OPEN}
WAYS4 = (TCP, UDP, SEND, SEND_UNSPEC, FAST_OPEN, SEND_MANY)
WAYS6 = tuple(way | FAMILY6 for way in (TCP, UDP, SEND, FAST_OPEN, SEND_MANY))
LOOPBACK4, LOOPBACK6 = packed("127.0.0.1"), packed("::1")
# The kernel takes the address of nobody for this host's (net/ipv4/af_inet.c, net/ipv6/af_inet6.c).
MEANS = {packed("0.0.0.0"): LOOPBACK4, packed("::"): LOOPBACK6}


@pytest.mark.timeout(600 + MORE)
def test_addresses(world: World, homes: dict[str, str]) -> None:
    tally = Tally()

    @examples(NET_EXAMPLES)
    @given(sketches(oracle_nets.net_rules, oracle_policies.NET_WORDS), seeds)
    def check(made: list[Sketch], seed: int) -> None:
        policies, profile, text, armed = put_in_force(world, homes, made)
        texts = [net for sketch in made for rule in sketch.rules for net in (*rule.to, *rule.except_to)]
        known = [oracle_nets.net_of(one) for one in texts if not one.startswith("unix:")] or [oracle_nets.net_of("*:*")]
        near = [net_try(world.locations["disk"], salt, salt.choose(known)) for salt in salts(seed, 2 * ADDRESSES)]
        tries = list({one.payload: one for one in near}.values())[:ADDRESSES]
        tally.tried += len(tries)
        for found in world.attempt(tries):
            head, target = found.seen.head, found.made.payload
            action = Action.CONNECT if found.made.way & 7 in CONNECTS else Action.SEND
            address, port = MEANS.get(target[:16], target[:16]), int.from_bytes(target[16:], "big")
            assert show(head.address, head.port) == show(address, port)
            attempt = Attempt(action, address=address, port=port, uid=found.made.uid)
            seen = Answer.seen(head, profile)
            assert_equal(seen, Answer.of(action, decide(policies, attempt)), found, text)
            refused = armed and seen.enforced >= Verdict.DENY
            assert (found.result == -errno.EPERM) == refused, (text, found)
            assert head.outcome == (Outcome.PREVENTED if refused else Outcome.OBSERVED)
            tally.add((text, address, port), seen)

    check()
    print(tally.show("pairs of policies and addresses"))
    assert len(tally.pairs) >= LEAST_ADDRESSES, tally.show("pairs")


def net_try(location: Location, salt: Salt, net: Net) -> Try:
    """An attempt to reach an address near ``net``, in one of the ways there are."""
    uid = salt.choose(oracle_policies.UIDS)
    address, port = net.near(salt)
    is4 = address.startswith(MAPPED)
    way = salt.choose((*WAYS4, *WAYS6) if is4 else WAYS6)
    return Try("n", location, address + port.to_bytes(2, "big"), uid=uid, way=way)


# programs

exec_rules = st.one_of(oracle_policies.exec_rules, oracle_policies.argv_rules, oracle_policies.argv_rules)


def exec_try(location: Location, path: bytes, argv: Sequence[bytes], uid: int) -> Try:
    """An attempt to execute."""
    return Try("x", location, path + b"\0" + b"".join(one + b"\0" for one in argv), flags=len(argv), uid=uid)


@pytest.mark.timeout(600 + MORE)
def test_programs(world: World, homes: dict[str, str]) -> None:
    tally = Tally()

    @examples(EXEC_EXAMPLES)
    @given(sketches(exec_rules, ["exec"]), seeds)
    def check(made: list[Sketch], seed: int) -> None:
        policies, profile, text, _ = put_in_force(world, homes, made)
        known = globs_of(made)
        argvs = [glob for sketch in made for rule in sketch.rules for glob in (*rule.argv, *rule.except_argv)]
        tries = []
        for salt in salts(seed, EXECS):
            uid, argv = salt.choose(oracle_policies.UIDS), argv_of(salt, argvs)
            place, path = path_of(salt, known, below(world))
            tries.append(exec_try(world.locations[place], path, argv, uid))
        world.make(tries, "l")
        tally.tried += len(tries)
        for found in world.attempt(tries):
            path, *rest = found.made.payload.removesuffix(b"\0").split(b"\0")
            line = tuple(rest[: found.made.flags]) or (b"",)  # since 5.18 there is always an argv[0]
            seen = Answer.seen(found.seen.head, profile)
            files = [(found.made.location, path)]
            expected = oracle_answers.executed(policies, profile, files, line, found.made.uid, world.tier)
            assert_equal(seen, expected, found, text)
            tally.add((text, found.made.location.name, path, line), seen)

    check()
    print(tally.show("triples of policies, programs and argv"))
    assert len(tally.pairs) >= LEAST_EXECS, tally.show("triples")


# scripts

SCRIPT_PLACES = ("disk", "memory", "twice")
MAX_LINE = 200  # bytes of what a script names; the kernel reads 256 of its first line


@dataclass(frozen=True)
class Script:
    """A script, its interpreter, and the interpreter's one argument; both files are relative to their places."""

    place: Location
    path: bytes
    interpreter_place: Location
    interpreter: bytes
    option: bytes

    def line(self, root: Path) -> bytes:
        """What it begins with."""
        return b"#!" + self.shown(root) + (b" " + self.option if self.option else b"") + b"\n"

    def shown(self, root: Path) -> bytes:
        """The interpreter's host path."""
        return os.fsencode(root / self.interpreter_place.name) + b"/" + self.interpreter

    @property
    def is_possible(self) -> bool:
        """Whether a first line can say it."""
        plain = not re.search(rb"\s", self.interpreter) and self.path and self.interpreter
        short = max(len(self.path), len(self.interpreter)) <= MAX_LINE
        apart = (self.place, self.path) != (self.interpreter_place, self.interpreter)
        return bool(plain and short and apart)


def script_of(world: World, salt: Salt, known: Sequence[Glob]) -> Script:
    """Two paths near the globs."""
    places = {name: length for name, length in below(world).items() if name in SCRIPT_PLACES}
    place, path = path_of(salt, known, places)
    other, interpreter = path_of(salt, known, places)
    option = salt.choose((b"", b"", b"-f", b"a b"))
    return Script(world.locations[place], path, world.locations[other], interpreter, option)


@pytest.mark.timeout(600 + MORE)
def test_scripts(world: World, homes: dict[str, str]) -> None:
    tally = Tally()

    @examples(SCRIPT_EXAMPLES)
    @given(sketches(exec_rules, ["exec"]), seeds)
    def check(made: list[Sketch], seed: int) -> None:
        policies, profile, text, _ = put_in_force(world, homes, made)
        known = [glob for glob in globs_of(made) if glob.home not in ("part", "late")]
        argvs = [glob for sketch in made for rule in sketch.rules for glob in (*rule.argv, *rule.except_argv)]
        for salt in salts(seed, SCRIPTS):
            script, argv = script_of(world, salt, known), argv_of(salt, argvs)
            if not script.is_possible or not write_script(world, script):
                continue
            uid = salt.choose(oracle_policies.UIDS)
            tally.tried += 1
            for found in world.attempt([exec_try(script.place, script.path, argv, uid)]):
                files = [(script.interpreter_place, script.interpreter), (script.place, script.path)]
                option = (script.option,) if script.option else ()
                line = (script.shown(world.root), *option, script.path, *argv[1:])
                seen = Answer.seen(found.seen.head, profile)
                expected = oracle_answers.executed(policies, profile, files, line, uid, world.tier)
                assert_equal(seen, expected, found, text)
                for shown, (place, path) in zip((found.seen.path, found.seen.script), files, strict=True):
                    assert oracle_answers.is_nowhere(place, path) or shown == place.relative(path)
                tally.add((text, script, line), seen)

    check()
    print(tally.show("triples of policies, scripts and argv"))
    assert len(tally.pairs) >= LEAST_SCRIPTS, tally.show("triples")


def write_script(world: World, script: Script) -> bool:
    """Make both files; False if one of them is in the other's way."""
    world.make([exec_try(script.interpreter_place, script.interpreter, (), 0)], "l")
    world.make([exec_try(script.place, script.path, (), 0)])
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        folder = world.folders[script.place.index]
        os.unlink(script.path, dir_fd=folder)  # not into what may be a program under another name
        fd = os.open(script.path, flags, 0o755, dir_fd=folder)
    except OSError:
        return False
    os.write(fd, script.line(world.root))
    os.close(fd)
    return True
