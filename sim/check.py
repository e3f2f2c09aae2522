"""Whether a task keeps what it promises: the conformance of its plant, and its static facts.

Beside ``controller.conformance.check_plant`` (shapes, types, limits, counters, and the same
trajectory from the same seed, bit for bit), what only a simulation can be asked:

- what the environment returns is what the spec says, before the plant copies it;
- a control period is a whole number of physics steps, and a step advances physics by it;
- an episode is cut at the limit of steps, and is not called terminal there;
- success is reported where the task says so, and nowhere else;
- a command that is allowed to change between physics steps, and does not, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.conformance import check_plant
from controller.safety import Limits
from controller.spec import Spec
from controller.spec_coding import encode_spec
from controller.types import Array
from sim.env import Simulated, Substepped
from sim.gym_plant import GymPlant
from sim.registry import make_plant, task_named
from sim.task import Task

STEPS = 30
CUT_STEPS = 4


def check_task(name: str, steps: int = STEPS) -> None:
    """Check one task; it is built three times.

    Args:
        name: name of the task.
        steps: control steps of each drive.

    Raises:
        AssertionError: it does not keep a promise; says what was got and what was expected.
        ControllerError: its plant refuses what it must do.
    """
    task = task_named(name)
    check_spec(task)
    plant = make_plant(task.name, episode_steps=CUT_STEPS)
    try:
        check_env(plant, task)
        check_physics(plant, task)
        check_ends(plant, CUT_STEPS)
        check_plant(lambda: make_plant(task.name), steps=steps)
        check_between(plant, steps)
    finally:
        plant.close()


def check_spec(task: Task) -> None:
    """Check the static facts against each other."""
    spec = task.spec()
    assert spec.task == task.name, f"the spec is of {spec.task}"
    assert task.episode_steps > 0, f"episodes have {task.episode_steps} steps"
    assert task.physics_steps > 0, f"a control step has {task.physics_steps} physics steps"
    assert spec.rate_hz > 0, f"the control rate is {spec.rate_hz:g} Hz"
    for array in (*spec.observation, spec.action):
        low, high = array.bounds()
        assert (low <= high).all(), f"{array.name} has lower limits above the upper ones"
    encode_spec(spec)


def check_ends(plant: GymPlant, limit: int) -> None:
    """Check that an episode is cut at ``limit`` steps, or ends before of itself, never both."""
    actions = _actions(plant.spec, limit)
    plant.reset(0)
    for tick, action in enumerate(actions):
        plant.command(action, tick)
        now = plant.observe()
        if now.terminated:
            assert not now.truncated, "an episode ended as both terminated and truncated"
            return
        last = tick == limit - 1
        assert now.truncated == last, (
            f"truncated is {now.truncated} at step {now.step} of an episode of {limit}"
        )


def check_env(plant: GymPlant, task: Task) -> None:
    """Check what the environment itself returns."""
    observation, info = plant.env.reset(seed=0)
    _check_arrays(observation, plant.spec)
    assert isinstance(info, Mapping), f"the information of a reset is a {type(info).__name__}"
    observation, reward, terminated, _, info = plant.env.step(_actions(plant.spec, 1)[0])
    _check_arrays(observation, plant.spec)
    assert np.ndim(reward) == 0, f"the reward has shape {np.shape(reward)}"
    assert isinstance(terminated, (bool, np.bool_)), f"terminated is {terminated!r}"
    has = "success" in info
    assert has == task.has_success, (
        f"success is {'' if has else 'not '}reported, the task says it is "
        f"{'' if task.has_success else 'not '}known"
    )


def check_physics(plant: GymPlant, task: Task) -> None:
    """Check that a control period is a whole number of physics steps, declared and made."""
    env: object = plant.env
    if not isinstance(env, Simulated):
        return
    plant.env.reset(seed=0)
    timestep_s = float(env.model.opt.timestep)
    period_s = 1.0 / task.spec().rate_hz
    declared_s = task.physics_steps * timestep_s
    assert np.isclose(declared_s, period_s, rtol=1e-9, atol=0), (
        f"{task.physics_steps} physics steps of {timestep_s:g} s are {declared_s:g} s, the "
        f"period is {period_s:g} s"
    )
    before_s = float(env.data.time)
    plant.env.step(_actions(plant.spec, 1)[0])
    made_s = float(env.data.time) - before_s
    assert np.isclose(made_s, period_s, rtol=1e-6), (
        f"a control step advanced physics by {made_s:g} s, the period is {period_s:g} s"
    )


def check_between(plant: GymPlant, steps: int) -> None:
    """Check that holding a command through substeps is the same as not having any."""
    env: object = plant.env
    if not isinstance(env, Substepped):
        return
    actions = _actions(plant.spec, steps)
    whole = _states(plant, actions)
    calls = [0]
    held: list[Array] = [actions[0]]

    def between() -> Array:
        calls[0] += 1
        return held[0]

    env.between = between
    try:
        parts = _states(plant, actions, held)
    finally:
        env.between = None
    assert len(whole) == len(parts), f"{len(parts)} steps with substeps, {len(whole)} without"
    expected = (plant.physics_steps - 1) * len(whole)
    assert calls[0] == expected, f"{calls[0]} calls between physics steps, expected {expected}"
    for step, (one, other) in enumerate(zip(whole, parts, strict=True)):
        assert np.array_equal(one, other), f"a held command acted otherwise at step {step + 1}"


def _states(
    plant: GymPlant, actions: NDArray[Any], held: list[Array] | None = None
) -> list[NDArray[np.float64]]:
    """Return what each step of one episode gave, end to end; ``held`` is told each action."""
    env = plant.env
    env.reset(seed=1)
    seen: list[NDArray[np.float64]] = []
    for action in actions:
        if held is not None:
            held[0] = action
        observation, reward, terminated, _, _ = env.step(action)
        arrays = _named(observation, plant.spec).values()
        seen.append(np.concatenate([[float(reward)], *(np.ravel(array) for array in arrays)]))
        if terminated:
            break
    return seen


def _check_arrays(observation: Any, spec: Spec) -> None:  # noqa: ANN401
    got = _named(observation, spec)
    for wanted in spec.observation:
        assert wanted.name in got, f"{wanted.name} is not observed, only {', '.join(got)}"
        array = np.asarray(got[wanted.name])
        assert array.shape == wanted.shape, (
            f"{wanted.name} has shape {array.shape}, expected {wanted.shape}"
        )
        assert np.can_cast(array.dtype, wanted.dtype, "same_kind"), (
            f"{wanted.name} is {array.dtype}, expected {wanted.dtype}"
        )


def _named(observation: Any, spec: Spec) -> Mapping[str, Any]:  # noqa: ANN401
    if isinstance(observation, Mapping):
        return observation
    assert len(spec.observation) == 1, f"one array, expected {len(spec.observation)} by name"
    return {spec.observation[0].name: observation}


def _actions(spec: Spec, count: int) -> NDArray[Any]:
    """Return ``count`` actions drawn evenly from the limits."""
    limits = Limits.of(spec)
    low, high = (np.clip(x.astype(np.float64), -1e3, 1e3) for x in (limits.low, limits.high))
    drawn = np.random.default_rng(0).uniform(low, high, (count, *spec.action.shape))
    actions: NDArray[Any] = np.clip(drawn.astype(spec.action.dtype), limits.low, limits.high)
    return actions
