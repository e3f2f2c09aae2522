"""Improving a policy while it runs: the verb from its words to its result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from controller.arguments import Arguments
from controller.cli.live_layout import checked, lay_out, owned
from controller.command_line import INTERRUPTED

if TYPE_CHECKING:
    from controller.spec import Spec
    from controller.tuning.live import LiveTuning, Look
    from controller.tuning.outcome import Outcome
    from policies.bundle import Bundle
    from policies.finetuning.settings import FinetuneConfig
    from policies.finetuning.versions import AnyEvent

Stop = Callable[[], bool]

CURVE_POINTS = 8
"""Points of the learning curve that a terminal shows."""


def finetune_live(config: FinetuneConfig, parent: Bundle | None, arguments: Arguments) -> int:
    """Improve a policy while it runs, and say what came of it.

    Args:
        config: what to do.
        parent: what to start from; None for nothing.
        arguments: of the command line.

    Raises:
        ConfigError: settings that do not go together.
        RunFailed: a part cannot do its work.
    """
    from controller.runtime_directory import RuntimeDirectory
    from controller.signals import StopFlag

    spec = checked(config, parent)
    with StopFlag() as stop, owned(Path(config.out)), RuntimeDirectory() as sockets:
        live, last, ended = _run(config, spec, parent, sockets, stop)
        for note in live.notes:
            sys.stderr.write(f"onebeat finetune: {note}\n")
        outcome = _outcome(config, live, last, ended)
        outcome.write()
        if not stop():
            outcome = _scored(config, spec, outcome, stop)
            outcome.write()
    _report(outcome, arguments)
    if stop():
        return INTERRUPTED
    return 1 if live.failures else 0


def _run(
    config: FinetuneConfig, spec: Spec, parent: Bundle | None, sockets: Path, stop: Stop
) -> tuple[LiveTuning, Look, str]:
    """Run to the end; return the processes, how it stood then, and what ended it."""
    from controller.launch import RunFailed
    from controller.tuning.board import tuning_bar
    from controller.tuning.live import LiveTuning

    plan = lay_out(config, spec, parent, sockets)
    target = _own_rows(config) * config.learn.updates_per_step
    try:
        with LiveTuning(plan, sockets) as live:
            with tuning_bar(plan, target) as show:
                ended = live.wait(show, stop)
            return live, live.finish(), ended
    except RunFailed:
        # Nothing happened, so that the next attempt need not resume this one.
        if not config.resume:
            plan.settings.unlink(missing_ok=True)
        raise


def _events(config: FinetuneConfig) -> list[AnyEvent]:
    from policies.finetuning.versions import VERSIONS, read_events

    return read_events(Path(config.out) / VERSIONS)


def _publications(events: Sequence[AnyEvent], since_ns: int) -> list[tuple[str, int]]:
    """Return the versions that this run's servers were asked to take up, and when."""
    from policies.finetuning.versions import Published, RolledBack

    found = [
        (event.to if isinstance(event, RolledBack) else event.version, event.published_ns)
        for event in events
        if isinstance(event, (Published, RolledBack))
    ]
    return [(version, at_ns) for version, at_ns in found if at_ns >= since_ns]


def _outcome(config: FinetuneConfig, live: LiveTuning, last: Look, ended: str) -> Outcome:
    """Return what came of the run, without the closing scores."""
    import numpy as np

    from controller.tuning.outcome import Outcome, publish_to_action_ms, staleness
    from policies.bundle import resolve
    from policies.finetuning.trial import told
    from policies.finetuning.versions import Judged, standing_of

    events = _events(config)
    standing = standing_of(events)
    delays = publish_to_action_ms(live.plan, _publications(events, live.began_ns))
    refused = sum(isinstance(e, Judged) and e.outcome == "refused" for e in events)
    seen = last.seen
    in_force = resolve(live.plan.bundles).name
    versions = _versions(events) or [in_force]
    return Outcome(
        before=told(versions[0], None),
        after=told(in_force, None),
        updates=seen.updates,
        env_steps=seen.env_steps,
        episodes=seen.episodes,
        versions=versions,
        ticks=last.ticks if live.plan.realtime else seen.env_steps,
        missed=last.missed,
        publish_to_action_ms_p50=float(np.median(delays)) if delays else None,
        publish_to_action_ms_max=max(delays, default=None),
        rejected_versions=refused,
        rolled_back=standing.rollbacks,
        learner=_learner(config, live),
        staleness=staleness(seen),
        samples_per_insert={
            "measured": seen.stats.get("samples_per_insert"),
            "target": _own_rows(config) * config.learn.updates_per_step,
        },
        deaths=live.deaths,
        ended=ended,
        seconds=last.elapsed_s,
        out=config.out,
    )


def _own_rows(config: FinetuneConfig) -> int:
    """Return the rows of a batch that come from the replay service."""
    from policies.finetuning.batches import own_rows

    learn = config.learn
    return own_rows(learn.batch, learn.offline_share, config.offline is not None)


def _versions(events: Sequence[AnyEvent]) -> list[str]:
    """Return the versions that were in force, in order."""
    from policies.finetuning.versions import Began, Published, RolledBack

    found: list[str] = []
    for event in events:
        version = ""
        if isinstance(event, RolledBack):
            version = event.to
        elif isinstance(event, (Began, Published)):
            version = event.version
        if version and found[-1:] != [version]:
            found.append(version)
    return found


def _learner(config: FinetuneConfig, live: LiveTuning) -> dict[str, Any]:
    """Return how the learner ended, and its newest figures."""
    from policies.metrics import METRICS, read_lines

    lines = read_lines(Path(config.out) / "learner" / METRICS)
    failure = live.failures.get("learner")
    figures = {name: value for name, value in lines[-1].items() if name != "step"} if lines else {}
    return {"failure": failure, "updates": lines[-1]["step"] if lines else 0, "figures": figures}


def _scored(config: FinetuneConfig, spec: Spec, outcome: Outcome, stop: Stop) -> Outcome:
    """Return the outcome with the scores of the first version and of the one in force.

    Both play the same episodes, in lockstep and without exploring.
    """
    from controller.cli.gate import Stage, Stopped, plays
    from controller.display import progress_bar
    from policies.finetuning.trial import told

    if not config.evaluate_episodes or not plays(spec):
        return outcome
    bundles = [Path(config.out) / "bundles" / end["version"] for end in _ends(outcome)]
    stage = Stage(config, spec.task, stop)
    scores = []
    with progress_bar("scoring") as advance:
        try:
            for index, path in enumerate(dict.fromkeys(bundles)):
                advance(index, len(set(bundles)))
                played = stage.score(path, config.evaluate_episodes, config.seed)
                scores.append(told(path.name, played))
        except Stopped:
            return outcome
        finally:
            stage.close()
    return msgspec.structs.replace(outcome, before=scores[0], after=scores[-1])


def _ends(outcome: Outcome) -> tuple[dict[str, Any], dict[str, Any]]:
    return outcome.before, outcome.after


def _report(outcome: Outcome, arguments: Arguments) -> None:
    from controller.cli.finetuning import brief
    from controller.display import put_json, say

    if arguments.json:
        put_json(outcome)
        return
    hidden = ("before", "after", "learner", "versions", "deaths")
    facts = {n: v for n, v in msgspec.to_builtins(outcome).items() if n not in hidden}
    died = {name: count for name, count in outcome.deaths.items() if count}
    scores = {"before": brief(outcome.before), "after": brief(outcome.after)}
    curve = {"learning_curve": _curve(Path(outcome.out))}
    counts = {"versions": len(outcome.versions), **facts, "deaths": died}
    say(scores | curve | counts, as_json=False)


def _curve(out: Path) -> list[str]:
    """Return a few points of the learning curve in words, the last one among them."""
    from policies.finetuning.curve import CURVE
    from policies.metrics import read_lines

    points = read_lines(out / CURVE)
    step = max(1, -(-len(points) // CURVE_POINTS))
    some = points[(len(points) - 1) % step :: step] if points else []
    return [f"{point['return_mean']:.4g} at {point['env_steps']:,}" for point in some]
