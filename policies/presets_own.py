"""Settings that the baselines begin with where no preset of the paper is asked for.

They are those of the papers that the baselines come from, but for the number of updates: those
have a million.
"""

from __future__ import annotations

from typing import Any, Literal

Tree = dict[str, Any]
Family = Literal["gym", "antmaze", "adroit", "kitchen"]

FAMILIES: dict[str, Family] = {
    "halfcheetah": "gym",
    "hopper": "gym",
    "walker2d": "gym",
    "antmaze": "antmaze",
    "pen": "adroit",
    "hammer": "adroit",
    "door": "adroit",
    "relocate": "adroit",
    "kitchen": "kitchen",
}

PENALTIES: dict[str, tuple[float, float]] = {
    "halfcheetah-random": (0.001, 0.1),
    "halfcheetah-medium": (0.001, 0.01),
    "halfcheetah-medium-replay": (0.01, 0.001),
    "halfcheetah-medium-expert": (0.01, 0.1),
    "hopper-medium": (0.01, 0.01),
    "hopper-medium-replay": (0.05, 0.5),
    "hopper-medium-expert": (0.1, 0.01),
    "walker2d-medium": (0.05, 0.1),
    "walker2d-medium-replay": (0.05, 0.01),
    "walker2d-medium-expert": (0.01, 0.01),
    "antmaze-umaze": (0.003, 0.002),
    "antmaze-umaze-diverse": (0.003, 0.001),
    "antmaze-medium-play": (0.001, 0.0005),
    "antmaze-medium-diverse": (0.001, 0.0),
    "antmaze-large-play": (0.002, 0.001),
    "antmaze-large-diverse": (0.002, 0.002),
    "pen-human": (0.1, 0.5),
    "pen-cloned": (0.05, 0.5),
}
"""Weights of ReBRAC's actor and critic penalties, from CORL's settings for each dataset."""


def family(task: str) -> Family | None:
    """Return the benchmark that a task or a dataset belongs to, None if to none of them."""
    return FAMILIES.get(task.partition("-")[0])


def own(algorithm: str, task: str) -> Tree:
    """Return what lies under the settings of a training, beside the defaults of its groups.

    Args:
        algorithm: any; only the baselines have something.
        task: name of the task or of the dataset, without its version.
    """
    if algorithm == "bc":
        return {"network": _mlp(2), "sampler": {"temperature": 0.0}}
    builder = {"td3_bc": _td3_bc, "iql": _iql, "rebrac": _rebrac}.get(algorithm)
    return builder(task) if builder else {}


def _mlp(layers: int) -> Tree:
    return {"hidden": [256] * layers, "activation": "relu"}


def _adam(learning_rate: float = 3e-4, **more: object) -> Tree:
    """Return an optimiser as these papers have it: no warm-up, no clipping, no average."""
    return {
        "learning_rate": learning_rate,
        "warmup": 0,
        "final_rate": 1.0,
        "grad_clip": None,
        "served": {"every": 0},
        **more,
    }


def _td3_bc(task: str) -> Tree:
    """Fujimoto & Gu 2021, table 3."""
    del task
    return {
        "normalise": True,
        "network": _mlp(2),
        "critic": _mlp(2),
        "value": {"decay": False},
        "optimiser": _adam(),
        "td3": {},
    }


def _iql(task: str) -> Tree:
    """Kostrikov et al. 2022, app. B: the policy's rate decays, rewards are scaled."""
    kind = family(task)
    tree: Tree = {
        "network": _mlp(2),
        "critic": _mlp(2),
        "value": {"decay": False},
        "optimiser": _adam(final_rate=0.0),
        "sampler": {"temperature": 0.0},
        "iql": {"expectile": 0.7, "beta": 3.0},
    }
    if kind is not None:
        tree["normalise"] = False
    if kind == "gym":
        tree["reward"] = {"tune": "locomotion"}
    elif kind == "antmaze":
        tree["reward"] = {"tune": "linear", "shift": -1.0}
        tree["iql"] = {"expectile": 0.9, "beta": 10.0}
    elif kind in ("adroit", "kitchen"):
        tree["iql"]["beta"] = 0.5
    return tree


def _rebrac(task: str) -> Tree:
    """Tarasov et al. 2023: large batches on locomotion, a long horizon in the mazes."""
    kind, value = family(task), {"decay": False}
    tree: Tree = {
        "network": _mlp(3),
        "critic": _mlp(3) | {"layer_norm": True},
        "value": value,
        "optimiser": _adam(),
        "td3": {},
    }
    if kind is not None:
        tree["normalise"] = False
    if kind == "gym":
        tree["optimiser"] = _adam(1e-3, batch=1024)
        tree["value"] = value | {"learning_rate": 1e-3}
    elif kind == "antmaze":
        tree["value"] = value | {"learning_rate": 5e-5, "discount": 0.999}
        tree["reward"] = {"tune": "linear", "scale": 100.0}
    if task in PENALTIES:
        tree["td3"] = dict(zip(("actor_bc", "critic_bc"), PENALTIES[task], strict=True))
    return tree
