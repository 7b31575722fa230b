"""At its limits the kernel decides as stated: too long, too deep, nameless or unknown; tables that are full.

Tables of what generated examples meet too rarely (test_kernel_equals_oracle.py has those). Nothing is armed: what is
looked at is the kernel's own word about each attempt.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from hostwarden.policy import automata
from hostwarden.policy.address import packed
from hostwarden.policy.model import Policy
from hostwarden.policy.oracle import Attempt, decide
from hostwarden.policy.parse import parse_policy
from hostwarden.policy.words import Action, Verdict
from hostwarden.probes import layout
from tests.host import oracle_answers
from tests.host.oracle_answers import Answer
from tests.host.oracle_attempts import deepened, stretched
from tests.host.oracle_tries import Found, Location, Try
from tests.host.oracle_world import World, detached, opened

UNKNOWN, INTERNAL, DELETED = layout.FLAGS["unknown"], layout.FLAGS["internal"], layout.FLAGS["deleted"]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Probes, file systems and a member, for all tests of this file."""
    with opened() as made:
        yield made


def policy(text: str, name: str = "p") -> Policy:
    """From the YAML of what follows the name and the selector."""
    return parse_policy(f"policy: {name}\nfor: {{}}\n{text}".encode(), f"{name}.yaml", lambda user: None)


DENY_LAST = "rules:\n  - deny: read\n    path: ['**/last', '**/last*']\n  - audit: write\n    path: '/**'\n"


def read(world: World, policies: list[Policy], location: Location, path: bytes) -> tuple[Found, Answer, Answer]:
    """The attempt, the kernel's answer, and the oracle's."""
    profile = world.install(policies, armed=False)
    tries = [Try("o", location, path)]
    world.make(tries)
    (found,) = world.attempt(tries)
    expected = oracle_answers.opened(policies, profile, found)
    return found, Answer.seen(found.seen.head, profile), expected


# length from the superblock's root on, whether the path is known
LENGTHS = [
    (5, True),
    (4000, True),
    (4094, True),
    (4095, True),
    (4096, False),
    (4097, False),
    (4351, False),
    (9000, False),
]
DEPTHS = [(1, True), (62, True), (63, True), (64, True), (65, False), (66, False), (200, False)]


@pytest.mark.parametrize("place", ["disk", "memory", "twice", "late"])
@pytest.mark.parametrize(("length", "known"), LENGTHS)
def test_long_paths(world: World, place: str, length: int, known: bool) -> None:
    location = world.locations[place]
    path = b"/".join(stretched([b"last"], max(length - len(location.below), 5)))
    laws = [policy(DENY_LAST)]
    found, seen, expected = read(world, laws, location, path)
    assert seen == expected
    assert seen.enforced is Verdict.DENY
    assert seen.enforced_reason.location == ("p.yaml:4" if known else None)
    assert bool(found.seen.head.flags & UNKNOWN) == (not known)


@pytest.mark.parametrize("place", ["disk", "memory", "late"])
@pytest.mark.parametrize(("depth", "known"), DEPTHS)
def test_deep_paths(world: World, place: str, depth: int, known: bool) -> None:
    location = world.locations[place]
    depth -= location.crossed
    path = b"/".join(deepened([b"last"], max(depth - location.below.count(b"/"), 1)))
    found, seen, expected = read(world, [policy(DENY_LAST)], location, path)
    assert seen == expected
    assert seen.enforced_reason.location == ("p.yaml:4" if known else None)
    assert bool(found.seen.head.flags & UNKNOWN) == (not known)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (DENY_LAST, Verdict.DENY),
        ("otherwise: {read: kill}\n", Verdict.DENY),
        # nothing that is unknown is refused where no enforcing policy could refuse it
        ("mode: observe\n" + DENY_LAST, Verdict.ALLOW),
        ("rules:\n  - deny: write\n    path: /x\n", Verdict.ALLOW),
        ("rules:\n  - audit: read\n    path: /**\n", Verdict.ALLOW),
    ],
)
def test_unknown_paths(world: World, text: str, verdict: Verdict) -> None:
    path = b"/".join(deepened([b"last"], 65))
    _, seen, expected = read(world, [policy(text)], world.locations["memory"], path)
    assert seen == expected
    assert (seen.enforced, seen.enforced_reason.policy) == (verdict, None)


@pytest.mark.parametrize(
    ("name", "glob"),
    [
        (b"x" * 255, "x" * 255),
        (b"x" * 254, "x" * 254),
        (b"x" * 255, "?" + "x" * 253 + "*"),
        (b"\xff" * 255, "??????*"),
        ("é".encode() * 127 + b"x", "é" * 127 + "?"),
        (b"y" + "😀".encode() * 63, "y*😀"),
    ],
)
def test_the_longest_names(world: World, name: bytes, glob: str) -> None:
    law = policy(f"rules:\n  - deny: read\n    path: '**/{glob}'\n")
    _, seen, expected = read(world, [law], world.locations["memory"], b"folder/" + name)
    assert seen == expected
    assert seen.enforced is Verdict.DENY


@pytest.mark.parametrize("kind", ["tmpfs", "ramfs"])
def test_memory_that_no_mount_shows(world: World, kind: str) -> None:
    with ExitStack() as stack:
        location = passed(world, detached(kind, stack), row=0)
        found, seen, expected = read(world, [policy(DENY_LAST)], location, b"a/last")
        assert seen == expected
        assert seen.enforced_reason.location == "p.yaml:4"
        assert found.seen.head.flags & layout.FLAGS["private"]


def test_a_file_system_that_no_mount_shows(world: World) -> None:
    with ExitStack() as stack:
        options = [(f"{name}dir", str(world.root / "memory" / name)) for name in ("lower", "upper", "work")]
        for _, folder in options:
            os.makedirs(folder)
        location = passed(world, detached("overlay", stack, *options), row=None)
        found, seen, expected = read(world, [policy(DENY_LAST)], location, b"harmless")
        assert seen == expected
        assert (seen.enforced, seen.enforced_reason.policy) == (Verdict.DENY, None)
        assert found.seen.head.flags & UNKNOWN


def passed(world: World, fd: int, row: int | None) -> Location:
    """A descriptor that the member did not inherit, as a place: it takes it from us (pidfd_getfd)."""
    return Location("passed", 1 << 31 | fd, b"", row, ())


# what has no path

NO_PATH = [
    # otherwise decides, and every rule that asks for no path
    "otherwise: {exec: deny}\n",
    "otherwise: {exec: kill}\nrules:\n  - allow: exec\n    path: '**'\n",
    "rules:\n  - deny: exec\n",
    "rules:\n  - kill: exec\n    argv: '* push*'\n",
    "rules:\n  - deny: exec\n    path: /x\n",
    "rules:\n  - allow: exec\n    argv: 'git push*'\notherwise: {exec: deny}\n",
    "mode: observe\nrules:\n  - deny: exec\n",
    "mode: observe\notherwise: {exec: kill}\n",
]


@pytest.mark.parametrize("text", NO_PATH)
@pytest.mark.parametrize("kind", ["memfd", "deleted"])
def test_programs_without_a_path(world: World, kind: str, text: str) -> None:
    laws = [policy(text)]
    profile = world.install(laws, armed=False)
    with ExitStack() as stack:
        location = passed(world, nameless(world, kind, stack), row=None)
        argv = (b"git", b"push")
        payload = b"\0" + b"".join(one + b"\0" for one in argv)
        (found,) = world.attempt([Try("x", location, payload, flags=len(argv))])
    ruling = decide(laws, Attempt(Action.EXEC, path=None, argv=argv))
    assert Answer.seen(found.seen.head, profile) == Answer.of(Action.EXEC, ruling)
    assert found.seen.head.flags & (INTERNAL if kind == "memfd" else DELETED)


def nameless(world: World, kind: str, stack: ExitStack) -> int:
    """A program that can be executed by its descriptor only."""
    path = world.root / "memory" / "nameless"
    fd = os.memfd_create("nameless") if kind == "memfd" else os.open(path, os.O_WRONLY | os.O_CREAT, 0o755)
    os.write(fd, (world.root / "tiny").read_bytes())
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)  # a file that is open for writing can't be executed
    os.close(fd)
    stack.callback(os.close, again)
    if kind == "deleted":
        path.unlink()
    return again


@pytest.mark.parametrize(("length", "known"), [(4095, True), (4096, False), (6000, False)])
@pytest.mark.parametrize("text", ["rules:\n  - deny: exec\n    path: '**/last'\n", "otherwise: {exec: kill}\n"])
def test_scripts_at_long_paths(world: World, text: str, length: int, known: bool) -> None:
    memory, laws = world.locations["memory"], [policy(text)]
    profile = world.install(laws, armed=False)
    path = b"/".join(stretched([b"last"], length))
    interpreter = world.root / "memory/tiny"
    tries = [Try("x", memory, path + b"\0last\0", flags=1)]
    world.make(tries)
    with ExitStack() as stack:
        fd, rest = world.folders[memory.index], path
        while len(rest) > 2000:  # no call takes more than PATH_MAX
            head, rest = rest[: rest.rindex(b"/", 0, 2000)], rest[rest.rindex(b"/", 0, 2000) + 1 :]
            fd = os.open(head, os.O_PATH, dir_fd=fd)
            stack.callback(os.close, fd)
        script = os.open(rest, os.O_WRONLY, dir_fd=fd)
        os.write(script, b"#!%b\n" % os.fsencode(interpreter))
        os.close(script)
    (found,) = world.attempt(tries)
    files = [(memory, b"tiny"), (memory, path)]
    line = (os.fsencode(interpreter), rest, b"last")[:2]
    seen = Answer.seen(found.seen.head, profile)
    assert seen == oracle_answers.executed(laws, profile, files, line, 0, world.tier)
    assert seen.enforced >= Verdict.DENY
    assert (found.seen.script == memory.relative(path)) == known


# tables that are full


def test_as_many_policies_as_can_be(world: World) -> None:
    laws = [
        policy(f"mode: {'observe' if n % 2 else 'enforce'}\nrules:\n  - audit: read\n    path: '**/n{n}'\n"
               f"  - deny: read\n    path: '**/d{n}'\notherwise: {{read: {'deny' if n >= 30 else 'audit'}}}\n", f"p{n}")
        for n in range(32)
    ]  # fmt: skip
    profile = world.install(laws, armed=False)
    tries = [
        Try("o", world.locations["memory"], b"many/%b%d" % (letter, n)) for n in range(34) for letter in (b"n", b"d")
    ]
    world.make(tries)
    for found in world.attempt(tries):
        assert Answer.seen(found.seen.head, profile) == oracle_answers.opened(laws, profile, found)


def test_as_many_rules_of_path_and_argv_as_can_be(world: World) -> None:
    rules = "".join(
        f"  - {verdict}: exec\n    path: '**/p{n % 8}'\n    argv: '* -{n}'\n"
        for n, verdict in zip(range(64), ("deny", "audit", "kill", "allow") * 16, strict=True)
    )
    laws = [policy(f"rules:\n{rules}otherwise: {{exec: deny}}\n")]
    profile = world.install(laws, armed=False)
    tries = [
        Try("x", world.locations["memory"], b"joint/p%d\0p\0-%d\0" % (n % 9, m), flags=2)
        for n in range(9)
        for m in range(0, 66, 5)
    ]
    world.make(tries, "l")
    for found in world.attempt(tries):
        path, *argv = found.made.payload.removesuffix(b"\0").split(b"\0")
        files = [(found.made.location, path)]
        expected = oracle_answers.executed(laws, profile, files, tuple(argv), 0, world.tier)
        assert Answer.seen(found.seen.head, profile) == expected


def test_as_many_users_as_can_be(world: World) -> None:
    rules = "".join(f"  - deny: read\n    path: '**/u'\n    user: '{uid}'\n" for uid in range(2000, 2007))
    laws = [policy(f"rules:\n{rules}")]
    profile = world.install(laws, armed=False)
    tries = [Try("o", world.locations["memory"], b"users/u", uid=uid) for uid in (0, *range(1999, 2009), 65534)]
    world.make(tries[:1])
    for found in world.attempt(tries):
        assert Answer.seen(found.seen.head, profile) == oracle_answers.opened(laws, profile, found)


# so that a few globs need several: bound on states, number of automata
BOUNDS = [(1000, 1), (100, 2), (50, 4), (12, 8)]


@pytest.mark.parametrize(("bound", "count"), BOUNDS)
def test_several_automata(world: World, bound: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are walked one after the other, in as many turns as it takes: eight over the longest path, too."""
    monkeypatch.setattr(automata, "MAX_STATES", bound)
    pairs = zip("abcdefgh", "bcdefgha", ("allow", "audit") * 4, strict=True)
    rules = "".join(f"  - {verdict}: read\n    path: '**/*{a}*{b}*last'\n" for a, b, verdict in pairs)
    laws = [policy(f"rules:\n{rules}otherwise: {{read: kill}}\n")]
    profile = world.install(laws, armed=False)
    assert len(profile.paths) == count
    names = (b"ablast", b"xhaxlast", b"bclast", b"hgfedcba", b"last")
    paths = [b"/".join(stretched([name], length)) for name in names for length in (20, 1000, 2000, 4000, 4095)]
    tries = [Try("o", world.locations["memory"], path) for path in paths]
    world.make(tries)
    lengths = set()
    for found in world.attempt(tries):
        assert Answer.seen(found.seen.head, profile) == oracle_answers.opened(laws, profile, found)
        assert not found.seen.head.flags & UNKNOWN
        lengths.add(len(found.seen.path))
    assert max(lengths) == 4095


# addresses


@pytest.mark.parametrize("named", [["10.0.0.1:0"], ["*:0"], ["*:0", "10.0.0.0/8:443"], ["*:*"]])
def test_port_0_is_a_port(world: World, named: list[str]) -> None:
    laws = [policy(f"rules:\n  - deny: connect\n    to: {named}\n")]
    profile = world.install(laws, armed=False)
    for address in ("10.0.0.1", "10.0.0.2", "fd00::1"):
        for port in (0, 1, 443, 80):
            payload = packed(address) + port.to_bytes(2, "big")
            (found,) = world.attempt([Try("n", world.locations["disk"], payload, way=9 if ":" in address else 1)])
            ruling = decide(laws, Attempt(Action.CONNECT, address=packed(address), port=port))
            assert Answer.seen(found.seen.head, profile) == Answer.of(Action.CONNECT, ruling), (address, port)
