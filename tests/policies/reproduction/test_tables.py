"""Tables and page, from rows made by hand."""

import pytest

from policies.reproduction import tables
from policies.reproduction.lines import Planned, lines_of
from policies.reproduction.page import page_text
from policies.reproduction.picture import picture_png
from policies.reproduction.published import Figure
from tests.policies.reproduction.made import MACHINE, row

AC = ("consistency_ac", "", "released", 50_000)
HOPPER, KITCHEN = "hopper-medium-expert-regen", "kitchen-complete-v0"
ROWS = [
    row(score=80.0, ms_per_update=24.0, action_us=50.0, action_us_50=800.0),
    row(score=90.0, seed=1, ms_per_update=26.0, action_us=70.0, action_us_50=1000.0),
    row(
        dataset=KITCHEN, algorithm="diffusion_bc", score=61.25, ms_per_update=4.04, calls=5,
        candidates=1, action_us=150.0, action_us_50=None, updates=1_500_000,
    ),
]  # fmt: skip
PLAN = [
    *(Planned(HOPPER, *AC, seed, reason) for seed, reason in enumerate(("", "", "not run"))),
    Planned(KITCHEN, *AC, 0, "loss is no longer finite"),
    Planned("hopper-medium-v2", *AC, 0, "D4RL's file is not on this machine"),
]


def table(text):
    return [line.strip() for line in text.strip().splitlines()]


def test_a_line_for_each_experiment_beside_the_published_numbers():
    lines = lines_of(ROWS, PLAN)
    # Mean of 80 and 90, half their difference; the paper's 1.84 ms are 1840 µs.
    expected = """
        | dataset | algorithm | preset | updates, of the paper's | seeds, episodes | score | published | ms/update | published | calls | µs/action | best of 50 | published |
        | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
        | `hopper-medium-expert-regen` | `consistency_ac` | released | **50,000** of 2,000,000 (2.5 %) | 2 of 3, 100 each | 85.0 ± 5.0 | 100.4 ± 3.5† (T2, A2) | 25.0 | 31.9 ± 1.6 (T3) | 2 | 60.0 | 900 | 1,840 ± 210 (T3) |
        | `kitchen-complete-v0` | `diffusion_bc` | released | **1,500,000** of 1,500,000 (100 %) | 1, 100 each | 61.2 | 76.5 ± 8.9 (T1) | 4.0 | 96.8 ± 2.7 (A1) | 5 | 150 | – | – |
        | `kitchen-complete-v0` | `consistency_ac` | released | 0 (planned: 50,000) of 1,500,000 | 0 of 1 | n/a: loss is no longer finite | 51.9 ± 6.0 (T2, A2) | – | – | – | – | – | – |
    """  # noqa: E501
    shown = [line for line in lines if line.dataset != "hopper-medium-v2"]
    assert table(tables.results_table(shown, [MACHINE])) == table(expected)


def test_what_was_not_run_stands_with_the_reason_and_what_was_published():
    absent = [line for line in lines_of(ROWS, PLAN) if line.dataset == "hopper-medium-v2"]
    expected = """
        | dataset | score | `consistency_bc`, published | `diffusion_bc`, published | `consistency_ac`, published | `diffusion_ql`, published |
        | --- | --- | ---: | ---: | ---: | ---: |
        | `hopper-medium-v2` | n/a: D4RL's file is not on this machine | 71.7 ± 8.0 (T1) | 65.3 ± 5.8 (T1) | 80.7 ± 10.5 (T2) | 90.5 ± 4.6 (T2) |
    """  # noqa: E501
    assert table(tables.absent_table(absent)) == table(expected)


def test_figures_name_their_machine_where_there_are_several():
    rows = [
        row(trained_on="GPU", side_by_side=5, ms_per_update=1.5),
        row(trained_on="GPU", side_by_side=5, ms_per_update=2.5, seed=1),
        row(seed=2, ms_per_update=30.0, action_us_50=None),
        row(seed=3, scored_on="GPU", ms_per_update=None),
    ]
    (line,) = lines_of(rows, [])
    text = tables.results_table([line], [MACHINE, "GPU"]).splitlines()[-1]
    assert "| 30.0 (A); 2.0 (B) for 5 seeds |" in text
    assert "| 60.0 (A); 60.0 (B) | 900 (A); 900 (B) |" in text


def test_an_ablation_names_its_variant_and_the_papers_number_of_it():
    (line,) = lines_of([row(variant="steps_5", calls=5)], [])
    head, _, text = tables.results_table([line], [MACHINE], variants=True).splitlines()
    assert head.split(" | ")[2] == "variant"
    assert text.split(" | ")[2] == "`steps_5`"
    assert "101.4 ± 4.7† (T3)" in text
    assert "3,390 ± 290 (T3)" in text


def test_four_seeds_have_an_interquartile_mean_and_no_score_gives_the_return():
    (line,) = lines_of([row(seed=n, score=s) for n, s in enumerate((0.0, 50.0, 60.0, 100.0))], [])
    assert tables.score_text(line) == "52.5 ± 35.6, IQM 55.0"
    (line,) = lines_of([row(score=None, return_mean=1234.5)], [])
    assert tables.score_text(line) == "return 1,234.5"


@pytest.mark.parametrize(
    ("figure", "scale", "text"),
    [
        (Figure(33.8), 1.0, "33.8"),
        (Figure(30.1, 4.2, 90.0, 0.1), 1.0, "30.1 ± 4.2"),
        (Figure(26.5, 1.92), 1000.0, "26,500 ± 1,920"),
    ],
)
def test_a_published_number_in_words(figure, scale, text):
    assert tables.figure_text(figure, scale) == text


def test_machines_are_lettered_on_behind_z():
    assert [tables.letter(n) for n in (0, 25, 26, 27)] == ["A", "Z", "AA", "AB"]


def test_the_page_says_how_far_the_runs_are_from_the_papers():
    page = page_text(lines_of(ROWS[:2], PLAN))
    assert "**Every run below has fewer updates than the paper's: 2.5 % of them.**" in page
    page = page_text(lines_of(ROWS, PLAN))
    assert "**1 of 2 lines below have fewer updates than the paper's: 2.5 % of them.**" in page
    assert "fewer updates than" not in page_text(lines_of(ROWS[2:], []))


def test_the_page_lists_missing_seeds_machines_and_what_was_not_run():
    page = page_text(lines_of(ROWS, PLAN), picture=True)
    assert "- `hopper-medium-expert-regen`, `consistency_ac`, seed 2: not run" in page
    assert f"Machine: {MACHINE}." in page
    assert "](reproduction.png)" in page
    body, absent = page.split("## Not run")
    assert "hopper-medium-v2" not in body.split("## Scores")[1]
    assert "`hopper-medium-v2` | n/a: D4RL's file" in absent
    assert "## Ablations" not in page
    assert max(map(len, page.split("## Scores")[0].splitlines())) <= 100


def test_ablations_stand_with_the_lines_they_are_changes_of():
    rows = [*ROWS, row(variant="unscaled", score=10.0)]
    ablations = page_text(lines_of(rows, [])).split("## Ablations")[1]
    lines = [line for line in ablations.splitlines() if line.startswith("| `")]
    assert [line.split(" | ")[1:3] for line in lines] == [
        ["`consistency_ac`", "–"], ["`consistency_ac`", "`unscaled`"],
    ]  # fmt: skip


def test_a_page_without_a_row():
    page = page_text(lines_of([], PLAN))
    assert "No run has been scored yet." in page
    assert "n/a: loss is no longer finite" in page


def test_the_picture_is_the_same_for_the_same_rows():
    pytest.importorskip("matplotlib")
    lines = lines_of([*ROWS, row(score=None, variant="unscored")], PLAN)
    first = picture_png(lines)
    assert first.startswith(b"\x89PNG")
    assert picture_png(lines) == first
    assert picture_png(lines_of([row(score=1.0)], [])) != first


def test_two_tables_that_disagree_are_both_quoted():
    (line,) = lines_of([row(dataset="hopper-medium-v2")], [])
    text = tables.results_table([line], [MACHINE])
    assert "| 80.7 ± 10.5 (T2); 78.0 ± 3.9 (A2) |" in text
