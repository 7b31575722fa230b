"""Which tier stays: the kernel's half is a folder of names here, loaded and proven as each row says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from hostwarden.daemon import attach as module
from hostwarden.daemon import tiers
from hostwarden.daemon.attach import NOTE, Attached, AttachError, Job, Note, attach
from hostwarden.daemon.proofs import Proof
from hostwarden.policy.words import Action, Tier
from hostwarden.probes import pins, source
from hostwarden.probes.pins import Kernel

ALL = tuple(tier for tier in Tier if tier is not Tier.NONE)


class Host:
    """What a kernel makes of each tier: "none" (not worth a try), "load" (refused), "dead" (attached, never called),
    "half" (some is proven), "raise" (the proof fails), "good".
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, **kinds: str) -> None:
        self.kinds = {Tier[name.upper()]: kind for name, kind in kinds.items()}
        self.bpffs, self.state_dir = root / "bpf", root / "state"
        self.bpffs.mkdir()
        self.state_dir.mkdir()
        self.loaded: list[Tier] = []
        self.locked = 0
        monkeypatch.setattr(tiers, "why_not", lambda tier: "not here" if self.kind(tier) == "none" else None)
        monkeypatch.setattr(module, "_load", self.load)
        monkeypatch.setattr(module, "_open", lambda job, choice: cast(Kernel, self))
        monkeypatch.setattr(pins, "mount_bpffs", lambda path: None)
        monkeypatch.setattr(pins, "is_empty", lambda path: not any(path.iterdir()))
        monkeypatch.setattr(pins, "is_complete", lambda path, names: len(list(path.iterdir())) > 1)
        monkeypatch.setattr(pins, "clear", self.clear)

    def kind(self, tier: Tier) -> str:
        return self.kinds.get(tier, "none")

    def load(self, job: Job, choice: tiers.Choice) -> None:
        self.loaded.append(choice.first)
        if self.kind(choice.first) == "load":
            raise AttachError("the kernel refused the program x", "look")
        for name in ("link", "map"):
            (self.bpffs / name).touch()

    def clear(self, path: Path) -> None:
        for pin in path.iterdir():
            pin.unlink()

    def close(self) -> None:
        """As a Kernel has it."""

    def prove(self, kernel: Kernel, first: Tier) -> list[Proof]:
        kind = self.kind(first)
        if kind == "raise":
            raise KeyError(first)
        proven = {"good": (True, True), "half": (True, False), "dead": (False, False)}[kind]
        own = [Proof(action, first, ok, "seen", str(action)) for action, ok in zip(Action, proven, strict=False)]
        return [*own, Proof(Action.CONNECT, Tier.CGROUP, True, "seen", "connect")]

    def attach(self, allowed: tuple[Tier, ...] = ALL, **defines: int) -> Attached:
        def lock() -> None:
            self.locked += 1

        job = Job(self.bpffs, Path("/cgroup"), Path("/cache"), self.state_dir, defines, allowed)
        return attach(job, lock, self.prove)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Host]:
    return lambda **kinds: Host(tmp_path, monkeypatch, **kinds)


@pytest.mark.parametrize(
    ("kinds", "first", "declined"),
    [
        ({"lsm": "good", "modify_return": "good", "signal": "good"}, Tier.LSM, {}),
        ({"modify_return": "good", "signal": "good"}, Tier.MODIFY_RETURN, {Tier.LSM: "not here"}),
        # what attaches, and is never called, isn't there
        ({"lsm": "dead", "modify_return": "good"}, Tier.MODIFY_RETURN, {Tier.LSM: "attach, but aren't called"}),
        # what is refused isn't either
        ({"lsm": "load", "signal": "good"}, Tier.SIGNAL, {Tier.LSM: "refused the program x"}),
        # what keeps a part of its promises is: nothing weaker may hide that something is missing
        ({"lsm": "half", "signal": "good"}, Tier.LSM, {}),
        # the last stays, so that the daemon can say what is wrong
        ({"signal": "dead"}, Tier.SIGNAL, {Tier.LSM: "not here", Tier.MODIFY_RETURN: "not here"}),
    ],
)
def test_the_first_that_is_proven_stays(
    host: Callable[..., Host], kinds: dict[str, str], first: Tier, declined: dict[Tier, str]
) -> None:
    made = host(**kinds)
    attached = made.attach()
    assert (attached.choice.first, attached.adopted, made.loaded[-1]) == (first, False, first)
    for tier, why in declined.items():
        assert why in attached.choice.declined[tier]
    again = made.attach()
    assert (again.choice, again.adopted, list(again.proofs)) == (attached.choice, True, [])
    assert made.locked == 2


def test_no_tier_at_all(host: Callable[..., Host]) -> None:
    with pytest.raises(AttachError, match=r"signal: daemon\.tiers leaves it out; lsm: not here"):
        host().attach((Tier.LSM, Tier.CGROUP))


def test_the_loaders_own_words_are_the_error(host: Callable[..., Host]) -> None:
    with pytest.raises(AttachError, match=r"\Athe kernel refused the program x\Z") as caught:
        host(signal="load").attach()
    assert caught.value.hint == "look"


def test_what_a_failed_proof_leaves_is_taken_away(host: Callable[..., Host]) -> None:
    made = host(signal="raise")
    with pytest.raises(KeyError):
        made.attach()
    assert list(made.bpffs.iterdir()) == []


def test_what_a_daemon_left_that_died_while_it_tried_is_no_protection(host: Callable[..., Host]) -> None:
    made = host(signal="good")
    Note(source.digest({}), Tier.LSM, proven=False).write(made.state_dir / NOTE)
    (made.bpffs / "link").touch()
    attached = made.attach()
    assert (attached.adopted, attached.choice.first) == (False, Tier.SIGNAL)


def other_version(made: Host) -> Any:
    return lambda: made.attach(N_ACTIONS=7)


def other_tiers(made: Host) -> Any:
    return lambda: made.attach((Tier.LSM, Tier.CGROUP))


def without_note(made: Host) -> Any:
    (made.state_dir / NOTE).unlink()
    return made.attach


def with_an_old_note(made: Host) -> Any:
    (made.state_dir / NOTE).write_text("0123456789abcdef\n")
    return made.attach


def without_a_pin(made: Host) -> Any:
    (made.bpffs / "map").unlink()
    return made.attach


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_version, "another version or configuration"),
        (without_note, "another version or configuration"),
        (with_an_old_note, "another version or configuration"),
        (other_tiers, "the tier signal, which daemon.tiers leaves out"),
        (without_a_pin, "only a part of our pins"),
    ],
)
def test_what_is_not_adopted_stays_as_it_is(
    host: Callable[..., Host], change: Callable[[Host], Callable[[], Attached]], says: str
) -> None:
    made = host(signal="good")
    made.attach()
    try_again = change(made)
    before = sorted(made.bpffs.iterdir())
    with pytest.raises(AttachError, match=says) as caught:
        try_again()
    assert "--off" in caught.value.hint
    assert sorted(made.bpffs.iterdir()) == before


def test_a_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    note = Note("abc", Tier.SIGNAL, {Tier.LSM: "why"}, proven=False)
    note.write(tmp_path / NOTE)
    assert Note.read(tmp_path / NOTE) == note
    assert json.loads((tmp_path / NOTE).read_text())["declined"] == {"lsm": "why"}
    (tmp_path / NOTE).write_text("[]")
    assert Note.read(tmp_path / NOTE) is None
