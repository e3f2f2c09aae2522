"""The one translation between a robot's numbers and the network's, fitted once, kept with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.errors import ConfigError, DataError
from controller.spec import Spec
from controller.transitions import Transitions, flatten
from controller.types import Array

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

SMALLEST_SCALE = 1e-3
"""Elements that vary less than this share of the largest spread count as constant."""
COLUMNS = ("columns", "mean", "scale", "centre", "span", "low", "high")


@dataclass(frozen=True)
class Codec:
    """Selection, normalisation and clipping between plant units and network units.

    Attributes:
        arrays: names of the observation arrays the policy sees, in spec order.
        columns: (d,) positions of their elements within the flat observation.
        mean: (d,) subtracted from an observation.
        scale: (d,) divides it.
        centre: (A,) action that encodes to 0, plant units.
        span: (A,) plant units per encoded unit.
        low: (A,) lower limits of the action, plant units; -inf where unbounded.
        high: (A,) upper limits.
        action_shape: shape of one action.
        action_dtype: dtype of one action.
    """

    arrays: tuple[str, ...]
    columns: NDArray[np.int64]
    mean: Float64
    scale: Float64
    centre: Float64
    span: Float64
    low: Float64
    high: Float64
    action_shape: tuple[int, ...]
    action_dtype: str

    @property
    def condition_size(self) -> int:
        """Elements of an encoded observation."""
        return len(self.columns)

    @property
    def action_size(self) -> int:
        """Elements of an encoded action."""
        return len(self.centre)

    def encode_observation(self, observation: Array | Sequence[Array]) -> Float32:
        """Return (N, d) float32 network inputs.

        Args:
            observation: (N, D) flat observations, or the arrays of one observation (N = 1).
        """
        flat = observation if isinstance(observation, np.ndarray) else flatten(observation)[None]
        encoded: Float64 = (flat.take(self.columns, 1) - self.mean) / self.scale  # type: ignore[operator]
        return encoded.astype(np.float32)

    def encode_action(self, action: Array) -> Float32:
        """Return (N, A) float32 in [-1, 1] where limited, from (N, ...) plant units."""
        flat = action.reshape(len(action), -1).astype(np.float64)
        encoded: Float64 = (flat - self.centre) / self.span
        return encoded.astype(np.float32)

    def decode_action(self, encoded: Float32) -> Array:
        """Return (N, *action_shape) in the plant's units and dtype, clipped to its limits."""
        flat = encoded * self.span + self.centre
        flat = np.minimum(np.maximum(flat, self.low), self.high)
        return flat.astype(self.action_dtype).reshape(len(encoded), *self.action_shape)

    def encode_chunk(self, chunk: Array) -> Float32:
        """Return (N, H A) float32, row by row, from chunks (N, H, ...) in plant units."""
        rows = chunk.reshape(-1, self.action_size)
        return self.encode_action(rows).reshape(len(chunk), -1)

    def decode_chunk(self, encoded: Float32) -> Array:
        """Return (N, H, *action_shape) from (N, H A), each row as :meth:`decode_action` does."""
        rows = self.decode_action(encoded.reshape(-1, self.action_size))
        return rows.reshape(len(encoded), -1, *self.action_shape)

    def to_arrays(self) -> dict[str, Array]:
        """Return the numeric fields by name, exactly as they are used."""
        return {name: getattr(self, name) for name in COLUMNS}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Array], names: Sequence[str], spec: Spec) -> Codec:
        """Rebuild a codec from :meth:`to_arrays` and the names of its observation arrays."""
        fields: dict[str, Any] = {name: arrays[name] for name in COLUMNS}
        return cls(
            arrays=tuple(names),
            action_shape=spec.action.shape,
            action_dtype=spec.action.dtype,
            **fields,
        )


def fit(
    transitions: Transitions,
    spec: Spec,
    arrays: Sequence[str] | None = None,
    *,
    normalise: bool = True,
) -> Codec:
    """Fit a codec to data: mean and spread of observations, limits of actions.

    Actions map to [-1, 1] by the limits of ``spec``, or by the range of the data where an
    element is unbounded.

    Args:
        transitions: the data; observations are rows of all arrays of ``spec``.
        spec: names, sizes and limits.
        arrays: names of the observation arrays to use; None for all.
        normalise: observations to mean 0 and standard deviation 1; else they stay as they are.

    Raises:
        DataError: an array that ``spec`` does not have, or none at all.
    """
    names, columns = select(spec, arrays)
    if normalise:
        mean, scale = _moments(transitions.observations[:, columns])
    else:
        mean, scale = np.zeros(len(columns)), np.ones(len(columns))
    flat = transitions.actions.reshape(len(transitions), -1).astype(np.float64)
    low, high = (limit.reshape(-1) for limit in spec.action.bounds())
    bottom = np.where(np.isfinite(low), low, flat.min(axis=0))
    top = np.where(np.isfinite(high), high, flat.max(axis=0))
    span = (top - bottom) / 2.0
    return Codec(
        arrays=names,
        columns=columns,
        mean=mean,
        scale=scale,
        centre=(top + bottom) / 2.0,
        span=np.where(span > 0.0, span, 1.0),
        low=low,
        high=high,
        action_shape=spec.action.shape,
        action_dtype=spec.action.dtype,
    )


def _moments(observations: Array) -> tuple[Float64, Float64]:
    """Return mean and standard deviation of each column, 1 for one that is constant."""
    seen = observations.astype(np.float64)
    scale = seen.std(axis=0)
    usable = scale > SMALLEST_SCALE * scale.max(initial=0.0)
    return seen.mean(axis=0), np.where(usable, scale, 1.0)


def of_limits(spec: Spec, arrays: Sequence[str] | None = None) -> Codec:
    """Return the codec of a policy that sees observations as they are.

    Args:
        spec: names, sizes and limits.
        arrays: names of the observation arrays to use; None for all.

    Raises:
        ConfigError: an element of the action has no limits.
        DataError: an array that ``spec`` does not have, or none at all.
    """
    names, columns = select(spec, arrays)
    low, high = (limit.reshape(-1) for limit in spec.action.bounds())
    if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        raise ConfigError(
            f"{spec.task}: {spec.action.name} is not limited in every element; expected a task "
            "with a low and a high limit for each"
        )
    return Codec(
        arrays=names,
        columns=columns,
        mean=np.zeros(len(columns)),
        scale=np.ones(len(columns)),
        centre=(high + low) / 2.0,
        span=(high - low) / 2.0,
        low=low,
        high=high,
        action_shape=spec.action.shape,
        action_dtype=spec.action.dtype,
    )


def select(spec: Spec, arrays: Sequence[str] | None) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the chosen arrays in spec order and their columns in a flat observation.

    Raises:
        DataError: a name that ``spec`` does not have, or an empty choice.
    """
    valid = [array.name for array in spec.observation]
    unknown = [name for name in arrays or () if name not in valid]
    if unknown or (arrays is not None and not arrays):
        raise DataError(
            f"observation: {unknown[0] if unknown else 'no array'} is not in the observations "
            f"of {spec.task}; valid: {', '.join(valid)}"
        )
    names = tuple(name for name in valid if arrays is None or name in arrays)
    columns: list[int] = []
    start = 0
    for array in spec.observation:
        if array.name in names:
            columns.extend(range(start, start + array.size))
        start += array.size
    return names, np.array(columns, dtype=np.int64)
