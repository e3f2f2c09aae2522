"""Small learners beside the baseline of the benchmarks, which is written in another way."""

import msgspec
import torch

from policies.algos.learner import Batch, Sizes
from policies.learners import make_learner
from policies.learning import (
    NEWEST,
    Averaging,
    ConsistencySettings,
    ImproveSettings,
    OptimiserSettings,
    ValueSettings,
)
from policies.model import CriticSettings, NetworkSettings, PreconditionSettings
from policies.settings import TrainConfig
from tests.benchmarks.plain.match import Shadow

ACTION, CONDITION, ROWS, UPDATES = 3, 5, 16, 5
AVERAGE = Averaging(decay=0.5, every=2, after=2, grow=False)
"""Moves after the third and the fifth update, far enough to see."""


def small(algorithm, **changes):
    """Return a config of small networks; ``loss={...}`` and the like change a part of it."""
    config = TrainConfig(
        algorithm=algorithm,
        noise=PreconditionSettings(kind="paper"),
        network=NetworkSettings(hidden=(32, 32)),
        critic=CriticSettings(hidden=(32, 32)),
        loss=ConsistencySettings(levels_end=20, target=AVERAGE),
        value=ValueSettings(tau=0.5, learning_rate=1e-3),
        improve=ImproveSettings(slow=AVERAGE, eta=0.7, grid="released"),
        optimiser=OptimiserSettings(
            steps=10, warmup=0, final_rate=1.0, grad_clip=None, served=NEWEST, learning_rate=1e-3
        ),
    )
    parts = {
        name: msgspec.structs.replace(getattr(config, name), **part)
        for name, part in changes.items()
    }
    return msgspec.structs.replace(config, **parts)


def sizes_of(seeds):
    return Sizes(ACTION, CONDITION, tuple(seeds))


def batches(runs, count=UPDATES, seed=0):
    """Return random batches, some of whose successors are terminal."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(runs, ROWS, *shape, generator=generator)

    return [
        Batch(
            condition=normal(CONDITION),
            action=normal(ACTION).tanh(),
            reward=normal(),
            next_condition=normal(CONDITION),
            alive=(normal() > -1.0).float(),
            next_action=normal(ACTION).tanh(),
        )
        for _ in range(count)
    ]


def updated(config, seeds=(0,), count=UPDATES):
    """Return a learner after some updates, and the figures of each."""
    learner = make_learner(config, sizes_of(seeds))
    figures = []
    for step, batch in enumerate(batches(len(seeds), count)):
        made = learner.update(batch, learner.prepare(step))
        figures.append({name: value.clone() for name, value in made.items()})
    return learner, figures


def apart(config, seeds=(0,), baseline=None):
    """Return how far ours and the baseline are apart: losses and weights, the largest of each.

    ``baseline`` is the config of the baseline where that is another one.
    """
    learner, figures = updated(config, seeds)
    shadow = Shadow(baseline or config, sizes_of(seeds), range(len(seeds)))
    losses = 0.0
    for step, (batch, ours) in enumerate(zip(batches(len(seeds)), figures, strict=True)):
        losses = max(losses, shadow.loss_difference(ours, shadow.update(batch, step)))
    weights = [shadow.weight_difference(learner, run) for run in range(len(seeds))]
    return losses, max(value for each in weights for value in each.values())


def require_equal(config, seeds=(0,)):
    """Fail unless ours and the baseline have the same losses, and the same weights after them."""
    losses, weights = apart(config, seeds)
    assert losses < 2e-5
    assert weights < 2e-4


def require_effect(config, plain):
    """Fail unless what ``config`` changes is seen in losses or weights."""
    assert max(apart(config, baseline=plain)) > 2e-3


def require_stacked(config, seeds=(3, 8)):
    """Fail unless runs side by side are the runs one by one, fed the same numbers."""
    stacked = make_learner(config, sizes_of(seeds))
    singles = [make_learner(config, sizes_of([seed])) for seed in seeds]
    drawer, drawn = getattr(stacked, "actor", stacked), []
    noise, uniform = drawer.noise, drawer.uniform

    def kept(draw):
        def wrapped(*shape):
            drawn.append(draw(*shape))
            return drawn[-1]

        return wrapped

    drawer.noise, drawer.uniform = kept(noise), kept(uniform)
    for step, batch in enumerate(batches(len(seeds))):
        drawn.clear()
        variant = stacked.prepare(step)
        figures = stacked.update(batch, variant)
        for run, single in enumerate(singles):
            left = iter([each.select(each.dim() - 3, run).unsqueeze(-3) for each in drawn])
            one = getattr(single, "actor", single)
            one.noise = one.uniform = lambda *shape, left=left: next(left)
            single.prepare(step)
            own = Batch(**{name: each[run : run + 1] for name, each in vars(batch).items()})
            alone = single.update(own, variant)
            for name, value in alone.items():
                torch.testing.assert_close(figures[name][run], value[0], rtol=1e-4, atol=1e-5)
    for run, single in enumerate(singles):
        for name, network in single.networks.items():
            together = stacked.networks[name].to_arrays(run)
            gone = begun_at(config, seeds[run])[name]
            for key, array in network.to_arrays().items():
                moved = float(abs(array - gone[key]).max())
                assert abs(together[key] - array).max() <= 2e-2 * moved + 1e-6


def begun_at(config, seed):
    """Return the arrays of a fresh learner, by network."""
    fresh = make_learner(config, sizes_of([seed]))
    return {name: network.to_arrays() for name, network in fresh.networks.items()}


def require_same_when_compiled(config):
    """Fail unless fused operations give what they give one by one."""
    changed = msgspec.structs.replace(config.optimiser, compile=True)
    eager, one_by_one = updated(config)
    fused, at_once = updated(msgspec.structs.replace(config, optimiser=changed))
    for ours, theirs in zip(one_by_one, at_once, strict=True):
        for name, value in ours.items():
            torch.testing.assert_close(theirs[name], value, rtol=1e-5, atol=1e-5)
    for name, network in eager.networks.items():
        begun = begun_at(config, 0)[name]
        for key, array in network.to_arrays().items():
            moved = float(abs(array - begun[key]).max())
            other = fused.networks[name].to_arrays()[key]
            assert abs(other - array).max() <= 2e-2 * moved + 1e-6
