"""The model of the demo: a real chat completions server on loopback whose replies are scripted.

The script is handed over turn by turn: ``turn`` gives the agent one tool call and waits for its result, so that the
world can be looked at between two turns.
"""

import json
import queue
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_S = 60
MAX_BODY = 1 << 24


class AgentLost(Exception):
    """The agent didn't come back with a result."""


@dataclass(frozen=True)
class ToolCall:
    """What the model says, and what it wants done."""

    says: str
    tool: str
    arguments: dict[str, str]


@dataclass(frozen=True)
class ToolResult:
    """What came back: ``exit`` is negative for a signal, None if the tool could not be started or took too long."""

    exit: int | None
    output: str


class ScriptedModel:
    """Use as a context manager; ``address`` is host:port."""

    def __init__(self) -> None:
        self._replies: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._requests: queue.Queue[list[dict[str, Any]]] = queue.Queue()
        self._n_calls = 0
        self.heard = b""  # all that the agent ever sent here: the latest request holds the whole conversation
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "ScriptedModel":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="model", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._replies.put(None)  # whoever still waits for a reply gets an error
        self._server.shutdown()
        self._server.server_close()

    def wait_for_agent(self, patience_s: float = PATIENCE_S) -> list[dict[str, Any]]:
        """The messages of the agent's next request. Raises AgentLost."""
        try:
            return self._requests.get(timeout=patience_s)
        except queue.Empty:
            raise AgentLost("the agent didn't ask the model for its next step") from None

    def turn(self, call: ToolCall, patience_s: float = PATIENCE_S) -> ToolResult:
        """Reply to the agent's waiting request with ``call``; what the tool did. Raises AgentLost."""
        self._n_calls += 1
        function = {"name": call.tool, "arguments": json.dumps(call.arguments)}
        tool_call = {"id": f"call_{self._n_calls}", "type": "function", "function": function}
        self._replies.put({"role": "assistant", "content": call.says, "tool_calls": [tool_call]})
        last = self.wait_for_agent(patience_s)[-1]
        if last.get("tool_call_id") != tool_call["id"]:
            raise AgentLost("the agent answered with something else than the tool's result")
        result = json.loads(last["content"])
        return ToolResult(result["exit"], result["output"])

    def finish(self, says: str) -> None:
        """Reply that all is done: the agent ends."""
        self._replies.put({"role": "assistant", "content": says})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), MAX_BODY))
                model.heard = body
                model._requests.put(json.loads(body)["messages"])
                reply = model._replies.get()
                if reply is None:  # the end: nobody waits for an answer any more
                    return
                reason = "tool_calls" if "tool_calls" in reply else "stop"
                choice = {"index": 0, "message": reply, "finish_reason": reason}
                answer = json.dumps({"object": "chat.completion", "choices": [choice]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Nothing: the demo prints its own screen."""

        return Handler
