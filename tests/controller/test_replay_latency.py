from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from controller.chunk_settings import ChunkSettings
from controller.clock import VirtualClock
from controller.delayed import DelayedPolicy
from controller.errors import DataError, LogError
from controller.log import McapSink
from controller.log_reader import read_log
from controller.log_schema import LogHeader
from controller.loop import ControlLoop, LoopConfig
from controller.replay_latency import Rerun, VersionedPolicy, action_hash, compare, config_of
from controller.replay_settings import LatencySettings
from controller.replay_trace import LatencyTrace, constant, read_trace, trace_of
from controller.settings import RunConfig
from controller.testing import FakePolicy, FakeRealTimePlant
from controller.types import Observation, Request, Rung
from tests.controller.records import tick, written

MS = 1_000_000
PLAIN = LoopConfig()
AHEAD = LoopConfig(chunks=ChunkSettings(ask="ahead", replan_every=4, prefix=4, blend=2))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.mcap"


def request(number):
    return Request(number, 0, Observation((), 0), 0, 0)


def policy():
    return FakePolicy(horizon=10)


def plant(config, clock):
    return FakeRealTimePlant(clock, episode_steps=40)


def run(path, loop=PLAIN, delay=2 * MS, ticks=120):
    """Log a run in virtual real time, as the command line does."""
    clock = VirtualClock()
    robot = plant(None, clock)
    config = RunConfig(mode="virtual", seed=9, loop=loop)
    about = LogHeader(
        spec=robot.spec,
        mode="virtual",
        rate_hz=robot.spec.rate_hz,
        seed=9,
        safety=loop.safety,
        config=json.loads(msgspec.json.encode(config)),
    )
    sink = McapSink(path, about)
    slow = DelayedPolicy(policy(), clock, delay)
    ControlLoop(robot, slow, sink, clock, loop, seed=9).run(ticks=ticks)
    sink.close()
    return read_log(path)


def rerun(log):
    return Rerun(log, config_of(log), policy(), plant)


@pytest.mark.parametrize("loop", [LoopConfig(), AHEAD], ids=["each tick", "ahead"])
def test_a_run_under_its_own_latency_is_the_run_bit_for_bit(path, tmp_path, loop):
    log = run(path, loop, delay=[2 * MS, 4 * MS, 13 * MS] if loop is AHEAD else [MS, 5 * MS])
    again = rerun(log).under(trace_of(log), tmp_path / "again.mcap")
    assert action_hash(again) == action_hash(log)
    for name in ("rung", "answer_tick", "reward", "applied_tick", "rtt_ns"):
        np.testing.assert_array_equal(getattr(again, name), getattr(log, name), err_msg=name)


def test_the_same_trace_gives_the_same_hash_and_another_does_not(path, tmp_path):
    log = run(path)
    made = [
        rerun(log).under(constant(ms), tmp_path / f"{index}.mcap")
        for index, ms in enumerate((1.0, 1.0, 25.0))
    ]
    hashes = [action_hash(one) for one in made]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_longer_latency_costs_return_and_shows_in_the_rungs(path, tmp_path):
    log = run(path, LoopConfig(stop_after_s=9.0))
    again = rerun(log)
    own = again.under(trace_of(log), tmp_path / "own.mcap")
    late = again.under(trace_of(log).scaled(10), tmp_path / "late.mcap")
    facts = compare(log, own, late, reference=(-60.0, 0.0), has_success=True)
    rows = facts["runs"]
    assert rows["log"] == rows["same latency"]
    assert rows["other latency"]["return"] < rows["same latency"]["return"]
    assert rows["other latency"]["score"] < rows["same latency"]["score"]
    assert "tail" in rows["other latency"]["rungs"]
    assert facts["first_difference"] == 0
    assert facts["command_difference_max"] > 0
    assert facts["ticks_compared"] == 40


def test_no_difference_is_no_difference(path, tmp_path):
    log = run(path)
    own = rerun(log).under(trace_of(log), tmp_path / "own.mcap")
    facts = compare(log, own, own, None, True)
    assert facts["first_difference"] is None
    assert facts["command_difference_max"] == 0.0


def test_latencies_of_a_log_are_those_of_its_requests(path):
    log = run(path, delay=[2 * MS, 3 * MS])
    trace = trace_of(log)
    fresh = log.rung == Rung.FRESH
    assert list(trace.ticks) == log.tick[fresh].tolist()
    assert list(trace.latencies_ns) == log.rtt_ns[fresh].tolist()
    assert set(trace.latencies_ns) == {2 * MS, 3 * MS}
    # Between two that are known the one before stands in.
    gap = int(log.tick[~fresh][0])
    assert trace(request(gap)) == trace(request(gap - 1))


def test_a_tick_that_waited_in_vain_lost_its_answer(path):
    log = run(
        path,
        LoopConfig(stop_after_s=9.0),
        delay=lambda asked: None if asked.tick in (7, 30) else MS,
    )
    trace = trace_of(log)
    assert [trace(request(n)) for n in (6, 7, 8, 30, 31)] == [MS, None, MS, None, MS]
    assert trace.facts() == {
        "answers": len(trace.ticks), "lost": 2, "p50_ms": 1.0, "p99_ms": 1.0, "max_ms": 1.0,
    }  # fmt: skip


def test_a_log_from_before_round_trips_were_logged_gives_its_stages(path):
    log = written(path, [tick(n, rtt_ns=0) for n in range(3)])
    assert set(trace_of(log).latencies_ns) == {300_000 + 20_000 + 100_000}


def test_a_log_without_answers_has_no_latency(path):
    log = written(path, [tick(n, rung=Rung.HOLD, answer_tick=-1) for n in range(3)])
    with pytest.raises(DataError, match="no answer of a policy acted"):
        trace_of(log)


def test_a_file_of_latencies_is_taken_in_turn(tmp_path):
    file = tmp_path / "latencies.txt"
    file.write_text("# measured\n1.5\n\nlost  # a lost one\n20\n")
    trace = read_trace(file)
    assert [trace(request(n)) for n in range(5)] == [1_500_000, None, 20 * MS, 1_500_000, None]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("1\nfast\n", r"latencies.txt:2: got 'fast', expected milliseconds or \"lost\""),
        ("-1\n", "got '-1'"),
        ("nan\n", "got 'nan'"),
        ("# nothing\n", "no latency in it"),
    ],
)
def test_a_file_that_holds_no_latencies_is_refused(tmp_path, content, expected):
    file = tmp_path / "latencies.txt"
    file.write_text(content)
    with pytest.raises(DataError, match=expected):
        read_trace(file)


def test_another_log_is_a_trace(path):
    log = run(path, delay=[2 * MS, 3 * MS])
    trace = read_trace(path)
    taken = trace_of(log).latencies_ns
    assert [trace(request(n)) for n in range(len(taken))] == list(taken)
    assert trace(request(len(taken))) == taken[0]


def test_scaling_keeps_what_is_lost():
    trace = LatencyTrace([0, 1, 5], [MS, None, 2 * MS]).scaled(1.5)
    assert list(trace.latencies_ns) == [1_500_000, None, 3 * MS]


@pytest.mark.parametrize(
    "given", [{"scale": 2.0, "ms": 1.0}, {"ms": 1.0, "trace": "x"}, {"out": "x.mcap"}]
)
def test_settings_that_contradict_each_other_are_refused(given):
    with pytest.raises(ValueError, match=r"expected one of|out is for"):
        LatencySettings(**given)
    assert LatencySettings(ms=0.0).wanted
    assert not LatencySettings().wanted


def test_each_version_acts_where_it_acted(path):
    log = written(path, [replace(tick(n), version="v1" if n < 5 else "v2") for n in range(10)])
    known = {name: FakePolicy(version=name) for name in ("v1", "v2")}
    both = VersionedPolicy(log, known)
    example = FakeRealTimePlant(VirtualClock()).observe()
    asked = [Request(n, 0, example, 0, 0) for n in (0, 4, 5, 9, 99)]
    assert [both.infer(one).version for one in asked] == ["v1", "v1", "v2", "v2", "v2"]
    assert both.version == "v1"
    with pytest.raises(LogError, match=r"no policy to run it with \(v1, v2\)"):
        VersionedPolicy(log, {})


def test_a_log_that_cannot_be_run_again_says_why(path):
    with pytest.raises(LogError, match="no tick in it"):
        config_of(written(path, []))
    about = LogHeader(
        spec=FakePolicy().spec, mode="lockstep", rate_hz=100.0, seed=0, config={"loop": {"x": 1}}
    )
    sink = McapSink(path, about)
    sink.close()
    log = replace(read_log(path), tick=np.arange(3))
    with pytest.raises(LogError, match="its settings cannot be used"):
        config_of(log)
