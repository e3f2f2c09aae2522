"""Write transitions as a Minari dataset."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from controller.errors import ConfigError
from controller.spec import ArraySpec, Spec
from controller.transitions import Transitions
from policies.data.dataset import Attribute
from policies.data.minari import ATTRIBUTES, CONTINUES, MAIN, SPEC
from policies.data.places import MINARI_DATA as DATA
from policies.data.places import MINARI_METADATA as METADATA
from policies.data.places import minari_root

VERSION = "0.5.3"
"""Version of Minari whose layout this is."""
NAMESPACE = "namespace_metadata.json"


def write_minari(
    path: Path | str,
    transitions: Transitions,
    spec: Spec,
    attributes: Mapping[str, Attribute] | None = None,
    reference: tuple[float, float] | None = None,
) -> None:
    """Write transitions so that ``minari`` can load them and ``load_minari`` gives them back.

    Minari keeps each observation once, so an episode is also split where a row's successor is
    not the observation of the next row; an attribute says that it goes on.

    Args:
        path: directory to make, named ``NAME-vN``. Below Minari's root its name there is the
            name of the dataset; elsewhere it is the last part.
        transitions: what to write, in float32.
        spec: the robot they belong to.
        attributes: further facts by name.
        reference: returns of score 0 and 100.

    Raises:
        ConfigError: the directory is there already, or its name has no version.
    """
    target = Path(path)
    if not re.search(r"-v\d+$", target.name):
        raise ConfigError(f"out: {target.name}: Minari needs a version, as in {target.name}-v0")
    if target.exists():
        raise ConfigError(f"out: {target} is there already; choose another name or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / DATA).mkdir(parents=True)
    try:
        single = transitions.single()
        starts = _starts(single)
        _write_episodes(scratch / DATA / MAIN, single, spec, starts)
        size_mb = round((scratch / DATA / MAIN).stat().st_size / 1e6, 1)
        metadata = {
            "total_episodes": len(starts),
            "total_steps": len(transitions),
            "data_format": "hdf5",
            "jpeg_encoding": False,
            "observation_space": json.dumps(_observation_space(spec)),
            "action_space": json.dumps(_box(spec.action)),
            "dataset_id": _dataset_id(target),
            "minari_version": VERSION,
            "dataset_size": size_mb,
            SPEC: msgspec.json.encode(spec).decode(),
            ATTRIBUTES: dict(attributes or {}),
        }
        if reference is not None:
            metadata |= {"ref_min_score": reference[0], "ref_max_score": reference[1]}
        (scratch / DATA / METADATA).write_text(json.dumps(metadata, indent=1))
        scratch.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _mark_namespaces(target)


def _starts(data: Transitions) -> NDArray[np.int64]:
    """Return the first row of each stretch in which every successor is the next observation."""
    same = (data.next_observations[:-1] == data.observations[1:]).all(axis=1)
    breaks = np.flatnonzero(~same) + 1
    return np.union1d(data.starts, breaks)


def _write_episodes(path: Path, data: Transitions, spec: Spec, starts: NDArray[np.int64]) -> None:
    stops = [*starts[1:].tolist(), len(data)]
    with h5py.File(path, "w", track_order=True) as file:
        for number, (start, stop) in enumerate(zip(starts.tolist(), stops, strict=True)):
            group = file.create_group(f"episode_{number}")
            group.attrs.update({"id": number, "total_steps": stop - start})
            rows, last = slice(start, stop), stop - 1
            whole = bool(data.terminals[last] or data.timeouts[last])
            if not whole:
                group.attrs[CONTINUES] = True
            _write_observations(group, data, spec, rows)
            actions = data.actions[rows].reshape(stop - start, *spec.action.shape)
            group.create_dataset("actions", data=actions)
            group.create_dataset("rewards", data=data.rewards[rows])
            group.create_dataset("terminations", data=data.terminals[rows])
            truncations = data.timeouts[rows].copy()
            truncations[-1] |= not whole
            group.create_dataset("truncations", data=truncations)
            infos = group.create_group("infos")
            for name, column in data.info.items():
                padded = np.concatenate([column[rows], column[last:stop]])
                infos.create_dataset(name, data=padded)


def _write_observations(group: h5py.Group, data: Transitions, spec: Spec, rows: slice) -> None:
    flat = np.concatenate([data.observations[rows], data.next_observations[rows][-1:]])
    if len(spec.observation) == 1:
        group.create_dataset(
            "observations", data=flat.reshape(len(flat), *spec.observation[0].shape)
        )
        return
    node, start = group.create_group("observations"), 0
    for array in spec.observation:
        part = flat[:, start : start + array.size]
        node.create_dataset(array.name, data=part.reshape(len(flat), *array.shape))
        start += array.size


def _observation_space(spec: Spec) -> dict[str, Any]:
    if len(spec.observation) == 1:
        return _box(spec.observation[0])
    return {"type": "Dict", "subspaces": {array.name: _box(array) for array in spec.observation}}


def _box(array: ArraySpec) -> dict[str, Any]:
    low, high = array.bounds()
    return {
        "type": "Box",
        "dtype": "float32",
        "shape": list(array.shape),
        "low": low.tolist(),
        "high": high.tolist(),
    }


def _dataset_id(target: Path) -> str:
    root, place = minari_root().resolve(), target.resolve()
    return place.relative_to(root).as_posix() if place.is_relative_to(root) else target.name


def _mark_namespaces(target: Path) -> None:
    """Mark the directories between Minari's root and a dataset as its namespaces."""
    root, place = minari_root().resolve(), target.resolve()
    if place.is_relative_to(root):
        for parent in place.relative_to(root).parents[:-1]:
            mark = root / parent / NAMESPACE
            if not mark.exists():
                mark.write_text("{}")
