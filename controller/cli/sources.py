"""What the verbs work on: policies, plants and data, by name or path."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.interfaces import Plant, Policy
    from controller.ranges import Device, Engine
    from controller.spec import Spec
    from controller.transitions import Transitions


def open_policy(bundle: str, engine: Engine, device: Device) -> Policy:
    """Load a policy into this process, from a bundle or the current one of a store."""
    from policies.engine import load_policy

    return load_policy(bundle, engine=engine, device=device)


def open_plant(task: str, seed: int) -> Plant:
    """Build a task's plant in this process, in lockstep."""
    from sim.registry import make_plant

    return make_plant(task, seed=seed)


def read_dataset(path: str, spec: Spec | None) -> Transitions:
    """Read transitions from a run log (.mcap) or an HDF5 file in D4RL's layout."""
    if path.endswith(".mcap"):
        from controller.log_reader import read_log

        return read_log(path).transitions().validate(path)
    from policies.data.d4rl import read_d4rl

    return read_d4rl(path, spec)


def reference(task: str) -> tuple[float, float] | None:
    """Return the returns that score 0 and 100, where they are known."""
    from sim.registry import reference as known

    return known(task)


def task_spec(task: str) -> Spec:
    """Return the spec of a task of the simulation."""
    from sim.registry import task_spec as known

    return known(task)
