"""A compiled profile as the bytes of the kernel's structs (probes/…/bpf/maps.h), and into the maps."""

import os
from array import array
from collections.abc import Mapping

from hostwarden.policy.tables import Automaton, Decision, Joint, NetEntry, Otherwise, Profile
from hostwarden.policy.words import NET_ACTIONS, POLICY_ACTIONS, Action, Mode, RecordMode
from hostwarden.probes import bpf, layout

SIZES = layout.SIZES
ARGV = SIZES["MAX_AUTOMATA"]  # index of the argv automaton behind those for paths
NO_PREALLOC = 1


def weight(verdict: int, reason: int) -> int:
    """What the kernel compares: more severe is heavier, on equal severity the lower reason (maps.h, WEIGHT)."""
    return verdict << 16 | (0xFFFF - reason if reason else 0)


def pack_decision(decision: Decision) -> bytes:
    """`struct hw_decision`."""
    return layout.DECISION.pack(
        weight(decision.enforced, decision.enforced_reason),
        weight(decision.observed, decision.observed_reason),
        decision.covered,
        0,
    )


def pack_automaton(automaton: Automaton) -> bytes:
    """`struct hw_automaton`: what isn't used stays zero."""
    n_rows = SIZES["MAX_DECISIONS"]
    joint, decisions = bytearray(8 * n_rows), bytearray(layout.DECISION.size * n_rows * len(POLICY_ACTIONS))
    at = 0
    for row, by_action in enumerate(automaton.decisions):
        bits = by_action[Action.EXEC].joint | by_action[Action.LOAD].joint  # each rule says for which it is
        joint[8 * row : 8 * row + 8] = bits.to_bytes(8, "little")
        for action in POLICY_ACTIONS:
            decisions[at : at + layout.DECISION.size] = pack_decision(by_action[action])
            at += layout.DECISION.size
    below = (layout.DENIAL_BELOW if denial else 0 for denial in automaton.denial_below)
    output = array("H", [row | bit for row, bit in zip(automaton.output, below, strict=True)])
    parts = (
        automaton.shift.to_bytes(4, "little") + bytes(4),
        automaton.classes,
        automaton.next.tobytes().ljust(2 * SIZES["MAX_TRANSITIONS"], b"\0"),
        output.tobytes().ljust(2 * SIZES["MAX_STATES"], b"\0"),
        bytes(joint),
        bytes(decisions),
    )
    packed = b"".join(parts)
    assert len(packed) == layout.automaton_size()
    return packed


def pack_profile(profile: Profile) -> bytes:
    """`struct hw_profile`."""
    lists = [_otherwise_list(profile, action, mode) for action in POLICY_ACTIONS for mode in Mode]
    # What the warden itself refuses is recorded, whatever policies say.
    record = bytes(profile.record.get(action, RecordMode.ALL) for action in Action).ljust(32, b"\0")
    users = sorted(profile.users.items())
    head = layout.PROFILE_HEAD.pack(
        profile.joint_without_argv,
        profile.joint_without_hash,
        len(profile.paths),
        1 if profile.argv else 0,
        sum(1 << action for action in profile.enforced),
        len(users),
        len(profile.joint),
        1 if profile.hashes else 0,
        1 if profile.has_roots else 0,
        profile.root_row,
        *(len(entries) for entries in lists),
        record,
    )
    uids = b"".join(uid.to_bytes(4, "little") for uid, _ in users).ljust(64 * 4, b"\0")
    classes = bytes(user_class for _, user_class in users).ljust(64, b"\0")
    otherwise = b"".join(_pack_otherwise(entries) for entries in lists)
    joint = b"".join(_pack_joint(entry) for entry in profile.joint).ljust(layout.JOINT.size * SIZES["MAX_JOINT"], b"\0")
    packed = head + pack_decision(profile.argv_unread) + uids + classes + otherwise + joint + _pack_starts(profile)
    assert len(packed) == layout.profile_size(), (len(packed), layout.profile_size())
    return packed


def _otherwise_list(profile: Profile, action: Action, mode: Mode) -> list[Otherwise]:
    entries = [entry for entry in profile.otherwise.get(action, ()) if entry.mode is mode]
    return sorted(entries, key=lambda entry: -weight(entry.verdict, entry.reason))


def _pack_otherwise(entries: list[Otherwise]) -> bytes:
    packed = b"".join(
        layout.OTHERWISE.pack(weight(entry.verdict, entry.reason), 1 << entry.policy) for entry in entries
    )
    return packed.ljust(layout.OTHERWISE.size * SIZES["MAX_POLICIES"], b"\0")


def _pack_joint(joint: Joint) -> bytes:
    actions = sum(1 << action for action in joint.actions)
    return layout.JOINT.pack(weight(joint.verdict, joint.reason), joint.mode, joint.covers, actions)


def _pack_starts(profile: Profile) -> bytes:
    rows, users = SIZES["MAX_SUPERBLOCKS"], SIZES["MAX_USERS"]
    starts = bytearray(2 * 16 * rows * users)
    numbered = [*enumerate(profile.paths), *([(ARGV, profile.argv)] if profile.argv else [])]
    for number, automaton in numbered:
        for row, states in enumerate(automaton.starts):
            for user, state in enumerate(states):
                at = 2 * ((number * rows + row) * users + user)
                starts[at : at + 2] = state.to_bytes(2, "little")
    return bytes(starts)


def pack_net(entry: NetEntry) -> tuple[bytes, bytes]:
    """Key and value of one longest-prefix entry."""
    key = layout.NET_KEY.pack(
        layout.NET_KEY_BITS + entry.length, entry.user, entry.port is None, entry.port or 0, entry.prefix
    )
    return key, b"".join(pack_decision(entry.decisions[action]) for action in NET_ACTIONS)


def install(maps: Mapping[str, int], bank: int, number: int, profile: Profile) -> None:
    """Put ``profile`` at ``number`` of ``bank``. Nobody looks there until the generation says so."""
    index = bank * SIZES["MAX_PROFILES"] + number
    _install_array(maps["profiles"], index, pack_profile(profile), "profile")
    numbered = [*enumerate(profile.paths), *([(ARGV, profile.argv)] if profile.argv else [])]
    for n, automaton in numbered:
        _install_array(
            maps["automata"], index * SIZES["AUTOMATA_A_PROFILE"] + n, pack_automaton(automaton), "automaton"
        )
    nets = bpf.map_create(
        bpf.MapType.LPM_TRIE,
        layout.NET_KEY.size,
        len(NET_ACTIONS) * layout.DECISION.size,
        SIZES["NET_ENTRIES"],
        "net",
        flags=NO_PREALLOC,
    )
    try:
        for entry in profile.net:
            bpf.update(nets, *pack_net(entry))
        _point(maps["nets"], index, nets)
    finally:
        os.close(nets)
    for content, bits in profile.hashes.items():
        bpf.update(maps["hashes"], layout.HASH_KEY.pack(bank, number, content), layout.HASH_ROW.pack(bits))


def wait_for_programs(maps: Mapping[str, int], bank: int, number: int, profile: Profile) -> None:
    """Return when no program runs any more that began before: none walks the tables that were in force until now.

    An update of a map of maps waits for that (kernel/bpf/syscall.c, maybe_wait_bpf_programs), so ``profile`` is put
    where it is once more.
    """
    _install_array(maps["profiles"], bank * SIZES["MAX_PROFILES"] + number, pack_profile(profile), "profile")


def uninstall(maps: Mapping[str, int], bank: int, number: int) -> None:
    """Free the memory of a profile that no generation in force uses."""
    index = bank * SIZES["MAX_PROFILES"] + number
    for name, first, count in (
        ("profiles", index, 1),
        ("nets", index, 1),
        ("automata", index * SIZES["AUTOMATA_A_PROFILE"], SIZES["AUTOMATA_A_PROFILE"]),
    ):
        for n in range(count):
            bpf.delete(maps[name], (first + n).to_bytes(4, "little"))


def forget_hashes(maps: Mapping[str, int], bank: int) -> None:
    """Delete the contents that the profiles of ``bank`` name."""
    for key in bpf.keys(maps["hashes"], layout.HASH_KEY.size):
        if layout.HASH_KEY.unpack(key)[0] == bank:
            bpf.delete(maps["hashes"], key)


def _install_array(outer: int, index: int, value: bytes, name: str) -> None:
    inner = bpf.map_create(bpf.MapType.ARRAY, 4, len(value), 1, name)
    try:
        bpf.update(inner, bytes(4), value)
        _point(outer, index, inner)
    finally:
        os.close(inner)


def _point(outer: int, index: int, inner: int) -> None:
    bpf.update(outer, index.to_bytes(4, "little"), inner.to_bytes(4, "little"))
