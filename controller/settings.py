"""Settings of the verbs that bring several packages together."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from controller.acting import AS_BUNDLED, ActSettings
from controller.fault_settings import FaultsConfig
from controller.loop import LoopConfig
from controller.ranges import Count, Device, Engine, Positive, Seed

Through = Literal["vector", "loop"]
Selection = Literal["last", "online", "offline"]


class PlantSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the plant is.

    Attributes:
        endpoint: address of a running plant; null starts a simulation of the task.
        connect_timeout_s: how long to wait for it.
        faults: delays, losses, noise and frozen sensors of the simulation; none by default.
    """

    endpoint: str | None = None
    connect_timeout_s: Positive = 20.0
    faults: FaultsConfig = FaultsConfig()


class PolicySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the policy is.

    Attributes:
        bundle: a bundle, a store of bundles whose current one is meant, or the name of one that
            comes with onebeat, such as hopper.
        endpoint: address of a running policy server; null starts one for the bundle.
        engine: numpy (fastest for these sizes on a CPU), torch or onnx.
        device: cpu, or cuda with engine torch.
        act: how actions are chosen, where that is not left to the bundle.
        local_replica: keep a copy in the control process, for ticks without an answer.
        connect_timeout_s: how long to wait for the server.
    """

    bundle: str = "runs/demo/bundles"
    endpoint: str | None = None
    engine: Engine = "numpy"
    device: Device = "cpu"
    act: ActSettings = AS_BUNDLED
    local_replica: bool = False
    connect_timeout_s: Positive = 20.0


class RunConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Run a policy on a plant at a fixed rate, and log everything.

    Attributes:
        task: name of the task; see ``onebeat sim list``.
        mode: realtime (the plant follows the wall clock) or lockstep (it waits).
        seconds: length of the run in plant time; null for no such limit.
        episodes: complete episodes after which the run ends; null for no such limit.
        seed: seed of the episodes and of the policy's noise.
        out: directory of the run; a log that is there already is kept under another name.
        plant: where the plant is.
        policy: where the policy is.
        loop: the control loop.
    """

    task: str = "pointmaze-medium"
    mode: Literal["realtime", "lockstep"] = "realtime"
    seconds: Positive | None = 30.0
    episodes: Count | None = None
    seed: Seed = 0
    out: str = "runs/run"
    plant: PlantSettings = PlantSettings()
    policy: PolicySettings = PolicySettings()
    loop: LoopConfig = LoopConfig()


class EvalConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Score policies over seeded episodes.

    Attributes:
        bundle: bundles, stores of bundles, or directories that hold such; several as a list.
        task: task to score on; null for the task of each bundle.
        episodes: number of episodes of each policy.
        seed: of the episodes' beginnings and of the policy's noise. Through the loop, episode i
            begins from seed + i; through the vector, each copy draws its own from it.
        through: vector (copies of the task step together, and one call acts for all) or loop
            (the control loop in lockstep, with its safety limits and faults).
        copies: copies of the task in the vector, 10 at most by default; they decide which
            episodes are drawn.
        processes: processes to step them in; null for as many as there are processors. They
            change the time alone.
        selection: checkpoint of a run to score: last; online, the one of the best score over
            these very episodes, an upper bound; or offline, by the imitation loss.
        top_k: offline takes the checkpoint that this many have a smaller loss than.
        engine: what computes the actions.
        device: cpu, or cuda with engine torch.
        act: how actions are chosen, where that is not left to the bundle.
        loop: the control loop, for its safety limits; through=loop.
        faults: delays, losses, noise and frozen sensors of the plant; through=loop.
    """

    bundle: str | Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = "runs/demo/bundles"
    task: str | None = None
    episodes: Count = 50
    seed: Seed = 100
    through: Through = "vector"
    copies: Count | None = None
    processes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    selection: Selection = "last"
    top_k: Annotated[int, msgspec.Meta(ge=0)] = 0
    engine: Engine = "numpy"
    device: Device = "cpu"
    act: ActSettings = AS_BUNDLED
    loop: LoopConfig = LoopConfig()
    faults: FaultsConfig = FaultsConfig()

    def __post_init__(self) -> None:
        if self.through == "vector":
            for name, default in (("loop", LoopConfig()), ("faults", FaultsConfig())):
                if getattr(self, name) != default:
                    raise ValueError(f"{name} is for the control loop: it needs through=loop")
        if self.top_k and self.selection != "offline":
            raise ValueError(f"top_k is for selection=offline, got selection={self.selection}")

    @property
    def bundles(self) -> tuple[str, ...]:
        """What to score, one or several."""
        return (self.bundle,) if isinstance(self.bundle, str) else self.bundle


class ReplayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Recompute every action of a log.

    Attributes:
        log: the log file.
        bundles: store to look for the log's policy versions in; null for where they were.
        tolerance: largest accepted difference of an action; 0 compares bit for bit. Logs of
            a GPU run need about 1e-4.
    """

    log: str = "runs/demo/log.mcap"
    bundles: str | None = None
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class ShowConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Describe a log, a bundle or a dataset.

    Attributes:
        path: the file or directory, or the name of a dataset.
        out: PNG to draw a dataset into; null for one beside it.
    """

    path: str = "runs/demo/log.mcap"
    out: str | None = None


class InspectConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Look at a dataset.

    Attributes:
        path: an HDF5 file in D4RL's layout, a run log, a Minari dataset, a directory of these,
            or the name of a published dataset.
        task: task the data must be of, for its limits and reference scores; null for the
            data's own.
        out: PNG to draw it into; null for no picture.
    """

    path: str = "runs/demo/data.hdf5"
    task: str | None = None
    out: str | None = None


class ExportConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Write a dataset in another layout.

    Attributes:
        path: the dataset; see ``onebeat data inspect --help``.
        out: file (D4RL) or directory (Minari, named NAME-vN) to write.
        format: d4rl or minari; auto goes by the ending of ``out``.
        task: task the data must be of; null for the data's own.
    """

    path: str = "runs/demo/data.hdf5"
    out: str = "runs/data/export.hdf5"
    format: Literal["auto", "d4rl", "minari"] = "auto"
    task: str | None = None


class FetchConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Download a published D4RL dataset, or check the one that is there.

    Attributes:
        name: the dataset, such as hopper-medium-v2.
        url: address below which D4RL's paths lie; null for that in ONEBEAT_DATA_URL, else
            D4RL's own.
        directory: where to keep it; null for that in ONEBEAT_DATASETS, else in the user's data
            directory. Datasets elsewhere are not found by name.
    """

    name: str = "hopper-medium-v2"
    url: str | None = None
    directory: str | None = None


class LatencyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Time requests to the policy server, paced and back to back, beside a bare echo.

    Attributes:
        bundle: the policy to ask.
        engine: numpy or torch.
        device: cpu, or cuda with engine torch.
        rates_hz: control rates to pace at.
        transports: addresses to use.
        seconds: length of each measurement.
    """

    bundle: str = "runs/demo/bundles"
    engine: Engine = "numpy"
    device: Device = "cpu"
    rates_hz: tuple[Positive, ...] = (100.0, 200.0, 500.0)
    transports: tuple[Literal["ipc", "tcp"], ...] = ("ipc", "tcp")
    seconds: Positive = 2.0


class DoctorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Measure what this machine can hold.

    Attributes:
        seconds: length of the whole examination.
        bundle: a policy whose inference to measure; null for none.
    """

    seconds: Positive = 10.0
    bundle: str | None = None


class DemoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Do the whole circle: data, training, serving, running, fine-tuning, report.

    Attributes:
        out: directory of the demo; an earlier demo there moves to OUT.old.
        task: the maze.
        data: settings file of the dataset.
        train: settings file of the training.
        finetune: settings file of the fine-tuning.
        seconds: length of the run in real time.
        finetune_after_s: when the fine-tuning begins.
        eval_episodes: episodes of the lockstep score before and after fine-tuning.
        seed: seed of everything.
    """

    out: str = "runs/demo"
    task: str = "pointmaze-medium"
    data: str = "configs/data/pointmaze_demo.yaml"
    train: str = "configs/train/pointmaze_demo.yaml"
    finetune: str = "configs/finetune/demo.yaml"
    seconds: Positive = 50.0
    finetune_after_s: Positive = 20.0
    eval_episodes: Count = 50
    seed: Seed = 0
