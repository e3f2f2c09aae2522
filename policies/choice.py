"""Choosing one action among candidates, by the least Q of the target critics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controller.acting import Select
from controller.types import Array
from policies.engine_numpy import Float32
from policies.prefix import Known
from policies.sampling import Draw, Values

ROUNDING = 1e-5
"""Engines differ in a value by less than this share of it: measured 2e-7 to 2e-6."""


def choose(q: Float32, select: Select, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return which of C candidates is taken for each of N observations.

    Args:
        q: (N, C) values.
        select: ``argmax``, or ``softmax`` at temperature 1 (Wang et al. 2023, the code).
        uniform: (N,) even in [0, 1), for ``softmax``.
    """
    if select == "argmax":
        return np.asarray(q.argmax(1))
    chances = np.exp((q - q.max(1, keepdims=True)).astype(np.float64)).cumsum(1)
    place = uniform[:, None] * chances[:, -1:]
    return np.asarray(np.minimum((chances <= place).sum(1), q.shape[1] - 1))


def is_clear(q: Float32, select: Select, uniform: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (N,) whether :func:`choose` takes the same when values are off by rounding."""
    doubt = 2.0 * ROUNDING * (1.0 + np.abs(q).max(1).astype(np.float64))
    if select == "argmax":
        second, first = np.partition(q, -2, axis=1)[:, -2:].T
        return np.asarray(first - second > doubt, np.bool_)
    taken = choose(q, select, uniform)
    # Chances change by a factor of exp(+-doubt) at most.
    near = [np.clip(uniform + side * doubt, 0.0, 1.0) for side in (-1.0, 1.0)]
    same = [choose(q, select, each) == taken for each in near]
    return np.asarray(same[0] & same[1], np.bool_)


def _alike(actions: Float32, q: Float32) -> NDArray[np.bool_]:
    """Return (N,) whether the candidates that may be the best by rounding are one action.

    At the limits of the action many are.
    """
    best = actions[np.arange(len(q)), q.argmax(1)]
    apart = np.abs(actions - best[:, None]).max(-1)
    doubt = 2.0 * ROUNDING * (1.0 + np.abs(q).max(1, keepdims=True))
    rivals = q >= q.max(1, keepdims=True) - doubt
    return np.asarray(np.where(rivals, apart, 0.0).max(1) <= ROUNDING, np.bool_)


class Sampler:
    """Draws candidates and takes one: encoded actions for encoded observations.

    Args:
        draw: gives candidates.
        steps: network evaluations of a draw, K.
        candidates: C.
        values: least Q of conditions and actions; needed for C > 1.
        select: how one is taken.
    """

    def __init__(
        self, draw: Draw, steps: int, candidates: int, values: Values | None, select: Select
    ) -> None:
        self.draw, self.steps, self.candidates = draw, steps, candidates
        self._values, self._select = values, select

    @property
    def uniform(self) -> bool:
        """Whether the choice needs a random number."""
        return self.candidates > 1 and self._select == "softmax"

    def __call__(
        self,
        condition: Float32,
        noise: Float32,
        uniform: NDArray[np.float64] | None = None,
        known: Known | None = None,
    ) -> Float32:
        """Return (N, A) from conditions (N, d).

        Args:
            condition: (N, d).
            noise: (K, N C, A), the candidates of an observation one after the other.
            uniform: (N,) even in [0, 1), for softmax.
            known: what is known of the N actions.
        """
        if self.candidates == 1:
            return self.draw(condition, noise, known)
        actions, q = self._offer(condition, noise, known)
        rows = np.arange(len(condition))
        return actions[rows, choose(q, self._select, self._even(rows, uniform))]

    def is_clear(
        self, condition: Float32, noise: Float32, uniform: NDArray[np.float64] | None = None
    ) -> bool:
        """Return whether another engine is sure to take the same candidates."""
        if self.candidates == 1:
            return True
        actions, q = self._offer(condition, noise, None)
        clear = is_clear(q, self._select, self._even(condition, uniform))
        if self._select == "argmax":
            clear |= _alike(actions, q)
        return bool(clear.all())

    def _offer(
        self, condition: Float32, noise: Float32, known: Known | None
    ) -> tuple[Float32, Float32]:
        """Return candidates (N, C, A) and their values (N, C)."""
        assert self._values is not None
        shape = len(condition), self.candidates
        repeated = np.repeat(condition, self.candidates, axis=0)
        actions = self.draw(repeated, noise, known and known.repeated(self.candidates))
        return actions.reshape(*shape, -1), self._values(repeated, actions).reshape(shape)

    @staticmethod
    def _even(rows: Array, uniform: NDArray[np.float64] | None) -> NDArray[np.float64]:
        return np.zeros(len(rows)) if uniform is None else uniform
