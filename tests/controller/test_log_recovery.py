from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import LogError
from controller.log import McapSink
from controller.log_parts import parts_of, runs_in
from controller.log_reader import read_log
from controller.log_records import MAGIC, RecordStream
from controller.log_recovery import EVENT, recover
from controller.log_settings import LogSettings
from controller.stats import skipped_after
from tests.controller.records import assert_same, header, tick

COUNT = 12


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished log of 12 ticks and 3 events, and where its records begin."""
    path = tmp_path_factory.mktemp("whole") / "log.mcap"
    write(path)
    data = path.read_bytes()
    with open(path, "rb") as stream:
        stream.seek(len(MAGIC))
        records = list(RecordStream(stream, len(data)))
    return data, records


def write(path, count=COUNT, sizes=None, **about):
    sink = McapSink(path, header(**about), sizes or LogSettings())
    for number in range(count):
        sink.tick(tick(number))
        if number % 4 == 3:
            sink.event(number, "note", f"after {number}")
    sink.close()


def recovered(path):
    out = path.with_name("out.mcap")
    out.unlink(missing_ok=True)
    found = recover(path, out)
    log = read_log(out)
    assert not log.truncated
    assert log.damage == ""
    assert len(log) == found.ticks
    for record in log.records():
        assert_same(record, tick(record.tick))
    return found, log


def test_a_sound_log_is_copied_bit_for_bit(tmp_path):
    path = tmp_path / "log.mcap"
    write(path, mode="realtime")
    found, log = recovered(path)
    original = read_log(path)
    assert (found.ticks, found.events, found.lost) == (COUNT, 3, 0)
    assert (found.holes, found.mended, found.remarks) == ([], 0, [])
    assert log.header == original.header
    assert log.events[:-1] == original.events
    assert log.events[-1].kind == EVENT


def test_a_log_cut_at_any_byte_gives_all_that_lies_before(tmp_path, whole):
    data, records = whole
    path = tmp_path / "log.mcap"
    begun = next(record.end for record in records if record.opcode == 0x0C)
    ends = [record.end for record in records if record.opcode == 0x05]
    kinds = [record.packet().channel_id for record in records if record.opcode == 0x05]
    near = {end + shift for end in ends for shift in (-1, 0, 1)}
    for length in [
        *range(0, begun, 97),
        *range(begun, ends[1]),
        *range(ends[1], len(data), 41),
        *near,
    ]:
        path.write_bytes(data[:length])
        if length < begun:
            with pytest.raises(LogError, match=r"no header of a run log can be read|empty"):
                recover(path, tmp_path / "none.mcap")
            continue
        found, log = recovered(path)
        kept = [kind for end, kind in zip(ends, kinds, strict=True) if end <= length]
        assert (found.ticks, found.events) == (kept.count(1), kept.count(2)), length
        assert log.tick.tolist() == list(range(kept.count(1)))
        unread = length - max([begun, *(end for end in ends if end <= length)])
        assert sum(hole.size for hole in found.holes) in (0, unread)


@settings(max_examples=150, deadline=None)
@given(case=st.data())
def test_a_changed_byte_costs_one_record_at_most(tmp_path_factory, whole, case):
    data, records = whole
    messages = [record for record in records if record.opcode == 0x05]
    position = case.draw(st.integers(messages[0].start, messages[-1].end - 1))
    spoilt = bytearray(data)
    spoilt[position] ^= case.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "spoilt" / "log.mcap"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(spoilt)
    out = path.with_name("out.mcap")
    out.unlink(missing_ok=True)
    found = recover(path, out)
    log = read_log(out)
    assert not log.truncated
    assert found.ticks + found.events >= len(messages) - 1
    assert set(log.tick.tolist()) <= set(range(COUNT))
    assert not skipped_after(log).any()
    # Whatever changed is told: as bytes that cannot be read, as mended, or by the checksum.
    assert found.holes or found.mended or found.remarks


def test_a_lost_byte_at_the_end_of_a_record_does_not_cost_the_next(tmp_path, whole):
    data, records = whole
    messages = [record for record in records if record.opcode == 0x05]
    for victim, following in itertools.pairwise(messages):
        path = tmp_path / "log.mcap"
        path.write_bytes(data[: victim.end - 4] + data[victim.end - 3 :])
        out = tmp_path / "out.mcap"
        out.unlink(missing_ok=True)
        recover(path, out)
        packet = following.packet()
        if packet.channel_id == 1:
            assert packet.sequence in read_log(out).tick.tolist()


@settings(max_examples=60, deadline=None)
@given(case=st.data())
def test_a_damaged_region_costs_the_records_in_it(tmp_path_factory, whole, case):
    data, records = whole
    messages = [record for record in records if record.opcode == 0x05]
    start = case.draw(st.integers(messages[0].start, messages[-1].start))
    length = case.draw(st.integers(1, 1500))
    fill = case.draw(st.sampled_from([b"\x00", b"\xff", b"\x05", None]))
    middle = b"" if fill is None else fill * length
    path = tmp_path_factory.getbasetemp() / "region" / "log.mcap"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data[:start] + middle + data[start + length :])
    out = path.with_name("out.mcap")
    out.unlink(missing_ok=True)
    found = recover(path, out)
    log = read_log(out)
    whole_ones = [r for r in messages if r.end <= start or r.start >= start + length]
    ticks = {read.sequence for r in whole_ones if (read := r.packet()).channel_id == 1}
    assert ticks <= set(log.tick.tolist())
    for record in log.records():
        if record.tick in ticks:
            assert_same(record, tick(record.tick))
    told = {n for drop in log.drops for n in range(drop.first, drop.last + 1)}
    inner = set(range(int(log.tick[0]), int(log.tick[-1]))) - set(log.tick.tolist())
    assert inner == told
    assert found.lost == len(told)


def test_a_killed_run_in_several_files_becomes_one_finished_log(tmp_path):
    path = tmp_path / "log.mcap"
    write(path, 60, LogSettings(max_mb=0.006))
    files = parts_of(path)
    last = files[max(files)]
    data = last.read_bytes()
    last.write_bytes(data[: data.rindex(tick(59).executed.tobytes())])
    lost = read_log(files[2]).tick.tolist()
    files[2].unlink()
    found, log = recovered(path)
    expected = [n for n in read_log(path).tick.tolist() if n not in lost]
    assert log.tick.tolist() == expected
    assert found.lost == log.dropped == len(lost)
    assert found.remarks == ["log_0002.mcap is missing", f"{last.name} was not finished"]
    assert (log.header.part, log.header.first_part) == (0, 0)


def test_a_file_with_a_damaged_header_is_read_with_that_of_another(tmp_path):
    path = tmp_path / "log.mcap"
    write(path, 60, LogSettings(max_mb=0.006))
    files = parts_of(path)
    data = files[1].read_bytes()
    middle = data.index(b'"spec"')
    files[1].write_bytes(data[:middle] + bytes(50) + data[middle + 50 :])
    ticks = read_log(path).tick.tolist()
    assert len(ticks) < 60
    found, log = recovered(path)
    assert log.tick.tolist() == list(range(60))
    assert found.lost == 0
    assert "log_0001.mcap: the header cannot be read" in found.remarks


def test_a_changed_number_is_told(tmp_path):
    path = tmp_path / "log.mcap"
    write(path)
    wrong = path.read_bytes().replace(tick(1).executed.tobytes(), tick(2).executed.tobytes())
    path.write_bytes(wrong)
    found = recover(path)
    assert found.out == tmp_path / "log-recovered.mcap"
    assert found.remarks == ["log.mcap: the checksum does not fit: a number may have changed"]
    assert found.facts()["ticks"] == COUNT
    # The two are one run, and count once where all logs of a directory are wanted.
    assert runs_in(tmp_path) == [found.out]


def test_nothing_that_exists_is_overwritten(tmp_path):
    path = tmp_path / "log.mcap"
    write(path)
    data = path.read_bytes()
    for out in (path, tmp_path):
        with pytest.raises(LogError, match="exists and is left alone"):
            recover(path, out)
    assert path.read_bytes() == data
    assert [file.name for file in tmp_path.iterdir()] == ["log.mcap"]


@pytest.mark.parametrize("content", [None, b"", b"abc", MAGIC, bytes(5000)])
def test_what_holds_no_header_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "log.mcap"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LogError) as caught:
        recover(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*recovered*"))


KILLED = """
    import os, signal, sys
    from controller.log import McapSink
    from tests.controller.records import header, tick

    sink = McapSink(sys.argv[1], header())
    for number in range(137):
        sink.tick(tick(number))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_s_log_is_finished_in_full(tmp_path):
    path = tmp_path / "log.mcap"
    words = [sys.executable, "-c", textwrap.dedent(KILLED), str(path)]
    assert subprocess.run(words, timeout=60, check=False).returncode == -signal.SIGKILL
    with open(path, "ab") as stream:
        os.write(stream.fileno(), b"\x05\xff\x00")
    found, log = recovered(path)
    assert log.tick.tolist() == list(range(137))
    assert [hole.size for hole in found.holes] == [3]
