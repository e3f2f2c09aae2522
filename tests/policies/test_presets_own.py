"""What the baselines begin with: the settings of their papers, by the family of the task."""

from pathlib import Path

import pytest

from controller.config import load
from policies.presets_own import PENALTIES, family, own
from policies.settings import TrainConfig

CONFIGS = Path(__file__).parents[2] / "configs/train"
BASELINES = ("bc", "td3_bc", "iql", "rebrac")
PAPERS = ("consistency_bc", "consistency_ac", "diffusion_bc", "diffusion_ql")


def settings(algorithm, data="x", *words):
    return load(TrainConfig, None, [f"algorithm={algorithm}", f"data={data}", *words])


@pytest.mark.parametrize("algorithm", PAPERS)
def test_the_papers_algorithms_begin_with_the_defaults(algorithm):
    assert own(algorithm, "hopper-medium") == {}
    assert settings(algorithm, "hopper-medium-v2") == TrainConfig(
        algorithm=algorithm, data="hopper-medium-v2"
    )


@pytest.mark.parametrize("algorithm", BASELINES)
@pytest.mark.parametrize("data", ["x", "runs/data/toy.hdf5", "hopper-medium-v2", "door-human-v1"])
def test_baselines_load_for_any_data(algorithm, data):
    config = settings(algorithm, data)
    assert config.network.hidden == (256,) * (3 if algorithm == "rebrac" else 2)
    assert config.network.activation == "relu"
    assert config.value.discount == 0.99
    assert config.optimiser.steps == TrainConfig().optimiser.steps


def test_td3_bc_has_its_papers_numbers():
    config = settings("td3_bc", "hopper-medium-v2")
    td3, optimiser = config.td3, config.optimiser
    assert (td3.alpha, td3.delay, td3.noise, td3.noise_clip) == (2.5, 2, 0.2, 0.5)
    assert (optimiser.learning_rate, config.value.learning_rate) == (3e-4, 3e-4)
    assert (optimiser.batch, config.value.tau, config.normalise) == (256, 0.005, True)
    assert (config.critic.hidden, config.critic.layer_norm) == ((256, 256), False)
    assert optimiser.share(0) == optimiser.share(optimiser.steps - 1) == 1.0
    assert (optimiser.grad_clip, optimiser.served.every) == (None, 0)


@pytest.mark.parametrize(
    ("data", "expectile", "beta", "tune", "shift"),
    [
        ("walker2d-medium-replay-v2", 0.7, 3.0, "locomotion", 0.0),
        ("antmaze-large-play-v2", 0.9, 10.0, "linear", -1.0),
        ("pen-human-v1", 0.7, 0.5, "none", 0.0),
        ("kitchen-complete-v0", 0.7, 0.5, "none", 0.0),
        ("toy.hdf5", 0.7, 3.0, "none", 0.0),
    ],
)
def test_iql_follows_the_family(data, expectile, beta, tune, shift):
    config = settings("iql", data)
    assert (config.iql.expectile, config.iql.beta) == (expectile, beta)
    assert (config.reward.tune, config.reward.shift, config.reward.scale) == (tune, shift, 1.0)
    # The policy's rate falls to nothing, that of the values stays.
    assert config.optimiser.share(config.optimiser.steps) == pytest.approx(0.0, abs=1e-9)
    assert not config.value.decay
    assert config.sampler.temperature == 0.0


@pytest.mark.parametrize(
    ("data", "batch", "actor", "critic", "discount", "penalties"),
    [
        ("halfcheetah-medium-v2", 1024, 1e-3, 1e-3, 0.99, (0.001, 0.01)),
        ("runs/x/hopper-medium-expert-regen.hdf5", 1024, 1e-3, 1e-3, 0.99, (0.1, 0.01)),
        ("walker2d-medium-replay-v2", 1024, 1e-3, 1e-3, 0.99, (0.05, 0.01)),
        ("antmaze-medium-play-v2", 256, 3e-4, 5e-5, 0.999, (0.001, 0.0005)),
        ("pen-cloned-v1", 256, 3e-4, 3e-4, 0.99, (0.05, 0.5)),
        ("kitchen-mixed-v0", 256, 3e-4, 3e-4, 0.99, (0.01, 0.01)),
    ],
)
def test_rebrac_follows_the_dataset(data, batch, actor, critic, discount, penalties):
    config = settings("rebrac", data)
    assert (config.optimiser.batch, config.optimiser.learning_rate) == (batch, actor)
    assert (config.value.learning_rate, config.value.discount) == (critic, discount)
    assert (config.td3.actor_bc, config.td3.critic_bc) == penalties
    assert config.critic.layer_norm
    assert config.critic.hidden == (256, 256, 256)
    assert not config.normalise
    assert config.reward.scale == (100.0 if "antmaze" in data else 1.0)


def test_the_task_tells_where_the_data_does_not():
    assert settings("iql", "mine.hdf5", "task=antmaze-umaze").iql.beta == 10.0
    assert settings("iql", "antmaze-umaze-v0", "task=hopper").iql.beta == 10.0


def test_what_is_written_wins():
    words = ("iql.beta=1.5", "normalise=true", "network.hidden=[64]", "reward.tune=none")
    config = settings("iql", "hopper-medium-v2", *words)
    assert (config.iql.beta, config.iql.expectile) == (1.5, 0.7)
    assert (config.normalise, config.network.hidden) == (True, (64,))
    assert config.reward.tune == "none"


def test_penalties_are_of_families_that_are_known():
    assert all(family(task) for task in PENALTIES)
    assert family("pointmaze-medium") is None
    assert family("ant") is None


@pytest.mark.parametrize("algorithm", [*PAPERS, *BASELINES])
def test_each_algorithm_has_a_file_to_start_from(algorithm):
    config = load(TrainConfig, CONFIGS / f"{algorithm}.yaml", ["data=x.hdf5"])
    assert config.algorithm == algorithm
    assert config.out == f"runs/{algorithm}/bundles"
