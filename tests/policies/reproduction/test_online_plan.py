"""Plans of live fine-tunings: what they refuse, which runs they have, with which words."""

from pathlib import Path

import pytest

from controller.config import load
from controller.errors import ConfigError
from policies.reproduction.online_course import OnlineCourse
from policies.reproduction.online_plan import expand, parent_of, published_task
from policies.reproduction.online_settings import OnlinePlan
from policies.reproduction.published import TABLE_4
from tests.policies.reproduction.made import online_plan

AVERAGES = {
    "sac": 76.8, "awac": 62.3, "aca": 85.5, "o2o_diffusion_ql": 94.2, "o2o_consistency_ac": 88.0,
    "online_diffusion_ql": 67.7, "online_consistency_ac": 70.4,
}  # fmt: skip
"""As printed below the paper's table 4."""
PLANS = Path(__file__).parents[3] / "configs" / "reproduce"


def test_the_first_seed_of_everything_comes_first():
    names = [cell.name for cell in expand(online_plan())]
    assert names == [
        "maze/robust/seed_0", "maze/sac/seed_0", "hop/robust/seed_0", "hop/sac/seed_0",
        "maze/robust/seed_1", "maze/sac/seed_1", "hop/robust/seed_1", "hop/sac/seed_1",
    ]  # fmt: skip


def test_an_arm_may_be_for_some_tasks():
    arms = {"sac": {"settings": ["learn.algorithm=sac"], "tasks": ["hop"]}}
    cells = expand(online_plan(arms=arms, seeds=[0]))
    assert [cell.name for cell in cells] == ["hop/sac/seed_0"]


def test_words_of_a_run_and_what_they_resolve_to():
    robust, sac = expand(online_plan())[:2]
    words = robust.command("runs/x", Path("p"), Path("d.hdf5"))
    assert words == [
        "parent=p", "offline=d.hdf5", "task=pointmaze-medium", "live=true", "mode=lockstep",
        "steps=300", "seed=0", "out=runs/x/maze/robust/seed_0", "evaluate_episodes=2",
        "gate.every=7", "preset=robust",
    ]  # fmt: skip
    config = robust.resolve("runs/x", Path("p"), Path("d.hdf5"))
    assert (config.live, config.mode, config.steps, config.gate.every) == (True, "lockstep", 300, 7)
    config = sac.resolve("runs/x", None, None)
    assert config.parent is config.offline is None
    assert config.learn.algorithm == "sac"


def test_words_for_the_papers_preset_go_to_its_arms_alone():
    arms = {"a": {"settings": ["preset=paper"]}, "b": {"settings": ["preset=robust"]}}
    tasks = {"hop": {"task": "hopper", "paper": ["learn.grad_clip=9"]}}
    paper, robust = expand(online_plan(arms=arms, tasks=tasks, seeds=[0]))
    assert "learn.grad_clip=9" in paper.words
    assert "learn.grad_clip=9" not in robust.words


def test_parents_are_shared_or_of_each_seed_or_kept_elsewhere():
    plan = online_plan()
    robust, sac = expand(plan)[:2]
    parent = parent_of(robust, plan)
    assert parent.store("runs/x") == Path("runs/x/maze/parents/cac")
    assert parent.command("runs/x", "d.hdf5", "hopper") == [
        "algorithm=consistency_ac", "optimiser.steps=4", "observation=[observation, desired_goal]",
        "data=d.hdf5", "task=hopper", "seed=0", "out=runs/x/maze/parents/cac",
    ]  # fmt: skip
    assert parent_of(sac, plan) is None
    own = online_plan(parent_seeds=True)
    last = expand(own)[4]
    assert (last.seed, parent_of(last, own).store("o")) == (1, Path("o/maze/parents/cac/seed_1"))
    kept = online_plan(
        parent_seeds=True,
        tasks={"maze": {"task": "pointmaze-medium", "parents": {"cac": "runs/o2o/bundles"}}},
    )
    assert parent_of(expand(kept)[0], kept).store("o") == Path("runs/o2o/bundles")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": [0, 0]}, r"seeds \[0, 0\] repeat"),
        ({"settings": ["steps=3"]}, "settings: steps=3: steps is decided by the plan itself"),
        ({"settings": ["resume"]}, "settings: expected key=value, got 'resume'"),
        ({"arms": {"a": {"parent": "x"}}}, r"arms.a.parent: x is none of cac"),
        ({"arms": {"a": {"tasks": ["x"]}}}, r"arms.a.tasks: x is none of maze, hop"),
        ({"arms": {"../a": {}}}, "arms: expected a name"),
        ({"arms": {}}, "arms"),
        ({"tasks": {"t": {"task": "hopper", "parents": {"y": "z"}}}}, r"tasks.t.parents: y is no"),
        ({"tasks": {"t": {"task": "hopper", "tusk": 1}}}, "unknown key"),
    ],
)
def test_what_a_plan_refuses(changes, words):
    with pytest.raises(ConfigError, match=words):
        online_plan(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": ["gate.evry=3"]}, r"gate\.evry.*did you mean every"),
        ({"parents": {"cac": ["algorithm=cac"]}}, "algorithm"),
    ],
)
def test_words_are_checked_before_anything_begins(changes, words):
    with pytest.raises(ConfigError, match=words):
        OnlineCourse(online_plan(**changes))


@pytest.mark.parametrize(
    ("name", "cells", "steps"), [("online_first", 18, 50_000), ("online", 370, 3_000_000)]
)
def test_the_plans_that_are_shipped_are_sound(name, cells, steps):
    plan = load(OnlinePlan, PLANS / f"{name}.yaml")
    course = OnlineCourse(plan)
    assert len(course.cells) == cells
    assert {cell.steps for cell in course.cells} == {steps}
    for cell in course.cells:
        assert not cell.arm.published or cell.arm.published in next(iter(TABLE_4.values()))
        assert published_task(cell.task) in {*TABLE_4, ""}


def test_the_full_plan_has_the_papers_gym_tasks_and_gradient_norms():
    from policies.presets import TASKS

    plan = load(OnlinePlan, PLANS / "online.yaml")
    assert {published_task(task) for task in plan.tasks.values()} == {*TABLE_4, ""}
    for name in TABLE_4:
        assert plan.tasks[name].paper == (f"learn.grad_clip={TASKS[name].guide_clip:g}",)


def test_table_4_has_the_averages_that_are_printed_below_it():
    for column, mean in AVERAGES.items():
        values = [row[column].mean for row in TABLE_4.values()]
        assert sum(values) / len(values) == pytest.approx(mean, abs=0.051), column
