"""`run`: a command becomes an agent before its first instruction.

The child is made first, while this process has no threads and no gRPC, and waits at a pipe. The daemon is asked to bind
it; then one byte lets it exec. If this process dies before that, the child sees the pipe's end and ends: what isn't
bound never runs. Afterwards nothing depends on the daemon, or needs it.

Signals: child and parent are in one process group, so what the terminal sends (^C, a hang-up, its size) reaches the
child anyway, and is not passed on; what somebody sends to this process alone is. That is told by who sent it, which
only sigwaitinfo(2) says: so signals are blocked and waited for, and the call to the daemon has a thread of its own.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Never

import typer

from hostwarden.cli.door import host
from hostwarden.cli.errors import CliError
from hostwarden.cli.options import Globals, Json, Labels, agent_labels, globals_of
from hostwarden.cli.output import clean

PASSED_ON = frozenset(
    {
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGWINCH,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)
_WATCHED = PASSED_ON | {signal.SIGCHLD}
_PYTHONS = (signal.SIGINT, signal.SIGXFSZ)  # what Python changed for itself at its start, and exec wouldn't undo
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as shells have it
_GO = b"g"

Bind = Callable[[int, int], None]  # pid and start time of the child, in clock ticks


def run(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="CMD", help="The command and its arguments, after `--`.")],
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="The agent's name.")],
    label: Labels = None,
    json: Json = False,
) -> int:
    """Run a command as an agent: run --agent NAME -- CMD...

    The policies for its labels bind it before its first instruction. Prints nothing of its own and exits with the
    command's code: 128 + N if signal N ended it, 127 if it isn't found, 126 if it can't be run.
    """
    options, labels = globals_of(context, json), agent_labels(label)
    if not command[0]:
        raise typer.BadParameter("an empty name", param_hint="CMD")
    return run_bound(command, lambda pid, ticks: _bind(options, agent, labels, pid, ticks))


def _bind(options: Globals, agent: str, labels: dict[str, str], pid: int, start_ticks: int) -> None:
    with host(options, "Bind") as client:
        client.bind(agent, labels, pid, start_ticks)


def run_bound(command: list[str], bind: Bind) -> int:
    """Runs ``command`` in a child that ``bind`` was called for. Returns its exit code; raises what ``bind`` raised.

    Must be called while the process has one thread.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would leave no exit code to wait for
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    gate = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(gate[1])
        _child(gate[0], command, mask)
    bound = _in_thread(bind, pid)
    try:
        code = _attend(pid, gate[1], bound)
    finally:
        # Both ends only now: writing to a child that is gone must not be a SIGPIPE of ours.
        for end in gate:
            os.close(end)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if not bound.done():
        os._exit(code)  # the command was ended before the daemon answered, and nobody wants that answer any more
    return code


def _child(gate: int, command: list[str], mask: Iterable[int]) -> Never:
    """Waits for the byte, then execs. From then on it is an agent: it must not touch a file before its exec."""
    code = _NOT_EXECUTABLE
    try:
        for number in _PYTHONS:
            # SIGINT may have been ignored before Python was started (nohup, `&` in a script): then it stays so.
            if number is not signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if os.read(gate, 1) == _GO:
            os.execvp(command[0], command)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        is_missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        code = _NOT_FOUND if is_missing else _NOT_EXECUTABLE
        what = "not found" if is_missing else (error.strerror or "can't be run").lower()
        os.write(2, f"hostwarden: {clean(command[0])}: {what}\n".encode())
    finally:
        os._exit(code)


def _in_thread(bind: Bind, pid: int) -> Future[None]:
    """Calls ``bind`` beside the main thread, and wakes that with a SIGCHLD when it has the answer."""
    bound: Future[None] = Future()
    main_thread = threading.get_ident()

    def work() -> None:
        try:
            bind(pid, start_ticks(pid))
            bound.set_result(None)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the main thread
            bound.set_exception(error)
        signal.pthread_kill(main_thread, signal.SIGCHLD)

    threading.Thread(target=work, name="bind", daemon=True).start()
    return bound


def _attend(pid: int, gate: int, bound: Future[None]) -> int:
    """Opens the gate when the child is bound, passes signals on, returns the child's exit code."""
    is_open = False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if bound.done() and not is_open:
            _end_unbound(pid, bound)
            os.write(gate, _GO)
            is_open = True
        info = signal.sigwaitinfo(_WATCHED)
        if info.si_signo != signal.SIGCHLD and _is_for_us_alone(info, pid):
            os.kill(pid, info.si_signo)


def _end_unbound(pid: int, bound: Future[None]) -> None:
    """If the daemon said no: nothing ran, and nothing is left. Raises why."""
    error = bound.exception()
    if error is not None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise error


def _is_for_us_alone(info: signal.struct_siginfo, child: int) -> bool:
    """Whether the child hasn't got this signal itself.

    ``si_code`` above 0 is the kernel's, here the terminal's, which sends to the whole foreground group; a signal from
    the child is for its group (`kill 0`), and it had it first.
    """
    return info.si_code <= 0 and info.si_pid != child


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot: field 22 of /proc/PID/stat, proc(5). Raises CliError."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError as error:
        raise CliError(f"/proc/{pid}/stat: {(error.strerror or 'unreadable').lower()}", "is /proc mounted?") from None
    return int(text.rpartition(")")[2].split()[19])  # field 2 is the name, which may hold spaces and brackets
