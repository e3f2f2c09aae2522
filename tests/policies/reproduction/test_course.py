"""What a plan still needs, by what is there; no process is started here."""

import msgspec
import pytest

from controller.clock import MonotonicClock
from controller.errors import ConfigError
from policies.checkpoints import Checkpoint, append
from policies.data.d4rl import write_d4rl
from policies.data.places import CACHE_VARIABLE, D4RL_VARIABLE, LOCAL_VARIABLE
from policies.reproduction import results
from policies.reproduction.children import Job
from policies.reproduction.course import AT_WORK, Course, action_times
from policies.reproduction.origin import read_origin
from policies.reproduction.sources import NO_FILE
from policies.reproduction.standing import STATE
from policies.train import train
from policies.train_state import exclusive
from tests.policies.reproduction.made import plan, row
from tests.policies.reproduction.test_results import EVALUATION
from tests.policies.reproduction.test_standing import stopped_after
from tests.policies.robots import SPEC, toy_data

NAME = "hopper-medium-expert-regen"
WORDS = (
    "optimiser={steps: 4, batch: 32}", "network.hidden=[8]", "critic.hidden=[8]",
    "tensorboard=false",
)  # fmt: skip


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """A machine without published datasets."""
    for name in (LOCAL_VARIABLE, CACHE_VARIABLE, D4RL_VARIABLE):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))


@pytest.fixture
def small(tmp_path):
    """A plan on a file of a toy robot: one algorithm, two seeds."""
    file = tmp_path / f"{NAME}.hdf5"
    write_d4rl(file, toy_data(), SPEC)

    def made(**changes):
        base = {
            "out": str(tmp_path / "runs"), "datasets": (NAME,), "sources": {NAME: str(file)},
            "algorithms": ("consistency_bc",), "settings": WORDS,
        }  # fmt: skip
        return plan(**(base | changes))

    return made


def learn(course, index, count=None):
    """Train a cell of a course, or stop it after so many updates."""
    cell = course.cells[index]
    store = cell.store(course.config.out)
    stop = stopped_after(count) if count else None
    train(cell.resolve(), toy_data(), SPEC, store, should_stop=stop)
    return store


def names(jobs):
    return [job.name for job in jobs]


def test_an_untouched_plan_trains_every_cell(small):
    course = Course(small())
    jobs = course.jobs()
    assert names(jobs) == [f"train {NAME}/consistency_bc/seed_{n}" for n in (0, 1)]
    file, out = course.config.sources[NAME], course.config.out
    assert jobs[1].verb == "train"
    assert jobs[1].words == [
        "algorithm=consistency_bc", "preset=released", f"data={file}", *WORDS,
        f"out={out}/{NAME}/consistency_bc/seed_1", "seed=1", "--json",
    ]  # fmt: skip
    assert course.progress() == (0, 8)


def test_a_run_that_was_stopped_goes_on_and_a_finished_one_is_scored(small):
    course = Course(small())
    store = learn(course, 0)
    learn(course, 1, count=2)
    jobs = Course(small()).jobs()
    assert [job.verb for job in jobs] == ["eval", "train"]
    assert jobs[0].words == [str(store), "episodes=100", "seed=100", "processes=1", "--json"]
    assert "resume=true" in jobs[1].words


def test_a_cell_with_its_row_is_done(small):
    course = Course(small())
    store = learn(course, 0)
    cell = course.cells[0]
    mine = row(algorithm="consistency_bc", settings=cell.settings, updates=4, action_us=None)
    results.write_row(store, mine)
    assert course.row(cell) == mine
    assert names(course.jobs()) == [f"train {NAME}/consistency_bc/seed_1"]
    # The row alone is enough: the run may lie on another machine.
    for file in (store / "current", store / "checkpoints.jsonl", store / STATE):
        file.unlink()
    assert names(course.jobs()) == [f"train {NAME}/consistency_bc/seed_1"]


def test_a_row_of_other_episodes_is_scored_again_where_the_run_is(small):
    course = Course(small(seeds=(0,)))
    store = learn(course, 0)
    mine = row(
        algorithm="consistency_bc", settings=course.cells[0].settings, updates=4, episodes=99
    )
    results.write_row(store, mine)
    assert names(course.jobs()) == [f"eval {NAME}/consistency_bc/seed_0"]
    (store / "current").unlink()
    assert course.jobs() == []


def test_a_row_of_other_settings_is_no_result_and_its_run_is_not_overwritten(small):
    course = Course(small(seeds=(0,)))
    store = learn(course, 0)
    cell = course.cells[0]
    results.write_row(store, row(algorithm="consistency_bc", settings=cell.settings, updates=4))
    other = Course(small(seeds=(0,), settings=(*WORDS, "optimiser.steps=5")))
    assert other.jobs() == []
    (told,) = other.tally.failed.values()
    assert "holds a finished run of other settings: it has optimiser.steps=4, the plan 5" in told
    assert "choose another out" in told


def test_data_that_is_not_there_leaves_its_cells_out(small):
    course = Course(small(datasets=(NAME, "kitchen-mixed-v0")))
    assert {job.name.split("/")[0] for job in course.jobs()} == {f"train {NAME}"}
    assert course.tally.missing == {"kitchen-mixed-v0": NO_FILE}
    assert course.progress() == (0, 8)
    assert course.reasons() == {
        f"{NAME}/consistency_bc/seed_0": "not run",
        f"{NAME}/consistency_bc/seed_1": "not run",
        "kitchen-mixed-v0/consistency_bc/seed_0": NO_FILE,
        "kitchen-mixed-v0/consistency_bc/seed_1": NO_FILE,
    }


def test_what_was_trained_elsewhere_is_scored_without_its_data(small, tmp_path):
    learn(Course(small()), 0)
    course = Course(small(sources={}, data=str(tmp_path / "nowhere")))
    assert course.tally.missing
    assert names(course.jobs()) == [f"eval {NAME}/consistency_bc/seed_0"]


def test_data_that_can_be_made_is_made_first_and_then_learned_from(small, tmp_path):
    (tmp_path / "policies").mkdir()
    data = tmp_path / "made"
    config = small(sources={}, data=str(data), policies=str(tmp_path / "policies"), workers=2)
    course = Course(config)
    (job,) = course.jobs()
    assert job.verb == "data generate"
    assert job.words == [
        f"task={NAME}", f"policies={tmp_path}/policies", f"out={data}/{NAME}.hdf5", "processes=2",
    ]  # fmt: skip
    assert [each.verb for each in job.after()] == ["train", "train"]
    job.failed("no such policy")
    assert set(course.reasons().values()) == {"no such policy"}


def test_a_machine_trains_and_another_scores(small):
    learn(Course(small()), 0)
    assert [job.verb for job in Course(small(only="train")).jobs()] == ["train"]
    assert [job.verb for job in Course(small(only="score")).jobs()] == ["eval"]
    course = Course(small(only="train"))
    (job,) = course.jobs()
    learn(course, 1)
    assert list(job.after()) == []


def test_seeds_together_are_one_process_and_one_that_was_begun_goes_on_alone(small):
    course = Course(small(together=True, seeds=(0, 1, 2), device="cuda"))
    (job,) = course.jobs()
    store = f"{course.config.out}/{NAME}/consistency_bc"
    assert job.words[-5:] == [
        f"out={store}", "seeds=[0, 1, 2]", "device=cuda", "optimiser.compile=false", "--json",
    ]  # fmt: skip
    learn(course, 1, count=2)
    alone, rest = course.jobs()
    assert {f"out={store}/seed_1", "seed=1", "resume=true"} < set(alone.words)
    assert {f"out={store}", "seeds=[0, 2]"} < set(rest.words)


def test_a_cell_that_another_process_trains_is_passed_over(small):
    course = Course(small())
    first, second = course.jobs()
    with exclusive(course.cells[0].store(course.config.out)):
        assert first.skip()
        assert not second.skip()
    name = course.cells[0].name
    assert course.tally.busy == [name]
    assert course.reasons()[name] == AT_WORK
    assert not first.skip()


def test_a_training_leaves_a_note_and_is_scored(small):
    course = Course(small(seeds=(0,)))
    (job,) = course.jobs()
    store = learn(course, 0)
    (then,) = job.after()
    assert then.verb == "eval"
    note = read_origin(store)
    assert note is not None
    assert note.side_by_side == 1
    assert course.tally.trained == [course.cells[0].name]


def scored(course, index=0):
    """Score a trained cell with an answer made by hand."""
    store = course.cells[index].store(course.config.out)
    job: Job = next(job for job in course.jobs() if job.verb == "eval" and str(store) in job.words)
    assert job.stdout is not None
    job.stdout.write_bytes(msgspec.json.encode(EVALUATION))
    job.after()
    return store


def test_an_answer_becomes_a_row_and_its_actions_are_timed_at_the_end(small):
    course = Course(small(seeds=(0,)))
    learn(course, 0)
    store = scored(course)
    made = results.read_row(store)
    assert made is not None
    assert (made.score, made.updates, made.preset) == (15.0, 4, "released")
    assert made.action_us is None
    assert course.finish()
    timed = results.read_row(store)
    assert timed is not None
    assert timed.action_us is not None
    assert timed.action_us > 0
    # Without critics there is nothing to choose by.
    assert timed.action_us_50 is None
    assert timed == msgspec.structs.replace(made, action_us=timed.action_us)
    assert course.reasons() == {}


def test_an_answer_that_cannot_be_read_is_a_failure(small):
    course = Course(small(seeds=(0,)))
    learn(course, 0)
    (job,) = course.jobs()
    job.stdout.write_text("[]")
    job.after()
    assert "evaluation.json" in course.tally.failed[course.cells[0].name]


def test_a_policy_with_critics_is_timed_with_candidates_too(small):
    course = Course(small(algorithms=("consistency_ac",), seeds=(0,)))
    one, many = action_times(learn(course, 0), MonotonicClock())
    assert one > 0
    assert many is not None
    assert many > 0


def test_a_word_that_is_no_setting_is_told_before_anything_starts(small):
    with pytest.raises(ConfigError, match="did you mean batch"):
        Course(small(settings=("optimiser.btach=1",)))


def test_progress_counts_the_updates_of_all_cells(small):
    course = Course(small())
    store = course.cells[0].store(course.config.out)
    store.mkdir(parents=True)
    (store / "metrics.jsonl").write_text('{"step": 3}\n')
    assert course.progress() == (3, 8)
    append(store, Checkpoint(4, "v0001-0"))
    (store / "metrics.jsonl").write_text('{"step": 9}\n')
    assert course.progress() == (4, 8)
