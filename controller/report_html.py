"""The report of a run as one self-contained HTML file: no script, no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path

import msgspec

from controller.page import Picture, document, drawn, figure, pairs, section, shown, table
from controller.plots import (
    Curve,
    latency_histogram_png,
    rungs_png,
    stages_png,
    tail_png,
    timeline_png,
)
from controller.run_log import RunLog
from controller.stats import Latency, RunReport, corrected

__all__ = ["Extras", "Picture", "listed", "number", "percentiles", "write_html"]


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
        *(figure(picture) for picture in extras.pictures),
        section("Stages", _stages(report)),
        *(figure(picture) for picture in _plots(log)),
        section("Commands by rung", _rungs(report)),
        section("Physics that was late", _late(report)) if report.late else "",
        section("Policy versions", _versions(report, log)),
        section("Fine-tuning", pairs(extras.finetune)) if extras.finetune else "",
        section("Episodes", _episodes(report)),
        section("Run", pairs(_facts(report, log))),
    ]
    page = document(f"{report.task} · onebeat", body)
    Path(path).write_text(page, encoding="utf-8")


def _plots(log: RunLog) -> list[Picture]:
    pictures: list[tuple[str, str, Callable[[RunLog], bytes]]] = [
        (
            "Latency",
            "How many ticks took how long from their deadline to the command sent.",
            latency_histogram_png,
        ),
        (
            "The tail",
            "What share of the ticks took longer; corrected: with the periods that were skipped, "
            "each as late as the command that followed it.",
            _tail,
        ),
        ("Ticks over time", "Each dot is a tick; lines mark new policy versions.", timeline_png),
        ("Where the time goes", "Median of each stage over the run, stacked.", stages_png),
        ("Rungs and versions", "Where each command came from, and who acted.", rungs_png),
    ]
    return [drawn(title, caption, partial(draw, log)) for title, caption, draw in pictures]


def _tail(log: RunLog) -> bytes:
    curves = {
        "wake-up": Curve(log.stages["wake"], "#bab0ac"),
        "deadline to command": Curve(log.stages["total"], "#4c78a8"),
        "corrected": Curve(corrected(log), "#e45756"),
    }
    return tail_png(curves, log.header.period_ns)


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
    rows.append(["without the wake-up", *percentiles(report.work)])
    rows.append(["with skipped periods", *percentiles(report.corrected)])
    rows.append(["request to answer", *percentiles(report.answers)])
    return table(["µs", "p50", "p99", "p99.9", "max"], rows, emphasised="total")


def percentiles(figures: Latency | None) -> list[str]:
    """Return p50, p99, p99.9 and max as text."""
    if figures is None:
        return ["-"] * 4
    return [f"{n:,.0f}" for n in (figures.p50, figures.p99, figures.p99_9, figures.max)]


def listed(facts: Mapping[str, object]) -> str:
    """Return facts as one line of text."""
    return ", ".join(f"{name} {shown(value)}" for name, value in facts.items())


def number(value: float | None, form: str) -> str:
    """Return a number as text, a dash when there is none."""
    return "-" if value is None else format(value, form)


def _rungs(report: RunReport) -> str:
    counts: dict[str, int] = msgspec.to_builtins(report.rungs)
    rows = [[name, str(n), f"{n / max(1, report.ticks):.2%}"] for name, n in counts.items()]
    note = f"<p>{report.holds_between_episodes} of the holds lie between episodes.</p>"
    reasons = ", ".join(f"{name} {n}" for name, n in report.reasons.items()) or "none"
    return f"{table(['rung', 'ticks', 'share'], rows)}{note}<p>Reasons: {escape(reasons)}.</p>"


def _late(report: RunReport) -> str:
    rows = [
        [*map(str, (late.tick, late.episode, late.step, late.steps)), f"{late.late_us / 1e3:.2f}"]
        for late in report.late
    ]
    return table(["tick", "episode", "step", "steps", "late by, ms"], rows)


def _versions(report: RunReport, log: RunLog) -> str:
    start_ns = int(log.deadline_ns[0]) if len(log) else 0
    rows = []
    for version in report.versions:
        first = log.versions.index(version)
        since_s = (int(log.deadline_ns[first]) - start_ns) / 1e9
        rows.append(
            [version, str(log.tick[first]), f"{since_s:.2f}", str(log.versions.count(version))]
        )
    return table(["version", "first tick", "from s", "ticks"], rows)


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
