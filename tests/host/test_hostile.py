"""Hostile inputs, 5,000 of a kind: policy files, messages on the sockets, names and arguments from an agent. Nothing
breaks, nothing prints a trace, and nothing that is in force changes."""

import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from hostwarden.cli.main import command
from hostwarden.policy.parse import PolicyErrors, parse_policy
from hostwarden.records.model import raw_bytes
from hostwarden.wire import hostwarden_pb2 as pb
from hostwarden.wire.roles import DOORS, Role
from tests.host import hostile
from tests.host.conftest import Hostwarden, Record

COUNT = 5000
CONNECTIONS = 1000
FILES_A_RELOAD = 500
NOTHING_CHANGED = b"nothing changed: what was in force stays in force"
SHOWN = 1024  # bytes of argv in a record, as configured by default

# What a call may answer. Not INTERNAL, not UNKNOWN: those are bugs of ours.
ANSWERS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,  # `events` that somebody follows
}


@dataclass
class Guarded:
    """A daemon with one policy in force, and how to see that it still is."""

    hostwarden: Hostwarden
    secret: Path
    status: Record
    digest: str  # of the policy

    def assert_unchanged(self, since: int) -> None:
        """Alive, the same policy in force and made real, nothing odd in the daemon's log."""
        status = self.hostwarden.status()
        # Not `generation`: whoever mounts something on this host makes a new one, of the same policies.
        same = ("pid", "armed", "policies", "blocked", "tiers", "ready")
        assert {key: status[key] for key in same} == {key: self.status[key] for key in same}
        acts = [record for record in self.hostwarden.events(since) if record["action"] in hostile_acts(record)]
        assert acts == []
        assert refused(self.hostwarden, self.secret)["digest"] == self.digest
        log = self.hostwarden.log_file.read_bytes().decode()
        assert "Traceback" not in log
        assert [line for line in log.split("\n") if not line.isprintable()] == []


def refused(hostwarden: Hostwarden, secret: Path) -> Record:
    """An agent tries to read the secret: no byte of it comes out. The record."""
    since = hostwarden.sequence
    done = hostwarden.run(["cat", str(secret)])
    assert (done.returncode, done.stdout) == (128 + signal.SIGKILL, "")
    return hostwarden.wait_for(since, verdict="deny", target=str(secret))[0]


def hostile_acts(record: Record) -> tuple[str, ...]:
    """Names of acts that nobody may have brought about here."""
    own = ("adopt", "kill", "release", "arm", "disarm", "config", "start", "stop")
    return own if "refused" in record.get("detail", {}) else (*own, "policy")


@pytest.fixture(scope="module")
def guarded(hostwarden: Hostwarden) -> Guarded:
    secret = hostwarden.root / "secret"
    secret.write_text("bytes that must not leave")
    hostwarden.set_policies(p=f"policy: p\nfor: {{team: test}}\nrules:\n  - deny: read\n    path: {secret}\n")
    return Guarded(hostwarden, secret, hostwarden.status(), refused(hostwarden, secret)["digest"])


# Policy files


def test_policy_files(guarded: Guarded, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostwarden = guarded.hostwarden
    files = hostile.examples(hostile.policy_files(), COUNT)
    since = hostwarden.sequence
    for first in range(0, COUNT, FILES_A_RELOAD):
        batch = {f"fuzz-{n:03}.yaml": data for n, data in enumerate(files[first : first + FILES_A_RELOAD])}
        for name, data in batch.items():
            (hostwarden.policy_dir / name).write_bytes(data)
        bad = {name for name, data in batch.items() if not is_policy(name, data)}
        assert bad  # or the whole folder would be put in force, rightly
        assert bad <= checked(hostwarden.policy_dir, tmp_path, capsys)
        reload_refused(hostwarden)
        for name in batch:
            (hostwarden.policy_dir / name).unlink()
    refusals = [record["detail"] for record in hostwarden.events(since, action="policy")]
    assert len(refusals) == COUNT // FILES_A_RELOAD and all(refusal["refused"] for refusal in refusals)
    guarded.assert_unchanged(since)


def is_policy(name: str, data: bytes) -> bool:
    """Whether a file alone is one. Anything but PolicyErrors is the parser's bug."""
    try:
        parse_policy(data, name, lambda user: 0 if user == "root" else None)
    except PolicyErrors:
        return False
    return True


def checked(folder: Path, nowhere: Path, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Names of the files that `policy check` finds fault with: one line a mistake, ``file:line:column: …``."""
    assert command(["--run-dir", str(nowhere), "policy", "check", str(folder)]) == 2
    lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert all(line.isprintable() and line.startswith(f"{folder}/") for line in lines), lines
    return {line.removeprefix(f"{folder}/").partition(":")[0] for line in lines}


def reload_refused(hostwarden: Hostwarden) -> None:
    """SIGHUP, and the daemon's word that nothing changed."""
    assert hostwarden.process is not None
    told = hostwarden.log_file.read_bytes().count(NOTHING_CHANGED)
    hostwarden.process.send_signal(signal.SIGHUP)
    hostwarden.wait_until(lambda: hostwarden.log_file.read_bytes().count(NOTHING_CHANGED) > told)


# Messages


def test_messages(guarded: Guarded) -> None:
    hostwarden = guarded.hostwarden
    since = hostwarden.sequence
    each = COUNT // len(hostile.REQUESTS)
    found = {call: hostile.examples(hostile.messages(call), each) for call in hostile.REQUESTS}
    for n, role in enumerate(Role):
        with grpc.insecure_channel(f"unix:{hostwarden.run_dir / DOORS[role].file}") as channel:
            for call, inputs in found.items():
                for data in inputs[n :: len(Role)]:
                    assert send(channel, call, data) in ANSWERS | {None}, (role, call, data)
    guarded.assert_unchanged(since)


def send(channel: grpc.Channel, call: str, data: bytes) -> grpc.StatusCode | None:
    """One request as it is; what it was answered, None for a reply."""
    method: Any = channel.unary_stream(f"/hostwarden.v1.Host/{call}")
    answers = method(data, timeout=1 if call == "Events" else 30)
    try:
        next(answers, None)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    finally:
        answers.cancel()
    return None


def test_an_empty_claim_makes_no_tables(guarded: Guarded) -> None:
    """Anybody may ask for `run`; who names no child of their own gets no share of the places for label sets."""
    hostwarden = guarded.hostwarden
    since = hostwarden.sequence
    before = label_sets(hostwarden)
    with grpc.insecure_channel(f"unix:{hostwarden.run_dir / DOORS[Role.AGENT].file}") as channel:
        for n in range(70):
            request = pb.BindRequest(agent=f"a{n}", labels={"team": f"t{n}"}, pid=os.getpid(), start_ticks=1)
            assert send(channel, "Bind", request.SerializeToString()) is grpc.StatusCode.INVALID_ARGUMENT
            assert label_sets(hostwarden) <= before
    guarded.assert_unchanged(since)


def label_sets(hostwarden: Hostwarden) -> set[str]:
    """Those that tables were made for: numbers, as the daemon remembers them for its records."""
    found: set[str] = set()
    for path in (hostwarden.state_dir / "generations").glob("*.json"):
        found |= json.loads(path.read_text())["reasons"].keys()
    return found


def test_bytes_on_sockets(guarded: Guarded) -> None:
    hostwarden = guarded.hostwarden
    since = hostwarden.sequence
    for n, data in enumerate(hostile.examples(hostile.connections(), CONNECTIONS)):
        door = DOORS[list(Role)[n % len(Role)]]
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(30)
            peer.connect(str(hostwarden.run_dir / door.file))
            with suppress(ConnectionResetError, BrokenPipeError):
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(4096):
                    pass
    guarded.assert_unchanged(since)


# Names and arguments


@dataclass
class Acted:
    """What the agent did, and what the log says."""

    folder: Path
    names: list[bytes]
    arguments: list[list[bytes]]
    records: list[Record]
    people: str
    program: Path


@pytest.fixture(scope="module")
def acted(guarded: Guarded, program: Callable[[str], Path]) -> Acted:
    hostwarden = guarded.hostwarden
    folder, list_file = hostwarden.root / "names", hostwarden.root / "list"
    folder.mkdir()
    names, arguments = hostile.file_names(COUNT), hostile.argument_lists(COUNT)
    list_file.write_bytes(hostile.as_list_file(names, arguments))
    since = hostwarden.sequence
    done = hostwarden.run([str(program("hostile")), str(list_file), str(folder)], agent="hostile", timeout_s=100)
    assert done.stdout == f"{COUNT} {COUNT}\n", done.stderr
    assert sorted(os.listdir(os.fsencode(folder))) == sorted(names)
    hostwarden.wait_until(lambda: hostwarden.agent("hostile") is None)  # its counts are settled
    records = hostwarden.events(since, agent="hostile")
    people = hostwarden.command("events", "--since", str(since)).stdout
    return Acted(folder, names, arguments, records, people, program("hostile"))


def test_each_name_is_one_record(acted: Acted) -> None:
    records = [record for record in acted.records if record["action"] == "create"]
    expected = Counter(os.fsencode(acted.folder) + b"/" + name for name in acted.names)
    found = Counter(raw_bytes(record["target"]) for record in records)
    assert found <= expected
    assert len(records) + lost(acted.records, "create") == COUNT


def test_each_argument_list_is_one_record(acted: Acted) -> None:
    records = [record for record in acted.records if record["action"] == "exec"]
    own = [record for record in records if record["process"]["argv"][1:2] == [str(acted.folder.parent / "list")]]
    assert len(own) == 1
    children = [record for record in records if record is not own[0]]
    assert {record["target"] for record in children} == {str(acted.program)}
    expected = Counter(map(shown, acted.arguments))
    assert Counter(map(recorded, children)) <= expected
    assert len(children) + lost(acted.records, "exec") == COUNT


def shown(arguments: list[bytes]) -> tuple[bytes, int | None]:
    """What a record has of arguments: their bytes with a NUL between, and how long they are where that is cut."""
    block = b"".join(argument + b"\0" for argument in arguments or [b""])  # the kernel adds an argv[0]
    if len(block) <= SHOWN:
        return block[:-1], None
    return block[:SHOWN].removesuffix(b"\0"), len(block)


def recorded(record: Record) -> tuple[bytes, int | None]:
    process: dict[str, Any] = record["process"]
    return b"\0".join(map(raw_bytes, process["argv"])), record.get("argv_total")


def lost(records: list[Record], action: str) -> int:
    """How many of an action are counted as lost."""
    return sum(sum(r["detail"]["lost"].get(action, {}).values()) for r in records if r["action"] == "loss")


def test_what_people_see_is_harmless(acted: Acted) -> None:
    lines = acted.people.removesuffix("\n").split("\n")
    assert [line for line in lines if not line.isprintable()] == []
    assert len(lines) >= len(acted.records)


def test_json_is_json_and_the_log_verifies(guarded: Guarded, acted: Acted) -> None:
    hostwarden = guarded.hostwarden
    out = hostwarden.command("--json", "events").stdout
    sequences = [json.loads(line)["sequence"] for line in out.removesuffix("\n").split("\n")]
    assert sequences == list(range(1, len(sequences) + 1))
    done = hostwarden.command("audit", "verify", str(hostwarden.state_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    guarded.assert_unchanged(hostwarden.sequence)
