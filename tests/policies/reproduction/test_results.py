"""Rows: made from a run, kept in files, brought together."""

import msgspec
import pytest

from controller.errors import DataError
from controller.scores import Evaluation
from policies.bundle import load_bundle, read_manifest
from policies.reproduction import results
from policies.reproduction.origin import Origin, commit, machine, read_origin, write_origin
from policies.reproduction.plan import expand
from policies.reproduction.results import Row, merged, read_csv, read_row, to_csv, write_row
from tests.policies.reproduction.made import ROW, plan, row
from tests.policies.robots import toy_bundle

EVALUATION = Evaluation(
    bundle="x", version="v1", algorithm="consistency_bc", task="toy", seed=100, through="vector",
    copies=2, engine="numpy", device="cpu", steps=3, candidates=1, select=None, action_us_p50=9.0,
    selection="last", checkpoints=1, updates=4, seconds=1.0, note=None, episodes=2,
    return_mean=1.5, return_std=0.5, return_ci95=(1.0, 2.0), score_mean=15.0,
    score_ci95=(10.0, 20.0), success=None, length_mean=7.0, episode_returns=[1.0, 2.0],
)  # fmt: skip


def test_a_row_says_what_bundle_log_and_episodes_say(tmp_path):
    toy_bundle(tmp_path)
    rates = [0.0, 10.0, 50.0, 20.0]
    (tmp_path / "metrics.jsonl").write_bytes(
        b"".join(
            msgspec.json.encode({"step": n, "updates_per_s": r}) + b"\n"
            for n, r in enumerate(rates)
        )
        + b'{"step": 4, "score_mean": 3.0}\n'
    )
    cell = expand(plan())[0]
    opened = load_bundle(tmp_path)
    made = results.make_row(
        cell, tmp_path, read_manifest(opened.path), EVALUATION, Origin("GPU", 5, "abc"), "CPU"
    )
    # The median of 10, 20 and 50.
    assert (made.updates_per_s, made.ms_per_update) == (20.0, 50.0)
    assert made.data == opened.manifest.data[0].digest
    assert made.rows == 600
    assert made.updates == 4
    assert (made.score, made.score_low, made.score_high) == (15.0, 10.0, 20.0)
    assert (made.calls, made.candidates, made.select) == (3, 1, None)
    assert (made.trained_on, made.side_by_side, made.commit, made.scored_on) == (
        "GPU",
        5,
        "abc",
        "CPU",
    )
    assert (made.action_us, made.action_us_50) == (None, None)
    assert made.of(cell, 4)


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "x"}, {"algorithm": "iql"}, {"variant": "x"}, {"preset": "paper"},
        {"seed": 1}, {"settings": "optimiser.steps=31"}, {"updates": 31},
    ],
)  # fmt: skip
def test_a_row_of_another_run_is_not_the_cells(changes):
    cell = expand(plan())[0]
    mine = row(
        dataset=cell.dataset, algorithm=cell.algorithm, seed=0, settings=cell.settings, updates=30
    )
    assert mine.of(cell, 30)
    assert not msgspec.structs.replace(mine, **changes).of(cell, 30)


def test_a_row_comes_back_from_its_file(tmp_path):
    assert read_row(tmp_path) is None
    write_row(tmp_path, ROW)
    assert read_row(tmp_path) == ROW
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
    (tmp_path / "result.json").write_text('{"dataset": "a"')
    assert read_row(tmp_path) is None


def test_rows_are_found_below_the_directory_of_the_runs(tmp_path):
    for name, seed in (("a/bc/seed_0", 0), ("a/bc-wide/seed_12", 12), ("b/bc/other", 5)):
        (tmp_path / name).mkdir(parents=True)
        write_row(tmp_path / name, row(seed=seed))
    assert sorted(found.seed for found in results.find_rows(tmp_path)) == [0, 12]


def test_a_csv_keeps_six_digits_of_every_row(tmp_path):
    rows = [
        row(score=12.3456789, select=None, candidates=1, action_us_50=None),
        row(seed=1, score=None, score_low=None, score_high=None, success=0.25),
        row(dataset="door-human-v1", trained_on='a "quoted", name', updates_per_s=None),
    ]
    file = tmp_path / "rows.csv"
    file.write_text(to_csv(rows))
    assert read_csv(file) == [msgspec.structs.replace(rows[0], score=12.3457), *rows[1:]]
    assert to_csv(read_csv(file)) == file.read_text()
    assert read_csv(tmp_path / "none.csv") == []


def test_a_csv_of_something_else_is_told(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"rows.csv:2: not a row"):
        read_csv(file)
    file.write_text(to_csv([ROW]).replace("50000", "many", 1))
    with pytest.raises(DataError, match=r"rows.csv:2"):
        read_csv(file)


def test_a_new_row_takes_the_place_of_the_old_one_of_the_same_run():
    old = [row(seed=1, score=1.0), row(seed=0, score=2.0), row(updates=2_000_000)]
    new = [row(seed=1, score=9.0), row(variant="unscaled")]
    found = merged(old, new)
    assert [(r.variant, r.updates, r.seed, r.score) for r in found] == [
        ("", 50_000, 0, 2.0), ("", 50_000, 1, 9.0), ("", 2_000_000, 0, 90.0),
        ("unscaled", 50_000, 0, 90.0),
    ]  # fmt: skip
    assert merged(found, []) == merged([], reversed(found)) == found


def test_every_field_of_a_row_is_told_of():
    doc = Row.__doc__ or ""
    for name in Row.__struct_fields__:
        assert f"\n        {name}: " in doc, name


def test_a_note_of_the_origin_comes_back(tmp_path):
    assert read_origin(tmp_path) is None
    write_origin(tmp_path, Origin("GPU", 8, "abc1234"))
    assert read_origin(tmp_path) == Origin("GPU", 8, "abc1234")


def test_this_machine_has_a_name_and_this_tree_perhaps_a_commit():
    assert machine().endswith(("core", "cores"))
    assert machine("cuda").endswith(machine())
    assert commit() == "" or int(commit(), 16) >= 0
