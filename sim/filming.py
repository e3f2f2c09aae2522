"""The drawing process behind ``sim.view``: a job as JSON on standard input, a file out.

The episode is computed again from its seed and its actions, so that whatever a reset draws is
in the picture: goals, doors, objects. MUJOCO_GL must be set before this module is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import mujoco
import numpy as np
from PIL import Image

from controller.arguments import nearest
from controller.errors import ConfigError
from sim.encode import edges, save
from sim.env import Simulated
from sim.gym_plant import GymPlant
from sim.offscreen import REFUSED
from sim.registry import make_plant
from sim.view import FilmJob

ASPECT = 4 / 3
USUAL_CAMERAS = ("track", "tracking", "side", "fixed", "front_close", "back")
"""Cameras of the known models that show the whole robot, best first."""


def frames(job: FilmJob) -> Iterator[Image.Image]:
    """Replay the actions and draw every ``job.every``-th state, the first and last included.

    Raises:
        ConfigError: the task shows no physics, or its model has no such camera.
    """
    actions = np.load(job.actions, allow_pickle=False)
    plant = make_plant(job.task, seed=job.seed)
    plant.reset(job.seed)
    env = plant.env
    if not isinstance(env, Simulated):
        raise ConfigError(f"{job.task}: shows no physics that could be drawn")
    width, height = edges(job.size, ASPECT)
    glob = env.model.vis.global_
    glob.offwidth, glob.offheight = max(width, glob.offwidth), max(height, glob.offheight)
    camera = camera_of(env.model, job.camera)
    with mujoco.Renderer(env.model, height, width) as renderer:
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        for step in range(len(actions) + 1):
            if step % job.every == 0 or step == len(actions):
                renderer.update_scene(env.data, camera)
                yield Image.fromarray(renderer.render())
            if step < len(actions):
                _step(plant, actions[step], step)


def _step(plant: GymPlant, action: Any, tick: int) -> None:  # noqa: ANN401
    if plant.observe().done:
        plant.reset()
    plant.command(action, tick)


def camera_of(model: Any, wanted: str | None) -> Any:  # noqa: ANN401
    """Return the camera to look through: the wanted, a usual one, or a free one that sees all.

    Raises:
        ConfigError: the model has no camera of that name.
    """
    known = [model.camera(i).name for i in range(model.ncam)]
    if wanted is not None:
        if wanted not in known:
            raise ConfigError(f"camera {wanted!r} is unknown; {nearest(wanted, known)}")
        return wanted
    for name in USUAL_CAMERAS:
        if name in known:
            return name
    free = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, free)
    return free


def main() -> int:
    """Do the job on standard input."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=FilmJob)
    try:
        save(list(frames(job)), Path(job.out), job.fps)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
