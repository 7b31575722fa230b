"""Compile with bcc as the loader does, load nothing: JSON in {text, flags, functions}, JSON out {function: hex}."""

import json
import sys

from bcc import BPF

job = json.load(sys.stdin)
module = BPF(text=job["text"], cflags=["-w", *(f"-D{name}={value}" for name, value in job["flags"].items())])
print(json.dumps({name: module.dump_func(name.encode()).hex() for name in job["functions"]}))
