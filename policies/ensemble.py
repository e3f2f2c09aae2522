"""Answers that go on from a prefix, of samplers too short to be in-painted.

In-painting tells a sampler of the prefix from its second evaluation on, and at high noise next
to nothing: a consistency policy of one or two steps does not feel it. Here several answers are
drawn, and their noise is followed to where the prefix would have come from, as an ensemble
Kalman filter does (Evensen 1994; Iglesias, Law & Stuart 2013). The answer that is drawn from
there is one that the policy gives, and begins nearly as it should; the prefix is written over
its beginning. For Gaussian answers it is the conditional draw (Matheron's rule).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies.prefix import Float32, Known
from policies.sampling import Draw

SLACK = 0.03
"""Deviation from the prefix, in encoded units, that is as good as none."""
REACH = 2.0
"""Longest shift of the noise in units of sqrt(P A): as far as two draws lie apart, and half as
far again. A prefix that the policy would never begin with must not lead it to where it has never
been."""


class EnsembleDraw:
    """Draws answers that begin with a prefix.

    Args:
        draw: of the policy, a chain of evaluations from noise.
        members: M, answers that are drawn before.
    """

    def __init__(self, draw: Draw, members: int) -> None:
        self._draw, self._members = draw, members

    def __call__(self, condition: Float32, noise: Float32, known: Known) -> Float32:
        """Return (B, S), two times as many evaluations as of one answer.

        Args:
            condition: (B, d).
            noise: (K, B M, S), the members of an answer one after the other.
            known: what is known of the B answers.
        """
        count, members = len(condition), self._members
        drawn = self._draw(np.repeat(condition, members, axis=0), noise)
        drawn = drawn.reshape(count, members, -1)
        sources = noise.swapaxes(0, 1).reshape(count, members, -1)
        moved = np.stack(
            [shifted(*each) for each in zip(sources, drawn, known.values, known.mask, strict=True)]
        )
        steps, _, size = noise.shape
        again = moved.reshape(count, steps, size).swapaxes(0, 1)
        # Not in-painted: the noise has the prefix in it, which would then count twice.
        actions: Float32 = self._draw(condition, np.ascontiguousarray(again))
        known.put(actions)
        return actions


def shifted(
    sources: Float32, answers: Float32, values: Float32, mask: NDArray[np.bool_]
) -> Float32:
    """Return the noise (L,) of the member nearest to the prefix, moved towards it.

    With Y the members' beginnings, Z their noise, both less their means, and y, z those of the
    nearest member: z + Z^T Y (Y^T Y + (M - 1) slack^2)^-1 (prefix - y).

    Args:
        sources: (M, L) noise of the members.
        answers: (M, S) what came of it.
        values: (S,) encoded elements.
        mask: (S,) whether they are known.
    """
    if not mask.any():
        return np.asarray(sources[0])
    begin = answers[:, mask].astype(np.float64)
    off = values[mask] - begin
    nearest = int(np.square(off).sum(1).argmin())
    spread = begin - begin.mean(0)
    gram = spread.T @ spread
    gram[np.diag_indices(len(gram))] += (len(begin) - 1) * SLACK**2
    # The members' shares add up to 0, as the columns of ``spread`` do.
    shares = spread @ np.linalg.solve(gram, off[nearest])
    move = shares.astype(np.float32) @ sources
    longest = REACH * np.sqrt(len(gram))
    length = float(np.sqrt(np.square(move).sum()))
    if length > longest:
        move *= np.float32(longest / length)
    return np.asarray(sources[nearest] + move)
