"""The tasks as Gymnasium environments; importing this module registers them.

Ids are ``onebeat/`` and the name of a task or of a D4RL dataset, with ``-v0`` after names that
carry no version (see :func:`id_of`): ``onebeat/hopper-v0``, ``onebeat/hopper-medium-v2``,
``onebeat/FetchReach-v4``. With ``gymnasium.make("sim.gymnasium_env:onebeat/hopper-v0")`` no
import is needed beside Gymnasium's.
``gymnasium.make_vec`` gives :class:`sim.gymnasium_vector.GymnasiumVector`.

A robot of one's own has no name: ``gymnasium.make("onebeat/robot-v0", task="robot.yaml")``.

Any option of the task's environment is a keyword of ``gymnasium.make``. ``info["success"]`` is
there where the task knows success; it stays true for the rest of the episode.
"""

from __future__ import annotations

import re
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from controller.spec import ArraySpec, Spec
from controller.types import Array, Observation
from sim.env import Simulated
from sim.errors import RenderUnavailable
from sim.registry import make_plant, task_named, tasks

NAMESPACE = "onebeat"
OWN_ROBOT = f"{NAMESPACE}/robot-v0"
UNLIMITED = 2**62
"""Steps of an episode: Gymnasium's own wrapper cuts it."""

OneOrMany = Array | dict[str, Array]


def register() -> None:
    """Register every task, and every dataset name as its task; safe to call twice."""
    for task in tasks().values():
        for name in (task.name, *task.datasets):
            _register(id_of(name), task.episode_steps, {"task": task.name})
    _register(OWN_ROBOT, None, {"episode_steps": None})


def _register(known: str, episode_steps: int | None, options: dict[str, Any]) -> None:
    if known not in gymnasium.registry:
        gymnasium.register(
            known,
            entry_point="sim.gymnasium_env:GymnasiumEnv",
            vector_entry_point="sim.gymnasium_vector:GymnasiumVector",
            max_episode_steps=episode_steps,
            kwargs=options,
        )


def id_of(name: str) -> str:
    """Return the Gymnasium id of a task or dataset.

    Where datasets are called as the task with a version behind it, the newest of those names
    is also the task's: ``onebeat/antmaze-umaze-v2``.
    """
    plain = re.sub(r"[^\w:.-]", "-", name)
    if re.search(r"-v\d+$", plain):
        return f"{NAMESPACE}/{plain}"
    task = tasks().get(name)
    stems = (dataset.rpartition("-v") for dataset in (task.datasets if task else ()))
    newest = max((int(version) for stem, _, version in stems if stem == name), default=0)
    return f"{NAMESPACE}/{plain}-v{newest}"


class GymnasiumEnv(gymnasium.Env[OneOrMany, Array]):
    """A task's plant in lockstep.

    A reset without a seed draws one from ``np_random``, which a reset with a seed sets.

    Args:
        task: name of the task, or path of a robot file.
        episode_steps: steps after which an episode is truncated here; None for the task's own.
        render_mode: None or ``rgb_array``, for tasks that show their physics.
        options: of the task's environment.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        render_mode: str | None = None,
        episode_steps: int | None = UNLIMITED,
        **options: Any,  # noqa: ANN401
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode}: expected None or rgb_array")
        self.plant = make_plant(task, episode_steps=episode_steps, **options)
        spec = self.plant.spec
        self._has_success = task_named(task).has_success
        self._names = [array.name for array in spec.observation]
        self._tick = 0
        self._renderer: Any = None
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": max(1, round(spec.rate_hz))}
        self.observation_space = observation_space(spec)
        self.action_space = box(spec.action)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[OneOrMany, dict[str, Any]]:
        """Begin an episode, determined by ``seed`` where one is given."""
        super().reset(seed=seed)
        self.plant.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        self._tick = 0
        return self._seen(self.plant.observe())

    def step(self, action: Array) -> tuple[OneOrMany, float, bool, bool, dict[str, Any]]:
        """Apply an action for one control step.

        Raises:
            ActionMismatch: the action has another shape, or is not finite.
            EpisodeOver: the episode has ended, or none has begun.
        """
        self.plant.command(action, self._tick)
        self._tick += 1
        now = self.plant.observe()
        observation, info = self._seen(now)
        return observation, now.reward, now.terminated, now.truncated, info

    def render(self) -> NDArray[np.uint8] | None:
        """Return a picture (height, width, 3), None without ``render_mode``.

        Raises:
            RenderUnavailable: the task shows no physics, or the machine cannot draw.
        """
        if self.render_mode is None:
            return None
        env = self.plant.env
        if not isinstance(env, Simulated):
            raise RenderUnavailable(f"{self.plant.spec.task}: shows no physics to draw")
        if self._renderer is None or self._renderer.model is not env.model:
            self._renderer = _renderer(env)
        self._renderer.update_scene(env.data, _camera(env))
        picture: NDArray[np.uint8] = self._renderer.render()
        return picture

    def close(self) -> None:
        """Release the plant."""
        self.plant.close()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _seen(self, now: Observation) -> tuple[OneOrMany, dict[str, Any]]:
        # The plant's arrays are read-only, and users of Gymnasium write into theirs.
        info = {"success": now.success} if self._has_success else {}
        if len(now.arrays) == 1:
            return now.arrays[0].copy(), info
        return dict(zip(self._names, [array.copy() for array in now.arrays], strict=True)), info


def box(array: ArraySpec) -> spaces.Box:
    """Return the space of one array."""
    dtype = np.dtype(array.dtype)
    low, high = array.bounds()
    if dtype.kind == "u":
        info = np.iinfo(array.dtype)
        low, high = np.maximum(low, info.min), np.minimum(high, info.max)
    return spaces.Box(low.astype(dtype), high.astype(dtype), array.shape, dtype.type)


def observation_space(spec: Spec) -> spaces.Space[Any]:
    """Return the space of an observation: a Box for one array, else a Dict by name."""
    if len(spec.observation) == 1:
        return box(spec.observation[0])
    return spaces.Dict({array.name: box(array) for array in spec.observation})


def _renderer(env: Simulated) -> Any:  # noqa: ANN401
    import mujoco

    try:
        return mujoco.Renderer(env.model)
    except Exception as error:
        raise RenderUnavailable(
            f"off-screen OpenGL does not work here ({str(error) or type(error).__name__}); "
            "set MUJOCO_GL to egl or osmesa before mujoco is imported"
        ) from error


def _camera(env: Simulated) -> Any:  # noqa: ANN401
    from sim.filming import camera_of

    return camera_of(env.model, None)


register()
