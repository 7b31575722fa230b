"""The demo's screen: 80 columns, no colours into a pipe, and nothing from a record that could steer a terminal."""

import pytest

from tests.demo.screen import Screen


def test_at_most_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.title("A scene")
    screen.text("word " * 100)
    screen.line("attempt", "a-long/path" * 30)
    screen.fact("short " * 40, False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80
    assert lines[-1].endswith("[NOT SO]")


def test_nothing_but_printable_ascii_into_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.line("verdict", "deny read \033[2Jkey\r\x07 \x9b31m naïve", "yellow")
    out = capsys.readouterr().out
    assert all(char == "\n" or (char.isascii() and char.isprintable()) for char in out)
    assert "key" in out
