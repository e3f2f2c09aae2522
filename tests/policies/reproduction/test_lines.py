"""Seeds brought together: which rows are of one experiment, and their statistics."""

import pytest

from policies.reproduction.lines import Planned, Spread, by_machine, lines_of, spread
from tests.policies.reproduction.made import row


def planned(seed=0, reason="", **changes):
    about = {
        "dataset": "hopper-medium-expert-regen", "algorithm": "consistency_ac", "variant": "",
        "preset": "released", "updates": 50_000,
    }  # fmt: skip
    return Planned(**(about | changes), seed=seed, reason=reason)


def test_only_the_seed_may_differ_within_a_line():
    rows = [
        row(seed=1), row(seed=0), row(updates=2_000_000), row(preset="paper"), row(variant="wide"),
        row(algorithm="diffusion_ql"), row(dataset="kitchen-complete-v0"),
    ]  # fmt: skip
    lines = lines_of(rows, [])
    assert len(lines) == 6
    assert sum(len(line.rows) for line in lines) == len(rows)
    many = next(line for line in lines if len(line.rows) > 1)
    assert [one.seed for one in many.rows] == [0, 1]
    assert many.planned == 0


def test_a_plan_has_lines_without_rows_and_its_order_of_datasets():
    plan = [
        planned(dataset="zebra", reason="not run"),
        planned(seed=0), planned(seed=1, reason="at update 10 of 50,000"),
    ]  # fmt: skip
    lines = lines_of([row(seed=0), row(dataset="alpha")], plan)
    assert [line.dataset for line in lines] == ["zebra", "hopper-medium-expert-regen", "alpha"]
    assert [line.planned for line in lines] == [1, 2, 0]
    assert lines[0].missing == "not run"
    assert lines[1].reasons == {1: "at update 10 of 50,000"}


def test_variants_are_sorted_by_their_numbers_and_more_updates_come_first():
    rows = [row(variant=name) for name in ("steps_10", "unscaled", "steps_2", "")]
    rows.append(row(updates=60_000))
    lines = lines_of(rows, [])
    assert [(line.variant, line.updates) for line in lines] == [
        ("", 60_000), ("", 50_000), ("steps_2", 50_000), ("steps_10", 50_000), ("unscaled", 50_000),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([None, None], None),
        ([7.0], Spread(7.0, None, None)),
        ([6.0, None, 10.0], Spread(8.0, 2.0, None)),
        # Of four one is left out at each end; (0 - 5)² + 0 + 0 + 25 over 4 is 12.5.
        ([10.0, 5.0, 0.0, 5.0], Spread(5.0, 12.5**0.5, 5.0)),
        # Of five too: the mean of 1, 2, 3.
        ([1.0, 2.0, 3.0, 0.0, 94.0], Spread(20.0, 1370.0**0.5, 2.0)),
    ],
)
def test_what_seeds_come_to(values, expected):
    found = spread(values)
    if expected is None:
        assert found is None
    else:
        assert vars(found) == pytest.approx(vars(expected))


def test_times_are_averaged_for_each_machine_apart():
    pairs = [("a", 1.0), ("b", 10.0), ("a", 3.0), ("c", None)]
    assert by_machine(pairs) == {"a": 2.0, "b": 10.0}
