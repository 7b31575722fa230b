"""Profiles as bytes: sizes are the structs', and what matters is where the C looks for it (see test_layouts)."""

from hostwarden.daemon import kerneltables
from hostwarden.policy.compile import compile_profile
from hostwarden.policy.parse import parse_policy
from hostwarden.policy.tables import Place
from hostwarden.policy.words import Action, RecordMode, Verdict
from hostwarden.probes import layout

TEXT = b"""
policy: p
for: {}
rules:
  - deny: read
    path: /etc/shadow
  - kill: exec
    path: /usr/bin/git
    argv: "git push --force*"
  - deny: exec
    sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  - deny: connect
    to: ["10.0.0.0/8:443", "10.1.0.0/16:*"]
otherwise: {exec: deny}
"""


def test_packed_profile_says_what_the_profile_says() -> None:
    profile = compile_profile([parse_policy(TEXT, "p.yaml", lambda name: None)], [[Place(b"", b"")]])
    head = layout.PROFILE_HEAD.unpack_from(kerneltables.pack_profile(profile))
    without_argv, without_hash, n_paths, has_argv, enforced, n_users, n_joint, has_hashes, *rest = head
    has_roots, root_row, *otherwise, record = rest
    assert (n_paths, has_argv, n_users, n_joint, has_hashes) == (1, 1, 0, 2, 1)
    assert (has_roots, root_row) == (0, 0)
    assert (without_argv, without_hash) == (0b10, 0b01), "the kill with path and argv is more severe"
    assert enforced == sum(1 << action for action in (Action.EXEC, Action.READ, Action.CONNECT, Action.LOAD))
    assert otherwise == [1] + 31 * [0], "exec's, enforcing: the kernel adds it"
    assert record == bytes([RecordMode.ALL] * 18).ljust(32, b"\0")
    for automaton in (*profile.paths, profile.argv):
        assert automaton is not None
        assert len(kerneltables.pack_automaton(automaton)) == layout.automaton_size()


def test_a_heavier_weight_decides() -> None:
    weights = [
        kerneltables.weight(Verdict.KILL, 7),
        kerneltables.weight(Verdict.DENY, 1),
        kerneltables.weight(Verdict.DENY, 2),
        kerneltables.weight(Verdict.DENY, 0),
        kerneltables.weight(Verdict.ALLOW, 1),
        kerneltables.weight(Verdict.ALLOW, 0),
    ]
    assert weights == sorted(weights, reverse=True)
    assert len(set(weights)) == len(weights)


def test_net_entries_name_a_port_or_any() -> None:
    profile = compile_profile([parse_policy(TEXT, "p.yaml", lambda name: None)], [])
    keys = [layout.NET_KEY.unpack(kerneltables.pack_net(entry)[0]) for entry in profile.net]
    assert {(is_any, port) for _, _, is_any, port, _ in keys} == {(0, 443), (1, 0)}
    assert {length - layout.NET_KEY_BITS for length, *_ in keys} >= {0, 96 + 8, 96 + 16}
