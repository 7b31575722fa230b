"""Start states: what a relative path matches is what the file's host paths match, all together."""

import os
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostwarden.policy.automata import Subsets
from hostwarden.policy.budget import Budget
from hostwarden.policy.globs import Deep, PathGlob, parse_path
from hostwarden.policy.match import match_path
from hostwarden.policy.nfa import GlobTrie
from hostwarden.policy.places import Starts, host_paths, roots_size, told_apart
from hostwarden.policy.tables import Place

EXAMPLES = int(os.environ.get("HOSTWARDEN_EXAMPLES", "200"))


def matched(globs: Sequence[PathGlob], superblocks: Sequence[Sequence[Place]], row: int, relative: bytes) -> int:
    """Bit i: glob i matches the file at ``relative`` of superblock ``row``."""
    trie = GlobTrie()
    for index, glob in enumerate(globs):
        trie.add(glob, 1 << index)
    subsets = Subsets(trie.nfa(told_apart(superblocks)), Budget())
    starts = Starts(subsets)
    states = [starts.start(places) for places in superblocks]
    graph = subsets.complete()
    state = states[row]
    for byte in relative:
        state = graph.step(state, subsets.nfa.alphabet.classes[byte])
    return graph.outputs[state]


def expected(globs: Sequence[PathGlob], places: Sequence[Place], relative: bytes) -> int:
    """The same, glob by glob and name by name."""
    names = host_paths(relative, places)
    found = 0
    for index, glob in enumerate(globs):
        floats = bool(glob.components) and isinstance(glob.components[0], Deep)
        if any(match_path(glob, name) for name in names) or (not names and floats and match_path(glob, relative)):
            found |= 1 << index
    return found


parts = st.sampled_from(["a", "ab", "abc", "b"])
globs_of_paths = st.lists(st.one_of(parts, st.sampled_from(["**", "*", "a*", "?b"])), min_size=1, max_size=4).map(
    lambda found: parse_path("/" + "/".join(found))[0]
)
paths = st.lists(parts, max_size=4).map(lambda found: b"".join(b"/" + part.encode() for part in found))
places_of_a_superblock = st.lists(st.builds(Place, root=paths, mount=paths), max_size=4)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(globs_of_paths, min_size=1, max_size=4),
    st.lists(places_of_a_superblock, min_size=1, max_size=3),
    st.lists(paths, min_size=1, max_size=10),
)
def test_a_glob_matches_if_it_matches_any_host_path(
    globs: list[PathGlob], superblocks: list[list[Place]], relatives: list[bytes]
) -> None:
    for row, places in enumerate(superblocks):
        for relative in relatives:
            assert matched(globs, superblocks, row, relative) == expected(globs, places, relative)


ROOT = Place(b"", b"")
BIND = Place(b"/srv/data", b"/mnt/d")  # mount --bind /srv/data /mnt/d
VOLUME = [Place(b"/@home", b"/home"), Place(b"/@", b"")]  # btrfs subvolumes
NESTED = [Place(b"/a", b"/x"), Place(b"/abc", b"/y")]


@pytest.mark.parametrize(
    ("glob", "places", "relative", "is_match"),
    [
        # the root file system, as it is and through a bind mount
        ("/srv/data/x", [ROOT, BIND], b"/srv/data/x", True),
        ("/mnt/d/x", [ROOT, BIND], b"/srv/data/x", True),
        ("/mnt/d", [ROOT, BIND], b"/srv/data", True),
        ("/mnt/d/**", [ROOT, BIND], b"/srv/data", True),
        ("/mnt/d/**", [ROOT, BIND], b"/srv/database", False),
        ("/mnt/d/**", [ROOT, BIND], b"/srv", False),
        ("/mnt/d/base", [ROOT, BIND], b"/srv/data/base", True),
        # subvolumes: one root is the beginning of another's name
        ("/home/me", VOLUME, b"/@home/me", True),
        ("/me", VOLUME, b"/@home/me", False),
        ("/me", VOLUME, b"/@/me", True),
        ("/home/me", VOLUME, b"/@/home/me", True),
        ("/", VOLUME, b"/@", True),
        ("/home", VOLUME, b"/@home", True),
        # a bind mount of one file
        ("/etc/hosts", [Place(b"/pods/7/hosts", b"/etc/hosts")], b"/pods/7/hosts", True),
        ("/etc/hosts", [Place(b"/pods/7/hosts", b"/etc/hosts")], b"/pods/7/hosts2", False),
        # what no place shows: `**` alone, on the relative path
        ("**/.env", [Place(b"/pods/7", b"/p")], b"/pods/8/.env", True),
        ("/pods/**", [Place(b"/pods/7", b"/p")], b"/pods/8/.env", False),
        ("**/.env", [], b"/x/.env", True),
        ("/x/.env", [], b"/x/.env", False),
        ("/**", [], b"", True),
        # what a place shows has its host path only
        ("**/pods/**", [Place(b"/pods/7", b"/p")], b"/pods/7/x", False),
        # a root that another one begins with, and what lies beside both
        ("/xb", NESTED, b"/ab", False),
        ("/xbc", NESTED, b"/abc", False),
        ("/y", NESTED, b"/abc", True),
        ("/x/bc", NESTED, b"/a/bc", True),
        ("**/ab", NESTED, b"/ab", True),
        ("**/abd/*", NESTED, b"/abd/e", True),
        ("**/a", NESTED, b"/a", False),
        # elsewhere mounted
        ("/mnt/usb/**", [Place(b"", b"/mnt/usb")], b"", True),
        ("/mnt/usb/*", [Place(b"", b"/mnt/usb")], b"/a", True),
        ("/a", [Place(b"", b"/mnt/usb")], b"/a", False),
    ],
)
def test_places(glob: str, places: list[Place], relative: bytes, is_match: bool) -> None:
    globs = parse_path(glob)
    assert bool(matched(globs, [places], 0, relative)) is is_match
    assert bool(expected(globs, places, relative)) is is_match


def test_size_of_the_tries() -> None:
    assert roots_size([[ROOT, BIND], VOLUME, []]) == len("/srv/data") + len("/@home")


def test_a_thousand_bind_mounts_are_quick() -> None:
    places = [ROOT, *(Place(b"/var/lib/pods/%08x/volume" % (n * 7919), b"/run/%d" % n) for n in range(1000))]
    globs = [parse_path(text)[0] for text in ("/run/500/secret", "**/.env", "/var/**")]
    assert matched(globs, [places], 0, b"/var/lib/pods/%08x/volume/secret" % (500 * 7919)) == 0b101
    assert matched(globs, [places], 0, b"/var/lib/pods/%08x/volume/.env" % (501 * 7919)) == 0b110
