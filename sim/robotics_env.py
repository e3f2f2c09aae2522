"""The environments behind ``sim.robotics``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces

from sim.catalogue import Entry
from sim.env import quiet_import
from sim.foreign_env import ForeignEnv
from sim.spaces import spec_of_spaces

with quiet_import():
    import gymnasium_robotics

PACKAGES = ("adroit_hand", "fetch", "franka_kitchen", "maze", "shadow_dexterous_hand")
"""Packages of ``gymnasium_robotics.envs`` with environments for one agent on today's MuJoCo."""


def make(name: str) -> ForeignEnv:
    """Build an environment.

    Args:
        name: its id, with the version.
    """
    gymnasium.register_envs(gymnasium_robotics)
    env: Any = gymnasium.make(name, disable_env_checker=True).unwrapped
    if hasattr(env, "tmp_xml_file_path"):
        # The model was compiled from a file that the library leaves in the temporary directory.
        Path(env.tmp_xml_file_path).unlink(missing_ok=True)
    return ForeignEnv(env)


def names() -> tuple[str, ...]:
    """Return the id of the newest version of every environment, sorted."""
    gymnasium.register_envs(gymnasium_robotics)
    newest: dict[str, tuple[int, str]] = {}
    for name in gymnasium.registry:
        stem, _, version = name.rpartition("-v")
        if _package(name) in PACKAGES:
            newest[stem] = max(newest.get(stem, (-1, "")), (int(version), name))
    return tuple(sorted(name for _, name in newest.values()))


def survey() -> tuple[Entry, ...]:
    """Build every environment once and return what is known of it then."""
    return tuple(_surveyed())


def _surveyed() -> Iterator[Entry]:
    for name in names():
        limit = gymnasium.spec(name).max_episode_steps
        assert limit is not None, f"{name} has no limit on its steps"
        env = make(name)
        spec = spec_of_spaces(
            name,
            _flat(env.env.observation_space),
            env.env.action_space,
            round(1.0 / env.period_s, 9),
        )
        about = name.rpartition("-v")[0].replace("_", " ")
        yield Entry(spec, f"gymnasium-robotics {about}", limit, env.physics_steps, has_success=True)
        env.close()


def _package(name: str) -> str:
    module = str(gymnasium.spec(name).entry_point).partition(":")[0]
    _, _, inside = module.partition("gymnasium_robotics.envs.")
    return inside.partition(".")[0]


def _flat(space: Any) -> Any:  # noqa: ANN401
    """Return a space with goals within goals named as ``sim.foreign_env.flat`` names them."""
    if not isinstance(space, spaces.Dict):
        return space
    parts: dict[str, Any] = {}
    for name, part in space.spaces.items():
        if isinstance(part, spaces.Dict):
            parts |= {f"{name}/{inner}": part.spaces[inner] for inner in part.spaces}
        else:
            parts[name] = part
    return spaces.Dict(parts)
