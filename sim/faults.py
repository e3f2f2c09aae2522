"""Seeded faults between a loop and a plant: delay, jitter, loss, noise, frozen sensors.

The same parts serve both modes. In lockstep time counts in control steps: :class:`FaultyPlant`
wraps any plant. In real time it counts in nanoseconds, and ``sim.held`` and ``sim.server`` pass
commands and states through the channels.

Everything is drawn from (seed of the faults, seed of the episode), by kind of fault from a stream
of its own, so that one fault more does not change when the others strike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np

from controller.fault_settings import FaultsConfig
from controller.interfaces import Plant
from controller.safety import bounds_in_dtype, is_finite
from controller.spec import Spec
from controller.types import Array, Observation
from sim.errors import ActionMismatch

T = TypeVar("T")


class Channel(Generic[T]):
    """A line that is late, unevenly so, and loses some of what is sent; nothing overtakes.

    Args:
        delay_s: time from sending to arrival.
        jitter_s: further time, drawn evenly from 0 to this.
        loss: probability that something sent never arrives.
        grid_ns: the time under way is rounded to multiples of this.

    Attributes:
        lost: what never arrived.
    """

    def __init__(self, delay_s: float, jitter_s: float, loss: float, grid_ns: int = 1) -> None:
        self._delay_ns, self._jitter_ns = delay_s * 1e9, jitter_s * 1e9
        self._loss, self._grid_ns = loss, grid_ns
        self._random = np.random.default_rng(0)
        self._due: deque[tuple[int, T]] = deque()
        self.lost = 0

    def begin(self, random: np.random.Generator) -> None:
        """Forget what is under way, and draw from ``random`` from here on."""
        self._random = random
        self.clear()

    def clear(self) -> None:
        """Forget what is under way."""
        self._due.clear()

    def send(self, item: T, now_ns: int) -> None:
        """Put something on its way, or lose it."""
        # Two numbers whatever the settings, so that one fault does not shift the others.
        luck, share = self._random.random(2)
        if luck < self._loss:
            self.lost += 1
            return
        late_ns = self._delay_ns + self._jitter_ns * share
        self._due.append((now_ns + round(late_ns / self._grid_ns) * self._grid_ns, item))

    def arrived(self, now_ns: int) -> Iterator[T]:
        """Yield what has arrived by ``now_ns``, in the order it was sent.

        What would be faster than the one before it waits for that one.
        """
        while self._due and self._due[0][0] <= now_ns:
            yield self._due.popleft()[1]

    @property
    def next_ns(self) -> int | None:
        """When the next thing arrives, which may have passed; None when nothing is under way."""
        return self._due[0][0] if self._due else None


class Sensors:
    """What the sensors show of the true state: noisy, or frozen.

    Args:
        config: the faults.
        spec: of the plant.
    """

    def __init__(self, config: FaultsConfig, spec: Spec) -> None:
        self._config = config
        self._bounds = [bounds_in_dtype(array) for array in spec.observation]
        self._frozen_steps = max(1, round(config.freeze_s * 1e9 / spec.period_ns))
        self._noise = self._freeze = np.random.default_rng(0)
        self._shown: tuple[Array, ...] | None = None
        self._frozen = 0

    def begin(self, noise: np.random.Generator, freeze: np.random.Generator) -> None:
        """Begin an episode whose faults are drawn from these."""
        self._noise, self._freeze = noise, freeze
        self._shown, self._frozen = None, 0

    def read(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """Return read-only arrays; to be called once a control step."""
        strikes = self._freeze.random() < self._config.freeze
        noisy = tuple(map(self._noisy, arrays, self._bounds))
        if self._frozen == 0 and strikes and self._shown is not None:
            self._frozen = self._frozen_steps
        if self._frozen and self._shown is not None:
            self._frozen -= 1
            return self._shown
        self._shown = noisy
        return noisy

    def _noisy(self, array: Array, bounds: tuple[Array, Array]) -> Array:
        config = self._config
        if not config.noise and not config.relative_noise:
            return array
        true = array.astype(np.float64)
        spread = np.hypot(config.noise, config.relative_noise * np.abs(true))
        read = true + spread * self._noise.standard_normal(true.shape)
        if array.dtype == "uint8":
            read = np.clip(np.rint(read), 0, 255)
        shown: Array = np.array(np.clip(np.asarray(read, array.dtype), *bounds))
        shown.flags.writeable = False
        return shown


class Faults:
    """The faults of one plant.

    Args:
        config: which.
        spec: of the plant.
        grid_ns: delays are rounded to multiples of this.

    Attributes:
        config: as given.
        sensors: between the plant's state and what is sent of it.
        observations: on the way to the loop.
        actions: on the way to the plant, with their ticks.
    """

    def __init__(self, config: FaultsConfig, spec: Spec, grid_ns: int = 1) -> None:
        self.config = config
        self.sensors = Sensors(config, spec)
        self.observations: Channel[Observation] = Channel(
            config.observation_delay_s, config.jitter_s, config.observation_loss, grid_ns
        )
        self.actions: Channel[tuple[Array, int]] = Channel(
            config.action_delay_s, config.jitter_s, config.action_loss, grid_ns
        )
        self._episode = 0
        self.begin(None)

    def begin(self, seed: int | None) -> None:
        """Begin an episode; one without a seed takes the next of a sequence."""
        if seed is None:
            key, self._episode = (1, self._episode), self._episode + 1
        else:
            key = (0, seed)
        root = np.random.SeedSequence((self.config.seed, *key))
        noise, freeze, observations, actions = map(np.random.default_rng, root.spawn(4))
        self.sensors.begin(noise, freeze)
        self.observations.begin(observations)
        self.actions.begin(actions)


class FaultyPlant:
    """A lockstep plant under faults.

    A command acts whole control steps later than it was given; until the first one of an episode
    arrives, the resting action acts. Observations show the arrays and the stamp of an earlier
    control step; reward, step and the ends of episodes are those of the present. The first
    observation of an episode is always there.

    Args:
        plant: what to wrap; closed with this.
        config: the faults.
    """

    def __init__(self, plant: Plant, config: FaultsConfig) -> None:
        self._plant, self._spec = plant, plant.spec
        self._period_ns = self._spec.period_ns
        self._faults = Faults(config, self._spec, self._period_ns)
        self._acting: tuple[Array, int] = (self._spec.action.resting(), -1)
        self._shown: Observation | None = None
        self._now: Observation | None = None

    @property
    def spec(self) -> Spec:
        """What it looks like."""
        return self._spec

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; with ``seed`` its faults are determined by it, too."""
        self._plant.reset(seed)
        self._faults.begin(seed)
        self._acting = (self._spec.action.resting(), -1)
        true = self._plant.observe()
        self._shown = self._now = replace(true, arrays=self._faults.sensors.read(true.arrays))

    def observe(self) -> Observation:
        """Return what has arrived of the plant's state."""
        true = self._plant.observe()
        return self._now or true

    def command(self, action: Array, tick: int) -> None:
        """Send a command, and advance by one control step with the newest that has arrived.

        Raises:
            ActionMismatch: the action has another shape than the spec's, or is not finite.
        """
        now = self._plant.observe()
        time_ns = now.step * self._period_ns
        self._faults.actions.send((self._checked(action), tick), time_ns)
        for arrived in self._faults.actions.arrived(time_ns):
            self._acting = arrived
        self._plant.command(*self._acting)
        self._look(time_ns + self._period_ns)

    def close(self) -> None:
        """Close the plant; safe to call twice."""
        self._plant.close()

    def _look(self, time_ns: int) -> None:
        true = self._plant.observe()
        read = replace(true, arrays=self._faults.sensors.read(true.arrays))
        self._faults.observations.send(read, time_ns)
        for arrived in self._faults.observations.arrived(time_ns):
            self._shown = arrived
        assert self._shown is not None, "a plant is reset before its first command"
        self._now = replace(true, arrays=self._shown.arrays, stamp_ns=self._shown.stamp_ns)

    def _checked(self, action: Array) -> Array:
        wanted = self._spec.action
        given: Array = np.array(action, wanted.dtype)
        if given.shape != wanted.shape or not is_finite(given):
            raise ActionMismatch(
                f"{self._spec.task}: action {given.tolist()}, expected finite numbers of shape "
                f"{wanted.shape}"
            )
        return given


def faulty(plant: Plant, config: FaultsConfig) -> Plant:
    """Return a lockstep plant under faults; the plant itself where there are none."""
    return FaultyPlant(plant, config) if config.active else plant
