"""Random histories of append, sync, crash and restart: what was synced is never lost, and every log verifies."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hostwarden.records.key import load_or_create
from hostwarden.records.reader import last_lines, read_lines
from hostwarden.records.verify import verify
from hostwarden.records.writer import LogWriter


class LogMachine(RuleBasedStateMachine):
    """A host whose disk is copied at each crash, with what wasn't synced cut or spoiled."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp())
        self.disks = 0
        self.clock = 0.0
        self.written: list[bytes] = []
        self.writers: list[LogWriter] = []

    @initialize(segment_bytes=st.sampled_from([300, 2000, 1 << 20]))
    def start(self, segment_bytes: int) -> None:
        self.segment_bytes = segment_bytes
        self.state_dir = self.base / "0"
        self.state_dir.mkdir()
        self.key = load_or_create(self.state_dir)
        self.open()

    def open(self) -> None:
        self.writer = LogWriter(self.state_dir, self.key, segment_bytes=self.segment_bytes)
        self.writers.append(self.writer)
        self.recovery = self.writer.open()
        self.remember()

    def remember(self) -> None:
        """What is on disk for sure."""
        self.safe = {path.name: path.stat().st_size for path in (self.state_dir / "log").glob("*.seg")}

    @rule(n=st.integers(1, 5), size=st.integers(0, 200))
    def append(self, n: int, size: int) -> None:
        segments = len(list((self.state_dir / "log").glob("*.seg")))
        first, lines = self.writer.append([b'{"x":"%s"}' % (b"y" * size)] * n)
        assert first == len(self.written) + 1
        self.written += lines
        if len(list((self.state_dir / "log").glob("*.seg"))) != segments:  # a rotation syncs what was before it
            newest = sorted((self.state_dir / "log").glob("*.seg"))[-1]
            self.remember()
            self.safe[newest.name] = newest.read_bytes().index(b"\n") + 1

    @rule(seconds=st.floats(0, 1))
    def sync(self, seconds: float) -> None:
        self.clock += seconds
        assert self.writer.sync(self.clock) == len(self.written)
        self.remember()

    @rule(seconds=st.floats(0, 1))
    def tick(self, seconds: float) -> None:
        self.clock += seconds
        self.writer.tick(self.clock)
        self.remember()

    @rule()
    def restart(self) -> None:
        self.writer.close()
        self.open()
        assert not self.recovery
        assert self.writer.last_sequence == self.writer.signed_sequence == len(self.written)

    @rule(kept=st.floats(0, 1), noise=st.binary(max_size=20), zeros=st.booleans())
    def crash(self, kept: float, noise: bytes, zeros: bool) -> None:
        """Of what wasn't synced a part is there; behind it may stand noise, or zeros up to the old length."""
        synced = self.writer.synced_sequence
        self.disks += 1
        disk = self.base / str(self.disks)
        shutil.copytree(self.state_dir, disk)
        for path in (disk / "log").glob("*.seg"):
            data, safe = path.read_bytes(), self.safe[path.name]
            length = safe + int((len(data) - safe) * kept)
            if length < len(data):
                path.write_bytes(data[:length] + noise + bytes((len(data) - length) if zeros else 0))
        self.state_dir = disk
        self.open()
        assert synced <= self.writer.last_sequence <= len(self.written)
        assert self.recovery.signed_lost == 0
        del self.written[self.writer.last_sequence :]

    @invariant()
    def log_is_what_was_written(self) -> None:
        if not hasattr(self, "writer"):
            return
        assert [line for _, line in read_lines(self.state_dir)] == self.written
        assert last_lines(self.state_dir, 3) == self.written[-3:]
        report = verify(self.state_dir, patience_s=0)
        assert report.ok, report.problems
        assert report.records == len(self.written)
        assert report.signed == self.writer.signed_sequence

    def teardown(self) -> None:
        for writer in self.writers:
            writer.close()
        shutil.rmtree(self.base)


LogMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestLogMachine = LogMachine.TestCase
