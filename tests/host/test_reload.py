"""Policies change under load: what old and new both forbid is never allowed, and no action sees half of each."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from hostwarden.wire.client import HostClient, connect
from tests.host.attempts import Attempts, attempting
from tests.host.conftest import Hostwarden, Record

Program = Callable[[str], Path]
SWAPS = 50
NAMES = ("secret", "first", "second")


@pytest.fixture
def files(folder: Path) -> dict[str, Path]:
    """`secret` is denied by both sets, `first` and `second` by one each."""
    found = {name: folder / name for name in NAMES}
    for path in found.values():
        path.write_text("bytes")
    return found


def text(files: dict[str, Path], denied: str, allowed: str) -> str:
    return f"""policy: {denied}
for: {{team: test}}
rules:
  - deny: read
    path: [{files["secret"]}, {files[denied]}]
  - allow: read
    path: {files[allowed]}
"""


@pytest.fixture
def client(hostwarden: Hostwarden) -> Iterator[HostClient]:
    with connect(hostwarden.run_dir) as found:
        yield found


def swap(hostwarden: Hostwarden, files: dict[str, Path], turn: int) -> None:
    """The set that is the other; the files on the way are no set at all, and nobody may see that."""
    denied, allowed = ("first", "second") if turn % 2 else ("second", "first")
    (hostwarden.policy_dir / f"{allowed}.yaml").unlink(missing_ok=True)
    (hostwarden.policy_dir / f"{denied}.yaml").write_text(text(files, denied, allowed))


def reads(hostwarden: Hostwarden, agents: list[str], since: int) -> list[Record]:
    return [r for r in hostwarden.events(since, action="read") if r["agent"] in agents]


def test_fifty_swaps_under_load(
    hostwarden: Hostwarden, program: Program, folder: Path, files: dict[str, Path], client: HostClient
) -> None:
    swap(hostwarden, files, 0)
    hostwarden.reload()
    since, before = hostwarden.sequence, hostwarden.status()["generation"]
    agents = [f"{name}-{os.getpid()}" for name in NAMES]
    counters = {name: folder / f"{name}-counters" for name in NAMES}
    with ExitStack() as stack:
        target, file = files["secret"], counters["secret"]
        secret = stack.enter_context(
            attempting(hostwarden, program, "read", target, file, agent=agents[0], period_s=0.001)
        )
        for name, agent in zip(NAMES[1:], agents[1:], strict=True):
            argv = [str(program("attempt")), "read", str(files[name]), str(counters[name]), "5000"]
            other = Attempts(counters[name])
            stack.enter_context(hostwarden.spawn_agent(argv, agent=agent))  # it waits for the program's end
            stack.callback(other.stop)
        for turn in range(1, SWAPS + 1):
            swap(hostwarden, files, turn)
            if turn % 10:
                client.reload()
            else:
                hang_up(hostwarden, client)
        secret.go_on(100)
        assert secret.tries > 10 * SWAPS
    assert hostwarden.status()["generation"] >= before + SWAPS
    hostwarden.wait_until(lambda: lost_or_recorded(hostwarden, agents[0], files["secret"], since) >= secret.tries)
    check_no_half_policy(reads(hostwarden, agents, since), files)


def hang_up(hostwarden: Hostwarden, client: HostClient) -> None:
    """The other door to a reload."""
    before = orjson.loads(client.status().json)["generation"]
    assert hostwarden.process
    hostwarden.process.send_signal(signal.SIGHUP)
    hostwarden.wait_until(lambda: bool(orjson.loads(client.status().json)["generation"] > before))


def lost_or_recorded(hostwarden: Hostwarden, agent: str, target: Path, since: int) -> int:
    records = hostwarden.events(since, agent=agent)
    lost: int = sum(record["lost"] for record in records if record["action"] == "loss")
    recorded: int = sum(record["target"] == str(target) for record in records)
    return lost + recorded


def check_no_half_policy(records: list[Record], files: dict[str, Path]) -> None:
    """Every read was decided by exactly one of the two sets, by its own rule, as that set says."""
    seen = set()
    for record in records:
        name = next((name for name, path in files.items() if record["target"] == str(path)), None)
        if name is None:
            continue
        seen.add((name, record["policy"]))
        denied = name in ("secret", record["policy"])
        assert record["policy"] in ("first", "second"), str(record)
        assert record["verdict"] == ("deny" if denied else "allow"), record
        assert record["rule"] == f"{record['policy']}.yaml:{4 if denied else 6}", record
        assert record["outcome"] == ("killed_before_effect" if denied else "observed"), record
    assert seen == {(name, policy) for name in NAMES for policy in ("first", "second")}


def test_bad_set_among_good_ones_changes_nothing(
    hostwarden: Hostwarden, program: Program, folder: Path, files: dict[str, Path], client: HostClient
) -> None:
    """A hundred signals in a row, half of them for files that are broken just then: only whole sets are in force."""
    swap(hostwarden, files, 0)
    hostwarden.reload()
    agent = f"steady-{os.getpid()}"
    with attempting(hostwarden, program, "read", files["secret"], folder / "counters", agent=agent) as attempts:
        broken = hostwarden.policy_dir / "broken.yaml"
        assert hostwarden.process
        for turn in range(100):
            broken.write_text("policy: [")
            hostwarden.process.send_signal(signal.SIGHUP)
            attempts.go_on(1)
            broken.unlink()
            swap(hostwarden, files, turn)
            hostwarden.process.send_signal(signal.SIGHUP)
        hostwarden.reload()
        assert hostwarden.process.poll() is None


def test_marks_of_a_reload_in_the_log(hostwarden: Hostwarden, files: dict[str, Path]) -> None:
    """The record of a change has names, digests and the generation; one that was asked for has who asked."""
    since = hostwarden.sequence
    swap(hostwarden, files, 1)
    with connect(hostwarden.run_dir) as client:
        reply = client.reload()
    record = hostwarden.wait_for(since, action="policy")[0]
    assert record["detail"]["generation"] == reply.generation
    assert [policy["name"] for policy in record["detail"]["policies"]] == ["first"]
    assert len(record["detail"]["policies"][0]["digest"]) == 64
    assert (record["role"], record["process"]["pid"], record["process"]["uid"]) == ("admin", os.getpid(), 0)
