"""The agent's loop against the scripted model: what tools do, and how their failures come back."""

import pytest

from tests.demo.model import AgentLost, ScriptedModel, ToolCall, ToolResult
from tests.demo.stage import Stage


@pytest.mark.parametrize(
    ("tool", "arguments", "result"),
    [
        ("shell", {"command": "echo hello; exit 3"}, ToolResult(3, "hello\n")),
        ("shell", {"command": "kill -9 $$"}, ToolResult(-9, "")),
        ("shell", {"command": "echo to stderr >&2"}, ToolResult(0, "to stderr\n")),
        ("shell", {"command": "printf '\\377'"}, ToolResult(0, "\ufffd")),
        ("read_file", {"path": "rounding.py"}, ToolResult(0, "def cents(amount):\n    return amount * 100\n")),
        ("read_file", {"path": "nothing"}, ToolResult(1, "[Errno 2] No such file or directory: 'nothing'")),
        ("http_post", {"address": "127.0.0.1:1", "resource": "/", "file": "ticket.txt"}, ToolResult(1, "refused")),
        ("fly", {}, ToolResult(2, "no tool fly\n")),
    ],
)
def test_tool(unguarded: Stage, tool: str, arguments: dict[str, str], result: ToolResult) -> None:
    got = unguarded.model.turn(ToolCall("", tool, arguments))
    assert got.exit == result.exit
    assert got.output == result.output or (result.exit == 1 and result.output in got.output)


def test_tool_writes_where_it_is_told(unguarded: Stage) -> None:
    unguarded.model.turn(ToolCall("", "write_file", {"path": "new", "text": "two\nlines\n"}))
    assert (unguarded.world.workspace / "new").read_text() == "two\nlines\n"


def test_model_hears_the_whole_conversation(unguarded: Stage) -> None:
    unguarded.model.turn(ToolCall("Say it.", "shell", {"command": "echo first"}))
    unguarded.model.turn(ToolCall("Again.", "shell", {"command": "echo second"}))
    for text in (b"You are a billing agent", b"Say it.", b"first", b"second", b'"tools"'):
        assert text in unguarded.model.heard


def test_agent_that_never_asks_is_lost() -> None:
    with ScriptedModel() as model, pytest.raises(AgentLost):
        model.wait_for_agent(0.05)
