"""Settings of the 20 tasks of Ding & Jin (2024): as the paper describes, as the code has them.

What the two differ in stands in docs/algorithms.md with its measured effect. The paper's own
table of hyper-parameters was not published; the numbers for each task are those of the code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from controller.arguments import nearest
from controller.errors import ConfigError
from policies.data.names import SUFFIXES, recognise
from policies.presets_own import family, own

Tree = dict[str, Any]
Preset = Literal["paper", "released"]

EPOCH = 1000
"""Updates."""
CYCLE = 50 * EPOCH
"""Updates after which the released code begins its curriculum again: it evaluates then."""
AVERAGE: Tree = {"decay": 0.995, "every": 5, "after": EPOCH, "grow": False}
NEWEST: Tree = {"every": 0}
CANDIDATES = 50


@dataclass(frozen=True)
class Row:
    """What the released code has for one task.

    Attributes:
        eta: weight of L_q of Consistency-AC.
        guide: the same of Diffusion-QL.
        grad_clip: largest norm of the gradients of Consistency-AC.
        guide_clip: the same of Diffusion-QL.
        epochs: of 1000 updates.
        learning_rate: of the policy.
        steps: network evaluations of the consistency policy.
        q_norm: divide the TD targets by their spread.
        scale: weigh the consistency loss of Consistency-AC.
        max_q: max-Q backup.
        guide_epochs: of Diffusion-QL where they differ.
    """

    eta: float
    guide: float
    grad_clip: float
    guide_clip: float
    epochs: int
    learning_rate: float = 3e-4
    steps: int = 2
    q_norm: bool = False
    scale: bool = True
    max_q: bool = False
    guide_epochs: int | None = None


TASKS: dict[str, Row] = {
    "halfcheetah-medium": Row(1.0, 1.0, 9, 9, 2000, scale=False),
    "hopper-medium": Row(0.1, 1.0, 9, 9, 2000, scale=False),
    "walker2d-medium": Row(1.0, 1.0, 1, 1, 2000, steps=5, q_norm=True, scale=False),
    "halfcheetah-medium-replay": Row(1.0, 1.0, 2, 2, 2000, scale=False),
    "hopper-medium-replay": Row(0.1, 1.0, 4, 4, 2000, scale=False),
    "walker2d-medium-replay": Row(0.1, 1.0, 4, 4, 2000, steps=5, scale=False),
    "halfcheetah-medium-expert": Row(1.0, 1.0, 7, 7, 2000),
    "hopper-medium-expert": Row(1.0, 1.0, 5, 5, 2000),
    "walker2d-medium-expert": Row(1.0, 1.0, 5, 5, 2000, q_norm=True),
    "antmaze-umaze": Row(0.01, 0.5, 2, 2, 1000, q_norm=True),
    "antmaze-umaze-diverse": Row(0.01, 2.0, 3, 3, 1000, q_norm=True, max_q=True),
    "antmaze-medium-play": Row(0.01, 2.0, 2, 2, 1000, 1e-3, max_q=True),
    "antmaze-medium-diverse": Row(0.01, 3.0, 1, 1, 1000, q_norm=True, max_q=True),
    "antmaze-large-play": Row(4.5, 4.5, 10, 10, 1000, q_norm=True, max_q=True),
    "antmaze-large-diverse": Row(3.5, 3.5, 2, 7, 1000, q_norm=True, max_q=True),
    "pen-human": Row(0.01, 0.15, 7, 7, 1000, 3e-5, q_norm=True),
    "pen-cloned": Row(0.01, 0.1, 8, 8, 500, 3e-5, q_norm=True, guide_epochs=1000),
    "kitchen-complete": Row(0.5, 0.005, 2, 9, 1500, q_norm=True, guide_epochs=250),
    "kitchen-partial": Row(0.5, 0.005, 2, 10, 1500, q_norm=True, guide_epochs=1000),
    "kitchen-mixed": Row(0.5, 0.005, 2, 10, 1500, q_norm=True, guide_epochs=1000),
}


def beneath(tree: Mapping[str, Any]) -> Tree:
    """Return the settings that lie under what was written for a training.

    Raises:
        ConfigError: a preset for a task that the paper does not have.
    """
    preset, algorithm = tree.get("preset", "own"), tree.get("algorithm", "consistency_bc")
    names = [str(tree.get(key) or "") for key in ("data", "task")]
    if preset == "own":
        meant = (known(name) or _plain(name) for name in names)
        return own(algorithm, next(filter(family, meant), ""))
    task = next(filter(None, map(known, names)), None)
    return preset_of(preset, algorithm, task or _plain(names[0] or names[1]))


def known(name: str) -> str | None:
    """Return the task of the paper that a dataset's name, or path, means; None if none does.

    ``hopper-medium-expert-v2``, ``hopper-medium-expert-regen.hdf5`` and the like, and the names
    that D4RL gave its files.
    """
    plain = _plain(name)
    if plain in TASKS:
        return plain
    published = recognise(name)
    plain = _plain(published.name) if published else ""
    return plain if plain in TASKS else None


def _plain(name: str) -> str:
    stem = PurePath(name).name
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    return re.sub(r"(-regen)?(-v\d+)?$", "", stem)


def preset_of(preset: Preset, algorithm: str, task: str) -> Tree:
    """Return the settings of a preset.

    Args:
        preset: which.
        algorithm: one of the paper's four.
        task: a key of ``TASKS``.

    Raises:
        ConfigError: no such task, or an algorithm the paper does not have.
    """
    if algorithm not in BUILDERS:
        raise ConfigError(
            f"preset {preset}: is of the paper's algorithms, got {algorithm}; valid: "
            f"{', '.join(BUILDERS)}, or preset=own"
        )
    row = TASKS.get(task)
    if row is None:
        raise ConfigError(
            f"preset {preset}: no settings for {task or 'no task'}; {nearest(task, TASKS)}"
        )
    return BUILDERS[algorithm](row, preset, _rewards(task))


def _rewards(task: str) -> Tree:
    if task.startswith("antmaze"):
        return {"tune": "linear", "scale": 4.0, "shift": -2.0}
    return {"tune": "normalise" if task.startswith("pen") else "none"}


def _common(row: Row, preset: Preset, epochs: int, grad_clip: float | None) -> Tree:
    """Return what all four algorithms share."""
    return {
        "normalise": False,
        "checkpoint_every": CYCLE,
        "noise": {"kind": "paper"},
        "optimiser": {
            "steps": epochs * EPOCH,
            "batch": 256,
            "learning_rate": row.learning_rate,
            "warmup": 0,
            # The released code steps its cosine once in 50 epochs: it decays by 0.1 %.
            "final_rate": 0.0 if preset == "paper" else 1.0,
            "grad_clip": grad_clip,
            "served": NEWEST,
        },
    }


def _critics(row: Row, preset: Preset, eta: float, rewards: Tree) -> Tree:
    """Return what the two algorithms with critics share."""
    choice = {"candidates": CANDIDATES, "select": "softmax"} if preset == "released" else {}
    return {
        "value": {"max_q": 10 if row.max_q else 1},
        "improve": {"eta": eta, "q_loss": "coin", "slow": AVERAGE},
        "reward": rewards,
        "sampler": choice,
    }


def _loss(preset: Preset, *, scale: bool) -> Tree:
    """Return the consistency loss, with lambda where ``scale``."""
    return {
        "levels_start": 2,
        "levels_end": 150,
        "growth": "square_root" if preset == "paper" else "released",
        "restart": EPOCH if preset == "paper" else CYCLE,
        "weighting": "inverse_step" if scale else "none",
        "xi": 100.0,
        "distance": "l2",
        "target": AVERAGE,
    }


def _grid(row: Row, preset: Preset) -> Tree:
    """Return the evaluations of N: the paper's algorithm makes N - 1, the released code N."""
    if preset == "paper":
        return {"steps": row.steps - 1, "grid": "paper"}
    return {"steps": row.steps, "grid": "released"}


def _consistency_bc(row: Row, preset: Preset, rewards: Tree) -> Tree:
    del rewards
    tree = _common(row, preset, row.epochs, row.grad_clip)
    return tree | {"loss": _loss(preset, scale=False), "sampler": _grid(row, preset)}


def _consistency_ac(row: Row, preset: Preset, rewards: Tree) -> Tree:
    tree = _common(row, preset, row.epochs, row.grad_clip)
    tree |= _critics(row, preset, row.eta, rewards)
    tree["value"]["q_norm"] = row.q_norm and preset == "released"
    tree["improve"] |= _grid(row, preset)
    tree["sampler"] |= _grid(row, preset)
    # The flag never reaches the released learner, which always weighs the loss.
    tree["loss"] = _loss(preset, scale=row.scale or preset == "released")
    return tree


def _diffusion_bc(row: Row, preset: Preset, rewards: Tree) -> Tree:
    del rewards
    tree = _common(row, preset, row.epochs, None)
    tree["optimiser"]["final_rate"] = 1.0
    return tree | {"chain": {"steps": 5}}


def _diffusion_ql(row: Row, preset: Preset, rewards: Tree) -> Tree:
    tree = _common(row, preset, row.guide_epochs or row.epochs, row.guide_clip)
    return tree | _critics(row, preset, row.guide, rewards) | {"chain": {"steps": 5}}


BUILDERS = {
    "consistency_bc": _consistency_bc,
    "consistency_ac": _consistency_ac,
    "diffusion_bc": _diffusion_bc,
    "diffusion_ql": _diffusion_ql,
}
