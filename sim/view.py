"""Watching a task: an episode is driven in lockstep, then replayed in front of a camera."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from controller.errors import ConfigError
from controller.interfaces import Plant
from controller.safety import Limits
from controller.spec import Spec
from controller.types import Array, Observation
from sim.env import Simulated
from sim.offscreen import draw
from sim.registry import make_plant
from sim.settings import ViewConfig

Act = Callable[[Observation, int], Array]
"""Returns the action for an observation at a tick."""

LONGEST_S = 20.0
ENDINGS = (".gif", ".mp4", ".png")


class FilmJob(msgspec.Struct, frozen=True):
    """What the drawing process is asked for.

    Attributes:
        task: name of the task.
        seed: seed of the first episode; later ones go on from it.
        actions: .npy file of the actions (T, A), replayed from the seed.
        every: draw one frame every so many steps.
        out: file to write.
        size: longer edge in pixels.
        fps: frames per second.
        camera: name of a camera of the model, or None.
    """

    task: str
    seed: int
    actions: str
    every: int
    out: str
    size: int
    fps: float
    camera: str | None


def resting(spec: Spec) -> Act:
    """Return a driver that always gives the safe command."""
    safe = Limits.of(spec).safe
    return lambda observation, tick: safe


def randomly(spec: Spec, seed: int) -> Act:
    """Return a driver that draws actions evenly from the limits, or from ±1 without limits."""
    random = np.random.default_rng(seed)
    low, high = (np.nan_to_num(bound, posinf=1.0, neginf=-1.0) for bound in spec.action.bounds())
    return lambda observation, tick: random.uniform(low, high).astype(spec.action.dtype)


def record(plant: Plant, act: Act, seed: int, steps: int, *, one_episode: bool) -> list[Array]:
    """Drive a plant in lockstep and return the actions it took.

    Args:
        plant: a lockstep plant.
        act: the driver.
        seed: of the first episode; further ones continue its random stream.
        steps: most control steps.
        one_episode: stop where the first episode ends.
    """
    actions: list[Array] = []
    plant.reset(seed)
    for tick in range(steps):
        if plant.observe().done:
            if one_episode:
                break
            plant.reset()
        action = np.array(act(plant.observe(), tick), dtype=plant.spec.action.dtype)
        plant.command(action, tick)
        actions.append(action)
    return actions


def view(config: ViewConfig, act: Act | None = None) -> dict[str, Any]:
    """Show a task and return what was shown.

    Args:
        config: what to show.
        act: the driver, where ``config.act`` names a policy.

    Raises:
        ConfigError: no such task or camera, or a file of another kind.
        RenderUnavailable: no picture can be drawn here.
    """
    out = Path(config.out or f"runs/view/{Path(config.task).stem}.gif")
    if out.suffix not in ENDINGS:
        raise ConfigError(f"out: {out} ends in {out.suffix!r}, expected {', '.join(ENDINGS)}")
    plant = make_plant(config.task, seed=config.seed)
    try:
        act = act or (resting if config.act == "rest" else _random_of(config))(plant.spec)
        if config.out is None and has_display(os.environ):
            return _watch(plant, act, config)
        rate_hz = plant.spec.rate_hz
        steps = max(1, round((config.seconds or LONGEST_S) * rate_hz))
        actions = record(plant, act, config.seed, steps, one_episode=config.seconds is None)
        last = plant.observe()
    finally:
        plant.close()
    every = max(1, math.ceil(rate_hz / config.fps))

    def job(scratch: Path, made: Path) -> FilmJob:
        kept = scratch / "actions.npy"
        np.save(kept, np.array(actions), allow_pickle=False)
        fps, size = rate_hz / every, config.size
        return FilmJob(
            config.task, config.seed, str(kept), every, str(made), size, fps, config.camera
        )

    draw("sim.filming", job, out, timeout_s=60.0 + 0.5 * len(actions) / every)
    return {"out": str(out), "steps": len(actions), "return": last.episode_return}


def has_display(environment: Mapping[str, str]) -> bool:
    """Whether a window can be opened."""
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def _random_of(config: ViewConfig) -> Callable[[Spec], Act]:
    return lambda spec: randomly(spec, config.seed)


def _watch(plant: Any, act: Act, config: ViewConfig) -> dict[str, Any]:  # noqa: ANN401
    """Play at the speed of the wall clock in MuJoCo's viewer until it is closed."""
    import mujoco.viewer

    env = plant.env
    if not isinstance(env, Simulated):
        raise ConfigError(f"{config.task}: shows no physics to look at; name a file with out=")
    period_s, tick = plant.spec.period_ns / 1e9, 0
    plant.reset(config.seed)
    with mujoco.viewer.launch_passive(env.model, env.data) as window:
        due_s = time.monotonic()
        while window.is_running():
            if plant.observe().done:
                plant.reset()
            plant.command(act(plant.observe(), tick), tick)
            window.sync()
            tick, due_s = tick + 1, due_s + period_s
            time.sleep(max(0.0, due_s - time.monotonic()))
    return {"steps": tick, "return": plant.observe().episode_return}
