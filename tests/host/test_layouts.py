"""C and Python agree on every byte that they share, and C and the kernel's BTF on every member that is read.

What is looked at is the code that bcc makes: functions are added to the probes' own text that return sizes, load
members of our structs as the probes do (the back end's layout), and read the kernel's through GET and READ of quirks.h,
which tells of the trap: bcc's front end and its back end don't lay out all structs alike.
"""

import re
import struct
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hostwarden.daemon import kerneltables
from hostwarden.policy.tables import Automaton, Decision, Joint, Otherwise, Profile, Reason
from hostwarden.policy.words import POLICY_ACTIONS, Action, Mode, RecordMode, Verdict
from hostwarden.probes import headers, layout, link, programs, source
from tests.host.compiled import Questions, compiled, flags
from tests.host.kernel_types import Btf

TIERS = ("signal", *programs.REFUSING)

# struct of maps.h or event.h → its members in order, and how Python packs it ("pad" isn't looked at)
OURS: dict[str, tuple[str, struct.Struct]] = {
    "hw_event": (" ".join(layout.Event._fields), layout.EVENT),
    "hw_agent": ("id profile state pad", layout.AGENT),
    "hw_control": ("host_mnt_ns generation armed deny_is_kill selectors shown warden capabilities", layout.CONTROL),
    "hw_decision": ("enforced observed covered pad", layout.DECISION),
    "hw_otherwise": ("weight policy", layout.OTHERWISE),
    "hw_joint": ("weight mode covers actions", layout.JOINT),
    "hw_net_key": ("prefixlen user any port address", layout.NET_KEY),
    "hw_superblock_key": ("address bank", layout.SUPERBLOCK_KEY),
    "hw_superblock_row": ("root magic row dev", layout.SUPERBLOCK_ROW),
    "hw_taught": ("address root magic", layout.TAUGHT),
    "hw_inode_key": ("superblock inode profile bank", layout.INODE_KEY),
    "hw_hash_key": ("bank profile sha256", layout.HASH_KEY),
    "hw_sharer": ("files tgid", layout.SHARER),
    "hw_member": ("forker_start shared_files agent forker flags scratch", layout.MEMBER),
}
ARRAYS = {("hw_event", "address"), ("hw_net_key", "address"), ("hw_hash_key", "sha256")}
SIZES = {
    "hw_inode_row": layout.INODE_ROW.size,
    "hw_net_value": layout.NET_VALUE_ACTIONS * layout.DECISION.size,
    "hw_profile": layout.profile_size(),
    "hw_automaton": layout.automaton_size(),
    "hw_counts": layout.counts_layout(len(Action), len(Verdict)).size,
    "hw_unit_name": 64,
}
COUNTS = ("seen", "unrecorded", "lost", "lost_lifecycle", "denied")
PROFILE = (
    "joint_without_argv", "joint_without_hash", "n_paths", "has_argv", "enforced", "n_users", "n_joint", "has_hashes",
    "has_roots", "root_row",
    "n_otherwise", "record", "argv_unread", "uids", "classes",
    "otherwise", "joint", "starts",
)  # fmt: skip
AUTOMATON = ("shift", "classes", "joint", "decisions", "output", "next")

# struct of the kernel → members that the probes read
KERNEL = {
    "task_struct": "tgid pid group_leader files signal real_parent start_boottime mm cgroups task_works nsproxy"
    " exit_code thread_info.status fs pid_links exit_state flags cred real_cred",
    "fs_struct": "root pwd",
    "mm_struct": "arg_start arg_end exe_file",
    "vm_area_struct": "vm_file",
    "file": "f_path.dentry f_path.mnt f_mode f_flags f_inode f_task_work private_data",
    "dentry": "d_parent d_name d_name.len d_name.name d_inode d_sb",
    "path": "dentry mnt",
    "inode": "i_nlink i_ino i_mode i_rdev",
    "proc_inode": "vfs_inode pid",
    "pid": "tasks[0].first",
    "user_namespace": "level",
    "super_block": "s_dev s_flags s_magic s_root s_user_ns",
    "mount": "mnt mnt.mnt_root mnt.mnt_sb mnt_parent mnt_mountpoint mnt_ns",
    "vfsmount": "mnt_flags",
    "mnt_namespace": "root",
    "kernel_siginfo": "si_code",
    "nsproxy": "mnt_ns",
    "files_struct": "fdt count.counter",
    "fdtable": "fd max_fds",
    "signal_struct": "live.counter nr_threads",
    "css_set": "dfl_cgrp",
    "cgroup": "level ancestors kn",
    "kernfs_node": "name",
    "linux_binprm": "file filename interp executable buf[0] buf[1]",
    "callback_head": "next",
    "pt_regs": "orig_ax di si dx cx bx r8 r10",
    "socket": "sk",
    "sock": "__sk_common.skc_family __sk_common.skc_num __sk_common.skc_rcv_saddr __sk_common.skc_v6_rcv_saddr",
    "unix_sock": "path.dentry path.mnt addr peer",
    "unix_address": "len name",
}
MEMBERS = [(name, member) for name, members in KERNEL.items() for member in members.split()]


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """Headers of this kernel, made here."""
    with tempfile.TemporaryDirectory(prefix="hw-layouts-", dir="/var/tmp") as cache:
        yield headers.tree(Path(cache))


@pytest.fixture(scope="module")
def answers(tree: Path) -> Questions:
    """Everything that is asked here, compiled once."""
    asked = Questions()
    for name, (members, _) in OURS.items():
        asked.ask(f"size_{name}", f"return sizeof(struct {name});")
        for member in members.split():
            place = f"((struct {name} *)at)->{member}"
            asked.ask(
                f"load_{name}_{member}",
                f"return {place}{'[0]' if (name, member) in ARRAYS else ''};",
            )
    for name in SIZES:
        asked.ask(f"size_{name}", f"return sizeof(struct {name});")
    for name, fields in (("hw_counts", COUNTS), ("hw_profile", PROFILE), ("hw_automaton", AUTOMATON)):
        for member in fields:
            asked.ask(f"place_{name}_{member}", f"return __builtin_offsetof(struct {name}, {member});")
    for name, member in MEMBERS:
        asked.ask(f"get_{name}_{member}", f"return (u64)&GET((struct {name} *)at, {member}) - at;")
        asked.ask(
            f"read_{name}_{member}",
            f"u8 to; READ(to, (struct {name} *)at, {member}); return to;",
        )
    asked.compile(tree)
    return asked


def offsets(packing: struct.Struct) -> list[tuple[int, int]]:
    """Offset and width of each field of a struct module's format; repeated letters are fields of their own."""
    found, at = [], 0
    for count, letter in re.findall(r"(\d*)([a-zA-Z])", packing.format.lstrip("<")):
        one = struct.calcsize("<" + (count + letter if letter in "sx" else letter))
        for _ in range(1 if letter in "sx" else int(count or 1)):
            if letter != "x":
                found.append((at, one))
            at += one
    return found


@pytest.mark.parametrize("name", OURS)
def test_python_packs_what_c_has(answers: Questions, name: str) -> None:
    members, packing = OURS[name]
    assert answers.number(f"size_{name}") == packing.size
    expected = dict(zip(members.split(), offsets(packing), strict=True))
    for member, (offset, width) in expected.items():
        place, loaded = answers.loaded(f"load_{name}_{member}")
        assert place == offset, member
        assert loaded == (1 if (name, member) in ARRAYS else width), member


@pytest.mark.parametrize("name", SIZES)
def test_sizes(answers: Questions, name: str) -> None:
    assert answers.number(f"size_{name}") == SIZES[name]


def places(answers: Questions, name: str, fields: Sequence[str]) -> dict[str, int]:
    """Where C has the members of a struct that Python packs piece by piece."""
    return {field: answers.number(f"place_{name}_{field}") for field in fields}


def test_counts(answers: Questions) -> None:
    at = places(answers, "hw_counts", COUNTS)
    n, v = len(Action), len(Verdict)
    assert at == {"seen": 0, "unrecorded": 8 * n, "lost": 16 * n, "lost_lifecycle": 16 * n + 8 * n * v,
                  "denied": 16 * n + 8 * n * v + 8}  # fmt: skip


DECISIONS = {
    action: Decision(Verdict.DENY, 1 + action, Verdict.KILL, 21 + action, 41 + action, 31) for action in POLICY_ACTIONS
}
NOTHING = dict.fromkeys(POLICY_ACTIONS, Decision())
TABLE = Automaton(
    bytes(range(256)),
    9,
    array("H", range(1024)),
    array("H", [0, 0, 1]),
    [NOTHING, DECISIONS],
    [[5, 6], [7, 8]],
    bytes([0, 1, 1]),
)
LAWS = Profile(
    reasons=[Reason()] * 50,
    paths=[TABLE],
    argv=TABLE,
    joint=[Joint(Verdict.KILL, Mode.OBSERVE, 3, 4, frozenset([Action.EXEC, Action.LOAD]))],
    otherwise={action: [Otherwise(5, Verdict.DENY, mode, 6 + action) for mode in Mode] for action in POLICY_ACTIONS},
    net=[],
    users={1000: 1, 1001: 0},
    record=dict.fromkeys(POLICY_ACTIONS, RecordMode.DENIED),
    enforced=frozenset([Action.READ, Action.SEND, Action.LOAD]),
    hashes={bytes(32): 1},
    joint_without_argv=1 << 63,
    joint_without_hash=3,
    argv_unread=Decision(Verdict.DENY, 40),
    has_roots=True,
    root_row=7,
)


def numbers(packed: bytes, at: int, form: str) -> tuple[int, ...]:
    """Unpack there."""
    return struct.unpack_from("<" + form, packed, at)


def test_profile(answers: Questions) -> None:
    at, packed = places(answers, "hw_profile", PROFILE), kerneltables.pack_profile(LAWS)
    weight = kerneltables.weight
    assert numbers(packed, at["joint_without_argv"], "Q") == (1 << 63,)
    assert numbers(packed, at["joint_without_hash"], "Q") == (3,)
    assert numbers(packed, at["n_paths"], "I") == (1,)
    assert numbers(packed, at["has_argv"], "I") == (1,)
    assert numbers(packed, at["enforced"], "I") == (1 << Action.READ | 1 << Action.SEND | 1 << Action.LOAD,)
    assert numbers(packed, at["n_users"], "II") == (2, 1)
    assert numbers(packed, at["has_hashes"], "I") == (1,)
    assert numbers(packed, at["has_roots"], "II") == (1, 7)
    assert at["root_row"] == at["has_roots"] + 4
    assert numbers(packed, at["n_otherwise"], "32I") == (1,) * 32
    assert numbers(packed, at["record"], "18B") == (RecordMode.DENIED,) * 16 + (RecordMode.ALL,) * 2
    assert numbers(packed, at["argv_unread"], "4I") == (weight(Verdict.DENY, 40), 0, 0, 0)
    assert numbers(packed, at["uids"], "3I") == (1000, 1001, 0)
    assert numbers(packed, at["classes"], "3B") == (1, 0, 0)
    assert numbers(packed, at["joint"], "4I") == (weight(Verdict.KILL, 3), Mode.OBSERVE, 4, 1 | 1 << 15)
    for action in POLICY_ACTIONS:  # decide.h: list = action * 2 + mode, MAX_POLICIES in each
        for mode in Mode:
            cell = 8 * (action * 2 + mode) * layout.SIZES["MAX_POLICIES"]
            assert numbers(packed, at["otherwise"] + cell, "4I") == (weight(Verdict.DENY, 6 + action), 1 << 5, 0, 0)
    rows, users = layout.SIZES["MAX_SUPERBLOCKS"], layout.SIZES["MAX_USERS"]
    for automaton in (0, layout.SIZES["MAX_AUTOMATA"]):  # decide.h, start_of
        for row, states in enumerate(TABLE.starts):
            cell = 2 * ((automaton * rows + row) * users)
            assert numbers(packed, at["starts"] + cell, "3H") == (*states, 0)


def test_automaton(answers: Questions) -> None:
    at, packed = places(answers, "hw_automaton", AUTOMATON), kerneltables.pack_automaton(TABLE)
    assert numbers(packed, at["shift"], "I") == (9,)
    assert packed[at["classes"] : at["classes"] + 256] == TABLE.classes
    assert numbers(packed, at["joint"], "3Q") == (0, 31, 0)
    assert numbers(packed, at["output"], "4H") == (0, layout.DENIAL_BELOW, 1 | layout.DENIAL_BELOW, 0)
    assert numbers(packed, at["next"], "1025H") == (*range(1024), 0)
    weight = kerneltables.weight
    for action in POLICY_ACTIONS:  # decide.h: row * N_COLUMNS + action
        found = numbers(packed, at["decisions"] + 16 * (len(POLICY_ACTIONS) + action), "4I")
        assert found == (weight(Verdict.DENY, 1 + action), weight(Verdict.KILL, 21 + action), 41 + action, 0)


# the kernel's structs


@pytest.fixture(scope="module")
def btf() -> Btf:
    """The running kernel's types."""
    return Btf()


@pytest.mark.parametrize(("name", "member"), MEMBERS)
def test_members_of_the_kernel_are_where_its_btf_says(answers: Questions, btf: Btf, name: str, member: str) -> None:
    offset = btf.offset(name, member)
    assert answers.number(f"get_{name}_{member}") == offset
    assert answers.read(f"read_{name}_{member}") == offset


def arguments(text: str) -> list[tuple[str, ...]]:
    """Macro and arguments of every GET, LOAD, READ and offsetof in C."""
    found = []
    for start in re.finditer(r"\b(GET|LOAD|READ|__builtin_offsetof)\(", text):
        depth, parts = 1, [""]
        for char in text[start.end() :]:
            depth += (char in "([") - (char in ")]")
            if depth == 0:
                break
            if char == "," and depth == 1:
                parts.append("")
            else:
                parts[-1] += char
        found.append((start[1], *(part.strip() for part in parts)))
    return found


def code() -> str:
    """The C that is compiled: without comments, and without macros, which have no types of their own."""
    text = "\n".join(path.read_text() for path in source.FOLDER.glob("*.[ch]") if path.name != "quirks.h")
    return re.sub(r"(?m)^#define.*$", "", re.sub(r"/\*.*?\*/", "", text, flags=re.S))


def test_every_member_that_is_read_is_in_the_table() -> None:
    text = code()
    read = arguments(text)
    assert len(read) > 90
    known: dict[str, set[str]] = {}
    for name, member in MEMBERS:
        known.setdefault(member.partition("[")[0], set()).add(name)
    for macro, *_, pointer, member in read:
        structs = known.get(member.partition("[")[0])
        assert structs, f"add {member} to KERNEL"
        possible = structs_of(text, pointer)  # empty: an expression, of which nothing is known here
        assert not possible or possible & structs, (
            f"{macro}(…{pointer}, {member}): add it to one of {possible} in KERNEL"
        )


def structs_of(text: str, pointer: str) -> set[str]:
    """What ``pointer`` may point to: by a cast, by P() of hostwarden.c, or by a declaration of that name."""
    cast = re.match(r"\(struct (\w+) \*\)|P\((\w+),|struct (\w+)$", pointer)
    if cast:
        return {name for name in cast.groups() if name}
    declared = re.findall(rf"\bstruct (\w+) (?:\*\w+(?: = [^,;]*)?, )*\*{re.escape(pointer)}\b", text)
    return set(declared) if re.fullmatch(r"\w+", pointer) else set()


@pytest.mark.parametrize("tier", TIERS)
def test_every_program_compiles_and_is_linked(tree: Path, tier: str) -> None:
    """For each tier; and what is called by number is there, with its context fetched in time (link.py)."""
    wanted = programs.of((tier, "cgroup"))
    names = list({program.function for program in wanted} | {*programs.CALLBACKS, *programs.FUNCTIONS})
    made = compiled(source.text(), flags(tier, tree), names, tree)
    for program in wanted:
        linked = link.link(program.function, made.__getitem__)
        assert linked.functions[0] == (0, program.function)


def test_no_member_of_the_kernel_is_read_otherwise() -> None:
    """An arrow on one of the kernel's structs is the trap of quirks.h."""
    text = code()
    ours, theirs = pointers(text, r"hw_\w+|bpf_sock\w*"), pointers(text, r"(?!hw_|bpf_sock)\w+")
    theirs -= ours  # a name that is both, here and there, is not looked at
    assert {"task", "dentry", "superblock"} <= theirs
    assert [one for one in re.findall(r"\b(\w+)->\w+", text) if one in theirs] == []
    assert re.findall(r"P\([^)]*\)->\w+", text) == []


def pointers(text: str, kinds: str) -> set[str]:
    """Names that are declared as pointers to such structs."""
    one = r"\*\w+(?: = [^,;]*)?"
    declared = re.findall(rf"\bstruct (?:{kinds}) ({one}(?:, {one})*)", text)
    return {name for names in declared for name in re.findall(r"\*(\w+)", names)}
