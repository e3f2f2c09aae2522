"""What every plant and every policy must do, as checks that any implementation can run through.

They raise ``AssertionError`` with what was got and what was expected.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from controller.clock import MonotonicClock
from controller.errors import ControllerError
from controller.interfaces import Clock, Plant, Policy
from controller.safety import Limits, fits, is_finite
from controller.spec import Spec
from controller.types import ActionChunk, Array, Observation, Request


def check_plant(
    make_plant: Callable[[], Plant],
    *,
    steps: int = 30,
    seed: int = 1,
    lockstep: bool = True,
    prompt: bool = True,
) -> None:
    """Check a plant against the contract of :class:`controller.interfaces.Plant`.

    Makes two plants, drives them with the same actions from the same seed, and closes them.

    Args:
        make_plant: returns a new plant on each call.
        steps: control steps to drive.
        seed: seed of the episodes and of the actions.
        lockstep: whether it is a lockstep plant. Otherwise only what holds at any moment is
            checked: arrays, flags, counters that never go back, and closing.
        prompt: whether the lockstep plant applies each command at once. Otherwise, under
            delays and losses, no later one than the newest may have been applied.
    """
    plant = make_plant()
    try:
        first = _drive(plant, steps, seed, lockstep)
        again = _drive(plant, steps, seed, lockstep) if lockstep else first
    finally:
        _check_closing(plant)
    if not lockstep:
        return
    for tick, applied in enumerate(_applied(first)):
        assert applied == tick or (not prompt and applied < tick), (
            f"applied_tick is {applied}, expected {tick}{'' if prompt else ' or an earlier one'}"
        )
    other = make_plant()
    try:
        assert other.spec == plant.spec, "two plants of one kind have different specs"
        _check_same(first, _drive(other, steps, seed, lockstep), "another plant")
        _check_same(first, again, "the same plant once more")
    finally:
        other.close()


def check_policy(
    policy: Policy, observation: Observation, *, clock: Clock | None = None, timeout_s: float = 5.0
) -> None:
    """Check a policy against the contract of :class:`controller.interfaces.Policy`; closes it.

    Args:
        policy: the policy.
        observation: what to ask it about, of the policy's spec.
        clock: the clock that request deadlines are on; None for the machine's.
        timeout_s: how long an answer may take.
    """
    clock = clock or MonotonicClock()
    before = [array.copy() for array in observation.arrays]

    def ask(tick: int) -> ActionChunk:
        deadline_ns = clock.now_ns() + round(timeout_s * 1e9)
        chunk = policy.infer(Request(tick, 7, observation, 0, deadline_ns))
        assert chunk is not None, f"no answer to tick {tick} within {timeout_s:g} s"
        _check_chunk(chunk, tick, policy)
        return chunk

    try:
        first, *others, repeated = [ask(tick) for tick in (3, 4, 1000, 3)]
        assert len({len(c.actions) for c in (first, *others)}) == 1, "the horizon varies"
        assert np.array_equal(first.actions, repeated.actions), (
            "two answers to the same observation, seed and tick differ: "
            f"{first.actions.tolist()} and {repeated.actions.tolist()}"
        )
        for old, new in zip(before, observation.arrays, strict=True):
            assert np.array_equal(old, new), "the policy changed the observation"
    finally:
        policy.close()
        policy.close()
    try:
        late = policy.infer(Request(5, 7, observation, 0, clock.now_ns() + 100_000_000))
    except ControllerError:
        return
    assert late is None, "a closed policy answered"


def _check_chunk(chunk: ActionChunk, tick: int, policy: Policy) -> None:
    action = policy.spec.action
    assert chunk.tick == tick, f"answer to tick {chunk.tick}, asked at {tick}"
    assert fits(chunk.actions, action), (
        f"actions are {chunk.actions.shape} {chunk.actions.dtype}, "
        f"expected (horizon, *{action.shape}) {action.dtype}"
    )
    assert is_finite(chunk.actions), f"actions are not finite: {chunk.actions.tolist()}"
    assert chunk.version, "the answer carries no version"
    assert chunk.version == policy.version, (
        f"answered by {chunk.version}, the policy says {policy.version}"
    )
    for name in ("evaluations", "queue_ns", "infer_ns"):
        assert getattr(chunk, name) >= 0, f"{name} is {getattr(chunk, name)}"


def _drive(plant: Plant, steps: int, seed: int, lockstep: bool) -> list[Observation]:
    spec = plant.spec
    limits = Limits.of(spec)
    random = np.random.default_rng(seed)
    plant.reset(seed)
    seen = [plant.observe()]
    check_observation(seen[0], spec)
    if lockstep:
        _check_first(seen[0])
    for tick in range(steps):
        if seen[-1].done:
            seen.append(_check_reset(plant, seed + tick, seen[-1], lockstep))
        kept = [array.copy() for array in seen[-1].arrays]
        plant.command(_random_action(random, limits), tick)
        observation = plant.observe()
        check_observation(observation, spec)
        _check_order(seen[-1], observation)
        if lockstep:
            _check_step(seen[-1], observation)
        for old, new in zip(kept, seen[-1].arrays, strict=True):
            assert np.array_equal(old, new), "a step changed the observation before it"
        seen.append(observation)
    return seen


def _random_action(random: np.random.Generator, limits: Limits) -> Array:
    low, high = (
        np.clip(bound.astype(np.float64), -1e3, 1e3) for bound in (limits.low, limits.high)
    )
    action = np.asarray(random.uniform(low, high)).astype(limits.low.dtype)
    action = np.asarray(np.minimum(np.maximum(action, limits.low), limits.high))
    # The loop's commands are read-only; a plant that writes into them must fail here.
    action.flags.writeable = False
    return action


def check_observation(observation: Observation, spec: Spec) -> None:
    """Check arrays and flags of one observation against ``spec``."""
    got, expected = len(observation.arrays), len(spec.observation)
    assert got == expected, f"observation has {got} arrays, expected {expected}"
    for array, wanted in zip(observation.arrays, spec.observation, strict=True):
        assert array.shape == wanted.shape, (
            f"{wanted.name} has shape {array.shape}, expected {wanted.shape}"
        )
        assert array.dtype == wanted.dtype, (
            f"{wanted.name} is {array.dtype}, expected {wanted.dtype}"
        )
        assert not array.flags.writeable, f"{wanted.name} is not read-only"
        assert is_finite(array), f"{wanted.name} is not finite: {array.tolist()}"
        low, high = wanted.bounds()
        assert ((array.astype(np.float64) >= low) & (array.astype(np.float64) <= high)).all(), (
            f"{wanted.name} leaves its limits: {array.tolist()}"
        )
    assert not (observation.terminated and observation.truncated), "both terminated and truncated"
    assert np.isfinite([observation.reward, observation.episode_return]).all(), "reward not finite"


def _check_first(observation: Observation) -> None:
    assert observation.step == 0, f"step is {observation.step} after a reset, expected 0"
    assert not observation.done, "an episode is over at its reset"
    assert observation.episode_return == 0.0, "return is not 0 after a reset"


def _check_reset(plant: Plant, seed: int, last: Observation, lockstep: bool) -> Observation:
    plant.reset(seed)
    observation = plant.observe()
    check_observation(observation, plant.spec)
    if lockstep:
        assert observation.episode == last.episode + 1, (
            f"episode is {observation.episode} after the reset of {last.episode}"
        )
        _check_first(observation)
    return observation


def _check_order(last: Observation, observation: Observation) -> None:
    before, after = (last.episode, last.step), (observation.episode, observation.step)
    assert after >= before, f"(episode, step) went back from {before} to {after}"
    assert observation.stamp_ns >= last.stamp_ns, "the stamp went back"
    if observation.episode == last.episode:
        assert observation.success or not last.success, "success was lost within an episode"


def _applied(seen: list[Observation]) -> list[int]:
    """Return what each command's observation says was applied."""
    return [observation.applied_tick for observation in seen if observation.step]


def _check_step(last: Observation, observation: Observation) -> None:
    assert observation.episode == last.episode, "a command changed the episode"
    assert observation.step == last.step + 1, (
        f"step is {observation.step} after a command at {last.step}: expected one step"
    )
    total = last.episode_return + observation.reward
    assert np.isclose(observation.episode_return, total), (
        f"return is {observation.episode_return}, rewards add up to {total}"
    )


def _check_same(first: list[Observation], second: list[Observation], who: str) -> None:
    for a, b in zip(first, second, strict=True):
        same = all(np.array_equal(x, y) for x, y in zip(a.arrays, b.arrays, strict=True))
        assert same, f"{who} went another way from the same seed at step {a.step}"
        results = [(o.reward, o.terminated, o.truncated, o.success, o.step) for o in (a, b)]
        assert results[0] == results[1], f"{who} judged otherwise: {results[0]}, {results[1]}"


def _check_closing(plant: Plant) -> None:
    spec = plant.spec
    plant.close()
    plant.close()
    try:
        plant.command(Limits.of(spec).safe, 0)
    except ControllerError:
        return
