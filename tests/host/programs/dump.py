"""Compile with bcc as the loader does, load nothing: JSON in {text, flags, functions}, JSON out {function: hex}, of
those that there are.
"""

import json
import sys

from bcc import BPF

job = json.load(sys.stdin)
module = BPF(text=job["text"], cflags=["-w", *(f"-D{name}={value}" for name, value in job["flags"].items())])
found = {}
for name in job["functions"]:
    try:
        found[name] = module.dump_func(name.encode()).hex()
    except Exception:  # bcc raises no other when it has no such function
        continue
print(json.dumps(found))
