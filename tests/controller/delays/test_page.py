"""The study of latency as files."""

import csv

import msgspec
import pytest

from controller.delays.page import write
from controller.delays.score import DelayRow
from controller.delays.settings import Arm, DelaysConfig


def row(arm: str, delay_ms: float, score: float | None = 50.0, **changes) -> DelayRow:
    fields = {
        "arm": arm,
        "task": "hopper",
        "delay_ms": delay_ms,
        "latency_ms": delay_ms,
        "steps": 1,
        "episodes": 3,
        "score": score,
        "score_ci95": None if score is None else (score - 5.0, score + 5.0),
        "return_mean": 1000.0,
        "return_ci95": (900.0, 1100.0),
        "success": None,
        "length": 300.0,
        "rungs": {"fresh": 1.0},
        **changes,
    }
    return DelayRow(**fields)


def test_rows_are_written_and_drawn(tmp_path):
    rows = [row("a", 0.0), row("a", 8.0, latency_ms=None), row("b", 0.0), row("b", 200.0)]
    names = [path.name for path in write(rows, tmp_path / "new")]
    assert names == ["delays.json", "delays.csv", "delays.png"]
    assert (
        msgspec.json.decode((tmp_path / "new/delays.json").read_bytes(), type=list[DelayRow])
        == rows
    )
    with (tmp_path / "new/delays.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [line["low"] for line in table] == ["45.0"] * 4
    assert [line["delay_ms"] for line in table] == ["0.0", "8.0", "0.0", "200.0"]
    assert (tmp_path / "new/delays.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_reference_the_return_is_what_counts(tmp_path):
    write([row("a", 0.0, score=None)], tmp_path)
    (line,) = csv.DictReader((tmp_path / "delays.csv").open())
    assert line["low"] == "900.0"


def test_two_arms_of_one_name_are_refused():
    with pytest.raises(ValueError, match="a: each needs a name of its own"):
        DelaysConfig(arms=(Arm("a", "hopper"), Arm("a", "walker2d")))
