"""What the kernel makes of a profile's tables, step by step as the C side does it.

``decide_profile`` mirrors ``decide.h`` and ``decide_net`` the longest-prefix look-up. Tests compare both with the
oracle on one side and with the kernel on the other; the daemon asks them what a table would say.
"""

from collections.abc import Iterable, Mapping

from hostwarden.policy.tables import PRIVATE, Automaton, Decision, NetEntry, Profile
from hostwarden.policy.words import CONTENT_ACTIONS, Action, Mode, Verdict


def combine(decisions: Iterable[Decision]) -> Decision:
    """The most severe verdict of each side; of equals, the reason with the lower number, and 0 (no reason) last."""
    enforced = observed = (Verdict.ALLOW, 0)
    covered = joint = 0
    for decision in decisions:
        enforced = stronger(enforced, (decision.enforced, decision.enforced_reason))
        observed = stronger(observed, (decision.observed, decision.observed_reason))
        covered |= decision.covered
        joint |= decision.joint
    return Decision(*enforced, *observed, covered, joint)


def stronger(left: tuple[Verdict, int], right: tuple[Verdict, int]) -> tuple[Verdict, int]:
    """The one of two (verdict, reason) that decides."""
    if left[0] != right[0]:
        return left if left[0] > right[0] else right
    return left if 0 < left[1] <= right[1] or right[1] == 0 else right


def say(verdict: Verdict, reason: int, mode: Mode) -> Decision:
    """The decision that consists of one contribution."""
    if mode is Mode.ENFORCE:
        return Decision(enforced=verdict, enforced_reason=reason)
    return Decision(observed=verdict, observed_reason=reason)


def user_class(profile: Profile, uid: int) -> int:
    """The user class of a uid."""
    return profile.users.get(uid, 0)


def decide_profile(
    profile: Profile,
    row: int,
    user: int,
    relative: bytes | None,
    argv: bytes | None,
    action: Action,
    sha256: bytes | None = None,
) -> Decision:
    """The verdict on anything but an internet address.

    ``row``: the superblock's start row; ``relative``: the path below its root, None for what has no path (no text is
    walked from row PRIVATE, and exec and load are covered by nothing) and for actions without a target; ``argv``: for
    exec, the raw argument area without the last NUL, None if it can't be read; ``sha256``: for exec and load, the
    content, None if it isn't known.
    """
    text, row = (b"", PRIVATE) if relative is None else (relative, row)
    rows = [_final(automaton, row, user, text) for automaton in profile.paths]
    found = combine(decisions[action] for decisions in rows)
    bits, by_argv = _bits(rows), profile.joint_without_argv
    if action is Action.EXEC and profile.argv is not None:
        if argv is None:
            found = combine([found, profile.argv_unread])
        else:
            half = _final(profile.argv, 0, user, argv)
            by_argv |= _bits([half])
            found = combine([found, half[action]])
    by_content = profile.joint_without_hash | (0 if sha256 is None else profile.hashes.get(sha256, 0))
    found = combine([found, *_joint(profile, bits & by_argv & by_content, action)])
    covered = 0 if relative is None and action in CONTENT_ACTIONS else found.covered
    rest = (entry for entry in profile.otherwise.get(action, ()) if not covered >> entry.policy & 1)
    return combine([found, *(say(entry.verdict, entry.reason, entry.mode) for entry in rest)])


def decide_net(profile: Profile, user: int, address: bytes, port: int, action: Action) -> Decision:
    """The verdict on a network action. ``address``: 16 bytes, IPv4 as IPv4-mapped."""
    named = any(entry.port == port for entry in profile.net)
    key = port if named else None
    holding = (entry for entry in profile.net if entry.user == user and entry.port == key and _contains(entry, address))
    return max(holding, key=lambda entry: entry.length).decisions[action]


def _final(automaton: Automaton, row: int, user: int, text: bytes) -> Mapping[Action, Decision]:
    state = automaton.run(text, automaton.starts[row][user])
    return automaton.decisions[automaton.output[state]]


def _bits(rows: Iterable[Mapping[Action, Decision]]) -> int:
    """The joint rules of whatever action that have their bit there."""
    bits = 0
    for row in rows:
        for action in CONTENT_ACTIONS:
            bits |= row[action].joint
    return bits


def _joint(profile: Profile, bits: int, action: Action) -> Iterable[Decision]:
    for index, joint in enumerate(profile.joint):
        if bits >> index & 1 and action in joint.actions:
            yield combine([say(joint.verdict, joint.reason, joint.mode), Decision(covered=joint.covers)])


def _contains(entry: NetEntry, address: bytes) -> bool:
    shift = 128 - entry.length
    return int.from_bytes(entry.prefix, "big") >> shift == int.from_bytes(address, "big") >> shift
