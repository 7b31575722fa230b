"""Sizes that C and Python share, and the layout of an event. C gets the sizes as -D flags; a test compares the layouts.

The words (actions, verdicts, …) aren't here: they are the policy's, and the daemon hands them to the loader.
"""

import struct
from typing import NamedTuple

SIZES = {
    "N_COLUMNS": 16,  # of a row of decisions: one for each action that policies speak of
    "MAX_PROCESSES": 131072,
    "MAX_AGENTS": 1024,
    "MAX_PROFILES": 64,
    "MAX_AUTOMATA": 8,
    "AUTOMATA_A_PROFILE": 9,  # eight for paths, one for argv
    "MAX_DECISIONS": 2048,
    "MAX_STATES": 65536,
    "MAX_TRANSITIONS": 1 << 20,
    "MAX_SUPERBLOCKS": 256,
    "MAX_USERS": 8,
    "MAX_POLICIES": 32,
    "MAX_JOINT": 64,
    "MAX_JOBS": 17,  # a path and a script's path through eight automata each, and argv
    "MAX_INODES": 65536,
    "MAX_HASHES": 16384,
    "MAX_SHARERS": 8192,
    "NET_ENTRIES": 1 << 17,
    "SCRATCHES": 256,  # actions that can be judged at one moment
    "TEXT_AREA": 16384,
    "MAX_EVENT": 10240,
    "ROW_PRIVATE": 0,
    "ROW_HOST": 1,  # paths that are already the host's
    "PROFILE_PROOF": 0,
    "PROFILE_SELECTORS": 1,
}
AGENT_SLOT_BITS = 10
assert SIZES["MAX_AGENTS"] == 1 << AGENT_SLOT_BITS

EVENT = struct.Struct("<QQQIIIIIIIIIIHHHHHHHHHHHHBBBBBBBx16s")
EVENT_HEADER = EVENT.size
SIZES["EVENT_HEADER"] = EVENT_HEADER

KIND_ACTION, KIND_FORK, KIND_EXIT, KIND_JOIN, KIND_SHARED, KIND_EXEC = range(6)

FLAGS = {
    "argv_cut": 1,
    "argv_unread": 2,
    "unknown": 4,
    "internal": 8,
    "private": 16,
    "shared": 32,
    "disarmed": 64,
    "deleted": 128,
    "linked": 256,
    "chain": 512,
    "threads": 1024,
    "socket": 2048,
    "unix": 4096,
    "abstract": 8192,
    "plain": 16384,
}


class Event(NamedTuple):
    """An event's header, in the order of `struct event` (event.h has each field's meaning)."""

    time: int
    start: int
    forker_start: int
    agent: int
    tgid: int
    tid: int
    forker: int
    uid: int
    generation: int
    argv_total: int
    superblock_dev: int
    object: int
    detail: int
    kind: int
    profile: int
    enforced_reason: int
    observed_reason: int
    row: int
    script_row: int
    path_length: int
    argv_length: int
    script_length: int
    port: int
    flags: int
    accesses: int
    action: int
    enforced: int
    observed: int
    outcome: int
    tier: int
    record: int
    status: int
    address: bytes


MEMBER = struct.Struct("<QQIIII")  # forker_start shared_files agent forker flags pad
MEMBER_DOOMED, MEMBER_WARDEN = 1, 2
AGENT = struct.Struct("<IIII")  # id profile state pad
AGENT_KILLED, AGENT_FROZEN = 1, 2
CONTROL = struct.Struct("<QIIIIIIQ")  # host_mnt_ns generation armed deny_is_kill selectors shown warden capabilities
DECISION = struct.Struct("<IIII")  # enforced observed (weights) covered pad
OTHERWISE = struct.Struct("<II")  # weight policy (a mask)
JOINT = struct.Struct("<IIII")  # weight mode covers actions (a mask)
NET_KEY = struct.Struct("<IBBH16s")  # prefixlen user any port address
SUPERBLOCK_KEY = struct.Struct("<QQ")  # address (or magic), bank
SUPERBLOCK_ROW = struct.Struct("<QQII")  # root magic row dev
TAUGHT = struct.Struct("<QQQ")  # address root magic
INODE_KEY = struct.Struct("<QQII")  # superblock inode profile bank
HASH_KEY = struct.Struct("<II32s")  # bank profile sha256
HASH_ROW = struct.Struct("<Q")  # joint rules, a mask
INODE_ROW = struct.Struct("<8H")
SHARER = struct.Struct("<QQ")  # files tgid

NET_VALUE_ACTIONS = 3  # connect, send, listen
NET_KEY_BITS = 32  # of the longest-prefix key before the address: user, pad, port
DENIAL_BELOW = 1 << 15  # in an automaton's output, beside the row: something below can be denied
assert SIZES["MAX_DECISIONS"] <= DENIAL_BELOW


def automaton_size() -> int:
    """Bytes of `struct automaton`."""
    return (
        8
        + 256
        + 8 * SIZES["MAX_DECISIONS"]
        + DECISION.size * SIZES["MAX_DECISIONS"] * SIZES["N_COLUMNS"]
        + 2 * SIZES["MAX_STATES"]
        + 2 * SIZES["MAX_TRANSITIONS"]
    )


# joint_without_argv joint_without_hash n_paths has_argv enforced n_users n_joint has_hashes has_roots root_row
# n_otherwise[32] record[32]
PROFILE_HEAD = struct.Struct("<QQ8I32I32s")


def profile_size() -> int:
    """Bytes of `struct profile`."""
    starts = 16 * SIZES["MAX_SUPERBLOCKS"] * SIZES["MAX_USERS"]
    return (
        PROFILE_HEAD.size
        + DECISION.size
        + 64 * 4
        + 64
        + OTHERWISE.size * SIZES["N_COLUMNS"] * 2 * SIZES["MAX_POLICIES"]
        + JOINT.size * SIZES["MAX_JOINT"]
        + 2 * starts
    )


def counts_layout(n_actions: int, n_verdicts: int) -> struct.Struct:
    """`struct counts`: seen[], unrecorded[], lost[][], lost_lifecycle, denied."""
    return struct.Struct(f"<{2 * n_actions + n_actions * n_verdicts + 2}Q")
