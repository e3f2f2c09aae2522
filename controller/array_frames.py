"""The array frames of a message: bytes as arrays of a spec, without copying."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controller.errors import SpecMismatch, WireError
from controller.spec import ArraySpec
from controller.types import Array


def unpack(frames: Sequence[bytes], specs: Sequence[ArraySpec]) -> tuple[Array, ...]:
    """Return read-only arrays over ``frames``, one per spec, without copying.

    Raises:
        WireError: the number of frames or the length of one is not the spec's.
    """
    if len(frames) != len(specs):
        raise WireError(f"{len(frames)} array frames, expected {len(specs)}")
    arrays = [_view(frame, spec, spec.shape, 1) for frame, spec in zip(frames, specs, strict=True)]
    return tuple(arrays)


def unpack_chunk(frame: bytes, spec: ArraySpec, horizon: int) -> Array:
    """Return the read-only actions (horizon, *shape) in ``frame``, without copying.

    Raises:
        WireError: the frame has not the length of ``horizon`` actions.
    """
    return _view(frame, spec, (horizon, *spec.shape), horizon)


def require_arrays(arrays: Sequence[Array], specs: Sequence[ArraySpec]) -> None:
    """Raise :class:`SpecMismatch` unless ``arrays`` are what ``specs`` say."""
    if len(arrays) != len(specs):
        raise SpecMismatch(f"{len(arrays)} arrays, expected {len(specs)}")
    for array, spec in zip(arrays, specs, strict=True):
        if array.shape != spec.shape or array.dtype != spec.numpy_dtype:
            raise SpecMismatch(
                f"{spec.name} is {list(array.shape)} {array.dtype}, "
                f"expected {list(spec.shape)} {spec.dtype}"
            )


def _view(frame: bytes, spec: ArraySpec, shape: tuple[int, ...], rows: int) -> Array:
    expected = spec.nbytes * rows
    if len(frame) != expected:
        raise WireError(f"{spec.name} has {len(frame)} bytes, expected {expected} for {shape}")
    array: Array = np.ndarray(shape, spec.numpy_dtype, frame)
    array.setflags(write=False)
    return array
