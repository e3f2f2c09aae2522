from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from controller import recorder
from controller.errors import LogError
from controller.log_frame import MAX_TEXT, TickFrame, pack_event, unpack_event
from controller.log_reader import read_log
from controller.log_schema import Drop
from controller.log_settings import LogSettings
from controller.recorder import ProcessSink
from controller.spec import ArraySpec, Spec
from controller.stats import skipped_after
from tests.controller.records import SPEC, assert_same, header, tick
from tests.controller.test_log import ticks

WAIT_S = 30.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.mcap"


@pytest.fixture
def sink(path):
    sink = ProcessSink(path, header(mode="realtime"))
    yield sink
    with contextlib.suppress(ProcessLookupError):
        os.kill(sink.pid, signal.SIGCONT)
    sink.close()


def wait_for(condition, what):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {WAIT_S:g} s"
        time.sleep(0.01)


def exists(pid):
    """Return whether a process runs; one that has ended may wait for its parent a while."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@settings(max_examples=60, deadline=None)
@given(record=ticks())
def test_a_frame_is_unpacked_bit_for_bit(record):
    frame = TickFrame(SPEC)
    datagram = frame.pack(record)
    assert len(datagram) <= frame.max_bytes
    assert_same(TickFrame(SPEC).unpack(memoryview(bytes(datagram))), record)


def test_a_frame_keeps_nothing_of_the_record_before():
    frame = TickFrame(SPEC)
    frame.pack(tick(0, version="a much longer version"))
    record = tick(1, version="v")
    assert_same(frame.unpack(frame.pack(record)), record)


def test_unpacked_arrays_outlive_the_buffer():
    frame = TickFrame(SPEC)
    first = frame.unpack(frame.pack(tick(0)))
    frame.pack(tick(1))
    assert_same(first, tick(0))


@pytest.mark.parametrize("arrays", [(), tuple(np.zeros(7) for _ in SPEC.observation)])
def test_a_frame_refuses_other_shapes(arrays):
    with pytest.raises(ValueError, match=r"zip|broadcast"):
        TickFrame(SPEC).pack(tick(0, arrays=arrays))


@pytest.mark.parametrize("detail", ["", "größer", "x" * 3 * MAX_TEXT])
def test_events_are_unpacked(detail):
    datagram = memoryview(pack_event(-5, "note", detail))
    assert len(datagram) <= TickFrame(SPEC).max_bytes
    stamp_ns, kind, text = unpack_event(datagram)
    assert (stamp_ns, kind) == (-5, "note")
    assert detail.startswith(text)
    assert len(text) >= min(len(detail), MAX_TEXT - 4)


def test_a_recorder_writes_every_record_bit_for_bit(sink, path):
    records = [tick(n, version="v" * (n % 7)) for n in range(300)]
    assert all(sink.tick(record) for record in records)
    assert sink.event(7, "mode", "RUN -> HOLD")
    sink.close()
    log = read_log(path)
    assert not log.truncated
    assert [event.kind for event in log.events] == ["mode"]
    assert len(log) == 300
    for got, expected in zip(log.records(), records, strict=True):
        assert_same(got, expected)
    assert log.header.wall_offset_ns > 0


def test_close_ends_the_process_and_may_be_repeated(sink, path):
    sink.close()
    sink.close()
    assert not exists(sink.pid)
    assert not sink.tick(tick(0))
    assert not sink.event(0, "late")
    assert sink.dropped == 2
    assert not read_log(path).truncated


def test_the_recorder_leads_its_own_session_and_ignores_ctrl_c(sink, path):
    assert os.getsid(sink.pid) == os.getsid(sink.guard_pid) == sink.guard_pid
    os.kill(sink.pid, signal.SIGINT)
    os.kill(sink.guard_pid, signal.SIGINT)
    assert sink.tick(tick(0))
    sink.close()
    assert len(read_log(path)) == 1


ABANDONED = """
    import os, signal, sys
    from controller.recorder import ProcessSink
    from tests.controller.records import header, tick

    sink = ProcessSink(sys.argv[1], header())
    for number in range(400):
        assert sink.tick(tick(number))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_file_is_finished_when_the_loop_is_killed(path):
    words = [sys.executable, "-c", textwrap.dedent(ABANDONED), str(path)]
    assert subprocess.run(words, timeout=60, check=False).returncode == -signal.SIGKILL
    wait_for(lambda: not read_log(path).truncated, "finished log")
    log = read_log(path)
    assert log.tick.tolist() == list(range(400))
    assert [event.detail for event in log.events] == ["not closed by the controller"]


def test_on_sigterm_the_recorder_drains_and_finishes(sink, path, caplog):
    os.kill(sink.pid, signal.SIGSTOP)
    for number in range(50):
        assert sink.tick(tick(number))
    os.kill(sink.pid, signal.SIGTERM)
    os.kill(sink.pid, signal.SIGCONT)
    wait_for(lambda: not sink.tick(tick(99)), "end of the recorder")
    sink.close()
    log = read_log(path)
    assert not log.truncated
    assert log.tick[:50].tolist() == list(range(50))
    assert sink.dropped >= 1


def test_a_stopped_recorder_costs_records_and_says_so(path, monkeypatch):
    monkeypatch.setattr(recorder, "_BUFFER_BYTES", 1 << 16)
    sink = ProcessSink(path, header())
    try:
        os.kill(sink.pid, signal.SIGSTOP)
        taken = [sink.tick(tick(number)) for number in range(600)]
        assert not sink.event(0, "note", "lost as well")
        dropped = taken.count(False)
        assert 0 < dropped < 600
        assert sink.dropped == dropped + 1
        os.kill(sink.pid, signal.SIGCONT)
        wait_for(lambda: sink.tick(tick(600)), "room")
        # Room for one record is not yet room for the next.
        wait_for(lambda: sink.tick(tick(601)), "more room")
        dropped = sink.dropped
    finally:
        os.kill(sink.pid, signal.SIGCONT)
        sink.close()
    log = read_log(path)
    assert not log.truncated
    assert log.dropped == dropped
    assert log.drops[0].first == taken.index(False)
    assert log.drops[-1].last in (599, 600, 601)
    assert log.tick.tolist() == [n for n, ok in enumerate(taken) if ok] + [600, 601]
    assert not skipped_after(log).any()


def test_records_dropped_at_the_very_end_are_reported(path, monkeypatch):
    monkeypatch.setattr(recorder, "_BUFFER_BYTES", 1 << 16)
    sink = ProcessSink(path, header())
    try:
        os.kill(sink.pid, signal.SIGSTOP)
        while sink.tick(tick(0)):
            pass
    finally:
        os.kill(sink.pid, signal.SIGCONT)
        sink.close()
    assert read_log(path).drops == (Drop(ticks=1, events=0, first=0, last=0),)


def test_a_killed_recorder_is_followed_by_another_in_a_further_file(sink, path):
    sent = 0

    def send(count):
        nonlocal sent
        for _ in range(count):
            assert sink.tick(tick(sent))
            sent += 1

    for round_number in range(3):
        send(40)
        wait_for(lambda: read_log(path).tick[-1:].tolist() == [sent - 1], "ticks in the log")
        killed = sink.pid
        os.kill(killed, signal.SIGKILL)
        send(40)
        wait_for(lambda killed=killed: sink.pid != killed, "another recorder")
        assert sink.dropped == 0, round_number
    send(1)
    sink.close()
    log = read_log(path)
    assert [p.name for p in sorted(path.parent.iterdir())] == [
        "log.mcap", "log_0001.mcap", "log_0002.mcap", "log_0003.mcap",
    ]  # fmt: skip
    lost = sorted(set(range(sent)) - set(log.tick.tolist()))
    assert len(log) + len(lost) == sent
    assert len(lost) <= 3
    assert log.tick.tolist() == sorted(set(log.tick.tolist()))
    assert log.dropped == len(lost)
    assert not skipped_after(log).any()
    assert log.damage.count("it was not finished") == 3


def test_recorders_that_are_all_gone_never_stop_the_loop(sink, path, caplog):
    assert sink.tick(tick(0))
    wait_for(lambda: len(read_log(path)) == 1, "first tick")
    os.killpg(sink.guard_pid, signal.SIGKILL)
    wait_for(lambda: not sink.tick(tick(1)), "end of the recorder")
    with caplog.at_level(logging.WARNING):
        sink.close()
    assert "recorder ended with exit code -9" in caplog.text
    log = read_log(path)
    assert log.truncated
    assert log.tick[0] == 0


def test_without_its_guard_a_recorder_goes_on(sink, path):
    os.kill(sink.guard_pid, signal.SIGKILL)
    assert all(sink.tick(tick(number)) for number in range(50))
    sink.close()
    log = read_log(path)
    assert not log.truncated
    assert len(log) == 50


def test_a_recorder_that_hangs_at_the_end_is_killed(sink, path, caplog):
    assert sink.tick(tick(0))
    wait_for(lambda: len(read_log(path)) == 1, "first tick")
    os.kill(sink.pid, signal.SIGSTOP)
    with caplog.at_level(logging.WARNING):
        sink.close(timeout_s=0.2)
    assert "did not end in 0.2 s and was killed" in caplog.text
    wait_for(lambda: not exists(sink.pid), "end of the recorder")
    assert len(read_log(path)) == 1


def test_a_record_of_another_shape_is_dropped_with_its_reason(sink, path, caplog):
    assert not sink.tick(tick(0, executed=np.zeros(5, np.float32)))
    assert sink.tick(tick(1))
    with caplog.at_level(logging.WARNING):
        sink.close()
    assert "1 records dropped: could not broadcast" in caplog.text
    log = read_log(path)
    assert log.tick.tolist() == [1]
    assert log.drops == (Drop(ticks=1, events=0, first=0, last=0),)


def test_a_path_that_cannot_be_made_is_an_error_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LogError, match=r"cannot write the log .*file/log\.mcap: "):
        ProcessSink(tmp_path / "file" / "log.mcap", header())


def test_a_recorder_that_does_not_start_is_an_error(path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(LogError, match="did not start: exit code 1"):
        ProcessSink(path, header())


def test_a_recorder_that_stays_silent_is_an_error(path, monkeypatch, tmp_path):
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(mute))
    with pytest.raises(LogError, match=r"was not up in 0\.3 s"):
        ProcessSink(path, header(), timeout_s=0.3)


def test_an_observation_that_fits_in_no_buffer_is_an_error(path, monkeypatch):
    monkeypatch.setattr(recorder, "_BUFFER_BYTES", 1 << 16)
    spec = Spec("big", (ArraySpec("image", (512, 512, 3), "uint8"),), SPEC.action, 100.0)
    with pytest.raises(LogError, match=r"one record has 786\d+ bytes"):
        ProcessSink(path, header(spec=spec))


def test_an_image_of_usual_size_is_recorded(path):
    spec = Spec("eye", (ArraySpec("image", (3, 96, 96), "uint8"),), SPEC.action, 100.0)
    image = np.random.default_rng(0).integers(0, 256, (3, 96, 96), dtype=np.uint8)
    sink = ProcessSink(path, header(spec=spec))
    assert sink.tick(tick(0, arrays=(image,)))
    sink.close()
    np.testing.assert_array_equal(read_log(path).observations["image"][0], image)


def test_a_disk_that_is_full_from_the_start_is_an_error():
    with pytest.raises(LogError, match=r"/dev/full: .*No space left"):
        ProcessSink("/dev/full", header())


def limit_files(pid, size):
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def test_a_disk_that_stays_full_never_stops_the_loop_and_all_is_counted(path, caplog, monkeypatch):
    monkeypatch.setattr(recorder, "_BUFFER_BYTES", 1 << 16)
    sink = ProcessSink(path, header())
    for pid in (sink.pid, sink.guard_pid):
        limit_files(pid, 20_000)
    limit_files(sink.guard_pid, 100)
    taken = [sink.tick(tick(number)) for number in range(3000)]
    assert not all(taken)
    with caplog.at_level(logging.WARNING):
        sink.close()
    assert "File too large" in caplog.text
    assert f"{sink.dropped} records dropped" in caplog.text
    log = read_log(path)
    assert log.damage == f"it was not finished: it ends after {len(log)} ticks"
    assert len(log) > 10
    assert len(log) + sink.dropped == 3000
    assert log.tick.tolist() == list(range(len(log)))
    assert path.stat().st_size <= 20_000
    assert [file.name for file in path.parent.iterdir()] == ["log.mcap"]


def test_a_disk_that_has_room_again_is_written_on(sink, path):
    limit_files(sink.pid, 20_000)
    numbers = iter(range(100_000))
    first = sink.pid
    wait_for(lambda: sink.tick(tick(next(numbers))) and sink.pid != first, "another recorder")
    assert sink.tick(tick(next(numbers)))
    sink.close()
    log = read_log(path)
    assert path.with_name("log_0001.mcap").exists()
    assert sink.dropped == log.dropped == 1
    assert len(log) == next(numbers) - 1
    assert "log.mcap: it was not finished" in log.damage
    assert not skipped_after(log).any()


def test_the_log_goes_on_in_further_files(path):
    sink = ProcessSink(path, header(), LogSettings(max_mb=0.01))
    assert all(sink.tick(tick(number)) for number in range(200))
    sink.close()
    assert len(list(path.parent.iterdir())) > 3
    log = read_log(path)
    assert not log.truncated
    assert log.tick.tolist() == list(range(200))
