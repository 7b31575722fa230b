"""hostwarden-collector: ``hostwarden-collector [--config FILE]``.

Exit codes: 0 stopped by a signal, 1 it can't run (socket in use, store can't be opened), 2 invalid configuration.
"""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

from hostwarden.collector import config
from hostwarden.collector.config import ConfigError, Settings
from hostwarden.collector.server import CollectorServer
from hostwarden.collector.service import CollectorService
from hostwarden.collector.store import Store, StoreError
from hostwarden.wire.errors import SocketInUse, SocketProblem
from hostwarden.wire.notify import sd_notify

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
log = logging.getLogger("hostwarden.collector")


def main() -> int:
    """The program."""
    arguments = _arguments()
    _log_to_stderr()
    # Blocked before any thread is made, so that all of them inherit it and only sigwait below takes these.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        run(config.load(arguments.config))
    except ConfigError as error:
        print("\n".join(error.lines), file=sys.stderr)
        return 2
    except (StoreError, SocketInUse, SocketProblem) as error:
        print(f"hostwarden-collector: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: Settings) -> None:
    """Serves until a signal. Raises StoreError, SocketInUse, SocketProblem."""
    store = Store(settings.database)
    try:
        server = CollectorServer(settings.socket, settings.group, CollectorService(store))
        server.start()
        try:
            log.info("listening on %s, storing in %s", settings.socket, settings.database)
            sd_notify("READY=1")
            log.info("stopping on %s", signal.Signals(signal.sigwait(STOP_SIGNALS)).name)
            sd_notify("STOPPING=1")
        finally:
            server.stop()
    finally:
        store.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("hostwarden-collector", description="receives, proves and serves hosts' records")
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help=f"TOML (default: {config.DEFAULT_FILE} if it exists, else defaults)"
    )
    return parser.parse_args()


def _log_to_stderr() -> None:
    # journald stamps lines itself; a person at a terminal wants the time.
    under_journal = "JOURNAL_STREAM" in os.environ
    form = "%(levelname)s %(message)s" if under_journal else "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
