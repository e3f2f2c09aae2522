"""The tables of Ding & Jin (ICLR 2024) as numbers: what a reproduction is held against.

"Consistency Models as a Rich and Efficient Policy Class for Reinforcement Learning", arXiv
2309.16984; the appendix as in Ding's thesis. Means and standard deviations over 5 seeds of the
checkpoint chosen by its imitation loss; in brackets those of the one that scored best over the very
episodes reported. D4RL's normalised score unless a table says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A published number.

    Attributes:
        mean: over the seeds.
        std: over the seeds; None where it was not published.
        online: mean under online selection; None without one.
        online_std: its standard deviation.
    """

    mean: float
    std: float | None = None
    online: float | None = None
    online_std: float | None = None


Table = Mapping[str, Mapping[str, Figure]]
CELL = re.compile(r"(-?[\d.]+)(?:±([\d.]+))?(?:\((-?[\d.]+)(?:±([\d.]+))?\))?")
ABSENT = "-"


def _read(columns: str, text: str) -> Table:
    """Return a table by row and column; cells that were not published are left out."""
    rows = (line.split() for line in text.strip().splitlines())
    names = columns.split()
    return {
        name: {
            column: _figure(cell)
            for column, cell in zip(names, cells, strict=True)
            if cell != ABSENT
        }
        for name, *cells in rows
    }


def _figure(cell: str) -> Figure:
    found = CELL.fullmatch(cell)
    assert found is not None, cell
    return Figure(*(None if part is None else float(part) for part in found.groups()))  # type: ignore[arg-type]


TABLE_1 = _read(
    "bc consistency_bc diffusion_bc td3_bc",
    """
    halfcheetah-medium         42.6   31.0±0.4(46.2±0.4)    45.4±1.8(46.3±0.2)    48.3
    hopper-medium              52.9   71.7±8.0(78.3±2.6)    65.3±5.8(71.1±5.5)    59.3
    walker2d-medium            75.3   83.1±0.3(84.1±0.3)    81.2±1.7(84.3±0.5)    83.7
    halfcheetah-medium-replay  36.6   34.4±5.3(45.4±0.7)    41.7±0.4(44.1±0.3)    44.6
    hopper-medium-replay       18.1   99.7±0.5(100.4±0.6)   67.9±28.1(99.1±2.3)   60.9
    walker2d-medium-replay     26.0   73.3±5.7(80.8±2.4)    77.5±4.7(80.8±4.5)    81.8
    halfcheetah-medium-expert  55.2   32.7±1.2(39.6±3.4)    90.8±1.1(93.5±0.4)    90.7
    hopper-medium-expert       52.5   90.6±9.3(96.8±4.6)    107.6±4.3(111.7±0.3)  98.0
    walker2d-medium-expert     107.5  110.4±0.7(111.6±0.7)  108.9±0.6(110.5±0.5)  110.1
    antmaze-umaze              54.6   75.8±4.0(87.0±4.5)    71.8±8.2(76.8±3.9)    78.6
    antmaze-umaze-diverse      45.6   77.6±6.3(82.4±3.4)    61.2±9.4(78.8±7.0)    71.4
    antmaze-medium-play        0.0    56.8±30.1(71.6±14.5)  43.4±37.8(56.8±34.5)  10.6
    antmaze-medium-diverse     0.0    31.6±22.4(66.0±6.5)   29.8±36.3(69.4±12.3)  3.0
    antmaze-large-play         0.0    10.2±4.6(15.0±3.8)    14.6±11.2(22.4±5.8)   0.2
    antmaze-large-diverse      0.0    12.8±8.2(19.8±4.0)    26.6±10.7(33.0±8.2)   0.0
    pen-human                  25.8   52.4±13.7(63.7±7.4)   61.1±5.9(66.7±4.9)    -
    pen-cloned                 38.3   33.4±6.0(51.9±6.6)    57.6±9.5(62.7±6.1)    -
    kitchen-complete           33.8   45.2±5.0(50.9±3.6)    76.5±8.9(87.3±6.8)    -
    kitchen-partial            33.8   22.6±3.8(23.8±2.8)    50.3±3.0(52.9±1.6)    -
    kitchen-mixed              47.5   23.5±1.8(24.3±1.3)    56.5±6.6(64.7±4.6)    -
    """,
)
"""Behaviour cloning: scores. BC and TD3+BC are quoted there from Wang et al. 2023."""

TABLE_2 = _read(
    "iql diffusion_ql consistency_ac",
    """
    halfcheetah-medium         47.4   51.1±0.5(51.5±0.3)    69.1±0.7(71.9±0.8)
    hopper-medium              66.3   90.5±4.6(96.6±3.4)    80.7±10.5(99.7±2.3)
    walker2d-medium            78.3   87.0±0.9(87.3±0.5)    83.1±0.3(84.1±0.3)
    halfcheetah-medium-replay  44.2   47.8±0.3(48.3±0.2)    58.7±3.9(62.7±0.6)
    hopper-medium-replay       94.7   101.3±0.6(102.0±0.4)  99.7±0.5(100.4±0.6)
    walker2d-medium-replay     73.9   95.5±1.5(98.0±0.5)    79.5±3.6(83.0±1.5)
    halfcheetah-medium-expert  86.7   96.8±0.3(97.2±0.4)    84.3±4.1(89.2±3.3)
    hopper-medium-expert       91.5   111.1±1.3(112.3±0.8)  100.4±3.5(106.0±1.3)
    walker2d-medium-expert     109.6  110.1±0.3(111.2±0.9)  110.4±0.7(111.6±0.7)
    antmaze-umaze              87.5   93.4±3.4(96.0±3.3)    75.8±1.6(85.6±3.9)
    antmaze-umaze-diverse      62.2   66.2±8.6(84.0±10.1)   77.6±6.3(82.4±3.4)
    antmaze-medium-play        71.2   76.6±10.8(79.8±8.7)   56.8±30.1(71.6±14.5)
    pen-human                  71.5   72.8±9.6(75.7±9.0)    63.4±7.7(67.9±5.3)
    pen-cloned                 37.3   57.3±11.9(60.8±11.8)  50.1±2.2(53.7±3.4)
    kitchen-complete           62.5   84.0±7.4(84.5±6.1)    51.9±6.0(67.6±2.7)
    kitchen-partial            46.3   60.5±6.9(63.7±5.2)    38.2±1.8(39.8±1.6)
    kitchen-mixed              51.0   62.6±5.1(66.6±3.3)    45.8±1.5(46.7±0.9)
    """,
)
"""Offline RL: scores. A cell of Consistency-AC is the best of the four variants of table A2."""

TABLE_3 = _read(
    "ql_train_ms ql_action_ms diffusion_ql ac_train_ms ac_action_ms consistency_ac",
    """
    50 206.44±16.70 30.65±2.10 -                     150.84±31.02 26.50±1.92 -
    20 108.65±2.85  13.04±0.90 109.2±1.1(111.1±1.9)  76.22±9.92   11.12±0.77 101.3±6.3(107.3±0.2)
    10 76.54±10.74  6.87±0.55  108.6±0.6(112.5±0.2)  54.04±4.43   5.95±0.44  98.4±4.3(107.1±4.0)
    5  57.06±19.16  3.76±0.29  108.2±5.6(112.3±0.2)  40.79±2.79   3.39±0.29  101.4±4.7(110.1±1.6)
    2  31.59±10.32  1.96±0.10  53.6±16.6(103.5±10.0) 31.94±1.55   1.84±0.21  102.4±3.0(106.2±1.6)
    1  30.23±8.75   1.37±0.09  2.8±1.5(13.1±12.5)    28.51±1.78   1.23±0.11  6.2±5.4(19.1±9.3)
    """,
)
"""hopper-medium-expert by network evaluations: seconds for 1000 updates, milliseconds for an
action of 50 candidates, scores."""

TABLE_A1 = _read(
    "consistency_bc diffusion_bc",
    """
    halfcheetah-medium         43.07±0.61  67.93±2.00
    antmaze-umaze              47.88±2.59  97.13±4.21
    hopper-medium              38.00±0.49  61.00±1.58
    antmaze-umaze-diverse      47.20±2.23  104.83±4.50
    walker2d-medium            43.58±0.90  68.17±1.51
    antmaze-medium-play        57.92±4.46  109.66±3.82
    halfcheetah-medium-replay  42.75±0.83  67.07±2.07
    antmaze-medium-diverse     51.80±2.59  112.25±2.41
    hopper-medium-replay       38.03±0.47  64.89±3.29
    antmaze-large-play         56.52±3.17  113.15±1.01
    walker2d-medium-replay     42.70±0.54  66.11±1.69
    antmaze-large-diverse      53.89±2.74  118.62±3.42
    halfcheetah-medium-expert  43.60±0.86  67.73±1.78
    hopper-medium-expert       38.56±0.56  63.04±4.25
    pen-human                  46.94±2.92  92.20±3.17
    walker2d-medium-expert     43.88±0.72  69.10±2.83
    pen-cloned                 50.33±2.23  94.64±6.16
    kitchen-complete           66.71±4.64  96.77±2.74
    kitchen-partial            61.85±2.74  94.25±2.27
    kitchen-mixed              66.60±2.59  93.02±3.49
    """,
)
"""Behaviour cloning: seconds for 1000 updates, which is milliseconds for one."""

TABLE_A2 = _read(
    "unscaled scaled ln_resnet",
    """
    halfcheetah-medium        69.1±0.7(71.9±0.8)   50.1±0.4(50.4±0.2)   50.6±0.3(50.9±0.2)
    hopper-medium             80.7±10.5(99.7±2.3)  78.0±3.9(86.4±4.0)   74.1±6.7(83.7±8.5)
    walker2d-medium           5.5±1.7(21.2±1.6)    63.0±5.2(75.0±1.8)   66.2±5.2(75.4±1.9)
    halfcheetah-medium-replay 58.7±3.9(62.7±0.6)   47.3±0.2(47.8±0.3)   47.8±0.3(48.4±0.1)
    hopper-medium-replay      80.2±9.0(103.4±1.2)  94.5±6.4(100.9±0.2)  98.7±2.9(100.6±0.3)
    walker2d-medium-replay    72.3±15.4(105.1±1.6) 76.8±5.5(86.1±1.2)   79.5±3.6(83.0±1.5)
    halfcheetah-medium-expert 22.6±10.4(55.2±11.6) 84.3±4.1(89.2±3.3)   61.7±13.6(68.4±6.7)
    hopper-medium-expert      10.1±16.2(10.8±15.6) 100.4±3.5(106.0±1.3) 43.1±5.7(54.5±11.2)
    walker2d-medium-expert    2.7±4.3(14.9±6.9)    91.1±3.4(97.7±3.2)   84.1±5.1(97.5±1.6)
    antmaze-umaze             75.4±5.8(82.6±3.8)   68.8±2.3(82.2±4.7)   75.8±1.6(85.6±3.9)
    antmaze-umaze-diverse     75.2±6.6(80.2±2.8)   68.6±4.4(78.4±1.1)   72.4±3.5(81.2±1.9)
    antmaze-medium-play       45.2±26.9(73.2±8.4)  52.2±29.8(70.4±7.1)  10.0±22.4(59.4±12.8)
    pen-human                 8.4±24.0(22.1±20.5)  60.6±10.2(66.6±7.5)  63.4±7.7(67.9±5.3)
    pen-cloned                48.2±10.8(58.2±12.6) 35.8±3.9(40.5±2.6)   50.1±2.2(53.7±3.4)
    kitchen-complete          10.0±20.1(25.5±24.6) 51.9±6.0(67.6±2.7)   36.9±3.2(38.0±2.5)
    kitchen-partial           7.7±16.9(17.0±14.5)  38.2±1.8(39.8±1.6)   25.8±5.5(28.6±2.7)
    kitchen-mixed             9.7±21.3(15.8±20.2)  45.8±1.5(46.7±0.9)   26.0±3.0(28.8±2.1)
    """,
)
"""Variants of Consistency-AC: loss not scaled; scaled, MLP; scaled, LN-ResNet. Its column of pure
imitation is Consistency-BC of table 1."""

TABLE_4 = _read(
    "sac awac aca o2o_diffusion_ql o2o_consistency_ac online_diffusion_ql online_consistency_ac",
    """
    halfcheetah-medium         75.2 50.5 66.6   99.6±2.3   98.7±1.8   47.3±2.9   55.1±7.0
    hopper-medium              73.4 97.5 96.5   77.2±25.6  60.5±8.6   82.8±30.6  86.3±28.4
    walker2d-medium            79.6 1.9  74.7   118.3±5.8  108.9±3.0  77.0±25.7  69.4±38.9
    halfcheetah-medium-replay  68.9 46.8 59.0   96.3±3.9   80.7±10.5  43.5±5.7   56.5±8.0
    hopper-medium-replay       74.0 96.0 85.5   68.4±20.3  74.6±25.1  94.0±12.2  75.8±26.8
    walker2d-medium-replay     85.4 80.8 85.2   95.7±18.8  102.0±11.6 87.8±29.0  69.0±42.3
    halfcheetah-medium-expert  82.2 68.8 93.7   103.9±2.2  99.6±4.1   39.7±3.6   56.7±5.8
    hopper-medium-expert       65.4 73.1 98.0   71.7±31.1  65.4±5.7   62.5±22.2  78.6±14.6
    walker2d-medium-expert     87.2 45.2 110.5  117.0±6.3  101.8±13.3 74.6±39.0  86.2±27.8
    """,
)
"""Online: scores of the last evaluation after a million steps of three environments each. ``o2o``
begins from the checkpoint chosen by its imitation loss, ``online`` from scratch. SAC, AWAC and ACA
are quoted there, after 100 000 steps."""

MEASURED = "hopper-medium-expert"
"""The task of table 3."""
SHORT = {"diffusion_ql": "ql", "consistency_ac": "ac"}
DEFAULT_CALLS = {"diffusion_ql": 5, "consistency_ac": 2}
"""Network evaluations of table 3's rows that the other tables were made with."""
OF_VARIANT = {"unscaled": "unscaled", "scaled": "scaled", "ln_resnet": "ln_resnet"}
"""Variant of a plan -> column of table A2."""
CALLS = re.compile(r"steps_(\d+)")
"""Variants of a plan that are rows of table 3."""


@dataclass(frozen=True)
class Quoted:
    """A published number and where it stands.

    Attributes:
        figure: the number.
        table: short name of the table, such as ``2`` or ``A1``.
    """

    figure: Figure
    table: str


def scores(task: str, algorithm: str, variant: str = "") -> list[Quoted]:
    """Return the published scores of a cell; none where there are none.

    Args:
        task: a key of ``policies.presets.TASKS``.
        algorithm: of ``onebeat train``.
        variant: of a plan; ``steps_N`` and those in ``OF_VARIANT`` are published ones.
    """
    if variant:
        return _variant_scores(task, algorithm, variant)
    found = [("1", TABLE_1, algorithm), ("2", TABLE_2, algorithm)]
    if algorithm == "consistency_ac":
        found.append(("A2", TABLE_A2, "scaled"))
    return [
        Quoted(table[task][column], name)
        for name, table, column in found
        if column in table.get(task, {})
    ]


def _variant_scores(task: str, algorithm: str, variant: str) -> list[Quoted]:
    calls = CALLS.fullmatch(variant)
    if calls is not None:
        row = TABLE_3.get(calls[1], {}) if task == MEASURED else {}
        return [Quoted(row[algorithm], "3")] if algorithm in row else []
    column = OF_VARIANT.get(variant, "")
    row = TABLE_A2.get(task, {}) if algorithm == "consistency_ac" else {}
    return [Quoted(row[column], "A2")] if column in row else []


def train_ms(task: str, algorithm: str, variant: str = "") -> Quoted | None:
    """Return the published milliseconds of one update of a cell; None where there are none."""
    if not variant and algorithm in TABLE_A1.get(task, {}):
        return Quoted(TABLE_A1[task][algorithm], "A1")
    return _of_table_3(task, algorithm, variant, "train_ms")


def action_ms(task: str, algorithm: str, variant: str = "") -> Quoted | None:
    """Return the published milliseconds of an action, the best of 50 candidates, of a cell."""
    return _of_table_3(task, algorithm, variant, "action_ms")


def _of_table_3(task: str, algorithm: str, variant: str, what: str) -> Quoted | None:
    if task != MEASURED or algorithm not in SHORT:
        return None
    calls = CALLS.fullmatch(variant)
    if variant and calls is None:
        return None
    row = TABLE_3.get(calls[1] if calls else str(DEFAULT_CALLS[algorithm]), {})
    column = f"{SHORT[algorithm]}_{what}"
    return Quoted(row[column], "3") if column in row else None
