"""Copies of a task as a Gymnasium vector environment: ``gymnasium.make_vec`` of any of our ids."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from controller.types import Array, VectorStep
from sim.gymnasium_env import OneOrMany, box, observation_space
from sim.registry import task_named
from sim.vector import make_vector


class GymnasiumVector(VectorEnv[OneOrMany, Array, NDArray[Any]]):
    """Copies of a task, stepped in parallel; a copy begins its next episode in the same step.

    Where one ended, ``info["final_obs"]`` holds its last observation, as Gymnasium has it for
    ``AutoresetMode.SAME_STEP``. The seed of copy i is drawn from (seed, i), whatever the number
    of processes.

    Args:
        task: name of the task, or path of a robot file.
        num_envs: how many copies.
        max_episode_steps: steps after which an episode is cut; None for the task's own.
        episode_steps: the same; Gymnasium calls it otherwise.
        processes: see :func:`sim.vector.make_vector`.
        seed: of the first reset without one; None for any.
        options: of the task's environment.
    """

    def __init__(
        self,
        task: str,
        num_envs: int,
        *,
        max_episode_steps: int | None = None,
        episode_steps: int | None = None,
        processes: int | None = None,
        seed: int | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        first = np.random.SeedSequence(seed).generate_state(1)[0]
        self.copies = make_vector(
            task,
            num_envs,
            seed=int(first),
            processes=processes,
            episode_steps=max_episode_steps or episode_steps,
            **options,
        )
        spec = self.copies.spec
        self._arrays = spec.observation
        self._has_success = task_named(task).has_success
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.single_observation_space = observation_space(spec)
        self.single_action_space = box(spec.action)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[OneOrMany, dict[str, Any]]:
        """Begin an episode in every copy.

        Raises:
            ValueError: the seed is a list; one number seeds all copies.
        """
        if isinstance(seed, list):
            raise ValueError("seed: expected one number, from which each copy draws its own")
        return self._batch(self.copies.reset(seed)), {}

    def step(
        self, actions: Array
    ) -> tuple[OneOrMany, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Apply one action to each copy."""
        seen = self.copies.step(actions)
        observations = self._batch(seen.observations)
        return observations, seen.rewards, seen.terminated, seen.truncated, self._info(seen)

    def close_extras(self, **kwargs: Any) -> None:  # noqa: ANN401
        """Release the copies."""
        self.copies.close()

    def _info(self, seen: VectorStep) -> dict[str, Any]:
        everywhere = np.ones(self.num_envs, np.bool_)
        info: dict[str, Any] = {}
        if self._has_success:
            info = {"success": seen.success, "_success": everywhere}
        ended = seen.terminated | seen.truncated
        if ended.any():
            finals = np.full(self.num_envs, None, dtype=object)
            for copy in np.flatnonzero(ended):
                last = self._batch(seen.next_observations[copy : copy + 1])
                one = {k: v[0] for k, v in last.items()} if isinstance(last, dict) else last[0]
                finals[copy] = one
            info |= {"final_obs": finals, "_final_obs": ended}
        return info

    def _batch(self, rows: NDArray[np.float64]) -> OneOrMany:
        """Return rows (N, D) as the observation space has them."""
        if len(self._arrays) == 1:
            (only,) = self._arrays
            return rows.reshape(-1, *only.shape).astype(only.dtype, copy=False)
        batch: dict[str, Array] = {}
        start = 0
        for array in self._arrays:
            part = rows[:, start : start + array.size].reshape(-1, *array.shape)
            batch[array.name] = part.astype(array.dtype)
            start += array.size
        return batch
