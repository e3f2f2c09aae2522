"""One way of drawing the answers of a policy, with the noise of its requests."""

from __future__ import annotations

from collections.abc import Sequence

from policies.anytime import Option
from policies.choice import Sampler
from policies.ensemble import EnsembleDraw
from policies.noise import Float32, Float64, NoiseSource
from policies.prefix import Known


class Way:
    """An option with what draws by it.

    Args:
        place: among the options of a policy; -1 for one that was asked for.
        sampler: draws.
        size: H A, elements of an answer.
        members: answers drawn to find one that goes on from a prefix; 1 for none.
    """

    def __init__(self, place: int, sampler: Sampler, size: int, members: int = 1) -> None:
        self.place, self.sampler = place, sampler
        self.option = Option(sampler.steps, sampler.candidates)
        self._noise = NoiseSource((*self.option, size))
        self._ensemble: EnsembleDraw | None = None
        if members > 1 and sampler.candidates == 1:
            self._ensemble = EnsembleDraw(sampler.draw, members)
            self._sources = NoiseSource((sampler.steps, members, size))

    def random(self, seed: int, tick: int) -> tuple[Float32, Float64 | None]:
        """Return noise (K, C, S) of a request, and what chooses among its candidates."""
        drawn = self._noise.draw(seed, tick)
        return drawn, self._noise.uniform() if self.sampler.uniform else None

    def draw_each(
        self, condition: Float32, keys: Sequence[tuple[int, int]], known: Known | None
    ) -> Float32:
        """Return encoded answers (B, S).

        Args:
            condition: (B, d).
            keys: seed and tick of each request.
            known: what is known of the answers.
        """
        if known is not None and self._ensemble is not None:
            drawn, _ = self._sources.draw_each(keys)
            return self._ensemble(condition, side_by_side(drawn), known)
        drawn, even = self._noise.draw_each(keys)
        uniform = even if self.sampler.uniform else None
        return self.sampler(condition, side_by_side(drawn), uniform, known)


def side_by_side(noise: Float32) -> Float32:
    """Return noise (K, B C, S) as samplers take it, of (B, K, C, S)."""
    count, steps, candidates, size = noise.shape
    return noise.swapaxes(0, 1).reshape(steps, count * candidates, size)
