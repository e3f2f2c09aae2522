"""Settings of learning from data, and what they say of each update. Needs no torch."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

from controller.ranges import Count, Fraction, NonNegative, Positive
from policies.diffusion.schedule import doubling_size, grid_size

Step = Annotated[int, msgspec.Meta(ge=0)]


class Averaging(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A slow average of the weights.

    Attributes:
        decay: share that stays each time it moves.
        every: updates between two moves; 0 for no average: the newest weights.
        after: updates before the first move.
        grow: begin with a small decay and let it grow to ``decay``, so that the initial
            weights are forgotten first.
    """

    decay: Fraction = 0.999
    every: Step = 1
    after: Step = 0
    grow: bool = True

    def share(self, step: int) -> float:
        """Return the share of the newest weights that enters after update ``step``; 0: none."""
        if self.every == 0 or step < self.after or step % self.every:
            return 0.0
        young = (step + 1) / (step + 10) if self.grow else 1.0
        return 1.0 - min(self.decay, young)


NEWEST = Averaging(every=0)


class ConsistencySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The consistency loss.

    Attributes:
        levels_start: s0, the number of grid steps the curriculum starts with.
        levels_end: s1, the number it ends with: 150 in the paper, for millions of updates. A
            coarse grid learns in thousands, and smooths the distribution.
        growth: how the number of levels grows: ``square_root`` (Song et al. 2023), the same
            up to s1 instead of s1 + 1 (``released``), or ``doubling`` (Song & Dhariwal 2023).
        restart: updates after which the curriculum begins again; 0 for once over the run.
        weighting: weight of each sample: ``none``, or ``inverse_step`` for
            xi / (tau_{n+1} - tau_n).
        xi: scale of ``inverse_step``; 100 in the paper.
        distance: ``l2`` (mean square) or ``pseudo_huber``.
        huber: pseudo-Huber constant per square root of the action size.
        levels: how a pair of neighbouring levels is drawn: ``uniform`` on the grid, or
            ``lognormal`` in sigma.
        lognormal_mean: mean of ln(sigma) for ``lognormal``.
        lognormal_std: standard deviation of ln(sigma) for ``lognormal``.
        target: the average that is the target of the loss.
    """

    levels_start: Count = 2
    levels_end: Count = 10
    growth: Literal["square_root", "released", "doubling"] = "square_root"
    restart: Step = 0
    weighting: Literal["none", "inverse_step"] = "none"
    xi: Positive = 100.0
    distance: Literal["l2", "pseudo_huber"] = "l2"
    huber: Positive = 0.03
    levels: Literal["uniform", "lognormal"] = "uniform"
    lognormal_mean: float = -1.1
    lognormal_std: Positive = 2.0
    target: Averaging = NEWEST

    def __post_init__(self) -> None:
        if self.levels_start > self.levels_end:
            raise ValueError(f"levels_start {self.levels_start} > levels_end {self.levels_end}")

    def levels_at(self, step: int, steps: int) -> int:
        """Return N(k), the points of the grid at update ``step`` of ``steps``."""
        total = self.restart or steps
        k = step % total if self.restart else step
        if self.growth == "doubling":
            return doubling_size(k, total, self.levels_start, self.levels_end)
        end = self.levels_end - (self.growth == "released")
        return grid_size(k, total, self.levels_start, end)


class OptimiserSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Adam and its batches.

    Attributes:
        steps: gradient updates.
        batch: rows per update.
        learning_rate: of the policy, after the warm-up.
        warmup: updates over which the rate rises linearly from zero.
        final_rate: share of the learning rate left after the cosine decay; 1 for none.
        weight_decay: decoupled weight decay.
        grad_clip: largest norm of each network's gradient; null for no limit.
        served: the average of the weights that is served.
        compile: fuse the operations of an update with torch.compile, on a CPU; needs a C++
            compiler, takes half a minute at the start and pays after some 10 000 updates.
        threads: CPU threads. On a core that is shared with other work, two threads wait
            for each other and are slower than one.
    """

    steps: Count = 10_000
    batch: Count = 256
    learning_rate: Positive = 1e-3
    warmup: Step = 100
    final_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    weight_decay: NonNegative = 0.0
    grad_clip: Positive | None = 1.0
    served: Averaging = Averaging()
    compile: bool = False
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1

    def share(self, step: int) -> float:
        """Return which share of a learning rate update ``step`` has: warm-up, then cosine."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        cosine = 0.5 * (1.0 + math.cos(math.pi * step / self.steps))
        return rise * (self.final_rate + (1.0 - self.final_rate) * cosine)


class ValueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the critics learn.

    Attributes:
        learning_rate: of the critics.
        decay: share of the learning rate that follows the policy's warm-up and decay: true or
            false.
        discount: gamma, per control step.
        tau: share of the critics that enters their targets in each update.
        aggregate: value of an ensemble: the least, the mean, or ``lcb``, mean minus
            ``lcb`` standard deviations.
        lcb: see ``aggregate``.
        max_q: actions drawn for each successor, of which the largest value counts (max-Q
            backup); 1 for the value of one.
        q_norm: divide the targets by their standard deviation in the batch. The published
            code does, for some tasks; the fixed point is no longer that of Bellman's equation.
    """

    learning_rate: Positive = 3e-4
    decay: bool = True
    discount: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.99
    tau: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.005
    aggregate: Literal["min", "mean", "lcb"] = "min"
    lcb: NonNegative = 0.5
    max_q: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    q_norm: bool = False


class ImproveSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the critics guide a generative policy: L = L_imitation + eta L_q.

    Attributes:
        eta: weight of L_q.
        q_loss: ``mean``: -E[Q] / |E|Q|| over the mean of both critics; ``coin``: -E[Q_i] / E|Q_j|
            with i and j drawn, as the published code does; ``raw``: -E[Q], as the paper writes.
        steps: network evaluations behind an action in training.
        grid: noise levels of several consistency steps; see ``sampler.grid``.
        slow: the average of the policy that acts in the TD target.
    """

    eta: NonNegative = 1.0
    q_loss: Literal["mean", "coin", "raw"] = "coin"
    steps: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 2
    grid: Literal["karras", "released", "paper"] = "karras"
    slow: Averaging = Averaging(decay=0.995)


class Td3Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How td3_bc and rebrac learn.

    Attributes:
        delay: updates of the critics for each of the actor and of the targets.
        noise: standard deviation of the noise on the actions of a TD target, which are within
            [-1, 1].
        noise_clip: largest size of that noise.
        alpha: weight of Q against imitation, of td3_bc.
        actor_bc: weight of the actor's distance from the data's action, of rebrac.
        critic_bc: weight of the distance between the actor's and the data's next action in the
            TD target, of rebrac.
    """

    delay: Count = 2
    noise: NonNegative = 0.2
    noise_clip: Positive = 0.5
    alpha: NonNegative = 2.5
    actor_bc: NonNegative = 0.01
    critic_bc: NonNegative = 0.01


class IqlSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How iql learns.

    Attributes:
        expectile: tau: 0.5 for the mean value of the data's actions, near 1 for the best.
        beta: how much the advantage of an action counts when it is imitated; 0 for plain
            behaviour cloning.
        weight_max: largest weight of a sample, exp(beta A).
    """

    expectile: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.7
    beta: NonNegative = 3.0
    weight_max: Positive = 100.0


class RewardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done to the rewards before learning.

    Attributes:
        tune: ``none``; ``normalise`` to mean 0 and standard deviation 1; ``locomotion``:
            times 1000 / (largest - smallest return of an episode); or r times scale + shift.
        scale: for ``linear``.
        shift: for ``linear``; cql's mazes have scale 4 and shift -2, iql's 1 and -1.
    """

    tune: Literal["none", "normalise", "locomotion", "linear"] = "none"
    scale: float = 1.0
    shift: float = 0.0
