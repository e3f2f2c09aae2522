"""Rows of an answer that are decided before it is drawn, as a sampler is given them.

While a loop waits for an answer, it goes on with the rows that it has. An answer that keeps
those rows and goes on from them meets the loop without a jump (Black, Galliker & Levine 2025,
arXiv 2506.07339). A sampler keeps them by in-painting (Song et al. 2023, alg. 4): they enter
each evaluation with the noise of its level, and their place in what it returns is overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controller.errors import DataError
from controller.types import Array
from policies.codec import Codec

Float32 = NDArray[np.float32]


class Known(NamedTuple):
    """What is known of B answers of S = H A elements.

    Attributes:
        values: (B, S) encoded elements, 0 where they are not known.
        mask: (B, S) whether they are.
    """

    values: Float32
    mask: NDArray[np.bool_]

    def repeated(self, times: int) -> Known:
        """Return each row ``times`` times, one after the other."""
        return Known(np.repeat(self.values, times, axis=0), np.repeat(self.mask, times, axis=0))

    def rows(self, rows: slice) -> Known:
        """Return some of the rows."""
        return Known(self.values[rows], self.mask[rows])

    def put(self, x: Float32) -> None:
        """Write what is known into x (B, S)."""
        np.copyto(x, self.values, where=self.mask)


def fits(prefix: Array, codec: Codec) -> bool:
    """Return whether ``prefix`` is rows of actions of this robot."""
    return prefix.shape[1:] == codec.action_shape


def known_of(prefixes: Sequence[Array | None], codec: Codec, horizon: int) -> Known | None:
    """Return what the prefixes of some requests say, None where they say nothing.

    Args:
        prefixes: (P, *action shape) in plant units for each request, None without one; rows
            beyond ``horizon`` are passed over.
        codec: translates.
        horizon: H.

    Raises:
        DataError: rows that are no actions of this robot.
    """
    if not any(prefix is not None and len(prefix) for prefix in prefixes):
        return None
    shape = len(prefixes), horizon * codec.action_size
    known = Known(np.zeros(shape, np.float32), np.zeros(shape, np.bool_))
    for row, prefix in enumerate(prefixes):
        if prefix is None or not len(prefix):
            continue
        if not fits(prefix, codec):
            raise DataError(
                f"prefix: rows of shape {prefix.shape[1:]}, expected {codec.action_shape}"
            )
        encoded = codec.encode_action(prefix[:horizon]).reshape(-1)
        known.values[row, : encoded.size] = encoded
        known.mask[row, : encoded.size] = True
    return known
