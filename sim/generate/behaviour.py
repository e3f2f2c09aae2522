"""Behaviour policies from .npz files, in numpy: what drove the robot when data was recorded.

Two kinds of files, told apart by their entry ``output_distribution``:

``tanh_gaussian``
    h = f(fc_n(… f(fc0(o)))), μ = last_fc(h), log σ = clip(last_fc_log_std(h), -20, 2); an action
    is tanh(μ + σ·n) with n ~ N(0, I), the mean action tanh(μ). Soft actor-critic.
``gaussian``
    μ = fc_n(f(… f(fc0((o - in_shift) / (in_scale + 1e-8))))) · out_scale + out_shift; an action
    is μ + exp(log_std)·n. It may leave [-1, 1]: clipping is the caller's. DAPG.

f is the entry ``nonlinearity``: relu or tanh. Weights are (out, in). Arithmetic is float64. The
product of one observation is one dot product per output, so that its bits do not depend on how
many BLAS threads share the outputs; a batch is one matrix product and differs by rounding.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from controller.errors import DataError

Floats = NDArray[np.float64]

LOG_STD = (-20.0, 2.0)
"""Range that the log of a tanh-Gaussian's standard deviation is clipped to."""
HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
LOG_TWO = math.log(2.0)


class Noise(Protocol):
    """A source of standard normal numbers: a numpy Generator, or the older RandomState."""

    def standard_normal(self, size: Any) -> Any:  # noqa: ANN401
        """Return an array of ``size`` normal numbers."""
        ...


class Behaviour(ABC):
    """A stochastic policy that looks at nothing but the observation.

    Observations are (D,) or (..., D), actions (A,) or (..., A). Not for two threads at once.

    Attributes:
        source: the file it came from.
        digest: sha256 of that file, 64 hex digits.
        observation_size: D.
        action_size: A.
        squashed: whether actions lie within [-1, 1] by construction.
        last: (u, log σ, n) behind the last action drawn: the Gaussian's value u = μ + σ·n, its
            log standard deviation, the normal numbers. Arrays of their own, never changed again.
    """

    squashed = False

    def __init__(self, network: _Network, source: str, digest: str) -> None:
        self.source, self.digest = source, digest
        self.observation_size, self.action_size = network.inputs, network.outputs
        self._network = network
        nothing: Floats = np.zeros(0)
        self.last = (nothing, nothing, nothing)

    @abstractmethod
    def mean_std(self, observation: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the Gaussian, before any squashing."""

    @abstractmethod
    def mean(self, observation: Floats) -> Floats:
        """Return the mean action."""

    @abstractmethod
    def act(self, observation: Floats, rng: Noise) -> Floats:
        """Draw an action, with one normal number for each of its elements."""

    @abstractmethod
    def log_density(self, raw: Floats, log_std: Floats, noise: Floats) -> Floats:
        """Return the log density (...) of actions, given (..., A) of what is kept in ``last``."""


class TanhGaussian(Behaviour):
    """The policy of a soft actor-critic."""

    squashed = True

    def __init__(self, network: _Network, source: str, digest: str) -> None:
        super().__init__(network, source, digest)
        self.action_size //= 2

    def mean_std(self, observation: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation before the tanh."""
        heads = self._network(observation)
        size = self.action_size
        return heads[..., :size].copy(), np.exp(_clipped(heads[..., size:]))

    def mean(self, observation: Floats) -> Floats:
        """Return tanh of the mean."""
        return np.tanh(self._network(observation)[..., : self.action_size])

    def act(self, observation: Floats, rng: Noise) -> Floats:
        """Draw an action in [-1, 1]."""
        heads = self._network(observation)
        mean, log_std = heads[..., : self.action_size], heads[..., self.action_size :]
        noise, log_std = rng.standard_normal(mean.shape), _clipped(log_std)
        raw = np.exp(log_std)
        raw *= noise
        raw += mean
        self.last = raw, log_std, noise
        return cast("Floats", np.tanh(raw))

    def log_density(self, raw: Floats, log_std: Floats, noise: Floats) -> Floats:
        """Return log N(u; μ, σ) - Σ log(1 - tanh² u)."""
        # log(1 - tanh²u) = 2 (log 2 - |u| - log1p(exp(-2|u|))), which cannot overflow.
        size = np.abs(raw)
        squash = LOG_TWO - size - np.log1p(np.exp(-2.0 * size))
        return cast("Floats", (_log_normal(noise, log_std) - 2.0 * squash).sum(-1))


class Gaussian(Behaviour):
    """A Gaussian around a normalised network, its standard deviation the same everywhere."""

    def __init__(
        self, network: _Network, scaling: Mapping[str, Floats], source: str, digest: str
    ) -> None:
        super().__init__(network, source, digest)
        self._in_shift = scaling["in_shift"]
        self._in_scale = scaling["in_scale"] + 1e-8
        self._out_shift, self._out_scale = scaling["out_shift"], scaling["out_scale"]
        self._log_std = scaling["log_std"]
        self._std = np.exp(self._log_std)

    def mean_std(self, observation: Floats) -> tuple[Floats, Floats]:
        """Return the mean action and its standard deviation."""
        mean = self.mean(observation)
        return mean, np.broadcast_to(self._std, mean.shape)

    def mean(self, observation: Floats) -> Floats:
        """Return the mean action."""
        inner = self._network((observation - self._in_shift) / self._in_scale)
        return inner * self._out_scale + self._out_shift

    def act(self, observation: Floats, rng: Noise) -> Floats:
        """Draw an action, without limits."""
        mean = self.mean(observation)
        noise = rng.standard_normal(mean.shape)
        action: Floats = mean + self._std * noise
        self.last = action, np.broadcast_to(self._log_std, mean.shape), noise
        return action

    def log_density(self, raw: Floats, log_std: Floats, noise: Floats) -> Floats:
        """Return log N(a; μ, σ) of actions as they were before any clipping."""
        return cast("Floats", _log_normal(noise, log_std).sum(-1))


def load_behaviour(path: Path | str) -> Behaviour:
    """Read a behaviour policy.

    Raises:
        DataError: no such file, not an .npz, another kind of policy, or an entry is missing, of
            a shape that does not fit, or not finite.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    digest = hashlib.sha256(content).hexdigest()
    entries = _Entries(str(path), _read(content, path))
    kind = entries.word("output_distribution", ("tanh_gaussian", "gaussian"))
    activation = _ACTIVATIONS[entries.word("nonlinearity", tuple(_ACTIVATIONS))]
    if kind == "tanh_gaussian":
        mean = entries.layer("last_fc")
        log_std = entries.layer("last_fc_log_std", mean[0].shape)
        head = np.concatenate([mean[0], log_std[0]]), np.concatenate([mean[1], log_std[1]])
        network = _Network([*entries.hidden(), head], activation, str(path))
        return TanhGaussian(network, str(path), digest)
    network = _Network(entries.hidden(), activation, str(path))
    widths = {"in_shift": network.inputs, "in_scale": network.inputs}
    widths |= dict.fromkeys(("out_shift", "out_scale", "log_std"), network.outputs)
    scaling = {name: entries.array(name, (width,)) for name, width in widths.items()}
    return Gaussian(network, scaling, str(path), digest)


class _Network:
    """A chain of affine layers with an activation between them.

    For one observation the result is a buffer that the next call overwrites.
    """

    def __init__(
        self,
        layers: list[tuple[Floats, Floats]],
        activation: Callable[[Floats], object],
        source: str,
    ) -> None:
        for (before, _), (after, _) in itertools.pairwise(layers):
            if after.shape[1] != before.shape[0]:
                raise DataError(
                    f"{source}: a layer of {after.shape[1]} inputs follows one of "
                    f"{before.shape[0]} outputs"
                )
        self._activation = activation
        self._layers = [(w, b, np.empty(len(b))) for w, b in layers]
        self._last = self._layers.pop()
        self.inputs, self.outputs = layers[0][0].shape[1], len(layers[-1][1])

    def __call__(self, x: Floats) -> Floats:
        if x.ndim != 1:
            return self._batch(x)
        for weight, bias, out in self._layers:
            x = np.dot(weight, x, out=out)
            x += bias
            self._activation(x)
        weight, bias, out = self._last
        np.dot(weight, x, out=out)
        out += bias
        return out

    def _batch(self, x: Floats) -> Floats:
        for weight, bias, _ in self._layers:
            x = x @ weight.T
            x += bias
            self._activation(x)
        weight, bias, _ = self._last
        return x @ weight.T + bias


class _Entries:
    """The entries of a policy file, checked as they are taken."""

    def __init__(self, source: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._source, self._arrays = source, arrays

    def word(self, name: str, valid: tuple[str, ...]) -> str:
        value = str(self._entry(name))
        if value not in valid:
            raise DataError(f"{self._source}: {name} is {value!r}, expected {' or '.join(valid)}")
        return value

    def array(self, name: str, shape: tuple[int, ...] | None = None) -> Floats:
        entry = self._entry(name)
        if entry.dtype.kind not in "fiu":
            raise DataError(f"{self._source}: {name} is of type {entry.dtype}, expected numbers")
        if shape is not None and entry.shape != shape:
            raise DataError(f"{self._source}: {name} has shape {entry.shape}, expected {shape}")
        if not np.isfinite(entry).all():
            raise DataError(f"{self._source}: {name} is not finite")
        return np.ascontiguousarray(entry, np.float64)

    def layer(self, name: str, shape: tuple[int, ...] | None = None) -> tuple[Floats, Floats]:
        weight = self.array(f"{name}.weight", shape)
        if weight.ndim != 2:
            raise DataError(
                f"{self._source}: {name}.weight has shape {weight.shape}, expected (out, in)"
            )
        return weight, self.array(f"{name}.bias", (len(weight),))

    def hidden(self) -> list[tuple[Floats, Floats]]:
        count = sum(name.startswith("fc") and name.endswith(".weight") for name in self._arrays)
        return [self.layer(f"fc{i}") for i in range(max(count, 1))]

    def _entry(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            known = ", ".join(sorted(self._arrays)) or "nothing"
            raise DataError(
                f"{self._source}: not a behaviour policy: no entry {name}; it has {known}"
            )
        return self._arrays[name]


def _read(content: bytes, path: Path | str) -> dict[str, NDArray[Any]]:
    try:
        file = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ValueError("one array")
        return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not an .npz of arrays, or a damaged one") from error


def _relu(x: Floats) -> None:
    np.maximum(x, 0.0, out=x)


def _tanh(x: Floats) -> None:
    np.tanh(x, out=x)


_ACTIVATIONS: dict[str, Callable[[Floats], object]] = {"relu": _relu, "tanh": _tanh}


def _clipped(log_std: Floats) -> Floats:
    low, high = LOG_STD
    return np.minimum(np.maximum(log_std, low), high)


def _log_normal(noise: Floats, log_std: Floats) -> Floats:
    return -0.5 * noise * noise - log_std - HALF_LOG_TWO_PI
