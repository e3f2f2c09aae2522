from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from controller.histogram import Histogram
from controller.log import McapSink
from controller.log_reader import read_log
from controller.log_schema import DROPPED
from controller.stats import (
    MAX_LATE,
    Latency,
    LateStep,
    Rungs,
    answers,
    corrected,
    late,
    latency,
    missed_between,
    normalised,
    skipped_after,
    stages,
    summarise,
    work,
)
from controller.types import Mode, Reason, Rung
from tests.controller.records import PERIOD_NS, header, tick, written


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.mcap"


def sent(number, after_ns):
    return {"sent_ns": number * PERIOD_NS + after_ns, "total_ns": after_ns}


def between(number, **changes):
    """A tick that holds because the episode is over."""
    return tick(
        number, mode=Mode.HOLD, rung=Rung.HOLD, reasons=int(Reason.EPISODE), version="",
        answer_tick=-1, transport_ns=-1, queue_ns=-1, infer_ns=-1, **changes,
    )  # fmt: skip


def test_fields_are_those_of_the_command_line(path):
    fields = json.loads(msgspec.json.encode(summarise(written(path, [tick(0)]))))
    assert list(fields)[:11] == [
        "rate_hz", "ticks", "missed", "return", "score", "success", "episodes", "rungs",
        "versions", "stages", "log",
    ]  # fmt: skip
    assert list(fields["rungs"]) == ["fresh", "tail", "local", "hold", "stop", "human"]
    assert list(fields["stages"]) == [
        "wake", "observe", "transport", "queue", "infer", "act", "rest", "total",
    ]  # fmt: skip
    assert list(fields["stages"]["total"]) == ["p50", "p99", "p99_9", "max"]
    assert fields["log"] == str(path)


def test_late_physics_by_hand(path):
    """At 100 Hz the plant makes two steps in four periods, both late; the loop sees the second.

    A late step before the first tick is not the run's. Time between episodes counts nowhere.
    """
    ms = 1_000_000
    rows = [
        # tick, stamp in ms, episode, step, late_us, late_steps
        (0, 0, 0, 0, 0, 1),
        (1, 10, 0, 1, 0, 1),
        (2, 20, 0, 2, 0, 1),
        (3, 20, 0, 2, 0, 1),
        (6, 60, 0, 4, 15_000, 3),
        (7, 70, 0, 5, 0, 3),
        (8, 80, 0, 5, 0, 3),
        (9, 200, 1, 0, 0, 3),
        (10, 210, 1, 1, 2_500, 4),
    ]
    records = [
        tick(n, stamp_ns=at * ms, episode=episode, step=step, late_ns=us * 1000, late_steps=late,
             terminated=n in (7, 8))
        for n, at, episode, step, us, late in rows
    ]  # fmt: skip
    about = header(mode="realtime", plant={"substeps": 4})
    report = summarise(written(path, records, about))
    assert report.real_time_factor == (5 + 1) / (7 + 1)
    assert report.late_steps == 3
    assert report.late == [LateStep(6, 0, 4, 2, 15_000.0), LateStep(10, 1, 1, 1, 2_500.0)]
    assert report.plant == {"substeps": 4}
    assert summarise(written(path, records)).real_time_factor is None


def test_the_list_of_late_steps_is_capped(path):
    records = [tick(n, late_ns=1000, late_steps=n) for n in range(MAX_LATE + 50)]
    report = summarise(written(path, records, header(mode="realtime")))
    assert report.late_steps == MAX_LATE + 49
    assert len(report.late) == MAX_LATE
    assert report.late[0].tick == 1


def test_a_small_run_by_hand(path):
    records = [
        tick(0, **sent(0, 1_000_000), success=False, episode_return=0.0),
        # Leaves exactly at the next deadline: on time.
        tick(1, **sent(1, PERIOD_NS), episode_return=1.0),
        # A nanosecond after it: missed. Then two periods pass without a tick.
        tick(2, **sent(2, PERIOD_NS + 1), rung=Rung.TAIL, reasons=int(Reason.LATE)),
        tick(5, **sent(5, 1_000_000), rung=Rung.LOCAL, reasons=int(Reason.LATE | Reason.SLEW)),
        between(6, **sent(6, 1_000_000), terminated=True, success=True, episode_return=6.0),
        between(7, **sent(7, 1_000_000), terminated=True, success=True, episode_return=6.0),
        tick(8, **sent(8, 1_000_000), episode=1, step=0, episode_return=0.0, version="v2"),
        between(9, **sent(9, 1_000_000), episode=1, truncated=True, episode_return=-2.0),
        # Unfinished.
        tick(10, **sent(10, 1_000_000), episode=2, step=0, episode_return=50.0, version="v1"),
    ]
    report = summarise(written(path, records), reference=(-2.0, 14.0))
    assert report.ticks == 9
    assert report.skipped == 2
    assert report.missed == 3
    assert report.episodes == 2
    assert report.episode_returns == [6.0, -2.0]
    assert report.return_ == 2.0
    # (6 + 2) / 16 and 0 / 16.
    assert report.score == 25.0
    assert report.success == 0.5
    assert not report.partial
    assert report.rungs == Rungs(fresh=4, tail=1, local=1, hold=3)
    assert report.holds_between_episodes == 3
    assert report.versions == ["v1", "v2"]
    assert report.reasons == {"slew": 1, "late": 2, "episode": 3}
    # Ten periods in 100 ms, two of them without a command.
    assert report.rate_hz == pytest.approx(80.0)
    assert report.seconds == pytest.approx(0.101)
    assert report.stages["total"].max == pytest.approx(10_000.001)
    assert report.stages["transport"] == Latency(300.0, 300.0, 300.0, 300.0)
    assert not report.truncated


def test_an_unfinished_episode_is_reported_as_partial(path):
    log = written(path, [tick(0), tick(1, episode_return=0.25, success=True)])
    assert summarise(log, has_success=False).success is None
    report = summarise(log)
    assert report.partial
    assert (report.episodes, report.return_, report.success) == (0, 0.25, 1.0)
    assert report.episode_returns == []
    assert report.score is None


def test_a_run_without_a_tick_has_no_figures(path):
    report = summarise(written(path, []), reference=(0.0, 1.0))
    assert (report.ticks, report.missed, report.rate_hz, report.seconds) == (0, 0, 0.0, 0.0)
    assert (report.return_, report.score, report.success) == (None, None, None)
    assert set(report.stages.values()) == {None}
    assert not report.partial


def test_stages_without_a_sample_are_absent(path):
    report = summarise(written(path, [between(0), between(1)]))
    assert report.stages["infer"] is None
    assert report.stages["act"] is not None


@pytest.mark.parametrize(
    ("times_ns", "expected"),
    [
        # 1..1000 µs: p50 lies between 500 and 501, p99 between 990 and 991.
        (np.arange(1, 1001) * 1000, Latency(501.0, 991.0, 1000.0, 1000.0)),
        (np.array([3000, -1, 1000, -1]), Latency(3.0, 3.0, 3.0, 3.0)),
        (np.array([0]), Latency(0.0, 0.0, 0.0, 0.0)),
        (np.array([-1, -1]), None),
    ],
)
def test_percentiles_are_ranks_to_three_digits(times_ns, expected):
    found = latency(times_ns)
    if expected is None:
        assert found is None
    else:
        assert msgspec.structs.astuple(found) == pytest.approx(
            msgspec.structs.astuple(expected), rel=1e-3
        )


def test_p99_9_of_ten_thousand_leaves_out_the_ten_worst():
    times_ns = np.concatenate([np.full(9990, 1000), np.full(10, 9_000_000)])
    np.random.default_rng(0).shuffle(times_ns)
    figures = latency(times_ns)
    assert (figures.p99, figures.p99_9, figures.max) == (1.0, 9000.0, 9000.0)
    assert latency(np.concatenate([np.full(9992, 1000), np.full(8, 9_000_000)])).p99_9 == 1.0


def test_dropped_records_are_no_skipped_periods(path):
    sink = McapSink(path, header())
    sink.tick(tick(0))
    # Ticks 1 to 5: of these 1, 2 and 5 ran and were lost on the way to the log.
    sink.event(0, DROPPED, '{"ticks":3,"events":2,"first":1,"last":5}')
    sink.tick(tick(6))
    sink.tick(tick(8))
    sink.close()
    log = read_log(path)
    assert log.dropped == 5
    assert skipped_after(log).tolist() == [2, 1, 0]
    report = summarise(log)
    assert (report.skipped, report.missed, report.dropped) == (3, 3, 5)
    # Eight periods, three of them without a command.
    assert report.rate_hz == pytest.approx(5 / 0.08)


def test_drops_after_the_last_tick_change_no_figure(path):
    sink = McapSink(path, header())
    sink.tick(tick(0))
    sink.tick(tick(1))
    sink.event(0, DROPPED, '{"ticks":3,"events":0,"first":2,"last":4}')
    sink.event(0, DROPPED, "nonsense")
    sink.close()
    report = summarise(read_log(path))
    assert (report.skipped, report.dropped) == (0, 4)
    assert report.rate_hz == pytest.approx(100.0)


def test_missed_ticks_of_a_time_span(path):
    records = [tick(0), tick(1, **sent(1, PERIOD_NS + 5)), tick(2), tick(6), tick(7)]
    log = written(path, records)
    assert late(log).tolist() == [False, True, False, False, False]
    assert missed_between(log, 0, 10 * PERIOD_NS) == 4
    assert missed_between(log, 0, 1 * PERIOD_NS) == 1
    assert missed_between(log, 2 * PERIOD_NS + 5, 10 * PERIOD_NS) == 4
    assert missed_between(log, 6 * PERIOD_NS, 10 * PERIOD_NS) == 0


def test_the_period_is_that_of_the_loop(path):
    records = [tick(0, sent_ns=15_000_000), tick(1)]
    assert summarise(written(path, records)).missed == 1
    assert summarise(written(path, records, header(rate_hz=50.0))).missed == 0


def test_scores_are_zero_and_hundred_at_the_references():
    assert [normalised(value, (5.0, 25.0)) for value in (5.0, 25.0, 0.0)] == [0.0, 100.0, -25.0]


def test_a_cut_log_is_reported_as_such(path):
    written(path, [tick(n) for n in range(5)])
    path.write_bytes(path.read_bytes()[:-600])
    assert summarise(read_log(path)).truncated


def test_stages_add_up_to_the_tick(path):
    late = int(Reason.LATE)
    records = [
        tick(0, total_ns=510_000),
        # No answer came: what the tick waited is in no stage but the rest.
        tick(1, rung=Rung.TAIL, reasons=late, transport_ns=-1, queue_ns=-1, infer_ns=-1),
        between(2),
    ]
    log = written(path, records)
    found = stages(log)
    assert found["rest"].tolist() == [0, 2_000_000 - 90_000, 2_000_000 - 90_000]
    parts = [times.clip(min=0) for name, times in found.items() if name != "total"]
    np.testing.assert_array_equal(np.sum(parts, axis=0), found["total"])
    assert work(log).tolist() == [460_000, 1_950_000, 1_950_000]
    report = summarise(log)
    assert report.stages["rest"].p50 == pytest.approx(1910.0, rel=1e-3)
    assert report.work.max == 1950.0


def test_skipped_periods_wait_for_the_next_command(path):
    """Two overruns: after tick 1 two periods pass, after tick 6 one; 3 and 1 ms after the grid."""
    records = [
        tick(0, **sent(0, 1_000_000)),
        tick(1, **sent(1, 34_000_000)),
        tick(4, **sent(4, 5_000_000)),
        tick(5, **sent(5, 2_000_000)),
        tick(6, **sent(6, 21_000_000)),
        tick(8, **sent(8, 3_000_000)),
    ]
    log = written(path, records)
    ran = [1_000_000, 34_000_000, 5_000_000, 2_000_000, 21_000_000, 3_000_000]
    # Due at 20 and 30 ms, the command of tick 4 at 45 ms; due at 70 ms, that of tick 8 at 83 ms.
    assert corrected(log).tolist() == [*ran, 25_000_000, 15_000_000, 13_000_000]
    report = summarise(log)
    assert report.corrected.p50 == pytest.approx(13_000.0, rel=1e-3)
    assert report.stages["total"].p50 == pytest.approx(5_000.0, rel=1e-3)


def test_ticks_that_only_the_log_lost_are_not_corrected_for(path):
    sink = McapSink(path, header())
    sink.tick(tick(0))
    sink.event(0, DROPPED, '{"ticks":2,"events":0,"first":1,"last":2}')
    sink.tick(tick(3))
    sink.close()
    assert corrected(read_log(path)).tolist() == [2_000_000, 2_000_000]


def test_histograms_hold_every_tick(path):
    log = written(path, [tick(n, total_ns=1_000_000 * (n + 1)) for n in range(20)])
    kept = summarise(log).histograms
    assert set(kept) == {*stages(log), "corrected"}
    whole = Histogram.decoded(kept["total"])
    assert len(whole) == 20
    assert whole.at_us((50.0,))[0] == pytest.approx(11_000.0, rel=1e-3)


def test_an_answer_counts_once_however_many_ticks_its_rows_act(path):
    chunks = [
        (0, 30_000_000),
        (0, 30_000_000),
        (0, 30_000_000),
        (3, 10_000_000),
        (4, 10_000_000),
        (-1, -1),
        (5, -1),
    ]
    log = written(path, [tick(n, answer_tick=of, rtt_ns=rtt) for n, (of, rtt) in enumerate(chunks)])
    assert answers(log).tolist() == [30_000_000, 10_000_000, 10_000_000]
    report = summarise(log)
    assert report.answers.max == pytest.approx(30_000.0, rel=1e-3)
    assert report.answers.p50 == pytest.approx(10_000.0, rel=1e-3)
