"""The agent that is improved online: networks, how they learn, and the versions they give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from controller.errors import ConfigError
from controller.spec import Spec
from controller.types import Array
from policies import bundle
from policies.algos.consistency_bc import ConsistencyBC
from policies.algos.diffusion_bc import DiffusionBC
from policies.algos.learner import Batch, Figures, Sizes
from policies.algos.q_guided import QGuided
from policies.algos.soft import Soft, SoftSettings
from policies.algos.value import Valuation
from policies.bundle import Bundle, DataEntry, Draft, Manifest
from policies.errors import BundleError
from policies.finetuning.origin import Origin, of_bundle, of_robot
from policies.finetuning.settings import FinetuneConfig, LearnSettings
from policies.golden import golden
from policies.learning import ImproveSettings, OptimiserSettings
from policies.manifest import Arrays
from policies.model import (
    ConsistencyModel,
    CriticSettings,
    DiffusionModel,
    GaussianModel,
    SamplerSettings,
)
from policies.nets import Critics
from policies.parameters import Parameters

LESSON_RATE = 1e-3
"""Learning rate of fresh critics under a teacher: there is no bootstrap that could run away. At
3e-4 they are 108 below values of 289 after 2 000 updates (Hopper), at 1e-3 they are there."""

Teacher = Callable[[Batch], Tensor]
"""Gives values (1, B) of the rows of a batch."""


class Agent:
    """A policy with its critics, both learning.

    Everything that an interrupted run must keep is in ``learner.networks``,
    ``learner.optimisers`` and ``learner.generator``.

    Args:
        origin: what it begins from.
        settings: how it learns.
        learner: its networks.
        teacher: gives the first values that fresh critics learn; None where they begin alone.

    Attributes:
        spec: the robot.
        codec: translates between robot and networks.
        algorithm: how it learns.
        parent: bundle it began from; None from scratch.
    """

    def __init__(
        self,
        origin: Origin,
        settings: LearnSettings,
        learner: QGuided | Soft,
        teacher: Teacher | None = None,
    ) -> None:
        self._origin, self.settings, self.learner = origin, settings, learner
        self._teacher = teacher
        self.spec, self.codec = origin.spec, origin.codec
        self.algorithm, self.parent = origin.algorithm, origin.parent

    @property
    def sampler(self) -> SamplerSettings:
        """How the published versions draw their actions."""
        return self._origin.sampler

    def update_critics(self, batch: Batch, step: int) -> Figures:
        """Take a step with the critics; their targets follow.

        The first ``lesson_updates`` of critics that have a teacher go towards its values.

        Args:
            batch: (1, B, .) rows.
            step: number of this update among those of the critics, 0 for the first.

        Returns:
            ``q_loss`` and ``q`` (mean target), (1,) each.
        """
        self.learner.prepare(step)
        if self._teacher is not None and step < self.settings.lesson_updates:
            self.learner.values.adam.set_rate(LESSON_RATE)
            return self.learner.values.learn(batch, self._teacher(batch))
        return self.learner.update_critics(batch)

    def update_actor(self, condition: Tensor, anchors: Batch | None, step: int) -> Figures:
        """Take a step with the policy; its averages follow.

        Args:
            condition: (1, B, d) encoded observations where the critics judge it.
            anchors: (1, B', .) rows whose actions it imitates; None for none. ``sac`` and
                ``imitation: 0`` leave them aside.
            step: number of this update among those of the policy, 0 for the first.

        Returns:
            Of L_imitation ``loss``, of L_q ``policy_loss``, where they were computed; ``norm`` of
            the gradient; of sac ``entropy`` and ``alpha`` too. (1,) each.
        """
        variant = self.learner.prepare(step)
        return self.learner.update_actor(anchors, condition, variant)

    def policy_arrays(self) -> Arrays:
        """Return the weights to publish."""
        return self.learner.policy_arrays(0)

    def critic_arrays(self) -> Arrays | None:
        """Return the target critics."""
        return self.learner.critic_arrays(0)

    def draft(
        self,
        data: tuple[DataEntry, ...],
        training: dict[str, Any],
        parent: Manifest | None = None,
    ) -> Draft:
        """Return what a bundle of the policy as it is now says of itself.

        Args:
            data: what it learned from.
            training: settings and outcome; JSON values. Its ``config`` is given the consistency
                loss, which the next fine-tuning goes on with.
            parent: of the version that was in force; None for the bundle it began from.
        """
        began = self.parent.manifest if self.parent else None
        loss = msgspec.to_builtins(self._origin.loss)
        return Draft(
            algorithm=self.algorithm,
            spec=self.spec,
            model=self.learner.model,
            sampler=self.sampler,
            codec=self.codec,
            data=data,
            training=training | {"config": {**training.get("config", {}), "loss": loss}},
            critic=self.learner.critic,
            parent=parent or began,
        )

    def restore_policy(self, bundle: Bundle) -> None:
        """Put the policy of a bundle back: its weights, in every average; critics stay.

        The optimiser forgets where it was heading.

        Raises:
            BundleError: a policy of another make.
        """
        if bundle.manifest.model != self.learner.model:
            raise BundleError(
                f"{bundle.path}: a policy of another make than the one that learns: expected one "
                "of its versions"
            )
        self.learner.load_policy(bundle.weights)
        self.learner.optimisers["actor"].forget()


def make_agent(
    config: FinetuneConfig,
    spec: Spec,
    parent: Bundle | None,
    observation: tuple[str, ...] | None = None,
) -> Agent:
    """Return an agent that begins from a bundle, or from scratch.

    From a bundle its policy, in every average, and its critics, online and target, where they
    have the shape that is asked for; else fresh ones, with those as their teacher. Critics of
    tuned rewards are left behind. The codec stays.

    Args:
        config: what to do; ``seed`` is that of fresh weights and of all noise.
        spec: the robot; that of the bundle where there is one.
        parent: the bundle; None from scratch.
        observation: from scratch, names of the arrays that the policy sees; None for all.

    Raises:
        BundleError: a bundle that cannot be improved online, or of another robot.
        ConfigError: settings that contradict each other.
        DataError: an observation that the robot does not have.
    """
    if parent is not None and parent.spec.digest() != spec.digest():
        raise BundleError(
            f"{parent.path}: made for {parent.spec.describe()}; expected {spec.describe()}"
        )
    settings = config.learn
    origin = of_robot(config, spec, observation) if parent is None else of_bundle(config, parent)
    _require_sense(settings, origin)
    sizes = Sizes(
        origin.codec.action_size, origin.codec.condition_size, (config.seed,), config.device
    )
    shape = origin.critic_of(settings)
    values = _values(settings, shape, sizes)
    learner = _learner(origin, settings, sizes, values)
    if parent is None:
        return Agent(origin, settings, learner)
    learner.load_policy(parent.weights)
    if origin.critic is None:
        return Agent(origin, settings, learner)
    arrays = parent.arrays(bundle.CRITICS)
    if origin.critic != shape:
        return Agent(origin, settings, learner, _teacher(arrays, origin.critic, sizes))
    for network in (values.online, values.target):
        network.load_arrays(arrays)
    return Agent(origin, settings, learner)


def write_candidate(
    agent: Agent,
    store: Path,
    observations: Array,
    data: tuple[DataEntry, ...],
    training: dict[str, Any],
    parent: Manifest | None,
) -> Path:
    """Write the policy as it is now to ``store/<version>``, with golden actions and critics.

    Args:
        agent: has the policy.
        store: receives the bundle; its current one stays as it is.
        observations: (n, D) flat observations in plant units, of which some become golden.
        data: what the policy learned from.
        training: see :meth:`Agent.draft`.
        parent: of the version that was in force.

    Returns:
        The bundle's directory.
    """
    draft = agent.draft(data, training, parent)
    weights, critics = agent.policy_arrays(), agent.critic_arrays()
    kept = golden(draft, weights, observations, critics)
    extra = {} if critics is None else {bundle.CRITICS: critics}
    return bundle.save_bundle(store, draft, weights, kept, extra)


def _require_sense(settings: LearnSettings, origin: Origin) -> None:
    count = origin.critic_of(settings).count
    if settings.subset > count:
        raise ConfigError(
            f"learn.subset: {settings.subset} of an ensemble of {count} critics "
            f"(learn.critic.count); expected 0 to {count}"
        )
    if origin.algorithm == "sac":
        if settings.value.max_q > 1:
            raise ConfigError(
                f"learn.value.max_q: sac draws one action for each successor, got "
                f"{settings.value.max_q}; expected 1"
            )
    elif not settings.eta and not settings.imitation:
        raise ConfigError("learn.eta and learn.imitation are 0: the policy would learn nothing")


def _values(settings: LearnSettings, shape: CriticSettings, sizes: Sizes) -> Valuation:
    value = msgspec.structs.replace(settings.value, learning_rate=settings.critic_rate, decay=False)
    return Valuation(sizes, shape, value, settings.grad_clip, settings.subset)


def _teacher(arrays: Arrays, shape: CriticSettings, sizes: Sizes) -> Teacher:
    """Return what gives the mean value (1, B) of critics, of the rows of a batch."""
    nets = Critics(sizes.action, sizes.condition, shape)
    known = Parameters(nets.shapes, len(sizes.seeds), sizes.device)
    known.load_arrays(arrays)
    return lambda batch: nets(known.fixed, batch.condition, batch.action).mean(1)


def _learner(
    origin: Origin, settings: LearnSettings, sizes: Sizes, values: Valuation
) -> QGuided | Soft:
    optimiser = OptimiserSettings(
        steps=1,
        batch=settings.batch,
        learning_rate=settings.actor_rate,
        warmup=0,
        final_rate=1.0,
        grad_clip=settings.grad_clip,
        served=settings.served,
        compile=settings.compile,
    )
    if isinstance(origin.model, GaussianModel):
        soft = SoftSettings(settings.temperature, settings.critic_rate)
        return Soft(origin.model, values, soft, optimiser)
    sampler = origin.sampler
    if settings.steps is not None:
        sampler = msgspec.structs.replace(sampler, steps=settings.steps, levels=None)
    actor = _actor(origin, optimiser, sampler, settings, sizes)
    improve = ImproveSettings(
        eta=settings.eta,
        q_loss=settings.q_loss,
        steps=sampler.steps or 1,
        grid=sampler.grid,
        slow=settings.slow,
    )
    return QGuided(actor, values, improve, settings.imitation)


def _actor(
    origin: Origin,
    optimiser: OptimiserSettings,
    sampler: SamplerSettings,
    settings: LearnSettings,
    sizes: Sizes,
) -> ConsistencyBC | DiffusionBC:
    if isinstance(origin.model, DiffusionModel):
        return DiffusionBC(sizes, origin.model, optimiser, settings.slow)
    assert isinstance(origin.model, ConsistencyModel)
    return ConsistencyBC(sizes, origin.model, origin.loss, optimiser, sampler, settings.slow)
