"""A changed log is always noticed, and the report names what was changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostwarden.records.key import LogKey, load_or_create
from hostwarden.records.merkle import Tree, leaf_hash
from hostwarden.records.note import Checkpoint, sign_note
from hostwarden.records.segments import LogError, checkpoint_line, header_line, parse_checkpoint
from hostwarden.records.verify import MAX_PROBLEMS, Report, verify
from hostwarden.records.writer import LogWriter

if TYPE_CHECKING:
    from tests.unit.records.conftest import Log


def named(report: Report) -> list[int]:
    """The records that problems are about."""
    return [problem.sequence for problem in report.problems if problem.sequence is not None]


def is_record(line: bytes) -> bool:
    return line.startswith(b'{"sequence"')


def rows(log: Log, segment: int = 0) -> tuple[list[bytes], dict[int, int]]:
    """Lines of a segment, and where each record is in them."""
    lines = log.lines(segment)
    return lines, {orjson.loads(line)["sequence"]: i for i, line in enumerate(lines) if is_record(line)}


def test_an_untouched_log(log: Log) -> None:
    seen: list[tuple[int, int]] = []
    report = verify(log.folder, log.key.public, progress=lambda done, total: seen.append((done, total)))
    assert report.ok
    assert (report.records, report.segments, report.checkpoints) == (9, 2, 3)
    assert (report.first, report.last, report.signed, report.unsigned_tail) == (1, 9, 9, 0)
    assert report.fingerprint == log.key.fingerprint
    lines = [line for segment in (0, 1) for line in log.lines(segment) if is_record(line)]
    tree = Tree()
    tree.extend(leaf_hash(line[:-1]) for line in lines)
    assert report.root == tree.root().hex()


def test_a_state_dir_will_do_and_log_pub_is_found(log: Log) -> None:
    assert verify(log.state_dir).ok
    assert verify(log.folder).fingerprint == log.key.fingerprint


@pytest.fixture(scope="module")
def made(make_log: Callable[..., Log]) -> Log:
    """As ``log``, shared; whoever edits it puts it back."""
    return make_log([3, 3, 3], [2])


# Every byte


def owners(log: Log) -> list[tuple[Path, int, int | None]]:
    """For each byte of the log: file, offset, and the record it belongs to (None: header or checkpoint)."""
    out: list[tuple[Path, int, int | None]] = []
    for path in log.segments:
        offset = 0
        for line in path.read_bytes().splitlines(keepends=True):
            sequence = orjson.loads(line)["sequence"] if is_record(line) else None
            out += [(path, offset + i, sequence) for i in range(len(line))]
            offset += len(line)
    return out


@pytest.mark.parametrize("bits", [0x01, 0x20, 0x80])
def test_every_byte_changed_is_noticed_and_the_right_record_named(
    make_log: Callable[..., Log], tmp_path: Path, bits: int
) -> None:
    log = make_log([3, 1], [1]).copy(tmp_path / "copy")
    fault: list[tuple[str, int, int | None, Report]] = []
    for path, offset, sequence in owners(log):
        data = path.read_bytes()
        path.write_bytes(data[:offset] + bytes([data[offset] ^ bits]) + data[offset + 1 :])
        report = verify(log.folder, log.key.public, patience_s=0)
        path.write_bytes(data)
        is_newline = data[offset : offset + 1] == b"\n"
        if sequence is None or is_newline:  # a lost newline takes the next line with it
            right = not report.ok and (sequence is None or sequence in named(report))
        else:
            right = named(report) == [sequence]
        if not right:
            fault.append((path.name, offset, sequence, report))
    assert not fault, f"{len(fault)} changes, first {fault[0]}"


@pytest.mark.parametrize("value", [0x0A, 0x22, 0x30])
def test_every_byte_set_to_one_that_json_is_made_of_is_noticed(
    make_log: Callable[..., Log], tmp_path: Path, value: int
) -> None:
    log = make_log([2, 1]).copy(tmp_path / "copy")
    for path, offset, sequence in owners(log):
        data = path.read_bytes()
        if data[offset] == value:
            continue
        path.write_bytes(data[:offset] + bytes([value]) + data[offset + 1 :])
        report = verify(log.folder, log.key.public, patience_s=0)
        path.write_bytes(data)
        assert not report.ok, (path.name, offset)
        assert sequence is None or sequence in named(report), (path.name, offset, sequence, report)


def test_every_truncation_of_a_closed_log_is_noticed(log: Log) -> None:
    """tree.json knows a later checkpoint; without it a cut at a line is a shorter log, which the next test shows."""
    path = log.segments[1]
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert not verify(log.folder, log.key.public, patience_s=0).ok, length
    path.unlink()
    assert not verify(log.folder, log.key.public, patience_s=0).ok


def test_a_cut_end_is_noticed_by_whoever_kept_a_checkpoint(log: Log) -> None:
    last = parse_checkpoint(log.lines(1)[-1][:-1])
    earlier = parse_checkpoint(log.lines(0)[-1][:-1])
    (log.folder / "tree.json").unlink()
    assert verify(log.folder, log.key.public, known=[earlier, last]).ok
    log.segments[1].unlink()
    assert verify(log.folder, log.key.public).ok, "this is what a log alone can't prove"
    report = verify(log.folder, log.key.public, known=[earlier, last])
    assert [problem.message for problem in report.problems] == [
        "a checkpoint over 9 records was signed, but the log ends at record 6: cut off"
    ]


# Whole lines

EDITS: dict[str, tuple[Callable[[list[bytes], dict[int, int]], list[bytes]], list[int]]] = {
    "record 2 removed": (lambda x, at: x[: at[2]] + x[at[2] + 1 :], [2]),
    "record 1 removed": (lambda x, at: x[: at[1]] + x[at[1] + 1 :], [1]),
    "record 3, last before a checkpoint, removed": (lambda x, at: x[: at[3]] + x[at[3] + 1 :], [3]),
    "record 4, first after a checkpoint, removed": (lambda x, at: x[: at[4]] + x[at[4] + 1 :], [4]),
    "records 4 and 5 removed": (lambda x, at: x[: at[4]] + x[at[5] + 1 :], [4]),
    "record 2 repeated": (lambda x, at: [*x[: at[2]], x[at[2]], *x[at[2] :]], [2]),
    "record 1 repeated after 3": (lambda x, at: [*x[: at[3] + 1], x[at[1]], *x[at[3] + 1 :]], [1]),
    "record 1 and 2 swapped": (lambda x, at: [*x[: at[1]], x[at[2]], x[at[1]], *x[at[2] + 1 :]], [1, 1]),
    "record 2 and 3 swapped": (lambda x, at: [*x[: at[2]], x[at[3]], x[at[2]], *x[at[3] + 1 :]], [2, 2]),
    "an empty line": (lambda x, at: [*x[: at[2]], b"\n", *x[at[2] :]], []),
    "a line of prose": (lambda x, at: [*x[: at[6] + 1], b"nothing to see here\n", *x[at[6] + 1 :]], []),
    "a line of JSON": (lambda x, at: [*x[: at[1]], b'{"a":1}\n', *x[at[1] :]], []),
    "first checkpoint removed": (lambda x, at: x[: at[3] + 1] + x[at[4] :], []),
    "first checkpoint repeated": (lambda x, at: [*x[: at[4]], x[at[4] - 1], *x[at[4] :]], []),
    "first checkpoint repeated at the end": (lambda x, at: [*x, x[at[4] - 1]], []),
    "header removed": (lambda x, at: x[1:], []),
    "header repeated": (lambda x, at: [x[0], *x], []),
    "a carriage return": (lambda x, at: [*x[: at[2]], x[at[2]].replace(b"\n", b"\r\n"), *x[at[2] + 1 :]], [2]),
    "everything gone": (lambda x, at: [], [1]),
}


@pytest.mark.parametrize(("edit", "sequences"), EDITS.values(), ids=EDITS.keys())
def test_lines_removed_repeated_swapped_inserted(
    log: Log, edit: Callable[[list[bytes], dict[int, int]], list[bytes]], sequences: list[int]
) -> None:
    log.write(edit(*rows(log)))
    report = verify(log.folder, log.key.public)
    assert not report.ok
    assert named(report) == sequences, [str(problem) for problem in report.problems]


def test_a_forged_record_with_a_right_number_and_link_is_named(log: Log) -> None:
    lines, at = rows(log)
    value = orjson.loads(lines[at[2]])
    value["target"] = "/harmless"
    lines[at[2]] = orjson.dumps(value) + b"\n"
    log.write(lines)
    assert named(verify(log.folder, log.key.public)) == [2]


def test_a_forger_who_chains_all_that_follows_anew_meets_the_signed_head(log: Log) -> None:
    lines, at = rows(log)
    prev = ""
    for i in (1, 2, 3):
        value = orjson.loads(lines[at[i]])
        value["target"] = "/harmless"
        value["prev"] = prev or value["prev"]
        lines[at[i]] = orjson.dumps(value) + b"\n"
        prev = leaf_hash(lines[at[i]][:-1]).hex()
    log.write(lines)
    report = verify(log.folder, log.key.public)
    assert named(report)[:2] == [3, 3], "its head isn't what was signed, and the root says that more was changed"
    assert "records 1 to 3 don't give the root" in report.problems[1].message


def test_an_inserted_record_of_the_forger_s_own(log: Log) -> None:
    lines, at = rows(log)
    value = orjson.loads(lines[at[5]])
    value |= {"prev": leaf_hash(lines[at[4]][:-1]).hex(), "target": "/forged"}
    log.write([*lines[: at[5]], orjson.dumps(value) + b"\n", *lines[at[5] :]])
    assert set(named(verify(log.folder, log.key.public))) == {5}


def test_two_changes_far_apart_are_both_named(log: Log) -> None:
    lines, at = rows(log)
    for i in (2, 5):
        lines[at[i]] = lines[at[i]].replace(b"/srv/", b"/SRV/")
    log.write(lines)
    assert named(verify(log.folder, log.key.public)) == [2, 5]


def test_a_second_sequence_in_a_record_is_noticed_even_if_the_key_holder_wrote_it(tmp_path: Path) -> None:
    key = load_or_create(tmp_path)
    writer = LogWriter(tmp_path, key)
    writer.open()
    writer.append([b'{"a":1}', b'{"a":1,"sequence":7}', b'{"a":1}'])
    writer.close()
    assert named(verify(tmp_path)) == [2]


# Segments


def test_a_missing_segment_names_its_records(make_log: Callable[..., Log]) -> None:
    log = make_log([3, 2, 3], [1, 2])
    log.segments[1].unlink()
    report = verify(log.folder, log.key.public)
    assert report.problems[0].message == "records 4 to 5 are missing after record 3"
    assert named(report) == [4]
    assert report.root is None


def test_a_missing_first_segment(log: Log) -> None:
    log.segments[0].unlink()
    report = verify(log.folder, log.key.public)
    assert report.problems[0].message == "records 1 to 6 are missing after record 0"


def test_two_segments_with_each_other_s_names(log: Log) -> None:
    first, second = log.segments
    first.rename(first.with_suffix(".x"))
    second.rename(first)
    first.with_suffix(".x").rename(second)
    assert not verify(log.folder, log.key.public).ok


def test_the_same_segment_under_a_second_name(log: Log) -> None:
    shutil.copy(log.segments[1], log.folder / f"{10:020d}.seg")
    assert not verify(log.folder, log.key.public).ok


@pytest.mark.parametrize(
    "name", ["1.seg", "x.seg", "0000000000000000000a.seg", f"{0:020d}.seg", ".seg", "\x1b[2J\n.seg", "\udcff.seg"]
)
def test_a_file_that_only_looks_like_a_segment(log: Log, name: str) -> None:
    (log.folder / name).write_bytes(b"")
    problems = verify(log.folder).problems
    assert any("not a segment's name" in problem.message for problem in problems)
    assert all(str(problem).isascii() and str(problem).isprintable() for problem in problems)


def test_links_and_pipes_are_not_opened(log: Log) -> None:
    path = log.segments[1]
    path.rename(log.state_dir / "elsewhere")
    path.symlink_to(log.state_dir / "elsewhere")
    assert any("not links" in problem.message for problem in verify(log.folder).problems)
    path.unlink()
    os.mkfifo(path)
    assert any("plain file" in problem.message for problem in verify(log.folder).problems)


@pytest.mark.parametrize("tail", [b"x", b"\n", b"\0" * 4096, b'{"sequence":10,"prev":"', b"x\n", b"y" * (3 << 20)])
@pytest.mark.parametrize("segment", [0, 1])
def test_appended_bytes(log: Log, segment: int, tail: bytes) -> None:
    with log.segments[segment].open("ab") as file:
        file.write(tail)
    report = verify(log.folder, log.key.public)
    assert not report.ok
    assert report.records == 9
    assert report.root == verify(log.folder, log.key.public).root


def test_a_header_of_another_log_is_noticed(log: Log) -> None:
    lines = log.lines()
    lines[0] = header_line(1, bytes(32), "0" * 32) + b"\n"
    log.write(lines)
    assert "header" in verify(log.folder, log.key.public).problems[0].message


# Signatures


def test_an_unsigned_tail_is_said_and_no_fault(tmp_path: Path, body: Callable[[int], bytes]) -> None:
    key = load_or_create(tmp_path)
    writer = LogWriter(tmp_path, key)
    writer.open()
    writer.append([body(1), body(2)])
    writer.sync(1.0)
    writer.append([body(3)])
    writer.sync(1.1)
    report = verify(tmp_path)
    assert report.ok
    assert (report.signed, report.unsigned_tail, report.last) == (2, 1, 3)
    writer.close()
    assert verify(tmp_path).unsigned_tail == 0


def test_a_log_signed_anew_with_another_key_fails_under_the_right_one(log: Log, tmp_path: Path) -> None:
    (tmp_path / "thief").mkdir()
    thief = load_or_create(tmp_path / "thief")
    writer = LogWriter(tmp_path / "thief", thief)
    writer.open()
    writer.append([b'{"a":1}'])
    writer.close()
    assert verify(tmp_path / "thief").ok
    report = verify(tmp_path / "thief", log.key.public)
    assert not report.ok
    assert report.checkpoints == 0


def test_without_a_key_the_chain_is_checked_and_the_missing_proof_said(log: Log) -> None:
    (log.state_dir / "log.pub").unlink()
    report = verify(log.folder)
    assert [problem.message.partition(",")[0] for problem in report.problems] == ["no public key"]
    lines, at = rows(log)
    lines[at[2]] = lines[at[2]].replace(b"/srv/", b"/SRV/")
    log.write(lines)
    assert named(verify(log.folder)) == [2]


def resign(log: Log, key: LogKey, **changes: object) -> None:
    """Replace the last checkpoint by one that the key holder signed, but with other contents."""
    lines = log.lines(1)
    old = Checkpoint.parse(parse_checkpoint(lines[-1][:-1]).partition("\n\n")[0] + "\n")
    new = Checkpoint(**{**vars(old), **changes})
    lines[-1] = checkpoint_line(sign_note(new.text(), key)) + b"\n"
    log.write(lines, 1)
    (log.folder / "tree.json").unlink()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"root": bytes(32)}, "don't give the root"),
        ({"head": bytes(32)}, "record 9 was changed"),
        ({"prev": bytes(32)}, "was removed"),
        ({"size": 8}, "stands after record 9"),
        ({"size": 12}, "records 10 to 12 are missing"),
        ({"origin": "hostwarden/else"}, "another log"),
    ],
)
def test_a_checkpoint_that_lies_is_noticed_although_it_is_signed(
    log: Log, changes: dict[str, object], message: str
) -> None:
    resign(log, log.key, **changes)
    assert any(message in problem.message for problem in verify(log.folder, log.key.public).problems)


def test_two_histories_signed_by_one_key(log: Log, tmp_path: Path, body: Callable[[int], bytes]) -> None:
    """A host that is set back and goes on signs another root for a size that the collector has a root of."""
    (tmp_path / "log.key").write_bytes((log.state_dir / "log.key").read_bytes())
    (tmp_path / "log.key").chmod(0o600)
    writer = LogWriter(tmp_path, load_or_create(tmp_path))
    writer.open()
    writer.append([body(100 + i) for i in range(9)])
    writer.close()
    note = parse_checkpoint(log.lines(1)[-1][:-1])
    report = verify(tmp_path, known=[note])
    assert ["another history of 9 records" in problem.message for problem in report.problems] == [True]


def test_a_known_checkpoint_that_a_power_cut_took_from_the_host_is_no_lie(log: Log) -> None:
    """It was streamed before its own line was on disk; its records were."""
    lines = log.lines(1)
    note = parse_checkpoint(lines[-1][:-1])
    log.write(lines[:-1], 1)
    (log.folder / "tree.json").unlink()
    writer = LogWriter(log.state_dir, log.key)
    writer.open()
    writer.append([b'{"a":1}'])
    writer.close()
    report = verify(log.folder, log.key.public, known=[note])
    assert report.ok, report.problems
    assert report.checkpoints == 3


def test_a_known_checkpoint_of_another_key_is_an_error_of_the_caller(log: Log, tmp_path: Path) -> None:
    other = load_or_create(tmp_path)
    note = sign_note(Checkpoint(other.name, 1, bytes(32), bytes(32), bytes(32)).text(), other)
    with pytest.raises(ValueError, match="none of this log"):
        verify(log.folder, log.key.public, known=[note])


# Bounds


def test_problems_are_bounded_and_counted(make_log: Callable[..., Log]) -> None:
    log = make_log([2 * MAX_PROBLEMS + 100])
    lines, at = rows(log)
    for i in range(1, 2 * MAX_PROBLEMS + 60, 2):
        lines[at[i]] = lines[at[i]].replace(b"/srv/", b"/SRV/")
    log.write(lines)
    report = verify(log.folder, log.key.public)
    assert named(report) == list(range(1, 2 * MAX_PROBLEMS, 2))
    assert report.more_problems == 30


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"checkpoint":' * 9, b'{"checkpoint":[]}', b'{"checkpoint":"\\n"}']
)
def test_hostile_lines_are_problems_and_nothing_else(log: Log, content: bytes) -> None:
    lines = log.lines()
    log.write([lines[0], content + b"\n", *lines[1:]])
    report = verify(log.folder, log.key.public)
    assert not report.ok
    assert report.records == 9


@pytest.mark.parametrize("header", [b"", b"[]\n", b'{"prev":1}\n', b'{"prev":"00"}\n', b"\xff\n", b"z" * (2 << 20)])
def test_hostile_headers_are_problems_and_nothing_else(log: Log, header: bytes) -> None:
    log.write([header, *log.lines(1)[1:]], 1)
    (log.state_dir / "log.pub").unlink()
    assert not verify(log.folder, log.key.public).ok
    assert not verify(log.folder).ok


def test_no_log_at_all_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(LogError) as caught:
            verify(path, bytes(32))
        assert "\n" not in str(caught.value)


def test_a_log_that_grows_while_it_is_verified(tmp_path: Path, body: Callable[[int], bytes]) -> None:
    """The end of the file is read again when half a line stands there: a live log isn't a torn one."""
    key = load_or_create(tmp_path)
    writer = LogWriter(tmp_path, key)
    writer.open()
    grown: list[int] = []

    def grow(done: int, total: int) -> None:
        if len(grown) < 5:
            grown.append(writer.append([body(i) for i in range(100)])[0])

    writer.append([b'{"x":"' + b"y" * 400_000 + b'"}'] * 20)
    report = verify(tmp_path, progress=grow)
    writer.close()
    assert report.ok
    assert report.records >= 20 + 100


def test_a_checkpoint_line_s_hash_chains_to_the_next(log: Log) -> None:
    notes = [line[:-1] for s in (0, 1) for line in log.lines(s) if line.startswith(b'{"checkpoint"')]
    prevs = [orjson.loads(line)["checkpoint"].split("\n")[4] for line in notes]
    assert prevs == [f"prev {bytes(32).hex()}", *(f"prev {sha256(line).hexdigest()}" for line in notes[:-1])]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_edit_of_the_files_goes_unnoticed(made: Log, data: st.DataObject) -> None:
    """Bytes removed, repeated, moved, replaced, in any number of places: a problem, never an exception."""
    before = [path.read_bytes() for path in made.segments]
    after = [edited(data, content) for content in before]
    try:
        for path, content in zip(made.segments, after, strict=True):
            path.write_bytes(content)
        report = verify(made.folder, made.key.public, patience_s=0)
        assert report.ok == (before == after)
    finally:
        for path, content in zip(made.segments, before, strict=True):
            path.write_bytes(content)


def edited(data: st.DataObject, content: bytes) -> bytes:
    """``content`` after a few edits at lines or at bytes."""
    for _ in range(data.draw(st.integers(0, 3))):
        cuts = [i + 1 for i, byte in enumerate(content) if byte == 10] or [0]
        place = st.sampled_from(cuts) | st.integers(0, len(content))
        a, b, c = sorted((data.draw(place), data.draw(place), data.draw(place)))
        x, y, z, rest = content[:a], content[a:b], content[b:c], content[c:]
        noise = data.draw(st.binary(max_size=4))
        content = data.draw(
            st.sampled_from([x + z + rest, x + y + y + z + rest, x + z + y + rest, x + noise + z + rest])
        )
    return content
