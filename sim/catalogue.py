"""Static facts of tasks that come from other packages, so that listing them imports none.

The packages are pinned, so the facts are too. ``python -m sim.catalogue`` writes the files anew
after a change of a pin; a test compares them with what the packages build.
"""

from __future__ import annotations

import functools
import sys
from importlib import resources
from pathlib import Path

import msgspec

from controller.spec import Spec


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``sim.task.Task`` needs to know of one task without building it.

    Attributes:
        spec: what its plant looks like; ``spec.task`` is its name.
        description: one line.
        episode_steps: steps after which an episode is cut.
        physics_steps: physics steps of one control step.
        has_success: whether it reports success.
    """

    spec: Spec
    description: str
    episode_steps: int
    physics_steps: int
    has_success: bool = False


@functools.cache
def entries(family: str) -> tuple[Entry, ...]:
    """Return the tasks of a family in the order they are listed.

    Args:
        family: stem of a file in ``sim/catalogues``.
    """
    text = resources.files("sim").joinpath("catalogues", f"{family}.json").read_bytes()
    return msgspec.json.decode(text, type=tuple[Entry, ...])


def write(family: str, found: tuple[Entry, ...], directory: Path) -> Path:
    """Write a family's file, one task a line."""
    path = directory / f"{family}.json"
    lines = ",\n".join(msgspec.json.encode(entry).decode() for entry in found)
    path.write_text(f"[\n{lines}\n]\n")
    return path


def main() -> int:
    """Survey the packages and write every catalogue."""
    from sim.dmc_env import survey as survey_dm_control
    from sim.robotics_env import survey as survey_robotics

    directory = Path(__file__).parent / "catalogues"
    directory.mkdir(exist_ok=True)
    write("dm_control", survey_dm_control(), directory)
    write("gymnasium_robotics", survey_robotics(), directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
