"""Settings of training and serving. Reading them needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from controller.acting import AS_BUNDLED, ActSettings
from controller.key_settings import NO_SERVER_KEYS, ServerKeySettings
from controller.ranges import (
    Count,
    Device,
    Engine,
    NonNegative,
    Positive,
    SchedFifo,
    Seed,
)
from controller.wire import Horizon
from policies.learning import (
    ConsistencySettings,
    ImproveSettings,
    IqlSettings,
    OptimiserSettings,
    RewardSettings,
    Step,
    Td3Settings,
    ValueSettings,
)
from policies.model import (
    ChainSettings,
    CriticSettings,
    NetworkSettings,
    PreconditionSettings,
    SamplerSettings,
)

Algorithm = Literal[
    "consistency_bc",
    "consistency_ac",
    "diffusion_bc",
    "diffusion_ql",
    "bc",
    "td3_bc",
    "iql",
    "rebrac",
]
IMITATORS: tuple[Algorithm, ...] = ("bc", "consistency_bc", "diffusion_bc")
"""Algorithms that learn actions as they are: to them a chunk is one long action."""


PolicyName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
DEFAULT_POLICY = "default"
"""Name of the policy of clients that name none, where ``bundle`` gives it."""


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Learn a policy from a dataset.

    Attributes:
        task: name of the task the data belongs to; see ``onebeat sim list``.
        data: dataset: a file, a directory or a published name.
        out: store that receives the bundles, the newest as its current one, and the metrics;
            with several seeds ``out/seed_N`` is the store of each.
        algorithm: what to learn with; see docs/algorithms.md.
        horizon: H, the actions that one answer holds: those of the next H control steps. More
            than 1 is for the algorithms that imitate: bc, consistency_bc and diffusion_bc.
        preset: ``paper`` or ``released`` begin with the settings that Ding & Jin describe for
            this task, or that their published code has; ``own`` with what is written here.
        observation: names of the observation arrays the policy sees; null for all.
        normalise: observations to mean 0 and standard deviation 1; else as they are.
        clip_actions: take actions beyond their limits, clipped, instead of refusing them.
        seed: seed of initial weights, batches and noise.
        seeds: several seeds, learned side by side; null for the one.
        resume: go on with the run that ``out`` holds.
        checkpoint_every: updates between two bundles; 0 for one at the end.
        save_every: updates between two states to resume from.
        log_every: updates between two lines of metrics.
        tensorboard: write TensorBoard's files too, where it is installed.
        evaluate_episodes: episodes each bundle is scored over, where the simulator is
            installed; 0 for none.
        device: cpu or cuda.
        network: shape of the policy's network; of bc, td3_bc, iql and rebrac only ``hidden``
            counts, whose units are ReLU.
        critic: shape of the critics.
        noise: noise levels and preconditioning of a consistency policy.
        chain: chain of a diffusion policy.
        loss: the consistency loss.
        value: how the critics learn.
        improve: how the critics guide the policy.
        td3: how td3_bc and rebrac learn; null for the defaults of its settings.
        iql: how iql learns; null likewise.
        reward: what is done to the rewards.
        optimiser: updates, batches, learning rate.
        sampler: how actions are drawn when serving.
    """

    task: str = ""
    data: str = ""
    out: str = "runs/train/bundles"
    algorithm: Algorithm = "consistency_bc"
    horizon: Horizon = 1
    preset: Literal["own", "paper", "released"] = "own"
    observation: tuple[str, ...] | None = None
    normalise: bool = True
    clip_actions: bool = False
    seed: Seed = 0
    seeds: Annotated[tuple[Seed, ...], msgspec.Meta(min_length=1)] | None = None
    resume: bool = False
    checkpoint_every: Step = 0
    save_every: Count = 5_000
    log_every: Count = 100
    tensorboard: bool = True
    evaluate_episodes: Step = 0
    device: Device = "cpu"
    network: NetworkSettings = NetworkSettings()
    critic: CriticSettings = CriticSettings()
    noise: PreconditionSettings = PreconditionSettings()
    chain: ChainSettings = ChainSettings()
    loss: ConsistencySettings = ConsistencySettings()
    value: ValueSettings = ValueSettings()
    improve: ImproveSettings = ImproveSettings()
    td3: Td3Settings | None = None
    iql: IqlSettings | None = None
    reward: RewardSettings = RewardSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    sampler: SamplerSettings = SamplerSettings()

    def __post_init__(self) -> None:
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat")
        if self.horizon > 1 and self.algorithm not in IMITATORS:
            raise ValueError(
                f"horizon {self.horizon}: {self.algorithm} values single actions; expected 1, or "
                f"an algorithm that imitates: {', '.join(IMITATORS)}"
            )

    @property
    def runs(self) -> tuple[int, ...]:
        """The seeds of the runs that are learned side by side."""
        return self.seeds if self.seeds is not None else (self.seed,)

    @staticmethod
    def beneath(tree: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that what was written is laid over."""
        from policies.presets import beneath

        return beneath(tree)


class SacConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Learn a policy in simulation with soft actor-critic, and keep what it went through.

    Attributes:
        task: name of the task; see ``onebeat sim list``.
        out: directory that receives ``sac_snapshot_00.npz`` and on, ``replay.hdf5``,
            ``snapshots.json``, ``metrics.jsonl`` and the bundle; empty for ``runs/sac/TASK``. A
            run that was stopped there goes on.
        seed: seed of everything.
        steps: control steps, all copies together.
        copies: copies of the task that are stepped together.
        processes: processes they are stepped in, the learner's among them; null for as many as
            there are processors. More than one pays where the simulation is slow: an update
            takes some 6 ms.
        start_steps: steps with actions drawn evenly, before the first update.
        updates_per_step: gradient updates for each control step.
        batch: rows per update.
        hidden: width of each hidden layer of policy and critics.
        learning_rate: of policy, critics and temperature.
        discount: of future reward, per control step.
        tau: share of the critics that enters their targets in each update.
        temperature: weight of the entropy, kept; null learns it.
        target_entropy: entropy that a learned temperature aims at, in nats of actions within
            [-1, 1]; null for minus the number of action elements.
        capacity: newest steps that are learned from and kept in ``replay.hdf5``.
        snapshots: policies kept, evenly over the run, the untrained one first.
        evaluate_episodes: episodes each snapshot is scored over; 0 for none.
        save_every: steps of each copy after which, at the latest, the state is saved and every
            copy begins a new episode; several times the length of an episode.
        device: where the networks live; cpu or cuda.
        threads: CPU threads of the learner.
        log_every: steps between two lines of metrics.
    """

    task: str = ""
    out: str = ""
    seed: Seed = 0
    steps: Count = 300_000
    copies: Count = 4
    processes: Annotated[int, msgspec.Meta(ge=0)] | None = 1
    start_steps: Annotated[int, msgspec.Meta(ge=0)] = 5_000
    updates_per_step: Positive = 1.0
    batch: Count = 256
    hidden: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)] = (256, 256)
    learning_rate: Positive = 3e-4
    discount: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.99
    tau: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.005
    temperature: Positive | None = None
    target_entropy: float | None = None
    capacity: Count = 1_000_000
    snapshots: Annotated[int, msgspec.Meta(ge=2, le=100)] = 11
    evaluate_episodes: Annotated[int, msgspec.Meta(ge=0)] = 10
    save_every: Count = 5_000
    device: Device = "cpu"
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    log_every: Count = 1_000


class ServeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Serve policies.

    Attributes:
        bundle: a bundle, or a store of bundles whose current one is meant, for clients that
            name no policy; null, with policies, for the first of those.
        policies: further bundles or stores by the names that clients ask for them by, as in
            ``policies.arm=runs/arm``.
        endpoint: address to answer on: ``ipc://PATH`` or ``tcp://HOST:PORT``; a host beyond this
            machine needs keys.
        keys: whose clients may connect.
        max_rate_hz: messages per second and client; what is more is dropped.
        engine: numpy (fastest for these sizes on a CPU), torch or onnx.
        device: cpu, or cuda with engine torch.
        act: how actions are chosen, where that is not left to the bundle.
        sched_fifo: auto (take SCHED_FIFO where the machine allows it) or off.
        drain_s: time to leave in: what waits is answered, nothing new is taken.
    """

    bundle: str | None = "runs/demo/bundles"
    policies: dict[PolicyName, str] = {}
    endpoint: str = "ipc:///tmp/onebeat-policy"
    keys: ServerKeySettings = NO_SERVER_KEYS
    max_rate_hz: Positive = 20_000.0
    engine: Engine = "numpy"
    device: Device = "cpu"
    act: ActSettings = AS_BUNDLED
    sched_fifo: SchedFifo = "auto"
    drain_s: NonNegative = 2.0

    def __post_init__(self) -> None:
        if self.bundle is None and not self.policies:
            raise ValueError("bundle is null and policies is empty: name at least one bundle")
        if self.bundle is not None and DEFAULT_POLICY in self.policies:
            raise ValueError(f"{DEFAULT_POLICY} is the name of bundle, choose another")

    @property
    def bundles(self) -> dict[str, str]:
        """Every bundle by its name; the first is for clients that name none."""
        first = {} if self.bundle is None else {DEFAULT_POLICY: self.bundle}
        return {**first, **self.policies}

    @staticmethod
    def beneath(tree: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that what was written is laid over."""
        return {"bundle": None} if tree.get("policies") else {}
