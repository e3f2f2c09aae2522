"""Settings of training, fine-tuning and serving. Reading them needs no torch."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from controller.ranges import (
    Count,
    Device,
    Engine,
    Fraction,
    NonNegative,
    Positive,
    SchedFifo,
    Seed,
)


class NetworkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape of the networks: an MLP with Mish units on [noisy action, time, observation].

    Attributes:
        hidden: width of each hidden layer.
        time_features: width of the sinusoidal embedding of the noise level, even.
        time_hidden: width of the layer behind it.
        dropout: probability of dropping a hidden unit in training.
    """

    hidden: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)] = (256, 256, 256)
    time_features: Annotated[int, msgspec.Meta(ge=4, multiple_of=2)] = 16
    time_hidden: Count = 32
    dropout: Fraction = 0.0

    @property
    def frequencies(self) -> tuple[float, ...]:
        """Angular frequencies of the time embedding, falling from 1 to 1e-4."""
        half = self.time_features // 2
        return tuple(10_000.0 ** (-i / (half - 1)) for i in range(half))


class PreconditionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Noise levels and how the network is wrapped in them.

    Attributes:
        kind: ``edm`` scales the input and embeds ln(sigma); ``paper`` feeds both raw.
        sigma_min: smallest noise level, where the consistency function is the identity.
        sigma_max: largest noise level, where sampling starts.
        sigma_data: standard deviation of an encoded action, about.
        rho: curvature of the grid of noise levels.
    """

    kind: Literal["edm", "paper"] = "edm"
    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    sigma_data: Positive = 0.5
    rho: Positive = 7.0

    def __post_init__(self) -> None:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} is not below sigma_max {self.sigma_max}")


class ConsistencySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The consistency loss.

    Attributes:
        levels_start: s0, the number of grid steps the curriculum starts with.
        levels_end: s1, the number it ends with: 150 in the paper, for millions of updates. A
            coarse grid learns in thousands, and smooths the distribution.
        weighting: weight of each sample: ``none``, or ``inverse_step`` for
            xi / (tau_{n+1} - tau_n).
        xi: scale of ``inverse_step``; 100 in the paper.
        distance: ``l2`` (squared) or ``pseudo_huber``.
        huber: pseudo-Huber constant per square root of the action size.
        levels: how a pair of neighbouring levels is drawn: ``uniform`` on the grid, or
            ``lognormal`` in sigma.
        lognormal_mean: mean of ln(sigma) for ``lognormal``.
        lognormal_std: standard deviation of ln(sigma) for ``lognormal``.
        target_decay: decay of the target network per update; 0 takes the online network.
    """

    levels_start: Count = 2
    levels_end: Count = 10
    weighting: Literal["none", "inverse_step"] = "none"
    xi: Positive = 100.0
    distance: Literal["l2", "pseudo_huber"] = "l2"
    huber: Positive = 0.03
    levels: Literal["uniform", "lognormal"] = "uniform"
    lognormal_mean: float = -1.1
    lognormal_std: Positive = 2.0
    target_decay: Fraction = 0.0


class OptimiserSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Adam and its batches.

    Attributes:
        steps: gradient updates.
        batch: rows per update.
        learning_rate: after the warm-up.
        warmup: updates over which the rate rises linearly from zero.
        final_rate: share of the learning rate left after the cosine decay.
        weight_decay: decoupled weight decay.
        grad_clip: largest norm of the gradient; null for no limit.
        served_decay: decay per update of the average of the weights that is served.
        threads: CPU threads. On a core that is shared with other work, two threads wait
            for each other and are slower than one.
    """

    steps: Count = 10_000
    batch: Count = 256
    learning_rate: Positive = 1e-3
    warmup: Annotated[int, msgspec.Meta(ge=0)] = 100
    final_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    weight_decay: NonNegative = 0.0
    grad_clip: Positive | None = 1.0
    served_decay: Fraction = 0.999
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class SamplerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an action is drawn from the trained model; one network evaluation per level.

    Attributes:
        levels: noise levels, falling; null for the largest one only (one step).
        temperature: factor on the noise sampling starts from; 1 draws from the model.
    """

    levels: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)] | None = None
    temperature: NonNegative = 1.0

    def __post_init__(self) -> None:
        if self.levels and list(self.levels) != sorted(set(self.levels), reverse=True):
            raise ValueError(f"sampler levels {list(self.levels)} do not fall strictly")


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Learn a policy from a dataset.

    Attributes:
        task: name of the task the data belongs to; see ``onebeat sim list``.
        data: HDF5 file with the transitions.
        out: store that receives the bundle, as its current one, and ``metrics.jsonl``.
        algorithm: ``consistency_bc``, behaviour cloning with a consistency model.
        observation: names of the observation arrays the policy sees; null for all.
        seed: seed of initial weights, batches and noise.
        save_state: keep the optimiser's state in the bundle, to resume from.
        log_every: updates between two lines of metrics.
        network: shape of the network.
        noise: noise levels and preconditioning.
        loss: the consistency loss.
        optimiser: updates, batches, learning rate.
        sampler: how actions are drawn when serving.
    """

    task: str = ""
    data: str = ""
    out: str = "runs/train/bundles"
    algorithm: Literal["consistency_bc"] = "consistency_bc"
    observation: tuple[str, ...] | None = None
    seed: Seed = 0
    save_state: bool = True
    log_every: Count = 100
    network: NetworkSettings = NetworkSettings()
    noise: PreconditionSettings = PreconditionSettings()
    loss: ConsistencySettings = ConsistencySettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    sampler: SamplerSettings = SamplerSettings()


class FinetuneConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Improve a policy from the logs of its runs with Consistency-AC.

    Attributes:
        parent: bundle, or store of bundles, to start from.
        logs: run logs to learn from.
        offline: HDF5 file with transitions that anchor the policy beside the logs; null for
            none.
        out: store that receives the new bundle, as its current one, and ``metrics.jsonl``.
        seed: seed of batches and noise.
        updates: updates of the critics after which to stop; null for no such limit.
        seconds: time after which to stop; null for no such limit.
        warmup: share of the budget in which only the critics learn.
        batch: rows per update.
        log_share: share of a batch that comes from the logs when offline data is given.
        actor_rate: learning rate of the policy.
        critic_rate: learning rate of the critics.
        discount: of future reward, per control step.
        eta: weight of the Q term against the consistency loss.
        critic_decay: decay per update of the target critics.
        served_decay: decay per update of the average of the weights that is served.
        grad_clip: largest norm of each gradient.
        threads: CPU threads; one leaves the other cores to the control loop.
        log_every: updates between two lines of metrics.
    """

    parent: str = "runs/demo/bundles"
    logs: tuple[str, ...] = ()
    offline: str | None = None
    out: str = "runs/demo/bundles"
    seed: Seed = 0
    updates: Count | None = None
    seconds: Positive | None = 8.0
    warmup: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    batch: Count = 256
    log_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    actor_rate: Positive = 3e-5
    critic_rate: Positive = 3e-4
    discount: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.99
    eta: NonNegative = 0.02
    critic_decay: Fraction = 0.995
    served_decay: Fraction = 0.99
    grad_clip: Positive = 1.0
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    log_every: Count = 50

    def __post_init__(self) -> None:
        if self.updates is None and self.seconds is None:
            raise ValueError("updates and seconds are both null: set at least one")


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
    """Serve a policy.

    Attributes:
        bundle: a bundle, or a store of bundles whose current one is meant.
        endpoint: address to answer on: ``ipc://PATH`` or ``tcp://HOST:PORT``.
        engine: numpy (fastest for these sizes on a CPU) or torch.
        device: cpu, or cuda with engine torch.
        sched_fifo: auto (take SCHED_FIFO where the machine allows it) or off.
    """

    bundle: str = "runs/demo/bundles"
    endpoint: str = "ipc:///tmp/onebeat-policy"
    engine: Engine = "numpy"
    device: Device = "cpu"
    sched_fifo: SchedFifo = "auto"
