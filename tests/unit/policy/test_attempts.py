"""Attempts as people write them."""

import pytest

from hostwarden.policy.attempts import parse_attempt, parse_content
from hostwarden.policy.explain import target
from hostwarden.policy.oracle import Attempt
from hostwarden.policy.words import POLICY_ACTIONS, Action

TARGETS = {
    Action.CONNECT: ("10.0.0.1:443", "[fd00::1]:1", "unix:/run/x.sock", "unix:@x"),
    Action.SEND: ("10.0.0.1:443", "unix:/run/x.sock"),
    Action.LISTEN: ("0.0.0.0:80", "unix:@x"),
    Action.NAMESPACE: ("user", "user,mnt"),
    Action.PTRACE: ("pid:1",),
    Action.SIGNAL: ("pid:4000000",),
}


@pytest.mark.parametrize("action", POLICY_ACTIONS)
def test_every_target_is_shown_as_it_is_read(action: Action) -> None:
    for text in TARGETS.get(action, ("/", "/etc/passwd", "/a b")):
        found = parse_attempt(action, text, 7)
        assert (found.action, found.uid, target(found)) == (action, 7, text)


def test_an_exec_has_its_path_as_argv() -> None:
    assert parse_attempt(Action.EXEC, "/a", 0) == Attempt(Action.EXEC, path=b"/a", argv=(b"/a",))


@pytest.mark.parametrize(
    ("action", "text", "message"),
    [
        (Action.READ, "a", "expected an absolute one"),
        (Action.MOUNT, "/a/", "expected an absolute one"),
        (Action.CONNECT, "/a", "no port"),
        (Action.LISTEN, "10.0.0.0/8:1", "expected one address and one port"),
        (Action.SEND, "unix:a", "expected unix: and a resolved path"),
        (Action.SIGNAL, "1", "expected pid:N"),
        (Action.PTRACE, "pid:0", "expected pid:N"),
        (Action.NAMESPACE, "root", "expected some of cgroup, ipc"),
        (Action.NAMESPACE, "", "expected some of cgroup, ipc"),
    ],
)
def test_what_is_no_target(action: Action, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_attempt(action, text, 0)


def test_contents() -> None:
    assert parse_content("0A" * 32) == b"\x0a" * 32
    for text in ("", "0a", "0a" * 33, "zz" * 32, "0a" * 31 + "0\n"):
        with pytest.raises(ValueError, match="expected 64 hex digits"):
            parse_content(text)
