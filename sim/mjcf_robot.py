"""From the settings of one's own robot to a compiled model, where its arrays are, and a reward."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from controller.arguments import nearest
from controller.errors import ConfigError
from controller.spec import ArraySpec, Spec
from sim.mjcf import ActuatorConfig, ArrayConfig, RobotConfig

Floats = NDArray[np.float64]
Reward = Callable[[Any, Any, Floats], Any]

RATE_TOLERANCE = 1e-4
"""A rate may be written with so few digits."""
XYZ, WXYZ = ("x", "y", "z"), ("w", "x", "y", "z")

_JOINT_PARTS = {
    mujoco.mjtJoint.mjJNT_FREE: ((*XYZ, *(f"q{axis}" for axis in WXYZ)), (*XYZ, "rx", "ry", "rz")),
    mujoco.mjtJoint.mjJNT_BALL: (WXYZ, XYZ),
}
"""Names of the positions and velocities of a joint with more than one."""


@dataclass(frozen=True)
class Column:
    """Where one array of the observation is read.

    Attributes:
        name: of the array.
        field: attribute of the ``mujoco.MjData``.
        places: indices into the flattened field.
    """

    name: str
    field: str
    places: NDArray[np.intp]


@dataclass(frozen=True)
class Robot:
    """A robot, ready to be simulated.

    Attributes:
        spec: what its plant looks like.
        model: the ``mujoco.MjModel``.
        columns: where the observation is read.
        actuators: indices of the commanded actuators.
        keyframe: index of the keyframe an episode begins in, -1 for the model's initial state.
        position_noise: (nv,) half width, in the directions of the velocities.
        velocity_noise: (nv,) half width.
        physics_steps: timesteps of a control period.
        episode_steps: control steps of an episode.
        reward: the user's function.
        has_success: whether it reports success.
        description: one line.
    """

    spec: Spec
    model: Any
    columns: tuple[Column, ...]
    actuators: NDArray[np.intp]
    keyframe: int
    position_noise: Floats
    velocity_noise: Floats
    physics_steps: int
    episode_steps: int
    reward: Reward
    has_success: bool
    description: str


def compile_robot(config: RobotConfig, path: Path) -> Robot:
    """Return the robot that a file describes.

    Args:
        config: what the file says.
        path: the file, for messages and as the place that other paths start from.

    Raises:
        ConfigError: see :func:`sim.mjcf.task_of_file`.
    """
    try:
        return _compiled(config, path)
    except _Fault as fault:
        raise ConfigError(f"{path}: {fault}") from fault.__cause__


class _Fault(Exception):
    """What is wrong in the file; its name is put before."""


def _compiled(config: RobotConfig, path: Path) -> Robot:
    model = _model(path.parent / config.model)
    physics_steps, rate_hz = _rate(config.rate_hz, model.opt.timestep)
    episode_steps = round(config.episode_seconds * rate_hz)
    if episode_steps < 1:
        raise _Fault(f"episode_seconds: {config.episode_seconds:g} s is less than one control step")
    arrays, columns = zip(*_observed(config.observation, model), strict=True)
    actuators, action = _action(config, model)
    keyframe = -1
    if config.reset.keyframe is not None:
        keyframe = _index("reset.keyframe", config.reset.keyframe, _names(model, "key"))
    reward = _reward(config.reward, path.parent)
    return Robot(
        spec=Spec(_name_of(path), arrays, action, rate_hz),
        model=model,
        columns=columns,
        actuators=actuators,
        keyframe=keyframe,
        position_noise=_noise("reset.position_noise", config.reset.position_noise, model),
        velocity_noise=_noise("reset.velocity_noise", config.reset.velocity_noise, model),
        physics_steps=physics_steps,
        episode_steps=episode_steps,
        reward=reward,
        has_success=_reports_success(reward, config.reward, model, keyframe, len(actuators)),
        description=config.description,
    )


def _name_of(path: Path) -> str:
    full = path.resolve()
    here = Path.cwd().resolve()
    return (full.relative_to(here) if full.is_relative_to(here) else full).as_posix()


def _model(path: Path) -> Any:  # noqa: ANN401
    if not path.is_file():
        raise _Fault(f"model: {path}: no such file")
    try:
        return mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise _Fault(f"model: {path}: {' '.join(str(error).split())}") from error


def _rate(rate_hz: float, timestep_s: float) -> tuple[int, float]:
    """Return the timesteps of a control period, and the rate exactly."""
    steps = 1.0 / (rate_hz * timestep_s)
    whole = max(1, round(steps))
    if abs(steps - whole) <= RATE_TOLERANCE * whole:
        exact = 1.0 / (whole * timestep_s)
        return whole, rate_hz if math.isclose(rate_hz, exact, rel_tol=1e-12) else exact
    around = sorted({max(1, math.floor(steps)), math.ceil(steps)})
    nearby = " and ".join(f"{1.0 / (count * timestep_s):.7g}" for count in reversed(around))
    raise _Fault(
        f"rate_hz: a period of {rate_hz:g} Hz is {steps:.4g} timesteps of {timestep_s:g} s, "
        f"expected a whole number; nearest: {nearby}"
    )


def _observed(
    arrays: Sequence[ArrayConfig],
    model: Any,  # noqa: ANN401
) -> Iterator[tuple[ArraySpec, Column]]:
    if not arrays:
        raise _Fault("observation: expected at least one array")
    seen: set[str] = set()
    for number, array in enumerate(arrays):
        key = f"observation[{number}]"
        if array.name in seen:
            raise _Fault(f"{key}.name: {array.name} is there twice")
        seen.add(array.name)
        kind, field, parts = _SOURCES[array.source]
        known = _names(model, kind)
        chosen = (
            range(len(known))
            if array.of is None
            else [_index(f"{key}.of", name, known) for name in array.of]
        )
        if not chosen:
            raise _Fault(f"{key}.of: {array.source} of nothing; the model has {len(known)}")
        places: list[int] = []
        elements: list[str] = []
        for index in chosen:
            first, endings = parts(model, index)
            name = known[index] or f"{kind}{index}"
            places += range(first, first + len(endings))
            elements += [f"{name}.{ending}" if ending else name for ending in endings]
        spec = ArraySpec(array.name, (len(places),), unit=array.unit, elements=tuple(elements))
        yield spec, Column(array.name, field, np.array(places, np.intp))


def _positions(model: Any, joint: int) -> tuple[int, Sequence[str]]:  # noqa: ANN401
    names = _JOINT_PARTS.get(mujoco.mjtJoint(model.jnt_type[joint]), (("",), ("",)))[0]
    return int(model.jnt_qposadr[joint]), names


def _velocities(model: Any, joint: int) -> tuple[int, Sequence[str]]:  # noqa: ANN401
    names = _JOINT_PARTS.get(mujoco.mjtJoint(model.jnt_type[joint]), (("",), ("",)))[1]
    return int(model.jnt_dofadr[joint]), names


def _readings(model: Any, sensor: int) -> tuple[int, Sequence[str]]:  # noqa: ANN401
    size = int(model.sensor_dim[sensor])
    names = {1: ("",), 3: XYZ, 4: WXYZ}.get(size, tuple(map(str, range(size))))
    return int(model.sensor_adr[sensor]), names


_SOURCES: dict[str, tuple[str, str, Callable[[Any, int], tuple[int, Sequence[str]]]]] = {
    "joint_positions": ("joint", "qpos", _positions),
    "joint_velocities": ("joint", "qvel", _velocities),
    "actuator_forces": ("actuator", "actuator_force", lambda model, index: (index, ("",))),
    "sensors": ("sensor", "sensordata", _readings),
    "site_positions": ("site", "site_xpos", lambda model, index: (3 * index, XYZ)),
    "body_positions": ("body", "xpos", lambda model, index: (3 * index, XYZ)),
    "body_orientations": ("body", "xquat", lambda model, index: (4 * index, WXYZ)),
}
"""Source -> what it is of, field of the data, (first place, names of the places) of one."""


def _action(
    config: RobotConfig,
    model: Any,  # noqa: ANN401
) -> tuple[NDArray[np.intp], ArraySpec]:
    known = _names(model, "actuator")
    if not known:
        raise _Fault("model: has no actuator")
    if config.action:
        places = [
            _index(f"action[{i}].name", actuator.name, known)
            for i, actuator in enumerate(config.action)
        ]
        limits = [
            _limits(f"action[{i}]", actuator, model, place)
            for i, (actuator, place) in enumerate(zip(config.action, places, strict=True))
        ]
    else:
        places = list(range(len(known)))
        limits = [_range(model, place) for place in places]
    if len(set(places)) < len(places):
        raise _Fault("action: an actuator is there twice")
    low, high = zip(*limits, strict=True)
    bounded = any(limit is not None for limit in (*low, *high))
    spec = ArraySpec(
        "action",
        (len(places),),
        unit=config.unit,
        low=low if bounded else (),
        high=high if bounded else (),
        elements=tuple(known[place] or f"actuator{place}" for place in places),
    )
    return np.array(places, np.intp), spec


Limits = tuple[float | None, float | None]


def _range(model: Any, actuator: int) -> Limits:  # noqa: ANN401
    if not model.actuator_ctrllimited[actuator]:
        return None, None
    low, high = model.actuator_ctrlrange[actuator].tolist()
    return low, high


def _limits(key: str, actuator: ActuatorConfig, model: Any, place: int) -> Limits:  # noqa: ANN401
    """Return the limits of one actuator, which MuJoCo would otherwise tighten without a word."""
    own = _range(model, place)
    low = own[0] if actuator.low is None else actuator.low
    high = own[1] if actuator.high is None else actuator.high
    if (own[0] is not None and low is not None and low < own[0]) or (
        own[1] is not None and high is not None and high > own[1]
    ):
        raise _Fault(
            f"{key}: {actuator.name} from {low:g} to {high:g} goes beyond the model's ctrlrange "
            f"of {own[0]:g} to {own[1]:g}"
        )
    if low is not None and high is not None and low >= high:
        raise _Fault(f"{key}: {actuator.name} from {low:g} to {high:g}: low must be below high")
    return low, high


def _noise(key: str, noise: float | dict[str, float], model: Any) -> Floats:  # noqa: ANN401
    if isinstance(noise, float):
        return np.full(model.nv, noise)
    known = _names(model, "joint")
    widths = np.zeros(model.nv)
    for name, width in noise.items():
        first, parts = _velocities(model, _index(key, name, known))
        widths[first : first + len(parts)] = width
    return widths


def _names(model: Any, kind: str) -> tuple[str, ...]:  # noqa: ANN401
    count = {"joint": "njnt", "actuator": "nu"}.get(kind, f"n{kind}")
    return tuple(getattr(model, kind)(i).name for i in range(getattr(model, count)))


def _index(key: str, name: str, known: Sequence[str]) -> int:
    if name not in known:
        named = [each for each in known if each]
        hint = nearest(name, named) if named else "the model names none"
        raise _Fault(f"{key}: {name} is unknown; {hint}")
    return known.index(name)


def _reward(place: str, directory: Path) -> Reward:
    file, colon, function = place.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise _Fault(f"reward: {place}: expected FILE.py:FUNCTION")
    path = directory / file
    if not path.is_file():
        raise _Fault(f"reward: {path}: no such file")
    name = "onebeat_reward_" + re.sub(r"\W", "_", str(path.resolve()))
    about = importlib.util.spec_from_file_location(name, path)
    assert about is not None
    assert about.loader is not None
    module = importlib.util.module_from_spec(about)
    # Dataclasses and type hints of the module look it up by its name.
    sys.modules[name] = module
    try:
        about.loader.exec_module(module)
    except Exception as error:
        raise _Fault(f"reward: {path}: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise _Fault(f"reward: {path} has no function {function}; {nearest(function, known)}")
    reward: Reward = found
    return reward


def _reports_success(
    reward: Reward,
    place: str,
    model: Any,  # noqa: ANN401
    keyframe: int,
    size: int,
) -> bool:
    """Try the reward in the initial state and see what it returns."""
    data = mujoco.MjData(model)
    begin(model, data, keyframe)
    mujoco.mj_forward(model, data)
    try:
        result = reward(model, data, np.zeros(size))
    except Exception as error:
        raise _Fault(
            f"reward: {place} fails in the initial state: {type(error).__name__}: {error}"
        ) from error
    try:
        judge(result)
    except (TypeError, ValueError):
        raise _Fault(
            f"reward: {place} returned {result!r}, expected a number, (reward, terminated) or "
            "(reward, terminated, success)"
        ) from None
    return isinstance(result, tuple) and len(result) == 3


def begin(model: Any, data: Any, keyframe: int) -> None:  # noqa: ANN401
    """Put the data into the state an episode begins in, before noise."""
    if keyframe < 0:
        mujoco.mj_resetData(model, data)
    else:
        mujoco.mj_resetDataKeyframe(model, data, keyframe)


def judge(result: Any) -> tuple[float, bool, bool]:  # noqa: ANN401
    """Return (reward, terminated, success) from what a reward function returned.

    Raises:
        TypeError, ValueError: it returned something else.
    """
    if not isinstance(result, tuple):
        return float(result), False, False
    if len(result) not in (2, 3):
        raise ValueError(f"{len(result)} values")
    return float(result[0]), bool(result[1]), bool(result[2]) if len(result) == 3 else False
