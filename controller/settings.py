"""Settings of the verbs that bring several packages together."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from controller.acting import AS_BUNDLED, ActSettings
from controller.explore_settings import NO_EXPLORATION, ExploreSettings
from controller.fault_settings import FaultsConfig
from controller.key_settings import NO_CLIENT_KEYS, ClientKeySettings
from controller.log_settings import LogSettings
from controller.loop import LoopConfig
from controller.ranges import Count, Device, Engine, NonNegative, Port, Positive, Seed
from controller.replay_settings import LatencySettings

Through = Literal["vector", "loop"]
Selection = Literal["last", "online", "offline"]


class PlantSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the plant is.

    Attributes:
        endpoint: address of a running plant; null starts a simulation of the task.
        connect_timeout_s: how long to wait for it.
        faults: delays, losses, noise and frozen sensors of the simulation; none by default.
        keys: for a plant at an endpoint that has keys.
    """

    endpoint: str | None = None
    connect_timeout_s: Positive = 20.0
    faults: FaultsConfig = FaultsConfig()
    keys: ClientKeySettings = NO_CLIENT_KEYS

    def __post_init__(self) -> None:
        self.keys.require(self.endpoint)


class PolicySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the policy is.

    Attributes:
        bundle: a bundle, a store of bundles whose current one is meant, or the name of one that
            comes with onebeat, such as hopper.
        endpoint: address of a running policy server; null starts one for the bundle.
        name: of the policy, where a running server has several; empty for its first.
        engine: numpy (fastest for these sizes on a CPU), torch or onnx.
        device: cpu, or cuda with engine torch.
        act: how actions are chosen, where that is not left to the bundle.
        explore: chance of an evenly drawn action in the place of the policy's, tick by tick.
        delay_ms: time that every answer takes at least, for the study of latency.
        restart: start a policy server of this run again when it dies, after a pause that grows
            with every death.
        local_replica: keep a copy in the control process, for ticks without an answer.
        connect_timeout_s: how long to wait for the server.
        keys: for a server at an endpoint that has keys.
    """

    bundle: str = "runs/demo/bundles"
    endpoint: str | None = None
    name: str = ""
    engine: Engine = "numpy"
    device: Device = "cpu"
    act: ActSettings = AS_BUNDLED
    explore: ExploreSettings = NO_EXPLORATION
    delay_ms: NonNegative = 0.0
    restart: bool = True
    local_replica: bool = False
    connect_timeout_s: Positive = 20.0
    keys: ClientKeySettings = NO_CLIENT_KEYS

    def __post_init__(self) -> None:
        self.keys.require(self.endpoint)


class RunConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Run a policy on a plant at a fixed rate, and log everything.

    Attributes:
        task: name of the task; see ``onebeat sim list``.
        mode: realtime (the plant follows the wall clock), virtual (the same in virtual time, in one
            process: deterministic, and all that takes time is the delay of the policy) or lockstep
            (the plant waits).
        seconds: length of the run in plant time; null for no such limit.
        episodes: complete episodes after which the run ends; null for no such limit.
        seed: seed of the episodes and of the policy's noise.
        out: directory of the run; a log that is there already is kept under another name.
        plant: where the plant is.
        policy: where the policy is.
        loop: the control loop.
        log: the log.
        view: show the run while it is on to Foxglove, at ws://127.0.0.1 and ``view_port``;
            mode=realtime.
        view_port: port of the viewer.
    """

    task: str = "pointmaze-medium"
    mode: Literal["realtime", "virtual", "lockstep"] = "realtime"
    seconds: Positive | None = 30.0
    episodes: Count | None = None
    seed: Seed = 0
    out: str = "runs/run"
    plant: PlantSettings = PlantSettings()
    policy: PolicySettings = PolicySettings()
    loop: LoopConfig = LoopConfig()
    log: LogSettings = LogSettings()
    view: bool = False
    view_port: Port = 8765

    def __post_init__(self) -> None:
        if self.view and self.mode != "realtime":
            raise ValueError("view is for mode=realtime; onebeat view shows a log afterwards")
        if self.loop.teleop.endpoint is not None and self.mode != "realtime":
            raise ValueError(f"loop.teleop.endpoint is for mode=realtime, got mode={self.mode}")


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
        execute: rows of an answer to execute before the next is asked for, of policies that
            give chunks; null for half of them. Through the loop, its settings decide.
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
    execute: Count | None = None
    loop: LoopConfig = LoopConfig()
    faults: FaultsConfig = FaultsConfig()

    def __post_init__(self) -> None:
        if self.through == "loop" and self.execute is not None:
            raise ValueError("execute is for through=vector: the control loop has its own settings")
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


class RecoverConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Write what can be read of a damaged log into a new one.

    Attributes:
        log: the log's first file, or the directory of its run.
        out: file to write; null for NAME-recovered.mcap beside it. An existing one is left alone.
    """

    log: str = "runs/run/log.mcap"
    out: str | None = None


class ViewLogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Show a log to Foxglove: one that is being written as it grows, a finished one as a film.

    Attributes:
        log: the log's first file, or the directory of its run.
        port: port to listen on, on this machine.
        speed: how much faster than it was recorded a finished log is played.
        wait: play a finished log once somebody looks, rather than at once.
        follow: wait for the log to appear, and follow it from its beginning to its end.
    """

    log: str = "runs/run/log.mcap"
    port: Port = 8765
    speed: Positive = 1.0
    wait: bool = True
    follow: bool = False


class ReplayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Recompute every action of a log.

    Attributes:
        log: the log file.
        bundles: store to look for the log's policy versions in; null for where they were.
        tolerance: largest accepted difference of an action; 0 compares bit for bit. Logs of
            a GPU run need about 1e-4.
        latency: run the log once more, in virtual time and under another latency, instead.
    """

    log: str = "runs/demo/log.mcap"
    bundles: str | None = None
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    latency: LatencySettings = LatencySettings()


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


class DoctorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Measure what this machine can hold.

    Attributes:
        seconds: length of the whole examination.
        bundle: a policy whose inference to measure; null for none.
    """

    seconds: Positive = 10.0
    bundle: str | None = "hopper"


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
