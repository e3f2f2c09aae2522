"""The page of all tasks says what was measured, and of everything else that it was not."""

import re
from pathlib import Path

import msgspec
import pytest

from controller.cli import main
from controller.errors import DataError
from sim.generate.recipes import recipes
from sim.measurements import Return, read_measurements
from sim.registry import describe
from sim.task_table import datasets_cell, table_text

FILES = {
    "check.json": [
        {"task": "hopper", "ok": True, "why": ""},
        {"task": "walker2d", "ok": False, "why": "success | was lost"},
    ],
    "speed.json": [
        {"task": "hopper", "family": "locomotion", "bare": 12000.0, "lockstep": 13200.0}
        | {"vector": 24000.0, "zmq": 3000.0, "ratios": {"lockstep": 1.1}, "of": "gym Hopper"},
        {"task": "halfcheetah", "family": "locomotion", "bare": 30000.0, "lockstep": 29100.0}
        | {"vector": 57000.0, "zmq": 6000.0},
    ],
    "golden.json": [
        {"task": "hopper", "reference": "MuJoCo 2.1.0", "steps": 200, "deviation": 3.21e-11}
        | {"bound": 1e-9}
    ],
    "returns.json": [
        {"task": "hopper", "policy": 10, "mean": 1380.0, "std": 100.0, "episodes": 25}
        | {"published_mean": 1420.0, "published_std": 300.0},
        {"task": "antmaze-umaze", "policy": "navigation", "mean": 0.97, "std": 0.17}
        | {"episodes": 30, "quantity": "success"},
    ],
    "datasets.json": [
        {"name": "hopper-medium-regen", "steps": 100000, "episodes": 277, "return_mean": 1308.2}
        | {"return_std": 113.6, "length_mean": 360.4, "score_mean": 40.8, "d4rl_score": 44.3}
    ],
}


@pytest.fixture
def directory(tmp_path):
    for name, rows in FILES.items():
        (tmp_path / name).write_bytes(msgspec.json.encode(rows))
    return tmp_path


def rows_of(text: str, start: str) -> list[list[str]]:
    """Return the cells of the lines that begin with a cell."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_what_was_measured_is_in_the_page(directory):
    text = table_text(read_measurements(directory))
    (family,) = rows_of(text, "locomotion")
    # Of the two tasks the one whose plant is slower than its package is shown.
    assert family[1:] == ["4", "1 of 2", "`halfcheetah`", "30,000", "0.97", "1.90", "0.20"]
    golden, published, task = rows_of(text, "`hopper`")
    assert golden[1:] == ["MuJoCo 2.1.0", "200", "3.2e-11", "1e-09"]
    assert published[3:] == ["1,420 ± 300.0", "1,380 ± 100.0", "25", "-2.0"]
    assert (task[1], task[-1]) == ("11 → 3", "ok")
    assert rows_of(text, "`walker2d`")[0][-1] == "success \\| was lost"
    assert rows_of(text, "`antmaze-umaze`")[0][3:] == ["–", "0.97 ± 0.17", "30", "–"]
    (dataset,) = rows_of(text, "`hopper-medium-regen`")
    assert dataset[1:6] == ["1,000,000", "100,000", "1,308 ± 113.6", "360", "–"]
    assert dataset[6:] == ["40.8", "1,422", "44.3"]


def test_every_task_and_recipe_has_a_row_without_measurements(tmp_path):
    text = table_text(read_measurements(tmp_path))
    for row in describe():
        found = rows_of(text, f"`{row['task']}`")
        assert len(found) == 1, row["task"]
        assert found[0][-1] == "–"
    for name in recipes():
        assert rows_of(text, f"`{name}`")[0][2:7] == ["–"] * 5
    assert "Not measured." in text


def test_distance_in_standard_errors():
    row = Return("t", "p", mean=12.0, std=4.0, episodes=16, published_mean=10.0)
    assert row.errors == 2.0  # 2 apart, 4 / sqrt(16) each.
    assert msgspec.structs.replace(row, std=0.0).errors is None
    assert msgspec.structs.replace(row, published_mean=None).errors is None


def test_many_datasets_are_shortened():
    assert datasets_cell([]) == "–"
    assert datasets_cell(["a-v0", "a-v2"]) == "a-v0, a-v2"
    assert datasets_cell(["a-x-v0", "a-x-v2", "a-y-v0", "a-y-v1"]) == "a-x-v0/v2, a-y-v0/v1"


def test_a_damaged_file_is_named(directory):
    (directory / "speed.json").write_text('[{"task": 3}]')
    with pytest.raises(DataError, match=r"speed\.json: expected a list of Speed rows"):
        read_measurements(directory)


def test_the_command_writes_the_page(directory, tmp_path):
    out = tmp_path / "docs" / "tasks.md"
    assert main(["sim", "table", f"measurements={directory}", f"out={out}"]) == 0
    assert out.read_text() == table_text(read_measurements(directory))


def test_the_page_in_the_repository_is_up_to_date():
    docs = Path(__file__).parents[2] / "docs"
    if not (docs / "tasks.md").exists():
        pytest.skip("not written yet")
    text = table_text(read_measurements(docs / "measurements"))
    assert (docs / "tasks.md").read_text() == text, "run: onebeat sim table"
