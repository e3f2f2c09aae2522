"""The published D4RL datasets: names, files, and what is known of each without opening it.

Sources: D4RL ``d4rl/infos.py`` (addresses), ``scripts/generation`` (how they were recorded).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType

from controller.arguments import nearest
from controller.errors import ConfigError

BASE_URL = "http://rail.eecs.berkeley.edu/datasets/offline_rl"
SUFFIXES = (".hdf5", ".h5")


@dataclass(frozen=True)
class Published:
    """One published dataset.

    Attributes:
        name: its name, with the version.
        task: name of the task it was recorded on.
        path: file below D4RL's base address.
        episode_steps: rows after which the recording of an episode was cut; 0 where it was not,
            or where that is not known.
        rewards: smallest and largest reward of a step, None where that is not known.
        sha256: checksum of the file, or its first digits; empty where that is not known.
        size: bytes of the file; 0 where that is not known.
    """

    name: str
    task: str
    path: str
    episode_steps: int = 0
    rewards: tuple[float, float] | None = None
    sha256: str = ""
    size: int = 0

    @property
    def family(self) -> str:
        """The first word of the name."""
        return self.name.partition("-")[0]


GYM = ("halfcheetah", "hopper", "walker2d", "ant")
GYM_LEVELS = ("random", "medium", "expert", "medium-replay", "medium-expert", "full-replay")
GYM_STEPS = 1000
ADROIT_STEPS = {"pen": 100, "hammer": 200, "door": 200, "relocate": 200}
MAZES = {
    "umaze": ("u-maze", "False", "False"),
    "umaze-diverse": ("u-maze", "True", "True"),
    "medium-play": ("big-maze", "True", "False"),
    "medium-diverse": ("big-maze", "True", "True"),
    "large-play": ("hardest-maze", "True", "False"),
    "large-diverse": ("hardest-maze", "True", "True"),
}
"""Name of an antmaze dataset -> maze, multistart and multigoal in the name of its file."""
ANTMAZE_STEPS = 1001
"""D4RL's generator compares the count of steps with 1000 before it adds one."""
KITCHENS = {
    "complete": (
        "mini_kitchen_microwave_kettle_light_slider",
        "cd797c38cd52dfbe3f960cef73935cc724847abd189e47a703a7a2315ed60a81",
        556_544,
    ),
    "partial": ("kitchen_microwave_kettle_light_slider", "57bfd9c5", 19_558_459),
    "mixed": ("kitchen_microwave_kettle_bottomburner_light", "a30382a5", 19_560_760),
}
"""Name of a kitchen dataset -> file, checksum (of two of them only the beginning), bytes."""


@functools.cache
def published() -> Mapping[str, Published]:
    """Return every published dataset by name."""
    found = [*_gym(), *_antmaze(), *_maze2d(), *_adroit(), *_kitchen()]
    return MappingProxyType({each.name: each for each in found})


def dataset_named(name: str) -> Published:
    """Return one published dataset.

    Raises:
        ConfigError: there is none of this name; names the nearest.
    """
    known = published()
    if name not in known:
        raise ConfigError(f"dataset {name} is unknown; {nearest(name, known)}")
    return known[name]


def recognise(source: str) -> Published | None:
    """Return the published dataset that a name or a file is called after.

    A file is known by the name D4RL gave it, and file or name by that of the dataset, with ``_``
    for ``-`` and in any case: ``hopper-medium-v2.hdf5``, ``hopper_medium-v2.hdf5``,
    ``Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse.hdf5``. Without a version the
    newest is meant, but a file ``hopper_medium.hdf5`` is D4RL's first.
    """
    path = PurePath(source)
    if path.suffix.lower() not in SUFFIXES:
        return _names().get(_plain(path.name))
    return _stems().get(path.stem.lower()) or _names().get(_plain(path.stem))


def file_names(dataset: Published) -> tuple[str, ...]:
    """Return the names a file of a dataset may have, the likeliest first."""
    return tuple(dict.fromkeys((f"{dataset.name}.hdf5", PurePath(dataset.path).name)))


@functools.cache
def _stems() -> Mapping[str, Published]:
    return {PurePath(each.path).stem.lower(): each for each in published().values()}


@functools.cache
def _names() -> Mapping[str, Published]:
    found: dict[str, Published] = {}
    for dataset in published().values():
        found[_plain(PurePath(dataset.path).stem)] = dataset
    for dataset in published().values():
        # Versions of a name come in rising order: the newest overwrites.
        found[_plain(dataset.name.rpartition("-v")[0])] = dataset
    return found | {_plain(dataset.name): dataset for dataset in published().values()}


def _plain(name: str) -> str:
    return re.sub(r"[_\-]+", "-", name.lower())


def _gym() -> Iterator[Published]:
    for version in ("v0", "v1", "v2"):
        for robot in GYM:
            for level in GYM_LEVELS:
                if version == "v0" and level == "full-replay":
                    continue
                path = f"gym_mujoco_{version}/{robot}_{level.replace('-', '_')}-{version}.hdf5"
                if version == "v0":
                    path = f"gym_mujoco/{_first_gym_file(robot, level)}.hdf5"
                yield Published(f"{robot}-{level}-{version}", robot, path, GYM_STEPS)


def _first_gym_file(robot: str, level: str) -> str:
    if level == "medium-replay":
        return f"{'walker' if robot == 'walker2d' else robot}_mixed"
    return f"{robot}_{level.replace('-', '_')}"


def _antmaze() -> Iterator[Published]:
    for version, folder, ending in (("v0", "ant_maze_new", ""), ("v2", "ant_maze_v2", "_fixed")):
        for name, (maze, starts, goals) in MAZES.items():
            file = f"Ant_maze_{maze}_noisy_multistart_{starts}_multigoal_{goals}_sparse{ending}"
            yield Published(
                f"antmaze-{name}-{version}",
                f"antmaze-{name}",
                f"{folder}/{file}.hdf5",
                ANTMAZE_STEPS,
                (0.0, 1.0),
            )


def _maze2d() -> Iterator[Published]:
    for maze, version in (("open", "v0"), ("umaze", "v1"), ("medium", "v1"), ("large", "v1")):
        for kind, word in (("", "-sparse"), ("-dense", "-dense")):
            task = f"maze2d-{maze}{kind}"
            file = f"maze2d-{maze}{word}" + ("" if version == "v0" else f"-{version}")
            yield Published(f"{task}-{version}", task, f"maze2d/{file}.hdf5", rewards=(0.0, 1.0))


def _adroit() -> Iterator[Published]:
    first = {
        "human": "{0}-v0_demos_clipped",
        "cloned": "{0}-demos-v0-bc-combined",
        "expert": "{0}-v0_expert_clipped",
    }
    for hand, steps in ADROIT_STEPS.items():
        for level, file in first.items():
            limit = steps if level == "expert" else 0
            name = f"{hand}-{level}"
            yield Published(f"{name}-v0", hand, f"hand_dapg/{file.format(hand)}.hdf5", limit)
            yield Published(f"{name}-v1", hand, f"hand_dapg_v1/{name}-v1.hdf5", limit)


def _kitchen() -> Iterator[Published]:
    for name, (file, sha256, size) in KITCHENS.items():
        yield Published(
            f"kitchen-{name}-v0",
            f"kitchen-{name}",
            f"kitchen/{file}-v0.hdf5",
            rewards=(0.0, 4.0),
            sha256=sha256,
            size=size,
        )
