"""Generates the protobuf and gRPC code beside ``hostwarden.proto``: ``python -m hostwarden.wire.generate [--check]``.

The code is committed, so that an installed hostwarden needs no compiler; ``--check`` (and a test) regenerates it in
memory and compares, so that what is committed is never behind the contract. Needs grpcio-tools.
"""

import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]  # the source root, so that the code imports `hostwarden.wire.hostwarden_pb2`
PROTO = FOLDER / "hostwarden.proto"
GENERATED = ("hostwarden_pb2.py", "hostwarden_pb2.pyi", "hostwarden_pb2_grpc.py")


def generate() -> dict[str, str]:
    """The generated files, name to text. Raises RuntimeError if protoc refuses the contract."""
    from grpc_tools import protoc  # type: ignore[import-untyped]  # a developer's tool: not there, and not needed, on a host

    with tempfile.TemporaryDirectory() as out:
        status = protoc.main(
            ["protoc", f"-I{ROOT}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}", str(PROTO)]
        )
        if status != 0:
            raise RuntimeError(f"{PROTO}: protoc failed with status {status}")
        folder = Path(out) / FOLDER.relative_to(ROOT)
        return {name: (folder / name).read_text() for name in GENERATED}


def stale() -> list[str]:
    """Names of the generated files that differ from what the contract gives."""
    return [name for name, text in generate().items() if _read(FOLDER / name) != text]


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def main() -> int:
    """Exit code 0; with ``--check`` 1 if a file is stale."""
    if "--check" in sys.argv[1:]:
        names = stale()
        for name in names:
            print(
                f"{FOLDER / name}: differs from {PROTO.name}; run python -m hostwarden.wire.generate", file=sys.stderr
            )
        return 1 if names else 0
    for name, text in generate().items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
