"""A replay service and policy servers as the gate sees them, scripted; and figures of episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from controller.errors import PeerTimeout, Refused
from controller.scores import figures
from policies.bundle import load_bundle


class Killed(BaseException):
    """The gate was killed here."""


class ScriptedService:
    """Remembers what it is told; ``log`` is shared with the servers.

    Attributes:
        inserted: rows, of which there are as many to be drawn.
        finished: no more rows come.
        learner: whether there is one.
        dead: nothing is answered.
        kill: verb at whose call the gate is killed before it is done.
    """

    def __init__(self, log, version=""):
        self.log, self.in_force = log, version
        self.inserted, self.finished, self.learner = 0, False, True
        self.dead, self.kill = False, ""
        self.told = []
        self.seen = np.random.default_rng(5).standard_normal((4096, 3))

    def stats(self):
        self._answer("")
        return {
            "inserted": self.inserted,
            "rows": self.inserted,
            "updates": 7,
            "version": self.in_force,
            "finished": self.finished,
            "learner": self.learner,
        }

    def episodes(self, since):
        self._answer("")
        return {"episodes": self.told[since:], "next": len(self.told)}

    def live(self, version, *returns):
        """Have episodes end."""
        for value in returns:
            self.inserted += 10
            about = {"return": float(value), "version": version, "env_step": self.inserted}
            self.told.append(about | {"length": 10, "commanded": 10})

    def publish(self, bundle):
        self._enter("publish", bundle)

    def rollback(self, bundle):
        self._enter("rollback", bundle)

    def restart(self):
        self._answer("restart")
        self.log.append(("restart", self.in_force))

    def observations(self, rows):
        self._answer("draw")
        self.log.append(("draw", rows))
        return self.seen[:rows] if self.inserted >= rows else None

    def _enter(self, verb, bundle):
        self._answer(verb)
        self.in_force = load_bundle(bundle).version
        self.log.append((verb, self.in_force))

    def _answer(self, verb):
        if verb and verb == self.kill:
            self.kill = ""
            raise Killed
        if self.dead:
            raise PeerTimeout("replay: no answer")


class ScriptedServer:
    """A policy server.

    Attributes:
        trouble: raised at a swap, until it is None.
        kill: the gate is killed at the next swap: before it, or ``after`` it.
    """

    endpoint = "inproc://server"

    def __init__(self, log, version):
        self.log, self.in_force = log, version
        self.trouble, self.kill, self.seen = None, "", None

    def swap(self, bundle):
        if self.kill == "before":
            self.kill = ""
            raise Killed
        if self.trouble is not None:
            raise self.trouble
        self.in_force = load_bundle(bundle).version
        self.log.append(("swap", self.in_force))
        if self.seen is not None:
            self.seen()
        if self.kill == "after":
            self.kill = ""
            raise Killed

    def version(self):
        if isinstance(self.trouble, PeerTimeout):
            raise self.trouble
        return self.in_force


class ScriptedScores:
    """Plays nothing: returns by the name of a version, 100 for those it does not know.

    Attributes:
        returns: mean return by version.
        played: (version, episodes, seed) of each call.
    """

    def __init__(self):
        self.returns, self.played, self.trouble = {}, [], {}

    def __call__(self, bundle: Path, episodes: int, seed: int):
        self.played.append((bundle.name, episodes, seed))
        if bundle.name in self.trouble:
            raise self.trouble[bundle.name]
        mean = self.returns.get(bundle.name, 100.0)
        return figures([mean] * episodes, [10] * episodes, None, (0.0, 200.0))


def refused():
    """Return what a server says that cannot load a bundle."""
    return Refused("server: swap: no good")
