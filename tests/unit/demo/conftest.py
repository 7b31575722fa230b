"""The demo's stage without a warden: the same agent, model and world, with nothing to stop the harm."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo import main
from tests.demo.model import ScriptedModel
from tests.demo.screen import Screen
from tests.demo.stage import Stage
from tests.demo.warden import pids_below
from tests.demo.world import PAYMENTS_HOST, STRANGER_HOST, Listener, World

AGENT = Path(main.__file__).with_name("agent.py")


@pytest.fixture
def unguarded(tmp_path: Path) -> Iterator[Stage]:
    """A stage whose agent is waiting for the model's first reply; whatever it leaves is ended afterwards."""
    world = World(tmp_path)
    world.make()
    with ScriptedModel() as model, Listener(PAYMENTS_HOST) as payments, Listener(STRANGER_HOST) as stranger:
        command = [sys.executable, "-I", str(AGENT), model.address, str(world.workspace)]
        agent = subprocess.Popen(command, cwd=world.workspace, env=world.environment, stdin=subprocess.DEVNULL)
        try:
            model.wait_for_agent()
            yield Stage(Screen(), model, world, payments, stranger)
            model.finish("Done.")
            assert agent.wait(10) == 0
        finally:
            agent.kill()
            agent.wait()
            for pid in pids_below(world.workspace):
                os.kill(pid, signal.SIGKILL)
