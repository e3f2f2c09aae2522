from __future__ import annotations

import itertools
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import LogError
from controller.launch import fresh_log
from controller.log import LogFiles, McapSink
from controller.log_parts import log_at, logs_in, part_path, parts_of
from controller.log_reader import read_header, read_log
from controller.log_schema import Event
from controller.log_settings import LogSettings
from controller.stats import skipped_after
from tests.controller.records import assert_same, header, tick

SMALL = LogSettings(max_mb=0.006)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.mcap"


def write(path, count, settings=SMALL, first=0):
    sink = McapSink(path, header(), settings)
    for number in range(first, first + count):
        sink.tick(tick(number))
        sink.event(number, "note", str(number))
    sink.close()


def names(path):
    return sorted(file.name for file in path.parent.iterdir())


def test_a_log_in_several_files_is_read_as_one(path):
    write(path, 60)
    assert names(path) == ["log.mcap", *(f"log_{n:04d}.mcap" for n in range(1, len(names(path))))]
    assert len(names(path)) > 4
    for place in (path, path.parent):
        log = read_log(place)
        assert (log.truncated, log.damage, log.path) == (False, "", path)
        assert log.tick.tolist() == list(range(60))
        assert [event.detail for event in log.events] == [str(n) for n in range(60)]
        assert log.breaks == ()
    for got, number in zip(log.records(), range(60), strict=True):
        assert_same(got, tick(number))


def test_every_file_is_about_the_wanted_size_and_reads_alone(path):
    write(path, 60)
    ticks = []
    for number, file in parts_of(path).items():
        assert file.stat().st_size < 2 * SMALL.max_bytes
        alone = path.parent / f"alone{number}.mcap"
        shutil.copy(file, alone)
        log = read_log(file)
        assert not log.truncated
        assert log.header.part == number
        assert read_log(alone).tick.tolist() == log.tick.tolist() or number == 0
        ticks += log.tick.tolist() if number else []
    assert ticks == list(range(60 - len(ticks), 60))


def test_the_newest_files_are_kept(path):
    write(path, 80, LogSettings(max_mb=0.006, keep=3))
    found = parts_of(path)
    assert len(found) == 3
    assert 0 not in found
    assert list(found) == list(range(min(found), min(found) + 3))
    log = read_log(path)
    assert not path.exists()
    assert log.damage == ""
    assert log.tick.tolist() == list(range(80 - len(log), 80))
    assert read_header(found[max(found)]).first_part == min(found)


def test_keep_needs_a_size():
    with pytest.raises(ValueError, match="needs max_mb"):
        LogSettings(keep=2)


@pytest.mark.parametrize("gone", [0, 1, 2, -1])
def test_a_missing_file_is_said(path, gone):
    write(path, 60)
    files = list(parts_of(path).values())
    whole = read_log(path)
    before = read_log(files[gone]).tick if gone else whole.tick[: whole.tick.tolist().index(
        read_log(files[1]).tick[0]
    )]  # fmt: skip
    files[gone].unlink()
    log = read_log(path)
    assert log.damage == f"{files[gone].name} is missing"
    assert sorted({*whole.tick} - {*log.tick}) == before.tolist()
    # Ticks that are missing with a file in the middle ran, and were not skipped by the loop.
    assert not skipped_after(log).any()
    assert log.dropped == (len(before) if gone in (1, 2) else 0)


def test_a_file_of_another_run_is_no_part(path):
    write(path, 20)
    count = len(names(path))
    other = path.with_name("other.mcap")
    write(other, 20, first=100)
    shutil.copy(part_path(other, 1), part_path(path, count))
    shutil.copy(part_path(other, 1), part_path(path, 7000))
    log = read_log(path)
    assert log.tick.tolist() == list(range(20))
    assert not log.truncated


def test_names_that_only_look_like_parts_stay_logs_of_their_own(path):
    for number in range(3):
        write(path.with_name(f"pick_{number:04d}.mcap"), 3, LogSettings(), first=10 * number)
    write(path, 30)
    assert [log.name for log in logs_in(path.parent)] == [
        "log.mcap", "pick_0000.mcap", "pick_0001.mcap", "pick_0002.mcap",
    ]  # fmt: skip
    assert read_log(path.with_name("pick_0001.mcap")).tick.tolist() == [10, 11, 12]
    assert log_at(path.parent) == path


def test_a_directory_without_one_log_is_refused(tmp_path):
    with pytest.raises(LogError, match="it has none in it"):
        read_log(tmp_path)
    for name in ("a", "b"):
        write(tmp_path / f"{name}.mcap", 1)
    with pytest.raises(LogError, match=r"several logs \(a\.mcap, b\.mcap\): name one"):
        read_log(tmp_path)
    (tmp_path / "a.mcap").unlink()
    assert len(read_log(tmp_path)) == 1


def test_an_earlier_log_is_set_aside_with_all_its_files(path):
    write(path, 40)
    count = len(names(path))
    assert fresh_log(path.parent) == path
    assert not path.exists()
    (aside,) = logs_in(path.parent)
    assert read_log(aside).tick.tolist() == list(range(40))
    write(path, 5)
    fresh_log(path.parent)
    assert len(names(path)) == count + 1
    assert {len(read_log(log)) for log in logs_in(path.parent)} == {40, 5}


def snapshots(tmp_path, count, sizes=SMALL):
    """Return every state that the files went through, one per write to the disk."""
    states = []
    path = tmp_path / "run" / "log.mcap"
    path.parent.mkdir()
    files = LogFiles(path, header(), sizes)

    def keep(done):
        content = {file.name: file.read_bytes() for file in path.parent.iterdir()}
        states.append((done, content))

    from controller import log_writer

    write_record = log_writer._Stream.write
    done = [0]

    def watched(stream, data):
        write_record(stream, data)
        keep(done[0])

    try:
        log_writer._Stream.write = watched
        for number in range(count):
            files.tick(tick(number))
            done[0] = number + 1
            keep(done[0])
        files.finish()
        keep(count)
    finally:
        log_writer._Stream.write = write_record
    return states


@pytest.mark.parametrize("keep", [None, 2])
def test_no_moment_of_a_kill_loses_or_doubles_a_record(tmp_path, keep):
    """Kill the writer at every write, and then cut the write that was under way anywhere."""
    states = snapshots(tmp_path, 30, LogSettings(SMALL.max_mb, keep))
    assert any("log_0002.mcap" in files for _, files in states)
    place = tmp_path / "killed" / "log.mcap"
    for (done, before), (_, after) in itertools.pairwise(states):
        grown = {name: data for name, data in after.items() if before.get(name) != data}
        for name, data in grown.items() or {"": b""}.items():
            known = len(before.get(name, b""))
            for length in {known, known + 1, (known + len(data)) // 2, max(known, len(data) - 1)}:
                shutil.rmtree(place.parent, ignore_errors=True)
                place.parent.mkdir()
                for file, content in before.items():
                    place.with_name(file).write_bytes(content)
                if name:
                    place.with_name(name).write_bytes(data[:length])
                ticks = read_log(place).tick.tolist()
                first = ticks[0] if keep and ticks else 0
                assert ticks in (list(range(first, done)), list(range(first, done + 1)))
                assert len(ticks) >= min(done, 8)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    limit=st.sampled_from([0.0045, 0.006, 0.009, 0.02]),
)
def test_whatever_the_sizes_all_records_come_back_once(tmp_path_factory, sizes, limit):
    path = tmp_path_factory.mktemp("parts") / "log.mcap"
    sink = McapSink(path, header(), LogSettings(max_mb=limit))
    number, events = 0, []
    for size in sizes:
        for _ in range(size):
            assert sink.tick(tick(number))
            number += 1
        events.append(Event(number, "note", "x" * 700 * size))
        assert sink.event(events[-1].stamp_ns, events[-1].kind, events[-1].detail)
    sink.close()
    log = read_log(path)
    assert log.tick.tolist() == list(range(number))
    assert log.events == tuple(events)
    assert not log.truncated


def test_a_full_disk_in_lockstep_is_one_line(tmp_path):
    with pytest.raises(LogError, match=r"/dev/full: No space left"):
        McapSink("/dev/full", header())
