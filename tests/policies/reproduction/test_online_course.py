"""What a plan of live fine-tunings still needs, by what is there; no process is started here."""

import json

import pytest

from controller.config import to_yaml
from policies.data.d4rl import write_d4rl
from policies.data.places import CACHE_VARIABLE, D4RL_VARIABLE, LOCAL_VARIABLE
from policies.reproduction.online_course import OnlineCourse
from policies.reproduction.online_page import PAGE, POINTS, RESULTS, write
from policies.reproduction.sources import NO_POLICIES
from policies.train import train
from policies.train_state import exclusive
from tests.policies.reproduction.made import online_plan
from tests.policies.reproduction.test_online_results import LINE, RESULT
from tests.policies.reproduction.test_standing import stopped_after
from tests.policies.robots import SPEC, toy_data

TRAIN = [
    "algorithm=consistency_bc", "optimiser={steps: 4, batch: 32}", "network.hidden=[8]",
    "critic.hidden=[8]", "tensorboard=false",
]  # fmt: skip


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """A machine without published datasets and behaviour policies."""
    for name in (LOCAL_VARIABLE, CACHE_VARIABLE, D4RL_VARIABLE):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))


@pytest.fixture
def made(tmp_path):
    """A maker of plans on a toy robot; its data are there."""
    file = tmp_path / "toy.hdf5"
    write_d4rl(file, toy_data(), SPEC)

    def make(**changes):
        base = {
            "out": str(tmp_path / "runs"),
            "docs": str(tmp_path / "docs"),
            "tasks": {"toy": {"task": "toy", "data": [str(file)]}},
            "parents": {"cac": TRAIN},
            "seeds": [0],
        }
        return online_plan(**(base | changes))

    return make


def names(jobs):
    return [job.name for job in jobs]


def learn(course, index=0, count=None):
    """Train the parent of a run, or stop it after so many updates."""
    parent = course._parents[course.cells[index].name]
    data = str(course._offline["toy"].path)
    store = parent.store(course.config.out)
    train(parent.resolve(data), toy_data(), SPEC, store,
          should_stop=stopped_after(count) if count else None)  # fmt: skip
    return store


def end(course, index, **changes):
    """Leave what a run leaves at its end."""
    cell = course.cells[index]
    store = cell.store(course.config.out)
    store.mkdir(parents=True, exist_ok=True)
    (store / "finetune.yaml").write_text(to_yaml(course._settings(cell)))
    (store / "curve.jsonl").write_text(json.dumps(LINE) + "\n")
    (store / "result.json").write_text(json.dumps(RESULT | changes))
    return store


def test_a_parent_is_trained_once_and_its_runs_come_of_it(made):
    course = OnlineCourse(made(seeds=[0, 1]))
    jobs = course.jobs()
    assert names(jobs) == ["train toy/parents/cac", "finetune toy/sac/seed_0",
                           "finetune toy/sac/seed_1"]  # fmt: skip
    assert jobs[0].verb == "train"
    assert jobs[0].words[-3:] == ["seed=0", f"out={course.config.out}/toy/parents/cac", "--json"]
    learn(course)
    after = jobs[0].after()
    assert names(after) == ["finetune toy/robust/seed_0", "finetune toy/robust/seed_1"]
    assert after[0].words[0] == f"parent={course.config.out}/toy/parents/cac"
    assert "resume=true" not in after[0].words
    assert after[0].words[-1] == "--json"


def test_a_parent_of_each_seed_is_trained_with_it(made):
    jobs = OnlineCourse(made(seeds=[0, 1], parent_seeds=True)).jobs()
    assert names(jobs)[::2] == ["train toy/parents/cac/seed_0", "train toy/parents/cac/seed_1"]
    assert "seed=1" in jobs[2].words


def test_a_parent_that_was_stopped_goes_on_and_one_at_work_elsewhere_is_waited_for(made):
    course = OnlineCourse(made())
    store = learn(course, count=2)
    course = OnlineCourse(made())
    first = course.jobs()[0]
    assert (first.verb, first.words[-2]) == ("train", "resume=true")
    with exclusive(store):
        assert first.skip()
    assert course.tally.waiting == {
        "toy/robust/seed_0": f"parent {store}: another process is training it"
    }
    assert not first.skip()


def test_a_parent_that_fails_is_told_of_its_runs(made):
    course = OnlineCourse(made())
    course.jobs()[0].failed("it went wrong")
    assert course.tally.failed == {"toy/parents/cac": "it went wrong"}
    assert course.reasons()["toy/robust/seed_0"] == "its parent failed: it went wrong"


def test_a_parent_with_other_settings_is_not_taken(made):
    learn(OnlineCourse(made()))
    other = OnlineCourse(made(parents={"cac": [*TRAIN, "optimiser.steps=5"]}))
    assert names(other.jobs()) == ["finetune toy/sac/seed_0"]
    assert "finished run of other settings" in other.tally.failed["toy/robust/seed_0"]


def test_data_are_made_before_what_wants_them_and_not_before_the_rest(made, tmp_path):
    absent = tmp_path / "made" / "new.hdf5"
    task = {"task": "toy", "data": [str(absent)], "generate": ["pointmaze-medium", "steps=9"]}
    course = OnlineCourse(made(tasks={"toy": task}))
    jobs = course.jobs()
    assert names(jobs) == ["data toy", "finetune toy/sac/seed_0"]
    assert jobs[0].words == ["pointmaze-medium", "steps=9", f"out={absent}", "processes=1"]
    absent.parent.mkdir()
    write_d4rl(absent, toy_data(), SPEC)
    assert names(jobs[0].after()) == ["train toy/parents/cac"]


def test_data_that_cannot_be_had_leave_the_rest_of_the_plan(made):
    task = {"task": "toy", "data": ["hopper-medium-v2", "hopper-medium-regen"]}
    course = OnlineCourse(made(tasks={"toy": task}))
    assert names(course.jobs()) == ["finetune toy/sac/seed_0"]
    assert "D4RL's file is not on this machine" in course.tally.waiting["toy/robust/seed_0"]
    recipe = {"task": "toy", "data": ["x.hdf5"], "generate": ["hopper-medium-regen", "steps=9"]}
    course = OnlineCourse(made(tasks={"toy": recipe}))
    assert names(course.jobs()) == ["finetune toy/sac/seed_0"]
    assert NO_POLICIES in course.tally.waiting["toy/robust/seed_0"]


def test_recipes_are_told_where_their_policies_are(made, tmp_path):
    (tmp_path / "p").mkdir()
    recipe = {"task": "toy", "data": ["x.hdf5"], "generate": ["hopper-medium-regen", "steps=9"]}
    course = OnlineCourse(made(tasks={"toy": recipe}, policies=str(tmp_path / "p")))
    assert f"policies={tmp_path / 'p'}" in course.jobs()[0].words


def test_a_finished_run_is_done_and_one_that_was_stopped_goes_on(made):
    arms = {"sac": {"settings": ["learn.algorithm=sac"]}}
    course = OnlineCourse(made(arms=arms, seeds=[0, 1, 2]))
    end(course, 0)
    end(course, 1, env_steps=150)
    end(course, 2, after={"version": "v0001-00000000", "score_mean": None})
    jobs = course.jobs()
    assert names(jobs) == ["finetune toy/sac/seed_1", "finetune toy/sac/seed_2"]
    assert all("resume=true" in job.words for job in jobs)
    assert set(course.reasons()) == {"toy/sac/seed_1", "toy/sac/seed_2"}
    assert course.progress() == (300, 900)


def test_a_run_of_other_settings_is_not_gone_on_with(made):
    arms = {"sac": {"settings": ["learn.algorithm=sac"]}}
    end(OnlineCourse(made(arms=arms)), 0, env_steps=150)
    arms = {"sac": {"settings": ["learn.algorithm=sac", "learn.batch=7"]}}
    other = OnlineCourse(made(arms=arms))
    assert other.jobs() == []
    told = other.tally.failed["toy/sac/seed_0"]
    assert "other settings: it has learn.batch=256, the plan 7" in told
    # What makes no other experiment of it may change.
    arms = {"sac": {"settings": ["learn.algorithm=sac", "niceness=0", "threads=2"]}}
    assert names(OnlineCourse(made(arms=arms)).jobs()) == ["finetune toy/sac/seed_0"]


def test_page_and_csv_keep_what_other_machines_have_written(made, tmp_path):
    arms = {"sac": {"settings": ["learn.algorithm=sac"]}}
    course = OnlineCourse(made(arms=arms, seeds=[0, 1]))
    store = end(course, 0)
    written = write(course)
    docs = tmp_path / "docs"
    assert {docs / PAGE, docs / POINTS, docs / RESULTS} <= set(written)
    first = (docs / POINTS).read_text()
    assert len(first.splitlines()) == 2
    for file in store.iterdir():
        file.unlink()
    write(OnlineCourse(made(arms=arms, seeds=[0, 1])))
    assert (docs / POINTS).read_text() == first
    assert "1 of 2" in (docs / PAGE).read_text()
