"""``docs/tasks.md``: every task with sizes, state, speed and fidelity, from what was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sim.generate.recipes import Recipe, recipes
from sim.measurements import Dataset, Measurements, Return, Speed
from sim.registry import describe

ABSENT = "–"
COMMAND = "onebeat sim table"
ENOUGH_DATASETS = 3
"""Names of datasets that are written out; of more, the stem and the versions."""


def table_text(measured: Measurements) -> str:
    """Return the whole page."""
    rows = describe()
    families = list(dict.fromkeys(row["family"] for row in rows))
    parts = [
        f"# Tasks\n\n<!-- Written by `{COMMAND}`: a change here is lost. -->\n\n"
        f"{len(rows)} tasks in {len(families)} families; `onebeat sim list --json` has all facts "
        "of each. What the columns mean stands below each table.",
        "## Families\n\n" + _families(rows, measured),
        "## Fidelity\n\n" + _fidelity(measured),
        "## Datasets that can be built\n\n" + _datasets(measured.datasets, recipes()),
        *(f"## {family}\n\n" + _tasks(rows, family, measured) for family in families),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _families(rows: Sequence[Mapping[str, Any]], measured: Measurements) -> str:
    counts = Counter(row["family"] for row in rows)
    lines = [
        (family, count, _state(rows, family, measured), *_speeds(family, measured.speeds))
        for family, count in counts.items()
    ]
    head = ("family", "tasks", "kept promises", "measured on", "bare steps/s")
    ratios = ("lockstep", "vector", "ZeroMQ")
    return _table((*head, *ratios), lines) + (
        "\n\nKept promises: tasks that pass `onebeat sim check`, of those checked. Bare: the "
        "package the task comes from, stepped in a plain loop; the others are ratios to it: our "
        "lockstep plant, 16 copies over the processors, and the plant in another process in "
        "lockstep. Made by `python tests/benchmarks/sim_steps.py`; of several tasks the one with "
        "the smallest first ratio."
    )


def _state(rows: Iterable[Mapping[str, Any]], family: str, measured: Measurements) -> str:
    names = {row["task"] for row in rows if row["family"] == family}
    checks = [check for check in measured.checks if check.task in names]
    passed = sum(check.ok for check in checks)
    return f"{passed} of {len(checks)}" if checks else ABSENT


def _speeds(family: str, speeds: Iterable[Speed]) -> tuple[str, ...]:
    """Return the cells of the task of the family on which our plant is slowest, relatively."""
    found = [speed for speed in speeds if speed.family == family]
    if not found:
        return (ABSENT,) * 5
    worst = min(found, key=lambda speed: speed.lockstep / speed.bare)
    ratios = [f"{rate / worst.bare:.2f}" for rate in (worst.lockstep, worst.vector, worst.zmq)]
    on = f"`{worst.task}`" + (f" / {worst.of}" if worst.of else "")
    return (on, f"{worst.bare:,.0f}", *ratios)


def _fidelity(measured: Measurements) -> str:
    parts = []
    if measured.deviations:
        lines = [
            (
                f"`{each.task}`",
                each.reference,
                each.steps,
                f"{each.deviation:.1e}",
                ABSENT if each.bound is None else f"{each.bound:g}",
            )
            for each in measured.deviations
        ]
        parts.append(
            "Largest deviation of a position or velocity from the reference, under fixed random "
            "actions.\n\n" + _table(("task", "reference", "steps", "deviation", "bound"), lines)
        )
    if measured.returns:
        head = ("task", "policy", "quantity", "published", "here", "episodes", "standard errors")
        parts.append(
            "Published policies, and what they reach here. Standard errors: the distance from the "
            "published mean in those of the mean here.\n\n"
            + _table(head, [_return(each) for each in measured.returns])
        )
    return "\n\n".join(parts) or "Not measured."


def _return(row: Return) -> tuple[object, ...]:
    published = ABSENT
    if row.published_mean is not None:
        published = _spread(row.published_mean, row.published_std)
    errors = ABSENT if row.errors is None else f"{row.errors:+.1f}"
    here = _spread(row.mean, row.std)
    return (f"`{row.task}`", row.policy, row.quantity, published, here, row.episodes, errors)


def _datasets(measured: Iterable[Dataset], known: Mapping[str, Recipe]) -> str:
    """Return a row for each recipe, measured or not."""
    found = {each.name: each for each in measured}
    lines: list[tuple[object, ...]] = []
    for name in dict.fromkeys((*known, *found)):
        recipe, row = known.get(name), found.get(name)
        published = recipe.published if recipe else None
        full = recipe.steps if recipe else row.steps if row else 0
        theirs = (
            row.d4rl_return
            if row and row.d4rl_return is not None
            else _of(published, "return_mean"),
            row.d4rl_score if row and row.d4rl_score is not None else _of(published, "score_mean"),
        )
        lines.append((f"`{name}`", f"{full:,}", *_made(row), *map(_number, theirs)))
    head = ("dataset", "steps", "measured over", "return", "length", "success", "score")
    return _table((*head, "D4RL's return", "D4RL's score"), lines) + (
        "\n\n`onebeat data generate NAME` makes each; steps are those of the whole dataset, the "
        "figures beside them of as many as were measured. They are datasets of the same kind as "
        "D4RL's, made by other policies.\n\nAs in D4RL's files, every AntMaze "
        "row near the goal is a terminal, so that returns there are of pieces: success is the "
        "share of recorded trajectories that come to the goal."
    )


def _of(published: object, name: str) -> float | None:
    value: float | None = getattr(published, name, None)
    return value


def _made(row: Dataset | None) -> tuple[str, ...]:
    if row is None:
        return (ABSENT,) * 5
    success = ABSENT if row.success_rate is None else f"{row.success_rate:.0%}"
    spread = _spread(row.return_mean, row.return_std)
    return f"{row.steps:,}", spread, f"{row.length_mean:.0f}", success, _number(row.score_mean)


def _tasks(rows: Iterable[Mapping[str, Any]], family: str, measured: Measurements) -> str:
    verdicts = {check.task: check for check in measured.checks}
    mine = [row for row in rows if row["family"] == family]
    lines = []
    for row in mine:
        verdict = verdicts.get(row["task"])
        state = ABSENT if verdict is None else "ok" if verdict.ok else verdict.why
        scale = ABSENT if row["ref_min"] is None else f"{row['ref_min']:.4g} … {row['ref_max']:.4g}"
        lines.append(
            (
                f"`{row['task']}`",
                f"{row['obs']} → {row['act']}",
                f"{row['rate_hz']:g} × {row['physics_steps']}",
                row["max_steps"],
                "yes" if row["success"] else ABSENT,
                scale,
                datasets_cell(row["datasets"]),
                state,
            )
        )
    head = ("task", "sizes", "Hz × physics", "limit", "success", "score 0 … 100", "datasets")
    return _table((*head, "state"), lines) + (
        "\n\nSizes of observation and action; control rate and physics steps of one control step; "
        "steps after which an episode is cut; whether success is known; the returns of score 0 and "
        "100; the D4RL datasets that fit."
    )


def datasets_cell(names: Sequence[str]) -> str:
    """Return dataset names in short: versions of one stem together where there are many."""
    if len(names) <= ENOUGH_DATASETS:
        return ", ".join(names) or ABSENT
    versions: dict[str, list[str]] = {}
    for name in names:
        stem, _, version = name.rpartition("-")
        versions.setdefault(stem, []).append(version)
    return ", ".join(f"{stem}-{'/'.join(found)}" for stem, found in versions.items())


def _spread(mean: float, std: float | None) -> str:
    return _number(mean) if std is None else f"{_number(mean)} ± {_number(std)}"


def _number(value: float | None) -> str:
    if value is None:
        return ABSENT
    return (
        f"{value:,.0f}"
        if abs(value) >= 1000
        else f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.3g}"
    )


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
