"""A small but whole AI agent: asks a model what to do, does it with its tools, reports, until the model is done.

    agent.py MODEL_HOST:PORT WORKSPACE      the loop
    agent.py tool NAME ARGUMENTS            one tool call, in a process of its own (the loop starts these)

Standard library only, and nothing of hostwarden: it is what a policy binds, and it knows nothing of policies. A tool
that is killed or refused is a result like any other, so the loop goes on, as real harnesses do.
"""

import http.client
import json
import os
import subprocess
import sys
from typing import Any

COMPLETIONS = "/v1/chat/completions"  # the path of the common chat API
MODEL_PATIENCE_S = 300
TOOL_PATIENCE_S = 30
MAX_OUTPUT = 16_000  # characters of a tool's output that go to the model
INSTRUCTIONS = "You are a billing agent. Work in the current folder with the tools you have."


def _parameters(**kinds: str) -> dict[str, Any]:
    properties = {name: {"type": "string", "description": text} for name, text in kinds.items()}
    return {"type": "object", "properties": properties, "required": list(kinds)}


# What the model is told about the tools.
TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "shell": ("run a shell command", _parameters(command="the command")),
    "read_file": ("read a text file", _parameters(path="its path")),
    "write_file": ("write a text file", _parameters(path="its path", text="its new content")),
    "http_post": ("send a file to a server", _parameters(address="host:port", resource="/path", file="its path")),
}


def main() -> int:
    """The program."""
    if sys.argv[1] == "tool":
        return run_tool(sys.argv[2], json.loads(sys.argv[3]))
    address, workspace = sys.argv[1:3]
    os.chdir(workspace)
    converse(address)
    return 0


def converse(address: str) -> None:
    """Ask the model at ``address`` (host:port), do what it says, tell it, until it calls no more tools."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": INSTRUCTIONS}]
    while True:
        reply = ask(address, messages)
        messages.append(reply)
        calls = reply.get("tool_calls") or []
        if not calls:
            return
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": do(call["function"])} for call in calls]


def ask(address: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The model's next message."""
    tools = [
        {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}
        for name, (text, parameters) in TOOLS.items()
    ]
    body = json.dumps({"model": "scripted", "messages": messages, "tools": tools})
    connection = http.client.HTTPConnection(address, timeout=MODEL_PATIENCE_S)
    try:
        connection.request("POST", COMPLETIONS, body, {"Content-Type": "application/json"})
        reply: dict[str, Any] = json.load(connection.getresponse())["choices"][0]["message"]
        return reply
    finally:
        connection.close()


def do(function: dict[str, str]) -> str:
    """Run one tool call; what the model is told: exit code (negative: the signal that ended it) and output."""
    command = [sys.executable, "-I", "-S", os.path.abspath(__file__), "tool", function["name"], function["arguments"]]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TOOL_PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return json.dumps({"exit": None, "output": str(error)})
    return json.dumps({"exit": done.returncode, "output": done.stdout.decode(errors="replace")[:MAX_OUTPUT]})


def run_tool(name: str, arguments: dict[str, str]) -> int:
    """The tool itself: prints its result, returns its exit code."""
    try:
        if name == "shell":
            os.execv("/bin/sh", ["sh", "-c", arguments["command"]])
        elif name == "read_file":
            with open(arguments["path"]) as file:
                print(file.read(), end="")
        elif name == "write_file":
            with open(arguments["path"], "w") as file:
                file.write(arguments["text"])
        elif name == "http_post":
            print(post(arguments["address"], arguments["resource"], arguments["file"]))
        else:
            print(f"no tool {name}")
            return 2
    except OSError as error:
        print(f"{name}: {error}")
        return 1
    return 0


def post(address: str, resource: str, path: str) -> str:
    """Send the file at ``path``; the server's status line."""
    with open(path, "rb") as file:
        body = file.read()
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("POST", resource, body)
        reply = connection.getresponse()
        return f"{reply.status} {reply.reason}"
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
