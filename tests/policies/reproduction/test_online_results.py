"""Points and rows of live fine-tunings: read from runs, kept as CSV, shown as table and picture."""

import json

import pytest

from controller.errors import DataError
from policies.reproduction.online_page import page_text
from policies.reproduction.online_picture import curves_of, picture_png
from policies.reproduction.online_plan import expand
from policies.reproduction.online_results import (
    OnlineRow,
    Point,
    make_row,
    measure_of,
    merged,
    read_csv,
    read_curve,
    to_csv,
)
from policies.reproduction.online_tables import change_of, published_text, results_table
from policies.reproduction.origin import machine
from tests.policies.reproduction.made import online_plan, online_row, point

LINE = {
    "env_steps": 100, "wall_s": 12.5, "updates": 90, "version": "v0002-00000000",
    "return_mean": 10.0, "return_std": 2.0, "score_mean": 40.0, "success": 0.5,
    "training_return_mean": None,
}  # fmt: skip
RESULT = {
    "before": {"score_mean": 40.0, "return_mean": 100.0, "success": 0.5},
    "after": {"score_mean": 50.0, "return_mean": 130.0, "success": 0.75},
    "updates": 290, "env_steps": 300, "versions": ["a", "b", "c"], "rejected_versions": 1,
    "rolled_back": 0, "learner": {"failure": None}, "seconds": 5.0, "ended": "300 steps",
}  # fmt: skip


@pytest.fixture
def cell():
    return expand(online_plan())[0]


def write(cell, out, *lines, result=None):
    store = cell.store(out)
    store.mkdir(parents=True, exist_ok=True)
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    (store / "curve.jsonl").write_text(text)
    if result is not None:
        (store / "result.json").write_text(json.dumps(result))


def test_a_curve_is_read_in_the_order_of_steps_and_the_last_of_a_place_counts(cell, tmp_path):
    later = LINE | {"env_steps": 200, "wall_s": 30.0}
    again = LINE | {"score_mean": 41.0}
    write(cell, tmp_path, later, LINE, again, {"env_steps": 7}, '{"env_st')
    first, second = read_curve(cell, tmp_path)
    assert first == point(score_mean=41.0)
    assert (second.env_steps, second.key) == (200, ("maze", "robust", 300, 0))
    assert read_curve(expand(online_plan())[1], tmp_path) == []


def test_a_row_of_a_run_has_the_whole_time_of_its_curve(cell, tmp_path):
    write(cell, tmp_path, LINE | {"wall_s": 60.0}, result=RESULT)
    row = make_row(cell, tmp_path, "")
    expected = online_row(settings=" ".join(cell.words), machine=machine(), commit="")
    assert row == expected


def test_a_run_that_ended_early_has_a_row_too(cell, tmp_path):
    diverged = RESULT | {
        "before": None, "after": None, "learner": {"failure": "diverged"}, "env_steps": 20,
    }  # fmt: skip
    write(cell, tmp_path, result=diverged)
    row = make_row(cell, tmp_path, "")
    assert (row.env_steps, row.score_after, row.learner) == (20, None, "diverged")


@pytest.mark.parametrize(
    ("kind", "records"),
    [
        (Point, [point(), point(score_mean=None, success=None, training_return_mean=3.5, seed=1)]),
        (OnlineRow, [online_row(), online_row(score_before=None, machine="", settings="a b,c")]),
    ],
)
def test_records_survive_their_csv(kind, records, tmp_path):
    file = tmp_path / "x.csv"
    file.write_text(to_csv(records, kind))
    assert read_csv(file, kind) == records
    assert read_csv(tmp_path / "none.csv", kind) == []


def test_a_csv_that_is_none_is_told_with_its_line(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text(to_csv([point()], Point) + "maze,robust,x\n")
    with pytest.raises(DataError, match=r"x\.csv:3: not a line of Point"):
        read_csv(file, Point)


def test_of_the_same_run_only_what_is_new_stays():
    old = [point(env_steps=1), point(env_steps=2), point(seed=1), point(steps=9)]
    new = [point(env_steps=5)]
    assert merged(old, new) == [point(steps=9), point(env_steps=5), point(seed=1)]


def test_curves_show_scores_else_successes_else_returns():
    assert measure_of([point()])[1](point()) == 40.0
    plain = point(score_mean=None)
    assert measure_of([plain])[1](plain) == 50.0
    bare = point(score_mean=None, success=None)
    assert measure_of([bare])[1](bare) == 10.0


def test_curves_of_seeds_rise():
    points = [point(env_steps=n, score_mean=s, seed=k) for n, s, k in
              [(20, 2.0, 0), (10, 1.0, 0), (10, 5.0, 1), (30, None, 0)]]  # fmt: skip
    first, second = curves_of(points, lambda p: p.env_steps, lambda p: p.score_mean)
    assert [x.tolist() for x in first] == [[10, 20], [1, 2]]
    assert [x.tolist() for x in second] == [[10], [5]]


def test_change_is_of_each_seed():
    rows = [online_row(), online_row(seed=1, score_before=20.0, score_after=10.0)]
    found = change_of(rows)
    assert (found.before, found.after, found.change) == ((40.0, 20.0), (50.0, 10.0), (10.0, -10.0))
    bare = [online_row(score_before=None, score_after=None)]
    assert (change_of(bare).measure, change_of(bare).change) == ("success", (25.0,))
    scratch = [online_row(score_before=None)]
    assert (change_of(scratch).after, change_of(scratch).change) == ((50.0,), ())


def test_table_has_every_group_once_with_its_numbers():
    rows = [
        online_row(), online_row(seed=1, score_after=20.0),
        online_row(arm="paper", published="hopper-medium", column="o2o_consistency_ac"),
        online_row(arm="paper", steps=1000),
    ]  # fmt: skip
    table = results_table(rows, {("maze", "paper", 300): 2, ("maze", "robust", 300): 2})
    lines = table.splitlines()[2:]
    assert [line.split("|")[2].strip() for line in lines] == ["`paper`", "`robust`", "`paper`"]
    assert "1 of 2" in lines[0]
    assert "60.5 ± 8.6" in lines[0]
    assert "35.0 (50.0, 20.0)" in lines[1]
    # Changes of +10 and -20: mean -5, half width 12.7062 * 15.
    assert "-5.0 (+10.0, -20.0)" in lines[1]
    assert "-195.6 to +185.6" in lines[1]
    assert "300 of 1,000" in lines[2]
    assert published_text(rows[0]) == "–"


def test_page_tells_what_is_not_finished_and_which_learners_broke():
    rows = [online_row(), online_row(arm="sac", learner="diverged: loss is not finite")]
    planned = {("maze", "robust", 300): 2}
    left = ["maze/robust/seed_1", "maze/robust/seed_2", "hop/robust/seed_0"]
    text = page_text(rows, planned, dict.fromkeys(left, "not run"), picture=True)
    for words in (
        "![Learning curves", "- `maze`, `sac`, seed 0: diverged: loss is not finite",
        "- `robust`: not run: `maze` (1, 2), `hop` (0)", "- `maze, robust`: `preset=robust`",
        "Machine: Processor, 2 cores.",
    ):  # fmt: skip
        assert words in text
    assert "No run has ended yet." in page_text([], planned, {})


def test_picture_is_drawn_of_several_tasks_and_seeds():
    pytest.importorskip("matplotlib")
    points = [
        point(task=task, arm=arm, seed=seed, env_steps=n, wall_s=n / 2)
        for task in ("maze", "hop") for arm in ("robust", "other") for seed in (0, 1, 2)
        for n in (0, 100, 200)
    ]  # fmt: skip
    small = picture_png(points[:9], ["robust"])
    large = picture_png(points, ["robust"])
    assert small[:8] == large[:8] == b"\x89PNG\r\n\x1a\n"
    heights = [int.from_bytes(png[20:24]) for png in (small, large)]
    assert heights[1] > 1.5 * heights[0]
