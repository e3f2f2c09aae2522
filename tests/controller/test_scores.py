"""What episodes come to, and runs together, worked out by hand."""

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from controller.score_tables import facts_of, print_evaluations
from controller.scores import Evaluation, figures, groups
from controller.statistics import interval, iqm, mean_interval


def evaluation(mean: float = 1.0, score: float | None = 10.0, **changes: object) -> Evaluation:
    base = Evaluation(
        episodes=2,
        return_mean=mean,
        return_std=0.5,
        return_ci95=(0.0, 2.0),
        score_mean=score,
        score_ci95=None if score is None else (score - 1, score + 1),
        success=None,
        length_mean=3.0,
        episode_returns=[mean - 0.5, mean + 0.5],
        bundle="runs/x/v0001",
        version="v0001-abcd",
        algorithm="consistency_bc",
        task="hopper",
        seed=0,
        through="vector",
        copies=2,
        engine="numpy",
        device="cpu",
        steps=1,
        candidates=1,
        select=None,
        action_us_p50=31.4,
        selection="last",
        checkpoints=1,
        updates=1000,
        seconds=2.0,
        note=None,
    )
    return msgspec.structs.replace(base, **changes)


def test_figures_by_hand():
    got = figures([10.0, 30.0, 20.0], [4, 6, 8], [True, False, True], (0.0, 40.0))
    assert (got.episodes, got.return_mean, got.length_mean) == (3, 20.0, 6.0)
    assert got.return_std == pytest.approx(np.sqrt(200 / 3))
    assert got.score_mean == 50.0
    assert got.success == pytest.approx(2 / 3)
    assert got.episode_returns == [10.0, 30.0, 20.0]


def test_the_interval_of_the_score_is_that_of_the_return_on_its_scale():
    returns = np.random.default_rng(0).normal(900.0, 300.0, 25)
    got = figures(returns, np.ones(25), None, (-20.0, 3234.0))
    assert got.return_ci95 == mean_interval(returns)
    low, high = (100 * (end + 20.0) / 3254.0 for end in got.return_ci95)
    assert got.score_ci95 == pytest.approx((low, high))
    assert got.score_ci95[0] < got.score_mean < got.score_ci95[1]


def test_a_task_without_reference_or_success_has_null_there():
    got = figures([1.0], [2], None, None)
    assert (got.score_mean, got.score_ci95, got.success) == (None, None, None)
    assert got.return_ci95 == (1.0, 1.0)


def test_runs_of_one_task_by_hand():
    scores = [10.0, 50.0, 20.0, 90.0]
    (group,) = groups([evaluation(score * 2, score, success=0.5) for score in scores])
    assert (group.task, group.tasks, group.policies, group.episodes) == ("hopper", 1, 4, 8)
    assert group.return_mean == 85.0
    assert group.score_mean == 42.5
    assert group.score_std == pytest.approx(np.std(scores))
    assert group.score_iqm == 35.0
    assert group.score_iqm_ci95 == interval([scores], iqm)
    assert group.success == 0.5


def test_each_way_of_acting_stands_for_itself():
    ways = [
        evaluation(),
        evaluation(steps=2),
        evaluation(candidates=50, select="softmax"),
        evaluation(selection="offline"),
        evaluation(algorithm="diffusion_bc"),
    ]
    assert [group.policies for group in groups([*ways, ways[0]])] == [2, 1, 1, 1, 1]


def test_several_tasks_are_summed_up_with_their_runs_apart():
    runs = [evaluation(score=score) for score in (10.0, 20.0, 30.0)]
    runs += [evaluation(score=score, task="walker2d") for score in (70.0, 80.0)]
    first, second, both = groups(runs)
    assert (first.task, first.policies, second.task, second.policies) == (
        "hopper",
        3,
        "walker2d",
        2,
    )
    assert (both.task, both.tasks, both.policies) == (None, 2, 5)
    assert both.score_mean == 42.0
    assert both.score_iqm == 40.0
    assert both.score_iqm_ci95 == interval([[10.0, 20.0, 30.0], [70.0, 80.0]], iqm)
    assert (both.return_mean, both.score_std) == (None, None)


def test_one_run_has_no_interval_and_tasks_without_score_are_not_averaged():
    runs = [evaluation(score=None), evaluation(score=None, task="maze"), evaluation(task="cheetah")]
    assert [group.task for group in groups(runs)] == ["hopper", "maze", "cheetah"]
    for group in groups(runs):
        assert group.score_iqm_ci95 is None
    assert groups(runs)[0].score_iqm is None


def test_one_policy_in_words():
    facts = facts_of(evaluation(1.25, 43.21, candidates=50, select="argmax", success=0.4))
    assert facts["return"] == "1.2 ± 0.5, 95 % 0.0 to 2.0"
    assert facts["score"] == "43.2, 95 % 42.2 to 44.2"
    assert facts["success"] == "40%"
    assert facts["action"] == "1 step, argmax of 50, 31 µs (numpy, cpu)"
    assert "note" not in facts


def test_what_is_not_known_of_one_policy_is_left_out():
    facts = facts_of(evaluation(score=None, note="an upper bound", selection="online"))
    assert "score" not in facts
    assert "success" not in facts
    assert facts["note"] == "an upper bound"


def test_several_policies_by_what_tells_them_apart_and_each_note_once():
    text = io.StringIO()
    note = "selection=online: an upper bound"
    runs = [
        evaluation(bundle="runs/x/seed_0/v1", note=note),
        evaluation(bundle=str(Path.cwd() / "runs/x/seed_1/v1"), note=note, score=55.5),
    ]
    print_evaluations(runs, Console(file=text, width=80))
    lines = text.getvalue().splitlines()
    assert lines[0].strip() == "runs/x · hopper"
    assert [line.split()[0] for line in lines[2:4]] == ["seed_0/v1", "seed_1/v1"]
    assert "54.5 to 56.5" in lines[3]
    assert "consistency_bc, 1 step" in text.getvalue()
    assert text.getvalue().count(note) == 1
