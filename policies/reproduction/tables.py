"""Lines of a reproduction as Markdown tables, beside what was published."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from policies.presets import known as paper_task
from policies.reproduction import published
from policies.reproduction.lines import Line, Spread, by_machine, spread
from policies.reproduction.plan import paper_updates
from policies.reproduction.published import Figure, Quoted
from policies.reproduction.settings import PAPER
from policies.reproduction.sources import RECIPE

ABSENT = "–"
OTHER_DATA = "†"
HEAD = (
    "dataset", "algorithm", "variant", "preset", "updates, of the paper's", "seeds, episodes",
    "score", "published", "ms/update", "published", "calls", "µs/action", "best of 50", "published",
)  # fmt: skip
VARIANT = HEAD.index("variant")


def results_table(lines: Sequence[Line], machines: Sequence[str], *, variants: bool = False) -> str:
    """Return what came of experiments, a line each.

    Args:
        lines: the experiments.
        machines: every machine there is; figures name theirs where there are several.
        variants: with a column for the variant.
    """
    cells = [_cells(line, machines) for line in lines]
    columns = [n for n in range(len(HEAD)) if variants or n != VARIANT]
    return markdown(
        [HEAD[n] for n in columns], [[row[n] for n in columns] for row in cells], left=4
    )


def _cells(line: Line, machines: Sequence[str]) -> list[str]:
    task = paper_task(line.dataset) or ""
    return [
        f"`{line.dataset}`",
        f"`{line.algorithm}`",
        f"`{line.variant}`" if line.variant else ABSENT,
        line.preset,
        updates_text(line),
        _seeds_text(line),
        score_text(line),
        _quoted(line),
        _training_text(line, machines),
        _figure_text(published.train_ms(task, line.algorithm, line.variant)),
        ", ".join(dict.fromkeys(str(row.calls) for row in line.rows)) or ABSENT,
        _times([(row.scored_on, row.action_us) for row in line.rows], machines),
        _times([(row.scored_on, row.action_us_50) for row in line.rows], machines),
        _figure_text(published.action_ms(task, line.algorithm, line.variant), 1000.0),
    ]


def _seeds_text(line: Line) -> str:
    done = f"{len(line.rows)} of {line.planned}" if line.planned else str(len(line.rows))
    episodes = sorted({row.episodes for row in line.rows})
    return f"{done}, {' or '.join(map(str, episodes))} each" if episodes else done


def updates_text(line: Line) -> str:
    """Return the updates of a line beside the paper's: ``**50,000** of 2,000,000 (2.5 %)``."""
    paper = paper_updates(line.dataset, line.algorithm)
    done = f"**{line.updates:,}**" if line.rows else f"0 (planned: {line.updates:,})"
    if paper is None:
        return done
    return f"{done} of {paper:,}" + (f" ({100 * line.updates / paper:.3g} %)" if line.rows else "")


def score_text(line: Line) -> str:
    """Return mean, spread and, of enough seeds, interquartile mean; else why there is none."""
    if not line.rows:
        return f"n/a: {line.missing or 'not run'}"
    found = spread(row.score for row in line.rows)
    if found is None:
        returns = spread(row.return_mean for row in line.rows)
        assert returns is not None
        return f"return {_spread_text(returns)}"
    return _spread_text(found)


def _spread_text(found: Spread) -> str:
    text = f"{found.mean:,.1f}" + (f" ± {found.std:,.1f}" if found.std is not None else "")
    return text + (f", IQM {found.iqm:,.1f}" if found.iqm is not None else "")


def _quoted(line: Line) -> str:
    """Return the published scores of a line; marked where they are of other data than this."""
    found = published.scores(paper_task(line.dataset) or "", line.algorithm, line.variant)
    mark = OTHER_DATA if line.dataset.endswith(RECIPE) else ""
    where: dict[Figure, list[str]] = {}
    for one in found:
        where.setdefault(one.figure, []).append(_table_name(one))
    texts = [f"{figure_text(one)}{mark} ({', '.join(names)})" for one, names in where.items()]
    return "; ".join(texts) or ABSENT


def _figure_text(quoted: Quoted | None, scale: float = 1.0, mark: str = "") -> str:
    if quoted is None:
        return ABSENT
    return f"{figure_text(quoted.figure, scale)}{mark} ({_table_name(quoted)})"


def _table_name(quoted: Quoted) -> str:
    return quoted.table if quoted.table.startswith("A") else f"T{quoted.table}"


def figure_text(figure: Figure, scale: float = 1.0) -> str:
    """Return a published number: mean ± standard deviation."""
    digits = 0 if scale > 1 else 1
    text = f"{figure.mean * scale:,.{digits}f}"
    return text if figure.std is None else f"{text} ± {figure.std * scale:,.{digits}f}"


def _training_text(line: Line, machines: Sequence[str]) -> str:
    """Return the milliseconds of an update; of several seeds at once, those of all together."""
    parts = []
    for together in sorted({row.side_by_side for row in line.rows}):
        rows = [row for row in line.rows if row.side_by_side == together]
        text = _times([(row.trained_on, row.ms_per_update) for row in rows], machines)
        parts.append(text if together == 1 else f"{text} for {together} seeds")
    return "; ".join(parts) or ABSENT


def _times(pairs: Sequence[tuple[str, float | None]], machines: Sequence[str]) -> str:
    found = by_machine(pairs)
    texts = [
        f"{value:,.{0 if value >= 100 else 1}f}" + _mark(machine, machines)
        for machine, value in found.items()
    ]
    return "; ".join(texts) or ABSENT


def _mark(machine: str, machines: Sequence[str]) -> str:
    return f" ({letter(machines.index(machine))})" if len(machines) > 1 else ""


def letter(number: int) -> str:
    """Return the name of a machine in the tables, by its number from 0."""
    more, last = divmod(number, len(ascii_uppercase))
    return (letter(more - 1) if more else "") + ascii_uppercase[last]


def absent_table(lines: Sequence[Line]) -> str:
    """Return the datasets of which nothing was run: why, and what was published."""
    names = dict.fromkeys(line.dataset for line in lines)
    rows = []
    for name in names:
        own = [line for line in lines if line.dataset == name and not line.variant]
        reasons = dict.fromkeys(line.missing or "not run" for line in own)
        figures = [_best_known(name, algorithm) for algorithm in PAPER]
        rows.append([f"`{name}`", "n/a: " + "; ".join(reasons), *figures])
    return markdown(["dataset", "score", *(f"`{name}`, published" for name in PAPER)], rows, left=2)


def _best_known(dataset: str, algorithm: str) -> str:
    found = published.scores(paper_task(dataset) or "", algorithm)
    mark = OTHER_DATA if dataset.endswith(RECIPE) else ""
    return _figure_text(found[0], mark=mark) if found else ABSENT


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table in Markdown; columns after the first ``left`` are set to the right."""
    rule = ["---" if n < left else "---:" for n in range(len(head))]
    lines = [head, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
