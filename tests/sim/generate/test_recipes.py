"""Recipes: their names, sizes and files, and the tasks they are for."""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import registry
from sim.generate.recipes import Part, Recipe, recipes, rows

DATA = Path(os.environ.get("ONEBEAT_DATA", "absent"))
ROBOTS = ("hopper", "halfcheetah", "walker2d")
LEVELS = ("random", "medium", "medium-replay", "medium-expert", "expert")


@pytest.mark.parametrize("recipe", recipes().values(), ids=lambda recipe: recipe.name)
def test_recipe(recipe):
    task = registry.task_named(recipe.task)
    assert recipe.name not in registry.tasks()
    assert recipe.name.endswith(("-regen", "-scripted"))
    recorded_elsewhere = {"multistart"} if task.family == "antmaze" else set()
    assert set(recipe.options) <= set(task.options) | recorded_elsewhere
    streams = [part.stream for part in recipe.parts]
    assert len(set(streams)) == len(streams)


@pytest.mark.parametrize("recipe", recipes().values(), ids=lambda recipe: recipe.name)
def test_its_policies_are_there(recipe):
    if not (DATA / "policies").is_dir():
        pytest.skip("ONEBEAT_DATA does not lead to the policies")
    for policy in recipe.policies:
        assert (DATA / "policies" / policy).is_file()


def test_sizes_are_those_of_d4rl():
    sizes = {"random": 1_000_000, "medium": 1_000_000, "medium-expert": 2_000_000}
    sizes["expert"] = 1_000_000
    replays = {"hopper": 402_000, "halfcheetah": 202_000, "walker2d": 302_000}
    for robot in ROBOTS:
        for level in LEVELS:
            recipe = recipes()[f"{robot}-{level}-regen"]
            assert recipe.steps == (replays[robot] if level == "medium-replay" else sizes[level])


@pytest.mark.parametrize("robot", ROBOTS)
def test_medium_expert_is_medium_and_then_expert(robot):
    medium, expert, both = (
        recipes()[f"{robot}-{level}-regen"].parts for level in ("medium", "expert", "medium-expert")
    )
    assert both == (*medium, *expert)


@pytest.mark.parametrize("robot", ROBOTS)
def test_replay_is_labelled_and_in_order_of_training(robot):
    recipe = recipes()[f"{robot}-medium-replay-regen"]
    assert "stand-in for a replay buffer" in recipe.note
    assert [part.stream for part in recipe.parts] == list(range(len(recipe.parts)))
    assert [part.policy[-6:-4] for part in recipe.parts] == [
        f"{p.stream:02d}" for p in recipe.parts
    ]
    assert max(recipe.lengths()) - min(recipe.lengths()) <= len(recipe.parts)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=8), st.integers(1, 10**6))
def test_parts_share_any_number_of_steps(sizes, steps):
    recipe = Recipe("x", "y", tuple(Part("random", size) for size in sizes))
    lengths = recipe.lengths(steps)
    assert sum(lengths) == steps
    for length, size in zip(lengths, sizes, strict=True):
        assert abs(length - steps * size / sum(sizes)) < 1 + 1e-6
    assert recipe.lengths() == tuple(sizes)


def test_names_are_listed_family_by_family():
    robots = [name.split("-")[0] for name in recipes()]
    changes = sum(one != other for one, other in pairwise(robots))
    assert changes == len(set(robots)) - 1


def test_rows_are_plain_and_complete():
    listed = rows()
    assert [row["dataset"] for row in listed] == list(recipes())
    assert json.loads(json.dumps(listed)) == listed
    medium = next(row for row in listed if row["dataset"] == "hopper-medium-regen")
    assert medium["steps"] == 1_000_000
    assert (medium["d4rl_return_mean"], medium["d4rl_length_mean"]) == (1422.0, 457.0)
