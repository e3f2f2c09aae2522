import numpy as np
import pytest

from controller.demo import REST_TICKS, Drive, prepare, swap_facts, under_way
from controller.settings import DemoConfig
from tests.controller.records import PERIOD_NS, header, tick, written


def test_an_earlier_demo_is_kept_under_another_name(tmp_path):
    out = tmp_path / "demo"
    for text in ("first", "second"):
        prepare(out)
        assert list(out.iterdir()) == []
        (out / "report.json").write_text(text)
    prepare(out)
    assert (tmp_path / "demo.old" / "report.json").read_text() == "second"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo", "demo.old"]


def test_an_empty_directory_is_not_an_earlier_demo(tmp_path):
    out = tmp_path / "demo"
    out.mkdir()
    prepare(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo"]


def test_only_the_way_to_the_goal_is_animated(tmp_path):
    reached, length = 10, 10 + 2 * REST_TICKS
    records = [tick(n, episode=0, success=n >= reached) for n in range(length)]
    records += [tick(length + n, episode=1) for n in range(7)]
    rows = under_way(written(tmp_path / "log.mcap", records))
    assert np.flatnonzero(rows).tolist() == [
        *range(reached + REST_TICKS),
        *range(length, length + 7),
    ]


LEARNED = {
    "updates": 3,
    "seconds": 0.5,
    "env_steps": 40,
    "version_before": "old",
    "version_after": "new",
    "rejected_versions": 0,
    "reasons": [],
}


@pytest.mark.parametrize(("late_tick", "missed"), [(10, 0), (25, 1), (35, 1), (199, 0)])
def test_a_swap_is_charged_with_the_misses_from_learner_to_a_second_after(
    tmp_path, late_tick, missed
):
    records = []
    for n in range(200):
        late = {"sent_ns": (n + 1) * PERIOD_NS + 1} if n == late_tick else {}
        records.append(tick(n, version="old" if n < 30 else "new", **late))
    log = written(tmp_path / "log.mcap", records, header(rate_hz=100.0))
    drive = Drive(DemoConfig(), tmp_path)
    drive.learned = LEARNED
    drive.started_ns, drive.asked_ns = 20 * PERIOD_NS, 29 * PERIOD_NS
    facts = swap_facts(log, drive)
    assert facts.ticks_missed_in_swap == missed
    assert facts.swap_ms == pytest.approx((log.sent_ns[30] - drive.asked_ns) / 1e6)
    assert (facts.version_before, facts.version_after) == ("old", "new")


def test_a_refused_version_is_charged_with_the_misses_of_its_learning(tmp_path):
    records = []
    for n in range(200):
        late = {"sent_ns": (n + 1) * PERIOD_NS + 1} if n in (10, 25, 120, 199) else {}
        records.append(tick(n, version="old", **late))
    log = written(tmp_path / "log.mcap", records, header(rate_hz=100.0))
    drive = Drive(DemoConfig(), tmp_path)
    drive.learned = LEARNED | {
        "version_after": "old",
        "rejected_versions": 1,
        "reasons": ["too far away"],
    }
    drive.started_ns, drive.asked_ns = 20 * PERIOD_NS, 29 * PERIOD_NS
    facts = swap_facts(log, drive)
    assert (facts.swap_ms, facts.version_after, facts.refused) == (None, "old", "too far away")
    # A second after tick 29 is tick 129.
    assert facts.ticks_missed_in_swap == 2
