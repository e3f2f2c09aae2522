"""What was measured of the tasks, as files: the sources of ``docs/tasks.md``.

Each file is a JSON list of rows in a directory, ``docs/measurements``; any may be missing, and
further keys of a row are passed over:

=================  ==============================================================================
``check.json``     :class:`Check`; ``onebeat sim check --json``
``speed.json``     :class:`Speed`; ``python tests/benchmarks/sim_steps.py --json``
``golden.json``    :class:`Deviation`; the distance from a reference trajectory
``returns.json``   :class:`Return`; a published policy's return or success here
``datasets.json``  :class:`Dataset`; ``onebeat data generate NAME``, inspected
=================  ==============================================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from controller.errors import DataError

Row = TypeVar("Row", bound=msgspec.Struct)


class Check(msgspec.Struct, frozen=True):
    """Whether a task keeps its promises, and which it does not."""

    task: str
    ok: bool
    why: str = ""


class Speed(msgspec.Struct, frozen=True):
    """Control steps per second; ``of`` names what the bare figure is of."""

    task: str
    family: str
    bare: float
    lockstep: float
    vector: float
    zmq: float
    of: str = ""


class Deviation(msgspec.Struct, frozen=True):
    """Largest distance of any position or velocity from a reference trajectory.

    Attributes:
        task: name of the task.
        reference: what computed the trajectory.
        steps: control steps of it.
        deviation: the distance.
        bound: what the tests demand; None where they demand nothing.
    """

    task: str
    reference: str
    steps: int
    deviation: float
    bound: float | None = None


class Return(msgspec.Struct, frozen=True):
    """What a published policy reaches here.

    Attributes:
        task: name of the task.
        policy: the policy, in words or as a number of a snapshot.
        mean: mean over the episodes.
        std: standard deviation over them.
        episodes: how many.
        published_mean: the published mean; None where there is none.
        published_std: the published standard deviation.
        quantity: what is averaged, ``return`` or ``success``.
    """

    task: str
    policy: str | int
    mean: float
    std: float
    episodes: int
    published_mean: float | None = None
    published_std: float | None = None
    quantity: str = "return"

    @property
    def errors(self) -> float | None:
        """Distance from the published mean in standard errors of the own; None without both."""
        if self.published_mean is None or self.std <= 0:
            return None
        return (self.mean - self.published_mean) / (self.std / math.sqrt(self.episodes))


class Dataset(msgspec.Struct, frozen=True):
    """A generated dataset; D4RL's figures where they are known."""

    name: str
    steps: int
    episodes: int
    return_mean: float
    return_std: float
    length_mean: float
    score_mean: float | None = None
    success_rate: float | None = None
    d4rl_return: float | None = None
    d4rl_score: float | None = None


@dataclass(frozen=True)
class Measurements:
    """Everything that was measured."""

    checks: tuple[Check, ...] = ()
    speeds: tuple[Speed, ...] = ()
    deviations: tuple[Deviation, ...] = ()
    returns: tuple[Return, ...] = ()
    datasets: tuple[Dataset, ...] = ()


def read_measurements(directory: Path) -> Measurements:
    """Return what the files of a directory hold.

    Raises:
        DataError: a file is not a list of its rows.
    """
    return Measurements(
        checks=_rows(directory / "check.json", Check),
        speeds=_rows(directory / "speed.json", Speed),
        deviations=_rows(directory / "golden.json", Deviation),
        returns=_rows(directory / "returns.json", Return),
        datasets=_rows(directory / "datasets.json", Dataset),
    )


def _rows(path: Path, kind: type[Row]) -> tuple[Row, ...]:
    if not path.exists():
        return ()
    try:
        return tuple(msgspec.json.decode(path.read_bytes(), type=list[kind]))  # type: ignore[valid-type]
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}: expected a list of {kind.__name__} rows: {error}") from None
