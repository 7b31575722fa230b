"""How an argument vector becomes the one line that argv globs match."""

from collections.abc import Sequence


def join_argv(argv: Sequence[bytes]) -> bytes:
    r"""The arguments joined by a space; inside an argument ``\`` becomes ``\\`` and a space ``\ ``.

    So ``["rm", "-rf", "/"]`` and ``["rm -rf /"]`` stay apart, and every line has exactly one argv (but for an argv
    without arguments, which joins like one empty argument). The probes join the same way.
    """
    return b" ".join(argument.replace(b"\\", b"\\\\").replace(b" ", b"\\ ") for argument in argv)
