"""When versions count as worse or better, against hand calculation and by simulation."""

import numpy as np
import pytest

from controller.errors import WireError
from policies.finetuning.versions import (
    Began,
    Judged,
    Proven,
    Published,
    RolledBack,
    standing_of,
)
from policies.finetuning.watch import Fell, Watch, better, error_of, worse

V1 = [Began(version="v1")]


def line_of(*versions):
    events = list(V1)
    for version in versions:
        events.append(Judged(version=version, parent="v1", outcome="accepted"))
        events.append(Published(version=version, published_ns=1))
    return events


def report(*runs, start=0):
    """Return a report of runs (version, returns)."""
    told = [(version, float(value)) for version, values in runs for value in values]
    episodes = [
        {
            "return": value,
            "version": version,
            "env_step": 10 * (start + at + 1),
            "length": 10,
            "commanded": 10,
            "mixed": False,
            "actor": "arm",
        }
        for at, (version, value) in enumerate(told)
    ]
    return {"episodes": episodes, "next": start + len(told)}


def watching(*runs, window=4, margin=0.2):
    watch = Watch(window, margin)
    watch.take(report(*runs))
    return watch


def test_the_error_of_a_difference_by_hand():
    # Variances 1 and 4 of 3 and 2 values: sqrt(1/3 + 2/2).
    assert error_of([1, 2, 3], [0, 2]) == pytest.approx(np.sqrt(1 / 3 + 2 / 2))
    assert error_of([5], [7]) == 0.0


@pytest.mark.parametrize(
    ("after", "before", "margin", "expected"),
    [
        ([79.0] * 4, [100.0] * 4, 0.2, True),
        ([81.0] * 4, [100.0] * 4, 0.2, False),
        # A share of the size, whatever the sign.
        ([-121.0] * 4, [-100.0] * 4, 0.2, True),
        ([-119.0] * 4, [-100.0] * 4, 0.2, False),
        # 30 lower, but off by 3 * sqrt(2 * 2133 / 4) = 98 either way.
        ([30.0, 110, 30, 110], [60.0, 140, 60, 140], 0.2, False),
        ([0.0], [0.0], 0.0, False),
        ([-0.1], [0.0], 0.0, True),
    ],
)
def test_what_is_worse(after, before, margin, expected):
    assert worse(after, before, margin) is expected


@pytest.mark.parametrize(
    ("after", "before", "expected"),
    [([101.0] * 4, [100.0] * 4, True), ([90.0, 130] * 2, [80.0, 120] * 2, False)],
)
def test_what_is_better(after, before, expected):
    assert better(after, before) is expected


@pytest.mark.parametrize(
    ("versions", "runs", "expected"),
    [
        # Nothing after the first.
        ((), [("v1", [100] * 8)], None),
        # Too few episodes of later versions, of the first, then enough of both.
        (("v2",), [("v1", [100] * 8), ("v2", [1] * 3)], None),
        (("v2",), [("v1", [100] * 3), ("v2", [1] * 8)], None),
        (("v2",), [("v1", [100] * 8), ("v2", [1] * 4)], Fell),
        # As good, a little worse, better.
        (("v2",), [("v1", [100] * 8), ("v2", [100] * 4)], None),
        (("v2",), [("v1", [100] * 8), ("v2", [85] * 4)], None),
        (("v2",), [("v1", [100] * 8), ("v2", [150] * 4)], Proven),
        # Versions that come faster than episodes end are judged together.
        (("v2", "v3", "v4"), [("v1", [100] * 8), ("v2", [1]), ("v3", [1, 1]), ("v4", [1])], Fell),
        # The newest count: what fell once and has recovered does not fall.
        (("v2", "v3"), [("v1", [100] * 8), ("v2", [1] * 3), ("v3", [100] * 4)], None),
        # Versions that nobody knows of say nothing.
        (("v2",), [("v1", [100] * 8), ("v9", [1] * 8)], None),
    ],
)
def test_what_episodes_say(versions, runs, expected):
    found = watching(*runs).judge(standing_of(line_of(*versions)))
    assert (None if found is None else type(found)) is expected


def test_what_fell_is_told_in_a_line():
    found = watching(("v1", [100] * 4), ("v2", [10] * 4)).judge(standing_of(line_of("v2")))
    assert found.why == (
        "mean return 10 over the last 4 episodes, below 100 of v1 by more than 0.2 of it"
    )


def test_the_version_of_most_episodes_is_proven():
    runs = [("v1", [100] * 4), ("v2", [150]), ("v3", [150] * 2), ("v4", [150])]
    found = watching(*runs).judge(standing_of(line_of("v2", "v3", "v4")))
    assert found == Proven(version="v3", returns=(150.0,) * 4, env_steps=80)


def test_what_was_proven_is_the_measure_from_then_on():
    events = [*line_of("v2", "v3"), Proven(version="v2", returns=(200.0,) * 4, env_steps=80)]
    standing = standing_of(events)
    watch = watching(("v1", [100] * 4), ("v2", [200] * 4), ("v3", [150] * 4))
    assert isinstance(watch.judge(standing), Fell)
    # Its own episodes since count as well: 8 of 200 and 140 in the mean, 4 of 150 after.
    standing = standing_of([*events[:-1], Proven(version="v2", returns=(200.0,) * 4, env_steps=0)])
    watch = watching(("v2", [140] * 4), ("v3", [150] * 4))
    assert watch.judge(standing) is None


def test_episodes_of_what_was_taken_back_say_nothing_more():
    back = RolledBack(version="v2", to="v1", why="", dropped=("v2",), published_ns=1)
    standing = standing_of([*line_of("v2"), back, *line_of("v3")[1:]])
    watch = watching(("v1", [100] * 4), ("v2", [1] * 4), ("v3", [1] * 3))
    assert watch.judge(standing) is None


def test_a_first_version_without_episodes_is_measured_in_simulation():
    watch = watching(("v1", [100]), ("v2", [10] * 4))
    standing = standing_of(line_of("v2"))
    asked = []
    assert watch.judge(standing, lambda version: asked.append(version)) is None
    assert asked == ["v1"]
    assert isinstance(watch.judge(standing, lambda version: [100.0, 101.0]), Fell)
    assert watch.judge(standing, lambda version: [10.0, 11.0]) is None


def test_episodes_in_which_others_had_the_word_say_nothing():
    watch = Watch(2, 0.2)
    told = report(("v1", [1, 2, 3, float("nan")]))
    told["episodes"][0]["commanded"] = 4
    told["episodes"][1]["commanded"] = 5
    watch.take(told)
    assert watch.recent_mean == 2.5


def test_a_service_that_went_back_is_asked_from_the_beginning():
    watch = watching(("v1", [1, 2, 3]))
    watch.take(report(("v1", []), start=1))
    assert (watch.following, watch.recent_mean) == (0, None)
    watch.take(report(("v1", [5])))
    assert (watch.following, watch.recent_mean) == (1, 5.0)


@pytest.mark.parametrize("nonsense", [{}, {"next": 1}, {"next": 1, "episodes": [{"return": "x"}]}])
def test_a_report_that_is_none(nonsense):
    with pytest.raises(WireError, match="the report on episodes"):
        Watch(2, 0.2).take(nonsense)


def rolled_back(spread, quality, windows=40, window=10, seeds=60):
    """Return the share of runs with a rollback, of returns 100 and then ``quality``."""
    events, count = line_of("v2"), 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        watch = watching(("v1", rng.normal(100, spread, 2 * window)), window=window)
        for _ in range(windows):
            returns = rng.normal(quality, spread, window // 2)
            watch.take(report(("v2", returns), start=watch.following))
            if isinstance(watch.judge(standing_of(events)), Fell):
                count += 1
                break
    return count / seeds


def test_equals_are_seldom_taken_back_and_failures_always():
    """Returns spread by a quarter: 200 episodes of an equal, and of one half as good."""
    assert rolled_back(25, 100) <= 0.1
    assert rolled_back(25, 50) == 1.0
