"""Datasets in Minari's layout: a directory with ``data/metadata.json`` and ``data/main_data.hdf5``.

The HDF5 file has a group ``episode_K`` for every episode of T steps, with ``observations``
(T + 1 rows, or a group of such by name), ``actions``, ``rewards``, ``terminations``,
``truncations`` and ``infos`` (T + 1 rows). It is read and written here, by h5py, because the
``minari`` package needs gymnasium, which learning has no use for; a test has that package read
what is written here, and the other way round.

Source: Minari 0.5, "Dataset Standards", https://minari.farama.org/content/dataset_standards
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.errors import DataError
from controller.spec import Spec
from controller.transitions import Layout, Transitions
from controller.types import Array
from policies.data.dataset import Attribute, Dataset
from policies.data.places import MINARI_DATA as DATA
from policies.data.places import MINARI_METADATA as METADATA

MAIN = "main_data.hdf5"
SPEC, ATTRIBUTES = "onebeat_spec", "onebeat_attributes"
CONTINUES = "onebeat_continues"
"""Attribute of an episode whose last row is no end: the next one goes on, or the data stops."""
FACTS = ("dataset_id", "algorithm_name", "description", "minari_version", "total_episodes")
"""Entries of the metadata that are kept as attributes."""
UNNAMED = "observation"


def load_minari(
    path: Path | str, spec: Spec | None = None, task: str = "", *, finite: bool = True
) -> Dataset:
    """Open a Minari dataset; real numbers become float32.

    The arrays of an observation come in the order of the spec, or without one in that of the
    dataset's observation space.

    Args:
        path: directory of the dataset.
        spec: the robot the data must belong to.
        task: name of the task; by default that of the spec.
        finite: whether values that are not finite are refused.

    Raises:
        DataError: not a Minari dataset in HDF5, damaged, of another task, or with actions or
            observations that are not real numbers.
    """
    place = Path(path)
    place = place / DATA if (place / DATA / METADATA).is_file() else place
    metadata = _metadata(place)
    own = _own_spec(metadata, place)
    if spec is not None and own is not None:
        spec.require(own, f"task {spec.task}", str(path))
    spec = spec or own
    try:
        with h5py.File(place / MAIN, "r") as file:
            transitions = _read(file, metadata, spec, task or (spec.task if spec else ""))
    except (OSError, KeyError) as error:
        raise DataError(f"{place / MAIN}: damaged, or not Minari's HDF5 file: {error}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return Dataset(
        transitions.validate(str(path), finite=finite),
        str(path),
        spec=spec,
        reference=_reference(metadata),
        attributes=_attributes(metadata),
    )


def read_minari_spec(path: Path | str) -> Spec | None:
    """Return the spec a Minari dataset was written with, None for one from elsewhere.

    Raises:
        DataError: not a Minari dataset, or the spec is damaged.
    """
    place = Path(path)
    place = place / DATA if (place / DATA / METADATA).is_file() else place
    return _own_spec(_metadata(place), place)


def _metadata(place: Path) -> dict[str, Any]:
    try:
        found = json.loads((place / METADATA).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{place}: no Minari dataset, or its metadata is damaged") from error
    if not isinstance(found, dict):
        raise DataError(f"{place / METADATA}: expected an object, got {type(found).__name__}")
    kept_as = found.get("data_format", "hdf5")
    if kept_as != "hdf5":
        raise DataError(
            f"{place}: its data is kept as {kept_as}, expected hdf5; download or make it again "
            "with data_format hdf5"
        )
    return found


def _own_spec(metadata: Mapping[str, Any], place: Path) -> Spec | None:
    if SPEC not in metadata:
        return None
    try:
        return msgspec.json.decode(metadata[SPEC], type=Spec)
    except (msgspec.DecodeError, TypeError) as error:
        raise DataError(f"{place / METADATA}: {SPEC} is damaged: {error}") from error


def _reference(metadata: Mapping[str, Any]) -> tuple[float, float] | None:
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
        return float(low), float(high)
    return None


def _attributes(metadata: Mapping[str, Any]) -> dict[str, Attribute]:
    found = {name: metadata[name] for name in FACTS if name in metadata}
    own = metadata.get(ATTRIBUTES)
    merged = found | (own if isinstance(own, dict) else {})
    return {k: v for k, v in merged.items() if isinstance(v, str | int | float)}


def _read(
    file: h5py.File, metadata: Mapping[str, Any], spec: Spec | None, task: str
) -> Transitions:
    numbers = sorted(int(name.removeprefix("episode_")) for name in file if _is_episode(name))
    groups = [file[f"episode_{number}"] for number in numbers]
    if not groups:
        raise DataError("no episodes")
    lengths = np.array([len(group["rewards"]) for group in groups])
    bounds = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    layout = _layout(groups[0]["observations"], metadata, spec)
    width, total = sum(size for _, size in layout), bounds[-1]
    columns = {
        "observations": np.empty((total, width), np.float32),
        "next_observations": np.empty((total, width), np.float32),
        "actions": np.empty((total, _action_width(groups[0]["actions"], spec)), np.float32),
        "rewards": np.empty(total, np.float32),
    }
    terminals, timeouts = np.zeros(total, np.bool_), np.zeros(total, np.bool_)
    for group, start, stop in zip(groups, bounds, bounds[1:], strict=False):
        if start == stop:
            continue
        rows = slice(start, stop)
        _put_observations(group, layout, columns, rows)
        columns["actions"][rows] = group["actions"][()].reshape(stop - start, -1)
        columns["rewards"][rows] = group["rewards"][()].reshape(-1)
        terminals[rows] = group["terminations"][()]
        timeouts[rows] = group["truncations"][()]
        # A recording without a mark at its end was stopped there.
        timeouts[stop - 1] = not group.attrs.get(CONTINUES, False)
    return Transitions(
        **columns,
        terminals=terminals,
        timeouts=timeouts & ~terminals,
        layout=layout,
        task=task,
        info=_info(groups, lengths),
    )


def _is_episode(name: str) -> bool:
    return name.startswith("episode_") and name.removeprefix("episode_").isdigit()


def _layout(observations: Any, metadata: Mapping[str, Any], spec: Spec | None) -> Layout:  # noqa: ANN401
    leaves = dict(_leaves(observations, _space(metadata)))
    if spec is not None and len(spec.observation) == len(leaves) == 1:
        leaves = {spec.observation[0].name: next(iter(leaves.values()))}
    sizes = {}
    for name, column in leaves.items():
        _require_numbers(column, f"observation {name}".strip())
        sizes[name or UNNAMED] = math.prod(column.shape[1:])
    if spec is None:
        return tuple(sizes.items())
    expected = {array.name: array.size for array in spec.observation}
    if sizes != expected:
        raise DataError(
            f"observations are {sizes}, {spec.task} has {expected}: this is the data of another "
            "task"
        )
    return tuple(expected.items())


def _space(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        space = json.loads(metadata.get("observation_space") or "{}")
    except (TypeError, ValueError):
        return {}
    return space if isinstance(space, dict) else {}


def _leaves(
    node: Any,  # noqa: ANN401
    space: Mapping[str, Any],
    path: str = "",
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield (name, column) of every array below a node, in the order of the space."""
    if isinstance(node, h5py.Dataset):
        if space.get("dtype") == "uint8" and len(space.get("shape", ())) == 3:
            raise DataError(f"observation {path} is images; only real numbers can be used")
        yield path, node
        return
    inner = space.get("subspaces", {})
    inner = inner if isinstance(inner, dict) else {}
    for name in [*(n for n in inner if n in node), *(n for n in node if n not in inner)]:
        yield from _leaves(node[name], inner.get(name, {}), f"{path}/{name}".lstrip("/"))


def _require_numbers(column: Any, what: str) -> None:  # noqa: ANN401
    if not isinstance(column, h5py.Dataset) or column.dtype.kind not in "fiub":
        raise DataError(f"{what} is not an array of numbers")


def _action_width(column: Any, spec: Spec | None) -> int:  # noqa: ANN401
    _require_numbers(column, "action")
    if column.dtype.kind != "f":
        raise DataError(f"actions are {column.dtype}, expected real numbers")
    width = int(math.prod(column.shape[1:]))
    if spec is not None and width != spec.action.size:
        raise DataError(
            f"actions are {width} wide, {spec.task} has {spec.action.size}: this is the data of "
            "another task"
        )
    return width


def _put_observations(
    group: h5py.Group, layout: Layout, columns: dict[str, NDArray[np.float32]], rows: slice
) -> None:
    node, steps, start = group["observations"], rows.stop - rows.start, 0
    for name, size in layout:
        values = (node if isinstance(node, h5py.Dataset) else node[name])[()]
        if len(values) != steps + 1:
            raise DataError(
                f"{group.name} has {len(values)} observations for {steps} steps, expected "
                f"{steps + 1}"
            )
        flat = values.reshape(steps + 1, size)
        columns["observations"][rows, start : start + size] = flat[:-1]
        columns["next_observations"][rows, start : start + size] = flat[1:]
        start += size


def _info(groups: list[h5py.Group], lengths: NDArray[np.int64]) -> dict[str, Array]:
    """Return the numeric infos that every episode has, each row's own, not its successor's."""
    kept: dict[str, list[Array]] = {}
    for number, (group, steps) in enumerate(zip(groups, lengths.tolist(), strict=True)):
        found = group.get("infos")
        columns = dict(_leaves(found, {})) if isinstance(found, h5py.Group) else {}
        usable = {
            name: column
            for name, column in columns.items()
            if column.dtype.kind in "fiub" and column.shape[:1] in ((steps,), (steps + 1,))
        }
        if number == 0:
            kept = {name: [] for name in usable}
        for name in [name for name in kept if name not in usable]:
            del kept[name]
        for name, parts in kept.items():
            parts.append(usable[name][:steps])
    return {
        name: np.concatenate(parts)
        for name, parts in kept.items()
        if len({(part.dtype, part.shape[1:]) for part in parts}) == 1
    }
