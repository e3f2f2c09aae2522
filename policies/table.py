"""Transitions in network units, where the learner is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from controller.errors import DataError
from controller.spec import Spec
from controller.transitions import Transitions, layout_of, not_finite
from controller.types import Array
from policies.algos.learner import Batch
from policies.codec import Codec, Float32
from policies.learning import RewardSettings

TOLERANCE = 1e-3
"""Share of the range by which an action may exceed its limits: rounding in files."""


class Table:
    """Rows as one array, so that a batch is one gather; chunks of actions are a second one.

    Args:
        data: transitions; see :func:`require_fit`.
        codec: translates them.
        reward: what is done to the rewards.
        device: where the rows live.
        horizon: H, actions of a chunk.

    Raises:
        DataError: see :func:`tuned`; or numbers beyond those of float32.
    """

    def __init__(
        self,
        data: Transitions,
        codec: Codec,
        reward: RewardSettings,
        device: str = "cpu",
        horizon: int = 1,
    ) -> None:
        action = codec.encode_action(data.actions)
        following = np.zeros_like(action)
        goes_on = np.flatnonzero(~(data.terminals | data.timeouts)[:-1])
        following[goes_on] = action[goes_on + 1]
        columns = (
            codec.encode_observation(data.observations),
            action,
            tuned(data, reward)[:, None],
            ~data.terminals[:, None],
            codec.encode_observation(data.next_observations),
            following,
        )
        self._edges = np.cumsum([column.shape[1] for column in columns]).tolist()
        packed = np.concatenate(columns, axis=1, dtype=np.float32)
        _require_single(packed)
        self._rows = torch.from_numpy(packed).to(device)
        self._windows = Windows(data, action, horizon, device) if horizon > 1 else None

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: Tensor) -> Batch:
        """Return the rows (R, B) as a batch, its actions (R, B, H A)."""
        taken = self._rows[rows]
        condition, action, reward, alive, following, next_action = (
            taken[..., start:end]
            for start, end in zip([0, *self._edges[:-1]], self._edges, strict=True)
        )
        reward, alive = reward[..., 0], alive[..., 0]
        if self._windows is not None:
            action = self._windows.take(rows)
        return Batch(condition, action, reward, following, alive, next_action)


class Windows:
    """The actions of each row and of the H - 1 rows after it, beyond an episode's end its last.

    Repeated (Chi et al. 2023 do so too), not masked (Zhao et al. 2023): each row of an answer is
    drawn together with the others, so each must have learned what it is to be. Of an
    episode of T steps (H - 1) / 2T is made up, and after a terminal state nobody executes it.

    The actions are kept once, H - 1 more for each episode; a window is a run of them.

    Args:
        data: in time order.
        action: (N, A) its encoded actions.
        horizon: H.
        device: where they live.
    """

    def __init__(self, data: Transitions, action: Float32, horizon: int, device: str) -> None:
        ends = np.flatnonzero(data.last_rows == np.arange(len(data)))
        repeats = np.ones(len(data), np.int64)
        repeats[ends] = horizon
        padded = np.repeat(action, repeats, axis=0)
        self._actions = torch.from_numpy(padded).to(device)
        self._starts = torch.from_numpy(np.cumsum(repeats) - repeats).to(device)
        width = action.shape[1]
        shape = (len(padded) - horizon + 1, horizon * width)
        self._runs = self._actions.as_strided(shape, (width, 1))

    def take(self, rows: Tensor) -> Tensor:
        """Return (..., H A), the windows that begin at ``rows``, action by action."""
        return self._runs[self._starts[rows]]


def tuned(data: Transitions, settings: RewardSettings) -> Array:
    """Return (N,) float32 rewards to learn from.

    Raises:
        DataError: rewards, or returns of episodes, that are all the same cannot be scaled by
            their spread.
    """
    rewards = data.rewards.astype(np.float64)
    if settings.tune == "normalise":
        rewards = (rewards - rewards.mean()) / _spread(float(rewards.std()), "rewards")
    elif settings.tune == "locomotion":
        returns = data.returns()
        spread = float(returns.max() - returns.min())
        rewards = rewards * 1000.0 / _spread(spread, "returns of the episodes")
    elif settings.tune == "linear":
        rewards = rewards * settings.scale + settings.shift
    with np.errstate(over="ignore"):  # the table looks for infinities, and names their rows
        return rewards.astype(np.float32)


def _require_single(rows: Float32) -> None:
    bad = not_finite(rows)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(rows)} rows, first row {int(bad.argmax())}, have numbers "
            "too large for float32: expected at most 3e38, as they are scaled for learning"
        )


def _spread(value: float, what: str) -> float:
    if value <= 0.0:
        raise DataError(f"the {what} are all the same: reward.tune expects different ones")
    return value


def require_robot(data: Transitions, spec: Spec) -> None:
    """Raise :class:`DataError` unless ``data`` has the layout of ``spec``."""
    actions = data.actions[:1].size
    if data.layout != layout_of(spec) or actions != spec.action.size:
        raise DataError(
            f"transitions of {data.task or 'unknown task'} have {data.layout} and {actions} "
            f"actions, expected those of {spec.describe()}"
        )


def require_fit(data: Transitions, spec: Spec, batch: int, *, clip: bool) -> Transitions:
    """Return data that can be learned from, its actions clipped where that is allowed.

    Raises:
        DataError: another robot's, fewer rows than a batch, actions beyond their limits,
            actions that never change, or numbers that are not finite.
    """
    require_robot(data, spec)
    if len(data) < batch:
        raise DataError(
            f"{len(data)} rows, fewer than a batch of {batch}: lower optimiser.batch, or bring "
            "more data"
        )
    data = data.validate(data.task or "the data")
    low, high = (limit.reshape(-1) for limit in spec.action.bounds())
    actions = data.actions.reshape(len(data), -1)
    if not np.ptp(actions, axis=0).any():
        raise DataError("the action is the same in every row: there is nothing to learn")
    room = TOLERANCE * np.where(np.isfinite(high - low), high - low, 0.0)
    outside = (actions < low - room) | (actions > high + room)
    if not outside.any():
        return data
    if clip:
        return _clipped(data, low, high)
    column = int(outside.any(0).argmax())
    worst = actions[outside[:, column], column]
    raise DataError(
        f"{int(outside.any(1).sum())} of {len(data)} rows have actions beyond their limits: "
        f"{spec.action.name}[{column}] from {worst.min():g} to {worst.max():g}, expected "
        f"{low[column]:g} to {high[column]:g}; clip_actions=true clips them"
    )


def _clipped(data: Transitions, low: Array, high: Array) -> Transitions:
    flat = np.clip(data.actions.reshape(len(data), -1), low, high)
    return replace(data, actions=flat.astype(data.actions.dtype).reshape(data.actions.shape))
