"""Presets: every task and algorithm loads, each number is the published one, overrides win."""

import re

import pytest

from controller.config import load
from controller.errors import ConfigError
from policies.diffusion.schedule import grid_size
from policies.model import ConsistencyModel, DiffusionModel, Model, evaluations
from policies.presets import TASKS, known
from policies.settings import TrainConfig

ALGORITHMS = ("consistency_bc", "consistency_ac", "diffusion_bc", "diffusion_ql")
PRESETS = ("paper", "released")

# task | policy's rate | eta | N | q_norm | weighed loss | max-Q | 1000 updates | gradient norm
CONSISTENCY_AC = """
halfcheetah-medium-v2         3e-4 1.0  2 F F F 2000 9
hopper-medium-v2              3e-4 0.1  2 F F F 2000 9
walker2d-medium-v2            3e-4 1.0  5 T F F 2000 1
halfcheetah-medium-replay-v2  3e-4 1.0  2 F F F 2000 2
hopper-medium-replay-v2       3e-4 0.1  2 F F F 2000 4
walker2d-medium-replay-v2     3e-4 0.1  5 F F F 2000 4
halfcheetah-medium-expert-v2  3e-4 1.0  2 F T F 2000 7
hopper-medium-expert-v2       3e-4 1.0  2 F T F 2000 5
walker2d-medium-expert-v2     3e-4 1.0  2 T T F 2000 5
antmaze-umaze-v0              3e-4 0.01 2 T T F 1000 2
antmaze-umaze-diverse-v0      3e-4 0.01 2 T T T 1000 3
antmaze-medium-play-v0        1e-3 0.01 2 F T T 1000 2
antmaze-medium-diverse-v0     3e-4 0.01 2 T T T 1000 1
antmaze-large-play-v0         3e-4 4.5  2 T T T 1000 10
antmaze-large-diverse-v0      3e-4 3.5  2 T T T 1000 2
pen-human-v1                  3e-5 0.01 2 T T F 1000 7
pen-cloned-v1                 3e-5 0.01 2 T T F 500  8
kitchen-complete-v0           3e-4 0.5  2 T T F 1500 2
kitchen-partial-v0            3e-4 0.5  2 T T F 1500 2
kitchen-mixed-v0              3e-4 0.5  2 T T F 1500 2
"""
# task | policy's rate | eta | 1000 updates | gradient norm
DIFFUSION_QL = """
halfcheetah-medium-v2         3e-4 1.0   2000 9
hopper-medium-v2              3e-4 1.0   2000 9
walker2d-medium-v2            3e-4 1.0   2000 1
halfcheetah-medium-replay-v2  3e-4 1.0   2000 2
hopper-medium-replay-v2       3e-4 1.0   2000 4
walker2d-medium-replay-v2     3e-4 1.0   2000 4
halfcheetah-medium-expert-v2  3e-4 1.0   2000 7
hopper-medium-expert-v2       3e-4 1.0   2000 5
walker2d-medium-expert-v2     3e-4 1.0   2000 5
antmaze-umaze-v0              3e-4 0.5   1000 2
antmaze-umaze-diverse-v0      3e-4 2.0   1000 3
antmaze-medium-play-v0        1e-3 2.0   1000 2
antmaze-medium-diverse-v0     3e-4 3.0   1000 1
antmaze-large-play-v0         3e-4 4.5   1000 10
antmaze-large-diverse-v0      3e-4 3.5   1000 7
pen-human-v1                  3e-5 0.15  1000 7
pen-cloned-v1                 3e-5 0.1   1000 8
kitchen-complete-v0           3e-4 0.005 250  9
kitchen-partial-v0            3e-4 0.005 1000 10
kitchen-mixed-v0              3e-4 0.005 1000 10
"""
GUIDED = {row.split()[0]: row.split()[1:] for row in CONSISTENCY_AC.strip().splitlines()}
QL = {row.split()[0]: row.split()[1:] for row in DIFFUSION_QL.strip().splitlines()}


def settings(preset: str, algorithm: str, data: str, *words: str) -> TrainConfig:
    given = (f"preset={preset}", f"algorithm={algorithm}", f"data={data}")
    return load(TrainConfig, None, [*given, *words])


def test_they_are_the_twenty_tasks_of_the_paper():
    assert {re.sub(r"-v\d$", "", task) for task in GUIDED} == set(TASKS)
    assert GUIDED.keys() == QL.keys()
    assert len(TASKS) == 20


@pytest.mark.parametrize("task", GUIDED)
@pytest.mark.parametrize("preset", PRESETS)
def test_consistency_ac_has_the_numbers_of_its_task(task, preset):
    rate, eta, n, q_norm, weighed, max_q, epochs, norm = GUIDED[task]
    config = settings(preset, "consistency_ac", task)
    paper = preset == "paper"
    assert config.optimiser.learning_rate == float(rate)
    assert config.optimiser.steps == 1000 * int(epochs)
    assert config.optimiser.grad_clip == float(norm)
    assert config.improve.eta == float(eta)
    # The paper's algorithm makes N - 1 evaluations of a grid of N points.
    calls = int(n) - paper
    assert (config.improve.steps, config.sampler.steps) == (calls, calls)
    assert config.improve.grid == config.sampler.grid == preset
    # q_norm is no part of the paper; the flag of the weights never reaches the released code.
    assert config.value.q_norm == (q_norm == "T" and not paper)
    assert config.loss.weighting == ("inverse_step" if weighed == "T" or not paper else "none")
    assert config.value.max_q == (10 if max_q == "T" else 1)


@pytest.mark.parametrize("task", QL)
@pytest.mark.parametrize("preset", PRESETS)
def test_diffusion_ql_has_the_numbers_of_its_task(task, preset):
    rate, eta, epochs, norm = map(float, QL[task])
    config = settings(preset, "diffusion_ql", task)
    assert config.optimiser.learning_rate == rate
    assert config.improve.eta == eta
    assert config.optimiser.steps == 1000 * epochs
    assert config.optimiser.grad_clip == norm
    assert config.chain.steps == 5
    assert not config.value.q_norm
    assert config.value.max_q == (10 if GUIDED[task][5] == "T" else 1)


@pytest.mark.parametrize("task", GUIDED)
@pytest.mark.parametrize("preset", PRESETS)
def test_cloning_has_neither_weights_nor_choice(task, preset):
    rate, _, n, *_, epochs, norm = GUIDED[task]
    cloned = settings(preset, "consistency_bc", task)
    assert cloned.loss.weighting == "none"
    assert cloned.sampler.steps == int(n) - (preset == "paper")
    assert cloned.sampler.candidates == 1
    assert cloned.optimiser.grad_clip == float(norm)
    diffused = settings(preset, "diffusion_bc", task)
    assert diffused.optimiser.grad_clip is None
    # Diffusion-BC decays its learning rate in neither.
    assert diffused.optimiser.final_rate == 1.0
    assert diffused.sampler.steps is None
    for config in (cloned, diffused):
        assert config.optimiser.learning_rate == float(rate)
        assert config.optimiser.steps == 1000 * int(epochs)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("preset", PRESETS)
def test_what_all_tasks_share(preset, algorithm):
    config = settings(preset, algorithm, "hopper-medium-expert-v2")
    assert not config.normalise
    assert config.noise.kind == "paper"
    assert config.optimiser.batch == 256
    assert config.optimiser.warmup == 0
    assert config.optimiser.served.every == 0
    assert config.network.hidden == config.critic.hidden == (256, 256, 256)
    assert (config.network.time_features, config.network.time_hidden) == (16, 32)
    assert (config.value.discount, config.value.tau) == (0.99, 0.005)
    assert config.value.learning_rate == 3e-4
    assert config.critic.count == 2
    if algorithm in ("consistency_ac", "diffusion_ql"):
        slow = config.improve.slow
        assert [step for step in range(1020) if slow.share(step)] == [1000, 1005, 1010, 1015]
        assert slow.share(1000) == pytest.approx(0.005)
        choice = (50, "softmax") if preset == "released" else (1, "argmax")
        assert (config.sampler.candidates, config.sampler.select) == choice


def test_the_curriculum_of_the_paper_and_that_of_the_code():
    paper = settings("paper", "consistency_bc", "hopper-medium-v2").loss
    released = settings("released", "consistency_bc", "hopper-medium-v2").loss
    total = 2_000_000
    # The released code's own values, worked out from its formula at K = 50 000.
    known_sizes = {0: 2, 100: 7, 500: 16, 1_000: 22, 5_000: 48, 10_000: 68, 20_000: 95}
    known_sizes |= {25_000: 107, 40_000: 135, 49_999: 150, 50_000: 2, 1_950_000: 2}
    assert {k: released.levels_at(k, total) for k in known_sizes} == known_sizes
    assert [paper.levels_at(k, total) for k in (0, 999, 1000)] == [
        2,
        grid_size(999, 1000, 2, 150),
        2,
    ]
    assert paper.levels_at(999, total) == 151


def test_the_learning_rate_of_the_paper_decays_and_that_of_the_code_does_not():
    paper, released = (
        settings(preset, "consistency_ac", "pen-human-v1").optimiser for preset in PRESETS
    )
    assert released.share(999_999) == 1.0
    assert paper.share(500_000) == pytest.approx(0.5)
    assert paper.share(999_999) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("task", "tune"),
    [
        ("antmaze-large-play-v0", ("linear", 4.0, -2.0)),
        ("pen-cloned-v1", ("normalise", 1.0, 0.0)),
        ("kitchen-mixed-v0", ("none", 1.0, 0.0)),
        ("walker2d-medium-v2", ("none", 1.0, 0.0)),
    ],
)
def test_the_rewards_of_each_family(task, tune):
    for algorithm in ("consistency_ac", "diffusion_ql"):
        reward = settings("released", algorithm, task).reward
        assert (reward.tune, reward.scale, reward.shift) == tune


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("preset", PRESETS)
def test_each_task_samples_with_its_evaluations(preset, algorithm):
    for task, row in TASKS.items():
        config = settings(preset, algorithm, task)
        if algorithm.startswith("consistency"):
            model: Model = ConsistencyModel(config.network, config.noise)
            assert model.levels(config.sampler)[0] == 80.0
            calls = row.steps - (preset == "paper")
        else:
            model, calls = DiffusionModel(config.network, config.chain), 5
        assert evaluations(model, config.sampler) == calls


@pytest.mark.parametrize(
    "name",
    [
        "hopper-medium-expert",
        "hopper-medium-expert-v2",
        "hopper-medium-expert-regen.hdf5",
        "runs/data/hopper-medium-expert-regen-v0.hdf5",
        "/data/hopper-medium-expert-v2.hdf5",
        "/data/hopper_medium_expert-v2.hdf5",
        "hopper-medium-expert-v2.h5",
    ],
)
def test_a_task_is_known_by_the_names_of_its_data(name):
    assert known(name) == "hopper-medium-expert"
    assert settings("released", "consistency_ac", name).optimiser.grad_clip == 5


def test_the_task_says_it_where_the_data_does_not():
    config = settings("paper", "consistency_ac", "my.hdf5", "task=kitchen-complete")
    assert config.improve.eta == 0.5
    kitchen = "mini_kitchen_microwave_kettle_light_slider-v0.hdf5"
    assert known(kitchen) == "kitchen-complete"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("consistency_ac", "hopper-medium-exprt-v2"), "did you mean hopper-medium-expert?"),
        (("consistency_ac", "data/pen-humann-v1.hdf5"), "did you mean pen-human?"),
        (("consistency_bc", "door-human-v1"), "no settings for door-human"),
        (("diffusion_ql", "''"), "no settings for no task"),
    ],
)
def test_an_unknown_task_is_told_with_the_nearest(words, expected):
    with pytest.raises(ConfigError, match=re.escape(expected)):
        settings("paper", *words)


def test_a_misspelt_preset_is_told_with_the_nearest():
    with pytest.raises(ConfigError, match="released"):
        settings("relesed", "consistency_ac", "hopper-medium-v2")


def test_what_is_written_wins_over_the_preset(tmp_path):
    words = ("improve.eta=0.7", "loss.target.decay=0.5")
    config = settings("released", "consistency_ac", "hopper-medium-v2", *words)
    assert config.improve.eta == 0.7
    assert config.improve.q_loss == "coin"
    assert (config.loss.target.decay, config.loss.target.every) == (0.5, 5)
    file = tmp_path / "train.yaml"
    file.write_text(
        "preset: paper\nalgorithm: consistency_ac\ndata: hopper-medium-v2\n"
        "optimiser:\n  steps: 7\nsampler:\n  candidates: 3\n"
    )
    config = load(TrainConfig, file, ["optimiser.batch=8"])
    assert (config.optimiser.steps, config.optimiser.batch) == (7, 8)
    assert config.optimiser.grad_clip == 9
    assert (config.sampler.candidates, config.sampler.grid) == (3, "paper")


def test_without_a_preset_the_defaults_stay():
    assert load(TrainConfig, None, ["data=hopper-medium-v2"]).optimiser == TrainConfig().optimiser
