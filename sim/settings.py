"""Settings of the simulation and of data collection. Reading them needs no mujoco."""

from __future__ import annotations

from typing import Annotated

import msgspec

from controller.ranges import Count, NonNegative, SchedFifo, Seed


class SimConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Run a task's plant in real time.

    Attributes:
        task: name of the task; see ``onebeat sim list``.
        endpoint: address to serve it at.
        seed: seed of the first episode, until a loop resets it with its own.
        sched_fifo: auto (take SCHED_FIFO where the machine allows it) or off.
    """

    task: str = "pointmaze-medium"
    endpoint: Annotated[str, msgspec.Meta(min_length=1)] = "ipc:///tmp/onebeat-plant"
    seed: Seed = 0
    sched_fifo: SchedFifo = "auto"


class CollectConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Drive a maze task with its scripted controller, into a D4RL file.

    Attributes:
        task: name of a maze task.
        steps: control steps to record.
        seed: seed of starts, goals and noise.
        noise: standard deviation of the noise on the actions, before they are clipped to
            [-1, 1].
        stay_s: longest time to stay at a reached goal; the time is drawn evenly from 0 to this
            for every goal, then the next goal is drawn.
        out: the file to write.
    """

    task: str = "pointmaze-medium"
    steps: Count = 200_000
    seed: Seed = 0
    noise: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.1
    stay_s: NonNegative = 0.5
    out: str = "runs/data/pointmaze-medium.hdf5"
