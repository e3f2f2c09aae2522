"""Plants by hand, for tests of the latch and the real-time server."""

import numpy as np

from controller.errors import PlantFailed
from controller.spec import ArraySpec, Spec
from controller.types import Observation

SPEC = Spec(
    task="integrator",
    observation=(ArraySpec("sum", (1,)), ArraySpec("episode_seed", (), "float64")),
    action=ArraySpec("rate", (1,), "float64", low=(0.25,), high=(None,), elements=("flow",)),
    rate_hz=200.0,
)


class Integrator:
    """Adds up its commands, and keeps a list of them."""

    spec = SPEC

    def __init__(self, episode_steps=10**9, on_step=lambda: None, fail_at=-1):
        self.episode_steps, self.on_step, self.fail_at = episode_steps, on_step, fail_at
        self.taken, self.seeds = [], []
        self.now = None
        self.failed = False

    def reset(self, seed=None):
        self.seeds.append(seed)
        self.failed = False
        episode = 0 if self.now is None else self.now.episode + 1
        arrays = (np.zeros(1), np.array(-1.0 if seed is None else float(seed)))
        self.now = Observation(arrays, stamp_ns=-1, episode=episode)

    def observe(self):
        if self.failed:
            raise PlantFailed("the tank burst")
        return self.now

    def command(self, action, tick):
        assert not self.now.done, "physics after the end of an episode"
        self.on_step()
        self.taken.append((tick, float(action[0])))
        if self.now.step == self.fail_at:
            self.failed = True
            raise PlantFailed("the tank burst")
        self.advance(self.poured(float(action[0])), tick)

    def poured(self, value):
        """What one control step adds."""
        return value

    def advance(self, reward, tick):
        now, step = self.now, self.now.step + 1
        self.now = Observation(
            (now.arrays[0] + reward, now.arrays[1]),
            stamp_ns=-1,
            episode=now.episode,
            step=step,
            reward=reward,
            episode_return=now.episode_return + reward,
            truncated=step >= self.episode_steps,
            applied_tick=tick,
        )

    def close(self):
        pass


class SubsteppedIntegrator(Integrator):
    """The same in ``physics_steps`` parts, each with the command of its moment.

    Attributes:
        poured_at: (time, value) of every part, where there is a clock.
    """

    between = None

    def __init__(self, physics_steps=5, clock=None, on_part=lambda: None, **options):
        super().__init__(**options)
        self.physics_steps, self.clock, self.on_part = physics_steps, clock, on_part
        self.poured_at = []

    def poured(self, value):
        total = 0.0
        for part in range(self.physics_steps):
            if part and self.between is not None:
                value = float(self.between()[0])
            if self.clock is not None:
                self.poured_at.append((self.clock.now_ns(), value))
            self.on_part()
            total += value / self.physics_steps
        return total


def command(value):
    """Return the frames of a command."""
    return [np.array([value]).tobytes()]
