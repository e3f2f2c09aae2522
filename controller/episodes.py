"""The plant's side of a run: looking, sending, and turning from one episode to the next."""

from __future__ import annotations

from controller.errors import ControllerError, PlantFailed
from controller.interfaces import Clock, Plant
from controller.notices import Notify
from controller.types import Array, Observation, Reason


def episode_seed(seed: int, episode: int) -> int:
    """Return the seed of the run's ``episode``-th reset: seed + episode, modulo 2³²."""
    return (seed + episode) % 2**32


class Episodes:
    """Reads and commands a plant, and knows which of its episodes the loop is in.

    Args:
        plant: the plant.
        clock: time.
        seed: seed of the run.
        notify: takes (kind, detail) of whatever went wrong.

    Attributes:
        last: newest observation; None before the first.
        lost: whether the last look at the plant failed.
        failure: why the plant cannot go on, as it said; empty while it can.
        lockstep: whether the plant had begun the last episode when ``reset`` returned.
        awaited: lowest episode number that may be acted on.
        completed: episodes seen to their end.
    """

    def __init__(self, plant: Plant, clock: Clock, seed: int, notify: Notify) -> None:
        self._plant, self._clock = plant, clock
        self._seed, self._notify = seed, notify
        self.last: Observation | None = None
        self.lost = self.lockstep = False
        self.failure = ""
        self.awaited = self.completed = 0
        self._resets = self._reset_ns = 0

    @property
    def waited_ns(self) -> int:
        """Time since the last reset was asked for."""
        return self._clock.now_ns() - self._reset_ns

    def begin(self) -> bool:
        """Ask for the first episode; return whether it is there at once, as in lockstep."""
        try:
            self.awaited = self._plant.observe().episode + 1
        except Exception:  # A plant that was never reset may say so in any way.
            self.awaited = 0
        return self.reset()

    def reset(self) -> bool:
        """Ask for the next episode; return whether it is there at once, as in lockstep."""
        seed = episode_seed(self._seed, self._resets)
        self._resets += 1
        self._reset_ns = self._clock.now_ns()
        try:
            self._plant.reset(seed)
        except (ControllerError, OSError) as error:
            self._complain(error)
        self.lockstep = self.begun()
        return self.lockstep

    def begun(self) -> bool:
        """Look whether the awaited episode is there."""
        seen = self.look()
        return seen is not None and not self.lost and seen.episode >= self.awaited

    def look(self) -> Observation | None:
        """Return the newest observation, or the last one known if the plant is lost."""
        try:
            self.last, self.lost, self.failure = self._plant.observe(), False, ""
        except (ControllerError, OSError) as error:
            self.lost = True
            self._complain(error)
        return self.last

    def send(self, command: Array, tick: int) -> Reason:
        """Command the plant; return PLANT_LOST or PLANT_FAILED if that failed."""
        try:
            self._plant.command(command, tick)
        except (ControllerError, OSError) as error:
            self._complain(error)
            return Reason.PLANT_FAILED if self.failure else Reason.PLANT_LOST
        return Reason.NONE

    def between(self, observation: Observation) -> bool:
        """Return whether ``observation`` belongs to no episode that may be acted on."""
        return observation.done or observation.episode < self.awaited

    def overdue(self, observation: Observation, timeout_ns: float) -> bool:
        """Return whether the awaited episode should have begun by now."""
        return observation.episode < self.awaited and self.waited_ns > timeout_ns

    def ends(self, observation: Observation) -> bool:
        """Return whether ``observation`` is the first sight of an episode's end, and count it."""
        if self.lost or not observation.done or observation.episode < self.awaited:
            return False
        self.awaited = observation.episode + 1
        self.completed += 1
        return True

    def _complain(self, error: Exception) -> None:
        if isinstance(error, PlantFailed):
            self.failure = str(error)
        self._notify("plant", f"{type(error).__name__}: {error}")
