"""Datasets from recipes and tasks: what is refused, what drives, and the facts they carry."""

import hashlib

import numpy as np
import pytest

from controller.errors import ConfigError, DataError, SpecMismatch
from controller.types import ActionChunk
from sim.generate.dataset import generate, make, physics, plan
from sim.pointmaze import maze_spec
from sim.registry import make_env, task_named
from sim.settings import GenerateConfig

TASK = "pointmaze-umaze"


def settings(**changes):
    return GenerateConfig(**{"task": TASK, "steps": 700, "seed": 1} | changes)


def randomly(**changes):
    return settings(behaviour="random", **changes)


@pytest.fixture
def policy_file(tmp_path):
    """A policy that pushes as the goal is seen from the ball: action = tanh(goal - place + 0)."""
    see = np.zeros((4, 8), np.float32)
    see[0, [6, 0]] = see[2, [7, 1]] = 1, -1
    see[1], see[3] = -see[0], -see[2]
    path = tmp_path / "toward.npz"
    np.savez(
        path,
        **{"fc0.weight": see, "fc0.bias": np.zeros(4)},
        **{"last_fc.weight": [[1.0, -1, 0, 0], [0, 0, 1, -1]], "last_fc.bias": np.zeros(2)},
        **{"last_fc_log_std.weight": np.zeros((2, 4)), "last_fc_log_std.bias": np.full(2, -3.0)},
        nonlinearity="relu",
        output_distribution="tanh_gaussian",
    )
    return path


def test_random_data():
    made = generate(randomly())
    made.data.validate("generated")
    assert made.name == f"{TASK}-random"
    assert len(made.data) == 700
    assert np.flatnonzero(made.data.timeouts).tolist() == [299, 599, 699]
    assert made.data.layout == (("observation", 4), ("achieved_goal", 2), ("desired_goal", 2))
    for name in ("observations", "actions", "rewards", "next_observations"):
        assert getattr(made.data, name).dtype == np.float32


def test_one_seed_gives_one_dataset():
    first, again, other = (generate(randomly(seed=seed)).data.digest() for seed in (1, 1, 2))
    assert first == again != other


def test_facts():
    made = generate(randomly())
    facts, returns = made.attributes, made.data.returns()
    assert facts["name"] == made.name
    assert (facts["seed"], facts["steps"], facts["trajectories"]) == (1, 700, 3)
    assert facts["return_mean"] == pytest.approx(returns.mean())
    assert facts["return_std"] == pytest.approx(returns.std())
    assert facts["length_mean"] == pytest.approx(700 / 3)
    assert facts["recipe"] == "random 700 steps"
    assert facts["physics"].startswith("mujoco ")
    assert "policy_digests" not in facts


def test_a_policy_file_drives(policy_file):
    made = generate(settings(policy=str(policy_file), steps=300))
    seen = made.data.observations.astype(np.float64)
    wanted = np.tanh(seen[:, 6:8] - seen[:, :2])
    assert np.abs(made.data.actions - wanted).max() < 5 * np.exp(-3.0)
    assert np.abs(made.data.actions - wanted).max() > 0
    digest = hashlib.sha256(policy_file.read_bytes()).hexdigest()
    assert made.attributes["policy_digests"].endswith(f"/toward.npz:{digest}")
    assert made.name == f"{TASK}-toward"
    assert np.isfinite(made.data.info["action_log_probs"]).all()


def test_noise_is_added_and_leaves_no_density(policy_file):
    quiet, noisy = (
        generate(settings(policy=str(policy_file), steps=300, noise=noise)) for noise in (0.0, 0.3)
    )
    assert "action_log_probs" not in noisy.data.info
    seen = noisy.data.observations.astype(np.float64)
    residual = noisy.data.actions - np.tanh(seen[:, 6:8] - seen[:, :2])
    inner = np.abs(noisy.data.actions) < 0.9
    assert residual[inner].std() > 0.15
    assert quiet.data.digest() != noisy.data.digest()
    assert noisy.attributes["recipe"].endswith("/toward.npz 300 steps; noise 0.3")


def test_the_actions_reproduce_the_states():
    made = generate(randomly(steps=250))
    env = make_env(TASK)
    env.reset(seed=int(np.random.SeedSequence([1, 0]).generate_state(1)[0]))
    for row in range(250):
        observation, *_ = env.step(made.data.actions[row])
        following = made.data.next_observations[row, :4]
        assert np.array_equal(observation["observation"].astype(np.float32), following)


class Still:
    """A policy of the runtime that says which request it answers."""

    version = "still-1"

    def __init__(self, task=TASK):
        self.spec, self.requests = maze_spec(task), []

    def infer(self, request):
        self.requests.append((request.tick, request.seed))
        assert [a.shape for a in request.observation.arrays] == [(4,), (2,), (2,)]
        return ActionChunk(request.tick, np.full((2, 2), 0.25, np.float32), self.version)

    def close(self):
        pass


def test_a_bundle_drives():
    policy = Still()
    made = generate(settings(bundle="runs/still", steps=400), policy)
    assert (made.data.actions == np.float32(0.25)).all()
    assert made.attributes["policy_version"] == "still-1"
    assert made.attributes["recipe"] == "still-1 400 steps"
    assert made.name == f"{TASK}-still"
    ticks = [tick for tick, _ in policy.requests]
    assert ticks == [*range(300), *range(300)]
    assert len({seed for _, seed in policy.requests}) == 2


def test_a_bundle_of_another_task_is_refused():
    with pytest.raises(SpecMismatch, match="runs/x"):
        generate(settings(bundle="runs/x"), Still("pointmaze-large"))


def test_mazes_have_a_script():
    made = generate(settings(steps=400))
    assert made.name == f"{TASK}-scripted"
    assert made.attributes["trajectories"] == 2
    assert made.attributes["stay_s"] == 0.5
    assert made.attributes["recipe"] == "scripted 400 steps; noise 0.1"
    assert made.data.rewards.sum() > 20


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"task": "hoper-medium-regen"}, "no recipe and no task; did you mean hopper-medium-regen"),
        ({"task": "kitchen-mixed"}, "nothing drives it; expected policy=FILE.npz, bundle=DIR"),
        ({"task": "hopper"}, "or a recipe: hopper-random-regen, hopper-medium-replay-regen"),
        ({"task": "hopper-expert-regen"}, r"expected policies=DIRECTORY with hopper/sac_snapshot"),
        ({"policy": "x", "bundle": "y"}, "policy and bundle: only one of them"),
        ({"task": "kitchen-mixed", "behaviour": "scripted"}, "has no scripted controller"),
        ({"task": "hopper-random-regen", "behaviour": "random"}, "is a recipe: it takes policies="),
    ],
)
def test_faults_are_told_in_one_line(changes, fault):
    with pytest.raises(ConfigError, match=fault):
        generate(settings(**changes))


def test_a_missing_policy_file_is_named_with_where_one_comes_from(tmp_path):
    config = settings(task="hopper-medium-regen", policies=str(tmp_path))
    expected = r"hopper/sac_snapshot_\d\d.npz: no such file.*`onebeat sac task=hopper out=DIREC"
    with pytest.raises(ConfigError, match=expected):
        plan(config)


def test_a_policy_of_another_task_is_refused_before_anything_runs(policy_file):
    config = settings(task="kitchen-mixed", policy=str(policy_file))
    with pytest.raises(ConfigError, match=r"toward.npz: takes 8 numbers and gives 2; kitchen-m"):
        plan(config)
    with pytest.raises(DataError, match="No such file"):
        plan(settings(policy="absent.npz"))


def test_a_plan_can_be_made_in_processes():
    here = make(plan(randomly(steps=3100)), processes=1)
    there = make(plan(randomly(steps=3100)), processes=2)
    assert here[0].digest() == there[0].digest()
    assert here[1] == there[1]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("hopper", "mujoco210 inertials on mujoco 3."),
        ("antmaze-umaze", "mujoco210 inertials on mujoco 3."),
        ("pen", "mujoco210 contacts on mujoco 3."),
        (TASK, "mujoco 3."),
    ],
)
def test_the_physics_is_named(task, expected):
    assert physics(task_named(task)).startswith(expected)
