"""Settings of the simulation and of data collection. Reading them needs no mujoco."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from controller.fault_settings import FaultsConfig
from controller.key_settings import NO_SERVER_KEYS, ServerKeySettings
from controller.ranges import Count, NonNegative, Positive, SchedFifo, Seed


class SimConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Run a task's plant behind an address.

    Attributes:
        task: name of the task; see ``onebeat sim list``.
        mode: realtime (physics follows the wall clock) or lockstep (it waits for the command).
        endpoint: address to serve it at.
        seed: seed of the first episode, until a loop resets it with its own.
        sched_fifo: auto (take SCHED_FIFO where the machine allows it) or off.
        dumps: directory for the states before the simulation became unstable.
        faults: delays, losses, noise and frozen sensors; none by default.
        keys: whose clients may connect; needed for an endpoint beyond this machine.
    """

    task: str = "pointmaze-medium"
    mode: Literal["realtime", "lockstep"] = "realtime"
    endpoint: Annotated[str, msgspec.Meta(min_length=1)] = "ipc:///tmp/onebeat-plant"
    seed: Seed = 0
    sched_fifo: SchedFifo = "auto"
    dumps: str = "runs/unstable"
    faults: FaultsConfig = FaultsConfig()
    keys: ServerKeySettings = NO_SERVER_KEYS


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


class GenerateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Make a dataset anew from what drives a task: policy files, a bundle, a script, chance.

    Attributes:
        task: name of a recipe, such as hopper-medium-regen, or of a task.
        policies: directory with the policy files a recipe takes, such as
            hopper/sac_snapshot_04.npz.
        policy: .npz file of a behaviour policy that drives the task.
        bundle: trained bundle, or store of bundles, that drives the task.
        behaviour: random drives with random actions, scripted with the task's own controller;
            null takes the policy, the bundle or the script, whichever there is.
        steps: control steps to record; null for the recipe's own number, else 200 000.
        seed: seed of resets, goals and all noise.
        noise: standard deviation of the noise on the actions, before they are clipped; null for
            what the recipe says, 0.1 in mazes and scripts, else none.
        stay_s: mazes only: longest time to stay at a reached goal; the time is drawn evenly from
            0 to this for every goal, then the next goal is drawn.
        processes: processes to run episodes in; null for one on each core. The data do not
            depend on it.
        out: the file to write; null for runs/data/NAME.hdf5.
    """

    task: str = "pointmaze-medium"
    policies: str | None = None
    policy: str | None = None
    bundle: str | None = None
    behaviour: Literal["random", "scripted"] | None = None
    steps: Count | None = None
    seed: Seed = 0
    noise: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    stay_s: NonNegative = 0.5
    processes: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None
    out: str | None = None


class ViewConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Watch a task: in MuJoCo's viewer where there is a display, else as a file.

    Attributes:
        task: name of the task; see ``onebeat sim list``.
        act: what drives it: random, rest (the safe command), or a policy bundle.
        seconds: how much of it, in plant time; null for one episode of at most 20 s.
        seed: seed of the episode and of the actions.
        out: file to write, .gif, .mp4 or .png (the last frame); null opens the viewer where
            there is a display, and elsewhere writes runs/view/TASK.gif.
        size: longer edge of the picture in pixels.
        fps: frames per second; the picture plays at the speed of the plant.
        camera: name of one of the model's cameras; null for the usual one.
    """

    task: str = "pointmaze-medium"
    act: str = "random"
    seconds: Positive | None = None
    seed: Seed = 0
    out: str | None = None
    size: Annotated[int, msgspec.Meta(ge=32, le=2048)] = 320
    fps: Annotated[float, msgspec.Meta(ge=1, le=60)] = 20.0
    camera: str | None = None


class TableConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Write the page of all tasks.

    Attributes:
        measurements: directory of what was measured; see ``sim.measurements``.
        out: the file to write.
    """

    measurements: str = "docs/measurements"
    out: str = "docs/tasks.md"


class CheckConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Check that tasks keep their promises.

    Attributes:
        tasks: names of tasks or of datasets; none for every task.
        steps: control steps of each drive; a task is driven about four times.
        processes: how many to check at a time; null for one on each core.
        limit_s: how long one task may take.
    """

    tasks: tuple[str, ...] = ()
    steps: Count = 30
    processes: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None
    limit_s: Positive = 120.0
