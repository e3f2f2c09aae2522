"""The report of a run as one self-contained HTML file: no script, no network."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import msgspec

from controller.plots import (
    MissingExtra,
    latency_histogram_png,
    rungs_png,
    stages_png,
    timeline_png,
)
from controller.run_log import RunLog
from controller.stats import Latency, RunReport

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2026; --dim: #667080; --page: #f6f7f8;
  --card: #ffffff; --line: #dfe3e8; --bad: #c0392b; --good: #2e7d4f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --dim: #98a2b0; --page: #15181c;
  --card: #1e2227; --line: #333a42; --bad: #ff7b6b; --good: #6fcf97; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 60rem; color: var(--ink);
  background: var(--page); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p, figcaption { color: var(--dim); margin: .3rem 0; }
.cards { display: grid; gap: .6rem; margin: 1.2rem 0;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .6rem .8rem; }
.card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.card span { color: var(--dim); font-size: .8rem; }
.bad { color: var(--bad); } .good { color: var(--good); }
table { border-collapse: collapse; width: 100%; background: var(--card);
  border: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; } th { color: var(--dim); font-weight: 500; }
tr.total td { font-weight: 600; }
figure { margin: 0 0 1.2rem; } figure img { max-width: 100%; height: auto; display: block;
  background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .4rem; }
.missing { border: 1px dashed var(--line); border-radius: 8px; padding: .8rem; }
code { font-size: .9em; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture for the report, or the reason why there is none.

    Attributes:
        title: heading.
        caption: what it shows.
        data: PNG or GIF; None where it is missing.
        missing: why it is missing.
    """

    title: str
    caption: str = ""
    data: bytes | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Extras:
    """What a report shows besides the log.

    Attributes:
        pictures: further pictures, shown first.
        finetune: figures of a fine-tuning during the run, by name.
    """

    pictures: Sequence[Picture] = ()
    finetune: Mapping[str, object] | None = None


def write_html(
    path: Path | str, report: RunReport, log: RunLog, extras: Extras | None = None
) -> None:
    """Write the report; a picture that cannot be drawn is replaced by the reason.

    Args:
        path: file to write.
        report: the figures.
        log: the run they are of.
        extras: pictures and figures from elsewhere.
    """
    extras = extras or Extras()
    body = [
        _heading(report, log),
        _cards(report),
        *(_figure(picture) for picture in extras.pictures),
        _section("Stages", _stages(report)),
        *(_figure(picture) for picture in _plots(log)),
        _section("Commands by rung", _rungs(report)),
        _section("Physics that was late", _late(report)) if report.late else "",
        _section("Policy versions", _versions(report, log)),
        _section("Fine-tuning", _pairs(extras.finetune)) if extras.finetune else "",
        _section("Episodes", _episodes(report)),
        _section("Run", _pairs(_facts(report, log))),
    ]
    title = escape(f"{report.task} · onebeat")
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    )
    Path(path).write_text(page + "\n".join(body) + "\n</body>\n</html>\n", encoding="utf-8")


def _plots(log: RunLog) -> list[Picture]:
    drawn: list[tuple[str, str, Callable[[RunLog], bytes]]] = [
        (
            "Latency",
            "How many ticks took how long from their deadline to the command sent.",
            latency_histogram_png,
        ),
        ("Ticks over time", "Each dot is a tick; lines mark new policy versions.", timeline_png),
        ("Where the time goes", "Median of each stage over the run, stacked.", stages_png),
        ("Rungs and versions", "Where each command came from, and who acted.", rungs_png),
    ]
    return [_drawn(title, caption, draw, log) for title, caption, draw in drawn]


def _drawn(title: str, caption: str, draw: Callable[[RunLog], bytes], log: RunLog) -> Picture:
    try:
        return Picture(title, caption, draw(log))
    except MissingExtra as error:
        return Picture(title, caption, missing=str(error))


def _heading(report: RunReport, log: RunLog) -> str:
    header = log.header
    parts = [
        report.mode,
        f"{report.seconds:.1f} s",
        f"{header.rate_hz:g} Hz",
        f"seed {header.seed}",
    ]
    parts += [part for part in (header.engine, header.device, header.created) if part]
    return f"<h1>{escape(report.task)}</h1>\n<p>{escape(' · '.join(parts))}</p>"


def _cards(report: RunReport) -> str:
    total = report.stages["total"]
    missed = "bad" if report.missed else "good"
    cards = [
        ("return so far" if report.partial else "return", number(report.return_, ".2f"), ""),
        ("normalised score", number(report.score, ".1f"), ""),
        ("success", number(report.success, ".0%"), ""),
        ("episodes", str(report.episodes), ""),
        ("commands per second", f"{report.rate_hz:.2f}", ""),
        ("ticks", str(report.ticks), ""),
        ("deadlines missed", str(report.missed), missed),
        ("p99 of a tick, µs", number(total.p99 if total else None, ",.0f"), ""),
        ("worst tick, µs", number(total.max if total else None, ",.0f"), ""),
        ("real-time factor", number(report.real_time_factor, ".4g"), ""),
        ("physics steps late", str(report.late_steps), "bad" if report.late_steps else "good"),
    ]
    tiles = "".join(
        f'<div class="card"><b class="{kind}">{escape(value)}</b>'
        f"<span>{escape(name)}</span></div>\n"
        for name, value, kind in cards
    )
    return f'<div class="cards">\n{tiles}</div>'


def _stages(report: RunReport) -> str:
    rows = [[name, *percentiles(figures)] for name, figures in report.stages.items()]
    return _table(["µs", "p50", "p99", "p99.9", "max"], rows, emphasised="total")


def percentiles(figures: Latency | None) -> list[str]:
    """Return p50, p99, p99.9 and max as text."""
    if figures is None:
        return ["-"] * 4
    return [f"{n:,.0f}" for n in (figures.p50, figures.p99, figures.p99_9, figures.max)]


def listed(facts: Mapping[str, object]) -> str:
    """Return facts as one line of text."""
    return ", ".join(f"{name} {_text(value)}" for name, value in facts.items())


def number(value: float | None, form: str) -> str:
    """Return a number as text, a dash when there is none."""
    return "-" if value is None else format(value, form)


def _rungs(report: RunReport) -> str:
    counts: dict[str, int] = msgspec.to_builtins(report.rungs)
    rows = [[name, str(n), f"{n / max(1, report.ticks):.2%}"] for name, n in counts.items()]
    note = f"<p>{report.holds_between_episodes} of the holds lie between episodes.</p>"
    reasons = ", ".join(f"{name} {n}" for name, n in report.reasons.items()) or "none"
    return f"{_table(['rung', 'ticks', 'share'], rows)}{note}<p>Reasons: {escape(reasons)}.</p>"


def _late(report: RunReport) -> str:
    rows = [
        [*map(str, (late.tick, late.episode, late.step, late.steps)), f"{late.late_us / 1e3:.2f}"]
        for late in report.late
    ]
    return _table(["tick", "episode", "step", "steps", "late by, ms"], rows)


def _versions(report: RunReport, log: RunLog) -> str:
    start_ns = int(log.deadline_ns[0]) if len(log) else 0
    rows = []
    for version in report.versions:
        first = log.versions.index(version)
        since_s = (int(log.deadline_ns[first]) - start_ns) / 1e9
        rows.append(
            [version, str(log.tick[first]), f"{since_s:.2f}", str(log.versions.count(version))]
        )
    return _table(["version", "first tick", "from s", "ticks"], rows)


def _episodes(report: RunReport) -> str:
    if not report.episode_returns:
        return "<p>No episode was completed.</p>"
    returns = ", ".join(f"{value:.2f}" for value in report.episode_returns)
    return f"<p>Returns in order: {returns}</p>"


def _facts(report: RunReport, log: RunLog) -> dict[str, object]:
    facts: dict[str, object] = {"log": report.log, "log complete": not report.truncated}
    if log.damage:
        facts["log damage"] = log.damage
    facts |= {"skipped periods": report.skipped, "records dropped": report.dropped}
    if "substeps" in report.plant:
        facts["commands can act"] = f"{report.plant['substeps']} times per control step"
    if report.plant.get("faults"):
        facts["faults"] = listed(report.plant["faults"])
    return facts | {str(name): value for name, value in log.header.host.items()}


def _figure(picture: Picture) -> str:
    title = f"<h2>{escape(picture.title)}</h2>"
    if picture.data is None:
        return f'{title}\n<p class="missing">No picture: {escape(picture.missing)}</p>'
    media = "gif" if picture.data[:3] == b"GIF" else "png"
    source = f"data:image/{media};base64,{base64.b64encode(picture.data).decode()}"
    return (
        f'{title}\n<figure><img src="{source}" alt="{escape(picture.title)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}"


def _pairs(values: Mapping[str, object]) -> str:
    return _table(
        ["", ""], [[key.replace("_", " "), _text(value)] for key, value in values.items()]
    )


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], emphasised: str = "") -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = []
    for row in rows:
        kind = ' class="total"' if row[0] == emphasised else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f"<tr{kind}>{cells}</tr>\n")
    return f"<table>\n<tr>{top}</tr>\n{''.join(lines)}</table>\n"
