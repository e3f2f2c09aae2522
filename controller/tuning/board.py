"""A live fine-tuning on the terminal, while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from controller.display import aside
from controller.tuning.live import Look
from controller.tuning.settings import LivePlan

SMOOTHING = 0.2
"""Weight of the newest rate in the mean that is shown."""


class Rates:
    """Steps and updates per second, smoothed, from counters at times."""

    def __init__(self) -> None:
        self._last: tuple[float, int, int] | None = None
        self.steps_hz = self.updates_hz = 0.0

    def take(self, now_s: float, steps: int, updates: int) -> None:
        """Take note of the counters at a time; one that did not move in time says nothing."""
        if self._last is None:
            self._last = now_s, steps, updates
            return
        then_s, old_steps, old_updates = self._last
        if now_s - then_s < 1.0:
            return
        share = SMOOTHING if self.steps_hz or self.updates_hz else 1.0
        elapsed_s = now_s - then_s
        self.steps_hz += share * ((steps - old_steps) / elapsed_s - self.steps_hz)
        self.updates_hz += share * ((updates - old_updates) / elapsed_s - self.updates_hz)
        self._last = now_s, steps, updates


def words(plan: LivePlan, look: Look, rates: Rates, target: float) -> list[str]:
    """Return the counters of a live fine-tuning in a few short lines.

    Args:
        plan: of it.
        look: how it stands.
        rates: of its counters.
        target: rows to be drawn for each that comes in.
    """
    seen, stats = look.seen, look.seen.stats
    if not stats:
        return ["starting"]
    if not look.elapsed_s and not plan.realtime:
        return ["the learner prepares; the actors begin when it can draw rows"]
    mean = seen.return_mean
    lines = [
        f"{seen.env_steps:,} steps ({rates.steps_hz:,.0f}/s) · {seen.updates:,} updates "
        f"({rates.updates_hz:,.0f}/s) · {stats.get('samples_per_insert', 0.0):,.4g} samples per "
        f"insert (target {target:g})",
        f"version {seen.version or 'none'} · staleness {stats.get('staleness_p50', '-')} · "
        f"rollbacks {seen.count('rollbacks')} · episodes {seen.episodes} · "
        f"return {'-' if mean is None else f'{mean:,.4g}'} · actors {look.actors}",
    ]
    if plan.realtime:
        share = look.missed / look.ticks if look.ticks else 0.0
        lines.append(f"tick {look.ticks:,} · missed {look.missed} ({share:.2%})")
    queue = stats.get("queue")
    if isinstance(queue, dict) and "waiting_p50" in queue:
        depths = f"{queue['waiting_p50']} (p95 {queue.get('waiting_p95', '-')})"
        lines.append(f"messages waiting at the replay service: {depths}")
    return lines


@contextmanager
def tuning_bar(plan: LivePlan, target: float) -> Iterator[Callable[[Look], None]]:
    """Show a live fine-tuning on standard error; the value is called with each look."""
    columns = (TextColumn("fine-tuning"), BarColumn(bar_width=24), TaskProgressColumn())
    bar = Progress(*columns, console=aside())
    total = 60.0 * plan.minutes if plan.minutes else plan.steps
    task = bar.add_task("fine-tuning", total=total)
    rates = Rates()

    with Live(console=bar.console, refresh_per_second=4) as live:

        def show(look: Look) -> None:
            rates.take(look.elapsed_s, look.seen.env_steps, look.seen.updates)
            done = look.elapsed_s if plan.minutes else look.seen.env_steps
            bar.update(task, completed=done)
            told = "\n".join(words(plan, look, rates, target))
            live.update(Group(bar, Text(told, style="dim", overflow="fold")))

        yield show
