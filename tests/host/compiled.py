"""The probes' C, compiled as the loader compiles it, with nothing loaded; and what may be asked of the code."""

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

from hostwarden.daemon.defines import defines
from hostwarden.probes import objects, source

WAIT_S = 300  # an emulated guest compiles for half a minute, and longer beside others
DUMP = Path(__file__).parent / "programs" / "dump.py"
INSTRUCTION = struct.Struct("<BBhi")
MOVE_NUMBER, ADD_NUMBER, CALL = 0xB7, 0x07, 0x85
LOADS = {0x61: 4, 0x69: 2, 0x71: 1, 0x79: 8}  # BPF_LDX | BPF_MEM: width in bytes


def flags(tier: str, tree: Path) -> dict[str, int]:
    """-D flags as the loader gives them for a tier; no map is made."""
    return objects.flags(tree, defines(64, 64), (tier, "cgroup"))


def compiled(text: str, flags: dict[str, int], functions: list[str], tree: Path) -> dict[str, bytes]:
    """Function → instructions. In a process of its own: bcc may call exit()."""
    job = json.dumps({"text": text, "flags": flags, "functions": functions})
    env = os.environ | {"BCC_KERNEL_SOURCE": str(tree)}
    done = subprocess.run(
        [sys.executable, DUMP], input=job, capture_output=True, text=True, timeout=WAIT_S, check=False, env=env
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {name: bytes.fromhex(code) for name, code in json.loads(done.stdout.splitlines()[-1]).items()}


class Questions:
    """C functions, and what they were compiled to."""

    def __init__(self) -> None:
        self.functions: dict[str, str] = {}
        self.code: dict[str, list[tuple[int, int, int, int]]] = {}

    def ask(self, name: str, body: str) -> None:
        """One more: ``at`` is an address of which the compiler knows nothing."""
        name = re.sub(r"\W", "_", name)
        self.functions[name] = f"u64 {name}(u64 *ctx) {{ u64 at = ctx[0]; OPAQUE(at); {body} }}"

    def compile(self, tree: Path) -> None:
        """All at once, with the hooks of the tiers that refuse."""
        text = source.text() + "\n".join(self.functions.values()) + "\n"
        for name, code in compiled(text, flags("lsm", tree), list(self.functions), tree).items():
            self.code[name] = list(INSTRUCTION.iter_unpack(code))

    def number(self, name: str) -> int:
        """What a function returns that returns a constant."""
        opcode, _, _, immediate = self.code[re.sub(r"\W", "_", name)][-2]
        assert opcode == MOVE_NUMBER, self.code[name]
        return immediate

    def loaded(self, name: str) -> tuple[int, int]:
        """Offset and width of the last load: from `at`, which was the first one."""
        code = self.code[re.sub(r"\W", "_", name)]
        loads = [place for place, one in enumerate(code) if one[0] in LOADS]
        assert len(loads) >= 2, code
        last = loads[-1]
        added = sum(one[3] for one in code[loads[0] : last] if one[0] == ADD_NUMBER)
        return code[last][2] + added, LOADS[code[last][0]]

    def read(self, name: str) -> int:
        """The offset that is added to the address which the helper is called with (its third argument)."""
        code = self.code[re.sub(r"\W", "_", name)]
        call = next(place for place, one in enumerate(code) if one[0] == CALL)
        return sum(one[3] for one in code[:call] if one[0] == ADD_NUMBER and one[1] & 0xF != 1 and one[3] >= 0)
