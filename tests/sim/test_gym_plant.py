"""The lockstep plant over an environment."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from controller.clock import VirtualClock
from controller.errors import ControllerError, PlantLost
from controller.spec import ArraySpec, Spec
from controller.testing import check_plant
from sim.errors import ActionMismatch, EpisodeOver
from sim.gym_plant import GymPlant
from sim.spaces import spec_of_spaces

SPEC = Spec(
    task="counter",
    observation=(ArraySpec("total", (1,), "float64"), ArraySpec("last", (2,), "float32")),
    action=ArraySpec("action", (2,), "float32", low=(-1.0, -1.0), high=(1.0, 1.0)),
    rate_hz=50.0,
)


class Counter:
    """Adds up its actions from a random start; ends above ``end``."""

    def __init__(self, end: float = np.inf):
        self.end = end
        self.random = np.random.default_rng(99)
        self.seeds: list[int | None] = []
        self.closed = 0
        self.total = np.zeros(1)

    def reset(self, *, seed: int | None = None, options: Any = None):
        self.seeds.append(seed)
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.total[:] = self.random.uniform(size=1)
        return {"last": np.zeros(2), "unused": 7, "total": self.total}, {}

    def step(self, action):
        self.total += action.sum()
        observation = {"total": self.total, "last": action}
        total = float(self.total[0])
        return observation, np.float64(total), total > self.end, True, {"success": total > 2.0}

    def close(self):
        self.closed += 1


def plant_of(env=None, steps=4, **options) -> GymPlant:
    return GymPlant(lambda: env or Counter(), SPEC, episode_steps=steps, **options)


def go(plant: GymPlant, x: float = 0.5, tick: int = 0):
    plant.command(np.array([x, x], np.float32), tick)
    return plant.observe()


def test_is_a_plant():
    check_plant(plant_of)
    check_plant(lambda: plant_of(Counter(end=3.0), steps=100))


def test_counts_rewards_steps_and_episodes():
    plant = plant_of()
    plant.reset(3)
    start = float(np.random.default_rng(3).uniform())
    seen = [plant.observe()] + [go(plant, tick=10 + i) for i in range(4)]
    assert [o.step for o in seen] == [0, 1, 2, 3, 4]
    assert [o.applied_tick for o in seen] == [-1, 10, 11, 12, 13]
    assert [o.truncated for o in seen] == [False] * 4 + [True]
    assert not any(o.terminated for o in seen)
    assert np.allclose([o.reward for o in seen], [0] + [start + i for i in range(1, 5)])
    assert np.isclose(seen[-1].episode_return, 4 * start + 10)
    plant.reset(3)
    assert (plant.observe().episode, plant.observe().step) == (1, 0)
    assert plant.observe().episode_return == 0.0
    assert not plant.observe().success


def test_the_environments_own_time_limit_is_not_used():
    plant = plant_of(steps=1000)
    plant.reset(0)
    assert not go(plant).done  # Counter says truncated at every step.


def test_success_stays_and_an_end_at_the_limit_is_an_end():
    plant = plant_of(Counter(end=3.0), steps=4)
    plant.reset(0)
    seen = [go(plant, x) for x in (1.0, -0.5, 0.0, 1.0)]
    assert [o.success for o in seen] == [True, True, True, True]
    assert (seen[-1].terminated, seen[-1].truncated) == (True, False)


def test_a_command_after_the_end_says_so():
    plant = plant_of(steps=1)
    plant.reset(0)
    go(plant)
    with pytest.raises(EpisodeOver, match=r"counter: episode 0 ended at step 1; reset first"):
        go(plant)
    with pytest.raises(EpisodeOver, match="no episode has begun"):
        plant_of().observe()
    assert issubclass(EpisodeOver, ControllerError)


def test_resets_without_a_seed_continue_one_stream():
    starts = []
    for _ in range(2):
        env = Counter()
        plant = plant_of(env, seed=5)
        drawn = []
        for _ in range(3):
            plant.reset()
            drawn.append(plant.observe().arrays[0][0])
        starts.append(drawn)
        assert env.seeds == [5, None, None]
    assert starts[0] == starts[1] == np.random.default_rng(5).uniform(size=3).tolist()


def test_arrays_are_read_only_copies_in_the_order_of_the_spec():
    plant = plant_of()
    plant.reset(0)
    first = plant.observe()
    kept = first.arrays[0].copy()
    second = go(plant)
    assert np.array_equal(first.arrays[0], kept)
    assert [a.dtype for a in second.arrays] == [np.float64, np.float32]
    with pytest.raises(ValueError, match="read-only"):
        second.arrays[0][0] = 1.0


def test_stamps_are_virtual_unless_a_clock_is_given():
    plant = plant_of()
    plant.reset(0)
    assert [plant.observe().stamp_ns, go(plant).stamp_ns, go(plant).stamp_ns] == [
        0,
        20_000_000,
        40_000_000,
    ]
    clock = VirtualClock(123)
    plant = plant_of(clock=clock)
    plant.reset(0)
    clock.advance(5)
    assert go(plant).stamp_ns == 128


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(3), r"action has shape \(3,\), expected \(2,\)"),
        (np.array([0.0, np.nan]), "action is not finite"),
    ],
)
def test_refuses_actions_it_cannot_apply(action, message):
    plant = plant_of()
    plant.reset(0)
    with pytest.raises(ActionMismatch, match=message):
        plant.command(action, 0)
    assert plant.observe().step == 0


def test_closes_once():
    env = Counter()
    plant = plant_of(env)
    plant.close()
    plant.close()
    assert env.closed == 1
    with pytest.raises(PlantLost, match="closed"):
        plant.observe()


def test_spec_of_spaces():
    mixed = spaces.Box(np.array([-1.0, -np.inf]), np.array([2.0, np.inf]), dtype=np.float64)
    image = spaces.Box(0, 255, (2, 2), np.uint8)
    spec = spec_of_spaces("t", spaces.Dict({"b": mixed, "a": image}), mixed, 20.0, order=("b", "a"))
    b, a = spec.observation
    assert (b.name, b.low, b.high, b.dtype) == ("b", (-1.0, None), (2.0, None), "float64")
    assert (a.name, a.shape, a.dtype, a.high) == ("a", (2, 2), "uint8", (255.0,) * 4)
    unbounded = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    (only,) = spec_of_spaces("t", unbounded, mixed, 20.0).observation
    assert (only.name, only.low, only.high) == ("observations", (), ())
    with pytest.raises(TypeError, match="action: expected a Box"):
        spec_of_spaces("t", mixed, spaces.Discrete(3), 20.0)
